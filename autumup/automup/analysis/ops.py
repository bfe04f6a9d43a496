"""One small rule per aten operation: what it does to sizes, to weights' dimensions, to exponents.

A rule takes the walk and the operation and returns the state of the result (a list for several).
The comment above each is its shape algebra. Operations that only move entries about, that act
coordinate by coordinate, or that forget the size of what they read are tables at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import fx

from automup.analysis.dataflow import Op, Size, log_ratio, product
from automup.analysis.flow import (
    EPSILON,
    Flow,
    Rule,
    State,
    join_states,
    multiplied,
    powered,
    scaled,
)
from automup.analysis.views import Axis, expanded, mapped, reshaped, resized

RULES: dict[Any, Rule] = {}


R = TypeVar("R", bound=Rule)


def rule(*names: str) -> Callable[[R], R]:
    """Register a rule for every overload of the named aten operations, in-place forms included."""

    def register(function: R) -> R:
        for name in names:
            for form in (name, f"{name}_"):
                packet = getattr(torch.ops.aten, form, None)
                for overload in packet.overloads() if packet is not None else ():
                    RULES[getattr(packet, overload)] = function
        return function

    return register


# --- contractions ---------------------------------------------------------------------------------


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
) -> State:
    """:func:`contract` where the number of summed terms is not the product of ``b_dims``."""
    left, right = flow.state(a), flow.state(b)
    if left.kind == right.kind == "weight" and _both_hold_weights(left, right):
        return _weight_times_weight(flow, op, left, right)
    for value, dims, other in ((a, a_dims, right), (b, b_dims, left)):
        if flow.state(value).views:
            spread = product(flow.sizes(value)[2:]) if how == "convolution" else (1, 1)
            flow.use(value, op, how, [d % len(flow.sizes(value)) for d in dims], summed, spread)
    result = multiplied(left, right)
    weights = [s for s in (left, right) if s.kind == "weight"]
    surplus = log_ratio(summed) + sum(s.log for s in weights)
    kind = "tied" if weights else "contraction"
    if abs(surplus) < EPSILON:
        return flow.corrected(op, replace(result, log=result.log + log_ratio(summed)))
    grown = scaled(result, op.base, log_ratio(summed), kind, summed)
    return flow.corrected(op, replace(grown, views=()))


def _both_hold_weights(left: State, right: State) -> bool:
    return bool(left.views) and bool(right.views)


def _weight_times_weight(flow: Flow, op: Op, left: State, right: State) -> State:
    """A product of two weights is a weight whose dimensions no table covers."""
    lost = tuple(v.with_axes(None) for v in (*left.views, *right.views))
    return State(left.log + right.log, "weight", lost)


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


# beta * bias + alpha * (m, k) x (k, n)
@rule("addmm", "addmv", "baddbmm")
def _addmm(flow: Flow, op: Op) -> State:
    bias, a, b = op.arg(0), op.arg(1), op.arg(2)
    rank = len(flow.sizes(a))
    right = [0] if rank == 2 else [1]
    out = contract(flow, op, a, b, [rank - 1], right, "matmul")
    alpha = flow.constant_log(op, len(op.base.args), "alpha") if "alpha" in op.base.kwargs else 0.0
    out = scaled(out, op.base, alpha or 0.0, "constant", _widest(op))
    if op.base.kwargs.get("beta", 1) == 0:
        return out
    _bias(flow, op, bias)
    return flow.join(op, [out, replace(flow.state(bias), views=())])


def _bias(flow: Flow, op: Op, bias: Any) -> None:
    """A weight that is added or multiplied coordinate by coordinate: fan_in 1."""
    if bias is not None and flow.state(bias).views:
        flow.use(bias, op, "elementwise", (), (1, 1))


# (b, c, *) conv (o, c / groups, *k) -> (b, o, *); transposed weights are stored (c, o / groups, *k)
@rule("convolution", "_convolution")
def _convolution(flow: Flow, op: Op) -> State:
    x, weight, bias, transposed = op.arg(0), op.arg(1), op.arg(2), op.arg(6)
    groups = op.number(8)
    sizes = flow.sizes(weight)
    kernel = product(sizes[2:])
    channels = sizes[0] if transposed else sizes[1]
    if transposed:
        channels = (channels[0] // groups[0], channels[1] // groups[1])
    summed = product([channels, kernel])
    dims = [0 if transposed else 1, *range(2, len(sizes))]
    out = contract_over(flow, op, x, weight, [1], dims, summed, "convolution")
    if bias is None:
        return out
    _bias(flow, op, bias)
    return flow.join(op, [out, replace(flow.state(bias), views=())])


# table (v, d), indices (*) -> (*, d): one entry of the table feeds one output coordinate
@rule("embedding")
def _embedding(flow: Flow, op: Op) -> State:
    table = op.arg(0)
    flow.use(table, op, "lookup", (), (1, 1))
    return replace(flow.state(table), views=(), kind="activation")


# tensor[indices]: reads whole entries of whatever it is
@rule("index", "index_select", "gather", "take_along_dim")
def _lookup(flow: Flow, op: Op) -> State:
    value = op.arg(0)
    state = flow.state(value)
    if state.views:
        flow.use(value, op, "lookup", (), (1, 1))
        return replace(state, views=(), kind="activation")
    return state


# --- entries move ---------------------------------------------------------------------------------


@rule("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "alias", "detach", "clone",
      "_to_copy", "contiguous", "lift_fresh", "lift_fresh_copy", "flatten", "unflatten", "view_as",
      "positive", "_reshape_alias", "_conj", "copysign")  # fmt: skip
def _reshape(flow: Flow, op: Op) -> State:
    """Same entries in the same order: atoms are regrouped to the new sizes."""
    state = flow.state(op.arg(0))
    return replace(state, views=mapped(state.views, lambda axes: reshaped(axes, op.sizes)))


@rule("t", "numpy_T")
def _t(flow: Flow, op: Op) -> State:
    state = flow.state(op.arg(0))
    return replace(state, views=mapped(state.views, lambda axes: axes[::-1]))


@rule("transpose", "swapaxes")
def _transpose(flow: Flow, op: Op) -> State:
    first, second = op.arg(1), op.arg(2)

    def swap(axes: tuple[Axis, ...]) -> list[Axis]:
        moved = list(axes)
        moved[first], moved[second] = axes[second], axes[first]
        return moved

    state = flow.state(op.arg(0))
    return replace(state, views=mapped(state.views, swap))


@rule("permute")
def _permute(flow: Flow, op: Op) -> State:
    state, order = flow.state(op.arg(0)), op.arg(1)
    return replace(state, views=mapped(state.views, lambda axes: [axes[d] for d in order]))


@rule("expand")
def _expand(flow: Flow, op: Op) -> State:
    state = flow.state(op.arg(0))
    return replace(state, views=mapped(state.views, lambda axes: expanded(axes, len(op.sizes))))


# x[..., i, ...] -> one dimension fewer
@rule("select")
def _select(flow: Flow, op: Op) -> State:
    state, dim = flow.state(op.arg(0)), op.arg(1)

    def drop(axes: tuple[Axis, ...]) -> list[Axis]:
        return [a for d, a in enumerate(axes) if d != dim % len(axes)]

    return replace(state, views=mapped(state.views, drop))


# x[..., a:b:c, ...]: a slice of fixed length out of an infinite axis is finite
@rule("slice", "narrow")
def _slice(flow: Flow, op: Op) -> State:
    return _cut(flow, flow.state(op.arg(0)), op.arg(1, "dim", 0), op.sizes)


def _cut(flow: Flow, state: State, dim: int, sizes: tuple[Size, ...]) -> State:
    dim = dim % len(sizes)
    return replace(state, views=mapped(state.views, lambda axes: resized(axes, dim, sizes[dim])))


# -> several slices along one dimension
@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split",
      "unsafe_split_with_sizes", "unsafe_chunk")  # fmt: skip
def _split(flow: Flow, op: Op) -> list[State]:
    dim = op.arg(2, "dim", 0)
    return [_cut(flow, flow.state(op.arg(0)), dim, sizes) for sizes in _part_sizes(flow, op)]


@rule("unbind")
def _unbind(flow: Flow, op: Op) -> list[State]:
    state, dim = flow.state(op.arg(0)), op.arg(1, "dim", 0)

    def drop(axes: tuple[Axis, ...]) -> list[Axis]:
        return [a for d, a in enumerate(axes) if d != dim % len(axes)]

    part = replace(state, views=mapped(state.views, drop))
    return [part for _ in _part_sizes(flow, op)]


def _part_sizes(flow: Flow, op: Op) -> list[tuple[Size, ...]]:
    """The sizes of the parts of an operation that returns several tensors."""
    parts: dict[Any, tuple[Size, ...]] = {n.args[1]: flow.sizes(n) for n in op.base.users}
    whole: tuple[Size, ...] = flow.sizes(op.arg(0))
    return [parts.get(i, whole) for i in range(max(parts, default=-1) + 1)]


# entries of several tensors side by side, or on a new dimension
@rule("cat", "stack", "concatenate")
def _cat(flow: Flow, op: Op) -> State:
    parts = [n for n in op.arg(0) if isinstance(n, fx.Node)]
    states = [flow.state(n) for n in parts]
    joined = flow.join(op, states)
    if joined.kind == "activation":
        for part in parts:
            _bias(flow, op, part)  # a learned token beside activations is used as it is
        return joined
    added = len(op.sizes) > len(flow.sizes(parts[0]))
    dim = op.arg(1, "dim", 0) % len(op.sizes)

    def place(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return (*axes[:dim], (), *axes[dim:]) if added else axes

    views = [v for s in states for v in mapped(s.views, place)]
    return replace(joined, views=tuple(views))


# pieces of a tensor written into another: the sizes of both must agree
@rule("slice_scatter", "select_scatter", "index_put", "_index_put_impl", "index_add", "index_copy",
      "scatter", "scatter_add", "masked_scatter", "copy", "fill", "scatter_reduce")  # fmt: skip
def _write(flow: Flow, op: Op) -> State:
    values = [n for n in op.base.all_input_nodes if flow.dataflow.ops[n].fact.floating]
    if op.base.target in _OVERWRITES:
        values = [n for n in values if n is not op.arg(0)]
    for value in values:
        _bias(flow, op, value)
    return flow.join(op, [replace(flow.state(v), views=()) for v in values])


_OVERWRITES = {torch.ops.aten.copy_.default, torch.ops.aten.fill_.Tensor}


# --- arithmetic -----------------------------------------------------------------------------------


@rule("add", "sub", "rsub", "lerp", "maximum", "minimum", "where", "masked_fill", "hypot",
      "__or__", "__and__", "fmax", "fmin")  # fmt: skip
def _add(flow: Flow, op: Op) -> State:
    """Sums and choices: what is added must have one size; constants are let pass."""
    operands = [n for n in op.base.all_input_nodes if flow.dataflow.ops[n].fact.floating]
    if not operands:
        return State(0.0, "known")
    views = flow.elementwise_uses(op, operands)
    states = [flow.state(n) for n in operands]
    return replace(flow.join(op, states), views=views)


@rule("mul")
def _mul(flow: Flow, op: Op) -> State:
    return _product(flow, op, 1.0)


@rule("div", "true_divide")
def _div(flow: Flow, op: Op) -> State:
    return _product(flow, op, -1.0)


def _product(flow: Flow, op: Op, sign: float) -> State:
    """Logs add; a constant adds the log of its own ratio between the two widths."""
    a, b = op.arg(0), op.arg(1)
    views = flow.elementwise_uses(op, [x for x in (a, b) if isinstance(x, fx.Node)])
    for position, value, direction in ((1, a, sign), (0, b, 1.0)):
        log = flow.constant_log(op, position)
        if log is not None and flow.state(op.arg(position)).kind == "known":
            if position == 0 and sign < 0:
                break  # a constant divided by a value
            state = flow.state(value)
            out = scaled(state, op.base, direction * log, "constant", _widest(op))
            return replace(out, views=views)
    return replace(multiplied(flow.state(a), flow.state(b), sign), views=views)


@rule("addcmul", "addcdiv")
def _addcmul(flow: Flow, op: Op) -> State:
    """a + value * b * c (or b / c)"""
    a, b, c = op.arg(0), op.arg(1), op.arg(2)
    flow.elementwise_uses(op, [a, b, c])
    sign = -1.0 if "div" in str(op.base.target) else 1.0
    return flow.join(op, [flow.state(a), multiplied(flow.state(b), flow.state(c), sign)])


@rule("pow")
def _pow(flow: Flow, op: Op) -> State:
    exponent = op.arg(1)
    if not isinstance(exponent, int | float):
        return _forget(flow, op)
    return _power(flow, op, float(exponent))


@rule("sqrt")
def _sqrt(flow: Flow, op: Op) -> State:
    return _power(flow, op, 0.5)


@rule("rsqrt")
def _rsqrt(flow: Flow, op: Op) -> State:
    return _power(flow, op, -0.5)


@rule("reciprocal")
def _reciprocal(flow: Flow, op: Op) -> State:
    return _power(flow, op, -1.0)


@rule("square")
def _square(flow: Flow, op: Op) -> State:
    return _power(flow, op, 2.0)


def _power(flow: Flow, op: Op, exponent: float) -> State:
    state = flow.state(op.arg(0))
    if state.kind == "weight" and not state.neutral:
        return flow.unknown(op, "a power of a weight that grows with width")
    views = flow.elementwise_uses(op, [op.arg(0)])
    return replace(powered(state, exponent), views=views)


# --- reductions -----------------------------------------------------------------------------------


def _reduced(flow: Flow, op: Op) -> Size:
    """How many entries are summed into one."""
    before, after = product(flow.sizes(op.arg(0))), product(op.sizes)
    return (max(1, before[0] // max(1, after[0])), max(1, before[1] // max(1, after[1])))


# a sum over an infinite axis adds it once: during training its terms are aligned
@rule("sum", "nansum")
def _sum(flow: Flow, op: Op) -> State:
    state, count = flow.state(op.arg(0)), _reduced(flow, op)
    if not log_ratio(count):
        return _reduction(flow, op)
    if state.kind == "weight":
        return flow.unknown(op, "a sum over an infinite dimension of a weight")
    return scaled(replace(state, views=()), op.base, log_ratio(count), "sum", count)


# |x| over an infinite axis of n entries of size s is s * sqrt(n)
@rule("linalg_vector_norm", "norm", "frobenius_norm")
def _norm(flow: Flow, op: Op) -> State:
    state, count = flow.state(op.arg(0)), _reduced(flow, op)
    order = op.arg(1, "ord", 2)
    if order not in (2, 2.0, None) and log_ratio(count):
        return flow.unknown(op, f"a norm of order {order} over an infinite dimension")
    if state.kind == "weight" and log_ratio(count):
        return flow.unknown(op, "a norm over an infinite dimension of a weight")
    state = _reduction(flow, op)
    return scaled(state, op.base, 0.5 * log_ratio(count), "sum", count)


# means, extremes and medians keep the size
@rule("mean", "amax", "amin", "max", "min", "std", "median", "nanmean", "aminmax", "topk", "sort",
      "kthvalue", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
      "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
      "adaptive_max_pool2d", "cummax")  # fmt: skip
def _reduction(flow: Flow, op: Op) -> State:
    state = flow.state(op.arg(0))
    if state.kind == "weight" and not state.neutral:
        return flow.unknown(op, "a statistic of a weight that grows with width")
    flow.elementwise_uses(op, [op.arg(0)])
    if len(op.base.all_input_nodes) > 1 and op.fact.shape:  # max(a, b): coordinate by coordinate
        return _add(flow, op)
    return replace(state, views=())


# var = mean of squares
@rule("var", "var_mean", "std_mean")
def _var(flow: Flow, op: Op) -> State | list[State]:
    state = _reduction(flow, op)
    name = str(op.base.target)
    if "var_mean" in name or "std_mean" in name:
        spread = powered(state, 2.0) if "var" in name else state
        return [spread, state]
    return powered(state, 2.0)


@rule("cumsum", "cumprod", "logcumsumexp")
def _cumsum(flow: Flow, op: Op) -> State:
    dim = op.arg(1, "dim", 0)
    if op.sizes and log_ratio(op.sizes[dim % len(op.sizes)]):
        return flow.unknown(op, "a running sum along an infinite dimension")
    return _reduction(flow, op)


# exp(x) / sum exp(x): entries over an infinite axis share one unit between them
@rule("_softmax", "_safe_softmax", "softmax")
def _softmax(flow: Flow, op: Op) -> State:
    flow.sink(op, op.arg(0), "it goes into a softmax")
    flow.elementwise_uses(op, [op.arg(0)])
    size = op.sizes[op.arg(1)]
    return scaled(State(0.0, _kind(flow, op)), op.base, -log_ratio(size), "sum", size)


# --- normalisations: the size of the input is forgotten, gain and bias are coordinate-wise ---------


# (input, normalized_shape, gain, bias, eps) -> (output, mean, rstd)
@rule("native_layer_norm")
def _layer_norm(flow: Flow, op: Op) -> list[State]:
    return _normalised(flow, op, op.arg(2), op.arg(3))


# (input, normalized_shape, gain, eps) -> (output, rstd)
@rule("_fused_rms_norm")
def _rms_norm(flow: Flow, op: Op) -> list[State]:
    return _normalised(flow, op, op.arg(2), None)


# (input, gain, bias, ...) -> (output, ...)
@rule("native_group_norm", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm",
      "_native_batch_norm_legit_no_training", "_batch_norm_with_update", "batch_norm",
      "_batch_norm_no_update", "instance_norm", "_batch_norm_impl_index", "miopen_batch_norm")  # fmt: skip
def _batch_norm(flow: Flow, op: Op) -> list[State]:
    return _normalised(flow, op, op.arg(1), op.arg(2))


def _normalised(flow: Flow, op: Op, gain: Any, bias: Any) -> list[State]:
    out = State(0.0, "activation")
    for weight in (gain, bias):
        if isinstance(weight, fx.Node):
            _bias(flow, op, weight)
            flow.sink(op, weight, "it is the gain or bias of a normalisation")
    return [out] * 5


# --- tables -----------------------------------------------------------------------------------------


@rule("relu", "leaky_relu", "neg", "abs", "prelu", "_prelu_kernel", "native_dropout", "dropout",
      "bernoulli", "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "flip", "roll",
      "repeat", "repeat_interleave", "tril", "triu", "diagonal", "unfold", "im2col", "pixel_shuffle",
      "upsample_nearest2d", "upsample_bilinear2d", "_upsample_bilinear2d_aa", "masked_select",
      "nan_to_num", "as_strided", "diag_embed", "movedim", "channel_shuffle", "upsample_nearest1d",
      "upsample_bicubic2d", "clamp", "clamp_min", "clamp_max", "rrelu_with_noise", "rot90", "alpha_dropout",
      "feature_dropout", "broadcast_to", "upsample_linear1d")  # fmt: skip
def _homogeneous(flow: Flow, op: Op) -> State:
    """f(c x) = c f(x): the size of the first argument is kept (a cut at a constant lets it pass)."""
    operands = [n for n in op.base.all_input_nodes if flow.dataflow.ops[n].fact.floating]
    states = [flow.state(n) for n in operands]
    views = flow.elementwise_uses(op, operands)
    return replace(states[0], views=views, kind=_kind(flow, op)) if states else State(0.0, "known")


@rule("ones_like", "zeros_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros",
      "new_ones", "new_empty", "new_full", "eq", "ne", "gt", "lt", "ge", "le", "argmax", "argmin",
      "isnan", "isinf", "logical_not", "sign", "bitwise_not", "argsort", "any", "all", "nonzero",
      "new_empty_strided", "empty_strided", "isfinite", "normal", "uniform")  # fmt: skip
def _fresh(flow: Flow, op: Op) -> State:
    """A new value that does not carry the size of its argument."""
    zero = "zeros" in str(op.base.target)
    return State(-math.inf if zero else 0.0, "known")


def _kind(flow: Flow, op: Op) -> str:
    return join_states([flow.state(n) for n in op.base.all_input_nodes]).kind


def _widest(op: Op) -> Size:
    """The last infinite size of the value: what a constant that scales with width refers to."""
    return next((s for s in reversed(op.sizes) if log_ratio(s)), (1, 1))


def _forget(flow: Flow, op: Op) -> State:
    """Coordinate by coordinate but not homogeneous (gelu, exp, tanh): wants neutral input."""
    operands = [n for n in op.base.all_input_nodes if flow.dataflow.ops[n].fact.floating]
    for value in operands:
        state = flow.state(value)
        if state.kind == "weight" and not state.neutral:
            return flow.unknown(op, "a nonlinear function of a weight that grows with width")
        flow.sink(op, value, f"it goes into {_short(op)}")
    views = flow.elementwise_uses(op, operands)
    return replace(State(0.0, _kind(flow, op)), views=views)


def _short(op: Op) -> str:
    return str(getattr(op.base.target, "_schema", op.base.target)).split("(")[0].split("::")[-1]


def unregistered(flow: Flow, op: Op) -> State:
    """No rule: pass what is coordinate-wise or finite, refuse what mixes an infinite axis."""
    inputs = op.base.all_input_nodes
    states = [flow.state(n) for n in inputs]
    if not op.fact.floating and op.fact.shape:
        return State(0.0, "known")
    shapes = [flow.sizes(n) for n in inputs]
    if _is_pointwise(op, shapes):
        return _forget(flow, op)
    infinite = any(log_ratio(s) for shape in (*shapes, op.sizes) for s in shape)
    if not infinite and all(s.neutral for s in states):
        for value in inputs:
            _bias(flow, op, value)
        return join_states(states)
    return flow.unknown(op, "it mixes an infinite axis and no rule describes it")


def _is_pointwise(op: Op, shapes: Sequence[tuple[Size, ...]]) -> bool:
    target = op.base.target
    if isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags:
        return True
    return False


# log-probabilities do not grow, and a loss reads them as they are
@rule("_log_softmax", "log_softmax", "logsumexp", "mse_loss", "huber_loss", "smooth_l1_loss",
      "binary_cross_entropy", "binary_cross_entropy_with_logits", "l1_loss", "_cdist_forward")  # fmt: skip
def _loss(flow: Flow, op: Op) -> State:
    return _forget(flow, op)


@rule("nll_loss_forward", "nll_loss2d_forward", "nll_loss_nd")
def _nll(flow: Flow, op: Op) -> list[State]:
    state = replace(flow.state(op.arg(0)), views=())
    return [state, State(0.0, "known")]
