"""Encoders of text of transformers."""

from __future__ import annotations

import torch

from zoo.entry import Inputs
from zoo.pypi.common import BATCH, LENGTH, VOCAB, hf, token_ids, tokens

BERT = {
    "vocab_size": VOCAB, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip
WIDTH = {"hidden_size": 64, "intermediate_size": 256}
EMBEDDED = {**WIDTH, "embedding_size": 32}

for kind in ("eager", "sdpa"):
    hf(f"bert-{kind}", "BertForMaskedLM", "BertConfig", WIDTH, token_ids, fixed=BERT,
       attention=kind)  # fmt: skip
hf("bert-classifier", "BertForSequenceClassification", "BertConfig", WIDTH, token_ids,
   fixed={**BERT, "num_labels": 3})  # fmt: skip
hf("roberta", "RobertaForMaskedLM", "RobertaConfig", WIDTH, token_ids, fixed=BERT)
hf("xlm-roberta-classifier", "XLMRobertaForSequenceClassification", "XLMRobertaConfig", WIDTH,
   token_ids, fixed={**BERT, "num_labels": 3})  # fmt: skip
hf("albert", "AlbertForMaskedLM", "AlbertConfig", EMBEDDED, token_ids, fixed=BERT)
hf("electra", "ElectraForMaskedLM", "ElectraConfig", EMBEDDED, token_ids, fixed=BERT)
hf("distilbert", "DistilBertForMaskedLM", "DistilBertConfig", {"dim": 64, "hidden_dim": 256},
   token_ids, fixed={"vocab_size": VOCAB, "n_layers": 2, "n_heads": 4,
                     "max_position_embeddings": 64})  # fmt: skip


def two_streams() -> Inputs:
    """Segments, and two tokens to be predicted: both of XLNet's streams."""
    target = torch.zeros(BATCH, 2, LENGTH)
    target[:, 0, 3] = target[:, 1, 7] = 1.0
    hidden = torch.zeros(BATCH, LENGTH, LENGTH)
    hidden[:, :, [3, 7]] = 1.0
    segments = torch.arange(LENGTH).ge(6).long().expand(BATCH, -1)
    return {
        "input_ids": tokens(),
        "token_type_ids": segments,
        "perm_mask": hidden,
        "target_mapping": target,
    }


RELATIVE = {
    **BERT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
    "max_relative_positions": 16, "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
hf("deberta", "DebertaForMaskedLM", "DebertaConfig", WIDTH, token_ids, fixed=RELATIVE)
hf("deberta-v2", "DebertaV2ForMaskedLM", "DebertaV2Config", WIDTH, token_ids,
   fixed={**RELATIVE, "position_buckets": 8, "share_att_key": True,
          "norm_rel_ebd": "layer_norm"})  # fmt: skip
hf("modernbert", "ModernBertForMaskedLM", "ModernBertConfig", WIDTH, token_ids,
   fixed={**BERT, "local_attention": 8, "global_attn_every_n_layers": 2, "bos_token_id": 1,
          "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2})  # fmt: skip
hf("esm", "EsmForMaskedLM", "EsmConfig", WIDTH, token_ids,
   fixed={**BERT, "mask_token_id": 3, "position_embedding_type": "rotary"})  # fmt: skip
hf("mpnet", "MPNetForMaskedLM", "MPNetConfig", WIDTH, token_ids, fixed=BERT)
hf("megatron-bert", "MegatronBertForMaskedLM", "MegatronBertConfig", WIDTH, token_ids, fixed=BERT)
hf("convbert", "ConvBertForMaskedLM", "ConvBertConfig", EMBEDDED, token_ids,
   fixed={**BERT, "conv_kernel_size": 5, "head_ratio": 2})  # fmt: skip
hf("fnet", "FNetForMaskedLM", "FNetConfig", WIDTH, token_ids,
   fixed={k: v for k, v in BERT.items() if k != "num_attention_heads"},
   refused="a Fourier transform along the width mixes all of it")  # fmt: skip
hf("layoutlm", "LayoutLMForMaskedLM", "LayoutLMConfig", WIDTH, token_ids, fixed=BERT)
hf("xlnet", "XLNetLMHeadModel", "XLNetConfig", {"d_model": 64, "d_inner": 256}, two_streams,
   fixed={"vocab_size": VOCAB, "n_layer": 2, "n_head": 4})  # fmt: skip
hf("funnel", "FunnelForMaskedLM", "FunnelConfig",
   {"d_model": 64, "d_head": 16, "d_inner": 256}, token_ids,
   fixed={"vocab_size": VOCAB, "block_sizes": [1, 1], "n_head": 4, "num_decoder_layers": 1,
          "max_position_embeddings": 64})  # fmt: skip
hf("roformer", "RoFormerForMaskedLM", "RoFormerConfig", EMBEDDED, token_ids, fixed=BERT)
hf("nystromformer", "NystromformerForMaskedLM", "NystromformerConfig", WIDTH, token_ids,
   fixed={**BERT, "num_landmarks": 4, "segment_means_seq_len": 12})  # fmt: skip
hf("squeezebert", "SqueezeBertForMaskedLM", "SqueezeBertConfig",
   {**WIDTH, "embedding_size": 64}, token_ids, fixed=BERT)  # fmt: skip
