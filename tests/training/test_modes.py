"""A model in muP under torch.compile, torch.export, checkpointing, autocast and other dtypes."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from small_models import (
    MODELS,
    STEPS,
    TOKENS,
    fresh,
    losses_of_one_process,
    optimizer_of,
    parametrized,
    training,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

import cases
import resnet
from automup import parametrize

every_model = pytest.mark.parametrize("name", MODELS)


@every_model
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_it_compiles_as_one_graph_once(name: str, backend: str) -> None:
    torch.compiler.reset()
    model = fresh(name)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        steps = training(compiled, optimizer_of(name, model))
        losses = [float(next(steps)) for _ in range(STEPS)]
    assert losses == pytest.approx(losses_of_one_process(name), rel=1e-12)


@every_model
def test_models_of_two_widths_compile_side_by_side(name: str) -> None:
    """Neither takes the other's multipliers."""
    torch.compiler.reset()
    for model in (fresh(name), MODELS[name](64).double(), fresh(name, seed=2)):
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(TOKENS), model(TOKENS))


@every_model
def test_it_can_be_exported(name: str) -> None:
    model = fresh(name)
    exported = torch.export.export(model, (TOKENS,), strict=False)
    torch.testing.assert_close(exported.module()(TOKENS), model(TOKENS))


@every_model
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_no_loss(name: str, reentrant: bool) -> None:
    model = fresh(name)
    for block in model.blocks:  # type: ignore[union-attr]
        _checkpointed(block, reentrant)
    steps = training(model, optimizer_of(name, model))
    assert [float(next(steps)) for _ in range(STEPS)] == list(losses_of_one_process(name))


def _checkpointed(block: nn.Module, reentrant: bool) -> None:
    forward = block.forward
    block.forward = lambda *args, **kwargs: checkpoint(  # type: ignore[method-assign]
        partial(forward, **kwargs), *args, use_reentrant=reentrant
    )


@every_model
def test_autocast_changes_losses_by_its_rounding_alone(name: str) -> None:
    model = fresh(name).float()
    steps = training(torch.autocast("cpu", torch.bfloat16)(model), optimizer_of(name, model))
    losses = [float(next(steps)) for _ in range(STEPS)]
    assert losses == pytest.approx(losses_of_one_process(name), rel=2e-2)


@every_model
@pytest.mark.parametrize(
    "dtype, rounding", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
def test_weights_of_another_dtype(name: str, dtype: torch.dtype, rounding: float) -> None:
    """By SGD: Adam squares gradients, which are then too small for half precision."""
    losses = []
    for model in (fresh(name), fresh(name).to(dtype)):
        optimizer = parametrized(name).optimizer(model, torch.optim.SGD, lr=0.1)
        losses.append([float(x) for x in itertools.islice(training(model, optimizer), STEPS)])
    assert model(TOKENS).dtype is dtype
    assert losses[1] == pytest.approx(losses[0], rel=rounding)


def test_channels_last_changes_nothing() -> None:
    mu = parametrize(cases.RESNET.build, base={"width": 8}, inputs=cases.RESNET.inputs)
    losses = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        model = mu(16).double().to(memory_format=layout)
        assert isinstance(model, resnet.ResNet)
        optimizer = mu.optimizer(model, lr=1e-2)
        images = cases.IMAGES.double().to(memory_format=layout)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), cases.CLASSES[: len(images)])
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
