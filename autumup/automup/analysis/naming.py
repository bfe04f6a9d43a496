"""Names for axes, in the user's own words: ``n_embd``, ``3*n_embd``, ``n_embd/4``."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from automup.analysis.dataflow import Size


def axis_name(size: Size, knobs: Mapping[str, tuple[Any, Any]]) -> str:
    """What a size is in terms of the knobs' values at the same two widths.

    The knob with the simplest ratio to the size at both widths names it; a size that is no
    multiple of a knob is named by its values.
    """
    best: tuple[int, str] | None = None
    for name, (base, wide) in knobs.items():
        for label, b, w in _numbers(name, base, wide):
            ratio = Fraction(size[0], b)
            if ratio == Fraction(size[1], w):
                cost = ratio.numerator + ratio.denominator
                if best is None or cost < best[0]:
                    best = cost, _times(ratio, label)
    return best[1] if best else f"{size[0]}→{size[1]}"


def _numbers(name: str, base: Any, wide: Any) -> list[tuple[str, int, int]]:
    if isinstance(base, int) and isinstance(wide, int) and base:
        return [(name, base, wide)]
    if isinstance(base, list | tuple):
        pairs = zip(base, wide, strict=True)
        return [x for i, (b, w) in enumerate(pairs) for x in _numbers(f"{name}[{i}]", b, w)]
    return []


def _times(ratio: Fraction, name: str) -> str:
    head = "" if ratio.numerator == 1 else f"{ratio.numerator}*"
    tail = "" if ratio.denominator == 1 else f"/{ratio.denominator}"
    return f"{head}{name}{tail}"
