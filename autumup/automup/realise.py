"""How each multiplier gets into a live model: decided once, checked by tracing the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import FunctionType
from typing import Any

from torch import nn

from automup.analysis.comparison import Comparison, Spot
from automup.analysis.placement import edit_for, frame_owner
from automup.analysis.sites import Correction
from automup.apply import (
    AttributeChange,
    Change,
    InputChange,
    MethodChange,
    MultiheadChange,
    multiply,
)
from automup.capture.source import Frame
from automup.errors import RewriteError, UnresolvedError
from automup.plan import Span
from automup.recompile import Place, find_callee, find_method, read_source
from automup.rewrite import Edit, find_unrun, function_at
from automup.study import Knobs, Study

Form = Callable[[Spot, Correction], Iterable[Change]]
"""Makes the changes for one correction of a spot at some target."""


@dataclass(frozen=True)
class Realisation:
    """For every spot of a study the form of its multiplier."""

    forms: Mapping[tuple[Span, float], Form]

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


def _merged(changes: Any) -> Iterator[Change]:
    """All edits of one method together, as they are compiled together."""
    methods: dict[tuple[str, Place], list[Any]] = {}
    for change in changes:
        if isinstance(change, MethodChange):
            methods.setdefault((change.module, change.place), []).extend(change.edits)
        else:
            yield change
    for (module, place), edits in methods.items():
        yield MethodChange(module, place, tuple(dict.fromkeys(edits)))


def realise(study: Study) -> Realisation:
    """Decide every spot's form and check that together they leave nothing to correct.

    Raises:
        RewriteError: if a multiplier has no place in the live model; names it.
    """
    comparison = study.exponents
    realisation = Realisation({s.key: _form(study, s) for s in comparison.spots})
    for knobs, direction in study.probes if realisation.forms else ():
        changes = realisation.changes(direction)
        left = _after(study, knobs, tuple(c for c in changes if not _beyond_calculus(c)))
        scaled = {c.module for c in changes if _beyond_calculus(c)}
        for spot in left.spots:
            if scaled.issuperset(spot.modules):
                continue
            raise RewriteError(
                f"The multiplier of this {spot.first.kind} did not take effect in the live model.",
                where=str(spot.span),
                fix="Keep the scale in a float attribute of the module, or use `automup convert`.",
            )
    return realisation


def _beyond_calculus(change: Change) -> bool:
    """A scaled query and the other projections share one bias tensor: its parts differ in size.

    That these logits move by the factor is a test of :mod:`automup.multihead` itself.
    """
    return isinstance(change, MultiheadChange)


def _after(study: Study, knobs: Knobs, changes: tuple[Change, ...]) -> Comparison:
    """What the calculus says once the changes are made, at the base with factor 1."""
    neutral = tuple(c if isinstance(c, MethodChange) else replace(c, factor=1.0) for c in changes)
    return study.with_changes(knobs, lambda m: multiply(m, neutral), lambda m: multiply(m, changes))


def _form(study: Study, spot: Spot) -> Form:
    model = study.shop(study.base).built.model
    for depth, attribute in _attributes(model, spot):
        form = _attribute_form(depth, attribute)
        if _mends(study, spot, form):
            return form
    if spot.first.outside_library and _place(model, spot.first) is not None:
        return _method_form(study)
    module = model.get_submodule(spot.first.node.meta["fact"].module)
    if spot.first.kind == "attention" and isinstance(module, nn.MultiheadAttention):
        return _multihead_form
    if spot.first.kind == "readout" and _owns(model, spot.first.reader, spot.first.parameter):
        return _input_form
    raise RewriteError(
        f"No place for the multiplier of this {spot.first.kind} in the live model: it is computed "
        f"in {_computed_in(spot)}, which is not a method of one of the model's own modules.",
        where=str(spot.span),
        fix="Write it as a method of a module of your own"
        + ("." if spot.first.node.meta["fact"].library else ", or keep the scale in an attribute."),
    )


def _computed_in(spot: Spot) -> str:
    library = spot.first.node.meta["fact"].library
    if library:
        return f"torch's {library[0]}"
    return spot.frame.function if spot.frame else "code without a source"


def _attributes(model: nn.Module, spot: Spot) -> Iterator[tuple[int, str]]:
    """Float attributes of the modules whose frames computed the value, innermost first."""
    for depth, path in enumerate(spot.first.node.meta["fact"].owners):
        owner = frame_owner(model, path)
        for name, value in vars(owner).items() if owner is not None else ():
            if type(value) is float and value not in (0.0, float("inf")):
                yield depth, name


def _attribute_form(depth: int, attribute: str) -> Form:
    def change(spot: Spot, correction: Correction) -> Sequence[Change]:
        owner = correction.node.meta["fact"].owners[depth]
        return (AttributeChange(owner, attribute, 2.0**correction.log),)

    return change


def _method_form(study: Study) -> Form:
    """Edits with formulas in actual sizes, made from the base and twice the base."""
    comparison = study.exponents
    model = study.shop(study.base).built.model

    def change(spot: Spot, correction: Correction) -> Iterator[Change]:
        """The edit for this correction's module, and its twins in code that no trace ran."""
        twin = next(s for s in comparison.spots if s.key == spot.key)
        path = correction.node.meta["fact"].module
        known = next(
            (c for c in twin.corrections if c.node.meta["fact"].module == path), twin.first
        )
        owners = [frame_owner(model, o) for o in known.node.meta["fact"].owners]
        edit = edit_for(known, 0, owners)
        found = _place(model, known)
        assert found is not None  # that is why this form was chosen
        owner, place = found
        yield MethodChange(owner, place, (edit,))
        frame = known.frames[0]
        lines = frozenset(n for file, n in study.exploration.lines if file == frame.file)
        for function, same in twins_of(edit, lines):
            if function == frame.function:
                yield MethodChange(owner, place, (same,))
            elif find_method(type(model.get_submodule(owner)), function):
                yield MethodChange(owner, Place(function), (same,))

    return change


def _place(model: nn.Module, correction: Correction) -> tuple[str, Place] | None:
    """The module whose method runs the operation, itself or through free functions; or None."""
    callees: list[Frame] = []
    owners = correction.node.meta["fact"].owners
    for frame, path in zip(correction.frames, owners, strict=True):
        owner = frame_owner(model, path)
        method = find_method(type(owner), frame.function) if owner is not None else None
        if method is None:
            callees.insert(0, frame)
            continue
        names: list[str] = []
        caller: FunctionType = method
        for callee in callees:
            name = find_callee(caller, callee.function, callee.file)
            if name is None:
                return None
            names.append(name)
            caller = caller.__globals__[name]
        return path, Place(frame.function, tuple(names))
    return None


@cache
def twins_of(edit: Edit, lines: frozenset[int]) -> tuple[tuple[str, Edit], ...]:
    """The edit's twins in code that no trace ran, each with the function it stands in.

    Raises:
        UnresolvedError: if unexecuted code of the edited function may need a multiplier.
    """
    text = read_source(edit.span.file)
    unrun = find_unrun(text, lines, [edit])
    home = function_at(text, edit.span.line)
    for place in unrun.suspicious:
        if function_at(text, place.line) == home:
            raise UnresolvedError(
                f"No trace ran this code, and it may need a multiplier: {place.text} "
                f"({place.why}).",
                where=f"{edit.span.file}:{place.line}",
                fix="Pass `inputs` that reach it.",
            )
    return tuple((function_at(text, twin.span.line), twin) for twin in unrun.twins)


def _input_form(spot: Spot, correction: Correction) -> Sequence[Change]:
    return (InputChange(correction.reader, 2.0**correction.log),)


def _multihead_form(spot: Spot, correction: Correction) -> Sequence[Change]:
    return (MultiheadChange(correction.node.meta["fact"].module, 2.0**correction.log),)


def _owns(model: nn.Module, path: str, parameter: str) -> bool:
    """Whether the module itself holds the tied weight that its forward reads."""
    module = model.get_submodule(path)
    tied = dict(model.named_parameters(remove_duplicate=False)).get(parameter)
    return any(p is tied for p in module.parameters(recurse=False))


def _mends(study: Study, spot: Spot, form: Form) -> bool:
    """Whether the changes remove this spot's faults and cause no others, in every direction."""
    for knobs, direction in study.probes:
        here = next((s for s in direction.spots if s.key == spot.key), None)
        if here is None:
            continue
        changes = tuple(dict.fromkeys(x for c in here.corrections for x in form(here, c)))
        after = _after(study, knobs, changes)
        wanted = {s.key for s in direction.spots} - {spot.key}
        if {s.key for s in after.spots} != wanted or after.unresolved != direction.unresolved:
            return False
    return True
