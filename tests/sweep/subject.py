"""A tiny model and its data, for sweeps that take a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automup.api import Mup
from automup.capture.given_inputs import as_maker
from automup.study import open_study
from automup.sweep.settings import Settings
from automup.sweep.trial import Trainer

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.stem, self.mix = nn.Linear(3, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(torch.relu(self.mix(torch.relu(self.stem(x)))))
"""

DATA = """
import torch


def batches(batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(batch_size, 3, generator=generator)
        yield x, torch.stack((x[:, 0] * x[:, 1], x[:, 2].abs()), dim=1)


def loss(model, batch):
    x, y = batch
    return (model(x) - y).square().mean()
"""

_MODEL: dict[str, Any] = {"__name__": "net"}
exec(compile(MODEL, "net.py", "exec"), _MODEL)
Net: type[nn.Module] = _MODEL["Net"]


@dataclass(frozen=True)
class Numbers:
    """x and a function of it; ``count`` batches, or without an end."""

    count: int = -1

    def batches(self, batch_size: int, seed: int) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(seed)
        left = self.count
        while left:
            x = torch.randn(batch_size, 3, generator=generator)
            yield x, torch.stack((x[:, 0] * x[:, 1], x[:, 2].abs()), dim=1)
            left -= 1

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        return (model(x) - y).square().mean()


def trainer(**settings: Any) -> Trainer:
    """What runs the tiny model."""
    study = open_study(lambda k: Net(**k), {"width": 8}, as_maker((torch.zeros(2, 3),)))
    mup = Mup(study, lambda **knobs: study.models.drawn(knobs), strict=True)
    own = Settings(**{"lrs": (0.01,), "steps": 12, "seeds": 2, "batch_size": 4, **settings})
    return Trainer(mup, study, Numbers(), own, torch.device("cpu"))
