"""Putting a plan into a live model: init factors and multipliers, on these instances alone.

A multiplier goes where it costs nothing: into the attribute that holds the author's constant; else
into the method that computes with it, recompiled for this instance's class only; else into a hook
on the module whose argument it scales, or into torch's own attention by the query that it scales.
What fits none of these is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from automup.errors import PlanError
from automup.multihead import scale_logits
from automup.plan import Plan
from automup.recompile import Place, with_edits
from automup.rewrite import Edit


@dataclass(frozen=True)
class AttributeChange:
    """Multiply a float attribute of a module."""

    module: str
    attribute: str
    factor: float


@dataclass(frozen=True)
class MethodChange:
    """Recompile a method of a module's class with these edits, for that module alone.

    The edits may stand in a free function that the method calls: ``place.callees`` leads there.
    """

    module: str
    place: Place
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
            case MethodChange(place=place, edits=edits):
                module.__class__ = with_edits(type(module), place, edits)


@dataclass(frozen=True)
class ScaleFirstArgument:
    """A forward pre-hook that multiplies a module's first positional argument."""

    factor: float

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] * self.factor, *args[1:])
