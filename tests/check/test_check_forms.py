"""The check judges a model in the form that it is in, also where it takes a smaller base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import automup
from automup.check.cases import mup_case
from automup.check.run import Settings, check
from automup.check.synthetic import Synthetic
from mlp import MLP

FORMS = (
    ("table8", torch.optim.AdamW),
    ("uniform-lr", torch.optim.AdamW),
    ("uniform-lr-sgd", torch.optim.SGD),
)
WIDTHS = (1, 2, 4)

each_form = pytest.mark.parametrize(("form", "optimizer_class"), FORMS, ids=lambda x: str(x))


def mlp(width: int = 64) -> MLP:
    return MLP(width=width)


@each_form
def test_a_model_passes_in_its_form(form: str, optimizer_class: type) -> None:
    found = automup.parametrize(mlp, form=form).check(optimizer_class, widths=WIDTHS)
    assert found.base == {"width": 32}
    assert found.plan.form == form
    assert found.passed, str(found)


@each_form
def test_a_rate_that_is_off_is_found_in_every_form(form: str, optimizer_class: type) -> None:
    mu = automup.parametrize(mlp, base=32, form=form)
    lr = 2e-3
    case = mup_case(mu, optimizer_class, lr)
    data, settings = Synthetic.of(mu.study.models), Settings(lr, WIDTHS)

    def off(
        make: Callable[[nn.Module], torch.optim.Optimizer],
    ) -> Callable[[nn.Module], torch.optim.Optimizer]:
        def optimizer(model: nn.Module) -> torch.optim.Optimizer:
            made = make(model)
            hidden = model.get_parameter("hidden.0.weight")
            group = next(g for g in made.param_groups if any(p is hidden for p in g["params"]))
            group["params"] = [p for p in group["params"] if p is not hidden]
            wide = hidden.shape[0] / 32
            wrong = {key: group[key] * wide for key in ("lr", "lr_mult")}
            made.add_param_group({**group, "params": [hidden], **wrong})
            return made

        return optimizer

    faulty = replace(case, subject=replace(case.subject, optimizer=off(case.subject.optimizer)))
    found = check(faulty, data, settings)
    assert [finding.place for finding in found.findings][:1] == ["hidden.0.weight"], str(found)
