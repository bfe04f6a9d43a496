"""Python's garbage collector, kept out of the way of many small long-lived objects.

A trace is some hundred thousand objects that live until it is analysed. The collector would look
through all of them, and through all of torch, ever again, which takes longer than the trace.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def short_lived() -> Iterator[None]:
    """Free what the block made and dropped at its end, at the cost of what it made alone.

    While the collector is off, all that is made is of the youngest generation, which is collected
    by itself. May be nested. Where the caller switched the collector off, it is left alone.
    """
    outermost = gc.isenabled()
    if not outermost and not _inside:
        yield
        return
    gc.disable()
    _inside.append(outermost)
    try:
        yield
    finally:
        _inside.pop()
        gc.collect(0)
        if outermost:
            gc.enable()


_inside: list[bool] = []
