"""Sets, graphs, latents, queries, reversible and highway layers, diffusion, GANs, KANs."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeepSets(nn.Module):
    """rho(sum phi(x)); the set is finite."""

    def __init__(self, width: int = 32, n_in: int = 6, n_out: int = 10) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width))
        self.rho = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.rho(torch.relu(self.phi(x).sum(dim=1)))


class GraphConv(nn.Module):
    """Messages along edges, added by index_add_."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.lin = nn.Linear(n_in, n_out, bias=False)
        self.root = nn.Linear(n_in, n_out)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        message = self.lin(x)[source]
        out = torch.zeros_like(self.root(x)).index_add_(0, target, message)
        degree = torch.zeros(len(x)).index_add_(0, target, torch.ones(len(target)))
        return self.root(x) + out / degree.clamp(min=1).unsqueeze(-1)


class GCN(nn.Module):
    def __init__(self, width: int = 32, n_in: int = 6, n_out: int = 10) -> None:
        super().__init__()
        self.conv1 = GraphConv(n_in, width)
        self.conv2 = GraphConv(width, width)
        self.conv3 = GraphConv(width, n_out)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = F.relu(self.conv1(x, edges))
        x = F.relu(self.conv2(x, edges))
        return self.conv3(x, edges)


class GAT(nn.Module):
    """Attention over edges: a is contracted with the features, softmax by scatter."""

    def __init__(self, width: int = 32, n_in: int = 6, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(n_in, width)
        self.w = nn.Linear(width, width, bias=False)
        self.a_src = nn.Parameter(torch.randn(width) * width**-0.5)
        self.a_dst = nn.Parameter(torch.randn(width) * width**-0.5)
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        h = self.w(F.elu(self.inp(x)))
        score = F.leaky_relu((h * self.a_src).sum(-1)[source] + (h @ self.a_dst)[target], 0.2)
        weight = score.exp()
        total = torch.zeros(len(x)).scatter_add(0, target, weight)
        alpha = (weight / total[target].clamp(min=1e-9)).unsqueeze(-1)
        y = torch.zeros_like(h).scatter_add(
            0, target[:, None].expand_as(h[source]), alpha * h[source]
        )
        return self.out(F.elu(y))


class Highway(nn.Module):
    """Gates between a layer and the identity; residual branches scaled by 1/sqrt(2)."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10, depth: int = 2) -> None:
        super().__init__()
        self.inp = nn.Linear(n_in, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.gates = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        for gate in self.gates:
            nn.init.constant_(gate.bias, -1.0)
        self.branch = nn.Linear(width, width)
        self.alpha = nn.Parameter(torch.zeros(1))
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for layer, gate in zip(self.layers, self.gates, strict=False):
            t = torch.sigmoid(gate(x))
            x = t * F.relu(layer(x)) + (1 - t) * x
        x = (x + F.relu(self.branch(x))) * math.sqrt(0.5)
        x = x + self.alpha * torch.tanh(x)
        return self.out(x)


class RevNet(nn.Module):
    """Reversible blocks: two streams, each added to by a function of the other."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10, depth: int = 2) -> None:
        super().__init__()
        self.inp = nn.Linear(n_in, 2 * width)
        self.f = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.g = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.out = nn.Linear(2 * width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.inp(x).chunk(2, dim=-1)
        for f, g in zip(self.f, self.g, strict=False):
            x1 = x1 + torch.tanh(f(x2))
            x2 = x2 + torch.tanh(g(x1))
        return self.out(torch.cat([x1, x2], dim=-1))


class _RevFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x > 0)


class CustomFunction(nn.Module):
    """An autograd.Function of the author's own in the middle."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(n_in, width)
        self.hid = nn.Linear(width, width)
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(_RevFunction.apply(self.hid(_RevFunction.apply(self.inp(x)))))


class Perceiver(nn.Module):
    """Learned latents attend to the input, then to each other; the latents go into layers."""

    def __init__(self, width: int = 32, n_latents: int = 6, n_in: int = 8, n_out: int = 10) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(n_latents, width))
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(n_in, width, bias=False)
        self.to_v = nn.Linear(n_in, width, bias=False)
        self.cross_out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        latents = self.latents.unsqueeze(0).expand(x.size(0), -1, -1)
        q, k, v = self.to_q(latents), self.to_k(x), self.to_v(x)
        attn = (torch.einsum("bnd,bmd->bnm", q, k) / math.sqrt(q.size(-1))).softmax(-1)
        z = latents + self.cross_out(torch.einsum("bnm,bmd->bnd", attn, v))
        q, k, v = self.qkv(self.norm(z)).chunk(3, dim=-1)
        z = z + self.proj(F.scaled_dot_product_attention(q, k, v))
        return self.out(z.mean(dim=1))


class DETR(nn.Module):
    """Object queries: a table that is the decoder's input, by its weight alone."""

    def __init__(self, width: int = 32, n_queries: int = 5, n_classes: int = 9) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, width, 4, stride=4)
        self.query_embed = nn.Embedding(n_queries, width)
        self.row_embed = nn.Parameter(torch.rand(8, width // 2))
        self.col_embed = nn.Parameter(torch.rand(8, width // 2))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.linear_class = nn.Linear(width, n_classes + 1)
        self.linear_bbox = nn.Linear(width, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        h = self.backbone(image)
        rows, cols = h.shape[-2:]
        pos = torch.cat(
            [
                self.col_embed[:cols].unsqueeze(0).repeat(rows, 1, 1),
                self.row_embed[:rows].unsqueeze(1).repeat(1, cols, 1),
            ],
            dim=-1,
        ).flatten(0, 1)
        memory = h.flatten(2).permute(0, 2, 1) + pos
        query = self.query_embed.weight.unsqueeze(0).repeat(len(image), 1, 1)
        target = torch.zeros_like(query)
        q = self.q(self.norm1(target + query))
        logits = q @ self.k(memory).transpose(1, 2) * q.size(-1) ** -0.5
        y = self.norm2(target + self.o(logits.softmax(-1) @ self.v(memory)))
        return {"logits": self.linear_class(y), "boxes": self.linear_bbox(y).sigmoid()}


class HyperNetwork(nn.Module):
    """One net writes the weights of another: two infinite axes from one output."""

    def __init__(self, width: int = 8, n_in: int = 6, n_out: int = 10) -> None:
        super().__init__()
        self.width = width
        self.task = nn.Linear(4, 16)
        self.make = nn.Linear(16, width * width)
        self.inp = nn.Linear(n_in, width)
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor, task: Tensor) -> Tensor:
        w = self.make(torch.relu(self.task(task))).view(-1, self.width, self.width)
        h = torch.relu(self.inp(x))
        return self.out(torch.relu(torch.bmm(w, h.unsqueeze(-1)).squeeze(-1)))


class FiLM(nn.Module):
    """A network that writes a gain and a bias for each channel: coordinate-wise, so it is fine."""

    def __init__(self, width: int = 32, n_in: int = 12, n_cond: int = 4, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(n_in, width)
        self.hid = nn.Linear(width, width)
        self.film = nn.Linear(n_cond, 2 * width)
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.film(condition).chunk(2, dim=-1)
        h = torch.relu(self.inp(x))
        return self.out(torch.relu(self.hid(h) * (1 + gamma) + beta))


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    half = dim // 2
    freqs = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    args = t[:, None].float() * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


class ResBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int, emb: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.emb = nn.Linear(emb, n_out)
        self.norm2, self.conv2 = nn.GroupNorm(4, n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.skip = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.emb(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class AttentionBlock(nn.Module):
    """One head over pixels; q and k are scaled by d^-1/4 each, as in OpenAI's code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.qkv = nn.Conv1d(channels, channels * 3, 1)
        self.proj = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x).view(b, c, h * w)).chunk(3, dim=1)
        scale = 1 / math.sqrt(math.sqrt(c))
        weight = torch.einsum("bct,bcs->bts", q * scale, k * scale).softmax(dim=-1)
        return x + self.proj(torch.einsum("bts,bcs->bct", weight, v)).view(b, c, h, w)


class DiffusionUNet(nn.Module):
    """A time embedding of sines as wide as the model, attention at the lowest resolution."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.channels = channels
        self.time = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels)
        )
        self.inp = nn.Conv2d(3, channels, 3, padding=1)
        self.down = ResBlock(channels, channels, 4 * channels)
        self.pool = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.mid = ResBlock(2 * channels, 2 * channels, 4 * channels)
        self.attn = AttentionBlock(2 * channels)
        self.up = ResBlock(3 * channels, channels, 4 * channels)
        self.norm = nn.GroupNorm(4, channels)
        self.out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        emb = self.time(timestep_embedding(t, self.channels))
        h1 = self.down(self.inp(x), emb)
        h = self.attn(self.mid(self.pool(h1), emb))
        h = F.interpolate(h, scale_factor=2, mode="nearest")
        h = self.up(torch.cat([h1, h], dim=1), emb)
        return self.out(F.silu(self.norm(h)))


class DCGANGenerator(nn.Module):
    """Transposed convolutions from a noise vector to an image."""

    def __init__(self, ngf: int = 16, nz: int = 12) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, 4 * ngf, 4, 1, 0, bias=False),
            nn.BatchNorm2d(4 * ngf),
            nn.ReLU(True),
            nn.ConvTranspose2d(4 * ngf, 2 * ngf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * ngf),
            nn.ReLU(True),
            nn.ConvTranspose2d(2 * ngf, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
        for m in self.main:
            if isinstance(m, nn.ConvTranspose2d):
                nn.init.normal_(m.weight, 0.0, 0.02)

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


class KANLinear(nn.Module):
    """efficient-kan: a base weight and one spline per pair, by B-splines on a fixed grid."""

    def __init__(self, n_in: int, n_out: int, grid: int = 4, order: int = 2) -> None:
        super().__init__()
        self.n_in, self.order = n_in, order
        h = 2 / grid
        knots = torch.arange(-order, grid + order + 1) * h - 1
        self.register_buffer("grid", knots.expand(n_in, -1).contiguous())
        self.base_weight = nn.Parameter(torch.empty(n_out, n_in))
        self.spline_weight = nn.Parameter(torch.randn(n_out, n_in, grid + order) * 0.1 * n_in**-0.5)
        nn.init.kaiming_uniform_(self.base_weight, a=math.sqrt(5))

    def b_splines(self, x: Tensor) -> Tensor:
        x, grid = x.unsqueeze(-1), self.grid
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)])
            right = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:(-k)])
            bases = left * bases[..., :-1] + right * bases[..., 1:]
        return bases

    def forward(self, x: Tensor) -> Tensor:
        spline = self.b_splines(x).view(x.size(0), -1)
        return F.linear(F.silu(x), self.base_weight) + F.linear(
            spline, self.spline_weight.view(self.spline_weight.size(0), -1)
        )


class KAN(nn.Module):
    def __init__(self, width: int = 16, n_in: int = 6, n_out: int = 10) -> None:
        super().__init__()
        self.layer1 = KANLinear(n_in, width)
        self.layer2 = KANLinear(width, width)
        self.layer3 = KANLinear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer3(self.layer2(self.layer1(x)))
