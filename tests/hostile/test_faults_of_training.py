"""What the machine does to check, sweep and transfer: interruptions, storages and full disks."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from case import CHECK, SWEEP, net, trained
from optuna.exceptions import StorageInternalError
from transfer_cases import TRANSFER, swept

from automup.cli.isolation import COMMAND
from automup.errors import AutomupError
from automup.sweep import claims, plots
from automup.sweep.storage import _Journal
from automup.sweep.transfer import Transfer
from conftest import ROOT, Run, contents


def files(folder: Path, given: dict[str, str | bytes]) -> None:
    for name, text in given.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def no_space(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- sweep ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", ["KeyboardInterrupt", "RuntimeError('worn out')", "SystemExit(3)"]
)
def test_what_is_done_before_a_fault_is_not_done_again(
    fault: str, run: Run, tmp_path: Path
) -> None:
    """The third run fails; the same command, mended, runs that one and the last."""
    wide = f"if model.stem.weight.shape[0] > 16:\n        raise {fault}\n    return"
    files(tmp_path, trained("return (model(x)", f"{wide} (model(x)"))
    result = run(*SWEEP.split())
    assert result.status == (130 if fault == "KeyboardInterrupt" else 1)
    assert "Traceback" not in result.err and "bug in automup" not in result.err
    assert {Path(name).name for name in contents(tmp_path)} >= {"journal.log"}
    assert not (tmp_path / "sweep" / "sweep.json").exists()
    files(tmp_path, trained())
    result = run(*SWEEP.split())
    assert result.status == 0
    assert result.err.startswith("runs: 2 of 4")
    assert len(json.loads((tmp_path / "sweep" / "sweep.json").read_text())["runs"]) == 4


def test_an_interruption_says_that_nothing_is_lost(run: Run, tmp_path: Path) -> None:
    wide = "if model.stem.weight.shape[0] > 16:\n        raise KeyboardInterrupt\n    return"
    files(tmp_path, trained("return (model(x)", f"{wide} (model(x)"))
    said = (
        "note: what is done is kept; the same command goes on from there\nautomup: interrupted.\n"
    )
    assert run(*SWEEP.split()).err.endswith(said)


def test_a_journal_on_a_full_disk(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, trained())
    monkeypatch.setattr("automup.sweep.storage.os.fsync", no_space)
    result = run(*SWEEP.split())
    said = "The storage of the sweep fails: No space left on device. What is done is kept: the same"
    assert result.err.endswith(f"automup: {said} command goes on from there.\n")
    assert result.status == 1


def test_a_storage_that_is_gone_in_between(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, trained())
    append, left = _Journal.append_logs, [8]

    def gone(journal: _Journal, logs: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise StorageInternalError("server closed the connection unexpectedly")
        append(journal, logs)

    with monkeypatch.context() as patched:
        patched.setattr(_Journal, "append_logs", gone)
        result = run(*SWEEP.split())
    assert "fails: server closed the connection unexpectedly. What is done is kept" in result.err
    assert result.status == 1
    assert run(*SWEEP.split()).status == 0


def test_the_last_line_of_a_journal_may_be_torn(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, trained())
    assert run(*SWEEP.split()).status == 0
    journal = tmp_path / "sweep" / "journal.log"
    whole = journal.read_bytes()
    last = whole.rstrip(b"\n").rpartition(b"\n")[0] + b"\n"
    for cut in (1, 10, 40):
        # the process that wrote it has died, and this one happens to have its number
        monkeypatch.setattr(claims, "process", lambda pid, cut=cut: f"{pid} {cut}")
        journal.write_bytes(whole[: len(last) + cut])
        result = run(*SWEEP.split())
        assert (result.status, result.err.splitlines()[-1][:10]) == (0, "written to")


def test_an_older_journal_is_another_sweeps(run: Run, tmp_path: Path) -> None:
    """One journal keeps sweeps of other settings apart."""
    files(tmp_path, trained())
    assert run(*SWEEP.split()).err.startswith("runs: 0 of 4")
    assert run(*SWEEP.split(), "--steps", "3").err.startswith("runs: 0 of 4")
    assert run(*SWEEP.split()).err.startswith("runs: 4 of 4")


@pytest.mark.parametrize("loss", ["float('nan')", "0", "-1"])
def test_losses_that_are_no_positive_numbers_have_a_table_and_a_picture(
    loss: str, run: Run, tmp_path: Path
) -> None:
    files(tmp_path, trained(".mean()", f".mean() * 0 + {loss}"))
    result = run(*SWEEP.split())
    assert result.status == 0, result.err
    assert ("every run of width=32 ×2 diverged" in result.out) == ("nan" in loss)
    assert (tmp_path / "sweep" / "sweep.png").stat().st_size > 1000


def test_an_output_folder_that_takes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, trained())

    def refused(*_: Any, **__: Any) -> None:  # root may write everywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refused)
    result = run(*SWEEP.split())
    said = "The folder cannot be made: Permission denied. (sweep) Name another."
    assert (result.status, result.err) == (2, f"automup: {said}\n")


def test_further_processes_do_not_take_the_folders_files_for_modules(tmp_path: Path) -> None:
    files(tmp_path, {**trained(), "torch.py": "raise SystemExit('no torch of ours')"})
    command = [*COMMAND, *SWEEP.split(), "--jobs", "2"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT / "autumup")},
    )  # fmt: skip
    assert done.returncode == 0
    assert "torch of ours" not in done.stderr and "automup: " not in done.stderr


# --- what is written at the end -------------------------------------------------------------------

OUTPUTS = {
    "check.png": (f"{CHECK} --plot check.png", net()),
    "check.html": (f"{CHECK} --html check.html", net()),
    "wide.json": (f"{TRANSFER} --out wide.json", swept()),
    "wide.yaml": (f"{TRANSFER} --out wide.yaml", swept()),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_full_disk_leaves_the_old_output(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, given = OUTPUTS[name]
    files(tmp_path, {**given, name: "old"})
    before = contents(tmp_path)
    monkeypatch.setattr(os, "fsync", no_space)
    result = run(*command.split())
    said = (
        f"{name} cannot be written: No space left on device. Nothing was changed; write somewhere"
    )
    assert (result.status, result.err) == (1, f"automup: {said} else.\n")
    assert contents(tmp_path) == before


def test_a_picture_is_whole_or_not_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, trained())
    monkeypatch.setattr(plots, "write_atomically", no_space)
    result = run(*SWEEP.split())
    assert (result.status, result.err.splitlines()[-1]) == (1, "automup: No space left on device.")
    assert not (tmp_path / "sweep" / "sweep.png").exists()


def test_a_folder_that_takes_no_picture(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, net())

    def refused(**_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    result = run(*CHECK.split(), "--plot", "check.png")
    said = (
        "check.png cannot be written: Permission denied. Nothing was changed; write somewhere else."
    )
    assert (result.status, result.err) == (1, f"automup: {said}\n")


# --- a configuration that transfer wrote ----------------------------------------------------------

YAML = {
    "truncated": (lambda text: text[:40], "call.base is missing"),
    "of code": (lambda _: "!!python/object/apply:os.system [touch owned]", "could not determine a"),
    "of aliases": (lambda text: "a: &a [x]\nb: [*a, *a]\n" + text, "a is not known"),
    "not a number": (lambda text: text.replace("lr: ", "lr: .nan #", 1), "lr is nan"),
    "negative": (lambda text: text.replace("lr: ", "lr: -", 1), "lr is -"),
    "another schema": (lambda text: text.replace("transfer: 1", "transfer: 2"), "is another"),
    "an option as text": (lambda text: text.replace("strict: true", "strict: yep"), "call.strict"),
    "another base": (lambda text: text.replace("  width: 16", "  width: 8", 1), "was run with"),
    "empty": (lambda _: "", "automup_transfer is another or missing"),
}


@pytest.mark.parametrize("name", YAML)
def test_a_configuration_is_read_with_suspicion(name: str, run: Run, tmp_path: Path) -> None:
    damage, says = YAML[name]
    files(tmp_path, swept())
    assert run(*TRANSFER.split(), "--out", "wide.yaml").status == 0
    file = tmp_path / "wide.yaml"
    whole = file.read_text()
    assert Transfer.load(file).make_model().stem.weight.shape == (64, 6)
    file.write_text(damage(whole))
    assert file.read_text() != whole
    with pytest.raises(AutomupError) as refused:
        Transfer.load(file).make_model()
    assert says in str(refused.value)
    assert not (tmp_path / "owned").exists()


# --- doctor ---------------------------------------------------------------------------------------


def test_doctor_without_a_package_that_is_needed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("doctor")
    assert result.status == 0 and "\ntorch:" in result.out and "\ndevices:" in result.out
    known = importlib.metadata.version

    def without_torch(name: str) -> str:
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", without_torch)
    result = run("doctor")
    assert (result.status, result.err) == (1, "")
    assert "torch:         missing: install it with pip\n" in result.out
    assert "devices" not in result.out


@pytest.mark.parametrize("rest", ["more", "--nope", "--isolated"])
def test_doctor_takes_nothing(rest: str, run: Run) -> None:
    result = run("doctor", rest)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("automup: ")
    assert result.err.endswith("See `automup doctor --help`.\n")
