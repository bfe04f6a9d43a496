"""GPT-3 175B's shape at a small width: same depth, same heads' size."""

from transformers import GPT2Config, GPT2LMHeadModel


def gpt3(n_embd: int = 1024, n_head: int = 8) -> GPT2LMHeadModel:
    """The full shape: n_embd=12288, n_head=96."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=50257,
            n_embd=n_embd,
            n_layer=96,
            n_head=n_head,
            n_positions=2048,
            use_cache=False,
        )
    )
