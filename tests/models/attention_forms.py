"""One attention, written in the many ways that people write it: the text of a model file each."""

from __future__ import annotations

import re
import textwrap

_FILE = '''"""A one-layer decoder; its attention is written in one of many ways."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
@imports@

class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
@init@
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1)
        )  # each (batch, heads, time, head_dim)
@attend@
        return self.out(y.transpose(1, 2).flatten(2))


class Net(nn.Module):
    """Token ids in, logits out."""

    def __init__(self, dim: int = 32, heads: int = 2, vocab: int = 64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.attention = Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        x = x + self.attention(F.layer_norm(x, x.shape[-1:]))
        return self.head(self.norm(x))
'''

_SOFTMAX = "y = scores.softmax(-1) @ v"

#: What makes ``y`` from ``q, k, v``; optionally lines for the constructor; and for the file's top.
_WAYS: dict[str, tuple[str, ...]] = {
    "pre-scaled q": (
        """
q = q * self.head_dim**-0.5
scores = q @ k.transpose(-2, -1)
"""
        + _SOFTMAX,
    ),
    "both pre-scaled": (
        """
q, k = q * self.head_dim**-0.25, k * self.head_dim**-0.25
scores = q @ k.transpose(-2, -1)
"""
        + _SOFTMAX,
    ),
    "SDPA with a scale": (
        "y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.head_dim**-0.5)",
    ),
    "SDPA under another name": (
        "y = attend(q, k, v)",
        "",
        "from torch.nn.functional import scaled_dot_product_attention as attend",
    ),
    "SDPA with no scale": ("y = F.scaled_dot_product_attention(q, k, v, scale=None)",),
    "SDPA with a number for a scale": ("y = F.scaled_dot_product_attention(q, k, v, scale=0.125)",),
    "SDPA, scale in an attribute": (
        "y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)",
        "self.scale = self.head_dim**-0.5",
    ),
    "over the root": (
        """
scores = q @ k.mT / q.shape[-1]**0.5
"""
        + _SOFTMAX,
    ),
    "einsum": (
        """
scores = torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(self.head_dim)
y = torch.einsum("bhts,bhsd->bhtd", scores.softmax(-1), v)
""",
    ),
    "einsum with dots": (
        """
scores = torch.einsum("...td,...sd->...ts", q, k).div(math.sqrt(self.head_dim))
"""
        + _SOFTMAX,
    ),
    "baddbmm with alpha": (
        """
b, h, t, _ = q.shape
scores = torch.baddbmm(
    torch.zeros(1, t, t, dtype=q.dtype, device=q.device),
    q.flatten(0, 1),
    k.flatten(0, 1).transpose(1, 2),
    beta=0,
    alpha=1 / math.sqrt(self.head_dim),
).unflatten(0, (b, h))
"""
        + _SOFTMAX,
    ),
    "free function": (
        "y = attend(q, k, v)",
        "",
        """
def attend(q, k, v):
    # (batch, heads, time, head_dim) each
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    return scores.softmax(-1) @ v
""",
    ),
    "free function with the scale": (
        "y = attend(q, k, v, self.head_dim**-0.5)",
        "",
        """
def attend(q, k, v, scale):
    return (q @ k.transpose(-2, -1) * scale).softmax(-1) @ v
""",
    ),
    "augmented assignment": (
        """
scores = q @ k.transpose(-2, -1)
scores /= math.sqrt(self.head_dim)
"""
        + _SOFTMAX,
    ),
    "in place method": (
        """
scores = torch.matmul(q, k.transpose(-2, -1)).div_(math.sqrt(self.head_dim))
"""
        + _SOFTMAX,
    ),
    "no scale": (
        """
scores = q @ k.transpose(-2, -1)
"""
        + _SOFTMAX,
    ),
    "times the attribute": (
        """
scores = (q @ k.transpose(-2, -1)) * self.scale
"""
        + _SOFTMAX,
        "self.scale = self.head_dim**-0.5",
    ),
    "scale in a buffer": (
        """
scores = (q @ k.transpose(-2, -1)) / self.scale
"""
        + _SOFTMAX,
        'self.register_buffer("scale", torch.tensor(math.sqrt(self.head_dim)), persistent=False)',
    ),
    "root of a tensor": (
        """
scores = (q @ k.transpose(-2, -1)) / torch.sqrt(torch.tensor(float(self.head_dim)))
"""
        + _SOFTMAX,
    ),
    "cosine similarity": (
        """
q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
scores = (q @ k.transpose(-2, -1)) * 10
"""
        + _SOFTMAX,
    ),
    "numpy's root": (
        """
scores = q @ k.transpose(-2, -1) / np.sqrt(self.head_dim)
"""
        + _SOFTMAX,
        "",
        "import numpy as np",
    ),
    "lambda": (
        """
similarity = lambda a, b: a @ b.mT / math.sqrt(a.size(-1))  # noqa: E731
scores = similarity(q, k)
"""
        + _SOFTMAX,
    ),
    "per head": (
        """
ys = []
for h in range(self.heads):
    scores = q[:, h] @ k[:, h].mT / math.sqrt(self.head_dim)
    ys.append(scores.softmax(-1) @ v[:, h])
y = torch.stack(ys, dim=1)
""",
    ),
    "comprehension": (
        """
y = torch.stack(
    [
        (q[:, h] @ k[:, h].mT / math.sqrt(self.head_dim)).softmax(-1) @ v[:, h]
        for h in range(self.heads)
    ],
    dim=1,
)
""",
    ),
    "one expression": (
        """
y = torch.softmax(
    # scaled by the root of the head size, as in the paper
    q @ k.transpose(-2, -1) / math.sqrt(self.head_dim),  # (B, nh, T, T)
    dim=-1,
) @ v
""",
    ),
    "unicode": (
        """
σ = self.head_dim**-0.5
label, scores = "größe — ✓ 𝔘", (q @ k.mT) * σ  # Ähnlichkeit × σ
assert label
"""
        + _SOFTMAX,
    ),
    "walrus": (
        """
y = (scores := q @ k.mT * self.head_dim**-0.5).softmax(-1) @ v
assert scores is not None
""",
    ),
    "semicolon": (
        "a = q @ k.mT; a = a * self.head_dim**-0.5; y = a.softmax(-1) @ v  # noqa: E702",
    ),
    "masked": (
        """
t = q.size(-2)
mask = torch.ones(t, t, dtype=torch.bool, device=q.device).tril()
scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.head_dim)
scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
y = torch.matmul(F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype), v)
""",
    ),
    "alibi": (
        """
t = q.size(-2)
bias = -torch.arange(t, device=q.device).float()
scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.head_dim) + bias
y = torch.matmul(F.softmax(scores, dim=-1), v)
""",
    ),
    "product and sum": (
        """
scores = (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1) / math.sqrt(self.head_dim)
"""
        + _SOFTMAX,
    ),
    "linear attention": (
        """
q, k = F.elu(q) + 1, F.elu(k) + 1
kv = k.mT @ v
z = 1 / (q @ k.sum(-2, keepdim=True).mT)
y = (q @ kv) * z
""",
    ),
    "complex rotary embedding": (
        """
t, d = q.shape[-2:]
angles = torch.outer(torch.arange(t).float(), 1e4 ** -(torch.arange(0, d, 2).float() / d))
turn = torch.polar(torch.ones_like(angles), angles)  # as Llama's reference code has it
q, k = (
    torch.view_as_real(torch.view_as_complex(u.unflatten(-1, (-1, 2))) * turn).flatten(-2)
    for u in (q, k)
)
scores = q @ k.mT / math.sqrt(d)
"""
        + _SOFTMAX,
    ),
    "nn.MultiheadAttention": (
        "y = self.mha(x, x, x)[0].unflatten(-1, (self.heads, -1)).transpose(1, 2)",
        "self.mha = nn.MultiheadAttention(dim, heads, batch_first=True)",
    ),
    "a subclass of nn.MultiheadAttention": (
        "y = self.mha(x, x, x)[0].unflatten(-1, (self.heads, -1)).transpose(1, 2)",
        "self.mha = Own(dim, heads, batch_first=True)",
        "class Own(nn.MultiheadAttention):\n    pass\n",
    ),
    "a subclass that calls its parent": (
        "y = self.mha(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)",
        "self.mha = Own(dim, heads, batch_first=True)",
        """
class Own(nn.MultiheadAttention):
    def forward(self, x):
        return super().forward(x, x, x, need_weights=False)[0]
""",
    ),
    "a subclass that passes its parent by": (
        "y = self.mha(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)",
        "self.mha = Own(dim, heads, batch_first=True)",
        """
class Own(nn.MultiheadAttention):
    def forward(self, x):
        return nn.MultiheadAttention.forward(self, x, x, x, need_weights=False)[0]
""",
    ),
    "torch's function by hand": (
        """
h = x.transpose(0, 1)
h = F.multi_head_attention_forward(
    h, h, h, self.heads * self.head_dim, self.heads, self.qkv.weight, self.bias,
    None, None, False, 0.0, self.out.weight, None, self.training, need_weights=False,
)[0]
y = h.transpose(0, 1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
""",
        "self.bias = nn.Parameter(torch.zeros(3 * dim))",
    ),
    "torch's function by hand, of three weights": (
        """
h, (a, b, c) = x.transpose(0, 1), self.maps
h, weights = attend(
    query=h, key=h, value=h, embed_dim_to_check=a.in_features, num_heads=self.heads,
    in_proj_weight=None, in_proj_bias=torch.cat([a.bias, b.bias, c.bias]),
    bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
    out_proj_weight=self.out.weight, out_proj_bias=None, training=self.training,
    use_separate_proj_weight=True, q_proj_weight=a.weight, k_proj_weight=b.weight,
    v_proj_weight=c.weight,
)
y = h.transpose(0, 1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
""",
        "self.maps = nn.ModuleList(nn.Linear(dim, dim) for _ in range(3))",
        "from torch.nn.functional import multi_head_attention_forward as attend\n",
    ),
}

#: The ways that compute softmax(q k / sqrt(d)) v, which are all the same model.
STANDARD = (
    "pre-scaled q",
    "over the root",
    "einsum",
    "einsum with dots",
    "baddbmm with alpha",
    "free function",
    "free function with the scale",
    "augmented assignment",
    "in place method",
    "times the attribute",
    "scale in a buffer",
    "root of a tensor",
    "numpy's root",
    "lambda",
    "per head",
    "comprehension",
    "one expression",
    "unicode",
    "walrus",
    "semicolon",
    "product and sum",
    "both pre-scaled",
    "SDPA under another name",
    "SDPA with no scale",
    "SDPA, scale in an attribute",
)

#: Those that are in muP as they are.
NEUTRAL = ("cosine similarity", "linear attention")

#: Those whose attention is in code outside the file.
REFUSED = ("a subclass that passes its parent by",)

FORMS = tuple(name for name in _WAYS if name not in REFUSED)


def text(form: str) -> str:
    """The model file with its attention written in this way."""
    attend, init, imports = (*_WAYS[form], "", "")[:3]
    top = f"\n{imports.strip()}\n" if imports else ""
    made = _FILE.replace("@imports@\n", top).replace("@init@\n", _indented(init) + "\n")
    return made.replace("@attend@", _indented(attend))


def slug(form: str) -> str:
    """The form's name as part of a file's name."""
    return re.sub(r"\W+", "_", form)


def _indented(code: str) -> str:
    return textwrap.indent(code.strip("\n"), 8 * " ")
