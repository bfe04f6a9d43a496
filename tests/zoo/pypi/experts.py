"""Mixtures of experts of transformers."""

from __future__ import annotations

from zoo.pypi.common import hf, token_ids, two_sequences
from zoo.pypi.decoders import LLAMA, SIZED, WIDTH

ROUTED = {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2}
MOE_WIDTH = {**WIDTH, "moe_intermediate_size": 32}
LATENT = {
    **MOE_WIDTH, "q_lora_rank": 32, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16, "v_head_dim": 16,
}  # fmt: skip
DEEPSEEK = {
    **LLAMA, "num_key_value_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "n_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip

for kind in ("eager", "sdpa"):
    hf(f"mixtral-{kind}", "MixtralForCausalLM", "MixtralConfig", WIDTH, token_ids,
       fixed={**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
       attention=kind)  # fmt: skip
hf(
    "qwen2-moe",
    "Qwen2MoeForCausalLM",
    "Qwen2MoeConfig",
    {**MOE_WIDTH, "shared_expert_intermediate_size": 96},
    token_ids,
    fixed=ROUTED,
)
hf("qwen3-moe", "Qwen3MoeForCausalLM", "Qwen3MoeConfig", {**MOE_WIDTH, "head_dim": 16}, token_ids,
   fixed=ROUTED)  # fmt: skip
hf("olmoe", "OlmoeForCausalLM", "OlmoeConfig", WIDTH, token_ids, fixed=ROUTED)
hf("deepseek-v2", "DeepseekV2ForCausalLM", "DeepseekV2Config", LATENT, token_ids,
   fixed={**DEEPSEEK, "n_group": 2, "topk_group": 1})  # fmt: skip
hf("deepseek-v3", "DeepseekV3ForCausalLM", "DeepseekV3Config", LATENT, token_ids,
   fixed={**DEEPSEEK, "n_group": 2, "topk_group": 1})  # fmt: skip
hf("dbrx", "DbrxForCausalLM", "DbrxConfig", {"d_model": 64, "ffn": 96}, token_ids,
   widths=lambda d_model, ffn: {
       "d_model": d_model,
       "ffn_config": {"hidden_size": d_model, "ffn_hidden_size": ffn, "moe_num_experts": 4,
                      "moe_top_k": 2}},
   fixed={"vocab_size": 250, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "use_cache": False,
          "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}})  # fmt: skip
hf("gpt-oss", "GptOssForCausalLM", "GptOssConfig", {**WIDTH, "head_dim": 16}, token_ids,
   fixed={**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
   )  # fmt: skip
hf("granite-moe", "GraniteMoeForCausalLM", "GraniteMoeConfig", WIDTH, token_ids,
   fixed={**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2})  # fmt: skip
hf("switch", "SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig",
   {"d_model": 64, "d_kv": 16, "d_ff": 256}, two_sequences, output="logits",
   fixed={"vocab_size": 250, "num_layers": 2, "num_sparse_encoder_layers": 1, "num_heads": 4,
          "num_decoder_layers": 2, "num_sparse_decoder_layers": 1, "num_experts": 4,
          "use_cache": False})  # fmt: skip
hf("jamba", "JambaForCausalLM", "JambaConfig", {**WIDTH, "mamba_dt_rank": 4}, token_ids,
   fixed={**SIZED, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 4,
          "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
          "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 8,
          "use_mamba_kernels": False})  # fmt: skip
