"""Progress: a bar with the best so far on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Protocol

from automup.progress import is_terminal

#: Without a terminal: seconds between two lines, at least.
_EVERY = 30.0


class Watch(Protocol):
    """Somebody who is told how far a sweep is."""

    def show(self, stage: str, done: int, total: int, best: str) -> None:
        """So many of so many are done, by anyone; ``best`` says which is the best so far."""
        ...


class Silent:
    """Says nothing."""

    def show(self, stage: str, done: int, total: int, best: str) -> None:
        """Nothing."""


class Lines:
    """Plain lines on stderr: the first and the last of a stage, and one every half minute."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._said: tuple[str, int] = ("", -1)
        self._last = 0.0

    def show(self, stage: str, done: int, total: int, best: str) -> None:
        """A line, if it is time for one."""
        new = stage != self._said[0]
        due = time.monotonic() - self._last >= _EVERY or done == total
        if (new or due) and (stage, done) != self._said:
            self._said, self._last = (stage, done), time.monotonic()
            self._console.print(
                f"{stage}: {done} of {total}" + (f", {best}" if best else ""), soft_wrap=True
            )


class Bars:
    """A bar for each stage."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def show(self, stage: str, done: int, total: int, best: str) -> None:
        """Move the stage's bar."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total, best="")
        self._progress.update(self._tasks[stage], completed=done, total=total, best=best)


@contextlib.contextmanager
def watching(quiet: bool = False) -> Iterator[Watch]:
    """Whoever fits where stderr goes."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if quiet:
        yield Silent()
    elif not is_terminal(console):
        yield Lines(console)
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        told = TextColumn("{task.fields[best]}")
        with Progress(*columns, TimeRemainingColumn(), told, console=console) as progress:
            yield Bars(progress)
