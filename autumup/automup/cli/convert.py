"""``automup convert``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automup.capture.values import said
from automup.cli.models import check_folder, load, open_model, running_model
from automup.cli.options import Base, Constant, Form, Input, Model, Override, Strict, Width
from automup.errors import UsageError
from automup.files import exists, write_atomically
from automup.progress import telling

if TYPE_CHECKING:
    from automup.capture.load import ModelSource


def convert(
    model: Model,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write the file.")
    ] = None,
    base: Base = None,
    width: Width = "",
    input: Input = None,
    override: Override = None,
    form: Form = "default",
    constant: Constant = None,
    diff: Annotated[bool, typer.Option("--diff", help="Print the changes, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    strict: Strict = True,
) -> None:
    """Write the model as a new, readable source file in μP. Importing MODEL runs its code."""
    if out is None and not diff:
        raise UsageError("Nowhere to write.", fix="Pass --out FILE, or --diff to see the changes.")
    with telling(f"reading {model}"):
        source = load(model)
    if out is not None and not diff:
        _check_output(out, source, force)
    from automup.capture.values import parse_assignments
    from automup.constants import Constants
    from automup.convert import convert as convert_file
    from automup.converted import original_of
    from automup.forms import check_form

    constants = Constants.of(parse_assignments(constant or []))
    check_form(form)
    with telling(f"tracing {source.name}") as say, running_model():
        study = open_model(original_of(source), base, width, input, override)
        say(f"converting {source.name}")
        conversion = convert_file(source, study, strict=strict, form=form, constants=constants)
    for note in conversion.notes:
        typer.echo(f"note: {note}", err=True)
    if diff:
        typer.echo(_diff(source, conversion.text, out), nl=False)
    elif out is not None:
        write_atomically(out, conversion.text, overwrite=force)
        typer.echo(f"{out}: {source.name} in μP; base {said(study.base)}", err=True)


def _check_output(out: Path, source: ModelSource, force: bool) -> None:
    if out.resolve() == Path(source.file).resolve():
        raise UsageError("The output is the input.", where=str(out), fix="Choose another --out.")
    check_folder(out)
    if out.is_file() and not force:
        raise exists(out)


def _diff(source: ModelSource, text: str, out: Path | None) -> str:
    import difflib

    name = Path(source.file).name
    lines = difflib.unified_diff(_lines(source.text), _lines(text), name, str(out or f"mu_{name}"))
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(text: str) -> list[str]:
    """The lines with their ends, as diff and patch count them: a form feed ends none."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)
