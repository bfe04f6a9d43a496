"""Which weights are at the model's ends: its input layers and its readouts; and its attentions.

A constant multiplier for an end can be exchanged for init and learning rate (the abc-symmetry) only
where all that a weight does is linear up to there, so this tells where that holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from automup.analysis.dataflow import Dataflow, log_ratio
from automup.analysis.flow import Use
from automup.capture.graph import Node, written

INPUT, OUTPUT, TIED, INSIDE = "input", "output", "tied", "inside"
"""Where a use of a weight is: in an input layer, in a readout, in a readout of a shared weight that
has a site, or anywhere else (in a way that is not linear, too)."""

_MOVES = {
    "view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "alias", "detach", "clone", "t",
    "contiguous", "transpose", "swapaxes", "permute", "expand", "expand_as", "repeat", "select",
    "slice", "narrow", "split", "split_with_sizes", "chunk", "unbind", "flatten", "unflatten",
    "cat", "stack", "add", "add_", "sub", "_to_copy", "to", "native_dropout", "dropout", "index",
    "index_select", "gather", "movedim", "_reshape_alias",
}  # fmt: skip
_PRODUCTS = {"mul", "mul_", "div", "div_"}
_SOFTMAX = {"_softmax", "softmax", "_safe_softmax"}
_BRANCHES = {"mm", "bmm", "baddbmm", "matmul", "dot", "mv", "_grouped_mm"}


def ends_of(
    flow: Dataflow, uses: Sequence[Use], last: Collection[Node], sites: Collection[Node]
) -> dict[str, frozenset[str]]:
    """Where each weight is used.

    Args:
        flow: the aligned traces.
        uses: of the weights.
        last: see :func:`last_stage`.
        sites: the readouts of shared weights that get a multiplier.
    """
    first = _first_stage(flow, _by_node(uses))
    ends: dict[str, set[str]] = {}
    for use in uses:
        where = INSIDE
        if use.node in sites and use.how != "elementwise":
            where = TIED
        elif use.node in last and not log_ratio(use.fan_out):
            where = OUTPUT
        elif use.node in first and not log_ratio(use.fan_in):
            where = INPUT
        found = ends.setdefault(use.parameter, set())
        found.add(where)
        if not use.raw:
            found.add(INSIDE)
    return {name: frozenset(found) for name, found in ends.items()}


def _by_node(uses: Iterable[Use]) -> dict[Node, list[Use]]:
    found: dict[Node, list[Use]] = {}
    for use in uses:
        found.setdefault(use.node, []).append(use)
    return found


def _grows(use: Use) -> bool:
    return bool(log_ratio(use.fan_in) or log_ratio(use.fan_out))


def _first_stage(flow: Dataflow, at: Mapping[Node, Sequence[Use]]) -> frozenset[Node]:
    """Values that are linear in weights which read the data, before any other weight."""
    touched: set[Node] = set()  # what any infinite weight has had a part in
    stage: set[Node] = set()
    for node in flow.ops:
        before = [n for n in node.all_input_nodes if n in touched]
        uses = [use for use in at.get(node, ()) if _grows(use)]
        if uses or before:
            touched.add(node)
        if not uses and not before:
            continue
        if not before:  # of the data alone: linear in the weight that meets them
            layers = [u for u in uses if u.how not in ("elementwise", "given")]
            if layers or _name(node) in _MOVES | _PRODUCTS:
                stage.add(node)
        elif all(n in stage for n in before) and _linear(node, before, bool(uses)):
            stage.add(node)
    return frozenset(stage)


def last_stage(flow: Dataflow, uses: Iterable[Use]) -> frozenset[Node]:
    """Values that are linear in readouts, with no infinite value after them."""
    at = _by_node(uses)
    inner: set[Node] = set()  # before an infinite value
    for node in reversed(flow.ops):
        wide = any(log_ratio(size) for size in flow.ops[node].sizes)
        if wide or node in inner:
            inner.update(node.all_input_nodes)
    stage: set[Node] = set()
    for node, op in flow.ops.items():
        if node in inner or any(log_ratio(size) for size in op.sizes):
            continue
        reads = [use for use in at.get(node, ()) if log_ratio(use.fan_in)]
        before = [n for n in node.all_input_nodes if n in stage]
        if reads or (before and _linear(node, before, node in at)):
            stage.add(node)
    return frozenset(stage)


def _linear(node: Node, stage: Sequence[Node], weights: bool) -> bool:
    """Whether an operation is linear in what it reads of a stage, weights that it adds included."""
    if node.target is written or _name(node) in _MOVES or _name(node) == "getitem":
        return True
    return _name(node) in _PRODUCTS and len(stage) == 1 and not weights and node.args[0] is stage[0]


def _name(node: Node) -> str:
    target = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(target, "__name__", target))


def attentions_of(
    flow: Dataflow, uses: Iterable[Use], corrected: Iterable[Node]
) -> dict[Node, bool]:
    """The softmaxes over products of activations, and whether a multiplier reaches each."""
    layers = {use.node for use in uses if use.how != "elementwise"}
    corrected = set(corrected)
    found: dict[Node, bool] = {}
    for node in flow.ops:
        fused = _name(node).startswith("_scaled_dot_product")
        if not fused and _name(node) not in _SOFTMAX:
            continue
        reached = _upstream(node, layers)
        if fused or any(_name(n) in _BRANCHES for n in reached):
            found[node] = bool(corrected & reached)
    return found


def _upstream(node: Node, layers: set[Node]) -> set[Node]:
    """An operation and what it is computed from, back to the layers and to other softmaxes."""
    reached, pending = {node}, [node]
    while pending:
        for source in pending.pop().all_input_nodes:
            if source in reached or source in layers or _name(source) in _SOFTMAX:
                continue
            reached.add(source)
            pending.append(source)
    return reached
