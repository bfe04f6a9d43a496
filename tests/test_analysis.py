"""What muP asks of ~100 tiny models, each answer derived from theory by hand, not by running it.

A row says, for every parameter, its role and the factor on its init at 4 x the base, and the
exponents of all sites; or what the refusal says. The factor is what the law of the role asks for
(input 1, hidden r^-1/2 = 1/2, output r^-1 = 1/4) over what the constructor does by itself
(nn.Linear draws 1/sqrt(fan_in): 1/2 on its own, so hidden x1, output x0.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import automup
from automup.errors import AutomupError, PlanError, UnresolvedError
from models_small import attention, images, model, vectors

TOKENS = torch.arange(24).view(2, 12) * 5 % 64
IDS = torch.arange(24) * 5 % 64
FLOATS = torch.randn(24, 16, generator=torch.Generator().manual_seed(1))
PICTURES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
IN, HID, OUT, SCALAR = "input x1", "hidden x1", "output x0.5", "scalar x1"
HALF, QUARTER = "hidden x0.5", "output x0.25"  # drawn with a fixed std
UP = "input x2"  # a bias that torch draws by its layer's fan_in


@dataclass(frozen=True)
class Row:
    """One model with its right answer."""

    name: str
    build: Callable[[int], nn.Module]
    inputs: tuple[torch.Tensor, ...]
    weights: Mapping[str, str]
    sites: tuple[tuple[str, float], ...] = ()
    refused: str = ""
    error: type[AutomupError] = UnresolvedError
    base: int = 32

    def __str__(self) -> str:
        return self.name


@dataclass
class Table:
    """Collects rows; ``vec`` adds one for token and one for floating-point inputs."""

    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, build: Any, inputs: Any, weights: dict[str, str], **more: Any) -> None:
        self.rows.append(Row(name, build, inputs, weights, **more))

    def vec(
        self, name: str, init: str, body: str, weights: dict[str, str], before: str = "",
        **more: Any,
    ) -> None:  # fmt: skip
        head = "return" not in body
        known = {"emb.weight": IN, **({"head.weight": OUT} if head else {}), **weights}
        for floats in (False, True):
            build = vectors(init, body, before=before, floats=floats, head=head)
            inputs = (FLOATS if floats else IDS,)
            self.add(f"{name}-{'floats' if floats else 'tokens'}", build, inputs, known, **more)

    def att(
        self, name: str, init: str, body: str, sites: tuple[tuple[str, float], ...],
        weights: dict[str, str] | None = None, before: str = "", **more: Any,
    ) -> None:  # fmt: skip
        known = {
            "emb.weight": IN, "n.weight": IN, "nf.weight": IN, "head.weight": OUT,
            "a.q.weight": HID, "a.k.weight": HID, "a.v.weight": HID, "a.o.weight": HID,
            **(weights or {}),
        }  # fmt: skip
        build = attention(init, body, before=before)
        self.add(f"attention-{name}", build, (TOKENS,), known, sites=sites, **more)

    def img(self, name: str, init: str, body: str, weights: dict[str, str], **more: Any) -> None:
        known = {"emb.weight": IN, "head.weight": OUT, **weights}
        self.add(f"image-{name}", images(init, body), (PICTURES,), known, base=16, **more)


# fmt: off
T = Table()
W = "self.w = nn.Parameter(torch.randn(d, d) / d**0.5)\n"  # drawn right for a hidden weight
W02 = "self.w = nn.Parameter(torch.randn(d, d) * 0.02)\n"
L = "self.l = nn.Linear(d, d, bias=False)\n"

# --- layers, written in every way ----------------------------------------------------------------
T.vec("linear", L, "h = F.relu(self.l(h))", {"l.weight": HID})
# torch's bias is uniform(+-1/sqrt(fan_in)): it shrinks, and must not
T.vec("bias", "self.l = nn.Linear(d, d)", "h = self.l(h)", {"l.weight": HID, "l.bias": UP})
T.vec("stored-in-out", W02, "h = h @ self.w", {"w": HALF})
T.vec("stored-out-in", W02, "h = F.linear(h, self.w)", {"w": HALF})
T.vec("einsum", W02, "h = torch.einsum('oi,bi->bo', self.w, h)", {"w": HALF})
# heads stay 4, d/4 grows: both axes of the (4, d/4) input are summed, one is infinite
T.vec("einsum-heads", "self.w = nn.Parameter(torch.randn(4, d // 4, d) * 0.02)",
      "h = torch.einsum('bhe,heo->bo', h.view(h.shape[0], 4, -1), self.w)", {"w": HALF})
# one matrix for all: a batched product repeats it over two dimensions and joins those
T.vec("broadcast-matrix", "self.w = nn.Parameter(torch.randn(1, d, d) * 0.02)",
      "h = (h.view(2, 3, 4, -1) @ self.w).view_as(h)", {"w": HALF})
# a recurrent state begins with zeros: nothing is summed over the width yet
T.vec("zero-state", L, "z = torch.zeros(h.shape[0], h.shape[1], h.shape[1])\n"
      "h = self.l(h) + (h[:, None] @ z)[:, 0] + (z @ h[:, :, None])[..., 0]", {"l.weight": HID})
T.vec("cell-from-zeros", "self.c = nn.GRUCell(d, d)", "h = self.c(h)",
      {"c.weight_ih": HID, "c.weight_hh": HID, "c.bias_ih": UP, "c.bias_hh": UP})
# constants that mix tokens, of which there are finitely many
T.vec("tokens-mixed-by-constants", L, "h = self.l((torch.ones(24, 24).tril() / 24) @ h)",
      {"l.weight": HID})
# a weight on the left of its product sums over its last dimension
T.vec("batched-on-the-left", "self.w = nn.Parameter(torch.randn(4, 2 * d, d) * 0.02)\n"
      "self.o = nn.Linear(2 * d, d, bias=False)",
      "y = torch.bmm(self.w, h.T.expand(4, -1, -1))\nh = self.o(y.mean(0).T)",
      {"w": HALF, "o.weight": HID})
T.vec("with-a-bias-on-the-left", "self.w = nn.Parameter(torch.randn(2 * d, d) * 0.02)\n"
      "self.b = nn.Parameter(torch.zeros(2 * d, 1))\n"
      "self.o = nn.Linear(2 * d, d, bias=False)",
      "h = self.o(torch.addmm(self.b, self.w, h.T).T)", {"w": HALF, "b": IN, "o.weight": HID})
T.vec("factors-of-a-product-and-its-bias", W02,
      "h = torch.addmm(h, h, self.w, alpha=0.5, beta=0.5)", {"w": HALF})
T.vec("product-that-forgets-its-bias", W02,  # beta is 0
      "h = torch.addmm(h * h.shape[1], h, self.w, beta=0).tanh()", {"w": HALF})
T.vec("batched-with-a-bias-on-the-left",
      "self.w = nn.Parameter(torch.randn(4, 2 * d, d) * 0.02)\n"
      "self.b = nn.Parameter(torch.zeros(4, 2 * d, 1))\n"
      "self.o = nn.Linear(2 * d, d, bias=False)",
      "y = torch.baddbmm(self.b, self.w, h.T.expand(4, -1, -1))\nh = self.o(y.mean(0).T)",
      {"w": HALF, "b": IN, "o.weight": HID})
T.vec("times-a-vector", "self.w = nn.Parameter(torch.randn(2 * d, d) * 0.02)\n"
      "self.o = nn.Linear(2 * d, d, bias=False)",
      "h = h + self.o(torch.mv(self.w, h.mean(0)))", {"w": HALF, "o.weight": HID})
T.vec("wider", "self.a = nn.Linear(d, 4 * d, bias=False)\nself.c = nn.Linear(4 * d, d, bias=False)",
      "h = h + self.c(F.gelu(self.a(h)))", {"a.weight": HID, "c.weight": HID})
T.vec("swiglu",
      "self.a, self.b, self.c = (nn.Linear(*s, bias=False) for s in [(d, 3*d)] * 2 + [(3*d, d)])",
      "h = h + self.c(F.silu(self.a(h)) * self.b(h))",
      {"a.weight": HID, "b.weight": HID, "c.weight": HID})
T.vec("glu", "self.l = nn.Linear(d, 2 * d, bias=False)", "h = F.glu(self.l(h), -1)",
      {"l.weight": HID})
# a bottleneck of fixed rank: into it an output, out of it an input (fan_in 8 draws no width)
T.vec("bottleneck", "self.a = nn.Linear(d, 8, bias=False)\nself.b = nn.Linear(8, d, bias=False)",
      "h = h + self.b(F.relu(self.a(h)))", {"a.weight": OUT, "b.weight": IN})
# the gate of squeeze-excite scales with the width
T.vec("squeeze-excite",
      "self.a = nn.Linear(d, d // 4, bias=False)\nself.b = nn.Linear(d // 4, d, bias=False)",
      "h = h * torch.sigmoid(self.b(F.relu(self.a(h))))", {"a.weight": HID, "b.weight": HID})
T.vec("lora", L + "self.a = nn.Linear(d, 4, bias=False)\nself.b = nn.Linear(4, d, bias=False)",
      "h = self.l(h) + self.b(self.a(h)) * 0.5",
      {"l.weight": HID, "a.weight": OUT, "b.weight": IN})
# d x d -> 10: fan_in grows by 16; drawn by 1/sqrt(fan_in 1) = 1/sqrt(d) (torch), so 1/16 over 1/2
T.vec("bilinear", "self.out = nn.Bilinear(d, d, 10, bias=False)", "return self.out(h, h)",
      {"out.weight": "output in16 x0.125"})
T.vec("bilinear-of-what-is-scaled", "self.out = nn.Bilinear(d, d, 10, bias=False)",
      "return self.out(h, h * h.shape[-1])", {"out.weight": "output in16 x0.125"},
      sites=(("scale", -1.0),))
T.vec("bilinear-in-activations", "",
      "return F.bilinear(h, h, (h.T @ h)[None].repeat(5, 1, 1))", {},
      refused="not a bilinear layer")
T.vec("readout-matmul", "self.w = nn.Parameter(torch.randn(10, d) * 0.02)",
      "return h @ self.w.T", {"w": QUARTER})
T.vec("readout-conv", "self.out = nn.Conv1d(d, 10, 1, bias=False)",
      "return self.out(h[:, :, None])[..., 0]", {"out.weight": OUT})
T.vec("fused-qkv-like", "self.l = nn.Linear(d, 3 * d, bias=False)",
      "a, b, c = self.l(h).chunk(3, -1)\nh = a * torch.sigmoid(b) + c", {"l.weight": HID})
# rows cat: fan_out, columns cat: fan_in; each weight sums over its own d
T.vec("concatenated-weights", "self.a = nn.Parameter(torch.randn(d, d) * 0.02)\n"
      "self.b = nn.Parameter(torch.randn(d, d) * 0.02)",
      "u, v = (h @ torch.cat([self.a, self.b], 0).T).chunk(2, -1)\nh = u * v.sigmoid()",
      {"a": HALF, "b": HALF})
T.vec("shared-three-ways", L + "self.m = nn.Linear(d, d, bias=False)\n"
      "self.m.weight = self.l.weight", "h = self.m(F.relu(self.l(F.relu(self.l(h)))))",
      {"l.weight": HID})
T.vec("stacked-experts", "self.g = nn.Linear(d, 4, bias=False)\n"
      "self.w1 = nn.Parameter(torch.randn(4, d, 2 * d) * 0.02)\n"
      "self.w2 = nn.Parameter(torch.randn(4, 2 * d, d) * 0.02)",
      "p = self.g(h).softmax(-1)\n"
      "y = torch.einsum('bd,edf->bef', h, self.w1)\n"
      "y = torch.einsum('bef,efd->bed', F.relu(y), self.w2)\n"
      "h = h + torch.einsum('bed,be->bd', y, p)",
      {"g.weight": OUT, "w1": HALF, "w2": HALF})
T.vec("functional-call", L,
      "h = torch.func.functional_call(self.l, dict(self.l.named_parameters()), (h,))",
      {"l.weight": HID})
T.vec("vmap", W, "h = torch.vmap(lambda row: self.w @ row)(h)", {"w": HID})
T.vec("checkpoint", L, "h = torch.utils.checkpoint.checkpoint(self.l, h, use_reentrant=False)",
      {"l.weight": HID}, before="import torch.utils.checkpoint")

# --- vectors, norms, residuals -------------------------------------------------------------------
T.vec("gain-and-bias",
      L + "self.g = nn.Parameter(torch.ones(d))\nself.b = nn.Parameter(torch.zeros(d))",
      "h = self.l(h) * self.g + self.b", {"l.weight": HID, "g": IN, "b": IN})
T.vec("layer-norm", L + "self.n = nn.LayerNorm(d)", "h = self.n(self.l(h))",
      {"l.weight": HID, "n.weight": IN, "n.bias": IN})
T.vec("batch-norm", L + "self.n = nn.BatchNorm1d(d)", "h = self.n(self.l(h))",
      {"l.weight": HID, "n.weight": IN, "n.bias": IN})
T.vec("rms-norm-by-hand", L + "self.g = nn.Parameter(torch.ones(d))",
      "h = self.l(h)\nh = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6) * self.g",
      {"l.weight": HID, "g": IN})
# x/|x| is d^-1/2, sqrt(d) makes up for it
T.vec("normalize-times-sqrt-d", L, "h = F.gelu(F.normalize(self.l(h), dim=-1) * h.shape[-1]**0.5)",
      {"l.weight": HID})
# the norm forgets what came before it
T.vec("scaled-then-norm", L, "h = F.layer_norm(self.l(h) * h.shape[-1], [h.shape[-1]])",
      {"l.weight": HID})
T.vec("residual-scaled", L, "h = h + self.l(h) / math.sqrt(h.shape[-1])", {"l.weight": HID},
      sites=(("scale", 0.5),))
T.vec("times-sqrt-d", L, "h = F.gelu(self.l(h) * math.sqrt(h.shape[-1]))", {"l.weight": HID},
      sites=(("scale", -0.5),))
# homogeneous up to the sink: relu(c h) = c relu(h), found through a linear layer
T.vec("scale-found-through-layers", L + "self.m = nn.Linear(d, d, bias=False)",
      "h = torch.tanh(self.m(F.relu(self.l(h) * h.shape[-1])))",
      {"l.weight": HID, "m.weight": HID}, sites=(("scale", -1.0),))
T.vec("constants-that-cancel", L, "h = F.gelu(self.l(h * h.shape[-1]) / h.shape[-1])",
      {"l.weight": HID})
T.vec("depth-constant", L, "h = h + self.l(h) / math.sqrt(8)", {"l.weight": HID})
T.vec("multiplied-in-place", L, "h = self.l(h)\nh.mul_(h.shape[1]**0.5)\nh = torch.tanh(h)",
      {"l.weight": HID}, sites=(("scale", -0.5),))

# --- sums over the width -------------------------------------------------------------------------
T.vec("readout-sum", W, "return F.relu(h @ self.w).sum(-1)", {"w": HID},
      sites=(("reduction", -1.0),))
T.vec("readout-mean", W, "return F.relu(h @ self.w).mean(-1)", {"w": HID})
T.vec("readout-norm", W, "return F.relu(h @ self.w).norm(dim=-1)", {"w": HID},
      sites=(("reduction", -0.5),))  # n entries of size 1
# R1: the vector is used coordinate by coordinate (input), so the sum is the site; drawn d^-1/2
T.vec("readout-multiply-and-sum", "self.w = nn.Parameter(torch.randn(d) / d**0.5)",
      "return (h * self.w).sum(-1)", {"w": "input x2"}, sites=(("reduction", -1.0),))
T.vec("readout-vector-matmul", "self.w = nn.Parameter(torch.randn(d) * 0.02)", "return h @ self.w",
      {"w": QUARTER})
# R2: the sum feeds a layer of finite fan_in
T.vec("sum-then-linear", "self.c = nn.Linear(1, d, bias=False)",
      "h = self.c(h.sum(-1, keepdim=True))", {"c.weight": IN}, sites=(("reduction", -1.0),))
T.vec("unscaled-then-linear", L, "h = self.l(h * h.shape[-1])", {"l.weight": HID},
      sites=(("scale", -1.0),))
# W4: adding channels up by index is a sum over d/10 of them
T.vec("index-add", W,
      "h = F.relu(h @ self.w)\nz = torch.zeros(h.shape[0], 10)\n"
      "return z.index_add(1, torch.arange(h.shape[1]) % 10, h)",
      {"w": HID}, sites=(("reduction", -1.0),))
T.vec("scatter-add", W,
      "h = F.relu(h @ self.w)\nz = torch.zeros(h.shape[0], 10)\n"
      "return z.scatter_add(1, (torch.arange(h.shape[1]) % 10).expand_as(h), h)",
      {"w": HID}, sites=(("reduction", -1.0),))
T.vec("index-add-tokens", W,  # along the batch: nothing infinite is added up
      "h = h @ self.w\nh = torch.zeros_like(h).index_add(0, torch.arange(h.shape[0]) % 3, h)",
      {"w": HID})
T.vec("softmax-over-channels", L, "h = self.l(h).softmax(-1) * h", {"l.weight": HID},
      sites=(("reduction", 1.0),))  # d entries share one unit: each is 1/d
T.vec("channel-attention", L,  # weights that share one unit, then summed: neutral
      "h = (self.l(h).softmax(-1) * h).sum(-1, keepdim=True) * torch.ones_like(h)",
      {"l.weight": HID})

# --- tied weights and similarities ---------------------------------------------------------------
T.add("tied-embedding", vectors("", "return h @ self.emb.weight.T", head=False), (IDS,),
      {"emb.weight": IN}, sites=(("readout", -1.0),))
T.add("tied-on-the-left", vectors("", "return (self.emb.weight @ h.T).T", head=False), (IDS,),
      {"emb.weight": IN}, sites=(("readout", -1.0),))
T.add("factorised-tied", vectors(L, "return F.linear(self.l(h), self.emb.weight)", head=False),
      (IDS,), {"emb.weight": IN, "l.weight": HID}, sites=(("readout", -1.0),))
T.vec("clip", L + "self.t = nn.Parameter(torch.tensor(2.6593))",
      "a, b = (F.normalize(z, dim=-1) for z in (self.l(h), h))\nreturn self.t.exp() * a @ b.T",
      {"l.weight": HID, "t": SCALAR})
T.vec("inner-products", L, "return self.l(h) @ h.T", {"l.weight": HID},
      sites=(("attention", -1.0),))
T.vec("distance", L + "self.p = nn.Parameter(torch.randn(10, d))",
      "return -torch.cdist(self.l(h), self.p)", {"l.weight": HID, "p": IN},
      sites=(("reduction", -0.5),))
T.vec("squared-distance", L + "self.p = nn.Parameter(torch.randn(10, d))",
      "return -((self.l(h)[:, None] - self.p) ** 2).sum(-1)", {"l.weight": HID, "p": IN},
      sites=(("reduction", -1.0),))

# --- outputs -------------------------------------------------------------------------------------
TIED = {"emb.weight": IN}
# W5: an output hidden in slots
for kind in ("", "(slots=True)"):
    T.add(f"output-in-a-dataclass{kind}",
          vectors("", "return Out(h @ self.emb.weight.T)", head=False,
                  before=f"@dataclasses.dataclass{kind}\nclass Out:\n    logits: torch.Tensor\n"),
          (IDS,), TIED, sites=(("readout", -1.0),))
T.add("output-in-nested-dicts",
      vectors("", "return {'a': [{'b': h @ self.emb.weight.T}]}", head=False), (IDS,), TIED,
      sites=(("readout", -1.0),))
T.vec("loss-inside", L + "self.out = nn.Linear(d, 10, bias=False)",
      "return F.cross_entropy(self.out(self.l(h)), torch.zeros(24, dtype=torch.long))",
      {"l.weight": HID, "out.weight": OUT})

# a vector of length 1 in d dimensions is healthy as it is; an output that grows is not
T.vec("normalised-features", L, "return F.normalize(self.l(h), dim=-1)", {"l.weight": HID})
T.vec("features-that-grow", L, "return self.l(h) * h.shape[1]**0.5", {"l.weight": HID},
      sites=(("scale", -0.5),))
# of an input that is floating the size is 1, and what scales it a site; tokens only index
T.add("numbers-of-an-input-that-grow",
      vectors(L, "h = (self.l(h) + x[:, :1] * h.shape[1]).tanh()", floats=True), (FLOATS,),
      {"emb.weight": IN, "l.weight": HID, "head.weight": OUT}, sites=(("scale", -1.0),))
T.add("numbers-of-tokens-that-grow",
      vectors(L, "h = (self.l(h) + x[:, None].float() * h.shape[1]).tanh()"), (IDS,), {},
      refused="a constant that grows with width")

# a table counts by an exponent alone, or where its largest entries move too; one number, by itself
T.vec("table-that-decays", L, "h = (self.l(h) + 1 / (1 + torch.arange(h.shape[1]))).tanh()",
      {"l.weight": HID})
T.vec("table-of-one-row", L,
      "h = (self.l(h) * torch.full((1, h.shape[1]), math.log2(h.shape[1])**3)).tanh()", {},
      refused="table of constants whose size changes with width")
# which entries a table of indices takes, and in which order, its size does not tell
T.vec("table-of-indices", L, "h = self.l(h)[:, torch.arange(h.shape[1])]",
      {"l.weight": HID})
# r_o is 140 / 44, and r_i is 4: the first matrix is narrower by sqrt(r_o / r_i)
T.vec("table-of-one-of-two-axes", "self.a = nn.Linear(d, d + 12, bias=False)\n"
      "self.b = nn.Linear(d + 12, d, bias=False)",
      "d = h.shape[1]\nh = (self.b(F.relu(self.a(h))) * torch.full((1, d), d**0.5)).tanh()",
      {"a.weight": "hidden x0.891883", "b.weight": "hidden in3.18182 x1"}, sites=(("scale", -0.5),))
T.vec("number-in-a-tensor", L, "h = (self.l(h) * torch.full((1,), h.shape[1]**(1 / 3))).tanh()",
      {"l.weight": HID}, sites=(("scale", -0.333333),))

# what is added to something else may be smaller, where it is a constant, or zero
T.vec("constant-that-shrinks", L,
      "d = h.shape[1]\nh = (self.l(h) + torch.full((d,), d**-0.5)).tanh()",
      {"l.weight": HID})
T.vec("zero-beside-what-is-healed", L, "d = h.shape[1]\nz = h[:, None] @ torch.zeros(24, d, d)\n"
      "h = ((self.l(h) * d + z[:, 0]) / d).tanh()", {"l.weight": HID})
T.vec("gain-in-another-order", L + "self.g = nn.Parameter(torch.ones(d))",
      "h = self.l(h) * self.g.flip(0)", {"l.weight": HID, "g": IN})
# no constant heals these: tanh(r) shrinks as r does, and a gain of sqrt(d) undoes the norm
T.vec("drawn-into-what-is-not-homogeneous",
      L + "self.register_buffer('r', torch.randn(d) / d**0.5)",
      "h = self.l(h) * self.r.tanh()", {}, refused="it goes into tanh")
T.vec("norm-with-a-constant-gain", L, "d = h.shape[1]\n"
      "h = F.layer_norm(self.l(h), [d], weight=torch.full((d,), d**0.5)).tanh()", {},
      refused="it is the gain or bias of a normalisation")

# --- random numbers that are never trained: what was written into part of a tensor is in all of it
DRAWN = "self.register_buffer('r', torch.randn(d) / d**0.5)\n"
HALF_UP = {"weights": {"l.weight": HID}, "sites": (("scale", 0.5),)}
T.vec("drawn-row-by-row",
      L + "self.register_buffer('r', torch.zeros(2, d))\n"
      "for i in range(2):\n    self.r[i] = torch.randn(d) / d**0.5",
      "h = (self.l(h) * self.r[0]).tanh()", **HALF_UP)
T.vec("drawn-and-written-among-zeros", L + DRAWN,
      "z = torch.zeros(2, h.shape[1])\nz[0] = self.r\nh = (self.l(h) * z.sum(0)).tanh()", **HALF_UP)
T.vec("drawn-among-what-grows", L,  # the largest counts
      "z = torch.full((2, h.shape[1]), h.shape[1]**0.5)\nz[0] = torch.randn(h.shape[1])\n"
      "h = (self.l(h) * z.sum(0)).tanh()", {"l.weight": HID}, sites=(("scale", -0.5),))
T.vec("drawn-by-no-exponent",
      L + "self.register_buffer('r', torch.randn(d) * math.log2(d)**3)",
      "h = (self.l(h) * (2 * self.r)).tanh()", {},
      refused="table of constants whose size changes with width")

# one fault is met by two corrections: sqrt(d) on the tokens heals k too, so the logits need less
T.add("scaled-tokens-and-a-bias-of-q",
      model("self.emb = nn.Embedding(64, d)\nself.q = nn.Linear(d, d, bias=False)\n"
            "self.k = nn.Linear(d, d, bias=False)\nself.b = nn.Parameter(torch.zeros(d))\n"
            "self.head = nn.Linear(d, 64, bias=False)",
            "h = self.emb(x) * x.new_tensor(self.head.weight.size(1)).sqrt()\n"
            "q, k = self.q(h) + self.b, self.k(h)\n"
            "return self.head(F.softmax(q @ k.mT / math.sqrt(q.size(-1)), -1) @ h)"),
      (TOKENS,), {"emb.weight": IN, "q.weight": HID, "k.weight": HID, "b": IN, "head.weight": OUT},
      sites=(("scale", -0.5), ("attention", -0.5)))
# a bag is a finite sum of rows
T.add("embedding-bag", model("self.emb = nn.EmbeddingBag(64, d, mode='sum')\n"
                             "self.head = nn.Linear(d, 10, bias=False)",
                             "return self.head(self.emb(x))"),
      (TOKENS,), {"emb.weight": IN, "head.weight": OUT})

T.add("embedding-bag-with-weights",
      model("self.emb = nn.EmbeddingBag(64, d, mode='sum')\n"
            "self.head = nn.Linear(d, 10, bias=False)",
            "times = torch.ones(x.shape) * self.head.weight.size(1)\n"
            "return self.head(self.emb(x, per_sample_weights=times))"),
      (TOKENS,), {}, refused="its value grows as width")

# --- weights that are made of weights ------------------------------------------------------------
# W + B A is W beside two layers: A sums over d into a finite rank, B over the rank (drawn 0)
T.vec("merged-low-rank", L + "self.a = nn.Parameter(torch.randn(4, d) * 0.02)\n"
      "self.b = nn.Parameter(torch.zeros(d, 4))",
      "h = F.linear(h, self.l.weight + self.b @ self.a)",
      {"l.weight": HID, "a": QUARTER, "b": IN})
# the entries of v / |v| are those of v where |v| is Theta(1): sqrt(n) entries of n^-1/2
T.vec("weight-norm-by-hand", W + "self.g = nn.Parameter(torch.ones(d))",
      "h = h @ (self.g * self.w / self.w.norm(dim=0))", {"w": HID, "g": IN})
# of a readout they are 1/n over n^-1/2: n^1/2 too large
T.vec("weight-norm-of-a-readout", "self.w = nn.Parameter(torch.randn(d, 10) * 0.02)",
      "return h @ (self.w / self.w.norm(dim=0))", {"w": QUARTER}, sites=(("readout", -0.5),))
# |v| of a weight that is drawn with a fixed std grows as sqrt(n), and so does torch's gain
T.vec("weight-norm", L + "nn.init.normal_(self.l.weight, std=0.02)\n"
      "nn.utils.parametrizations.weight_norm(self.l)", "h = self.l(h)",
      {"l.parametrizations.weight.original0": "input x0.5",
       "l.parametrizations.weight.original1": HALF})
# the largest singular value is sqrt(r_o / r_i): 1 of a hidden weight, n^-1/2 of a readout
T.vec("spectral-norm", "self.l = nn.Linear(d, d, bias=False)\n"
      "nn.utils.parametrizations.spectral_norm(self.l)", "h = self.l(h)",
      {"l.parametrizations.weight.original": HID})
T.vec("spectral-norm-of-a-readout", "self.l = nn.Linear(d, 10, bias=False)\n"
      "nn.utils.parametrizations.spectral_norm(self.l)", "return self.l(h)",
      {"l.parametrizations.weight.original": OUT}, sites=(("readout", -0.5),))
T.vec("weight-standardisation", W,
      "w = self.w - self.w.mean(0, keepdim=True)\n"
      "h = h @ (w / (w.std(0, keepdim=True) * w.shape[0]**0.5))", {"w": HID})
T.vec("centred-weight", W, "h = h @ (self.w - self.w.mean(0, keepdim=True))", {"w": HID})
# both sides of unit length: n^-1/2 each, and n of them
T.vec("cosine-classifier", "self.w = nn.Parameter(torch.randn(10, d) * 0.02)",
      "return F.normalize(h, dim=-1) @ F.normalize(self.w, dim=-1).T * 8", {"w": QUARTER})
# a finite number of learned vectors that meet a matrix are inputs, not matrices
T.vec("learned-queries", "self.q = nn.Parameter(torch.randn(5, d))\n" + L,
      "h = h + self.l(self.q).mean(0)", {"q": IN, "l.weight": HID})
T.vec("learned-vector", "self.q = nn.Parameter(torch.randn(d))\n" + L,
      "h = h + self.l(self.q)", {"q": IN, "l.weight": HID})
# two vectors that meet are a query and a key: their product sums over d
T.vec("learned-vectors-that-meet", "self.a = nn.Parameter(torch.randn(d))\n"
      "self.b = nn.Parameter(torch.randn(d))\n" + L,
      "h = self.l(h) * torch.dot(self.a, self.b).tanh()",
      {"a": IN, "b": IN, "l.weight": HID}, sites=(("attention", -1.0),))
T.vec("learned-vectors-that-meet-a-readout", "self.q = nn.Parameter(torch.randn(5, d))\n"
      "self.w = nn.Parameter(torch.randn(d, 3) * 0.02)",
      "h = h * (self.q @ self.w).mean()", {}, refused="nothing tells which")
# matrices looked up by an index keep their axes
T.vec("gathered-experts", "self.w = nn.Parameter(torch.randn(6, d, d) * 0.02)",
      "i = torch.arange(24).view(24, 1).expand(24, 2) % 6\n"
      "h = F.relu(torch.einsum('bi,bkio->bko', h, self.w[i])).sum(1)", {"w": HALF})

# --- refusals ------------------------------------------------------------------------------------
SUMS_OVER_NEITHER = "two infinite dimensions and this use of it sums over neither"
# W6: a matrix that is used coordinate by coordinate before it is summed with
T.vec("multiply-and-sum-a-matrix", W, "h = (h.unsqueeze(-1) * self.w).sum(1)", {},
      refused=SUMS_OVER_NEITHER)
T.vec("soft-merged-experts", "self.r = nn.Linear(d, 4, bias=False)\n"
      "self.w = nn.Parameter(torch.randn(4, d, d) / d**0.5)",
      "w = torch.einsum('be,eoi->boi', self.r(h).softmax(-1), self.w)\n"
      "h = F.gelu(torch.einsum('boi,bi->bo', w, h))", {}, refused=SUMS_OVER_NEITHER)
T.vec("weight-over-its-mean-size", W, "h = h @ (self.w / self.w.abs().mean())", {},
      refused=SUMS_OVER_NEITHER)
T.add("per-head-output-summed-over-heads",
      model("self.h = d // 8\nself.emb = nn.Embedding(64, d)\n"
            "self.w = nn.Parameter(torch.randn(self.h, 8, d) / d**0.5)\n"
            "self.head = nn.Linear(d, 64)",
            "h = F.relu(self.emb(x))\nB, t, d = h.shape\n"
            "h = h.view(B * t, self.h, 8).transpose(0, 1)\n"
            "return self.head(F.gelu(torch.bmm(h, self.w).sum(0).view(B, t, d)))"),
      (TOKENS,), {}, refused=SUMS_OVER_NEITHER)
# W7: a fixed matrix may be a permutation (neutral) or dense (+1/2): nobody can tell
for what, matrix in {
    "permutation": "torch.eye(d).flip(0)",
    "random": "torch.randn(d, d) / math.sqrt(d)",
    "cosine": "torch.cos(math.pi / d * (torch.arange(d) + 0.5) * torch.arange(d)[:, None])",
}.items():
    T.vec(f"fixed-{what}", W + f"self.register_buffer('K', {matrix})", "h = (h @ self.w) @ self.K",
          {}, refused="over an infinite axis against a constant tensor")
# W8: only 10 rows of a d x d matrix are trained, as a readout; the others are read by nobody
T.vec("sliced-output", W, "return (h @ self.w)[:, :10]", {"w": "hidden 10 x0.5 | 118+ x1"})
# a fused projection: the rows that stay are a readout of their own, with its init
T.vec("fused-parts-that-grow-differently", "self.l = nn.Linear(d, d + 32)\n",
      "a, b = self.l(h).split([h.shape[1], 32], -1)\nh = h + a * b.mean(-1, keepdim=True)",
      {"l.weight": "hidden 128+ x1 | 32 x0.5", "l.bias": "input 128+ x2 | 32 x2"})
T.vec("fused-parts-cut-twice", "self.l = nn.Linear(d, 2 * d + 12, bias=False)\n",
      "d = h.shape[1]\na, b = self.l(h).split([d, d + 12], -1)\nb = F.silu(b)\n"
      "h = h + a * b[:, :d] * b[:, d:d + 4].mean(-1, keepdim=True)\n"
      "h = h * b[:, d + 4:].mean(-1, keepdim=True)",
      {"l.weight": "hidden 128+ x1 | 128+ x1 | 4 x0.5 | 8 x0.5"})
# cut and joined again before anything reads it: one axis
T.vec("cut-and-joined-again", L,
      "a = self.l(h)\nh = h + torch.cat([-a[:, :8], a[:, 8:]], -1)", {"l.weight": HID})
# joined and taken apart again: what is of another size meets nothing but its own constant
T.vec("joined-and-cut-again", "", "d = h.shape[1]\n"
      "u, v, w = torch.cat([h, h * d], -1).split([d, d // 2, d // 2], -1)\n"
      "h = u + torch.cat([v, w], -1) / d", {})
T.vec("joined-and-cut-elsewhere", "", "d = h.shape[1]\n"
      "u, v = torch.cat([h, h * d], -1).split([d // 2, d + d // 2], -1)\nh = h + v[:, :d]", {},
      sites=(("scale", -1.0),))
# q with heads that grow, k and v with one fixed head, in one projection
T.vec("fused-multi-query", "self.l = nn.Linear(d, d + 16, bias=False)\nself.o = nn.Linear(d, d, "
      "bias=False)",
      "b, d = h.shape\nq, k, v = self.l(h).view(1, b, d // 8 + 2, 8).split([d // 8, 1, 1], 2)\n"
      "w = F.softmax(q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / 8**0.5, -1)\n"
      "h = h + self.o((w @ v.transpose(1, 2)).transpose(1, 2).reshape(b, d))",
      {"l.weight": "hidden 128+ x1 | 8 x0.5 | 8 x0.5", "o.weight": HID})
T.vec("parts-that-overlap", "self.l = nn.Linear(d, d + 12, bias=False)\n",
      "d = h.shape[1]\na = self.l(h)\n"
      "h = h * a[:, :d] + a[:, d - 6:d + 6].mean(-1, keepdim=True)", {},
      refused="cut into parts that overlap and grow differently")
T.vec("sums-over-both-its-axes", W, "h = F.relu(h @ self.w) @ self.w.T", {},
      refused="two uses of it sum over different infinite dimensions")
T.vec("product-of-weights-over-width", W + "self.v = nn.Parameter(torch.randn(d, d) / d**0.5)",
      "h = h @ (self.w @ self.v)", {}, refused="nothing tells which")
T.vec("unused-weight", W, "h = h + 0", {}, refused="no operation of the traced forward reads it")
T.vec("running-sum", L, "h = self.l(h).cumsum(-1)", {}, refused="running sum")
T.vec("fourier", L, "h = self.l(torch.fft.fft(h, dim=-1).real)", {}, refused="Fourier transform")
T.vec("norm-of-order-one", L, "h = F.normalize(self.l(h), p=1, dim=-1) * h.shape[-1]", {},
      refused="a norm of order 1")
T.vec("trace", "", "return torch.trace(h.T @ h) * torch.ones(24, 10)", {},
      refused="trace mixes an infinite axis")
T.vec("loss-summed-over-width", L,
      "return F.mse_loss(self.l(h), torch.zeros_like(h), reduction='sum')", {},
      refused="a loss summed over an infinite axis")
T.vec("table-without-an-exponent", L,
      "h = self.l(h) + math.sqrt(h.shape[-1]) * torch.sin(torch.arange(h.shape[-1]) * 1.0)", {},
      refused="table of constants whose size changes with width")
T.vec("multiplier-on-what-a-library-returns", L, "h = F.gelu(F.normalize(self.l(h), dim=-1))",
      {"l.weight": HID}, sites=(("reduction", -0.5),))
T.vec("multiplier-on-a-whole-number", L, "h = F.gelu(self.l(h) * h.shape[-1])",
      {"l.weight": HID}, sites=(("scale", -1.0),))
T.vec("no-name-for-the-size", W,
      "return (lambda: F.relu(h @ self.w).view(24, 8, -1))().sum(-1)", {"w": HID},
      sites=(("reduction", -1.0),))  # h.size(-1) / 8: any size that grows alike will do
T.add("integer-output", vectors("", "return h.argmax(-1)", head=False), (IDS,), {},
      refused="no floating-point tensor", error=AutomupError)

# --- attention: q . k adds +1, so what is left of the author's own constant is the site ----------
HEAD, WHOLE = (("attention", -0.5),), (("attention", -1.0),)
SUM = (("reduction", -0.5),)  # the same, written as a sum
QK = "q @ k.transpose(-2, -1)"
S = "self.scale = self.hd**-0.5"
# the constant of a product that has no infinite axis itself: sqrt(d) of a bias of the logits
T.att("scaled-bias", "self.bias = nn.Parameter(torch.zeros(1, 1, 12, 12))",
      f"a = {QK} / math.sqrt(q.size(-1)) + self.bias * math.sqrt(q.size(-1))",
      (("attention", -0.5), ("attention", -0.5)), {"a.bias": SCALAR})
# q . k grows, q . w does not: the author's constant fits neither
T.att("segments", "self.w = nn.Parameter(torch.randn(3, self.hd) / self.hd**0.5)",
      f"a = ({QK} + (q @ self.w.T).sum(-1, keepdim=True)) / math.sqrt(q.size(-1))",
      (("attention", -1.0), ("scale", 0.5)), {"a.w": OUT})
T.att("attribute", S, f"a = {QK} * self.scale", HEAD)
T.att("divided-by-root", "", f"a = {QK} / math.sqrt(q.size(-1))", HEAD)
T.att("divided-by-d", "", f"a = {QK} / q.size(-1)", ())
T.att("unscaled", "", f"a = {QK}", WHOLE)
T.att("root-of-the-model-width", "", f"a = {QK} / math.sqrt(d)", HEAD)
T.att("quarter-powers", "", "c = self.hd**-0.25\na = (q * c) @ (k * c).transpose(-2, -1)", HEAD)
T.att("einsum", "", "a = torch.einsum('bhic,bhjc->bhij', q, k) / self.hd**0.5", HEAD)
T.att("multiply-and-sum", S, "a = (q[:, :, :, None] * k[:, :, None]).sum(-1) * self.scale", SUM)
T.att("sdpa", "", "y = F.scaled_dot_product_attention(q, k, v, is_causal=True)", HEAD)
T.att("sdpa-scale", S,
      "y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)", HEAD)
T.att("sdpa-one-over-d", "",
      "y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / q.size(-1))", ())
T.att("baddbmm", "",
      "a = torch.baddbmm(torch.zeros(B * self.h, t, t), q.reshape(B * self.h, t, -1),"
      " k.reshape(B * self.h, t, -1).transpose(1, 2), beta=0, alpha=self.hd**-0.5)"
      ".view(B, self.h, t, t)", HEAD)
T.att("negative-distance", S, "a = -(q[:, :, :, None] - k[:, :, None]).pow(2).sum(-1) * self.scale",
      SUM)
T.att("soft-cap", S, f"a = {QK} * self.scale\na = 20 * torch.tanh(a / 20)", HEAD)
T.att("alibi", S, f"a = {QK} * self.scale - torch.tensor([2.0**-i for i in range(self.h)])"
      ".view(-1, 1, 1) * (torch.arange(t)[:, None] - torch.arange(t)).abs()", HEAD)
T.att("relative-bias", S + "\nself.b = nn.Parameter(torch.zeros(23, 4))\n"
      "self.register_buffer('ix', torch.arange(12)[:, None] - torch.arange(12) + 11)",
      f"a = {QK} * self.scale + self.b[self.ix].permute(2, 0, 1)", HEAD, {"a.b": SCALAR})
T.att("qk-norm", S + "\nself.qn = nn.RMSNorm(self.hd)\nself.kn = nn.RMSNorm(self.hd)",
      "a = self.qn(q) @ self.kn(k).transpose(-2, -1) * self.scale", HEAD,
      {"a.qn.weight": IN, "a.kn.weight": IN})
T.att("cosine", "self.g = nn.Parameter(torch.ones(4, 1, 1) * 10)",
      "a = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.g", (),
      {"a.g": SCALAR})
T.att("relu-instead-of-softmax", S,
      f"a = F.relu({QK} * self.scale) / t\ny = a.masked_fill(~causal(t), 0) @ v", HEAD)
T.att("linear-normalised", "", "q, k = F.elu(q) + 1, F.elu(k) + 1\n"
      "kv = torch.einsum('bhtc,bhte->bhce', k, v)\n"
      "y = torch.einsum('bhtc,bhce->bhte', q, kv)"
      " / torch.einsum('bhtc,bhc->bht', q, k.sum(2))[..., None]", ())
# W1: rotations by complex numbers keep the size
T.att("complex-rotation", "", "e = torch.arange(0, self.hd, 2) / self.hd\n"
      "R = torch.exp(1j * torch.outer(torch.arange(t), 10000.0**-e))\n"
      "def turned(z):\n"
      "    pairs = torch.view_as_complex(z.reshape(*z.shape[:-1], -1, 2))\n"
      "    return torch.view_as_real(pairs * R).flatten(-2)\n"
      "q, k = turned(q), turned(k)\n"
      f"a = {QK} / math.sqrt(self.hd)", HEAD)
# W2: the author's constant in a tensor
for name, tensor in {
    "full": "torch.full((1,), self.hd**-0.5)", "full-like": "torch.full_like(a, self.hd**-0.5)",
    "new-full": "a.new_full((1,), self.hd**-0.5)", "new-tensor": "a.new_tensor(self.hd**-0.5)",
    "fill": "torch.empty(1).fill_(self.hd**-0.5)", "item": "torch.tensor(self.hd**-0.5).item()",
    "root": "torch.sqrt(torch.tensor(1 / self.hd))",
    # W2b: tables whose size is an exponent
    "table": "(torch.tril(torch.ones(t, t)) * self.hd**-0.5)",
}.items():  # fmt: skip
    T.att(f"constant-{name}", "", f"a = {QK}\na = a * {tensor}", HEAD)
T.att("buffer", "self.register_buffer('sc', torch.tensor(self.hd**-0.5))", f"a = {QK} * self.sc",
      HEAD)
T.att("per-head-temperatures",
      "self.register_buffer('sc', torch.linspace(1, 2, h).view(h, 1, 1) * self.hd**-0.5)",
      f"a = {QK} * self.sc", HEAD)
# a learned temperature is a scalar that starts at hd^-1/2: muP takes its init to be 1's law
T.att("learned-temperature", "self.t = nn.Parameter(torch.tensor(self.hd**-0.5))",
      f"a = {QK} * self.t", WHOLE, {"a.t": "scalar x2"})
T.att("free-function", "", "a = f(q, k, self.hd**-0.5)", HEAD,
      before="def f(q, k, scale):\n    return q @ k.transpose(-2, -1) * scale\n")
T.att("free-function-attribute", S, "a = f(q, k, self.scale)", HEAD,
      before="def f(q, k, scale):\n    return q @ k.transpose(-2, -1) * scale\n")
T.att("fixed-matrix-rotation", "", "S = torch.eye(self.hd).roll(1, 0)\nq = q @ S\n"
      f"a = {QK} / math.sqrt(self.hd)", (), refused="against a constant tensor")

# --- grouped queries: a fixed number of key heads is an output -----------------------------------
T.add("grouped-queries",
      model("self.emb = nn.Embedding(64, d)\nself.h = d // 8\n"
            "self.q = nn.Linear(d, d, bias=False)\n"
            "self.kv = nn.Linear(d, 32, bias=False)\nself.o = nn.Linear(d, 64, bias=False)",
            "x = self.emb(x)\nB, t, d = x.shape\n"
            "q = self.q(x).view(B, t, self.h, 8).transpose(1, 2)\n"
            "k, v = self.kv(x).view(B, t, 2, 2, 8).unbind(2)\n"
            "k, v = (z.transpose(1, 2).repeat_interleave(self.h // 2, 1) for z in (k, v))\n"
            "y = F.scaled_dot_product_attention(q, k, v, is_causal=True)\n"
            "return self.o(y.transpose(1, 2).reshape(B, t, d))"),
      (TOKENS,), {"emb.weight": IN, "q.weight": HID, "kv.weight": OUT, "o.weight": OUT})

# --- convolutions --------------------------------------------------------------------------------

def conv(arguments: str, name: str = "c") -> str:
    return f"self.{name} = nn.{arguments[:-1]}, bias=False)\n"


C = {"c.weight": HID}
T.img("conv", conv("Conv2d(d, d, 3, padding=1)"), "h = F.relu(self.c(h))", C)
T.img("pointwise", conv("Conv2d(d, 2 * d, 1)") + conv("Conv2d(2 * d, d, 1)", "p"),
      "h = self.p(F.relu(self.c(h)))", {**C, "p.weight": HID})
T.img("depthwise", conv("Conv2d(d, d, 3, padding=1, groups=d)") + conv("Conv2d(d, d, 1)", "p"),
      "h = self.p(self.c(h))", {"c.weight": IN, "p.weight": HID})
T.img("four-groups", conv("Conv2d(d, d, 3, padding=1, groups=4)"), "h = F.relu(self.c(h))", C)
# groups of 4 channels each: fan_in is 4 * 9 at any width
T.img("groups-of-four", conv("Conv2d(d, d, 3, padding=1, groups=d // 4)"), "h = F.relu(self.c(h))",
      {"c.weight": IN})
# torch draws a transposed convolution by its fan_out, which grows as fan_in does
T.img("transposed", conv("ConvTranspose2d(d, d, 2, 2)"), "h = F.relu(self.c(h))", C)
T.img("transposed-depthwise",
      conv("ConvTranspose2d(d, d, 2, 2, groups=d)") + conv("Conv2d(d, d, 1)", "p"),
      "h = self.p(self.c(h))", {"c.weight": IN, "p.weight": HID})
T.img("group-norm", conv("Conv2d(d, d, 3, padding=1)") + "self.g = nn.GroupNorm(4, d)",
      "h = self.g(self.c(h))", {**C, "g.weight": IN, "g.bias": IN})
T.img("skip-concatenation",
      conv("Conv2d(d, 2 * d, 3, 2, 1)") + conv("ConvTranspose2d(2 * d, d, 2, 2)", "u")
      + conv("Conv2d(2 * d, d, 3, padding=1)", "m"),
      "h = F.relu(self.m(torch.cat([self.u(F.relu(self.c(h))), h], 1)))",
      {**C, "u.weight": HID, "m.weight": HID})
T.img("pixel-shuffle", conv("Conv2d(d, 4 * d, 3, padding=1)"),
      "h = F.pixel_shuffle(self.c(h), 2)", C)
T.img("channel-convolution", conv("Conv1d(1, 1, 3, padding=1)"),  # slides along the channels
      "g = self.c(h.mean((2, 3))[:, None]).transpose(1, 2)[..., None]\nh = h * torch.sigmoid(g)",
      {"c.weight": SCALAR})

# fmt: on
ROWS = T.rows


def said(parameter: automup.plan.Parameter) -> str:
    """A parameter of the plan in the words of the table."""
    usual = 4.0 if parameter.role in ("hidden", "output") else 1.0
    fan_in = parameter.ratios.fan_in
    extra = "" if fan_in == usual else f" in{fan_in:g}"
    if parameter.parts:
        rows = (f"{p.size}{'+' if p.grows else ''} x{p.init_mult:g}" for p in parameter.parts)
        return f"{parameter.role}{extra} {' | '.join(rows)}"
    return f"{parameter.role}{extra} x{parameter.init_mult:g}"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_plan_is_what_the_theory_says(row: Row) -> None:
    torch.manual_seed(0)
    if row.refused:
        with pytest.raises(row.error, match=row.refused):
            automup.parametrize(row.build, base=row.base, inputs=row.inputs)
        return
    plan = automup.parametrize(row.build, base=row.base, inputs=row.inputs).plan(4 * row.base)
    assert {p.name: said(p) for p in plan.parameters} == dict(row.weights)
    for p in plan.parameters:  # sizes counted at the uses grow as those of the shape do
        if not p.parts:
            grown = p.fan_in / p.base_fan_in, p.fan_out / p.base_fan_out
            assert grown == (p.ratios.fan_in, p.ratios.fan_out), p.name
    assert sorted((s.kind, s.exponents[0][1]) for s in plan.sites) == sorted(row.sites)
    for site in plan.sites:
        assert site.factor == pytest.approx(4.0 ** site.exponents[0][1])


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda d: nn.Linear(d, 3 * d, bias=False),
    "finite output": lambda d: nn.Linear(d, 5, bias=False),
    "conv": lambda d: nn.Conv1d(d, 2 * d, 3, padding=1, bias=False),
    "conv in groups": lambda d: nn.Conv1d(d, 2 * d, 3, padding=1, groups=2, bias=False),
    "transposed conv": lambda d: nn.ConvTranspose1d(d, 3 * d, 3, padding=1, bias=False),
    "transposed in groups": lambda d: nn.ConvTranspose1d(
        d, 2 * d, 3, padding=1, groups=2, bias=False
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_fans_are_what_the_derivatives_count(name: str) -> None:
    """fan_in: the entries that one output reads; fan_out: the outputs that one input feeds."""

    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed, self.layer = nn.Linear(4, width), LAYERS[name](width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.tanh(self.embed(x))
            return self.layer(x if isinstance(self.layer, nn.Linear) else x.mT)[..., :3]

    plan = automup.parametrize(Net, base={"width": 8}, inputs=(torch.randn(2, 5, 4),)).plan(16)
    layer = LAYERS[name](16)
    x = torch.randn(16) if isinstance(layer, nn.Linear) else torch.randn(1, 16, 5)

    def run(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    by_weight, by_input = torch.autograd.functional.jacobian(run, (layer.weight, x))
    outputs = by_weight.dim() - layer.weight.dim()
    p = plan.parameter("layer.weight")
    assert p.fan_in == by_weight.flatten(outputs).count_nonzero(-1).max()
    assert p.fan_out == by_input.flatten(0, outputs - 1).count_nonzero(0).max()


def test_an_axis_that_is_carried_along_counts_as_written() -> None:
    """A depthwise convolution, and a gain: each writes all its channels, by 3 taps or by one."""

    class Net(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.embed, self.norm = nn.Linear(4, width), nn.LayerNorm(width)
            self.conv = nn.Conv1d(width, width, 3, padding=1, groups=width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.norm(self.embed(x)).mT)[:, :5]

    plan = automup.parametrize(Net, base={"width": 8}, inputs=(torch.randn(2, 5, 4),)).plan(16)
    conv, gain = plan.parameter("conv.weight"), plan.parameter("norm.weight")
    assert (conv.fan_in, conv.fan_out, conv.base_fan_out) == (3, 16 * 3, 8 * 3)
    assert (gain.fan_in, gain.fan_out) == (1, 16)


def test_a_selective_state_space_is_said_to_be_disputed() -> None:
    init = "self.a = nn.Parameter(torch.zeros(d))\nself.dt = nn.Linear(d, d)"
    body = "y = torch.exp(-F.softplus(self.dt(h)) * torch.exp(self.a))\nh = h * y"
    notes = automup.parametrize(vectors(init, body), base=32, inputs=(IDS,)).plan(64).notes
    assert ["Vankadara" in note for note in notes] == [True]
    plain = vectors(init, "h = h * torch.exp(-F.softplus(self.dt(h))) * torch.exp(self.a)")
    assert automup.parametrize(plain, base=32, inputs=(IDS,)).plan(64).notes == ()


def test_names_and_places_are_those_of_the_source() -> None:
    row = next(r for r in ROWS if r.name == "attention-divided-by-root")
    (site,) = automup.parametrize(row.build, base=32, inputs=row.inputs).plan(128).sites
    line = Path(site.span.file).read_text().splitlines()[site.span.line - 1]
    expression = "q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))"
    assert line[site.span.column : site.span.end_column] == expression
    assert site.modules == ("a",)


@pytest.mark.parametrize("family", ["tokens", "floats"])
def test_what_strict_refuses_is_listed_without_it(family: str) -> None:
    row = next(r for r in ROWS if r.name == f"soft-merged-experts-{family}")
    mu = automup.parametrize(row.build, base=32, inputs=row.inputs, strict=False)
    assert any(u.reason.startswith("w: ") for u in mu.plan(128).unresolved)


# --- W3: knobs that are no dimension of any parameter --------------------------------------------


def by_heads(heads: int) -> nn.Module:
    build = model(
        "self.emb = nn.Embedding(64, d)\nself.l = nn.Linear(d, d)\nself.o = nn.Linear(d, 64)\n"
        "nn.init.normal_(self.l.weight, std=0.02)",
        "return self.o(F.relu(self.l(self.emb(x))))",
    )
    return build(8 * heads)


def test_apply_takes_no_wrong_width_where_the_knob_is_no_dimension() -> None:
    mu = automup.parametrize(by_heads, base={"heads": 4}, inputs=(TOKENS,))
    torch.manual_seed(0)
    made = mu(heads=16)
    torch.manual_seed(0)
    applied = mu.apply(by_heads(16), heads=16)
    for name, tensor in made.state_dict().items():
        assert torch.equal(applied.state_dict()[name], tensor), name
    torch.manual_seed(0)
    guessed = by_heads(16)
    try:
        mu.apply(guessed)
    except PlanError as error:
        assert "heads" in str(error)
    else:
        assert torch.equal(guessed.get_parameter("l.weight"), made.get_parameter("l.weight"))


def test_a_width_multiple_is_a_knob() -> None:
    mu = automup.parametrize(lambda times: by_heads(int(4 * times)), base={"times": 1.0},
                             inputs=(TOKENS,))  # fmt: skip
    assert mu.plan(times=4.0).parameter("l.weight").init_mult == 0.5


class Started(nn.Module):
    """A learned first input, the same for every example, which nothing but a matrix reads."""

    def __init__(self, embed: int = 16, hidden: int = 16) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.rand(embed))
        self.up, self.down = nn.Linear(5, embed), nn.Linear(hidden, 3)
        self.cell = nn.GRUCell(embed, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.cell(self.start.expand(len(x), -1))
        return self.down(self.cell(torch.relu(self.up(x)), h))


def test_a_learned_first_input_is_no_matrix_in_any_direction() -> None:
    """Where its size alone grows, the matrix has a finite number of rows, as it has."""
    mu = automup.parametrize(Started, base={"embed": 16, "hidden": 16}, inputs=(torch.randn(4, 5),))
    plan = mu.plan(embed=64, hidden=64)
    assert plan.parameter("start").role.value == "input"
    assert plan.parameter("cell.weight_ih").fan_in_dims == (1,)
    assert not plan.sites
