"""Two readings of one model: what the base says against one wider model and against another.

What the calculus says of a weight or of a place must be the same at every width. Where it is not,
no exponent describes it, and both readings are reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from automup.analysis.comparison import Comparison, Spot, same_cuts
from automup.analysis.open_ends import place_of_use
from automup.analysis.weights import WeightSummary
from automup.facts import Span, Unresolved

COINCIDENCE = "Choose a base whose sizes do not coincide with a fixed size of the model."


@dataclass(frozen=True)
class Reading:
    """The base against a model at some knobs, and how to call those: ``width=128``."""

    at: str
    comparison: Comparison


def disagreements(one: Reading, other: Reading) -> tuple[Unresolved, ...]:
    """Where two readings contradict each other; both must scale the same knobs."""
    return (*_of_weights(one, other), *_of_spots(one, other), *_of_open_ends(one, other))


def surprises(known: Reading, target: Reading) -> tuple[Unresolved, ...]:
    """Where a target contradicts what is known of all directions in which the knobs may grow.

    It may scale some of the knobs only, so it need not show all that is known.
    """
    weights = (
        (name, summary, target.comparison.weights[name])
        for name, summary in known.comparison.weights.items()
        if not summary.problem
    )
    found = [
        _of_weight(name, (known.at, a), (target.at, b))
        for name, a, b in weights
        if not _within(b, a) or not same_cuts(a, b)
    ]
    spots = {spot.key for spot in known.comparison.spots}
    new = {s.span for s in target.comparison.spots if s.key not in spots}
    places = (_of_place(span, known, target) for span in sorted(new, key=str))
    return (*found, *places, *_of_open_ends(known, target))


def _within(seen: WeightSummary, known: WeightSummary) -> bool:
    return set(seen.fan_in_dims) <= set(known.fan_in_dims) and set(seen.fan_out_dims) <= set(
        known.fan_out_dims
    )


def disputed(one: Reading, other: Reading) -> frozenset[Span]:
    """The places where one reading needs another multiplier than the other, or none."""
    left, right = ({s.key for s in r.comparison.spots} for r in (one, other))
    return frozenset(span for span, _ in left ^ right)


def settled_by(comparison: Comparison, one: Reading, other: Reading) -> Comparison:
    """The comparison, with a problem for each weight that the readings contradict."""
    weights = dict(comparison.weights)
    for name, (a, b) in _contradictory(one, other):
        weights[name] = replace(weights[name], problem=_fans(name, (one.at, a), (other.at, b)))
    return replace(comparison, weights=weights)


# --- what there is to say -------------------------------------------------------------------------


def _contradictory(
    one: Reading, other: Reading
) -> Iterator[tuple[str, tuple[WeightSummary, WeightSummary]]]:
    for name, a in one.comparison.weights.items():
        b = other.comparison.weights[name]
        if a.problem or b.problem:
            continue  # that is open anyway
        alike = (a.fan_in_dims, a.fan_out_dims) == (b.fan_in_dims, b.fan_out_dims)
        if not (alike and same_cuts(a, b)):
            yield name, (a, b)


def _of_weights(one: Reading, other: Reading) -> Iterator[Unresolved]:
    for name, (a, b) in _contradictory(one, other):
        yield _of_weight(name, (one.at, a), (other.at, b))


def _of_weight(
    name: str, one: tuple[str, WeightSummary], other: tuple[str, WeightSummary]
) -> Unresolved:
    use = one[1] if one[1].primary else other[1]
    op = str(use.primary.node.target).removeprefix("aten.") if use.primary else "parameter"
    reason = f"{name}: {_fans(name, one, other)}"
    return Unresolved(place_of_use(use), op, reason, (name,), advice=COINCIDENCE)


def _fans(name: str, one: tuple[str, WeightSummary], other: tuple[str, WeightSummary]) -> str:
    if (one[1].fan_in_dims, one[1].fan_out_dims) == (other[1].fan_in_dims, other[1].fan_out_dims):
        cut = [f"at {at} into {_cuts(summary)}" for at, summary in (one, other)]
        return f"its output is cut {', '.join(cut)}"
    read = [
        f"at {at} fan_in has {_dims(s.fan_in_dims)} and fan_out {_dims(s.fan_out_dims)}"
        for at, s in (one, other)
    ]
    return ", ".join(read)


def _cuts(summary: WeightSummary) -> str:
    return ", ".join(f"{a}→{b}" for a, b in (p.size for p in summary.parts)) or "no parts"


def _dims(dims: tuple[int, ...]) -> str:
    if not dims:
        return "none that grows"
    return f"dimension{'s' * (len(dims) > 1)} {' and '.join(map(str, dims))}"


def _of_spots(one: Reading, other: Reading) -> Iterator[Unresolved]:
    for span in sorted(disputed(one, other), key=str):
        yield _of_place(span, one, other)


def _of_place(span: Span, one: Reading, other: Reading) -> Unresolved:
    here = [[s for s in r.comparison.spots if s.span == span] for r in (one, other)]
    read = (f"at {r.at} {_needs(spots)}" for r, spots in zip((one, other), here, strict=True))
    node = next(spot for spots in here for spot in spots).first.node
    op = str(node.target).removeprefix("aten.")
    return Unresolved(str(span), op, ", ".join(read), advice=COINCIDENCE)


def _needs(spots: list[Spot]) -> str:
    """Such as: it needs a multiplier of (size / base)^-0.5 for a size 16→32."""
    if not spots:
        return "it needs no multiplier"
    said = []
    for spot in spots:
        base, wide = spot.first.size
        said.append(f"({wide} / {base})^{spot.first.exponent:.3g}")
    return f"it needs a multiplier of {' and of '.join(dict.fromkeys(said))}"


def _of_open_ends(one: Reading, other: Reading) -> Iterator[Unresolved]:
    """What only the other reading leaves open; what the first does is reported anyway."""
    known = {(u.source, u.op, u.parameters) for u in one.comparison.unresolved}
    for item in other.comparison.unresolved:
        if (item.source, item.op, item.parameters) not in known:
            reason = f"{item.reason}; this at {other.at}, at {one.at} nothing is open here"
            yield replace(item, reason=reason)
