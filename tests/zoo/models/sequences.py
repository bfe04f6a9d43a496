"""Models of series: dilated convolutions, long convolutions, retention, audio, forecasts."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class WaveNet(nn.Module):
    """Gated dilated convolutions; a sum of skips that goes with the depth."""

    def __init__(
        self, residual: int = 32, skip: int = 32, levels: int = 3, quant: int = 64
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(quant, residual)
        self.filters, self.gates = nn.ModuleList(), nn.ModuleList()
        self.residuals, self.skips = nn.ModuleList(), nn.ModuleList()
        for i in range(levels):
            self.filters.append(nn.Conv1d(residual, residual, 2, dilation=2**i))
            self.gates.append(nn.Conv1d(residual, residual, 2, dilation=2**i))
            self.residuals.append(nn.Conv1d(residual, residual, 1))
            self.skips.append(nn.Conv1d(residual, skip, 1))
        self.end1, self.end2 = nn.Conv1d(skip, skip, 1), nn.Conv1d(skip, quant, 1)

    def forward(self, samples: Tensor) -> Tensor:
        x = self.embed(samples).transpose(1, 2)
        total: Tensor | float = 0.0
        for i in range(len(self.filters)):
            padded = F.pad(x, (2**i, 0))
            z = torch.tanh(self.filters[i](padded)) * torch.sigmoid(self.gates[i](padded))
            total = total + self.skips[i](z)
            x = (x + self.residuals[i](z)) * math.sqrt(0.5)
        return self.end2(F.relu(self.end1(F.relu(total)))).transpose(1, 2)


class HyenaFilter(nn.Module):
    def __init__(self, d_model: int, order: int, length: int, hidden: int = 16) -> None:
        super().__init__()
        t = torch.linspace(0, 1, length)[:, None]
        bands = torch.linspace(1e-4, 3, 4)[None]
        angles = 2 * math.pi * t * bands
        self.register_buffer("z", torch.cat([t, angles.cos(), -angles.sin()], 1))
        self.register_buffer("t", t)
        deltas = torch.linspace(math.log(1e-2) / 1.5, math.log(1e-2) / 0.3, d_model * (order - 1))
        self.register_buffer("deltas", deltas[None])
        self.mlp = nn.Sequential(
            nn.Linear(9, hidden), nn.SiLU(), nn.Linear(hidden, d_model * (order - 1), bias=False)
        )
        self.bias = nn.Parameter(torch.randn(order - 1, d_model))

    def forward(self, length: int) -> Tensor:
        decay = torch.exp(-self.t[:length] * self.deltas.abs())
        return self.mlp(self.z[:length]) * decay


def fft_conv(u: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """Causal convolution along the last axis, of finite length."""
    length = u.shape[-1]
    k_f = torch.fft.rfft(k, n=2 * length) / (2 * length)
    u_f = torch.fft.rfft(u, n=2 * length)
    y = torch.fft.irfft(u_f * k_f, n=2 * length, norm="forward")[..., :length]
    return y + u * bias.unsqueeze(-1)


class Hyena(nn.Module):
    """A hierarchy of gates and long implicit convolutions."""

    def __init__(
        self, d_model: int = 32, length: int = 12, order: int = 2, vocab: int = 64
    ) -> None:
        super().__init__()
        self.order, self.d_model = order, d_model
        self.embed = nn.Embedding(vocab, d_model)
        self.norm = nn.LayerNorm(d_model)
        inner = d_model * (order + 1)
        self.in_proj = nn.Linear(d_model, inner)
        self.short_filter = nn.Conv1d(inner, inner, 3, padding=2, groups=inner)
        self.filter_fn = HyenaFilter(d_model, order, length)
        self.out_proj = nn.Linear(d_model, d_model)
        self.head = nn.Linear(d_model, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        length = x.size(1)
        u = self.in_proj(self.norm(x)).transpose(1, 2)
        uc = self.short_filter(u)[..., :length]
        *gates, v = uc.split(self.d_model, dim=1)
        k = self.filter_fn(length).view(length, self.order - 1, self.d_model).permute(1, 2, 0)
        for o, gate in enumerate(reversed(gates[1:])):
            v = fft_conv(v * gate, k[o], self.filter_fn.bias[o])
        y = self.out_proj((v * gates[0]).transpose(1, 2))
        return self.head(x + y)


class Retention(nn.Module):
    """RetNet in chunks: decay inside a chunk, a state of keys times values between them."""

    def __init__(self, dim: int = 32, heads: int = 2, chunk: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.heads, self.chunk = heads, chunk
        self.embed = nn.Embedding(vocab, dim)
        self.norm = nn.RMSNorm(dim)
        self.q, self.k, self.v, self.g, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(5))
        self.group_norm = nn.GroupNorm(heads, dim, affine=False)
        self.scaling = (dim // heads) ** -0.5
        decay = torch.log(1 - 2 ** (-5 - torch.arange(heads, dtype=torch.float)))
        self.register_buffer("decay", decay)
        self.head = nn.Linear(dim, vocab)

    def retain(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            f(x).view(b, t // self.chunk, self.chunk, self.heads, -1).permute(1, 0, 3, 2, 4)
            for f in (self.q, self.k, self.v)
        )
        k = k * self.scaling
        step = torch.arange(self.chunk, dtype=x.dtype)
        gap = step[:, None] - step[None]
        mask = torch.exp(gap * self.decay[:, None, None]).tril()
        inner = torch.exp((step + 1) * self.decay[:, None])[..., None]
        tail = torch.exp((self.chunk - 1 - step) * self.decay[:, None])[..., None]
        across = torch.exp(self.chunk * self.decay)[:, None, None]
        state = torch.zeros(b, self.heads, d // self.heads, d // self.heads)
        outputs = []
        for i in range(q.size(0)):
            local = (q[i] @ k[i].mT * mask) @ v[i]
            outputs.append(local + (q[i] * inner) @ state)
            state = state * across + (k[i] * tail).mT @ v[i]
        y = torch.stack(outputs, 1).permute(0, 1, 3, 2, 4).reshape(b * t, d)
        return self.group_norm(y).view(b, t, d)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        h = self.norm(x)
        return self.head(x + self.o(F.silu(self.g(h)) * self.retain(h)))


class GatedLinearAttention(nn.Module):
    """A state with a forget gate for each channel, made by a low-rank projection."""

    def __init__(self, dim: int = 32, heads: int = 2, gate_rank: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.heads = heads
        self.embed, self.norm = nn.Embedding(vocab, dim), nn.LayerNorm(dim)
        self.q_proj = nn.Linear(dim, dim // 2, bias=False)
        self.k_proj = nn.Linear(dim, dim // 2, bias=False)
        self.k_gate = nn.Sequential(nn.Linear(dim, gate_rank), nn.Linear(gate_rank, dim // 2))
        self.v_proj, self.g_proj = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim, bias=False)
        self.scaling = (dim // 2 // heads) ** -0.5
        self.head_norm = nn.LayerNorm(dim // heads, elementwise_affine=False)
        self.head = nn.Linear(dim, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        b, t, d = x.shape
        h = self.norm(x)
        q, k, v = (
            f(h).view(b, t, self.heads, -1).transpose(1, 2)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        gate = (F.logsigmoid(self.k_gate(h)) / 16).exp().view(b, t, self.heads, -1).transpose(1, 2)
        state = q.new_zeros(b, self.heads, k.size(-1), v.size(-1))
        out = []
        for i in range(t):
            state = state * gate[:, :, i, :, None] + k[:, :, i, :, None] * v[:, :, i, None, :]
            out.append(torch.einsum("bhk,bhkv->bhv", q[:, :, i] * self.scaling, state))
        y = self.head_norm(torch.stack(out, dim=2)).transpose(1, 2).reshape(b, t, d)
        return self.head(x + self.out_proj(y * F.silu(self.g_proj(h))))


def sinusoids(length: int, channels: int, max_timescale: int = 10000) -> Tensor:
    increment = math.log(max_timescale) / (channels // 2 - 1)
    inverse = torch.exp(-increment * torch.arange(channels // 2))
    scaled = torch.arange(length)[:, None] * inverse[None]
    return torch.cat([scaled.sin(), scaled.cos()], dim=1)


class WhisperAttention(nn.Module):
    def __init__(self, n_state: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.query, self.key = nn.Linear(n_state, n_state), nn.Linear(n_state, n_state, bias=False)
        self.value, self.out = nn.Linear(n_state, n_state), nn.Linear(n_state, n_state)

    def forward(self, x: Tensor, xa: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        q = self.query(x)
        k, v = self.key(x if xa is None else xa), self.value(x if xa is None else xa)
        _, n_ctx, n_state = q.shape
        scale = (n_state // self.n_head) ** -0.25
        q = q.view(*q.shape[:2], self.n_head, -1).permute(0, 2, 1, 3) * scale
        k = k.view(*k.shape[:2], self.n_head, -1).permute(0, 2, 3, 1) * scale
        v = v.view(*v.shape[:2], self.n_head, -1).permute(0, 2, 1, 3)
        qk = q @ k
        if mask is not None:
            qk = qk + mask[:n_ctx, :n_ctx]
        return self.out((qk.float().softmax(-1) @ v).permute(0, 2, 1, 3).flatten(2))


class WhisperBlock(nn.Module):
    def __init__(self, n_state: int, n_head: int, cross: bool = False) -> None:
        super().__init__()
        self.attn, self.attn_ln = WhisperAttention(n_state, n_head), nn.LayerNorm(n_state)
        self.cross = WhisperAttention(n_state, n_head) if cross else None
        self.cross_ln = nn.LayerNorm(n_state) if cross else None
        self.mlp = nn.Sequential(
            nn.Linear(n_state, 4 * n_state), nn.GELU(), nn.Linear(4 * n_state, n_state)
        )
        self.mlp_ln = nn.LayerNorm(n_state)

    def forward(self, x: Tensor, xa: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.attn_ln(x), mask=mask)
        if self.cross:
            x = x + self.cross(self.cross_ln(x), xa)
        return x + self.mlp(self.mlp_ln(x))


class Whisper(nn.Module):
    """Audio to text, as published: a frozen table of sinusoids, a decoder with a tied readout."""

    def __init__(
        self, n_state: int = 32, n_head: int = 2, n_mels: int = 8, n_vocab: int = 64
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, n_state, 3, padding=1)
        self.conv2 = nn.Conv1d(n_state, n_state, 3, stride=2, padding=1)
        self.register_buffer("positional_embedding", sinusoids(8, n_state))
        self.encoder = nn.ModuleList([WhisperBlock(n_state, n_head)])
        self.ln_post = nn.LayerNorm(n_state)
        self.token_embedding = nn.Embedding(n_vocab, n_state)
        self.text_positions = nn.Parameter(torch.empty(16, n_state).normal_(std=0.01))
        self.decoder = nn.ModuleList([WhisperBlock(n_state, n_head, cross=True)])
        self.ln = nn.LayerNorm(n_state)
        self.register_buffer("mask", torch.full((16, 16), -torch.inf).triu_(1), persistent=False)

    def forward(self, mel: Tensor, tokens: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).permute(0, 2, 1)
        x = (x + self.positional_embedding).to(x.dtype)
        for block in self.encoder:
            x = block(x)
        xa = self.ln_post(x)
        y = self.token_embedding(tokens) + self.text_positions[: tokens.shape[-1]]
        for block in self.decoder:
            y = block(y, xa, mask=self.mask)
        y = self.ln(y)
        return (y @ torch.transpose(self.token_embedding.weight.to(y.dtype), 0, 1)).float()


class GRN(nn.Module):
    """A gated residual network of the Temporal Fusion Transformer."""

    def __init__(self, n_in: int, hidden: int, n_out: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(n_in, hidden), nn.Linear(hidden, hidden)
        self.gate = nn.Linear(hidden, 2 * n_out)
        self.skip = nn.Linear(n_in, n_out) if n_in != n_out else nn.Identity()
        self.norm = nn.LayerNorm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.skip(x) + F.glu(self.gate(self.fc2(F.elu(self.fc1(x))))))


class TemporalFusion(nn.Module):
    """Variable selection, an LSTM, attention whose heads share their values, quantiles."""

    def __init__(self, hidden: int = 32, variables: int = 6, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.hidden = heads, hidden
        self.embed = nn.ModuleList([nn.Linear(1, hidden) for _ in range(variables)])
        self.select = GRN(hidden * variables, hidden, variables)
        self.each = nn.ModuleList([GRN(hidden, hidden, hidden) for _ in range(variables)])
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.gate, self.norm = nn.Linear(hidden, 2 * hidden), nn.LayerNorm(hidden)
        self.qk = nn.Linear(hidden, 2 * hidden)
        self.v = nn.Linear(hidden, hidden // heads)
        self.o = nn.Linear(hidden // heads, hidden)
        self.quantiles = nn.Linear(hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = [f(x[..., i : i + 1]) for i, f in enumerate(self.embed)]
        weights = self.select(torch.cat(parts, dim=-1)).softmax(dim=-1).unsqueeze(-2)
        stacked = torch.stack([f(p) for f, p in zip(self.each, parts, strict=True)], dim=-1)
        chosen = (stacked * weights).sum(dim=-1)
        y, _ = self.lstm(chosen)
        y = self.norm(chosen + F.glu(self.gate(y)))
        b, t, _ = y.shape
        q, k = self.qk(y).view(b, t, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT / math.sqrt(self.hidden // self.heads)).softmax(-1).mean(dim=1)
        return self.quantiles(y + self.o(scores @ self.v(y)))
