"""Oracles that share no code with the analysis.

**Aligned weights, exactly.** Adam's updates have entries of size lr, so a weight that is trained by
muP's rates is, at r times the width, the same pattern with every entry times its lr_mult. Take a
narrow model, repeat every weight's entries r times along each dimension that grows, times lr_mult,
and put them into the real wide model: if every learning rate and every multiplier in its forward is
right, each activation of the wide model is that of the narrow one with its coordinates repeated,
and finite outputs are *equal*, to rounding. A wrong fan_in, a missing or a doubled site, or one of
a wrong exponent changes them by a power of r.

**Counted fans.** How many entries of a weight feed one output coordinate, counted: the gradient of
one output coordinate has that many entries that are not 0. See :func:`counted_fan_in`.

**Random weights.** The rest of muP is the spread of the init: see :func:`init_growth`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

# --- aligned weights ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """Neighbouring coordinates of a dimension: a product of atoms (size at the base, ratio).

    The coordinates of an atom that grows are repeated ``ratio`` times each, in place: a head's
    channels within the head, heads as wholes. ``scale``: by what the entries are multiplied
    besides, where several blocks that grow differently are summed over.
    """

    atoms: tuple[tuple[int, int], ...]
    scale: float = 1.0

    @property
    def size(self) -> int:
        """At the narrow model."""
        return math.prod(size for size, _ in self.atoms)

    @property
    def wide(self) -> int:
        return math.prod(size * ratio for size, ratio in self.atoms)


Layout = tuple[tuple[Block, ...], ...]
"""The blocks of every dimension of a parameter."""

Grain = Callable[[str, int], int]
"""How many neighbouring entries of a parameter's dimension stay together when it is repeated: 1,
or the fixed size of a head where the number of heads grows."""


def plain(name: str, narrow: torch.Tensor, wide: torch.Tensor, grain: Grain) -> Layout:
    """One block per dimension, whose growth is read off the shapes."""
    dims = []
    for dim, (size, large) in enumerate(zip(narrow.shape, wide.shape, strict=True)):
        together = grain(name, dim)
        assert large % size == 0, (name, narrow.shape, wide.shape)
        dims.append((Block(((size // together, large // size), (together, 1))),))
    return tuple(dims)


def repeated(narrow: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The entries of a tensor, repeated up to a larger shape."""
    for dim, blocks in enumerate(layout):
        parts = narrow.split([block.size for block in blocks], dim)
        narrow = torch.cat([_widened(p, b, dim) for p, b in zip(parts, blocks, strict=True)], dim)
    return narrow


def _widened(part: torch.Tensor, block: Block, dim: int) -> torch.Tensor:
    part = part.unflatten(dim, [size for size, _ in block.atoms])
    for i, (_, ratio) in enumerate(block.atoms):
        if ratio != 1:
            part = part.repeat_interleave(ratio, dim + i)
    return part.flatten(dim, dim + len(block.atoms) - 1) * block.scale


def rates(groups: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """The learning rate of every parameter, by identity."""
    return {id(p): float(group["lr"]) for group in groups for p in group["params"]}


def align(
    narrow: nn.Module,
    wide: nn.Module,
    lr: Mapping[int, float],
    grain: Grain = lambda name, dim: 1,
    dtype: torch.dtype = torch.float64,
    layouts: Mapping[str, Layout] | None = None,
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
            layout = layouts[name] if layouts else plain(name, small, large, grain)
            large.copy_(repeated(small, layout) * lr[id(mates[large])])
    return narrow.eval(), aligned.eval()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the size of the values (zero: rounding is let pass)."""
    return float((a - b).abs().max() / (b.square().mean().sqrt() + 1e-6))


# --- random weights -------------------------------------------------------------------------------


def init_growth(narrow: nn.Module, wide: nn.Module) -> dict[str, tuple[float, float]]:
    """Every weight's root mean square at the wide model over that at the narrow one, and 6 sigma.

    The spectral condition (arXiv:2310.17813) asks r_i^-1/2 * min(1, sqrt(r_o / r_i)) of it.
    """
    pairs = zip(narrow.named_parameters(), wide.parameters(), strict=True)
    return {name: growth(small.detach(), large.detach()) for (name, small), large in pairs}


def growth(small: torch.Tensor, large: torch.Tensor) -> tuple[float, float]:
    """The growth of the root mean square between two tensors of random entries, and 6 sigma."""
    ratio = float(large.square().mean().sqrt() / small.square().mean().sqrt())
    return ratio, 6.0 / min(small.numel(), large.numel()) ** 0.5


# --- counted fans ---------------------------------------------------------------------------------


def counted_fan_in(model: nn.Module, call: Callable[[nn.Module], Any]) -> dict[str, list[int]]:
    """How many entries of each weight feed one output coordinate, for every operation that uses it.

    The operation is where autograd's graph brings the weight together with an activation. It is
    asked for the gradient of a few single output coordinates (the borders of a convolution see
    less): the largest number of entries that are not 0 is the count. Whatever it saved of its
    operands is replaced by random positive numbers, so that no entry is 0 by chance.
    """
    parameters = {id(p): name for name, p in model.named_parameters()}
    generator = torch.Generator().manual_seed(2)

    def positive(saved: torch.Tensor) -> torch.Tensor:
        if not saved.is_floating_point():
            return saved
        return torch.rand(saved.shape, generator=generator, dtype=saved.dtype) + 0.5

    # detached: an output that a node keeps would keep the node, out of the collector's sight
    with torch.autograd.graph.saved_tensors_hooks(torch.Tensor.detach, positive):
        outputs = [t for t in tree_leaves(call(model)) if isinstance(t, torch.Tensor)]
        graph = _Graph([t.grad_fn for t in outputs if t.grad_fn is not None], parameters)
        found: dict[str, list[int]] = {}
        for name, node, path in graph.uses():
            found.setdefault(name, []).append(_count(node, path, generator))
    return found


class _Graph:
    """Autograd's nodes, and which of them depend on weights alone."""

    def __init__(self, roots: Sequence[Any], parameters: Mapping[int, str]) -> None:
        self.readers: dict[Any, list[tuple[Any, int]]] = {}
        self.leaves: dict[Any, str] = {}
        self.weights: dict[Any, bool] = {}
        pending, seen = list(roots), set(roots)
        while pending:
            node = pending.pop()
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) in parameters:
                self.leaves[node] = parameters[id(leaf)]
            for slot, (source, _) in enumerate(node.next_functions):
                if source is not None:
                    self.readers.setdefault(source, []).append((node, slot))
                    if source not in seen:
                        seen.add(source)
                        pending.append(source)

    def uses(self) -> Iterator[tuple[str, Any, list[tuple[Any, int]]]]:
        """A weight, the node that uses it, and the (node, slot) steps from there to the weight."""
        for leaf, name in self.leaves.items():
            pending: list[tuple[Any, list[tuple[Any, int]]]] = [(leaf, [])]
            while pending:
                node, path = pending.pop()
                for reader, slot in self.readers.get(node, []):
                    steps = [(reader, slot), *path]
                    if self._moves(reader):
                        pending.append((reader, steps))
                    else:
                        yield name, reader, steps

    def _moves(self, node: Any) -> bool:
        """Whether a node passes weights on without using them: a view, a cast, a stack of them."""
        if node not in self.weights:
            sources = [s for s, _ in node.next_functions if s is not None]
            alone = bool(sources) and all(s in self.leaves or self._moves(s) for s in sources)
            self.weights[node] = alone and not _reads(node)
        return self.weights[node]


_READERS = ("Embedding", "Index", "MmBackward", "MvBackward", "AddmmBackward", "Convolution")


def _reads(node: Any) -> bool:
    """A node that uses a weight even where nothing else that it reads has a gradient."""
    return any(word in node.name() for word in _READERS)


def _count(node: Any, path: list[tuple[Any, int]], generator: torch.Generator) -> int:
    """The entries of the weight at the path's end that get a gradient from one coordinate.

    The coordinate is the one in the middle; where that has none, random ones until two have any.
    """
    metadata = node._input_metadata[0]
    shape = [int(n) for n in metadata.shape]
    counts: list[int] = []
    for attempt in range(40):
        one = torch.zeros(shape, dtype=metadata.dtype)
        random = [int(torch.randint(n, (), generator=generator)) for n in shape]
        one[tuple(random if attempt else (n // 2 for n in shape))] = 1.0
        gradient = one
        for step, slot in path:
            given = step(*_padded(step, gradient))
            gradient = given[slot] if isinstance(given, tuple) else given
        counts.append(int(gradient.count_nonzero()))
        if counts[0] or sum(map(bool, counts)) == 2:
            break
    return max(counts)


def _padded(node: Any, gradient: torch.Tensor) -> list[torch.Tensor | None]:
    """A gradient for a node's first output and none for its others."""
    return [gradient, *[None] * (len(node._input_metadata) - 1)]
