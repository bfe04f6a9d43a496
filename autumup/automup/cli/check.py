"""``automup check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automup.cli.models import check_folder, load, open_model, running_model
from automup.cli.options import Base, Input, Model, Optimizer, Override, Strict, Width
from automup.errors import UsageError
from automup.progress import counting, telling

if TYPE_CHECKING:
    from automup.check.result import Check
    from automup.check.run import Case
    from automup.data import Data

FORMATS = ("table", "json")


def check(
    model: Model,
    base: Base = None,
    width: Width = "",
    input: Input = None,
    override: Override = None,
    optimizer: Optimizer = "adamw",
    lr: Annotated[
        float | None, typer.Option("--lr", help="Default: 2e-3, or 0.05 for sgd.")
    ] = None,
    widths: Annotated[
        str, typer.Option("--widths", metavar="LIST", help="Multiples of the base: 1,2,4,8.")
    ] = "",
    seeds: Annotated[int, typer.Option("--seeds", min=1)] = 3,
    steps: Annotated[int, typer.Option("--steps", min=1)] = 3,
    data: Annotated[
        str, typer.Option("--data", metavar="SPEC", help="text:PATH, digits or file.py.")
    ] = "",
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Judge the file's own code and its own optimizer.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="A picture, .png or .svg.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="A page with all of it.")
    ] = None,
    format: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    strict: Strict = True,
) -> None:
    """Train a few steps at several widths: is it in μP, and if not, where. Runs MODEL's code."""
    from automup.check.cases import rate_of
    from automup.check.run import Settings, check_rate
    from automup.check.run import check as run_check
    from automup.optim import optimizer_class_of

    if format not in FORMATS:
        raise UsageError(f"No format {format!r}.", fix=f"Choose one of {', '.join(FORMATS)}.")
    _check_files(plot, html)
    cls = optimizer_class_of(optimizer)
    rate = rate_of(cls, lr)
    check_rate(rate)
    multiples = _multiples(widths)
    with running_model():
        with telling(f"reading {model}"):
            case = _case(model, base, width, input, override, cls, rate, as_is, strict)
            settings = Settings(rate, multiples or _default_widths(case), seeds, steps)
            batches = _data(data, case)
        runs = len(settings.widths) * seeds * (2 if case.other else 1)
        with counting("training", runs) as done:
            result = run_check(case, batches, settings, done)
    if plot is not None:
        result.plot(plot)
    if html is not None:
        result.save_html(html)
    _show(result, format)
    if not result.passed:
        raise typer.Exit(1)


def _case(
    model: str,
    base: list[str] | None,
    width: str,
    inputs: list[str] | None,
    override: list[str] | None,
    optimizer_class: type,
    lr: float,
    as_is: bool,
    strict: bool,
) -> Case:
    """What the options ask to check; a converted file is judged as it is."""
    from automup.api import Mup
    from automup.check.cases import as_is_case, mup_case
    from automup.converted import converted_knobs, without_scales

    source = load(model)
    study = open_model(without_scales(source), base, width, inputs, override, small=True)
    own = bool(converted_knobs(source))
    if as_is or own:
        return as_is_case(source, study, optimizer_class, lr, own)
    mu = Mup(study, lambda **knobs: study.models.drawn(knobs), strict=strict)
    return mup_case(mu, optimizer_class, lr)


def _default_widths(case: Case) -> tuple[float, ...]:
    from automup.check.base import default_widths

    return default_widths(case.study.models)


def _data(spec: str, case: Case) -> Data:
    """The user's data, or a task made of the example inputs."""
    from automup.check.synthetic import Synthetic
    from automup.data import load_data

    if spec:
        return load_data(spec, case.study)
    return Synthetic.of(case.study.models)


def _multiples(text: str) -> tuple[float, ...]:
    """The widths of ``1,2,4,8``, in order; empty for an empty text."""
    from automup.check.run import check_multiples

    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UsageError(
            f"--widths {text!r} is no list of numbers.", fix="Pass two or more, as 1,2,4,8."
        ) from None
    if text:
        check_multiples(found)
    return tuple(sorted(set(found)))


def _check_files(plot: Path | None, html: Path | None) -> None:
    """Refuse at once what could not be written in the end."""
    for file in (plot, html):
        if file is not None:
            check_folder(file)
    if plot is not None and plot.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"{plot} is neither .png nor .svg.", fix="Name one of them.")
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{html} is no .html.", fix="Name the page so.")


def _show(result: Check, format: str) -> None:
    from automup.check.data import as_json
    from automup.check.text import as_table

    if format == "json":
        typer.echo(as_json(result))
    else:
        as_table(result)
