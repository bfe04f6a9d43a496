"""The width calculus: one walk over the dataflow that gives every value its width exponent.

A value's *log* is log2 of how much larger its coordinates are at the wider model than at the base
when training is in muP: 0 is healthy (docs/how.md). A weight's log is -log2 r_i: what it contracts
makes up for it. Constants have the log of their own ratio. Whatever is not 0 where it matters (an
operation that is not homogeneous, a sum with something of another size, an output) is a fault,
and the values that it came from are its origins.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from automup.analysis.dataflow import Dataflow, Op, Size, log_ratio, product
from automup.analysis.states import EPSILON, ZERO, Origin, Scale, State, join_states, ratio_log
from automup.analysis.views import Axis, View, held, infinite_dims, whole
from automup.capture.graph import Node, written

A_LITTLE = 0.3
"""Octaves by which the size of a table of constants may differ without an exponent."""


@dataclass(frozen=True)
class Use:
    """One use of a weight: what the operation sums over and what it writes.

    ``raw``: it reads the weight's own entries, not what was computed from them; ``matrix``: they
    lie along more than one infinite axis there, whatever the weight's own shape is.
    """

    parameter: str
    node: Node
    how: str
    in_dims: tuple[int, ...]
    fan_in: Size
    fan_out: Size
    lost: bool = False
    raw: bool = True
    matrix: bool = False


@dataclass(frozen=True)
class Fault:
    """A value that is not neutral where it must be."""

    node: Node
    log: float
    origins: Mapping[Node, Origin]
    why: str


@dataclass(frozen=True)
class Opaque:
    """An operation that mixes an infinite axis in a way that no rule describes."""

    node: Node
    reason: str


_Found = tuple[list[Any], ...]
"""Uses, faults, and what else a walk finds at an operation."""
Rule = Callable[["Flow", Op], State | list[State]]


class Flow:
    """One walk. ``scales`` holds those of the weights, ``corrections`` what sites add.

    ``before`` is a walk with the same scales and other corrections: what those do not reach is
    taken from it.
    """

    def __init__(
        self,
        dataflow: Dataflow,
        rules: Mapping[Any, Rule],
        fallback: Rule,
        scales: Mapping[str, Scale],
        corrections: Mapping[Node, float] | None = None,
        before: Flow | None = None,
    ) -> None:
        self.dataflow = dataflow
        self.uses: list[Use] = []
        self.faults: list[Fault] = []
        self.opaque: list[Opaque] = []
        self.selective: list[Node] = []
        self._rules, self._fallback = rules, fallback
        self._scales = scales
        self._given = dict(corrections or {})
        self._corrections = dict(self._given)
        self._states: dict[Node, State | list[State]] = {}
        self._found: dict[Node, _Found] = {}
        if before is None:
            for node, op in dataflow.ops.items():
                self._visit(node, op)
        else:
            self._revise(before)

    @property
    def _lists(self) -> _Found:
        return self.uses, self.faults, self.opaque, self.selective

    def _visit(self, node: Node, op: Op) -> None:
        """Evaluate an operation; keep its state and what was found at it."""
        marks = [len(items) for items in self._lists]
        state = self._evaluate(op)
        self._states[node] = self.corrected(op, state) if isinstance(state, State) else state
        if marks != [len(items) for items in self._lists]:
            new = [items[n:] for items, n in zip(self._lists, marks, strict=True)]
            self._found[node] = tuple(new)

    def _revise(self, before: Flow) -> None:
        """Evaluate what other corrections than before reach; take the rest from before."""
        nodes = {*self._given, *before._given}
        moved = {n for n in nodes if self._given.get(n) != before._given.get(n)}
        self._states.update(before._states)
        changed: set[Node] = set()
        for node, op in self.dataflow.ops.items():
            if node in moved or not changed.isdisjoint(node.all_input_nodes):
                self._visit(node, op)
                if self._states[node] != before._states[node]:
                    changed.add(node)
            elif node in before._found:
                self._found[node] = before._found[node]
                for items, new in zip(self._lists, before._found[node], strict=True):
                    items += new

    # --- evaluation ---------------------------------------------------------------------------

    def _evaluate(self, op: Op) -> State | list[State]:
        node = op.base
        if node.op == "output":
            self._check_outputs(node)
            return State()
        if node.op in ("placeholder", "get_attr"):
            return self._leaf(op)
        sources = [self.state(n) for n in node.all_input_nodes]
        constant = node.target is not written and self._is_constant(op, sources)
        read = zip(node.all_input_nodes, sources, strict=True)
        if constant and not any([not n.fact.known and (s.log or s.odd) for n, s in read]):
            return self.constant(op)
        if node.target is operator.getitem:
            parts = self._states[node.args[0]]
            return parts[node.args[1]] if isinstance(parts, list) else parts
        if node.target is written:
            return self.join(op, [self.state(n) for n in node.args])
        if any([s.odd for s in sources]):
            self.unknown(op, "it reads a table of constants whose size changes with width")
        state = self._rules.get(node.target, self._fallback)(self, op)
        if not constant:
            return state
        parts = state if isinstance(state, list) else [state]  # of a table that was drawn
        found = [replace(part, kind="known") for part in parts]
        return found if isinstance(state, list) else found[0]

    @staticmethod
    def _is_constant(op: Op, sources: Sequence[State]) -> bool:
        """Computed from constants alone; what depends on an input of the model is no constant."""
        known = all([s.kind == "known" for s in sources])
        return known and (bool(sources) or op.fact.known)

    def _leaf(self, op: Op) -> State:
        name = op.base.parameter
        if op.base.op == "placeholder" and op.fact.floating:
            return State()
        if name is None:
            return self.constant(op)
        return State(self.scale(name).log, "weight", (whole(name, op.sizes),))

    def _check_outputs(self, node: Node) -> None:
        """Outputs are read by people and losses: finite ones must be neutral.

        A feature vector that shrinks with its own width (a normalised embedding) is legitimate.
        """
        for value in node.all_input_nodes:
            state = self.state(value)
            grows = any(log_ratio(s) for s in self.dataflow.ops[value].sizes)
            if not state.neutral and not (grows and state.log < 0):
                self.fault(value, state, "it is an output of the model")

    # --- what rules ask for --------------------------------------------------------------------

    def state(self, value: Any) -> State:
        """The state of an argument: a node's, or a known one for a number."""
        if isinstance(value, Node):
            state = self._states[value]
            return state if isinstance(state, State) else join_states(state)
        return State(0.0, "known")

    def scale(self, parameter: str) -> Scale:
        """How a weight grows; nothing is known of it in the first walk."""
        return self._scales.get(parameter, Scale())

    def sizes(self, value: Any) -> tuple[Size, ...]:
        """The sizes of a value's dimensions; none of a number."""
        return self.dataflow.ops[value].sizes if isinstance(value, Node) else ()

    def constant_log(self, op: Op, position: int, name: str = "") -> float | None:
        """log2 ratio of a number, or of a known tensor of equal entries; None for anything else."""
        base, wide = op.number(position, name)
        if isinstance(base, Node):
            state = self.state(base)
            return state.log if state.kind == "known" else None
        return ratio_log(base, wide)

    def corrected(self, op: Op, state: State) -> State:
        """The state with the operation's correction, which is applied once.

        A contraction calls this before it adds its bias: the multiplier belongs to its operands.
        """
        shift = self._corrections.pop(op.base, 0.0) if self._corrections else 0.0
        return replace(state, log=state.log + shift) if shift else state

    def constant(self, op: Op) -> State:
        """A constant: its log is the ratio of its size at the two widths.

        The size of a table (positions, rotations) moves a little with its own shape: of a table
        only an exponent counts. What is none, and moves more than a little in its largest entries
        as in all, is odd.
        """
        log = ratio_log(op.fact.value, op.wide_fact.value) or 0.0
        single = all(n == 1 for n in op.fact.shape)
        if single or log == ZERO or self._is_exponent(log):
            return State(log, "known")
        moved = min(abs(log), abs(ratio_log(op.fact.peak, op.wide_fact.peak) or 0.0))
        return State(0.0, "known", odd=moved > A_LITTLE and op.fact.floating)

    def _is_exponent(self, log: float) -> bool:
        """Whether a table's size goes as a quarter power of one of the model's axes."""
        powers = (4 * log / axis for axis in self.dataflow.growths)
        return any(abs(power - round(power)) < 1e-3 for power in powers)

    def fault(self, node: Node, state: State, why: str) -> None:
        """Record that a value is not neutral where it must be."""
        self.faults.append(Fault(node, state.log, state.origins, why))

    def unknown(self, op: Op, reason: str) -> State:
        """Record that no rule describes an operation; the walk goes on with a neutral result."""
        self.opaque.append(Opaque(op.base, reason))
        return State()

    def sink(self, op: Op, value: Any, why: str) -> None:
        """The operation is not homogeneous in this argument: it must be neutral."""
        state = self.state(value)
        if not state.neutral:
            self.fault(op.base, state, why)

    def use(
        self,
        value: Any,
        op: Op,
        how: str,
        dims: Sequence[int],
        fan_in: Size,
        spread: Size = (1, 1),
        share: int = 1,
    ) -> None:
        """Record that the operation uses the weights in a value, summing over ``dims``.

        ``spread``: to how many positions one input coordinate goes (the taps of a kernel);
        ``share``: among how many groups the outputs are divided.
        """
        sizes = self.sizes(value)
        for view in self.state(value).views:
            axes = view.axes
            contracted: Sequence[Axis] = () if axes is None else [axes[d] for d in dims]
            if view.terms is not None:  # a factor of a product of weights sums its own terms
                fan_in = product([held(contracted), view.terms])
            held_sizes = sizes if axes is None else [held([axis]) for axis in axes]
            fan_out = product([*_written_sizes(held_sizes, dims, how), spread])
            fan_out = (fan_out[0] // share, fan_out[1] // share)
            across = [size for size in held_sizes if axes is not None and log_ratio(size)]
            self.uses.append(
                Use(
                    view.parameter,
                    op.base,
                    how,
                    infinite_dims(contracted),
                    fan_in,
                    fan_out,
                    lost=axes is None and bool(dims),
                    raw=view.raw,
                    matrix=len(across) > 1,
                )
            )

    def consume(self, op: Op, value: Any) -> None:
        """The operation uses the weights in a value coordinate by coordinate: fan_in is 1."""
        self.use(value, op, "elementwise", (), (1, 1))

    def join(self, op: Op, states: Sequence[State]) -> State:
        """Addition and the like: all live operands must have one size; the largest wins."""
        live = [s for s in states if s.kind != "known" and s.log != ZERO]
        if live and any(s.kind == "known" and s.log > EPSILON for s in states):
            return self.unknown(op, "a constant that grows with width is added to an activation")
        if len(live) > 1 and max(s.log for s in live) - min(s.log for s in live) > EPSILON:
            for state in live:
                if not state.neutral:
                    self.fault(op.base, state, "it is added to something of another size")
            return State(0.0, join_states(live).kind)
        return join_states(states)

    def elementwise_uses(self, op: Op, operands: Sequence[Any]) -> tuple[View, ...]:
        """Weights that meet an activation coordinate by coordinate are used with fan_in 1.

        Weights that meet only weights and constants stay weights, where they keep their shape;
        a weight that is normalised by its own norm, mean or variance is not used by that.
        """
        alone = all(self.state(x).kind != "activation" for x in operands)
        entries = {
            v.parameter for x in operands for v in self.state(x).views if alone and not v.statistic
        }
        views: list[View] = []
        for value in operands:
            state = self.state(value)
            rest = tuple(v for v in state.views if not (v.statistic and v.parameter in entries))
            if alone and (self.sizes(value) == op.sizes or all(v.statistic for v in rest)):
                views += (replace(v, raw=False) for v in rest)
            elif rest:
                self.use(value, op, "elementwise", (), (1, 1))
        return tuple(views)


def _written_sizes(sizes: Sequence[Size], dims: Sequence[int], how: str) -> list[Size]:
    """The sizes of a weight's dimensions over which it writes.

    A looked-up row leaves out the rows; a dimension that is carried along (all of a gain or bias,
    the batch of a batched product) counts where it is infinite (docs/how.md).
    """
    kept = [(d, s) for d, s in enumerate(sizes) if d not in dims]
    if how == "lookup":
        return [s for d, s in kept if d > 0]
    carried = len(sizes) if how == "elementwise" else len(sizes) - 2
    infinite = [s for d, s in kept if d >= carried or log_ratio(s)]
    return infinite or [s for _, s in kept]
