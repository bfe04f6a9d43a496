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

from automup.errors import UsageError


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
    """What one parameter's learning rate, weight decay and epsilon are multiplied by."""

    lr: float
    weight_decay: float
    eps: float


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

    ``gain``: a weight W = A w whose multiplier A is put into W itself trains as before with the
    learning rate times A ** gain: the gradient of w is A times that of W, and dW = A dw.
    """

    name: str
    lr: Callable[[Ratios], float]
    gain: float
    source: str


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        # dW = g = (dL/dh) x^T, entries Theta(1 / n_o), and |dW| must be n_o / n_i times that:
        Family("sgd", lambda r: r.fan_out / r.fan_in, 2.0, "Tensor Programs V, Table 3"),
        # entries of dW are Theta(1) and aligned with the input: fan_in of them add up.
        Family("adam", lambda r: 1.0 / r.fan_in, 1.0, "Tensor Programs V, Table 3"),
    )
}


DECAYS = ("independent", "coupled")


def multipliers(
    family: str,
    ratios: Ratios,
    *,
    decay: str = "independent",
    gain: float = 1.0,
    rate: float = 1.0,
    l2: bool = False,
) -> Multipliers:
    """The optimizer's three factors for one parameter.

    Args:
        family: a key of :data:`FAMILIES`.
        ratios: target / base of the parameter's fan_in and fan_out.
        decay: ``"independent"`` keeps lr * weight_decay across width; ``"coupled"`` leaves
            weight_decay alone.
        gain: the multiplier A that was put into the weight, W = A w, see :class:`Family`. The
            gradient shrinks to 1 / A, hence Adam's eps; the decay of a step of w is that of W, so
            its factor undoes that of lr; in the gradient (``l2``), g_w + d w = A (g_W + d W / A^2).
        rate: a factor of the learning rate that the user tuned; independent decay does not see it.
        l2: the decay is added to the gradient, not to the step.

    Raises:
        UsageError: for any other decay.
    """
    if decay not in DECAYS:
        raise UsageError(f"No decay rule {decay!r}.", fix=f"Choose one of {', '.join(DECAYS)}.")
    lr, power = FAMILIES[family].lr(ratios), FAMILIES[family].gain
    return Multipliers(
        lr=lr * rate * gain**power,
        weight_decay=(1.0 / (lr * rate) if decay == "independent" else 1.0)
        * gain ** -(2.0 if l2 else power),
        eps=1.0 / (ratios.fan_out * gain),
    )


def role_of(fan_in_grows: bool, fan_out_grows: bool) -> Role:
    """The role that follows from which of the two fans is infinite."""
    if fan_in_grows:
        return Role.HIDDEN if fan_out_grows else Role.OUTPUT
    return Role.INPUT if fan_out_grows else Role.SCALAR
