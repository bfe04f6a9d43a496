"""What code keeps beyond its model, in a process's caches: every run of a trace does without.

A function under ``functools.lru_cache`` that is first called while a model is traced would hand the
tensor that it made there, which has no values, to every model that is run later. One that was
called before would be missing from the trace. A dictionary of the file or of the class may hold
what is no cache: only what a trace was seen to fill is taken for one.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from automup.capture.source import is_user_file

_DEEP = 3
"""How many containers inside each other a tensor is looked for in."""
_Cache: Any = functools._lru_cache_wrapper
_known: dict[int, Any] = {}
"""The caches of functions that are written in user files, by id."""
_without_tensors: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()
"""Caches that hold no tensors, with how often and how much they had been filled by then.

They are not looked into again before something new comes in. A small one that has a list or a
dictionary in it is: that is filled later, perhaps.
"""
_MANY = 64
"""Items in a large cache."""
_filled: list[tuple[dict[Any, Any], Any]] = []
"""Dictionaries, with the keys that code filled in them when they were missing."""
_looked_at = [0]
"""How many modules were imported when they were last looked for."""


@contextlib.contextmanager
def without_caches(model: nn.Module) -> Iterator[None]:
    """Start the block without cached tensors, and keep none of its own."""
    _clear_caches(model)
    hidden = [
        (container, key, container.pop(key)) for container, key in _filled if key in container
    ]
    try:
        yield
    finally:
        forget_tensors(model)
        for container, key, value in hidden:
            container[key] = value


def forget_tensors(model: nn.Module) -> None:
    """Drop cached tensors, and those without values from the dictionaries of a model's files."""
    _clear_caches(model)
    for container in [v for space in _namespaces(model) for v in space.values() if type(v) is dict]:
        for key in [k for k, v in container.items() if _holds_meta(v)]:
            del container[key]
            if not any(known is container and k == key for known, k in _filled):
                _filled.append((container, key))


def _clear_caches(model: nn.Module) -> None:
    _look_for_caches()
    own = (v for space in _namespaces(model) for v in space.values() if isinstance(v, _Cache))
    for cache in (*_known.values(), *own):
        state = cache.cache_info()
        filled = (state.misses, state.currsize)
        if not state.currsize or _without_tensors.get(cache) == filled:
            continue
        about = vars(cache)
        inside = list(_items((x for x in gc.get_referents(cache) if x is not about), _DEEP))
        if any(isinstance(item, torch.Tensor) for item in inside):
            cache.cache_clear()
        elif len(inside) > _MANY or not _may_be_filled(inside):
            _without_tensors[cache] = filled


def _may_be_filled(inside: list[Any]) -> bool:
    """Whether there is a list or a dictionary beside the one that holds all that is cached."""
    return sum(isinstance(item, list | dict) for item in inside) > 1


def _look_for_caches() -> None:
    """Look for caches where modules were imported; what is frozen was seen before it was."""
    if _looked_at[0] != len(sys.modules):
        _looked_at[0] = len(sys.modules)
        found = (x for x in gc.get_objects() if type(x) is _Cache)
        _known.update((id(x), x) for x in found if is_user_file(_file_of(x.__wrapped__)))


def _file_of(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return str(code.co_filename) if code is not None else ""


def _namespaces(model: nn.Module) -> Iterator[dict[str, Any]]:
    """What the classes of a model in user files define, and what their files do."""
    files: dict[int, dict[str, Any]] = {}
    for cls in {c for m in {type(m) for m in model.modules()} for c in m.__mro__}:
        functions = [f for f in vars(cls).values() if isinstance(f, FunctionType)]
        own = [f for f in functions if is_user_file(_file_of(f))]
        if own:
            yield dict(vars(cls))
            files.update((id(f.__globals__), f.__globals__) for f in own)
    yield from files.values()


def _holds_meta(value: Any) -> bool:
    if not isinstance(value, _HOLDERS):  # as good as always
        return False
    return any(tensor.is_meta for tensor in _tensors(value, _DEEP))


_HOLDERS = (torch.Tensor, list, tuple, dict)


def _tensors(value: Any, deep: int) -> Iterator[torch.Tensor]:
    return (item for item in _items([value], deep) if isinstance(item, torch.Tensor))


def _items(values: Iterable[Any], deep: int) -> Iterator[Any]:
    """Values, and what those that are lists, tuples and dictionaries hold, so deep inside them."""
    for value in values:
        yield value
        if deep and isinstance(value, list | tuple | dict):
            yield from _items(value.values() if isinstance(value, dict) else value, deep - 1)
