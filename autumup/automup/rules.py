"""The table of muP: what each weight's init, learning rate, decay and epsilon are multiplied by.

Everything is a ratio to the base model, so at the base every number is exactly 1.
For a weight with fan_in n_i and fan_out n_o, r_i and r_o are target / base of each.

Sources: the spectral condition |W|, |dW| = Theta(sqrt(n_o / n_i)) of Yang, Simon and Bernstein
(arXiv:2310.17813), of which Table 3 of Tensor Programs V (arXiv:2203.03466) is the special case;
Adam's epsilon: a gradient entry is Theta(1 / n_o) (Tensor Programs IVb, arXiv:2308.01814);
decay: lr * decay is kept (Tensor Programs V, B.3; CompleteP, arXiv:2505.01618).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a weight does, by which of its fans grow with width (Tensor Programs V, Table 3)."""

    INPUT = "input"  # finite fan_in, infinite fan_out; biases and gains too
    HIDDEN = "hidden"  # both infinite
    OUTPUT = "output"  # infinite fan_in, finite fan_out: a readout
    SCALAR = "scalar"  # nothing grows


@dataclass(frozen=True)
class Ratios:
    """target / base of a weight's fan_in and fan_out."""

    fan_in: float
    fan_out: float


@dataclass(frozen=True)
class Multipliers:
    """What one parameter's optimizer settings are multiplied by.

    ``eps`` is one that is added to the size of a gradient entry, ``floor`` one in units of the
    weight's own entries (Adafactor's second), ``lambd`` ASGD's.
    """

    lr: float
    weight_decay: float
    eps: float
    floor: float = 1.0

    @property
    def lambd(self) -> float:
        """lr * lambd is what ASGD's own schedule counts with."""
        return 1.0 / self.lr


def init_multiplier(ratios: Ratios, role: Role) -> float:
    """Factor of the init std that muP asks for: r_i^-1/2 * min(1, sqrt(r_o / r_i)).

    A random n_o x n_i matrix of entry std s has spectral norm s * (sqrt(n_i) + sqrt(n_o)), which
    must be Theta(sqrt(n_o / n_i)): so s = Theta(n_i^-1/2 * min(1, sqrt(n_o / n_i))). With only one
    fan infinite that is 1 (input) or 1 / n_i (output) at any width, also below the base.
    """
    if role in (Role.INPUT, Role.SCALAR):
        return 1.0
    if role is Role.OUTPUT:
        return 1.0 / ratios.fan_in
    return float(ratios.fan_in**-0.5) * min(1.0, math.sqrt(ratios.fan_out / ratios.fan_in))


@dataclass(frozen=True)
class Family:
    """A family of optimizers whose updates scale in the same way.

    An update U(g, eps) answers to the size of the gradient by U(c g, c^k eps) = c^degree U(g, eps),
    where k is ``eps_power``. A gradient entry of a weight is Theta(1 / n_o) at any width, so with
    eps times r_o^-k an entry of U is r_o^-degree times the base's; r_i of them add up, aligned with
    the input, hence lr times r_o^degree / r_i.

    A weight W = A w whose multiplier A was put into W itself (the abc-symmetry, Tensor Programs V,
    J.2.1): g_w = A g_W and dW = A dw, so w's training is W's with eps times A^-k and lr times
    A^(1 + degree).

    Attributes:
        relative: the update is in units of the weight's own rms, which the init law gives: lr is
            divided by that law, and A enters only once, by the weight itself.
        spectral: the update is a matrix of spectral norm Theta(1), whatever the gradient's: its lr
            follows the spectral condition itself, sqrt(r_o / r_i); and the gradient, an outer
            product of an error (norm n_o^-1/2) and an input (norm n_i^1/2), has a norm, which eps
            is added to, of sqrt(n_i / n_o).
        source: where the rule is from.
    """

    name: str
    source: str
    degree: float = 0.0
    eps_power: float = 1.0
    relative: bool = False
    spectral: bool = False

    def lr(self, ratios: Ratios, role: Role) -> float:
        """Factor of the learning rate."""
        if self.spectral:
            return math.sqrt(ratios.fan_out / ratios.fan_in)
        entries = float(ratios.fan_out**self.degree) / ratios.fan_in
        return entries / init_multiplier(ratios, role) if self.relative else entries

    def eps(self, ratios: Ratios, gain: float) -> float:
        """Factor of eps."""
        if self.spectral:
            return math.sqrt(ratios.fan_in / ratios.fan_out) / gain
        return 1.0 / float((ratios.fan_out * gain) ** self.eps_power)

    @property
    def gain(self) -> float:
        """The power of A in the learning rate."""
        return 1.0 + self.degree - self.relative


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("sgd", "Tensor Programs V (arXiv:2203.03466), Table 3", degree=1.0),
        Family("adam", "Tensor Programs V, Table 3; eps: Tensor Programs IVb (arXiv:2308.01814)"),
        # Lion and other sign methods, and updates with entries of size 1 that have no eps:
        Family("sign", "Tensor Programs V, Table 3", eps_power=0.0),
        # sqrt(D + eps) / sqrt(g^2 + eps) g, where D averages the squares of just that: with
        # eps / c^2 it is U / c for g / c, for D / c^2 solves the same recursion.
        Family("adadelta", "homogeneous of degree 1 in (g, sqrt(eps))", degree=1.0, eps_power=2.0),
        # max(eps2, rms(W)) times entries of size 1 (arXiv:1804.04235, section 8).
        Family("adafactor", "Adafactor (arXiv:1804.04235), on Table 3's entries", relative=True),
        # O = U V^T of the momentum's U S V^T (Keller Jordan's Muon; arXiv:2409.20325).
        Family("muon", "the spectral condition (arXiv:2310.17813)", spectral=True),
    )
}


#: independent: lr * decay is kept (Tensor Programs V, B.3; CompleteP, arXiv:2505.01618);
#: coupled: decay is kept; sqrt: decay times sqrt(width) where lr is 1 / width (arXiv:2510.15262).
DECAYS: dict[str, Callable[[float, float], float]] = {
    "independent": lambda rule, tuned: 1.0 / (rule * tuned),
    "coupled": lambda rule, tuned: 1.0,
    "sqrt": lambda rule, tuned: 1.0 / math.sqrt(rule),
}

#: constant: as any input weight (Tensor Programs V); sqrt: times width^-1/2, of u-muP
#: (arXiv:2407.17465) and, for vocabularies much larger than the width, of arXiv:2506.15025.
EMBEDDING_LRS: dict[str, Callable[[Ratios], float]] = {
    "constant": lambda r: 1.0,
    "sqrt": lambda r: 1.0 / math.sqrt(r.fan_out),
}


def multipliers(
    family: str,
    ratios: Ratios,
    role: Role,
    *,
    decay: str = "independent",
    embedding_lr: str = "constant",
    gain: float = 1.0,
    rate: float = 1.0,
    applied: float = 1.0,
    l2: bool = False,
) -> Multipliers:
    """The optimizer's factors for one parameter.

    Args:
        family: a key of :data:`FAMILIES`.
        ratios: target / base of the parameter's fan_in and fan_out.
        role: of the parameter.
        decay: a key of :data:`DECAYS`.
        embedding_lr: a key of :data:`EMBEDDING_LRS`, for a parameter that is an embedding.
        gain: the multiplier A that was put into the weight, W = A w, see :class:`Family`. The decay
            of a step of w is that of W, so its factor undoes that of lr; in the gradient (``l2``),
            g_w + d w = A (g_W + d W / A^2).
        rate: a factor of the learning rate that the user tuned.
        applied: the factor of its own that the optimizer already puts on the learning rate.
        l2: the decay is added to the gradient, not to the step.
    """
    rule = FAMILIES[family]
    lr = rule.lr(ratios, role) / applied
    tuned = EMBEDDING_LRS[embedding_lr](ratios) * rate
    return Multipliers(
        lr=lr * tuned * gain**rule.gain,
        weight_decay=DECAYS[decay](lr, tuned) * gain ** -(2.0 if l2 else rule.gain),
        eps=rule.eps(ratios, gain),
        floor=init_multiplier(ratios, role) * gain,
    )


def role_of(fan_in_grows: bool, fan_out_grows: bool) -> Role:
    """The role that follows from which of the two fans is infinite."""
    if fan_in_grows:
        return Role.HIDDEN if fan_out_grows else Role.OUTPUT
    return Role.INPUT if fan_out_grows else Role.SCALAR
