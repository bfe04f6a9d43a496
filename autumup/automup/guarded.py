"""The user's batches, loss and optimizer, whose faults are errors that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from automup.capture.raised import describe, place_of
from automup.errors import AutomupError, TrainingError, UsageError

if TYPE_CHECKING:
    from automup.data import Data


def endless(data: Data, batch_size: int, seed: int) -> Iterator[Any]:
    """Batches without an end: data that ends is begun again, with another seed each time.

    Raises:
        TrainingError: they cannot be made, or there is not one.
    """
    while True:
        call = f"batches({batch_size}, {seed})"
        empty = True
        with _explained(f"The data fails in {call}"):
            for batch in data.batches(batch_size, seed):
                empty = False
                yield batch
        if empty:
            raise TrainingError("The data has no batch.", fix=f"Give {call} at least one.")
        seed += 1_000_003  # no other run's seed


def loss_on(data: Data, model: nn.Module, batch: Any) -> Tensor:
    """The loss of a model on a batch: a real scalar that can be differentiated, unless grad is off.

    Raises:
        TrainingError: it cannot be computed, or is something else.
    """
    with _explained("The loss of a batch cannot be computed"):
        loss = data.loss(model, batch)
    if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
        shown = (
            f"a tensor {tuple(loss.shape)} of {loss.dtype}"
            if isinstance(loss, Tensor)
            else f"a {type(loss).__name__}"
        )
        raise TrainingError(f"The loss is {shown}.", fix="Return a scalar tensor of real numbers.")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise TrainingError(
            "The loss does not depend on the weights, so nothing can be trained.",
            fix="Leave out detach(), item() and no_grad().",
        )
    return loss


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Run the block, code of the user's; TrainingError if that fails, but for automup's own."""
    try:
        yield
    except AutomupError:
        raise
    except Exception as error:
        raise TrainingError(f"{what}: {describe(error)}.", where=place_of(error)) from error


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One training step; TrainingError if the loss or the optimizer cannot take it."""
    optimizer.zero_grad(set_to_none=True)
    with stepping():
        loss.backward()
        optimizer.step()


@contextlib.contextmanager
def stepping() -> Iterator[None]:
    """Run the block, which differentiates a loss or moves weights; TrainingError if that fails."""
    try:
        yield
    except Exception as error:
        raise TrainingError(
            f"A training step fails: {describe(error)}.", where=place_of(error)
        ) from error


def optimizer_of(make: Callable[[], torch.optim.Optimizer], name: str) -> torch.optim.Optimizer:
    """The optimizer that a call makes; UsageError if it does not take its settings."""
    try:
        return make()
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{name} does not take these settings: {describe(error)}.", fix="Choose other values."
        ) from error
