"""The author's code as a guest: it may print, read, fork and fail; the house stays as it was."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class _Lent:
    """A stream that its borrower cannot close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Nothing: its owner goes on writing to it."""


@contextlib.contextmanager
def one_process() -> Iterator[None]:
    """Run the block; a process that was forked in it ends there, and does not do our work too."""
    process = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != process:
            os._exit(0)


@contextlib.contextmanager
def guest_code() -> Iterator[None]:
    """Run the block, which runs code of the model's author.

    What that prints goes to stderr, since stdout is for results, and its stdin is empty. After the
    block the streams and the working folder are as before it.
    """
    streams, folder = (sys.stdin, sys.stdout, sys.stderr), _folder()
    with (
        open(os.devnull, encoding="utf-8") as nothing,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        one_process(),
    ):
        shown = sys.stderr or nowhere  # it is None where the process has none
        sys.stdin, sys.stdout, sys.stderr = nothing, _Lent(shown), _Lent(shown)
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = streams
            if folder is not None:
                os.chdir(folder)


def _folder() -> str | None:
    """The working folder; None if somebody has removed it."""
    try:
        return os.getcwd()
    except OSError:
        return None
