"""``mu.sweep`` and ``mu.transfer``: the same sweep from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from subject import Net, Numbers

import automup
import automup.api
from automup.cli.sweep import _devices
from automup.errors import PlanError, UsageError
from automup.optim import optimizer_class_of
from automup.sweep.results import SweepResult

SMALL = {"widths": (1, 2), "lr": (0.01, 0.02, 0.04), "seeds": 1, "steps": 6, "quiet": True}


@pytest.fixture(scope="module")
def mu() -> automup.api.Mup:
    return automup.parametrize(lambda width=8: Net(width=width), inputs=(torch.zeros(2, 3),))


def test_a_sweep_in_memory_and_one_in_a_folder_are_the_same(
    mu: automup.api.Mup, tmp_path: Path
) -> None:
    in_memory = mu.sweep(Numbers(), **SMALL)
    kept = mu.sweep(Numbers(), **SMALL, out=tmp_path / "out")
    assert in_memory.runs == kept.runs == SweepResult.load(tmp_path / "out").runs
    assert in_memory.about["data"] == "Numbers"


def test_constants_of_the_model_are_kept_and_transferred(mu: automup.api.Mup) -> None:
    tuned = mu.with_constants(automup.Constants(output_mult=2.0, hidden_lr=0.5))
    plain, found = mu.sweep(Numbers(), **SMALL), tuned.sweep(Numbers(), **SMALL)
    assert found.about["constants"] == {"output_mult": 2.0, "hidden_lr": 0.5}
    point = next(p for p in found.runs if p.parametrization == "mup")
    assert found.runs[point] != plain.runs[point]
    config = tuned.transfer(found, 32)
    assert config.target == {"width": 32}
    (group,) = (g for g in config.groups if g.parameters == "mix.weight")
    assert group.lr == pytest.approx(config.lr * 0.5 / 4)


def test_tuning_replaces_the_constants_that_it_names(mu: automup.api.Mup) -> None:
    tuned = mu.with_constants(automup.Constants(output_mult=2.0, hidden_lr=0.5))
    found = tuned.sweep(Numbers(), **SMALL, tune={"hidden_lr": "1,2"}, trials=3)
    assert found.about["constants"]["output_mult"] == 2.0
    assert found.about["constants"]["hidden_lr"] in (1.0, 2.0)


def test_a_configuration_from_python_has_no_model(mu: automup.api.Mup, tmp_path: Path) -> None:
    mu.transfer(mu.sweep(Numbers(), **SMALL), width=32).save(tmp_path / "wide.json")
    with pytest.raises(UsageError, match="run in Python"):
        automup.Transfer.load(tmp_path / "wide.json").make_model()
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(PlanError, match="Not a configuration"):
        automup.Transfer.load(tmp_path / "other.json")


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_what_a_configuration_says_is_what_its_optimizer_does(
    mu: automup.api.Mup, optimizer: str
) -> None:
    config = mu.transfer(mu.sweep(Numbers(), **SMALL, optimizer=optimizer), width=32)
    model = mu(32)
    made = mu.optimizer(model, optimizer_class_of(optimizer), lr=config.lr)
    of_tensor = {id(p): g for g in made.param_groups for p in g["params"]}
    names = {id(p): name for name, p in model.named_parameters()}
    assert len(of_tensor) == len(names)
    lrs = {name: g.lr for g in config.groups for name in g.parameters.split()}
    for identity, group in of_tensor.items():
        assert group["lr"] == pytest.approx(lrs[names[identity]]), names[identity]


def test_each_gpu_that_is_visible_gets_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _devices() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5f1c")
    assert _devices() == ["2", "GPU-5f1c"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert _devices() == []
