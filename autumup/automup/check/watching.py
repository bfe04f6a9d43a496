"""What a forward pass computes: the output of every module, and what goes into every softmax.

Fused attention hides its logits, so the pass runs with the kernel that computes them openly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode

from automup.capture.nested import tensors_of
from automup.capture.source import user_frames
from automup.check.result import Place

HIDDEN_BY_A_MASK = 1e30
"""A masked logit is minus infinity, or the least number of its dtype: no activation."""

_SOFTMAX = {torch.ops.aten._softmax.default, torch.ops.aten._safe_softmax.default}


@dataclass
class Seen:
    """The activations of one forward pass, in the order in which they were complete.

    ``outputs`` are the floating tensors that the model returned.
    """

    places: dict[str, Place] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)
    owners: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, kind: str, tensor: Tensor) -> None:
        """Keep an activation, unless its place was there before or a module hands it on."""
        same = any(tensor is other for other in self.owners.values())
        if name in self.places or same or not tensor.numel():
            return
        frames = user_frames(3, limit=1)
        self.places[name] = Place(name, kind, str(frames[0]) if frames else "")
        self.values[name] = tensor.detach().float().clone()
        self.owners[name] = tensor


class _SoftmaxMode(TorchDispatchMode):
    """Shows the arguments of every softmax."""

    def __init__(self, show: Callable[[Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._show = show

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _SOFTMAX:
            self._show(args[0])
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def watched(model: nn.Module) -> Iterator[Seen]:
    """See what the model computes in the block, at the first call of every module.

    What a parametrization returns is a weight and no activation: it is left out.
    """
    seen, stack = Seen(), [""]
    lists = [n for n, m in model.named_modules() if isinstance(m, ParametrizationList)]
    hooks: list[Any] = []
    for name, module in model.named_modules():
        if any(name == w or name.startswith(f"{w}.") for w in lists):
            continue
        enter, leave = _hooks(seen, stack, name)
        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def show(logits: Tensor) -> None:
        if not is_batchedtensor(logits):
            name = f"{stack[-1]}: logits" if stack[-1] else "logits"
            seen.add(_unused(name, seen), "logits", logits)

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), _SoftmaxMode(show):
            yield seen
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for hook in hooks:
            hook.remove()


def _unused(name: str, seen: Seen) -> str:
    """A module with several softmaxes: ``logits``, ``logits 2``, ..."""
    number = 1
    while (candidate := name if number == 1 else f"{name} {number}") in seen.places:
        number += 1
    return candidate


def _hooks(seen: Seen, stack: list[str], name: str) -> tuple[Any, Any]:
    def enter(module: nn.Module, args: Any) -> None:
        stack.append(name)

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        stack.pop()
        tensors = [t for t in tensors_of(_fields(result)) if t.is_floating_point()]
        if not name:
            seen.outputs += [t for t in tensors if not is_batchedtensor(t)]
        elif tensors and not is_batchedtensor(tensors[0]):  # what vmap maps may not leave it
            seen.add(name, "module", tensors[0])

    return enter, leave


def _fields(result: Any) -> Any:
    """An object of an unknown class as what it holds."""
    if isinstance(result, Tensor | tuple | list | dict):
        return result
    return dict(getattr(result, "__dict__", {}))


def size(value: Tensor) -> float:
    """The mean absolute entry, without what a mask hides."""
    return _mean(value.abs(), _open(value))


def distance(one: Tensor, other: Tensor, weight: Tensor | None = None) -> float:
    """The mean absolute difference, or its mean by weight."""
    both = _open(one) & _open(other)
    return _mean((one - other).abs(), both, weight)


def _open(value: Tensor) -> Tensor:
    return value.isfinite() & (value.abs() < HIDDEN_BY_A_MASK)


def _mean(value: Tensor, where: Tensor, weight: Tensor | None = None) -> float:
    if weight is None:
        return float(value[where].mean()) if bool(where.any()) else float("nan")
    return float((torch.where(where, value, 0.0) * weight).sum() / weight.sum())
