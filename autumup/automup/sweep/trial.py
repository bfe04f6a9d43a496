"""One run: a model is built, trained for some steps, and its loss is a number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from automup.constants import Constants
from automup.data import Data, to_device
from automup.errors import UsageError
from automup.guarded import endless, loss_on, optimizer_of, take_step
from automup.optim import optimizer_class_of, plain_optimizer
from automup.sweep.settings import Point, Settings, split

if TYPE_CHECKING:
    from automup.api import Mup
    from automup.study import Study

#: How many losses are read at once: each reading waits for the GPU.
_READ = 10


@dataclass(frozen=True)
class Trainer:
    """Everything that a run needs besides its point.

    Args:
        mup: the model in muP.
        study: the same model as its author builds it.
        data: batches and loss.
        settings: steps, batch size, optimizer, and what part of a run counts.
        device: where to train.
        constants: muP's, in place of those of ``mup``, and settings of its optimizer.
    """

    mup: Mup
    study: Study
    data: Data
    settings: Settings
    device: torch.device
    constants: Mapping[str, float] = field(default_factory=dict)

    def rehearse(self) -> None:
        """One step at the narrowest width, so that what fails there fails before all else.

        Raises:
            UsageError: the model, the data or the optimizer does not take what the settings say.
            TrainingError: a step fails.
        """
        settings = self.settings
        for multiple in settings.multiples:
            self.study.models.scaled_knobs(multiple)
        choices = {item.name: item.choices or (item.low, item.high) for item in settings.tune}
        for name, values in choices.items():
            for value in values:
                replace(self, constants={name: value})._tuned()
        point = Point("mup", min(settings.multiples), min(settings.lrs), 0)
        next(replace(self, settings=replace(settings, steps=1)).losses(point))

    def result(self, point: Point) -> float:
        """The mean loss over the last part of a run; infinite if it diverged."""
        return score(list(self.losses(point)), self.settings)

    def losses(self, point: Point) -> Iterator[float]:
        """The losses of a run, step by step, up to the first one that is not finite."""
        torch.manual_seed(point.seed)
        model = self._model(point).to(self.device)
        optimizer = self._optimizer(model, point)
        settings = self.settings
        batches = endless(self.data, settings.batch_size, point.seed)
        waiting: list[torch.Tensor] = []
        for number, batch in enumerate(islice(batches, settings.steps), 1):
            loss = loss_on(self.data, model, to_device(batch, self.device))
            take_step(optimizer, loss)
            waiting.append(loss.detach())
            if len(waiting) == _READ or number == settings.steps:
                values: list[float] = torch.stack(waiting).tolist()
                waiting.clear()
                for value in values:
                    yield value
                    if not math.isfinite(value):
                        return

    def _model(self, point: Point) -> nn.Module:
        knobs = self.study.models.scaled_knobs(point.multiple)
        if point.parametrization == "sp":
            model = self.study.models.drawn(knobs)
        else:
            model = self._tuned()(**knobs)
        return model.train()

    def _optimizer(self, model: nn.Module, point: Point) -> torch.optim.Optimizer:
        cls: Any = optimizer_class_of(self.settings.optimizer)
        given = {"lr": point.lr, **self.settings.options}
        if point.parametrization == "sp":
            plan = self.mup.plan()
            return optimizer_of(lambda: plain_optimizer(plan, model, cls, **given), cls.__name__)
        tuned, given = self._tuned(), {**given, **split(self.constants)[1]}
        return optimizer_of(lambda: tuned.optimizer(model, cls, **given), cls.__name__)

    def _tuned(self) -> Mup:
        return self.mup.with_constants(Constants.of(split(self.constants)[0]))


def score(losses: Sequence[float], settings: Settings) -> float:
    """The mean of the last part of a run's losses so far; infinite if one is not finite."""
    if not losses or not math.isfinite(losses[-1]):
        return math.inf
    count = max(1, math.ceil(len(losses) * settings.last))
    return sum(losses[-count:]) / count


def choose_device(name: str = "") -> torch.device:
    """The device of that name; left out, the first GPU that the process sees, else the CPU.

    Raises:
        UsageError: there is no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"No device {name!r}: {str(error).splitlines()[0]}.") from error
    return device
