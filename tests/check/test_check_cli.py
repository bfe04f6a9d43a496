"""`automup check` on the command line: data, mup's models, files. (Wrong calls: tests/hostile.)"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from automup import cli
from conftest import EXAMPLES

MLP = str(EXAMPLES / "mlp.py")
QUICK = ("--seeds", "2", "--widths", "1,2,4")


def checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    """The exit status, stdout and stderr of `automup check`."""
    monkeypatch.setattr(sys, "argv", ["automup", "check", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(str(ended.value.code or 0)), out, err


def test_the_users_data_and_all_that_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"--plot": tmp_path / "check.svg", "--html": tmp_path / "check.html"}
    written = [str(part) for pair in files.items() for part in pair]
    status, out, err = checked(capsys, monkeypatch, MLP, *QUICK, "--data", "digits", *written)
    assert status == 0 and err == ""  # no bar where stderr is no terminal
    assert out.startswith("pass: ") and "widths ×1, ×2, ×4; AdamW" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if " mlp.py:" in line}
    assert [*rows] == ["fc_in", "hidden.*", "fc_out", "model"]
    assert abs(float(rows["fc_out"][-3])) < 0.15 and float(rows["fc_out"][-1]) > 0.8
    assert all(file.stat().st_size > 10_000 for file in files.values())


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_other_optimizers(
    optimizer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, _ = checked(capsys, monkeypatch, MLP, *QUICK, "--optimizer", optimizer)
    assert status == 0, out
    status, out, _ = checked(capsys, monkeypatch, MLP, *QUICK, "--optimizer", optimizer, "--as-is")
    assert status == 1 and "the learning rate" in out


MUP = """
import mup
import torch
import torch.nn as nn


class Net(nn.Module):
    def __init__(self, width: int = 64, shapes: bool = True):
        super().__init__()
        self.embed = nn.Embedding(32, width)
        self.ln = nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.out = mup.MuReadout(width, 32)
        if shapes:
            mup.set_base_shapes(self, Net(32, False), delta=Net(64, False))

    def forward(self, idx):
        x = self.ln(self.embed(idx))
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.out(x)
"""


def test_attention_that_mup_leaves_alone_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """nn.MultiheadAttention keeps 1/√d under mup, and it alone is wrong there."""
    file = tmp_path / "with_mup.py"
    file.write_text(MUP)
    call = (str(file), *QUICK, "--width", "width", "--as-is")
    status, out, _ = checked(capsys, monkeypatch, *call)
    assert status == 1
    culprit = "fail: attend (with_mup.py:19:16): the attention scale is not 1/d: width^+0.50"
    assert culprit in re.sub(r"\s+", " ", out)
    assert "also:" not in out
    attend = "x = x + self.attend(x, x, x, need_weights=False)[0]\n"
    assert MUP.count(attend) == 1
    file.write_text(MUP.replace(attend, "x = x + self.attend.out_proj(x)\n"))
    assert checked(capsys, monkeypatch, *call)[0] == 0  # the rest of it is right
