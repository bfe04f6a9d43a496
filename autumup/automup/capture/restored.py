"""A run of a model leaves the model as it was, so that the next run does the same again.

Forward passes keep things: a table of positions that is made by the first call, a flag that the
weights have been rescaled, a counter. The second run of such a model is another one than the first,
and the traces of two widths must not differ by how often the model has run before.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch import nn

from automup.capture.meta import MetaMode
from automup.capture.real import RealMode

SMALL = 1024
"""Elements of a buffer that may be a flag, a counter or a state, and is worth a copy."""
_Container = dict[Any, Any] | list[Any] | set[Any] | deque[Any]


@contextlib.contextmanager
def restored(model: nn.Module, ground: MetaMode | RealMode) -> Iterator[None]:
    """Give every module, after the block, the attributes, containers and small buffers it had.

    What a value holds that is neither module, container nor buffer is not looked into.

    Args:
        model: the model that runs in the block.
        ground: what knows the values of its buffers.
    """
    kept = _containers(model)
    small = {b: ground.shadow(b) for b in model.buffers() if b.numel() <= SMALL}
    values = {b: (real, real.clone()) for b, real in small.items() if real is not None}
    try:
        yield
    finally:
        for container, items in kept:
            _refill(container, items)
        for buffer, (real, value) in values.items():
            ground.remember(buffer, real.copy_(value))


def _containers(model: nn.Module) -> list[tuple[_Container, Any]]:
    """All that modules hold, each dictionary, list or set of it with a copy of what is in it."""
    pending: list[Any] = [vars(module) for module in model.modules()]
    found: dict[int, tuple[_Container, Any]] = {}
    while pending:
        value = pending.pop()
        if isinstance(value, dict | list | set | deque) and id(value) not in found:
            found[id(value)] = (value, value.copy())
            pending += value.values() if isinstance(value, dict) else value
        elif isinstance(value, tuple):
            pending += value
    return [*found.values()]


def _refill(container: _Container, items: Any) -> None:
    if _same(container, items):
        return
    container.clear()
    container.extend(items) if isinstance(container, list | deque) else container.update(items)


def _same(a: Any, b: Any) -> bool:
    """Whether two containers hold the same objects, in the same order."""
    if len(a) != len(b) or isinstance(a, set):
        return bool(a == b)
    if isinstance(a, dict):
        return all(x is y and a[x] is b[y] for x, y in zip(a, b, strict=True))
    return all(x is y for x, y in zip(a, b, strict=True))
