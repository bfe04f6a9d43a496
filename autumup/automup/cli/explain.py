"""``automup explain``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automup.cli.models import check_folder, load, open_model, running_model
from automup.cli.options import (
    Base,
    Constant,
    Form,
    Input,
    Optimizer,
    Override,
    Strict,
    Target,
    Width,
)
from automup.errors import UsageError
from automup.progress import telling

if TYPE_CHECKING:
    from automup.capture.load import ModelSource
    from automup.constants import Constants
    from automup.plan import Plan
    from automup.study import Study


def explain(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model as for convert, or a saved plan.json.")
    ],
    base: Base = None,
    width: Width = "",
    target: Target = None,
    input: Input = None,
    override: Override = None,
    constant: Constant = None,
    form: Form = "",
    optimizer: Optimizer = "adamw",
    format: Annotated[str, typer.Option("--format", help="table, json, markdown, html.")] = "table",
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Also write the plan as JSON.")
    ] = None,
    strict: Strict = True,
) -> None:
    """Show what μP does to every parameter. Importing MODEL runs its code."""
    from automup.capture.values import parse_assignments
    from automup.constants import Constants
    from automup.forms import check_form
    from automup.optimizers import named

    render = _renderer(format)
    named(optimizer)
    changes = _Changes(Constants.of(parse_assignments(constant or [])), form and check_form(form))
    if save is not None:
        _check_save(save)
    given = {
        "base": base, "width": width, "target": target, "input": input, "override": override
    }  # fmt: skip
    if model.endswith(".json"):
        plan = _saved(model, given, changes)
    else:
        with telling(f"reading {model}") as say, running_model():
            source, study = _opened(model, base, width, input, override)
            say(f"tracing {study.name}")
            plan = _planned(source, study, target, changes)
    if save is not None:
        plan.save(save)
    text = render(plan, optimizer)
    if text is not None:
        typer.echo(text)
    if plan.unresolved and strict:
        from automup.refusals import refusal

        names = [p.name for p in plan.parameters]
        raise refusal(plan.unresolved, names, command_line=True)


@dataclass(frozen=True)
class _Changes:
    """What the user asks for in place of what the plan has: constants that are not 1, a form."""

    constants: Constants
    form: str


def _renderer(format: str) -> Callable[[Plan, str], str | None]:
    from automup import report

    renderers: dict[str, Callable[[Plan, str], str | None]] = {
        "table": report.as_table,
        "json": report.as_json,
        "markdown": report.as_markdown,
        "html": report.as_html,
    }
    if format not in renderers:
        raise UsageError(f"No format {format!r}.", fix=f"Choose one of {', '.join(renderers)}.")
    return renderers[format]


def _check_save(save: Path) -> None:
    check_folder(save)
    if save.exists() and save.suffix != ".json":
        raise UsageError(
            "That file is there and is no plan.", where=str(save), fix="Name a .json file."
        )


def _saved(file: str, given: Mapping[str, object], changes: _Changes) -> Plan:
    """The plan of a file, which is of one model at one target, whatever the options say."""
    from automup.plan import Plan

    for option in (name for name, value in given.items() if value):
        raise UsageError(
            f"--{option} is for a model; a saved plan has its base, target and inputs in it.",
            where=file,
            fix="Leave it out, or explain the model.",
        )
    plan = Plan.load(file)
    plan = plan.with_constants(changes.constants) if changes.constants.changed else plan
    return plan.with_form(changes.form) if changes.form else plan


def _opened(
    model: str,
    base: list[str] | None,
    width: str,
    inputs: list[str] | None,
    override: list[str] | None,
) -> tuple[ModelSource, Study]:
    """The file, and the study of its model, or of the one that it was converted from."""
    from automup.converted import original_of  # with torch, which a saved plan does without

    source = load(model)
    return source, open_model(original_of(source), base, width, inputs, override)


def _planned(
    source: ModelSource, study: Study, target: list[str] | None, changes: _Changes
) -> Plan:
    """The plan of a model; one that automup wrote keeps the constants and the form it has."""
    from automup.converted import check_unchanged, converted_constants, converted_form
    from automup.queries import tuned
    from automup.tuning import check_constants

    form, constants = changes.form, changes.constants
    check_unchanged(source, form or "default", constants)
    constants = constants if constants.changed else converted_constants(source)
    check_constants(study, constants)
    plan = tuned(study, _plan(study, target), constants)
    return plan.with_form(form or converted_form(source))


def _plan(study: Study, target: list[str] | None) -> Plan:
    from automup.capture.values import parse_assignments
    from automup.capture.widths import check_widths
    from automup.planning import make_plan

    given = parse_assignments(target or [])
    unknown = sorted(set(given) - set(study.base))
    if unknown:
        raise UsageError(
            f"{unknown[0]} is not a width knob; the knobs are {', '.join(study.base)}.",
            fix="Name the knobs that scale with --width.",
        )
    check_widths(given)
    return make_plan(study, {**study.models.scaled_knobs(4), **given})
