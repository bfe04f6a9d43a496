"""Runs one recorded operation again, by itself, and counts what feeds what; see ``fans``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from zoo.recording import Alias, Blank, Call, Record, tensors

FAINT = 0.15
"""A gradient below this part of the largest is not a term of the sum but a correction to all terms:
that of the norm of n entries by which a weight is divided is about 1/n. Numbers are drawn between
3/4 and 5/4, so that the terms of products of three differ by less."""
MOST = 0.6
"""Of a dimension that a sum runs over, this part is surely seen: a factor that is normalised has
small entries, too, whose terms are faint."""
SAMPLES = 4


class Replay:
    """Runs calls again from fresh numbers, differentiable with respect to every parameter."""

    def __init__(self, record: Record, draw: str, seed: int = 0) -> None:
        self._record, self._draw = record, draw
        self._generator = torch.Generator().manual_seed(seed)
        self.leaves: dict[str, Tensor] = {}
        self.active: list[Tensor] = []
        self._made: dict[int, Tensor] = {}

    def run(self, call: Call, own: dict[int, Tensor] | None = None) -> Tensor:
        """The call's first floating result. ``own``: leaves to put in place of alias arguments."""
        results = self._results(call, own or {})
        return _real(next(x for x in results if x.is_floating_point() or x.is_complex()))

    def _results(self, call: Call, own: dict[int, Tensor]) -> list[Tensor]:
        numbers = itertools.count()

        def value(x: Any) -> Any:
            if isinstance(x, Alias):
                number = next(numbers)
                return own[number] if number in own else self.alias(x)
            return self._blank(x) if isinstance(x, Blank) else x

        args, kwargs = tree_map(value, (call.args, call.kwargs), is_leaf=_is_spec)
        return list(tensors(call.op(*args, **kwargs)))

    def alias(self, alias: Alias) -> Tensor:
        """A view of a parameter, or of what was made of parameters."""
        whole = self._whole(alias.storage)
        first = self._record.leaves.get(alias.storage)
        offset = alias.offset - (first.storage_offset() if first is not None else 0)
        return torch.as_strided(whole, alias.size, alias.stride, offset)

    def _whole(self, storage: int) -> Tensor:
        if storage in self._made:
            return self._made[storage]
        if storage in self._record.names:
            p = self._record.leaves[storage]
            made = self._numbers(tuple(p.shape), p.dtype).requires_grad_()
            self.leaves[self._record.names[storage]] = made
        else:
            call, number = self._record.recipes[storage]
            made = self._results(call, {})[number]
        self._made[storage] = made
        return made

    def _blank(self, blank: Blank) -> Tensor:
        made = self._numbers(blank.shape, blank.dtype)
        if blank.active and self._draw == "ones":
            self.active.append(made.requires_grad_())
            return made.clone()  # an operation may write into it
        return made

    def _numbers(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self._draw == "ones":
            return torch.ones(shape, dtype=dtype)
        if self._draw == "signed":
            return torch.randn(shape, generator=self._generator, dtype=dtype)
        drawn = torch.rand(shape, generator=self._generator, dtype=dtype)
        return drawn / 2 + torch.full_like(drawn, 0.75)


def _is_spec(x: object) -> bool:
    return isinstance(x, Alias | Blank)


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def pieces_by_weight(
    record: Record, use: Call, reads: list[Alias]
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Into which pieces the readers of the result cut each weight, by parameter and dimension."""
    replay = Replay(record, "positive")
    out = replay.run(use)
    if len(reads) < 2 or not out.requires_grad:
        return {}
    touched: dict[str, list[list[frozenset[int]]]] = {}
    for view in reads:
        if view.offset + sum((n - 1) * s for n, s in zip(view.size, view.stride, strict=True)) >= (
            out.numel()
        ):
            return {}
        piece = torch.as_strided(out, view.size, view.stride, view.offset)
        ones = torch.ones_like(piece)
        leaves = [*replay.leaves.values()]
        grads = torch.autograd.grad(piece, leaves, ones, retain_graph=True, allow_unused=True)
        for name, grad in zip(replay.leaves, grads, strict=True):
            if grad is not None and grad.any():
                touched.setdefault(name, []).append(_indices_of(grad))
    return {
        name: tuple(
            _cut([sets[d] for sets in found], size)
            for d, size in enumerate(replay.leaves[name].shape)
        )
        for name, found in touched.items()
    }


def _indices_of(grad: Tensor) -> list[frozenset[int]]:
    """Over which indices of each dimension the nonzero entries are spread."""
    return [frozenset(index.tolist()) for index in grad.nonzero(as_tuple=True)]


def _cut(sets: list[frozenset[int]], size: int) -> tuple[int, ...]:
    """The sizes of several sets of indices in order, where they are a partition."""
    unique = sorted(set(sets), key=min)
    if len(unique) < 2 or sum(map(len, unique)) != size or len(frozenset().union(*unique)) != size:
        return ()
    return tuple(map(len, unique))


def entries_by_weight(record: Record, call: Call) -> dict[str, tuple[int, tuple[int, ...]]]:
    """By parameter: the most entries that feed one output coordinate, and their extents."""
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    for draw in ("positive", "signed"):
        if draw == "signed" and all(n for n, _ in found.values()):
            break  # else: an operation may let only negative numbers through (prelu)
        replay = Replay(record, draw)
        out = replay.run(call).flatten()
        names, leaves = list(replay.leaves), list(replay.leaves.values())
        for j in _samples(out, leaves):
            grads = torch.autograd.grad(out[j], leaves, retain_graph=True, allow_unused=True)
            for name, grad in zip(names, grads, strict=True):
                fan_in, extents = extents_of(grad)
                known = found.get(name, (0, extents))
                most = tuple(map(max, known[1], extents)) if extents else known[1]
                found[name] = max(known[0], fan_in), most
    return {name: (n, extents) for name, (n, extents) in found.items() if n}


def extents_of(grad: Tensor | None) -> tuple[int, tuple[int, ...]]:
    if grad is None:
        return 0, ()
    size = _real(grad).abs().sum(-1) if grad.is_complex() else grad.abs()
    mask = size > FAINT * size.max().nan_to_num()
    spread = []
    for d in range(mask.dim()):
        others = [i for i in range(mask.dim()) if i != d]
        spread.append(int((mask.any(dim=others) if others else mask).sum()))
    spread = [n if s > MOST * n else s for n, s in zip(mask.shape, spread, strict=True)]
    box = math.prod(spread)
    return box if int(mask.sum()) > MOST * box else int(mask.sum()), tuple(spread)


def _samples(out: Tensor, leaves: list[Tensor]) -> list[int]:
    """A few output coordinates: the middle one reads a whole kernel where an edge is padded.

    Where a weight has its own coordinates (it is concatenated to an activation), one of them.
    """
    if not out.requires_grad:
        return []
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(0, out.numel(), (SAMPLES - 1,), generator=generator).tolist()
    return sorted({out.numel() // 2, *drawn, *_own(out, leaves)})


def _own(out: Tensor, leaves: list[Tensor]) -> Iterator[int]:
    """For each weight an output coordinate that reads it, found by differentiating twice."""
    ones = torch.ones_like(out, requires_grad=True)
    grads = torch.autograd.grad(out, leaves, ones, create_graph=True, allow_unused=True)
    for grad in grads:
        if grad is None or not grad.requires_grad or not grad.numel():
            continue
        try:
            (reads,) = torch.autograd.grad(grad.sum(), ones, retain_graph=True, allow_unused=True)
        except NotImplementedError:  # an operation whose backward has no derivative
            continue
        if reads is not None:
            yield int(reads.abs().argmax())


def outputs_fed(record: Record, call: Call) -> int:
    """How many outputs one input coordinate feeds: backward from the sum, all set to ones."""
    replay = Replay(record, "ones")
    out = replay.run(call)
    if len(replay.active) != 1 or not out.requires_grad:
        return 0  # of a product of two inputs, backward counts the other's coordinates, too
    grads = torch.autograd.grad(out, replay.active, torch.ones_like(out), allow_unused=True)
    most = max((float(g.abs().max()) for g in grads if g is not None and g.numel()), default=0.0)
    return round(most) if math.isfinite(most) else 0
