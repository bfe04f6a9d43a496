"""Python's garbage collector, kept out of the way of many small long-lived objects.

A trace is some hundred thousand objects that live until it is analysed, full of cycles (a graph's
nodes know each other). The collector would look through all of them, and through all of torch, ever
again, which takes longer than the trace; left alone, it would free none in time.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def short_lived() -> Iterator[None]:
    """Free what the block made and dropped at its end, at the cost of what it made alone.

    May be nested. What the caller froze or switched off stays so.
    """
    if not gc.isenabled() and not _inside:
        yield
        return
    outermost = not _inside
    own = outermost and gc.get_freeze_count() == 0
    gc.disable()
    if own or not outermost:
        gc.freeze()  # what lives already is not looked through
    _inside.append(own)
    try:
        yield
    finally:
        _inside.pop()
        gc.collect()
        if own:
            gc.unfreeze()
        if outermost:
            gc.enable()


_inside: list[bool] = []
