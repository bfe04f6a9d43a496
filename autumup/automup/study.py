"""One model under study: what several widths say of it together, each verified by another."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import nn

from automup.analysis.comparison import Comparison, union
from automup.analysis.queries import Rows
from automup.analysis.verification import (
    Reading,
    disagreements,
    disputed,
    settled_by,
    surprises,
)
from automup.capture.inputs import InputMaker
from automup.capture.load import ModelSource
from automup.capture.real import LARGEST
from automup.capture.values import said
from automup.capture.variants import Exploration
from automup.errors import AutomupError, CaptureError, InputError, KnobError
from automup.facts import Unresolved
from automup.models import Knobs, Models, key_of
from automup.overrides import Overrides
from automup.queries import find_queries
from automup.redraws import Redraw, find_redraw
from automup.refusals import refusal
from automup.variations import Variations

NONE_GIVEN = Overrides()


def open_study(
    build: Callable[[Knobs], nn.Module],
    base: Knobs,
    inputs: InputMaker | None = None,
    name: str = "",
    fixed: Knobs | None = None,
    overrides: Overrides = NONE_GIVEN,
) -> Study:
    """A study that has verified its model; see :class:`Models` for the other arguments.

    The model runs on the meta device; one that cannot is run on real tensors, if it is small, and
    so is one that cannot be resolved where values had to be guessed.

    Args:
        name: what to call the model in reports.
        overrides: what the user says of some parameters.

    Raises:
        KnobError, InputError, CaptureError: what the meta device said, if real tensors fail too.
        UnresolvedError: if three widths do not tell one story.
    """

    def opened(real: bool) -> Study:
        models = Models(build, base, inputs, fixed, real=real)
        study = Study(models, name, overrides)
        study.exponents  # noqa: B018
        return study

    try:
        study = opened(real=False)
    except (KnobError, InputError, CaptureError) as error:
        with contextlib.suppress(AutomupError):
            return opened(real=True)
        raise error
    guessed = study.exponents.unresolved and study.exploration.guesses
    if guessed and sum(p.numel() for p in study.models.at_base.parameters()) <= LARGEST:
        with contextlib.suppress(AutomupError):  # a wrong guess may have hidden code
            real = opened(real=True)
            if len(real.exponents.unresolved) < len(study.exponents.unresolved):
                return real
    return study


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


class Study:
    """What the widths of a model say together, found as it is asked for.

    Args:
        models: the model at any width.
        name: what to call it in reports; its class when left out.
        overrides: what the user says of some parameters.
        variations: the ways to run it, if they are known.
    """

    def __init__(
        self,
        models: Models,
        name: str = "",
        overrides: Overrides = NONE_GIVEN,
        variations: Variations | None = None,
    ) -> None:
        self.models, self.overrides = models, overrides
        self.base, self.wide = models.base, models.wide
        self.name = name or type(models.at_base).__name__
        self._variations = variations or Variations(models, overrides)
        self._targets: dict[str, Comparison] = {}

    # --- the ways to run it -------------------------------------------------------------------

    @property
    def exploration(self) -> Exploration:
        """The variants that reach all the code that can be reached, with their traces."""
        return self._variations.exploration

    @property
    def flips(self) -> bool:
        """Whether any variant has other settings than the author's."""
        return self._variations.flips

    def as_set(self) -> Study:
        """The same study without the variants that flip the author's settings."""
        return Study(self.models, self.name, self.overrides, self._variations.as_set())

    # --- directions ---------------------------------------------------------------------------

    @cached_property
    def _directions(self) -> tuple[tuple[Knobs, Comparison], ...]:
        """The base against twice the base: all knobs together, and each alone where that runs.

        A size may stay fixed when all knobs grow together and grow when one does (the size of a
        head, when the heads grow with the model): every axis must have been seen growing. A knob
        that grows none by itself is a constant of the author's, not a width: no direction.
        """
        joint = self._variations.compare(self.wide)
        found: list[tuple[Knobs, Comparison]] = [(self.wide, joint)]
        telling = _telling(joint)
        for alone in self.models.one_by_one():
            with contextlib.suppress(AutomupError):
                comparison = self._variations.compare(alone, telling)
                if any(analysis.grows for analysis in comparison.analyses):
                    found.append((alone, comparison))
        return tuple(found)

    @cached_property
    def probes(self) -> tuple[tuple[Knobs, Comparison], ...]:
        """The directions in which the model may grow, without the places that are in dispute."""
        return tuple((knobs, self._undisputed(c)) for knobs, c in self._directions)

    def with_changes(
        self,
        knobs: Knobs,
        at_base: Callable[[nn.Module], None],
        at_wide: Callable[[nn.Module], None],
    ) -> Comparison:
        """The base against a wider model, where both are changed after they are built."""
        return self._undisputed(self._variations.with_changes(knobs, at_base, at_wide))

    @cached_property
    def queries(self) -> dict[str, Rows]:
        """What writes the queries of attention; errors as :func:`automup.queries.find_queries`."""
        return find_queries(self)

    @cached_property
    def redraw(self) -> Redraw | None:
        """The method that draws the weights anew, if the model's class has one."""
        return find_redraw(self.models)

    # --- the verdict --------------------------------------------------------------------------

    @cached_property
    def _readings(self) -> tuple[Reading, Reading]:
        """Twice the base, and the third width that verifies what it says."""
        joint, third = self._directions[0][1], self._variations.compare(self.models.third)
        return Reading(said(self.wide), joint), Reading(said(self.models.third), third)

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
        unresolved = (*everything.unresolved, *contradicted, *_guessed(self.exploration))
        return replace(everything, unresolved=tuple(dict.fromkeys(unresolved)))

    @cached_property
    def fan_in_dims(self) -> dict[str, tuple[int, ...]]:
        """The infinite dimensions that each weight sums over."""
        return {name: w.fan_in_dims for name, w in self.exponents.weights.items()}

    @cached_property
    def _seen(self) -> dict[str, Comparison]:
        """What was compared with the base in all variants already."""
        joint, third = self._readings
        return {key_of(self.wide): joint.comparison, key_of(self.models.third): third.comparison}

    def at(self, target: Knobs) -> Comparison:
        """The base against a target, which must agree with the exponents.

        Raises:
            UnresolvedError: if it does not.
        """
        key = key_of(target)
        if key not in self._targets:
            comparison = self._undisputed(self._seen.get(key) or self._variations.compare(target))
            known = Reading("smaller widths", self.exponents)
            found = surprises(known, Reading(said(target), comparison))
            if found:
                raise refusal(found)
            self._targets[key] = comparison
        return self._targets[key]


def _telling(joint: Comparison) -> tuple[int, ...]:
    """The variants that have a place or a weight that none before them has.

    The others are looked at again in the direction of the target itself, by :meth:`Study.at`.
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


def _guessed(exploration: Exploration) -> tuple[Unresolved, ...]:
    """Numbers that the code reads out of activations or weights: their exponents are lost."""
    graves = {guess: None for guess in exploration.guesses if guess.grave}
    reason = "the code reads a number out of a tensor that depends on the weights"
    advice = "Compute it from sizes, or keep it a tensor."
    places = (str(guess.frame or "") for guess in graves)
    return tuple(Unresolved(place, "item", reason, advice=advice) for place in places)
