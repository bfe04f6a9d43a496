"""The laws of capture: what is recorded without weights is what real tensors do."""

from __future__ import annotations

import functools
import math
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import automup
import cases
from automup.analysis.comparison import Comparison
from automup.capture.given_inputs import as_maker
from automup.capture.trace import Inputs, Trace, Variant, WeightFact, Workshop
from automup.models import Models
from automup.study import Study
from cases import Case
from models_small import load

# --- init laws -----------------------------------------------------------------------------------

INITS: dict[str, str] = {
    "zeros": "nn.init.zeros_(w)",
    "constant": "nn.init.constant_(w, 0.3)",
    "one-over-width": "w.data.fill_(1 / n)",
    "normal": "nn.init.normal_(w, 0.1, 0.02)",
    "uniform": "nn.init.uniform_(w, -0.1, 0.3)",
    "trunc-normal": "nn.init.trunc_normal_(w, std=0.02)",
    "trunc-normal-narrow": "nn.init.trunc_normal_(w, 0.1, 0.5, a=-0.3, b=0.9)",
    "xavier-uniform": "nn.init.xavier_uniform_(w, gain=1.5)",
    "xavier-normal": "nn.init.xavier_normal_(w)",
    "kaiming-uniform": "nn.init.kaiming_uniform_(w, a=math.sqrt(5))",
    "kaiming-normal": "nn.init.kaiming_normal_(w, nonlinearity='relu')",
    "kaiming-fan-out": "nn.init.kaiming_normal_(w, mode='fan_out')",
    "orthogonal": "nn.init.orthogonal_(w, gain=2.0)",
    "sparse": "nn.init.sparse_(w, sparsity=0.25, std=0.01)",
    "data-normal": "w.data.normal_(0, 0.02)",
    "data-uniform": "w.data.uniform_(-1 / math.sqrt(n), 1 / math.sqrt(n))",
    "data-mul": "w.data.normal_().mul_(n**-0.5)",
    "data-assigned": "w.data = torch.randn(n, 2 * n) * 0.02",
    "data-copied": "w.data.copy_(torch.rand(n, 2 * n) - 0.5)",
    "randn-over-root": "w.data = torch.randn(n, 2 * n) / n**0.5",
    "scaled-uniform": "w.data = (torch.rand(n, 2 * n) * 2 - 1) / math.sqrt(n)",
    "torch-normal": "w.data = torch.normal(0.0, 0.1, (n, 2 * n))",
    "rows": "w.data = torch.stack([torch.randn(2 * n) * 0.02 for _ in range(n)])",
    "distribution": "w.data = torch.distributions.Normal(0.0, 0.02).sample((n, 2 * n))",
    "numpy": "w.data = torch.tensor(np.random.randn(n, 2 * n) / n**0.5, dtype=torch.float32)",
    "from-numpy": "w.copy_(torch.from_numpy((np.random.randn(n, 2*n) * 0.02).astype('float32')))",
    "part-written": "w[: n // 4].zero_()",
    "column-filled": "w.normal_(0, 0.1); w[:, 0].fill_(0.0)",
}
DEFAULTS: dict[str, str] = {
    "linear": "nn.Linear(n, 2 * n)",
    "embedding": "nn.Embedding(96, n, padding_idx=0)",
    "conv": "nn.Conv2d(n, n, 3, groups=4)",
    "transposed-conv": "nn.ConvTranspose1d(n, 2 * n, 4)",
    "bilinear": "nn.Bilinear(n, n // 4, 16)",
    "lstm": "nn.LSTM(n, n)",
    "attention": "nn.MultiheadAttention(n, 4)",
    "norms": "nn.Sequential(nn.LayerNorm(n), nn.GroupNorm(4, n), nn.PReLU(n))",
}
NARROW, WIDE = 64, 256


@functools.cache
def initialised(name: str) -> Callable[[int], nn.Module]:
    """A function of n: one weight of shape (n, 2 n) drawn so, or torch's layer as it comes."""
    if name in DEFAULTS:
        text = f"def make(n):\n    return {DEFAULTS[name]}\n"
    else:
        text = f"""
class M(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.w = w = nn.Parameter(torch.randn(n, 2 * n))
        with torch.no_grad():
            {INITS[name]}

def make(n):
    return M(n)
"""
    made: Callable[[int], nn.Module] = load(text).make
    return made


def recorded(name: str, n: int) -> dict[str, WeightFact]:
    torch.manual_seed(0)
    np.random.seed(0)
    facts = Workshop(lambda: initialised(name)(n)).built.weights
    return {fact.name: fact for fact in facts}


def drawn(name: str, n: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    np.random.seed(1)
    return {k: p.detach().double() for k, p in initialised(name)(n).named_parameters()}


@pytest.mark.parametrize("name", [*INITS, *DEFAULTS])
def test_recorded_laws_are_those_of_a_real_draw(name: str) -> None:
    """Mean and std within sampling error (6 sigma, kurtosis <= 6), at two widths.

    A kind of which nothing can be known beforehand is said to be unknown, never wrong.
    """
    known = 0
    for n in (NARROW, WIDE):
        facts, real = recorded(name, n), drawn(name, n)
        assert facts.keys() == real.keys()
        for weight, fact in facts.items():
            values = real[weight]
            assert fact.shape == tuple(values.shape)
            if not fact.law.known:
                continue
            known += 1
            rms = float(values.square().mean().sqrt())
            error = 6 * rms / math.sqrt(values.numel())
            assert fact.law.mean == pytest.approx(float(values.mean()), abs=error + 1e-9), weight
            assert fact.law.rms == pytest.approx(rms, abs=1.5 * error + 1e-9), weight
    assert known or name in UNKNOWN_BEFOREHAND, name


UNKNOWN_BEFOREHAND = {"distribution", "rows"}
"""Kinds that the recorder may give up on: the study measures them on a real draw."""


class _Ruler(nn.Module):
    """A hidden layer around an init, so that the whole way to the plan is taken."""

    def __init__(self, name: str, n: int) -> None:
        super().__init__()
        self.first = nn.Linear(8, n)
        self.inner = initialised(name)(n)
        self.last = nn.Linear(2 * n, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(torch.relu(self.first(x)) @ self.inner.w))


@pytest.mark.parametrize("name", [n for n in INITS if n != "zeros"])
def test_the_init_factor_is_the_law_over_the_ratio_of_real_draws(name: str) -> None:
    """hidden: n^-1/2, so at 4 x the base 1/2, over the growth of what the constructor draws."""
    torch.manual_seed(0)
    np.random.seed(0)
    mu = automup.parametrize(
        lambda width: _Ruler(name, width), base=NARROW, inputs=(torch.randn(2, 8),)
    )
    inner = mu.plan(WIDE).parameter("inner.w")
    narrow, wide = (float(drawn(name, n)["w"].square().mean().sqrt()) for n in (NARROW, WIDE))
    growth = 2.0 ** (2 * round(math.log(wide / narrow, 4) * 12) / 12)  # a clean power, of 4
    if name in ("part-written", "column-filled"):
        growth = wide / narrow
    assert inner.init_mult == pytest.approx(0.5 / growth, rel=0.03)


# --- on meta and on real tensors -----------------------------------------------------------------


def _hf(name: str, **settings: Any) -> Callable[[int], nn.Module]:
    def build(width: int) -> nn.Module:
        import transformers

        config_class = getattr(transformers, f"{name}Config")
        grown = {key: (v(width) if callable(v) else v) for key, v in settings.items()}
        model_class = grown.pop("model", f"{name}Model")
        built: nn.Module = getattr(transformers, model_class)(config_class(**grown))
        return built

    return build


IDS = cases.TOKENS[:2, :8] % 64
SMALL: dict[str, tuple[Callable[[int], nn.Module], dict[str, torch.Tensor]]] = {
    "bert": (_hf("Bert", model="BertForMaskedLM", vocab_size=64, hidden_size=lambda d: d,
                 num_hidden_layers=1, num_attention_heads=4, intermediate_size=lambda d: 2 * d,
                 max_position_embeddings=16), {"input_ids": IDS}),
    "qwen2-eager": (_hf("Qwen2", model="Qwen2ForCausalLM", vocab_size=64, hidden_size=lambda d: d,
                        num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
                        intermediate_size=lambda d: 2 * d, max_position_embeddings=16,
                        attn_implementation="eager", use_cache=False), {"input_ids": IDS}),
    "gpt-neox": (_hf("GPTNeoX", model="GPTNeoXForCausalLM", vocab_size=64,
                     hidden_size=lambda d: d, num_hidden_layers=1, num_attention_heads=4,
                     intermediate_size=lambda d: 2 * d, max_position_embeddings=16,
                     use_cache=False), {"input_ids": IDS}),
    "vit": (_hf("ViT", image_size=16, patch_size=8, hidden_size=lambda d: d, num_hidden_layers=1,
                num_attention_heads=4, intermediate_size=lambda d: 2 * d),
            {"pixel_values": torch.randn(2, 3, 16, 16)}),
}  # fmt: skip


def said(study: Study) -> tuple[Any, ...]:
    """What an analysis says, without its graphs."""
    comparison: Comparison = study.exponents
    weights = {
        name: (w.fan_in, w.fan_out, w.fan_in_dims, w.fan_out_dims, w.problem)
        for name, w in comparison.weights.items()
    }
    spots = [(s.key, s.first.kind, s.modules) for s in comparison.spots]
    return weights, spots, comparison.unresolved


@pytest.mark.parametrize("case", cases.ALL, ids=str)
def test_meta_and_real_tensors_say_the_same(case: Case) -> None:
    _same(lambda k: case.build(**k), case.base, case.inputs)


@pytest.mark.parametrize("name", SMALL)
def test_meta_and_real_tensors_say_the_same_of_libraries(name: str) -> None:
    pytest.importorskip("transformers")
    build, inputs = SMALL[name]
    _same(lambda k: build(k["width"]), 32, inputs)


def _same(build: Any, base: int, inputs: Any) -> None:
    meta, real = (
        Study(Models(build, {"width": base}, as_maker(inputs), real=real)) for real in (False, True)
    )
    assert said(meta) == said(real)


# --- side effects --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [cases.MLP, cases.GPT, cases.HF_LLAMA], ids=str)
def test_the_global_state_is_left_as_it_was(case: Case) -> None:
    case.build(case.base)  # what importing a library does is not ours
    torch.manual_seed(11)
    np.random.seed(11)
    random.seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    mu = automup.parametrize(case.build, base={"width": case.base}, inputs=case.inputs)
    mu.plan(4 * case.base)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == (grad, dtype)
    assert not torch.randn(1).is_meta


def test_weights_are_never_allocated() -> None:
    """Six layers of 65536 x 65536 floats at the base: 103 GB, and 16 times that at the target."""
    width = 1 << 16
    build = load(
        """
        class M(nn.Module):
            def __init__(self, d):
                super().__init__()
                self.first = nn.Linear(16, d)
                self.layers = nn.ModuleList(nn.Linear(d, d) for _ in range(6))
                self.last = nn.Linear(d, 10)
                for layer in self.layers:
                    nn.init.normal_(layer.weight, std=0.02)

            def forward(self, x):
                x = self.first(x)
                for layer in self.layers:
                    x = x + F.gelu(layer(x))
                return self.last(x)
        """
    ).M
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    plan = automup.parametrize(
        lambda d: build(d), base=width, inputs=(torch.randn(2, 16),)
    ).plan(4 * width)  # fmt: skip
    assert time.perf_counter() - start < 10
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < 300 << 10  # KiB
    assert plan.parameter("layers.3.weight").init_mult == 0.5
    assert plan.parameter("layers.3.weight").init_std == pytest.approx(0.01)


# --- source spans --------------------------------------------------------------------------------

SOURCE = '''
import torch
from torch import nn


def act(y):
\tif True:
\t\treturn "ü" and y.tanh()


class Net(nn.Module):
    """Größe × Länge, 幅."""

    def __init__(self, d):
        super().__init__()
        self.größe = d
        self.w = nn.Parameter(torch.zeros(d, d))

    def forward(self, x):
        é = x; y = é @ self.w  # «é» is two bytes
        幅 = "日本"; y = (幅, y.sigmoid())[1]
        y = act(y)
        y = (
            y
            .neg()
            .abs()
        )
        y = torch.exp(  # ñ
            y * 2.0,
        )
        return y.cos() + y.sin()
'''
EXPRESSIONS = {
    "mm": "é @ self.w",
    "sigmoid": "y.sigmoid()",
    "tanh": "y.tanh()",
    "neg": "neg()",  # CPython starts a call across lines at its attribute
    "abs": "abs()",
    "mul": "y * 2.0",
    "exp": "torch.exp(  # ñ\n            y * 2.0,\n        )",
    "cos": "y.cos()",
    "sin": "y.sin()",
    "add": "y.cos() + y.sin()",
}


def trace_of(folder: Path) -> Trace:
    path = folder / "spans_größe.py"
    path.write_text(SOURCE, encoding="utf-8")
    scope: dict[str, Any] = {}
    exec(compile(SOURCE, str(path), "exec"), scope)
    shop = Workshop(lambda: scope["Net"](8))
    return shop.run(Variant(), Inputs((torch.randn(2, 8),)))


def text_at(span: automup.plan.Span) -> str:
    """The characters that a span covers."""
    lines = Path(span.file).read_text(encoding="utf-8").splitlines(keepends=True)
    lines = lines[span.line - 1 : span.end_line]
    lines[-1] = lines[-1][: span.end_column]
    lines[0] = lines[0][span.column :]
    return "".join(lines)


def test_a_span_is_exactly_the_expression(tmp_path: Path) -> None:
    found: dict[str, str] = {}
    for node in trace_of(tmp_path).nodes:
        if node.op == "call_function":
            name = str(node.target).removeprefix("aten.").partition(".")[0]
            found[name] = text_at(node.fact.frames[0].span)
    assert found == EXPRESSIONS


class Halves(nn.Module):
    """A weight of which each half is drawn by a law of its own."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)
        with torch.no_grad():
            self.layer.weight[: width // 2].normal_(0, 0.02)
            self.layer.weight[width // 2 :].normal_(0, width**-0.5)


def test_a_law_written_in_halves_keeps_nothing_of_what_was_there_before() -> None:
    law = Workshop(Halves).built.weights[0].law
    assert law.rms == pytest.approx(math.sqrt((0.02**2 + 1 / 64) / 2), rel=1e-9)


class Masked(nn.Module):
    """A weight whose masked entries are zeroed in place before every use."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, width), nn.Linear(width, 3)
        self.hidden = nn.Linear(width, width)
        self.register_buffer("mask", torch.tril(torch.ones(width, width)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden.weight.data *= self.mask
        return self.down(torch.relu(self.hidden(torch.relu(self.up(x)))))


def test_a_weight_that_is_written_whole_is_what_was_written() -> None:
    plan = automup.parametrize(Masked, inputs=(torch.randn(4, 5),)).plan(64)
    weight = plan.parameter("hidden.weight")
    assert (weight.fan_in_dims, weight.fan_out_dims) == ((1,), (0,))
    assert not plan.sites
