"""The report as data: the contract of ``explain --format json``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from automup.facts import Parameter
from automup.optimizers import Known, named
from automup.plan import Plan
from automup.refusals import reason_of
from automup.rules import role_of


def as_dict(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> dict[str, Any]:
    """The report as data: the contract of ``explain --format json``.

    Args:
        plan: the plan; its sites and unresolved places are listed after its parameters.
        optimizer: a key of :data:`automup.optimizers.NAMED`, in any case.
        decay: "independent" or "coupled", see :func:`automup.rules.multipliers`.

    Raises:
        UsageError: no such optimizer.
    """
    known = named(optimizer)
    return {
        "model": plan.model,
        "base": dict(plan.base),
        "target": dict(plan.target),
        "optimizer": optimizer.lower(),
        "family": known.family,
        "decay": decay,
        "constants": asdict(plan.constants),
        "form": plan.form,
        "parameters": [_parameter(plan, p, known, decay) for p in plan.parameters],
        "sites": [
            _picked(s, "kind source exponents factor modules reason")
            | {"exponents": dict(s.exponents)}
            for s in plan.sites
        ],
        "unresolved": [
            {"source": u.source, "op": u.op, "reason": reason_of(u)} for u in plan.unresolved
        ],
        "notes": list(plan.notes),
    }


def as_json(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> str:
    """:func:`as_dict` as JSON text."""
    return json.dumps(as_dict(plan, optimizer, decay), indent=2, ensure_ascii=False)


def _parameter(plan: Plan, p: Parameter, known: Known, decay: str) -> dict[str, Any]:
    """One parameter's entry. A weight that several sites read has one multiplier: each use's."""
    family = known.family_of(p)
    applied, l2 = known.applied(p, None), known.is_l2({})
    factors = plan.factors(p, family, decay=decay, applied=applied, l2=l2)
    sizes = "name names shape base_shape role fan_in fan_out base_fan_in base_fan_out"
    return {
        **_picked(p, f"{sizes} init_std init_mult"),
        "role": str(p.role),
        "lr_mult": factors.lr,
        "wd_mult": factors.weight_decay,
        "eps_mult": factors.eps if family not in ("sgd", "sign") else 1.0,
        "multiplier": plan.scale(p)
        * next((s.factor for s in plan.sites if s.parameter in p.names), 1.0),
        **_picked(p, "reason source"),
        **({"parts": parts} if len(parts := list(_parts(p))) > 1 else {}),
    }


def _parts(p: Parameter) -> Iterator[dict[str, Any]]:
    """The parts of a fused weight: rows from first up to, not including, last."""
    first = 0
    for size, grows, factor in p.drawn[1]:
        last = first + size
        role = role_of(bool(p.fan_in_dims), grows)
        yield {"rows": [first, last], "role": str(role), "init_mult": factor}
        first = last


def _picked(fact: Any, keys: str) -> dict[str, Any]:
    values = {key: getattr(fact, key) for key in keys.split()}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
