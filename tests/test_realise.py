"""Where a multiplier goes in a live model: each form moves the logits by exactly its factor."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import automup

TOKENS = torch.randint(0, 32, (2, 6), generator=torch.Generator().manual_seed(0))


def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return scores(q, k).softmax(-1) @ v


class Model(nn.Module):
    """An attention without a mask; subclasses say how it is computed."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, width)
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, 32)
        self.scale = width**-0.5
        self.kind = "written"

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.mix(self.embed(tokens)))
        return result


class ByAttribute(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return (self.q(x) @ self.k(x).mT * self.scale).softmax(-1) @ x


class ByMethod(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x)
        return (q @ self.k(x).mT / math.sqrt(q.size(-1))).softmax(-1) @ x


class ByFreeFunctions(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return attend(self.q(x), self.k(x), x)


class BySelfOfAnotherName(Model):
    def mix(me, x: torch.Tensor) -> torch.Tensor:
        q = me.q(x)
        return (q @ me.k(x).mT / math.sqrt(q.size(-1))).softmax(-1) @ x


class ByStringFlag(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q, k = self.q(x), self.k(x)
        if self.kind == "written":
            return (q @ k.mT / math.sqrt(q.size(-1))).softmax(-1) @ x
        elif self.kind == "fused":
            return F.scaled_dot_product_attention(q, k, x)
        raise ValueError(self.kind)


FORMS = [ByAttribute, ByMethod, ByFreeFunctions, BySelfOfAnotherName, ByStringFlag]


def expected(model: Any) -> torch.Tensor:
    """The muP logits by hand: 1/d relative to the base, sqrt(16) / d."""
    x = model.embed(TOKENS)
    logits = model.q(x) @ model.k(x).mT * (16**0.5 / x.size(-1))
    result: torch.Tensor = model.out(logits.softmax(-1) @ x)
    return result


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_the_logits_are_those_of_mup(form: type[Model]) -> None:
    names = {name: value for name, value in vars(sys.modules[__name__]).items()}
    mu = automup.parametrize(form, base={"width": 16}, inputs=(TOKENS,))
    model = mu(128)
    torch.testing.assert_close(model(TOKENS), expected(model))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(TOKENS), model(TOKENS))
    plain = form(128)
    plain.load_state_dict(model.state_dict())
    assert not torch.allclose(plain(TOKENS), model(TOKENS))
    assert all(names[name] is value for name, value in vars(sys.modules[__name__]).items())


def test_both_branches_of_a_string_flag() -> None:
    model = automup.parametrize(ByStringFlag, base={"width": 16}, inputs=(TOKENS,))(128)
    written = model(TOKENS)
    model.kind = "fused"
    torch.testing.assert_close(model(TOKENS), written)


class TiedWithConstant(nn.Module):
    """T5's readout: the shared weight times 1/sqrt(d); inside a decorated forward."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(32, width), nn.Linear(width, 32, bias=False)
        self.head.weight = self.embed.weight
        self.body, self.width = nn.Linear(width, width), width

    @torch.autocast("cpu", enabled=False)
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = F.layer_norm(torch.relu(self.body(self.embed(tokens))), (self.width,))
        result: torch.Tensor = self.head(x * self.width**-0.5)
        return result


def test_a_readout_in_a_decorated_forward_gets_a_hook() -> None:
    mu = automup.parametrize(TiedWithConstant, base={"width": 16}, inputs=(TOKENS,))
    (site,) = mu.plan(64).sites
    assert (site.kind, site.exponents, site.factor) == ("readout", (("width", -0.5),), 0.5)
    model = mu(64)
    plain = TiedWithConstant(64)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(TOKENS), plain(TOKENS) * 0.5)
    assert torch.equal(pickle.loads(pickle.dumps(model))(TOKENS), model(TOKENS))


class ReadsANumber(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.q(x).sum(-1, keepdim=True) * self.k.weight.mean().item()) * x


def test_a_number_read_out_of_the_weights_is_refused() -> None:
    with pytest.raises(automup.AutomupError, match=r"reads a number.*test_realise\.py"):
        automup.parametrize(ReadsANumber, base={"width": 16}, inputs=(TOKENS,))


class ConstantOnAWeight(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x @ (self.q.weight.mT * self.scale))


def test_a_constant_on_a_weight_is_the_authors_not_a_tied_readout() -> None:
    mu = automup.parametrize(ConstantOnAWeight, base={"width": 16}, inputs=(TOKENS,), strict=False)
    (site,) = mu.plan(64).sites
    assert (site.kind, site.exponents) == ("scale", (("width", 0.5),))
