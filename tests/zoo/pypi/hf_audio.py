"""Audio models of transformers."""

from __future__ import annotations

from zoo.entry import Inputs
from zoo.pypi.common import BATCH, CLASSES, VOCAB, hf, noise, tokens
from zoo.pypi.seq2seq import BART, WIDTH

WAVE = {
    "vocab_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3], "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
WAVE_WIDTH = {"hidden_size": 64, "intermediate_size": 256, "conv_dim": [32, 32, 32]}


def spectrogram() -> Inputs:
    return {"input_features": noise(BATCH, 16, 64), "decoder_input_ids": tokens(8)}


def wave() -> Inputs:
    return {"input_values": noise(BATCH, 800)}


for kind in ("eager", "sdpa"):
    hf(f"whisper-{kind}", "WhisperForConditionalGeneration", "WhisperConfig", WIDTH, spectrogram,
       fixed={**{k: v for k, v in BART.items() if k != "max_position_embeddings"},
              "num_mel_bins": 16, "max_source_positions": 32, "max_target_positions": 64},
       attention=kind)  # fmt: skip
hf("wav2vec2", "Wav2Vec2ForCTC", "Wav2Vec2Config", WAVE_WIDTH, wave, fixed=WAVE)
hf("wav2vec2-layer-norm", "Wav2Vec2ForCTC", "Wav2Vec2Config", WAVE_WIDTH, wave,
   fixed={**WAVE, "feat_extract_norm": "layer", "do_stable_layer_norm": True,
          "conv_bias": True})  # fmt: skip
hf("hubert", "HubertForCTC", "HubertConfig", WAVE_WIDTH, wave, fixed=WAVE)
hf("wavlm", "WavLMForCTC", "WavLMConfig", WAVE_WIDTH, wave, fixed=WAVE)
hf("data2vec-audio", "Data2VecAudioForCTC", "Data2VecAudioConfig", WAVE_WIDTH, wave,
   fixed={**WAVE, "conv_pos_kernel_size": 7, "num_conv_pos_embeddings": 2})  # fmt: skip
hf("wav2vec2-conformer", "Wav2Vec2ConformerForCTC", "Wav2Vec2ConformerConfig", WAVE_WIDTH, wave,
   fixed={**WAVE, "position_embeddings_type": "rotary",
          "conv_depthwise_kernel_size": 5})  # fmt: skip
hf("sew", "SEWForCTC", "SEWConfig", WAVE_WIDTH, wave,
   fixed={**WAVE, "squeeze_factor": 2})  # fmt: skip
hf("spectrogram-transformer", "ASTForAudioClassification", "ASTConfig",
   {"hidden_size": 64, "intermediate_size": 256},
   lambda: {"input_values": noise(BATCH, 64, 32)},
   fixed={"num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8, "max_length": 64,
          "num_mel_bins": 32, "frequency_stride": 8, "time_stride": 8,
          "num_labels": CLASSES})  # fmt: skip
hf("speech-to-text", "Speech2TextForConditionalGeneration", "Speech2TextConfig",
   {**WIDTH, "conv_channels": 64},
   lambda: {"input_features": noise(BATCH, 64, 16), "decoder_input_ids": tokens(8)},
   fixed={"vocab_size": VOCAB, "encoder_layers": 2, "decoder_layers": 2,
          "encoder_attention_heads": 4, "decoder_attention_heads": 4, "input_feat_per_channel": 16,
          "max_source_positions": 64, "max_target_positions": 64, "use_cache": False,
          "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
          "decoder_start_token_id": 1})  # fmt: skip
