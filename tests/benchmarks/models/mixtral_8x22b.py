"""Mixtral 8x22B's shape at a small width: same depth, same heads' size, the same 8 key heads."""

from transformers import MixtralConfig, MixtralForCausalLM


def mixtral(
    hidden_size: int = 2048, num_attention_heads: int = 16, intermediate_size: int = 5504
) -> MixtralForCausalLM:
    """The full shape: hidden_size=6144, num_attention_heads=48, intermediate_size=16384."""
    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=32768,
            hidden_size=hidden_size,
            num_hidden_layers=56,
            num_attention_heads=num_attention_heads,
            num_key_value_heads=8,
            head_dim=128,
            intermediate_size=intermediate_size,
            num_local_experts=8,
            num_experts_per_tok=2,
            max_position_embeddings=65536,
            tie_word_embeddings=False,
            use_cache=False,
        )
    )
