"""Width is told from depth, data, heads and bottlenecks by what doubling changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automup.capture.knobs import discover
from automup.capture.load import load_model
from automup.capture.trace import Inputs
from automup.capture.widths import scaled
from automup.errors import KnobError
from automup.models import Models

EXAMPLES = Path(__file__).parents[1] / "examples"

MODELS = """
import copy

import torch
from torch import nn

class Two(nn.Module):
    def __init__(self, a=7, b=32, c=3):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(a, b), nn.Linear(b, c)
    def forward(self, x):
        return self.fc2(self.fc1(x).relu())

class Code(nn.Module):
    def __init__(self, a=7, b=32, z=4):
        super().__init__()
        sizes = [a, b, b, z, b, a]
        self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

class Stack(nn.Module):
    def __init__(self, sizes=(32, 64), n=5, k=3):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n, 8))
        sizes = [8, *sizes, k]
        self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))
    def forward(self, i):
        x = self.table[i]
        for layer in self.layers:
            x = layer(x)
        return x

class Heads(nn.Module):
    def __init__(self, d=64, h=4, e=16, r=2, v=50, t=16):
        super().__init__()
        assert d == h * e, "d is h * e"
        self.h = h
        self.tok, self.pos = nn.Embedding(v, d), nn.Embedding(t, d)
        self.up, self.down = nn.Linear(d, r * d), nn.Linear(r * d, d)
        self.out = nn.Linear(d, v)
    def forward(self, i):
        x = self.tok(i) + self.pos(torch.arange(i.shape[1]))
        return self.out(x + self.down(self.up(x).unflatten(-1, (self.h, -1)).flatten(-2)))

class Experts(nn.Module):
    def __init__(self, d=16, f=24, n=3, v=50):
        super().__init__()
        self.tok, self.gate = nn.Embedding(v, d), nn.Linear(d, n)
        self.w1 = nn.Parameter(torch.zeros(n, d, f))
        self.w2 = nn.Parameter(torch.zeros(n, f, d))
        self.mix, self.out = nn.Linear(d, d), nn.Linear(d, v)
    def forward(self, i):
        x = self.mix(self.tok(i))
        h = torch.einsum("btd,ndf->btnf", x, self.w1)
        y = torch.einsum("btnf,nfd,btn->btd", h, self.w2, self.gate(x))
        return self.out(y)

class Grouped(nn.Module):
    # heads of a fixed size in groups, each with one key and one value, from one projection
    def __init__(self, d=32, q=4, g=2, v=50):
        super().__init__()
        self.q, self.g = q, g
        self.tok, self.out, self.mix = nn.Embedding(v, d), nn.Linear(d, v), nn.Linear(d, d)
        self.qkv = nn.ModuleList([nn.Linear(d, 8 * (q + 2 * g)) for _ in range(2)])
        self.proj = nn.ModuleList([nn.Linear(8 * q, d) for _ in range(2)])
    def forward(self, i):
        x = self.mix(self.tok(i))
        for qkv, proj in zip(self.qkv, self.proj):
            q, k, v = (z.unflatten(-1, (-1, 8)).transpose(1, 2)
                       for z in qkv(x).split((8 * self.q, 8 * self.g, 8 * self.g), -1))
            k, v = (z.repeat_interleave(self.q // self.g, 1) for z in (k, v))
            a = (q @ k.mT / 8**0.5).softmax(-1) @ v
            x = x + proj(a.transpose(1, 2).flatten(2))
        return self.out(x)

class Counted(nn.Module):
    # as many tokens for each expert as a count says, which no guess can tell
    def __init__(self, d=16, v=50):
        super().__init__()
        self.tok, self.gate, self.out = nn.Embedding(v, d), nn.Linear(d, 3), nn.Linear(d, v)
        self.experts = nn.ModuleList([nn.Linear(d, d) for _ in range(3)])
    def forward(self, i):
        x = self.tok(i).flatten(0, 1)
        best = self.gate(x).argmax(-1)
        counts = torch.bincount(best, minlength=3).tolist()
        parts = x[best.argsort()].split(counts)
        return self.out(torch.cat([f(part) for f, part in zip(self.experts, parts)]))

class Teacher(nn.Module):
    # a copy of its own layers, with batch norm, which counts batches in a tensor that is no float
    def __init__(self, d=16):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, d), nn.BatchNorm1d(d), nn.ReLU(), nn.Linear(d, d))
        self.copy = copy.deepcopy(self.net)
    def forward(self, x):
        return (self.net(x) - self.copy(x)).square().mean(-1)

class Dead(nn.Module):
    def __init__(self, k=3):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(5))
    def forward(self, x):
        return x * self.gain
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("models") / "knob_models.py"
    path.write_text(MODELS)
    return path


@pytest.mark.parametrize(
    ("name", "width", "said"),
    [
        ("Two", {"b"}, {"a": "data", "c": "data"}),
        ("Code", {"b"}, {"a": "data", "z": "bottleneck"}),
        ("Stack", {"sizes"}, {"n": "no activation changes", "k": "data"}),
        ("Heads", {"d", "h"}, {"r": "a factor of", "e": "fails", "v": "data", "t": "table"}),
        ("Experts", {"d", "f"}, {"n": "stacked experts", "v": "data"}),
        ("Teacher", {"d"}, {}),
        ("Counted", {"d"}, {"v": "data"}),
        ("Grouped", {"d"}, {"g": "heads of keys and values", "v": "data"}),
    ],
)
def test_discovery(file: Path, name: str, width: set[str], said: dict[str, str]) -> None:
    found = discover(load_model(f"{file}:{name}"), {})
    assert set(found.width) == width
    assert all(said[n] in found.report[n] for n in said), found.report


@pytest.mark.parametrize(
    ("example", "base", "width"),
    [
        ("mlp", {}, ("width",)),
        ("resnet", {}, ("width",)),
        ("gpt", {"n_layer": 1}, ("n_embd",)),
        ("einsum_net", {"n_layers": 1}, ("d_model",)),
        ("llama", {"n_layers": 1}, ("dim",)),
        (
            "llama",
            {"n_layers": 1, "head_dim": 32, "hidden_dim": 344},
            ("dim", "head_dim", "hidden_dim"),
        ),
    ],
)
def test_discovery_of_examples(example: str, base: dict[str, Any], width: tuple[str, ...]) -> None:
    assert discover(load_model(str(EXAMPLES / f"{example}.py")), base).width == width


def test_no_knob(file: Path) -> None:
    with pytest.raises(KnobError, match=r"No width knob.*k \(no weight changes\).*--width NAME"):
        discover(load_model(f"{file}:Dead"), {})


def test_scaled() -> None:
    assert scaled(64, 3) == 64 * 3
    assert scaled((8, [16, 24]), 2) == (16, [32, 48])
    assert scaled(0.5, 2) == 1.0
    for wrong in (True, None, "64"):
        with pytest.raises(KnobError, match="cannot be scaled"):
            scaled(wrong, 2)
    with pytest.raises(KnobError, match="whole number"):
        scaled(3, 0.5)


@pytest.mark.parametrize("refused, multiple", [((), 3), ((24,), 4), ((24, 32, 40), 6)])
def test_the_verifying_width_is_the_next_legal_one(refused: tuple[int, ...], multiple: int) -> None:
    def build(values: Mapping[str, Any]) -> nn.Module:
        if values["d"] in refused:
            raise ValueError("this width is not to be had")
        return nn.Linear(3, values["d"])

    models = Models(build, {"d": 8}, lambda model: Inputs((torch.ones(2, 3),)))
    assert models.third == {"d": 8 * multiple}


def test_no_verifying_width() -> None:
    def build(values: Mapping[str, Any]) -> nn.Module:
        if values["d"] > 16:
            raise ValueError("too wide")
        return nn.Linear(3, values["d"])

    models = Models(build, {"d": 8}, lambda model: Inputs((torch.ones(2, 3),)))
    with pytest.raises(KnobError, match=r"d=64: ValueError: too wide.*test_knobs.py:"):
        _ = models.third


def test_nothing_is_allocated(file: Path) -> None:
    source = load_model(f"{file}:Two")
    assert discover(source, {"b": 10**9}).width == ("b",)
    assert torch.get_default_dtype() is torch.float32
