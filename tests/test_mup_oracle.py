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
def test_the_mlp_starts_with_the_same_products(ratio: int) -> None:
    """From the same draw, so without sampling error; the biases too.

    torch draws a bias by its layer's fan_in, so it shrinks with width. mup's set_base_shapes
    multiplies it by the root of the width, and automup does.
    """
    base = cases.MLP.base
    torch.manual_seed(0)
    ours = dict(parametrized(cases.MLP)(base * ratio).named_parameters())
    torch.manual_seed(0)
    plain = cases.MLP.build(base * ratio).state_dict()
    theirs = MuMLP(base * ratio)
    theirs.load_state_dict(plain)
    mup.set_base_shapes(theirs, MuMLP(base), delta=MuMLP(2 * base))
    factor = multipliers(theirs)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(
            ours[name], parameter * factor[name], rtol=1e-5, atol=0.0, msg=name
        )


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("family", OPTIMIZERS)
def test_the_mlp_decays_alike(family: str, ratio: int) -> None:
    """mup multiplies the decay by what it divides the lr by: automup's default too.

    lr * decay is what one step takes off a weight, relative to the weight, so that multipliers
    do not enter. (Only MuAdamW's default differs: it drops torch's 0.01.)
    """
    theirs, mu = mup_mlp(ratio), parametrized(cases.MLP)
    ours = mu(cases.MLP.base * ratio)
    theirs_class, ours_class = OPTIMIZERS[family]
    made = theirs_class(theirs.parameters(), lr=LR, weight_decay=DECAY)
    mine = mu.optimizer(ours, ours_class, lr=LR, weight_decay=DECAY)
    assert_close(decays(ours, mine), decays(theirs, made))


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


def build_gpt(width: int) -> gpt.GPT:
    """examples/gpt.py the way mup's README asks for it: with a MuSharedReadout."""
    model = gpt.GPT(gpt.GPTConfig(n_embd=width))
    model.lm_head = mup.MuSharedReadout(model.transformer.wte.weight, bias=False)
    return model


TIED = "transformer.wte.weight"


@functools.cache
def mup_gpt(ratio: int) -> nn.Module:
    """Not rescaled: mup takes what nn.Linear draws by default to have been drawn, and gpt.py draws
    anew with std 0.02. (It would also multiply the shared tensor by the root of the width.)
    """
    base = cases.GPT.base
    model, delta = build_gpt(base * ratio), build_gpt(2 * base)
    return mup.set_base_shapes(model, build_gpt(base), delta=delta, rescale_params=False)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("family", OPTIMIZERS)
def test_the_gpt_learns_and_decays_at_the_same_rates(family: str, ratio: int) -> None:
    """Every weight by itself, the tied one too: in both it follows its input role."""
    theirs_class, ours_class = OPTIMIZERS[family]
    theirs, mu = mup_gpt(ratio), parametrized(cases.GPT)
    ours = mu(cases.GPT.base * ratio)
    made = theirs_class(theirs.parameters(), lr=LR, weight_decay=DECAY)
    mine = mu.optimizer(ours, ours_class, lr=LR, weight_decay=DECAY)
    assert_close(learning_rates(ours, mine), learning_rates(theirs, made))
    assert_close(decays(ours, mine), decays(theirs, made))


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_gpt_s_tied_readout_is_multiplied_alike(ratio: int) -> None:
    theirs, mu = mup_gpt(ratio), parametrized(cases.GPT)
    sites = [s for s in mu.plan(cases.GPT.base * ratio).sites if s.kind == "readout"]
    assert sites
    for site in sites:
        assert site.factor == 1 / theirs.lm_head.width_mult()


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_gpt_starts_at_the_same_scale(ratio: int) -> None:
    """All but the tied weight, by mup's own way to draw: mup.init.normal_ at the base's std.

    The same draw at std 1 gives the std that mup used, without sampling error.
    """
    mu = parametrized(cases.GPT)
    wide, base = mu.plan(cases.GPT.base * ratio), mu.plan(cases.GPT.base)
    for name, parameter in mup_gpt(ratio).named_parameters():
        if parameter.dim() == 2 and name != TIED:
            drawn = nn.Parameter(torch.ones_like(parameter))
            drawn.infshape = parameter.infshape
            torch.manual_seed(0)
            mup.init.normal_(drawn, std=base.parameter(name).init_std)
            torch.manual_seed(0)
            unit = torch.empty_like(parameter).normal_()
            expected = float(drawn.detach().norm() / unit.norm())
            assert math.isclose(wide.parameter(name).init_std, expected, rel_tol=1e-5), name
