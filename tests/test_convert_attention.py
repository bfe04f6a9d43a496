"""torch's own attention in converted files: the logits move by the factor, whatever torch runs."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from typing import Any

import pytest
import torch
from torch import nn

import cases
from automup.api import Mup
from automup.capture.load import load_model
from automup.cli.convert import convert
from automup.cli.models import open_model
from automup.converted import original_of
from automup.planning import make_plan
from conversions import (
    FOLDER,
    Pair,
    assert_bit_identical_at_base,
    assert_nothing_left,
    assert_parametrize_agrees,
    assert_ruff_passes,
    assert_same,
    assert_well_written,
    converted,
    folder_of_files,
    one,
)

folder = pytest.fixture(autouse=True, scope="module")(folder_of_files)
PADDING = torch.zeros(cases.TOKENS.shape, dtype=torch.bool)
PADDING[1, 20:] = True


def the_pair() -> Pair:
    return converted(one("torch_layers.py", width=32))


def moved(model: nn.Module) -> nn.Module:
    """The model with weights as training leaves them: no bias is zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def test_it_is_the_authors_at_base_and_parametrizes_above() -> None:
    pair = the_pair()
    assert_well_written(pair)
    assert_ruff_passes(pair)
    assert_bit_identical_at_base(pair)
    assert_nothing_left(pair)
    assert_parametrize_agrees(pair)


@pytest.mark.parametrize("grad", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_at_base_torch_runs_what_it_ran(training: bool, grad: bool) -> None:
    """Its fused kernels and nested tensors too, which compute in another order."""
    pair = the_pair()
    base = dict(pair.file.base)
    with torch.set_grad_enabled(grad):
        outputs = [
            pair.build(which, base).train(training)(cases.TOKENS, PADDING)
            for which in ("author", "convert")
        ]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("padding", [None, PADDING], ids=["full", "padded"])
def test_every_path_through_torch_gives_what_parametrize_gives(padding: Any) -> None:
    pair = the_pair()
    mu = Mup(pair.study, pair.study.models.build, strict=True)
    theirs = moved(mu.apply(pair.build("author", pair.file.wide)))
    ours = moved(pair.build("convert", pair.file.wide))
    assert_same(theirs, ours, rtol=1e-6, atol=0.0)
    expected = theirs.train()(cases.TOKENS, padding)
    for model in (theirs, ours):
        for training in (True, False):
            for grad in (True, False):
                with torch.set_grad_enabled(grad):
                    output = model.train(training)(cases.TOKENS, padding)
                torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


def test_the_logits_move_by_exactly_the_factor() -> None:
    """log(weights) differences between keys are differences of logits: they scale by the factor."""
    pair = the_pair()
    models = [moved(pair.build(which, pair.file.wide)).double() for which in ("author", "convert")]
    x = torch.randn(3, 7, 128, generator=torch.Generator().manual_seed(1)).double()
    for name, factor in (("encoder.layers.1.self_attn", 0.5), ("decoder.multihead_attn", 0.5)):
        scores = []
        for model in models:
            attention = model.get_submodule(name)
            logits = attention(x, x + 1, x, average_attn_weights=False)[1].log()
            scores.append(logits - logits[..., :1])
        torch.testing.assert_close(scores[1], factor * scores[0])


def test_only_heads_that_grow_are_changed() -> None:
    pair = the_pair()
    model = pair.build("convert", pair.file.wide)
    kinds = {n: type(m).__name__ for n, m in model.named_modules() if "attn" in n or "own" in n}
    assert kinds["decoder.self_attn"] == kinds["own"] == "MupMultiheadAttention"
    assert type(model.grown) is nn.MultiheadAttention
    assert list(model.state_dict()) == list(pair.build("author", pair.file.wide).state_dict())


def test_copies_pickles_and_compiled_models_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = the_pair()
    monkeypatch.setitem(sys.modules, pair.made.module.__name__, pair.made.module)
    assert importlib.import_module(pair.made.module.__name__) is pair.made.module
    model = moved(pair.build("convert", pair.file.wide))
    output = model(cases.TOKENS)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(cases.TOKENS), output)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(cases.TOKENS), output)


def test_explain_reads_the_same_plan_from_the_converted_file() -> None:
    pair = the_pair()
    plans = []
    for source in (pair.source, original_of(load_model(pair.made.file))):
        study = open_model(source, None, "width", None, None)
        plans.append(make_plan(study, pair.file.wide))
    assert {site.kind for site in plans[0].sites} == {"attention"}
    assert len(plans[0].sites) == 3
    numbers = [
        [(p.name, p.role, p.ratios, p.init_mult) for p in plan.parameters]
        + [(s.kind, s.factor, s.modules) for s in plan.sites]
        for plan in plans
    ]
    assert numbers[0] == numbers[1]


def test_converting_again_from_the_command_line_changes_nothing() -> None:
    pair = the_pair()
    out = FOLDER / "again.py"
    convert(pair.made.file, out)
    assert out.read_text(encoding="utf-8") == pair.made.text
