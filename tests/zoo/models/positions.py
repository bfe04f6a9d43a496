"""Positions: ALiBi, T5's buckets, Transformer-XL, Swin's window tables, rotary, class tokens."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AlibiAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        slopes = torch.tensor([2 ** (-8 * (i + 1) / heads) for i in range(heads)])
        self.register_buffer("slopes", slopes.view(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.c_attn(x).split(d, dim=2)
        q, k, v = (z.view(b, t, self.heads, self.head_dim).transpose(1, 2) for z in (q, k, v))
        att = (q @ k.transpose(-2, -1)) / math.sqrt(self.head_dim)
        where = torch.arange(t)
        distance = where[None, :] - where[:, None]
        att = att + self.slopes * distance
        att = att.masked_fill(distance > 0, float("-inf"))
        y = F.softmax(att, dim=-1) @ v
        return self.c_proj(y.transpose(1, 2).contiguous().view(b, t, d))


class Alibi(nn.Module):
    """No position embeddings; a linear bias on the logits."""

    def __init__(self, width: int = 32, heads: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.norm = nn.LayerNorm(width)
        self.attn = AlibiAttention(width, heads)
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.head(x + self.attn(self.norm(x)))


class T5Attention(nn.Module):
    """Unscaled logits plus a learned bias per bucket of distances and head."""

    def __init__(self, d_model: int, n_heads: int, d_kv: int, n_buckets: int = 8) -> None:
        super().__init__()
        self.n_heads, self.d_kv, self.n_buckets = n_heads, d_kv, n_buckets
        inner = n_heads * d_kv
        self.q = nn.Linear(d_model, inner, bias=False)
        self.k = nn.Linear(d_model, inner, bias=False)
        self.v = nn.Linear(d_model, inner, bias=False)
        self.o = nn.Linear(inner, d_model, bias=False)
        self.relative_attention_bias = nn.Embedding(n_buckets, n_heads)

    def bias(self, t: int) -> Tensor:
        where = torch.arange(t)
        distance = (where[:, None] - where[None, :]).clamp(min=0)
        exact = self.n_buckets // 2
        log = torch.log(distance.float().clamp(min=1) / exact) / math.log(32 / exact)
        far = (exact + log * (self.n_buckets - exact)).long().clamp(max=self.n_buckets - 1)
        bucket = torch.where(distance < exact, distance, far)
        return self.relative_attention_bias(bucket).permute(2, 0, 1).unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape

        def heads(z: Tensor) -> Tensor:
            return z.view(b, -1, self.n_heads, self.d_kv).transpose(1, 2)

        scores = torch.matmul(heads(self.q(x)), heads(self.k(x)).transpose(3, 2))
        scores = scores + self.bias(t)
        weights = F.softmax(scores.float(), dim=-1).type_as(scores)
        y = torch.matmul(weights, heads(self.v(x))).transpose(1, 2).contiguous().view(b, t, -1)
        return self.o(y)


class T5Norm(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6))


class T5Encoder(nn.Module):
    """d_model, d_ff and d_kv are knobs of their own; the readout is tied and scaled by d^-1/2."""

    def __init__(
        self, d_model: int = 32, d_ff: int = 64, d_kv: int = 8, n_heads: int = 4, vocab: int = 64
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.shared = nn.Embedding(vocab, d_model)
        self.norm1, self.norm2, self.norm3 = T5Norm(d_model), T5Norm(d_model), T5Norm(d_model)
        self.attn = T5Attention(d_model, n_heads, d_kv)
        self.wi = nn.Linear(d_model, d_ff, bias=False)
        self.wo = nn.Linear(d_ff, d_model, bias=False)
        nn.init.normal_(self.attn.q.weight, std=(d_model * d_kv) ** -0.5)
        nn.init.normal_(self.attn.k.weight, std=d_model**-0.5)
        nn.init.normal_(self.attn.v.weight, std=d_model**-0.5)
        nn.init.normal_(self.attn.o.weight, std=(n_heads * d_kv) ** -0.5)
        nn.init.normal_(self.wi.weight, std=d_model**-0.5)
        nn.init.normal_(self.wo.weight, std=d_ff**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.shared(tokens)
        x = x + self.attn(self.norm1(x))
        x = x + self.wo(F.relu(self.wi(self.norm2(x))))
        return F.linear(self.norm3(x) * self.d_model**-0.5, self.shared.weight)


class XLAttention(nn.Module):
    """Transformer-XL: content and position terms, learned biases u and v, a relative shift."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.scale = 1 / (self.head_dim**0.5)
        self.qkv_net = nn.Linear(width, 3 * width, bias=False)
        self.r_net = nn.Linear(width, width, bias=False)
        self.o_net = nn.Linear(width, width, bias=False)
        self.r_w_bias = nn.Parameter(torch.zeros(heads, self.head_dim))
        self.r_r_bias = nn.Parameter(torch.zeros(heads, self.head_dim))

    def rel_shift(self, x: Tensor) -> Tensor:
        i, j, b, n = x.shape
        padded = torch.cat([x.new_zeros(i, 1, b, n), x], dim=1)
        return padded.view(j + 1, i, b, n)[1:].view(i, j, b, n)

    def forward(self, w: Tensor, r: Tensor) -> Tensor:
        t, b, _ = w.shape
        q, k, v = (z.view(t, b, self.heads, self.head_dim) for z in self.qkv_net(w).chunk(3, -1))
        r_k = self.r_net(r).view(-1, self.heads, self.head_dim)
        ac = torch.einsum("ibnd,jbnd->ijbn", q + self.r_w_bias, k)
        bd = self.rel_shift(torch.einsum("ibnd,jnd->ijbn", q + self.r_r_bias, r_k))
        score = (ac + bd) * self.scale
        mask = torch.triu(torch.ones(t, t, dtype=torch.bool), diagonal=1)
        prob = score.masked_fill(mask[:, :, None, None], float("-inf")).softmax(dim=1)
        out = torch.einsum("ijbn,jbnd->ibnd", prob, v)
        return self.o_net(out.contiguous().view(t, b, -1))


class TransformerXL(nn.Module):
    """Embeddings are multiplied by sqrt(d)."""

    def __init__(self, d_model: int = 32, heads: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.emb_scale = d_model**0.5
        self.word_emb = nn.Embedding(vocab, d_model)
        self.attn = XLAttention(d_model, heads)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.ff = nn.Sequential(
            nn.Linear(d_model, 2 * d_model), nn.ReLU(), nn.Linear(2 * d_model, d_model)
        )
        self.out = nn.Linear(d_model, vocab)
        inv_freq = 1 / (10000 ** (torch.arange(0.0, d_model, 2.0) / d_model))
        self.register_buffer("inv_freq", inv_freq)

    def forward(self, tokens: Tensor) -> Tensor:
        t = tokens.size(1)
        angles = torch.outer(torch.arange(t - 1, -1, -1.0), self.inv_freq)
        r = torch.cat([angles.sin(), angles.cos()], dim=-1)
        x = self.word_emb(tokens.t()) * self.emb_scale
        x = self.norm1(x + self.attn(x, r))
        x = self.norm2(x + self.ff(x))
        return self.out(x).transpose(0, 1)


class WindowAttention(nn.Module):
    """Swin's: a table of biases per relative position in a window, and head."""

    def __init__(self, dim: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        coords = torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        )
        flat = coords.flatten(1)
        relative = (flat[:, :, None] - flat[:, None, :]).permute(1, 2, 0) + window - 1
        index = relative[..., 0] * (2 * window - 1) + relative[..., 1]
        self.register_buffer("relative_position_index", index)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        attn = attn + bias.view(n, n, -1).permute(2, 0, 1).contiguous().unsqueeze(0)
        x = (attn.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, c)
        return self.proj(x)


class SwinBlock(nn.Module):
    def __init__(self, dim: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s = self.window
        y = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        y = y.view(b, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        y = self.attn(y).view(b, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(b, h, w, c), (self.shift, self.shift), (1, 2))
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    """Two stages; patch merging doubles the width."""

    def __init__(self, embed_dim: int = 16, heads: int = 2, n_classes: int = 10) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, embed_dim, 2, stride=2)
        self.block1 = SwinBlock(embed_dim, heads, 4, 0)
        self.block2 = SwinBlock(embed_dim, heads, 4, 2)
        self.norm = nn.LayerNorm(4 * embed_dim)
        self.reduction = nn.Linear(4 * embed_dim, 2 * embed_dim, bias=False)
        self.block3 = SwinBlock(2 * embed_dim, 2 * heads, 4, 0)
        self.head = nn.Linear(2 * embed_dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        x = self.block2(self.block1(x))
        quarters = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = self.reduction(self.norm(torch.cat(quarters, dim=-1)))
        return self.head(self.block3(x).mean((1, 2)))


class ViT(nn.Module):
    """A class token and learned positions of shape (1, n + 1, d), used as they are."""

    def __init__(self, dim: int = 32, heads: int = 4, n_classes: int = 10) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, dim, 4, stride=4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, dim) * 0.02)
        self.norm1 = nn.LayerNorm(dim)
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, n_classes)

    def attend(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, n, d))

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.size(0), -1, -1), x], dim=1) + self.pos_embed
        x = x + self.attend(self.norm1(x))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(self.norm(x)[:, 0])


class Gemma(nn.Module):
    """Embeddings times sqrt(d), rotary positions, a tied readout, capped logits."""

    def __init__(self, width: int = 32, heads: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.width, self.heads, self.head_dim = width, heads, width // heads
        self.embed = nn.Embedding(vocab, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.norm1, self.norm2, self.norm3 = (nn.RMSNorm(width) for _ in range(3))
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate = nn.Linear(width, 2 * width, bias=False)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def rotate(self, x: Tensor) -> Tensor:
        t, half = x.size(-2), self.head_dim // 2
        freqs = 10000 ** (-torch.arange(half).float() / half)
        angle = torch.arange(t).float()[:, None] * freqs
        x1, x2 = x.chunk(2, dim=-1)
        return torch.cat(
            [x1 * angle.cos() - x2 * angle.sin(), x2 * angle.cos() + x1 * angle.sin()], -1
        )

    def attend(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            f(x).view(b, t, self.heads, self.head_dim).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(b, t, d))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x * torch.tensor(self.width**0.5, dtype=x.dtype)
        x = x + self.attend(self.norm1(x))
        y = self.norm2(x)
        x = x + self.down(F.gelu(self.gate(y), approximate="tanh") * self.up(y))
        logits = self.norm3(x) @ self.embed.weight.t()
        return 30 * torch.tanh(logits / 30)
