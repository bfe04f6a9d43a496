"""A model at other widths: its knobs' values, scaled, and whether it can be built there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from automup.capture.fields import REQUIRED
from automup.capture.raised import describe, place_of
from automup.capture.trace import Workshop
from automup.errors import AutomupError, KnobError, UsageError

Build = Callable[[Mapping[str, Any]], nn.Module]

_OTHER_BASE = "Choose another base, or other knobs, with --base NAME=VALUE and --width NAME."


def is_scalable(value: Any) -> bool:
    """True for what :func:`scaled` can double: positive integers, also in a list or tuple."""
    if isinstance(value, tuple | list):
        return bool(value) and all(is_scalable(v) for v in value)
    return type(value) is int and value > 0


def scaled(value: Any, factor: float) -> Any:
    """A width knob's value, larger: of a list or tuple every number.

    Raises:
        KnobError: it is not a number, or an integer does not stay one.
    """
    if isinstance(value, tuple | list):
        return type(value)(scaled(v, factor) for v in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        shown = "has no value" if value is REQUIRED else f"is {value!r}, not a number"
        raise KnobError(
            f"A width knob {shown}, so it cannot be scaled.",
            fix="Give it a number: base={'name': 256}, or --base NAME=256.",
        )
    larger = value * factor
    if isinstance(value, int) and larger != int(larger):
        raise KnobError(f"{value} × {factor:g} is not a whole number.", fix="Choose another base.")
    return int(larger) if isinstance(value, int) else larger


def check_widths(knobs: Mapping[str, Any]) -> None:
    """Raise UsageError unless every value is a positive number, or a list of such."""
    for name, value in knobs.items():
        for size in value if isinstance(value, tuple | list) else [value]:
            if (
                isinstance(size, bool)
                or not isinstance(size, int | float)
                or not 0 < size < math.inf
            ):
                raise UsageError(
                    f"A width cannot be {name}={value!r}: it is a positive number.",
                    fix=f"Pass {name}=256, or so.",
                )


def build_at(build: Build, base: Mapping[str, Any], factor: int, *, real: bool = False) -> Workshop:
    """The model with its knobs at a multiple of the base, built without weights unless ``real``.

    Raises:
        KnobError: the constructor raised: a size that does not divide, for one.
    """
    values = {name: scaled(value, factor) for name, value in base.items()} if factor != 1 else base
    try:
        return Workshop(lambda: build(values), real=real)
    except AutomupError as error:
        if factor == 1 or not isinstance(error, KnobError):
            raise
        raise KnobError(
            f"At {factor} × base: {error.what}", where=error.where, fix=_OTHER_BASE
        ) from error
    except Exception as error:
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        at = f"at {factor} × base ({shown})" if factor != 1 else f"at its base ({shown})"
        raise KnobError(
            f"The model cannot be built {at}: {describe(error)}.",
            where=place_of(error),
            fix=_OTHER_BASE,
        ) from error
