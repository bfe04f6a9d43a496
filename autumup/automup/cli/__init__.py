"""The command line: parses, calls, prints. torch is imported only once a model is to be read."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from automup import __version__
from automup.cli.check import check
from automup.cli.convert import convert
from automup.cli.explain import explain
from automup.cli.sweep import sweep
from automup.errors import AutomupError, UsageError

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


for command in (convert, explain, check, sweep):
    app.command()(command)


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
