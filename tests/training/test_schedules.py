"""Which schedulers keep the ratios between the groups' rates, and that the rest is noticed."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR

import automup
import mlp
from automup.plan import Plan

LR = 0.1
MU = automup.parametrize(lambda width=32: mlp.MLP(width=width), inputs=(torch.randn(2, 64),))


def made(**settings: Any) -> torch.optim.Optimizer:
    model = MU(128)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return MU.optimizer(model, **{"lr": LR, **settings})


def kept(optimizer: torch.optim.Optimizer) -> bool:
    rates = [float(g["lr"]) / g["lr_mult"] for g in optimizer.param_groups]
    return rates == pytest.approx([rates[0]] * len(rates), rel=1e-6)


def half(step: int) -> float:
    return 0.5**step


def times(optimizer: torch.optim.Optimizer, rate: float) -> list[float]:
    return [rate * group["lr_mult"] for group in optimizer.param_groups]


Schedule = Callable[[torch.optim.Optimizer], Any]
KEEP: dict[str, Schedule] = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, half),
    "warm-up": lambda o: schedulers.LambdaLR(o, lambda step: min(1.0, step / 3)),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda step: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 2),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, 0.3, 3),
    "LinearLR": lambda o: schedulers.LinearLR(o, 0.1),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.7),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 5),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, 0.1, total_iters=2), schedulers.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.LinearLR(o, 0.1), schedulers.StepLR(o, 2)]
    ),
    "OneCycleLR, each max_lr": lambda o: schedulers.OneCycleLR(o, times(o, LR), total_steps=9),
    "CyclicLR, each base_lr and max_lr": lambda o: schedulers.CyclicLR(
        o, times(o, LR / 10), times(o, LR), 3, cycle_momentum=False
    ),
    "ReduceLROnPlateau, each min_lr": lambda o: schedulers.ReduceLROnPlateau(
        o, patience=0, min_lr=times(o, LR / 4)
    ),
    "SWALR, each swa_lr": lambda o: SWALR(o, times(o, LR / 4), anneal_epochs=3),
}
BEND: dict[str, Schedule] = {
    "CosineAnnealingLR with eta_min": lambda o: schedulers.CosineAnnealingLR(o, 5, LR / 10),
    "CosineAnnealingWarmRestarts with eta_min": (
        lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3, eta_min=LR / 10)
    ),
    "ReduceLROnPlateau with min_lr": lambda o: schedulers.ReduceLROnPlateau(
        o, patience=0, min_lr=LR / 9
    ),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, LR, total_steps=9),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, LR / 10, LR, 3, cycle_momentum=False),
    "SWALR": lambda o: SWALR(o, LR / 4, anneal_epochs=3),
}


def run(optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int = 8) -> list[str]:
    """What the optimizer says while it is scheduled."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        scheduler = schedule(optimizer)
        for _ in range(steps):
            optimizer.step()
            plateau = isinstance(scheduler, schedulers.ReduceLROnPlateau)
            scheduler.step(1.0) if plateau else scheduler.step()
    return [str(w.message) for w in said if "lost muP's ratios" in str(w.message)]


@pytest.mark.parametrize("rate", [LR, torch.tensor(LR)], ids=["number", "tensor"])
@pytest.mark.parametrize("name", KEEP)
def test_these_keep_the_ratios_and_nothing_is_said(name: str, rate: Any) -> None:
    optimizer = made(lr=rate)
    assert run(optimizer, KEEP[name]) == []
    assert kept(optimizer)


def test_two_groups_are_enough_to_be_watched() -> None:
    model = MU(128)
    two = [model.fc_in.weight, model.fc_out.weight]
    optimizer = MU.optimizer(model, torch.optim.Adam, lr=LR, params=two)
    assert len(optimizer.param_groups) == 2
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert len(run(optimizer, BEND["OneCycleLR"])) == 1


@pytest.mark.parametrize("name", BEND)
def test_these_bend_them_and_it_is_said_once(name: str) -> None:
    optimizer = made()
    (said,) = run(optimizer, BEND[name])
    assert "lr_mult" in said
    assert not kept(optimizer)


def test_the_table_has_every_scheduler_of_torch() -> None:
    known = {" ".join(KEEP) + " ".join(BEND)}
    for name, cls in vars(schedulers).items():
        if isinstance(cls, type) and issubclass(cls, schedulers.LRScheduler):
            assert name.strip("_") == "LRScheduler" or name in "".join(known), name


class Absolute:
    """A loop that sets one rate for all."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = LR / 2


class Remedied(Absolute):
    def step(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = LR / 2 * group["lr_mult"]


def test_a_loop_that_sets_rates_and_its_remedy() -> None:
    optimizer = made()
    (said,) = run(optimizer, Absolute)
    assert "0.05 where lr_mult is 1 and 0.05 where lr_mult is 0.25" in said
    assert run(optimizer, Absolute) == []
    assert run(made(), Remedied) == []


def copied(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return copy.deepcopy(optimizer)


def pickled(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = pickle.loads(pickle.dumps(optimizer))
    return made


def loaded(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    other = made()
    other.load_state_dict(optimizer.state_dict())
    return other


def anothers(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """One that a trainer makes of the groups."""
    return torch.optim.AdamW([dict(group) for group in optimizer.param_groups], lr=1.0)


@pytest.mark.parametrize("change", [copied, pickled, loaded, anothers])
def test_it_is_noticed_by_every_optimizer_with_these_groups(change: Any) -> None:
    optimizer = change(made())
    assert run(optimizer, KEEP["StepLR"]) == []
    assert len(run(optimizer, Absolute)) == 1


@pytest.mark.parametrize("settings", [{"foreach": True}, {"fused": True}, {"amsgrad": True}])
def test_whatever_the_implementation(settings: dict[str, bool]) -> None:
    assert len(run(made(**settings), Absolute)) == 1


def test_the_users_groups_may_have_rates_of_their_own() -> None:
    model = MU(128)
    groups = [
        {"params": list(model.fc_in.parameters()), "lr": 1.0},
        {"params": [*model.hidden.parameters(), *model.fc_out.parameters()]},
    ]
    optimizer = MU.optimizer(model, lr=LR, params=groups)
    for group in optimizer.param_groups[:1]:
        group["lr"] *= 3
    assert run(optimizer, KEEP["StepLR"]) == []
    assert len(run(optimizer, Absolute)) == 1


def test_other_optimizers_are_left_alone() -> None:
    made()
    model = torch.nn.Linear(2, 2)
    groups = [{"params": [p], "lr_mult": 1 / (1 + i)} for i, p in enumerate(model.parameters())]
    assert run(torch.optim.SGD(groups, lr=LR), Absolute) == []
    assert run(MU.optimizer(MU(32), lr=LR), Absolute) == []


def test_muon_and_the_rest_have_rates_of_their_own() -> None:
    model = MU(128)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = MU.optimizer(model, torch.optim.Muon, lr=LR, rest={"lr": LR / 7})
    assert run(optimizer, KEEP["StepLR"]) == []
    assert len(run(optimizer, Absolute)) == 1


def test_it_stays_out_of_a_compiled_step() -> None:
    torch.compiler.reset()
    optimizer = made(lr=torch.tensor(LR))
    step = torch.compile(optimizer.step, backend="eager", fullgraph=False)
    before = [p.detach().clone() for g in optimizer.param_groups for p in g["params"]]
    step()
    after = [p for g in optimizer.param_groups for p in g["params"]]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_plan_without_a_model_file_watches_too() -> None:
    plan = Plan.from_json(MU.plan(128).to_json())
    model = MU(128)
    optimizer = automup.optim.optimizer(plan, model, lr=LR)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert len(run(optimizer, Absolute)) == 1
