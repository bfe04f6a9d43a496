"""What of a model can be set from outside: the fields of its constructor and of its config.

A *field* is a keyword argument of the constructor, or a field of the config object that it takes;
a config inside a config has dotted names. Width knobs are chosen among the fields.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from automup.capture.config_makers import config_maker, plain_fields
from automup.capture.source import is_user_file

REQUIRED = inspect.Parameter.empty
"""The value of a field that has no default."""


class Fields:
    """The fields of one class or function; those of a config that it takes are nested."""

    def __init__(self, owner: Callable[..., Any], module: ModuleType | None = None) -> None:
        self.owner = owner
        self.defaults: dict[str, Any] = {}
        self.nested: dict[str, Fields] = {}
        self.base: Any = REQUIRED  # the instance that overrides are applied to, if there is one
        for name, (annotation, default) in _parameters(owner).items():
            self.defaults[name] = default
            config = _config_class(annotation, default)
            if config is None and module is not None and default is REQUIRED:
                config = _config_by_name(name, annotation, owner, module)
            if config is None and module is not None and default is REQUIRED:
                self._take_made(name, annotation)
            if config is not None and config is not owner:
                self.nested[name] = Fields(config)
                fresh = isinstance(default, _Factory) and default.make is config
                if default is not REQUIRED and default is not None and not fresh:
                    self.nested[name]._start_from(_value(default))
        # the only config of the model's constructor: its fields need no prefix
        self.unprefixed = module is not None and len(self.nested) == 1

    def _take_made(self, name: str, annotation: Any) -> None:
        """The fields of the config that the model's own class makes, for its one argument."""
        required = [p for p, (_, default) in _parameters(self.owner).items() if default is REQUIRED]
        untyped = annotation in (REQUIRED, None, Any)
        make = config_maker(self.owner) if untyped and inspect.isclass(self.owner) else None
        if make is not None and required == [name]:
            self.nested[name] = Fields(make)
            self.nested[name].defaults = plain_fields(make())

    def _start_from(self, instance: Any) -> None:
        self.base = instance
        for name in self.defaults:
            if hasattr(instance, name):
                self.defaults[name] = getattr(instance, name)
                if name in self.nested:
                    self.nested[name]._start_from(self.defaults[name])

    def flat(self) -> dict[str, Any]:
        """Field name -> default, with dotted names for the fields of nested configs."""
        out: dict[str, Any] = {}
        for name, default in self.defaults.items():
            if name in self.nested:
                prefix = "" if self.unprefixed else f"{name}."
                out |= {prefix + inner: v for inner, v in self.nested[name].flat().items()}
            else:
                out[name] = _value(default)
        return out

    def construct(self, values: Mapping[str, Any]) -> Any:
        """Call the owner with these fields overridden."""
        arguments: dict[str, Any] = {n: v for n, v in values.items() if "." not in n}
        for name, inner in self.nested.items():
            prefix = "" if self.unprefixed else f"{name}."
            known = {prefix + n for n in inner.flat()}
            own = {n.removeprefix(prefix): v for n, v in values.items() if n in known}
            for taken in known:
                arguments.pop(taken, None)
            if own or self.defaults[name] is REQUIRED or self.defaults[name] is None:
                arguments[name] = inner.construct(own)
        if self.base is not REQUIRED and dataclasses.is_dataclass(self.base):
            return dataclasses.replace(typing.cast(Any, self.base), **arguments)
        accepted = _parameters(self.owner, class_attributes=False)
        free = takes_anything(self.owner)
        made = self.owner(**{n: v for n, v in arguments.items() if free or n in accepted})
        for name, value in arguments.items():
            if not free and name not in accepted:  # a class attribute: set on the instance
                setattr(made, name, value)
        return made


@dataclasses.dataclass(frozen=True)
class _Factory:
    make: Callable[[], Any]


def _value(default: Any) -> Any:
    return default.make() if isinstance(default, _Factory) else default


def _parameters(
    owner: Callable[..., Any], class_attributes: bool = True
) -> dict[str, tuple[Any, Any]]:
    """Name -> (annotation, default) of what a class or function takes by keyword."""
    if dataclasses.is_dataclass(owner):
        scope = getattr(owner.__init__, "__globals__", {})
        out = {}
        for f in (f for f in dataclasses.fields(owner) if f.init):
            made = f.default_factory
            missing = REQUIRED if f.default is dataclasses.MISSING else f.default
            default = missing if made is dataclasses.MISSING else _Factory(made)
            out[f.name] = (_resolve(f.type, scope), default)
        return out
    found: dict[str, tuple[Any, Any]] = {}
    for function in _constructors(owner):
        scope = getattr(inspect.unwrap(function), "__globals__", {})
        parameters = list(inspect.signature(function).parameters.values())
        for p in parameters[inspect.isclass(owner) :]:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                found.setdefault(p.name, (_resolve(p.annotation, scope), p.default))
    if inspect.isclass(owner) and class_attributes and not issubclass(owner, nn.Module):
        for name, value in vars(owner).items():  # minGPT's way: defaults as class attributes
            if not name.startswith("_") and isinstance(value, int | float | str | tuple):
                found.setdefault(name, (type(value), value))
    return found


def _constructors(owner: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The function itself; of a class its ``__init__`` and those that it passes **kwargs on to."""
    if not inspect.isclass(owner):
        yield owner
        return
    for cls in owner.__mro__:
        init = vars(cls).get("__init__")
        if cls in (nn.Module, object) or not inspect.isfunction(init):
            continue
        yield init
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(init).parameters.values()):
            return


def takes_anything(owner: Callable[..., Any]) -> bool:
    """True if unknown keywords are passed on to where we cannot see them."""
    *_, last = [None, *_constructors(owner)]
    if last is None:
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(last).parameters.values())


def _resolve(annotation: Any, scope: Mapping[str, Any]) -> Any:
    text = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(text, str):
        try:
            return eval(text, dict(scope))
        except Exception:  # a name that only type checkers import
            return None
    return annotation


def _config_class(annotation: Any, default: Any) -> type | None:
    """The config class that a parameter is annotated with, or that its default is one of."""
    made = type(default.make()) if isinstance(default, _Factory) else type(default)
    for kind in (annotation, *typing.get_args(annotation), made):
        if inspect.isclass(kind) and _is_config(kind):
            return kind
    return None


_NOT_CONFIGS = (nn.Module, torch.Tensor, enum.Enum, int, float, str, bytes, dict, list, set, type)


def _is_config(kind: type) -> bool:
    if issubclass(kind, _NOT_CONFIGS) or kind is REQUIRED or kind is _Factory:
        return False
    if dataclasses.is_dataclass(kind):
        return True
    try:
        own = is_user_file(inspect.getfile(kind))
    except (TypeError, OSError):
        return False
    values = [default for _, default in _parameters(kind).values()] if own else []
    return any(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _config_by_name(
    name: str, annotation: Any, owner: Callable[..., Any], module: ModuleType
) -> type | None:
    """The file's only config class, for an unannotated ``config``."""
    if name not in ("config", "cfg", "conf", "args", "hparams", "params"):
        return None
    if annotation not in (REQUIRED, None, Any):
        return None
    classes = {v for v in vars(module).values() if inspect.isclass(v) and _is_config(v)}
    named = {
        c for c in classes if dataclasses.is_dataclass(c) or c.__name__.endswith(("Config", "Args"))
    }
    named -= {inner.owner for c in named for inner in Fields(c).nested.values()}
    matching = {c for c in named if c.__name__ == f"{getattr(owner, '__name__', '')}Config"}
    chosen = named if len(named) == 1 else matching
    return next(iter(chosen)) if len(chosen) == 1 else None
