"""Decoders as people fork and tweak them: new attentions, new blocks, their own configs."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


def rope(x: Tensor, base: float = 10000.0) -> Tensor:
    """Rotates (batch, heads, time, size) by position."""
    t, d = x.shape[-2:]
    freqs = base ** (-torch.arange(0, d, 2, device=x.device) / d)
    angles = torch.arange(t, device=x.device)[:, None] * freqs
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


class SpeedrunAttention(nn.Module):
    def __init__(self, dim: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Parameter(torch.empty(3, dim, dim).uniform_(-1, 1) * (3 / dim) ** 0.5)
        self.lambdas = nn.Parameter(torch.tensor([0.5, 0.5]))
        self.proj = nn.Linear(dim, dim, bias=False)
        self.proj.weight.detach().zero_()

    def forward(self, x: Tensor, ve: Tensor | None) -> Tensor:
        b, t, c = x.shape
        q, k, v = F.linear(x, self.qkv.flatten(0, 1)).view(b, t, 3 * self.n_head, -1).chunk(3, 2)
        q, k = rope(norm(q).transpose(1, 2)), rope(norm(k).transpose(1, 2))
        v = self.lambdas[0] * v
        if ve is not None:
            v = v + self.lambdas[1] * ve.view_as(v)
        y = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, scale=0.12)
        return self.proj(y.transpose(1, 2).reshape(b, t, c))


class SpeedrunMLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, 4 * dim, bias=False)
        self.out = nn.Linear(4 * dim, dim, bias=False)
        self.out.weight.detach().zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.fc(x)).square())


class SpeedrunGPT(nn.Module):
    """A modded nanoGPT: QK norm, value embeddings, skips with learned scalars, a soft cap."""

    def __init__(self, dim: int = 32, n_head: int = 2, depth: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.value_embeds = nn.ModuleList([nn.Embedding(vocab, dim) for _ in range(2)])
        self.attn = nn.ModuleList([SpeedrunAttention(dim, n_head) for _ in range(depth)])
        self.mlp = nn.ModuleList([SpeedrunMLP(dim) for _ in range(depth)])
        self.mix = nn.Parameter(torch.tensor([[1.0, 0.1]] * depth))
        self.skip = nn.Parameter(torch.ones(depth // 2))
        self.lm_head = nn.Linear(dim, vocab, bias=False)

    def forward(self, idx: Tensor) -> Tensor:
        ve = [table(idx) for table in self.value_embeds]
        ve = [*ve, *[None] * (len(self.attn) - 2 * len(ve)), *ve]
        x = x0 = norm(self.embed(idx))
        skips: list[Tensor] = []
        for i, (attn, mlp) in enumerate(zip(self.attn, self.mlp, strict=True)):
            if i >= len(self.attn) // 2:
                x = x + self.skip[i - len(self.attn) // 2] * skips.pop()
            x = self.mix[i, 0] * x + self.mix[i, 1] * x0
            x = x + attn(norm(x), ve[i])
            x = x + mlp(norm(x))
            if i < len(self.attn) // 2:
                skips.append(x)
        logits = self.lm_head(norm(x)).float()
        return 15 * torch.tanh(logits / 15)


@dataclass
class LitConfig:
    name: str = ""
    block_size: int = 64
    padded_vocab_size: int = 64
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 32
    head_size: int | None = None
    n_query_groups: int | None = 2
    intermediate_size: int | None = None
    rotary_percentage: float = 0.25
    rope_n_elem: int = field(init=False)

    def __post_init__(self) -> None:
        self.head_size = self.head_size or self.n_embd // self.n_head
        self.n_query_groups = self.n_query_groups or self.n_head
        self.intermediate_size = self.intermediate_size or 4 * self.n_embd
        self.rope_n_elem = int(self.rotary_percentage * self.head_size)

    @classmethod
    def from_name(cls, name: str, **kwargs: Any) -> "LitConfig":
        presets: dict[str, dict[str, Any]] = {"pico": {"n_layer": 2}, "nano": {"n_layer": 3}}
        return cls(name=name, **{**presets[name], **kwargs})


class LitBlock(nn.Module):
    def __init__(self, config: LitConfig) -> None:
        super().__init__()
        self.config = config
        shape = (config.n_head + 2 * config.n_query_groups) * config.head_size
        self.norm_1 = nn.LayerNorm(config.n_embd)
        self.attn = nn.Linear(config.n_embd, shape)
        self.proj = nn.Linear(config.head_size * config.n_head, config.n_embd)
        self.norm_2 = nn.LayerNorm(config.n_embd)
        self.fc_1 = nn.Linear(config.n_embd, config.intermediate_size, bias=False)
        self.fc_2 = nn.Linear(config.n_embd, config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.n_embd, bias=False)

    def attend(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        c = self.config
        q_per_kv = c.n_head // c.n_query_groups
        qkv = self.attn(x).view(b, t, c.n_query_groups, q_per_kv + 2, c.head_size)
        q, k, v = qkv.permute(0, 2, 3, 1, 4).split((q_per_kv, 1, 1), dim=2)
        k = k.expand(b, c.n_query_groups, q_per_kv, t, c.head_size)
        v = v.expand(b, c.n_query_groups, q_per_kv, t, c.head_size)
        q, k, v = (z.reshape(b, -1, t, c.head_size) for z in (q, k, v))
        n = c.rope_n_elem
        q = torch.cat((rope(q[..., :n]), q[..., n:]), dim=-1)
        k = torch.cat((rope(k[..., :n]), k[..., n:]), dim=-1)
        scale = 1.0 / math.sqrt(c.head_size)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        return self.proj(y.transpose(1, 2).reshape(b, t, c.head_size * c.n_head))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_1(x)
        y = self.norm_2(x)
        return x + self.attend(h) + self.down(F.silu(self.fc_1(y)) * self.fc_2(y))


class LitGPT(nn.Module):
    """A config with fields that derive from others, grouped queries fused, parallel residual."""

    def __init__(self, config: LitConfig) -> None:
        super().__init__()
        self.config = config
        self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
        self.transformer = nn.ModuleDict(
            dict(
                wte=nn.Embedding(config.padded_vocab_size, config.n_embd),
                h=nn.ModuleList(LitBlock(config) for _ in range(config.n_layer)),
                ln_f=nn.LayerNorm(config.n_embd),
            )
        )
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if getattr(module, "bias", None) is not None:
                torch.nn.init.zeros_(module.bias)

    def forward(self, idx: Tensor) -> Tensor:
        x = self.transformer.wte(idx)
        for block in self.transformer.h:
            x = block(x)
        return self.lm_head(self.transformer.ln_f(x))


class LatentAttention(nn.Module):
    """DeepSeek's: keys and values out of a small latent, a rotary part that heads share."""

    def __init__(self, dim: int, n_head: int, kv_rank: int, rope_dim: int = 4) -> None:
        super().__init__()
        self.n_head, self.kv_rank, self.rope_dim = n_head, kv_rank, rope_dim
        self.nope_dim = self.v_dim = dim // n_head
        self.q_proj = nn.Linear(dim, n_head * (self.nope_dim + rope_dim), bias=False)
        self.kv_down = nn.Linear(dim, kv_rank + rope_dim, bias=False)
        self.kv_norm = nn.RMSNorm(kv_rank)
        self.kv_up = nn.Linear(kv_rank, n_head * (self.nope_dim + self.v_dim), bias=False)
        self.o_proj = nn.Linear(n_head * self.v_dim, dim, bias=False)
        self.softmax_scale = (self.nope_dim + rope_dim) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q = self.q_proj(x).view(b, t, self.n_head, -1).transpose(1, 2)
        q_nope, q_pe = q.split([self.nope_dim, self.rope_dim], dim=-1)
        latent, k_pe = self.kv_down(x).split([self.kv_rank, self.rope_dim], dim=-1)
        kv = self.kv_up(self.kv_norm(latent)).view(b, t, self.n_head, -1).transpose(1, 2)
        k_nope, v = kv.split([self.nope_dim, self.v_dim], dim=-1)
        q = torch.cat([q_nope, rope(q_pe)], dim=-1)
        k_pe = rope(k_pe[:, None]).expand(-1, self.n_head, -1, -1)
        k = torch.cat([k_nope, k_pe], dim=-1)
        scores = torch.einsum("bhtd,bhsd->bhts", q, k) * self.softmax_scale
        mask = torch.full((t, t), float("-inf")).triu(1)
        y = (scores + mask).softmax(dim=-1) @ v
        return self.o_proj(y.transpose(1, 2).flatten(2))


class DeepSeek(nn.Module):
    """Latent attention; the rank grows with ``dim`` unless it is given."""

    def __init__(
        self, dim: int = 32, kv_rank: int | None = None, n_head: int = 2, vocab: int = 64
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.norms = nn.ModuleList([nn.RMSNorm(dim) for _ in range(3)])
        self.attn = LatentAttention(dim, n_head, kv_rank or dim // 2)
        self.gate_up = nn.Linear(dim, 2 * 3 * dim, bias=False)
        self.down = nn.Linear(3 * dim, dim, bias=False)
        self.head = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.attn(self.norms[0](x))
        gate, up = self.gate_up(self.norms[1](x)).chunk(2, dim=-1)
        x = x + self.down(F.silu(gate) * up)
        return self.head(self.norms[2](x))


def fixed_rank(dim: int = 32) -> nn.Module:
    """The latent keeps its size."""
    return DeepSeek(dim, kv_rank=8)


class DiffAttention(nn.Module):
    def __init__(self, dim: int, n_head: int, depth: int) -> None:
        super().__init__()
        self.n_head, self.head_dim = n_head, dim // n_head // 2
        self.scaling = self.head_dim**-0.5
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim, bias=False) for _ in "qkvo")
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            setattr(self, name, nn.Parameter(torch.zeros(self.head_dim).normal_(0, 0.1)))
        self.subln = nn.RMSNorm(2 * self.head_dim, eps=1e-5, elementwise_affine=True)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k = (f(x).view(b, t, 2 * self.n_head, self.head_dim) for f in (self.q, self.k))
        v = self.v(x).view(b, t, self.n_head, 2 * self.head_dim).transpose(1, 2)
        q = q.transpose(1, 2) * self.scaling
        a = q @ k.transpose(1, 2).transpose(-1, -2)
        a = a + torch.triu(torch.zeros(t, t).fill_(float("-inf")), 1)
        a = F.softmax(a, dim=-1, dtype=torch.float32).view(b, self.n_head, 2, t, t)
        lambda_1 = torch.exp(torch.sum(self.lambda_q1 * self.lambda_k1, dim=-1).float())
        lambda_2 = torch.exp(torch.sum(self.lambda_q2 * self.lambda_k2, dim=-1).float())
        lambda_full = lambda_1 - lambda_2 + self.lambda_init
        y = self.subln((a[:, :, 0] - lambda_full * a[:, :, 1]) @ v) * (1 - self.lambda_init)
        return self.o(y.transpose(1, 2).reshape(b, t, c))


class DiffTransformer(nn.Module):
    """Differential attention: λ is made of dot products of two weights, over the head size."""

    def __init__(self, width: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.norm, self.out_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attn = DiffAttention(width, 2, 1)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.head(self.out_norm(x + self.attn(self.norm(x))))


class SigmoidAttention(nn.Module):
    """Sigmoid in the place of softmax, with a learned bias that starts at -log(length)."""

    def __init__(self, width: int = 32, length: int = 12, vocab: int = 64) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.bias = nn.Parameter(torch.full((2, 1, 1), -math.log(length)))
        self.proj = nn.Linear(width, width)
        self.final = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.size(1)]
        b, t, c = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = torch.sigmoid(q @ k.mT / math.sqrt(c // 2) + self.bias).tril()
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(b, t, c))
        return self.head(self.final(x))


class DepthBlock(nn.Module):
    def __init__(self, dim: int, capacity: float) -> None:
        super().__init__()
        self.router = nn.Linear(dim, 1, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.capacity = capacity

    def forward(self, x: Tensor) -> Tensor:
        _, t, d = x.shape
        k = int(self.capacity * t)
        weights = self.router(x).squeeze(-1)
        top, index = torch.topk(weights, k, dim=1, sorted=False)
        index, order = torch.sort(index, dim=1)
        top = torch.gather(top, 1, order)
        where = index.unsqueeze(-1).expand(-1, -1, d)
        chosen = torch.gather(x, 1, where)
        done = self.down(F.gelu(self.up(self.norm(chosen)))) * torch.sigmoid(top).unsqueeze(-1)
        return torch.scatter_add(x, 1, where, done)


class MixtureOfDepths(nn.Module):
    """Half of the tokens, picked by a router, go through each block."""

    def __init__(self, dim: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.blocks = nn.Sequential(*[DepthBlock(dim, 0.5) for _ in range(2)])
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, vocab))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(tokens)))
