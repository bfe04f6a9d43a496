"""Attention written by hand: with matmul and einsum, over one sequence and between two."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def causal_mask(t: int) -> Tensor:
    return torch.triu(torch.ones(t, t, dtype=torch.bool), diagonal=1)


class Residual(nn.Module):
    """Embeds tokens, adds one attention layer and one MLP, reads out."""

    def __init__(self, width: int, attention: nn.Module, vocab: int = 64, length: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.pos = nn.Embedding(length, width)
        self.norm1 = nn.LayerNorm(width)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.pos(torch.arange(tokens.size(1), device=tokens.device))
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x)


class MatmulAttention(nn.Module):
    """The scale is written as a division by sqrt(d_k)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.d_k = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, self.d_k).permute(2, 0, 3, 1, 4)
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.d_k)
        scores = scores.masked_fill(causal_mask(t), float("-inf"))
        y = torch.matmul(scores.softmax(dim=-1), v)
        return self.proj(y.transpose(1, 2).reshape(b, t, d))


class EinsumAttention(nn.Module):
    """Raw parameters of shape (width, heads, head_dim), everything by einsum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        hd = width // heads
        self.wq = nn.Parameter(torch.randn(width, heads, hd) * width**-0.5)
        self.wk = nn.Parameter(torch.randn(width, heads, hd) * width**-0.5)
        self.wv = nn.Parameter(torch.randn(width, heads, hd) * width**-0.5)
        self.wo = nn.Parameter(torch.randn(heads, hd, width) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        q = torch.einsum("btd,dhk->bhtk", x, self.wq)
        k = torch.einsum("btd,dhk->bhtk", x, self.wk)
        v = torch.einsum("btd,dhk->bhtk", x, self.wv)
        scores = torch.einsum("bhtk,bhsk->bhts", q, k) * q.size(-1) ** -0.5
        scores = scores.masked_fill(causal_mask(x.size(1)), float("-inf"))
        y = torch.einsum("bhts,bhsk->bhtk", scores.softmax(-1), v)
        return torch.einsum("bhtk,hkd->btd", y, self.wo)


class OneOverDAttention(nn.Module):
    """In muP already: logits over d, not over its root."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(x).chunk(3, dim=-1)
        )
        logits = q @ k.mT * (8 / (d // self.heads))
        logits = logits.masked_fill(causal_mask(t), float("-inf"))
        return self.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


class UnscaledAttention(nn.Module):
    """T5's: no scale at all."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.o = nn.Linear(width, width, bias=False)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        weights = torch.softmax(torch.matmul(q, k.transpose(2, 3)), dim=-1)
        return self.o(torch.matmul(weights, v).transpose(1, 2).flatten(2))


class LearnedTemperatureAttention(nn.Module):
    """One learned temperature per head, beside 1/sqrt(d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.tau = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = (q @ k.transpose(-2, -1)) / math.sqrt(d // self.heads) * self.tau
        attn = attn.masked_fill(causal_mask(t), float("-inf")).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, t, d))


class CosineAttention(nn.Module):
    """QK-norm as in Swin v2 and ViT-22B's cousin: normalised q and k, a learned log scale."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.logit_scale = nn.Parameter(torch.log(10 * torch.ones(heads, 1, 1)))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attn = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        attn = attn * torch.clamp(self.logit_scale, max=math.log(100.0)).exp()
        attn = attn.masked_fill(causal_mask(t), float("-inf")).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, t, d))


class QKNormAttention(nn.Module):
    """QK-norm by RMSNorm with gains over the head (Qwen 3, OLMo 2), and 1/sqrt(d)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        hd = width // heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.q_norm, self.k_norm = nn.RMSNorm(hd), nn.RMSNorm(hd)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        shape = (b, t, self.heads, -1)
        q = self.q_norm(self.q(x).view(shape)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(shape)).transpose(1, 2)
        v = self.v(x).view(shape).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, d))


class SoftCappedAttention(nn.Module):
    """Gemma 2's: logits through 30 tanh(x / 30)."""

    def __init__(self, width: int, heads: int, cap: float = 30.0) -> None:
        super().__init__()
        self.heads, self.cap = heads, cap
        self.scaling = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        logits = torch.matmul(q, k.transpose(2, 3)) * self.scaling
        logits = torch.tanh(logits / self.cap) * self.cap
        logits = logits.masked_fill(causal_mask(t), float("-inf"))
        return self.proj((logits.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d))


class LinearAttention(nn.Module):
    """Katharopoulos et al.: elu + 1 feature maps, bidirectional."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        kv = torch.einsum("bhtk,bhtv->bhkv", k, v)
        z = 1 / torch.einsum("bhtk,bhk->bht", q, k.sum(dim=2))
        y = torch.einsum("bhtk,bhkv,bht->bhtv", q, kv, z)
        return self.proj(y.transpose(1, 2).reshape(b, t, d))


class CausalLinearAttention(nn.Module):
    """By a cumulative sum, softmax feature maps as in Shen et al., no denominator."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q = q.softmax(dim=-1)
        k = k.exp() / t
        memory = (k.unsqueeze(-1) * v.unsqueeze(-2)).cumsum(dim=2)
        y = (q.unsqueeze(-2) @ memory).squeeze(-2)
        return self.proj(y.transpose(1, 2).reshape(b, t, d))


class Matmul(Residual):
    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, MatmulAttention(width, heads))


class Einsum(Residual):
    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, EinsumAttention(width, heads))


class OneOverD(Residual):
    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, OneOverDAttention(width, heads))


class Unscaled(Residual):
    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, UnscaledAttention(width, heads))


class LearnedTemperature(Residual):
    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, LearnedTemperatureAttention(width, heads))


class Cosine(Residual):
    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, CosineAttention(width, heads))


class QKNorm(Residual):
    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, QKNormAttention(width, heads))


class SoftCapped(Residual):
    """Caps the final logits as well."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, SoftCappedAttention(width, heads))

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.tanh(super().forward(tokens) / 30.0) * 30.0


class Linear(Residual):
    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, LinearAttention(width, heads))


class CausalLinear(Residual):
    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__(width, CausalLinearAttention(width, heads))


class CrossAttention(nn.Module):
    def __init__(self, width: int, context: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(context, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        b, n, d = x.shape
        q = self.to_q(x)
        k, v = self.to_kv(context).chunk(2, dim=-1)
        q, k, v = (z.reshape(b, -1, self.heads, d // self.heads).transpose(1, 2) for z in (q, k, v))
        sim = torch.einsum("bhid,bhjd->bhij", q, k) * (d // self.heads) ** -0.5
        out = torch.einsum("bhij,bhjd->bhid", sim.softmax(dim=-1), v)
        return self.to_out(out.transpose(1, 2).reshape(b, n, d))


class TextConditioned(nn.Module):
    """Image tokens attend to a finite text embedding and to each other's wide memory."""

    def __init__(self, width: int = 32, text_dim: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(8, width)
        self.memory = nn.Linear(text_dim, width)
        self.cross_finite = CrossAttention(width, text_dim)
        self.cross_wide = CrossAttention(width, width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        x = self.inp(x)
        x = x + self.cross_finite(self.norm(x), text)
        x = x + self.cross_wide(self.norm(x), torch.relu(self.memory(text)))
        return self.out(x)
