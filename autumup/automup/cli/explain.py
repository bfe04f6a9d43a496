"""``automup explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
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
    from automup import report
    from automup.capture.values import parse_assignments
    from automup.constants import Constants
    from automup.forms import check_form
    from automup.optimizers import named
    from automup.plan import Plan

    renderers: dict[str, Any] = {
        "table": report.as_table,
        "json": report.as_json,
        "markdown": report.as_markdown,
        "html": report.as_html,
    }
    if format not in renderers:
        raise UsageError(f"No format {format!r}.", fix=f"Choose one of {', '.join(renderers)}.")
    named(optimizer)
    constants = Constants.of(parse_assignments(constant or []))
    form = form and check_form(form)
    if save is not None:
        check_folder(save)
        if save.exists() and save.suffix != ".json":
            raise UsageError(
                "That file is there and is no plan.", where=str(save), fix="Name a .json file."
            )
    if model.endswith(".json"):
        given = {"base": base, "width": width, "target": target, "input": input}
        for option in (name for name, value in {**given, "override": override}.items() if value):
            raise UsageError(
                f"--{option} is for a model; a saved plan has its base, target and inputs in it.",
                where=model,
                fix="Leave it out, or explain the model.",
            )
        plan = Plan.load(model)
        plan = plan.with_constants(constants) if constants.changed else plan
        plan = plan.with_form(form) if form else plan
    else:
        from automup.converted import (
            check_unchanged,
            converted_constants,
            converted_form,
            original_of,
        )
        from automup.tuning import check_constants

        with running_model():
            source = load(model)
            check_unchanged(source, form or "default", constants)
            constants = converted_constants(source) if not constants.changed else constants
            study = open_model(original_of(source), base, width, input, override)
            check_constants(study, constants)
            plan = _plan(study, target).with_constants(constants)
            plan = plan.with_form(form or converted_form(source))
    if save is not None:
        plan.save(save)
    text = renderers[format](plan, optimizer)
    if text is not None:
        typer.echo(text)
    if plan.unresolved and strict:
        from automup.refusals import refusal

        names = [p.name for p in plan.parameters]
        raise refusal(plan.unresolved, names, command_line=True)


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
