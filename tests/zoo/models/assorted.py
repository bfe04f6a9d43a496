"""Tables, graphs, points, memories and odd containers, in the styles that people write them."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from einops import rearrange, repeat
from einops.layers.torch import EinMix, Rearrange, Reduce
from torch import Tensor


class FTTransformer(nn.Module):
    """A token for each feature of a table: weights times numbers, offsets into one embedding."""

    category_offsets: Tensor

    def __init__(
        self, d_token: int = 32, numbers: int = 5, categories: tuple[int, ...] = (4, 6)
    ) -> None:
        super().__init__()
        self.register_buffer("category_offsets", torch.tensor([0, *categories[:-1]]).cumsum(0))
        self.category_embeddings = nn.Embedding(sum(categories), d_token)
        self.weight = nn.Parameter(torch.empty(numbers + 1, d_token))
        self.bias = nn.Parameter(torch.empty(numbers + len(categories), d_token))
        for parameter in (self.weight, self.bias, self.category_embeddings.weight):
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
        self.norm0, self.norm1 = nn.LayerNorm(d_token), nn.LayerNorm(d_token)
        self.attention = nn.MultiheadAttention(d_token, 4, batch_first=True)
        self.linear0 = nn.Linear(d_token, int(d_token * 4 / 3) // 2 * 2 * 2)
        self.linear1 = nn.Linear(int(d_token * 4 / 3) // 2 * 2, d_token)
        self.last = nn.LayerNorm(d_token)
        self.head = nn.Linear(d_token, 3)

    def tokens(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        x_some = torch.cat([torch.ones(len(x_num), 1), x_num], dim=1)
        x = self.weight[None] * x_some[:, :, None]
        x = torch.cat([x, self.category_embeddings(x_cat + self.category_offsets[None])], dim=1)
        bias = torch.cat([torch.zeros(1, self.bias.shape[1]), self.bias])
        return x + bias[None]

    def forward(self, x_num: Tensor, x_cat: Tensor) -> Tensor:
        x = self.tokens(x_num, x_cat)
        h = self.norm0(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        a, b = self.linear0(self.norm1(x)).chunk(2, dim=-1)
        x = x + self.linear1(a * F.relu(b))
        return self.head(F.relu(self.last(x[:, 0])))


class EinopsViT(nn.Module):
    """einops throughout: layers, functions and EinMix."""

    def __init__(self, dim: int = 32, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.to_patches = nn.Sequential(
            Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=4, q=4), nn.LayerNorm(48),
            nn.Linear(48, dim),
        )  # fmt: skip
        self.cls, self.pos = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(17, dim))
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = EinMix("b n d -> qkv b h n e", weight_shape="qkv h d e",
                             qkv=3, d=dim, h=heads, e=dim // heads)  # fmt: skip
        self.merge = EinMix("b h n e -> b n d", weight_shape="h e d",
                            d=dim, h=heads, e=dim // heads)  # fmt: skip
        self.pool = Reduce("b n d -> b d", "mean")
        self.head = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.to_patches(images)
        cls = repeat(self.cls, "d -> b 1 d", b=len(x))
        x = torch.cat([cls, x], dim=1) + rearrange(self.pos, "n d -> 1 n d")
        q, k, v = self.to_qkv(self.norm(x))
        attention = (torch.einsum("bhie,bhje->bhij", q, k) * self.scale).softmax(dim=-1)
        x = x + self.merge(torch.einsum("bhij,bhje->bhie", attention, v))
        return self.head(self.pool(x))


class MPNN(nn.Module):
    """Messages over edges with features, gathered by index_add and by scatter_reduce."""

    def __init__(self, hidden: int = 32, steps: int = 2) -> None:
        super().__init__()
        self.steps = steps
        self.encode_node, self.encode_edge = nn.Linear(6, hidden), nn.Linear(3, hidden)
        self.message = nn.Sequential(
            nn.Linear(3 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
        )
        self.update = nn.GRUCell(2 * hidden, hidden)
        self.readout = nn.Linear(2 * hidden, 4)

    def forward(self, nodes: Tensor, edges: Tensor, features: Tensor) -> Tensor:
        h, e = torch.relu(self.encode_node(nodes)), torch.relu(self.encode_edge(features))
        source, target = edges
        h0 = h
        for _ in range(self.steps):
            m = self.message(torch.cat([h[source], h[target], e], dim=-1))
            total = torch.zeros_like(h).index_add(0, target, m)
            index = target[:, None].expand_as(m)
            most = torch.zeros_like(h).scatter_reduce(0, index, m, "amax", include_self=False)
            h = self.update(torch.cat([total, most], dim=-1), h)
        return self.readout(torch.cat([h, h0], dim=-1))


class GraphTransformer(nn.Module):
    """Softmax over each node's edges, by scatter; q·k as a sum of products."""

    def __init__(self, dim: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(6, dim)
        self.q, self.k, self.v, self.skip = (nn.Linear(dim, dim) for _ in range(4))
        self.edge = nn.Linear(3, dim, bias=False)
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, 4)

    def forward(self, nodes: Tensor, edges: Tensor, features: Tensor) -> Tensor:
        x = self.embed(nodes)
        n, d = x.shape
        source, target = edges
        e = self.edge(features).view(-1, self.heads, d // self.heads)
        q, k, v = (f(x).view(n, self.heads, d // self.heads) for f in (self.q, self.k, self.v))
        k_j, v_j = k[source] + e, v[source] + e
        alpha = (q[target] * k_j).sum(dim=-1) / math.sqrt(d // self.heads)
        alpha = torch.exp(alpha - alpha.max())
        total = torch.zeros(n, self.heads).index_add_(0, target, alpha)
        alpha = alpha / (total[target] + 1e-16)
        y = torch.zeros_like(v).index_add_(0, target, v_j * alpha[..., None])
        return self.out(F.relu(self.norm(y.view(n, d) + self.skip(x))))


class PointNet(nn.Module):
    """Shared MLPs by Conv1d, a maximum over points, a learned transform that starts as one."""

    def __init__(self, width: int = 32, classes: int = 5) -> None:
        super().__init__()
        self.t_conv, self.t_fc = nn.Conv1d(3, width, 1), nn.Linear(width, 9)
        nn.init.zeros_(self.t_fc.weight)
        nn.init.zeros_(self.t_fc.bias)
        self.conv1, self.bn1 = nn.Conv1d(3, width, 1), nn.BatchNorm1d(width)
        self.conv2, self.bn2 = nn.Conv1d(width, 2 * width, 1), nn.BatchNorm1d(2 * width)
        self.fc1, self.fc2 = nn.Linear(2 * width, width), nn.Linear(width, classes)

    def forward(self, points: Tensor) -> Tensor:
        t = torch.max(F.relu(self.t_conv(points)), 2)[0]
        t = self.t_fc(t).view(-1, 3, 3) + torch.eye(3)
        x = torch.bmm(points.transpose(2, 1), t).transpose(2, 1)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x)).amax(dim=2)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.3, self.training))


class ProductKeyMemory(nn.Module):
    """Values looked up by the best pairs of two sets of keys (Lample et al.)."""

    def __init__(self, dim: int = 32, n_keys: int = 8, heads: int = 2, knn: int = 4) -> None:
        super().__init__()
        self.n_keys, self.heads, self.knn, self.k_dim = n_keys, heads, knn, dim // 2
        self.embed = nn.Linear(12, dim)
        n_query = heads * self.k_dim
        self.query_proj = nn.Sequential(nn.Linear(dim, n_query), nn.LayerNorm(n_query))
        half = self.k_dim // 2
        bound = 1 / math.sqrt(half)
        self.keys = nn.Parameter(torch.empty(heads, 2, n_keys, half).uniform_(-bound, bound))
        self.values = nn.EmbeddingBag(n_keys**2, dim, mode="sum")
        nn.init.normal_(self.values.weight, mean=0, std=dim**-0.5)
        self.head = nn.Linear(dim, 6)

    def indices(self, query: Tensor) -> tuple[Tensor, Tensor]:
        q1, q2 = query.chunk(2, dim=-1)
        s1 = torch.einsum("bhd,hnd->bhn", q1, self.keys[:, 0])
        s2 = torch.einsum("bhd,hnd->bhn", q2, self.keys[:, 1])
        (s1, i1), (s2, i2) = s1.topk(self.knn, dim=-1), s2.topk(self.knn, dim=-1)
        scores = (s1[..., :, None] + s2[..., None, :]).flatten(-2)
        every = (i1[..., :, None] * self.n_keys + i2[..., None, :]).flatten(-2)
        scores, best = scores.topk(self.knn, dim=-1)
        return scores, every.gather(-1, best)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        scores, indices = self.indices(self.query_proj(x).view(len(x), self.heads, self.k_dim))
        weights = F.softmax(scores.float(), dim=-1).type_as(scores)
        y = self.values(indices.flatten(1), per_sample_weights=weights.flatten(1))
        return self.head(F.relu(x + y))


class Containers(nn.Module):
    """ParameterList, ParameterDict, ModuleDict, and a loop by name."""

    def __init__(self, width: int = 32, tasks: tuple[str, ...] = ("a", "b")) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            [nn.Parameter(torch.randn(width, n) / n**0.5) for n in (12, width, width)]
        )
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(width)) for _ in range(3)])
        self.task_gain = nn.ParameterDict({t: nn.Parameter(torch.ones(width)) for t in tasks})
        self.acts = nn.ModuleDict({"relu": nn.ReLU(), "lrelu": nn.LeakyReLU(0.1)})
        for task in tasks:
            self.add_module(f"head_{task}", nn.Linear(width, 4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for w, b, name in zip(self.weights, self.biases, ["relu", "lrelu", "relu"], strict=True):
            x = self.acts[name](F.linear(x, w, b))
        return {t: getattr(self, f"head_{t}")(x * g) for t, g in self.task_gain.items()}


@torch.jit.script
def swish_gate(x: Tensor, beta: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return a * torch.sigmoid(beta * b)


class Scripted(nn.Module):
    """A scripted function between ordinary layers."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.up, self.beta = nn.Linear(12, 2 * width), nn.Parameter(torch.ones(width))
        self.mid, self.down = nn.Linear(width, 2 * width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = swish_gate(self.up(x), self.beta)
        return self.down(swish_gate(self.mid(x), self.beta))


class Towers(NamedTuple):
    image: Tensor
    text: Tensor
    logits: Tensor


class SigLIP(nn.Module):
    """Two towers into a shared space of fixed size, a learned temperature and bias."""

    def __init__(self, width: int = 32, embed_dim: int = 16) -> None:
        super().__init__()
        self.vision = nn.Sequential(nn.Linear(12, width), nn.GELU(), nn.Linear(width, width))
        self.text = nn.Embedding(64, width)
        self.text_net = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.visual_projection = nn.Parameter(width**-0.5 * torch.randn(width, embed_dim))
        self.text_projection = nn.Linear(width, embed_dim, bias=False)
        nn.init.normal_(self.text_projection.weight, std=width**-0.5)
        self.logit_scale = nn.Parameter(torch.ones([]) * math.log(10))
        self.logit_bias = nn.Parameter(torch.ones([]) * -10)

    def forward(self, features: Tensor, tokens: Tensor) -> Towers:
        image = F.normalize(self.vision(features) @ self.visual_projection, dim=-1)
        text = self.text_projection(self.text_net(self.text(tokens)).amax(dim=1))
        text = F.normalize(text, dim=-1)
        return Towers(image, text, image @ text.t() * self.logit_scale.exp() + self.logit_bias)


def growing_siglip(width: int = 32) -> nn.Module:
    """The same with a shared space that grows, too: its projections are no small noise at first."""
    return SigLIP(width, width // 2)


def make_mlp(dims: list[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(dims):
        layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), activation()]
    return nn.Sequential(*layers)


class HiddenDims(nn.Module):
    """A list of widths, and a decoder with the same ones in reverse."""

    def __init__(self, hidden_dims: list[int] | None = None, latent: int = 4) -> None:
        super().__init__()
        hidden_dims = hidden_dims or [64, 32]
        self.encoder = make_mlp([12, *hidden_dims])
        self.to_latent = nn.Linear(hidden_dims[-1], latent)
        self.decoder = make_mlp([latent, *reversed(hidden_dims)])
        self.out = nn.Linear(hidden_dims[0], 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.decoder(self.to_latent(self.encoder(x))))


class NeuralODE(nn.Module):
    """Euler steps of a field that is told the time."""

    def __init__(self, hidden: int = 32, steps: int = 4) -> None:
        super().__init__()
        self.steps = steps
        self.lift, self.field1 = nn.Linear(12, hidden), nn.Linear(hidden + 1, hidden)
        self.field2, self.read = nn.Linear(hidden, hidden), nn.Linear(hidden, 3)

    def f(self, t: float, h: Tensor) -> Tensor:
        time = torch.full_like(h[:, :1], t)
        return self.field2(torch.tanh(self.field1(torch.cat([time, h], dim=1))))

    def forward(self, x: Tensor) -> Tensor:
        h = self.lift(x)
        for i in range(self.steps):
            h = h + self.f(i / self.steps, h) / self.steps
        return self.read(h)


class TripletNet(nn.Module):
    """Distances between three views of one encoder, and the loss inside."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(12, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 8)
        )

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        a, p, n = (self.encoder(x) for x in (anchor, positive, negative))
        loss = F.triplet_margin_loss(a, p, n)
        return {"embedding": a, "loss": loss, "distance": F.pairwise_distance(a, p)}
