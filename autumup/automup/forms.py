"""Forms of muP: how a weight's factors are shared out between multiplier, init and learning rate.

A weight W = s w that is stored as w, drawn by 1 / s times W's law, and trained with W's learning
rate times s^-k trains exactly as W (the abc-symmetry, Tensor Programs V, arXiv:2203.03466, J.2.1):
k is 1 for updates that do not depend on the gradient's size, g_w = s g_W, as Adam's; 2 for SGD's.
"""

from __future__ import annotations

from collections.abc import Callable

from automup.errors import UsageError
from automup.rules import FAMILIES, Ratios, Role

#: The forms whose groups all share one learning rate, and the optimizers that they do so for.
UNIFORM = {"uniform-lr": "adam", "uniform-lr-sgd": "sgd"}

#: default: everything in init and learning rate, which costs the forward pass nothing;
#: uniform-lr: everything in multipliers; table8: Tensor Programs V's Table 8, as mup: readouts are
#: drawn and trained as at the base, and divided by their fan_in.
FORMS = ("default", *UNIFORM, "table8")


def check_form(form: str) -> str:
    """The form, or UsageError if there is none of this name."""
    if form not in FORMS:
        raise UsageError(f"There is no form {form!r}.", fix=f"Known: {', '.join(FORMS)}.")
    return form


def scale(form: str, ratios: Ratios, role: Role, lr: Callable[[str], float]) -> float:
    """What the forward pass multiplies a weight by in a form.

    Args:
        form: a member of :data:`FORMS`.
        ratios, role: of the weight.
        lr: by family, the factor of its learning rate in the default form.
    """
    if form == "table8":
        return 1.0 / ratios.fan_in if role is Role.OUTPUT else 1.0
    if form in UNIFORM:
        family = UNIFORM[form]
        return float(lr(family) ** (1.0 / FAMILIES[family].gain))
    return 1.0


def may_change(form: str, fan_in_grows: bool, fan_out_grows: bool) -> bool:
    """Whether the :func:`scale` of a weight changes with its infinite dimensions.

    Where it goes with the ratio of both fans it may be 1 at many widths, and not at others.
    """
    if form == "table8":
        return fan_in_grows and not fan_out_grows
    degree = FAMILIES[UNIFORM[form]].degree if form in UNIFORM else 0.0
    return form in UNIFORM and (fan_in_grows or (fan_out_grows and degree != 0.0))


def at_one_rate(form: str, family: str, lr: float) -> float:
    """The factor of a learning rate that a form has: 1 but for rounding, where it promises that.

    Raises:
        UsageError: if it promises that for other optimizers.
    """
    if form not in UNIFORM:
        return lr
    if abs(lr - 1.0) > 1e-9:
        raise UsageError(
            f"The model is in the form {form!r}, for {UNIFORM[form]}'s family of optimizers: with "
            f"this one ({family}), or this choice of rates, its groups would not share one.",
            fix="Choose the form for this optimizer, or the default.",
        )
    return 1.0
