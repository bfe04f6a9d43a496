"""Rules of the user's own: with its rule, an operation that torch cannot look into gives the plan
of the same model written in operations that automup knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import automup
from automup import op
from automup.analysis.ops import custom
from automup.analysis.ops.registry import RULES, USERS
from automup.errors import UnresolvedError, UsageError
from models_small import model

FLOATS = torch.randn(2, 6, 16)
TOKENS = torch.randint(0, 64, (2, 6))


def opaque(function: Callable[..., Any]) -> Any:
    """The function as an operation ``small::name``, whose fake is the function itself."""
    made = torch.library.custom_op(f"small::{function.__name__}", mutates_args=())(function)
    made.register_fake(function)
    return made


@opaque
def scan(x: Tensor, a: Tensor) -> Tensor:
    return torch.tanh(x * a)


@opaque
def rectified(x: Tensor) -> Tensor:
    return F.relu(x)


@opaque
def quantised(w: Tensor) -> Tensor:
    return w * 1.0


@opaque
def squared(x: Tensor) -> Tensor:
    return x * x


@opaque
def rolled(x: Tensor) -> Tensor:
    return x.roll(1, -1)


@opaque
def total(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True)


@opaque
def length(x: Tensor) -> Tensor:
    return x.norm(dim=-1, keepdim=True)


@opaque
def average(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


@opaque
def logits(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT


@opaque
def affine(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return x @ w + b


@opaque
def normed(x: Tensor, gain: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], gain)


@opaque
def rows(table: Tensor, indices: Tensor) -> Tensor:
    return table[indices].clone()


@dataclass(frozen=True)
class Twin:
    """An operation, its rule, and two ways to write a model: with it and without."""

    op: Any
    rule: op.OpRule
    ours: str
    plain: str
    init: str = ""
    tokens: bool = False

    def __str__(self) -> str:
        return f"{self.op._name}-{self.rule}"

    def build(self, line: str) -> Callable[[int], nn.Module]:
        first = "" if self.tokens else "self.first = nn.Linear(16, d)"
        start = "" if self.tokens else "h = F.relu(self.first(x))"
        init = f"{first}\n{self.init}\nself.head = nn.Linear(d, 8)"
        return model(init, f"{start}\n{line}\nreturn self.head(h)")

    def plan(self, line: str) -> automup.Plan:
        inputs = (TOKENS if self.tokens else FLOATS,)
        return automup.parametrize(self.build(line), base=32, inputs=inputs).plan(128)


SMALL = "torch.ops.small."
TWINS = [
    Twin(
        scan, op.Elementwise(), f"h = {SMALL}scan(h, self.a)", "h = torch.tanh(h * self.a)",
        "self.a = nn.Parameter(torch.ones(d))",
    ),
    Twin(rectified, op.Elementwise(degree=1), f"h = {SMALL}rectified(h)", "h = F.relu(h)"),
    Twin(
        quantised, op.Elementwise(degree=1),
        f"h = F.relu(F.linear(h, {SMALL}quantised(self.w)))", "h = F.relu(F.linear(h, self.w))",
        "self.w = nn.Parameter(torch.randn(2 * d, d) * 0.02)\nd = 2 * d",
    ),
    Twin(
        squared, op.Elementwise(degree=2, input="x"),
        f"h = {SMALL}squared(h / math.sqrt(h.size(-1)))", "h = (h / math.sqrt(h.size(-1))) ** 2",
    ),
    Twin(rolled, op.Moves(), f"h = {SMALL}rolled(h)", "h = h.roll(1, -1)"),
    Twin(
        total, op.Reduction(dims=(-1,)), f"h = torch.tanh(h * {SMALL}total(h))",
        "h = torch.tanh(h * h.sum(-1, keepdim=True))",
    ),
    Twin(
        length, op.Reduction(power=0.5), f"h = torch.tanh(h * {SMALL}length(h))",
        "h = torch.tanh(h * h.norm(dim=-1, keepdim=True))",
    ),
    Twin(
        average, op.Reduction(power=0), f"h = torch.tanh(h * {SMALL}average(h))",
        "h = torch.tanh(h * h.mean(-1, keepdim=True))",
    ),
    Twin(
        logits, op.Contraction(), f"h = {SMALL}logits(self.q(h), h).softmax(-1) @ h",
        "h = (self.q(h) @ h.mT).softmax(-1) @ h", "self.q = nn.Linear(d, d)",
    ),
    Twin(
        affine, op.Contraction("x", "w", (-1,), (0,), bias="b"),
        f"h = F.relu({SMALL}affine(h, self.w, self.b))", "h = F.relu(h @ self.w + self.b)",
        "self.w = nn.Parameter(torch.randn(d, 2 * d) * 0.02)\n"
        "self.b = nn.Parameter(torch.zeros(2 * d))\nd = 2 * d",
    ),
    Twin(
        normed, op.Normalisation(), f"h = {SMALL}normed(h, self.g)",
        "h = F.layer_norm(h, h.shape[-1:], self.g)", "self.g = nn.Parameter(torch.ones(d))",
    ),
    Twin(
        rows, op.Lookup(), f"h = {SMALL}rows(self.t, x)", "h = F.embedding(x, self.t)",
        "self.t = nn.Parameter(torch.randn(64, d))", tokens=True,
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What a test registers is gone after it."""
    registries: list[dict[Any, Any]] = [RULES, USERS, custom._registered]
    before = [dict(registry) for registry in registries]
    yield
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)


def said(plan: automup.Plan) -> list[tuple[Any, ...]]:
    """All of a plan that does not depend on how its source is written."""
    return [
        *((p.name, p.ratios, p.fan_in_dims, p.fan_out_dims, p.init_mult) for p in plan.parameters),
        *((s.kind, s.exponents, s.factor, s.modules) for s in plan.sites),
    ]  # fmt: skip


@pytest.mark.parametrize("twin", TWINS, ids=str)
def test_with_its_rule_the_plan_is_that_of_plain_torch(twin: Twin) -> None:
    with pytest.raises(UnresolvedError, match=f"small::{twin.op._name.partition('::')[2]}"):
        twin.plan(twin.ours)
    automup.register_op(twin.op, twin.rule)
    assert said(twin.plan(twin.ours)) == said(twin.plan(twin.plain))


def test_the_multiplier_of_a_registered_contraction_lands_in_the_live_model() -> None:
    (twin,) = (t for t in TWINS if t.op is logits)
    automup.register_op("small::logits", twin.rule)
    models = []
    for line in (twin.ours, twin.plain):
        mu = automup.parametrize(twin.build(line), base=32, inputs=(FLOATS,))
        torch.manual_seed(0)
        models.append(mu(128))
    plain = twin.build(twin.ours)(128)
    plain.load_state_dict(models[0].state_dict())
    assert torch.equal(models[0](FLOATS), models[1](FLOATS))
    assert not torch.allclose(models[0](FLOATS), plain(FLOATS))


@pytest.mark.parametrize(
    "named", ["small::scan", "small::scan.default", torch.ops.small.scan,
              torch.ops.small.scan.default, scan], ids=repr,
)  # fmt: skip
def test_an_operation_may_be_named_in_all_of_torchs_ways(named: Any) -> None:
    automup.register_op(named, op.Elementwise())
    assert torch.ops.small.scan.default in RULES


def test_the_same_rule_again_is_no_error_and_another_needs_replace() -> None:
    automup.register_op(scan, op.Elementwise())
    automup.register_op(scan, op.Elementwise())
    with pytest.raises(UsageError, match="has a rule already"):
        automup.register_op(scan, op.Moves())
    automup.register_op(scan, op.Moves(), replace=True)
    with pytest.raises(UsageError, match=r"Elementwise|Moves"):
        automup.register_op(scan, op.Elementwise())


def test_a_refused_registration_changes_nothing() -> None:
    before = dict(RULES)
    for named, rule in (
        ("small::nothing", op.Elementwise()), ("aten::linear", op.Contraction()),
        ("small::scan", op.Contraction(left=0, right=5)), ("aten::mm", op.Elementwise()),
        ("small::scan", op.Contraction("x", "weight")), (3, op.Elementwise()),
        ("small::scan", "elementwise"),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            automup.register_op(named, rule)  # type: ignore[arg-type]
    assert before == RULES


@pytest.mark.parametrize(
    "line, rule, reason",
    [
        ("affine(h, self.w, self.b)", op.Contraction(right_dims=(1,), bias=2), "not of one size"),
        ("affine(h, self.w, self.b)", op.Contraction(right_dims=(2,), bias=2), "not of one size"),
        ("total(h)", op.Reduction(dims=(3,)), "of which it has 3"),
        ("total(h)", op.Elementwise(), "its result has none of size 32→64"),
        ("total(h)", op.Normalisation(), "its result has none of size 32→64"),
        ("total(self.w)", op.Reduction(), "a statistic of a weight"),
        ("normed(self.w, self.w[0])", op.Normalisation(), "a normalisation of a weight"),
        ("affine(h, self.w, self.b)", op.Elementwise(), "keeps every axis"),
    ],
)
def test_a_rule_that_cannot_be_true_is_refused_where_it_is_used(
    line: str, rule: op.OpRule, reason: str
) -> None:
    init = (
        "self.f = nn.Linear(16, d)\nself.w = nn.Parameter(torch.ones(d, 2 * d))\n"
        "self.b = nn.Parameter(torch.ones(2 * d))\nself.o = nn.Linear(2 * d, 8)"
    )
    body = f"h = self.f(x)\nh = {SMALL}{line}\nreturn self.o(torch.tanh(h + self.b))"
    automup.register_op(f"small::{line.partition('(')[0]}", rule)
    with pytest.raises(UnresolvedError, match=f"{reason}.*Register the rule that it follows"):
        automup.parametrize(model(init, body), base=32, inputs=(FLOATS,))
