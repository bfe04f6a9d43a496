"""What the machine does to a command: full disks, kills, races, closed pipes, crashes."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from case import DONE, NET, WIDE, net
from plan_cases import plan

from automup.errors import UsageError
from automup.files import write_atomically
from conftest import ROOT, Run, contents

MAIN = "from automup.cli import main; main()"


def files(folder: Path, given: dict[str, str | bytes]) -> None:
    for name, text in given.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def process(code: str, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "autumup"), **settings.pop("env", {})}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, **settings
    )


# --- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "No space left on device"), (errno.EIO, "Input/output error")],
)
def test_a_disk_that_fails_leaves_the_old_file(
    number: int, says: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, net() | {"mu.py": "old"})
    before = contents(tmp_path)

    def full(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    result = run(*WIDE.split(), "--force")
    said = f"mu.py cannot be written: {says}. Nothing was changed; write somewhere else.\n"
    assert (result.status, result.err) == (1, f"automup: {said}")
    assert contents(tmp_path) == before


def test_a_read_only_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, net())

    def refused(**_: Any) -> None:  # root may write everywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refused)
    result = run(*WIDE.split())
    said = "mu.py cannot be written: Permission denied. Nothing was changed; write somewhere else."
    assert (result.status, result.err) == (1, f"automup: {said}\n")
    plan_said = said.replace("mu.py", "p.json")
    result = run("explain", "net.py", "--width", "width", "--save", "p.json")
    assert (result.status, result.err) == (1, f"automup: {plan_said}\n")


def test_an_unreadable_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, net() | plan())

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", refused)
    monkeypatch.setattr(Path, "read_text", refused)
    result = run("explain", "net.py")
    assert (result.status, result.err) == (
        2,
        "automup: net.py cannot be read: Permission denied.\n",
    )
    result = run("explain", "plan.json")
    said = "automup: Cannot read the plan: Permission denied. (plan.json)\n"
    assert (result.status, result.err) == (1, said)


def test_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """The old file stays whole; what was half written has another name, with a dot before it."""
    files(tmp_path, net() | {"mu.py": "old"})
    code = f"import os, signal\nos.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n{MAIN}"
    done = process(code, *WIDE.split(), "--force", cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    after = contents(tmp_path)
    assert after.pop(str(tmp_path / "mu.py")) == b"old"
    assert after.pop(str(tmp_path / "net.py")) == NET.encode()
    assert [Path(name).name[:7] for name in after] == [".mu.py."]


def test_interrupted_in_the_middle_of_a_write(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, net())
    before = contents(tmp_path)

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    result = run(*WIDE.split())
    assert (result.status, result.err) == (130, "automup: interrupted.\n")
    assert contents(tmp_path) == before


def test_an_output_that_appears_meanwhile_is_not_overwritten(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, net())
    monkeypatch.setattr(os, "fsync", lambda _: (tmp_path / "mu.py").write_text("another's"))
    result = run(*WIDE.split())
    said = "automup: The output exists. (mu.py) Pass --force to overwrite it.\n"
    assert (result.status, result.err) == (2, said)
    assert (tmp_path / "mu.py").read_text() == "another's"
    assert len(contents(tmp_path)) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_writers_at_once_one_wins_whole(overwrite: bool, tmp_path: Path) -> None:
    texts = [f"{number}\n" * 50_000 for number in range(8)]
    lost: list[UsageError] = []

    def write(text: str) -> None:
        try:
            write_atomically(tmp_path / "mu.py", text, overwrite=overwrite)
        except UsageError as error:
            lost.append(error)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "mu.py").read_text() in texts
    assert len(lost) == (0 if overwrite else 7)
    assert len(contents(tmp_path)) == 1


def test_links_are_followed_and_permissions_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real.py"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "mu.py").symlink_to(target)
    files(tmp_path, net())
    assert run(*WIDE.split(), "--force").err == f"{DONE}\n"
    assert (tmp_path / "mu.py").is_symlink()
    assert "MUP_BASE" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            write_atomically(tmp_path / f"{mode:o}", "")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / f"{mode:o}").stat().st_mode) == mode


def test_a_device_is_written_into_and_never_replaced(run: Run, tmp_path: Path) -> None:
    files(tmp_path, net())
    result = run(*WIDE.replace("mu.py", "/dev/null").split())
    assert result.status == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    result = run(*WIDE.replace("mu.py", "/dev/full").split())
    said = "/dev/full cannot be written: No space left on device. Nothing was changed; write "
    assert (result.status, result.err) == (1, f"automup: {said}somewhere else.\n")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_pipes_and_giants_are_refused_before_they_are_read(run: Run, tmp_path: Path) -> None:
    for name in ("pipe.py", "pipe.json"):
        os.mkfifo(tmp_path / name)
    for name, size in (("giant.py", 9 << 20), ("giant.json", 257 << 20)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)  # takes no space
    fix = "Pass a Python file, such as model.py or model.py:ClassName."
    again = "Make it again with `automup explain MODEL --save FILE`."
    for name, said in {
        "pipe.py": f"pipe.py is not a Python file. {fix}",
        "giant.py": f"giant.py has more than 8 MiB of text. {fix}",
        "pipe.json": "The plan is no ordinary file. (pipe.json)",
        "giant.json": f"it has more than 256 MiB. (giant.json) {again}",
    }.items():
        assert run("explain", name).err.endswith(f"{said}\n")


# --- printing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["table", "json", "markdown", "html"])
def test_a_terminal_without_unicode(format: str, tmp_path: Path) -> None:
    files(tmp_path, plan(model="Größe"))
    done = process(
        MAIN, "explain", "plan.json", "--format", format,
        cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Gr" in done.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["{} | head -c 1", "{} >&-", "{} >/dev/full", "{} 2>&-"])
def test_an_output_that_nobody_takes(command: str, unbuffered: str, tmp_path: Path) -> None:
    files(tmp_path, plan())
    call = f"'{sys.executable}' -c '{MAIN}' explain plan.json --format json"
    done = subprocess.run(
        ["bash", "-c", command.format(call)],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "autumup"), "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    expected = {"{} >/dev/full": "automup: No space left on device.\n"}
    assert done.stderr == expected.get(command, "")


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    files(tmp_path, plan())
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os\nos.rmdir({str(gone)!r})\n{MAIN}"
    done = process(code, "explain", str(tmp_path / "plan.json"), cwd=gone)
    assert (done.returncode, done.stderr) == (0, "")


# --- what the model's code does ------------------------------------------------------------------


def test_a_model_that_forks_is_converted_once(tmp_path: Path) -> None:
    """A child ends where the model's code returns, and does not do the work a second time."""
    fork = "if os.getpid() == int(os.environ['FIRST']):\n    os.fork()"  # never a child of a child
    files(tmp_path, net(top=f"import os\n{fork}\n", init=fork))
    code = f"import os\nos.environ['FIRST'] = str(os.getpid())\n{MAIN}"
    done = process(code, *WIDE.split(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, f"{DONE}\n")


def test_a_model_that_needs_a_gpu(run: Run, tmp_path: Path) -> None:
    files(tmp_path, net(top="torch.zeros(1, device='cuda')\n"))
    result = run(*WIDE.split())
    if torch.cuda.is_available():
        assert result.status == 0
    else:
        assert result.status == 2 and "cannot be imported: " in result.err
        assert result.err.endswith(" (net.py:5)\n")


def test_line_ends_and_indents_stay_the_authors(run: Run, tmp_path: Path) -> None:
    for name, old, new in (("crlf.py", "\n", "\r\n"), ("tabs.py", "    ", "\t")):
        (tmp_path / name).write_bytes(NET.replace(old, new).encode())
        assert run("convert", name, "--width", "width", "--out", f"mu_{name}").status == 0
    windows = (tmp_path / "mu_crlf.py").read_bytes()
    assert windows.count(b"\n") == windows.count(b"\r\n") > NET.count("\n")
    assert "\n\tdef forward(self, x):\n\t\th = " in (tmp_path / "mu_tabs.py").read_text()
    compile(windows, "mu_crlf.py", "exec")


def test_a_diff_is_one_that_patch_takes(run: Run, tmp_path: Path) -> None:
    text = NET.replace("\n\n\n", "\n\f\n\n", 1).rstrip("\n")  # a form feed ends no line
    (tmp_path / "net.py").write_text(text)
    diff = run(*WIDE.split(), "--diff").out
    assert "\n\\ No newline at end of file\n" in diff
    assert run(*WIDE.split()).status == 0
    subprocess.run(["patch", "-s", "net.py"], input=diff, text=True, cwd=tmp_path, check=True)
    assert (tmp_path / "net.py").read_bytes() == (tmp_path / "mu.py").read_bytes()


# --- --isolated ----------------------------------------------------------------------------------

CRASHES = {
    "os._exit(7)": "",
    "os.kill(os.getpid(), 11)": "automup: The process that ran the model was ended by SIGSEGV. "
    "Nothing was written. Import the model in Python to see where it crashes.\n",
}


@pytest.mark.parametrize(("crash", "says"), CRASHES.items())
def test_isolated_survives_a_crash(crash: str, says: str, run: Run, tmp_path: Path) -> None:
    files(tmp_path, {"net.py": f"import os\n{crash}\n"})
    result = run("explain", "net.py", "--isolated")
    assert (result.status, result.err) == ((1, says) if says else (7, ""))


def test_isolated_stops_what_takes_too_long_with_all_that_it_started(
    run: Run, tmp_path: Path
) -> None:
    code = "import subprocess, time\nsubprocess.Popen(['sleep', '91.25'])\ntime.sleep(91)\n"
    files(tmp_path, {"net.py": code})
    result = run("explain", "net.py", "--timeout", "6")
    said = "It was not done after 6 seconds, and was stopped. Give it longer with --timeout SECONDS"
    assert (result.status, result.err) == (1, f"automup: {said}, or a smaller base.\n")
    running = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert b"sleep\x0091.25\x00" not in running


def test_isolated_limits_the_memory(tmp_path: Path) -> None:
    files(tmp_path, net())
    arguments = ("--width", "width", "--memory", "2")
    done = process(MAIN, "convert", "net.py", "--out", "mu.py", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, f"{DONE}\n")
    files(tmp_path, net(top="text = b'x' * 3_000_000_000\n"))
    done = process(MAIN, "explain", "net.py", *arguments, cwd=tmp_path)
    said = f"{os.path.realpath(tmp_path)}/net.py cannot be imported: MemoryError. (net.py:5)"
    assert (done.returncode, done.stderr) == (2, f"automup: {said}\n")


@pytest.mark.parametrize("option", ["--timeout", "--memory"])
def test_limits_are_positive(option: str, run: Run) -> None:
    result = run("explain", "net.py", option, "0")
    said = f"automup: {option} cannot be 0. Pass a positive number.\n"
    assert (result.status, result.err) == (2, said)
