"""Two traces of one model at two widths, aligned node by node."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from automup.capture.graph import Fact, Node, readers_of
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

    base: Node
    wide: Node
    fact: Fact
    wide_fact: Fact
    sizes: tuple[Size, ...]

    @staticmethod
    def pair(base: Node, wide: Node) -> Op:
        """Two nodes that do the same; what the run returns has no fact of its own."""
        sizes = tuple(zip(base.fact.shape, wide.fact.shape, strict=True))
        return Op(base, wide, base.fact, wide.fact, sizes)

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


def _argument(node: Node, position: int, name: str, default: Any) -> Any:
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(name, default)


class Dataflow:
    """The aligned operations in order, and who reads whom."""

    def __init__(self, ops: dict[Node, Op]) -> None:
        self.ops = ops

    @cached_property
    def _readers(self) -> dict[Node, list[Node]]:
        return readers_of(self.ops)

    def readers(self, node: Node) -> list[Node]:
        """The operations that read a value, in order."""
        return self._readers.get(node, [])

    @cached_property
    def growths(self) -> frozenset[float]:
        """By how many octaves the infinite axes grow."""
        sizes = {s for op in self.ops.values() for s in op.sizes}
        return frozenset(abs(log_ratio(s)) for s in sizes) - {0.0}

    @cached_property
    def order(self) -> dict[Node, int]:
        """When each operation ran."""
        return {node: i for i, node in enumerate(self.ops)}

    @cached_property
    def read_parameters(self) -> frozenset[str]:
        """The parameters that some operation reads."""
        return frozenset(n.parameter for n in self.ops if n.parameter and self.readers(n))


def align(
    base: Sequence[Node], wide: Sequence[Node], *, at: tuple[str, str] = ("one", "the other")
) -> Dataflow:
    """Pair the nodes of two traces, which errors call by the names in ``at``.

    Raises:
        CaptureError: if the two runs did different things; says where they part.
    """
    twin: dict[Node, Node] = {}
    ops: dict[Node, Op] = {}
    for a, b in zip(base, wide, strict=False):
        if not _same(a, b, twin):
            raise _misaligned(a, b, at)
        twin[a] = b
        ops[a] = Op.pair(a, b)
    if len(base) != len(wide):
        longer, names = (base, at) if len(base) > len(wide) else (wide, at[::-1])
        raise _misaligned(longer[min(len(base), len(wide))], None, names)
    return Dataflow(ops)


def contains(large: Sequence[Node], small: Sequence[Node]) -> bool:
    """Whether one trace does all that another does, in the same order, and more between.

    Dropout between the two is no difference: what is read after it stands for what it was.
    """
    twin: dict[Node, Node] = {}
    dropped: dict[Node, Node] = {}  # by the node before a dropout
    candidates = iter(large)
    for node in small:
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
    ends = [next(n for n in g if n.op == "output").all_input_nodes for g in (small, large)]
    found = {twin[n] for n in ends[0]}
    return {dropped.get(n, n) for n in found} <= set(ends[1]) or found <= set(ends[1])


def _before_dropout(node: Node) -> Node | None:
    """What goes into a dropout, if the node is what comes out of one.

    On meta torch writes it out: noise = empty_like(x).bernoulli_(1 - p).div_(1 - p), x * noise.
    """
    if node.target is operator.getitem:
        drop = node.args[0]
        return drop.args[0] if drop.target in _DROPOUTS and node.args[1] == 0 else None
    if node.target is _aten.mul.Tensor and isinstance(noise := node.args[1], Node):
        drawn = noise.args[0] if noise.target is _aten.div_.Scalar else None
        if isinstance(drawn, Node) and drawn.target is _aten.bernoulli_.float:
            kept = drawn.args[1] if len(drawn.args) > 1 else 0.5  # its default is left out
            return node.args[0] if noise.args[1] == kept else None
    return node.args[0] if node.target in _DROPOUTS else None


_aten = torch.ops.aten
_DROPOUTS = {_aten.native_dropout.default, _aten.dropout.default}
_RESHAPES = {_aten._unsafe_view.default, _aten._reshape_alias.default}


def _target(node: Node) -> Any:
    """What the node runs; which kind of reshape it is may depend on strides, hence on sizes."""
    return _aten.view.default if node.target in _RESHAPES else node.target


def _same(a: Node, b: Node, twin: dict[Node, Node]) -> bool:
    if (a.op, _target(a)) != (b.op, _target(b)):
        return False
    sources, others = a.all_input_nodes, b.all_input_nodes
    if tuple([twin.get(n) for n in sources]) != others:
        return False
    if a.op == "output":
        return True
    fact, other = a.fact, b.fact
    same_place = (fact.module, fact.frames) == (other.module, other.frames)
    return same_place and len(fact.shape) == len(other.shape)


def _misaligned(a: Node, b: Node | None, at: tuple[str, str]) -> CaptureError:
    def says(node: Node) -> str:
        frame = node.fact.frames[0] if node.fact.frames else "an unknown place"
        return f"{node.target} at {frame}"

    other = f"and at {at[1]} {says(b)}" if b is not None else f"and at {at[1]} nothing"
    return CaptureError(
        f"The model does different things at two widths: at {at[0]} it runs {says(a)}, {other}.",
        where=str(a.fact.frames[0]) if a.fact.frames else "",
        fix="Control flow must not depend on the width: choose another base "
        "(one whose sizes do not coincide with a fixed size), or scale other knobs.",
    )
