"""What is to be checked: a model that automup puts into muP, or code as its author wrote it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from automup.capture.raised import describe, place_of
from automup.check.audit import Terms
from automup.check.base import default_widths, small_base
from automup.check.result import Check
from automup.check.run import Case, Settings, check
from automup.check.synthetic import Synthetic
from automup.check.training import Subject
from automup.converted import converted_form
from automup.errors import CaptureError, UsageError
from automup.models import Models
from automup.optim import family_of, plain_optimizer
from automup.planning import make_plan

if TYPE_CHECKING:
    from automup.api import Mup
    from automup.capture.load import ModelSource
    from automup.data import Data
    from automup.study import Study

MUP, SP, AS_IS = "μP", "SP", "as it is"

#: A rate at or below the optimum of the small models that a check trains.
RATES = {
    "adam": 2e-3,
    "sgd": 0.05,
    "sign": 1e-3,
    "adadelta": 1.0,
    "adafactor": 1e-2,
    "muon": 1e-2,
}

Make = Callable[[nn.Module], torch.optim.Optimizer]


def rate_of(optimizer_class: Any, lr: float | None) -> float:
    """The learning rate of a check: the user's, or the family's in :data:`RATES`."""
    return RATES[family_of(optimizer_class)] if lr is None else lr


def check_mup(
    mu: Mup,
    optimizer_class: Any,
    *,
    lr: float | None,
    widths: Sequence[float],
    seeds: int,
    steps: int,
    data: Data | None,
) -> Check:
    """See :meth:`automup.api.Mup.check`."""
    models = mu.study.models
    small = small_base(models.build, models.base, models.inputs)
    if small != models.base:
        mu = mu.at_base(small)
    models = mu.study.models
    rate = rate_of(optimizer_class, lr)
    settings = Settings(rate, tuple(widths) or default_widths(models), seeds, steps)
    return check(mup_case(mu, optimizer_class, rate), data or Synthetic.of(models), settings)


def mup_case(mu: Mup, optimizer_class: Any, lr: float) -> Case:
    """A model in muP by automup, with the same model in SP beside it."""
    study = mu.study
    plan = mu.plan(**study.wide)
    subject = Subject(
        MUP, lambda knobs: mu(**knobs), lambda m: mu.optimizer(m, optimizer_class, lr=lr)
    )
    plain = Subject(
        SP, study.models.drawn, lambda m: plain_optimizer(plan, m, optimizer_class, lr=lr)
    )
    terms = Terms(_family(optimizer_class), own=True)
    return Case(study, plan, subject, terms, audits_code=False, other=plain)


def as_is_case(
    source: ModelSource, study: Study, optimizer_class: Any, lr: float, own: bool
) -> Case:
    """A file's own code and its own optimizer.

    Args:
        source: the file.
        study: the study of that very code, but for the multipliers of its form if automup wrote it.
        optimizer_class: for a file that makes no optimizer of its own.
        lr: the learning rate that it gets.
        own: whether automup wrote the file.
    """
    form, models = converted_form(source), study.models
    if form != "default":
        models = Models(source.build, models.base, models.inputs, models.fixed)
    make = own_optimizer(source, models.drawn(study.base), optimizer_class, lr)
    return case_of(study, make, own, models, form)


def case_of(
    study: Study, make: Make, own: bool, models: Models | None = None, form: str = "default"
) -> Case:
    """A model function and its optimizer as they are.

    Args:
        study: the study of the model function.
        make: makes the optimizer of a model.
        own: whether every number must be as automup's plan says.
        models: what is trained, if it is not what was studied.
        form: that it is in.
    """
    models = models or study.models
    subject = Subject(AS_IS, models.drawn, make)
    terms = Terms(_family(type(make(models.drawn(study.base)))), own)
    plan = make_plan(study, study.wide).with_form(form)
    return Case(study, plan, subject, terms, audits_code=True)


def _family(optimizer_class: Any) -> str:
    """The family that an audit knows the settings of, else nothing.

    Muon's depend on what its class does itself, and Adafactor's on the init.
    """
    try:
        family = family_of(optimizer_class)
    except UsageError:
        return ""
    return "" if family in ("muon", "adafactor") else family


# --- the optimizer of a file ----------------------------------------------------------------------


def own_optimizer(source: ModelSource, model: nn.Module, optimizer_class: Any, lr: float) -> Make:
    """How the file's author makes the optimizer.

    It is the file's ``mup_optimizer(model, lr, ...)``, the model's ``configure_optimizers(...)``,
    mup's own where parameters carry its ``infshape``, or the plain class. Arguments are found by
    their names.

    Raises:
        UsageError: it needs an argument that nobody here knows.
    """
    function = getattr(source.module, "mup_optimizer", None)
    if callable(function):
        given = _arguments(function, lr, optimizer_class, "mup_optimizer")
        return lambda m: _made(function, {**given, **_model_argument(function, m)})
    if callable(getattr(model, "configure_optimizers", None)):
        given = _arguments(model.configure_optimizers, lr, optimizer_class, "configure_optimizers")
        return lambda m: _made(m.configure_optimizers, given)
    if any(hasattr(p, "infshape") for p in model.parameters()):
        mups = _optimizer_of_mup(optimizer_class)
        return lambda m: _made(mups, {"params": m.parameters(), "lr": lr})
    return lambda m: _made(optimizer_class, {"params": m.parameters(), "lr": lr})


_KNOWN: Mapping[str, Callable[[float, Any], Any]] = {
    **dict.fromkeys(("lr", "learning_rate"), lambda lr, cls: lr),
    **dict.fromkeys(("weight_decay", "wd", "decay"), lambda lr, cls: 0.1),
    "betas": lambda lr, cls: (0.9, 0.95),
    **dict.fromkeys(("device_type", "device"), lambda lr, cls: "cpu"),
    **dict.fromkeys(("optimizer", "optimizer_class"), lambda lr, cls: cls),
}
"""What arguments of such functions are called; nanoGPT's has weight_decay, learning_rate, betas
and device_type."""

_LEFT = ("weight_decay", "wd", "decay", "betas")
"""Of those, what keeps its default where there is one."""


def _arguments(function: Any, lr: float, optimizer_class: Any, name: str) -> dict[str, Any]:
    given = {}
    for key, p in inspect.signature(function).parameters.items():
        required = p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        if key in _KNOWN and (required or key not in _LEFT):
            given[key] = _KNOWN[key](lr, optimizer_class)
        elif required and key != "model":
            raise UsageError(
                f"{name} needs {key}, and a check does not know what to pass.",
                fix=f"Give {key} a default.",
            )
    return given


def _model_argument(function: Any, model: nn.Module) -> dict[str, Any]:
    return {"model": model} if "model" in inspect.signature(function).parameters else {}


def _made(function: Any, given: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The optimizer that a function returns, alone or in what Lightning takes."""
    try:
        made = function(**given)
    except Exception as error:
        raise CaptureError(
            f"The file's own optimizer could not be made: {describe(error)}.", where=place_of(error)
        ) from error
    if isinstance(made, dict):
        made = made.get("optimizer")
    while isinstance(made, list | tuple) and made:
        made = made[0]
    if not isinstance(made, torch.optim.Optimizer):
        raise CaptureError(f"The file's own optimizer is a {type(made).__name__}.")
    return made


def _optimizer_of_mup(optimizer_class: Any) -> Any:
    try:
        found = getattr(import_module("mup.optim"), f"Mu{optimizer_class.__name__}", None)
    except ImportError as error:
        raise UsageError(
            "The parameters carry mup's infshape, and mup is not installed.", fix="pip install mup."
        ) from error
    if found is None:
        raise UsageError(f"mup has no {optimizer_class.__name__}.", fix="Use adamw, adam or sgd.")
    return found
