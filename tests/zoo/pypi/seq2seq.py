"""Encoder-decoders of text of transformers."""

from __future__ import annotations

import torch

from zoo.entry import Inputs
from zoo.pypi.common import BATCH, LENGTH, VOCAB, hf, two_sequences

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
BART = {
    "vocab_size": VOCAB, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "max_position_embeddings": 64, "use_cache": False, **SPECIAL,
}  # fmt: skip
WIDTH = {"d_model": 64, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256}
T5 = {"vocab_size": VOCAB, "num_layers": 2, "num_heads": 4, "use_cache": False}
T5_WIDTH = {"d_model": 64, "d_kv": 16, "d_ff": 256}

hf("t5", "T5ForConditionalGeneration", "T5Config", T5_WIDTH, two_sequences, fixed=T5)
hf("t5-gated", "T5ForConditionalGeneration", "T5Config", T5_WIDTH, two_sequences,
   fixed={**T5, "feed_forward_proj": "gated-gelu"})  # fmt: skip
hf("mt5", "MT5ForConditionalGeneration", "MT5Config", T5_WIDTH, two_sequences, fixed=T5)
hf("umt5", "UMT5ForConditionalGeneration", "UMT5Config", T5_WIDTH, two_sequences, fixed=T5)
hf("longt5", "LongT5ForConditionalGeneration", "LongT5Config", T5_WIDTH, two_sequences,
   fixed={**T5, "local_radius": 4, "encoder_attention_type": "local"})  # fmt: skip
for kind in ("eager", "sdpa"):
    hf(f"bart-{kind}", "BartForConditionalGeneration", "BartConfig", WIDTH, two_sequences,
       fixed=BART, attention=kind)  # fmt: skip
hf("mbart", "MBartForConditionalGeneration", "MBartConfig", WIDTH, two_sequences, fixed=BART)
hf("pegasus", "PegasusForConditionalGeneration", "PegasusConfig", WIDTH, two_sequences, fixed=BART)
hf("marian", "MarianMTModel", "MarianConfig", WIDTH, two_sequences, fixed=BART)
hf("blenderbot", "BlenderbotForConditionalGeneration", "BlenderbotConfig", WIDTH, two_sequences,
   fixed=BART)  # fmt: skip
hf("m2m-100", "M2M100ForConditionalGeneration", "M2M100Config", WIDTH, two_sequences, fixed=BART)


def with_global_attention() -> Inputs:
    """The first token sees all, and all see it."""
    first = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    first[:, 0] = 1
    return {**two_sequences(), "global_attention_mask": first}


hf("led", "LEDForConditionalGeneration", "LEDConfig", WIDTH, with_global_attention,
   fixed={**{k: v for k, v in BART.items() if k != "max_position_embeddings"},
          "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64,
          "attention_window": 4})  # fmt: skip
hf("prophetnet", "ProphetNetForConditionalGeneration", "ProphetNetConfig",
   {"hidden_size": 64, "encoder_ffn_dim": 256, "decoder_ffn_dim": 256}, two_sequences,
   fixed={"vocab_size": VOCAB, "num_encoder_layers": 2, "num_decoder_layers": 2,
          "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4,
          "max_position_embeddings": 64, "use_cache": False, **SPECIAL})  # fmt: skip
