"""The code of docs/recipes.md runs, and its trainers keep the ratios between learning rates."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def run(section: str) -> dict[str, Any]:
    """What the names of a section's code are bound to after it has run."""
    prelude, *sections = PAGE.split("\n## ")
    (text,) = (s for s in sections if s.startswith(section))
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*lost muP's ratios.*")
        for part in (prelude, text):
            (code,) = re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
            exec(compile(code, "docs/recipes.md", "exec"), names)
    return names


def assert_trained_in_mup(optimizer: Any) -> None:
    """It has made steps for every weight, at rates in muP's ratios."""
    groups = optimizer.param_groups
    rates = [group["lr"] / group["lr_mult"] for group in groups]
    assert len(groups) > 1
    assert rates == pytest.approx([rates[0]] * len(rates))
    assert all(p in optimizer.state for group in groups for p in group["params"])


def test_transformers_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    optimizer = run("transformers' Trainer")["trainer"].optimizer
    assert_trained_in_mup(getattr(optimizer, "optimizer", optimizer))


def test_accelerate() -> None:
    assert_trained_in_mup(run("Accelerate")["optimizer"].optimizer)


def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_trained_in_mup(run("Lightning")["language"].optimizers().optimizer)


def test_a_loop_of_ones_own() -> None:
    assert_trained_in_mup(run("Your own loop")["optimizer"])


def test_every_block_of_the_page_is_run() -> None:
    sections = [s.split("\n")[0] for s in PAGE.split("\n## ")[1:]]
    assert sections == ["Your own loop", "transformers' Trainer", "Accelerate", "Lightning"]
    assert len(re.findall(r"^```", PAGE, re.MULTILINE)) == 2 * (1 + len(sections))
