"""One model under study: captured at three widths, analysed, verified, and planned at any target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from automup.analysis.dataflow import Dataflow, Size, align
from automup.analysis.naming import axis_name
from automup.analysis.sites import Analysis, Correction, analyse
from automup.analysis.weights import WeightSummary
from automup.capture.init_laws import Law
from automup.capture.inputs import InputMaker, optional_candidates, synthesise
from automup.capture.laws import infer_law, measured
from automup.capture.load import ModelSource
from automup.capture.raised import describe, place_of
from automup.capture.source import Frame
from automup.capture.trace import Forced, Trace, Variant, WeightFact, Workshop
from automup.capture.variants import Exploration, explore
from automup.capture.widths import next_legal, scaled
from automup.errors import AutomupError, CaptureError, KnobError, UnresolvedError
from automup.plan import Parameter, Plan, Site, Span, Unresolved
from automup.rules import Ratios, init_multiplier, role_of

Knobs = Mapping[str, Any]
MEASURED_CONSTANT = 0.2
"""A measured law is constant if its rms moves by less than this many octaves over three widths."""


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


class Study:
    """A model function and its base knobs, traced lazily at the widths that are asked for.

    Args:
        build: makes the model from the knobs' values.
        base: the knobs at which muP equals SP.
        inputs: makes example inputs for a model; synthesised when left out.
        name: what to call the model in reports.
        fixed: other arguments of ``build``, the same at all widths.
    """

    def __init__(
        self,
        build: Callable[[Knobs], nn.Module],
        base: Knobs,
        inputs: InputMaker | None = None,
        name: str = "",
        fixed: Knobs | None = None,
    ) -> None:
        self._build, self.base, self.fixed = build, dict(base), dict(fixed or {})
        self._shops: dict[tuple[str, Forced], Workshop] = {}
        self._traces: dict[tuple[str, str, int], Trace] = {}
        self.wide = self.scaled_knobs(2)
        self.name = name or type(self.shop(self.base).built.model).__name__
        self.inputs = inputs or synthesise(self.shop(self.base), self.shop(self.wide))

    # --- models and traces --------------------------------------------------------------------

    def scaled_knobs(self, factor: int) -> dict[str, Any]:
        """All knobs times a factor."""
        return {name: scaled(value, factor) for name, value in self.base.items()}

    def build(self, knobs: Knobs) -> nn.Module:
        """The model at these knobs, as its author builds it."""
        return self._build({**self.fixed, **knobs})

    def shop(self, knobs: Knobs, forced: Forced = ()) -> Workshop:
        """The model at these knobs, built without its weights."""
        key = (repr(sorted(knobs.items())), forced)
        if key not in self._shops:
            try:
                self._shops[key] = Workshop(lambda: self.build(knobs), forced)
            except AutomupError:
                raise
            except Exception as error:
                shown = ", ".join(f"{name}={value!r}" for name, value in knobs.items())
                raise KnobError(
                    f"The model cannot be built with {shown}: {describe(error)}.",
                    where=place_of(error),
                    fix="Choose another base, or scale other knobs.",
                ) from error
        return self._shops[key]

    def trace(self, knobs: Knobs, number: int) -> Trace:
        """The trace of one of the variants at these knobs."""
        variant = self.exploration.variants[number]
        key = (repr(sorted(knobs.items())), str(variant), number)
        if key not in self._traces:
            shop = self.shop(knobs, variant.forced)
            try:
                self._traces[key] = shop.run(variant, self.inputs(shop.built.model))
            except AutomupError:
                raise
            except Exception as error:
                raise CaptureError(
                    f"The model failed while it was traced ({variant}): {describe(error)}.",
                    where=place_of(error),
                    fix="Pass other example inputs.",
                ) from error
        return self._traces[key]

    @cached_property
    def exploration(self) -> Exploration:
        """The variants that reach all the code that can be reached."""
        shop = self.shop(self.base)
        optional: dict[str, list[Any]] = {}
        for name, tensor in optional_candidates(shop.built.model, self.inputs(shop.built.model)):
            optional.setdefault(name, []).append(tensor)
        return explore(
            lambda variant: self.shop(self.base, variant.forced),
            self.inputs,
            {name: tuple(tensors) for name, tensors in optional.items()},
        )

    @cached_property
    def third(self) -> dict[str, Any]:
        """The width that verifies: three times the base, or the next legal multiple."""
        return self.scaled_knobs(next_legal(self.build, self.base))

    # --- comparisons ----------------------------------------------------------------------------

    def dataflow(self, knobs: Knobs, number: int) -> Dataflow:
        return align(self.trace(self.base, number).graph, self.trace(knobs, number).graph)

    def compare(self, knobs: Knobs) -> Comparison:
        """Analyse the base against a model at other knobs, over all variants."""
        shapes = self._shapes(knobs)
        analyses = tuple(
            analyse(self.dataflow(knobs, i), shapes) for i in range(len(self.exploration.variants))
        )
        return _comparison(analyses)

    def with_changes(
        self, at_base: Callable[[nn.Module], None], at_wide: Callable[[nn.Module], None]
    ) -> Comparison:
        """The base against twice the base, where both models are changed after they are built."""

        def trace(knobs: Knobs, change: Callable[[nn.Module], None], variant: Variant) -> Trace:
            shop = Workshop(lambda: self.build(knobs), variant.forced)
            change(shop.built.model)
            return shop.run(variant, self.inputs(shop.built.model))

        shapes = self._shapes(self.wide)
        analyses = []
        for variant in self.exploration.variants:
            base, wide = trace(self.base, at_base, variant), trace(self.wide, at_wide, variant)
            analyses.append(analyse(align(base.graph, wide.graph), shapes))
        return _comparison(tuple(analyses))

    def _shapes(self, knobs: Knobs) -> dict[str, tuple[Size, ...]]:
        base, wide = self.shop(self.base).built.weights, self.shop(knobs).built.weights
        if [w.names for w in base] != [w.names for w in wide]:
            odd = next(iter({w.name for w in base} ^ {w.name for w in wide}), "a parameter")
            raise CaptureError(
                f"The model has other parameters at another width ({odd}).",
                where=f"{dict(self.base)} against {dict(knobs)}",
                fix="Choose a base whose sizes do not coincide with a fixed size of the model.",
            )
        return {
            a.name: tuple(zip(a.shape, b.shape, strict=True))
            for a, b in zip(base, wide, strict=True)
        }

    @cached_property
    def exponents(self) -> Comparison:
        """The base against twice the base, which the third width has verified."""
        comparison, check = self.compare(self.wide), self.compare(self.third)
        self._verify(comparison, check, self.third)
        return comparison

    def _verify(self, two: Comparison, other: Comparison, knobs: Knobs) -> None:
        """What two widths predict must hold at another one (DESIGN 3.4)."""
        for name, summary in two.weights.items():
            seen = other.weights[name]
            if (summary.fan_in_dims, summary.fan_out_dims) != (seen.fan_in_dims, seen.fan_out_dims):
                raise UnresolvedError(
                    f"{name}: the widths {self.wide} and {dict(knobs)} disagree about it: fan_in "
                    f"over dimensions {summary.fan_in_dims} against {seen.fan_in_dims}.",
                    fix="Choose a base whose sizes do not coincide with a fixed size of the model.",
                )
        left = {(str(s.span), s.key[1]) for s in two.spots}
        right = {(str(s.span), s.key[1]) for s in other.spots}
        if left != right:
            place, exponent = sorted(left ^ right)[0]
            raise UnresolvedError(
                f"The widths {self.wide} and {dict(knobs)} disagree about a multiplier: its "
                f"exponent {exponent} holds at one of them only.",
                where=place,
                fix="Choose a base whose sizes do not coincide with a fixed size of the model.",
            )

    # --- the plan --------------------------------------------------------------------------------

    def plan(self, target: Knobs) -> Plan:
        """Every fact at a target, from the base compared with the target itself."""
        comparison = self.exponents
        if dict(target) not in (self.base, self.wide):
            at_target = self.compare(target)
            if all(self._grows(target)):
                self._verify(comparison, at_target, target)
        else:
            at_target = comparison if dict(target) == self.wide else self.compare(target)
        axes = self._axis_names()
        return Plan(
            self.name,
            dict(self.base),
            dict(target),
            tuple(self._parameters(comparison, at_target, target, axes)),
            tuple(self._site(spot, at_target, axes) for spot in comparison.spots),
            comparison.unresolved,
            tuple(self._notes()),
        )

    def _grows(self, target: Knobs) -> Iterator[bool]:
        """Whether each knob is larger than at the base: only then all infinite axes are seen."""
        return (target[name] != value for name, value in self.base.items())

    def _axis_names(self) -> Callable[[Size], str]:
        base, wide = self.base, self.wide
        return lambda size: axis_name(size, {k: (base[k], wide[k]) for k in base})

    def _parameters(
        self,
        comparison: Comparison,
        at_target: Comparison,
        target: Knobs,
        axes: Callable[[Size], str],
    ) -> Iterator[Parameter]:
        targets = {w.name: w for w in self.shop(target).built.weights}
        for base in self.weights[0]:
            summary, seen = comparison.weights[base.name], at_target.weights[base.name]
            wide = targets[base.name]
            dims = (summary.fan_in_dims, summary.fan_out_dims)
            ratios = Ratios(
                *(
                    math.prod(wide.shape[d] for d in some) / math.prod(base.shape[d] for d in some)
                    for some in dims
                )
            )
            factor = init_multiplier(ratios, role_of(*map(bool, dims)))
            mult = _exact(factor / self._law_ratio(base, wide)) if base.law.rms else 1.0
            yield Parameter(
                name=base.name,
                names=base.names,
                shape=wide.shape,
                base_shape=base.shape,
                fan_in=seen.fan_in[1] if seen.primary else summary.fan_in[0],
                fan_out=seen.fan_out[1] if seen.primary else summary.fan_out[0],
                base_fan_in=summary.fan_in[0],
                base_fan_out=summary.fan_out[0],
                fan_in_dims=summary.fan_in_dims,
                fan_out_dims=summary.fan_out_dims,
                init_kind=base.law.kind,
                init_std=wide.law.std * mult if wide.law.known else None,
                init_mult=mult,
                init_law=infer_law(base.name, self._laws, self._fan_in_dims),
                reason=_reason(summary, axes),
                source=_source(summary),
            )

    def _law_ratio(self, base: WeightFact, target: WeightFact) -> float:
        """The rms that the constructor gives a weight at the target, over that at the base."""
        law = self._laws[base.name]
        if all(record.kind != "measured" for _, record in law) and target.law.known:
            return target.law.rms / base.law.rms
        slopes = [math.log2(record.rms / base.law.rms) if record.rms else 9.0 for _, record in law]
        if max(map(abs, slopes)) < MEASURED_CONSTANT:
            return 1.0
        raise UnresolvedError(
            f"{base.name}: how the constructor draws it could not be followed, and it changes with "
            "width.",
            fix="Initialise it with torch.nn.init or with a random tensor times a constant.",
        )

    @cached_property
    def weights(self) -> tuple[tuple[WeightFact, ...], ...]:
        """The weights at the three widths, their laws checked against real draws."""
        return tuple(
            measured(lambda k=k: self.build(k), self.shop(k).built.weights)  # type: ignore[misc]
            for k in (self.base, self.wide, self.third)
        )

    @cached_property
    def _fan_in_dims(self) -> dict[str, tuple[int, ...]]:
        return {name: w.fan_in_dims for name, w in self.exponents.weights.items()}

    @cached_property
    def _laws(self) -> dict[str, tuple[tuple[tuple[int, ...], Law], ...]]:
        """Every parameter's shape and law at the three widths."""
        return {
            triple[0].name: tuple((w.shape, w.law) for w in triple)
            for triple in zip(*self.weights, strict=True)
        }

    def _site(self, spot: Spot, at_target: Comparison, axes: Callable[[Size], str]) -> Site:
        twin = next((s for s in at_target.spots if s.key == spot.key), None)
        first = spot.first
        fact = first.node.meta["fact"]
        return Site(
            kind=first.kind,
            span=spot.span,
            function=spot.frame.function if spot.frame else "",
            op=str(first.node.target).removeprefix("aten."),
            exponents=((axes(first.size), round(first.exponent, 6)),),
            factor=2.0**twin.first.log if twin else 1.0,
            modules=spot.modules,
            reason=first.why,
            parameter=first.parameter if fact else "",
        )

    def _notes(self) -> Iterator[str]:
        for i in range(len(self.exploration.variants)):
            for guess in self.trace(self.base, i).guesses:
                yield f"the run depends on {guess.what}, which was guessed ({guess.frame})"


def _comparison(analyses: tuple[Analysis, ...]) -> Comparison:
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
            item = Unresolved(_where(node), str(node.target).removeprefix("aten."), reason)
            if item not in seen:
                seen.add(item)
                yield item
    for name, summary in weights.items():
        if summary.problem:
            source = _source(summary)
            op = str(summary.primary.node.target) if summary.primary else "parameter"
            yield Unresolved(source, op, f"{name}: {summary.problem}")


def _where(node: Any) -> str:
    frames = node.meta["fact"].frames if "fact" in node.meta else ()
    return str(frames[0].span) if frames else ""


def _source(summary: WeightSummary) -> str:
    return _where(summary.primary.node) if summary.primary else ""


def _reason(summary: WeightSummary, axes: Callable[[Size], str]) -> str:
    use = summary.primary
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


def _exact(factor: float) -> float:
    """1 where the factor differs from 1 by rounding alone."""
    return 1.0 if abs(factor - 1.0) < 1e-9 else factor


def study_source(
    source: ModelSource,
    base: Knobs,
    fixed: Mapping[str, Any] | None = None,
    inputs: InputMaker | None = None,
) -> Study:
    """A study of a model file: ``base`` are its width knobs, ``fixed`` its other fields."""
    rest = dict(fixed or {})
    return Study(source.build, base, inputs, source.name, fixed=rest)


def converted_knobs(source: ModelSource) -> dict[str, Any]:
    """The base that a converted file records; nothing for a file of the author's."""
    return dict(getattr(source.module, "MUP_KNOBS", {}))
