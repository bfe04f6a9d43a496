"""Operations that act coordinate by coordinate: sums, products, powers, homogeneous functions."""

from __future__ import annotations

from dataclasses import replace

import torch

from automup.analysis.dataflow import Op
from automup.analysis.flow import Flow
from automup.analysis.ops.registry import (
    floating_inputs,
    forget,
    kind_of,
    picks_by_value,
    rule,
    short_name,
    widest,
)
from automup.analysis.ops.statistics import is_entries, is_statistic
from automup.analysis.states import State, multiplied, powered, scaled
from automup.capture.graph import Node


@rule("add", "sub", "rsub", "lerp", "maximum", "minimum", "where", "masked_fill", "hypot",
      "__or__", "__and__", "fmax", "fmin", "complex")  # fmt: skip
def add(flow: Flow, op: Op) -> State:
    """Sums and choices: what is added must have one size; constants are let pass."""
    operands = floating_inputs(flow, op)
    if not operands:
        return State(0.0, "known")
    views = flow.elementwise_uses(op, operands)
    states = [flow.state(n) for n in operands]
    if len(views) == 1 and any(is_entries(state) for state in states):
        views = (replace(views[0], raw=True),)  # less its own mean: still its entries
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
    views = flow.elementwise_uses(op, [x for x in (a, b) if isinstance(x, Node)])
    for position, value, direction in ((1, a, sign), (0, b, 1.0)):
        log = flow.constant_log(op, position)
        if log is not None and flow.state(op.arg(position)).kind == "known":
            if position == 0 and sign < 0:
                break  # a constant divided by a value
            state = flow.state(value)
            out = scaled(state, op.base, direction * log, "constant", widest(op))
            return replace(out, views=views)
    return replace(multiplied(flow.state(a), flow.state(b), sign), views=views)


@rule("polar")
def _polar(flow: Flow, op: Op) -> State:
    """r * exp(i * angle)"""
    flow.sink(op, op.arg(1), "it is the angle of a complex number")
    views = flow.elementwise_uses(op, [op.arg(0), op.arg(1)])
    return replace(flow.state(op.arg(0)), views=views, kind=kind_of(flow, op))


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
        return forget(flow, op)
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
    if state.kind == "weight" and not state.neutral and not is_statistic(state):
        return flow.unknown(op, "a power of a weight that grows with width")
    views = flow.elementwise_uses(op, [op.arg(0)])
    return replace(powered(state, exponent), views=views)


@rule("relu", "leaky_relu", "neg", "abs", "prelu", "_prelu_kernel", "native_dropout", "dropout",
      "bernoulli", "nan_to_num", "clamp", "clamp_min", "clamp_max", "rrelu_with_noise", "tril",
      "alpha_dropout", "feature_dropout", "triu")  # fmt: skip
def _homogeneous(flow: Flow, op: Op) -> State:
    """f(c x) = c f(x): the size of the first argument is kept (a clamp is let pass)."""
    operands = floating_inputs(flow, op)
    states = [flow.state(n) for n in operands]
    views = flow.elementwise_uses(op, operands)
    return (
        replace(states[0], views=views, kind=kind_of(flow, op)) if states else State(kind="known")
    )


@rule("ones_like", "zeros_like", "empty_like", "full_like", "rand_like", "randn_like", "new_zeros",
      "new_ones", "new_empty", "new_full", "eq", "ne", "gt", "lt", "ge", "le", "argmax", "argmin",
      "isnan", "isinf", "logical_not", "sign", "bitwise_not", "argsort", "any", "all",
      "new_empty_strided", "empty_strided", "isfinite", "normal", "uniform", "randn", "rand",
      "randint", "randperm", "empty")  # fmt: skip
def _fresh(flow: Flow, op: Op) -> State:
    """A new value that does not carry the size of its argument."""
    return flow.constant(op) if op.fact.value is not None else State(0.0, "known")


# exp(weight * activation), perhaps summed along time before: the decay of a selective state space
@rule("exp")
def _exp(flow: Flow, op: Op) -> State:
    node = op.arg(0)
    for _ in range(FAR):
        states = [flow.state(n).kind for n in node.all_input_nodes]
        if node.target in _PRODUCTS and sorted(states) == ["activation", "weight"]:
            flow.selective.append(op.base)
        if len(states) != 1 and node.target not in _DIFFERENCES:
            break
        node = node.all_input_nodes[0]
    return forget(flow, op)


FAR = 12
"""Operations between the product and the exponential (a sum over time, its differences)."""
_PRODUCTS = {torch.ops.aten.mul.Tensor, torch.ops.aten.mul_.Tensor}
_DIFFERENCES = {
    torch.ops.aten.sub.Tensor, torch.ops.aten.masked_fill.Scalar,
    torch.ops.aten.masked_fill_.Scalar, torch.ops.aten.masked_fill.Tensor,
}  # fmt: skip


# (gradient, input or output of f) -> gradient * f', in a model that differentiates itself
@rule("softplus_backward", "silu_backward", "gelu_backward", "tanh_backward", "sigmoid_backward",
      "elu_backward", "mish_backward", "hardswish_backward", "log_sigmoid_backward")  # fmt: skip
def _derivative(flow: Flow, op: Op) -> State:
    gradient, *rest = floating_inputs(flow, op)
    for value in rest:
        flow.sink(op, value, f"it goes into {short_name(op)}")
    return replace(flow.state(gradient), views=(), kind="activation")


# the derivative of a homogeneous function does not care for the size of its input
@rule("threshold_backward", "leaky_relu_backward", "native_dropout_backward")
def _kept(flow: Flow, op: Op) -> State:
    return replace(flow.state(op.arg(0)), views=(), kind="activation")


# coordinate by coordinate, though torch does not tag them so
rule("hardswish", "hardsigmoid", "hardtanh", "log_sigmoid_forward")(forget)


# the number of entries that are not zero may differ between widths by chance
@rule("nonzero", "masked_select")
def _picked(flow: Flow, op: Op) -> State:
    if picks_by_value(flow, op):
        return flow.unknown(op, "how many entries it picks depends on values")
    return flow.state(op.arg(0)).without_views() if op.fact.floating else State(0.0, "known")
