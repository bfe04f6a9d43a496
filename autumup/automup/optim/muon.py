"""Muon for the hidden matrices, and Adam for all else, from one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from automup.errors import UsageError
from automup.optim.groups import make_groups
from automup.optim.matching import listed
from automup.optim.request import Request
from automup.optim.settings import at_base, defaults_of
from automup.optim.several import Several
from automup.optimizers import Known, known_class

#: What the Adam of MuonWithAuxAdam uses where a group does not say.
AUXILIARY = {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-10, "weight_decay": 0.0}

Groups = list[dict[str, Any]]


def muon_groups(asked: Request) -> tuple[Groups, Groups]:
    """The groups of the hidden matrices, and those of the rest, for Adam; each has ``use_muon``.

    Raises:
        UsageError: there is no matrix for Muon; or a group of the user's has an ``lr``, which would
            be one for two optimizers. And what :func:`automup.optim.groups.make_groups` raises.
    """
    known = asked.known
    own = _twice(asked.params)
    hidden = replace(asked, given={**known.settings, **asked.given}, params=own)
    matrices = make_groups(hidden, lambda p: _is_muons(known, p))
    if not any(group["params"] for group in matrices):
        raise UsageError(
            "The model has no hidden matrix that this optimizer could take.",
            fix="Use torch.optim.AdamW.",
        )
    remaining = replace(
        asked,
        optimizer_class=torch.optim.AdamW,
        known=known_class(torch.optim.AdamW),
        given=_rest_settings(asked),
        params=own,
        adjust=None,
        rest=None,
    )
    others = make_groups(remaining, lambda p: not _is_muons(known, p))
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


def _rest_settings(asked: Request) -> dict[str, Any]:
    """The settings of the Adam that trains the rest, as far as they are not its own defaults.

    Where Muon's updates are as large as AdamW's, one learning rate is meant for both
    (arXiv:2502.16982).
    """
    rest = asked.rest or {}
    if asked.known.auxiliary:
        return {**AUXILIARY, **rest}
    defaults = {**defaults_of(asked.optimizer_class, asked.given), **asked.given}
    adjust = asked.adjust or defaults.get("adjust_lr_fn")
    if adjust == "match_rms_adamw":
        return {"lr": defaults["lr"], **rest}
    return dict(rest)


def muon_optimizer(asked: Request) -> torch.optim.Optimizer:
    """One optimizer over both: the class itself where it has an Adam, else :class:`Several`.

    Raises:
        UsageError, PlanError: as :func:`muon_groups`.
    """
    matrices, others = muon_groups(asked)
    if asked.known.auxiliary:
        return _with_its_own_adam(asked.optimizer_class, [*matrices, *others])
    for group in (*matrices, *others):
        del group["use_muon"]
    muon: torch.optim.Optimizer = asked.optimizer_class(matrices, **at_base(asked.given))
    if not others:
        return muon
    return Several(muon, torch.optim.AdamW(others, **at_base(_rest_settings(asked))))


def _with_its_own_adam(optimizer_class: Any, groups: Groups) -> torch.optim.Optimizer:
    """MuonWithAuxAdam checks that a group has its own keys and no others, so ours come after."""
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
