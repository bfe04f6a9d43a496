"""Llama 3.1 405B's shape at a small width: same depth, same heads' size, the same 8 key heads."""

from transformers import LlamaConfig, LlamaForCausalLM


def llama(
    hidden_size: int = 2048, num_attention_heads: int = 16, intermediate_size: int = 6656
) -> LlamaForCausalLM:
    """The full shape: hidden_size=16384, num_attention_heads=128, intermediate_size=53248."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=128256,
            hidden_size=hidden_size,
            num_hidden_layers=126,
            num_attention_heads=num_attention_heads,
            num_key_value_heads=8,
            head_dim=128,
            intermediate_size=intermediate_size,
            max_position_embeddings=131072,
            tie_word_embeddings=False,
            use_cache=False,
        )
    )
