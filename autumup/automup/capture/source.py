"""Where an operation stands in the user's source: exact spans of the frames that called it."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch

from automup.plan import Span

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


@functools.cache
def _positions(code: CodeType) -> list[tuple[int | None, int | None, int | None, int | None]]:
    return list(code.co_positions())


def frame_of(frame: FrameType) -> Frame:
    """The expression that a Python frame is evaluating."""
    code = frame.f_code
    line, end_line, column, end_column = _positions(code)[frame.f_lasti // 2]
    line = line or frame.f_lineno
    return Frame(
        code.co_filename,
        line,
        column or 0,
        end_line or line,
        end_column or 0,
        code.co_qualname,
        code.co_firstlineno,
    )


def python_frames(depth: int, limit: int = 4) -> list[FrameType]:
    """The innermost frames of the traced code, innermost first. ``depth`` counts the caller as 1.

    Frames beyond the one that runs the trace belong to whoever called automup.
    """
    frame: FrameType | None = sys._getframe(depth)
    found: list[FrameType] = []
    while frame is not None and len(found) < limit and frame.f_code.co_filename != _RUNNER:
        if is_user_file(frame.f_code.co_filename):
            found.append(frame)
        frame = frame.f_back
    return found


def library_frames(depth: int) -> tuple[str, ...]:
    """The functions of torch.nn between the traced operation and the user's code, innermost first.

    ``self.fc(x)`` gives ``("Linear.forward",)``: the operation belongs to a library module.
    """
    frame: FrameType | None = sys._getframe(depth)
    found: list[str] = []
    while frame is not None and not is_user_file(frame.f_code.co_filename):
        code = frame.f_code
        if code.co_filename.startswith(_TORCH_NN) and not code.co_qualname.startswith("Module."):
            found.append(code.co_qualname)
        frame = frame.f_back
    return tuple(found)


def user_frames(depth: int, limit: int = 4) -> tuple[Frame, ...]:
    """The innermost expressions of user code, innermost first."""
    return tuple(frame_of(f) for f in python_frames(depth + 1, limit))


def sizes_in_scope(frame: FrameType) -> dict[str, Any]:
    """What a frame's local names say about sizes: name -> shape of a tensor, or an integer.

    Integer attributes of the method's own object are included as ``self.name``.
    """
    sizes: dict[str, Any] = {}
    for name, value in frame.f_locals.items():
        if isinstance(value, torch.Tensor):
            sizes[name] = tuple(value.shape)
        elif type(value) is int:
            sizes[name] = value
    first, owner = first_argument(frame)
    for name, value in getattr(owner, "__dict__", {}).items():
        if type(value) is int:
            sizes[f"{first}.{name}"] = value
    return sizes


def first_argument(frame: FrameType) -> tuple[str, Any]:
    """The name and value of a function's first argument: a method's ``self``."""
    code = frame.f_code
    name = code.co_varnames[0] if code.co_argcount else ""
    return name, frame.f_locals.get(name)
