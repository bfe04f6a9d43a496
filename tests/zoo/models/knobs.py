"""How authors let a width be set: nested configs, tuples, multipliers, derived fields, presets."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class BlockConfig:
    d_model: int = 32
    n_heads: int = 4
    mlp_ratio: float = 2.0


@dataclass
class ModelConfig:
    vocab_size: int = 64
    n_layers: int = 2
    block: BlockConfig = field(default_factory=BlockConfig)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int | None = None) -> None:
        super().__init__()
        head_dim = head_dim or width // heads
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.proj = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(b, t, -1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, head_dim: int | None = None) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, head_dim)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class NestedConfig(nn.Module):
    """A dataclass in a dataclass."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, ratio = config.block.d_model, config.block.mlp_ratio
        self.embed = nn.Embedding(config.vocab_size, width)
        self.blocks = nn.ModuleList(
            [Block(width, config.block.n_heads, int(ratio * width)) for _ in range(config.n_layers)]
        )
        self.head = nn.Linear(width, config.vocab_size)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class TupleOfWidths(nn.Module):
    """One width for each stage."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 32), n_classes: int = 10) -> None:
        super().__init__()
        sizes = (3, *widths)
        self.convs = nn.ModuleList(
            [nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(sizes)]
        )
        self.fc = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.fc(x.mean((2, 3)))


class ListOfWidths(nn.Module):
    """An MLP from a list, the sizes of input and output apart."""

    def __init__(
        self, n_in: int = 12, hidden_sizes: list[int] | None = None, n_out: int = 10
    ) -> None:
        super().__init__()
        sizes = [n_in, *(hidden_sizes or [32, 64])]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], n_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class AllSizes(nn.Module):
    """A list of all sizes, input and output among them: not every entry is a width."""

    def __init__(self, sizes: tuple[int, ...] = (12, 32, 32, 10)) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def make_divisible(value: float, divisor: int = 8) -> int:
    return max(divisor, int(value + divisor / 2) // divisor * divisor)


class WidthMult(nn.Module):
    """MobileNet's width_mult: a float, and rounding to multiples of eight."""

    def __init__(self, width_mult: float = 1.0, n_classes: int = 10) -> None:
        super().__init__()
        c1, c2 = make_divisible(16 * width_mult), make_divisible(24 * width_mult)
        self.stem = nn.Conv2d(3, c1, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c1)
        self.expand = nn.Conv2d(c1, c2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c2)
        self.dw = nn.Conv2d(c2, c2, 3, padding=1, groups=c2)
        self.fc = nn.Linear(c2, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn1(self.stem(x)))
        x = F.relu6(self.bn2(self.expand(x)))
        return self.fc(self.dw(x).mean((2, 3)))


class DerivedFields(nn.Module):
    """Fields that are None by default and derive from others."""

    def __init__(
        self,
        dim: int = 32,
        hidden_dim: int | None = None,
        n_heads: int = 4,
        head_dim: int | None = None,
        vocab: int = 64,
    ) -> None:
        super().__init__()
        hidden_dim = 4 * dim if hidden_dim is None else hidden_dim
        self.embed = nn.Embedding(vocab, dim)
        self.block = Block(dim, n_heads, hidden_dim, head_dim)
        self.head = nn.Linear(dim, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens)))


@dataclass
class LateConfig:
    """The width itself is None, and is derived in __post_init__."""

    n_heads: int = 4
    head_dim: int = 8
    d_model: int | None = None
    d_ff: int | None = None

    def __post_init__(self) -> None:
        if self.d_model is None:
            self.d_model = self.n_heads * self.head_dim
        if self.d_ff is None:
            self.d_ff = 4 * self.d_model


class HeadsTimesDim(nn.Module):
    """The width is n_heads * head_dim."""

    def __init__(self, config: LateConfig) -> None:
        super().__init__()
        assert config.d_model is not None and config.d_ff is not None
        self.embed = nn.Embedding(64, config.d_model)
        self.block = Block(config.d_model, config.n_heads, config.d_ff, config.head_dim)
        self.head = nn.Linear(config.d_model, 64)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens)))


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 32, "heads": 4, "depth": 1},
    "small": {"width": 64, "heads": 4, "depth": 1},
    "base": {"width": 128, "heads": 8, "depth": 2},
}


class Preset(nn.Module):
    """Sizes by name: no number is a knob."""

    def __init__(self, size: str = "tiny", vocab: int = 64) -> None:
        super().__init__()
        preset = PRESETS[size]
        width = preset["width"]
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(
            [Block(width, preset["heads"], 4 * width) for _ in range(preset["depth"])]
        )
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class PresetWithOverride(nn.Module):
    """A preset whose numbers can be overridden by keyword."""

    def __init__(self, size: str = "tiny", width: int | None = None, vocab: int = 64) -> None:
        super().__init__()
        preset = {**PRESETS[size], **({"width": width} if width is not None else {})}
        d = preset["width"]
        self.embed = nn.Embedding(vocab, d)
        self.block = Block(d, preset["heads"], 4 * d)
        self.head = nn.Linear(d, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens)))


class MultipleOf(nn.Module):
    """Llama's feed-forward: two thirds of 4 d, rounded up to a multiple."""

    def __init__(self, dim: int = 32, multiple_of: int = 16, vocab: int = 64) -> None:
        super().__init__()
        hidden = int(2 * (4 * dim) / 3)
        hidden = multiple_of * ((hidden + multiple_of - 1) // multiple_of)
        self.embed = nn.Embedding(vocab, dim)
        self.norm = nn.RMSNorm(dim)
        self.w1 = nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden, bias=False)
        self.head = nn.Linear(dim, vocab, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm(x)
        return self.head(x + self.w2(F.silu(self.w1(y)) * self.w3(y)))


class DictConfig(nn.Module):
    """A plain dict as the config."""

    def __init__(self, config: dict[str, int] | None = None) -> None:
        super().__init__()
        config = {"width": 32, "vocab": 64, "heads": 4, **(config or {})}
        self.embed = nn.Embedding(config["vocab"], config["width"])
        self.block = Block(config["width"], config["heads"], 2 * config["width"])
        self.head = nn.Linear(config["width"], config["vocab"])

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens)))


def build_model(width: int = 32, **settings: Any) -> nn.Module:
    """A factory: the knob is an argument of a function, not of the class."""
    return DerivedFields(dim=width, hidden_dim=3 * width, **settings)


class EncoderDecoderWidths(nn.Module):
    """Two widths that need not be equal: an encoder and a decoder with a bridge."""

    def __init__(self, enc_dim: int = 32, dec_dim: int = 16, n_out: int = 10) -> None:
        super().__init__()
        self.enc_in = nn.Linear(12, enc_dim)
        self.enc = nn.Linear(enc_dim, enc_dim)
        self.bridge = nn.Linear(enc_dim, dec_dim)
        self.dec = nn.Linear(dec_dim, dec_dim)
        self.out = nn.Linear(dec_dim, n_out)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.enc(torch.relu(self.enc_in(x))))
        return self.out(torch.relu(self.dec(torch.relu(self.bridge(h)))))
