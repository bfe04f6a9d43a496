"""A weight's dimensions followed through views, against a tensor that knows where it came from."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automup.analysis.views import (
    Axis,
    expanded,
    held,
    infinite_dims,
    reshaped,
    resized,
    whole,
)

Shapes = tuple[list[int], list[int]]


@st.composite
def weights(draw: st.DrawFn) -> Shapes:
    """A weight's shape at two widths: each dimension stays, or doubles."""
    base = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=3))
    grows = draw(st.lists(st.booleans(), min_size=len(base), max_size=len(base)))
    return base, [n * 2 if g else n for n, g in zip(base, grows, strict=True)]


def coordinates(shape: list[int]) -> list[torch.Tensor]:
    """For each dimension of a weight, a tensor of its shape whose entries are where they are."""
    return list(torch.meshgrid(*map(torch.arange, shape), indexing="ij"))


def varies(tensor: torch.Tensor, axis: int) -> int:
    """How many values of a coordinate lie along an axis."""
    lines = tensor.movedim(axis, -1).reshape(-1, tensor.shape[axis])
    return max(len(set(line.tolist())) for line in lines)


def agree(axes: tuple[Axis, ...] | None, at: list[list[torch.Tensor]]) -> None:
    """The axes hold, at both widths, as many entries of each dimension as the tensors show."""
    assert axes is not None
    base, wide = at
    for a, axis in enumerate(axes):
        assert math.prod(atom.size[0] for atom in axis) == base[0].shape[a]
        assert math.prod(atom.size[1] for atom in axis) == wide[0].shape[a]
        shown = [(varies(b, a), varies(w, a)) for b, w in zip(base, wide, strict=True)]
        assert held([axis]) == (math.prod(b for b, _ in shown), math.prod(w for _, w in shown))
        assert infinite_dims([axis]) == tuple(d for d, (b, w) in enumerate(shown) if b != w)


def shapes_of(at: list[list[torch.Tensor]]) -> list[tuple[int, int]]:
    """The sizes at both widths."""
    return list(zip(*(coordinates[0].shape for coordinates in at), strict=True))


def moved(at: list[list[torch.Tensor]], move: Any, sizes: Any) -> list[list[torch.Tensor]]:
    """The coordinates at both widths, each brought to its size."""
    shapes = zip(*sizes, strict=True)
    return [[move(t, shape) for t in ts] for ts, shape in zip(at, shapes, strict=True)]


def cut(draw: Any, sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """One dimension split in two, or two neighbours joined."""
    d = draw(st.integers(0, len(sizes) - 1))
    (base, wide), rest = sizes[d], sizes[d + 1 :]
    if rest and draw(st.booleans()):
        return [*sizes[:d], (base * rest[0][0], wide * rest[0][1]), *rest[1:]]
    n = draw(st.sampled_from([n for n in (1, 2, 3) if base % n == wide % n == 0]))
    pieces = draw(st.permutations([(base // n, wide // n), (n, n)]))
    return [*sizes[:d], *pieces, *rest]


@given(st.data(), weights())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_axes_are_where_the_entries_are(data: st.DataObject, weight: Shapes) -> None:
    """Any sequence of reshapes, permutations, slices and broadcasts."""
    at = [coordinates(shape) for shape in weight]
    axes: tuple[Axis, ...] | None = whole("w", shapes_of(at)).axes
    for step in data.draw(st.lists(st.sampled_from(["view", "permute", "slice", "expand"]))):
        assert axes is not None
        sizes = shapes_of(at)
        if step == "permute":
            order = data.draw(st.permutations(range(len(axes))))
            axes = tuple(axes[d] for d in order)
            at = [[t.permute(*order) for t in ts] for ts in at]
        elif step == "expand":
            front = data.draw(st.lists(st.just((2, 2)), max_size=1))
            sizes = [*front, *((3, 3) if size == (1, 1) else size for size in sizes)]
            axes = expanded(axes, sizes)
            at = [
                [t.expand(*s) for t in ts]
                for ts, s in zip(at, zip(*sizes, strict=True), strict=True)
            ]
        elif step == "slice":
            d = data.draw(st.integers(0, len(axes) - 1))
            base, wide = sizes[d]
            piece = data.draw(st.sampled_from([(1, 1), (base, base), (base, wide)]))
            if len([a for a in axes[d] if a.size != (1, 1)]) < 2:  # else what is left is not known
                axes = resized(axes, d, piece)
                at = [[t.narrow(d, 0, n) for t in ts] for ts, n in zip(at, piece, strict=True)]
        else:
            sizes = cut(data.draw, sizes)
            joined = any(len([a for a in axis if a.size != (1, 1)]) > 1 for axis in axes)
            axes = reshaped(axes, sizes)
            at = [
                [t.reshape(*s) for t in ts]
                for ts, s in zip(at, zip(*sizes, strict=True), strict=True)
            ]
            if axes is None:  # it says that it does not know
                assert joined, "what was never joined splits evenly here"
                return
    agree(axes, at)
