"""Muon: the size of its updates measured, its own factor divided out, and all else left to Adam."""

from __future__ import annotations

import copy
import functools
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import automup
import cases
from automup.api import Mup
from automup.errors import UsageError
from automup.optim import Several, plain_optimizer
from automup.optimizers import ADJUSTMENTS, is_matrix
from models_small import model as small

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))

NET = small(
    """
    self.inner = nn.Linear(6, d)
    self.up = nn.Linear(d, 4 * d)
    self.down = nn.Linear(4 * d, d)
    self.stored = nn.Parameter(torch.randn(d, 3 * d) / d**0.5)  # (in, out)
    self.back = nn.Linear(3 * d, d, bias=False)
    self.norm = nn.LayerNorm(d)
    self.head = nn.Linear(d, 5)
    """,
    """
    x = torch.tanh(self.inner(x))
    x = torch.tanh(self.down(torch.tanh(self.up(x))))
    x = self.norm(x + self.back(torch.tanh(x @ self.stored)))
    return self.head(x)
    """,
)
MATRICES = {"up.weight": (4, 1), "down.weight": (1, 4), "stored": (3, 1), "back.weight": (1, 3)}


@functools.cache
def net() -> Mup:
    return automup.parametrize(lambda width=16: NET(width), inputs=(X,))


def two_knobs(d_model: int = 16, d_ff: int = 32) -> nn.Module:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, d_model)
            self.up = nn.Linear(d_model, d_ff)
            self.down = nn.Linear(d_ff, d_model)
            self.head = nn.Linear(d_model, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.tanh(self.inner(x))
            return self.head(torch.tanh(self.down(torch.tanh(self.up(x)))))

    return Mixed()


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(X).square().mean().backward()
    optimizer.step()


def norms_of_update(mu: Mup, knobs: dict[str, int], settings: dict[str, Any]) -> dict[str, float]:
    """Spectral norm of each matrix's first update over that of the orthogonalised gradient."""
    from torch.optim._muon import _zeropower_via_newtonschulz as orthogonalised

    torch.manual_seed(0)
    model = mu(**knobs)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = mu.optimizer(
        model, torch.optim.Muon, lr=1.0, weight_decay=0.0, nesterov=False, momentum=0.0, **settings
    )
    step(model, optimizer)
    matrices = optimizer.optimizers[0].param_groups
    taken = {id(p) for group in matrices for p in group["params"]}
    found = {}
    for name, p in model.named_parameters():
        if id(p) in taken:
            eps = next(g["eps"] for g in matrices if any(q is p for q in g["params"]))
            o = orthogonalised(p.grad, (3.4445, -4.7750, 2.0315), 5, eps)
            found[name] = float(
                torch.linalg.matrix_norm((p.detach() - before[name]).double(), 2)
                / torch.linalg.matrix_norm(o.double(), 2)
            )
    return found


@pytest.mark.parametrize("adjust", [None, "original", "match_rms_adamw"])
def test_the_update_s_spectral_norm_follows_the_fans(adjust: str | None) -> None:
    """sqrt(fan_out / fan_in), relative to the base, whatever the class multiplies itself by."""
    mu = automup.parametrize(two_knobs, base={"d_model": 16, "d_ff": 32}, inputs=(X,))
    base = norms_of_update(mu, {"d_model": 16, "d_ff": 32}, {"adjust_lr_fn": adjust})
    assert base.keys() == {"up.weight", "down.weight"}
    for knobs in ({"d_model": 64, "d_ff": 32}, {"d_model": 32, "d_ff": 512}):
        wide = norms_of_update(mu, knobs, {"adjust_lr_fn": adjust})
        grown = (knobs["d_ff"] / 32 / (knobs["d_model"] / 16)) ** 0.5
        assert wide["up.weight"] / base["up.weight"] == pytest.approx(grown, rel=5e-3)
        assert wide["down.weight"] / base["down.weight"] == pytest.approx(1 / grown, rel=5e-3)


def test_it_takes_the_hidden_matrices_and_adam_the_rest() -> None:
    model = net()(32)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = net().param_groups(model, torch.optim.Muon, lr=0.02, rest={"lr": 1e-3})
    taken = {names[id(p)] for g in groups if g["use_muon"] for p in g["params"]}
    rest = {names[id(p)] for g in groups if not g["use_muon"] for p in g["params"]}
    assert taken == MATRICES.keys()
    assert rest == set(names.values()) - taken
    assert {g["lr"] / g["lr_mult"] for g in groups if not g["use_muon"]} == {1e-3}


def test_in_sp_it_is_the_same_split_without_factors() -> None:
    model = net()(64)
    optimizer = plain_optimizer(net().plan(32), model, torch.optim.Muon, lr=0.02)
    assert {g["lr_mult"] for g in optimizer.param_groups} == {1.0}
    assert len(optimizer.optimizers[0].param_groups[0]["params"]) == len(MATRICES)


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (32, 32)])
def test_what_the_class_multiplies_by_is_torch_s_own(shape: tuple[int, int]) -> None:
    from torch.optim._muon import _adjust_lr

    for name in ("original", "match_rms_adamw"):
        assert ADJUSTMENTS[name](shape) == pytest.approx(_adjust_lr(1.0, name, shape))


def test_of_a_stack_the_last_two_sizes_count() -> None:
    """As in the package's muon_update: max(1, grad.size(-2) / grad.size(-1)) ** 0.5."""
    assert ADJUSTMENTS["original"]((3, 64, 16)) == 2.0
    assert ADJUSTMENTS["original"]((3, 16, 64)) == 1.0
    assert ADJUSTMENTS["original"]((64, 16, 3, 3)) == 1.0
    assert ADJUSTMENTS["match_rms_adamw"]((256, 64, 16)) == pytest.approx(0.2 * 8)


def test_what_is_a_matrix() -> None:
    """Convolutions and stacks of experts where the class takes them; embeddings and parts never."""
    build = small(
        """
        self.stem = nn.Conv2d(3, d, 3)
        self.conv = nn.Conv2d(d, d, 3)
        self.deep = nn.Conv2d(d, d, 3, groups=d)
        self.experts = nn.Parameter(torch.randn(4, d, 2 * d) / d**0.5)
        self.fused = nn.Linear(2 * d, d + 8)
        self.small = nn.Linear(8, 5)
        self.head = nn.Linear(d, 5)
        """,
        """
        x = torch.tanh(self.deep(torch.tanh(self.conv(torch.tanh(self.stem(x)))))).mean((2, 3))
        x = torch.tanh(torch.einsum("bd,edf->ebf", x, self.experts)).mean(0)
        a, b = self.fused(x).split([self.head.in_features, 8], -1)
        return self.head(torch.tanh(a)) + self.small(torch.tanh(b))
        """,
    )
    images = (torch.randn(2, 3, 8, 8),)
    plan = automup.parametrize(lambda width=16: build(width), inputs=images).plan(32)
    every = frozenset({2, 3, 4})
    assert {p.name for p in plan.parameters if is_matrix(p, every)} == {"conv.weight", "experts"}
    assert not any(is_matrix(p) for p in plan.parameters)
    conv, experts = plan.parameter("conv.weight"), plan.parameter("experts")
    # what is not the last two dimensions of a stack, or the first two of a kernel
    assert not is_matrix(replace(experts, fan_in_dims=(0,), fan_out_dims=(2,)), every)
    assert not is_matrix(replace(conv, fan_in_dims=(2,), fan_out_dims=(0,)), every)
    assert not is_matrix(replace(conv, fan_in_dims=(0, 1), fan_out_dims=()), every)


def test_at_the_base_it_is_muon_and_adamw_bit_for_bit() -> None:
    torch.manual_seed(0)
    ours = net()(16)
    plain = copy.deepcopy(ours)
    optimizer = net().optimizer(ours, torch.optim.Muon, lr=0.02, rest={"lr": 1e-3, "eps": 1e-6})
    hidden = [p for n, p in plain.named_parameters() if n in MATRICES]
    rest = [p for n, p in plain.named_parameters() if n not in MATRICES]
    by_hand = [
        torch.optim.Muon(hidden, lr=0.02),
        torch.optim.AdamW(rest, lr=1e-3, eps=1e-6),
    ]
    in_sp = copy.deepcopy(ours)
    sp_optimizer = plain_optimizer(
        net().plan(32), in_sp, torch.optim.Muon, lr=0.02, rest={"lr": 1e-3, "eps": 1e-6}
    )
    for _ in range(4):
        step(in_sp, sp_optimizer)
        step(ours, optimizer)
        for each in by_hand:
            each.zero_grad()
        plain(X).square().mean().backward()
        for each in by_hand:
            each.step()
    for a, b, c in zip(ours.parameters(), plain.parameters(), in_sp.parameters(), strict=True):
        assert torch.equal(a, b) and torch.equal(b, c)


def test_both_are_one_optimizer_to_schedulers_and_checkpoints() -> None:
    torch.manual_seed(0)
    model = net()(32)
    make = functools.partial(
        net().optimizer, optimizer_class=torch.optim.Muon, lr=0.02, rest={"lr": 1e-3}
    )
    optimizer = make(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    step(model, optimizer)
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == [
        g["initial_lr"] / 2 for g in optimizer.param_groups
    ]
    assert isinstance(optimizer, Several) and isinstance(optimizer, torch.optim.Optimizer)
    twin = copy.deepcopy(model)
    again = make(twin)
    again.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    both, (copied, copied_optimizer) = (model, twin), copy.deepcopy((model, optimizer))
    for made, opt in ((model, optimizer), (twin, again), (copied, copied_optimizer)):
        step(made, opt)
        step(made, opt)
    for other in (both[1], copied):
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    losses = []

    def closure() -> float:
        losses.append(1.0)
        loss = model(X).square().mean()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) is not None and losses == [1.0]
    with pytest.raises(UsageError, match="several optimizers"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, 2))]})


class SingleDeviceMuonWithAuxAdam(torch.optim.Optimizer):
    """What the package's class asks of its groups, and how it steps."""

    def __init__(self, param_groups: list[dict[str, Any]]) -> None:
        keys = {
            True: {"params", "lr", "momentum", "weight_decay", "use_muon"},
            False: {"params", "lr", "betas", "eps", "weight_decay", "use_muon"},
        }
        for group in param_groups:
            assert "use_muon" in group
            assert set(group) == keys[group["use_muon"]]
        super().__init__(param_groups, {})


SingleDeviceMuonWithAuxAdam.__module__ = "muon"


def test_the_package_with_an_adam_of_its_own() -> None:
    model = net()(64)
    optimizer = net().optimizer(model, SingleDeviceMuonWithAuxAdam, lr=0.05, rest={"eps": 1e-8})
    names = {id(p): n for n, p in model.named_parameters()}
    groups = {names[id(p)]: g for g in optimizer.param_groups for p in g["params"]}
    assert {n for n, g in groups.items() if g["use_muon"]} == MATRICES.keys()
    assert groups["up.weight"]["lr"] == 0.05 * groups["up.weight"]["lr_mult"]
    assert groups["up.weight"]["lr_mult"] == pytest.approx(1.0)
    assert groups["head.weight"]["lr"] == 3e-4 / 4
    assert groups["inner.weight"]["eps"] == 1e-8 / 4


def test_one_rate_where_its_updates_match_adam_s() -> None:
    model = net()(32)
    given = {"lr": 0.003, "adjust_lr_fn": "match_rms_adamw"}
    groups = net().optimizer(model, torch.optim.Muon, **given).param_groups
    assert {g["lr"] / g["lr_mult"] for g in groups} == {0.003}


def test_the_user_s_groups_are_split_between_the_two() -> None:
    model = net()(32)
    own = [
        {"params": (p for p in model.parameters() if p.ndim == 2), "weight_decay": 0.3},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = net().optimizer(model, torch.optim.Muon, params=own).param_groups
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    for group in groups:
        wanted = 0.3 if group["params"][0].ndim == 2 else 0.0
        assert group["weight_decay"] * group["lr_mult"] == pytest.approx(wanted)


def test_parameters_and_pairs_are_split_alike() -> None:
    model = net()(32)
    split = net().param_groups(model, torch.optim.Muon)
    assert net().param_groups(model, torch.optim.Muon, params=list(model.parameters())) == split
    pairs = net().param_groups(model, torch.optim.Muon, params=model.named_parameters())
    bare = [{**group, "params": [p for _, p in group["params"]]} for group in pairs]
    assert bare == split


def test_adam_s_own_rate_for_the_rest_unless_the_updates_match() -> None:
    model = net()(32)

    def rates(cls: Any, **settings: Any) -> set[float]:
        groups = net().param_groups(model, cls, lr=0.02, **settings)
        return {g["lr"] / g["lr_mult"] for g in groups if not g["use_muon"]}

    assert rates(torch.optim.Muon) == {1e-3}
    assert rates(Unknown, family="muon", adjust="original") == {1e-3}
    assert rates(Unknown, family="muon", adjust="match_rms_adamw") == {0.02}
    assert rates(Unknown, family="muon", adjust="match_rms_adamw", rest={"lr": 0.5}) == {0.5}


class Unknown(torch.optim.Optimizer):
    def __init__(self, params: Any, lr: float = 0.02) -> None:
        super().__init__(params, {"lr": lr})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "muon"}, "Pass adjust=.*match_rms_adamw"),
        ({"family": "muon", "adjust": "moonlight"}, "no adjustment 'moonlight'"),
        ({}, 'Unknown scale with width.*family="muon"'),
    ],
)
def test_an_unknown_muon_must_say_what_it_does(settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        net().param_groups(net()(32), Unknown, **settings)


def test_an_unknown_muon_that_says_it() -> None:
    model = net()(32)

    def adjust(shape: Any) -> float:
        return max(shape) ** 0.5

    groups = net().param_groups(model, Unknown, family="muon", adjust=adjust)
    for group in groups:
        if group["use_muon"]:
            assert group["lr_mult"] == pytest.approx(2**-0.5)


def test_wrong_calls_of_muon() -> None:
    model = net()(32)
    with pytest.raises(UsageError, match="has an lr, which Muon and Adam would share"):
        net().optimizer(model, torch.optim.Muon, params=[{"params": [model.up.weight], "lr": 1}])
    with pytest.raises(UsageError, match="parameters, pairs or groups"):
        net().optimizer(model, torch.optim.Muon, params=[{"weights": []}])
    alone = automup.parametrize(
        lambda width=16: nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 3)),
        inputs=(X,),
    )
    with pytest.raises(UsageError, match="no hidden matrix"):
        alone.optimizer(alone(32), torch.optim.Muon)


def test_explain_shows_which_is_whose() -> None:
    rows = {p["name"]: p for p in net().explain(64, optimizer="muon").to_dict()["parameters"]}
    assert rows["up.weight"]["lr_mult"] == pytest.approx(1.0)
    assert rows["head.weight"]["lr_mult"] == 1 / 4
    assert rows["stored"]["lr_mult"] == pytest.approx(1.0)
    gpt = automup.parametrize(cases.GPT.build, base={"width": 32}, inputs=cases.GPT.inputs)
    assert "muon" in str(gpt.explain(64, optimizer="muon"))
