"""An oracle that shares no code with the analysis.

**Aligned weights, exactly.** Adam's updates have entries of size lr, so a weight that is trained by
muP's rates is, at r times the width, the same pattern with every entry times its lr_mult. Take a
narrow model, repeat every weight's entries r times along each dimension that grows, times lr_mult,
and put them into the real wide model: if every learning rate and every multiplier in its forward is
right, each activation of the wide model is that of the narrow one with its coordinates repeated,
and finite outputs are *equal*, to rounding. A wrong fan_in, a missing or a doubled site, or one of
a wrong exponent changes them by a power of r.

**Random weights.** The rest of muP is the spread of the init: see :func:`init_growth`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

Grain = Callable[[str, int], int]
"""How many neighbouring entries of a parameter's dimension stay together when it is repeated: 1,
or the fixed size of a head where the number of heads grows."""


def repeated(narrow: torch.Tensor, shape: torch.Size, grains: Iterable[int]) -> torch.Tensor:
    """The entries of a tensor, each (or each block of ``grain``) repeated up to a larger shape."""
    for dim, (size, grain) in enumerate(zip(shape, grains, strict=True)):
        ratio, rest = divmod(size, narrow.shape[dim])
        assert rest == 0, (narrow.shape, shape)
        blocks = narrow.unflatten(dim, (-1, grain))
        narrow = blocks.repeat_interleave(ratio, dim).flatten(dim, dim + 1)
    return narrow


def rates(groups: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """The learning rate of every parameter, by identity."""
    return {id(p): float(group["lr"]) for group in groups for p in group["params"]}


def align(
    narrow: nn.Module,
    wide: nn.Module,
    lr: Mapping[int, float],
    grain: Grain = lambda name, dim: 1,
    dtype: torch.dtype = torch.float64,
) -> tuple[nn.Module, nn.Module]:
    """Copies of both models with aligned weights. ``lr`` is relative to the base's."""
    narrow, aligned = copy.deepcopy(narrow).to(dtype), copy.deepcopy(wide).to(dtype)
    generator = torch.Generator().manual_seed(5)
    mates = dict(zip(aligned.parameters(), wide.parameters(), strict=True))
    with torch.no_grad():
        for (name, small), large in zip(
            narrow.named_parameters(), aligned.parameters(), strict=True
        ):
            fan = max(1, small.numel() // max(1, small.shape[0])) if small.dim() > 1 else 1
            draw = torch.randn(small.shape, generator=generator, dtype=torch.float64)
            small.copy_(0.5 + 0.5 * draw if small.dim() < 2 else draw / fan**0.5)
            grains = [grain(name, dim) for dim in range(small.dim())]
            large.copy_(repeated(small, large.shape, grains) * lr[id(mates[large])])
    return narrow.eval(), aligned.eval()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the size of the values (zero: rounding is let pass)."""
    return float((a - b).abs().max() / (b.square().mean().sqrt() + 1e-6))


def init_growth(narrow: nn.Module, wide: nn.Module) -> dict[str, tuple[float, float]]:
    """Every weight's root mean square at the wide model over that at the narrow one, and 6 sigma.

    The spectral condition asks r_i^-1/2 * min(1, sqrt(r_o / r_i)) of it (DESIGN 3.1).
    """
    found = {}
    for (name, small), large in zip(narrow.named_parameters(), wide.parameters(), strict=True):
        ratio = float(large.detach().square().mean().sqrt() / small.detach().square().mean().sqrt())
        found[name] = ratio, 6.0 / min(small.numel(), large.numel()) ** 0.5
    return found
