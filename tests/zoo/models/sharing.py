"""Parameters shared by several layers, and ways to call a module that are not a call."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils.checkpoint import checkpoint


class Albert(nn.Module):
    """One layer, applied three times; a factorised embedding of a fixed size."""

    def __init__(
        self, hidden: int = 32, embedding: int = 8, heads: int = 4, vocab: int = 64
    ) -> None:
        super().__init__()
        self.word = nn.Embedding(vocab, embedding)
        self.expand = nn.Linear(embedding, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.heads = heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.dense = nn.Linear(hidden, hidden)
        self.ffn = nn.Linear(hidden, 4 * hidden)
        self.ffn_out = nn.Linear(4 * hidden, hidden)
        self.to_embedding = nn.Linear(hidden, embedding)

    def layer(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d)
        x = self.norm1(x + self.dense(y))
        return self.norm2(x + self.ffn_out(F.gelu(self.ffn(x))))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.expand(self.word(tokens))
        for _ in range(3):
            x = self.layer(x)
        return F.linear(F.gelu(self.to_embedding(x)), self.word.weight)


class ThreeWayTied(nn.Module):
    """One table: the encoder's input, the decoder's input and the readout."""

    def __init__(self, width: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.src_embed = nn.Embedding(vocab, width)
        self.tgt_embed = nn.Embedding(vocab, width)
        self.encoder = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.decoder = nn.Linear(2 * width, width)
        self.readout = nn.Linear(width, vocab, bias=False)
        self.tgt_embed.weight = self.src_embed.weight
        self.readout.weight = self.src_embed.weight
        nn.init.normal_(self.src_embed.weight, std=0.02)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory = torch.tanh(self.encoder(self.src_embed(source))).mean(1, keepdim=True)
        y = self.norm(self.tgt_embed(target))
        y = self.decoder(torch.cat([y, memory.expand_as(y)], dim=-1))
        return self.readout(torch.relu(y))


class Checkpointed(nn.Module):
    """torch.utils.checkpoint around each block, in both of its forms."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(n_in, width)
        self.block1 = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.block2 = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        x = x + checkpoint(self.block1, x, use_reentrant=False)
        x = x + checkpoint(self.block2, x, use_reentrant=True)
        return self.out(x)


class FunctionalCall(nn.Module):
    """The block runs by functional_call on its own parameters."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(n_in, width)
        self.block = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
        self.out = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inp(x))
        parameters = dict(self.block.named_parameters())
        return self.out(x + functional_call(self.block, parameters, (x,)))


class VmapOverSamples(nn.Module):
    """vmap over the batch."""

    def __init__(self, width: int = 32, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.inp = nn.Linear(n_in, width)
        self.hid = nn.Linear(width, width)
        self.out = nn.Linear(width, n_out)

    def one(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.hid(torch.relu(self.inp(x)))))

    def forward(self, x: Tensor) -> Tensor:
        return vmap(self.one)(x)


class VmapEnsemble(nn.Module):
    """Stacked weights of a small ensemble, mapped over by vmap."""

    def __init__(self, width: int = 32, members: int = 3, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(members, n_in, width) * n_in**-0.5)
        self.w2 = nn.Parameter(torch.randn(members, width, width) * width**-0.5)
        self.w3 = nn.Parameter(torch.randn(members, width, n_out) / width)

    def forward(self, x: Tensor) -> Tensor:
        def member(w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
            return torch.relu(torch.relu(x @ w1) @ w2) @ w3

        return vmap(member)(self.w1, self.w2, self.w3).mean(0)


class Siamese(nn.Module):
    """One trunk for two inputs; their distance is the output."""

    def __init__(self, width: int = 32, n_in: int = 12) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.embed = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        difference = self.embed(self.trunk(a)) - self.embed(self.trunk(b))
        return self.score(difference.abs()).squeeze(-1)


class Contrastive(nn.Module):
    """SimCLR: a projection to a fixed size, normalised, and the loss inside forward."""

    def __init__(self, width: int = 32, n_in: int = 12, dim: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.projector = nn.Linear(width, dim)
        self.temperature = 0.5

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        za = F.normalize(self.projector(self.encoder(a)), dim=-1)
        zb = F.normalize(self.projector(self.encoder(b)), dim=-1)
        logits = za @ zb.t() / self.temperature
        loss = F.cross_entropy(logits, torch.arange(len(a), device=a.device))
        return loss, logits


class CLIP(nn.Module):
    """Two towers, a shared space as wide as the model, cosine similarity, a learned temperature."""

    def __init__(self, width: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.Conv2d(3, width, 4, stride=4), nn.GELU())
        self.visual_projection = nn.Linear(width, width, bias=False)
        self.token_embedding = nn.Embedding(vocab, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.text_projection = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.logit_scale = nn.Parameter(torch.tensor(2.6593))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        image = self.visual_projection(self.visual(images).flatten(2).mean(-1))
        text = self.mlp(self.token_embedding(texts)).mean(1) @ self.text_projection
        image = image / image.norm(dim=-1, keepdim=True)
        text = text / text.norm(dim=-1, keepdim=True)
        logits = self.logit_scale.exp() * image @ text.t()
        return logits, logits.t()
