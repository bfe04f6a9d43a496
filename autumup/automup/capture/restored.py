"""A run of a model leaves the model as it was, so that the next run does the same again.

Forward passes keep things: a table of positions that is made by the first call, a flag that the
weights have been rescaled, a counter. The second run of such a model is another one than the first,
and the traces of two widths must not differ by how often the model has run before.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from operator import is_
from typing import Any

from torch import nn

from automup.capture.meta import MetaMode
from automup.capture.real import RealMode

SMALL = 1024
"""Elements of a buffer that may be a flag, a counter or a state, and is worth a copy."""
_Container = dict[Any, Any] | list[Any] | set[Any] | deque[Any]


class Belongings:
    """What the modules of a model hold: to be put back after each run.

    What a value holds that is neither module, container nor buffer is not looked into.

    Args:
        model: the model that runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._kept = _containers(model)

    @contextlib.contextmanager
    def restored(self, ground: MetaMode | RealMode) -> Iterator[None]:
        """Give every module, after the block, the attributes, containers and small buffers it had.

        Args:
            ground: what knows the values of its buffers.
        """
        if not all(_same(container, items) for container, items in self._kept):
            self._kept = _containers(self._model)
        small = {b: ground.shadow(b) for b in self._model.buffers() if b.numel() <= SMALL}
        values = {b: (real, real.clone()) for b, real in small.items() if real is not None}
        try:
            yield
        finally:
            for container, items in self._kept:
                if not _same(container, items):
                    _refill(container, items)
            for buffer, (real, value) in values.items():
                ground.remember(buffer, real.copy_(value))


def _containers(model: nn.Module) -> list[tuple[_Container, Any]]:
    """All that modules hold, each dictionary, list or set of it with a copy of what is in it.

    An empty one, as most of a module's own are, shares one copy with all others.
    """
    pending: list[Any] = [vars(module) for module in model.modules()]
    found: dict[int, tuple[_Container, Any]] = {}
    while pending:
        value = pending.pop()
        if not isinstance(value, tuple):
            if id(value) in found:
                continue
            found[id(value)] = (value, value.copy() if value else ())
        inside = value.values() if isinstance(value, dict) else value
        pending += [item for item in inside if isinstance(item, _HOLDERS)]
    return [*found.values()]


_HOLDERS = (dict, list, tuple, set, deque)


def _refill(container: _Container, items: Any) -> None:
    container.clear()
    container.extend(items) if isinstance(container, list | deque) else container.update(items)


def _same(a: Any, b: Any) -> bool:
    """Whether two containers hold the same objects, in the same order."""
    if len(a) != len(b):
        return False
    if not a:
        return True
    if isinstance(a, set):
        return bool(a == b)
    if isinstance(a, dict):
        return all(map(is_, a, b)) and all(map(is_, a.values(), b.values()))
    return all(map(is_, a, b))
