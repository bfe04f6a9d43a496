"""How to make a model's tensors anew without its constructor: by the laws that it draws them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from automup.capture.init_laws import InitRecorder, Law

Box = tuple[range, ...]
"""A part of a tensor: the indices of each of its dimensions."""


@dataclass(frozen=True)
class Draw:
    """How one tensor starts: boxes that are drawn one after another, or its value.

    ``law`` is that of all entries together.
    """

    shape: tuple[int, ...]
    law: Law
    boxes: tuple[tuple[Box, Law], ...] = ()
    value: torch.Tensor | None = None

    @property
    def known(self) -> bool:
        return bool(self.boxes) or self.value is not None


def draw_of(recorder: InitRecorder, tensor: torch.Tensor, value: torch.Tensor | None) -> Draw:
    """How a tensor of a constructor starts; ``value`` is what it holds, where no draw decides."""
    shape, law = tuple(tensor.shape), recorder.law(tensor)
    boxes = []
    for view, piece in recorder.draws(tensor):
        box = _box(tensor, view)
        if box is None:
            break
        boxes.append((box, piece))
    else:
        if boxes:
            return Draw(shape, law, tuple(boxes))
    return Draw(shape, law, value=value)


def _box(tensor: torch.Tensor, view: torch.Tensor) -> Box | None:
    """Which entries of a tensor a view of its storage is, if they are a box."""
    if _layout(view) == _layout(tensor):
        return tuple(map(range, tensor.shape))
    if not tensor.is_contiguous() or not view.numel():
        return None
    offset = int(view.storage_offset() - tensor.storage_offset())
    left = [pair for pair in zip(view.shape, view.stride(), strict=True) if pair[0] > 1]
    box = []
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        start, offset = divmod(offset, stride)
        fits = (p for p in left if p[1] % stride == 0 and p[1] < size * stride)
        count, step = found = next(fits, (1, stride))
        if found in left:
            left.remove(found)
        box.append(range(start, start + count * (step // stride), step // stride))
        if start < 0 or box[-1][-1] >= size:
            return None
    return None if left or offset else tuple(box)


def _layout(tensor: torch.Tensor) -> tuple[Sequence[int], Sequence[int], object]:
    return tensor.shape, tensor.stride(), tensor.storage_offset()
