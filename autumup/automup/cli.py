"""The command line: parses, calls, prints. torch is imported only once a model is to be read."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automup import __version__
from automup.errors import AutomupError, CaptureError, UsageError

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
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--override",
        metavar="PATTERN=ROLE",
        help="What a parameter is: 'blocks.*.w=hidden', or input, output, scalar.",
    ),
]
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
    override: Override = None,
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

    with _running_model():
        study = _study(source, base, width, input, override)
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
    _check_folder(out)
    if out.exists() and not force:
        raise UsageError("The output exists.", where=str(out), fix="Pass --force to overwrite it.")


def _check_folder(file: Path) -> None:
    if file.is_dir():
        raise UsageError(f"{file} is a folder.", fix="Name a file in it.")
    if not file.parent.is_dir():
        raise UsageError(
            "Cannot write there: no such folder.",
            where=str(file.parent),
            fix="Make it, or write somewhere else.",
        )


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
    override: Override = None,
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
    if save is not None:
        _check_folder(save)
        if save.exists() and save.suffix != ".json":
            raise UsageError(
                "That file is there and is no plan.", where=str(save), fix="Name a .json file."
            )
    if model.endswith(".json"):
        plan = Plan.load(model)
    else:
        from automup.study import original_of

        with _running_model():
            source = original_of(_load(model))
            plan = _plan(_study(source, base, width, input, override), target)
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
    source: ModelSource,
    base: list[str] | None,
    width: str,
    inputs: list[str] | None,
    override: list[str] | None,
) -> Study:
    """The study that the common options ask for; knobs are discovered where none are named."""
    from automup.capture.given_inputs import parse_inputs
    from automup.capture.knobs import discover
    from automup.capture.values import parse_assignments
    from automup.overrides import Overrides
    from automup.study import converted_knobs, study_source

    maker = parse_inputs(inputs) if inputs else None
    overrides = Overrides.parse(override or [])
    recorded, given = converted_knobs(source), parse_assignments(base or [])
    names = [n.strip() for n in width.split(",") if n.strip()]
    if recorded:
        _check_recorded(recorded, given, names)
    given, names = {**recorded, **given}, names or list(recorded)
    if not names:
        found = discover(source, given, maker)
        names, given = list(found.width), {**found.values, **given}
    values = source.base_values(names, given)
    for name in names:
        if isinstance(values[name], int | float) and values[name] <= 0:
            raise UsageError(
                f"A width cannot be {name}={values[name]}.", fix=f"Pass --base {name}=256, or so."
            )
    fixed = {name: value for name, value in values.items() if name not in names}
    return study_source(source, {name: values[name] for name in names}, fixed, maker, overrides)


def _check_recorded(
    recorded: Mapping[str, Any], given: Mapping[str, Any], names: Sequence[str]
) -> None:
    """A converted file has its base and its knobs in it, and they cannot be changed from here."""
    other = [n for n, value in recorded.items() if given.get(n, value) != value]
    if other or (names and set(names) != set(recorded)):
        raise UsageError(
            f"The file was converted with base {_knobs(recorded)}, which is in its code.",
            fix="Convert the original file again, with the base and the knobs that you want.",
        )


@contextlib.contextmanager
def _running_model() -> Iterator[None]:
    """The model's code runs: what it prints is not the output, and it may not end the program."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except SystemExit as error:
        from automup.capture.raised import place_of

        raise CaptureError(
            f"The model calls sys.exit({error.code!r}) when it is built or run.",
            where=place_of(error),
            fix="Raise an exception there instead.",
        ) from error


def _knobs(values: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def main() -> None:
    """The console script: errors are one paragraph and an exit status, never a traceback."""
    try:
        status = app(standalone_mode=False)
    except AutomupError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except Exception as error:
        # typer's own copy of click, or click: both have these two
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise
        if not str(error.format_message()).strip():
            sys.exit(2)  # no command: the help was shown
        _fail(_usage(error), 2)
    else:  # click returns the status of an Exit
        sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Any) -> str:
    """A parser's error as one paragraph."""
    message = str(error.format_message()).strip()
    command = getattr(getattr(error, "ctx", None), "command_path", "automup")
    end = "" if message.endswith((".", "?")) else "."
    return f"{message}{end} See `{command} --help`."


def _fail(message: str, status: int) -> None:
    typer.echo(f"automup: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
