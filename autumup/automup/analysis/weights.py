"""What every weight is, from all its uses: which dimensions count in fan_in and in fan_out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from automup.analysis.dataflow import Size, log_ratio, product
from automup.analysis.ends import INPUT, OUTPUT, TIED
from automup.analysis.flow import Use
from automup.analysis.parts import Parts
from automup.analysis.states import EPSILON, Scale
from automup.overrides import Fans
from automup.rules import Ratios, init_multiplier, role_of

FLAT = "one dimension of it holds two infinite axes, which its shape alone does not tell"
"""The problem of a matrix that is kept in a vector."""


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a weight that are read as one axis. ``grows``: at some width."""

    size: Size
    grows: bool


@dataclass(frozen=True)
class WeightSummary:
    """A weight's fans at both widths, and the infinite dimensions of its shape that make them up.

    ``problem`` says why the table does not cover it. ``parts`` has the pieces that the written axis
    is cut into, in order; ``in_step`` is whether those that grow all grow by one ratio, so that
    sizes follow from the weight's shape alone. ``sums`` are the infinite dimensions that each use
    sums over, where known; ``given`` says that the fans are the user's own. ``ends`` are the places
    in the model where it is used, see :mod:`automup.analysis.ends`.
    """

    fan_in: Size
    fan_out: Size
    fan_in_dims: tuple[int, ...]
    fan_out_dims: tuple[int, ...]
    primary: Use | None
    problem: str = ""
    parts: tuple[Part, ...] = ()
    in_step: bool = True
    sums: frozenset[tuple[int, ...]] = frozenset()
    given: bool = False
    ends: frozenset[str] = frozenset()

    @property
    def layer(self) -> str:
        """The end of the model that it belongs to with all its uses: "input", "output" or ""."""
        if INPUT in self.ends and self.ends <= {INPUT, TIED}:
            return INPUT
        return OUTPUT if self.ends == {OUTPUT} else ""

    @property
    def scale(self) -> Scale:
        """How it grows where it is trained by the table."""
        return self._scale(log_ratio(self.fan_in), log_ratio(self.fan_out))

    def scale_at(self, sizes: Sequence[Size]) -> Scale:
        """How it grows between two other widths, at which it has these sizes."""
        r_in, r_out = (
            math.fsum(log_ratio(sizes[d]) for d in dims)
            for dims in (self.fan_in_dims, self.fan_out_dims)
        )
        return self._scale(r_in, r_out)

    def _scale(self, r_in: float, r_out: float) -> Scale:
        role = role_of(bool(self.fan_in_dims), bool(self.fan_out_dims))
        std = math.log2(init_multiplier(Ratios(2.0**r_in, 2.0**r_out), role))
        return Scale(log=-r_in, std=std, spectral=(r_out - r_in) / 2)


def alike(one: Mapping[str, Scale], other: Mapping[str, Scale]) -> bool:
    """Whether two walks would take every weight to grow alike."""
    return one.keys() == other.keys() and all(
        max(abs(a.log - b.log), abs(a.std - b.std), abs(a.spectral - b.spectral)) < EPSILON / 10
        for a, b in ((scale, other[name]) for name, scale in one.items())
    )


def summarise(
    uses: Sequence[Use],
    shapes: Mapping[str, tuple[Size, ...]],
    parts: Mapping[str, Parts],
    read: Collection[str],
    fans: Mapping[str, Fans] | None = None,
) -> dict[str, WeightSummary]:
    """Sum up the uses of every weight in ``shapes``.

    ``parts`` are those of the weights whose rows are cut; ``read`` are the weights that any
    operation reads; ``fans`` are the user's, which replace what the uses say.
    """
    by_weight: dict[str, list[Use]] = {name: [] for name in shapes}
    for use in uses:
        by_weight[use.parameter].append(use)
    summaries = {
        name: _summary(by_weight[name], sizes, parts.get(name, Parts()), name in read)
        for name, sizes in shapes.items()
    }
    for name, given in (fans or {}).items():
        summaries[name] = _as_given(summaries[name], shapes[name], given)
    return summaries


def _as_given(seen: WeightSummary, sizes: tuple[Size, ...], fans: Fans) -> WeightSummary:
    """A weight with the user's fans; their finite part is as the uses say, if the rest agrees."""
    fan_in, fan_out = (product(sizes[d] for d in dims) for dims in (fans.summed, fans.written))
    used = seen.primary is not None
    return replace(
        seen,
        fan_in=seen.fan_in if used and _alike(seen.fan_in, fan_in) else fan_in,
        fan_out=seen.fan_out if used and _alike(seen.fan_out, fan_out) else fan_out,
        fan_in_dims=tuple(d for d in fans.summed if log_ratio(sizes[d])),
        fan_out_dims=tuple(d for d in fans.written if log_ratio(sizes[d])),
        problem="",
        parts=(),
        in_step=True,
        given=True,
    )


def _alike(a: Size, b: Size) -> bool:
    return abs(log_ratio(a) - log_ratio(b)) < EPSILON


def _summary(
    uses: list[Use], sizes: tuple[Size, ...], parts: Parts, is_read: bool
) -> WeightSummary:
    infinite = tuple(d for d, size in enumerate(sizes) if log_ratio(size))
    if not uses:
        unread = "no operation of the traced forward reads it"
        problem = "it meets no activation, only other weights" if is_read else unread
        return WeightSummary((1, 1), (1, 1), (), infinite, None, problem if infinite else "")
    # What a model that differentiates itself does with W^T follows from what it does with W.
    uses = [u for u in uses if not u.node.fact.derived] or uses
    # A shared weight follows the use with the smallest fan_in: its entries must stay Theta(1)
    # there, and the other uses get a multiplier (docs/how.md, a tied readout).
    primary = min(uses, key=lambda u: log_ratio(u.fan_in))
    out_dims = tuple(d for d in infinite if d not in primary.in_dims)
    problem = parts.problem or _problem(uses, primary, sizes, infinite)
    found = tuple(Part(size, bool(log_ratio(size))) for size in parts.sizes)
    growths = {round(log_ratio(part.size), 6) for part in found if part.grows}
    return WeightSummary(
        primary.fan_in, primary.fan_out, primary.in_dims, out_dims, primary, problem,
        found if len(out_dims) == 1 else (), len(growths) <= 1,
        frozenset(u.in_dims for u in uses if not u.lost),
    )  # fmt: skip


def _is_matrix_used_as_vector(primary: Use, infinite: tuple[int, ...]) -> bool:
    """It writes two infinite dimensions and sums over none: a later sum would be its fan_in."""
    matrix = len(infinite) > 1 or (len(infinite) == 1 and primary.matrix)
    return matrix and not primary.in_dims


def _problem(
    uses: list[Use], primary: Use, sizes: tuple[Size, ...], infinite: tuple[int, ...]
) -> str:
    if _is_matrix_used_as_vector(primary, infinite):
        if len(infinite) == 1:
            return FLAT
        return "it has two infinite dimensions and this use of it sums over neither"
    if infinite and any(u.lost for u in uses):
        return "its dimensions are lost in the operations between it and its use"
    by_shape = math.fsum(log_ratio(sizes[d]) for d in primary.in_dims)
    if abs(by_shape - log_ratio(primary.fan_in)) > EPSILON:
        return FLAT
    for use in uses:
        same_sum = abs(log_ratio(use.fan_in) - log_ratio(primary.fan_in)) < EPSILON
        if same_sum and use.in_dims != primary.in_dims:
            return "two uses of it sum over different infinite dimensions"
    return ""
