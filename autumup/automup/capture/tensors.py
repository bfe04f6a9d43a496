"""What an operation reads and writes, and how large the entries of a tensor are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch


def magnitudes(real: torch.Tensor) -> tuple[float | None, float | None]:
    """The root mean square of a tensor's entries that count, and of several the largest.

    None where there are none to see.
    """
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        if real.dtype is torch.bool and real.numel() > 1 and real.device.type == "cpu":
            share = int(real.count_nonzero()) / real.numel()  # a mask is large, and read every run
            return math.sqrt(share), float(share > 0)
        sizes = _sizes(real)
        if sizes is None or real.numel() == 1:
            return (None if sizes is None else float(sizes)), None
        if not sizes.numel():
            return 0.0, 0.0
        return float(sizes.square().mean().sqrt()), float(sizes.max())


def _sizes(real: torch.Tensor) -> torch.Tensor | None:
    """The sizes of the entries: not those of a mask, -inf or the least number of its dtype."""
    if real.numel() == 0 or real.device.type != "cpu":
        return None
    plain = real.detach()
    sizes = plain.abs().double() if plain.is_complex() else plain.double().abs()
    return sizes if sizes.numel() == 1 else sizes[sizes < MASKED]


MASKED = 1e4
"""Larger constants are masks: what they are added to does not matter."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What an operation's schema says of it.

    ``writes``: the positions and names of the arguments that it writes. ``stays``: it overwrites
    one tensor whole and reads no other, so on meta there is nothing to do. ``functional``: its
    results share no memory with its arguments.
    """

    func: Any
    writes: tuple[tuple[int, str], ...]
    functional: bool
    deterministic: bool
    takes_device: bool
    overwrites: bool
    stays: bool
    reads_no_values: bool


_known: dict[int, Traits] = {}


def traits_of(func: Any) -> Traits:
    """The traits of an operation, worked out once (an OpOverload's own hash is slow Python)."""
    traits = _known.get(id(func))
    if traits is None:
        traits = _known[id(func)] = _traits(func)
    return traits


def _traits(func: Any) -> Traits:
    schema = func._schema
    arguments, returns = schema.arguments, schema.returns
    name = schema.name.removeprefix("aten::")
    drawn = torch.Tag.nondeterministic_seeded in func.tags
    return Traits(
        func=func,
        writes=tuple(
            (i, a.name)
            for i, a in enumerate(arguments)
            if a.alias_info is not None and a.alias_info.is_write
        ),
        functional=not any(a.alias_info for a in (*arguments, *returns)),
        # random draws, and memory that nobody has written yet
        deterministic=not drawn and "empty" not in schema.name,
        takes_device=any(a.name == "device" for a in arguments),
        overwrites=func in _OVERWRITES,
        stays=func in _FILLS
        or (drawn and name.endswith("_") and sum("Tensor" in str(a.type) for a in arguments) == 1),
        reads_no_values=name.startswith("new_") or name.endswith("_like"),
    )


_aten = torch.ops.aten
_FILLS = {_aten.fill_.Scalar, _aten.zero_.default}
_OVERWRITES = {*_FILLS, _aten.fill_.Tensor, _aten.copy_.default}


def tensors_read(traits: Traits, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors whose values have a part in the result."""
    if traits.reads_no_values:
        return []
    if traits.overwrites and tensors and is_whole(tensors[0]):
        return tensors[1:]
    return tensors


def is_whole(tensor: torch.Tensor) -> bool:
    """Whether a tensor is all of its storage."""
    return tensor.numel() * tensor.element_size() == int(tensor.untyped_storage().nbytes())


def storage_of(tensor: torch.Tensor) -> int:
    """A number that tensors share if they share memory."""
    return int(tensor.untyped_storage()._cdata)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors in an operation's arguments, which nest only tuples, lists and dicts."""
    found: list[torch.Tensor] = []
    _gather(value, found)
    return found


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """An operation's arguments with something else in the place of each leaf."""
    kind = type(value)
    if kind is tuple:
        return tuple([mapped(change, item) for item in value])
    if isinstance(value, list | tuple):
        return [mapped(change, item) for item in value]
    if kind is dict:
        return {key: mapped(change, item) for key, item in value.items()}
    return change(value)


def _gather(value: Any, found: list[torch.Tensor]) -> None:
    kind = type(value)
    if kind in _NUMBERS:
        return
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, tuple | list):
        for item in value:
            _gather(item, found)
    elif kind is dict:
        for item in value.values():
            _gather(item, found)


_NUMBERS = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device})


def written_tensors(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[torch.Tensor]:
    """The tensors that an operation's schema says it writes."""
    for position, name in traits_of(func).writes:
        value = args[position] if position < len(args) else kwargs.get(name)
        yield from tensors_in(value)
