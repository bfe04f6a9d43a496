"""Random models as source that is *made* with its truth.

A :class:`Program` grows line by line: blocks (``random_blocks.py``) read earlier values of shape
(batch, time, channels) and write new ones. With every line they state what is true of it by
construction, in sizes that are Python expressions of the width knobs (``"2 * d"``, ``"d // h"``):

- of each weight, which of its axes are summed over and which are written, how its constructor draws
  it, and how its coordinates lie (:class:`Axis`), so that it can be widened exactly;
- of each line that needs a multiplier, which one.

What muP makes of that is the table of automup.rules, worked out here from the sizes' real ratios. A
program is decided by a list of small integers alone: any list makes a program.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import oracle

Draw = Callable[[int], int]
"""Draws an integer below a bound."""

ONE_KNOB = {"d": (32, 4)}
THREE_KNOBS = {"d": (32, 4), "h": (4, 2), "f": (40, 6)}
"""Every width knob's base, and by how much the target is larger."""


@cache
def _compiled(code: str) -> Any:
    return compile(code, code, "eval")


@dataclass(frozen=True)
class Widths:
    """The knobs' values at the base and at the target."""

    base: Mapping[str, int]
    target: Mapping[str, int]

    def sizes(self, code: str) -> tuple[float, float]:
        """An expression of the knobs at both."""
        scope = {"math": math, "max": max}
        return tuple(eval(_compiled(code), scope, dict(at)) for at in (self.base, self.target))

    def ratio(self, code: str) -> float:
        base, target = self.sizes(code)
        return target / base


@dataclass(frozen=True)
class Axis:
    """A weight's axis: "i" is summed over, "o" is written (or carried along).

    ``blocks`` lie one after the other (the parts of a fused projection, what a concatenation put
    side by side); each is a product of atoms (heads, then the size of a head), outermost first. An
    atom that grows repeats its coordinates.
    """

    side: str
    blocks: tuple[tuple[str, ...], ...]

    @property
    def size(self) -> str:
        return " + ".join(" * ".join(f"({a})" for a in block) for block in self.blocks)

    @property
    def code(self) -> str:
        """The size as a person would write it, where there is one atom."""
        (first, *more), *others = self.blocks
        return self.size if more or others else first


def summed(*atoms: str) -> Axis:
    return Axis("i", (atoms,))


def written(*atoms: str) -> Axis:
    return Axis("o", (atoms,))


@dataclass(frozen=True)
class Truth:
    """What one parameter is: its axes, and by how much its constructor's std grows.

    ``drawn`` is None for one that starts as zeros. ``unequal``: its written axis has parts that
    grow differently, so each has an init of its own.
    """

    fan_in: float
    fan_out: float
    drawn: float | None
    layout: oracle.Layout
    unequal: bool = False

    @property
    def spread(self) -> float:
        """The growth of the init's std that muP wants (arXiv:2310.17813)."""
        return wanted_spread(self.fan_in, self.fan_out)

    def spread_of(self, part: oracle.Block) -> float:
        """The same of one part of a fused projection."""
        return wanted_spread(self.fan_in, part.wide / part.size)

    def init_of(self, part: oracle.Block) -> float:
        return 1.0 if self.drawn is None else self.spread_of(part) / self.drawn

    @property
    def cut_dim(self) -> int:
        """The dimension that has parts."""
        return next(d for d, blocks in enumerate(self.layout) if len(blocks) > 1)

    @property
    def cut(self) -> tuple[oracle.Block, ...]:
        return self.layout[self.cut_dim]

    @property
    def init(self) -> float:
        """What automup must multiply the constructor's draw by."""
        return 1.0 if self.drawn is None else self.spread / self.drawn


def wanted_spread(fan_in: float, fan_out: float) -> float:
    """r_i^-1/2 * min(1, sqrt(r_o / r_i)), where r is the growth of a fan."""
    return fan_in**-0.5 * min(1.0, (fan_out / fan_in) ** 0.5)


@dataclass
class Program:
    """The source of a model, with its truth.

    ``refusable``: it holds something that automup may refuse, by name; if it does not refuse, it
    must be right. ``training``: it must run in train mode (a batch norm).
    """

    knobs: Mapping[str, tuple[int, int]] = field(default_factory=lambda: ONE_KNOB)
    init: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values: list[tuple[str, str]] = field(default_factory=list)
    truths: dict[str, Truth] = field(default_factory=dict)
    factors: list[float] = field(default_factory=list)
    refusable: bool = False
    training: bool = False
    floats: bool = False
    inside_table: str = ""
    uncounted: set[str] = field(default_factory=set)
    count: int = 0

    def __post_init__(self) -> None:
        base = {name: size for name, (size, _) in self.knobs.items()}
        self.widths = Widths(base, {n: size * r for n, (size, r) in self.knobs.items()})
        self.init += [f"self.{name} = {name}" for name in self.knobs]

    # --- source -------------------------------------------------------------------------------

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def value(self, code: str, size: str) -> str:
        """Assign an expression to a new value of so many channels."""
        name = self.temporary(code, "h")
        self.values.append((name, size))
        return name

    def temporary(self, code: str, letter: str = "t") -> str:
        name = self.fresh(letter)
        self.lines.append(f"{name} = {code}")
        return name

    def pick(self, draw: Draw, fits: Callable[[str], bool] = lambda size: True) -> tuple[str, str]:
        """One of the values that fit, 0 the latest; the first of all has d channels."""
        fitting = [v for v in self.values if fits(v[1])]
        return fitting[-1 - draw(8) % len(fitting)]

    def grows(self, size: str) -> bool:
        return self.ratio(size) != 1.0

    def ratio(self, code: str) -> float:
        return self.widths.ratio(code)

    def inside(self, size: str) -> str:
        """A size as forward writes it."""
        return re.sub(r"\b([dhf])\b", r"self.\1", size)

    # --- truths -------------------------------------------------------------------------------

    def site(self, growth: float) -> None:
        """A line's value grows by so much more than it should: it needs the inverse."""
        self.factors.append(1.0 / growth)

    def parameter(self, name: str, axes: tuple[Axis, ...], std: str | None) -> None:
        """State what a parameter is; ``std``: how its constructor draws it, up to a constant."""
        fans = {
            side: math.prod(self.ratio(a.size) for a in axes if a.side == side) for side in "io"
        }
        growths = [{self._growth(b) for b in axis.blocks} for axis in axes if axis.side == "o"]
        unequal = any(len(g) > 1 for g in growths)
        self.refusable |= any(len(g - {1.0}) > 1 for g in growths)
        self.truths[name] = Truth(
            fans["i"],
            fans["o"],
            None if std is None else self.ratio(std),
            tuple(map(self._layout, axes)),
            unequal,
        )

    def _growth(self, block: tuple[str, ...]) -> float:
        return math.prod(map(self.ratio, block))

    def _layout(self, axis: Axis) -> tuple[oracle.Block, ...]:
        """Sums over parts that grow differently: each part must add up to what it was."""
        whole = self.ratio(axis.size) if axis.side == "i" else 1.0
        return tuple(
            oracle.Block(
                tuple((int(self.widths.sizes(a)[0]), round(self.ratio(a))) for a in block),
                whole / self._growth(block) if axis.side == "i" else 1.0,
            )
            for block in axis.blocks
        )

    def weight(self, draw: Draw, *axes: Axis) -> str:
        """A new matrix, drawn in one of many ways."""
        name = self.fresh("w")
        shape = ", ".join(axis.code for axis in axes)
        code, std = draw_law(draw, shape, axes)
        self.init += [line.format(w=f"self.{name}", shape=shape) for line in code]
        self.parameter(name, axes, std)
        return f"self.{name}"

    def vector(self, size: str, fill: str = "torch.ones({})", *axes: Axis) -> str:
        """A gain or a bias (or, with ``axes``, a table that is added), of constant entries."""
        name = self.fresh("g")
        axes = axes or (written(size),)
        shape = ", ".join(axis.code for axis in axes)
        self.init.append(f"self.{name} = nn.Parameter({fill.format(shape)})")
        self.parameter(name, axes, "1")
        return f"self.{name}"

    def module(self, code: str, **parameters: tuple[tuple[Axis, ...], str | None]) -> str:
        """A layer of torch's, with the axes and the std of each of its parameters."""
        name = self.fresh("l")
        self.init.append(f"self.{name} = {code}")
        for part, (axes, std) in parameters.items():
            self.parameter(f"{name}.{part}", axes, std)
        return f"self.{name}"


# --- how a constructor draws a matrix ------------------------------------------------------------

_NEW = "{w} = nn.Parameter(torch.empty({shape}))"


def draw_law(draw: Draw, shape: str, axes: tuple[Axis, ...]) -> tuple[list[str], str | None]:
    """Lines of a constructor, and the std that they give, up to a constant; None for zeros.

    torch counts fans by position: all axes but the first make up its fan_in, all but the second
    its fan_out.
    """
    first, second, *rest = (f"({axis.size})" for axis in axes)
    taps = " * ".join(rest) or "1"
    fan_in, fan_out = f"({second} * {taps})", f"({first} * {taps})"
    sides = {s: " * ".join(f"({a.size})" for a in axes if a.side == s) or "1" for s in "io"}
    normal = "{w} = nn.Parameter(torch.randn({shape}) * (%s))"
    laws: list[tuple[list[str], str | None]] = [
        ([normal % "0.05"], "1"),
        ([normal % f"({sides['i']}) ** -0.5"], f"({sides['i']}) ** -0.5"),
        ([normal % f"({sides['o']}) ** -0.5"], f"({sides['o']}) ** -0.5"),
        ([normal % "d ** -1"], "d ** -1"),
        ([normal % "0.3 * d ** -0.25"], "d ** -0.25"),
        ([normal % "1 / math.sqrt(d)"], "d ** -0.5"),
        ([_NEW, "nn.init.normal_({w}, std=0.02)"], "1"),
        ([_NEW, "nn.init.kaiming_uniform_({w}, a=math.sqrt(5))"], f"{fan_in} ** -0.5"),
        ([_NEW, "nn.init.kaiming_normal_({w}, mode='fan_out')"], f"{fan_out} ** -0.5"),
        ([_NEW, "nn.init.xavier_uniform_({w})"], f"({fan_in} + {fan_out}) ** -0.5"),
        ([_NEW, "nn.init.xavier_normal_({w})"], f"({fan_in} + {fan_out}) ** -0.5"),
        ([_NEW, "nn.init.trunc_normal_({w}, std=0.02)"], "1"),
        ([_NEW, "nn.init.trunc_normal_({w}, std=d ** -0.5)"], "d ** -0.5"),
        ([_NEW, "nn.init.orthogonal_({w})"], f"max({first}, {fan_in}) ** -0.5"),
        (["{w} = nn.Parameter(torch.empty({shape}).uniform_(-(d ** -0.5), d ** -0.5))"], "d**-0.5"),
        (["{w} = nn.Parameter(torch.zeros({shape}))"], None),
    ]
    return laws[draw(len(laws))]
