"""One call for an optimizer in muP, or its groups, as a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from automup.errors import UsageError
from automup.optim.settings import SCALED
from automup.optimizers import ADJUSTMENTS, Adjustment, Known, known_class
from automup.plan import Plan
from automup.rules import DECAYS, EMBEDDING_LRS

#: The arguments of :func:`automup.optim.param_groups` that are not the optimizer's.
_OWN = ("params", "decay", "embedding_lr", "adjust", "rest")


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        plan, model, optimizer_class, params: as of :func:`automup.optim.param_groups`, and so are
            ``decay``, ``embedding_lr``, ``adjust`` and ``rest``, what was chosen where opinions
            differ, and of Muon.
        known: what is known of the class.
        given: the settings that the caller gave, at the base.

    Raises:
        UsageError: a choice that is unknown, would do nothing, or is not known to be right.
    """

    plan: Plan
    model: nn.Module
    optimizer_class: Any
    known: Known
    given: Mapping[str, Any]
    params: Iterable[Any] | None = None
    decay: str = "independent"
    embedding_lr: str = "constant"
    adjust: str | Adjustment | None = None
    rest: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check("decay", self.decay, DECAYS)
        _check("embedding_lr", self.embedding_lr, EMBEDDING_LRS)
        if not callable(self.adjust) and self.adjust is not None:
            _check("adjustment", self.adjust, ADJUSTMENTS)
        if self.decay == "sqrt" and self.known.family not in ("adam", "sign"):
            what = 'decay="sqrt" is a rule for AdamW and its like.'
            raise UsageError(what, fix='Use decay="independent".')
        embeddings = any(p.is_embedding for p in self.plan.parameters)
        if self.embedding_lr != "constant" and not embeddings:
            raise UsageError("The plan knows no weight that reads the data.", fix="Make it again.")
        for name, value in (("adjust", self.adjust), ("rest", self.rest)):
            if value is not None and self.known.family != "muon":
                raise UsageError(f"{name} is for Muon only.", fix=f"Leave out {name}.")


def request(
    plan: Plan,
    model: nn.Module,
    optimizer_class: Any,
    *,
    family: str | None = None,
    **settings: Any,
) -> Request:
    """The arguments of :func:`automup.optim.param_groups` as a value; a scaled None is left out."""
    own = {key: settings.pop(key) for key in _OWN if key in settings}
    given = {k: v for k, v in settings.items() if k not in SCALED or v is not None}
    return Request(plan, model, optimizer_class, known_class(optimizer_class, family), given, **own)


def _check(what: str, name: str, known: Iterable[str]) -> None:
    """UsageError unless a name is known."""
    if name not in known:
        raise UsageError(f"There is no {what} {name!r}.", fix=f"Known: {', '.join(known)}.")
