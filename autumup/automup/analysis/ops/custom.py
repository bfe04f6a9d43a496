"""Rules of the user's own: from the words of :mod:`automup.op` to the walk."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial, singledispatch
from typing import Any

import torch

from automup.analysis.dataflow import Op, log_ratio, product
from automup.analysis.flow import Flow
from automup.analysis.ops import contractions
from automup.analysis.ops.registry import RULES, USERS, floating_inputs, forget, kind_of, short_name
from automup.analysis.states import State, powered, scaled
from automup.capture.graph import Node
from automup.errors import UsageError
from automup.op import (
    Contraction,
    Elementwise,
    Lookup,
    Moves,
    Normalisation,
    OpRule,
    Reduction,
)

_registered: dict[str, OpRule] = {}


def register_op(op: Any, rule: OpRule, *, replace: bool = False) -> None:
    """Say how an operation acts, for every model that is parametrized from now on.

    Args:
        op: ``"namespace::name"``, or what ``torch.ops.namespace.name`` or
            ``torch.library.custom_op`` gives. A name stands for all its overloads.
        rule: one of :mod:`automup.op`.
        replace: put it in place of a rule that is there already, one of automup's own included.

    Raises:
        UsageError: there is no such operation, torch never runs it as one, its schema has no such
            argument, or it has another rule already.
    """
    if not isinstance(rule, OpRule):
        raise UsageError(
            f"{rule!r} is no rule for an operation.",
            fix='Pass one of automup.op, such as register_op("mylib::scan", '
            "automup.op.Elementwise()).",
        )
    overloads = list(_overloads(op))
    for overload in overloads:
        _check(overload, rule)
        known = _registered.get(overload._name)
        if known != rule and not replace and (known is not None or overload in RULES):
            raise UsageError(
                f"{name_of(overload)} has a rule already: "
                f"{known if known is not None else 'one of automup itself'}.",
                fix="Pass replace=True to put another in its place, everywhere.",
            )
    for overload in overloads:
        _registered[overload._name] = rule
        USERS[overload._name] = RULES[overload] = partial(_result, rule)


def name_of(target: Any) -> str:
    """``namespace::name`` of an operation, without its overload."""
    schema = getattr(target, "_schema", None)
    return str(schema.name) if schema is not None else str(target)


def _overloads(op: Any) -> Iterator[torch._ops.OpOverload]:
    op = getattr(op, "_opoverload", op)  # what torch.library.custom_op gives
    op = _named(op) if isinstance(op, str) else op
    if isinstance(op, torch._ops.OpOverload):
        yield op
    elif isinstance(op, torch._ops.OpOverloadPacket):
        for overload in op.overloads():
            yield getattr(op, overload)
    else:
        raise UsageError(f"{op!r} is no operation.", fix='Pass its name, "namespace::name".')


def _named(name: str) -> Any:
    namespace, _, rest = name.partition("::")
    rest, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace), rest, None) if namespace and rest else None
    if packet is None or (overload and overload not in packet.overloads()):
        known = {n.partition(".")[0] for n in torch._C._dispatch_get_all_op_names()}
        near = difflib.get_close_matches(name, known, 3)
        raise UsageError(
            f"There is no operation {name!r}.",
            fix=(f"Near it are {', '.join(near)}. " if near else "")
            + "Import what defines it first.",
        )
    return getattr(packet, overload) if overload else packet


def _check(overload: torch._ops.OpOverload, rule: OpRule) -> None:
    name = name_of(overload)
    full = overload._name
    if torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd"):
        raise UsageError(
            f"torch runs {name} as other operations, so no rule for it would ever be asked.",
            fix="Register those that it runs.",
        )
    known = [a.name for a in overload._schema.arguments]
    for argument in _arguments(rule):
        if (isinstance(argument, str) and argument not in known) or (
            isinstance(argument, int) and not 0 <= argument < len(known)
        ):
            raise UsageError(
                f"{name} has no argument {argument!r}.",
                fix=f"Its arguments are {', '.join(known)}.",
            )


def _arguments(rule: OpRule) -> Iterator[int | str]:
    """The arguments of the operation that a rule names."""
    assert is_dataclass(rule)
    for field in fields(rule):
        if field.name in ("input", "left", "right", "bias", "table"):
            value = getattr(rule, field.name)
            if value is not None:
                yield value


# --- what each rule does --------------------------------------------------------------------------


@singledispatch
def _result(rule: OpRule, flow: Flow, op: Op) -> State:
    raise TypeError(rule)


def _argument(op: Op, argument: int | str) -> Any:
    names = [a.name for a in op.base.target._schema.arguments]
    position = names.index(argument) if isinstance(argument, str) else argument
    return op.arg(position, names[position])


def _beside(flow: Flow, op: Op, *named: Any) -> None:
    """The other arguments must be Θ(1), and weights among them are used with fan_in 1."""
    for value in floating_inputs(flow, op):
        if not any(value is n for n in named):
            flow.sink(op, value, f"it goes into {short_name(op)}")
            flow.consume(op, value)


def _lost(flow: Flow, op: Op, values: Sequence[Any]) -> State | None:
    """Refuses a rule that keeps axes, where an argument has an infinite one that no result has."""
    parts = [n for n in flow.dataflow.readers(op.base) if n.target is operator.getitem]
    kept = {size for n in parts or [op.base] for size in flow.sizes(n)}
    for size in (size for value in values for size in flow.sizes(value)):
        if log_ratio(size) and size not in kept:
            axis = f"{size[0]}→{size[1]}"
            reason = f"its registered rule keeps every axis, but its result has none of size {axis}"
            return flow.unknown(op, reason)
    return None


@_result.register
def _elementwise(rule: Elementwise, flow: Flow, op: Op) -> State:
    lost = _lost(flow, op, floating_inputs(flow, op))
    if lost is not None:
        return lost
    if rule.degree is None:
        return forget(flow, op)
    value = _argument(op, rule.input)
    state = flow.state(value)
    if rule.degree != 1 and state.kind == "weight" and not state.neutral:
        return flow.unknown(op, "a power of a weight that grows with width")
    for other in floating_inputs(flow, op):
        if other is not value:
            flow.sink(op, other, f"it goes into {short_name(op)}")
    views = flow.elementwise_uses(op, floating_inputs(flow, op))
    out = state if rule.degree == 1 else powered(state, rule.degree)
    return replace(out, views=views, kind=kind_of(flow, op))


@_result.register
def _moves(rule: Moves, flow: Flow, op: Op) -> State:
    value = _argument(op, rule.input)
    _beside(flow, op, value)
    state = flow.state(value)
    return replace(state, views=tuple(v.with_axes(None) for v in state.views))


@_result.register
def _reduction(rule: Reduction, flow: Flow, op: Op) -> State:
    value = _argument(op, rule.input)
    state, sizes = flow.state(value), flow.sizes(value)
    if any(not -len(sizes) <= d < len(sizes) for d in rule.dims):
        return flow.unknown(op, f"its registered rule reduces dimensions {rule.dims}, of which it "
                            f"has {len(sizes)}")  # fmt: skip
    count = product(sizes[d] for d in rule.dims)
    if state.kind == "weight" and (log_ratio(count) or not state.neutral):
        return flow.unknown(op, "a statistic of a weight that grows with width")
    _beside(flow, op, value)
    flow.consume(op, value)
    log = rule.power * log_ratio(count)
    return scaled(state.without_views(), op.base, log, "sum", count)


@_result.register
def _contraction(rule: Contraction, flow: Flow, op: Op) -> State:
    left, right = _argument(op, rule.left), _argument(op, rule.right)
    bias = None if rule.bias is None else _argument(op, rule.bias)
    ends = ((left, rule.left_dims), (right, rule.right_dims))
    counts = [_count(flow, value, dims) for value, dims in ends]
    if counts[0] is None or counts[0] != counts[1]:
        return flow.unknown(op, f"its registered rule pairs dimensions {rule.left_dims} with "
                            f"{rule.right_dims}, which are not of one size here")  # fmt: skip
    _beside(flow, op, left, right, bias)
    out = contractions.contract(
        flow, op, left, right, rule.left_dims, rule.right_dims, "contraction"
    )
    return contractions.with_bias(flow, op, out, bias)


def _count(flow: Flow, value: Any, dims: tuple[int, ...]) -> tuple[int, int] | None:
    sizes = flow.sizes(value)
    if not isinstance(value, Node) or any(not -len(sizes) <= d < len(sizes) for d in dims):
        return None
    return product(sizes[d] for d in dims)


@_result.register
def _normalisation(rule: Normalisation, flow: Flow, op: Op) -> State:
    value = _argument(op, rule.input)
    if flow.state(value).kind == "weight":
        return flow.unknown(op, "a normalisation of a weight")
    lost = _lost(flow, op, [value])
    if lost is not None:
        return lost
    _beside(flow, op, value)
    return State(0.0, kind_of(flow, op))


@_result.register
def _lookup(rule: Lookup, flow: Flow, op: Op) -> State:
    table = _argument(op, rule.table)
    _beside(flow, op, table)
    return contractions.looked_up(flow, op, table)
