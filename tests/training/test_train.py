"""examples/train.py: one command line, on one process or several, begun or resumed."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from automup import cli
from conftest import EXAMPLES

SETTINGS = [
    "--width", "64", "--steps", "4", "--batch-size", "4", "--seq-len", "16", "--device", "cpu"
]  # fmt: skip


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("converted") / "mu_gpt.py"
    with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        command = ["automup", "convert", str(EXAMPLES / "gpt.py"), "--out", str(out)]
        patch.setattr(sys, "argv", [*command, "--base", "n_embd=32"])
        cli.main()
    assert not ended.value.code
    return out


def train(model: Path, *more: str, processes: int = 1) -> dict[int, float]:
    """The losses by step, of the script in processes of its own."""
    table = model.with_suffix(".csv")
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    script = [str(EXAMPLES / "train.py"), str(model), *SETTINGS, "--csv", str(table), *more]
    command = [sys.executable, *(launch if processes > 1 else []), *script]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader(table.read_text().splitlines()))
    return {int(row["step"]): float(row["loss"]) for row in rows}


def test_two_processes_train_as_one_and_resume_where_they_were(
    converted: Path, tmp_path: Path
) -> None:
    folder = ("--checkpoint", str(tmp_path))
    alone = train(converted)
    assert list(alone) == [1, 2, 3, 4]
    begun = train(converted, *folder, "--steps", "2", processes=2)
    resumed = train(converted, *folder, processes=2)
    assert list(begun) == [1, 2] and list(resumed) == [3, 4]
    assert begun | resumed == pytest.approx(alone, rel=1e-5)
    assert train(converted, *folder) == {}  # one process reads what two wrote: all is done


def test_an_interrupted_run_goes_on_bit_by_bit(converted: Path, tmp_path: Path) -> None:
    alone = train(converted, "--precision", "bfloat16")
    folder = ("--checkpoint", str(tmp_path), "--save-every", "3")
    assert train(converted, *folder, "--precision", "bfloat16") == alone
    (tmp_path / "step-00000004" / ".metadata").unlink()  # as if it had been cut off while writing
    assert train(converted, *folder, "--precision", "bfloat16") == {4: alone[4]}
