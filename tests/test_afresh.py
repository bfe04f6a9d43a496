"""Every run of a trace starts afresh, and what it kept is gone when the user's models run."""

from __future__ import annotations

import functools
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import automup


@functools.lru_cache
def positions(length: int) -> Tensor:
    return torch.linspace(-1, 1, length)[:, None]


class Cached(nn.Module):
    """Adds a table that a function keeps for the whole process."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.read, self.write = nn.Linear(8, width), nn.Linear(width, 4)

    def table(self, x: Tensor) -> Tensor:
        return positions(x.size(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.write(torch.relu(self.read(x) + self.table(x)))


@functools.lru_cache(maxsize=4)
def shelf(kind: str) -> list[Tensor]:
    return []


shelf("positions")


class FilledLater(Cached):
    """Keeps it in a list that a function keeps, and that was there before."""

    def table(self, x: Tensor) -> Tensor:
        if not shelf("positions"):
            shelf("positions").append(torch.linspace(-1, 1, x.size(1))[:, None])
        return shelf("positions")[0]


class InClass(Cached):
    """Keeps it in a dictionary of the class."""

    tables: ClassVar[dict[int, Tensor]] = {}

    def table(self, x: Tensor) -> Tensor:
        if x.size(1) not in self.tables:
            self.tables[x.size(1)] = torch.linspace(-1, 1, x.size(1))[:, None]
        return self.tables[x.size(1)]


class Lazy(Cached):
    """Makes it in its first call, as a buffer."""

    kept: Tensor | None

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        self.register_buffer("kept", None, persistent=False)

    def table(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = torch.linspace(-1, 1, x.size(1))[:, None]
        return self.kept


class Counted(Cached):
    """Does something else from its third call on, by a counter that is a buffer."""

    calls: Tensor

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        self.register_buffer("calls", torch.tensor(0))

    def table(self, x: Tensor) -> Tensor:
        self.calls += 1
        here = torch.linspace(-1, 1, x.size(1))[:, None]
        return here if self.calls < 3 else here.flip(0)


class Flagged(Cached):
    """Does something else when it has been called before, by a flag in a list."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        self.seen: list[int] = []

    def table(self, x: Tensor) -> Tensor:
        self.seen.append(x.size(1))
        return torch.zeros(x.size(1), 1) if len(self.seen) > 3 else torch.ones(x.size(1), 1).cos()


@pytest.mark.parametrize("cls", [Cached, FilledLater, InClass, Lazy, Counted, Flagged])
def test_a_model_that_keeps_things_is_read_as_one_that_does_not(cls: type[Cached]) -> None:
    x = torch.randn(2, 5, 8)
    mu = automup.parametrize(cls, inputs=(x,))
    assert [(p.name, p.role.value) for p in mu.plan(64).parameters] == [
        ("read.weight", "input"),
        ("read.bias", "input"),
        ("write.weight", "output"),
        ("write.bias", "scalar"),
    ]


@pytest.mark.parametrize("cls", [Cached, InClass, Lazy])
@pytest.mark.parametrize("warm", [False, True])
def test_what_a_trace_kept_does_not_reach_the_users_models(cls: type[Cached], warm: bool) -> None:
    x = torch.randn(2, 5, 8)
    positions.cache_clear()
    InClass.tables.clear()
    if warm:
        cls(16)(x)
    mu = automup.parametrize(cls, inputs=(x,))
    model = mu(16)
    expected = model.write(torch.relu(model.read(x) + torch.linspace(-1, 1, 5)[:, None]))
    torch.testing.assert_close(model(x), expected)
    mu.plan(64)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(cls(16).table(x), torch.linspace(-1, 1, 5)[:, None])
