"""What goes in and comes out: dicts, dataclasses, several inputs, several heads, losses."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None
    hidden: tuple[Tensor, ...] = ()


@dataclass
class Batch:
    tokens: Tensor
    features: Tensor


class DictInDictOut(nn.Module):
    """forward takes a dict of tensors and returns one."""

    def __init__(self, width: int = 32, n_out: int = 10) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, width)
        self.features = nn.Linear(8, width)
        self.mix = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, n_out)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        text = self.embed(batch["tokens"]).mean(1)
        h = torch.cat([text, self.features(batch["features"])], dim=-1)
        h = torch.relu(self.mix(h))
        return {"logits": self.out(h), "hidden": h}


class DataclassInOut(nn.Module):
    """forward takes a dataclass and returns another."""

    def __init__(self, width: int = 32, n_out: int = 10) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, width)
        self.features = nn.Linear(8, width)
        self.mix = nn.Linear(width, width)
        self.out = nn.Linear(width, n_out)

    def forward(self, batch: Batch) -> Output:
        h = self.embed(batch.tokens).mean(1) + self.features(batch.features)
        h2 = torch.relu(self.mix(torch.relu(h)))
        return Output(self.out(h2), hidden=(h, h2))


class LossInside(nn.Module):
    """labels are optional; with them a loss is returned, with label smoothing and a z-loss."""

    def __init__(self, width: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> Output:
        logits = self.head(self.gru(self.embed(tokens))[0])
        loss = None
        if labels is not None:
            flat = logits.reshape(-1, logits.size(-1))
            loss = F.cross_entropy(flat, labels.reshape(-1), label_smoothing=0.1)
            loss = loss + 1e-4 * torch.logsumexp(flat, dim=-1).pow(2).mean()
        return Output(logits, loss)


class MultiTask(nn.Module):
    """Several heads: classes, a box, a mask."""

    def __init__(self, width: int = 16, n_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.classes = nn.Linear(width, n_classes)
        self.box = nn.Linear(width, 4)
        self.mask = nn.Conv2d(width, 1, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.conv(F.relu(self.stem(image))))
        pooled = x.mean((2, 3))
        return {
            "classes": self.classes(pooled),
            "box": torch.sigmoid(self.box(pooled)),
            "mask": self.mask(x),
        }


class ActorCritic(nn.Module):
    """A policy over actions, with a learned log-std, and a value."""

    def __init__(self, hidden: int = 32, n_obs: int = 12, n_actions: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(n_obs, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.mean = nn.Linear(hidden, n_actions)
        self.log_std = nn.Parameter(torch.zeros(n_actions))
        self.value = nn.Linear(hidden, 1)
        for layer in self.body:
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, 2**0.5)
                nn.init.zeros_(layer.bias)
        nn.init.orthogonal_(self.mean.weight, 0.01)
        nn.init.orthogonal_(self.value.weight, 1.0)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.body(observation)
        return self.mean(h), self.log_std.exp(), self.value(h).squeeze(-1)


class VAE(nn.Module):
    """Reparametrised, with both terms of the loss; the latent is fixed."""

    def __init__(self, hidden: int = 32, latent: int = 4, n_in: int = 12) -> None:
        super().__init__()
        self.enc = nn.Linear(n_in, hidden)
        self.mu = nn.Linear(hidden, latent)
        self.logvar = nn.Linear(hidden, latent)
        self.dec1 = nn.Linear(latent, hidden)
        self.dec2 = nn.Linear(hidden, n_in)

    def reparametrise(self, mu: Tensor, logvar: Tensor) -> Tensor:
        if not self.training:
            return mu
        return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        out = self.dec2(F.relu(self.dec1(self.reparametrise(mu, logvar))))
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=-1)
        return out, F.mse_loss(out, x) + 0.01 * kl.mean()


class WideVAE(nn.Module):
    """The latent grows as well: the KL term sums over it."""

    def __init__(self, hidden: int = 32, latent: int = 8, n_in: int = 12) -> None:
        super().__init__()
        self.enc = nn.Linear(n_in, hidden)
        self.stats = nn.Linear(hidden, 2 * latent)
        self.dec1 = nn.Linear(latent, hidden)
        self.dec2 = nn.Linear(hidden, n_in)

    def forward(self, x: Tensor) -> Tensor:
        mu, logvar = self.stats(F.relu(self.enc(x))).chunk(2, dim=-1)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return self.dec2(F.relu(self.dec1(z)))


class BilinearScorer(nn.Module):
    """nn.Bilinear as a hidden layer and as the readout of two towers."""

    def __init__(self, width: int = 16, n_in: int = 12, n_out: int = 10) -> None:
        super().__init__()
        self.left = nn.Linear(n_in, width)
        self.right = nn.Linear(n_in, width)
        self.mix = nn.Bilinear(width, 6, width)
        self.score = nn.Bilinear(width, width, n_out)

    def forward(self, a: Tensor, b: Tensor, side: Tensor) -> Tensor:
        left = torch.tanh(self.mix(torch.tanh(self.left(a)), side))
        return self.score(left, torch.tanh(self.right(b)))


class Bag(nn.Module):
    """fastText: an EmbeddingBag with offsets."""

    def __init__(self, width: int = 32, vocab: int = 64, n_out: int = 10) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(vocab, width, mode="mean")
        self.hidden = nn.Linear(width, width)
        self.fc = nn.Linear(width, n_out)

    def forward(self, text: Tensor, offsets: Tensor) -> Tensor:
        return self.fc(F.relu(self.hidden(self.embedding(text, offsets))))


class SumBag(nn.Module):
    """An EmbeddingBag that sums rows of a 2d input."""

    def __init__(self, width: int = 32, vocab: int = 64, n_out: int = 10) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(vocab, width, mode="sum")
        self.fc = nn.Linear(width, n_out)

    def forward(self, text: Tensor) -> Tensor:
        return self.fc(F.relu(self.embedding(text)))


class MaxNormEmbedding(nn.Module):
    """Embedding(max_norm): rows are clipped to norm 1, so their entries shrink as d^-1/2."""

    def __init__(self, width: int = 32, vocab: int = 64, n_out: int = 10) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width, max_norm=1.0)
        self.hidden = nn.Linear(width, width)
        self.fc = nn.Linear(width, n_out)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(F.relu(self.hidden(self.embedding(tokens).mean(1))))


class DLRM(nn.Module):
    """Several tables of different sizes and the dot products between all pairs of features."""

    def __init__(
        self, dim: int = 16, sizes: tuple[int, ...] = (20, 30, 40), n_dense: int = 6
    ) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.EmbeddingBag(n, dim, mode="sum") for n in sizes])
        self.bottom = nn.Sequential(
            nn.Linear(n_dense, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim), nn.ReLU()
        )
        n = len(sizes) + 1
        self.register_buffer("pairs", torch.tril_indices(n, n, offset=-1))
        self.top = nn.Sequential(
            nn.Linear(dim + n * (n - 1) // 2, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, 1)
        )

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        x = self.bottom(dense)
        rows = [table(sparse[:, i : i + 1]) for i, table in enumerate(self.tables)]
        features = torch.stack([x, *rows], dim=1)
        dots = torch.bmm(features, features.transpose(1, 2))
        z = torch.cat([x, dots[:, self.pairs[0], self.pairs[1]]], dim=1)
        return torch.sigmoid(self.top(z)).squeeze(-1)
