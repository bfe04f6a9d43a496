"""forward's arguments by name, and those that are dicts or dataclasses of tensors.

A part of such an argument has a dotted name: ``batch.tokens`` is ``batch["tokens"]`` where forward
takes a dict, the field ``tokens`` where it takes a dataclass.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from automup.capture.nested import tensors_of
from automup.capture.trace import Inputs


def parameters_of(model: nn.Module) -> dict[str, inspect.Parameter]:
    """forward's parameters that tensors can be given to; ``*args`` stands for one argument."""
    found = inspect.signature(model.forward).parameters
    return {n: p for n, p in found.items() if p.kind is not p.VAR_KEYWORD}


def call_form(model: nn.Module, named: Mapping[str, Any]) -> Inputs:
    """Leading required parameters go by position, all others by keyword; parts are put together."""
    rest, args = _assembled(model, named), list[Any]()
    for name, p in parameters_of(model).items():
        optional = p.default is not p.empty and "main_input_name" in dir(type(model))
        if name not in rest or optional or p.kind is p.KEYWORD_ONLY:
            break
        args.append(rest.pop(name))
    return Inputs(tuple(args), rest)


def tensors_in(inputs: Inputs) -> list[torch.Tensor]:
    """All tensors that one call is given, also within dicts and dataclasses."""
    return list(tensors_of([inputs.args, dict(inputs.kwargs)]))


def parts_of(model: nn.Module, name: str) -> list[str]:
    """What has to be given for one argument: itself, or a dataclass's fields without defaults.

    Of a dict nothing is known to begin with.
    """
    kind = dataclass_of(model, name)
    if kind is None:
        return [] if takes_dict(model, name) else [name]
    missing = dataclasses.MISSING
    required = [f for f in dataclasses.fields(kind) if f.default is f.default_factory is missing]
    return [f"{name}.{f.name}" for f in required]


def dataclass_of(model: nn.Module, name: str) -> type[Any] | None:
    """The dataclass that forward's parameter is annotated with, if it is one."""
    annotation = _annotations(model).get(name)
    for kind in (annotation, *typing.get_args(annotation)):
        if inspect.isclass(kind) and dataclasses.is_dataclass(kind):
            return kind
    return None


def takes_dict(model: nn.Module, name: str) -> bool:
    """Whether forward's parameter is annotated as a dict or a mapping."""
    annotation = _annotations(model).get(name)
    origin = typing.get_origin(annotation) or annotation
    return inspect.isclass(origin) and issubclass(origin, Mapping)


def _annotations(model: nn.Module) -> dict[str, Any]:
    try:
        return typing.get_type_hints(type(model).forward)
    except Exception:  # a name that only type checkers import
        return {}


def _assembled(model: nn.Module, named: Mapping[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = {**empty_dicts(model)}
    parts: dict[str, dict[str, Any]] = {}
    for name, value in named.items():
        owner, dot, part = name.partition(".")
        if dot:
            parts.setdefault(owner, {})[part] = value
        else:
            whole[owner] = value
    for owner, values in parts.items():
        kind = dataclass_of(model, owner)
        whole[owner] = kind(**values) if kind is not None else values
    return whole


def empty_dicts(model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    """Required arguments that are dicts, without any keys: which they need, a KeyError tells."""
    required = [n for n, p in parameters_of(model).items() if p.default is p.empty]
    return {name: {} for name in required if takes_dict(model, name)}
