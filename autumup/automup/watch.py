"""Noticing that the groups of an optimizer have lost muP's ratios between their learning rates.

Schedulers that multiply keep them; those that set or add rates (OneCycleLR, CyclicLR, ``eta_min``),
and loops that write one rate into every group, erase or bend them, and the loss still falls. The
check is torch's hook before the step of any optimizer, since hooks of one optimizer are lost when
it is copied or pickled; what it reads are the groups, which are not.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

ORIGIN = "mup_origin"
"""The key of groups that were split: which one of which optimizer they were."""

BENT = 1e-3
"""The relative change of a ratio that is more than rounding, also of rates in float32."""

_registered: list[Any] = []
_steps: WeakKeyDictionary[torch.optim.Optimizer, int] = WeakKeyDictionary()
"""How many steps each optimizer made before the last."""


def watch() -> None:
    """From now on every optimizer whose groups are muP's is watched."""
    if not _registered:
        _registered.append(register_optimizer_step_pre_hook(_before_step))


def _before_step(optimizer: torch.optim.Optimizer, args: object, kwargs: object) -> None:
    groups = [group for group in optimizer.param_groups if ORIGIN in group]
    if not groups or torch.compiler.is_compiling():
        return
    number = _steps[optimizer] = _steps.get(optimizer, -1) + 1
    pair = _bent_pair(groups, rarely=number & (number - 1) == 0)
    if pair is not None:
        _report(*pair)
        for group in groups:  # said once, also by optimizers that share their groups
            del group[ORIGIN]


def _bent_pair(
    groups: Iterable[Mapping[str, Any]], *, rarely: bool
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Two groups of one origin whose rates are not in the ratio of their ``lr_mult``.

    To read a rate that is on a GPU is to wait for it, so that is done ``rarely``: at the steps
    whose numbers are powers of two.
    """
    first: dict[str, Mapping[str, Any]] = {}
    for group in groups:
        other = first.setdefault(group[ORIGIN], group)
        if group["lr_mult"] == other["lr_mult"]:
            continue
        rates = group["lr"], other["lr"]
        if not all(_readable(rate, rarely) for rate in rates):
            continue
        here, there = (float(g["lr"]) / g["lr_mult"] for g in (group, other))
        if abs(here - there) > BENT * max(abs(here), abs(there)):
            return other, group
    return None


def _readable(rate: Any, rarely: bool) -> bool:
    if not isinstance(rate, Tensor):
        return isinstance(rate, Real)  # some optimizers choose their own: None
    if rate.device.type == "cpu":
        return True
    return rarely and not (rate.is_cuda and torch.cuda.is_current_stream_capturing())


def _report(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    rates = " and ".join(
        f"{float(group['lr']):.3g} where lr_mult is {group['lr_mult']:.3g}"
        for group in (one, other)
    )
    warnings.warn(
        f"The groups' learning rates have lost muP's ratios: {rates}. Something sets them without "
        "regard to lr_mult: a loop that writes group['lr'], OneCycleLR, CyclicLR, or an eta_min or "
        "min_lr above 0. Multiply what it sets by each group's lr_mult: "
        "group['lr'] = lr * group['lr_mult'], max_lr=[lr * g['lr_mult'] for g in "
        "optimizer.param_groups]. (Reported once.)",
        stacklevel=4,
    )
