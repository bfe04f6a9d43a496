"""The command line: parses, calls, prints. torch is imported only once a model is to be read."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from automup import __version__
from automup.cli.check import check
from automup.cli.convert import convert
from automup.cli.doctor import doctor
from automup.cli.explain import explain
from automup.cli.isolation import isolable
from automup.cli.sweep import sweep
from automup.cli.transfer import transfer
from automup.errors import AutomupError, UsageError

INTERRUPTED = 130
TRACEBACK = "AUTOMUP_TRACEBACK"
"""The environment variable that shows a traceback of what nobody foresaw."""

app = typer.Typer(
    name="automup",
    help="Put any PyTorch model into the maximal update parametrization (μP).",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


for command in (convert, explain, check, sweep, transfer):
    app.command()(isolable(command))
app.command()(doctor)


def main() -> None:
    """The console script: errors are one paragraph and an exit status, never a traceback."""
    try:
        status = app(standalone_mode=False, prog_name="automup")
    except AutomupError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except typer.Abort:
        _fail("interrupted.", INTERRUPTED)
    except Exception as error:
        # typer's own copy of click, or click: both have these two
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            _fail(_unforeseen(error), 1)
        if not str(error.format_message()).strip():
            sys.exit(2)  # no command: the help was shown
        _fail(_usage(error), 2)
    else:  # click returns the status of an Exit
        if status == INTERRUPTED:
            _fail("interrupted.", INTERRUPTED)
        sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Any) -> str:
    """A parser's error as one paragraph."""
    message = str(error.format_message()).strip()
    command = getattr(getattr(error, "ctx", None), "command_path", "automup")
    end = "" if message.endswith((".", "?")) else "."
    return f"{message}{end} See `{command} --help`."


def _unforeseen(error: Exception) -> str:
    """What nobody foresaw: an output that cannot be written, or a bug of ours."""
    if os.environ.get(TRACEBACK):
        raise error
    if isinstance(error, OSError) and error.strerror:
        _drop_output()
        named = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror[0].upper()}{error.strerror[1:]}{named}."
    if isinstance(error, RecursionError):
        return (
            "Something is nested more deeply than Python can follow, such as an expression of "
            "many hundred terms. Write it in several statements."
        )
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"This is a bug in automup, or something that it did not foresee: {said} "
        f"({Path(frame.filename).name}:{frame.lineno}). Please report it, with the model file; "
        f"{TRACEBACK}=1 shows the whole traceback."
    )


def _drop_output() -> None:
    """Drop what is buffered and cannot be written: Python would complain of it again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> NoReturn:
    """End with one line on stderr, in which nothing can move the cursor or hide."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    typer.echo(f"automup: {line}", err=True)
    sys.exit(status)
