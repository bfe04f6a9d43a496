"""An optimizer's settings: their defaults, and those that follow the plan, scaled."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from automup.errors import UsageError
from automup.optimizers import Known
from automup.rules import Multipliers

#: The settings that follow the plan. ``lambd`` is ASGD's.
SCALED = ("lr", "weight_decay", "eps", "lambd")


def defaults_of(make: Any, given: Iterable[str]) -> dict[str, Any]:
    """An optimizer's settings with their defaults; UsageError if it does not take a given one.

    A constructor that takes ``**kwargs`` hands them on, so it has its parent's settings too.
    """
    settings: dict[str, Any] = {}
    variadic = False
    classes = reversed(make.__mro__) if isinstance(make, type) else ()
    chain = [vars(c)["__init__"] for c in classes if "__init__" in vars(c)] or [make]
    for constructor in chain:
        parameters = inspect.signature(constructor).parameters.values()
        variadic = any(p.kind is p.VAR_KEYWORD for p in parameters)
        own = {p.name: p.default for p in parameters if not str(p).startswith("*")}
        settings = {**settings, **own} if variadic else own
    takes = [key for key in settings if key not in ("self", "params", "param_groups")]
    unknown = ", ".join(key for key in given if key not in takes)
    if unknown and not variadic:
        name = getattr(make, "__qualname__", make)
        raise UsageError(f"{name} takes no {unknown}.", fix=f"It takes {', '.join(takes)}.")
    return settings


def values_of(settings: Mapping[str, Any], known: Known) -> dict[str, Any]:
    """Those of a group's settings that follow the plan, with their values at the base.

    Raises:
        UsageError: one of them is of a kind that has no rule.
    """
    if settings.get("relative_step", False):
        raise UsageError(
            "With relative_step=True the optimizer sets its own learning rate at each step, the "
            "same for every weight.",
            fix="Pass relative_step=False and a learning rate.",
        )
    if isinstance(settings.get("initial_accumulator_value"), Real) and (
        settings["initial_accumulator_value"] != 0
    ):
        raise UsageError(
            "initial_accumulator_value is one number for all weights, and compares with the square "
            "of a gradient, which changes with width.",
            fix="Leave it at 0.",
        )
    keys = [k for k in SCALED if k != "eps" or known.family != "sgd"]
    values = {k: settings[k] for k in keys if isinstance(settings.get(k), Real | Tensor)}
    if known.pair and isinstance(settings.get("eps"), tuple | list):
        values["eps"] = tuple(settings["eps"])
    if "lr" not in values:
        raise UsageError("The learning rate is not a number or a tensor.", fix="Pass lr=...")
    return values


def scaled_value(
    key: str, value: Any, factors: Multipliers, known: Known, dtype: torch.dtype
) -> Any:
    """One setting's value for a parameter of this dtype."""
    if not isinstance(value, tuple):
        return times(value, getattr(factors, key))
    first, floor = value
    eps = factors.eps**2 if known.squared_eps else factors.eps
    if first is None and eps != 1.0:  # torch's default there
        first = torch.finfo(dtype).eps
    return first if first is None else first * eps, floor * factors.floor


def times(value: Any, factor: float) -> Any:
    """value * factor: a new tensor of a tensor, since schedulers write into theirs."""
    if factor != 1:
        return value * factor
    return value.clone() if isinstance(value, Tensor) else value


def at_base(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the caller gave them, with tensors of their own."""
    return {key: times(value, 1.0) for key, value in settings.items()}
