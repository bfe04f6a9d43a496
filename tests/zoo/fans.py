"""An oracle of roles that shares no code with the analysis: it counts on the real model.

Every operation that reads a weight is run again, by itself, with random positive numbers in place
of the weight and of what it meets, and asked through autograd which entries of the weight feed one
output coordinate: how many there are is fan_in, whatever the operation is and whatever views lie
between. (With positive numbers nothing cancels; for a bilinear operation the count is what the
operation returns when both are set to ones.) Backward from the sum of all outputs, with ones, tells
how many outputs one input coordinate feeds. Done at two widths, the growth of these counts is
r_i, and the growth of the entries that one output does *not* read is r_o: axes that are written
and axes that are carried along (DESIGN 3.1). A weight with several uses takes the one whose fan_in
grows least (DESIGN 3.3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from zoo.recording import Alias, Blank, Call, Record, Recorder, call, tensors

FAINT = 0.15
"""A gradient below this part of the largest is not a term of the sum but a correction to all terms:
that of the norm of n entries by which a weight is divided is about 1/n. Numbers are drawn between
3/4 and 5/4, so that the terms of products of three differ by less."""
MOST = 0.6
"""Of a dimension that a sum runs over, this part is surely seen: a factor that is normalised has
small entries, too, whose terms are faint."""
SAMPLES = 4
Growing = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Count:
    """One use of a weight: ``fan_in`` of its entries feed an output coordinate.

    ``extents``: over how many indices of each of its dimensions those entries are spread;
    ``feeds``: how many outputs one input coordinate reaches (0: not a bilinear operation);
    ``pieces``: for each dimension, into how many indices each the operations that read the result
    cut it (nothing where they overlap, or all read all of it).
    """

    op: str
    fan_in: int
    extents: tuple[int, ...]
    feeds: int
    pieces: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Fans:
    """What the counts at two widths say of a weight: the dimensions and growth of both fans.

    ``fixed``: of a fused weight, the rows that belong to pieces that do not grow beside pieces that
    do; r_out is then that of the others.
    """

    fan_in_dims: tuple[int, ...]
    fan_out_dims: tuple[int, ...]
    r_in: float
    r_out: float
    problem: str = ""
    fixed: int = 0

    @property
    def role(self) -> str:
        if self.r_in > 1:
            return "hidden" if self.r_out > 1 else "output"
        return "input" if self.r_out > 1 else "scalar"


def count_fans(narrow: nn.Module, wide: nn.Module, inputs: Any) -> dict[str, Fans]:
    """The fans of every parameter that the forward uses, by its first name."""
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (narrow, wide)]
    growing = {
        name: tuple(d for d, (a, b) in enumerate(zip(shape, shapes[1][name], strict=True)) if b > a)
        for name, shape in shapes[0].items()
    }
    counted = [count_uses(model, inputs, growing) for model in (narrow, wide)]
    return {
        name: _fans(counted[0][name], counted[1].get(name, []), *(s[name] for s in shapes))
        for name in counted[0]
    }


def count_uses(model: nn.Module, inputs: Any, growing: Growing) -> dict[str, list[Count | None]]:
    """All distinct uses of every growing parameter; None where two matrices meet each other."""
    parameters = {n: p for n, p in model.named_parameters() if growing[n]}
    record = run(model, parameters, inputs, growing)
    found: dict[str, list[Count | None]] = {}
    seen: set[Any] = set()
    for use, reads in zip(record.uses, record.reads, strict=True):
        key = use.key, tuple((a.size, a.stride, a.offset) for a in reads)
        if key in seen or _is_empty(use):
            continue
        seen.add(key)
        for name, count in _count(record, use, reads).items():
            if count not in found.setdefault(name, []):
                found[name].append(count)
    return found


def run(
    model: nn.Module, parameters: dict[str, nn.Parameter], inputs: Any, growing: Growing
) -> Record:
    """Run the model once, in eval mode, and record how it uses its parameters."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operation reads all weights there
    try:
        recorder = Recorder(parameters, dict(growing), inputs, _contracts)
        with torch.backends.mkldnn.flags(enabled=False), recorder, torch.enable_grad():
            call(model.eval(), inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
    return recorder.record


# --- one operation ------------------------------------------------------------------------------


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
        numbers = itertools.count()

        def value(x: Any) -> Any:
            if isinstance(x, Alias):
                number = next(numbers)
                return own[number] if own and number in own else self._alias(x)
            return self._blank(x) if isinstance(x, Blank) else x

        args, kwargs = tree_map(value, (call.args, call.kwargs), is_leaf=_is_spec)
        results = list(tensors(call.op(*args, **kwargs)))
        return _real(next(x for x in results if x.is_floating_point() or x.is_complex()))

    def _alias(self, alias: Alias) -> Tensor:
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
            inner = tree_map(
                lambda x: (
                    self._alias(x)
                    if isinstance(x, Alias)
                    else self._blank(x)
                    if isinstance(x, Blank)
                    else x
                ),
                (call.args, call.kwargs),
                is_leaf=_is_spec,
            )
            made = list(tensors(call.op(*inner[0], **inner[1])))[number]
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


def _count(record: Record, use: Call, reads: list[Alias]) -> dict[str, Count | None]:
    """The counts of one use, by parameter."""
    masks, feeds, pieces = _masks(record, use), _feeds(record, use), _pieces(record, use, reads)
    vectors, unclear = _bystanders(record, use)
    found: dict[str, Count | None] = {}
    for name, (fan_in, extents) in masks.items():
        if name in unclear:
            found[name] = None
        elif name in vectors:
            found[name] = Count(use.name, 1, (1,) * len(extents), 0)
        else:
            fed = feeds if _is_alone(record, use, name) else 0
            found[name] = Count(use.name, fan_in, extents, fed, pieces.get(name, ()))
    return found


def _is_alone(record: Record, use: Call, name: str) -> bool:
    """Whether what the use reads of a parameter was made of no other."""
    read = [record.sources(a.storage) for a in use.leaves(Alias)]
    return all(sources == {name} for sources in read if name in sources)


def _pieces(
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
            _cut(list(sets), n) for sets, n in zip(zip(*found, strict=True), shape, strict=True)
        )
        for name, found in touched.items()
        if (shape := replay.leaves[name].shape)
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


def _masks(record: Record, call: Call) -> dict[str, tuple[int, tuple[int, ...]]]:
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
                fan_in, extents = _extents(grad)
                known = found.get(name, (0, extents))
                most = tuple(map(max, known[1], extents)) if extents else known[1]
                found[name] = max(known[0], fan_in), most
    return {name: (n, extents) for name, (n, extents) in found.items() if n}


def _extents(grad: Tensor | None) -> tuple[int, tuple[int, ...]]:
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
    ones = torch.ones_like(out, requires_grad=True)
    grads = torch.autograd.grad(out, leaves, ones, create_graph=True, allow_unused=True)
    own = []
    for grad in grads:
        if grad is not None and grad.requires_grad and grad.numel():
            (reads,) = torch.autograd.grad(grad.sum(), ones, retain_graph=True, allow_unused=True)
            if reads is not None:
                own.append(int(reads.abs().argmax()))
    return sorted({out.numel() // 2, *drawn, *own})


def _feeds(record: Record, call: Call) -> int:
    """How many outputs one input coordinate feeds: backward from the sum, all set to ones."""
    replay = Replay(record, "ones")
    out = replay.run(call)
    if not replay.active or not out.requires_grad:
        return 0
    grads = torch.autograd.grad(out, replay.active, torch.ones_like(out), allow_unused=True)
    most = max((float(g.abs().max()) for g in grads if g is not None and g.numel()), default=0.0)
    return round(most) if math.isfinite(most) else 0


# --- weights that meet weights ------------------------------------------------------------------


def _arguments(record: Record, call: Call) -> dict[int, tuple[set[str], int, int]]:
    """By alias argument: its parameters, their rank, and its entries that feed one output."""
    replay = Replay(record, "positive")
    aliases = call.leaves(Alias)
    own = {i: replay._alias(a).detach().clone().requires_grad_() for i, a in enumerate(aliases)}
    out = replay.run(call, own).flatten()
    if not out.requires_grad or not out.numel():
        return {}
    grads = torch.autograd.grad(out[out.numel() // 2], [*own.values()], allow_unused=True)
    return {
        i: (record.sources(a.storage), record.rank(a.storage), _extents(g)[0])
        for i, (a, g) in enumerate(zip(aliases, grads, strict=True))
    }


def _contracts(record: Record, call: Call) -> bool:
    """Whether weights alone are contracted with one another over a growing axis."""
    if len(call.leaves(Alias)) < 2 or _is_empty(call):
        return False
    several = [a for a in _arguments(record, call).values() if a[2] > 1]
    if len(several) < 2 or several[0][0] == several[1][0]:
        return False
    sums = _masks(record, call)
    return all(
        any(_sums_over_growth(record, name, sums) for name in sources) for sources, _, _ in several
    )


def _sums_over_growth(
    record: Record, name: str, sums: Mapping[str, tuple[int, tuple[int, ...]]]
) -> bool:
    extents = sums.get(name, (0, ()))[1]
    return any(extents[d] > 1 for d in record.growing_dims[name] if d < len(extents))


def _bystanders(record: Record, call: Call) -> tuple[set[str], set[str]]:
    """Of weights that are contracted with weights: those that act as activations; the unclear.

    Learned queries that meet a projection are an activation whose entries are Θ(1). Where two
    matrices, or two vectors, meet, none is the other's input.
    """
    if any(b.active for b in call.leaves(Blank)):
        return set(), set()
    several = [a for a in _arguments(record, call).values() if a[2] > 1]
    if len(several) < 2:
        return set(), set()
    ranks = [rank for _, rank, _ in several]
    if max(ranks) < 2 or min(ranks) >= 2:
        return set(), {name for sources, _, _ in several for name in sources}
    return {name for sources, rank, _ in several if rank < 2 for name in sources}, set()


def _is_empty(call: Call) -> bool:
    """No token was routed here."""
    return any(0 in x.shape for x in call.leaves(Blank)) or any(
        0 in x.shape for x in call.leaves(Tensor)
    )


# --- two widths ---------------------------------------------------------------------------------


def _fans(
    narrow: list[Count | None], wide: list[Count | None], small: torch.Size, large: torch.Size
) -> Fans:
    """The fans from the use whose fan_in grows least."""
    if None in narrow or None in wide:
        return Fans((), (), 1.0, 1.0, "it meets another matrix of weights and no activation")
    pairs = _pairs([c for c in narrow if c], [c for c in wide if c])
    if not pairs:
        return Fans((), (), 1.0, 1.0, "it is used differently at the two widths")
    growing = [d for d, (a, b) in enumerate(zip(small, large, strict=True)) if b > a]
    a, b = min(pairs, key=lambda pair: pair[1].fan_in / pair[0].fan_in)
    fan_in = tuple(d for d in growing if b.extents[d] > a.extents[d])
    fan_out = tuple(d for d in growing if d not in fan_in)
    r_in = b.fan_in / a.fan_in
    fixed = _fixed(a, b, fan_out)
    rows = [math.prod(s[d] for d in fan_out) for s in (small, large)]
    r_out = math.prod(large) / math.prod(small) / r_in
    r_out *= (rows[1] - fixed) / (rows[0] - fixed) * rows[0] / rows[1]
    fed = b.feeds / a.feeds if a.feeds and b.feeds else 1.0
    wrong = fed > r_out * 1.01
    problem = f"one input feeds ×{fed:g} outputs, more than it writes" if wrong else ""
    return Fans(fan_in, fan_out, r_in, r_out, problem, fixed)


def _fixed(narrow: Count, wide: Count, fan_out: tuple[int, ...]) -> int:
    """Of the dimension that a fused weight writes, the indices in pieces that do not grow."""
    if len(fan_out) != 1 or not narrow.pieces or not wide.pieces:
        return 0
    a, b = narrow.pieces[fan_out[0]], wide.pieces[fan_out[0]]
    return sum(x for x, y in zip(a, b, strict=True) if x == y) if len(a) == len(b) else 0


def _pairs(narrow: list[Count], wide: list[Count]) -> Iterable[tuple[Count, Count]]:
    """Uses at both widths that correspond: in order, or of one operation where tokens are routed"""
    if [c.op for c in narrow] == [c.op for c in wide]:
        return list(zip(narrow, wide, strict=True))
    return [(a, b) for a in narrow for b in wide if a.op == b.op]
