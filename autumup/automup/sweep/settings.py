"""What a sweep runs: the grid of widths, learning rates and seeds, and the constants to tune."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from automup.constants import Constants
from automup.errors import UsageError

#: The constants that can be tuned; see :class:`automup.Constants`.
CONSTANTS = (
    "input_mult",
    "output_mult",
    "attention_mult",
    "input_lr",
    "hidden_lr",
    "output_lr",
    "input_init",
    "hidden_init",
    "output_init",
    "query_init",
)
#: The settings of the optimizer that can be tuned with them. The decay transfers as it is: muP's
#: groups are independent of the width in it (Wang and Aitchison, 2405.13698).
SETTINGS = ("weight_decay",)

#: Of the losses of a run, the last part whose mean is the run's result. (The last tenth of a short
#: run is noise enough to move an optimum by an octave.)
LAST = 0.5


#: Between these all learning rates and multiples of widths are; more of them are a mistake.
LEAST, MOST, COUNT = 1e-12, 1e12, 10_000

#: What an optimizer gets from the sweep itself.
RESERVED = {"lr", "params", "model", "optimizer_class"}

#: The grids of learning rates when none is given, by family: their best ones are far apart.
GRIDS = {
    "adam": "2^-12:2^-4",
    "sgd": "2^-7:2^1",
    "sign": "2^-15:2^-7",
    "adadelta": "2^-5:2^3",
    "adafactor": "2^-10:2^-2",
    "muon": "2^-10:2^-2",
}


@dataclass(frozen=True)
class Point:
    """One run: a parametrization ("mup" or "sp"), a multiple of the base width, an lr, a seed."""

    parametrization: str
    multiple: float
    lr: float
    seed: int


@dataclass(frozen=True)
class Range:
    """The values that one tuned number may have: from low to high on a log axis, or a list."""

    name: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[float, ...] = ()


@dataclass(frozen=True)
class Settings:
    """A sweep.

    Args:
        multiples: the widths, as multiples of the base; every width knob is multiplied.
        lrs: the learning rates of the grid.
        seeds: how many seeds; a seed draws both the weights and the batches.
        steps, batch_size: of each run.
        last: the fraction of the steps, from the end, whose mean loss is a run's result.
        optimizer: a name that the command line knows.
        options: other settings of the optimizer, such as momentum.
        sp: run the standard parametrization beside muP.
        tune: what to tune at the narrowest width besides the learning rate.
        trials: how many settings to try for that.

    Raises:
        UsageError: a number is out of range.
    """

    multiples: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    lrs: tuple[float, ...] = ()
    seeds: int = 3
    steps: int = 100
    batch_size: int = 16
    last: float = LAST
    optimizer: str = "adamw"
    options: Mapping[str, Any] = field(default_factory=dict)
    sp: bool = True
    tune: tuple[Range, ...] = ()
    trials: int = 60

    def __post_init__(self) -> None:
        for name in ("seeds", "steps", "batch_size", "trials"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}.", fix="It is at least 1.")
        if not 0 < self.last <= 1:
            raise UsageError(f"last is {self.last}.", fix="It is a fraction: 0.5 is the last half.")
        for name, values in (("widths", self.multiples), ("lr", self.lrs)):
            if not values or not all(LEAST <= value <= MOST for value in values):
                shown = ",".join(f"{value:g}" for value in values[:5])
                raise UsageError(
                    f"{name} cannot be {shown or 'empty'}.",
                    fix=f"Give at least one number, all from {LEAST:g} to {MOST:g}.",
                )
        for name in RESERVED & self.options.keys():
            raise UsageError(
                f"{name} is no setting that a sweep can pass.", fix="The learning rates are lr."
            )

    def points(self, same_at_base: bool) -> list[Point]:
        """Every run of the grid, narrow widths first.

        Args:
            same_at_base: muP and SP are one model at the base (no constant is tuned): it is run
                once, as muP.
        """
        grid = product(sorted(set(self.multiples)), sorted(set(self.lrs)), range(self.seeds))
        return [
            Point(parametrization, multiple, lr, seed)
            for multiple, lr, seed in grid
            for parametrization in self._parametrizations(multiple, same_at_base)
        ]

    def _parametrizations(self, multiple: float, same_at_base: bool) -> Iterator[str]:
        yield "mup"
        if self.sp and not (multiple == 1 and same_at_base):
            yield "sp"


def grid_of(optimizer: str) -> str:
    """The default grid of learning rates for an optimizer; UsageError if it is not known."""
    from automup.optimizers import named

    return GRIDS[named(optimizer).family]


def parse_lrs(text: str) -> tuple[float, ...]:
    """``2^-12:2^-3`` (a grid of octaves), ``2^-12:2^-3:0.5`` (of half octaves) or ``1e-3,3e-3``.

    Raises:
        UsageError: it is neither, or not positive.
    """
    if ":" not in text:
        return tuple(_number(part, "--lr") for part in text.split(","))
    low, high, *rest = (_number(part, "--lr") for part in text.split(":"))
    step = rest[0] if rest else 1.0
    if len(rest) > 1 or not 0 < low < high < math.inf or not step > 0:
        raise UsageError(f"--lr {text!r} is no grid.", fix="Write 2^-12:2^-3, low to high.")
    octaves = math.log2(high) - math.log2(low)
    if octaves > COUNT * step:
        raise UsageError(f"--lr {text!r} has too many values.", fix="Write 2^-12:2^-3, or so.")
    count = math.floor(octaves / step + 1e-9)
    return tuple(low * 2.0 ** (step * i) for i in range(count + 1))


def parse_multiples(text: str) -> tuple[float, ...]:
    """``1,2,4,8``; UsageError if one is no number."""
    return tuple(_number(part.strip().removeprefix("×"), "--widths") for part in text.split(","))


def parse_tune(items: Sequence[str]) -> tuple[Range, ...]:
    """``["output_mult=0.25:16,attention_mult=0.5,1,2"]`` as ranges, in the order given.

    Raises:
        UsageError: a name is no constant, or a range is not low:high or a list.
    """
    found: dict[str, Range] = {}
    for item in items:
        for part in re.split(r",(?=\s*[a-z_]+\s*=)", item):
            name, equals, values = (piece.strip() for piece in part.partition("="))
            if not equals or name not in (*CONSTANTS, *SETTINGS) or name in found:
                raise UsageError(
                    f"--tune {part!r}: no such constant, or given twice.",
                    fix="Write NAME=LOW:HIGH or NAME=A,B,C with one of "
                    f"{', '.join((*CONSTANTS, *SETTINGS))}.",
                )
            found[name] = _range(name, values)
    return tuple(found.values())


def split(tuned: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """The constants among what is tuned, and the settings of the optimizer."""
    settings = {name: value for name, value in tuned.items() if name in SETTINGS}
    return {n: v for n, v in tuned.items() if n not in settings}, settings


def _range(name: str, values: str) -> Range:
    if ":" not in values:
        choices = tuple(_number(v, f"--tune {name}") for v in values.split(","))
        for choice in choices:
            Constants.of(split({name: choice})[0])
            if not 0 <= choice < math.inf:
                raise UsageError(f"--tune {name}={values} is no decay.", fix="Write 0,0.01,0.1.")
        return Range(name, choices=choices)
    low, _, high = values.partition(":")
    made = Range(name, _number(low, f"--tune {name}"), _number(high, f"--tune {name}"))
    if not 0 < made.low < made.high < math.inf:
        raise UsageError(
            f"--tune {name}={values} is no range above 0.", fix="Write NAME=0.25:16, or a list."
        )
    return made


def _number(text: str, option: str) -> float:
    """``0.5``, ``1e-3`` or ``2^-9``."""
    base, power, exponent = text.strip().partition("^")
    try:
        number = float(base) ** float(exponent) if power else float(base)
        return float(number)  # a root of a negative number is complex
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        raise UsageError(
            f"{option}: {text.strip()!r} is not a number.", fix="Write 0.001 or 2^-10."
        ) from None
