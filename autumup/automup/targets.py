"""Which widths are meant: by a function that builds a model, by a call, by a built model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from automup.capture.values import said
from automup.capture.widths import check_widths
from automup.errors import KnobError, PlanError, UsageError
from automup.models import Models

DEFAULT_BASE = 256


def knobs_of_function(
    model_fn: Callable[..., nn.Module], base: Mapping[str, Any] | int | None
) -> dict[str, Any]:
    """The width knobs of a function that builds the model, with their values at the base.

    Args:
        model_fn: the function.
        base: those values; a number is of its first parameter, as is its default if left out.

    Raises:
        UsageError: it is no such function, or a width is not positive.
        KnobError: it has no width.
    """
    knobs = _knobs(model_fn, base)
    check_widths({n: v for n, v in knobs.items() if type(v) in (int, float)})
    return knobs


def _knobs(
    model_fn: Callable[..., nn.Module], base: Mapping[str, Any] | int | None
) -> dict[str, Any]:
    if not callable(model_fn) or isinstance(model_fn, nn.Module):
        what = "a model" if isinstance(model_fn, nn.Module) else repr(model_fn)[:40]
        raise UsageError(
            f"parametrize takes a function that builds the model, not {what}.",
            fix="Pass the class, or lambda width=256: Model(width).",
        )
    if isinstance(base, Mapping):
        if not base:
            raise KnobError("No width knob: `base` is empty.", fix="Pass base={'width': 256}.")
        return dict(base)
    parameters = list(inspect.signature(model_fn).parameters.values())
    if not parameters:
        raise KnobError(
            f"{getattr(model_fn, '__name__', model_fn)} takes no arguments, so no width can scale.",
            fix="Pass a function of the width, such as lambda width=256: Model(width).",
        )
    first = parameters[0]
    if first.kind in (first.VAR_POSITIONAL, first.VAR_KEYWORD):
        raise KnobError(
            f"No width knob: the model function names no argument, it takes {first}.",
            fix="Name it: base={'width': 256}.",
        )
    default = DEFAULT_BASE if first.default is inspect.Parameter.empty else first.default
    return {first.name: default if base is None else base}


def target_of(
    base: Mapping[str, Any], args: Sequence[Any], knobs: Mapping[str, Any]
) -> dict[str, Any]:
    """The widths that a call names, by position or by keyword; those of the base where it does not.

    Raises:
        KnobError: one is no knob, or given twice.
        UsageError: one is not positive.
    """
    names = list(base)
    if len(args) > len(names):
        raise KnobError(f"{len(args)} widths given for the knobs {', '.join(names)}.")
    given = {**dict(zip(names, args, strict=False)), **knobs}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise KnobError(
            f"{', '.join(unknown)} is no width knob; the knobs are {', '.join(names)}.",
            fix="Fix other arguments in the model function, or name them in `base`.",
        )
    twice = [name for name, _ in zip(names, args, strict=False) if name in knobs]
    if twice:
        raise KnobError(f"{twice[0]} is given twice.", fix="Give each width once.")
    check_widths(given)
    return {**base, **given}


def knobs_of_model(models: Models, model: nn.Module) -> dict[str, Any]:
    """The knobs' values that a model was built with, as far as its shapes tell."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = dict(models.base)
    narrow, wider = (models.shop(k).built.weights for k in (models.base, models.wide))
    for base, wide in zip(narrow, wider, strict=True):
        actual = shapes.get(base.name, base.shape)
        for size, doubled, now in zip(base.shape, wide.shape, actual, strict=False):
            for name, value in models.base.items():
                if (size, doubled) == (value, models.wide[name]):
                    found[name] = now
    return found


def check_shapes(models: Models, model: nn.Module, target: Mapping[str, Any]) -> None:
    """Raise PlanError unless a model's parameters are those of the models at a target."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for weight in models.shop(target).built.weights:
        shape = shapes.pop(weight.name, None)
        if shape != weight.shape:
            here = f"has shape {shape} here" if shape is not None else "is missing here"
            raise PlanError(
                f"This is not the parametrized model at {said(target)}: {weight.name}, of "
                f"shape {weight.shape} there, {here}.",
                fix="Build it by the same function, and pass the widths that it was built "
                "with: mu.apply(model, width=...).",
            )
    if shapes:
        raise PlanError(
            f"This is not the parametrized model: it has no {next(iter(shapes))}.",
            fix="Build it by the same function.",
        )
