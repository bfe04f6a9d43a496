"""Which weights, and which of their rows, write the queries of attention: by the dataflow alone.

Attention is a softmax over products of two activations. Its queries are the operand that does not
have the axis over which the softmax goes; the other has the keys. From there back to the layers
that write them everything must be linear. That part of the run is done again on random numbers, and
the gradient of the queries tells which entries of the weights take part.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from automup.capture.graph import Node, nodes_in

_RESHAPES = {"view", "_unsafe_view", "reshape", "_reshape_alias"}
_TURNS = {"transpose", "permute", "t", "swapaxes", "movedim", "mT"}
_SAME = {"_to_copy", "to", "detach", "alias", "clone", "contiguous", "dropout", "lift_fresh"}
_LINEAR = {
    "squeeze", "unsqueeze", "expand", "expand_as", "repeat", "repeat_interleave", "select", "slice",
    "narrow", "split", "split_with_sizes", "chunk", "unbind", "flatten", "unflatten", "cat",
    "stack", "add", "sub", "neg", "roll", "view_as_complex", "view_as_real", "flip", "index_select",
}  # fmt: skip
_PRODUCTS = {"mul", "div"}
_LAYERS = {"mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "matmul", "convolution", "linear"}
_SOFTMAX = {"_softmax", "softmax", "_safe_softmax"}


class UnseenError(Exception):
    """Why the weights of an attention's queries cannot be told, and the operation in the way."""

    def __init__(self, node: Node, why: str) -> None:
        super().__init__(why)
        self.node, self.why = node, why


@dataclass(frozen=True)
class Rows:
    """Entries ``first`` to ``last`` (exclusive) of each block of ``size`` along a dimension.

    The weight has so many ``blocks``, as where a head's queries, keys and values stand side by
    side; 0: as many as fit.
    """

    dim: int
    first: int
    last: int
    size: int
    blocks: int = 1

    @property
    def share(self) -> tuple[int, int, Fraction, Fraction]:
        """What stays of blocks that grow: how many they are, and where in them the rows are."""
        first, last = (Fraction(n, self.size) for n in (self.first, self.last))
        return self.dim, self.blocks, first, last

    @property
    def place(self) -> tuple[int, int, int, int]:
        """What stays where there are more blocks."""
        return self.dim, self.first, self.last, self.size

    @property
    def whole(self) -> bool:
        return (self.first, self.last) == (0, self.size)

    def meets(self, other: Rows) -> bool:
        """Whether any entry is of both, as far as is known."""
        mine, theirs = (
            {block * r.size + n for block in range(r.blocks) for n in range(r.first, r.last)}
            for r in (self, other)
        )
        return self.dim != other.dim or not mine.isdisjoint(theirs)


def query_rows(nodes: Sequence[Node]) -> dict[str, Rows]:
    """The rows of every weight that writes queries, by the weight's name.

    Raises:
        UnseenError: if that cannot be told, or if they write keys, too: at zero, queries and keys
            would have no gradient, and stay so.
    """
    found: dict[str, Rows] = {}
    for node in nodes:
        for query, key in _operands(node):
            rows, keys = _rows(query, query), _rows(key, query)
            if not rows:
                raise UnseenError(query, "no weight writes its queries")
            for name, here in rows.items():
                other = keys.get(name)
                if other and here.meets(other):
                    raise UnseenError(query, f"{name} writes its keys, too")
                if found.setdefault(name, here) != here:
                    raise UnseenError(query, f"{name} is read as queries in two ways")
    return found


# --- from the softmax to the operands of its products --------------------------------------------


def _operands(node: Node) -> Iterator[tuple[Node, Node]]:
    """Queries and keys of the products that a softmax, or a fused attention, is taken over."""
    name = _name(node)
    if name.startswith("_scaled_dot_product"):
        yield node.args[0], node.args[1]
    if name not in _SOFTMAX:
        return
    rank = len(node.fact.shape)
    pending: list[tuple[Node, int | None]] = [(node.args[0], node.args[1] % rank - rank)]
    seen: set[Node] = set()
    while pending:
        at, axis = pending.pop()
        if at in seen or at.fact.known or at.op != "call_function":
            continue
        seen.add(at)
        if _name(at) in _LAYERS | {"bmm", "baddbmm"}:
            operands = nodes_in(at.args)[-2:]
            if any(_weight(n) for n in operands) or len(operands) < 2:
                continue  # a layer
            if axis not in (-1, -2):
                raise UnseenError(at, "which operand of its product has the queries is not seen")
            left, right = operands
            yield (left, right) if axis == -1 else (right, left)
            continue
        pending += [(n, _axis_before(at, n, axis)) for n in at.all_input_nodes if n.fact.floating]


def _axis_before(node: Node, source: Node, axis: int | None) -> int | None:
    """Where an axis of a result, counted from the end, was in what it was computed from."""
    if axis is None:
        return None
    name, before, after = _name(node), source.fact.shape, node.fact.shape
    rank = len(after)
    if name in _TURNS:
        order: list[int] = [*range(rank)]
        if name == "permute":
            order = [d % rank for d in node.args[1]]
        elif name == "transpose":
            a, b = (d % rank for d in node.args[1:3])
            order[a], order[b] = b, a
        elif name == "t":
            order.reverse()
        else:
            return None
        return order[axis] - rank
    if name in _RESHAPES:
        behind = math.prod(after[rank + axis + 1 :])
        found = [d for d, n in enumerate(before) if n == after[axis] > 1]
        place = [d for d in found if math.prod(before[d + 1 :]) == behind]
        return place[0] - len(before) if place else None
    same = len(before) >= -axis and before[axis] in (after[axis], 1)
    return axis if same else None


# --- from an operand to the weights that write it ------------------------------------------------


def _rows(operand: Node, query: Node) -> dict[str, Rows]:
    replay = _Replay()
    value = replay.of(operand)
    weights = {n: t for n, t in replay.weights.items() if t.requires_grad}
    if not weights or not value.requires_grad:
        return {}
    value = torch.view_as_real(value) if value.is_complex() else value
    (value * replay.random(value.shape)).sum().backward()
    return {
        name: _even(name, tensor.grad != 0, query)
        for name, tensor in weights.items()
        if tensor.grad is not None and bool(tensor.grad.any())
    }


def _even(name: str, taken: Tensor, query: Node) -> Rows:
    """The rows that a mask over a weight's entries takes, along one dimension: evenly spaced."""
    along = [
        taken.movedim(d, 0).flatten(1).any(1) if taken.dim() > 1 else taken
        for d in range(taken.dim())
    ]
    partial = [d for d, mask in enumerate(along) if not bool(mask.all())]
    dim = partial[0] if partial else 0
    places, rows = along[dim].nonzero().flatten().tolist(), taken.shape[dim]
    blocks = sum(place - 1 not in places for place in places)
    size, length = rows // blocks, len(places) // blocks
    found = Rows(dim, places[0], places[0] + length, size, blocks)
    expected = [block * size + n for block in range(blocks) for n in range(*found.place[1:3])]
    full = len(partial) < 2 and int(taken.sum()) * rows == len(places) * taken.numel()
    if not full or rows % blocks or places != expected:
        raise UnseenError(query, f"the rows of {name} that write its queries are not evenly spaced")
    return found


@dataclass
class _Replay:
    """The operations behind a value, back to the layers, on random numbers in float64."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    known: dict[Node, Any] = field(default_factory=dict)
    generator: torch.Generator = field(
        default_factory=lambda: torch.Generator().manual_seed(0), repr=False
    )

    def random(self, shape: Sequence[int]) -> Tensor:
        return torch.rand(*shape, generator=self.generator, dtype=torch.float64) + 0.5

    def of(self, node: Node) -> Any:
        if node not in self.known:
            self.known[node] = self._computed(node)
        return self.known[node]

    def _computed(self, node: Node) -> Any:
        if node.parameter:
            tensor = self.random(node.fact.shape).requires_grad_()
            return self.weights.setdefault(node.parameter, tensor)
        if node.op != "call_function" or node.fact.known:
            return self.random(node.fact.shape)
        name = _name(node)
        if name == "getitem":
            return self.of(node.args[0])[node.args[1]]
        if name == "native_dropout":
            return (self.of(node.args[0]), None)
        if name in _SAME:
            return self.of(node.args[0])
        if name in _LAYERS and any(map(_weight, node.all_input_nodes)):
            weighted = {
                n: self.of(n) if _weight(n) else self._leaf(n) for n in node.all_input_nodes
            }
            return self._run(node, weighted)
        if name in _PRODUCTS:
            return self._run(node, self._factors(node))
        if name in _LINEAR | _RESHAPES | _TURNS:
            return self._run(node, {n: self.of(n) for n in node.all_input_nodes})
        raise UnseenError(node, f"its queries and keys go through {name}, which is not linear")

    def _leaf(self, node: Node) -> Tensor:
        return self.random(node.fact.shape)

    def _factors(self, node: Node) -> dict[Node, Any]:
        """One activation, times numbers, gains and tables."""
        active = [n for n in node.all_input_nodes if not (_weight(n) or n.fact.known)]
        if len(active) != 1 or (_name(node) == "div" and active[0] is not node.args[0]):
            raise UnseenError(node, "its queries and keys go through a product of activations")
        return {n: self.of(n) if n is active[0] else self._leaf(n) for n in node.all_input_nodes}

    def _run(self, node: Node, values: dict[Node, Any]) -> Any:
        args = tree_map(lambda a: values.get(a, a) if isinstance(a, Node) else a, node.args)
        if _name(node) in _RESHAPES:
            return args[0].reshape(args[1])
        try:
            if _name(node) == "view_as_complex":
                return torch.view_as_complex(args[0].contiguous())
            return node.target(*args, **{k: v for k, v in node.kwargs.items() if k == "alpha"})
        except (RuntimeError, TypeError) as error:
            raise UnseenError(node, f"it cannot be followed through {_name(node)}") from error


def _weight(node: Node) -> str:
    """The parameter that a value is, but for views of it; "" for an activation."""
    while node.op == "call_function" and len(node.all_input_nodes) == 1:
        if _name(node) not in _LINEAR | _RESHAPES | _TURNS | _SAME | {"getitem"}:
            break
        node = node.all_input_nodes[0]
    return node.parameter or ""


def _name(node: Node) -> str:
    """The operation's name, in-place forms as the others."""
    if node.target is operator.getitem:
        return "getitem"
    target = getattr(node.target, "overloadpacket", node.target)
    return (
        str(getattr(target, "__name__", target)).rstrip("_") if node.op == "call_function" else ""
    )
