"""What people do to a model before and during training leaves it in muP, to the last bit."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_models import (
    MODELS,
    STEPS,
    TOKENS,
    WIDTH,
    fresh,
    losses_of_one_process,
    optimizer_of,
    parametrized,
    training,
)
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from automup.errors import UsageError

every_model = pytest.mark.parametrize("name", MODELS)


def assert_trains_alike(name: str, model: nn.Module) -> None:
    steps = training(model, optimizer_of(name, model))
    assert [float(next(steps)) for _ in range(STEPS)] == list(losses_of_one_process(name))


def pickled(model: nn.Module) -> nn.Module:
    made: nn.Module = pickle.loads(pickle.dumps(model))
    return made


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


def averaged(model: nn.Module) -> nn.Module:
    """The average of this model alone."""
    average = AveragedModel(model)
    average.update_parameters(model)
    module: nn.Module = average.module
    return module


def thrice(model: nn.Module) -> nn.Module:
    return copy.deepcopy(pickled(copy.deepcopy(model)))


@every_model
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved, averaged, thrice])
def test_a_copy_trains_as_the_model(name: str, copied: Callable[[nn.Module], nn.Module]) -> None:
    assert_trains_alike(name, copied(fresh(name)))


@every_model
def test_its_weights_make_any_other_the_same(name: str, tmp_path: Path) -> None:
    model, second, third = fresh(name), fresh(name, seed=2), fresh(name, seed=3)
    safetensors.torch.save_model(model, str(tmp_path / "weights"))
    second.load_state_dict(model.state_dict())
    safetensors.torch.load_model(third, str(tmp_path / "weights"))
    assert_trains_alike(name, second)
    assert_trains_alike(name, third)


@every_model
def test_loaded_weights_are_left_as_they_are(name: str) -> None:
    plain = MODELS[name](WIDTH).double()
    plain.load_state_dict(fresh(name).state_dict())
    assert_trains_alike(name, parametrized(name).apply(plain, rescale=False))


@every_model
def test_a_moving_average_computes_as_a_model_with_its_weights(name: str) -> None:
    model = fresh(name)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for _ in itertools.islice(training(model, optimizer_of(name, model)), 3):
        average.update_parameters(model)
    other = fresh(name, seed=2)
    other.load_state_dict(average.module.state_dict())
    assert torch.equal(average(TOKENS), other(TOKENS))
    assert not torch.allclose(average(TOKENS), model(TOKENS))


@every_model
@pytest.mark.parametrize("settings", [{"foreach": True}, {"fused": True}], ids=str)
def test_a_resumed_run_has_the_losses_of_one_that_was_not(
    name: str, settings: dict[str, bool]
) -> None:
    def begin(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, LambdaLR]:
        model = fresh(name, seed)
        optimizer = optimizer_of(name, model, **settings)
        return model, optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))

    def go(model: nn.Module, optimizer: torch.optim.Optimizer, schedule: LambdaLR) -> list[float]:
        losses = []
        for loss in itertools.islice(training(model, optimizer), 3):
            losses.append(float(loss))
            schedule.step()
        return losses

    through = begin(seed=1)
    first = go(*through)
    file = io.BytesIO()
    torch.save([part.state_dict() for part in through], file)
    file.seek(0)
    resumed = begin(seed=2)
    for part, state in zip(resumed, torch.load(file), strict=True):
        part.load_state_dict(state)
    second = go(*through)
    assert go(*resumed) == second
    assert first != second


@every_model
def test_what_is_not_fresh_is_not_rescaled(name: str) -> None:
    """A second factor, or one on trained weights, would go unnoticed: the loss still falls."""
    mu = parametrized(name)
    trained = MODELS[name](WIDTH)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3)
    next(training(trained, optimizer))
    with pytest.raises(UsageError, match=r"not as the constructor draws them.*rescale=False"):
        mu.apply(trained)
    mu.apply(trained, rescale=False)
    for rescale in (True, False):
        with pytest.raises(UsageError, match="in muP already"):
            mu.apply(trained, rescale=rescale)
        with pytest.raises(UsageError, match="in muP already"):
            mu.apply(mu(WIDTH), rescale=rescale)
    assert mu.apply(MODELS[name](WIDTH).bfloat16()) is not None
