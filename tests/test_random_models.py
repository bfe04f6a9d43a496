"""Random models against an oracle that shares no code with the analysis.

Hypothesis draws a program: blocks that read earlier values and write a new one. Each block is a few
lines of source that are *made* with the truth: which of its weights' axes grow, whether they are
summed over or written, how its constructor draws them, and which power of the width its own
constants leave over. The plan must say the same; and the real muP model must pass the exact test of
``oracle.py``. A failure prints the shrunk program; ``AUTOMUP_EXAMPLES=2000`` runs more of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import automup
import cases
import oracle
from cases import Case
from models_small import model

BASE, RATIO = 32, 4
EXAMPLES = int(os.environ.get("AUTOMUP_EXAMPLES", "60"))
FINITE = 0  # a value of 8 channels at any width; k > 0: k * d channels
TOKENS = torch.arange(12).view(2, 6) * 7 % 48
FLOATS = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(3))


@dataclass(frozen=True)
class Truth:
    """What one parameter is, by construction. ``drawn``: its constructor's std goes as d**-drawn.

    ``grains``: see :data:`oracle.Grain`.
    """

    summed: bool
    written: bool
    drawn: float = 0.0
    grains: tuple[int, ...] = ()

    @property
    def fans(self) -> tuple[float, float]:
        return (RATIO if self.summed else 1, RATIO if self.written else 1)

    @property
    def spread(self) -> float:
        """The growth of the init's std that muP wants: 1, n^-1/2 or, of a readout, 1/n."""
        powers = {(True, True): 0.5, (True, False): 1.0}
        return float(RATIO ** -powers.get((self.summed, self.written), 0.0))

    @property
    def init(self) -> float:
        return self.spread * float(RATIO**self.drawn)


@dataclass
class Program:
    """The source of a model that grows line by line, with its truth."""

    init: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values: list[tuple[str, int]] = field(default_factory=list)
    truths: dict[str, Truth] = field(default_factory=dict)
    sites: list[float] = field(default_factory=list)
    squares: list[tuple[str, int]] = field(default_factory=list)
    count: int = 0

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def value(self, code: str, k: int) -> str:
        """Assign an expression to a new name of k * d channels."""
        name = self.fresh("h")
        self.lines.append(f"{name} = {code}")
        self.values.append((name, k))
        return name

    def temporary(self, code: str) -> str:
        name = self.fresh("t")
        self.lines.append(f"{name} = {code}")
        return name

    def pick(self, index: int, fits: Callable[[int], bool] = lambda k: True) -> tuple[str, int]:
        """One of the values that fit; the first always has 1 * d channels."""
        fitting = [v for v in self.values if fits(v[1])]
        return fitting[index % len(fitting)]

    def matrix(
        self, axes: list[tuple[str, str]], draw: int, k_in: int, k_out: int,
        grains: tuple[int, ...] = (),
    ) -> str:  # fmt: skip
        """A weight whose axes are (size, "i" or "o"), drawn in one of several ways."""
        name = self.fresh("w")
        shape = ", ".join(size for size, _ in axes)
        fan = {side: " * ".join(f"({s})" for s, x in axes if x == side) or "1" for side in "io"}
        std, drawn = [
            ("0.05", 0.0),
            (f"({fan['i']}) ** -0.5", 0.5 if k_in else 0.0),
            (f"({fan['o']}) ** -0.5", 0.5 if k_out else 0.0),
            ("d ** -1", 1.0),
            ("0.3 * d ** -0.25", 0.25),
        ][draw % 5]
        self.init.append(f"self.{name} = nn.Parameter(torch.randn({shape}) * ({std}))")
        self.truths[name] = Truth(bool(k_in), bool(k_out), drawn, grains or (1,) * len(axes))
        return f"self.{name}"

    def vector(self, k: int, fill: str) -> str:
        name = self.fresh("w")
        self.init.append(f"self.{name} = nn.Parameter({fill})")
        self.truths[name] = Truth(False, bool(k), 0.0, (1,))
        return f"self.{name}"


def size(k: int) -> str:
    return f"{k} * d" if k else "8"


Choices = Callable[[int], int]
"""Draws an integer below a bound."""


# --- blocks --------------------------------------------------------------------------------------


def permuted(draw: Choices, letters: list[str]) -> list[str]:
    """A random order."""
    left, found = list(letters), []
    while left:
        found.append(left.pop(draw(len(left))))
    return found


def product(p: Program, draw: Choices, x: str, k_in: int, k_out: int) -> str:
    """An expression: x times a new matrix, written in one of eight ways."""
    i, o, init = (size(k_in), "i"), (size(k_out), "o"), draw(5)

    def made(*axes: tuple[str, str]) -> str:
        return p.matrix(list(axes), init, k_in, k_out)

    way = draw(8)
    if way == 0:
        return f"F.linear({x}, {made(o, i)})"
    if way == 1:
        return f"{x} @ {made(i, o)}"
    if way == 2:  # the output as two halves
        half = (f"({size(k_out)}) // 2", "o")
        order = permuted(draw, ["c", "h", "e"])
        w = made(*({"c": i, "h": ("2", "o"), "e": half}[a] for a in order))
        return f"torch.einsum('btc,{''.join(order)}->bthe', {x}, {w}).flatten(2)"
    if way == 3:  # the input as two halves
        half = (f"({size(k_in)}) // 2", "i")
        order = permuted(draw, ["h", "e", "o"])
        w = made(*({"o": o, "h": ("2", "i"), "e": half}[a] for a in order))
        return f"torch.einsum('{''.join(order)},bthe->bto', {w}, {x}.unflatten(-1, (2, -1)))"
    if way == 4:
        w = made(o, i, ("3", "i"))
        return f"F.conv1d({x}.transpose(1, 2), {w}, padding=1).transpose(1, 2)"
    if way == 5:
        w = made(i, o, ("1", "i"))
        return f"F.conv_transpose1d({x}.transpose(1, 2), {w}).transpose(1, 2)"
    if way == 6:
        w = made(o, i)
        return f"torch.einsum('ij,btj->ibt', {w}, {x}).permute(1, 2, 0)"
    name = p.fresh("l")
    p.init.append(f"self.{name} = nn.Linear({size(k_in)}, {size(k_out)})")
    root = 0.5 if k_in else 0.0
    p.truths[f"{name}.weight"] = Truth(bool(k_in), bool(k_out), root, (1, 1))
    p.truths[f"{name}.bias"] = Truth(False, bool(k_out), root, (1,))
    return f"self.{name}({x})"


def linear(p: Program, draw: Choices) -> None:
    x, k = p.pick(draw(8))
    k_out = (1, 1, 2, 4, FINITE)[draw(5)]
    p.value(product(p, draw, x, k, k_out), k_out)


def shared(p: Program, draw: Choices) -> None:
    """One square matrix used twice in a row."""
    x, k = p.pick(draw(8))
    w = p.matrix([(size(k), "o"), (size(k), "i")], draw(5), k, k)
    p.value(f"F.linear(F.relu(F.linear({x}, {w})), {w})", k)


def activation(p: Program, draw: Choices) -> None:
    x, k = p.pick(draw(8))
    p.value(f"{('F.relu', 'F.gelu', 'torch.tanh', 'F.silu')[draw(4)]}({x})", k)


def normalised(p: Program, draw: Choices, x: str, k: int) -> str:
    way = draw(4)
    if way == 0:
        return f"F.layer_norm({x}, ({size(k).replace('d', 'self.d')},), eps=1e-20)"
    if way == 1:
        name = p.fresh("n")
        p.init.append(f"self.{name} = nn.LayerNorm({size(k)}, eps=1e-20)")
        for part in ("weight", "bias"):
            p.truths[f"{name}.{part}"] = Truth(False, bool(k), 0.0, (1,))
        return f"self.{name}({x})"
    if way == 2:
        gain = p.vector(k, f"torch.ones({size(k)})")
        return f"{x} * torch.rsqrt({x}.pow(2).mean(-1, keepdim=True) + 1e-20) * {gain}"
    return f"F.group_norm({x}.transpose(1, 2), 4, eps=1e-20).transpose(1, 2)"


def norm(p: Program, draw: Choices) -> None:
    x, k = p.pick(draw(8))
    p.value(normalised(p, draw, x, k), k)


def residual(p: Program, draw: Choices) -> None:
    x, k = p.pick(draw(8))
    y, _ = p.pick(draw(8), lambda other: other == k)
    p.value(f"{x} + {y}", k)


def concatenation(p: Program, draw: Choices) -> None:
    x, k = p.pick(draw(8), lambda k: 0 < k < 4)
    y, other = p.pick(draw(8), lambda other: 0 < other <= 4 - k)
    p.value(f"torch.cat([{x}, {y}], -1)", k + other)


def gate(p: Program, draw: Choices) -> None:
    """Equal parts: u * sigmoid(v)."""
    x, k = p.pick(draw(8))
    both = product(p, draw, x, k, 2)
    cut = ("{}.chunk(2, -1)", "{}.split(self.d, -1)", "({0}[..., : self.d], {0}[..., self.d :])")
    t = p.temporary(both)
    p.lines.append(f"u, v = {cut[draw(3)].format(t)}")
    p.value("u * torch.sigmoid(v)", 1)


def gain(p: Program, draw: Choices) -> None:
    x, k = p.pick(draw(8))
    g = p.vector(k, f"torch.ones({size(k)})")
    b = p.vector(k, f"torch.randn({size(k)}) * 0.1")
    p.value(f"{x} * {g} + {b}", k)


SCALES: tuple[tuple[str, float, float], ...] = (
    # logits, the exponent left over when d / 4 grows with 4 heads; when d / 8 heads of 8 do
    ("{q} @ {k}.transpose(-2, -1) / math.sqrt({q}.size(-1))", -0.5, 0.0),
    ("{q} @ {k}.transpose(-2, -1) * {k}.size(-1) ** -0.5", -0.5, 0.0),
    ("{q} @ {k}.mT / {q}.size(-1)", 0.0, 0.0),
    ("{q} @ {k}.transpose(-2, -1)", -1.0, 0.0),
    ("({q} * {q}.size(-1) ** -0.25) @ ({k} * {k}.size(-1) ** -0.25).transpose(-2, -1)", -0.5, 0.0),
    ("torch.einsum('bhtc,bhsc->bhts', {q}, {k}) / {q}.shape[-1] ** 0.5", -0.5, 0.0),
    ("torch.einsum('bhtc,bhsc->bhts', {q} / math.sqrt({q}.size(-1)), {k})", -0.5, 0.0),
    ("10 * F.normalize({q}, dim=-1) @ F.normalize({k}, dim=-1).transpose(-2, -1)", 0.0, 0.0),
    ("{q} @ {k}.transpose(-2, -1) / math.sqrt(self.d)", -0.5, 0.5),
    ("{q} @ {k}.transpose(-2, -1) * torch.full((1,), {q}.size(-1) ** -0.5)", -0.5, 0.0),
    ("sdpa", -0.5, 0.0),
)


def attention(p: Program, draw: Choices) -> None:
    x, k = p.pick(draw(8), lambda k: k > 0)
    moving, fused = draw(2) == 1, draw(2) == 1
    grain = 8 if moving else 1
    heads = "-1, 8" if moving else "4, -1"
    parts = [p.fresh("q") for _ in range(3)]
    init = draw(3)
    width = (f"{k} * d", "o"), (f"{k} * d", "i")
    if fused:
        triple = [(f"{3 * k} * d", "o"), width[1]]
        w = p.matrix(triple, init, k, k, (grain, 1))
        p.lines.append(f"{', '.join(parts)} = F.linear({x}, {w}).chunk(3, -1)")
    else:
        for part in parts:
            w = p.matrix(list(width), init, k, k, (grain, 1))
            p.lines.append(f"{part} = F.linear({x}, {w})")
    for part in parts:
        p.lines.append(f"{part} = {part}.unflatten(-1, ({heads})).transpose(1, 2)")
    q, key, value = parts
    code, fixed, growing = SCALES[draw(len(SCALES))]
    if code == "sdpa":
        y = p.temporary(f"F.scaled_dot_product_attention({q}, {key}, {value})")
    else:
        a = p.temporary(code.format(q=q, k=key))
        y = p.temporary(f"{a}.softmax(-1) @ {value}")
    p.sites.append(growing if moving else fixed)
    w = p.matrix([width[1], width[0]], draw(5), k, k, (grain, 1))
    p.value(f"{y}.transpose(1, 2).flatten(2) @ {w}", k)


def constant(p: Program, draw: Choices) -> None:
    """A power of the width, and what makes it matter or not."""
    x, k = p.pick(draw(8))
    power = (-1.0, -0.5, 0.5, 1.0)[draw(4)]
    width = (f"{x}.size(-1)", "self.d")[draw(2)] if k else f"{x}.size(-1)"
    form = (f"{x} * {width} ** {power}", f"{x} / {width} ** {-power}")[draw(2)]
    t = p.temporary(form)
    left = -power if k else 0.0
    follow = draw(6)
    if follow == 0:
        p.sites.append(left)
        p.value(f"F.gelu({t})", k)
    elif follow == 1:
        p.value(normalised(p, draw, t, k), k)
    elif follow == 2:  # found through a layer and a homogeneous function
        p.sites.append(left)
        y = p.matrix([(size(k), "i"), (size(k), "o")], draw(5), k, k)
        p.value(f"torch.tanh(F.relu({t}) @ {y})", k)
    elif follow == 3:
        p.value(f"F.gelu(({t} * 2.0) * {width} ** {-power})", k)
    elif follow == 4:
        p.sites.append(left)
        p.value(f"{x} + {t}", k)
    else:  # two constants leave the sum of their powers
        again = (-1.0, -0.5, 0.5, 1.0)[draw(4)]
        p.sites.append(-(power + again) if k else 0.0)
        p.value(f"torch.tanh(F.relu({t}) * {width} ** {again})", k)


def reduction(p: Program, draw: Choices) -> None:
    """One number per token, back to d channels."""
    x, k = p.pick(draw(8))
    code, exponent = (
        (f"{x}.sum(-1, keepdim=True)", -1.0),
        (f"{x}.mean(-1, keepdim=True)", 0.0),
        (f"{x}.norm(dim=-1, keepdim=True)", -0.5),
        (f"({x} * {x}).sum(-1, keepdim=True)", -1.0),
        (f"{x}.square().mean(-1, keepdim=True).sqrt()", 0.0),
        (f"{x}.amax(-1, keepdim=True)", 0.0),
    )[draw(6)]
    p.sites.append(exponent if k else 0.0)
    t = p.temporary(code)
    w = p.matrix([(size(1), "o"), ("1", "i")], draw(5), 0, 1)
    p.value(f"F.linear(torch.tanh({t}), {w})", 1)


def similarity(p: Program, draw: Choices) -> None:
    """Values that attend to each other without weights."""
    x, k = p.pick(draw(8))
    y, _ = p.pick(draw(8), lambda other: other == k)
    t = p.temporary(
        (f"{x} @ {y}.transpose(-2, -1)", f"torch.einsum('bsc,btc->bts', {y}, {x})")[draw(2)]
    )
    p.sites.append(-1.0 if k else 0.0)
    p.value(f"{t}.softmax(-1) @ {y}", k)


BLOCKS = (
    linear, activation, norm, residual, attention, constant, concatenation, gate, gain, reduction,
    similarity, shared,
)  # fmt: skip


def write(draw: Choices) -> tuple[Program, bool]:
    """A program of 1 to 5 blocks, and whether its input is floating-point."""
    p = Program()
    floats = draw(2) == 1
    p.init.append("self.d = d")
    if floats:
        w = p.matrix([("d", "o"), ("16", "i")], draw(5), 0, 1)
        p.value(f"F.linear(x, {w})", 1)
    else:
        p.init.append("self.emb = nn.Embedding(48, d)")
        p.truths["emb.weight"] = Truth(False, True, 0.0, (1, 1))
        p.value("self.emb(x)", 1)
    for _ in range(1 + draw(5)):
        BLOCKS[draw(len(BLOCKS))](p, draw)
    x, k = p.values[-1]
    if not floats and k == 1 and draw(2):
        p.lines.append(f"return F.linear({x}, self.emb.weight)")  # tied
        p.sites.append(-1.0)
    else:
        w = p.matrix([(size(k), "i"), ("10", "o")], draw(5), k, 0)
        p.lines.append(f"return {x} @ {w}")
    return p, floats


@st.composite
def programs(draw: Any) -> tuple[Program, bool]:
    return write(lambda bound: draw(st.integers(0, bound - 1)))


def check(program: Program, inputs: tuple[torch.Tensor, ...]) -> None:
    build = model("\n".join(program.init), "\n".join(program.lines))
    torch.manual_seed(0)
    mu = automup.parametrize(build, base=BASE, inputs=inputs)
    plan = mu.plan(RATIO * BASE)
    # what the plan says
    found = {p.name: (p.ratios.fan_in, p.ratios.fan_out, p.init_mult) for p in plan.parameters}
    for name, truth in program.truths.items():
        assert found[name] == pytest.approx((*truth.fans, truth.init)), name
    assert found.keys() == program.truths.keys()
    wanted = sorted(e for e in program.sites if e)
    assert sorted(s.exponents[0][1] for s in plan.sites) == pytest.approx(wanted)
    # what the live model does
    torch.manual_seed(1)
    narrow, wide = mu(BASE), mu(RATIO * BASE)
    for name, (growth, error) in oracle.init_growth(narrow, wide).items():
        if truth_of(program, name).drawn or build(BASE).get_parameter(name).std() > 0:
            expected = truth_of(program, name).spread
            assert growth == pytest.approx(expected, rel=error + 0.02), name
    lr = oracle.rates(mu.param_groups(wide, torch.optim.Adam, lr=1.0))
    a, b = oracle.align(narrow, wide, lr, lambda name, dim: truth_of(program, name).grains[dim])
    given = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    with torch.no_grad():
        assert oracle.difference(b(*given), a(*given)) < 1e-6


def truth_of(program: Program, name: str) -> Truth:
    return program.truths[name]


@pytest.mark.parametrize("half", range(2))
def test_random_models(half: int) -> None:
    """Two halves, so that two processes share them."""

    @settings(
        max_examples=max(1, EXAMPLES // 2), deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(programs(), st.just(half))
    def run(made: tuple[Program, bool], half: int) -> None:
        program, floats = made
        source = "\n".join([*program.init, "", *program.lines])
        note(f"{source}\nsites {program.sites}\n{program.truths}")
        check(program, (FLOATS if floats else TOKENS,))

    run.hypothesis.inner_test.__qualname__ += str(half)  # derandomize seeds by this name
    run()


# --- the same oracle over models that people wrote -----------------------------------------------


def heads_of_8(name: str, dim: int) -> int:
    """In the model whose heads multiply, rows of q, k, v and columns of o come in heads of 8."""
    if any(f".{x}." in f".{name}" for x in ("wq", "wk", "wv")):
        return 8 if dim == 0 else 1
    return 8 if ".wo." in name and dim == 1 else 1


WRITTEN: tuple[tuple[Case, oracle.Grain], ...] = (
    (cases.MLP, lambda name, dim: 1),
    (cases.RESNET, lambda name, dim: 1),
    (cases.GPT, lambda name, dim: 1),
    (cases.WRITTEN_OUT, lambda name, dim: 1),
    (cases.MANUAL, lambda name, dim: 1),
    (cases.EINSUM, lambda name, dim: 1),
    (cases.HF_GPT2, lambda name, dim: 1),
    (cases.HEADS, heads_of_8),
)  # not llama: repeated channels meet other frequencies of its rotations


@pytest.mark.parametrize("case, grain", WRITTEN, ids=[case.name for case, _ in WRITTEN])
def test_hand_written_models_pass_the_exact_oracle(case: Case, grain: oracle.Grain) -> None:
    mu = automup.parametrize(case.build, base={"width": case.base}, inputs=case.inputs)
    ratio = 2 if case is cases.HEADS else RATIO  # the rounded size of its MLP is a multiple at 2
    narrow, wide = mu(case.base), mu(ratio * case.base)
    lr = oracle.rates(mu.param_groups(wide, torch.optim.Adam, lr=1.0))
    a, b = oracle.align(narrow, wide, lr, grain, torch.float32)
    with torch.no_grad():
        assert oracle.difference(case.logits(b), case.logits(a)) < 1e-3
