"""What a plan is made of: facts about one parameter, one place in the source, one open question."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby

from automup.rules import Ratios, Role, role_of


@dataclass(frozen=True)
class SizeLaw:
    """One factor of the law by which a constructor draws a weight: (sum of sizes) ** exponent.

    ``dims`` are dimensions of the parameter itself, or of the parameter called ``of`` (a qualified
    name) when the constructor looks at another one, as a bias does at its weight. ``base`` is the
    summed size at the base. ``joined`` are dimensions that count as one more, of their product.
    """

    dims: tuple[int, ...]
    base: int
    exponent: float
    of: str = ""
    joined: tuple[int, ...] = ()

    def size(self, shape: Sequence[int]) -> int:
        """The sum for a shape."""
        joined = math.prod(shape[d] for d in self.joined) if self.joined else 0
        return sum(shape[d] for d in self.dims) + joined


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a fused weight, along the dimension that it writes.

    ``size`` of them at the target and ``base_size`` at the base; ``grows``: whether they are
    infinite, else they write a finite output; ``init_mult``: what muP multiplied their draw by.
    """

    size: int
    base_size: int
    grows: bool
    init_mult: float


@dataclass(frozen=True)
class Parameter:
    """What one parameter is, at the plan's target.

    ``fan_in_dims`` and ``fan_out_dims`` name the infinite dimensions of the parameter's shape that
    count in each fan, so its ratios at any other width follow from its shape alone.
    ``init_law`` is how the model's own constructor scales it; ``init_rms`` is the root mean square
    that the constructor gives it at the target and ``base_init_rms`` at the base (None: unknown).
    ``init_std`` is what it has after muP, ``init_mult`` what muP multiplied the draw by.
    ``parts``: the pieces of a fused weight that grow or are drawn differently, along its one
    ``fan_out_dims``; then ``init_std`` and ``init_mult`` are those of the rows that grow.
    ``layer``: "input" or "output" for the weights of the model's input layers and readouts, see
    :class:`Constants`.
    ``query``: of a weight that writes the queries of attention (dimension, first, last, of so many,
    blocks) rows that do, in each of so many blocks at the base (0: as many as fit), only where a
    constant is theirs; ``query_mult`` is what their draw is multiplied by beside ``init_mult``, if
    they are not all.
    """

    name: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    base_shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    base_fan_in: int
    base_fan_out: int
    fan_in_dims: tuple[int, ...]
    fan_out_dims: tuple[int, ...]
    init_kind: str
    init_std: float | None
    init_mult: float
    init_law: tuple[SizeLaw, ...] | None
    reason: str
    source: str
    parts: tuple[Part, ...] = ()
    layer: str = ""
    query: tuple[int, ...] = ()
    query_mult: float = 1.0

    @cached_property
    def ratios(self) -> Ratios:
        """target / base of fan_in and fan_out, over the infinite dimensions.

        Of a fused weight, fan_out is that of the rows that grow.
        """
        return ratios(self.shape, self.base_shape, self.fan_in_dims, self.fan_out_dims, self.fixed)

    @property
    def fixed(self) -> int:
        """How many rows of a fused weight do not grow."""
        return sum(part.base_size for part in self.parts if not part.grows)

    @property
    def queries(self) -> list[range]:
        """The rows that write queries, at the target."""
        dim, first, last, of, blocks = self.query
        if self.parts:
            sizes = [[p.base_size for p in self.parts], [p.size for p in self.parts]]
            return [range(moved(first, *sizes), moved(last, *sizes))]
        blocks = blocks or self.shape[dim] // of
        size = self.shape[dim] // blocks
        one = range(first * size // of, last * size // of)
        return [range(one.start + n * size, one.stop + n * size) for n in range(blocks)]

    @property
    def drawn(self) -> tuple[int, list[tuple[int, bool, float]]]:
        """A dimension, and consecutive pieces along it that are drawn in one way.

        Each has its size, whether it grows, and what muP multiplied its draw by.
        """
        dim = self.fan_out_dims[0] if self.parts else self.query[0] if self.query else 0
        parts = [(p.size, p.grows, p.init_mult) for p in self.parts]
        size = self.shape[dim] if self.shape else 1
        parts = parts or [(size, bool(self.fan_out_dims), self.init_mult)]
        if self.query_mult == 1.0:
            return dim, parts
        rows = [(n, *part[1:]) for n, part in enumerate(parts) for _ in range(part[0])]
        for row in chain(*self.queries):
            n, grows, factor = rows[row]
            rows[row] = n, grows, factor * self.query_mult
        return dim, [(len([*same]), grows, factor) for (_, grows, factor), same in groupby(rows)]

    @property
    def is_embedding(self) -> bool:
        """Whether it is a matrix that reads the data."""
        return self.layer == "input" and len(self.shape) > 1

    @property
    def role(self) -> Role:
        return role_of(bool(self.fan_in_dims), bool(self.fan_out_dims))


def moved(edge: int, before: Sequence[int], after: Sequence[int]) -> int:
    """Where an edge in consecutive parts of some sizes is once they have other sizes."""
    done, total = 0, 0
    for old, new in zip(before, after, strict=True):
        if edge <= done + old:
            return total + (edge - done) * new // old
        done, total = done + old, total + new
    return total


def ratios(
    shape: Sequence[int],
    base: Sequence[int],
    fan_in_dims: Sequence[int],
    fan_out_dims: Sequence[int],
    fixed: int = 0,
) -> Ratios:
    """target / base of a weight's fans, from its shapes.

    Args:
        shape, base: its sizes at the target and at the base.
        fan_in_dims, fan_out_dims: the infinite dimensions that count in each fan.
        fixed: of the rows along ``fan_out_dims``, those that do not grow.
    """
    fan_in = math.prod(shape[d] for d in fan_in_dims) / math.prod(base[d] for d in fan_in_dims)
    rows, base_rows = (math.prod(s[d] for d in fan_out_dims) for s in (shape, base))
    return Ratios(fan_in, (rows - fixed) / (base_rows - fixed))


@dataclass(frozen=True)
class Span:
    """A source span: 1-based lines, 0-based columns in characters, end exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Site:
    """One source position that needs a multiplier: prod over axes of (size / base) ** exponent.

    Axes are named by what their size is in terms of the width knobs (``n_embd/4``). ``factor`` is
    the multiplier's value at the plan's target, ``modules`` every module instance it applies to,
    ``parameter`` the weight whose output it multiplies (nothing when two activations meet).
    ``end``: it is a readout of the model. ``constant`` is the part of the factor that is the same
    at every width.
    """

    kind: str
    span: Span
    function: str
    op: str
    exponents: tuple[tuple[str, float], ...]
    factor: float
    modules: tuple[str, ...]
    reason: str
    parameter: str = ""
    end: bool = False
    constant: float = 1.0

    @property
    def source(self) -> str:
        return str(self.span)


@dataclass(frozen=True)
class Unresolved:
    """Something that mixes an infinite axis in a way that the analysis will not guess.

    ``parameters`` are the weights that it concerns, ``after`` those nearest before it where it
    reads none itself. ``override`` is what the user could say of them, ``rule`` what of the
    operation, as code of :mod:`automup`; nothing where that is no help: ``advice``.
    """

    source: str
    op: str
    reason: str
    parameters: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    override: str = ""
    rule: str = ""
    advice: str = ""
