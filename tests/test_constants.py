"""Constants: equal to the same multipliers written into the forward pass; bit-identical at 1."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import automup
import cases
from automup import Constants
from automup.api import Mup
from cases import Case
from models_small import model as small

TUNED = Constants(
    input_mult=3.0,
    output_mult=0.5,
    input_lr=0.5,
    hidden_lr=2.0,
    output_lr=4.0,
    input_init=2.0,
    hidden_init=0.5,
    output_init=3.0,
)
TRAINED: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (torch.optim.AdamW, {"lr": 3e-3, "weight_decay": 0.1, "eps": 1e-3}),
    (torch.optim.Adam, {"lr": 3e-3, "weight_decay": 0.01, "eps": 1e-3, "decay": "coupled"}),
]


@functools.cache
def parametrized(case: Case) -> Mup:
    return automup.parametrize(case.build, base={"width": case.base}, inputs=case.inputs)


def times(factor: float) -> Callable[..., torch.Tensor]:
    return lambda module, args, output: output * factor


def explicit(case: Case, plain: nn.Module, constants: Constants) -> None:
    """Multipliers written into the forward pass by hand."""
    first, last = {
        "mlp": (["fc_in"], "fc_out"),
        "gpt": (["transformer.wte", "transformer.wpe"], "lm_head"),
        "gpt-written-out": (["transformer.wte", "transformer.wpe"], "lm_head"),
        "einsum": ([], ""),
        "llama": (["tok_embeddings"], "output"),
        "resnet": (["conv1"], "fc"),
    }[case.name]
    for name in first:
        plain.get_submodule(name).register_forward_hook(times(constants.input_mult))
    plain.get_submodule(last).register_forward_hook(times(constants.output_mult))

    def query(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        q, *rest = output.chunk(3, -1)
        return torch.cat([q * constants.attention_mult, *rest], -1)

    for name, module in plain.named_modules():
        if name.endswith("c_attn"):
            module.register_forward_hook(query)


def by_hand(
    case: Case, width: int, constants: Constants, cls: Any, settings: dict[str, Any]
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The muP model without constants, then every constant put in by hand."""
    mu = parametrized(case)
    plan, model = mu.plan(width), mu(width)
    explicit(case, model, constants)
    readouts = [p.name for p in plan.parameters if p.role == "output"]
    groups = []
    for name, p in model.named_parameters():
        fact = plan.parameter(name)
        side = {"hidden": "hidden", "output": "output"}.get(fact.role, "input")
        drawn = "output" if name.removesuffix("bias") + "weight" in readouts else side
        if not name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight", "bn1.weight")):
            with torch.no_grad():
                p.mul_(getattr(constants, f"{drawn}_init"))
        (group,) = mu.param_groups(model, cls, params=[p], **settings)
        rate = getattr(constants, f"{side}_lr")
        group["lr"] *= rate
        if settings.get("decay") != "coupled":
            group["weight_decay"] /= rate
        groups.append(group)
    rest = {k: v for k, v in settings.items() if k in ("momentum", "nesterov")}
    return model, cls(groups, **rest)


@pytest.mark.parametrize(("cls", "settings"), TRAINED, ids=lambda x: getattr(x, "__name__", ""))
@pytest.mark.parametrize("times_wider", [1, 3])
@pytest.mark.parametrize("case", [cases.MLP, cases.GPT, cases.WRITTEN_OUT], ids=str)
def test_it_trains_as_multipliers_in_the_forward_pass(
    case: Case, times_wider: int, cls: Any, settings: dict[str, Any]
) -> None:
    attention = 2.0 if "gpt" in case.name else 1.0
    constants = Constants(**{**vars(TUNED), "attention_mult": attention})
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        losses = []
        for ours in (True, False):
            torch.manual_seed(3)
            width = times_wider * case.base
            if ours:
                mu = parametrized(case).with_constants(constants)
                model = mu(width)
                optimizer = mu.optimizer(model, cls, **settings)
            else:
                model, optimizer = by_hand(case, width, constants, cls, settings)
            losses.append(train(case, model, optimizer))
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=0)
    assert losses[0][0] != losses[0][-1]


def train(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    double = copy.copy(case)
    inputs = cases.VECTORS.double()
    if case is cases.MLP:
        object.__setattr__(double, "logits", lambda m: m(inputs))
    return cases.train(double, model, optimizer, 6)


@pytest.mark.parametrize("case", [cases.MLP, cases.GPT], ids=str)
def test_ones_change_nothing(case: Case) -> None:
    mu = parametrized(case)
    losses = []
    for made in (mu, mu.with_constants(TUNED).with_constants(Constants())):
        torch.manual_seed(0)
        model = made(2 * case.base)
        losses.append(cases.train(case, model, made.optimizer(model, lr=1e-2), 3))
        assert made.plan(2 * case.base) == mu.plan(2 * case.base)
    assert torch.equal(*losses)


@pytest.mark.parametrize("case", [cases.MLP, cases.LLAMA, cases.EINSUM, cases.RESNET], ids=str)
def test_a_zeroed_readout_gives_zero_logits_at_every_width(case: Case) -> None:
    mu = parametrized(case).with_constants(Constants(output_init=0))
    for width in (case.base, 2 * case.base):
        assert not case.logits(mu(width)).any()


@pytest.mark.parametrize("case", [cases.MLP, cases.GPT, cases.LLAMA], ids=str)
def test_constants_do_not_bring_width_back(case: Case) -> None:
    constants = Constants(input_mult=2.0, output_mult=3.0, hidden_lr=0.5, output_lr=2.0)
    mu = parametrized(case).with_constants(constants)
    widths = [case.base * k for k in (1, 2, 4, 8)]
    moved = [
        cases.movement(case, lambda w=w: mu(w), lambda m: mu.optimizer(m, lr=2e-3)) for w in widths
    ]
    assert -0.3 < cases.slope(widths, moved) < 0.2


def test_plan_and_report_show_the_numbers() -> None:
    mu = parametrized(cases.GPT).with_constants(
        Constants(input_mult=2, output_mult=8, attention_mult=4, hidden_lr=3, hidden_init=0.5)
    )
    plan = mu.plan(64)
    data = mu.explain(64).to_dict()
    rows = {p["name"]: p for p in data["parameters"]}
    embedding = rows["transformer.wte.weight"]
    assert (embedding["init_mult"], embedding["lr_mult"]) == (2.0, 2.0)
    assert embedding["wd_mult"] == pytest.approx(0.5)
    assert embedding["eps_mult"] == pytest.approx(1 / 4)  # 1 / r_o, and 1 / 2
    assert embedding["multiplier"] == pytest.approx(0.5 * 8 / 2)  # of the tied readout
    hidden = rows["transformer.h.0.attn.c_attn.weight"]
    assert hidden["init_mult"] == pytest.approx(0.5**0.5 * 0.5)
    assert (hidden["lr_mult"], hidden["wd_mult"]) == (1.5, pytest.approx(1 / 1.5))
    sites = {s["kind"]: s["factor"] for s in data["sites"]}
    assert sites["attention"] == pytest.approx(0.5**0.5 * 4)
    assert data["constants"]["attention_mult"] == 4
    assert "attention_mult=4, hidden_lr=3" in str(mu.explain(64))
    assert automup.Plan.from_json(plan.to_json()) == plan
    base = mu.explain(32).to_dict()
    assert {s["kind"]: s["factor"] for s in base["sites"]} == {"attention": 4, "readout": 4}


def test_plans_of_the_first_schema_are_read() -> None:
    plan = parametrized(cases.MLP).plan(64)
    data = json.loads(plan.to_json())
    data["automup_plan"] = 1
    del data["constants"]
    for entry in data["parameters"]:
        del entry["layer"]
    old = automup.Plan.from_json(json.dumps(data))
    assert old.constants == Constants()
    assert [p.init_mult for p in old.parameters] == [p.init_mult for p in plan.parameters]


POSITIONS = small(
    """
    self.patch = nn.Linear(6, d)
    self.cls = nn.Parameter(torch.randn(1, 1, d))
    self.pos = nn.Parameter(torch.randn(1, 4, d))
    self.norm = nn.LayerNorm(d)
    self.mid = nn.Linear(d, d)
    self.head = nn.Linear(d, 5, bias=False)
    self.shift = nn.Parameter(torch.randn(5))
    """,
    """
    x = torch.cat([self.cls.expand(len(x), -1, -1), self.patch(x)], 1) + self.pos
    x = x + torch.tanh(self.mid(self.norm(x)))
    return self.head(x.mean(1)) + self.shift
    """,
)


def test_what_is_added_at_an_end_belongs_to_it() -> None:
    x = torch.randn(2, 3, 6)
    mu = automup.parametrize(lambda width=16: POSITIONS(width), inputs=(x,))
    layers = {p.name: p.layer for p in mu.plan(32).parameters}
    ends = {"input": ["cls", "pos", "patch.weight", "patch.bias"], "output": ["head.weight"]}
    for layer, names in (*ends.items(), ("output", ["shift"])):
        assert {layers.pop(name) for name in names} == {layer}
    assert set(layers.values()) == {""}


def test_a_weight_that_is_not_used_as_it_is_cannot_take_a_multiplier() -> None:
    """A multiplier on both factors would count twice: refused, not guessed."""
    build = small(
        """
        self.inner = nn.Linear(6, d)
        self.weight = nn.Parameter(torch.randn(5, d))
        self.gain = nn.Parameter(torch.ones(5, 1))
        """,
        """
        return F.linear(F.gelu(self.inner(x)), self.weight * self.gain)
        """,
    )
    mu = automup.parametrize(lambda width=16: build(width), inputs=(torch.randn(2, 6),))
    with pytest.raises(automup.AutomupError, match=r"output_mult: .* weight cannot be put"):
        mu.with_constants(Constants(output_mult=2))


@pytest.mark.parametrize("case", [cases.MLP, cases.HEADS], ids=str)
def test_attention_without_a_site_is_refused(case: Case) -> None:
    with pytest.raises(automup.AutomupError, match=r"attention_mult: th.*no multiplier in μP"):
        parametrized(case).with_constants(Constants(attention_mult=2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output_mult": 0}, "output_mult cannot be 0"),
        ({"input_lr": -1}, "input_lr cannot be -1"),
        ({"hidden_init": float("nan")}, "hidden_init cannot be nan.*at least 0"),
        ({"output_lr": "4"}, "output_lr cannot be '4'"),
        ({"readout": 4}, "No constant 'readout'.*output_mult"),
    ],
)
def test_wrong_constants_say_what_is_wrong(values: Any, message: str) -> None:
    with pytest.raises(automup.AutomupError, match=message):
        Constants.of(values)


def test_a_plan_takes_constants_once() -> None:
    plan = parametrized(cases.MLP).plan(64).with_constants(TUNED)
    with pytest.raises(automup.AutomupError, match="has constants already"):
        plan.with_constants(TUNED)
