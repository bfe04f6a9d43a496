"""Width knobs that are no plain numbers: fractions, and fields that derive from others.

Names decide nothing here either. A field that is None by default has the value v if a model built
with v has the shapes of the model built without; whether v is a width, doubling it tells.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

_FIELDS, _SIZES = 8, 8
"""How many fields, and how many sizes for each, are worth a model that is built."""


def fractions(fields: Mapping[str, Any]) -> dict[str, float]:
    """Fields that are positive floats: one may multiply every width (``width_mult=1.0``)."""
    return {n: v for n, v in fields.items() if type(v) is float and 0 < v < math.inf}


def derived(
    fields: Mapping[str, Any], shapes: Shapes, shapes_with: Callable[[Mapping[str, Any]], Shapes]
) -> dict[str, int]:
    """For fields that are None: the size that they stand for, as far as it can be found.

    Args:
        fields: every field, with its value.
        shapes: of the weights of the model that is built with these.
        shapes_with: of the model with some fields set; empty where it cannot be built.
    """
    unset = [name for name, value in fields.items() if value is None][:_FIELDS]
    found: dict[str, int] = {}
    for name in unset:
        for size in _likely(shapes):
            # a field that is not used fits any size: at another one the shapes must differ
            if shapes_with({name: size}) == shapes and shapes_with({name: 2 * size}) != shapes:
                found[name] = size
                break
    return found


def _likely(shapes: Shapes) -> Iterator[int]:
    """Sizes of the weights' axes, those on most axes first."""
    counts = Counter(n for shape in shapes.values() for n in shape if n > 1)
    yield from (size for size, _ in counts.most_common(_SIZES))


def untried(fields: Mapping[str, Any], tried: Mapping[str, Any]) -> dict[str, str]:
    """Why other fields were not doubled, for those in which a width may hide."""
    reasons: dict[str, str] = {}
    for name, value in fields.items():
        if name in tried or isinstance(value, bool | int | float):
            continue
        if value is None:
            reasons[name] = "None by default"
        elif isinstance(value, str):
            reasons[name] = f"a name, {value!r}"
        elif isinstance(value, list | tuple | dict):
            reasons[name] = f"a {type(value).__name__} that is not all positive whole numbers"
    return reasons
