"""What the calculus knows of one value, and how products, powers and sums change it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from automup.analysis.dataflow import Size
from automup.analysis.views import View
from automup.capture.graph import Node

EPSILON = 1e-6
ZERO = -math.inf
"""The log of a value that is identically zero."""


@dataclass(frozen=True)
class Origin:
    """An operation that gave a value a log of its own; ``degree``: how that value depends on it."""

    kind: str  # "constant", "contraction", "tied", "sum"
    degree: float
    size: Size


@dataclass(frozen=True)
class State:
    """What the calculus knows of one value.

    ``kind``: "known" (depends on no weight), "weight" (on weights alone), "activation".
    ``views``: the weights whose entries the value holds. ``odd``: a constant whose size changes
    with width by no exponent.
    """

    log: float = 0.0
    kind: str = "activation"
    views: tuple[View, ...] = ()
    origins: Mapping[Node, Origin] = field(default_factory=dict)
    odd: bool = False

    @property
    def neutral(self) -> bool:
        return abs(self.log) < EPSILON or self.log == ZERO

    def without_views(self) -> State:
        """The same value, no longer known for a weight's entries."""
        return replace(self, views=()) if self.views else self


@dataclass(frozen=True)
class Scale:
    """How a weight that is trained in muP grows, in octaves.

    ``log``: of an entry where many meet aligned activations, -log2 r_i; ``std``: of its random
    draw; ``spectral``: of its largest singular value, which is sqrt(n_o / n_i).
    """

    log: float = 0.0
    std: float = 0.0
    spectral: float = 0.0


def ratio_log(base: Any, wide: Any) -> float | None:
    """log2 |wide / base| of two numbers; ZERO for zeros, None for what is no number."""
    if not isinstance(base, int | float) or not isinstance(wide, int | float):
        return None
    if base == 0 or wide == 0:
        return ZERO if base == wide else None
    if math.isinf(base) or math.isinf(wide) or math.isnan(base) or math.isnan(wide):
        return 0.0
    return math.log2(abs(wide / base))


def join_states(states: Sequence[State]) -> State:
    """The largest of several states; weights' views are dropped, origins are kept."""
    if not states:
        return State()
    kinds = {s.kind for s in states}
    kind = "activation" if "activation" in kinds else "weight" if "weight" in kinds else "known"
    live = [s for s in states if s.kind != "known"] or list(states)
    top = max(live, key=lambda s: s.log)
    origins = {n: o for s in live for n, o in s.origins.items()}
    return State(top.log, kind, (), {} if top.neutral else origins)


def scaled(state: State, node: Node, log: float, kind: str, size: Size) -> State:
    """The state after this node multiplied it by something of the given log."""
    origins = dict(state.origins)
    if abs(log) > EPSILON and log != ZERO:
        origins.setdefault(node, Origin(kind, 1.0, size))
    total = state.log + log
    return replace(state, log=total, origins={} if abs(total) < EPSILON else origins)


def powered(state: State, exponent: float) -> State:
    """The state of a value raised to a power."""
    if state.log == ZERO:
        return state
    origins = {n: replace(o, degree=o.degree * exponent) for n, o in state.origins.items()}
    return replace(state, log=state.log * exponent, origins=origins, views=())


def multiplied(a: State, b: State, sign: float = 1.0) -> State:
    """The state of a product (sign 1) or a quotient (sign -1)."""
    other = powered(b, sign) if sign != 1.0 else b
    kinds = {a.kind, b.kind}
    kind = "activation" if "activation" in kinds else "weight" if "weight" in kinds else "known"
    if ZERO in (a.log, b.log):
        return State(ZERO, kind)
    total = a.log + other.log
    origins = dict(a.origins)
    for node, origin in other.origins.items():
        degree = origin.degree + (origins[node].degree if node in origins else 0.0)
        origins[node] = replace(origin, degree=degree)
    return State(total, kind, (), {} if abs(total) < EPSILON else origins)
