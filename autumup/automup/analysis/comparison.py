"""The base against one wider model, over all ways to run it: what the analyses say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from automup.analysis.open_ends import open_ends, place_of_use
from automup.analysis.sites import Analysis, Correction
from automup.analysis.weights import WeightSummary
from automup.capture.source import Frame
from automup.facts import Span, Unresolved


@dataclass(frozen=True)
class Spot:
    """All corrections at one source position, over variants and modules, with their analyses."""

    span: Span
    frame: Frame | None
    corrections: tuple[Correction, ...]

    @property
    def key(self) -> tuple[Span, float]:
        """The position with the exponent: the same line may serve several kinds of modules."""
        return self.span, round(self.first.exponent, 4)

    @property
    def first(self) -> Correction:
        return self.corrections[0]

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(c.node.fact.module for c in self.corrections))


@dataclass(frozen=True)
class Comparison:
    """The base compared with one wider model, over all variants."""

    weights: Mapping[str, WeightSummary]
    spots: tuple[Spot, ...]
    unresolved: tuple[Unresolved, ...]
    analyses: tuple[Analysis, ...]


def combine(analyses: tuple[Analysis, ...]) -> Comparison:
    """What the analyses of all variants say together."""
    weights = _merge_weights(analyses)
    return Comparison(weights, _spots(analyses), tuple(open_ends(analyses, weights)), analyses)


def _merge_weights(analyses: tuple[Analysis, ...]) -> dict[str, WeightSummary]:
    """A weight's summary from the variants that use it; they must agree."""
    merged: dict[str, WeightSummary] = {}
    for analysis in analyses:
        for name, summary in analysis.weights.items():
            known = merged.get(name)
            if known is None or known.primary is None:
                merged[name] = summary
            elif summary.primary:
                merged[name] = _agreed(known, summary)
    return merged


def _agreed(known: WeightSummary, other: WeightSummary) -> WeightSummary:
    """What two ways to run the model say together of a weight that both use."""
    both = replace(known, sums=known.sums | other.sums, ends=known.ends | other.ends)
    dims = [(w.fan_in_dims, w.fan_out_dims) for w in (known, other)]
    if dims[0] != dims[1]:
        return replace(both, problem="two ways to run the model use it with different fans")
    return both if known.parts == other.parts else _with_parts_of(both, other)


def _with_parts_of(known: WeightSummary, other: WeightSummary) -> WeightSummary:
    """A weight that two ways to run the model cut differently."""
    if not known.parts:
        return replace(known, parts=other.parts, in_step=other.in_step)
    if not other.parts or all(p.grows for p in (*known.parts, *other.parts)):
        return known
    return replace(known, problem="two ways to run the model cut its output differently")


def _spots(analyses: tuple[Analysis, ...]) -> tuple[Spot, ...]:
    """Corrections gathered by source position."""
    by_span: dict[tuple[Span | None, float], list[Correction]] = {}
    for analysis in analyses:
        for correction in analysis.corrections:
            span = correction.frames[0].span if correction.frames else None
            by_span.setdefault((span, round(correction.exponent, 4)), []).append(correction)
    nowhere = Span("", 0, 0, 0, 0)
    return tuple(
        Spot(span or nowhere, group[0].frames[0] if group[0].frames else None, tuple(group))
        for (span, _), group in by_span.items()
    )


def union(comparisons: Sequence[Comparison]) -> Comparison:
    """What several directions say together: a dimension is infinite if it is in any of them."""
    first, *rest = comparisons
    weights = dict(first.weights)
    for other in rest:
        for name, summary in other.weights.items():
            weights[name] = _joined(weights[name], summary)
    spots = {spot.key: spot for c in reversed(comparisons) for spot in c.spots}
    problems = {u: None for c in comparisons for u in c.unresolved}
    for name, summary in weights.items():
        if set(summary.fan_in_dims) & set(summary.fan_out_dims):
            reason = f"{name}: {summary.problem}"
            problems[Unresolved(place_of_use(summary), "parameter", reason, (name,))] = None
    analyses = tuple(a for c in comparisons for a in c.analyses)
    return Comparison(
        weights, tuple(sorted(spots.values(), key=_position)), tuple(problems), analyses
    )


def _position(spot: Spot) -> tuple[str, int, int]:
    return spot.span.file, spot.span.line, spot.span.column


def _joined(a: WeightSummary, b: WeightSummary) -> WeightSummary:
    fan_in = tuple(sorted({*a.fan_in_dims, *b.fan_in_dims}))
    fan_out = tuple(sorted({*a.fan_out_dims, *b.fan_out_dims}))
    both = set(fan_in) & set(fan_out)
    problem = f"dimension {min(both)} counts in both fans" if both else a.problem
    joined = replace(a, fan_in_dims=fan_in, fan_out_dims=fan_out, problem=problem)
    return _joined_parts(joined, a, b)


def same_cuts(known: WeightSummary, seen: WeightSummary) -> bool:
    """Whether a weight is cut at another width as the known ones say.

    No part grows that was known as fixed; where all grow, cuts do not matter.
    """
    if all(part.grows for part in known.parts):
        return all(part.grows for part in seen.parts)
    if not seen.parts:
        return not set(seen.fan_out_dims) & set(known.fan_out_dims)
    if [p.size[0] for p in known.parts] != [p.size[0] for p in seen.parts]:
        return False
    return all(p.grows or not q.grows for p, q in zip(known.parts, seen.parts, strict=True))


def _joined_parts(joined: WeightSummary, a: WeightSummary, b: WeightSummary) -> WeightSummary:
    """A part grows if it grows in any direction; in step only if the same parts do in all."""
    if not a.parts and not b.parts:
        return joined
    if not a.parts or not b.parts:
        cut, other = (a, b) if a.parts else (b, a)
        # Where the other direction does not grow the axis at all, it says nothing of its parts.
        return replace(joined, parts=cut.parts, in_step=cut.in_step and not other.fan_out_dims)
    if [p.size[0] for p in a.parts] != [p.size[0] for p in b.parts]:
        return replace(joined, problem="its output is cut differently as different knobs grow")
    growing = [[p.grows for p in parts] for parts in (a.parts, b.parts)]
    same = growing[0] == growing[1] or not all(map(any, growing))
    parts = tuple(
        replace(p, grows=p.grows or q.grows) for p, q in zip(a.parts, b.parts, strict=True)
    )
    return replace(joined, parts=parts, in_step=a.in_step and b.in_step and same)
