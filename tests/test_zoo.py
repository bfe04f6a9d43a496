"""The oracles of the zoo, on models whose truth is known, and a few of the zoo's own entries."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import automup
from automup.api import Mup
from zoo import handwritten, movement  # noqa: F401
from zoo.__main__ import run
from zoo.entry import ZOO, Entry
from zoo.fans import count_fans
from zoo.measure import disagreements, measure
from zoo.recording import tensors
from zoo.table import Row, Slope, document, row_from, summary

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.arange(12).view(2, 6) % 7
HIDDEN, INPUT, OUTPUT = (2.0, 2.0), (1.0, 2.0), (2.0, 1.0)


class Layouts(nn.Module):
    """The same matrix in four layouts, a convolution, a gain and a bias."""

    truth: ClassVar = {
        "up": INPUT, "first": HIDDEN, "turned": HIDDEN, "taps": HIDDEN, "depth": INPUT,
        "gain": INPUT, "einsum": HIDDEN, "down": OUTPUT,
    }  # fmt: skip

    def __init__(self, d: int) -> None:
        super().__init__()
        shapes = {"up": (8, d), "first": (d, d), "turned": (d, d), "taps": (d, d, 3),
                  "depth": (d, 1, 3), "gain": (d,), "einsum": (4, d // 4, 2, d // 2),
                  "down": (3, d)}  # fmt: skip
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x @ self.up) * (1 + self.gain)
        x = F.linear(torch.relu(x @ self.first), self.turned)
        x = F.conv1d(x.unsqueeze(-1).expand(-1, -1, 5), self.taps, padding=1)
        x = F.conv1d(x, self.depth, padding=1, groups=x.shape[1])[..., 2]
        x = torch.einsum("bhk,hkgo->bgo", x.view(len(x), 4, -1), self.einsum).flatten(1)
        return F.linear(x, self.down)


class Tied(nn.Module):
    truth: ClassVar = {"table.weight": INPUT, "cell.weight_hh_l0": HIDDEN, "cell.bias_hh_l0": INPUT}

    def __init__(self, d: int) -> None:
        super().__init__()
        self.table = nn.Embedding(7, d)
        self.cell = nn.LSTM(d, d, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.cell(self.table(ids))[0], self.table.weight)


class Queries(nn.Module):
    """Learned queries meet a projection before they meet any activation."""

    truth: ClassVar = {
        "queries": INPUT,
        "norm.weight": INPUT,
        "q.weight": HIDDEN,
        "k.weight": INPUT,
    }

    def __init__(self, d: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(3, d))
        self.norm = nn.LayerNorm(d)
        self.q, self.k = nn.Linear(d, d), nn.Linear(8, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.q(self.norm(self.queries)) @ self.k(x).t()


class Positions(nn.Module):
    """A projection of constant positions, and a first state of zeros."""

    truth: ClassVar = {"r.weight": HIDDEN, "cell.weight_hh": HIDDEN}

    def __init__(self, d: int) -> None:
        super().__init__()
        self.up, self.r, self.cell = nn.Linear(8, d), nn.Linear(d, d), nn.RNNCell(d, d)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        table = torch.sin(torch.arange(5.0)[:, None] * torch.arange(h.shape[-1]))
        return self.cell(h) @ self.r(table).t()


class Normed(nn.Module):
    """A weight that is divided by its own norms, and one that is learned as a product."""

    truth: ClassVar = {"wn.parametrizations.weight.original1": HIDDEN, "a": OUTPUT, "b": INPUT,
             "sn.parametrizations.weight.original": HIDDEN}  # fmt: skip

    def __init__(self, d: int) -> None:
        super().__init__()
        self.up = nn.Linear(8, d)
        self.wn = nn.utils.parametrizations.weight_norm(nn.Linear(d, d))
        self.sn = nn.utils.parametrizations.spectral_norm(nn.Linear(d, d))
        self.a, self.b = nn.Parameter(torch.randn(2, d)), nn.Parameter(torch.randn(d, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.sn(self.wn(self.up(x)))
        return x @ (self.wn.weight + self.b @ self.a).t()


class Fused(nn.Module):
    """One projection of which only the first rows grow."""

    truth: ClassVar = {"qkv.weight": HIDDEN, "qkv.bias": INPUT}

    def __init__(self, d: int) -> None:
        super().__init__()
        self.up, self.qkv = nn.Linear(8, d), nn.Linear(d, d + 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.up(x)).split((self.up.out_features, 3, 3), -1)
        return q.mean(-1, keepdim=True) * k * v


class Experts(nn.Module):
    """Stacked experts, chosen by the token; some see no token."""

    truth: ClassVar = {"up": INPUT, "down": OUTPUT, "gate.weight": OUTPUT}

    def __init__(self, d: int) -> None:
        super().__init__()
        self.first, self.gate = nn.Linear(8, d), nn.Linear(d, 4)
        self.up = nn.Parameter(torch.randn(4, 6, d))
        self.down = nn.Parameter(torch.randn(4, d, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        chosen = self.gate(h).argmax(-1)
        inner = torch.bmm(h.unsqueeze(1), self.down[chosen])
        return torch.bmm(inner, self.up[chosen]).squeeze(1)


@pytest.mark.parametrize("made", [Layouts, Tied, Queries, Positions, Normed, Fused, Experts])
def test_counts_are_those_of_the_definition(made: Any) -> None:
    inputs = (TOKENS,) if made is Tied else (X,)
    counted = count_fans(made(32), made(64), inputs)
    for name, fans in made.truth.items():
        assert (counted[name].r_in, counted[name].r_out) == pytest.approx(fans, rel=0.01), name
        assert counted[name].problem == "", name


def test_rows_that_do_not_grow_are_counted() -> None:
    counted = count_fans(Fused(32), Fused(64), (X,))
    assert (counted["qkv.weight"].fixed, counted["qkv.bias"].fixed) == (6, 6)


def test_two_matrices_that_meet_are_not_guessed() -> None:
    class Product(nn.Module):
        def __init__(self, d: int) -> None:
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.randn(d, d)) for _ in "ab")

        def forward(self, x: Tensor) -> Tensor:
            return x.mean() * (self.a @ self.b)

    assert "another matrix" in count_fans(Product(32), Product(64), (X,))["a"].problem


# --- whole entries --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["norms:TorchNorms", "moe:DenseMoE", "convs:ConvNeXt", "torch_attention:SelfAttention"]
)
def test_entries_of_the_zoo_are_right(name: str) -> None:
    row = measure(ZOO[name])
    assert (row.outcome, row.faults, row.refusal) == ("right", (), "")
    assert row.sp is not None and row.sp.value > 0.3
    assert row.roles and row.roles[0] == row.roles[1] > 3
    assert row.exponents and row.exponents[0] == row.exponents[1] > 3


def _mlp(width: int) -> nn.Module:
    sizes = [(8, width), (width, width), (width, 5)]
    layers = [x for a, b in sizes for x in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def entry(build: Callable[..., nn.Module] = _mlp, **fields: Any) -> Entry:
    given: dict[str, Any] = {"name": "mlp", "origin": "hand-written", **fields}
    return Entry(build=build, base={"width": 64}, inputs=lambda: (X,), **given)


def test_a_wrong_learning_rate_is_a_wrong_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(self: Any, model: nn.Module, cls: Any, **settings: Any) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = cls(model.parameters(), **settings)
        return made

    monkeypatch.setattr(Mup, "optimizer", plain)
    row = measure(entry())
    assert row.outcome == "wrong"
    assert any("In μP the output moves as width^+" in fault for fault in row.faults)


def _neck(size: int) -> Callable[..., nn.Module]:
    """A wide layer, one of a fixed size or an eighth of the width, a norm, and a readout."""

    def build(width: int) -> nn.Module:
        neck = size or width // 8
        return nn.Sequential(
            nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(),
            nn.Linear(width, neck), nn.LayerNorm(neck), nn.ReLU(), nn.Linear(neck, 5),
        )  # fmt: skip

    return build


@pytest.mark.parametrize(("size", "named"), [(8, ["5"]), (0, [])])
def test_what_is_noise_before_a_norm_is_known(size: int, named: list[str]) -> None:
    mu = automup.parametrize(_neck(size), base=64, inputs=(X,))
    job = movement.task(lambda k: _neck(size)(64 * k), (X,), None)
    assert movement.amplified((1, 2, 4), lambda k: mu(64 * k), job) == named


def test_a_wrong_learning_rate_before_a_norm_is_a_wrong_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plain(self: Any, model: nn.Module, cls: Any, **settings: Any) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = cls(model.parameters(), **settings)
        return made

    assert measure(entry(_neck(8))).outcome == "right"
    monkeypatch.setattr(Mup, "optimizer", plain)
    assert measure(entry(_neck(8))).outcome == "wrong"


def test_a_wrong_role_is_a_disagreement() -> None:
    made = entry()
    plan = automup.parametrize(_mlp, base=64, inputs=(X,)).plan(128)
    counted = count_fans(made.at(1), made.at(2), made.inputs())
    for parameter in plan.parameters:
        if parameter.name in counted:
            assert not [*disagreements(parameter, counted[parameter.name])]
    hidden = plan.parameter("2.weight")
    mistaken = dataclasses.replace(hidden, fan_in_dims=(), fan_out_dims=(0, 1))
    assert [*disagreements(mistaken, counted["2.weight"])] == [
        "2.weight is input with fan_in ×1, fan_out ×4, 0 fixed rows in the plan; counted hidden "
        "with fan_in ×2, fan_out ×2, 0 fixed rows."
    ]


def test_what_must_be_refused_and_is_not_is_wrong() -> None:
    assert measure(entry(expects_refusal="its theory is unknown")).outcome == "wrong"


def test_a_broken_constructor_is_a_row() -> None:
    def broken(width: int) -> nn.Module:
        raise ValueError("no such width")

    row = measure(entry(broken))
    assert (row.outcome, row.refusal) == (
        "failed",
        "its own constructor: ValueError: no such width",
    )


# --- processes and the page -----------------------------------------------------------------------


def test_a_model_that_hangs_or_dies_is_a_row() -> None:
    def hangs(width: int) -> nn.Module:
        time.sleep(600)
        raise AssertionError

    def dies(width: int) -> nn.Module:
        os._exit(3)

    entries = [
        entry(hangs, name="hangs"),
        entry(dies, name="dies"),
        entry(origin="no-such-distribution", name="absent"),
    ]
    rows = {row.name: row for row in run(entries, jobs=2, timeout=2)}
    assert {name: (row.outcome, row.refusal) for name, row in rows.items()} == {
        "hangs": ("failed", "it took longer than its time"),
        "dies": ("failed", "its process ended with status 3"),
        "absent": ("not installed", "no-such-distribution is missing"),
    }


ROWS = [
    Row("a", "hand-written", "right", 12_000, 1, 0, (3, 3), (4, 4), convert="yes",
        sp=Slope(1.204, 0.02), mup=Slope(-0.06, 0.17), seconds=0.31),
    Row("b", "hand-written", "refused", 300, refusal="An | axis (/x/site-packages/b.py:3).",
        convert="the same", seconds=0.1),
    Row("c", "pypi", "wrong", 2_500_000, 0, 0, (2, 3), (4, 4), faults=("w is hidden.",),
        sp=Slope(1.0, 0.0), mup=Slope(0.5, 0.0), seconds=1.0),
]  # fmt: skip


def test_the_page() -> None:
    page = document(ROWS, "python tests/zoo", "torch 2")
    assert summary(ROWS) == "1 right · 1 refused · 1 wrong"
    for line in (
        "| a | 12 k | 1 | 0 | 3/3 | 4/4 | yes | +1.20 | −0.06 ± 0.17 | 0.3 |",
        "| b ° | 300 | – | refused: An \\| axis (b.py:3). | – | – | no | – | – | 0.1 |",
        "| **c** ✗ | 2.5 M | 0 | 0 | 2/3 | 4/4 | – | +1.00 | +0.50 | 1.0 |",
        "- **b**: An \\| axis (b.py:3).",
        "- **c**: w is hidden.",
    ):
        assert line in page.splitlines(), line


def test_rows_survive_json() -> None:
    for row in ROWS:
        assert row_from(json.loads(json.dumps(dataclasses.asdict(row)))) == row


def test_tensors_are_found_in_dataclasses() -> None:
    @dataclasses.dataclass
    class Out:
        loss: Tensor
        rest: dict[str, Any]

    assert len([*tensors(Out(X, {"a": [X, None], "b": 1}))]) == 2
