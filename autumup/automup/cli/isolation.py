"""``--isolated``: a command in a child process, with limits, whose crash is only reported.

The child is the same command on the same terminal. It is no sandbox: the model's code may still
read and write what the user may; but it cannot take longer, or more memory, than it is given.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import signal
import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from automup.errors import AutomupError, UsageError

TIMEOUT = 600.0
"""Seconds that a child is given where none are named."""

COMMAND = (sys.executable, "-P", "-c", "from automup.cli import main; main()")
"""The command line in a child; -P, so that what lies in the working folder is no one's torch."""

LARGEST = 1e9
"""No limit is as large, in seconds or in GB."""

_CHILD = "AUTOMUP_ISOLATED"  # set in the child, which runs the command itself
_OPTIONS = {
    "isolated": Annotated[
        bool, typer.Option("--isolated", help="Run in a child process, and survive its crash.")
    ],
    "timeout": Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="--isolated, at most so long [600]."),
    ],
    "memory": Annotated[
        float | None,
        typer.Option("--memory", metavar="GB", help="--isolated, with at most so much memory."),
    ],
}


def isolable(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options --isolated, --timeout and --memory."""

    @functools.wraps(command)
    def wrapped(
        *, isolated: bool, timeout: float | None, memory: float | None, **rest: Any
    ) -> None:
        if (isolated or timeout is not None or memory is not None) and _CHILD not in os.environ:
            raise typer.Exit(_run_child(TIMEOUT if timeout is None else timeout, memory))
        command(**rest)

    hints = typing.get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters.values()
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for (name, kind), default in zip(_OPTIONS.items(), (False, None, None), strict=True)
    ]
    wrapped.__annotations__ = {**hints, **_OPTIONS}
    wrapped.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*(p.replace(annotation=hints[p.name]) for p in own), *added]
    )
    return wrapped


def _run_child(timeout: float, memory: float | None) -> int:
    """Run this very command in a child; its exit status.

    Raises:
        UsageError: a limit that is not positive, or that this system cannot set.
        AutomupError: the child was ended by a limit or by a crash.
    """
    for option, value in (("--timeout", timeout), ("--memory", memory)):
        if value is not None and not 0 < value < LARGEST:
            raise UsageError(f"{option} cannot be {value:g}.", fix="Pass a positive number.")
    limit = None if memory is None else _memory_limit(memory)
    child = subprocess.Popen(
        [*COMMAND, *sys.argv[1:]],
        env={**os.environ, _CHILD: "1"},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # so that its own children end with it
        preexec_fn=limit,
    )
    try:
        status = child.wait(timeout)
    except subprocess.TimeoutExpired:
        raise AutomupError(
            f"It was not done after {timeout:g} seconds, and was stopped.",
            fix="Give it longer with --timeout SECONDS, or a smaller base.",
        ) from None
    finally:
        _end(child)
    if status >= 0:
        return status
    name = signal.Signals(-status).name
    within = f" with at most {memory:g} GB of memory" if memory is not None else ""
    raise AutomupError(
        f"The process that ran the model{within} was ended by {name}.",
        fix="Nothing was written. Import the model in Python to see where it crashes.",
    )


def _memory_limit(gigabytes: float) -> Callable[[], None]:
    """What a child does before it starts: limit the memory that it may fill."""
    try:
        import resource
    except ImportError:
        what = "--memory cannot be limited on this system."
        raise UsageError(what, fix="Leave it out.") from None
    size = int(gigabytes * 1e9)
    # of the data on Linux, where the address space holds much that is never touched
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    return lambda: resource.setrlimit(kind, (size, size))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the child and all that it started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()
