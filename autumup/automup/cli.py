"""The command line: parses, calls, prints. torch is imported only once a model is to be read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automup import __version__
from automup.errors import AutomupError, UsageError

if TYPE_CHECKING:
    from automup.capture.load import ModelSource
    from automup.plan import Plan
    from automup.study import Study

app = typer.Typer(
    name="automup",
    help="Put any PyTorch model into the maximal update parametrization (μP).",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="path.py, path.py:ClassName or package.mod:ClassName")
]
Base = Annotated[
    list[str] | None,
    typer.Option("--base", metavar="NAME=VALUE", help="A knob's value where μP equals SP."),
]
Width = Annotated[
    str, typer.Option("--width", metavar="NAMES", help="Which knobs scale: n_embd,n_head.")
]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="NAME=VALUE", help="Where to train. Default: 4 × base."),
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="SPEC", help="An example input: 'idx:int64[2,16]<96'."),
]
Optimizer = Annotated[str, typer.Option("--optimizer", help="adamw, adam or sgd.")]
Strict = Annotated[
    bool, typer.Option("--strict/--no-strict", help="Refuse what could not be resolved.")
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"automup {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Put any PyTorch model into the maximal update parametrization (μP)."""


@app.command()
def convert(
    model: Model,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write the file.")
    ] = None,
    base: Base = None,
    width: Width = "",
    input: Input = None,
    diff: Annotated[bool, typer.Option("--diff", help="Print the changes, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    strict: Strict = True,
) -> None:
    """Write the model as a new, readable source file in μP. Importing MODEL runs its code."""
    from automup.plan import write_atomically

    if out is None and not diff:
        raise UsageError("Nowhere to write.", fix="Pass --out FILE, or --diff to see the changes.")
    source = _load(model)
    if out is not None and not diff:
        _check_output(out, source, force)
    from automup.convert import convert as convert_file

    study = _study(source, base, width, input)
    conversion = convert_file(source, study, strict=strict)
    for note in conversion.notes:
        typer.echo(f"note: {note}", err=True)
    if diff:
        typer.echo(_diff(source, conversion.text, out), nl=False)
    elif out is not None:
        write_atomically(out, conversion.text)
        typer.echo(f"{out}: {source.name} in μP; base {_knobs(study.base)}", err=True)


def _check_output(out: Path, source: ModelSource, force: bool) -> None:
    if out.resolve() == Path(source.file).resolve():
        raise UsageError("The output is the input.", where=str(out), fix="Choose another --out.")
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError("Cannot write there: no such folder.", where=str(out))
    if out.exists() and not force:
        raise UsageError("The output exists.", where=str(out), fix="Pass --force to overwrite it.")


def _diff(source: ModelSource, text: str, out: Path | None) -> str:
    import difflib

    name = Path(source.file).name
    lines = difflib.unified_diff(
        source.text.splitlines(keepends=True),
        text.splitlines(keepends=True),
        name,
        str(out or f"mu_{name}"),
    )
    return "".join(lines)


@app.command()
def explain(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model as for convert, or a saved plan.json.")
    ],
    base: Base = None,
    width: Width = "",
    target: Target = None,
    input: Input = None,
    optimizer: Optimizer = "adamw",
    format: Annotated[str, typer.Option("--format", help="table, json, markdown, html.")] = "table",
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Also write the plan as JSON.")
    ] = None,
    strict: Strict = True,
) -> None:
    """Show what μP does to every parameter. Importing MODEL runs its code."""
    from automup import report
    from automup.plan import Plan

    renderers: dict[str, Any] = {
        "table": report.as_table,
        "json": report.as_json,
        "markdown": report.as_markdown,
        "html": report.as_html,
    }
    if format not in renderers:
        raise UsageError(f"No format {format!r}.", fix=f"Choose one of {', '.join(renderers)}.")
    report.family_of(optimizer)
    if model.endswith(".json"):
        plan = Plan.load(model)
    else:
        plan = _plan(_study(_load(model), base, width, input), target)
    if save is not None:
        plan.save(save)
    text = renderers[format](plan, optimizer)
    if text is not None:
        typer.echo(text)
    if plan.unresolved and strict:
        raise typer.Exit(1)


def _plan(study: Study, target: list[str] | None) -> Plan:
    from automup.capture.values import parse_assignments
    from automup.planning import make_plan

    given = parse_assignments(target or [])
    unknown = sorted(set(given) - set(study.base))
    if unknown:
        raise UsageError(
            f"{unknown[0]} is not a width knob; the knobs are {', '.join(study.base)}.",
            fix="Name the knobs that scale with --width.",
        )
    return make_plan(study, {**study.scaled_knobs(4), **given})


def _load(spec: str) -> ModelSource:
    from automup.capture.load import load_model

    return load_model(spec)


def _study(
    source: ModelSource, base: list[str] | None, width: str, inputs: list[str] | None
) -> Study:
    """The study that the common options ask for; knobs are discovered where none are named."""
    from automup.capture.given_inputs import parse_inputs
    from automup.capture.knobs import discover
    from automup.capture.values import parse_assignments
    from automup.study import converted_knobs, study_source

    maker = parse_inputs(inputs) if inputs else None
    given = {**converted_knobs(source), **parse_assignments(base or [])}
    names = [n.strip() for n in width.split(",") if n.strip()]
    names = names or list(converted_knobs(source))
    if not names:
        found = discover(source, given, maker)
        names = list(found.width)
    values = source.base_values(names, given)
    fixed = {name: value for name, value in values.items() if name not in names}
    return study_source(source, {name: values[name] for name in names}, fixed, maker)


def _knobs(values: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def main() -> None:
    """The console script: errors are one paragraph and an exit status, never a traceback."""
    try:
        app(standalone_mode=False)
    except AutomupError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except Exception as error:
        from click import ClickException

        if isinstance(error, ClickException):
            error.show()
            sys.exit(2)
        raise


def _fail(message: str, status: int) -> None:
    typer.echo(f"automup: {message}", err=True)
    sys.exit(status)
