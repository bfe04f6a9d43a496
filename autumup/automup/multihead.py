"""A multiplier for the logits of torch's own ``nn.MultiheadAttention``, in one instance.

Its code takes no scale, but it calls one of two functions for the projections of query, key and
value: the instance calls copies that scale the projected query, in which the logits are linear. In
eval mode torch's fused kernels would bypass that code; a module that says that its projections are
separate gets none, neither by itself nor in ``nn.TransformerEncoderLayer``. Parameters, their names
and the state_dict stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from automup.reach import Path, Step
from automup.recompile import Wrapping, apply_patch

_PROJECTIONS = ("_in_projection_packed", "_in_projection")


def scale_logits(module: nn.MultiheadAttention, factor: float) -> None:
    """Multiply the attention logits of this instance, and of no other, by a factor.

    Nothing happens where a class of the author's does not come to torch's own ``forward``.
    """
    module._qkv_same_embed_dim = False
    base = _author(module).__mro__.index(nn.MultiheadAttention)
    attend = (
        Step("member", "forward", base),
        Step("global", "F.multi_head_attention_forward"),
    )
    apply_patch(module, Wrapping(attend, packed_if_fused, 1.0))
    scale_projected_query(module, attend, factor)


def scale_projected_query(module: nn.Module, attend: Path, factor: float) -> None:
    """Multiply the logits of torch's ``multi_head_attention_forward`` by a factor.

    Args:
        module: whose code calls it.
        attend: how the module leads to it.
        factor: 1 leaves its numbers as they are.
    """
    for name in _PROJECTIONS:
        apply_patch(module, Wrapping((*attend, Step("global", name)), with_scaled_query, factor))


def without_nested_tensors(model: nn.Module) -> None:
    """Keep torch's encoders from nested tensors, which only its fused kernels can take."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and not all(
            part._qkv_same_embed_dim
            for part in module.modules()
            if isinstance(part, nn.MultiheadAttention)
        ):
            module.use_nested_tensor = False


def _author(module: nn.Module) -> type:
    """The module's class without patches."""
    kind: type = getattr(type(module), "_automup_class", type(module))
    return kind


def with_scaled_query(project: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """A projection to query, key and value, with the query times a factor."""

    def projected(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        query, *rest = project(*args, **kwargs)
        return (query * factor, *rest)

    return projected


def packed_if_fused(attend: Callable[..., Any], factor: float) -> Callable[..., Any]:
    """Attention that does one product for three projections whose weights are one tensor."""

    def attended(
        query: Any,
        key: Any,
        value: Any,
        embed_dim: int,
        heads: int,
        weight: Any,
        *args: Any,
        use_separate_proj_weight: bool = False,
        **kwargs: Any,
    ) -> Any:
        return attend(
            query,
            key,
            value,
            embed_dim,
            heads,
            weight,
            *args,
            use_separate_proj_weight=weight is None,
            **kwargs,
        )

    return attended
