"""A base for a check: the smallest that is legal and still wide, so that a check is quick."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from torch import nn

from automup.capture.graph import Node
from automup.capture.inputs import InputMaker
from automup.capture.trace import Variant
from automup.capture.widths import scaled
from automup.errors import AutomupError
from automup.models import Knobs, Models

WEIGHT, ACTIVATION = 32, 8
"""The least sizes of what grows: of a weight's dimension, of an activation's (a head, a group).

A law of large numbers over fewer entries is none, and its scatter shows in the slopes."""

MANY = 20_000_000
"""Parameters of the widest model beyond which a check takes minutes on two cores."""


def small_base(
    build: Callable[[Knobs], nn.Module],
    base: Knobs,
    inputs: InputMaker | None = None,
    fixed: Knobs | None = None,
) -> Knobs:
    """The base, halved as often as the model builds, runs and stays wide.

    Args:
        build: makes the model from the knobs' values.
        base: the knobs' own values; returned as they are if half of them is too small.
        inputs: makes example inputs; synthesised when left out.
        fixed: other arguments of ``build``.
    """
    known = dict(base)
    try:
        trace = _trace(Models(build, known, inputs, fixed))
    except AutomupError:
        return known  # whoever opens it says what is wrong
    while True:
        try:
            half = {name: scaled(value, 0.5) for name, value in known.items()}
            models = Models(build, half, inputs, fixed)
            smaller = _trace(models)
        except AutomupError:
            return known
        if not _is_wide(smaller, trace):
            return known
        known, trace = half, smaller


def _trace(models: Models) -> tuple[Node, ...]:
    return models.run(models.base, Variant()).nodes


def _is_wide(narrow: Sequence[Node], wide: Sequence[Node]) -> bool:
    """Whether everything that grows between two traces is large enough in the narrow one."""
    if len(narrow) != len(wide):
        return False
    sizes = list(_growing(narrow, wide))
    return bool(sizes) and all(n >= (WEIGHT if weight else ACTIVATION) for n, weight in sizes)


def _growing(narrow: Sequence[Node], wide: Sequence[Node]) -> Iterator[tuple[int, bool]]:
    for a, b in zip(narrow, wide, strict=True):
        for small, large in zip(a.fact.shape, b.fact.shape, strict=False):
            if small < large:
                yield small, bool(a.parameter)


def default_widths(models: Models) -> tuple[float, ...]:
    """1, 2, 4 and 8 times the base, or to 4 times where 8 times has too many parameters."""
    small, large = (
        sum(math.prod(w.shape) for w in models.shop(k).built.weights)
        for k in (models.base, models.wide)
    )
    eightfold = small * (large / small) ** 3
    return (1, 2, 4, 8) if eightfold < MANY else (1, 2, 4)
