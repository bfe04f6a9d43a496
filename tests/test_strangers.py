"""What a new user meets first: doctor, completion, notebooks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import automup
from automup import __version__
from automup.cli import doctor
from conftest import ROOT, Run


def test_doctor_says_what_is_here(run: Run) -> None:
    result = run("doctor")
    assert (result.status, result.err) == (0, "")
    rows = dict(line.split(": ", 1) for line in result.out.splitlines())
    assert rows["automup"].strip().startswith(f"{__version__} (")
    assert rows["torch"].strip() == torch.__version__
    assert rows["devices"].strip().startswith("CPU (")


def test_doctor_fails_where_something_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[doctor.__module__], "NEEDED", ("torch", "no-such-package"))
    result = run("doctor")
    assert result.status == 1
    assert "no-such-package: missing: install it with pip\n" in result.out


def test_the_shell_completes_commands() -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "autumup"),
        "_AUTOMUP_COMPLETE": "complete_bash",
        "COMP_WORDS": "automup con",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv = ['automup']; from automup.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["convert"], done.stderr


def test_a_notebook_gets_html_and_markdown() -> None:
    def model(width: int = 16) -> nn.Module:
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))

    shown = automup.parametrize(model).explain(64)
    assert "<table>" in shown._repr_html_() and "<html" not in shown._repr_html_()
    assert shown._repr_markdown_() == shown.to_markdown()
    assert "| `0.weight` |" in shown._repr_markdown_()
