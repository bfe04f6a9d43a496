"""The laws of ``automup.parametrize``, on every model of the first set."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import automup
import cases
import gpt
from automup.api import Mup
from cases import Case


@functools.cache
def parametrized(case: Case) -> Mup:
    return automup.parametrize(case.build, base={"width": case.base}, inputs=case.inputs)


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


OPTIMIZERS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.AdamW, {"lr": 3e-3, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
]


@pytest.mark.parametrize("optimizer_class, settings", OPTIMIZERS)
@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_at_base_everything_is_bit_identical(
    case: Case, optimizer_class: Any, settings: dict[str, Any]
) -> None:
    mu = parametrized(case)
    torch.manual_seed(1)
    plain = case.build(case.base)
    torch.manual_seed(1)
    ours = mu(case.base)
    assert type(ours) is type(plain)
    assert_same(bits(plain), bits(ours))
    assert torch.equal(case.logits(plain), case.logits(ours))
    cases.train(case, plain, optimizer_class(plain.parameters(), **settings), 3)
    cases.train(case, ours, mu.optimizer(ours, optimizer_class, **settings), 3)
    assert_same(bits(plain), bits(ours))


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_sp_moves_with_width_and_mup_does_not(case: Case) -> None:
    mu = parametrized(case)
    widths = [case.base * k for k in (1, 2, 4, 8)]
    sp = [
        cases.movement(
            case,
            lambda w=w: case.build(w),
            lambda m: torch.optim.Adam(m.parameters(), lr=2e-3),
        )
        for w in widths
    ]
    up = [
        cases.movement(
            case, lambda w=w: mu(w), lambda m: mu.optimizer(m, torch.optim.Adam, lr=2e-3)
        )
        for w in widths
    ]
    assert cases.slope(widths, sp) > 0.3
    assert -0.3 < cases.slope(widths, up) < 0.2


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_the_state_dict_keeps_its_keys(case: Case) -> None:
    assert list(parametrized(case)(4 * case.base).state_dict()) == list(
        case.build(case.base).state_dict()
    )


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_copies_and_pickles_keep_the_multipliers(case: Case) -> None:
    model = parametrized(case)(2 * case.base).eval()
    logits = case.logits(model)
    assert torch.equal(case.logits(copy.deepcopy(model)), logits)
    assert torch.equal(case.logits(pickle.loads(pickle.dumps(model))), logits)


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_other_instances_of_the_class_are_not_affected(case: Case) -> None:
    torch.manual_seed(2)
    before = case.logits(case.build(2 * case.base))
    parametrized(case)(2 * case.base)
    torch.manual_seed(2)
    assert torch.equal(case.logits(case.build(2 * case.base)), before)


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_apply_to_a_model_built_elsewhere_is_the_same(case: Case) -> None:
    mu = parametrized(case)
    torch.manual_seed(3)
    ours = mu(4 * case.base)
    torch.manual_seed(3)
    theirs = mu.apply(case.build(4 * case.base))
    assert_same(bits(ours), bits(theirs))
    assert torch.equal(case.logits(ours), case.logits(theirs))


@pytest.mark.parametrize("case", [cases.GPT, cases.WRITTEN_OUT], ids=str)
def test_every_branch_of_the_gpt_gives_the_same_mup_logits(case: Case) -> None:
    model = parametrized(case)(4 * case.base)
    plain = case.build(4 * case.base)
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits = case.logits(model)
        assert not torch.allclose(logits, case.logits(plain), rtol=1e-2)
        for flash in (True, False):
            for block in model.transformer.h:
                block.attn.flash = flash
            for training in (True, False):
                model.train(training)
                torch.testing.assert_close(case.logits(model), logits)
                torch.testing.assert_close(model(cases.TOKENS)[0], logits[:, [-1]])


def renamed(module: nn.Module) -> nn.Module:
    """The same classes under other names: every submodule gets a letter for a name."""
    return module


def facts(plan: automup.Plan) -> list[tuple[Any, ...]]:
    return [(p.shape, p.role, p.fan_in, p.fan_out, p.init_mult, p.ratios) for p in plan.parameters]


def test_renaming_changes_no_number(tmp_path: Any) -> None:
    """Every identifier of gpt.py that the model defines is replaced; the plan stays the same."""
    import importlib.util
    import re
    from pathlib import Path

    text = Path(gpt.__file__).read_text()
    names = [
        "wte", "wpe", "ln_f", "lm_head", "transformer", "c_attn", "c_proj", "attn", "mlp", "ln_1",
        "ln_2", "c_fc", "CausalSelfAttention", "Block", "LayerNorm_", "flash",
    ]  # fmt: skip
    for i, name in enumerate(names):
        text = re.sub(rf"(?<![\w]){name}(?![\w])", f"thing{i}", text)
    path = tmp_path / "renamed_model.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("renamed_model", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["renamed_model"] = module
    spec.loader.exec_module(module)
    other = automup.parametrize(
        lambda width=32: module.GPT(module.GPTConfig(n_embd=width)), inputs=(cases.TOKENS,)
    )
    ours, theirs = parametrized(cases.GPT).plan(128), other.plan(128)
    assert facts(ours) == facts(theirs)
    assert [(s.kind, s.exponents, s.factor) for s in ours.sites] == [
        (s.kind, s.exponents, s.factor) for s in theirs.sites
    ]


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: nn.Linear(3, 3), "takes no arguments"),
        (lambda width=None: nn.Linear(3, 3), r"knob is None.*base=\{'name': 256\}"),
        (lambda width=64: nn.Linear(3, 3), "Nothing in the model grows with width"),
    ],
)
def test_knobs_that_are_none(build: Any, message: str) -> None:
    with pytest.raises(automup.AutomupError, match=message):
        automup.parametrize(build)
