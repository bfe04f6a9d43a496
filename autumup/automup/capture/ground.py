"""The ground that a model is built and run on: a dispatch mode that carries out every operation.

Whoever wants to see the operations is its *watcher*, not a second mode: each mode costs a full
round through torch's dispatcher for every operation.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from automup.capture.source import is_user_file

Execute = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
Watcher = Callable[[Any, tuple[Any, ...], dict[str, Any], Execute], Any]
"""Called with an operation, its arguments and how to carry it out; returns the result."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run the block in one thread of torch's: what is computed is small, and others only spin."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Ground(TorchDispatchMode):
    """Carries out operations (``execute``) and shows them to one watcher at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watcher: Watcher | None = None
        self._lines_recorded = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: no frame of ours is compiled anyway, and saying so costs as much as a dispatch."""
        return False

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation that torch dispatched; a subclass says on which tensors."""
        raise NotImplementedError

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # reading .is_meta here is nobody's business
            if not self._lines_recorded:
                return self._handle(func, args, kwargs or {})
            tracer = sys.gettrace()
            sys.settrace(None)  # what runs from here on is not the model's code
            try:
                return self._handle(func, args, kwargs or {})
            finally:
                sys.settrace(tracer)

    def _handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._watcher is None:
            return self.execute(func, args, kwargs)
        return self._watcher(func, args, kwargs, self.execute)

    @contextlib.contextmanager
    def recording_lines(self, lines: set[tuple[str, int]]) -> Iterator[None]:
        """Record the lines of user files that the block executes."""

        def local(frame: FrameType, event: str, arg: Any) -> Any:
            lines.add((frame.f_code.co_filename, frame.f_lineno))
            return local

        def enter(frame: FrameType, event: str, arg: Any) -> Any:
            return local(frame, event, arg) if is_user_file(frame.f_code.co_filename) else None

        before = sys.gettrace()
        sys.settrace(enter)
        self._lines_recorded = True
        try:
            yield
        finally:
            sys.settrace(before)
            self._lines_recorded = False

    @contextlib.contextmanager
    def watched_by(self, watcher: Watcher) -> Iterator[None]:
        """Show the watcher what runs in the block."""
        before, self._watcher = self._watcher, watcher
        try:
            yield
        finally:
            self._watcher = before
