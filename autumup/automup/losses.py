"""How a model is called on a batch of (x, y), and the loss of what it returns; shapes decide."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automup.capture.arguments import parameters_of, tensors_in
from automup.capture.nested import tensors_of, with_tensors
from automup.capture.raised import describe, place_of
from automup.capture.trace import Inputs
from automup.errors import UsageError

FIX = "Write a Python file with batches(batch_size, seed) and loss(model, batch): --data file.py."


@dataclass(frozen=True, eq=False)
class Form:
    """How to call a model on a batch, and where the loss is in what it returns.

    Args:
        example: an example call; ``x`` is the tensor in it that a batch's inputs stand for, any
            other tensor in it stands for the targets.
        y: example targets for it.
        targets: the optional argument of forward that gets the targets; or nothing.
        last: the model returns one row of logits for a window: the targets are its last ones.
        own: the model returns a loss and no logits.
    """

    example: Inputs
    x: Tensor
    y: Tensor
    targets: str = ""
    last: bool = False
    own: bool = False

    def call(self, model: nn.Module, x: Tensor, y: Tensor) -> Any:
        """What the model returns for a batch."""
        given = (tuple(self.example.args), dict(self.example.kwargs))
        args, kwargs = with_tensors(given, lambda tensor: x if tensor is self.x else y)
        return model(*args, **kwargs, **({self.targets: y} if self.targets else {}))

    def logits(self, output: Any, y: Tensor) -> tuple[Tensor, Tensor] | None:
        """The logits (..., classes) in an output, and their targets (...); None without any.

        Raises:
            UsageError: several tensors have the shape of logits.
        """
        y = y[:, -1] if self.last else y
        found = [
            t
            for t in tensors_of(output)
            if t.is_floating_point() and t.shape[:-1] == y.shape and t.shape[-1] > 1
        ]
        if len({t.shape for t in found}) > 1:
            shapes = ", ".join(str(tuple(t.shape)) for t in found)
            raise UsageError(f"The model returns several tensors like logits: {shapes}.", fix=FIX)
        return (found[0], y) if found else None

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy of the model's logits at the targets, or the model's own loss."""
        output = self.call(model, x, y)
        if self.own:
            return _scalars(output)[0]
        found = self.logits(output, y)
        if found is None:
            raise UsageError(f"The model returns no logits for targets {tuple(y.shape)}.", fix=FIX)
        logits, targets = found
        return F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())

    def classes(self, model: nn.Module) -> int | None:
        """How many classes the model's logits tell apart; None if it returns only a loss."""
        if self.own:
            return None
        with _left_as_it_was(model):
            found = self.logits(self.call(model, self.x, self.y), self.y)
        return None if found is None else found[0].shape[-1]

    def check(self, model: nn.Module, token: int) -> None:
        """Refuse a model of tokens that cannot take this one.

        Raises:
            UsageError: it fails on it, for its table is smaller.
        """
        x = torch.full_like(self.x, token)
        try:
            with _left_as_it_was(model):
                self.call(model, x, self.y)
        except Exception as error:
            raise UsageError(
                f"The model cannot take a token {token}: {describe(error)}.",
                where=place_of(error),
                fix="Give it a vocabulary of 256, or a file.py that makes its tokens.",
            ) from error


def form_of(model: nn.Module, example: Inputs, y: Tensor) -> Form:
    """How to train a model on (x, y): found by calling it with and without the targets.

    Args:
        model: any instance of it, on real tensors; it is left as it was.
        example: inputs that make it run. Its first tensor is where x goes; a second one of the
            shape and dtype of ``y`` takes the targets.
        y: example targets: (batch,) of classes, or (batch, time) of tokens.

    Raises:
        UsageError: it needs further inputs, or returns nothing that fits the targets.
    """
    x, *others = tensors_in(example)
    takes_targets = [t.shape == y.shape and t.dtype == y.dtype and t is not x for t in others]
    if not all(takes_targets) or len(others) > 1:
        raise UsageError(f"The model takes {len(others) + 1} tensors, not one.", fix=FIX)
    plain = Form(example, x, y)
    optional = [n for n, p in parameters_of(model).items() if p.default is None]
    given = [replace(plain, targets=n) for n in optional if n not in example.kwargs]
    with _left_as_it_was(model):
        return _choose(model, plain, given, takes_targets=any(takes_targets))


def _choose(model: nn.Module, plain: Form, given: list[Form], takes_targets: bool) -> Form:
    """The first form whose output fits: logits for every target, a loss, logits for the last."""
    y = plain.y
    try:
        first = plain.call(model, plain.x, y)
    except Exception as error:
        raise UsageError(
            f"The model fails on its example input: {describe(error)}.",
            where=place_of(error),
            fix="Pass another with --input.",
        ) from error
    if plain.logits(first, y) is not None:
        return plain
    outputs = [(form, output) for form in given for output in _output(form, model)]
    full = [form for form, output in outputs if form.logits(output, y) is not None]
    losses = [(plain, first)] if takes_targets else outputs
    own = [replace(form, own=True) for form, output in losses if len(_scalars(output)) == 1]
    last = replace(plain, last=True)
    short = [last] if y.dim() == 2 and last.logits(first, y) is not None else []
    if not (full or own or short):
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors_of(first)) or "no tensor"
        raise UsageError(
            f"The model returns {shapes}: no logits for targets of shape {tuple(y.shape)}.", fix=FIX
        )
    return (full or own or short)[0]


def _output(form: Form, model: nn.Module) -> Iterator[Any]:
    """What the model returns when an argument is tried, if it takes the targets at all."""
    with contextlib.suppress(Exception):
        yield form.call(model, form.x, form.y)


def _scalars(output: Any) -> list[Tensor]:
    return [t for t in tensors_of(output) if t.dim() == 0 and t.is_floating_point()]


@contextlib.contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Neither the random numbers nor the buffers of the model remember what runs here."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        yield
        for name, buffer in model.named_buffers():
            if name in kept and buffer.shape == kept[name].shape:
                buffer.copy_(kept[name])
