"""Tensors within what a model is given: tuples, dicts and dataclasses, in any nesting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """All tensors, in the order of their fields."""
    for leaf in tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif _is_open(leaf):
            yield from tensors_of([getattr(leaf, f.name) for f in dataclasses.fields(leaf)])


def with_tensors(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same structure with other tensors; dataclasses are copied, never changed."""

    def leaf(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return change(item)
        if not _is_open(item):
            return item
        fields = [f.name for f in dataclasses.fields(item) if f.init]
        return dataclasses.replace(
            item, **{name: with_tensors(getattr(item, name), change) for name in fields}
        )

    return tree_map(leaf, value)


def _is_open(item: Any) -> bool:
    return dataclasses.is_dataclass(item) and not isinstance(item, type)
