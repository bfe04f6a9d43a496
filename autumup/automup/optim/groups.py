"""muP's parameter groups: the user's, split into as few as the plan needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from automup.errors import UsageError
from automup.optim.matching import facts_of, tensor_of, user_groups
from automup.optim.settings import defaults_of, scaled_value, values_of
from automup.optimizers import ADJUSTMENTS, Adjustment, Known
from automup.plan import Parameter, Plan
from automup.rules import DECAYS, EMBEDDING_LRS, Multipliers
from automup.watch import ORIGIN, watch


@dataclass(frozen=True)
class Choices:
    """What the caller chose where opinions differ, and of Muon's own factor."""

    decay: str = "independent"
    embedding_lr: str = "constant"
    adjust: str | Adjustment | None = None

    def __post_init__(self) -> None:
        check("decay", self.decay, DECAYS)
        check("embedding_lr", self.embedding_lr, EMBEDDING_LRS)
        if not callable(self.adjust) and self.adjust is not None:
            check("adjustment", self.adjust, ADJUSTMENTS)


def check(what: str, name: str, known: Iterable[str]) -> None:
    """UsageError unless a name is known."""
    if name not in known:
        raise UsageError(f"There is no {what} {name!r}.", fix=f"Known: {', '.join(known)}.")


def make_groups(
    plan: Plan,
    model: nn.Module,
    optimizer_class: Any,
    known: Known,
    choices: Choices,
    given: Mapping[str, Any],
    params: Iterable[Any] | None,
    takes: Callable[[Parameter], bool] = lambda p: True,
) -> list[dict[str, Any]]:
    """The groups of one optimizer.

    Args:
        plan, model, optimizer_class, params: as of :func:`automup.optim.param_groups`.
        known: what is known of the class.
        choices: the caller's.
        given: the settings that the caller gave, at the base.
        takes: which parameters the optimizer gets; a group of which it gets none is left out.
    """
    shown = [key for key in given if key not in known.settings]
    defaults = {**defaults_of(optimizer_class, shown), **known.settings}
    facts = facts_of(plan, model)
    watch()
    groups = []
    for number, own in enumerate(user_groups(model, params, facts)):
        items = [x for x in own["params"] if takes(facts[id(tensor_of(x))])]
        if own["params"] and not items:
            continue
        settings = {**defaults, **given, **own}
        here = known.at(settings)
        factors = partial(_factors, plan, here, choices, settings)

        values = values_of(settings, here)
        split = list(_split(items, values, lambda t: factors(facts[id(t)]), here))  # noqa: B023
        name = getattr(optimizer_class, "__name__", "")
        origin = {ORIGIN: f"{name} {number}"} if len(split) > 1 else {}
        groups += [{**given, **own, **group, **origin} for group in split]
    _warn(optimizer_class, known, groups, defaults, choices)
    return groups


def _factors(
    plan: Plan, known: Known, choices: Choices, settings: Mapping[str, Any], fact: Parameter
) -> Multipliers:
    """The factors of one parameter, in a group with these settings."""
    family = known.family_of(fact)
    if family in ("sgd", "adadelta", "adafactor"):
        _refuse_parts(fact)
    return plan.factors(
        fact,
        family,
        decay=choices.decay,
        embedding_lr=choices.embedding_lr,
        applied=known.applied(fact, choices.adjust or settings.get("adjust_lr_fn")),
        l2=known.is_l2(settings),
    )


def _refuse_parts(fact: Parameter) -> None:
    """A learning rate that goes with fan_out, which the rows of a fused weight do not share."""
    if any(part.grows != fact.parts[0].grows for part in fact.parts):
        rows = ", ".join(f"{p.base_size} that {'grow' if p.grows else 'stay'}" for p in fact.parts)
        raise UsageError(
            f"{fact.name}: its rows are cut into parts ({rows}), which need different learning "
            "rates with this optimizer.",
            where=fact.source,
            fix="Use an optimizer of Adam's family, or a layer for each part.",
        )


def _split(
    items: Iterable[Any],
    values: Mapping[str, Any],
    factors_of: Callable[[Tensor], Multipliers],
    known: Known,
) -> Iterator[dict[str, Any]]:
    """One of the user's groups as the fewest groups with one value of each setting."""
    found: dict[tuple[Any, ...], tuple[dict[str, Any], list[Any]]] = {}
    for item in items:
        tensor = tensor_of(item)
        factors = factors_of(tensor)
        scaled = {k: scaled_value(k, v, factors, known, tensor.dtype) for k, v in values.items()}
        # 0 stays 0 whatever its factor, so it splits nothing (lr_mult is carried: it does).
        key = tuple(
            scaled[k] if isinstance(v, tuple) else getattr(factors, k)
            for k, v in values.items()
            if k == "lr" or isinstance(v, tuple) or v != 0
        )
        found.setdefault(key, ({**scaled, "lr_mult": factors.lr}, []))[1].append(item)
    for scaled, members in found.values() or [({**values, "lr_mult": 1.0}, [])]:
        yield {"params": members, **scaled}


def _warn(
    make: Any,
    known: Known,
    groups: list[dict[str, Any]],
    defaults: Mapping[str, Any],
    choices: Choices,
) -> None:
    """What of the optimizer no factor can hold across widths."""
    moved = [{**defaults, **g} for g in groups if g["lr_mult"] != 1]
    name = getattr(make, "__qualname__", make)
    if choices.decay == "independent" and any(
        known.is_l2(g) and g.get("weight_decay", 0) != 0 for g in moved
    ):
        warnings.warn(
            f"{name}'s weight_decay is an L2 term inside the normalised gradient, so "
            'decay="independent" cannot hold exactly across widths. Use torch.optim.AdamW.',
            stacklevel=4,
        )
    if known.family == "adafactor" and not known.squared_eps and moved:
        lr = max(float(g["lr"]) / g["lr_mult"] for g in moved)
        warnings.warn(
            f"{name} limits every learning rate to 1 / sqrt(step), which bends the ratios between "
            f"weights after {1 / lr**2:.0f} steps at lr={lr:g}.",
            stacklevel=4,
        )
