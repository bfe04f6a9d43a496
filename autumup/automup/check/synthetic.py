"""A task with structure for any model that runs on its example inputs, the same at every width.

On random targets, or with a large rate, what a short run shows is its transient.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm

from automup.capture.arguments import tensors_in
from automup.capture.nested import tensors_of
from automup.capture.trace import Inputs
from automup.errors import InputError
from automup.models import Models

CLASSES = 8


@dataclass(frozen=True, eq=False)
class Synthetic:
    """The model's example inputs, and targets made of them.

    Args:
        inputs: makes the example inputs for a model.
        growing: which axes of the model's output grow with its width.
    """

    inputs: Callable[[nn.Module], Inputs]
    growing: tuple[bool, ...]

    @staticmethod
    def of(models: Models) -> Synthetic:
        """The task for a model; which axes of its output grow is seen at two widths."""
        both = [settle(models.drawn(knobs)) for knobs in (models.base, models.wide)]
        with torch.no_grad():
            shapes = [output_of(model, models.inputs(model)).shape for model in both]
        return Synthetic(models.inputs, tuple(a != b for a, b in zip(*shapes, strict=True)))

    def batches(self, batch_size: int, seed: int) -> Iterator[None]:
        """The one batch, again and again."""
        return itertools.repeat(None)

    def loss(self, model: nn.Module, batch: None) -> Tensor:
        """See :func:`structured_loss`."""
        inputs = self.inputs(model)
        return structured_loss(output_of(model, inputs), tensors_in(inputs), self.growing)


def output_of(model: nn.Module, inputs: Inputs) -> Tensor:
    """The first floating tensor that the model returns, if it can be the largest of them."""
    result = model(*inputs.args, **inputs.kwargs)
    held = result if isinstance(result, Tensor | tuple | list | dict) else vars(result)
    floating = [t for t in tensors_of(held) if t.is_floating_point()]
    if not floating:
        raise InputError("The model returns no floating tensor to train on.", fix="Pass data.")
    return next((t for t in floating if t.dim()), floating[0])


def structured_loss(output: Tensor, inputs: Sequence[Tensor], growing: Sequence[bool]) -> Tensor:
    """Cross-entropy where the last axis is a finite number of classes, else a distance.

    Args:
        output: what the model returns, (..., classes) or values of any shape.
        inputs: the tensors that it was given: a class is that of the token that is read there.
        growing: which axes of ``output`` grow with width.
    """
    output = output.float()
    if output.dim() in (2, 3) and output.shape[-1] > 1 and not growing[-1]:
        classes = output.shape[-1]
        wanted = _classes(output.shape[:-1], inputs) % classes
        return F.cross_entropy(output.flatten(0, -2), wanted.flatten())
    return (output - _waves(output.shape)).square().mean()


def _classes(lead: Sequence[int], inputs: Sequence[Tensor]) -> Tensor:
    """A few classes: of the token that is read there, else of the example and position."""
    for x in inputs:
        if x.dtype == torch.long and x.shape == lead:
            return x % CLASSES
    return sum((i for i in _indices(lead)), torch.zeros(lead, dtype=torch.long)) % CLASSES


def _indices(shape: Sequence[int]) -> list[Tensor]:
    return list(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij"))


def _waves(shape: Sequence[int]) -> Tensor:
    """Values of size 1 that vary along every axis, and do not change when an axis grows."""
    phase = sum(((1 + d) * i for d, i in enumerate(_indices(shape))), torch.zeros(shape))
    return torch.cos(phase)


def settle(model: nn.Module) -> nn.Module:
    """Eval mode, since dropout is noise; but what normalises in training normalises here, too.

    A batch norm in eval mode is no norm at all before it has seen data: it divides by 1, and a
    network that is built around it shrinks or explodes with depth. A spectral norm in eval mode
    divides by the gain of a random direction.
    """
    model.eval()
    for module in model.modules():
        hooks: Any = module._forward_pre_hooks.values()
        spectral = any(isinstance(h, SpectralNorm) for h in hooks)
        if spectral or isinstance(module, _NormBase | _SpectralNorm):
            module.train()
    return model
