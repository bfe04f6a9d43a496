"""How a module leads to the function that computes something, and that way copied with a change.

A function is reached from a module through its class or its own attributes, through decorators,
partial applications, registries and the names that functions call each other by. Whatever lies on
the way is never changed but copied, each object with one part replaced, so that nobody else who
uses it sees the change.
"""

from __future__ import annotations

import abc
import copy
import functools
import types
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from automup.capture.source import Frame
from automup.errors import RewriteError

DEPTH, FIELDS, WIDTH = 8, 2, 4000
"""How many steps a search takes from one function to the next, how many of them through fields of
objects, and at how many objects it looks."""
_PLAIN = (str, bytes, int, float, complex, torch.Tensor, nn.Module, torch.dtype, torch.device)


@dataclass(frozen=True)
class Step:
    """From an object to a part of it.

    ``member``: a class's attribute, ``own``: an instance's; ``global``: a name of a function's
    file, dotted where it goes through imported modules and classes; ``cell``, ``default``: of a
    function; ``item``, ``field``: of a container, an object; ``inner``: what a wrapper wraps.
    """

    kind: str
    name: Hashable = ""
    base: int = 0
    """Of a member: which class of the module's mro defines it."""


Path = tuple[Step, ...]


# --- the search ----------------------------------------------------------------------------------


def find_paths(module: nn.Module, frames: Sequence[Frame]) -> Iterator[Path]:
    """Ways from a module to the function that ran the innermost of these frames, nearest first.

    The outermost frame is of a function of the module itself; frames of decorators may lie
    between. Nothing where some function cannot be found again, as one made on the fly, or calls
    itself through others.
    """
    *inner, outermost = frames
    for path, function in _search(_roots(module), outermost):
        yield from _onward(module, path, [function], inner)


def _onward(
    module: nn.Module, path: Path, chain: list[types.FunctionType], frames: Sequence[Frame]
) -> Iterator[Path]:
    """From the last function of a chain through those that the frames ran, the outermost last."""
    code = chain[-1].__code__
    while frames and (_holds(code, frames[-1]) or is_code_of(code, frames[-1])):
        frames = frames[:-1]  # nested in it, or called by itself
    if not frames:
        yield path
        return
    here = ((path + way, f) for way, f in _search(_called(chain[-1]), frames[-1]))
    for way, function in (*here, *_search(_roots(module), frames[-1])):
        if not any(function is known for known in chain):
            yield from _onward(module, way, [*chain, function], frames[:-1])


def _search(
    start: Iterable[tuple[Step, Any]], frame: Frame
) -> Iterator[tuple[Path, types.FunctionType]]:
    """The functions with the frame's code, nearest first; then those in which that is nested."""
    around = []
    for path, function in _functions(start):
        if is_code_of(function.__code__, frame):
            yield path, function
        elif _holds(function.__code__, frame):
            around.append((path, function))
    yield from around


def find_member(module: nn.Module, file: str, function: str) -> Path | None:
    """The way to the method, decorated or not, of this file and qualified name."""
    for path, found in _functions(_roots(module)):
        code = found.__code__
        if (code.co_filename, code.co_qualname) == (file, function) and path[0].kind == "member":
            return path
    return None


def name_of_called(module: nn.Module, path: Path, called: Any) -> Step | None:
    """By which global name the function that a path leads to knows another; None if by none."""
    first, *rest = path
    start = vars(module)[str(first.name)] if first.kind == "own" else part(module, first)
    function = functools.reduce(part, rest, start)
    return next((step for step, value in _called(function) if value is called), None)


def _functions(
    start: Iterable[tuple[Step, Any]],
) -> Iterator[tuple[Path, types.FunctionType]]:
    """All functions that lie on the ways from some parts, nearest first."""
    pending: deque[tuple[Path, Any]] = deque(((step,), child) for step, child in start)
    seen: set[int] = set()
    while pending and len(seen) < WIDTH:
        path, value = pending.popleft()
        fields = sum(step.kind == "field" for step in path)
        if id(value) in seen or len(path) > DEPTH or fields > FIELDS:
            continue
        seen.add(id(value))
        if isinstance(value, types.FunctionType):
            yield path, value
        pending += [((*path, step), child) for step, child in parts(value)]


def is_code_of(code: types.CodeType, frame: Frame) -> bool:
    """Whether the frame ran this code."""
    known = (code.co_filename, code.co_qualname, code.co_firstlineno)
    return known == (frame.file, frame.function, frame.first_line)


def _holds(code: types.CodeType, frame: Frame) -> bool:
    return code.co_filename == frame.file and any(is_code_of(c, frame) for c in code_objects(code))


def code_objects(code: types.CodeType) -> list[types.CodeType]:
    """A code object and all that are nested in it."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return [code, *(d for c in inner for d in code_objects(c))]


def _roots(module: nn.Module) -> Iterator[tuple[Step, Any]]:
    """What a module's code starts from: its class's attributes, and its own."""
    for name, value in vars(module).items():
        if not name.startswith("_") and not isinstance(value, _PLAIN):
            yield Step("own", name), value
    for number, cls in enumerate(type(module).__mro__):
        if cls is nn.Module:
            return
        for name, value in vars(cls).items():
            if name != "__init__" and not isinstance(value, (*_PLAIN, type)):
                yield Step("member", name, number), value


def names_used(code: types.CodeType) -> set[str]:
    """The global names and attributes that a function's code mentions."""
    return {name for c in code_objects(code) for name in c.co_names}


def _called(function: types.FunctionType) -> Iterator[tuple[Step, Any]]:
    """What a function can call by name: its file's names, and what it was made with."""
    used = names_used(function.__code__)
    yield from _parts_of_function(function)
    for name in sorted(used & function.__globals__.keys()):
        yield from _dotted(name, function.__globals__[name], used, 3)


def _dotted(name: str, value: Any, used: set[str], depth: int) -> Iterator[tuple[Step, Any]]:
    if not isinstance(value, types.ModuleType | type):
        yield Step("global", name), value
    elif depth and not (isinstance(value, type) and issubclass(value, torch.autograd.Function)):
        # An edit of such a function's forward would belie its backward.
        for part in sorted(used & vars(value).keys()):
            yield from _dotted(f"{name}.{part}", vars(value)[part], used, depth - 1)


def parts(value: Any) -> Iterator[tuple[Step, Any]]:
    """The parts of an object through which a call of it may run."""
    if isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, property):
        yield Step("inner"), value.fget
    elif isinstance(value, functools.partial | functools.cached_property):
        yield Step("inner"), value.func
        if isinstance(value, functools.partial):
            yield from ((Step("default", i), a) for i, a in enumerate(value.args) if callable(a))
            yield from ((Step("default", k), a) for k, a in value.keywords.items() if callable(a))
    elif isinstance(value, staticmethod | classmethod | types.MethodType):
        yield Step("inner"), value.__func__
    elif isinstance(value, dict | list | tuple | types.MappingProxyType):
        items = enumerate(value) if isinstance(value, list | tuple) else value.items()
        yield from ((Step("item", k), v) for k, v in items if not isinstance(v, _PLAIN))
    elif not isinstance(value, (*_PLAIN, type, types.ModuleType, types.BuiltinFunctionType)):
        yield from _parts_of_object(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[Step, Any]]:
    compiled = vars(function).get("_torchdynamo_orig_callable")
    if compiled is not None:
        yield Step("inner"), compiled
        return
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield Step("cell", name), cell.cell_contents
        except ValueError:  # a cell that is filled later
            continue
    for i, value in enumerate(function.__defaults__ or ()):
        yield Step("default", i), value
    yield from ((Step("default", k), v) for k, v in (function.__kwdefaults__ or {}).items())


def _parts_of_object(value: Any) -> Iterator[tuple[Step, Any]]:
    """The fields of an object, and what its class defines."""
    for name, field in getattr(value, "__dict__", {}).items():
        if not isinstance(field, (*_PLAIN, type)):
            yield Step("field", name), field
    for number, cls in enumerate(type(value).__mro__[:-1]):
        for name, member in vars(cls).items():
            if isinstance(member, types.FunctionType | staticmethod | classmethod | property):
                yield Step("member", name, number), member
            elif isinstance(member, dict) and name != "__annotations__":
                yield Step("field", name), member


# --- copies --------------------------------------------------------------------------------------


def part(value: Any, step: Step) -> Any:
    """The part of an object that a step leads to."""
    if step.kind == "global":
        root, *rest = str(step.name).split(".")
        return functools.reduce(lambda at, name: vars(at)[name], rest, value.__globals__[root])
    if step.kind == "item":
        return value[step.name]
    if step.kind == "member":
        return vars(type(value).__mro__[step.base])[str(step.name)]
    if step.kind == "field":
        return getattr(value, str(step.name))
    return next(child for known, child in parts(value) if known == step)


def with_parts(value: Any, changed: Mapping[Step, Any]) -> Any:
    """A copy of an object, other than a function, with some of its parts replaced."""
    inner: Any = changed.get(Step("inner"))
    if isinstance(value, property):
        return property(inner, value.fset, value.fdel, value.__doc__)
    if isinstance(value, staticmethod | classmethod):
        return type(value)(inner)
    if isinstance(value, types.MethodType):
        return types.MethodType(inner, value.__self__)
    if isinstance(value, functools.partial):
        args = [changed.get(Step("default", i), a) for i, a in enumerate(value.args)]
        named = {k: changed.get(Step("default", k), a) for k, a in value.keywords.items()}
        return functools.partial(inner or value.func, *args, **named)
    if isinstance(value, functools.cached_property):
        made = functools.cached_property(inner)
        made.__set_name__(nn.Module, str(value.attrname))
        return made
    if isinstance(value, tuple):
        return tuple(changed.get(Step("item", i), v) for i, v in enumerate(value))
    return _object_with(value, changed)


def _object_with(value: Any, changed: Mapping[Step, Any]) -> Any:
    made = dict(value) if isinstance(value, types.MappingProxyType) else copy.copy(value)
    fields = [getattr(x, "__dict__", None) for x in (value, made)]
    if made is value or (fields[0] is not None and fields[0] is fields[1]):
        raise RewriteError(
            f"A {type(value).__name__} on the way to a multiplier cannot be copied, so it would "
            "change for every model that uses it.",
            fix="Keep the scale in a float attribute of the module.",
        )
    members = {step: new for step, new in changed.items() if step.kind == "member"}
    for step, new in changed.items():
        if step.kind == "item":
            made[step.name] = new
        elif step.kind == "field":
            was = getattr(value, str(step.name))
            same = [name for name, v in vars(value).items() if v is was]
            for name in (str(step.name), *same):  # a wrapper's __wrapped__, too
                vars(made)[name] = new
    if members:
        made.__class__ = subclass(type(value), members)
    return made


def subclass(cls: type, members: Mapping[Step, Any], **body: Any) -> type:
    """A subclass of the same name with some members of the class, or of its bases, replaced.

    A member that another class overrides goes into a class between the two in the mro, where
    ``super()`` finds it.
    """
    bases: dict[int, dict[str, Any]] = {}
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    for step, new in sorted(members.items(), key=lambda item: item[0].base):
        name, mro = str(step.name), cls.__mro__
        overridden = any(name in vars(c) for c in mro[: step.base])
        target = bases.setdefault(step.base, {}) if overridden else body
        target[name] = new
    between = tuple(_made(cls.__mro__[i], (cls.__mro__[i],), b) for i, b in bases.items())
    return _made(cls, (cls, *between), {**names, **body})


def _made(cls: type, bases: tuple[type, ...], body: dict[str, Any]) -> type:
    """A class that its bases hear nothing of: a registry of subclasses must not find it."""
    quiet = () if _init_subclass(cls) is _init_subclass(object) else (_Quiet,)
    meta = type(cls)
    plain = meta in (type, abc.ABCMeta)  # another metaclass may keep a registry
    make: Callable[..., type] = meta if plain else functools.partial(type.__new__, meta)
    return make(cls.__name__, (*quiet, *bases), dict(body))


def _init_subclass(cls: type) -> Any:
    return getattr(cls.__init_subclass__, "__func__", object)


class _Quiet:
    def __init_subclass__(cls, **settings: Any) -> None:
        """Says nothing to the classes behind it."""
