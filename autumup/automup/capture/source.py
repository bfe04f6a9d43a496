"""Where an operation stands in the user's source: exact spans of the frames that called it."""

from __future__ import annotations

import functools
import itertools
import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch

from automup.facts import Span

_LIBRARIES = (
    os.path.dirname(torch.__file__) + os.sep,
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
)
_TORCH_NN = os.path.join(os.path.dirname(torch.__file__), "nn") + os.sep
_RUNNER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "trace.py")
_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep


@dataclass(frozen=True)
class Frame:
    """One frame of user code: the expression that it is evaluating."""

    file: str
    line: int
    byte_column: int
    end_line: int
    end_byte_column: int
    function: str
    first_line: int

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}"

    @property
    def span(self) -> Span:
        """The span in characters (Python counts columns in UTF-8 bytes)."""
        return Span(
            self.file,
            self.line,
            _characters(self.file, self.line, self.byte_column),
            self.end_line,
            _characters(self.file, self.end_line, self.end_byte_column),
        )


def _characters(file: str, line: int, byte_column: int) -> int:
    text = linecache.getline(file, line)
    return len(text.encode()[:byte_column].decode(errors="replace")) if text else byte_column


@functools.cache
def is_user_file(file: str) -> bool:
    """True for code that is neither torch's, nor automup's, nor the standard library's."""
    if file.startswith("<") or file.startswith(_LIBRARIES):
        return False
    return not file.startswith(_STDLIB) or "site-packages" in file


FRAMES = 4
"""How many frames of the traced code say where an operation stands."""
_frames: dict[int, tuple[CodeType, dict[int, Frame]]] = {}
"""Every place seen so far, by the id of its code (kept, so that no other gets the id)."""


def frame_of(frame: FrameType) -> Frame:
    """The expression that a Python frame is evaluating; one object for each place."""
    code, at = frame.f_code, frame.f_lasti
    known = _frames.setdefault(id(code), (code, {}))[1]
    found = known.get(at)
    if found is None:
        found = known[at] = _frame_at(code, at, frame.f_lineno)
    return found


def _frame_at(code: CodeType, at: int, default: int) -> Frame:
    positions = next(itertools.islice(code.co_positions(), at // 2, None))
    line, end_line, column, end_column = positions
    line = line or default
    return Frame(
        code.co_filename,
        line,
        column or 0,
        end_line or line,
        end_column or 0,
        code.co_qualname,
        code.co_firstlineno,
    )


def innermost_frame(depth: int) -> tuple[FrameType | None, tuple[str, ...]]:
    """The innermost frame of the traced code, and the functions of torch.nn below it.

    ``self.fc(x)`` gives ``("Linear.forward",)``, innermost first: the operation belongs to a
    library module. ``depth`` counts the caller as 1. Frames beyond the one that runs the trace
    belong to whoever called automup.
    """
    frame: FrameType | None = sys._getframe(depth)
    library: list[str] = []
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if is_user_file(file):
            return frame, tuple(library)
        if file == _RUNNER:
            break
        if file.startswith(_TORCH_NN) and code.co_qualname[:7] != "Module.":
            library.append(code.co_qualname)
        frame = frame.f_back
    return None, tuple(library)


def traced_frames(frame: FrameType | None, limit: int) -> list[FrameType]:
    """A frame and those that led to it, innermost first, as far as they are traced code."""
    found: list[FrameType] = []
    while frame is not None and len(found) < limit and frame.f_code.co_filename != _RUNNER:
        if is_user_file(frame.f_code.co_filename):
            found.append(frame)
        frame = frame.f_back
    return found


def user_frames(depth: int, limit: int = FRAMES) -> tuple[Frame, ...]:
    """The innermost expressions of user code, innermost first."""
    return tuple(frame_of(f) for f in traced_frames(innermost_frame(depth + 1)[0], limit))


def sizes_in_scope(frame: FrameType) -> dict[str, Any]:
    """What a frame's local names say about sizes: name -> shape of a tensor, or an integer.

    Integer attributes of the method's own object are included as ``self.name``.
    """
    sizes: dict[str, Any] = {}
    values = frame.f_locals
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            sizes[name] = tuple(value.shape)
        elif type(value) is int:
            sizes[name] = value
    first = _first_name(frame.f_code)
    for name, value in getattr(values.get(first), "__dict__", {}).items():
        if type(value) is int:
            sizes[f"{first}.{name}"] = value
    return sizes


def first_argument(frame: FrameType) -> Any:
    """The value of a function's first argument: a method's ``self``."""
    return frame.f_locals.get(_first_name(frame.f_code))


def _first_name(code: CodeType) -> str:
    return code.co_varnames[0] if code.co_argcount else ""
