"""From a study to a plan: every parameter and every site at one target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from automup.analysis.comparison import Comparison, Spot
from automup.analysis.dataflow import Size
from automup.analysis.naming import axis_name
from automup.analysis.open_ends import place_of_node, place_of_use
from automup.analysis.weights import WeightSummary
from automup.capture.laws import infer_law
from automup.capture.trace import WeightFact
from automup.errors import UnresolvedError
from automup.facts import Parameter, Part, Site, ratios
from automup.models import Knobs
from automup.plan import Plan
from automup.rules import Ratios, init_multiplier, role_of
from automup.study import Study

NOISE = 0.15
"""How far an exponent measured on random draws may be from the half power that it is taken for."""


DISPUTED = (
    "whether muP holds for these is disputed (Vankadara et al., On Feature Learning in Structured "
    "State Space Models, NeurIPS 2024)"
)


def make_plan(study: Study, target: Knobs) -> Plan:
    """Every fact about a model at a target.

    The exponents come from the base and twice the base; sizes and factors from the base compared
    with the target itself, which must agree with them.

    Raises:
        UnresolvedError: if the target contradicts what the smaller widths say.
    """
    verified, at_target = study.exponents, study.at(target)
    base, wide = study.base, study.wide
    values = {name: (base[name], wide[name]) for name in base}

    def axes(size: Size) -> str:
        return axis_name(size, values)

    targets = {w.name: w for w in study.models.shop(target).built.weights}
    parameters = tuple(
        _parameter(study, weight, targets[weight.name], target, axes)
        for weight in study.models.weights[0]
    )
    return Plan(
        study.name,
        dict(base),
        dict(target),
        parameters,
        tuple(_site(spot, at_target, axes) for spot in _spots_at(verified, at_target)),
        verified.unresolved,
        tuple(_notes(study, parameters)),
    )


def _parameter(
    study: Study,
    base: WeightFact,
    target: WeightFact,
    at: Knobs,
    axes: Callable[[Size], str],
) -> Parameter:
    summary, seen = study.exponents.weights[base.name], study.at(at).weights[base.name]
    dims = ((), ()) if summary.problem else (summary.fan_in_dims, summary.fan_out_dims)
    grown = ratios(target.shape, base.shape, *dims)
    wanted = init_multiplier(grown, role_of(*map(bool, dims)))
    drawn = None  # zeros, or what is left alone
    if base.law.rms and not summary.problem:
        drawn = _law_ratio(study, base, target, at)
    parts = () if summary.problem else _parts(summary, seen, grown.fan_in, drawn)
    whole = _factor(wanted, drawn)
    mult = next((part.init_mult for part in parts if part.grows), whole)
    return Parameter(
        name=base.name,
        names=base.names,
        shape=target.shape,
        base_shape=base.shape,
        fan_in=seen.fan_in[1] if seen.primary or seen.given else summary.fan_in[0],
        fan_out=seen.fan_out[1] if seen.primary or seen.given else summary.fan_out[0],
        base_fan_in=summary.fan_in[0],
        base_fan_out=summary.fan_out[0],
        fan_in_dims=dims[0],
        fan_out_dims=dims[1],
        init_kind=base.law.kind,
        init_std=target.law.std * mult if target.law.known else None,
        init_mult=mult,
        init_law=None
        if summary.problem
        else infer_law(base.name, study.models.laws, study.fan_in_dims),
        reason=_reason(summary, axes),
        source=place_of_use(summary),
        parts=parts,
        layer=summary.layer,
    )


def _parts(
    verified: WeightSummary, seen: WeightSummary, fan_in: float, drawn: float | None
) -> tuple[Part, ...]:
    """The parts of a fused weight at the target; nothing where all rows grow alike.

    Each has its own fan_out, hence its own role and init by the table. ``drawn`` is what the
    constructor's own std changed by.
    """
    sizes = [part.size for part in seen.parts or verified.parts]
    if not seen.parts:  # at this target the axis keeps its size
        sizes = [(base, base) for base, _ in sizes]
    found = []
    for part, (base, size) in zip(verified.parts, sizes, strict=True):
        role = role_of(bool(verified.fan_in_dims), part.grows)
        wanted = init_multiplier(Ratios(fan_in, size / base), role)
        found.append(Part(size, base, part.grows, _factor(wanted, drawn)))
    alike = all(p.grows for p in found) and len({p.size / p.base_size for p in found}) == 1
    return () if alike else tuple(found)


def _law_ratio(study: Study, base: WeightFact, target: WeightFact, knobs: Knobs) -> float:
    """The rms that the constructor gives a weight at the target, over that at the base."""
    records = [law for _, law in study.models.laws[base.name]]
    if all(law.known and law.kind != "measured" for law in (*records, target.law)):
        return target.law.rms / base.law.rms
    exponent = _measured_exponent(study, [law.rms for law in records])
    growth = {Fraction(knobs[k]) / Fraction(v) for k, v in study.base.items() if _is_number(v)}
    if exponent == 0.0:
        return 1.0
    if exponent is not None and len(growth) == 1:
        return float(float(growth.pop()) ** exponent)
    if not math.isfinite(base.law.rms):
        raise UnresolvedError(
            f"{base.name}: its constructor leaves it with entries that are no numbers "
            f"(rms {base.law.rms}).",
            fix="Mend its init first: training would begin with them.",
        )
    raise UnresolvedError(
        f"{base.name}: how the constructor draws it could not be followed, and it changes with "
        "width.",
        fix="Initialise it with torch.nn.init or with a random tensor times a constant.",
    )


def _measured_exponent(study: Study, rms: list[float]) -> float | None:
    """The power of the width, in halves, that an rms measured at three widths follows, or None."""
    widths = [next(iter(k.values())) for k in (study.base, study.wide, study.models.third)]
    if not all(0 < value < math.inf for value in rms) or not all(map(_is_number, widths)):
        return None
    slopes = [math.log(rms[i] / rms[0]) / math.log(widths[i] / widths[0]) for i in (1, 2)]
    nearest = round(2 * slopes[1]) / 2
    return nearest if all(abs(slope - nearest) < NOISE for slope in slopes) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _factor(wanted: float, drawn: float | None) -> float:
    """What is missing of a wanted change of the std; 1 where only rounding is."""
    factor = 1.0 if drawn is None else wanted / drawn
    return 1.0 if abs(factor - 1.0) < 1e-9 else factor


def _spots_at(verified: Comparison, at_target: Comparison) -> Iterator[Spot]:
    """The verified places; of one whose exponent depends on the direction, that of the target."""
    there = {spot.key for spot in at_target.spots}
    settled = {span for span, _ in there}
    for spot in verified.spots:
        if spot.key in there or spot.span not in settled:
            yield spot


def _site(spot: Spot, at_target: Comparison, axes: Callable[[Size], str]) -> Site:
    twin = next((s for s in at_target.spots if s.key == spot.key), None)
    first = spot.first
    return Site(
        kind=first.kind,
        span=spot.span,
        function=spot.frame.function if spot.frame else "",
        op=str(first.node.target).removeprefix("aten."),
        exponents=((axes(first.size), round(first.exponent, 6)),),
        factor=twin.first.factor if twin else 1.0,
        modules=spot.modules,
        reason=first.why,
        parameter=first.parameter,
        end=first.end,
    )


def _notes(study: Study, parameters: Sequence[Parameter]) -> Iterator[str]:
    if study.redraw and study.redraw.loses(parameters):
        yield study.redraw.warning
    for _, trace in study.exploration.reached:
        for guess in trace.guesses:
            yield f"the run depends on {guess.what}, which was guessed ({guess.frame})"
    selective = (n for a in study.exponents.analyses for n in a.selective)
    for place in dict.fromkeys(map(place_of_node, selective)):
        yield f"a selective state space: the width calculus is applied, but {DISPUTED} ({place})"


def _reason(summary: WeightSummary, axes: Callable[[Size], str]) -> str:
    use = summary.primary
    if summary.problem:
        return f"left as it is: {summary.problem}"
    if summary.given:
        return "overridden by the user"
    if use is None:
        return "not used by the traced forward"
    if use.how == "lookup":
        return "looked up: one entry feeds one output coordinate"
    if use.how == "elementwise":
        return "acts coordinate by coordinate: fan_in is 1"
    if not summary.fan_in_dims:
        return f"{use.how} that sums over finite dimensions"
    written = "a finite output" if not summary.fan_out_dims else "an infinite output"
    return f"{use.how} that sums over {axes(use.fan_in)}, with {written}"
