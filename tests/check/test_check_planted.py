"""Every fault of the benchmark, planted in the MLP, is caught and put down to the right weight."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from automup.check.run import Settings, check
from automup.check.synthetic import Synthetic

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import planted_faults

SETTINGS = Settings(planted_faults.LR, (1, 2, 4, 8), seeds=3)


@pytest.fixture(scope="module")
def model() -> planted_faults.Model:
    return planted_faults.Model.of("mlp")


def test_every_planted_fault_is_caught_and_attributed(model: planted_faults.Model) -> None:
    data = Synthetic.of(model.study.models)
    planted = list(planted_faults.faults_of(model))
    assert len(planted) == 26
    for fault in planted:
        found = check(planted_faults.case_with(model, fault), data, SETTINGS)
        outcome = planted_faults.judged(found, fault)
        assert outcome.caught and outcome.attributed, (fault.kind, fault.name, outcome.said)


@pytest.mark.parametrize("seed", range(10, 60, 10))
def test_the_unchanged_model_raises_no_alarm(model: planted_faults.Model, seed: int) -> None:
    data = Synthetic.of(model.study.models)
    settings = Settings(planted_faults.LR, (1, 2, 4), seeds=2, first=seed)
    found = check(planted_faults.case_with(model, None), data, settings)
    assert found.passed, str(found)
