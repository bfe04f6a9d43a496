"""Results of operations on meta, remembered by geometry."""

from __future__ import annotations

from typing import Any

import torch

from automup.capture.tensors import Traits

_META = torch.device("meta")


class Results:
    """Meta results by operation and geometry: the layers of a deep model ask the same again.

    torch computes many of them in Python, which is most of the time of a trace.
    """

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def run(self, traits: Traits, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operation's result on meta; views and writes are always run."""
        func = _LENIENT.get(id(traits.func), traits.func)
        if not traits.functional:
            return args[0] if traits.stays and args[0].is_meta else func(*args, **kwargs)
        try:
            key = (id(func), _geometry(args), _geometry(kwargs) if kwargs else ())
            made = self._known.get(key)
        except TypeError:  # an argument that cannot be hashed
            return func(*args, **kwargs)
        if made is None:
            out = func(*args, **kwargs)
            if all(type(x) is torch.Tensor for x in (out if type(out) is tuple else (out,))):
                self._known[key] = _geometry(out)
            return out
        return _empty(made)


def _grouped_mm(
    a: torch.Tensor,
    b: torch.Tensor,
    offsets: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """(m, k) x (g, k, n) -> (m, n), and so on; torch's own takes only bfloat16 on meta."""
    groups = a.shape[:1] if a.dim() == b.dim() == 3 else ()
    if a.dim() == b.dim() == 2 and offsets is not None:
        groups = offsets.shape
    size = (*groups, a.shape[-2], b.shape[-1])
    return torch.empty(size, dtype=out_dtype or a.dtype, device=_META)


_LENIENT: dict[int, Any] = {
    id(packet.default): result
    for packet, result in ((getattr(torch.ops.aten, "_grouped_mm", None), _grouped_mm),)
    if packet is not None  # older ones have none
}
"""Operations that torch runs on fewer dtypes on meta than elsewhere."""


def _geometry(value: Any) -> Any:
    """What a meta result depends on: sizes, strides and dtypes of tensors, all other values."""
    if isinstance(value, torch.Tensor):
        return (_TENSOR, value.shape, value.stride(), value.dtype)
    kind = type(value)
    if kind is tuple or kind is list:
        return tuple([_geometry(item) for item in value])
    if kind is dict:
        return tuple([(key, _geometry(item)) for key, item in value.items()])
    return (kind, value)


_TENSOR = object()


def _empty(geometry: Any) -> Any:
    """Meta tensors of a recorded geometry."""
    if geometry[0] is _TENSOR:
        return torch.empty_strided(geometry[1], geometry[2], dtype=geometry[3], device=_META)
    return tuple(_empty(item) for item in geometry)
