"""Reads of values while a model runs without weights: answered from shadows, or by a guess."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from automup.capture.source import Frame

if TYPE_CHECKING:
    from automup.capture.meta import MetaMode


@dataclass(frozen=True)
class Guess:
    """A value that the traced code asked for and that only the weights could tell.

    ``grave``: a number that may have an exponent of its own, so no guess at it will do.
    """

    what: str
    frame: Frame | None
    grave: bool = False


def _read_item(mode: MetaMode, tensor: torch.Tensor) -> Any:
    real = mode.shadow(tensor)
    if real is not None:
        return real.item()
    if tensor.dtype is torch.bool:
        return mode.guess("the truth of a tensor", False)
    if tensor.dtype.is_floating_point:
        return mode.guess("the value of a tensor", 1.0, grave=True)
    return mode.guess("the value of a tensor", 0)


def _read_equal(mode: MetaMode, a: torch.Tensor, b: torch.Tensor) -> bool:
    left, right = mode.shadow(a), mode.shadow(b)
    if left is not None and right is not None:
        return torch.equal(left, right)
    return bool(mode.guess("whether two tensors are equal", False))


def _read_nonzero(mode: MetaMode, tensor: torch.Tensor) -> bool:
    return bool(_read_item(mode, tensor))


DISPATCHED_READS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten._local_scalar_dense.default: _read_item,
    torch.ops.aten.item.default: _read_item,
    torch.ops.aten.equal.default: _read_equal,
    torch.ops.aten.is_nonzero.default: _read_nonzero,
}


class ReadGuard(TorchFunctionMode):
    """Answers the reads of values that torch refuses on meta before they are dispatched.

    ``on_meta_init`` is told of the functions of ``torch.nn.init`` that return early on meta.
    """

    def __init__(self, mode: MetaMode, on_meta_init: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        self._mode, self._on_meta_init = mode, on_meta_init

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        read = _PYTHON_READS.get(func)
        if read is not None and args and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            return read(self._mode, *args, **(kwargs or {}))
        if func == _DEEPCOPY and type(args[0]) is torch.Tensor and not args[0].is_meta:
            return _copied(*args)
        if func == _GETITEM and len(args) == 2:
            args = (args[0], _within(self._mode, *args))
        elif func == _IS_META and self._on_meta_init is not None:
            frame = sys._getframe(1)
            if frame.f_code.co_filename == torch.nn.init.__file__:
                self._on_meta_init(frame)
        return func(*args, **kwargs) if kwargs else func(*args)


_IS_META = torch.Tensor.is_meta.__get__  # type: ignore[attr-defined]
_GETITEM = torch.Tensor.__getitem__
_DEEPCOPY = torch.Tensor.__deepcopy__


def _copied(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """A deep copy of a real tensor (a count of batches); torch's own puts its storage on meta."""
    if id(tensor) not in memo:
        memo[id(tensor)] = tensor.clone()
    copy: torch.Tensor = memo[id(tensor)]
    return copy


def _guessed_values(mode: MetaMode, tensor: torch.Tensor) -> Any:
    grave = tensor.dtype.is_floating_point
    made = (torch.ones if grave else torch.zeros)(tensor.shape, dtype=tensor.dtype)
    return mode.guess("the values of a tensor", mode.shadow(made), grave=grave)


def _tolist(mode: MetaMode, tensor: torch.Tensor) -> Any:
    real = mode.shadow(tensor)
    if real is None:
        real = _guessed_values(mode, tensor)
    return real.tolist()


def _numpy(mode: MetaMode, tensor: torch.Tensor) -> Any:
    real = mode.shadow(tensor)
    if real is None:
        real = _guessed_values(mode, tensor)
    return real.numpy()


def _new_tensor(
    mode: MetaMode, tensor: torch.Tensor, data: Any, *, dtype: Any = None, **_: Any
) -> torch.Tensor:
    return torch.tensor(data, dtype=dtype or tensor.dtype)


def _within(mode: MetaMode, tensor: torch.Tensor, index: Any) -> Any:
    """An index that comes of a guess and lies beyond the end is no failure of the model."""
    if not isinstance(index, torch.Tensor) or index.dim() or index.dtype in (torch.bool,):
        return index
    real, size = mode.shadow(index), tensor.shape[0] if tensor.dim() else 0
    if real is None or not size or not mode.guesses or -size <= int(real) < size:
        return index
    return mode.guess("an index", int(real) % size)


def _format(mode: MetaMode, tensor: torch.Tensor, spec: str) -> str:
    """``f"expert_{index}"``: the text of a number; of a guessed float it is but a message."""
    if tensor.dim():
        return f"tensor(..., size={tuple(tensor.shape)})"
    if mode.shadow(tensor) is None and tensor.dtype.is_floating_point:
        return format(mode.guess("the text of a tensor", 1.0), spec)
    return format(_read_item(mode, tensor), spec)


def _convert(kind: type) -> Callable[[MetaMode, torch.Tensor], Any]:
    return lambda mode, tensor: kind(_read_item(mode, tensor))


_PYTHON_READS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.item: _read_item,
    torch.Tensor.new_tensor: _new_tensor,
    torch.Tensor.tolist: _tolist,
    torch.Tensor.numpy: _numpy,
    torch.Tensor.equal: _read_equal,
    torch.equal: _read_equal,
    torch.Tensor.__bool__: _convert(bool),
    torch.Tensor.__int__: _convert(int),
    torch.Tensor.__index__: _convert(int),
    torch.Tensor.__float__: _convert(float),
    torch.Tensor.__format__: _format,
}
