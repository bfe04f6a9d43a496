"""Stands for a third-party package: attention that a model's code calls, in many ways."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, ClassVar

import torch


def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return scores(q, k).softmax(-1) @ v


def by_einsum(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    scale = q.shape[-1] ** -0.5
    return torch.einsum("bid,bjd->bij", q, k) * scale


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as people write them."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@logged
def decorated(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))


class Counted:
    """A decorator that is an object with ``__get__`` and ``__call__``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function, self.calls = function, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return functools.partial(self, instance)


class Interface(MutableMapping[str, Callable[..., Any]]):
    """A registry object, as transformers has for its attention functions."""

    _global: ClassVar[dict[str, Callable[..., Any]]] = {"dot": scores, "einsum": by_einsum}

    def __init__(self) -> None:
        self._local: dict[str, Callable[..., Any]] = {}

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._local[name] if name in self._local else self._global[name]

    def __setitem__(self, name: str, function: Callable[..., Any]) -> None:
        self._local[name] = function

    def __delitem__(self, name: str) -> None:
        del self._local[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._global, **self._local})

    def __len__(self) -> int:
        return len({**self._global, **self._local})


INTERFACE = Interface()
REGISTRY: dict[str, Callable[..., Any]] = {"dot": scores}


class Kernel:
    """A strategy object that is no module."""

    def __init__(self, power: float) -> None:
        self.power = power

    def __call__(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return q @ k.mT / q.size(-1) ** self.power


def maker(dim: int) -> Callable[..., torch.Tensor]:
    def made(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return q @ k.mT / math.sqrt(dim)

    return made


class Attention(torch.nn.Module):
    """Attention in a third-party class, its projections in one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(dim, 3 * dim)

    @logged
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return attend(q, k, v)


class Rows(torch.autograd.Function):
    """An operation with a backward of its own, which an edit of its forward would belie."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(q, k)
        return q @ k.mT / math.sqrt(q.size(-1))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (grad,) = grads
        q, k = ctx.saved_tensors
        scale = 1 / math.sqrt(q.size(-1))
        return grad @ k * scale, grad.mT @ q * scale
