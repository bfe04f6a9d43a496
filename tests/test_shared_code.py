"""Code and modules that several parts of a model share: each part gets its own multiplier."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import automup
from attention_library import Attention, attend, scores

BASE, WIDE = 16, 64
TOKENS = torch.randint(0, 32, (2, 6), generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """Attention within a size of its own."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(width, size), nn.Linear(width, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return attend(self.q(x), self.k(x), x)


class Fixed(Head):
    """The same code, with a size that does not grow: it needs nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return scores(self.q(x), self.k(x)).softmax(-1) @ x


class Model(nn.Module):
    def __init__(self, width: int = BASE) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(32, width), nn.Linear(width, 32)
        self.prepare(width)

    def prepare(self, width: int) -> None:
        raise NotImplementedError

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.mix(self.embed(tokens)))
        return result


class DifferentSizes(Model):
    """Modules of one class with different base sizes, and one that does not grow."""

    def prepare(self, width: int) -> None:
        self.heads = nn.ModuleList([Head(width, width), Head(width, width // 2)])
        self.fixed = Fixed(width, 12)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.fixed(x) + self.heads[0](x) + self.heads[1](x)


class InASequence(DifferentSizes):
    def prepare(self, width: int) -> None:
        self.heads = nn.Sequential(Head(width, width), Head(width, width // 2))
        self.fixed = Fixed(width, 12)


class OneModuleTwoParents(Model):
    """One attention under two names, in two parents, one of which calls it twice."""

    def prepare(self, width: int) -> None:
        shared = Head(width, width)
        self.left, self.right = nn.Sequential(shared), nn.ModuleDict({"again": shared})

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right["again"](x) + self.right["again"](x)


class TwoSizesInOneMethod(Model):
    """One function, called twice by one method, where only one call needs a multiplier."""

    def prepare(self, width: int) -> None:
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.r, self.s = nn.Linear(width, 12), nn.Linear(width, 12)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return (scores(self.q(x), self.k(x)) + scores(self.r(x), self.s(x))).softmax(-1) @ x


class ThirdParty(Model):
    """Attention in a library's class, decorated, its projections fused; beside one not in muP."""

    def prepare(self, width: int) -> None:
        self.attention = Attention(width)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x)


def head(module: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
    """An attention by hand, its logits times a factor."""
    q = nn.functional.linear(x, module.q.weight, module.q.bias)
    k = nn.functional.linear(x, module.k.weight, module.k.bias)
    return (q @ k.mT * (factor / math.sqrt(q.size(-1)))).softmax(-1) @ x


def by_hand(model: Any) -> torch.Tensor:
    """The muP output: every growing attention at half its scale, at 4 times the base."""
    x = nn.functional.embedding(TOKENS, model.embed.weight)
    if isinstance(model, DifferentSizes):
        mixed = head(model.fixed, x, 1.0) + sum(head(h, x, 0.5) for h in model.heads)
    elif isinstance(model, OneModuleTwoParents):
        mixed = 3 * head(model.left[0], x, 0.5)
    elif isinstance(model, TwoSizesInOneMethod):
        q, k, r, s = (
            nn.functional.linear(x, m.weight, m.bias) for m in (model.q, model.k, model.r, model.s)
        )
        logits = q @ k.mT * (0.5 / 8.0) + r @ s.mT / math.sqrt(12)
        mixed = logits.softmax(-1) @ x
    else:
        weights = model.attention.qkv
        q, k, v = nn.functional.linear(x, weights.weight, weights.bias).chunk(3, -1)
        mixed = (q @ k.mT * (0.5 / 8.0)).softmax(-1) @ v
    return nn.functional.linear(mixed, model.out.weight, model.out.bias)


MODELS = [DifferentSizes, InASequence, OneModuleTwoParents, TwoSizesInOneMethod, ThirdParty]


@pytest.mark.parametrize("form", MODELS, ids=lambda f: f.__name__)
def test_each_part_gets_its_own_multiplier(form: type[Model]) -> None:
    plain = form(WIDE).double()
    before = plain(TOKENS)
    mu = automup.parametrize(form, base={"width": BASE}, inputs=(TOKENS,))
    model = mu(WIDE).double()
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(TOKENS), by_hand(twin), rtol=1e-11, atol=1e-12)
    assert torch.equal(plain(TOKENS), before)
