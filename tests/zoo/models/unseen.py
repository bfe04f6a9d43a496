"""Models in whose like a fault was found once, and mechanisms that no other model here has."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SortedMoE(nn.Module):
    """Experts of a language model, each on its tokens in a row, as many as bincount says."""

    def __init__(self, dim: int = 32, experts: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(vocab, dim), nn.RMSNorm(dim)
        self.gate = nn.Linear(dim, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))
            for _ in range(experts)
        )
        self.head = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens)
        x = self.norm(h).flatten(0, 1)
        weights, chosen = self.gate(x).sigmoid().topk(2)
        weights = (weights / weights.sum(-1, keepdim=True)).flatten()
        order = chosen.flatten().argsort()
        counts = torch.bincount(chosen.flatten(), minlength=len(self.experts)).tolist()
        out, start = torch.zeros_like(x), 0
        for expert, count in zip(self.experts, counts, strict=True):
            if count == 0:
                continue
            rows, start = order[start : start + count], start + count
            out.index_add_(0, rows // 2, expert(x[rows // 2]) * weights[rows, None])
        return self.head(h + out.view_as(h))


class SinkAttention(nn.Module):
    """Logits of a learned sink beside those of the keys, and heads of a fixed size."""

    def __init__(self, dim: int = 32, heads: int = 4, groups: int = 2, vocab: int = 64) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, 8
        self.embed, self.norm = nn.Embedding(vocab, dim), nn.RMSNorm(dim)
        self.qkv = nn.Linear(dim, self.size * (heads + 2 * groups))
        self.sinks = nn.Parameter(torch.zeros(heads))
        self.out, self.head = nn.Linear(heads * self.size, dim), nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens)
        b, t, _ = h.shape
        sizes = [self.size * n for n in (self.heads, self.groups, self.groups)]
        q, k, v = self.qkv(self.norm(h)).split(sizes, -1)
        q = q.view(b, t, self.groups, -1, self.size)
        k, v = (z.view(b, t, self.groups, self.size) for z in (k, v))
        logits = torch.einsum("bqgmd,bkgd->bgmqk", q, k) * self.size**-0.5
        logits = logits + torch.full((t, t), -math.inf).triu(1)
        sinks = self.sinks.view(1, self.groups, -1, 1, 1).expand(b, -1, -1, t, -1)
        weights = torch.cat([logits, sinks], -1).softmax(-1)[..., :-1]
        heads = torch.einsum("bgmqk,bkgd->bqgmd", weights, v).flatten(2)
        return self.head(h + self.out(heads))


class MaskedConv2d(nn.Conv2d):
    """It zeroes its own weight in place, before every use."""

    def __init__(self, centre: bool, *args: int, **settings: int) -> None:
        super().__init__(*args, **settings)
        mask, (h, w) = torch.ones_like(self.weight), self.kernel_size
        mask[:, :, h // 2, w // 2 + centre :] = 0
        mask[:, :, h // 2 + 1 :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data *= self.mask
        return super().forward(x)


class PixelCNN(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(
            MaskedConv2d(False, 3, width, 5, padding=2), nn.BatchNorm2d(width), nn.ReLU(),
            MaskedConv2d(True, width, width, 5, padding=2), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 8, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PointerNetwork(nn.Module):
    """A decoder that points at its inputs; it starts from a learned vector."""

    def __init__(self, embed: int = 32, hidden: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(6, embed)
        self.encoder = nn.LSTM(embed, hidden, batch_first=True)
        self.cell = nn.LSTMCell(embed, hidden)
        self.keys, self.query = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        self.point = nn.Linear(hidden, 1, bias=False)
        self.start = nn.Parameter(torch.rand(embed))

    def forward(self, points: Tensor) -> Tensor:
        x = self.embed(points)
        encoded, (h, c) = self.encoder(x)
        h, c, given, steps = h[-1], c[-1], self.start.expand(len(x), -1), []
        for _ in range(3):
            h, c = self.cell(given, (h, c))
            logits = self.point(torch.tanh(self.keys(encoded) + self.query(h)[:, None]))
            steps.append(logits.squeeze(-1))
            given = (logits.softmax(1) * x).sum(1)
        return torch.stack(steps, 1)


class SpatialTransformer(nn.Module):
    """A grid of samples that the image itself sets, and dropout of whole features at 0.5."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(3, width, 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.place = nn.Linear(4 * width, 6)
        nn.init.zeros_(self.place.weight)
        self.place.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.first, self.second = nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3)
        self.drop, self.out = nn.Dropout2d(), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.place(self.look(x).flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, [*x.shape], align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        x = F.relu(self.drop(self.second(F.relu(self.first(x)))))
        return self.out(x.mean((2, 3)))


class BinaryNet(nn.Module):
    """Signs of weights that are kept in one flat vector, times their mean size."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.up, self.down, self.width = nn.Linear(12, width), nn.Linear(width, 5), width
        self.flat = nn.Parameter(torch.randn(width * width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.flat.view(self.width, -1)
        signs = weight.abs().mean(1, keepdim=True).detach() * weight.sign()
        signs = signs.detach() - weight.detach() + weight
        return self.down(F.relu(F.linear(F.relu(self.up(x)), signs)))


class TopKAutoencoder(nn.Module):
    """The best few of many latents, put back into their places."""

    def __init__(self, latents: int = 32) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(12, latents), nn.Linear(latents, 12)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.encode(x))
        best, where = h.topk(4, -1)
        return self.decode(torch.zeros_like(h).scatter_(-1, where, best))


class GraphNet(nn.Module):
    """Drawn anew before every run by reset_parameters, which the constructor does not call."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(6, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 5)]
        )

    def reset_parameters(self) -> None:
        for layer in self.layers:
            layer.reset_parameters()

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        degree = torch.bincount(target, minlength=len(x)).clamp(min=1).unsqueeze(-1)
        for i, layer in enumerate(self.layers):
            x = F.relu(x) if i else x
            x = layer(x)
            x = x + torch.zeros_like(x).index_add_(0, target, x[source]) / degree
        return x


class NoisyLinear(nn.Module):
    """Weights with learned noise in training, drawn once by its constructor."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        bound = fan_in**-0.5
        self.mu = nn.Parameter(torch.empty(fan_out, fan_in).uniform_(-bound, bound))
        self.sigma = nn.Parameter(torch.full((fan_out, fan_in), 0.5 * bound))
        self.bias = nn.Parameter(torch.zeros(fan_out))
        self.register_buffer("noise", torch.outer(torch.randn(fan_out), torch.randn(fan_in)))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.mu + self.sigma * self.noise if self.training else self.mu
        return F.linear(x, weight, self.bias)


class DuelingNoisyNet(nn.Module):
    def __init__(self, hidden: int = 32, actions: int = 4) -> None:
        super().__init__()
        self.features = nn.Linear(12, hidden)
        self.advantage = nn.Sequential(
            NoisyLinear(hidden, hidden), nn.ReLU(), NoisyLinear(hidden, actions)
        )
        self.value = nn.Sequential(NoisyLinear(hidden, hidden), nn.ReLU(), NoisyLinear(hidden, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.features(x))
        advantage = self.advantage(h)
        return self.value(h) + advantage - advantage.mean(-1, keepdim=True)


class Monarch(nn.Module):
    """Two block-diagonal matrices with a permutation between."""

    def __init__(self, width: int = 32, blocks: int = 4) -> None:
        super().__init__()
        self.up, self.down, self.blocks = nn.Linear(12, width), nn.Linear(width, 5), blocks
        size = width // blocks
        self.left, self.right = (
            nn.Parameter(torch.randn(blocks, size, size) * size**-0.5) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.up(x)).unflatten(-1, (self.blocks, -1))
        h = torch.einsum("bki,kji->bkj", h, self.left)
        h = h.transpose(1, 2).reshape(len(x), self.blocks, -1)
        h = torch.einsum("bki,kji->bkj", h, self.right)
        return self.down(F.gelu(h.transpose(1, 2).flatten(1)))


class FactorizationMachine(nn.Module):
    """All pairs of fields at once: the square of a sum less the sum of squares."""

    def __init__(self, dim: int = 16, fields: int = 3) -> None:
        super().__init__()
        self.linear, self.embed = nn.Embedding(64, 1), nn.Embedding(64, dim)
        self.deep = nn.Sequential(nn.Linear(fields * dim, dim), nn.ReLU(), nn.Linear(dim, 1))

    def forward(self, ids: Tensor) -> Tensor:
        e = self.embed(ids)
        pairs = 0.5 * (e.sum(1).square() - e.square().sum(1)).sum(-1, keepdim=True)
        return self.linear(ids).sum(1) + pairs + self.deep(e.flatten(1))


class MinGRU(nn.Module):
    """A recurrence computed at once, in logarithms."""

    def __init__(self, dim: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(vocab, dim), nn.RMSNorm(dim)
        self.gates, self.out = nn.Linear(dim, 2 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.head = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        hidden, gate = self.gates(self.norm(x)).chunk(2, -1)
        kept = (-F.softplus(gate)).cumsum(1)
        values = torch.where(hidden >= 0, (F.relu(hidden) + 0.5).log(), -F.softplus(-hidden))
        state = (kept + (values - F.softplus(-gate) - kept).logcumsumexp(1)).exp()
        return self.head(x + self.out(state))


class SetAttention(nn.Module):
    """Learned seeds look at a set; the logits are divided by the root of the whole width."""

    def __init__(self, dim: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.dim, self.embed = heads, dim, nn.Linear(6, dim)
        self.seeds = nn.Parameter(torch.empty(1, 3, dim))
        nn.init.xavier_uniform_(self.seeds)
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.out = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.q(self.seeds.repeat(len(x), 1, 1)), self.k(x), self.v(x)
        q, k, v = (torch.cat(z.split(self.dim // self.heads, 2)) for z in (q, k, v))
        weights = torch.softmax(q.bmm(k.transpose(1, 2)) / math.sqrt(self.dim), 2)
        h = torch.cat((q + weights.bmm(v)).split(len(x)), 2)
        return self.out(h + F.relu(self.o(h)))


class RandomGate(nn.Module):
    """A fixed random scale of every feature, smaller the more there are."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.up, self.mid, self.down = (
            nn.Linear(12, width),
            nn.Linear(width, width),
            nn.Linear(width, 5),
        )
        self.register_buffer("gate", torch.randn(width) * width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.mid(torch.tanh(self.up(x)) * self.gate)))
