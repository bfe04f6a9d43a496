"""Writing files so that nobody ever finds half of one."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from automup.errors import OutputError, UsageError


def write_atomically(path: Path, text: str | bytes, *, overwrite: bool = True) -> None:
    """Write text or bytes to path so that a reader sees the old file or the whole new one.

    A link is followed, the permissions of an older file are kept, and what is no ordinary file
    (a pipe, ``/dev/stdout``) is written into, never replaced.

    Args:
        path: where to write.
        text: the contents; text in UTF-8, line ends as they are.
        overwrite: False leaves a file alone that is there already, or that appears meanwhile.

    Raises:
        OutputError: it cannot be written.
        UsageError: it is there, and not to be overwritten.
    """
    contents = text if isinstance(text, bytes) else text.encode()
    try:
        if path.exists() and not path.is_file():
            with open(path, "wb") as stream:
                stream.write(contents)
        else:
            _replace(Path(os.path.realpath(path)), contents, overwrite)
    except FileExistsError:
        raise exists(path) from None
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}.",
            fix="Nothing was changed; write somewhere else.",
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless it is there; UsageError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder cannot be made: {error.strerror}.", where=str(path), fix="Name another."
        ) from None


def exists(path: Path) -> UsageError:
    """The refusal to overwrite a file."""
    return UsageError("The output exists.", where=str(path), fix="Pass --force to overwrite it.")


def _replace(path: Path, contents: bytes, overwrite: bool) -> None:
    """All is written to a temporary file beside it, which then takes its name."""
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())  # a full disk may be noticed only now
        os.chmod(temporary, mode)
        if overwrite:
            os.replace(temporary, path)
        else:
            _name(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _name(temporary: str, path: Path) -> None:
    """Give a file a name that must be free; where links cannot be made, looking has to do."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError from None
        os.replace(temporary, path)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
