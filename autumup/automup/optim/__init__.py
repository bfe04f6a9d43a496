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
from automup.optim.groups import Choices, make_groups
from automup.optim.matching import check_module, facts_of
from automup.optim.muon import muon_groups, muon_optimizer, rest_settings
from automup.optim.settings import SCALED, times
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
    call = {k: settings.pop(k) for k in _CALL if k in settings}
    given = {k: v for k, v in settings.items() if k not in SCALED or v is not None}
    known = known_class(optimizer_class, call.get("family"))
    groups = param_groups(plan, model, optimizer_class, **call, **given)
    if known.family != "muon":
        return optimizer_class(groups, **{k: times(value, 1.0) for k, value in given.items()})
    matrices = [group for group in groups if group["use_muon"]]
    others = [group for group in groups if not group["use_muon"]]
    rest = rest_settings(
        optimizer_class, known, Choices(adjust=call.get("adjust")), given, call.get("rest") or {}
    )
    return muon_optimizer(optimizer_class, known, matrices, others, given, rest)


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


#: The arguments of :func:`param_groups` that are not the optimizer's.
_CALL = ("params", "family", "decay", "embedding_lr", "adjust", "rest")


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
    known = known_class(optimizer_class, family)
    choices = Choices(decay, embedding_lr, adjust)
    values = zip(SCALED, (lr, weight_decay, eps), strict=False)
    given = {**{key: value for key, value in values if value is not None}, **settings}
    _check(plan, known.family, choices, rest)
    if known.family != "muon":
        return make_groups(plan, model, optimizer_class, known, choices, given, params)
    matrices, others = muon_groups(
        plan, model, optimizer_class, known, choices, given, params, rest or {}
    )
    return [*matrices, *others]


def _check(plan: Plan, family: str, choices: Choices, rest: Mapping[str, Any] | None) -> None:
    """Refuse choices that would do nothing, or nothing that is known to be right."""
    if choices.decay == "sqrt" and family not in ("adam", "sign"):
        raise UsageError(
            'decay="sqrt" is a rule for AdamW and its like.', fix='Use decay="independent".'
        )
    if choices.embedding_lr != "constant" and not any(p.is_embedding for p in plan.parameters):
        raise UsageError("The plan knows no weight that reads the data.", fix="Make it again.")
    for name, value in (("adjust", choices.adjust), ("rest", rest)):
        if value is not None and family != "muon":
            raise UsageError(f"{name} is for Muon only.", fix=f"Leave out {name}.")
