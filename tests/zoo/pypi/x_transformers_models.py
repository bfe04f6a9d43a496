"""Models of x-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from zoo.entry import Entry, register
from zoo.pypi.common import VOCAB, tokens, whole

LAYERS = {"depth": 2, "heads": 4}
WIDTH = {"dim": 64, "attn_dim_head": 16}
ROTARY = {"dim": 64, "attn_dim_head": 64}
"""Half of a head is turned, and x-transformers asks for 32 coordinates at least."""


def x_transformer(
    name: str,
    kind: str,
    fixed: Mapping[str, Any],
    wrapper: Mapping[str, Any] | None = None,
    base: Mapping[str, Any] = WIDTH,
) -> Entry:
    def build(**knobs: Any) -> nn.Module:
        import x_transformers

        layers = getattr(x_transformers, kind)(**{**LAYERS, **fixed, **knobs})
        made = x_transformers.TransformerWrapper(
            num_tokens=VOCAB, max_seq_len=64, attn_layers=layers, **(wrapper or {})
        )
        assert isinstance(made, nn.Module)
        return made

    return register(
        Entry(f"x-transformers/{name}", "x-transformers", build, base, lambda: (tokens(),), whole)
    )


x_transformer("decoder", "Decoder", {})
x_transformer("decoder-flash", "Decoder", {"attn_flash": True})
x_transformer("decoder-tied", "Decoder", {}, {"tie_embedding": True})
x_transformer("encoder", "Encoder", {})
x_transformer("encoder-rotary-flash", "Encoder",
              {"rotary_pos_emb": True, "attn_flash": True, "use_rmsnorm": True,
               "ff_glu": True}, base=ROTARY)  # fmt: skip
x_transformer("llama-like", "Decoder",
              {"rotary_pos_emb": True, "use_rmsnorm": True, "ff_glu": True, "ff_swish": True,
               "ff_no_bias": True}, {"use_abs_pos_emb": False}, ROTARY)  # fmt: skip
x_transformer("alibi", "Decoder", {"alibi_pos_bias": True, "alibi_num_heads": 2})
x_transformer("relative-bias", "Decoder", {"rel_pos_bias": True})
x_transformer("qk-norm", "Decoder", {"attn_qk_norm": True})
x_transformer("one-kv-head", "Decoder", {"attn_one_kv_head": True})
x_transformer("scale-norm", "Decoder", {"use_scalenorm": True})
x_transformer("sandwich", "Decoder", {"sandwich_norm": True})
x_transformer(
    "talking-heads", "Decoder", {"attn_pre_talking_heads": True, "attn_post_talking_heads": True}
)
x_transformer("embedding-norm", "Decoder", {}, {"post_emb_norm": True, "emb_dim": 32})
