"""How each multiplier gets into a live model: decided once, checked by tracing the result.

A form of change is a guess; what makes it right is the check. The model with its changes is traced
again, at the base, where it must compute with the author's own numbers, and at the wider end, where
the calculus must find nothing left to correct: then each factor is what was asked for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from automup.analysis.comparison import Comparison, Spot
from automup.analysis.sites import Correction
from automup.apply import Change, MethodChange, multiply
from automup.capture.graph import Node
from automup.capture.raised import describe
from automup.constants import Constants
from automup.errors import RewriteError, UnresolvedError
from automup.facts import Span
from automup.live_forms import Form, forms_for, no_place
from automup.models import Knobs
from automup.reach import Path
from automup.study import Study


@dataclass(frozen=True)
class Realisation:
    """For every spot of a study the form of its multiplier."""

    study: Study
    forms: Mapping[tuple[Span, float], Form]

    @cached_property
    def _checked(self) -> dict[str, tuple[Change, ...]]:
        return {}

    def tuned(self, target: Knobs, constants: Constants) -> tuple[Change, ...]:
        """What to change in a model at a target, the base included, with these constants.

        A place that this target needs no multiplier for gets the constant alone. Errors as
        :meth:`at`.
        """
        comparison = None if dict(target) == self.study.base else self.study.at(target)
        if comparison is not None:
            self.at(target)
        found: dict[Change, None] = {}
        seen: set[tuple[Span, str]] = set()
        here = comparison.spots if comparison else ()
        for spots, grown in ((here, True), (self.study.exponents.spots, False)):
            places = {(s.span, c.node.fact.module) for s in spots for c in s.corrections}
            for spot in spots:
                for correction in spot.corrections:
                    if (spot.span, correction.node.fact.module) not in seen:
                        changes = self.forms[spot.key](spot, correction)
                        constant = self._constant(correction, constants)
                        found.update({_times(c, constant, grown=grown): None for c in changes})
            seen |= places
        return tuple(_merged(found))

    def _constant(self, correction: Correction, constants: Constants) -> float:
        weight = self.study.exponents.weights.get(correction.parameter)
        return constants.of_site(correction.kind, correction.end, weight.layer if weight else "")

    def at(self, target: Knobs) -> tuple[Change, ...]:
        """What to change in a model at a target, where formulas are checked once more.

        Sizes that are the same at the widths that chose a formula may differ at this one.

        Raises:
            UnresolvedError: if the target needs a multiplier where twice the base needs none.
            RewriteError: if a formula gives another multiplier there than the target needs.
        """
        key = repr(sorted(target.items()))
        if key not in self._checked:
            comparison = self.study.at(target)
            changes = self.changes(comparison)
            if any(isinstance(change, MethodChange) for change in changes):
                problem = _problem_at(self.study, target, comparison, changes)
                if problem is not None:
                    raise problem
            self._checked[key] = changes
        return self._checked[key]

    def changes(self, comparison: Comparison) -> tuple[Change, ...]:
        """What to change in a model at the comparison's wider end.

        Raises:
            UnresolvedError: if the target needs a multiplier where twice the base needs none.
        """
        found: dict[Change, None] = {}
        for spot in comparison.spots:
            form = self.forms.get(spot.key)
            if form is None:
                raise UnresolvedError(
                    "This target needs a multiplier where twice the base needs none.",
                    where=str(spot.span),
                    fix="Scale the same knobs as at the target when choosing the base.",
                )
            for correction in spot.corrections:
                found.update(dict.fromkeys(form(spot, correction)))
        return tuple(_merged(found))


def _times(change: Change, constant: float, *, grown: bool) -> Change:
    """A change with a constant in its factor; ``grown``: beside the factor that it has."""
    if not isinstance(change, MethodChange):
        return replace(change, factor=(change.factor if grown else 1.0) * constant)
    edits = (replace(e, factor=replace(e.factor, constant=constant)) for e in change.edits)
    return replace(change, edits=tuple(edits))


def _merged(changes: Iterable[Change]) -> Iterator[Change]:
    """All edits of one function together, as they are compiled together."""
    merged: dict[tuple[str, Path], MethodChange] = {}
    for change in changes:
        if not isinstance(change, MethodChange):
            yield change
            continue
        known = merged.setdefault((change.module, change.path), change)
        merged[change.module, change.path] = replace(
            known,
            edits=tuple(dict.fromkeys((*known.edits, *change.edits))),
            guards=tuple(dict.fromkeys((*known.guards, *change.guards))),
        )
    yield from merged.values()


def realise(study: Study) -> Realisation:
    """Decide every spot's form and check that together they leave nothing to correct.

    What is most likely is tried at once for all spots; if that does not hold, each by itself.

    Raises:
        RewriteError: if a multiplier has no place in the live model; names it.
    """
    choice = _Choice(study)
    realisation = Realisation(study, choice.forms(careful=False))
    if _problem(study, realisation) is not None:
        realisation = Realisation(study, choice.forms(careful=True))
        if problem := _problem(study, realisation):
            raise problem
    _say_what_is_guarded(realisation.changes(study.probes[0][1]))
    return realisation


def _say_what_is_guarded(changes: Iterable[Change]) -> None:
    every = dict.fromkeys(g for c in changes if isinstance(c, MethodChange) for g in c.guards)
    if every:
        places = "; ".join(f"{guard.what} at {guard.where}" for guard in every)
        warnings.warn(
            "No trace ran this code, and it may need a multiplier; a model in muP fails if it gets "
            f"there: {places}. Pass `inputs` that reach it.",
            stacklevel=6,
        )


Key = tuple[Span, float]


class _Choice:
    """For every spot the first form that mends it; remembers what was tried."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._tried: dict[tuple[Key, int], frozenset[Key] | RewriteError] = {}

    def forms(self, *, careful: bool) -> dict[Key, Form]:
        """Every spot's form.

        Args:
            careful: try each by itself, instead of going on with what looks right.

        Raises:
            RewriteError: if there is none for a spot.
            UnresolvedError: if there is, but code that no trace ran may need another multiplier.
        """
        chosen: dict[Key, Form] = {}
        for spot in self._study.exponents.spots:
            if spot.key not in chosen:
                form, mended = self._form(spot, careful=careful)
                # One change may mend several spots, as a scale that two branches share.
                chosen |= dict.fromkeys(mended - chosen.keys(), _nothing)
                chosen[spot.key] = form
        return chosen

    def _form(self, spot: Spot, *, careful: bool) -> tuple[Form, frozenset[Key]]:
        refusal: RewriteError | None = None
        for number, (form, sure) in enumerate(forms_for(self._study, spot)):
            if sure and not careful:
                mended = self._at_first_sight(spot, form)
            else:
                mended = self._mended(spot, form, number)
            if isinstance(mended, RewriteError):
                refusal = refusal or (mended if sure else None)
            elif mended:
                return form, mended
        raise refusal or no_place(spot)

    def _at_first_sight(self, spot: Spot, form: Form) -> frozenset[Key] | RewriteError:
        try:
            for correction in spot.corrections:
                list(form(spot, correction))
        except RewriteError as error:
            return error
        return frozenset({spot.key})

    def _mended(self, spot: Spot, form: Form, number: int) -> frozenset[Key] | RewriteError:
        if (spot.key, number) not in self._tried:
            try:
                result: frozenset[Key] | RewriteError = mended_by(self._study, spot, form)
            except RewriteError as error:
                result = error
            self._tried[spot.key, number] = result
        return self._tried[spot.key, number]


def _nothing(spot: Spot, correction: Correction) -> Sequence[Change]:
    return ()


def _problem(study: Study, realisation: Realisation) -> RewriteError | None:
    """What is wrong with a model that is changed so, if anything is."""
    for knobs, direction in study.probes if realisation.forms else ():
        problem = _problem_at(study, knobs, direction, realisation.changes(direction))
        if problem is not None:
            return problem
    return None


def _problem_at(
    study: Study, knobs: Knobs, direction: Comparison, changes: tuple[Change, ...]
) -> RewriteError | None:
    try:
        left = _after(study, knobs, changes)
    except RewriteError as error:
        return error
    if not left.spots and _same_at_base(study, left):
        return None
    spot = (left.spots or direction.spots)[0]
    return RewriteError(
        f"The multiplier of this {spot.first.kind} did not take effect in the live model.",
        where=str(spot.span),
        fix="Keep the scale in a float attribute of the module, or use `automup convert`.",
    )


def _after(study: Study, knobs: Knobs, changes: tuple[Change, ...]) -> Comparison:
    """What the calculus says once the changes are made, at the base with factor 1.

    Raises:
        RewriteError: if the changed model does not run.
    """
    neutral = tuple(c if isinstance(c, MethodChange) else replace(c, factor=1.0) for c in changes)
    try:
        return study.with_changes(
            knobs, lambda m: multiply(m, neutral), lambda m: multiply(m, changes)
        )
    except RewriteError:
        raise
    except Exception as error:  # the changed code may fail in any way
        raise RewriteError(
            f"With its multipliers the model does not run: {describe(error)}.",
            fix="Keep the scales in float attributes of the modules.",
        ) from error


def _same_at_base(study: Study, after: Comparison) -> bool:
    """Whether the base computes with the author's own numbers still, and ones, after the changes.

    A formula in the wrong size is 1 at no width, which the calculus, that compares widths, cannot
    see.
    """
    for (_, trace), analysis in zip(study.exploration.reached, after.analyses, strict=True):
        before = _numbers(trace.nodes)
        if not _numbers(analysis.dataflow.ops) <= before | {1.0}:
            return False
    return True


_aten = torch.ops.aten
_SCALES = {_aten.mul.Tensor, _aten.div.Tensor, _aten.mul_.Tensor, _aten.div_.Tensor}


def _numbers(nodes: Iterable[Node]) -> set[float]:
    """The single constants that a graph computes with; tables may hold what numpy drew."""
    args = {x for n in nodes for x in (*n.args, *n.kwargs.values()) if type(x) is float}
    args |= {float(x) for n in nodes if n.target in _SCALES for x in n.args if type(x) is int}
    facts = [n.fact for n in nodes]
    return args | {f.value for f in facts if f.value and all(size == 1 for size in f.shape)}


def mended_by(study: Study, spot: Spot, form: Form) -> frozenset[tuple[Span, float]]:
    """The spots that a form mends, in every direction; none if it causes others."""
    mended: set[tuple[Span, float]] = set()
    for knobs, direction in study.probes:
        here = next((s for s in direction.spots if s.key == spot.key), None)
        if here is None:
            continue
        changes = tuple(_merged(dict.fromkeys(x for c in here.corrections for x in form(here, c))))
        after = _after(study, knobs, changes)
        before = {s.key for s in direction.spots}
        left = {s.key for s in after.spots}
        edited = any(isinstance(c, MethodChange) for c in changes)  # which moves what is behind it
        moved = {_line(key) for key in left} <= {_line(key) for key in before}
        if not (moved if edited else left <= before) or not _same_at_base(study, after):
            return frozenset()
        if (len(left) >= len(before)) if edited else (spot.key in left):
            return frozenset()
        if len(after.unresolved) != len(direction.unresolved):
            return frozenset()
        mended |= {spot.key} if edited else before - left
    return frozenset(mended)


def _line(key: tuple[Span, float]) -> tuple[str, int, float]:
    return key[0].file, key[0].line, key[1]
