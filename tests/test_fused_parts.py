"""Fused weights whose rows are cut into parts that grow differently: each has its own law."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import automup
from automup.capture.load import load_model, load_text
from automup.convert import convert
from automup.errors import UsageError
from automup.report import as_json
from automup.study import study_source

FILE = Path(__file__).parent / "zoo" / "models" / "heads.py"


def built(make: Any, **knobs: int) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = make(**knobs)
    return model


@pytest.fixture(scope="module")
def source() -> Any:
    return load_model(f"{FILE}:FusedFixedKeys")


@pytest.fixture(scope="module")
def mu(source: Any) -> automup.Mup:
    return automup.parametrize(lambda dim=32: source.build({"dim": dim}))


def test_each_part_has_the_init_of_its_own_role(source: Any, mu: automup.Mup) -> None:
    plain = built(lambda dim: source.build({"dim": dim}), dim=128)
    model = built(mu, dim=128)
    before, after = (m.get_parameter("qkv.weight").detach() for m in (plain, model))
    # torch draws 1 / sqrt(fan_in): hidden rows are right, those that stay need 1 / fan_in
    assert torch.equal(after[:128], before[:128])
    assert torch.allclose(after[128:], before[128:] / 2)


RATES_BY_ROW = [torch.optim.SGD, torch.optim.Adadelta, torch.optim.Adafactor]


def test_adam_has_one_rate_for_all_parts_and_sgd_is_refused(mu: automup.Mup) -> None:
    """Where the rate goes with fan_out, or is relative to the draw, the parts' rates differ."""
    model = mu(dim=128)
    weight = model.get_parameter("qkv.weight")
    groups = mu.param_groups(model, lr=1.0)
    assert [g["lr"] for g in groups for p in g["params"] if p is weight] == [0.25]
    for cls in RATES_BY_ROW:
        with pytest.raises(UsageError, match=r"qkv\.weight: its rows are cut into parts"):
            mu.optimizer(model, cls, lr=0.1)


def test_the_report_and_the_plan_name_the_parts(mu: automup.Mup) -> None:
    plan = mu.plan(dim=128)
    entry = next(p for p in json.loads(as_json(plan))["parameters"] if p["name"] == "qkv.weight")
    assert [(p["rows"], p["role"], p["init_mult"]) for p in entry["parts"]] == [
        ([0, 128], "hidden", 1.0),
        ([128, 136], "output", 0.5),
        ([136, 144], "output", 0.5),
    ]
    assert automup.Plan.from_json(plan.to_json()) == plan
    assert "hidden | output" in str(mu.explain(dim=128))


def test_the_converted_file_draws_the_parts_alike(source: Any, mu: automup.Mup) -> None:
    text = convert(source, study_source(source, {"dim": 32})).text
    module = load_text(text, str(FILE.with_name("mu_heads.py")))
    live, written = built(mu, dim=128), built(module.FusedFixedKeys, dim=128)
    for name, weight in live.named_parameters():
        assert torch.allclose(weight, written.get_parameter(name)), name
    with pytest.raises(ValueError, match=r"qkv\.weight: its parts need different rates"):
        module.mup_optimizer(written, 0.1, optimizer=torch.optim.SGD)
