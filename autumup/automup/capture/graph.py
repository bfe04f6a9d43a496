"""What a run did, as values: a node for every operation, which knows what it read.

Nodes are named as those of ``torch.fx`` are (``op``, ``target``, ``args``, ``kwargs``), but know
nothing of who reads them, nor of each other's order. So a trace has no cycles and is freed as soon
as nobody holds it, and a node that outlives it holds no more than what it was computed from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from automup.capture.source import Frame


@dataclass(frozen=True, slots=True)
class Fact:
    """What a node's value is and where it was computed.

    ``value`` is the root mean square of a known tensor (None: unknown) and ``peak`` its largest
    entry; ``known`` says that no parameter and no random draw had a part in it; ``scopes`` are the
    sizes that the source can name at each of ``frames``, ``owners`` the modules that are ``self``
    there, ``library`` the functions of torch.nn between the operation and the innermost frame;
    ``derived``: computed by a backward pass inside of the forward pass.
    """

    shape: tuple[int, ...]
    floating: bool
    known: bool = False
    value: float | None = None
    peak: float | None = None
    module: str = ""
    frames: tuple[Frame, ...] = ()
    scopes: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)
    owners: tuple[str, ...] = ()
    library: tuple[str, ...] = ()
    derived: bool = False


NO_FACT = Fact((), False)
"""That of what the run returns."""


class Node:
    """One value of a run: an operation's result, or a leaf.

    Args:
        op: "placeholder" (an input of the model), "get_attr" (a parameter, buffer or constant),
            "call_function" or "output".
        target: the name of a leaf; the operation.
        args: its arguments, with nodes for tensors, also in lists and tuples.
        kwargs: those that are passed by name.
        inputs: the nodes that it reads, each once.
        fact: what its value is.
        parameter: the name of the parameter that it is, if it is one.
    """

    __slots__ = ("all_input_nodes", "args", "fact", "kwargs", "op", "parameter", "target")

    def __init__(
        self,
        op: str,
        target: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        inputs: tuple[Node, ...] = (),
        fact: Fact = NO_FACT,
        parameter: str | None = None,
    ) -> None:
        self.op, self.target = op, target
        self.args, self.kwargs = args, kwargs or _NONE
        self.all_input_nodes = inputs
        self.fact, self.parameter = fact, parameter

    def __repr__(self) -> str:
        return f"<{self.op} {self.target} {self.fact.shape}>"


_NONE: Mapping[str, Any] = {}


def written(tensor: Any, *writes: Any) -> Any:
    """Marks a tensor whose storage was written through other views (never executed)."""
    raise NotImplementedError


def readers_of(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """Who reads each value, in order; values that nobody reads are left out."""
    found: dict[Node, list[Node]] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            found.setdefault(source, []).append(node)
    return found


def nodes_in(value: Any) -> list[Node]:
    """The nodes in an argument, each as often as it is there."""
    if isinstance(value, Node):
        return [value]
    if isinstance(value, list | tuple):
        return [node for item in value for node in nodes_in(item)]
    if isinstance(value, dict):
        return [node for item in value.values() for node in nodes_in(item)]
    return []
