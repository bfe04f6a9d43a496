"""Weights that are several weights in one: a fused projection whose rows are cut into parts.

``Linear(d, (heads + 2 * kv_heads) * hd)`` with fixed kv_heads writes rows that grow and rows that
do not; Mamba's ``in_proj`` and ``x_proj`` are others. Each part has its own fan_out, hence its own
init by the table. Here the axis that a weight writes is followed, from the operation that writes
it through cuts and joins, to the operations that read a range of it as one axis.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from automup.analysis.dataflow import Dataflow, Op, Size, log_ratio, product
from automup.analysis.flow import Use
from automup.analysis.states import EPSILON
from automup.capture.graph import Node

Range = tuple[Size, Size]
"""First row and row after the last."""

_aten = torch.ops.aten
_CUTS = {_aten.slice, _aten.select, _aten.index}
_SPLITS = {_aten.split, _aten.split_with_sizes}
_RESHAPES = {_aten.view, _aten._unsafe_view, _aten.reshape}
_MIXES = {
    _aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm, _aten.mv, _aten.addmv, _aten.dot, _aten.vdot,
    *(p for p in (getattr(_aten, "_grouped_mm", None),) if p),  # new in torch
    _aten._trilinear, _aten.embedding, _aten.gather, _aten.sort, _aten.topk,
    _aten.index_select, _aten.flip, _aten.roll, _aten.take_along_dim,
}  # fmt: skip
"""Operations after which positions along the axis are others, or mixed with each other."""


@dataclass(frozen=True)
class Strand:
    """Rows of a weight along one axis of a value.

    ``extent`` is the axis's size there, by which the axis is recognised; each of its entries
    stands for ``unit`` rows, from row ``start`` on. Of rows that were split into finitely many
    ``copies`` (heads), each ``stride`` rows long, it is the same part of every one.
    """

    weight: str
    start: Size
    extent: Size
    unit: int = 1
    copies: int = 1
    stride: Size = (0, 0)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The rows, at both widths."""
        if (
            self.copies > 1
            and (self.extent[0] * self.unit, self.extent[1] * self.unit) == self.stride
        ):
            return ((self.start, _plus(self.start, self.stride, self.copies)),)
        starts = [_plus(self.start, self.stride, copy) for copy in range(self.copies)]
        return tuple((start, _plus(start, self.extent, self.unit)) for start in starts)

    def cut(self, offset: Size, extent: Size) -> Strand:
        """A piece of the axis."""
        return replace(self, start=_plus(self.start, offset, self.unit), extent=extent)


def _plus(start: Size, length: Size, unit: int = 1) -> Size:
    return start[0] + length[0] * unit, start[1] + length[1] * unit


@dataclass(frozen=True)
class Parts:
    """How a weight's rows are read: the sizes of consecutive parts, or what is wrong."""

    sizes: tuple[Size, ...] = ()
    problem: str = ""


def parts_of(
    dataflow: Dataflow, uses: Sequence[Use], shapes: Mapping[str, tuple[Size, ...]]
) -> dict[str, Parts]:
    """The parts of every weight whose written axis is cut; what is read whole is left out."""
    whole: dict[str, Size] = {}
    writers: dict[Node, dict[Strand, None]] = {}
    for use in uses:
        written = [s for d, s in enumerate(shapes[use.parameter]) if d not in use.in_dims]
        axes = [size for size in written if log_ratio(size)]
        if len(axes) == 1:
            whole[use.parameter] = axes[0]
            writers.setdefault(use.node, {})[Strand(use.parameter, (0, 0), axes[0])] = None
    found = {w: _partition(r, whole[w]) for w, r in _reads(dataflow, writers).items()}
    return {weight: parts for weight, parts in found.items() if parts != Parts()}


def _reads(dataflow: Dataflow, writers: Mapping[Node, Iterable[Strand]]) -> dict[str, set[Range]]:
    """The ranges of each weight's rows that some operation reads as one axis."""
    carried: dict[Node, Bundles] = {}
    seen: Seen = {}
    for node, op in dataflow.ops.items():
        result: Bundles = {}
        for strand in writers.get(node, ()):
            _add(result, strand, {strand.weight: None})
        for source in node.all_input_nodes:
            for strand, weights in carried.get(source, {}).items():
                step = _after(dataflow, op, source, strand)
                if step.alive:
                    _add(result, step.strand, weights)
                else:
                    _see(seen, step.strand, weights)
        if result and op.base.target is _aten.cat.default:
            result = _joined(op, result, seen)
        for strand, weights in result.items() if not dataflow.readers(node) else ():
            _see(seen, strand, weights)
        if result:
            carried[node] = result
    reads: dict[str, set[Range]] = {}
    for rows, weights in seen.values():
        for weight in weights:
            reads.setdefault(weight, set()).add(rows)
    return reads


Weights = Mapping[str, None]
Bundles = dict[Strand, Weights]
"""Strands without their weight, with the weights whose rows lie so: they fare alike from there.

A residual stream carries the rows of every layer before it, all in one bundle.
"""


Seen = dict[tuple[Range, int], tuple[Range, Weights]]
"""Ranges that some operation reads, with the weights of a bundle."""


def _see(seen: Seen, strand: Strand, weights: Weights) -> None:
    for rows in strand.ranges:
        seen[rows, id(weights)] = rows, weights


def _add(bundles: Bundles, strand: Strand, weights: Weights) -> None:
    shape = replace(strand, weight="") if strand.weight else strand
    known = bundles.get(shape)
    bundles[shape] = weights if known is None or known is weights else {**known, **weights}


@dataclass(frozen=True)
class _Step:
    """A strand after an operation, or (not alive) the rows of it that the operation reads."""

    strand: Strand
    alive: bool = True


def _after(dataflow: Dataflow, op: Op, source: Node, strand: Strand) -> _Step:
    if op.base.target is operator.getitem:
        return _split_part(dataflow, op, source, strand)
    packet = getattr(op.base.target, "overloadpacket", None)
    before = dataflow.ops[source].sizes
    dim = _only(before, strand.extent)
    if dim is None or packet in _MIXES or op.base.op == "output":
        return _Step(strand, alive=False)
    if packet in _SPLITS and int(op.arg(2, "dim", 0)) % len(before) == dim:
        return _Step(strand)  # cut where a part is picked
    if packet in _CUTS:
        piece = _piece(dataflow, op, strand, dim, len(before))
        if piece is not None:
            return piece
    if packet is _aten.cat and int(op.arg(1, "dim", 0)) % len(before) == dim:
        return _Step(strand)
    if packet is _aten.convolution and op.number(8)[0] != strand.extent[0]:
        return _Step(strand, alive=False)
    if _only(op.sizes, strand.extent) is not None:
        return _Step(strand)
    other = _reshaped(op.sizes, strand) if packet in _RESHAPES else None
    return _Step(other or strand, alive=other is not None)


def _only(sizes: Sequence[Size], size: Size) -> int | None:
    """The one dimension of this size."""
    found = [d for d, s in enumerate(sizes) if s == size]
    return found[0] if len(found) == 1 else None


def _split_part(dataflow: Dataflow, op: Op, source: Node, strand: Strand) -> _Step:
    """One output of a split along the strand's axis; of anything else that has several, all."""
    split, index = dataflow.ops[source], int(op.base.args[1])
    if getattr(source.target, "overloadpacket", None) not in _SPLITS:
        return _Step(strand, alive=_only(op.sizes, strand.extent) is not None)
    before = dataflow.ops[split.arg(0)].sizes
    along = int(split.arg(2, "dim", 0)) % len(before)
    if before[along] != strand.extent:
        return _Step(strand, alive=_only(op.sizes, strand.extent) is not None)
    offsets = [
        sum(lengths[:index]) if isinstance(lengths, list | tuple) else index * lengths
        for lengths in split.number(1)
    ]
    return _Step(strand.cut((offsets[0], offsets[1]), op.sizes[along]))


def _piece(dataflow: Dataflow, op: Op, strand: Strand, dim: int, rank: int) -> _Step | None:
    """What a slice, a select or an index takes of the strand's axis; None along another axis."""
    packet = op.base.target.overloadpacket
    if packet is _aten.index:
        indices = op.arg(1)
        if dim >= len(indices) or indices[dim] is None:
            return None
        at = dataflow.ops[indices[dim]]
        if product(at.sizes) != (1, 1):  # which of the entries, their size does not tell
            return _Step(strand, alive=False)
        return _entry(strand, (at.fact.value, at.wide_fact.value))
    if int(op.arg(1, "dim", 0)) % rank != dim:
        return None
    if packet is _aten.select:
        return _entry(strand, op.number(2))
    if op.arg(4, "step", 1) != 1:
        return _Step(strand, alive=False)
    starts = [_position(n or 0, size) for n, size in zip(op.number(2), strand.extent, strict=True)]
    return _Step(strand.cut((starts[0], starts[1]), op.sizes[dim]))


def _entry(strand: Strand, index: tuple[Any, Any]) -> _Step:
    """One entry of the axis is read; of indices that are not known, any may be."""
    if not all(isinstance(i, int | float) for i in index):
        return _Step(strand, alive=False)
    at = [_position(int(i), size) for i, size in zip(index, strand.extent, strict=True)]
    return _Step(strand.cut((at[0], at[1]), (1, 1)), alive=False)


def _position(index: int, size: int) -> int:
    return index + size if index < 0 else min(index, size)


def _reshaped(sizes: Sequence[Size], strand: Strand) -> Strand | None:
    """The strand where its axis is split into (infinite, finite...), or joined to that again.

    Or into (finite..., infinite): the same part of each of so many heads, from there on.
    """
    for d, size in enumerate(sizes):
        for end in range(d + 2, len(sizes) + 1):
            inner = product(sizes[d + 1 : end])
            if product([size, inner]) == strand.extent and not log_ratio(inner):
                return replace(strand, extent=size, unit=strand.unit * inner[0])
        whole = (strand.extent[0] * strand.unit, strand.extent[1] * strand.unit)
        if size == whole:
            return replace(strand, extent=size, unit=1)
        if strand.copies > 1 and whole == strand.stride and size == _times(whole, strand.copies):
            return replace(strand, extent=size, unit=1, copies=1, stride=(0, 0))
        for first in range(d) if strand.copies == 1 and log_ratio(size) else ():
            outer = product(sizes[first:d])
            if not log_ratio(outer) and product([outer, size]) == strand.extent:
                stride = _times(size, strand.unit)
                return replace(strand, extent=size, copies=outer[0], stride=stride)
    return None


def _times(size: Size, number: int) -> Size:
    return size[0] * number, size[1] * number


def _joined(op: Op, bundles: Bundles, seen: Seen) -> Bundles:
    """Pieces that a concatenation puts side by side again are one; others are read by it."""
    dim = int(op.arg(1, "dim", 0)) % len(op.sizes)
    by_weight: dict[tuple[str, int, int, Size], list[Strand]] = {}
    for strand, weights in bundles.items():
        for weight in weights:
            key = weight, strand.unit, strand.copies, strand.stride
            by_weight.setdefault(key, []).append(strand)
    result: Bundles = {}
    for (weight, *_), group in by_weight.items():
        extent = (sum(s.extent[0] for s in group), sum(s.extent[1] for s in group))
        alone: Weights = {weight: None}
        if len(group) == 1 and _only(op.sizes, group[0].extent) is not None:
            _add(result, group[0], alone)
        elif extent == op.sizes[dim]:
            _add(result, replace(min(group, key=lambda s: s.start), extent=extent), alone)
        else:
            for strand in group:
                _see(seen, strand, alone)
    return result


def _partition(reads: set[Range], size: Size) -> Parts:
    """The consecutive parts that the ranges make up, those within another left out."""
    outer = sorted(r for r in reads if not any(r != o and _within(r, o) for o in reads))
    if outer == [((0, 0), size)]:
        return Parts()
    sizes: list[Size] = []
    last: Size = (0, 0)
    for start, end in [*outer, (size, size)]:
        if start[0] < last[0] or start[1] < last[1]:
            lengths = [_minus(e, s) for s, e in outer]
            return Parts() if _even(lengths) else Parts(problem=_overlap(lengths))
        sizes += [s for s in (_minus(start, last), _minus(end, start)) if s != (0, 0)]
        last = end
    odd = [s for s in sizes if 0 in s]
    return Parts(problem=_overlap(sizes)) if odd else Parts(tuple(sizes))


def _within(inner: Range, outer: Range) -> bool:
    return all(outer[0][w] <= inner[0][w] and inner[1][w] <= outer[1][w] for w in (0, 1))


def _minus(a: Size, b: Size) -> Size:
    return a[0] - b[0], a[1] - b[1]


def _even(sizes: Iterable[Size]) -> bool:
    """Whether all grow alike."""
    growths = [log_ratio(size) for size in sizes]
    return max(growths) - min(growths) < EPSILON


def _overlap(sizes: Iterable[Size]) -> str:
    listed = ", ".join(f"{a}→{b}" for a, b in sizes)
    return f"its output is cut into parts that overlap and grow differently ({listed})"
