"""The form of a multiplier that is an edit of the source: where the edited function is reached."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, lru_cache, partial
from itertools import islice
from typing import Any

from torch import nn

from automup.analysis.comparison import Spot
from automup.analysis.placement import edit_for, frame_owner
from automup.analysis.sites import Correction
from automup.apply import MethodChange
from automup.capture.source import Frame
from automup.compiling import Guard, refuse
from automup.edits import Edit
from automup.errors import RewriteError
from automup.facts import Span
from automup.reach import Path, find_member, find_paths, name_of_called
from automup.recompile import read_source
from automup.rewrite import Unrun, find_unrun, function_at
from automup.study import Study

WAYS = 4  # to one function, of which the check after the change finds the right one
ARGUMENTS = 8  # of a call, that are tried

Edits = Callable[[Spot, Correction], Iterable[MethodChange]]


def edited_forms(study: Study, spot: Spot) -> Iterator[tuple[Edits, bool]]:
    """Edits of a spot's function, by each way to it; whether that leads through a registry."""
    model = study.models.at_base
    for number, (_, path) in enumerate(_ways(model, spot.first, 0)):
        form = _for_each_module(study, partial(_edited_in, study, number))
        yield form, any(step.kind == "item" for step in path)


def call_forms(study: Study, spot: Spot, file: str = "") -> Iterator[Edits]:
    """Edits of a call on the way to a spot, the innermost call first: of an argument or the result.

    For functions whose code cannot be edited, or does not show what it computes, as a library's,
    or one out of a registry: a scale or a query that is passed to them, or what they return.
    ``file``: where the calls must be, if that matters.
    """
    model = study.models.at_base
    fact = spot.first.node.fact
    for depth, frame in enumerate(spot.first.frames):
        ways = [path for _, path in _ways(model, spot.first, depth)]
        sure = (i for i, path in enumerate(ways) if all(step.kind != "item" for step in path))
        way = next(sure, None)
        if way is None or file not in ("", frame.file):
            continue
        numbers: list[int | None] = [*range(min(ARGUMENTS, len(_arguments_of(frame))))]
        attention = spot.first.kind == "attention"
        if (depth or fact.library) and (not attention or spot.first.degree == 1.0):
            numbers.insert(len(numbers) if attention else 0, None)
        for number in numbers:
            yield _for_each_module(study, partial(_edited_call, study, depth, way, number))


def _for_each_module(
    study: Study, edit_of: Callable[[Correction], tuple[MethodChange, ...]]
) -> Edits:
    """Edits with formulas in actual sizes, made from the base and twice the base."""
    spots = {spot.key: spot for spot in study.exponents.spots}
    made: dict[Correction, tuple[MethodChange, ...]] = {}

    def change(spot: Spot, correction: Correction) -> Iterable[MethodChange]:
        twin = spots[spot.key]
        module = correction.node.fact.module
        same = (c for c in twin.corrections if c.node.fact.module == module)
        known = next(same, twin.first)
        if known not in made:
            made[known] = edit_of(known)
        return made[known]

    return change


def _edited_in(study: Study, number: int, known: Correction) -> tuple[MethodChange, ...]:
    model = study.models.at_base
    owners = [frame_owner(model, o) for o in known.node.fact.owners]
    edit = edit_for(known, 0, owners)
    owner, path = _way(model, known, 0, number)
    lines = frozenset(n for file, n in study.exploration.lines if file == edit.span.file)
    twins, guards = twins_of(edit, lines)
    moved = _changes_of_twins(model, owner, path, edit, known.frames[0].function, twins)
    return (MethodChange(owner, path, (edit,), guards, edit.span.file), *moved)


def _edited_call(
    study: Study, depth: int, way: int, number: int | None, known: Correction
) -> tuple[MethodChange, ...]:
    """An edit of a call's argument, or of its result without a number."""
    model = study.models.at_base
    owners = [frame_owner(model, o) for o in known.node.fact.owners]
    edit = replace(edit_for(known, depth, owners), constant=False)
    frame = known.frames[depth]
    if number is None:
        factor = replace(edit.factor, exponent=edit.factor.exponent * known.degree)
        edit = replace(edit, factor=factor)
    else:
        edit = replace(edit, span=_arguments_of(frame)[number])
    span = edit.span
    owner, path = _way(model, known, depth, way)
    return (MethodChange(owner, path, (edit,), guards_around(study, span), span.file),)


def way_to(study: Study, known: Correction, function: Callable[..., Any]) -> tuple[str, Path]:
    """A module, and how it leads to a function that a correction's innermost frame calls by name.

    Raises:
        RewriteError: if it does not.
    """
    for owner, path in _ways(study.models.at_base, known, 0):
        step = name_of_called(study.models.at_base.get_submodule(owner), path, function)
        if step is not None:
            return owner, (*path, step)
    raise RewriteError(
        f"No way was found to this call of torch's {function.__name__}.",
        where=str(known.frames[0]),
        fix="Call it by its name in a method of the module.",
    )


def guard_only(study: Study, known: Correction) -> tuple[MethodChange, ...]:
    """For a multiplier outside of a function: what of it no trace ran must not run.

    Raises:
        UnresolvedError: if there is such code, but no way to the function.
    """
    if not known.frames:
        return ()
    span = known.frames[0].span
    guards = guards_around(study, span)
    ways = _ways(study.models.at_base, known, 0)
    if guards and not ways:
        refuse(guards[0].what, guards[0].where)
    return (MethodChange(*ways[0], (), guards, span.file),) if guards else ()


def _arguments_of(frame: Frame) -> list[Span]:
    """Where the arguments are of the call that a frame is evaluating: named ones first."""
    end = (frame.end_line, frame.end_byte_column)
    try:
        tree = ast.parse(read_source(frame.file).removeprefix("\ufeff"))
    except SyntaxError:
        return []
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    at = [n for n in calls if (n.end_lineno, n.end_col_offset) == end]
    named = [k.value for n in at[:1] for k in n.keywords if k.arg]
    placed = [a for n in at[:1] for a in n.args if not isinstance(a, ast.Starred)]
    return [
        replace(
            frame,
            line=node.lineno,
            byte_column=node.col_offset,
            end_line=node.end_lineno or node.lineno,
            end_byte_column=node.end_col_offset or 0,
        ).span
        for node in (*named, *placed)
        if not isinstance(node, ast.Constant)
    ]


def _changes_of_twins(
    model: nn.Module, owner: str, path: Path, edit: Edit, function: str, twins: Twins
) -> Iterator[MethodChange]:
    """The same edit where no trace ran: in the same function, or in another of the owner's."""
    for name, twin in twins:
        member: Path | None = path
        if name != function:
            member = find_member(model.get_submodule(owner), edit.span.file, name)
        if member is not None:
            yield MethodChange(owner, member, (twin,), file=edit.span.file)


def _way(model: nn.Module, known: Correction, depth: int, number: int) -> tuple[str, Path]:
    ways = _ways(model, known, depth)
    if number < len(ways):
        return ways[number]
    raise RewriteError(
        f"One of its modules, {known.node.fact.module}, reaches this code in another way "
        "than the rest.",
        where=str(known.frames[depth]),
        fix="Keep the scale in a float attribute of the module.",
    )


def _ways(model: nn.Module, correction: Correction, depth: int) -> tuple[tuple[str, Path], ...]:
    """The modules and ways from them to the function that one of an operation's frames runs.

    The innermost module that is a function's ``self`` first; else the one that is being run.
    """
    fact = correction.node.fact
    paths = [*fact.owners[depth:]]
    if not any(frame_owner(model, path) for path in paths):
        paths = [fact.module for _ in paths]
    found: dict[tuple[str, Path], None] = {}
    for end, path in enumerate(paths, depth + 1):
        owner = frame_owner(model, path)
        if owner is not None:
            ways = islice(find_paths(owner, correction.frames[depth:end]), WAYS)
            found.update(dict.fromkeys((path, way) for way in ways))
    return tuple(found)[:WAYS]


Twins = tuple[tuple[str, Edit], ...]
"""Edits, each with the function that it stands in."""


@cache
def twins_of(edit: Edit, lines: frozenset[int]) -> tuple[Twins, tuple[Guard, ...]]:
    """The edit's twins in code that no trace ran, and what else in its function needs guards."""
    text = read_source(edit.span.file)
    unrun = find_unrun(text, lines, [edit])
    twins = tuple((function_at(text, twin.span.line), twin) for twin in unrun.twins)
    return twins, _guards(unrun, text, edit.span)


def guards_around(study: Study, span: Span) -> tuple[Guard, ...]:
    """Guards for all code of the function around a span that may need a multiplier."""
    text = read_source(span.file)
    lines = frozenset(n for file, n in study.exploration.lines if file == span.file)
    return _guards(_unrun(text, lines), text, span) if text else ()


@lru_cache(maxsize=64)
def _unrun(text: str, lines: frozenset[int]) -> Unrun:
    return find_unrun(text, lines, ())


def _guards(unrun: Unrun, text: str, span: Span) -> tuple[Guard, ...]:
    home = function_at(text, span.line)
    return tuple(
        Guard(place.line, f"{place.text} ({place.why})", f"{span.file}:{place.line}")
        for place in unrun.suspicious
        if function_at(text, place.line) == home
    )
