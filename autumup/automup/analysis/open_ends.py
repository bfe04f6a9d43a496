"""What analyses left open, with the weights that it concerns and how the user may settle it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from automup.analysis.dataflow import Dataflow, Size, log_ratio
from automup.analysis.ops import RULES
from automup.analysis.ops.registry import USERS, arguments
from automup.analysis.sites import Analysis
from automup.analysis.weights import FLAT, WeightSummary
from automup.capture.graph import Node
from automup.facts import Unresolved
from automup.overrides import growing_dims, is_square, suggestion

_ANOTHER_RULE = "Register the rule that it follows, with replace=True."
_OF_A_SHAPE = "Give its nn.Parameter a dimension for each of the sizes."
_LAYER = "layer"
"""Stands for an override that is still to be worded."""


def open_ends(
    analyses: Sequence[Analysis], weights: Mapping[str, WeightSummary]
) -> Iterator[Unresolved]:
    """Operations without a rule, values that nothing mends, weights that the table does not cover.

    The same operation at the same place, for several layers, is one item. A weight that only an
    operation without a rule reads is named there, and not again.
    """
    grows = _growing(analyses)
    found: dict[Unresolved, tuple[dict[str, None], dict[str, None]]] = {}
    for analysis in analyses:
        for item, read, before in _of_operations(analysis, grows):
            names = found.setdefault(item, ({}, {}))
            names[0].update(dict.fromkeys(name for name in read if name in grows))
            names[1].update(dict.fromkeys(name for name in before if name in grows))
    named: set[str] = set()
    for item, (direct, nearest) in found.items():
        named.update(direct)
        after = () if direct else tuple(nearest)
        yield _with_parameters(replace(item, after=after), [*direct], grows, weights)
    for name, summary in weights.items():
        if summary.problem and not (summary.primary is None and name in named):
            op = _op_text(summary.primary.node) if summary.primary else "parameter"
            reason = f"{name}: {summary.problem}"
            flat = _OF_A_SHAPE if summary.problem == FLAT else ""
            say = "" if flat else _LAYER
            item = Unresolved(place_of_use(summary), op, reason, override=say, advice=flat)
            yield _with_parameters(item, [name], grows, weights)


def _of_operations(
    analysis: Analysis, grows: Mapping[str, tuple[Size, ...]]
) -> Iterator[tuple[Unresolved, list[str], list[str]]]:
    """Items without parameters, each with the weights that its operation reads, and those before.

    The same operation of several layers gives equal items.
    """
    for opaque in analysis.opaque:
        node = opaque.node
        item = Unresolved(place_of_node(node), _op_text(node), opaque.reason)
        names, activations = _reads(analysis.dataflow, node)
        if node.target not in RULES:
            matrices = sum(len(grows[name]) > 1 for name in names if name in grows)
            as_layer = _LAYER if names and activations == 1 and matrices <= 1 else ""
            item = replace(item, override=as_layer, rule=_registration(node, bool(names)))
        elif getattr(node.target, "_name", "") in USERS:
            item = replace(item, advice=_ANOTHER_RULE)
        yield item, names, _before(node)
    for fault in analysis.faults:
        reason = f"its value grows as width^{fault.log:+.3g} and {fault.why}"
        item = Unresolved(place_of_node(fault.node), _op_text(fault.node), reason)
        yield item, [], _before(fault.node)


def _op_text(node: Node) -> str:
    return str(node.target).removeprefix("aten.")


def _registration(node: Node, weighted: bool) -> str:
    """The call that gives the operation a rule, with the rule that is likely."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return ""
    rule = "Contraction" if weighted else "Elementwise"
    return f'register_op("{node.target._schema.name}", automup.op.{rule}())'


def _with_parameters(
    item: Unresolved,
    names: Sequence[str],
    grows: Mapping[str, tuple[Size, ...]],
    weights: Mapping[str, WeightSummary],
) -> Unresolved:
    said = {_what_may_be_said(grows[name], weights[name].sums) for name in names}
    fans = said.pop() if item.override and len(said) == 1 else ""
    return replace(item, parameters=tuple(names), override=fans)


def _what_may_be_said(sizes: tuple[Size, ...], sums: Iterable[tuple[int, ...]]) -> str:
    """An override that fits the shape; of a hidden weight a role where that tells the rest."""
    grows = growing_dims([sizes])
    if len(grows) == 1:
        return "Role.INPUT"
    known = {dims for dims in sums if 0 < len(dims) < len(grows)}
    tells = len(known) == 1 or is_square([sizes])
    return "Role.HIDDEN" if tells else str(suggestion(grows))


def _growing(analyses: Sequence[Analysis]) -> dict[str, tuple[Size, ...]]:
    """The sizes of every weight that has an infinite dimension."""
    found: dict[str, tuple[Size, ...]] = {}
    for analysis in analyses:
        for node, op in analysis.dataflow.ops.items():
            name = node.parameter
            if name and any(map(log_ratio, op.sizes)):
                found[name] = op.sizes
    return found


def _reads(dataflow: Dataflow, node: Node) -> tuple[list[str], int]:
    """The weights that an operation reads, and how many activations.

    A weight is read as it is, or through values computed from weights alone.
    """
    names: list[str] = []
    pending, seen = [*node.all_input_nodes], {node}
    fed = _fed(dataflow)
    activations = sum(n in fed and n.fact.floating for n in arguments(node))
    while pending:
        source = pending.pop(0)
        if source in seen or source in fed:
            continue
        seen.add(source)
        if source.parameter:
            names.append(source.parameter)
        pending += source.all_input_nodes
    return names, activations


def _before(node: Node) -> list[str]:
    """The weights of the layer nearest before an operation."""
    pending, seen = [*node.all_input_nodes], {node}
    while pending:
        source = pending.pop(0)
        names = [n.parameter for n in _through_views(source)]
        if any(names):
            return sorted(name for name in names if name)[::-1]
        pending += [n for n in source.all_input_nodes if n not in seen]
        seen.update(source.all_input_nodes)
    return []


def _through_views(node: Node) -> Iterator[Node]:
    """What an operation reads, itself or through operations that read nothing else."""
    for source in node.all_input_nodes:
        while len(source.all_input_nodes) == 1:
            source = source.all_input_nodes[0]
        yield source


def _fed(dataflow: Dataflow) -> set[Node]:
    """The values that have an input of the model in them."""
    found: set[Node] = set()
    for node in dataflow.ops:
        if node.op == "placeholder" or not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def place_of_node(node: Any) -> str:
    """file:line:column of the innermost frame of the user's that ran an operation."""
    frames = node.fact.frames
    return str(frames[0].span) if frames else ""


def place_of_use(summary: WeightSummary) -> str:
    """Where the use of a weight stands that its fans follow from."""
    return place_of_node(summary.primary.node) if summary.primary else ""
