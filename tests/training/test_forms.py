"""The forms of muP train the same function, to the last digits, with each family of optimizers."""

from __future__ import annotations

import copy
import functools
from typing import Any

import mup
import pytest
import torch
from torch import nn

import automup
import cases
from automup.api import Mup
from automup.errors import RewriteError, UsageError
from cases import Case

FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-4}),
    "adamw coupled": (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.1, "decay": "coupled"}),
    "adam l2": (torch.optim.Adam, {"lr": 1e-3, "weight_decay": 0.1}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.9}),
    "sgd": (
        torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    ),
}  # fmt: skip
UNIFORM = {"sgd": "uniform-lr-sgd"}
STEPS = 6
X = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0))


@functools.cache
def parametrized(case: Case, form: str = "default", **settings: float) -> Mup:
    return automup.parametrize(
        case.build,
        base={"width": case.base},
        inputs=case.inputs,
        form=form,
        constants=automup.Constants(**settings),
    )


def losses(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    inputs = {"resnet": cases.IMAGES, "mlp": cases.VECTORS}.get(case.name)
    found = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        logits = case.logits(model) if inputs is None else model(inputs.double())
        loss = nn.functional.cross_entropy(
            logits.flatten(0, -2), case.targets[: len(logits)].flatten()
        )
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


def pair(case: Case, form: str, **constants: float) -> tuple[nn.Module, nn.Module]:
    """A model in the default form and the same function in another, at 4 times the base."""
    torch.manual_seed(1)
    default = parametrized(case, **constants)(4 * case.base).double()
    mu = parametrized(case, form, **constants)
    formed = mu(4 * case.base).double()
    plan = mu.plan(4 * case.base)
    with torch.no_grad():
        for (name, weight), stored in zip(
            default.named_parameters(), formed.parameters(), strict=True
        ):
            stored.copy_(weight / plan.scale(plan.parameter(name)))
    return default, formed


def rates(optimizer: torch.optim.Optimizer) -> set[float]:
    return {float(group["lr"]) for group in optimizer.param_groups}


TRAINED = [cases.MLP, cases.RESNET, cases.GPT, cases.LLAMA, cases.HEADS, cases.EINSUM]


@pytest.mark.parametrize("kind", ["uniform", "table8"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_every_form_trains_the_same_function(case: Case, family: str, kind: str) -> None:
    make, settings = FAMILIES[family]
    form = UNIFORM.get(family, "uniform-lr") if kind == "uniform" else "table8"
    default, formed = pair(case, form)
    before = parametrized(case).optimizer(default, make, **settings)
    after = parametrized(case, form).optimizer(formed, make, **settings)
    assert len(rates(before)) > 1
    assert rates(after) == {settings["lr"]} or kind == "table8"
    expected = losses(case, default, before)
    torch.testing.assert_close(losses(case, formed, after), expected, rtol=1e-9, atol=0.0)
    assert expected[-1] < expected[0]


@pytest.mark.parametrize("case", [cases.GPT, cases.LLAMA], ids=str)
def test_table8_trains_the_same_function_with_muon_too(case: Case) -> None:
    """Only readouts have a factor there, and those are left to AdamW."""
    settings: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1, "rest": {"lr": 1e-3, "eps": 1e-4}}
    default, formed = pair(case, "table8")
    before, after = (
        parametrized(case, form).optimizer(model, torch.optim.Muon, **settings)
        for form, model in (("default", default), ("table8", formed))
    )
    expected = losses(case, default, before)
    torch.testing.assert_close(losses(case, formed, after), expected, rtol=1e-9, atol=0.0)
    assert expected[-1] < expected[0]


def test_the_constants_of_a_model_go_into_the_form_too() -> None:
    constants = {"input_lr": 0.5, "hidden_lr": 2.0, "output_mult": 3.0}
    default, formed = pair(cases.MLP, "uniform-lr", **constants)
    before = parametrized(cases.MLP, **constants).optimizer(default, lr=1e-3)
    after = parametrized(cases.MLP, "uniform-lr", **constants).optimizer(formed, lr=1e-3)
    assert rates(after) == {1e-3}
    torch.testing.assert_close(
        losses(cases.MLP, formed, after), losses(cases.MLP, default, before), rtol=1e-9, atol=0.0
    )


@pytest.mark.parametrize("form", ["uniform-lr", "uniform-lr-sgd", "table8"])
@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_a_fresh_model_has_the_same_products(case: Case, form: str) -> None:
    """From one seed: what is drawn is what the default form draws, over the factor."""
    mu = parametrized(case, form)
    plan = mu.plan(4 * case.base)
    torch.manual_seed(2)
    default = dict(parametrized(case)(4 * case.base).named_parameters())
    torch.manual_seed(2)
    formed = mu(4 * case.base)
    for name, stored in formed.named_parameters():
        weight = stored * plan.scale(plan.parameter(name))
        torch.testing.assert_close(weight, default[name], rtol=1e-5, atol=0.0)
    assert list(formed.state_dict()) == list(case.build(case.base).state_dict())
    torch.testing.assert_close(copy.deepcopy(formed).state_dict(), formed.state_dict())


@pytest.mark.parametrize("form", ["uniform-lr", "table8"])
def test_at_the_base_it_is_the_authors_model(form: str) -> None:
    torch.manual_seed(3)
    plain = cases.GPT.build(32)
    torch.manual_seed(3)
    ours = parametrized(cases.GPT, form)(32)
    assert torch.equal(cases.GPT.logits(plain), cases.GPT.logits(ours))


def test_table_8_is_mups_own_form() -> None:
    """The MLP as mup's README has it: the same rates, decay and multipliers, weight by weight."""

    class MuMLP(cases.mlp.MLP):
        def __init__(self, width: int) -> None:
            super().__init__(width=width)
            self.fc_out = mup.MuReadout(width, 10)

    theirs = mup.set_base_shapes(MuMLP(128), MuMLP(32), delta=MuMLP(64))
    mu = parametrized(cases.MLP, "table8")
    ours = mu(128)
    with torch.no_grad():
        for parameter, same in zip(theirs.parameters(), ours.parameters(), strict=True):
            parameter.copy_(same)
        torch.testing.assert_close(theirs(cases.VECTORS), ours(cases.VECTORS))
    for make, reference in ((torch.optim.AdamW, mup.MuAdamW), (torch.optim.SGD, mup.MuSGD)):
        found = []
        for model, optimizer in (
            (ours, mu.optimizer(ours, make, lr=0.1, weight_decay=0.1)),
            (theirs, reference(theirs.parameters(), lr=0.1, weight_decay=0.1)),
        ):
            names = {id(p): name for name, p in model.named_parameters()}
            settings = {
                names[id(p)]: (g["lr"], g["lr"] * g["weight_decay"])
                for g in optimizer.param_groups
                for p in g["params"]
            }
            found.append({name: pytest.approx(settings[name]) for name in sorted(settings)})
        assert {k: v.expected for k, v in found[0].items()} == found[1]


def test_what_has_no_place_or_another_optimizer_is_refused() -> None:
    with pytest.raises(RewriteError, match=r"weight_hh_l0: no place .* LSTM is not the"):
        automup.parametrize(lambda width=16: nn.LSTM(8, width), inputs=(X,), form="uniform-lr")
    mu = parametrized(cases.MLP, "uniform-lr")
    with pytest.raises(UsageError, match="for adam's family"):
        mu.optimizer(mu(128), torch.optim.SGD, lr=0.1)
    with pytest.raises(UsageError, match=r"no form 'table9'.*uniform-lr"):
        parametrized(cases.MLP, "table9")


def test_weights_are_drawn_on_meta_in_any_form() -> None:
    mu = parametrized(cases.MLP, "uniform-lr")
    with torch.device("meta"):
        model = mu(512)
    mu.init_(model.to_empty(device="cpu"), seed=1)
    std = float(model.hidden[0].weight.detach().std())
    assert std == pytest.approx(mu.plan(512).parameter("hidden.0.weight").init_std, rel=0.02)
