"""Operations that sum products over an axis: matrix products, convolutions, attention, lookups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from automup.analysis.dataflow import Op, Size, log_ratio, product
from automup.analysis.flow import Flow
from automup.analysis.ops.products import Operand, bilinear_statistic, weight_times_weight
from automup.analysis.ops.registry import picks_by_value, rule, widest
from automup.analysis.states import ZERO, State, multiplied, ratio_log, scaled
from automup.analysis.views import NOWHERE, Axis, mapped, repeated
from automup.capture.graph import Node


def contract(
    flow: Flow, op: Op, a: Any, b: Any, a_dims: Sequence[int], b_dims: Sequence[int], how: str
) -> State:
    """Sum of products over paired dimensions: logs add, and an infinite sum adds its own.

    A weight's log is minus that of the axis it contracts, so an ordinary layer is neutral.
    """
    sizes = flow.sizes(b)
    return contract_over(flow, op, a, b, a_dims, b_dims, product(sizes[d] for d in b_dims), how)


def contract_over(
    flow: Flow,
    op: Op,
    a: Any,
    b: Any,
    a_dims: Sequence[int],
    b_dims: Sequence[int],
    summed: Size,
    how: str,
    groups: int = 1,
) -> State:
    """:func:`contract` where the number of summed terms is not the product of ``b_dims``."""
    left, right = flow.state(a), flow.state(b)
    if ZERO in (left.log, right.log) and not left.views + right.views:  # an initial state
        return State(ZERO)
    form = bilinear_statistic(flow, op, a, b)
    if form is not None:
        return form
    if left.views and right.views:
        tokens = _tokens(flow, (a, a_dims), (b, b_dims), summed)
        if not tokens:
            return weight_times_weight(flow, op, (a, a_dims), (b, b_dims), how)
        for token in tokens:
            flow.consume(op, token)
        left = replace(left, kind="activation", views=()) if a in tokens else left
        right = replace(right, kind="activation", views=()) if b in tokens else right
    if {left.kind, right.kind} == {"known", "activation"} and log_ratio(summed):
        return flow.unknown(op, "it sums over an infinite axis against a constant tensor")
    for value, state, dims in ((a, left, a_dims), (b, right, b_dims)):
        if state.views:
            spread = product(flow.sizes(value)[2:]) if how == "convolution" else (1, 1)
            at = [d % len(flow.sizes(value)) for d in dims]
            flow.use(value, op, how, at, summed, spread, groups)
    return flow.corrected(op, _summed(op, left, right, summed))


def _summed(op: Op, left: State, right: State, summed: Size) -> State:
    """The sum of products: what a weight's log leaves of the axis is the operation's own."""
    if left.kind != "weight" and right.kind != "weight":
        both = multiplied(left, right)
        return scaled(both, op.base, log_ratio(summed), "contraction", summed)
    weight, other = (left, right) if left.kind == "weight" else (right, left)
    surplus = log_ratio(summed) + weight.log
    reader = replace(other, kind="activation", views=())
    if weight.origins:  # not the weight's own log: a constant of the author's on its way
        return multiplied(reader, replace(weight, log=surplus, views=()))
    return scaled(reader, op.base, surplus, "tied", summed if log_ratio(summed) else widest(op))


def _tokens(flow: Flow, a: Operand, b: Operand, summed: Size) -> list[Any]:
    """Of two weights that meet over an infinite axis, those that stand for activations.

    Learned queries, tokens and initial states: a finite number of vectors, which meet a matrix.
    Two vectors that meet are a query and a key. None where both are more than that. Of two that are
    a finite number of vectors, those stand for activations that are repeated for every example.
    """
    found, single, spread = [], [], []
    for value, dims in (a, b) if log_ratio(summed) else ():
        sizes = flow.sizes(value)
        away = {d % len(sizes) for d in dims}
        others = [size for d, size in enumerate(sizes) if d not in away]
        found += [value] if not any(map(log_ratio, others)) else []
        single += [value] if product(others) == (1, 1) else []
        spread += [value] if _is_spread(flow, value) else []
    if len(found) == 2 and len(spread) == 1:
        return spread  # a vector for every example; where it alone grows, the matrix has few rows
    return found if len(found) == 1 else single if len(single) == 2 else []


def _is_spread(flow: Flow, value: Any) -> bool:
    """Whether a weight's entries are repeated, along a batch say: an example has them all."""
    views = flow.state(value).views
    axes = [axis for view in views for axis in view.axes or ()]
    return any(atom.dim == NOWHERE for axis in axes for atom in axis)


# (m, k) x (k, n) -> (m, n)
@rule("mm")
def _mm(flow: Flow, op: Op) -> State:
    return contract(flow, op, op.arg(0), op.arg(1), [1], [0], "matmul")


# (b, m, k) x (b, k, n) -> (b, m, n)
@rule("bmm")
def _bmm(flow: Flow, op: Op) -> State:
    return contract(flow, op, op.arg(0), op.arg(1), [2], [1], "matmul")


# (m, k) x (k) -> (m)
@rule("mv")
def _mv(flow: Flow, op: Op) -> State:
    return contract(flow, op, op.arg(0), op.arg(1), [1], [0], "matmul")


# (k) x (k) -> ()
@rule("dot", "vdot")
def _dot(flow: Flow, op: Op) -> State:
    return contract(flow, op, op.arg(0), op.arg(1), [0], [0], "matmul")


# rows (m, k) in groups x (e, k, n) -> (m, n): every row meets one of the e matrices
@rule("_grouped_mm")
def _grouped(flow: Flow, op: Op) -> State:
    return contract(flow, op, op.arg(0), op.arg(1), [-1], [-2], "matmul")


# beta * bias + alpha * (m, k) x (k, n)
@rule("addmm", "addmv", "baddbmm")
def _addmm(flow: Flow, op: Op) -> State:
    bias, a, b = op.arg(0), op.arg(1), op.arg(2)
    rank = len(flow.sizes(a))
    out = contract(flow, op, a, b, [rank - 1], [0 if rank == 2 else 1], "matmul")
    if "alpha" in op.base.kwargs:
        alpha = flow.constant_log(op, len(op.base.args), "alpha")
        out = scaled(out, op.base, alpha or 0.0, "constant", widest(op))
    if op.base.kwargs.get("beta", 1) == 0:
        return out
    return with_bias(flow, op, out, bias)


def with_bias(flow: Flow, op: Op, out: State, bias: Any) -> State:
    """The result plus a bias, if there is one."""
    if bias is None:
        return out
    flow.consume(op, bias)
    return flow.join(op, [out, flow.state(bias).without_views()])


# (b, c, *) conv (o, c / groups, *k) -> (b, o, *); transposed weights are stored (c, o / groups, *k)
@rule("convolution", "_convolution")
def _convolution(flow: Flow, op: Op) -> State:
    x, weight, bias, transposed = op.arg(0), op.arg(1), op.arg(2), op.arg(6)
    groups = op.number(8)
    sizes = flow.sizes(weight)
    channels = sizes[0] if transposed else sizes[1]
    if transposed:
        channels = (channels[0] // groups[0], channels[1] // groups[1])
    summed = product([channels, *sizes[2:]])
    inside = (0 if transposed else 1,) if log_ratio(channels) else ()
    dims = [*inside, *range(2, len(sizes))]
    shared = 1 if transposed or groups[0] != groups[1] else groups[0]
    out = contract_over(flow, op, x, weight, [1], dims, summed, "convolution", shared)
    return with_bias(flow, op, out, bias)


# (*, i) x (o, i, j) x (*, j) -> (*, o): one output sums over i and j
@rule("_trilinear")
def _trilinear(flow: Flow, op: Op) -> State:
    x, weight, y = op.arg(0), op.arg(1), op.arg(2)
    sizes = flow.sizes(weight)
    if flow.state(weight).kind != "weight" or len(sizes) != 3:
        return flow.unknown(op, "a trilinear form that is not a bilinear layer")
    summed = product(sizes[1:])
    flow.use(weight, op, "bilinear form", [1, 2], summed)
    both = multiplied(flow.state(x), flow.state(y))
    return flow.corrected(op, _summed(op, flow.state(weight), both, summed))


# softmax(scale * (.., t, e) x (.., s, e)) x (.., s, v); the scale is 1 / sqrt(e) by default
@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
      "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
      "_scaled_dot_product_fused_attention_overrideable")  # fmt: skip
def _attention(flow: Flow, op: Op) -> list[State]:
    query, key, value = op.arg(0), op.arg(1), op.arg(2)
    head = flow.sizes(query)[-1]
    logits = contract(flow, op, query, key, [-1], [-1], "matmul")
    given = op.number(len(op.base.args), "scale")
    scale = given if None not in given else (1 / math.sqrt(head[0]), 1 / math.sqrt(head[1]))
    logits = scaled(logits, op.base, ratio_log(*scale) or 0.0, "constant", head)
    if not logits.neutral:
        flow.fault(op.base, logits, "it goes into a softmax")
    return [flow.state(value).without_views()] * 9


# table (v, d), indices (*) -> (*, d): one entry of the table feeds one output coordinate
@rule("embedding")
def _embedding(flow: Flow, op: Op) -> State:
    return looked_up(flow, op, op.arg(0))


# table (v, d), indices, offsets, ..., mode, ..., per-sample weights -> (bags, d), and what it kept:
# a sum or mean of a bag's rows, of which there are finitely many
@rule("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(flow: Flow, op: Op) -> list[State]:
    rows, each = looked_up(flow, op, op.arg(0)), op.arg(6, "per_sample_weights")
    bags = rows if each is None else multiplied(rows, flow.state(each))
    return [bags, *[State(0.0, "known")] * 3]


def looked_up(flow: Flow, op: Op, table: Any) -> State:
    """What is looked up in a table; of a weight, that is a use which sums over nothing."""
    state = flow.state(table)
    if not state.views:
        return state
    flow.use(table, op, "lookup", (), (1, 1))
    return replace(state, views=(), kind="activation")


# x[indices] along a dimension: of a table a row, of a stack of matrices a matrix
@rule("index", "index_select", "gather", "take_along_dim")
def _index(flow: Flow, op: Op) -> State:
    source = op.arg(0)
    state = flow.state(source)
    if picks_by_value(flow, op):
        return flow.unknown(op, "how many entries it picks depends on values")
    if not state.views or len(flow.sizes(source)) < 3:
        return looked_up(flow, op, source)
    indices = op.arg(1)
    leading = isinstance(indices, list | tuple) and len(indices) == 1
    if not leading or not isinstance(indices[0], Node):
        return replace(state, views=tuple(v.with_axes(None) for v in state.views))
    added = op.sizes[: len(op.sizes) - len(flow.sizes(source)) + 1]

    def pick(axes: tuple[Axis, ...]) -> list[Axis]:
        return [*map(repeated, added), *axes[1:]]

    return replace(state, views=mapped(state.views, pick))
