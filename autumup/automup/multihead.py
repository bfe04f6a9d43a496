"""A multiplier for the logits of torch's own ``nn.MultiheadAttention``, in one instance.

Its code takes no scale, and in eval mode torch's fused kernels bypass it. The logits are linear in
the projected query W_q x + b_q, so the instance's class scales the query and b_q, and shows torch
separate projections (views of the fused weight), for which there is no fused kernel: eval and train
run the same code. Parameters, their names and the state_dict stay as they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn


def scale_logits(module: nn.MultiheadAttention, factor: float) -> None:
    """Multiply the attention logits of this instance, and of no other, by a factor."""
    earlier = getattr(module, "_automup_scale", 1.0)
    module._automup_scale = earlier * factor  # type: ignore[assignment]
    module._qkv_same_embed_dim = False
    kind: Any = type(module)
    module.__class__ = _scaled_class(getattr(kind, "_automup_class", kind))


@cache
def _scaled_class(cls: Any) -> Any:
    def forward(self: Any, query: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return cls.forward(self, query * self._automup_scale, *args, **kwargs)

    body = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__reduce_ex__": _reduce,
        "_automup_class": cls,
        "forward": forward,
        "in_proj_bias": property(_scaled_bias),
        **{name: property(_part(name, i)) for i, name in enumerate(_PARTS)},
    }
    return type(cls)(cls.__name__, (cls,), body)


_PARTS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def _part(name: str, index: int) -> Any:
    """The weight of one projection: its own where torch keeps three, else a third of the fused."""

    def weight(self: Any) -> Any:
        own, fused = self._parameters[name], self._parameters["in_proj_weight"]
        return own if fused is None else fused.chunk(3)[index]

    return weight


def _scaled_bias(self: Any) -> Any:
    bias = self._parameters["in_proj_bias"]
    if bias is None:
        return None
    query, rest = bias.split([self.embed_dim, 2 * self.embed_dim])
    return torch.cat([query * self._automup_scale, rest])


def _reduce(self: nn.Module, protocol: int) -> tuple[Any, ...]:
    """Pickle by the original class, so that a saved model keeps its multiplier."""
    return _rebuild, (type(self)._automup_class,), self.__dict__  # type: ignore[attr-defined]


def _rebuild(cls: Any) -> Any:
    scaled = _scaled_class(cls)
    return scaled.__new__(scaled)
