"""``automup sweep`` and ``automup transfer`` on the command line. (Wrong calls: tests/hostile.)"""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from subject import DATA, MODEL

import automup
from automup import cli
from automup.sweep.results import SweepResult


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "data.py").write_text(DATA)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: Any
) -> tuple[Any, str, str]:
    monkeypatch.setattr(sys, "argv", ["automup", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return ended.value.code, out, err


SWEEP = ["sweep", "net.py", "--data", "data.py", "--widths", "1,2", "--lr", "2^-8:2^-6"]
SHORT = ["--seeds", "1", "--steps", "6", "--batch", "4", "--input", "float32[2,3]"]


def test_a_sweep_prints_its_table_and_writes_its_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, *SWEEP, *SHORT)
    assert status == 0, err
    assert out.splitlines()[0] == (
        "Net on data.py: adamw, 6 steps of batch 4, 1 seed; loss: mean of the last 50 % of the "
        "steps"
    )
    assert "from width=8 ×1 to width=16 ×2 the optimum moves" in out
    assert "runs: 9 of 9, best" in err
    names = sorted(file.name for file in (folder / "sweep").iterdir())
    assert names == ["journal.log", "runs.csv", "sweep.json", "sweep.png", "sweep.svg"]
    found = SweepResult.load(folder / "sweep")
    assert found.about["call"]["model"] == "net.py"
    before = (folder / "sweep" / "sweep.json").read_text()
    status, again, err = run(monkeypatch, capsys, *SWEEP, *SHORT)
    assert (status, again) == (0, out)
    assert err.splitlines()[0].startswith("runs: 9 of 9")
    assert (folder / "sweep" / "sweep.json").read_text() == before


def test_several_jobs_find_what_one_finds(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(monkeypatch, capsys, *SWEEP, *SHORT, "--out", "alone")
    assert status == 0, err
    command = [sys.executable, "-m", "automup.cli", *SWEEP, *SHORT, "--jobs", "2", "--out", "two"]
    command += ["--storage", f"sqlite:///{folder}/shared.db"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    one, two = (json.loads((folder / name / "sweep.json").read_text()) for name in ("alone", "two"))
    assert one["runs"] == two["runs"]


# --- transfer -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_what_a_sweep_tuned_is_carried_to_another_width(
    suffix: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tune = ["--tune", "output_mult=0.5:2,hidden_lr=0.5,2,weight_decay=0.1:1", "--trials", "3"]
    status, _, err = run(monkeypatch, capsys, *SWEEP, *SHORT, *tune, "--setting", "eps=1e-6")
    assert status == 0, err
    file = f"wide.{suffix}"
    call = ["transfer", "sweep", "--target", "width=64", "--out", file]
    status, out, err = run(monkeypatch, capsys, *call)
    assert status == 0, err
    assert out.startswith("Net at width=64, tuned at width=8\nadamw, eps 1e-06, weight_decay 0.")

    found, config = SweepResult.load("sweep"), automup.Transfer.load(file)
    assert found.tuned is not None
    decay = config.options["weight_decay"]
    assert 0.1 < decay < 1
    assert {**config.constants, "weight_decay": decay} == found.tuned.constants
    assert math.log2(config.lr) == pytest.approx(found.narrowest("mup").optimum.log2_lr.value)
    model = config.make_model()
    assert model.head.weight.shape == (2, 64)
    optimizer = config.make_optimizer(model)
    by_name = {name: g for g in config.groups for name in g.parameters.split()}
    of_tensor = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        group, said = of_tensor[id(parameter)], by_name[name]
        for key in ("lr", "weight_decay", "eps"):
            assert group[key] == pytest.approx(getattr(said, key)), (name, key)
    assert by_name["mix.weight"].lr == pytest.approx(config.lr * config.constants["hidden_lr"] / 8)


def test_without_constants_the_command_that_converts_and_trains_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, capsys, *SWEEP, *SHORT)[0] == 0
    status, out, err = run(monkeypatch, capsys, "transfer", "sweep", "--target", "width=64")
    assert status == 0, err
    command = next(line for line in out.splitlines() if "automup convert" in line)
    status, _, err = run(monkeypatch, capsys, *shlex.split(command)[1:])
    assert status == 0, err
    assert (folder / "mu_net.py").exists()
    assert "python examples/train.py mu_net.py --set width=64 --lr" in out
