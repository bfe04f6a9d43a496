"""Mixers over tokens and channels, fixed-rank bottlenecks, selective state spaces."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MixerBlock(nn.Module):
    def __init__(self, dim: int, patches: int, token_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.token_fc1 = nn.Linear(patches, token_dim)
        self.token_fc2 = nn.Linear(token_dim, patches)
        self.norm2 = nn.LayerNorm(dim)
        self.channel_fc1 = nn.Linear(dim, 2 * dim)
        self.channel_fc2 = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x).transpose(1, 2)
        x = x + self.token_fc2(F.gelu(self.token_fc1(y))).transpose(1, 2)
        return x + self.channel_fc2(F.gelu(self.channel_fc1(self.norm2(x))))


class MLPMixer(nn.Module):
    """Token mixing acts on finite axes: its weights are scalars by role."""

    def __init__(
        self, dim: int = 32, token_dim: int = 24, depth: int = 2, n_classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, dim, 4, stride=4)
        self.blocks = nn.Sequential(*[MixerBlock(dim, 16, token_dim) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


class GMLP(nn.Module):
    """A spatial gating unit: half of the channels gates the other half, mixed over time."""

    def __init__(self, dim: int = 32, length: int = 12, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.norm = nn.LayerNorm(dim)
        self.proj_in = nn.Linear(dim, 4 * dim)
        self.sgu_norm = nn.LayerNorm(2 * dim)
        self.spatial = nn.Conv1d(length, length, 1)
        nn.init.constant_(self.spatial.bias, 1.0)
        self.proj_out = nn.Linear(2 * dim, dim)
        self.head = nn.Linear(dim, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        u, v = F.gelu(self.proj_in(self.norm(x))).chunk(2, dim=-1)
        y = u * self.spatial(self.sgu_norm(v))
        return self.head(x + self.proj_out(y))


class Bottleneck(nn.Module):
    """An adapter of a fixed rank in each block: down is an output, up an input by the table."""

    def __init__(self, width: int = 32, rank: int = 4, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(12, width)
        self.hid = nn.Linear(width, width)
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.inp(x))
        x = x + F.relu(self.hid(x))
        x = x + self.up(F.relu(self.down(x)))
        return self.out(x)


class LoRALinear(nn.Module):
    """x W + (x A) B * alpha / rank, with B = 0 at the start."""

    def __init__(self, n_in: int, n_out: int, rank: int = 4, alpha: float = 8.0) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.lora_a = nn.Parameter(torch.empty(n_in, rank))
        self.lora_b = nn.Parameter(torch.zeros(rank, n_out))
        nn.init.kaiming_uniform_(self.lora_a.t(), a=math.sqrt(5))
        self.scaling = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.lora_a @ self.lora_b * self.scaling


class LoRA(nn.Module):
    def __init__(self, width: int = 32, rank: int = 4, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(12, width)
        self.hid1 = LoRALinear(width, width, rank)
        self.hid2 = LoRALinear(width, 2 * width, rank)
        self.out = nn.Linear(2 * width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hid2(F.relu(self.hid1(F.relu(self.inp(x)))))))


class MergedLoRALinear(nn.Module):
    """W + B A, merged before it meets the activation."""

    def __init__(self, n_in: int, n_out: int, rank: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) * n_in**-0.5)
        self.a = nn.Parameter(torch.randn(rank, n_in) * n_in**-0.5)
        self.b = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight + self.b @ self.a)


class MergedLoRA(nn.Module):
    def __init__(self, width: int = 32, rank: int = 4, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(12, width)
        self.hid = MergedLoRALinear(width, width, rank)
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hid(F.relu(self.inp(x)))))


class SelectiveSSM(nn.Module):
    """Mamba's mixer in plain torch; the state size and the rank of dt are fixed.

    The projections to dt, B and C are three layers here, so that each has one role.
    """

    def __init__(self, width: int, state: int = 4, rank: int = 4, kernel: int = 3) -> None:
        super().__init__()
        inner = 2 * width
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, kernel, groups=inner, padding=kernel - 1)
        self.to_dt = nn.Linear(inner, rank, bias=False)
        self.to_b = nn.Linear(inner, state, bias=False)
        self.to_c = nn.Linear(inner, state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.a_log = nn.Parameter(torch.log(torch.arange(1.0, state + 1).repeat(inner, 1)))
        self.d = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        t = x.size(1)
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        x = F.silu(self.conv(x.transpose(1, 2))[..., :t].transpose(1, 2))
        dt = F.softplus(self.dt_proj(self.to_dt(x)))
        b, c = self.to_b(x), self.to_c(x)
        decay = torch.exp(dt.unsqueeze(-1) * -torch.exp(self.a_log))
        step = (dt * x).unsqueeze(-1) * b.unsqueeze(2)
        state = torch.zeros_like(step[:, 0])
        outputs = []
        for i in range(t):
            state = decay[:, i] * state + step[:, i]
            outputs.append((state * c[:, i].unsqueeze(1)).sum(-1))
        y = torch.stack(outputs, dim=1) + x * self.d
        return self.out_proj(y * F.silu(gate))


class Mamba(nn.Module):
    def __init__(self, width: int = 16, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.norm = nn.RMSNorm(width)
        self.mixer = SelectiveSSM(width)
        self.norm_f = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.mixer(self.norm(x))
        return self.head(self.norm_f(x))


class FusedMamba(nn.Module):
    """As published: x_proj is one layer to dt, B and C, and the rank of dt grows with the width."""

    def __init__(self, width: int = 32, state: int = 4, vocab: int = 64) -> None:
        super().__init__()
        inner, self.rank, self.state = 2 * width, math.ceil(width / 16), state
        self.embed = nn.Embedding(vocab, width)
        self.norm = nn.RMSNorm(width)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.x_proj = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.a_log = nn.Parameter(torch.log(torch.arange(1.0, state + 1).repeat(inner, 1)))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self.head = nn.Linear(width, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens)
        x, gate = self.in_proj(self.norm(h)).chunk(2, dim=-1)
        x = F.silu(x)
        dt, b, c = self.x_proj(x).split([self.rank, self.state, self.state], dim=-1)
        dt = F.softplus(self.dt_proj(dt))
        decay = torch.exp(dt.unsqueeze(-1) * -self.a_log.exp())
        state = x.new_zeros(x.size(0), x.size(2), self.state)
        outputs = []
        for i in range(x.size(1)):
            state = decay[:, i] * state + (dt[:, i] * x[:, i]).unsqueeze(-1) * b[:, i].unsqueeze(1)
            outputs.append(torch.einsum("bds,bs->bd", state, c[:, i]))
        y = torch.stack(outputs, dim=1) * F.silu(gate)
        return self.head(h + self.out_proj(y))
