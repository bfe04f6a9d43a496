"""The registry of rules, what rules share, and what happens to an operation that has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from automup.analysis.dataflow import Op, Size, log_ratio
from automup.analysis.flow import Flow, Rule
from automup.analysis.states import State, join_states
from automup.capture.graph import Node, nodes_in
from automup.overrides import Fans

RULES: dict[Any, Rule] = {}
USERS: dict[str, Rule] = {}
"""The user's own, by ``namespace::name.overload``: a file that is read again defines its operations
again, as other objects."""
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


def floating_inputs(flow: Flow, op: Op) -> list[Node]:
    """The floating-point tensors that an operation reads."""
    return [n for n in op.base.all_input_nodes if flow.dataflow.ops[n].fact.floating]


def kind_of(flow: Flow, op: Op) -> str:
    """The kind of a result that all inputs have a part in."""
    return join_states([flow.state(n) for n in op.base.all_input_nodes]).kind


def widest(op: Op) -> Size:
    """The last infinite size of the value: what a constant that scales with width refers to."""
    return next((s for s in reversed(op.sizes) if log_ratio(s)), (1, 1))


def forget(flow: Flow, op: Op) -> State:
    """Coordinate by coordinate but not homogeneous (gelu, exp, tanh): wants neutral input."""
    operands = floating_inputs(flow, op)
    for value in operands:
        state = flow.state(value)
        if state.kind == "weight" and not state.neutral:
            return flow.unknown(op, "a nonlinear function of a weight that sums over width")
        flow.sink(op, value, f"it goes into {short_name(op)}")
    views = flow.elementwise_uses(op, operands)
    return replace(State(0.0, kind_of(flow, op)), views=views)


def picks_by_value(flow: Flow, op: Op) -> bool:
    """Whether a mask or the like picked other numbers of entries at the two widths by chance."""
    inputs = [size for n in op.base.all_input_nodes for size in flow.sizes(n)]
    return any(map(log_ratio, op.sizes)) and not any(map(log_ratio, inputs))


def short_name(op: Op) -> str:
    """The operation's name without its namespace and overload."""
    return str(getattr(op.base.target, "_schema", op.base.target)).split("(")[0].split("::")[-1]


def unregistered(flow: Flow, op: Op) -> State:
    """No rule: pass what is coordinate-wise or finite, refuse what mixes an infinite axis."""
    if not op.fact.floating and op.fact.shape:
        return State(0.0, "known")
    target = op.base.target
    if isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags:
        return forget(flow, op)
    inputs = op.base.all_input_nodes
    if not _grows(flow, op, inputs) and all(flow.state(n).neutral for n in inputs):
        for value in inputs:
            flow.consume(op, value)
        return join_states([flow.state(n) for n in inputs])
    return flow.unknown(op, f"{short_name(op)} mixes an infinite axis and no rule describes it")


def fallback_for(given: Mapping[str, Fans]) -> Rule:
    """What an operation without a rule does, where the user has said what some weights are."""

    def fallback(flow: Flow, op: Op) -> State | list[State]:
        own = USERS.get(getattr(op.base.target, "_name", ""))
        if own is not None:
            return own(flow, op)
        if given and _is_layer(flow, op, given):
            return _layer(flow, op)
        return unregistered(flow, op)

    return fallback


def _is_layer(flow: Flow, op: Op, given: Mapping[str, Fans]) -> bool:
    """Whether it reads one activation, once, and weights whose fans the user gave.

    Only one of them may be a matrix that it sums over: what two projections of an activation do
    with each other, as in an attention, no fan tells.
    """
    inputs = [n for n in arguments(op.base) if flow.dataflow.ops[n].fact.floating]
    states = [flow.state(n) for n in inputs]
    weights = [s for s in states if s.kind == "weight"]
    names = {v.parameter for s in weights for v in s.views}
    return (
        bool(weights)
        and all(s.views for s in weights)
        and names <= given.keys()
        and sum(bool(given[name].summed) for name in names) <= 1
        and all(s.neutral for s in states if s.kind == "known")
        and sum(s.kind == "activation" for s in states) == 1
    )


def _layer(flow: Flow, op: Op) -> State:
    """A weight drawn and trained by its row of the table makes Θ(1) of Θ(1): that is what it is."""
    for value in floating_inputs(flow, op):
        if flow.state(value).kind == "activation":
            flow.sink(op, value, f"it goes into {short_name(op)}")
        elif flow.state(value).kind == "weight":
            flow.use(value, op, "given", (), (1, 1))
    return State()


def arguments(node: Node) -> list[Node]:
    """The values that an operation reads, each as often as it is passed."""
    return [*nodes_in(node.args), *nodes_in(node.kwargs)]


def _grows(flow: Flow, op: Op, inputs: Sequence[Node]) -> bool:
    shapes = [flow.sizes(n) for n in inputs]
    return any(log_ratio(s) for shape in (*shapes, op.sizes) for s in shape)
