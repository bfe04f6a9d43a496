"""Models that get every kind of multiplier, small enough to be trained in a test many times.

Imported by the processes of the distributed tests too.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import automup
import gpt
from automup.api import Mup

WORDS, LENGTH, BASE, WIDTH = 64, 12, 16, 64
TOKENS = torch.randint(0, WORDS, (8, LENGTH), generator=torch.Generator().manual_seed(3))


class Decoder(nn.Module):
    """The shipped GPT: a tied readout and SDPA, both mended in recompiled methods."""

    def __init__(self, width: int) -> None:
        super().__init__()
        config = gpt.GPTConfig(n_embd=width, vocab_size=WORDS, block_size=LENGTH)
        self.gpt = gpt.GPT(config)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.gpt(tokens, tokens)[0]
        return logits

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.gpt.transformer.h)


class Encoder(nn.Module):
    """torch's own attention: ``nn.MultiheadAttention`` inside ``nn.TransformerEncoder``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, WORDS, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(tokens)))

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.encoder.layers)


class Block(nn.Module):
    """Attention and MLP with a layer for each projection, so that tensors can be parallel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.size, self.scale = width // 4, (width // 4) ** -0.5
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (p(h).unflatten(-1, (-1, self.size)).transpose(1, 2) for p in self.projections)
        a = (self.scale * q @ k.transpose(-1, -2)).softmax(-1)
        x = x + self.o((a @ v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(x)))

    @property
    def projections(self) -> tuple[nn.Module, ...]:
        return self.q, self.k, self.v


class Mixed(nn.Module):
    """A scale in an attribute, and a tied readout that torch's own code calls."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, WORDS, bias=False))
        self.head[1].weight = self.embed.weight
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.layers)


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "gpt": Decoder,
    "multihead": Encoder,
    "attribute": Mixed,
}


@functools.cache
def parametrized(name: str) -> Mup:
    """A model of these by its name, or by its name and a form."""
    model, _, form = name.partition(" in ")
    model_class = MODELS[model]
    return automup.parametrize(
        lambda width=BASE: model_class(width), inputs=(TOKENS[:2],), form=form or "default"
    )


def fresh(name: str, seed: int = 1) -> nn.Module:
    """The model in muP at the wide width, in float64, so that losses agree to the last digits."""
    torch.manual_seed(seed)
    return parametrized(name)(WIDTH).double()


def on_meta(name: str) -> nn.Module:
    """The same without its weights."""
    with torch.device("meta"):
        return parametrized(name)(WIDTH).double()


def loss_of(model: Callable[..., Any], tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    """Every token from itself and from its neighbours."""
    return F.cross_entropy(model(tokens).flatten(0, -2).double(), tokens.flatten())


def training(
    model: Callable[..., Any],
    optimizer: torch.optim.Optimizer,
    tokens: torch.Tensor = TOKENS,
) -> Iterator[torch.Tensor]:
    """Train on one batch for as long as the caller asks; the loss of each step."""
    while True:
        optimizer.zero_grad()
        loss = loss_of(model, tokens)
        loss.backward()
        optimizer.step()
        yield loss.detach()


def optimizer_of(name: str, model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    return parametrized(name).optimizer(model, lr=1e-2, weight_decay=0.1, **settings)


STEPS, SEED = 4, 5


@functools.cache
def losses_of_one_process(name: str) -> tuple[float, ...]:
    """What every other way to train the model has to reproduce."""
    model = fresh(name)
    steps = training(model, optimizer_of(name, model))
    return tuple(float(next(steps)) for _ in range(STEPS))


@functools.cache
def losses_of_one_process_drawn(name: str) -> tuple[float, ...]:
    """The same from weights that are drawn after the constructor."""
    model = on_meta(name).to_empty(device="cpu")
    parametrized(name).init_(model, seed=SEED)
    steps = training(model, optimizer_of(name, model))
    return tuple(float(next(steps)) for _ in range(STEPS))
