"""Muon for the hidden matrices, and Adam for all else, from one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from automup.errors import UsageError
from automup.optim.groups import Choices, make_groups
from automup.optim.matching import listed
from automup.optim.settings import defaults_of, times
from automup.optim.several import Several
from automup.optimizers import Known, known_class
from automup.plan import Plan

#: What the Adam of MuonWithAuxAdam uses where a group does not say.
AUXILIARY = {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-10, "weight_decay": 0.0}

Groups = list[dict[str, Any]]


def muon_groups(
    plan: Plan,
    model: nn.Module,
    optimizer_class: Any,
    known: Known,
    choices: Choices,
    given: Mapping[str, Any],
    params: Iterable[Any] | None,
    rest: Mapping[str, Any],
) -> tuple[Groups, Groups]:
    """The groups of the hidden matrices, and those of the rest, for Adam.

    Each carries ``use_muon`` too. ``rest`` holds Adam's settings at the base.

    Raises:
        UsageError: there is no matrix for Muon; or a group of the user's has an ``lr``, which would
            be one for two optimizers.
    """
    own = _twice(params)
    asked = {**known.settings, **given}
    matrices = make_groups(
        plan, model, optimizer_class, known, choices, asked, own, lambda p: _is_muons(known, p)
    )
    if not any(group["params"] for group in matrices):
        raise UsageError(
            "The model has no hidden matrix that this optimizer could take.",
            fix="Use torch.optim.AdamW.",
        )
    others = make_groups(
        plan,
        model,
        torch.optim.AdamW,
        known_class(torch.optim.AdamW),
        Choices(choices.decay, choices.embedding_lr),
        rest_settings(optimizer_class, known, choices, given, rest),
        own,
        lambda p: not _is_muons(known, p),
    )
    return (
        [{**group, "use_muon": True} for group in matrices],
        [{**group, "use_muon": False} for group in others],
    )


def _is_muons(known: Known, parameter: Any) -> bool:
    return known.family_of(parameter) == "muon"


def _twice(params: Iterable[Any] | None) -> list[Any] | None:
    """The user's parameters as a list that can be read twice."""
    if params is None:
        return None
    found = listed(params)
    for group in found:
        if isinstance(group, Mapping) and "lr" in group:
            raise UsageError(
                "A group of params has an lr, which Muon and Adam would share.",
                fix="Pass lr=... for Muon and rest={'lr': ...} for Adam.",
            )
    return [
        {**g, "params": listed(g["params"])} if isinstance(g, Mapping) and "params" in g else g
        for g in found
    ]


def rest_settings(
    optimizer_class: Any,
    known: Known,
    choices: Choices,
    given: Mapping[str, Any],
    rest: Mapping[str, Any],
) -> dict[str, Any]:
    """The settings of the Adam that trains the rest, as far as they are not its own defaults.

    Where Muon's updates are as large as AdamW's, one learning rate is meant for both
    (arXiv:2502.16982).
    """
    if known.auxiliary:
        return {**AUXILIARY, **rest}
    defaults = {**defaults_of(optimizer_class, given), **given}
    adjust = choices.adjust or defaults.get("adjust_lr_fn")
    if adjust == "match_rms_adamw" and "lr" not in rest:
        return {"lr": defaults["lr"], **rest}
    return dict(rest)


def muon_optimizer(
    optimizer_class: Any,
    known: Known,
    matrices: Groups,
    others: Groups,
    given: Mapping[str, Any],
    rest: Mapping[str, Any],
) -> torch.optim.Optimizer:
    """One optimizer over both: the class itself where it has an Adam, else :class:`Several`."""
    if known.auxiliary:
        return _with_its_own_adam(optimizer_class, matrices, others, given)
    for group in (*matrices, *others):
        del group["use_muon"]
    muon: torch.optim.Optimizer = optimizer_class(
        matrices, **{key: times(value, 1.0) for key, value in given.items()}
    )
    if not others:
        return muon
    settings = {key: times(value, 1.0) for key, value in rest.items()}
    return Several(muon, torch.optim.AdamW(others, **settings))


def _with_its_own_adam(
    optimizer_class: Any, matrices: Groups, others: Groups, given: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """MuonWithAuxAdam checks that a group has its own keys and no others, so ours come after."""
    groups = (*matrices, *others)
    extra = [{k: g[k] for k in g if k not in _keys(g)} for g in groups]
    made: torch.optim.Optimizer = optimizer_class(
        [{k: g[k] for k in g if k in _keys(g)} for g in groups]
    )
    for group, more in zip(made.param_groups, extra, strict=True):
        group.update(more)
    return made


def _keys(group: Mapping[str, Any]) -> frozenset[str]:
    own = {"momentum"} if group["use_muon"] else {"betas", "eps"}
    return frozenset({"params", "lr", "weight_decay", "use_muon", *own})
