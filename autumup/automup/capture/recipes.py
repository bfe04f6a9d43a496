"""What one argument of a forward could be, guessed from the weights that would read it.

A *recipe* describes one argument with sizes that are read off the model it is made for, so the
same recipe serves every width; sizes that do not grow give the same tensor at all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BATCH = 2
_LENGTHS = (12, 16, 8, 5, 3)
_IMAGES = (32, 64, 28, 224, 96, 16)

Size = Callable[[nn.Module], int]


@dataclass(frozen=True)
class Recipe:
    """One argument: its sizes, and the number of values if it holds integers."""

    sizes: tuple[int | Size, ...]
    below: int | Size | None = None
    dtype: torch.dtype | None = None

    def shape(self, model: nn.Module) -> tuple[int, ...]:
        """The tensor's shape for this model."""
        return tuple(_size(s, model) for s in self.sizes)

    def make(self, model: nn.Module) -> torch.Tensor:
        """The tensor for this model; the same numbers every time."""
        source = torch.Generator("cpu").manual_seed(0)
        shape = self.shape(model)
        if self.dtype is torch.bool:
            return torch.ones(shape, dtype=torch.bool, device="cpu")
        if self.below is not None:
            high = max(1, _size(self.below, model))
            return torch.randint(high, shape, generator=source, device="cpu")
        floating = (p.dtype for p in model.parameters() if p.is_floating_point())
        values = torch.randn(shape, generator=source, device="cpu")
        return values.to(self.dtype or next(floating, torch.float32))


def _size(size: int | Size, model: nn.Module) -> int:
    return size if isinstance(size, int) else size(model)


def _axis(parameter: str, axis: int) -> Size:
    return lambda model: model.get_parameter(parameter).shape[axis]


def _attribute(module: str, name: str) -> Size:
    return lambda model: int(getattr(model.get_submodule(module), name))


def likely_recipes(model: nn.Module, growing: set[int]) -> list[Recipe]:
    """What the first modules that own weights could take, and what the first table could."""
    owners = [(n, m) for n, m in model.named_modules() if any(True for _ in m.parameters(False))]
    tables = [(n, m) for n, m in owners if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    convs = [(n, m) for n, m in owners if isinstance(m, nn.modules.conv._ConvNd)]
    lengths = [t for t in _LENGTHS if t not in growing] + _fixed_lengths(model, growing)
    images = _image_sizes(model)
    chosen = dict([*owners[:8], *tables[:1], *convs[:1]])
    each = [_for_module(name, module, lengths, images) for name, module in chosen.items()]
    # the first idea of every module, then the second of every module, and so on
    found = [r for ideas in itertools.zip_longest(*each) for r in ideas if r is not None]
    found += _for_all_tables(model, lengths)
    unique: dict[Any, Recipe] = {}
    for r in found:
        key = (r.shape(model), None if r.below is None else _size(r.below, model))
        unique.setdefault(key, r)
    return list(unique.values())


def _for_all_tables(model: nn.Module, lengths: Sequence[int]) -> Iterator[Recipe]:
    """What every table has a row for: words, and words of letters."""
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Embedding)]
    if names:

        def smallest(model: nn.Module) -> int:
            return min(_attribute(name, "num_embeddings")(model) for name in names)

        yield Recipe((BATCH, lengths[0]), smallest)
        yield Recipe((BATCH, lengths[0], lengths[1]), smallest)


def _for_module(
    name: str, module: nn.Module, lengths: Sequence[int], images: Sequence[int]
) -> Iterator[Recipe]:
    """Likely inputs of one module, from its own weights' shapes."""
    prefix = f"{name}." if name else ""
    if isinstance(module, nn.modules.conv._ConvNd):
        channels = _attribute(name, "in_channels")
        spatial = module.weight.dim() - 2
        sizes = (64, 16, 128, 3000) if spatial == 1 else images if spatial == 2 else (16, 32, 8)
        yield from (Recipe((BATCH, channels, *[s] * spatial)) for s in sizes)
        return
    for local, weight in itertools.islice(module.named_parameters(recurse=False), 3):
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield from (Recipe((BATCH, t), _axis(prefix + local, 0)) for t in lengths)
            yield Recipe((BATCH,), _axis(prefix + local, 0))
            continue
        linear = isinstance(module, nn.Linear | nn.RNNBase | nn.RNNCellBase)
        if weight.dim() == 2 and not linear:  # a raw table, or a weight stored (in, out)
            yield from (Recipe((BATCH, t), _axis(prefix + local, 0)) for t in lengths)
        axes = [1] if linear and weight.dim() == 2 else range(weight.dim())
        for axis in (a for a in axes if weight.shape[a] > 1):
            yield from _features(weight.shape[axis], _axis(prefix + local, axis), lengths, images)


def _features(
    size: int, at: Size, lengths: Sequence[int], images: Sequence[int]
) -> Iterator[Recipe]:
    """A vector, a sequence or an image whose features, channels or patches have this size."""
    yield Recipe((BATCH, at))
    yield from (Recipe((BATCH, t, at)) for t in lengths)
    for side in images:
        if size % (side * side) == 0:
            yield Recipe((BATCH, size // (side * side), side, side))
    for channels in (3, 1):  # square patches, flattened
        if size % channels == 0 and round((size / channels) ** 0.5) ** 2 * channels == size:
            yield Recipe((BATCH, channels, images[0], images[0]))
    yield Recipe((BATCH, at, images[0], images[0]))


def _fixed_lengths(model: nn.Module, growing: set[int]) -> list[int]:
    """Sequence lengths that a positional parameter (1, T, d) or a (T, T) weight asks for."""
    sizes = [
        n
        for p in model.parameters()
        for n in (p.shape[-2:-1] if p.dim() == 3 else p.shape[-1:] if p.dim() == 2 else ())
        if n not in growing and 1 < n <= 256
    ]
    return [n for n in dict.fromkeys(sizes) if n not in _LENGTHS][:6]


def _image_sizes(model: nn.Module) -> list[int]:
    """Common sides, after those that a patch embedding and its positional weight imply."""
    strides = [m.stride[0] for m in model.modules() if isinstance(m, nn.Conv2d)][:1]
    rows = {p.shape[-2] for p in model.parameters() if 2 <= p.dim() <= 3}
    implied = [
        stride * round(n**0.5)
        for stride in strides
        for row in sorted(rows)
        for n in (row, row - 1)
        if stride > 2 and n > 1 and round(n**0.5) ** 2 == n
    ]
    common = [s for s in _IMAGES if s in implied]
    return list(dict.fromkeys([*common, *_IMAGES, *implied[:4]]))


def side_recipes(growing: set[int]) -> Iterator[Recipe]:
    """What a second argument often is: a time, a label, a mask, a scalar per example."""
    length = next(t for t in _LENGTHS if t not in growing)
    yield Recipe((BATCH,))
    yield Recipe((BATCH,), 2)
    yield Recipe((BATCH, length), 2)
    yield Recipe((BATCH, length), dtype=torch.bool)
    yield Recipe((length, length), dtype=torch.bool)
    yield Recipe((BATCH, 1))
