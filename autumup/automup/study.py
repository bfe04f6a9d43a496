"""One model under study: built and traced at several widths, analysed, verified."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cache, cached_property
from typing import Any

from torch import fx, nn

from automup.analysis.comparison import (
    Comparison,
    combine,
    union,
)
from automup.analysis.dataflow import Size, align
from automup.analysis.sites import Analysis, analyse
from automup.analysis.verification import (
    COINCIDENCE,
    Reading,
    disagreements,
    disputed,
    settled_by,
    surprises,
)
from automup.analysis.weights import WeightSummary
from automup.capture.init_laws import Law
from automup.capture.inputs import InputMaker, optional_candidates, synthesise
from automup.capture.laws import measured
from automup.capture.load import ModelSource, load_text
from automup.capture.memory import short_lived
from automup.capture.raised import describe, place_of
from automup.capture.trace import Forced, Trace, Variant, WeightFact, Workshop
from automup.capture.variants import Exploration, absorbed, explore, together
from automup.capture.widths import scaled
from automup.edits import Factor
from automup.errors import AutomupError, CaptureError, InputError, KnobError
from automup.overrides import Fans, Overrides, settled
from automup.plan import Unresolved
from automup.refusals import refusal

Knobs = Mapping[str, Any]
NONE_GIVEN = Overrides()


def _said(knobs: Knobs) -> str:
    return ", ".join(f"{name}={value}" for name, value in knobs.items())


def open_study(
    build: Callable[[Knobs], nn.Module],
    base: Knobs,
    inputs: InputMaker | None = None,
    name: str = "",
    fixed: Knobs | None = None,
    overrides: Overrides = NONE_GIVEN,
) -> Study:
    """A study that has verified its model; see :class:`Study` for the arguments.

    The model runs on the meta device; one that cannot is run on real tensors, if it is small.

    Raises:
        KnobError, InputError, CaptureError: what the meta device said, if real tensors fail too.
        UnresolvedError: if three widths do not tell one story.
    """
    try:
        study = Study(build, base, inputs, name, fixed, overrides)
        study.exponents  # noqa: B018
    except (KnobError, InputError, CaptureError) as error:
        with contextlib.suppress(AutomupError):
            study = Study(build, base, inputs, name, fixed, overrides, real=True)
            study.exponents  # noqa: B018
            return study
        raise error
    return study


class Study:
    """A model function and its base knobs, traced lazily at the widths that are asked for.

    Args:
        build: makes the model from the knobs' values.
        base: the knobs at which muP equals SP.
        inputs: makes example inputs for a model; synthesised when left out.
        name: what to call the model in reports.
        fixed: other arguments of ``build``, the same at all widths.
        overrides: what the user says of some parameters.
        real: run the model on real tensors instead of the meta device.
    """

    def __init__(
        self,
        build: Callable[[Knobs], nn.Module],
        base: Knobs,
        inputs: InputMaker | None = None,
        name: str = "",
        fixed: Knobs | None = None,
        overrides: Overrides = NONE_GIVEN,
        *,
        real: bool = False,
    ) -> None:
        self._real, self.overrides = real, overrides
        self._build, self.base, self.fixed = build, dict(base), dict(fixed or {})
        self._shops: dict[tuple[str, Forced], Workshop] = {}
        self._analysed: dict[tuple[str, int], Analysis] = {}
        self._weights_of: dict[int, Mapping[str, WeightSummary]] = {}
        self._targets: dict[str, Comparison] = {}
        self.wide = self.scaled_knobs(2)
        self.name = name or type(self.shop(self.base).built.model).__name__
        self.inputs = inputs or synthesise(self.shop(self.base), self.shop(self.wide))

    # --- models and traces --------------------------------------------------------------------

    def as_set(self) -> Study:
        """The same study without the variants that flip the author's settings."""
        plain = copy(self)
        for name, value in vars(type(self)).items():
            if isinstance(value, cached_property):
                plain.__dict__.pop(name, None)
        plain._analysed, plain._targets = {}, {}
        reached = tuple((v, t) for v, t in self.exploration.reached if not v.forced)
        plain.__dict__["exploration"] = Exploration(reached)
        return plain

    @property
    def flips(self) -> bool:
        """Whether any variant has other settings than the author's."""
        return any(variant.forced for variant in self.exploration.variants)

    def scaled_knobs(self, factor: int) -> dict[str, Any]:
        """All knobs times a factor."""
        return {name: scaled(value, factor) for name, value in self.base.items()}

    def build(self, knobs: Knobs) -> nn.Module:
        """The model at these knobs, as its author builds it."""
        return self._build({**self.fixed, **knobs})

    def drawn(self, knobs: Knobs) -> nn.Module:
        """The model on real tensors, its weights drawn, by a later method if the author has one."""
        model = self.build(knobs)
        late = self.shop(knobs).built.late_init
        if late:
            getattr(model, late)()
        return model

    def _workshop(self, knobs: Knobs, forced: Forced) -> Workshop:
        return Workshop(lambda: self.build(knobs), forced, real=self._real)

    def shop(self, knobs: Knobs, forced: Forced = ()) -> Workshop:
        """The model at these knobs, built without its weights."""
        key = (_key(knobs), forced)
        if key not in self._shops:
            try:
                self._shops[key] = self._workshop(knobs, forced)
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
        """The trace of one of the variants at these knobs; those of the base are kept."""
        variant, at_base = self.exploration.reached[number]
        return at_base if dict(knobs) == self.base else self._trace_of(knobs, variant)

    def _trace_of(self, knobs: Knobs, variant: Variant) -> Trace:
        shop = self.shop(knobs, variant.forced)
        with self._running(variant, knobs):
            return shop.run(variant, self.inputs(shop.built.model))

    @contextlib.contextmanager
    def _running(self, variant: Variant, knobs: Knobs) -> Iterator[None]:
        """Say where the model failed, if it fails in the block."""
        try:
            yield
        except AutomupError:
            raise
        except Exception as error:
            how = f"{variant}, {_said(knobs)}"
            raise CaptureError(
                f"The model failed while it was traced ({how}): {describe(error)}.",
                where=place_of(error),
                fix="Pass other example inputs."
                if dict(knobs) == self.base
                else f"It runs at {_said(self.base)}: what is fixed there must follow the width.",
            ) from error

    @cached_property
    def exploration(self) -> Exploration:
        """The variants that reach all the code that can be reached."""
        shop = self.shop(self.base)
        optional: dict[str, list[Any]] = {}
        for name, tensor in optional_candidates(shop.built.model, self.inputs(shop.built.model)):
            optional.setdefault(name, []).append(tensor)
        with short_lived(), self._running(Variant(), self.base):
            found = explore(
                lambda variant: self.shop(self.base, variant.forced),
                self.inputs,
                {name: tuple(tensors) for name, tensors in optional.items()},
            )
            reached = found.reached
            joint = together(reached, lambda v: self.shop(self.base, v.forced), self.inputs)
            last = joint[-1:] if len(joint) < len(reached) else ()
            if last and self._runs_wider(*last[0]):
                reached = joint[:-1]
            else:
                last = ()
            wider = [(v, t) for v, t in reached if v == Variant() or self._runs_wider(v, t)]
            return Exploration(absorbed((*wider, *last)))

    def _runs_wider(self, variant: Variant, at_base: Trace) -> bool:
        """Whether a guessed way to run the model works at twice the base too.

        The analysis is kept for :meth:`compare`, or left to it where it fails: it says why. A model
        with other settings than the user's is worth a look only where it can be resolved.
        """
        try:
            wider = self._trace_of(self.wide, variant)
        except AutomupError:  # an optional input that fits the base alone is no way to run it
            return False
        ready = None
        with contextlib.suppress(AutomupError):
            ready = self._analyse(self.wide, at_base, wider, {})
            self._analysed[_key(self.wide), id(at_base)] = ready
        return not variant.forced or (ready is not None and not ready.faults and not ready.opaque)

    @cached_property
    def third(self) -> dict[str, Any]:
        """The width that verifies: three times the base, or the next legal multiple."""
        for multiple in (3, 4, 5, 6, 8):
            knobs = self.scaled_knobs(multiple)
            try:
                self.shop(knobs)
            except KnobError as error:
                last = error
            else:
                return knobs
        raise last

    # --- comparisons ----------------------------------------------------------------------------

    def compare(self, knobs: Knobs) -> Comparison:
        """Analyse the base against a model at other knobs, over all variants."""
        return self._compare(knobs, self.fans)

    def _compare(
        self, knobs: Knobs, fans: Mapping[str, Fans], numbers: Sequence[int] | None = None
    ) -> Comparison:
        """The base against a model at other knobs, in all variants or in those of the numbers."""
        with short_lived():
            reached = self.exploration.reached
            reached = reached if numbers is None else tuple(reached[n] for n in numbers)
            return combine(tuple(self._analysis(knobs, v, trace, fans) for v, trace in reached))

    def _analysis(
        self, knobs: Knobs, variant: Variant, at_base: Trace, fans: Mapping[str, Fans]
    ) -> Analysis:
        ready = self._analysed.pop((_key(knobs), id(at_base)), None) if not fans else None
        if ready is not None:
            return ready
        with short_lived():  # the wider trace is not needed any more
            return self._analyse(knobs, at_base, self._trace_of(knobs, variant), fans)

    def _analyse(
        self, knobs: Knobs, at_base: Trace, wider: Trace, fans: Mapping[str, Fans]
    ) -> Analysis:
        at = (_said(self.base), _said(knobs))
        shapes = self._shapes(knobs)
        flow = align(at_base.graph, wider.graph, at=at)
        known = self._weights_of.get(id(at_base))
        found = analyse(flow, shapes, fans, known).alone()
        self._weights_of.setdefault(id(at_base), found.weights)
        return found

    @cached_property
    def fans(self) -> dict[str, Fans]:
        """The fans that the user gave, by parameter.

        Raises:
            UsageError: an override matches no parameter, or does not fit one's shape.
        """
        given = self.overrides.matched([w.names for w in self.shop(self.base).built.weights])
        shapes = [self._shapes(self.wide)] if given else []
        for knobs in self._one_by_one() if given else ():
            with contextlib.suppress(AutomupError):
                shapes.append(self._shapes(knobs))
        return settled(given, shapes, self._sums)

    def _sums(self) -> dict[str, frozenset[tuple[int, ...]]]:
        """The dimensions that each parameter's uses sum over, whatever the user says."""
        seen = self._compare(self.wide, {}).weights
        return {name: summary.sums for name, summary in seen.items()}

    def _one_by_one(self) -> Iterator[Knobs]:
        """The knobs with each of them doubled alone, if there are several."""
        for name, value in self.base.items() if len(self.base) > 1 else ():
            yield {**self.base, name: scaled(value, 2)}

    def with_changes(
        self,
        knobs: Knobs,
        at_base: Callable[[nn.Module], None],
        at_wide: Callable[[nn.Module], None],
    ) -> Comparison:
        """The base against a wider model, where both are changed after they are built."""

        @cache
        def changed(wide: bool, forced: Forced) -> Workshop:
            shop = self._workshop(knobs if wide else self.base, forced)
            (at_wide if wide else at_base)(shop.built.model)
            return shop

        def trace(wide: bool, variant: Variant) -> fx.Graph:
            shop = changed(wide, variant.forced)
            return shop.run(variant, self.inputs(shop.built.model)).graph

        def analysis(variant: Variant, plain: Trace) -> Analysis:
            flow = align(trace(False, variant), trace(True, variant))
            return analyse(flow, shapes, self.fans, self._weights_of.get(id(plain)))

        shapes = self._shapes(knobs)
        with short_lived():
            reached = self.exploration.reached
            return self._undisputed(combine(tuple(analysis(v, t) for v, t in reached)))

    def _shapes(self, knobs: Knobs) -> dict[str, tuple[Size, ...]]:
        base, wide = self.shop(self.base).built.weights, self.shop(knobs).built.weights
        if [w.names for w in base] != [w.names for w in wide]:
            odd = sorted({w.name for w in base} ^ {w.name for w in wide})
            raise CaptureError(
                f"The model has other parameters at another width ({', '.join(odd[:3])}).",
                where=f"{_said(self.base)} against {_said(knobs)}",
                fix=f"{COINCIDENCE} A knob of the depth is no width.",
            )
        return {
            a.name: tuple(zip(a.shape, b.shape, strict=True))
            for a, b in zip(base, wide, strict=True)
        }

    # --- what they say together ----------------------------------------------------------------

    @cached_property
    def _directions(self) -> tuple[tuple[Knobs, Comparison], ...]:
        """The base against twice the base: all knobs together, and each alone where that runs.

        A size may stay fixed when all knobs grow together and grow when one does (the size of a
        head, when the heads grow with the model): every axis must have been seen growing. A knob
        that grows none by itself is a constant of the author's, not a width: no direction.
        """
        joint = self.compare(self.wide)
        found: list[tuple[Knobs, Comparison]] = [(self.wide, joint)]
        telling = self._telling(joint)
        for alone in self._one_by_one():
            with contextlib.suppress(AutomupError):
                comparison = self._compare(alone, self.fans, telling)
                if any(analysis.grows for analysis in comparison.analyses):
                    found.append((alone, comparison))
        return tuple(found)

    def _telling(self, joint: Comparison) -> tuple[int, ...]:
        """The variants that have a place or a weight that none before them has.

        The others are looked at again in the direction of the target itself, by :meth:`at`.
        """
        found: list[int] = []
        seen: set[object] = set()
        for number, analysis in enumerate(joint.analyses):
            used = {name for name, weight in analysis.weights.items() if weight.primary}
            new = used | {c.frames[0].span for c in analysis.corrections if c.frames}
            if not found or not new <= seen:
                found.append(number)
                seen |= new
        return tuple(found)

    @cached_property
    def probes(self) -> tuple[tuple[Knobs, Comparison], ...]:
        """The directions in which the model may grow, without the places that are in dispute."""
        return tuple((knobs, self._undisputed(c)) for knobs, c in self._directions)

    @cached_property
    def _readings(self) -> tuple[Reading, Reading]:
        """Twice the base, and the third width that verifies what it says."""
        joint, third = self._directions[0][1], self.compare(self.third)
        return Reading(_said(self.wide), joint), Reading(_said(self.third), third)

    def _undisputed(self, comparison: Comparison) -> Comparison:
        """The comparison without the multipliers that two widths contradict each other about."""
        places = disputed(*self._readings)
        spots = tuple(spot for spot in comparison.spots if spot.span not in places)
        return replace(comparison, spots=spots)

    @cached_property
    def exponents(self) -> Comparison:
        """What all directions say together; what a third width contradicts is unresolved."""
        joint = self._directions[0][1]
        if not any(w.fan_in_dims or w.fan_out_dims for w in joint.weights.values()):
            raise KnobError(
                f"Nothing in the model grows with {', '.join(self.base)}.",
                fix="Name the arguments that set its sizes: base={'d_model': 256} in code, --width "
                "and --base on the command line.",
            )
        everything = settled_by(union([c for _, c in self.probes]), *self._readings)
        contradicted = disagreements(*self._readings)
        unresolved = (*everything.unresolved, *contradicted, *self._guessed())
        return replace(everything, unresolved=tuple(dict.fromkeys(unresolved)))

    def _guessed(self) -> tuple[Unresolved, ...]:
        """Numbers that the code reads out of activations or weights: their exponents are lost."""
        graves = {
            guess: None
            for _, trace in self.exploration.reached
            for guess in trace.guesses
            if guess.grave
        }
        reason = "the code reads a number out of a tensor that depends on the weights"
        advice = "Compute it from sizes, or keep it a tensor."
        places = (str(guess.frame or "") for guess in graves)
        return tuple(Unresolved(place, "item", reason, advice=advice) for place in places)

    def at(self, target: Knobs) -> Comparison:
        """The base against a target, which must agree with the exponents.

        Raises:
            UnresolvedError: if it does not.
        """
        key = _key(target)
        if key not in self._targets:
            comparison = self._undisputed(self.compare(target))
            known = Reading("smaller widths", self.exponents)
            found = surprises(known, Reading(_said(target), comparison))
            if found:
                raise refusal(found)
            self._targets[key] = comparison
        return self._targets[key]

    @cached_property
    def weights(self) -> tuple[tuple[WeightFact, ...], ...]:
        """The weights at the three widths, their laws checked against real draws."""
        return tuple(
            measured(lambda k=k: self.drawn(k), self.shop(k).built.weights)  # type: ignore[misc]
            for k in (self.base, self.wide, self.third)
        )

    @cached_property
    def fan_in_dims(self) -> dict[str, tuple[int, ...]]:
        """The infinite dimensions that each weight sums over."""
        return {name: w.fan_in_dims for name, w in self.exponents.weights.items()}

    @cached_property
    def laws(self) -> dict[str, tuple[tuple[tuple[int, ...], Law], ...]]:
        """Every parameter's shape and law at the three widths."""
        return {
            triple[0].name: tuple((w.shape, w.law) for w in triple)
            for triple in zip(*self.weights, strict=True)
        }


def _key(knobs: Knobs) -> str:
    return repr(sorted(knobs.items()))


def study_source(
    source: ModelSource,
    base: Knobs,
    fixed: Mapping[str, Any] | None = None,
    inputs: InputMaker | None = None,
    overrides: Overrides = NONE_GIVEN,
) -> Study:
    """A study of a model file: ``base`` are its width knobs, ``fixed`` its other fields."""
    rest = dict(fixed or {})
    return open_study(source.build, base, inputs, source.name, rest, overrides)


def converted_knobs(source: ModelSource) -> dict[str, Any]:
    """The base that a converted file records; nothing for a file of the author's."""
    return dict(getattr(source.module, "MUP_KNOBS", {}))


def original_of(source: ModelSource) -> ModelSource:
    """A converted file with its multipliers set to 1 and its init as drawn; others as they are.

    What muP changes can only be told against the author's model.
    """
    if not converted_knobs(source):
        return source
    text = source.text
    for _, _, size, base, exponent in source.module.MUP_SITES:
        factor = Factor(size, base, exponent)
        for code in (factor.code(), factor.inverse_code()):
            text = text.replace(f" {code}", " 1.0")
    module = load_text(text, source.file)
    module.__dict__["mup_init_"] = lambda model: None
    return ModelSource(getattr(module, source.name), module, source.file, source.name, text)
