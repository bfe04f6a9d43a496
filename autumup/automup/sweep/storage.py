"""Where a sweep is kept: a journal file, SQLite or a database server, all through Optuna."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import ArgumentError

from automup.capture.raised import describe
from automup.errors import OutputError, UsageError

#: Seconds that a writer waits for another one in SQLite, which admits one at a time.
_PATIENCE = 60


class _Journal(JournalFileBackend):
    """A journal file that outlives a writer that was killed while it wrote a line.

    Optuna's own appends to the torn line, after which nobody can read the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lock = JournalFileSymlinkLock(str(self._path))
        try:
            lock.acquire()
            with open(self._path, "r+b") as file:
                _drop_torn_line(file)
                lines = (json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
                file.write("".join(lines).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageInternalError(error.strerror or str(error)) from error
        finally:
            with contextlib.suppress(RuntimeError):  # it took so long that another one took it
                lock.release()


def _drop_torn_line(file: Any) -> None:
    """Cut off what follows the last end of a line, and stand there."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        file.seek(end - 1)
        if file.read(1) == b"\n":
            break
        end -= 1
    file.seek(end)
    file.truncate()


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Run the block, which reads and writes a storage; OutputError if that fails."""
    try:
        yield
    except StorageInternalError as error:
        inner = error if isinstance(error.__cause__, OSError) else error.__cause__ or error
        reason = str(inner).strip().splitlines()[0].rstrip(".")
        raise OutputError(
            f"The storage of the sweep fails: {reason}.",
            fix="What is done is kept: the same command goes on from there.",
        ) from error


def open_storage(place: str) -> BaseStorage:
    """The storage that a URL, the path of a journal file, or nothing (memory) stands for.

    Raises:
        UsageError: it cannot be opened.
    """
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not place:
        return InMemoryStorage()
    if "://" not in place:
        return _journal(Path(place))
    wait = {"connect_args": {"timeout": _PATIENCE}} if place.startswith("sqlite") else {}
    for attempt in range(6):
        try:
            return get_storage(RDBStorage(place, engine_kwargs={"pool_pre_ping": True, **wait}))
        except ImportError as error:
            raise UsageError(
                f"The storage {_shown(place)} needs a driver: {error.__cause__ or error}.",
                fix="Install it; for postgresql: pip install 'psycopg[binary]'.",
            ) from error
        except ArgumentError as error:
            raise UsageError(f"{_shown(place)} is no database: {error}.") from error
        except Exception as error:  # two processes may be making the tables at once
            last = error
            time.sleep(0.1 * attempt)
    reason = str(getattr(last, "orig", last)).strip().splitlines()[0]
    raise UsageError(f"The storage {_shown(place)} cannot be opened: {reason}.") from last


def _journal(path: Path) -> BaseStorage:
    if not path.parent.is_dir():
        raise UsageError("Cannot write there: no such folder.", where=str(path.parent))
    try:
        _check_journal(path)
        return JournalStorage(_Journal(path))
    except OSError as error:
        raise UsageError(f"The storage {path} cannot be opened: {error.strerror}.") from error
    except UsageError:
        raise
    except Exception as error:  # Optuna replays what it finds, and takes it on trust
        raise _damaged(path, describe(error)) from error


def _check_journal(path: Path) -> None:
    """Raise UsageError unless all lines are a journal's; the last one may be torn, and is cut off.

    So a file that is something else is never taken for a torn line.
    """
    begins = b'{"op_code":'
    whole = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(whole.splitlines(keepends=True), 1):
        if not line.endswith(b"\n") and begins.startswith(line[: len(begins)]):
            return
        if not line.startswith(begins):
            raise _damaged(path, f"line {number} is none of its entries")
        try:
            json.loads(line)
        except ValueError:
            raise _damaged(path, f"line {number} is not whole") from None


def _damaged(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"{path} is no journal of a sweep, or a damaged one: {reason}.",
        fix="It was left as it is. Name another file with --storage, or a new one.",
    )


def _shown(place: str) -> str:
    """A URL without its password."""
    scheme, _, rest = place.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def study_in(storage: BaseStorage, name: str) -> optuna.Study:
    """The study of that name, made if it is not there yet."""
    return optuna.create_study(
        storage=storage, study_name=name, direction="minimize", load_if_exists=True
    )
