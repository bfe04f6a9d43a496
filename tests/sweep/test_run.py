"""A whole sweep: what it runs, what it keeps, what it finds."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from subject import trainer

from automup.errors import PlanError
from automup.sweep.results import SweepResult
from automup.sweep.run import name_of, sweep
from automup.sweep.settings import Point, Range
from automup.sweep.storage import open_storage, study_in
from automup.sweep.trial import Trainer
from automup.sweep.tune import Tuned
from automup.sweep.watch import Silent

GRID = {"multiples": (1.0, 2.0), "lrs": (0.01, 0.02, 0.04, 0.08)}


def swept(runs: Trainer, storage: BaseStorage, code: str = "code") -> SweepResult:
    return sweep(runs, {"data": "numbers"}, code, storage, Silent())


def count(storage: BaseStorage) -> int:
    """How many trials all studies of a storage have."""
    return sum(len(storage.get_all_trials(s._study_id)) for s in storage.get_all_studies())


def test_results_are_those_of_the_runs_and_the_base_counts_for_both() -> None:
    runs = trainer(**GRID)
    found = swept(runs, open_storage(""))
    assert len(found.runs) == 4 * 2 * 3
    point = Point("sp", 2.0, 0.04, 1)
    assert found.runs[point] == runs.result(point)
    assert found.curves["sp"][1.0] == found.curves["mup"][1.0]
    assert [(r.parametrization, r.multiple) for r in found.rows] == [
        ("mup", 1.0),
        ("mup", 2.0),
        ("sp", 1.0),
        ("sp", 2.0),
    ]
    assert found.widest("sp").knobs == {"width": 16}


def test_a_sweep_resumes_to_nothing_and_a_larger_one_runs_what_is_new(tmp_path: Path) -> None:
    place = str(tmp_path / "journal.log")
    runs = trainer(**GRID)
    first = swept(runs, open_storage(place))
    assert swept(runs, open_storage(place)).runs == first.runs
    assert count(open_storage(place)) == 24
    larger = trainer(**{**GRID, "lrs": (*GRID["lrs"], 0.16), "seeds": 3})
    found = swept(larger, open_storage(place))
    assert found.runs.items() >= first.runs.items()
    assert count(open_storage(place)) == len(found.runs) == 5 * 3 * 3


@pytest.mark.parametrize("changed", [{"steps": 13}, {"batch_size": 5}, {"optimizer": "sgd"}])
def test_other_settings_of_a_run_are_another_sweep(changed: dict[str, int]) -> None:
    assert name_of(trainer(**changed), "code") != name_of(trainer(), "code")
    assert name_of(trainer(), "code") == name_of(trainer(), "code") != name_of(trainer(), "other")


# --- constants ------------------------------------------------------------------------------------

TUNE = (Range("output_mult", 0.25, 4.0), Range("output_init", choices=(0.0, 1.0)))


def test_constants_are_tuned_first_and_mup_is_run_with_the_best(tmp_path: Path) -> None:
    place = str(tmp_path / "journal.log")
    runs = trainer(**GRID, tune=TUNE, trials=12)
    found = swept(runs, open_storage(place))
    assert found.tuned is not None and found.tuned.trials == 12
    name = f"{name_of(runs, 'code')}-tune-"
    (tuning,) = (s for s in open_storage(place).get_all_studies() if s.study_name.startswith(name))
    trials = study_in(open_storage(place), tuning.study_name).get_trials()
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    best = min(complete, key=lambda t: t.value if t.value is not None else math.inf)
    assert {**found.tuned.constants, "lr": found.tuned.lr} == best.params
    tuned = replace(runs, constants=found.tuned.constants)
    assert best.value == pytest.approx(
        sum(tuned.result(Point("mup", 1.0, found.tuned.lr, seed)) for seed in range(2)) / 2
    )
    point = Point("mup", 2.0, 0.04, 1)
    assert found.runs[point] == tuned.result(point)
    sp = Point("sp", 1.0, 0.04, 1)
    assert found.runs[sp] == runs.result(sp)  # SP has no constants, also at the base
    again = swept(runs, open_storage(place))
    assert again.tuned == found.tuned and again.runs == found.runs


def test_a_tuned_decay_is_a_setting_of_the_optimizer_in_mup() -> None:
    runs = trainer(**GRID, tune=(Range("weight_decay", choices=(3.0,)),), trials=1)
    found = swept(runs, open_storage(""))
    assert found.tuned is not None and found.tuned.constants == {"weight_decay": 3.0}
    given = trainer(**GRID, options={"weight_decay": 3.0})
    for seed in range(2):
        mup, sp = (Point(name, 2.0, 0.04, seed) for name in ("mup", "sp"))
        assert found.runs[mup] == given.result(mup) != runs.result(mup)
        assert found.runs[sp] == runs.result(sp)


def test_a_killed_trial_of_the_tuning_is_tried_again(tmp_path: Path) -> None:
    place = str(tmp_path / "journal.log")
    runs = trainer(**GRID, tune=TUNE, trials=4)

    class Killed(BaseException):
        """What a kill looks like from within, but for the claim: it stays."""

    calls = []

    def dies(self: Trainer, point: Point) -> object:
        calls.append(self.constants)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "losses", dies)
        patch.setattr("automup.sweep.claims.Claims.fail", lambda self, trial_id: False)
        patch.setattr("automup.sweep.claims.process", lambda pid: "1 1")
        with pytest.raises(Killed):
            swept(runs, open_storage(place))
    found = swept(runs, open_storage(place))
    assert found.tuned is not None and found.tuned.trials == 4
    tuning = next(s for s in open_storage(place).get_all_studies() if "-tune-" in s.study_name)
    trials = study_in(open_storage(place), tuning.study_name).get_trials()
    assert trials[0].state is TrialState.FAIL
    again = [t for t in trials[1:] if t.params == trials[0].params]
    assert [t.state for t in again] == [TrialState.COMPLETE]
    assert {k: v for k, v in again[0].params.items() if k != "lr"} == calls[0]


# --- results --------------------------------------------------------------------------------------


def result(diverged: bool = False) -> SweepResult:
    """muP's optimum stays at 2^-5, SP's is one octave lower with each doubling."""
    runs = {}
    for multiple in (1.0, 2.0, 4.0):
        for exponent in range(-9, -1):
            for seed in range(2):
                moved = exponent + 5 + 0.1 * seed
                runs[Point("mup", multiple, 2.0**exponent, seed)] = 1 + moved**2 / 10
                if multiple > 1:
                    sp = 1 + (moved + math.log2(multiple)) ** 2 / 10
                    far = diverged and exponent > -5
                    runs[Point("sp", multiple, 2.0**exponent, seed)] = math.inf if far else sp
    about = {
        "model": "Net",
        "base": {"width": 8},
        "fixed": {},
        "data": "numbers",
        "optimizer": "adam",
        "options": {},
        "constants": {"output_mult": 2.0},
        "steps": 10,
        "batch_size": 4,
        "seeds": 2,
        "last": 0.5,
        "knobs": {"1": {"width": 8}, "2": {"width": 16}, "4": {"width": 32}},
    }
    return SweepResult(about, runs, Tuned({"output_mult": 2.0}, 0.03, 1.5, 9, 2))


def test_the_drift_and_the_regret_of_each_width_are_those_of_its_curve() -> None:
    rows = {(r.parametrization, r.multiple): r for r in result().rows}
    assert [rows["mup", m].drift.value for m in (1, 2, 4)] == pytest.approx([0, 0, 0], abs=1e-9)
    assert [rows["sp", m].drift.value for m in (1, 2, 4)] == pytest.approx([0, -1, -2], abs=1e-9)
    assert rows["mup", 4].regret == 0
    at = rows["sp", 4]
    assert at.transferred == pytest.approx(1 + (2**2 + 2.1**2) / 20)
    assert at.regret == pytest.approx(at.transferred / at.optimum.loss - 1)


@pytest.mark.parametrize("diverged", [False, True])
def test_what_is_written_is_read_again(diverged: bool, tmp_path: Path) -> None:
    whole = result(diverged)
    whole.save(tmp_path / "out")
    read = SweepResult.load(tmp_path / "out")
    assert read.runs == whole.runs and read.tuned == whole.tuned and read.about == whole.about
    assert str(read) == str(whole)
    data = json.loads((tmp_path / "out" / "sweep.json").read_text(), parse_constant=pytest.fail)
    assert len(data["widths"]) == 6
    with open(tmp_path / "out" / "runs.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["loss"]) for line in lines] == list(whole.runs.values())
    assert {line["width"] for line in lines} == {"8", "16", "32"}
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "out" / "sweep.svg").read_text()
    assert svg.count("width=32 ×4") == 1  # one legend
    whole.save(tmp_path / "again")
    assert (tmp_path / "again" / "sweep.svg").read_text() == svg


def test_the_table_says_what_diverged() -> None:
    text = str(result(diverged=True))
    assert "output_mult 2" in text
    assert "μP: from width=8 ×1 to width=32 ×4 the optimum moves +0.00 ± 0.00 octaves" in text
    assert "SP: from width=8 ×1 to width=32 ×4 the optimum moves -2.00 ± 0.00 octaves" in text
    runs = {p: math.inf if p.multiple == 4 else loss for p, loss in result().runs.items()}
    assert "SP: every run of width=32 ×4 diverged" in str(replace(result(), runs=runs))


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="No finished sweep"):
        SweepResult.load(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(PlanError, match="Not a sweep"):
        SweepResult.load(tmp_path)
