"""What an exception that the user's code raised says, and where it came from."""

from __future__ import annotations

import os
import traceback

from automup.capture.source import is_user_file
from automup.errors import AutomupError

LONGEST = 300
"""How many characters of somebody else's message are shown."""


def describe(error: BaseException) -> str:
    """``KeyError: 'x'``: the first line of what an exception says, if it can say anything."""
    if isinstance(error, AutomupError):
        return error.what.rstrip(".")
    name = type(error).__name__
    try:
        text = str(error).strip().splitlines()
    except Exception:  # a __str__ of the author's
        return f"{name}, which cannot be printed"
    first = text[0].rstrip(".") if text else ""
    return f"{name}: {first[:LONGEST]}{'…' * (len(first) > LONGEST)}" if first else name


def place_of(error: BaseException) -> str:
    """``file:line`` of the innermost line of user code that an exception passed through, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [f for f in frames if is_user_file(f.filename)]
    installed = "site-packages" + os.sep
    own = [f for f in users if installed not in f.filename] or users
    return f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""
