"""An oracle of roles that shares no code with the analysis: it counts on the real model.

Every operation that reads a weight is run again, by itself, with random positive numbers in place
of the weight and of what it meets, and asked through autograd which entries of the weight feed one
output coordinate: how many there are is fan_in, whatever the operation is and whatever views lie
between. (With positive numbers nothing cancels; for a bilinear operation the count is what the
operation returns when both are set to ones.) Backward from the sum of all outputs, with ones, tells
how many outputs one input coordinate feeds. Done at two widths, the growth of these counts is
r_i, and the growth of the entries that one output does *not* read is r_o: axes that are written
and axes that are carried along (docs/how.md). A weight with several uses takes the one whose fan_in
grows least (docs/how.md).
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.recording import Alias, Blank, Call, Record, Recorder, call
from zoo.replay import Replay, entries_by_weight, extents_of, outputs_fed, pieces_by_weight

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
        with _unfused(), recorder, torch.enable_grad():
            call(model.eval(), inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(was)
    return recorder.record


@contextlib.contextmanager
def _unfused() -> Iterator[None]:
    """Without oneDNN, whose recurrent layers are one operation; torch warns of its own switch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with torch.backends.mkldnn.flags(enabled=False):
            yield


# --- one operation ------------------------------------------------------------------------------


def _count(record: Record, use: Call, reads: list[Alias]) -> dict[str, Count | None]:
    """The counts of one use, by parameter."""
    feeds, pieces = outputs_fed(record, use), pieces_by_weight(record, use, reads)
    vectors, unclear = _bystanders(record, use)
    found: dict[str, Count | None] = {}
    for name, (fan_in, extents) in entries_by_weight(record, use).items():
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


# --- weights that meet weights ------------------------------------------------------------------


def _arguments(record: Record, call: Call) -> dict[int, tuple[set[str], int, int]]:
    """By alias argument: its parameters, their rank, and its entries that feed one output."""
    replay = Replay(record, "positive")
    aliases = call.leaves(Alias)
    own = {i: replay.alias(a).detach().clone().requires_grad_() for i, a in enumerate(aliases)}
    out = replay.run(call, own).flatten()
    if not out.requires_grad or not out.numel():
        return {}
    grads = torch.autograd.grad(out[out.numel() // 2], [*own.values()], allow_unused=True)
    return {
        i: (record.sources(a.storage), record.rank(a.storage), extents_of(g)[0])
        for i, (a, g) in enumerate(zip(aliases, grads, strict=True))
    }


def _contracts(record: Record, call: Call) -> bool:
    """Whether weights are contracted over a growing axis with one another, or with a table.

    A table of constants (positions, a first state) acts as an activation; a vector is what
    measures the size of the weight itself, as in a spectral norm.
    """
    if _is_empty(call):
        return False
    if any(sum(n > 1 for n in b.shape) > 1 for b in call.leaves(Blank)):
        counted = entries_by_weight(record, call)
        return any(_sums_over_growth(record, name, counted) for name in counted)
    if len(call.leaves(Alias)) < 2:
        return False
    several = [a for a in _arguments(record, call).values() if a[2] > 1]
    if len(several) < 2 or several[0][0] == several[1][0]:
        return False
    sums = entries_by_weight(record, call)
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
    arguments = [*_arguments(record, call).values()]
    if any(b.active for b in call.leaves(Blank)):  # perhaps with the dot product of two vectors
        met = {n for sources, rank, _ in arguments if rank < 2 <= len(sources) for n in sources}
        counts = entries_by_weight(record, call) if met else {}
        return set(), {n for n in met & counts.keys() if counts[n][0] > 1}
    several = [a for a in arguments if a[2] > 1]
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
