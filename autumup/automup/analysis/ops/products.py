"""Products of weights with weights, and with the vectors of a power iteration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from automup.analysis.dataflow import Op, Size, log_ratio, product
from automup.analysis.flow import Flow
from automup.analysis.ops.statistics import is_entries, is_statistic, statistic
from automup.analysis.states import State
from automup.analysis.views import Axis, View, repeated

Operand = tuple[Any, Sequence[int]]
"""A value with the dimensions of it that a contraction sums over."""


def weight_times_weight(flow: Flow, op: Op, a: Operand, b: Operand, how: str) -> State:
    """B @ A over a finite rank (LoRA): x @ (B A) is (x @ B) @ A, so each factor keeps its own dims.

    The product is a weight in which each factor varies along its own dimensions only, and each
    entry sums ``rank`` terms on the side of the one that is not contracted later. Over an infinite
    axis the later contraction alone would tell which of the two sums over it.
    """
    left, right = flow.state(a[0]), flow.state(b[0])
    log = left.log + right.log
    rank = product(flow.sizes(a[0])[d] for d in a[1])
    if how != "matmul" or log_ratio(rank):
        return flow.unknown(op, "two weights meet, and nothing tells which sums over the axis")
    left_rank, right_rank = len(flow.sizes(a[0])), len(flow.sizes(b[0]))
    batch = left_rank + right_rank - 2 * len(a[1]) - len(op.sizes)
    kept_left = [d for d in range(left_rank) if d not in {x % left_rank for x in a[1]}]
    kept_right = [d for d in range(right_rank) if d not in {x % right_rank for x in b[1]}]
    views = [
        *_placed(left.views, kept_left, 0, op.sizes),
        *_placed(right.views, kept_right[:batch], 0, op.sizes, kept_right[batch:]),
    ]
    return State(log, "weight", tuple(views))


def _placed(
    views: Sequence[View],
    first: Sequence[int],
    at: int,
    sizes: tuple[Size, ...],
    last: Sequence[int] = (),
) -> Iterator[View]:
    """The views of one factor among the dimensions of the product."""
    for view in views:
        if view.axes is None:
            yield replace(view, raw=False)
            continue
        axes: list[Axis] = [repeated(size) for size in sizes]
        for position, dim in enumerate(first):
            axes[at + position] = view.axes[dim]
        for position, dim in enumerate(last):
            axes[len(sizes) - len(last) + position] = view.axes[dim]
        yield replace(view, axes=tuple(axes), raw=False, terms=(1, 1))


def bilinear_statistic(flow: Flow, op: Op, a: Any, b: Any) -> State | None:
    """u . (W v) with unit vectors of a power iteration: W's largest singular value (spectral norm).

    The vectors are buffers, or come from W itself. The log of W v and W^T u is that of their norm,
    which normalising takes away again.
    """
    left, right = flow.state(a), flow.state(b)
    if is_statistic(left) and is_statistic(right):
        return statistic(left, left.log + right.log)
    for value, one, vector, other in ((a, left, b, right), (b, right, a, left)):
        if len(flow.sizes(vector)) != 1 or not (other.kind == "known" or is_statistic(other)):
            continue
        if is_statistic(one):
            return statistic(one, one.log + other.log if is_statistic(other) else one.log)
        if is_entries(one) and len(flow.sizes(value)) == 2:
            spectral = flow.scale(one.views[0].parameter).spectral
            return statistic(one, spectral + (other.log if is_statistic(other) else 0.0))
    return None
