"""The other way to run a small model: on real tensors, where the meta device will not do.

Some operations have no meta kernel, and some code reads values that only the weights can tell. Here
everything is computed; what depends on a weight or on a random draw is marked by its storage, so
that the same constants are known as on meta. Only what a weight would choose (the best experts of a
token) is dealt in turn, so that models of different widths choose alike and every expert is run.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from automup.capture.ground import Ground
from automup.capture.reads import Guess
from automup.capture.source import user_frames
from automup.capture.tensors import (
    magnitudes,
    storage_of,
    tensors_in,
    tensors_read,
    traits_of,
    written_tensors,
)
from automup.errors import CaptureError

LARGEST = 1 << 26  # elements of one tensor; a larger model needs the meta device


class RealMode(Ground):
    """Runs operations as they are and keeps track of what no weight had a part in."""

    def __init__(self) -> None:
        super().__init__()
        self.guesses: list[Guess] = []
        self._unknown: dict[int, torch.Tensor] = {}

    def adopt(self, earlier: RealMode) -> None:
        """Know what an earlier mode knew."""
        self._unknown = earlier._unknown

    def admit(self, tensor: torch.Tensor) -> torch.Tensor:
        """An input of the model, as it is to be passed."""
        return tensor

    def forget(self, tensor: torch.Tensor) -> None:
        """The tensor is a weight: what is computed from it is not known beforehand."""
        self._unknown[storage_of(tensor)] = tensor

    def remember(self, tensor: torch.Tensor, real: torch.Tensor) -> None:
        """Know the value of a tensor, itself, whatever was written into it."""
        self._unknown.pop(storage_of(tensor), None)

    def shadow(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The tensor, or None if a weight or a random draw had a part in it."""
        return None if storage_of(tensor) in self._unknown else tensor

    value_behind = shadow

    def sizes_of(self, tensor: torch.Tensor) -> tuple[float | None, float | None]:
        """Root mean square and largest of a known tensor's entries, None of an unknown one's."""
        return (None, None) if self.shadow(tensor) is None else magnitudes(tensor)

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation, and note where the code reads a number that depends on the weights."""
        traits, tensors = traits_of(func), tensors_in((args, kwargs))
        known = all(self.shadow(x) is not None for x in tensors_read(traits, tensors))
        if func is torch.ops.aten._local_scalar_dense.default and not known:
            frames = user_frames(2, limit=1)
            grave = tensors[0].is_floating_point()
            place = frames[0] if frames else None
            self.guesses.append(Guess("the value of a tensor", place, grave))
        if not tensors and args and _elements(args[0]) > LARGEST:
            raise CaptureError(
                "The model fails on the meta device and is too large to be run on real tensors.",
                fix="Choose a smaller base.",
            )
        if not known and func in _CHOICES and args[0].is_floating_point():
            args = (_in_turn(func, *args, **kwargs), *args[1:])
        out = func(*args, **kwargs)
        if not known or not traits.deterministic:
            for tensor in (*tensors_in(out), *written_tensors(func, args, kwargs)):
                self.forget(tensor)
        elif traits.writes:
            for tensor in written_tensors(func, args, kwargs):
                self._unknown.pop(storage_of(tensor), None)
        return out


_aten = torch.ops.aten
_CHOICES = {
    *(_aten.topk.default, _aten.sort.default, _aten.sort.stable, _aten.kthvalue.default),
    *(_aten.argmax.default, _aten.argmin.default, _aten.max.dim, _aten.min.dim),
}


def _in_turn(func: Any, scores: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Scores of the same shape by which every row chooses those that come after the last row's.

    How many tokens an expert gets must not be read as a size that grows with width.
    """
    given = dict(zip([a.name for a in func._schema.arguments[1:]], args, strict=False)) | kwargs
    dim = given.get("dim", None if func in (_aten.argmax.default, _aten.argmin.default) else -1)
    if not scores.dim() or dim is None:
        return scores
    size, chosen = scores.shape[dim], given.get("k", 1)
    rows = torch.arange(scores.numel() // max(1, size)).unsqueeze(-1)
    dealt = (torch.arange(size) - rows * chosen) % max(1, size)
    others = [n for d, n in enumerate(scores.shape) if d != dim % scores.dim()]
    turns: torch.Tensor = dealt.to(scores.dtype).reshape(*others, size).movedim(-1, dim)
    return turns


def _elements(size: Any) -> int:
    return math.prod(size) if isinstance(size, list | tuple) and size else 0


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """oneDNN switched off, and nothing else set, since torch warns of some of its other flags."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


@contextlib.contextmanager
def on_real_tensors() -> Iterator[RealMode]:
    """Run the block on real tensors, without fused kernels that hide what they do."""
    mode = RealMode()
    with (
        sdpa_kernel(SDPBackend.MATH),
        _without_onednn(),
        torch.random.fork_rng(devices=[]),
        mode,
        torch.no_grad(),
    ):
        yield mode
