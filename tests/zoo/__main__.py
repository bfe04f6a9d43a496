"""``python tests/zoo --out docs/coverage.md``: measure the zoo and write the coverage table.

Each model runs in a process of its own, so that one that hangs or dies is a row and not a stop.
The exit status is 1 if any model is wrong: a silent error.
"""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from zoo.entry import ZOO, Entry
from zoo.table import ABSENT, FAILED, WRONG, Row, document, row_from, summary

FORK = multiprocessing.get_context("fork")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    options = _parser().parse_args(argv)
    for name in ("handwritten", "styles", "pypi", "measure"):  # imported once, for all processes
        importlib.import_module(f"zoo.{name}")
    entries = [e for e in ZOO.values() if _selected(e.name, options.names)]
    if not entries:
        print(f"no model of the zoo matches {' '.join(options.names)}", file=sys.stderr)
        return 2
    known = _read(options.rows)
    todo = [e for e in entries if e.name not in known]
    for row in run(todo, options.jobs, options.timeout):
        known[row.name] = row
        _write_rows(options.rows, known)
        print(_progress(row), file=sys.stderr, flush=True)
    rows = [known[e.name] for e in entries]
    if options.out:
        options.out.parent.mkdir(exist_ok=True)
        options.out.write_text(document(rows, _command(options), _versions()), encoding="utf-8")
    print(summary(rows))
    return 1 if any(row.outcome == WRONG for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tests/zoo", description=__doc__)
    parser.add_argument("names", nargs="*", help="patterns of model names; default: all")
    parser.add_argument("--out", type=Path, help="the markdown file to write")
    parser.add_argument("--jobs", type=int, default=1, help="models that run at the same time")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one model")
    parser.add_argument(
        "--rows", type=Path, help="a JSON file of rows: those in it are kept, new ones are added"
    )
    return parser


def _selected(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(name, p) for p in patterns)


# --- processes ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Job:
    """One model's process."""

    entry: Entry
    process: Any
    answer: Connection
    deadline: float


def run(entries: Sequence[Entry], jobs: int, timeout: float) -> Iterator[Row]:
    """Measure models in processes of their own, a few at a time; rows come as they finish."""
    pending, running = list(reversed(entries)), list[Job]()
    while pending or running:
        while pending and len(running) < jobs:
            entry = pending.pop()
            if _missing(entry.origin):
                yield Row(entry.name, entry.origin, ABSENT, refusal=f"{entry.origin} is missing")
            else:
                running.append(_start(entry, timeout))
        ready = wait([job.answer for job in running], timeout=1.0) if running else []
        for job in list(running):
            row = _finished(job, job.answer in ready)
            if row is not None:
                running.remove(job)
                yield row


def _start(entry: Entry, timeout: float) -> Job:
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_child, args=(entry, theirs), daemon=True)
    process.start()
    theirs.close()
    return Job(entry, process, ours, time.monotonic() + timeout)


def _child(entry: Entry, answer: Connection) -> None:
    from zoo.measure import measure

    with open(os.devnull, "w") as nowhere:  # models print
        sys.stdout = sys.stderr = nowhere
        answer.send(measure(entry))


def _finished(job: Job, ready: bool) -> Row | None:
    """The row of a process that has ended, or has to; None while it may go on."""
    blank = Row(job.entry.name, job.entry.origin, FAILED)
    if ready:
        try:
            row: Row = job.answer.recv()
        except EOFError:
            job.process.join()
            row = dataclasses.replace(
                blank, refusal=f"its process ended with status {job.process.exitcode}"
            )
        job.process.join(timeout=5)
    elif time.monotonic() > job.deadline:
        row = dataclasses.replace(blank, refusal="it took longer than its time")
    else:
        return None
    if job.process.is_alive():
        job.process.kill()
    return row


def _missing(origin: str) -> bool:
    """Whether the distribution that a model comes from is not installed."""
    if origin == "hand-written":
        return False
    try:
        importlib.metadata.version(origin)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


# --- what is written ------------------------------------------------------------------------------


def _read(path: Path | None) -> dict[str, Row]:
    if path is None or not path.exists():
        return {}
    return {data["name"]: row_from(data) for data in json.loads(path.read_text("utf-8"))}


def _write_rows(path: Path | None, rows: dict[str, Row]) -> None:
    if path is not None:
        text = json.dumps([dataclasses.asdict(row) for row in rows.values()], indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def _progress(row: Row) -> str:
    parts = [row.name, row.outcome]
    parts += [f"SP {row.sp}"] if row.sp else []
    parts += [f"μP {row.mup}"] if row.mup else []
    return " ".join([*parts, row.refusal[:120], *(f[:120] for f in row.faults[:2])])


def _command(options: argparse.Namespace) -> str:
    return "python tests/zoo " + shlex.join([*options.names, "--out", str(options.out)])


def _versions() -> str:
    found = [f"Python {sys.version.split()[0]}"]
    for name in ("torch", *dict.fromkeys(e.origin for e in ZOO.values())):
        if name != "hand-written" and not _missing(name):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


if __name__ == "__main__":
    sys.exit(main())
