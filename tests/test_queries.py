"""query_init: what writes the queries is told from keys by the dataflow, and drawn as asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import automup
import cases
from automup import Constants
from automup.analysis.queries import Rows
from automup.errors import PlanError, UsageError
from cases import Case

ZERO = Constants(query_init=0)
X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


class Attends(nn.Module):
    """Two projections, of which ``forward`` says what is attended to what."""

    def __init__(self, width: int, scores: Callable[..., Tensor]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, width), nn.Linear(width, 5)
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)
        self.scores = scores

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.scores(self.one(x), self.two(x), self) @ x)


def rows(build: Callable[..., nn.Module], **settings: Any) -> dict[str, Rows]:
    settings = {"inputs": (X,), "base": {"width": 16}, **settings}
    return automup.parametrize(build, **settings).study.queries


def attends(scores: Callable[..., Tensor]) -> set[str]:
    """Which of the two projections has the queries."""
    return {name.partition(".")[0] for name in rows(lambda width=16: Attends(width, scores))}


SCALE = 0.25
SCORES: dict[str, tuple[Callable[..., Tensor], str]] = {
    "left": (lambda a, b, _: F.softmax(a @ b.transpose(-1, -2) * SCALE, dim=-1), "one"),
    "right": (lambda a, b, _: F.softmax(b @ a.transpose(-1, -2) * SCALE, dim=-1), "two"),
    "over the rows": (
        lambda a, b, _: F.softmax(a @ b.transpose(-1, -2) * SCALE, dim=-2).transpose(-1, -2),
        "two",
    ),
    "turned": (
        lambda a, b, _: F.softmax((a @ b.transpose(-1, -2)).transpose(-1, -2) * SCALE, dim=-1),
        "two",
    ),
    "einsum": (
        lambda a, b, _: F.softmax(torch.einsum("bkd,bqd->bqk", a, b) * SCALE, dim=-1),
        "two",
    ),
    "scaled before": (
        lambda a, b, _: F.softmax((a * SCALE) @ (b / 2).mT, dim=-1),
        "one",
    ),
}


@pytest.mark.parametrize("how", SCORES)
def test_the_softmax_tells_queries_from_keys(how: str) -> None:
    scores, expected = SCORES[how]
    assert attends(scores) == {expected}


class Fused(nn.Module):
    """One projection for all three; the subclass has them head by head."""

    heads = 2

    def __init__(self, width: int, order: Sequence[int] = (0, 1, 2)) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, width), nn.Linear(width, 5)
        self.qkv, self.order = nn.Linear(width, 3 * width), order

    def parts(self, fused: Tensor) -> Sequence[Tensor]:
        return [part.unflatten(-1, (self.heads, -1)) for part in fused.chunk(3, -1)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        parts = self.parts(self.qkv(x))
        q, k, v = (parts[place].transpose(1, 2) for place in self.order)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.head(x + y.transpose(1, 2).flatten(2))


class Interleaved(Fused):
    """As of GPT-NeoX: a head's query, key and value side by side."""

    def parts(self, fused: Tensor) -> Sequence[Tensor]:
        return fused.unflatten(-1, (self.heads, 3, -1)).unbind(-2)


class MoreHeads(Interleaved):
    """The same, but a wider model has more heads."""

    def __init__(self, width: int, order: Sequence[int] = (0, 1, 2)) -> None:
        super().__init__(width, order)
        self.heads = width // 8


class EntryByEntry(Fused):
    """The query, key and value of an entry side by side."""

    def parts(self, fused: Tensor) -> Sequence[Tensor]:
        return fused.unflatten(-1, (self.heads, -1, 3)).unbind(-1)


class Groups(Fused):
    """As of the large Falcons: three queries, a key and a value for each group of heads."""

    def __init__(self, width: int, order: Sequence[int] = (0, 1, 2)) -> None:
        super().__init__(width, order)
        self.qkv, self.out = nn.Linear(width, 5 * width), nn.Linear(3 * width, width)

    def parts(self, fused: Tensor) -> Sequence[Tensor]:
        groups = fused.unflatten(-1, (-1, 5, 4))
        q, k, v = groups[..., :3, :], groups[..., 3:4, :], groups[..., 4:, :]
        return [part.flatten(-3, -2) for part in (q, k.expand_as(q), v.expand_as(q))]

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (part.transpose(1, 2) for part in self.parts(self.qkv(x)))
        return self.head(x + self.out(F.scaled_dot_product_attention(q, k, v).mT.flatten(1, 2).mT))


class OneKey(Fused):
    """As of the small Falcons: all heads have one key and value, of a fixed size."""

    order_of_rows = ("q", "k", "v")

    def __init__(self, width: int, order: Sequence[int] = (0, 1, 2)) -> None:
        super().__init__(width, order)
        self.width, self.heads, self.qkv = width, width // 8, nn.Linear(width, width + 16)

    def parts(self, fused: Tensor) -> Sequence[Tensor]:
        sizes = [self.width if part == "q" else 8 for part in self.order_of_rows]
        parts = dict(zip(self.order_of_rows, fused.split(sizes, -1), strict=True))
        q = parts["q"].unflatten(-1, (self.heads, 8))
        return [q, *(parts[part].unsqueeze(-2).expand_as(q) for part in "kv")]


class KeyFirst(OneKey):
    order_of_rows = ("k", "q", "v")


class Scattered(Fused):
    """The last row of the queries and the first of the keys are exchanged."""

    def parts(self, fused: Tensor) -> Sequence[Tensor]:
        n = fused.shape[-1] // 3
        q, last, first, k, v = fused.split([n - 1, 1, 1, n - 1, n], -1)
        parts = torch.cat([q, first], -1), torch.cat([last, k], -1), v
        return [part.unflatten(-1, (self.heads, -1)) for part in parts]


class OtherHeads(Interleaved):
    """Once there are more heads, and once they are larger."""

    def __init__(self, width: int, order: Sequence[int] = (0, 1, 2)) -> None:
        super().__init__(width, order)
        self.heads = 4 if width == 32 else 2


KQV = (1, 0, 2)


@pytest.mark.parametrize(("order", "first"), [((0, 1, 2), 0), (KQV, 16), ((2, 1, 0), 32)])
def test_rows_of_a_fused_weight(order: Sequence[int], first: int) -> None:
    found = rows(lambda width=16: Fused(width, order))
    expected = Rows(0, first, first + 16, 48)
    assert found == {"qkv.weight": expected, "qkv.bias": expected}


@pytest.mark.parametrize("width", [16, 48])
def test_only_these_rows_are_zeroed_at_any_width(width: int) -> None:
    build = lambda width=16: Fused(width, KQV)  # noqa: E731
    mu = automup.parametrize(build, inputs=(X,))
    models = []
    for made in (mu, mu.with_constants(ZERO)):
        torch.manual_seed(0)
        models.append(made(width))
    for name, plain in models[0].named_parameters():
        ours = models[1].get_parameter(name)
        expected = plain.clone().detach()
        if name.startswith("qkv"):
            expected[width : 2 * width] = 0
        assert torch.equal(ours, expected), name


FUSED = {
    Interleaved: (0, 0, 8, 24, 2),
    MoreHeads: (0, 0, 8, 24, 0),
    EntryByEntry: (0, 0, 1, 3, 0),
    Groups: (0, 0, 12, 20, 0),
    OneKey: (0, 0, 16, 32, 1),
    KeyFirst: (0, 8, 24, 32, 1),
}  # fmt: skip


def written(model: nn.Module) -> list[Tensor]:
    """The queries, keys and values that a model writes."""
    found: list[Tensor] = []
    parts = model.parts
    model.parts = lambda fused: found.extend(parts(fused)) or parts(fused)  # type: ignore[assignment]
    model(X)
    del model.parts
    return found


@pytest.mark.parametrize("kind", FUSED, ids=lambda kind: kind.__name__)
def test_queries_between_keys_and_values(kind: type[Fused]) -> None:
    """They are exactly zero at any width, drawn in memory or on meta, and all else is as before."""
    mu = automup.parametrize(lambda width=16: kind(width), inputs=(X,))
    tuned = mu.with_constants(ZERO)
    assert dataclasses.astuple(mu.study.queries["qkv.weight"]) == FUSED[kind]
    for width in (16, 32, 80):
        torch.manual_seed(0)
        plain = mu(width)
        torch.manual_seed(0)
        zeroed = tuned(width)
        with torch.device("meta"):
            empty = tuned(width)
        tuned.init_(empty.to_empty(device="cpu"), seed=1)
        query, *others = written(zeroed)
        assert not query.any()
        assert not written(empty)[0].any() and all(part.all() for part in written(empty)[1:])
        for ours, theirs in zip(others, written(plain)[1:], strict=True):
            assert torch.equal(ours, theirs)
        plan = tuned.plan(width)
        assert automup.Plan.from_json(plan.to_json()) == plan
        expected = mu.optimizer(plain, torch.optim.AdamW, lr=0.1).param_groups
        found = tuned.optimizer(zeroed, torch.optim.AdamW, lr=0.1).param_groups
        assert [g["lr"] for g in found] == [g["lr"] for g in expected]


@pytest.mark.parametrize(
    "case", [cases.GPT, cases.WRITTEN_OUT, cases.MANUAL, cases.LLAMA, cases.EINSUM], ids=str
)
def test_every_position_is_attended_alike_at_first(case: Case) -> None:
    """Zeroed queries and their rows anywhere else give the same outputs: uniform attention."""
    mu = automup.parametrize(case.build, base={"width": case.base}, inputs=case.inputs)
    tuned = mu.with_constants(ZERO)
    for width in (case.base, 2 * case.base):
        torch.manual_seed(0)
        model = tuned(width)
        expected = case.logits(model)
        for name, at in mu.study.queries.items():
            weight = model.get_parameter(name)
            queries = weight.narrow(
                at.dim, at.first * width // case.base, (at.last - at.first) * width // case.base
            )
            assert not queries.any()
        with torch.no_grad():  # and then keys do not matter
            for name, at in mu.study.queries.items():
                if not at.whole:
                    n = at.last * width // case.base
                    model.get_parameter(name).narrow(at.dim, n, n).mul_(3.0)
        torch.testing.assert_close(case.logits(model), expected)


def test_zeroed_queries_are_trained() -> None:
    mu = automup.parametrize(cases.GPT.build, base={"width": 32}, inputs=cases.GPT.inputs)
    tuned = mu.with_constants(ZERO)
    model = tuned(64)
    cases.train(cases.GPT, model, tuned.optimizer(model, lr=1e-2), 2)
    for block in model.transformer.h:
        assert block.attn.c_attn.weight[:64].any(1).all()


def test_meta_and_the_report() -> None:
    mu = automup.parametrize(
        lambda width=16: Fused(width, KQV), inputs=(X,), constants=Constants(query_init=0)
    )
    with torch.device("meta"):
        model = mu(64)
    mu.init_(model.to_empty(device="cpu"), seed=1)
    assert not model.qkv.weight[64:128].any()
    assert model.qkv.weight[:64].all()
    assert model.qkv.weight[128:].all()
    plan = mu.plan(64)
    assert plan.parameter("qkv.weight").drawn == (
        0, [(64, True, 1.0), (64, True, 0.0), (64, True, 1.0)]
    )  # fmt: skip
    assert automup.Plan.from_json(plan.to_json()) == plan
    assert "query_init=0" in str(mu.explain(64))
    mu.optimizer(model, torch.optim.SGD, lr=0.1)  # its rows share a rate
    groups = mu.param_groups(model, torch.optim.Muon)
    assert [g["use_muon"] for g in groups for p in g["params"] if p is model.qkv.weight] == [True]


REFUSED: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "no attention": (lambda width=16: cases.MLP.build(width), "no attention whose queries"),
    "scattered": (lambda width=16: Scattered(width), "are not evenly spaced"),
    "normalised": (
        lambda width=16: Attends(
            width,
            lambda a, b, _: F.softmax(F.layer_norm(a, a.shape[-1:]) @ b.mT * SCALE, dim=-1),
        ),
        "go through native_layer_norm, which is not linear",
    ),
    "gated": (
        lambda width=16: Attends(width, lambda a, b, _: F.softmax((a * b) @ b.mT, dim=-1)),
        "through a product of activations",
    ),
    "a weight instead of queries": (
        lambda width=16: Attends(
            width, lambda a, b, net: F.softmax(net.head.weight @ b.mT, dim=-1).sum(1, keepdim=True)
        ),
        "no attention whose queries",
    ),
    "shared": (
        lambda width=16: Attends(width, lambda a, b, _: F.softmax(a @ a.mT * SCALE, dim=-1)),
        r"one\.\w+ writes its keys, too",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_told_is_refused_by_name(what: str) -> None:
    build, why = REFUSED[what]
    inputs = (cases.VECTORS,) if what == "no attention" else (X,)
    mu = automup.parametrize(build, base={"width": 16}, inputs=inputs)
    with pytest.raises(UsageError, match=f"query_init: .*{why}.*Leave query_init at 1"):
        mu.with_constants(ZERO)


def test_rows_that_neither_heads_nor_their_sizes_account_for_are_refused() -> None:
    build = lambda width=16: OtherHeads(width)  # noqa: E731
    with pytest.warns(UserWarning):  # its logits are unresolved, too
        mu = automup.parametrize(build, inputs=(X,), strict=False)
    with pytest.raises(UsageError, match=r"the rows of qkv\.\w+ .* queries change with width"):
        mu.with_constants(ZERO)


def test_a_plan_without_queries_takes_no_constant_of_theirs() -> None:
    plan = automup.parametrize(lambda width=16: Fused(width), inputs=(X,)).plan(32)
    with pytest.raises(PlanError, match="does not know what writes queries"):
        plan.with_constants(ZERO)
