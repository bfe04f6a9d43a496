"""How far a command is: on a terminal's stderr while it runs, and nothing where that is piped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def is_terminal(console: Console) -> bool:
    """Whether somebody watches, on a terminal that can move its cursor; FORCE_COLOR is no one."""
    isatty = getattr(console.file, "isatty", None)
    return isatty is not None and isatty() and not console.is_dumb_terminal


@contextlib.contextmanager
def telling(what: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show what is being done, and for how long, while the block runs; gone after it.

    Args:
        what: the first thing; the block is given a function that tells the next one.
        quiet: show nothing.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not is_terminal(console):
        yield lambda text: None
        return
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(what, total=None)
        yield lambda text: progress.update(task, description=text)


@contextlib.contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs, which calls what it is given after each of ``total``."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not is_terminal(console):
        yield lambda: None
        return
    with Progress(console=console, transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
