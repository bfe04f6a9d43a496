"""The registry of rules, what rules share, and what happens to an operation that has none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import fx

from automup.analysis.dataflow import Op, Size, log_ratio
from automup.analysis.flow import Flow, Rule, State, join_states

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


def floating_inputs(flow: Flow, op: Op) -> list[fx.Node]:
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


def fallback_for(given: Collection[str]) -> Rule:
    """What an operation without a rule does, where the user has said what some weights are."""

    def fallback(flow: Flow, op: Op) -> State | list[State]:
        own = USERS.get(getattr(op.base.target, "_name", ""))
        if own is not None:
            return own(flow, op)
        layer = _layer(flow, op, given) if given else None
        return unregistered(flow, op) if layer is None else layer

    return fallback


def _layer(flow: Flow, op: Op, given: Collection[str]) -> State | None:
    """One activation and weights whose fans the user gave: a layer, Θ(1) in and Θ(1) out.

    That is what fans mean: a weight drawn and trained by its row of the table makes a Θ(1) result
    of a Θ(1) argument. What two activations do with each other no fan tells.
    """
    inputs = floating_inputs(flow, op)
    states = {n: flow.state(n) for n in inputs}
    weights = [n for n in inputs if states[n].kind == "weight"]
    views = [v for n in weights for v in states[n].views]
    known = [s for s in states.values() if s.kind == "known"]
    if not weights or not all(states[n].views for n in weights):
        return None
    if not all(v.parameter in given for v in views) or not all(s.neutral for s in known):
        return None
    if len(inputs) - len(weights) - len(known) != 1:
        return None
    for value in inputs:
        if states[value].kind == "activation":
            flow.sink(op, value, f"it goes into {short_name(op)}")
        elif states[value].kind == "weight":
            flow.use(value, op, "given", (), (1, 1))
    return State()


def _grows(flow: Flow, op: Op, inputs: Sequence[fx.Node]) -> bool:
    shapes = [flow.sizes(n) for n in inputs]
    return any(log_ratio(s) for shape in (*shapes, op.sizes) for s in shape)
