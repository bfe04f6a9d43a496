"""What two widths predict and a third one contradicts is unresolved, with both readings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import automup
from automup.errors import CaptureError, UnresolvedError
from models_small import model

FLOATS = torch.randn(2, 6, 16)
ATTENTION = """
b, t, _ = h.shape
q, k, v = [z.view(b, t, self.n, self.hd).transpose(1, 2) for z in self.qkv(h).chunk(3, -1)]
a = (q @ k.mT / math.sqrt(self.hd)).softmax(-1) @ v
h = a.transpose(1, 2).reshape(b, t, -1)
"""


@dataclass(frozen=True)
class Turn:
    """A model that is another one above some width, and what is said of it at each.

    ``last`` is the size that the readout reads, ``left`` how many items strict=False leaves alone.
    """

    name: str
    init: str
    forward: str
    readings: tuple[str, ...]
    left: int
    last: str = "d"
    base: int = 64

    def __str__(self) -> str:
        return self.name

    def build(self) -> Callable[[int], nn.Module]:
        return model(
            f"self.a = nn.Linear(16, d)\n{self.init}\nself.o = nn.Linear({self.last}, 8)",
            f"h = F.relu(self.a(x))\n{self.forward}\nreturn self.o(h)",
        )


TURNS = [
    Turn(
        "a size that starts to grow",
        "k = max(d, 150)\nself.b = nn.Linear(d, k)",
        "h = F.relu(self.b(h))",
        (
            "b.weight: at width=128 fan_in has dimension 1 and fan_out none that grows, "
            "at width=192 fan_in has dimension 1 and fan_out dimension 0 (addmm.default at ",
            "b.bias: at width=128 fan_in has none that grows and fan_out none that grows, ",
            "o.weight: at width=128 fan_in has none that grows and fan_out none that grows, "
            "at width=192 fan_in has dimension 1 and fan_out none that grows",
        ),
        3,
        "k",
    ),
    Turn(
        "a size that is at the third width what it is at the base",
        "k = 64 + d % 128\nself.b = nn.Linear(d, k)",
        "h = F.relu(self.b(h))",
        (
            "b.weight: at width=128 fan_in has dimension 1 and fan_out dimension 0, "
            "at width=192 fan_in has dimension 1 and fan_out none that grows",
        ),
        3,
        "k",
    ),
    Turn(
        "a constant with two laws",
        "self.s = d ** -1.0 if d < 150 else 1.0",
        "h = F.relu(h.sum(-1, keepdim=True) * self.s * h)",
        (
            "at width=128 it needs no multiplier, "
            "at width=192 it needs a multiplier of (192 / 64)^-4.79 (mul.Tensor at ",
        ),
        1,
    ),
    Turn(
        "heads of another size",
        "self.n = d // 48\nself.hd = d // self.n\nself.qkv = nn.Linear(d, 3 * self.n * self.hd)",
        ATTENTION,
        (
            "at width=128 it needs no multiplier, "
            "at width=192 it needs a multiplier of (48 / 64)^-0.5 (div.Tensor at ",
        ),
        1,
        "self.n * self.hd",
    ),
    Turn(
        "an axis that grows under an operation that mixes it",
        "self.register_buffer('z', torch.zeros(max(d, 150)))",
        "h = h * h.mean(-1, keepdim=True).expand(-1, -1, len(self.z)).cumsum(-1)[..., :1]",
        (
            "a running sum along an infinite dimension; this at width=192, at width=128 nothing is "
            "open here (cumsum.default at ",
        ),
        1,
    ),
    Turn(
        "parts cut elsewhere",
        "self.k = max(d, 150) - 86\nself.b = nn.Linear(d, 2 * d)",
        "u = self.b(h)\n"
        "h = h * u[..., :self.k].mean(-1, keepdim=True) * u[..., self.k:].mean(-1, keepdim=True)",
        (
            "b.weight, b.bias: its output is cut at width=128 into 64→64, 64→192, "
            "at width=192 into 64→106, 64→278 (addmm.default at ",
        ),
        2,
    ),
]


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_the_answer_is_unresolved_with_both_readings(turn: Turn) -> None:
    with pytest.raises(UnresolvedError) as refused:
        automup.parametrize(turn.build(), base=turn.base, inputs=(FLOATS,))
    for reading in turn.readings:
        assert reading in str(refused.value)
    assert "Choose a base" in str(refused.value) or "Write it with" in str(refused.value)


@pytest.mark.filterwarnings("ignore:Left alone")
@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_without_strict_it_is_left_alone(turn: Turn) -> None:
    """Weights as they are drawn, no multiplier, and all of it listed, at a target beyond both."""
    mu = automup.parametrize(turn.build(), base=turn.base, inputs=(FLOATS,), strict=False)
    plan = mu.plan(3 * turn.base)
    assert len(mu.unresolved) == len(plan.unresolved) == turn.left
    assert plan.sites == ()
    for name in {name for item in plan.unresolved for name in item.parameters}:
        weight = plan.parameter(name)
        assert weight.init_mult == weight.ratios.fan_in == weight.ratios.fan_out == 1.0
        assert weight.reason.startswith("left as it is: ")
    torch.manual_seed(0)
    ours = mu(3 * turn.base)
    torch.manual_seed(0)
    plain = turn.build()(3 * turn.base)
    for name in {name for item in plan.unresolved for name in item.parameters}:
        assert torch.equal(ours.get_parameter(name), plain.get_parameter(name))


@pytest.mark.parametrize(
    "line, readings",
    [
        (
            "h = torch.tanh(h) if h.size(-1) > 150 else torch.sigmoid(h)",
            ("at width=64 it runs aten.sigmoid.default", "and at width=192 aten.tanh.default"),
        ),
        (
            "h = torch.tanh(h) if h.size(-1) > 150 else h",
            ("at width=64 it runs aten.view.default", "and at width=192 aten.tanh.default"),
        ),
        ("h = h[..., :200 - h.size(-1)] @ h.mT @ h", ("failed while it was traced",)),
    ],
)
def test_what_runs_otherwise_there_is_said_by_width(line: str, readings: tuple[str, ...]) -> None:
    with pytest.raises(CaptureError) as refused:
        automup.parametrize(Turn("", "", line, (), 0).build(), base=64, inputs=(FLOATS,))
    for reading in readings:
        assert reading in str(refused.value)


def test_a_target_that_contradicts_all_smaller_widths_is_refused_with_both_readings() -> None:
    build = Turn("", "self.b = nn.Linear(d, max(d, 300))", "h = F.relu(self.b(h))", (), 0,
                 "max(d, 300)").build()  # fmt: skip
    mu = automup.parametrize(build, base=64, inputs=(FLOATS,))
    assert mu.plan(256).parameter("b.weight").role == "output"
    with pytest.raises(UnresolvedError) as refused:
        mu.plan(512)
    assert (
        "b.weight: at smaller widths fan_in has dimension 1 and fan_out none that grows, "
        "at width=512 fan_in has dimension 1 and fan_out dimension 0" in str(refused.value)
    )


def test_a_size_that_stops_growing_keeps_its_real_ratio() -> None:
    """Ratios are those of real sizes, so what is bounded above is no contradiction."""
    build = Turn("", "k = min(d, 100)\nself.b = nn.Linear(d, k)", "h = F.relu(self.b(h))", (), 0,
                 "k").build()  # fmt: skip
    ratios = automup.parametrize(build, base=64, inputs=(FLOATS,)).plan(256).parameter(
        "b.weight"
    ).ratios  # fmt: skip
    assert (ratios.fan_in, ratios.fan_out) == (4.0, 100 / 64)
