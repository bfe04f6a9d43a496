"""Two traces of one model at two widths, aligned node by node."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import networkx as nx
import torch
from torch import fx

from automup.capture.recorder import Fact
from automup.errors import CaptureError

Size = tuple[int, int]
"""The same size at the base and at the wider model."""


def log_ratio(size: Size) -> float:
    """log2 of wide / base; 0 for a finite size."""
    return math.log2(size[1] / size[0]) if size[0] and size[1] else 0.0


def product(sizes: Any) -> Size:
    """Product of sizes, width by width."""
    base = wide = 1
    for size in sizes:
        base, wide = base * size[0], wide * size[1]
    return base, wide


@dataclass(frozen=True, slots=True)
class Op:
    """One aligned operation: the same node in both traces, with what each recorded of it.

    ``sizes`` is the shape of the value, as pairs.
    """

    base: fx.Node
    wide: fx.Node
    fact: Fact
    wide_fact: Fact
    sizes: tuple[Size, ...]

    @staticmethod
    def pair(base: fx.Node, wide: fx.Node) -> Op:
        """Two nodes that do the same; what the run returns has no fact of its own."""
        fact = base.meta.get("fact", _NO_FACT)
        wide_fact = wide.meta.get("fact", _NO_FACT)
        return Op(base, wide, fact, wide_fact, tuple(zip(fact.shape, wide_fact.shape, strict=True)))

    def alone(self) -> Op:
        """The same without the wider trace, which it would keep alive: for what outlives it."""
        return replace(self, wide=self.base)

    def arg(self, position: int, name: str = "", default: Any = None) -> Any:
        """An argument at the base; nodes are the base's."""
        return _argument(self.base, position, name, default)

    def number(self, position: int, name: str = "", default: Any = None) -> tuple[Any, Any]:
        """A plain argument at both widths."""
        return (
            _argument(self.base, position, name, default),
            _argument(self.wide, position, name, default),
        )


_NO_FACT = Fact((), False)


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(name, default)


class Dataflow:
    """The aligned operations in order, and the graph of who uses whom."""

    def __init__(self, ops: dict[fx.Node, Op]) -> None:
        self.ops = ops

    @cached_property
    def graph(self) -> nx.DiGraph:
        """Base nodes, with an edge from each value to the operations that read it."""
        graph = nx.DiGraph()
        graph.add_nodes_from(self.ops)
        graph.add_edges_from((source, node) for node in self.ops for source in node.all_input_nodes)
        return graph

    @cached_property
    def growths(self) -> frozenset[float]:
        """By how many octaves the infinite axes grow."""
        sizes = {s for op in self.ops.values() for s in op.sizes}
        return frozenset(abs(log_ratio(s)) for s in sizes) - {0.0}

    @cached_property
    def order(self) -> dict[fx.Node, int]:
        """When each operation ran."""
        return {node: i for i, node in enumerate(self.ops)}

    @cached_property
    def read_parameters(self) -> frozenset[str]:
        """The parameters that some operation reads."""
        names = {node: node.meta.get("parameter") for node in self.ops}
        return frozenset(name for n, name in names.items() if name and self.graph.out_degree(n))


def align(
    base: fx.Graph, wide: fx.Graph, *, at: tuple[str, str] = ("one", "the other")
) -> Dataflow:
    """Pair the nodes of two traces, which errors call by the names in ``at``.

    Raises:
        CaptureError: if the two runs did different things; says where they part.
    """
    left, right = list(base.nodes), list(wide.nodes)
    twin: dict[fx.Node, fx.Node] = {}
    ops: dict[fx.Node, Op] = {}
    for a, b in zip(left, right, strict=False):
        if not _same(a, b, twin):
            raise _misaligned(a, b, at)
        twin[a] = b
        ops[a] = Op.pair(a, b)
    if len(left) != len(right):
        longer, names = (left, at) if len(left) > len(right) else (right, at[::-1])
        raise _misaligned(longer[min(len(left), len(right))], None, names)
    return Dataflow(ops)


def contains(large: fx.Graph, small: fx.Graph) -> bool:
    """Whether one trace does all that another does, in the same order, and more between.

    Dropout between the two is no difference: what is read after it stands for what it was.
    """
    twin: dict[fx.Node, fx.Node] = {}
    dropped: dict[fx.Node, fx.Node] = {}  # by the node before a dropout
    candidates = iter(large.nodes)
    for node in small.nodes:
        if node.op == "output":
            break
        for other in candidates:
            if other.op != "output" and _same(node, other, twin):
                twin[node] = other
                break
            source = _before_dropout(other)
            if source is not None:
                dropped[source] = other
                for mine in node.all_input_nodes:
                    if twin.get(mine) is source:
                        twin[mine] = other
        else:
            return False
    ends = [next(n for n in g.nodes if n.op == "output").all_input_nodes for g in (small, large)]
    found = {twin[n] for n in ends[0]}
    return {dropped.get(n, n) for n in found} <= set(ends[1]) or found <= set(ends[1])


def _before_dropout(node: fx.Node) -> fx.Node | None:
    """What goes into a dropout, if the node is what comes out of one."""
    if node.target is operator.getitem:
        drop = node.args[0]
        return drop.args[0] if drop.target in _DROPOUTS and node.args[1] == 0 else None  # type: ignore
    return node.args[0] if node.target in _DROPOUTS else None  # type: ignore[return-value]


_DROPOUTS = {torch.ops.aten.native_dropout.default, torch.ops.aten.dropout.default}
_RESHAPES = {torch.ops.aten._unsafe_view.default, torch.ops.aten._reshape_alias.default}


def _target(node: fx.Node) -> Any:
    """What the node runs; which kind of reshape it is may depend on strides, hence on sizes."""
    return torch.ops.aten.view.default if node.target in _RESHAPES else node.target


def _same(a: fx.Node, b: fx.Node, twin: dict[fx.Node, fx.Node]) -> bool:
    if (a.op, _target(a)) != (b.op, _target(b)):
        return False
    sources, others = a.all_input_nodes, b.all_input_nodes
    if [twin.get(n) for n in sources] != others:
        return False
    if a.op == "output":
        return True
    fact, other = a.meta["fact"], b.meta["fact"]
    same_place = (fact.module, fact.frames) == (other.module, other.frames)
    return same_place and len(fact.shape) == len(other.shape)


def _misaligned(a: fx.Node, b: fx.Node | None, at: tuple[str, str]) -> CaptureError:
    def says(node: fx.Node) -> str:
        fact = node.meta.get("fact")
        frame = fact.frames[0] if fact and fact.frames else "an unknown place"
        return f"{node.target} at {frame}"

    fact = a.meta.get("fact")
    other = f"and at {at[1]} {says(b)}" if b is not None else f"and at {at[1]} nothing"
    return CaptureError(
        f"The model does different things at two widths: at {at[0]} it runs {says(a)}, {other}.",
        where=str(fact.frames[0]) if fact and fact.frames else "",
        fix="Control flow must not depend on the width: choose another base "
        "(one whose sizes do not coincide with a fixed size), or scale other knobs.",
    )
