"""Where a multiplier is missing: from faults of the calculus to sites that mend them.

Each fault is mended at one of its origins, the operations that gave the value its exponent: at the
author's own constant if there is one (that is where a careful colleague would put it), else at the
contraction or sum. With all corrections in place the calculus is run again: it must find nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from automup.analysis.dataflow import Dataflow, Op, Size, log_ratio
from automup.analysis.ends import attentions_of, ends_of, last_stage
from automup.analysis.flow import Fault, Flow, Opaque
from automup.analysis.ops import RULES, fallback_for
from automup.analysis.parts import parts_of
from automup.analysis.states import EPSILON, Origin
from automup.analysis.weights import WeightSummary, alike, summarise
from automup.capture.graph import Node
from automup.capture.source import Frame
from automup.overrides import Fans

ROUNDED = 0.005
"""By how much the rounding of constants (bfloat16 has 8 bits) may move an exponent."""


@dataclass(frozen=True)
class Correction:
    """One operation whose result must be multiplied by 2 ** log at the wider model."""

    op: Op
    log: float
    kind: str
    size: Size
    why: str
    constant: bool
    parameter: str = ""
    reader: str = ""
    """The module that reads the shared weight of a readout."""
    end: bool = False
    """Whether it is a readout after which nothing infinite comes."""
    degree: float = 1.0
    """How what is at fault depends on the operation: as this power of its result."""

    @property
    def node(self) -> Node:
        """The operation in the base's graph."""
        return self.op.base

    @property
    def exponent(self) -> float:
        """log as a power of the axis: multiplier = (wide / base) ** exponent.

        It is the simple power that it is but for the rounding of the author's constants.
        """
        exponent = self.log / log_ratio(self.size)
        simple = round(12 * exponent) / 12
        return simple if abs(exponent - simple) < ROUNDED else exponent

    @property
    def factor(self) -> float:
        """The multiplier at the wider model."""
        return float((self.size[1] / self.size[0]) ** self.exponent)

    @property
    def outside_library(self) -> bool:
        """Whether user code computes it: directly, or by calling the layer that is the readout."""
        library: Sequence[str] = self.node.fact.library
        of_one_layer = len({name.rpartition(".")[0] for name in library}) == 1
        called = len(library) == 1 or (of_one_layer and "." in library[0])
        return not library or (self.kind == "readout" and called)

    @property
    def frames(self) -> tuple[Frame, ...]:
        frames: tuple[Frame, ...] = self.node.fact.frames
        return frames


@dataclass(frozen=True)
class Analysis:
    """All that two traces tell: weights by name, corrections, and what stayed open."""

    dataflow: Dataflow
    weights: Mapping[str, WeightSummary]
    corrections: tuple[Correction, ...]
    faults: tuple[Fault, ...]
    opaque: tuple[Opaque, ...]
    selective: tuple[Node, ...] = ()
    """The decays of selective state spaces, for which the theory is disputed."""
    grows: bool = True
    """Whether any axis of any value is infinite."""
    attentions: Mapping[Node, bool] = field(default_factory=dict)
    """The softmaxes over products of activations, and whether a correction reaches each."""

    def alone(self) -> Analysis:
        """The same without the wider trace, and with no more of the base's than is still asked for.

        That is the parameters' sizes, and what leads to an operation that stayed open.
        """
        ops = self.dataflow.ops
        kept = {n: op.alone() for n, op in ops.items() if self.opaque or n.op == "get_attr"}
        corrections = tuple(replace(c, op=c.op.alone()) for c in self.corrections)
        return replace(self, dataflow=Dataflow(kept), corrections=corrections)


def analyse(
    dataflow: Dataflow,
    shapes: Mapping[str, tuple[Size, ...]],
    fans: Mapping[str, Fans] | None = None,
    expected: Mapping[str, WeightSummary] | None = None,
) -> Analysis:
    """Run the calculus over aligned traces.

    Args:
        dataflow: the aligned traces.
        shapes: every parameter's sizes at both widths, by its first name.
        fans: the fans that the user gave, by parameter.
        expected: what another width says of the weights. It saves a walk if it holds here too.
    """
    fallback = fallback_for(fans or {})
    guess = {name: w.scale_at(shapes[name]) for name, w in (expected or {}).items()}
    flow = Flow(dataflow, RULES, fallback, guess)
    parts = parts_of(dataflow, flow.uses, shapes)
    weights = summarise(flow.uses, shapes, parts, dataflow.read_parameters, fans)
    scales = {name: summary.scale for name, summary in weights.items()}
    if not alike(guess, scales):
        flow = Flow(dataflow, RULES, fallback, scales)
    chosen: dict[Node, Correction] = {}
    revised: set[Node] = set()
    while flow.faults and _correct(chosen, revised, dataflow, flow.faults):
        shifts = {node: c.log for node, c in chosen.items()}
        flow = Flow(dataflow, RULES, fallback, scales, shifts, before=flow)
    last = last_stage(dataflow, flow.uses)
    corrections = tuple(
        replace(c, end=c.kind == "readout" and c.node in last)
        for c in chosen.values()
        if c.exponent  # 0: what the rounding of a constant leaves
    )
    ends = ends_of(dataflow, flow.uses, last, [c.node for c in corrections if c.kind == "readout"])
    found = {n: replace(w, ends=ends.get(n, frozenset())) for n, w in weights.items()}
    return Analysis(
        dataflow,
        found,
        corrections,
        tuple(flow.faults),
        tuple(flow.opaque),
        tuple(flow.selective),
        bool(dataflow.growths),
        attentions_of(dataflow, flow.uses, [c.node for c in corrections]),
    )


def _correct(
    chosen: dict[Node, Correction],
    revised: set[Node],
    dataflow: Dataflow,
    faults: Sequence[Fault],
) -> bool:
    """Correct every fault at one of its origins; whether anything was changed.

    It goes to the fault's preferred origin. Faults that share an origin share its correction. What
    is left in the next round (other corrections met it too) revises the same one, once; what is
    then left (others share it that need something else) goes to an origin of its own.
    """
    now: dict[Node, Correction] = {}
    for fault in faults:
        origins = {n: o for n, o in fault.origins.items() if abs(o.degree) > EPSILON}
        if any(node in now for node in origins):
            continue
        again = _preferred(dataflow, [n for n in chosen if n not in revised], origins)
        node = again or _preferred(dataflow, [n for n in origins if n not in chosen], origins)
        if node is None:
            continue
        correction = _correction(dataflow, fault, origins, node)
        if again is not None:
            correction = replace(chosen[node], log=chosen[node].log + correction.log)
            revised.add(node)
        if log_ratio(correction.size):
            now[node] = correction
    chosen |= now
    return bool(now)


def _correction(
    dataflow: Dataflow, fault: Fault, origins: Mapping[Node, Origin], node: Node
) -> Correction:
    log = -fault.log / origins[node].degree
    size = _axis(dataflow, origins, node, log)
    return Correction(
        dataflow.ops[node],
        log,
        _kind(origins.values()),
        size,
        _why(fault),
        origins[node].kind == "constant",
        *_tied(origins),
        degree=origins[node].degree,
    )


_PREFERENCE = ("constant", "contraction", "tied", "sum")


def _preferred(
    dataflow: Dataflow, nodes: Iterable[Node], origins: Mapping[Node, Origin]
) -> Node | None:
    """The author's constant before a contraction before a sum; the latest of a kind."""
    for kind in _PREFERENCE:
        found = [n for n in nodes if n in origins and origins[n].kind == kind]
        if found:
            return max(found, key=dataflow.order.__getitem__)
    return None


def _axis(dataflow: Dataflow, origins: Mapping[Node, Origin], chosen: Node, log: float) -> Size:
    """The axis that the multiplier is a power of: a contracted one where there is one.

    A constant may scale a value in which no infinite axis is left (attention logits): then it is
    that of an earlier value of which the multiplier is a half power.
    """
    for origin in origins.values():
        if origin.kind != "constant" and log_ratio(origin.size):
            return origin.size
    if log_ratio(origins[chosen].size):
        return origins[chosen].size
    for node in _upstream(dataflow, chosen):
        for size in reversed(dataflow.ops[node].sizes):
            if log_ratio(size) and _is_half_power(log / log_ratio(size)):
                return size
    return (1, 1)


def _upstream(dataflow: Dataflow, node: Node) -> Iterator[Node]:
    """The values that a value comes from, nearest first; then all that ran before it."""
    pending, seen = [node], {node}
    while pending:
        current = pending.pop(0)
        yield current
        sources = [n for n in current.all_input_nodes if n not in seen]
        seen.update(sources)
        pending += sources
    earlier = list(dataflow.ops)[: dataflow.order[node]]
    yield from reversed(earlier)


def _is_half_power(exponent: float) -> bool:
    return abs(2 * exponent - round(2 * exponent)) < EPSILON


def _kind(origins: object) -> str:
    kinds = {o.kind for o in origins}  # type: ignore[attr-defined]
    for origin, kind in (("contraction", "attention"), ("tied", "readout"), ("sum", "reduction")):
        if origin in kinds:
            return kind
    return "scale"


def _why(fault: Fault) -> str:
    kinds = {o.kind for o in fault.origins.values()}
    cause = {
        frozenset({"constant"}): "a constant that changes with width",
        frozenset({"contraction"}): "two activations are contracted over an infinite axis",
        frozenset({"contraction", "constant"}): "two activations are contracted over an infinite "
        "axis and the constant beside them does not make up for it",
        frozenset({"tied"}): "the shared weight follows its input role, so this use of it sums "
        "entries of size 1 over an infinite axis",
        frozenset({"sum"}): "a sum over an infinite axis",
    }.get(frozenset(kinds), "its factors do not make up for each other")
    return f"{cause}; {fault.why}"


def _tied(origins: Mapping[Node, Origin]) -> tuple[str, str]:
    """The weight of a readout, and the module that reads it."""
    for node, origin in origins.items():
        if origin.kind == "tied":
            return _weight_of(node), node.fact.module
    return "", ""


def _weight_of(node: Node) -> str:
    pending = list(node.all_input_nodes)
    while pending:
        source = pending.pop()
        name = source.parameter
        if name:
            return str(name)
        if len(source.all_input_nodes) == 1:
            pending += source.all_input_nodes
    return ""
