"""Methods compiled anew from edited source, for one instance's class and nobody else's.

The instance gets a subclass of its class, of the same name, in which a method is replaced. Where
the edit stands in a free function, the method and the functions on the way to it get copies that
see the edited one under its name; the module that they are written in is not touched.
"""

from __future__ import annotations

import linecache
import math
import types
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from automup.errors import RewriteError
from automup.rewrite import Edit, edit_sites


@dataclass(frozen=True)
class Place:
    """A method by its qualified name, and the names of the functions called from it on the way."""

    method: str
    callees: tuple[str, ...] = ()


Edits = tuple[tuple[Place, tuple[Edit, ...]], ...]


def with_edits(cls: type, place: Place, edits: tuple[Edit, ...]) -> type:
    """A subclass with the same name in which one method runs edited source."""
    known: dict[Place, tuple[Edit, ...]] = dict(getattr(cls, "_automup_edits", ()))
    original = getattr(cls, "_automup_class", cls)
    return _edited_class(original, tuple({**known, place: edits}.items()))


@cache
def _edited_class(cls: type, edits: Edits) -> type:
    body: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__reduce_ex__": _reduce,
        "_automup_class": cls,
        "_automup_edits": edits,
    }
    for place, changes in sorted(edits, key=lambda item: len(item[0].callees)):
        method = find_method(cls, place.method)
        if method is None:
            raise RewriteError(
                f"{place.method} is not a plain method of {cls.__name__}.",
                fix="Pass the multiplier through an attribute of the module.",
            )
        made = body.get(method.__name__, method)
        body[method.__name__] = _edited(made, place.callees, changes)
    return type(cls)(cls.__name__, (cls,), body)


def _reduce(self: nn.Module, protocol: int) -> tuple[Any, ...]:
    """Pickle by the original class and the edits, so that a saved model keeps its multipliers."""
    kind: Any = type(self)
    return _rebuild, (kind._automup_class, kind._automup_edits), self.__dict__


def _rebuild(cls: type, edits: Edits) -> Any:
    edited: Any = _edited_class(cls, edits)
    return edited.__new__(edited)


def find_method(cls: type, function: str) -> types.FunctionType | None:
    """The undecorated method with this qualified name, among a class and its bases."""
    for base in cls.__mro__:
        method = vars(base).get(function.rpartition(".")[2])
        if isinstance(method, types.FunctionType) and method.__code__.co_qualname == function:
            return method
    return None


def find_callee(caller: types.FunctionType, function: str, file: str) -> str | None:
    """The global name by which a function calls a plain one of this qualified name and file."""
    for name in caller.__code__.co_names:
        callee = caller.__globals__.get(name)
        if isinstance(callee, types.FunctionType):
            code = callee.__code__
            if (code.co_qualname, code.co_filename) == (function, file):
                return name
    return None


def _edited(
    function: types.FunctionType, callees: Sequence[str], edits: tuple[Edit, ...]
) -> types.FunctionType:
    """The function with the edits in itself, or in what it calls by these names."""
    if not callees:
        return recompiled(function, edits)
    inner = _edited(function.__globals__[callees[0]], callees[1:], edits)
    return _copied(function, function.__code__, {**function.__globals__, callees[0]: inner})


def recompiled(function: types.FunctionType, edits: tuple[Edit, ...]) -> types.FunctionType:
    """The function compiled from its file's source with the edits, same globals and closure."""
    code = function.__code__
    text = edit_sites(
        read_source(code.co_filename), edits, filename=code.co_filename, add_imports=False
    )
    module = compile(text, code.co_filename, "exec", dont_inherit=True)
    twins = [c for c in _code_objects(module) if c.co_qualname == code.co_qualname]
    new = min(twins, key=lambda c: abs(c.co_firstlineno - code.co_firstlineno))
    function.__globals__.setdefault("math", math)  # the edited source may have come to need it
    return _copied(function, new, function.__globals__)


def _copied(
    function: types.FunctionType, code: types.CodeType, names: dict[str, Any]
) -> types.FunctionType:
    made = types.FunctionType(
        code, names, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__dict__ = function.__kwdefaults__, dict(function.__dict__)
    made.__doc__, made.__annotations__ = function.__doc__, function.__annotations__
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    return made


def read_source(file: str) -> str:
    """The source text that a code object was compiled from."""
    return "".join(linecache.getlines(file))


def _code_objects(code: types.CodeType) -> list[types.CodeType]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return inner + [d for c in inner for d in _code_objects(c)]
