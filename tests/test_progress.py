"""What is shown while a command runs: on a terminal only, on stderr only, and gone after it."""

from __future__ import annotations

import os
import pty
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from automup.progress import is_terminal
from conftest import Result, Run

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.stem, self.head = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x):
        print("the model speaks")
        return self.head(torch.relu(self.stem(x)))
"""
DATA = """
import torch


def batches(batch_size, seed):
    yield torch.randn(batch_size, 6)


def loss(model, x):
    return model(x).square().mean()
"""
SWEEP = "sweep net.py --data data.py --width width --widths 1 --lr 0.1,0.2 --seeds 1 --steps 1"
COMMANDS = {
    "explain": ("explain net.py --width width", ("reading net.py", "tracing Net")),
    "convert": ("convert net.py --width width --out mu.py", ("reading net.py", "converting Net")),
    "check": (
        "check net.py --width width --widths 1,2 --seeds 1 --steps 1",
        ("reading net.py", "training"),
    ),
    "sweep": (f"{SWEEP} --out other", ("reading net.py", "runs")),
    "transfer": ("transfer sweep --target width=64", ("reading net.py",)),
}
COLOUR = re.compile(r"\x1b\[[\d;]*m")

Watched = Callable[[str], tuple[Result, str]]


@pytest.fixture
def watched(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Call the command line with a terminal for stderr: its result, and what the terminal got."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "data.py").write_text(DATA)
    assert run(*SWEEP.split()).status == 0

    def call(command: str) -> tuple[Result, str]:
        ours, theirs = pty.openpty()
        got: list[bytes] = []

        def listen() -> None:
            try:
                while part := os.read(ours, 65536):
                    got.append(part)
            except OSError:  # the other end is closed
                return

        listener = threading.Thread(target=listen)
        listener.start()
        with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patched:
            patched.setattr("sys.stderr", terminal)
            result = run(*command.split())
        listener.join()
        os.close(ours)
        return result, b"".join(got).decode()

    yield call


@pytest.mark.parametrize("name", COMMANDS)
def test_a_terminal_sees_what_is_going_on(name: str, watched: Watched, run: Run) -> None:
    command, told = COMMANDS[name]
    result, seen = watched(command)
    assert result.status == 0
    assert all(text in seen for text in told)
    assert COLOUR.search(seen)
    assert not COLOUR.search(result.out)  # it is piped
    if name in ("explain", "check", "transfer"):
        assert result.out == run(*command.split()).out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_pipe_gets_none_of_it(name: str, watched: Watched, run: Run) -> None:
    command, told = COMMANDS[name]
    result = run(*command.split())
    assert result.status == 0
    assert "\x1b" not in result.err + result.out
    assert not any(text in result.err for text in told if text != "runs")


def test_no_colours_where_none_are_wanted(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    _, seen = watched(COMMANDS["explain"][0])
    assert "tracing Net" in seen
    colours = {code for found in COLOUR.findall(seen) for code in found[2:-1].split(";")}
    assert colours <= {"", "0", "1", "2", "3"}  # bold and the like are no colours


def test_force_color_is_no_terminal(
    watched: Watched, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "reading" not in run(*COMMANDS["explain"][0].split()).err
    assert not is_terminal(Console(stderr=True, force_terminal=True))


def test_a_terminal_that_cannot_move_its_cursor_and_no_stderr_at_all(
    watched: Watched, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "reading" not in watched(COMMANDS["explain"][0])[1]
    monkeypatch.setattr("sys.stderr", None)
    assert run(*COMMANDS["check"][0].split()).status == 0


def test_what_the_model_prints_is_whole(watched: Watched) -> None:
    result, seen = watched(COMMANDS["explain"][0])
    assert "the model speaks" in seen and "speaks" not in result.out


def test_quiet_is_quiet(watched: Watched) -> None:
    _, seen = watched(f"{SWEEP} --out other --quiet")
    assert "reading" not in seen and "runs" not in seen
