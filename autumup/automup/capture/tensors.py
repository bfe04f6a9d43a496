"""What an operation reads and writes, and how large the entries of a tensor are."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch


def root_mean_square(real: torch.Tensor) -> float | None:
    """The root mean square of a tensor's entries that count; None where there are none to see."""
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        sizes = _sizes(real)
        if sizes is None or real.numel() == 1:
            return None if sizes is None else float(sizes)
        return float(sizes.square().mean().sqrt()) if sizes.numel() else 0.0


def largest(real: torch.Tensor) -> float | None:
    """The largest of a tensor's entries that count; None where there are none to see."""
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        sizes = _sizes(real)
        return None if sizes is None else float(sizes.max()) if sizes.numel() else 0.0


def _sizes(real: torch.Tensor) -> torch.Tensor | None:
    """The sizes of the entries: not those of a mask, -inf or the least number of its dtype."""
    if real.numel() == 0 or real.device.type != "cpu":
        return None
    plain = real.detach()
    sizes = plain.abs().double() if plain.is_complex() else plain.double().abs()
    return sizes if sizes.numel() == 1 else sizes[sizes < MASKED]


MASKED = 1e4
"""Larger constants are masks: what they are added to does not matter."""


@functools.cache
def _reads_no_values(func: Any) -> bool:
    """True for operations of whose tensor arguments only the shape matters."""
    name = func._schema.name.removeprefix("aten::")
    return bool(name.startswith("new_") or name.endswith("_like"))


def tensors_read(func: Any, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors whose values have a part in the result."""
    if _reads_no_values(func):
        return []
    whole = tensors and tensors[0].numel() * tensors[0].element_size() == _bytes(tensors[0])
    if func in _OVERWRITES and whole:
        return tensors[1:]
    return tensors


def _bytes(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().nbytes())


_aten = torch.ops.aten
_OVERWRITES = {
    _aten.fill_.Scalar, _aten.fill_.Tensor, _aten.zero_.default, _aten.copy_.default,
}  # fmt: skip


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors in an operation's arguments, which nest only tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [x for item in value for x in tensors_in(item)] if value else []
    return [x for item in value.values() for x in tensors_in(item)] if type(value) is dict else []


@functools.cache
def takes_device(func: Any) -> bool:
    return any(a.name == "device" for a in func._schema.arguments)


@functools.cache
def is_deterministic(func: Any) -> bool:
    """False for random draws and for memory that nobody has written yet."""
    if torch.Tag.nondeterministic_seeded in func.tags:
        return False
    return "empty" not in func._schema.name


def written_tensors(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[torch.Tensor]:
    """The tensors that an operation's schema says it writes."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            yield from tensors_in(value)
