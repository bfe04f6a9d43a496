"""mup 1.0.0, the reference implementation, as an oracle: both must train the same function.

mup writes muP in the multiplier form (its Table 8): the readout keeps its init and its learning
rate, and its *input* is divided by the width. automup's default form puts everything into init and
lr. Trading a multiplier A for init and lr changes nothing (Tensor Programs V, section J.2): for
Adam (A, B, C) ~ (1, A B, A C), for SGD (1, A B, A**2 C). These products are what must agree.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import mup
import pytest
import torch
from torch import nn

import automup
import cases
import gpt
import mlp
from automup.api import Mup
from cases import Case

RATIOS = (2, 4, 8)
LR, DECAY = 1e-2, 0.1
OPTIMIZERS: dict[str, tuple[Any, Any]] = {
    "adam": (mup.MuAdamW, torch.optim.AdamW),
    "sgd": (mup.MuSGD, torch.optim.SGD),
}


@functools.cache
def parametrized(case: Case) -> Mup:
    return automup.parametrize(case.build, base={"width": case.base}, inputs=case.inputs)


def learning_rates(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}


def decays(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """lr * weight_decay: what AdamW takes off a weight in one step, relative to it."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: g["lr"] * g["weight_decay"]
        for g in optimizer.param_groups
        for p in g["params"]
    }


def assert_close(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert math.isclose(value, theirs[name], rel_tol=1e-9), (name, value, theirs[name])


# --- the MLP -------------------------------------------------------------------------------------


class MuMLP(mlp.MLP):
    """examples/mlp.py the way mup's README asks for it: with a MuReadout."""

    def __init__(self, width: int) -> None:
        super().__init__(width=width)
        self.fc_out = mup.MuReadout(width, 10)


@functools.cache
def mup_mlp(ratio: int) -> MuMLP:
    base = cases.MLP.base
    torch.manual_seed(0)
    model = MuMLP(base * ratio)
    # mup reads the shapes of the base and of a delta, to see which dimensions are infinite.
    return mup.set_base_shapes(model, MuMLP(base), delta=MuMLP(2 * base))


def multipliers(model: nn.Module) -> dict[str, float]:
    """What mup's forward multiplies each weight's product by: 1 / width_mult in a MuReadout."""
    found = dict.fromkeys(dict(model.named_parameters()), 1.0)
    for name, module in model.named_modules():
        if isinstance(module, mup.MuReadout):
            # Its bias is added after the multiplication, so that one has none.
            found[f"{name}.weight"] = module.output_mult / module.width_mult()
    return found


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("family, power", [("adam", 1), ("sgd", 2)])
def test_the_mlp_learns_at_the_same_rates(family: str, power: int, ratio: int) -> None:
    theirs_class, ours_class = OPTIMIZERS[family]
    theirs, mu = mup_mlp(ratio), parametrized(cases.MLP)
    ours = mu(cases.MLP.base * ratio)
    rates = learning_rates(theirs, theirs_class(theirs.parameters(), lr=LR))
    factor = multipliers(theirs)
    expected = {name: rate * factor[name] ** power for name, rate in rates.items()}
    assert_close(learning_rates(ours, mu.optimizer(ours, ours_class, lr=LR)), expected)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_mlp_starts_at_the_same_scale(ratio: int) -> None:
    """Weights only. mup leaves biases as torch draws them, uniform(+-1/sqrt(fan_in)), so that
    they shrink with width; set_base_shapes then multiplies those of a MuReadout by sqrt(width).
    automup keeps every bias at its base scale, as Table 3 has it (init variance 1).
    """
    theirs, factor = mup_mlp(ratio), multipliers(mup_mlp(ratio))
    plan = parametrized(cases.MLP).plan(cases.MLP.base * ratio)
    for name, parameter in theirs.named_parameters():
        if name.endswith("weight"):
            drawn = float(parameter.std()) * factor[name]
            error = 4 / math.sqrt(2 * parameter.numel())
            assert abs(plan.parameter(name).init_std / drawn - 1) < error, name


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_mlp_starts_with_exactly_the_same_product(ratio: int) -> None:
    """The same draw, so no sampling error: mup's set_base_shapes rescales what torch drew, and
    so does automup."""
    torch.manual_seed(0)
    ours = parametrized(cases.MLP)(cases.MLP.base * ratio)
    torch.manual_seed(0)
    base = cases.MLP.base
    drawn = MuMLP(base * ratio)
    # MuReadout draws from its own class's reset: give it the very numbers of the plain model.
    torch.manual_seed(0)
    drawn.load_state_dict(cases.MLP.build(base * ratio).state_dict())
    theirs = mup.set_base_shapes(drawn, MuMLP(base), delta=MuMLP(2 * base))
    factor = multipliers(theirs)
    mine = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        if name.endswith("weight"):
            torch.testing.assert_close(mine[name], parameter * factor[name], rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("family", OPTIMIZERS)
def test_the_mlp_s_updates_decay_alike(family: str, ratio: int) -> None:
    """mup's decoupled_wd divides the decay where it multiplies the lr: automup's default too."""
    if family == "sgd":
        return  # mup keeps SGD's decay coupled to nothing that scales here: see the next test
    theirs, mu = mup_mlp(ratio), parametrized(cases.MLP)
    ours = mu(cases.MLP.base * ratio)
    theirs_class, ours_class = OPTIMIZERS[family]
    made = theirs_class(theirs.parameters(), lr=LR, weight_decay=DECAY)
    assert_close(
        decays(ours, mu.optimizer(ours, ours_class, lr=LR, weight_decay=DECAY)),
        decays(theirs, made),
    )


def test_the_mlp_trains_the_same_function() -> None:
    """From the same product at the start, with SGD: the same outputs, step by step."""
    ratio, base = 4, cases.MLP.base
    mu = parametrized(cases.MLP)
    torch.manual_seed(0)
    ours = mu(base * ratio)
    theirs = mup.set_base_shapes(MuMLP(base * ratio), MuMLP(base), delta=MuMLP(2 * base))
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.copy_(dict(ours.named_parameters())[name] / multipliers(theirs)[name])
    a = mu.optimizer(ours, torch.optim.SGD, lr=0.1, momentum=0.9)
    b = mup.MuSGD(theirs.parameters(), lr=0.1, momentum=0.9)
    left, right = cases.train(cases.MLP, ours, a, 5), cases.train(cases.MLP, theirs, b, 5)
    assert left[-1] < left[0]
    torch.testing.assert_close(left, right)


# --- the GPT -------------------------------------------------------------------------------------
# Its tied head is left out: mup's MuSharedReadout and automup agree on what the function is, but
# mup rescales the shared tensor as an output, and its std then grows with the width.


def build_gpt(width: int) -> gpt.GPT:
    return gpt.GPT(gpt.GPTConfig(n_embd=width))


TIED = "transformer.wte.weight"


@functools.cache
def mup_gpt(ratio: int) -> nn.Module:
    base = cases.GPT.base
    torch.manual_seed(0)
    model = build_gpt(base * ratio)
    # rescale_params=False: gpt.py draws its weights with torch's init, not with mup's, so mup
    # cannot know their std at the base; the rates are what is compared.
    return mup.set_base_shapes(
        model, build_gpt(base), delta=build_gpt(2 * base), rescale_params=False
    )


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("family", OPTIMIZERS)
def test_the_gpt_learns_at_the_same_rates(family: str, ratio: int) -> None:
    theirs_class, ours_class = OPTIMIZERS[family]
    theirs, mu = mup_gpt(ratio), parametrized(cases.GPT)
    ours = mu(cases.GPT.base * ratio)
    rates = learning_rates(theirs, theirs_class(theirs.parameters(), lr=LR))
    mine = learning_rates(ours, mu.optimizer(ours, ours_class, lr=LR))
    for found in (rates, mine):
        del found[TIED]
    assert_close(mine, rates)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_gpt_starts_at_the_same_scale(ratio: int) -> None:
    """mup.init.normal_ at the base's std is mup's way to draw: std / sqrt(width) where hidden."""
    torch.manual_seed(0)
    theirs = mup_gpt(ratio)
    plan = parametrized(cases.GPT).plan(cases.GPT.base * ratio)
    at_base = parametrized(cases.GPT).plan(cases.GPT.base)
    for name, parameter in theirs.named_parameters():
        if parameter.dim() < 2 or name == TIED:
            continue  # zeros and ones in both
        fresh = nn.Parameter(torch.empty_like(parameter))
        fresh.infshape = parameter.infshape
        mup.init.normal_(fresh, std=at_base.parameter(name).init_std)
        error = 4 / math.sqrt(2 * fresh.numel())
        assert abs(plan.parameter(name).init_std / float(fresh.std()) - 1) < error, name
