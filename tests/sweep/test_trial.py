"""One run: the same for the same point, muP and SP alike at the base, a divergence is a number."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from subject import Net, Numbers, trainer

from automup.errors import TrainingError, UsageError
from automup.guarded import endless
from automup.sweep.settings import Point, Settings
from automup.sweep.trial import choose_device, score

BASE = Point("mup", 1.0, 0.01, 0)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_at_the_base_mup_and_sp_are_one_run(optimizer: str) -> None:
    runs = trainer(optimizer=optimizer)
    losses = list(runs.losses(BASE))
    assert len(losses) == 12
    assert losses == list(runs.losses(replace(BASE, parametrization="sp")))
    wide = replace(BASE, multiple=4.0)
    assert list(runs.losses(wide)) != list(runs.losses(replace(wide, parametrization="sp")))


def test_a_run_is_the_plain_training_loop() -> None:
    runs = trainer(optimizer="sgd", options={"momentum": 0.9})
    torch.manual_seed(3)
    model = Net(width=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for batch in islice(Numbers().batches(4, 3), 12):
        loss = Numbers().loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert list(runs.losses(Point("sp", 2.0, 0.01, 3))) == losses
    assert runs.result(Point("sp", 2.0, 0.01, 3)) == pytest.approx(sum(losses[6:]) / 6)


def test_a_run_that_diverges_is_infinitely_bad_and_short() -> None:
    runs = trainer(optimizer="sgd", steps=200)
    point = Point("sp", 4.0, 1e6, 0)
    losses = list(runs.losses(point))
    assert len(losses) < 200 and not math.isfinite(losses[-1])
    assert runs.result(point) == math.inf


def test_constants_reach_the_model_and_the_optimizer() -> None:
    runs = trainer()
    same = replace(runs, constants={"output_mult": 1.0})
    assert list(same.losses(BASE)) == list(runs.losses(BASE))
    for constants in ({"output_mult": 2.0}, {"hidden_lr": 0.5}, {"output_init": 0.0}):
        tuned = list(replace(runs, constants=constants).losses(BASE))
        assert tuned != list(runs.losses(BASE))


def test_the_score_is_the_mean_of_the_last_part() -> None:
    settings = Settings(lrs=(0.1,), last=0.25)
    assert score([9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 2.0], settings) == 1.5
    assert score([9.0], settings) == 9.0
    assert score([1.0, math.nan], settings) == score([], settings) == math.inf


def test_data_that_ends_is_begun_again_with_other_batches() -> None:
    four = list(islice(endless(Numbers(2), 4, 0), 4))
    assert len(four) == 4
    assert torch.equal(four[0][0], next(Numbers().batches(4, 0))[0])
    assert not torch.equal(four[0][0], four[2][0])
    with pytest.raises(TrainingError, match="no batch"):
        next(endless(Numbers(0), 4, 0))


def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="No device 'nowhere'"):
        choose_device("nowhere")
