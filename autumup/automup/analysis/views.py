"""Following a weight's dimensions through views, so that a contraction knows what it sums over.

Each dimension of a tensor derived from a weight is a sequence of *atoms*: pieces of the weight's
own dimensions. ``view(3, d)`` splits the atom ``3d``, ``permute`` reorders, ``reshape`` joins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from automup.analysis.dataflow import Size, log_ratio, product

NOWHERE = -1
"""The ``dim`` of an axis along which a weight is repeated: it holds none of its dimensions."""


@dataclass(frozen=True)
class Atom:
    """A piece of the weight's dimension ``dim`` that has this size."""

    dim: int
    size: Size


Axis = tuple[Atom, ...]
"""One dimension of a tensor: the atoms it is made of, outermost first; () where the size is 1."""


@dataclass(frozen=True)
class View:
    """A tensor that holds the entries of one weight; ``axes`` is None where they were lost.

    ``raw``: the entries themselves, only moved about. ``statistic``: not the entries, but norms,
    means or variances of them. ``terms``: of a product of two weights (B @ A), how many products
    each entry already sums on this weight's side; None of a weight by itself.
    """

    parameter: str
    axes: tuple[Axis, ...] | None
    raw: bool = True
    statistic: bool = False
    terms: Size | None = None

    def with_axes(self, axes: Sequence[Axis] | None) -> View:
        """The same entries under other axes; None where those are lost."""
        return replace(self, axes=None if axes is None else tuple(axes))


def whole(parameter: str, sizes: Sequence[Size]) -> View:
    """The weight itself."""
    return View(parameter, tuple((Atom(d, size),) for d, size in enumerate(sizes)))


def repeated(size: Size) -> Axis:
    """An axis along which nothing of the weight varies."""
    return () if size == (1, 1) else (Atom(NOWHERE, size),)


def reshaped(axes: Sequence[Axis], sizes: Sequence[Size]) -> tuple[Axis, ...] | None:
    """The axes after a reshape to these sizes, or None where an atom does not split evenly."""
    atoms = [a for axis in axes for a in axis if a.size != (1, 1)]
    result: list[Axis] = []
    for size in sizes:
        axis: list[Atom] = []
        rest = size
        while rest != (1, 1):
            if not atoms:
                return None
            atom = atoms.pop(0)
            if _divides(atom.size, rest):
                axis.append(atom)
                rest = (rest[0] // atom.size[0], rest[1] // atom.size[1])
            elif _divides(rest, atom.size):
                axis.append(Atom(atom.dim, rest))
                left = (atom.size[0] // rest[0], atom.size[1] // rest[1])
                atoms.insert(0, Atom(atom.dim, left))
                rest = (1, 1)
            else:
                return None
        result.append(tuple(axis))
    return None if atoms else tuple(result)


def _divides(part: Size, total: Size) -> bool:
    return total[0] % part[0] == 0 and total[1] % part[1] == 0


def expanded(axes: Sequence[Axis], sizes: Sequence[Size]) -> tuple[Axis, ...]:
    """The axes after broadcasting to these sizes, which may have more dimensions in front."""
    before = ((),) * (len(sizes) - len(axes)) + tuple(axes)
    return tuple(
        repeated(size) if product(atom.size for atom in axis) == (1, 1) else axis
        for axis, size in zip(before, sizes, strict=True)
    )


def resized(axes: Sequence[Axis], dim: int, size: Size) -> tuple[Axis, ...] | None:
    """The axes after taking a slice of this size along a dimension."""
    axis = axes[dim]
    if len(axis) > 1 and product(a.size for a in axis) != size:
        return None
    piece = tuple(replace(a, size=size) for a in axis) if len(axis) == 1 else axis
    return (*axes[:dim], piece, *axes[dim + 1 :])


def mapped(
    views: Sequence[View], change: Callable[[tuple[Axis, ...]], Sequence[Axis] | None]
) -> tuple[View, ...]:
    """Apply a change of axes to every view that is still known."""
    return tuple(v if v.axes is None else v.with_axes(change(v.axes)) for v in views)


def infinite_dims(axes: Sequence[Axis]) -> tuple[int, ...]:
    """The weight's dimensions of which these axes hold an infinite piece."""
    pieces: dict[int, list[Size]] = {}
    for atom in (atom for axis in axes for atom in axis if atom.dim != NOWHERE):
        pieces.setdefault(atom.dim, []).append(atom.size)
    return tuple(sorted(dim for dim, sizes in pieces.items() if log_ratio(product(sizes))))


def held(axes: Sequence[Axis]) -> Size:
    """How many of the weight's own entries lie along these axes."""
    return product(a.size for axis in axes for a in axis if a.dim != NOWHERE)
