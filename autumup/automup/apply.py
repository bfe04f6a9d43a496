"""Putting a plan into a live model: init factors and multipliers, on these instances alone.

A multiplier goes where it costs nothing: into the attribute that holds the author's constant; else
into the method that computes with it, recompiled for this instance's class only; else into a hook
on the module whose argument it scales, or into torch's own attention by the query that it scales.
What fits none of these is refused by name.
"""

from __future__ import annotations

import linecache
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from automup.errors import PlanError, RewriteError
from automup.multihead import scale_logits
from automup.plan import Plan
from automup.rewrite import Edit, edit_sites


@dataclass(frozen=True)
class AttributeChange:
    """Multiply a float attribute of a module."""

    module: str
    attribute: str
    factor: float


@dataclass(frozen=True)
class MethodChange:
    """Recompile a method of a module's class with these edits, for that module alone."""

    module: str
    function: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class InputChange:
    """Multiply a module's first argument by a hook."""

    module: str
    factor: float


@dataclass(frozen=True)
class MultiheadChange:
    """Multiply the logits of one of torch's own attention modules."""

    module: str
    factor: float


Change = AttributeChange | MethodChange | InputChange | MultiheadChange


def rescale_init(model: nn.Module, plan: Plan) -> None:
    """Multiply freshly drawn weights by the plan's init factors, in place.

    Raises:
        PlanError: if a parameter is not in the plan or has another shape there.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fact = plan.parameter(name)
            if tuple(parameter.shape) != fact.shape:
                raise PlanError(
                    f"{name} has shape {tuple(parameter.shape)}, in the plan {fact.shape}.",
                    fix="Make the plan for this model's width.",
                )
            if fact.init_mult != 1.0:
                parameter.mul_(fact.init_mult)


def multiply(model: nn.Module, changes: Sequence[Change]) -> None:
    """Put multipliers into a live model; other instances of its classes are not affected."""
    for change in changes:
        module = model.get_submodule(change.module)
        match change:
            case AttributeChange(attribute=name, factor=factor):
                setattr(module, name, getattr(module, name) * factor)
            case MultiheadChange(factor=factor):
                assert isinstance(module, nn.MultiheadAttention)
                scale_logits(module, factor)
            case InputChange(factor=factor):
                module.register_forward_pre_hook(ScaleFirstArgument(factor))
            case MethodChange(function=function, edits=edits):
                module.__class__ = with_method(type(module), function, edits)


@dataclass(frozen=True)
class ScaleFirstArgument:
    """A forward pre-hook that multiplies a module's first positional argument."""

    factor: float

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] * self.factor, *args[1:])


def with_method(cls: type, function: str, edits: tuple[Edit, ...]) -> type:
    """A subclass with the same name in which one method is compiled from its edited source."""
    edited: Mapping[str, tuple[Edit, ...]] = getattr(cls, "_automup_edits", {})
    original = getattr(cls, "_automup_class", cls)
    return _edited_class(original, tuple(sorted({**edited, function: edits}.items())))


@cache
def _edited_class(cls: type, edits: tuple[tuple[str, tuple[Edit, ...]], ...]) -> type:
    body: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "__reduce_ex__": _reduce,
        "_automup_class": cls,
        "_automup_edits": dict(edits),
    }
    for function, places in edits:
        method = find_method(cls, function)
        if method is None:
            raise RewriteError(
                f"{function} is not a plain method of {cls.__name__}.",
                fix="Pass the multiplier through an attribute of the module.",
            )
        body[method.__name__] = recompiled(method, places)
    return type(cls)(cls.__name__, (cls,), body)


def _reduce(self: nn.Module, protocol: int) -> tuple[Any, ...]:
    """Pickle by the original class and the edits, so that a saved model keeps its multipliers."""
    kind: Any = type(self)
    return _rebuild, (kind._automup_class, tuple(kind._automup_edits.items())), self.__dict__


def _rebuild(cls: type, edits: tuple[tuple[str, tuple[Edit, ...]], ...]) -> Any:
    edited: Any = _edited_class(cls, edits)
    return edited.__new__(edited)


def find_method(cls: type, function: str) -> types.FunctionType | None:
    """The undecorated method with this qualified name, among a class and its bases."""
    for base in cls.__mro__:
        method = vars(base).get(function.rpartition(".")[2])
        if isinstance(method, types.FunctionType) and method.__code__.co_qualname == function:
            return method
    return None


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
    made = types.FunctionType(
        new, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__dict__ = function.__kwdefaults__, dict(function.__dict__)
    made.__doc__, made.__annotations__ = function.__doc__, function.__annotations__
    made.__qualname__ = function.__qualname__
    return made


def read_source(file: str) -> str:
    """The source text that a code object was compiled from."""
    return "".join(linecache.getlines(file))


def _code_objects(code: types.CodeType) -> list[types.CodeType]:
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return inner + [d for c in inner for d in _code_objects(c)]
