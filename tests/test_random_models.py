"""Random models against oracles that share no code with the analysis.

Hypothesis draws a program (``random_program.py``, ``random_blocks.py``): blocks that read earlier
values and write a new one. Each block is a few lines of source that are *made* with the truth:
which of its weights' axes grow, whether they are summed over or written, how its constructor draws
them, and which power of the width its own constants leave over. The plan must say the same, its
fans must be those that are counted by running the model, and the real muP model must pass the exact
test of ``oracle.py``. A program with something that muP cannot express may be refused instead.

Everything that is drawn follows from a seed. To search elsewhere, or longer:

    AUTOMUP_SEED=7 AUTOMUP_EXAMPLES=20000 python -m pytest -n 2 tests/test_random_models.py

``AUTOMUP_SEED`` is 0 by default, ``AUTOMUP_EXAMPLES`` 2000. A failure prints the command that
repeats its part of the search, the smallest program that it could find as a script
that runs by itself, and the choices that make this program, for

    python tests/random_check.py 0,0/1,5/2
"""

from __future__ import annotations

import os
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import automup
import cases
import oracle
import random_check
from automup import planning, rules
from automup.analysis.flow import Flow
from automup.analysis.ops import RULES
from automup.analysis.states import State
from cases import Case
from random_check import as_text, from_text, program_of, source_of
from random_search import Disagreement, search

SEED = int(os.environ.get("AUTOMUP_SEED", "0"))
EXAMPLES = int(os.environ.get("AUTOMUP_EXAMPLES", "2000"))
SHARDS = 20


@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_models(shard: int) -> None:
    """In shares, so that several processes can work at them."""
    again = (
        f"AUTOMUP_SEED={SEED} AUTOMUP_EXAMPLES={EXAMPLES} python -m pytest "
        f"'tests/test_random_models.py::test_random_models[{shard}]'"
    )
    search(max(1, EXAMPLES // SHARDS), SEED * SHARDS + shard, again)


# --- what is wrong is found -----------------------------------------------------------------------

aten = torch.ops.aten


def readouts_as_hidden(patch: pytest.MonkeyPatch) -> None:
    """The row of the table for readouts is lost."""
    patch.setattr(planning, "init_multiplier", lambda ratios, role: ratios.fan_in**-0.5)


def rates_of_sgd(patch: pytest.MonkeyPatch) -> None:
    """Adam's learning rate is taken from another family."""
    patch.setitem(rules.FAMILIES, "adam", rules.FAMILIES["sgd"])


def softmax_takes_anything(patch: pytest.MonkeyPatch) -> None:
    """The rule of one operation forgets that its argument must have size 1."""

    def rule(flow: Flow, op: Any) -> State:
        return State()

    patch.setitem(RULES, aten._softmax.default, rule)


def convolutions_ignore_groups(patch: pytest.MonkeyPatch) -> None:
    """Depthwise convolutions are taken for dense ones."""
    right = RULES[aten.convolution.default]

    def rule(flow: Flow, op: Any) -> Any:
        if op.arg(8) == 1:
            return right(flow, op)
        flow.use(op.arg(1), op, "convolution", [0], flow.sizes(op.arg(1))[0])
        return replace(flow.state(op.arg(0)), kind="activation", views=())

    patch.setitem(RULES, aten.convolution.default, rule)


FAULTS = (readouts_as_hidden, rates_of_sgd, softmax_takes_anything, convolutions_ignore_groups)


@pytest.mark.parametrize("plant", FAULTS, ids=[f.__name__ for f in FAULTS])
def test_a_planted_fault_is_found_and_shrunk(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Disagreement) as caught:
        search(300, 1, "the search")
    program = program_of(caught.value.choices)
    assert len(program.lines) <= 9, source_of(program)
    message = str(caught.value)
    assert "the whole search again: the search" in message
    assert "python tests/random_check.py " + as_text(caught.value.choices) in message
    monkeypatch.undo()
    assert random_check.check(program)


def test_the_printed_script_runs_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = from_text("5,1/4,0,1,0,1/13,0,1")
    program = program_of(choices)
    file = tmp_path / "small.py"
    file.write_text(random_check.script(program, choices))
    runpy.run_path(str(file))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = {row[0]: (row[2:5], row[6:]) for row in rows if row[0] in program.truths}
    assert found.keys() == program.truths.keys()
    for name, (says, wanted) in found.items():
        assert [*map(float, says)] == pytest.approx([*map(float, wanted)], rel=1e-4), name


# --- the same oracle over models that people wrote ------------------------------------------------


def heads_of_8(name: str, dim: int) -> int:
    """In the model whose heads multiply, rows of q, k, v and columns of o come in heads of 8."""
    if any(f".{x}." in f".{name}" for x in ("wq", "wk", "wv")):
        return 8 if dim == 0 else 1
    return 8 if ".wo." in name and dim == 1 else 1


WRITTEN: tuple[tuple[Case, oracle.Grain], ...] = (
    (cases.MLP, lambda name, dim: 1),
    (cases.RESNET, lambda name, dim: 1),
    (cases.GPT, lambda name, dim: 1),
    (cases.WRITTEN_OUT, lambda name, dim: 1),
    (cases.MANUAL, lambda name, dim: 1),
    (cases.EINSUM, lambda name, dim: 1),
    (cases.HF_GPT2, lambda name, dim: 1),
    (cases.HEADS, heads_of_8),
)  # not llama: repeated channels meet other frequencies of its rotations


@pytest.mark.parametrize("case, grain", WRITTEN, ids=[case.name for case, _ in WRITTEN])
def test_hand_written_models_pass_the_exact_oracle(case: Case, grain: oracle.Grain) -> None:
    mu = automup.parametrize(case.build, base={"width": case.base}, inputs=case.inputs)
    ratio = 2 if case is cases.HEADS else 4  # the rounded size of its MLP is a multiple at 2
    narrow, wide = mu(case.base), mu(ratio * case.base)
    lr = oracle.rates(mu.param_groups(wide, torch.optim.Adam, lr=1.0))
    a, b = oracle.align(narrow, wide, lr, grain, torch.float32)
    with torch.no_grad():
        assert oracle.difference(case.logits(b), case.logits(a)) < 1e-3
