"""The refusals that models meet, word for word: what, where, and the call that settles it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import automup
from automup import Fans, Role
from automup.analysis.ops import custom, registry
from automup.errors import AutomupError
from automup.facts import Unresolved
from automup.refusals import described, refusal
from models_small import model

FLOATS = torch.randn(2, 6, 16)


@torch.library.custom_op("refused::mix", mutates_args=())
def mix(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


@torch.library.custom_op("refused::meet", mutates_args=())
def meet(x: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x * y * w


mix.register_fake(lambda x, w: x @ w)
meet.register_fake(lambda x, y, w: x * y * w)

BLOCK = """
class Mix(nn.Module):
    def __init__(self, d, wide):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d, wide) * 0.02)

    def forward(self, x):
        return torch.ops.refused.mix(x, self.weight)


class Block(nn.Module):
    def __init__(self, d, wide):
        super().__init__()
        self.mix = Mix(d, wide)
        self.out = nn.Linear(wide, d)

    def forward(self, x):
        return x + self.out(torch.relu(self.mix(x)))
"""


def layers(wide: str) -> Callable[[int], nn.Module]:
    return model(
        "self.a = nn.Linear(16, d)\n"
        f"self.blocks = nn.Sequential(Block(d, {wide}), Block(d, {wide}))",
        "return self.blocks(torch.relu(self.a(x)))[..., :8]",
        BLOCK,
    )


def net(line: str, init: str = "", last: str = "d") -> Callable[[int], nn.Module]:
    """An input layer, a line about ``h``, and a readout."""
    return model(
        f"self.a = nn.Linear(16, d)\n{init}\nself.o = nn.Linear({last}, 8)",
        f"h = F.relu(self.a(x))\n{line}\nreturn self.o(h)",
    )


@dataclass(frozen=True)
class Refusal:
    """A call and all that its error says; FILE stands for the model's file."""

    name: str
    build: Callable[..., Any]
    says: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


W = "self.w = nn.Parameter(torch.randn(d, d))"
FLAT = "self.w = nn.Parameter(torch.randn(d * d))"
REFUSALS = [
    Refusal(
        "unknown layer in several blocks",
        layers("d"),
        "blocks.*.mix.weight (×2): mix mixes an infinite axis and no rule describes it "
        "(refused.mix.default at FILE:22:15). Say what the weight is: "
        'overrides={"blocks.*.mix.weight": automup.Role.HIDDEN} (it sums over one dimension '
        "that grows and writes another); or register the rule of automup.op that the "
        'operation follows: automup.register_op("refused::mix", automup.op.Contraction()). '
        "strict=False leaves it alone.",
    ),
    Refusal(
        "its weight is not square",
        layers("2 * d"),
        "blocks.*.mix.weight (×2): mix mixes an infinite axis and no rule describes it "
        "(refused.mix.default at FILE:22:15). Say what the weight is: "
        'overrides={"blocks.*.mix.weight": automup.Fans(fan_in=1, fan_out=0)} (fan_in is the '
        "dimension that one output sums over); or register the rule of automup.op that the "
        'operation follows: automup.register_op("refused::mix", automup.op.Contraction()). '
        "strict=False leaves it alone.",
    ),
    Refusal(
        "two activations",
        net("h = torch.ops.refused.meet(h, h, self.w)", "self.w = nn.Parameter(torch.ones(d))"),
        "w: meet mixes an infinite axis and no rule describes it (refused.meet.default at "
        "FILE:26:12). Register the rule of automup.op that the operation follows: "
        'automup.register_op("refused::meet", automup.op.Contraction()). strict=False leaves '
        "it alone.",
    ),
    Refusal(
        "a readout or an input",
        net(
            "h = torch.ops.refused.mix(h, self.w)", "self.w = nn.Parameter(torch.randn(d, 5))", "5"
        ),
        "w: mix mixes an infinite axis and no rule describes it (refused.mix.default at "
        'FILE:26:12). Say what the weight is: overrides={"w": automup.Role.INPUT} (output '
        "instead, if it sums over the dimension that grows); or register the rule of "
        'automup.op that the operation follows: automup.register_op("refused::mix", '
        "automup.op.Contraction()). strict=False leaves it alone.",
    ),
    Refusal(
        "unknown operation on activations",
        net("h = h * h.prod(-1, keepdim=True)"),
        "prod.dim_int mixes an infinite axis and no rule describes it (prod.dim_int at "
        "FILE:26:16), after a.weight, a.bias. Register the rule of automup.op that the "
        'operation follows: automup.register_op("aten::prod", automup.op.Elementwise()). '
        "strict=False leaves it alone.",
    ),
    Refusal(
        "known operation that mixes",
        net("h = h.cumsum(-1)"),
        "a running sum along an infinite dimension (cumsum.default at FILE:26:12), after "
        "a.weight, a.bias. Write it with operations that automup knows, or hold that size "
        "fixed. strict=False leaves it alone.",
    ),
    Refusal(
        "the best few of many",
        net("v, i = h.topk(4, -1)\nh = torch.zeros_like(h).scatter(-1, i, v)"),
        "it fills a fixed number of entries along an infinite axis (scatter.src at FILE:27:12), "
        "after a.weight, a.bias. Write it with operations that automup knows, or hold that size "
        "fixed. strict=False leaves it alone.",
    ),
    Refusal(
        "a statistic of a weight",
        net("h = h * self.w.sum()", W),
        "w: a sum over an infinite dimension of a weight (sum.default at FILE:26:16). Write "
        "it with operations that automup knows, or hold that size fixed. strict=False leaves "
        "it alone.",
    ),
    Refusal(
        "a matrix used as a vector",
        net("h = (h.unsqueeze(-1) * self.w).sum(-2)", W),
        "w: it has two infinite dimensions and this use of it sums over neither (mul.Tensor "
        'at FILE:26:13). Say what the weight is: overrides={"w": automup.Role.HIDDEN} (it '
        "sums over one dimension that grows and writes another). strict=False leaves it "
        "alone.",
    ),
    Refusal(
        "dimensions lost",
        net("h = F.linear(h, self.w.flip(0))", W),
        "w: it has two infinite dimensions and this use of it sums over neither (mm.default "
        'at FILE:26:12). Say what the weight is: overrides={"w": automup.Role.HIDDEN} (it '
        "sums over one dimension that grows and writes another). strict=False leaves it "
        "alone.",
    ),
    Refusal(
        "a matrix kept in a vector",
        net("h = F.linear(h, self.w.view(h.shape[-1], -1))", FLAT),
        "w: one dimension of it holds two infinite axes, which its shape alone does not tell "
        "(mm.default at FILE:26:12). Give its nn.Parameter a dimension for each of the sizes. "
        "strict=False leaves it alone.",
    ),
    Refusal(
        "a matrix kept in a vector, coordinate by coordinate first",
        net(
            "w = self.w.view(h.shape[-1], -1)\nh = F.linear(h, w.abs().mean(1) * w.sign() + w)",
            FLAT,
        ),
        "w: one dimension of it holds two infinite axes, which its shape alone does not tell "
        "(mean.dim at FILE:27:24). Give its nn.Parameter a dimension for each of the sizes. "
        "strict=False leaves it alone.",
    ),
    Refusal(
        "two uses",
        net("h = F.relu(h @ self.w) @ self.w.T", W),
        "w: two uses of it sum over different infinite dimensions (mm.default at FILE:26:19)."
        ' Say what the weight is: overrides={"w": automup.Role.HIDDEN} (it sums over one '
        "dimension that grows and writes another). strict=False leaves it alone.",
    ),
    Refusal(
        "not used",
        net("", W),
        "w: no operation of the traced forward reads it. Say what the weight is: "
        'overrides={"w": automup.Role.HIDDEN} (it sums over one dimension that grows and '
        "writes another). strict=False leaves it alone.",
    ),
    Refusal(
        "a number read out",
        net("h = h * float(h.mean())"),
        "the code reads a number out of a tensor that depends on the weights (item at "
        "FILE:26). Compute it from sizes, or keep it a tensor. strict=False leaves it alone.",
    ),
    Refusal(
        "another branch",
        net("h = torch.tanh(h) if h.size(-1) > 40 else torch.sigmoid(h)"),
        "The model does different things at two widths: at width=32 it runs "
        "aten.sigmoid.default at FILE:26, and at width=64 aten.tanh.default at FILE:26. "
        "(FILE:26) Control flow must not depend on the width: choose another base (one whose "
        "sizes do not coincide with a fixed size), or scale other knobs.",
    ),
    Refusal(
        "more steps",
        net("for _ in range(h.size(-1) // 16):\n    h = torch.tanh(h)"),
        "The model does different things at two widths: at width=32 it runs aten.view.default"
        " at FILE:28, and at width=64 aten.tanh.default at FILE:27. (FILE:28) Control flow "
        "must not depend on the width: choose another base (one whose sizes do not coincide "
        "with a fixed size), or scale other knobs.",
    ),
    Refusal(
        "more parameters",
        net("", "self.more = nn.ModuleList(nn.Linear(4, 4) for _ in range(d // 16))"),
        "The model has other parameters at another width (more.2.bias, more.2.weight, "
        "more.3.bias). (width=32 against width=64) Choose a base whose sizes do not coincide "
        "with a fixed size of the model. A knob of the depth is no width.",
    ),
    Refusal(
        "a failure",
        net("raise ValueError('no good')"),
        "The model failed while it was traced (eval, width=32): ValueError: no good. "
        "(FILE:26) Pass other example inputs.",
    ),
    Refusal(
        "a failure at one width",
        net("h = h.view(2, 6, 32)", last="32"),
        "The model failed while it was traced (eval, width=64): RuntimeError: shape '[2, 6, "
        "32]' is invalid for input of size 768. (FILE:26) It runs at width=32: what is fixed "
        "there must follow the width.",
    ),
    Refusal(
        "nothing grows",
        lambda width: nn.Linear(16, 8),
        "Nothing in the model grows with width. Name the arguments that set its sizes: "
        "base={'d_model': 256} in code, --width and --base on the command line.",
    ),
    Refusal(
        "no argument",
        lambda: nn.Linear(16, 8),
        "<lambda> takes no arguments, so no width can scale. Pass a function of the width, "
        "such as lambda width=256: Model(width).",
    ),
    Refusal(
        "no match",
        net(""),
        "The override for 'b.weight' matches no parameter. Near it are o.weight, a.weight.",
        {"overrides": {"b.weight": Role.HIDDEN}},
    ),
    Refusal(
        "no match with a star",
        layers("d"),
        "The override for 'block.*.mix.weight' matches no parameter. Near it are "
        "blocks.*.mix.weight, blocks.*.out.weight, a.weight.",
        {"overrides": {"block.*.mix.weight": Role.HIDDEN}},
    ),
    Refusal(
        "no role",
        net(""),
        "The override for 'a.weight' is 'wide', which is no role. Roles are Role.INPUT, "
        "Role.HIDDEN, Role.OUTPUT, Role.SCALAR; or name dimensions: automup.Fans(fan_in=1, "
        "fan_out=0).",
        {"overrides": {"a.weight": "wide"}},
    ),
    Refusal(
        "hidden with one dimension",
        net(""),
        "a.weight is said to be a hidden weight, which has two that grow, but only its "
        "dimension 0 grows. Roles that fit: Role.INPUT, Role.OUTPUT.",
        {"overrides": {"a.weight": Role.HIDDEN}},
    ),
    Refusal(
        "input with none",
        net(""),
        "o.bias is said to be an input weight, which has one that grows, but none of its "
        "dimensions grows. Roles that fit: Role.SCALAR.",
        {"overrides": {"o.bias": Role.INPUT}},
    ),
    Refusal(
        "scalar with two",
        layers("d"),
        "blocks.0.mix.weight is said to be a scalar weight, which has none that grows, but "
        "its dimensions that grow are 0 and 1. Roles that fit: Role.INPUT, Role.OUTPUT, "
        "Role.HIDDEN.",
        {"overrides": {"blocks.0.mix.weight": Role.SCALAR}},
    ),
    Refusal(
        "hidden of two sizes",
        layers("2 * d"),
        "blocks.0.mix.weight is said to be hidden, but not which of its dimensions 0 and 1 it"
        " sums over, and its use does not tell. Name them: Fans(fan_in=1, fan_out=0) or "
        "Fans(fan_in=0, fan_out=1).",
        {"overrides": {"blocks.*.mix.weight": Role.HIDDEN}},
    ),
    Refusal(
        "two overrides",
        net(""),
        "Two overrides say different things of a.weight: 'a.weight' says input, 'a.*' says "
        "output. Let each parameter match one of them.",
        {"overrides": {"a.weight": Role.INPUT, "a.*": Role.OUTPUT}},
    ),
    Refusal(
        "no such dimension",
        net(""),
        "a.weight has 2 dimensions, so there is no dimension 2 in it. Count them from 0 to 1.",
        {"overrides": {"a.weight": Fans(fan_in=2)}},
    ),
    Refusal(
        "both fans",
        net(""),
        "Dimension 0 is in fan_in and in fan_out. A dimension is either summed over or written.",
        {"overrides": {"a.weight": Fans(fan_in=0, fan_out=-2)}},
    ),
]


def said_by(refused: Refusal) -> str:
    options = {"base": 32, "inputs": (FLOATS,), **refused.options}
    with pytest.raises(AutomupError) as error:
        automup.parametrize(refused.build, **options)
    return re.sub(r"\b(small|test)_\w+\.py", "FILE", str(error.value))


@pytest.mark.parametrize("refused", REFUSALS, ids=str)
def test_a_refusal_word_for_word(refused: Refusal) -> None:
    assert said_by(refused) == refused.says


SETTLED = [r for r in REFUSALS if "overrides={" in r.says]


@pytest.mark.parametrize("refused", SETTLED, ids=str)
def test_the_override_that_it_names_is_accepted(refused: Refusal) -> None:
    """Copied word for word. What else the user should check is for the user to know."""
    (found,) = re.findall(r"overrides=(\{.*?\}) \(", refused.says)
    given = eval(found, {"automup": automup})
    mu = automup.parametrize(refused.build, base=32, inputs=(FLOATS,), overrides=given)
    assert mu.unresolved == ()
    assert "overridden by the user" in {p.reason for p in mu.plan(64).parameters}


RULED = [r for r in REFUSALS if "register_op(" in r.says]


@pytest.mark.parametrize("refused", RULED, ids=str)
def test_the_rule_that_it_names_can_be_registered(
    refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((registry, "RULES"), (registry, "USERS"), (custom, "_registered")):
        monkeypatch.setattr(custom, name, dict(getattr(module, name)))
    (call,) = re.findall(r"automup\.register_op\(.*?\)\)", refused.says)
    eval(call, {"automup": automup})
    assert len(custom._registered) > 0


@pytest.mark.parametrize("refused", SETTLED, ids=str)
def test_strict_false_leaves_alone_and_lists_what_was_refused(refused: Refusal) -> None:
    with pytest.warns(UserWarning, match="^Left alone: ") as warned:
        mu = automup.parametrize(refused.build, base=32, inputs=(FLOATS,), strict=False)
    listed = str(warned[0].message).removeprefix("Left alone: ").removesuffix(".")
    assert refused.says.startswith(re.sub(r"\bsmall_\w+\.py", "FILE", listed))
    assert listed == described(mu.unresolved)
    for name in {name for item in mu.unresolved for name in item.parameters}:
        p = mu.plan(64).parameter(name)
        assert (p.init_mult, p.ratios.fan_in, p.ratios.fan_out) == (1.0, 1.0, 1.0)
    assert all(name in str(mu.explain(64)) for name in ("unresolved", mu.unresolved[0].source))


def test_many_different_refusals_are_not_all_named() -> None:
    items = [Unresolved(f"f.py:{i}", "sum", f"reason {i}") for i in range(9)]
    said = str(refusal(items))
    assert "reason 4" in said and "reason 5" not in said and "; and 4 more." in said


def test_a_pattern_matches_no_parameter_that_is_not_meant() -> None:
    """Layers 0 and 2 of four: a star would say it of all."""
    items = [
        Unresolved("f.py:1", "mm", f"b.{i}.w: lost", (f"b.{i}.w",), override="Role.HIDDEN")
        for i in (0, 2)
    ]
    names = [f"b.{i}.w" for i in range(4)]
    said = 'overrides={"b.0.w": automup.Role.HIDDEN, "b.2.w": automup.Role.HIDDEN}'
    assert said in str(refusal(items, names))
    assert 'overrides={"b.*.w": automup.Role.HIDDEN}' in str(refusal(items, names[::2]))
    assert "--override 'b.0.w=hidden' --override 'b.2.w=hidden'" in str(
        refusal(items, names, command_line=True)
    )


class Regrouped(nn.Module):
    """Learned numbers, as many at any width, in as many groups as the width has."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.up, self.down, self.groups = nn.Linear(5, width), nn.Linear(width, 3), width // 8
        self.sinks = nn.Parameter(torch.zeros(24))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.up(x))
        gate = h.mean(-1)[:, None, None] * self.sinks.view(self.groups, -1)
        return self.down(h) + gate.flatten(1)[:, :3]


def test_finite_numbers_are_no_matrix_in_whatever_groups() -> None:
    plan = automup.parametrize(Regrouped, inputs=(torch.randn(4, 5),)).plan(64)
    assert plan.parameter("sinks").role.value == "scalar"
