"""The form of a multiplier that is an edit of the source: where the edited function is reached."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice

from torch import nn

from automup.analysis.comparison import Spot
from automup.analysis.placement import edit_for, frame_owner, span_text
from automup.analysis.sites import Correction
from automup.apply import MethodChange
from automup.errors import RewriteError, UnresolvedError
from automup.plan import Span
from automup.reach import Path, find_member, find_paths
from automup.recompile import read_source
from automup.rewrite import Edit, Unrun, find_unrun, function_at
from automup.study import Study

WAYS = 4  # to one function, of which the check after the change finds the right one

Edits = Callable[[Spot, Correction], Iterable[MethodChange]]


def edited_forms(
    study: Study, spot: Spot, *, argument: bool = False
) -> Iterator[tuple[Edits, bool]]:
    """Edits of a spot's function, by each way to it; whether that leads through a registry.

    Args:
        study: the model.
        spot: what needs a multiplier.
        argument: multiply the first argument of the call there, for a function whose code cannot
            be edited, or does not show what it computes.
    """
    model = study.shop(study.base).built.model
    if argument and not _is_call(spot.span):
        return
    for number, (_, path) in enumerate(_ways(model, spot.first)):
        by_registry = any(step.kind == "item" for step in path)
        yield _edited_form(study, number, argument=argument), by_registry


def _edited_form(study: Study, number: int, *, argument: bool) -> Edits:
    """Edits with formulas in actual sizes, made from the base and twice the base."""
    spots = {spot.key: spot for spot in study.exponents.spots}
    model = study.shop(study.base).built.model

    @cache
    def edit_of(known: Correction) -> tuple[MethodChange, ...]:
        owners = [frame_owner(model, o) for o in known.node.meta["fact"].owners]
        edit = edit_for(known, 0, owners)
        if argument:
            edit = replace(edit, constant=False, module_call=True)
        ways = _ways(model, known)
        if number >= len(ways):
            raise RewriteError(
                f"One of its modules, {known.node.meta['fact'].module}, reaches this code in "
                "another way than the rest.",
                where=str(known.frames[0]),
                fix="Keep the scale in a float attribute of the module.",
            )
        owner, path = ways[number]
        lines = frozenset(n for file, n in study.exploration.lines if file == edit.span.file)
        twins = _changes_of_twins(model, owner, path, edit, known.frames[0].function, lines)
        return (MethodChange(owner, path, (edit,)), *twins)

    def change(spot: Spot, correction: Correction) -> Iterable[MethodChange]:
        twin = spots[spot.key]
        module = correction.node.meta["fact"].module
        same = (c for c in twin.corrections if c.node.meta["fact"].module == module)
        return edit_of(next(same, twin.first))

    return change


def _is_call(span: Span) -> bool:
    try:
        return isinstance(ast.parse(f"({span_text(span)})", mode="eval").body, ast.Call)
    except SyntaxError:  # a chain of methods over several lines
        return False


def _changes_of_twins(
    model: nn.Module, owner: str, path: Path, edit: Edit, function: str, lines: frozenset[int]
) -> Iterator[MethodChange]:
    """The same edit where no trace ran: in the same function, or in another of the owner's."""
    for name, twin in twins_of(edit, lines):
        if name == function:
            yield MethodChange(owner, path, (twin,))
            continue
        member = find_member(model.get_submodule(owner), edit.span.file, name)
        if member is not None:
            yield MethodChange(owner, member, (twin,))


@cache
def _ways(model: nn.Module, correction: Correction) -> tuple[tuple[str, Path], ...]:
    """The modules and ways from them to the function that runs an operation.

    The innermost module that is a function's ``self`` first; else the one that is being run.
    """
    fact = correction.node.meta["fact"]
    found: dict[tuple[str, Path], None] = {}
    for depth, path in enumerate(fact.owners):
        owner = frame_owner(model, path)
        if owner is not None:
            ways = islice(find_paths(owner, correction.frames[: depth + 1]), WAYS)
            found.update(dict.fromkeys((path, way) for way in ways))
    if not found:
        for depth in range(len(correction.frames)):
            owner = model.get_submodule(fact.module)
            ways = islice(find_paths(owner, correction.frames[: depth + 1]), WAYS)
            found.update(dict.fromkeys((fact.module, way) for way in ways))
    return tuple(found)[:WAYS]


@cache
def twins_of(edit: Edit, lines: frozenset[int]) -> tuple[tuple[str, Edit], ...]:
    """The edit's twins in code that no trace ran, each with the function it stands in.

    Raises:
        UnresolvedError: if unexecuted code of the edited function may need a multiplier.
    """
    text = read_source(edit.span.file)
    unrun = find_unrun(text, lines, [edit])
    _refuse_suspicious(unrun, text, edit.span)
    return tuple((function_at(text, twin.span.line), twin) for twin in unrun.twins)


def refuse_unrun(study: Study, span: Span) -> None:
    """Refuse a multiplier outside of a function of which some code may need another one.

    Raises:
        UnresolvedError: if there is such code around the span, that no trace ran.
    """
    text = read_source(span.file)
    if text:
        lines = frozenset(n for file, n in study.exploration.lines if file == span.file)
        _refuse_suspicious(find_unrun(text, lines, ()), text, span)


def _refuse_suspicious(unrun: Unrun, text: str, span: Span) -> None:
    home = function_at(text, span.line)
    for place in unrun.suspicious:
        if function_at(text, place.line) == home:
            raise UnresolvedError(
                f"No trace ran this code, and it may need a multiplier: {place.text} "
                f"({place.why}).",
                where=f"{span.file}:{place.line}",
                fix="Pass `inputs` that reach it.",
            )
