"""Putting a plan into a live model: init factors and multipliers, on these instances alone.

A multiplier goes where it costs nothing: into the attribute that holds the author's constant; else
into the function that computes with it, recompiled for this instance only; else around the forward
of a module whose argument or output it scales, or into torch's own attention by the query that it
scales. What fits none of these is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from automup.compiling import Guard
from automup.edits import Edit
from automup.errors import PlanError
from automup.multihead import scale_logits, without_nested_tensors
from automup.plan import Parameter, Plan
from automup.reach import Path
from automup.recompile import Patch, Scaling, apply_patch, digest_of_file


@dataclass(frozen=True)
class AttributeChange:
    """Multiply a float attribute of a module."""

    module: str
    attribute: str
    factor: float


@dataclass(frozen=True)
class MethodChange:
    """Recompile the function that a path leads to, with these edits, for one module alone.

    ``guards`` are statements that may need another multiplier: it fails if it gets to one.
    """

    module: str
    path: Path
    edits: tuple[Edit, ...]
    guards: tuple[Guard, ...] = ()
    file: str = ""


@dataclass(frozen=True)
class InputChange:
    """Multiply the first argument that a module gets."""

    module: str
    factor: float


@dataclass(frozen=True)
class OutputChange:
    """Multiply the tensor that a module returns."""

    module: str
    factor: float


@dataclass(frozen=True)
class MultiheadChange:
    """Multiply the logits of one of torch's own attention modules."""

    module: str
    factor: float


Change = AttributeChange | MethodChange | InputChange | OutputChange | MultiheadChange


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
            for rows, factor in _rows(parameter, fact):
                if factor != 1.0:
                    rows.mul_(factor)


def _rows(parameter: torch.Tensor, fact: Parameter) -> Iterator[tuple[torch.Tensor, float]]:
    """The parts of a fused weight with their init factors; another weight as it is."""
    if not fact.parts:
        yield parameter, fact.init_mult
        return
    pieces = parameter.split([part.size for part in fact.parts], dim=fact.fan_out_dims[0])
    yield from zip(pieces, (part.init_mult for part in fact.parts), strict=True)


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
                without_nested_tensors(model)
            case InputChange(factor=factor):
                apply_patch(module, Scaling("input", factor))
            case OutputChange(factor=factor):
                apply_patch(module, Scaling("output", factor))
            case MethodChange(path=path, edits=edits, guards=guards, file=file):
                apply_patch(module, Patch(path, edits, digest_of_file(file), guards))
