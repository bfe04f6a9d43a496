"""What all tests share: one thread per process, the examples importable."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))
sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file share what they made: one of several processes runs them all.

    But those of random models, which share nothing and take longest.
    """
    for item in items:
        if item.path.name != "test_random_models.py":
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))


def pytest_collection_finish() -> None:
    """What was imported lives to the end: the garbage collector need not look through it again."""
    from automup.capture.caches import forget_tensors

    forget_tensors(torch.nn.Identity())  # which looks for the caches that there are
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# --- the command line, called -------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    status: Any
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Call the console script's function in an empty folder; no traceback can get past it."""
    from automup import cli

    path = list(sys.path)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["automup", *arguments])
        capsys.readouterr()
        status: Any = 0
        try:
            cli.main()
        except SystemExit as error:
            status = error.code
        out, err = capsys.readouterr()
        return Result(status, out, err)

    yield call
    sys.path[:] = path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
