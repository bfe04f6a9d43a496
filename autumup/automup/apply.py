"""Putting a plan into a live model: init factors and multipliers, on these instances alone.

A multiplier goes where it costs nothing: into the attribute that holds the author's constant; else
into the function that computes with it, recompiled for this instance only; else around the forward
of a module whose argument or output it scales, or into torch's own attention by the query that it
scales. What fits none of these is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from automup.capture.init_laws import Law
from automup.capture.laws import contradicts
from automup.compiling import Guard
from automup.edits import Edit
from automup.errors import PlanError, UsageError
from automup.facts import Parameter
from automup.multihead import scale_logits, scale_projected_query, without_nested_tensors
from automup.plan import Plan
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


@dataclass(frozen=True)
class AttentionChange:
    """Multiply the logits of the function of torch's that such a module calls, called by another.

    ``path``: how that module leads to it.
    """

    module: str
    path: Path
    factor: float


Change = (
    AttributeChange | MethodChange | InputChange | OutputChange | MultiheadChange | AttentionChange
)


SAMPLE = 1 << 13
"""Entries of a weight that are looked at to see whether it is freshly drawn."""


def check_fresh(model: nn.Module, laws: Mapping[str, Law]) -> None:
    """Refuse weights that are not as their constructor draws them, as loaded or trained ones.

    Raises:
        UsageError: names one, with its root mean square.
    """
    for name, parameter in model.named_parameters():
        law = laws.get(name)
        if law is None or not law.whole:
            continue
        rows = max(1, SAMPLE * len(parameter) // parameter.numel()) if parameter.dim() else None
        sample = parameter.detach()[:rows] if parameter.dim() else parameter.detach()
        trained = law.std == 0.0 and bool((sample != sample.flatten()[:1]).any())
        if trained or contradicts(law, sample):
            rms = float(sample.double().square().mean().sqrt())
            raise UsageError(
                f"The weights are not as the constructor draws them: {name} has a root mean square "
                f"of {rms:.3g}, there {law.rms:.3g}.",
                fix="Pass rescale=False for weights that were loaded, trained or scaled already; "
                "initialise within the model function.",
            )


def check_plain(model: nn.Module, plain: nn.Module, changes: Sequence[Change]) -> None:
    """Refuse a model that has its multipliers already; ``plain`` is one that has not.

    Raises:
        UsageError: names the module.
    """
    for change in changes:
        module = model.get_submodule(change.module)
        there = hasattr(type(module), "_automup_class")
        if isinstance(change, AttributeChange):
            author = getattr(plain.get_submodule(change.module), change.attribute)
            there = getattr(module, change.attribute) != author
        if there:
            raise UsageError(
                "This model is in muP already; the factors would count twice "
                f"(in {change.module or 'its root'}).",
                fix="Load weights into it with load_state_dict, or build a new one.",
            )


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
            for rows, factor in rows_of(parameter, fact):
                if factor != 1.0:
                    rows.mul_(factor)


def rows_of(parameter: torch.Tensor, fact: Parameter) -> Iterator[tuple[torch.Tensor, float]]:
    """The parts of a fused weight with their init factors; another weight as it is."""
    dim, drawn = fact.drawn
    if len(drawn) == 1:
        yield parameter, drawn[0][-1]
        return
    pieces = parameter.split([size for size, _, _ in drawn], dim=dim)
    yield from zip(pieces, (factor for _, _, factor in drawn), strict=True)


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
            case AttentionChange(path=path, factor=factor):
                scale_projected_query(module, path, factor)
            case InputChange(factor=factor):
                apply_patch(module, Scaling("input", factor))
            case OutputChange(factor=factor):
                apply_patch(module, Scaling("output", factor))
            case MethodChange(path=path, edits=edits, guards=guards, file=file):
                apply_patch(module, Patch(path, edits, digest_of_file(file), guards))
