"""The optimizer in muP: ordinary param groups whose lr, decay and eps follow the plan.

Groups are plain dicts, so any trainer that takes param groups takes these, and at the base there
is one group in the order of ``model.parameters()``: the plain optimizer, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from automup.constants import NO_CONSTANTS
from automup.errors import UsageError
from automup.optim.groups import make_groups
from automup.optim.matching import check_module, facts_of
from automup.optim.muon import muon_groups, muon_optimizer
from automup.optim.request import request
from automup.optim.settings import at_base
from automup.optim.several import Several
from automup.optimizers import NAMED, Adjustment, known_class, named
from automup.plan import Plan

__all__ = [
    "OPTIMIZERS",
    "Several",
    "check_module",
    "family_of",
    "optimizer",
    "optimizer_class_of",
    "param_groups",
    "plain_optimizer",
]

#: The optimizers of torch that the command line knows, by name.
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    cls.__name__.lower(): cls
    for cls in vars(torch.optim).values()
    if isinstance(cls, type) and cls.__name__.lower() in NAMED
}


def family_of(optimizer_class: Any) -> str:
    """The family (of :data:`automup.rules.FAMILIES`) of an optimizer class, by inheritance.

    Raises:
        UsageError: if it is unknown, or has no rule.
    """
    return known_class(optimizer_class).family


def optimizer_class_of(name: str) -> type[torch.optim.Optimizer]:
    """The optimizer class of a name on the command line, in any case; UsageError if unknown."""
    named(name)
    found = OPTIMIZERS.get(name.lower())
    if found is None:
        raise UsageError(f"This torch has no {name}.", fix=f"It has {', '.join(OPTIMIZERS)}.")
    return found


def optimizer(
    plan: Plan, model: nn.Module, optimizer_class: Any = torch.optim.AdamW, **settings: Any
) -> Any:
    """The optimizer of a model in muP: an ordinary ``optimizer_class`` over :func:`param_groups`.

    The arguments and errors are those of :func:`param_groups`; settings (betas, momentum, fused,
    ...) reach the class as they are. At the base it trains bit for bit as the plain one. Muon gets
    the hidden matrices and AdamW the rest, as one optimizer, a :class:`Several`.
    """
    asked = request(plan, model, optimizer_class, **settings)
    if asked.known.family == "muon":
        return muon_optimizer(asked)
    return optimizer_class(make_groups(asked), **at_base(asked.given))


def plain_optimizer(
    plan: Plan, model: nn.Module, optimizer_class: Any = torch.optim.AdamW, **settings: Any
) -> Any:
    """The optimizer of a model in SP: as :func:`optimizer`, with every factor 1.

    Muon gets the same matrices as in muP.
    """
    facts = facts_of(plan, model)
    here = {fact.name: replace(fact, base_shape=fact.shape) for fact in facts.values()}
    parameters = tuple(here.get(p.name, p) for p in plan.parameters)
    plain = replace(plan, parameters=parameters, constants=NO_CONSTANTS)
    return optimizer(plain, model, optimizer_class, **settings)


def param_groups(
    plan: Plan,
    model: nn.Module,
    optimizer_class: Any = torch.optim.AdamW,
    *,
    lr: float | Tensor | None = None,
    weight_decay: float | Tensor | None = None,
    eps: float | None = None,
    params: Iterable[Any] | None = None,
    family: str | None = None,
    decay: str = "independent",
    embedding_lr: str = "constant",
    adjust: str | Adjustment | None = None,
    rest: Mapping[str, Any] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A model's parameters in as few groups as muP needs, as plain dicts for any trainer.

    Each group carries ``params``, ``lr`` (times ``lr_mult``, which it carries too),
    ``weight_decay`` and ``eps`` where the optimizer has them, the settings, and the user's keys.
    Those of Muon also carry ``use_muon``, False for those that are for Adam.

    Args:
        plan: the plan; each parameter's ratios follow from its actual shape.
        model: the model, perhaps inside DDP, torch.compile or FSDP.
        optimizer_class: the class that the groups are for; its defaults fill what is left out.
        lr, weight_decay, eps: the values at the base. A tensor is copied into each group.
        params: the user's own parameters, (name, parameter) pairs or groups; default: all.
        family: a key of :data:`automup.rules.FAMILIES`, for a class that automup does not know.
        decay: "independent" keeps lr * weight_decay across width (Tensor Programs V, B.3;
            CompleteP, arXiv:2505.01618), "coupled" keeps weight_decay, "sqrt" multiplies it by
            sqrt(width) for weights whose lr is 1 / width (arXiv:2510.15262; Adam's family only).
        embedding_lr: "constant" across width, as Tensor Programs V has it, or "sqrt": times
            width^-1/2, as u-muP (arXiv:2407.17465) and, where the vocabulary is much larger than
            the width, arXiv:2506.15025 have it. It concerns the weights that read the data.
        adjust: for a Muon that automup does not know, what it multiplies the learning rate of a
            matrix by: a key of :data:`automup.optimizers.ADJUSTMENTS`, or a function of the shape.
        rest: for Muon, the settings of the AdamW that trains all but the hidden matrices. Its lr is
            AdamW's own default, or Muon's lr under ``adjust_lr_fn="match_rms_adamw"``.
        settings: any other setting of the optimizer; a group's own value wins.

    Raises:
        UsageError: the call is wrong: an unknown class, setting or parameter.
        PlanError: the plan does not fit the model.
    """
    asked = request(
        plan,
        model,
        optimizer_class,
        family=family,
        params=params,
        decay=decay,
        embedding_lr=embedding_lr,
        adjust=adjust,
        rest=rest,
        lr=lr,
        weight_decay=weight_decay,
        eps=eps,
        **settings,
    )
    if asked.known.family != "muon":
        return make_groups(asked)
    matrices, others = muon_groups(asked)
    return [*matrices, *others]
