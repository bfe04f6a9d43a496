"""muP's parameter groups: the user's, split into as few as the plan needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from automup.errors import UsageError
from automup.facts import Parameter
from automup.optim.matching import facts_of, tensor_of, user_groups
from automup.optim.request import Request
from automup.optim.settings import defaults_of, scaled_value, values_of
from automup.optimizers import Known
from automup.rules import Multipliers
from automup.watch import ORIGIN, watch


def make_groups(
    asked: Request, takes: Callable[[Parameter], bool] = lambda p: True
) -> list[dict[str, Any]]:
    """The groups of one optimizer, as :func:`automup.optim.param_groups` gives them.

    Args:
        asked: what the caller asks for.
        takes: which parameters the optimizer gets; a group of which it gets none is left out.

    Raises:
        UsageError: a parameter that is not the model's, or a setting that has no rule.
        PlanError: the plan does not fit the model.
    """
    known, given = asked.known, asked.given
    shown = [key for key in given if key not in known.settings]
    defaults = {**defaults_of(asked.optimizer_class, shown), **known.settings}
    facts = facts_of(asked.plan, asked.model)
    watch()
    groups = []
    for number, own in enumerate(user_groups(asked.model, asked.params, facts)):
        items = [x for x in own["params"] if takes(facts[id(tensor_of(x))])]
        if own["params"] and not items:
            continue
        settings = {**defaults, **given, **own}
        here = known.at(settings)
        factors = partial(_factors, asked, here, settings)
        values = values_of(settings, here)
        split = list(_split(items, values, lambda t: factors(facts[id(t)]), here))  # noqa: B023
        name = getattr(asked.optimizer_class, "__name__", "")
        origin = {ORIGIN: f"{name} {number}"} if len(split) > 1 else {}
        groups += [{**given, **own, **group, **origin} for group in split]
    _warn(asked, [{**defaults, **group} for group in groups if group["lr_mult"] != 1])
    return groups


def _factors(
    asked: Request, known: Known, settings: Mapping[str, Any], fact: Parameter
) -> Multipliers:
    """The factors of one parameter, in a group with these settings."""
    family = known.family_of(fact)
    if family in ("sgd", "adadelta", "adafactor"):
        _refuse_parts(fact)
    return asked.plan.factors(
        fact,
        family,
        decay=asked.decay,
        embedding_lr=asked.embedding_lr,
        applied=known.applied(fact, asked.adjust or settings.get("adjust_lr_fn")),
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
            if k == "lr" or v != 0
        )
        found.setdefault(key, ({**scaled, "lr_mult": factors.lr}, []))[1].append(item)
    for scaled, members in found.values() or [({**values, "lr_mult": 1.0}, [])]:
        yield {"params": members, **scaled}


def _warn(asked: Request, moved: list[dict[str, Any]]) -> None:
    """What of the optimizer no factor can hold across widths; ``moved``: groups whose lr moves."""
    known = asked.known
    name = getattr(asked.optimizer_class, "__qualname__", asked.optimizer_class)
    if asked.decay == "independent" and any(
        known.is_l2(group) and group.get("weight_decay", 0) != 0 for group in moved
    ):
        warnings.warn(
            f"{name}'s weight_decay is an L2 term inside the normalised gradient, so "
            'decay="independent" cannot hold exactly across widths. Use torch.optim.AdamW.',
            stacklevel=5,
        )
    if known.family == "adafactor" and not known.squared_eps and moved:
        lr = max(float(g["lr"]) / g["lr_mult"] for g in moved)
        warnings.warn(
            f"{name} limits every learning rate to 1 / sqrt(step), which bends the ratios between "
            f"weights after {1 / lr**2:.0f} steps at lr={lr:g}.",
            stacklevel=5,
        )
