"""How an operation acts, in the words of the width calculus: rules for :func:`register_op`.

Every value has a *size*: how its typical entry grows with width. A rule says what an operation
does to sizes, and how it uses the weights among its arguments. Arguments are named as in the
operation's schema or counted from 0; dimensions may be counted from the last.
"""

from __future__ import annotations

from dataclasses import dataclass

Argument = int | str


@dataclass(frozen=True)
class Elementwise:
    """Each coordinate of an infinite axis by itself: (.., n), (.., n), (n) -> (.., n).

    Finite axes may be mixed in any way (a recurrence over time whose channels do not meet). Weights
    are used with fan_in 1. With a ``degree``, f(c x) = c ** degree * f(x) for the argument
    ``input``, whose size is raised to it; without, all arguments must be Θ(1), and so is the
    result.
    """

    degree: float | None = None
    input: Argument = 0


@dataclass(frozen=True)
class Moves:
    """Entries of one argument in other places, dropped or averaged: (.., n, ..) -> any shape.

    The result has the size of the argument ``input``; which of a weight's dimensions is which is
    not known any more.
    """

    input: Argument = 0


@dataclass(frozen=True)
class Reduction:
    """Many entries of one argument into one: (.., n, ..) -> (..), over ``dims`` of ``input``.

    The result has the size of the argument times n ** power: 1 for a sum, whose terms training
    aligns, 0.5 for a Euclidean norm, 0 for a mean or an extreme.
    """

    dims: tuple[int, ...] = (-1,)
    power: float = 1.0
    input: Argument = 0


@dataclass(frozen=True)
class Contraction:
    """A sum of products of two arguments over paired dimensions, plus a bias if there is one.

    (.., k) x (.., k) -> (..), over ``left_dims`` of ``left`` and ``right_dims`` of ``right``. A
    weight's summed dimensions are its fan_in and the others its fan_out; two activations give the
    product of their sizes times k.
    """

    left: Argument = 0
    right: Argument = 1
    left_dims: tuple[int, ...] = (-1,)
    right_dims: tuple[int, ...] = (-1,)
    bias: Argument | None = None


@dataclass(frozen=True)
class Normalisation:
    """The size of ``input`` is forgotten: (.., n) -> (.., n), Θ(1). Weights are gains and biases.

    Weights are used with fan_in 1, and must be Θ(1) themselves.
    """

    input: Argument = 0


@dataclass(frozen=True)
class Lookup:
    """Rows of a table: (v, n), indices (..) -> (.., n). One entry feeds one output coordinate."""

    table: Argument = 0


OpRule = Elementwise | Moves | Reduction | Contraction | Normalisation | Lookup
