"""``mu.init_``: a model that was built on meta starts as one that its constructor made."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import automup
import cases
from automup import initialise
from automup.api import Mup
from automup.errors import PlanError, UnresolvedError, UsageError
from cases import Case

X = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))


def on_meta(mu: Mup, width: int) -> nn.Module:
    with torch.device("meta"):
        return mu(width)


def drawn(mu: Mup, width: int, **settings: object) -> nn.Module:
    model = on_meta(mu, width).to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(77)
    return mu.init_(model, **settings)


@functools.cache
def parametrized(case: Case) -> Mup:
    return automup.parametrize(case.build, base={"width": case.base}, inputs=case.inputs)


def assert_alike(name: str, a: Tensor, b: Tensor) -> None:
    """Two draws of one law: n entries know their mean and rms up to about 1 / sqrt(n)."""
    if a.double().std(unbiased=False) == 0:
        assert torch.equal(a, b), name
    a, b = a.double(), b.double()
    for x, y in ((a.mean(), b.mean()), (a.square().mean().sqrt(), b.square().mean().sqrt())):
        assert abs(x - y) <= 6 * a.square().mean().sqrt() / math.sqrt(a.numel()), name


@pytest.mark.parametrize("case", cases.HAND_WRITTEN, ids=str)
def test_weights_and_buffers_are_those_of_the_constructor(case: Case) -> None:
    mu = parametrized(case)
    made, ours = mu(4 * case.base), drawn(mu, 4 * case.base)
    pairs = zip(made.named_parameters(), ours.named_parameters(), strict=True)
    for (name, a), (_, b) in pairs:
        assert_alike(name, a.detach(), b.detach())
    for (name, a), (_, b) in zip(made.named_buffers(), ours.named_buffers(), strict=True):
        assert torch.equal(a, b), name
    ours.load_state_dict(made.state_dict())
    assert torch.equal(case.logits(made), case.logits(ours))


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_a_seed_decides_however_often_and_after_whatever() -> None:
    mu = parametrized(cases.GPT)
    once = drawn(mu, 64, seed=3)
    assert same(once, drawn(mu, 64, seed=3))
    assert not same(once, drawn(mu, 64, seed=4))
    twice = drawn(mu, 64, seed=4)
    mu.init_(twice, seed=3)
    assert same(once, twice)
    torch.manual_seed(5)
    other = drawn(mu, 64)
    torch.manual_seed(5)
    assert same(other, drawn(mu, 64))
    assert not same(other, drawn(mu, 64))


def test_no_two_weights_and_no_two_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialise, "BLOCK", 64)
    model = drawn(parametrized(cases.GPT), 64, seed=3)
    assert isinstance(model, cases.gpt.GPT)
    blocks = [row for h in model.transformer.h for row in h.attn.c_attn.weight.detach()]
    assert len({tuple(block.tolist()) for block in blocks}) == 2 * 192


class Laws(nn.Module):
    """One parameter or buffer for each way to begin that can be told from outside."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(16, width)
        self.cut = nn.Parameter(nn.init.trunc_normal_(torch.empty(width, width), 0.1, 1, -1, 2))
        self.flat = nn.Parameter(torch.rand(width) * 2 - 1)
        self.scaled = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.gain = nn.Parameter(torch.full((width,), 0.5))
        self.table = nn.Parameter(torch.linspace(0, 1, width))
        self.scalar = nn.Parameter(torch.tensor(0.25))
        self.words = nn.Embedding(32, width, padding_idx=3)
        self.register_buffer("mask", torch.ones(1100, 1100).tril(), persistent=False)
        self.register_buffer("features", torch.randn(7, width))
        self.plain = torch.arange(5.0)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) * self.gain + self.flat + self.table * self.scalar
        h = h + self.words(x[:, 0].long().clamp(0, 31)) + self.features[0]
        h = torch.relu(h @ self.cut.T @ self.scaled.T) + self.mask[-1, -1]
        out: Tensor = self.head(h) + self.plain
        return out


def test_every_law_that_can_be_told() -> None:
    mu = automup.parametrize(Laws, inputs=(X,))
    made, ours = mu(64), drawn(mu, 64)
    assert isinstance(made, Laws) and isinstance(ours, Laws)
    for (name, a), (_, b) in zip(made.named_parameters(), ours.named_parameters(), strict=True):
        assert_alike(name, a.detach(), b.detach())
    assert torch.equal(ours.table, made.table)
    assert ours.mask.dtype == made.mask.dtype and torch.equal(ours.mask, made.mask)
    assert torch.equal(ours.plain, made.plain)
    assert_alike("features", made.features, ours.features)
    for model in (made, ours):
        assert not model.words.weight[3].any() and model.words.weight[4].all()
        factor = mu.plan(64).parameter("cut").init_mult
        assert -1 <= model.cut.min() / factor < -0.9 and 1.8 < model.cut.max() / factor <= 2
        assert model.flat.min() < -0.9 and model.flat.max() > 0.9
    assert made(X).shape == ours(X).shape


class Overwritten(Laws):
    """What is written past the parameter is seen all the same, or refused."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        self.table.data.mul_(2)


class Orthogonal(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(16, width), nn.Linear(width, 5)
        self.mix = nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.mix.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.mix(self.embed(x)).relu())
        return out


class Copied(Orthogonal):
    """A copy that would no longer be one."""

    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        nn.init.normal_(self.mix.weight)
        self.register_buffer("first", torch.empty(width, width))
        self.first.copy_(self.mix.weight.detach())


class Computed(Orthogonal):
    def __init__(self, width: int = 16) -> None:
        super().__init__(width)
        with torch.no_grad():
            self.mix.weight.copy_(torch.rand(width, width).sqrt())


@pytest.mark.parametrize(
    "model, name",
    [
        (Orthogonal, "mix.weight"),
        (Copied, "first"),
        (Computed, "mix.weight"),
        (Overwritten, "table"),
    ],
)
def test_what_no_law_tells_is_refused_by_name(model: Callable[[int], nn.Module], name: str) -> None:
    mu = automup.parametrize(model, inputs=(X,))
    with pytest.raises(UnresolvedError, match=rf"makes {name} could not.*leave=\['{name}"):
        drawn(mu, 64)
    left = drawn(mu, 64, leave=["*." + name.split(".")[-1] if "." in name else name])
    assert left.state_dict()[name].eq(77).all()


def test_a_refused_call_changes_nothing() -> None:
    mu = automup.parametrize(Overwritten, inputs=(X,))
    model = on_meta(mu, 64).to_empty(device="cpu")
    with pytest.raises(UnresolvedError, match="table"):
        mu.init_(model)
    assert torch.equal(mu.init_(model, leave=["table"]).plain, torch.arange(5.0))


def test_wrong_calls_say_what_is_wrong() -> None:
    mu = parametrized(cases.GPT)
    with pytest.raises(UsageError, match=r"wte.weight is on the meta.*to_empty"):
        mu.init_(on_meta(mu, 64))
    with pytest.raises(PlanError, match=r"\(256, 64\), and \(256, 128\).*width=\.\.\."):
        mu.init_(mu(64), width=128)
    with pytest.raises(PlanError, match="None in the parametrized model"):
        mu.init_(nn.Sequential(nn.Linear(3, 3)), width=64)
