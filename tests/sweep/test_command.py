"""``automup sweep`` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from subject import DATA, MODEL

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
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    one, two = (json.loads((folder / name / "sweep.json").read_text()) for name in ("alone", "two"))
    assert one["runs"] == two["runs"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--lr", "2^-6:2^-8"], "is no grid"),
        (["--widths", "1,x"], "--widths: 'x' is not a number"),
        (["--tune", "depth=1:2"], "no such constant"),
        (["--seeds", "0"], "seeds is 0"),
        (["--optimizer", "nothing"], "no optimizer 'nothing'"),
        (["--data", "nothing"], "There is no data 'nothing'"),
        (["--setting", "beta=1"], "AdamW takes no beta"),
        (["--widths", "1,1.3"], "8 × 1.3 is not a whole number"),
        (["--storage", "nodb://host"], "is no database"),
    ],
)
def test_a_wrong_call_is_a_paragraph(
    args: list[str],
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, err = run(monkeypatch, capsys, *SWEEP, *SHORT, *args)
    last = err.splitlines()[-1]
    assert status in (1, 2) and last.startswith("automup: ") and said in last
