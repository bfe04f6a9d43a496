"""Where authors keep the scale of their attention."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention


class Model(nn.Module):
    """One bidirectional attention layer over tokens; subclasses compute the logits or the mix."""

    def __init__(self, width: int, heads: int = 4, vocab: int = 64) -> None:
        super().__init__()
        self.width, self.heads, self.head_dim = width, heads, width // heads
        self.embed = nn.Embedding(vocab, width)
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.readout = nn.Linear(width, vocab)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        raise NotImplementedError

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.logits(q, k).softmax(-1) @ v

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm(x)
        b, t, d = y.shape
        shape = (b, t, self.heads, self.head_dim)
        q, k, v = (f(y).view(shape).transpose(1, 2) for f in (self.q, self.k, self.v))
        out = self.mix(q, k, v).transpose(1, 2).reshape(b, t, d)
        return self.readout(x + self.o(out))


class Attribute(Model):
    """A float that the constructor computes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)
        self.scale = self.head_dim**-0.5

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return self.scale * (q @ k.mT)


class TensorAttribute(Model):
    """A buffer of no dimensions."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)
        self.register_buffer("scale", torch.tensor(self.head_dim**-0.5))

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return (q @ k.mT) * self.scale


class Property(Model):
    def __init__(self, width: int = 32) -> None:
        super().__init__(width)

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.head_dim)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return (q * self.scale) @ k.mT


class StaticMethod(Model):
    def __init__(self, width: int = 32) -> None:
        super().__init__(width)

    @staticmethod
    def scores(q: Tensor, k: Tensor) -> Tensor:
        return torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.size(-1))

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return self.scores(q, k)


class ClassMethod(Model):
    def __init__(self, width: int = 32) -> None:
        super().__init__(width)

    @classmethod
    def scores(cls, q: Tensor, k: Tensor) -> Tensor:
        return torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.size(-1))

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return self.scores(q, k)


class Lambda(Model):
    """A lambda in an attribute."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)
        self.score = lambda q, k: q @ k.transpose(-2, -1) / q.size(-1) ** 0.5

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return self.score(q, k)


def scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))


class FreeFunction(Model):
    def __init__(self, width: int = 32) -> None:
        super().__init__(width)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return scaled_scores(q, k)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return ((q @ k.transpose(-2, -1)) * scale).softmax(-1) @ v


class ScaleArgument(Model):
    """A free function that is given the scale."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, scale=self.head_dim**-0.5)


class Partial(Model):
    """functools.partial, made in the constructor."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)
        self.attend = functools.partial(attend, scale=self.head_dim**-0.5)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.attend(q, k, v)


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Decorated(Model):
    """A decorated method computes its own scale."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)

    @traced
    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.mT / math.sqrt(q.size(-1))


class DecoratedForward(nn.Module):
    """The whole forward is decorated (torch.autocast is such a decorator)."""

    def __init__(self, width: int = 32, vocab: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.readout = nn.Linear(width, vocab)

    @torch.autocast("cpu", enabled=False)
    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        weights = (q @ k.mT / math.sqrt(q.size(-1))).softmax(-1)
        return self.readout(x + weights @ v)


class DefaultSDPA(Model):
    """scaled_dot_product_attention's own 1/sqrt(d)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)


class GivenSDPA(Model):
    """scaled_dot_product_attention with a scale by keyword, from a config."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)
        self.config = {"attn_scale": self.head_dim**-0.5}

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=self.config["attn_scale"])


class Flex(Model):
    """flex_attention with a score_mod and its default scale."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        def bias(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return score - 0.1 * (i - j).abs()

        return flex_attention(q, k, v, score_mod=bias)


class FlexScaled(Model):
    """flex_attention with a scale of the author's own."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return flex_attention(q, k, v, scale=1.0 / math.sqrt(self.head_dim))


class ScaledInit(Model):
    """No scale in forward: it is folded into the init of q (T5's way)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)
        nn.init.normal_(self.q.weight, std=(width * self.head_dim) ** -0.5)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.mT


class Baddbmm(Model):
    """torch.baddbmm with alpha as the scale (BLOOM, Megatron)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)
        self.inv_norm_factor = 1.0 / math.sqrt(self.head_dim)
        self.bias = nn.Parameter(torch.zeros(1, 1, 1))

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        b, h, t, d = q.shape
        flat = self.bias.expand(b * h, t, t).baddbmm(
            q.reshape(b * h, t, d),
            k.transpose(2, 3).reshape(b * h, d, t),
            beta=1.0,
            alpha=self.inv_norm_factor,
        )
        return flat.view(b, h, t, t)


class SqrtTensor(Model):
    """The scale is a tensor computed in forward (GPT-J, GPT-Neo)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(width)
        self.scale_attn = torch.sqrt(torch.tensor(self.head_dim, dtype=torch.float32))

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return torch.matmul(q, k.transpose(-1, -2)) / self.scale_attn
