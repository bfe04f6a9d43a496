"""The base against one wider model, over all ways to run it: what the analyses say together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from automup.analysis.sites import Analysis, Correction
from automup.analysis.weights import WeightSummary
from automup.capture.source import Frame
from automup.plan import Span, Unresolved


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
        return tuple(dict.fromkeys(c.node.meta["fact"].module for c in self.corrections))


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
    return Comparison(weights, _spots(analyses), tuple(_unresolved(analyses, weights)), analyses)


def _merge_weights(analyses: tuple[Analysis, ...]) -> dict[str, WeightSummary]:
    """A weight's summary from the variants that use it; they must agree."""
    merged: dict[str, WeightSummary] = {}
    for analysis in analyses:
        for name, summary in analysis.weights.items():
            known = merged.get(name)
            if known is None or known.primary is None:
                merged[name] = summary
            elif summary.primary and (known.fan_in_dims, known.fan_out_dims) != (
                summary.fan_in_dims,
                summary.fan_out_dims,
            ):
                problem = "two ways to run the model use it with different fans"
                merged[name] = WeightSummary(
                    known.fan_in, known.fan_out, known.fan_in_dims, known.fan_out_dims,
                    known.primary, problem,
                )  # fmt: skip
    return merged


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


def _unresolved(
    analyses: tuple[Analysis, ...], weights: Mapping[str, WeightSummary]
) -> Iterator[Unresolved]:
    seen: set[Unresolved] = set()
    for analysis in analyses:
        for node, reason in [(o.node, o.reason) for o in analysis.opaque] + [
            (f.node, f"its value grows as width^{f.log:+.3g} and {f.why}") for f in analysis.faults
        ]:
            item = Unresolved(place_of_node(node), str(node.target).removeprefix("aten."), reason)
            if item not in seen:
                seen.add(item)
                yield item
    for name, summary in weights.items():
        if summary.problem:
            source = place_of_use(summary)
            op = str(summary.primary.node.target) if summary.primary else "parameter"
            yield Unresolved(source, op, f"{name}: {summary.problem}")


def place_of_node(node: Any) -> str:
    frames = node.meta["fact"].frames if "fact" in node.meta else ()
    return str(frames[0].span) if frames else ""


def place_of_use(summary: WeightSummary) -> str:
    return place_of_node(summary.primary.node) if summary.primary else ""


def union(comparisons: Sequence[Comparison]) -> Comparison:
    """What several directions say together: a dimension is infinite if it is in any of them."""
    first, *rest = comparisons
    weights = dict(first.weights)
    for other in rest:
        for name, summary in other.weights.items():
            weights[name] = _joined(weights[name], summary)
    spots = {spot.key: spot for c in reversed(comparisons) for spot in c.spots}
    problems = {u: None for c in comparisons for u in c.unresolved}
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
    return replace(a, fan_in_dims=fan_in, fan_out_dims=fan_out, problem=problem)
