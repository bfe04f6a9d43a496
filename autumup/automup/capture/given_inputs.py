"""Example inputs that the user gives: ``--input`` on the command line, ``inputs=`` in Python."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from automup.capture.arguments import call_form
from automup.capture.inputs import InputMaker
from automup.capture.recipes import Recipe
from automup.capture.trace import Inputs
from automup.errors import InputError, UsageError

LARGEST = 1 << 28
"""Elements of the largest example input: a gigabyte of floats."""

_SPEC = re.compile(r"(?:([A-Za-z_][\w.]*)\s*:)?\s*(\w+)\s*\[([\d,\s]*)\]\s*(?:<\s*(\d+))?")
_DTYPES = {"long": "int64", "int": "int32", "float": "float32", "half": "float16"}


def parse_inputs(specs: Sequence[str]) -> InputMaker:
    """The maker of ``["idx:int64[2,16]<96", "float32[2,3,32,32]"]``.

    Raises:
        UsageError: a spec is not NAME:DTYPE[SIZES]<BOUND (the name and the bound are optional).
    """
    named: dict[str, Recipe] = {}
    plain: list[Recipe] = []
    for spec in specs:
        name, recipe = _parse_input(spec)
        if name in named:
            raise UsageError(f"--input {name} is given twice.", fix="Give each name once.")
        if name:
            named[name] = recipe
        else:
            plain.append(recipe)

    def make(model: nn.Module) -> Inputs:
        _check_names(model, named)
        values = {name: recipe.make(model) for name, recipe in named.items()}
        first = tuple(recipe.make(model) for recipe in plain)
        return _taken(Inputs(first, values) if first else call_form(model, values), model)

    return make


def _taken(inputs: Inputs, model: nn.Module) -> Inputs:
    """The inputs, if forward takes as many and by these names; InputError if it does not."""
    try:
        inspect.signature(model.forward).bind(*inputs.args, **inputs.kwargs)
    except TypeError as error:
        raise InputError(
            f"{type(model).__name__}.forward cannot be called with these inputs: {error}.",
            fix=f"It is forward{inspect.signature(model.forward)}.",
        ) from None
    return inputs


def _check_names(model: nn.Module, names: Iterable[str]) -> None:
    known = inspect.signature(model.forward).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for name in (n.partition(".")[0] for n in names):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1) or list(known)
            raise InputError(
                f"{type(model).__name__}.forward has no argument {name!r}.",
                fix=f"Did you mean {close[0]!r}?" if close else "It takes none.",
            )


def _parse_input(spec: str) -> tuple[str, Recipe]:
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        raise UsageError(
            f"--input {spec!r} is not NAME:DTYPE[SIZES].",
            fix="Write 'idx:int64[2,16]<96' or 'x:float32[2,3,32,32]'.",
        )
    name, kind, sizes, bound = match.groups()
    dtype = getattr(torch, _DTYPES.get(kind, kind), None)
    if not isinstance(dtype, torch.dtype) or dtype.is_complex:
        raise UsageError(
            f"--input {spec!r}: {kind!r} is not a dtype.", fix="Use int64, float32 or bool."
        )
    integral = not dtype.is_floating_point and dtype is not torch.bool
    if bound and (not integral or int(bound) < 1):
        raise UsageError(
            f"--input {spec!r}: the bound < is for integers, and at least 1.", fix="Drop it."
        )
    shape = tuple(int(s) for s in sizes.replace(" ", "").split(",") if s)
    if math.prod(shape) > LARGEST:
        raise UsageError(
            f"--input {spec!r}: too large for an example.", fix="Fewer samples say as much."
        )
    return name or "", Recipe(shape, int(bound or 2) if integral else None, dtype)


def as_maker(inputs: Any) -> InputMaker | None:
    """A tensor, a tuple, a dict of keyword tensors, or a callable of the model; None stays None.

    Raises:
        UsageError: it is none of these.
    """
    if inputs is None:
        return None
    if callable(inputs) and not isinstance(inputs, torch.Tensor | nn.Module):
        return lambda model: _taken(_normalised(inputs(model)), model)
    fixed = _normalised(inputs)
    return lambda model: _taken(fixed, model)


def _normalised(value: Any) -> Inputs:
    if isinstance(value, Inputs):
        return value
    if isinstance(value, torch.Tensor):
        return Inputs((value,))
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return Inputs((), dict(value))
    if isinstance(value, tuple | list):
        return Inputs(tuple(value))
    raise UsageError(
        f"inputs is {type(value).__name__}.",
        fix="Pass a tuple of tensors, a dict of keyword tensors, or a function of the model.",
    )
