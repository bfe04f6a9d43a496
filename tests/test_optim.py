"""The optimizer's laws: plain torch at the base, the table's factors elsewhere, nothing lost."""

from __future__ import annotations

import copy
import functools
import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automup.errors import PlanError, UsageError
from automup.facts import Parameter, Part
from automup.optim import OPTIMIZERS, family_of, optimizer, optimizer_class_of, param_groups
from automup.optimizers import known_class
from automup.plan import Plan
from automup.rules import Multipliers

BASE = 8


class Net(nn.Module):
    """Input, hidden and output weights; with ``tied``, the readout is the embedding."""

    def __init__(self, width: int = BASE, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(5, width)
        self.hidden = nn.Linear(width, 2 * width)
        self.back = nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)
        if tied:
            self.scale = self.norm.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.embed(x))
        return self.head(self.norm(x + self.back(torch.tanh(self.hidden(x)))))


def plan_of(model: nn.Module, base: nn.Module) -> Plan:
    """The plan of a model of Linear and LayerNorm: what grows, by comparing with the base's."""
    names: dict[int, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(p), []).append(name)
    bases = dict(base.named_parameters(remove_duplicate=False))
    facts = []
    for name, p in model.named_parameters():
        shape, small = tuple(p.shape), tuple(bases[name].shape)
        ins, outs = ((1,), (0,)) if p.ndim == 2 else ((), (0,))
        # A base plan has no ratio to compare, so what grows is read off one that has.
        grows = {d for d in range(p.ndim) if small[d] % BASE == 0}
        facts.append(
            Parameter(
                name=name,
                names=tuple(names[id(p)]),
                shape=shape,
                base_shape=small,
                fan_in=math.prod(shape[d] for d in ins),
                fan_out=math.prod(shape[d] for d in outs),
                base_fan_in=math.prod(small[d] for d in ins),
                base_fan_out=math.prod(small[d] for d in outs),
                fan_in_dims=tuple(d for d in ins if d in grows),
                fan_out_dims=tuple(d for d in outs if d in grows),
                init_kind="uniform",
                init_std=None,
                init_mult=1.0,
                init_law=None,
                reason="",
                source="net.py:1",
            )
        )
    return Plan(type(model).__name__, {"width": BASE}, {"width": BASE}, tuple(facts))


def net_and_plan(width: int, **kwargs: Any) -> tuple[Net, Plan]:
    torch.manual_seed(0)
    model = Net(width, **kwargs)
    return model, plan_of(model, Net(BASE, **kwargs))


def by_name(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each parameter's group, by the parameter's name; every parameter must have exactly one."""
    names = {id(p): name for name, p in model.named_parameters()}
    found = [(names[id(p)], group) for group in groups for p in group["params"]]
    assert sorted(name for name, _ in found) == sorted(names.values())
    return dict(found)


def train(model: nn.Module, opt: torch.optim.Optimizer, steps: int = 3) -> None:
    data = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x, y = torch.randn(2, 6, 5, generator=data)
        opt.zero_grad()
        (model(x) - y).square().mean().backward()
        opt.step()


def factors_of(cls: Any, p: Parameter) -> Multipliers:
    known = known_class(cls)
    plan = Plan("", {}, {}, (p,))
    return plan.factors(p, known.family_of(p), applied=known.applied(p, None), l2=known.is_l2({}))


PLAIN: list[tuple[type[torch.optim.Optimizer], dict[str, Any]]] = [
    (torch.optim.SGD, {}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "foreach": True}),
    (torch.optim.Adam, {}),
    (torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1, "eps": 1e-5}),
    (torch.optim.AdamW, {}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.9)}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "foreach": True, "maximize": True}),
    (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1, "fused": True}),
    (torch.optim.AdamW, {"lr": torch.tensor(0.01), "weight_decay": 0.1}),
    (torch.optim.ASGD, {"lr": 0.1, "weight_decay": 0.1, "lambd": 0.01}),
    (torch.optim.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (torch.optim.RAdam, {"lr": 0.1}),
    (torch.optim.Adamax, {"weight_decay": 0.1}),
    (torch.optim.RMSprop, {"momentum": 0.9, "centered": True}),
    (torch.optim.Adagrad, {"lr_decay": 0.1}),
    (torch.optim.Adadelta, {"weight_decay": 0.1}),
    (torch.optim.Adafactor, {"weight_decay": 0.1}),
    (torch.optim.Adafactor, {"eps": (1e-5, 1e-2), "d": 2.0}),
]


@pytest.mark.parametrize(("cls", "kwargs"), PLAIN)
def test_at_the_base_it_is_the_plain_optimizer_bit_for_bit(cls: Any, kwargs: Any) -> None:
    model, plan = net_and_plan(BASE)
    plain = copy.deepcopy(model)
    ours, theirs = optimizer(plan, model, cls, **kwargs), cls(plain.parameters(), **kwargs)
    assert type(ours) is cls
    assert len(ours.param_groups) == 1
    assert [id(p) for p in ours.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    assert ours.defaults == theirs.defaults
    mine = {k: v for k, v in ours.param_groups[0].items() if k not in ("params", "lr_mult")}
    assert mine == {k: v for k, v in theirs.param_groups[0].items() if k != "params"}
    train(model, ours)
    train(plain, theirs)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_gets_the_factors_of_the_table(name: str) -> None:
    cls = optimizer_class_of(name)
    model, plan = net_and_plan(4 * BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        groups = optimizer(plan, model, cls).param_groups
    for parameter, group in by_name(model, groups).items():
        adam = name == "muon" and "betas" in group
        made = torch.optim.AdamW if adam else cls
        plain = made([nn.Parameter(torch.ones(2, 2))]).defaults
        factors = factors_of(cls, plan.parameter(parameter))
        assert group["lr_mult"] == factors.lr
        assert group["lr"] == plain["lr"] * factors.lr
        assert group["weight_decay"] == plain["weight_decay"] * factors.weight_decay
        if isinstance(plain.get("eps"), float):
            assert group["eps"] == plain["eps"] * factors.eps


@given(
    st.sampled_from(["sgd", "adamw"]),
    st.integers(1, 7),
    st.floats(1e-6, 1),
    st.floats(1e-6, 1),
)
@settings(max_examples=30, deadline=None)
def test_decay_per_step_is_kept_when_independent_and_lambda_when_coupled(
    name: str, times: int, lr: float, decay: float
) -> None:
    model, plan = net_and_plan(times * BASE)
    both = {"lr": lr, "weight_decay": decay}
    for group in param_groups(plan, model, OPTIMIZERS[name], **both):
        assert group["lr"] * group["weight_decay"] == pytest.approx(lr * decay, rel=1e-12)
    for group in param_groups(plan, model, OPTIMIZERS[name], **both, decay="coupled"):
        assert group["weight_decay"] == decay


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("kwargs", [{}, {"weight_decay": 0.0}, {"weight_decay": 0.1}])
def test_no_two_groups_have_the_same_settings_and_order_is_of_first_appearance(
    name: str, kwargs: Any
) -> None:
    model, plan = net_and_plan(3 * BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        groups = param_groups(plan, model, OPTIMIZERS[name], **kwargs)
    settings = [[v for k, v in group.items() if k != "params"] for group in groups]
    assert all(a not in settings[:i] for i, a in enumerate(settings))
    if name == "muon":  # the matrices, then the rest
        assert [g["use_muon"] for g in groups] == sorted(g["use_muon"] for g in groups)[::-1]
        return
    place = {id(p): i for i, p in enumerate(model.parameters())}
    orders = [[place[id(p)] for p in group["params"]] for group in groups]
    assert all(order == sorted(order) for order in orders)
    assert orders == sorted(orders)


def test_torch_s_own_decay_default_is_kept_and_zero_stays_zero() -> None:
    model, plan = net_and_plan(2 * BASE)
    assert {g["weight_decay"] * g["lr_mult"] for g in param_groups(plan, model)} == {0.01}
    assert {g["weight_decay"] for g in param_groups(plan, model, weight_decay=0)} == {0}
    assert {g["eps"] for g in param_groups(plan, model, eps=0)} == {0}
    rates = [g["lr_mult"] for g in param_groups(plan, model, eps=0, weight_decay=0)]
    assert len(rates) == len({*rates}), "an eps of 0 has nothing to split for"


def test_a_rate_of_zero_is_split_like_any_other() -> None:
    """A warm-up from 0: a scheduler raises the rate later, by each group's lr_mult."""
    model, plan = net_and_plan(2 * BASE)
    warm, cold = (by_name(model, param_groups(plan, model, lr=lr)) for lr in (1.0, 0.0))
    assert {n: g["lr_mult"] for n, g in cold.items()} == {n: g["lr"] for n, g in warm.items()}
    assert {g["lr"] for g in cold.values()} == {0.0}


def test_groups_alone_make_the_same_optimizer() -> None:
    """For trainers that take groups only: settings such as momentum travel in the groups."""
    model, plan = net_and_plan(2 * BASE)
    kwargs: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
    groups = param_groups(plan, model, torch.optim.SGD, **kwargs)
    assert (
        torch.optim.SGD(groups).param_groups
        == optimizer(plan, model, torch.optim.SGD, **kwargs).param_groups
    )


@pytest.mark.parametrize("rate", [0.5, 1.0])
@pytest.mark.parametrize("times", [1, 4])
def test_a_tensor_lr_is_neither_touched_nor_shared(times: int, rate: float) -> None:
    model, plan = net_and_plan(times * BASE)
    lr = torch.tensor(rate)
    opt = optimizer(plan, model, lr=lr)
    rates = [group["lr"] for group in opt.param_groups]
    assert all(isinstance(each, torch.Tensor) for each in rates)
    everyone = [lr, opt.defaults["lr"], *rates]
    assert len({t.data_ptr() for t in everyone}) == len(everyone)
    assert [r.item() for r in rates] == [rate * group["lr_mult"] for group in opt.param_groups]
    for each in rates:
        each.zero_()
    assert lr.item() == rate


def test_the_users_groups_and_their_keys_are_kept() -> None:
    model, plan = net_and_plan(4 * BASE)
    own = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "tag": "decay"},
        {"params": (p for p in model.parameters() if p.ndim == 1), "weight_decay": 0.0, "lr": 1.0},
        {"params": [], "tag": "empty"},
    ]
    groups = optimizer(plan, model, lr=0.1, weight_decay=0.2, params=own).param_groups
    for name, group in by_name(model, groups).items():
        if name.endswith("weight") and "norm" not in name:
            assert group["tag"] == "decay"
            assert group["lr"] == 0.1 * group["lr_mult"]
            assert group["weight_decay"] * group["lr_mult"] == pytest.approx(0.2)
        else:
            assert "tag" not in group
            assert (group["lr"], group["weight_decay"]) == (group["lr_mult"], 0)
    (empty,) = (g for g in groups if g.get("tag") == "empty")
    assert (empty["params"], empty["lr"], empty["lr_mult"]) == ([], 0.1, 1.0)
    assert "lr" not in own[0], "the user's dicts are not written to"


def test_a_subset_single_tensors_and_named_parameters() -> None:
    model, plan = net_and_plan(2 * BASE)
    (group,) = param_groups(plan, model, params=[{"params": model.hidden.weight}])
    assert group["params"][0] is model.hidden.weight
    assert sum(len(g["params"]) for g in param_groups(plan, model, params=[model.head.bias])) == 1
    named = optimizer(plan, model, params=model.named_parameters()).param_groups
    names = {id(p): n for g in named for n, p in zip(g["param_names"], g["params"], strict=True)}
    assert names == {id(p): n for n, p in model.named_parameters()}


def test_a_parameter_with_two_rows_is_no_pair() -> None:
    model = nn.Sequential(nn.Linear(5, BASE), nn.Linear(BASE, 2))
    plan = plan_of(model, model)
    (group,) = param_groups(plan, model, params=[model[1].weight, ("b", model[1].bias)])
    assert group["params"][0] is model[1].weight
    assert group["params"][1][1] is model[1].bias


def test_no_parameter_is_one_empty_group() -> None:
    model, plan = net_and_plan(2 * BASE)
    assert [(g["params"], g["lr_mult"]) for g in param_groups(plan, model, params=[])] == [([], 1)]


def test_a_setting_of_none_that_is_not_scaled_is_the_users() -> None:
    class Clipped(torch.optim.AdamW):
        def __init__(self, params: Any, clip: float | None = 1.0, **kwargs: Any) -> None:
            super().__init__(params, **kwargs)
            self.clip = clip

    model, plan = net_and_plan(2 * BASE)
    assert optimizer(plan, model, Clipped).clip == 1.0
    made = optimizer(plan, model, Clipped, clip=None, lr=None, eps=None)
    assert made.clip is None
    assert {g["clip"] for g in made.param_groups} == {None}
    assert {g["lr"] / g["lr_mult"] for g in made.param_groups} == {1e-3}


def test_rows_that_all_grow_have_one_rate_in_every_family() -> None:
    """Parts that differ in their draw alone, as the queries of a fused weight by a constant."""
    model, plan = net_and_plan(2 * BASE)
    fact = plan.parameter("hidden.weight")
    parts = (Part(3 * BASE, 3 * BASE // 2, True, 2.0), Part(BASE, BASE // 2, True, 1.0))
    others = (replace(p, parts=parts) if p is fact else p for p in plan.parameters)
    drawn = replace(plan, parameters=tuple(others))
    for cls in (torch.optim.SGD, torch.optim.Adadelta, torch.optim.Muon):
        assert param_groups(drawn, model, cls) == param_groups(plan, model, cls)


def test_frozen_parameters_are_grouped_as_torch_does() -> None:
    model, plan = net_and_plan(2 * BASE)
    model.embed.requires_grad_(False)
    by_name(model, param_groups(plan, model))


def test_tied_parameters_appear_once() -> None:
    model, plan = net_and_plan(2 * BASE, tied=True)
    by_name(model, param_groups(plan, model))
    twice = [p for _, p in model.named_parameters(remove_duplicate=False)]
    by_name(model, param_groups(plan, model, params=twice))


def test_a_tying_that_differs_from_the_plans_is_refused() -> None:
    tied, tied_plan = net_and_plan(2 * BASE, tied=True)
    untied = copy.deepcopy(tied)
    untied.scale = nn.Parameter(untied.norm.weight.detach().clone())
    with pytest.raises(PlanError, match="tied"):
        param_groups(tied_plan, untied)
    with pytest.raises(PlanError, match="tied"):
        param_groups(plan_of(untied, untied), tied)


def wrapped(model: nn.Module, *segments: str) -> nn.Module:
    for segment in segments:
        outer = nn.Module()
        setattr(outer, segment, model)
        model = outer
    return model


@pytest.mark.parametrize("segments", [("module",), ("_orig_mod", "module"), ("module", "module")])
def test_wrappers_change_nothing(segments: tuple[str, ...]) -> None:
    model, plan = net_and_plan(2 * BASE)
    assert param_groups(plan, wrapped(model, *segments)) == param_groups(plan, model)


def test_a_models_own_segment_called_module_is_no_wrapper() -> None:
    """``strip('module.')`` mangles names: here the plan decides."""
    pair = nn.ModuleDict({"module": nn.Linear(BASE, BASE), "x": nn.ModuleDict()})
    pair["x"]["module"] = nn.Linear(BASE, BASE, bias=False)
    plan = plan_of(pair, pair)
    assert "x.module.weight" in {p.name for p in plan.parameters}
    assert param_groups(plan, wrapped(pair, "module")) == param_groups(plan, pair)
    with pytest.raises(PlanError, match="stray"):
        param_groups(plan, nn.ModuleDict({**pair, "stray": nn.Linear(1, 1)}))


def test_ratios_come_from_the_actual_shape() -> None:
    wide, plan_of_wide = net_and_plan(4 * BASE)
    _, plan_of_base = net_and_plan(BASE)
    assert param_groups(plan_of_base, wide) == param_groups(plan_of_wide, wide)


def test_a_shape_that_the_plan_does_not_allow_is_refused() -> None:
    model, plan = net_and_plan(2 * BASE)
    model.head = nn.Linear(2 * BASE, 6)
    with pytest.raises(PlanError, match=r"head\.weight has shape \(6, 16\), and \(5, 16\)") as e:
        param_groups(plan, model)
    assert e.value.where == "net.py:1"
    model.head = nn.Linear(2 * BASE, 5)
    model.head.weight = nn.Parameter(torch.zeros(5, 4, 4))
    with pytest.raises(PlanError, match=r"\(5, 4, 4\)"):
        param_groups(plan, model)


def test_a_shard_that_hides_its_shape_takes_the_plans() -> None:
    model, plan = net_and_plan(2 * BASE)
    expected = {n: g["lr_mult"] for n, g in by_name(model, param_groups(plan, model)).items()}
    empty = copy.deepcopy(model)
    for p in empty.parameters():
        p.data = torch.empty(0)
    flat = copy.deepcopy(model)
    for p in flat.parameters():
        p.data = p.data.flatten()[:3]
    for shards in (empty, wrapped(flat, "_fsdp_wrapped_module")):
        groups = by_name(shards, param_groups(plan, shards))
        assert {n.split("module.")[-1]: g["lr_mult"] for n, g in groups.items()} == expected


def test_a_size_of_zero_or_one_hides_no_shape() -> None:
    """A parameter without entries is no shard, and a shard of a single row is one."""
    none, wide = (nn.ParameterList([torch.empty(0, n)]) for n in (BASE, 4 * BASE))
    plan = plan_of(none, none)
    (fact,) = plan.parameters
    (group,) = param_groups(replace(plan, parameters=(replace(fact, fan_out_dims=()),)), wide)
    assert group["lr_mult"] == 1 / 4
    one = nn.Linear(4 * BASE, 1, bias=False)
    plan = plan_of(one, nn.Linear(BASE, 1, bias=False))
    one.weight.data = torch.empty(0)
    (group,) = param_groups(plan, one)
    assert group["lr_mult"] == 1 / 4


class Open(torch.optim.SGD):
    """Takes settings that nothing shows."""

    def __init__(self, params: Any, lr: float = 0.1, **anything: Any) -> None:
        super().__init__(params, lr)


def test_families_by_inheritance_or_by_hand() -> None:
    class Mine(torch.optim.AdamW):
        def __init__(self, params: Any, *, extra: int = 1, **kwargs: Any) -> None:
            super().__init__(params, **kwargs)

    model, plan = net_and_plan(2 * BASE)
    assert family_of(Mine) == "adam"
    # Its constructor hands **kwargs on, so AdamW's defaults are its own.
    plain = [g["weight_decay"] for g in param_groups(plan, model)]
    assert [g["weight_decay"] for g in param_groups(plan, model, Mine)] == plain
    assert isinstance(optimizer(plan, model, Mine, extra=2, lr=0.1), Mine)
    with pytest.raises(UsageError, match=r'Plain.*family="adam".*family="sgd".*"muon"'):
        optimizer(plan, model, type("Plain", (torch.optim.Optimizer,), {}))
    assert {g["colour"] for g in param_groups(plan, model, Open, colour=3)} == {3}
    rms = optimizer(plan, model, torch.optim.RMSprop, family="adam", lr=0.1)
    assert {g["lr"] for g in rms.param_groups} == {0.1, 0.05}
    by_hand = param_groups(plan, model, torch.optim.RMSprop, family="sgd", eps=0.5)
    assert {g["eps"] for g in by_hand} == {0.5}, "SGD's rule says nothing of an eps"
    pair = param_groups(plan, model, torch.optim.Adafactor, family="adam", eps=(1e-3, 0.5))
    assert {g["eps"] for g in pair} == {(1e-3, 0.5)}, "of an unknown class's pair nothing is known"
    partial = functools.partial(torch.optim.SGD, lr=0.5)
    assert {g["lr"] / g["lr_mult"] for g in param_groups(plan, model, partial, family="sgd")} == {
        0.5
    }


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"momentum": 0.9}, "AdamW takes no momentum.*betas"),
        ({"decay": "both"}, "no decay 'both'.*independent"),
        ({"family": "newton"}, "no family 'newton'.*sgd"),
        ({"lr": "fast"}, "learning rate"),
        ({"params": [torch.zeros(3, 7)]}, r"shape \(3, 7\)"),
        ({"params": [("w", torch.zeros(3, 7))]}, r"'w' of shape \(3, 7\)"),
        ({"params": ["embed.weight"]}, "A str"),
        ({"params": {1, 2}}, "cannot be a set"),
        ({"params": 3}, "cannot be a int"),
        ({"params": [{"weights": []}]}, "parameters, pairs or groups"),
        ({"params": [{"params": []}, torch.zeros(3)]}, "parameters, pairs or groups"),
        ({"params": [("w", torch.zeros(3), 1)]}, "A tuple 'w' in params"),
    ],
)
def test_wrong_calls_say_what_is_wrong(kwargs: dict[str, Any], message: str) -> None:
    model, plan = net_and_plan(BASE)
    with pytest.raises(UsageError, match=message):
        param_groups(plan, model, **kwargs)


def test_eps_is_refused_where_the_optimizer_has_none() -> None:
    model, plan = net_and_plan(BASE)
    with pytest.raises(UsageError, match="SGD takes no eps"):
        param_groups(plan, model, torch.optim.SGD, eps=1e-3)


def test_a_parameter_in_two_groups_and_groups_in_mup_already_are_refused() -> None:
    model, plan = net_and_plan(2 * BASE)
    one = {"params": [model.hidden.weight]}
    with pytest.raises(UsageError, match=r"hidden\.weight \(32, 16\) is in two groups, 0 and 1"):
        param_groups(plan, model, params=[one, dict(one)])
    with pytest.raises(UsageError, match="lr_mult"):
        param_groups(plan, model, params=param_groups(plan, model))


def test_optimizer_names() -> None:
    assert optimizer_class_of("AdamW") is torch.optim.AdamW
    with pytest.raises(UsageError, match=r"'adamx'.*adamw, adam, sgd"):
        optimizer_class_of("adamx")


class Undecayed(torch.optim.Adam):
    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr)


def test_l2_decay_in_adam_is_warned_about_only_where_it_matters() -> None:
    wide, wide_plan = net_and_plan(2 * BASE)
    base, base_plan = net_and_plan(BASE)
    with pytest.warns(UserWarning, match="L2 term"):
        optimizer(wide_plan, wide, torch.optim.Adam, weight_decay=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer(wide_plan, wide, torch.optim.Adam)
        optimizer(wide_plan, wide, torch.optim.Adam, weight_decay=0.1, decay="coupled")
        optimizer(wide_plan, wide, torch.optim.AdamW, weight_decay=0.1)
        optimizer(base_plan, base, torch.optim.Adam, weight_decay=0.1)
        optimizer(wide_plan, wide, Undecayed)
        if "decoupled_weight_decay" in torch.optim.Adam(base.parameters()).defaults:
            optimizer(
                wide_plan,
                wide,
                torch.optim.Adam,
                weight_decay=0.1,
                decoupled_weight_decay=True,
            )


def test_adafactor_s_own_bound_on_the_rate_is_warned_about() -> None:
    """torch's takes the smaller of lr and 1 / sqrt(step): the highest rate is bent first."""
    wide, plan = net_and_plan(2 * BASE)
    base, base_plan = net_and_plan(BASE)
    own = [{"params": [wide.embed.weight]}, {"params": [wide.hidden.weight], "lr": 0.1}]
    with pytest.warns(UserWarning, match=r"Adafactor limits.* after 100 steps at lr=0\.1\."):
        optimizer(plan, wide, torch.optim.Adafactor, lr=0.01, params=own)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer(base_plan, base, torch.optim.Adafactor)
        optimizer(plan, wide, torch.optim.RMSprop)


def test_checkpoints_copies_and_schedulers_keep_the_ratios() -> None:
    model, plan = net_and_plan(4 * BASE)
    opt = optimizer(plan, model, lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 10)
    train(model, opt, 1)
    schedule.step()
    fresh = optimizer(plan, copy.deepcopy(model), lr=0.1)
    fresh.load_state_dict(opt.state_dict())
    for groups in (opt.param_groups, fresh.param_groups, copy.deepcopy(opt).param_groups):
        rates = [group["lr"] / group["lr_mult"] for group in groups]
        assert rates == pytest.approx([rates[0]] * len(rates))
        assert rates[0] < 0.1
