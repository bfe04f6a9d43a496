"""Queries and fewer keys: multi-query and grouped-query attention, split and fused."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiQuery(nn.Module):
    """One key and value head, whose size grows with the queries' heads."""

    def __init__(self, dim: int = 32, n_heads: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, dim // n_heads
        self.embed = nn.Embedding(vocab, dim)
        self.norm = nn.LayerNorm(dim)
        self.wq = nn.Linear(dim, dim, bias=False)
        self.wkv = nn.Linear(dim, 2 * self.head_dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)
        self.head = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm(x)
        b, t, d = y.shape
        q = self.wq(y).view(b, t, self.n_heads, self.head_dim).transpose(1, 2)
        k, v = self.wkv(y).unsqueeze(1).chunk(2, dim=-1)
        att = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        mask = torch.ones(t, t, dtype=torch.bool).tril()
        att = att.masked_fill(~mask, float("-inf")).softmax(-1)
        return self.head(x + self.wo((att @ v).transpose(1, 2).reshape(b, t, d)))


class FixedKeyHeads(nn.Module):
    """Heads of a fixed size: there are more query heads in a wider model, but always two of keys.

    wk and wv have a fixed number of outputs then: they are outputs by the table.
    """

    def __init__(self, dim: int = 32, head_dim: int = 8, n_kv: int = 2, vocab: int = 64) -> None:
        super().__init__()
        self.n_heads, self.n_kv, self.head_dim = dim // head_dim, n_kv, head_dim
        self.embed = nn.Embedding(vocab, dim)
        self.norm = nn.RMSNorm(dim)
        self.wq = nn.Linear(dim, self.n_heads * head_dim, bias=False)
        self.wk = nn.Linear(dim, n_kv * head_dim, bias=False)
        self.wv = nn.Linear(dim, n_kv * head_dim, bias=False)
        self.wo = nn.Linear(self.n_heads * head_dim, dim, bias=False)
        self.head = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm(x)
        b, t, _ = y.shape
        q = self.wq(y).view(b, t, self.n_heads, self.head_dim).transpose(1, 2)
        k = self.wk(y).view(b, t, self.n_kv, self.head_dim).transpose(1, 2)
        v = self.wv(y).view(b, t, self.n_kv, self.head_dim).transpose(1, 2)
        k = k.repeat_interleave(self.n_heads // self.n_kv, dim=1)
        v = v.repeat_interleave(self.n_heads // self.n_kv, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.wo(out.transpose(1, 2).reshape(b, t, -1)))


class GroupedQuery(nn.Module):
    """A fixed number of heads and of key heads; the head size grows, keys are expanded."""

    def __init__(self, dim: int = 32, n_heads: int = 4, n_kv: int = 2, vocab: int = 64) -> None:
        super().__init__()
        self.n_heads, self.n_kv, self.head_dim = n_heads, n_kv, dim // n_heads
        self.embed = nn.Embedding(vocab, dim)
        self.norm = nn.RMSNorm(dim)
        self.wq = nn.Linear(dim, dim, bias=False)
        self.wk = nn.Linear(dim, n_kv * self.head_dim, bias=False)
        self.wv = nn.Linear(dim, n_kv * self.head_dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)
        self.head = nn.Linear(dim, vocab, bias=False)

    def expand_kv(self, x: Tensor) -> Tensor:
        b, t, n, d = x.shape
        repeats = self.n_heads // self.n_kv
        return x[:, :, :, None, :].expand(b, t, n, repeats, d).reshape(b, t, n * repeats, d)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm(x)
        b, t, _ = y.shape
        q = self.wq(y).view(b, t, self.n_heads, self.head_dim)
        k = self.expand_kv(self.wk(y).view(b, t, self.n_kv, self.head_dim))
        v = self.expand_kv(self.wv(y).view(b, t, self.n_kv, self.head_dim))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(x + self.wo(out.transpose(1, 2).reshape(b, t, -1)))


class FusedGrowing(nn.Module):
    """One projection for q, k and v of grouped heads; all parts grow alike."""

    def __init__(self, dim: int = 32, n_heads: int = 4, n_kv: int = 2, vocab: int = 64) -> None:
        super().__init__()
        self.n_heads, self.n_kv, self.head_dim = n_heads, n_kv, dim // n_heads
        self.embed = nn.Embedding(vocab, dim)
        self.norm = nn.RMSNorm(dim)
        self.wqkv = nn.Linear(dim, (n_heads + 2 * n_kv) * self.head_dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)
        self.head = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm(x)
        b, t, _ = y.shape
        kv = self.n_kv * self.head_dim
        q, k, v = self.wqkv(y).split([self.n_heads * self.head_dim, kv, kv], dim=-1)
        q, k, v = (z.view(b, t, -1, self.head_dim).transpose(1, 2) for z in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.head(x + self.wo(out.transpose(1, 2).reshape(b, t, -1)))


class FusedFixedKeys(nn.Module):
    """q grows beside k and v that do not, in one weight: parts of one tensor grow differently."""

    def __init__(self, dim: int = 32, head_dim: int = 8, n_kv: int = 1, vocab: int = 64) -> None:
        super().__init__()
        self.n_heads, self.n_kv, self.head_dim = dim // head_dim, n_kv, head_dim
        self.embed = nn.Embedding(vocab, dim)
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, (self.n_heads + 2 * n_kv) * head_dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)
        self.head = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        b, t, d = x.shape
        fixed = self.n_kv * self.head_dim
        q, k, v = self.qkv(self.norm(x)).split([d, fixed, fixed], dim=-1)
        q = q.view(b, t, self.n_heads, self.head_dim).transpose(1, 2)
        k = k.view(b, t, self.n_kv, self.head_dim).transpose(1, 2)
        v = v.view(b, t, self.n_kv, self.head_dim).transpose(1, 2)
        att = (q @ k.mT) * self.head_dim**-0.5
        return self.head(x + self.wo((att.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d)))


class PerHeadMaps(nn.Module):
    """Stacked maps of each head, with a fixed head size (so: carried along, fan_in finite)."""

    def __init__(self, dim: int = 32, head_dim: int = 8, n_out: int = 10) -> None:
        super().__init__()
        heads = dim // head_dim
        self.inp = nn.Linear(12, dim)
        self.maps = nn.Parameter(torch.randn(heads, head_dim, head_dim) * head_dim**-0.5)
        self.heads = heads
        self.out = nn.Linear(dim, n_out)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.inp(x)).view(x.size(0), self.heads, -1)
        h = torch.einsum("bhi,hij->bhj", h, self.maps)
        return self.out(torch.relu(h).flatten(1))
