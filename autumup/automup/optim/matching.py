"""A model's parameters, or some of them, matched with the facts that a plan has of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from torch import Tensor, nn

from automup.errors import PlanError, UsageError
from automup.facts import Parameter
from automup.plan import Plan

#: Path segments that torch's wrappers (DDP, torch.compile, FSDP1) put into parameter names.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module")


def check_module(model: Any) -> None:
    """UsageError for what is no model, such as its class or its parameters."""
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"A {type(model).__name__} is no model.", fix="Pass the nn.Module that is trained."
        )


def facts_of(plan: Plan, model: nn.Module) -> dict[int, Parameter]:
    """The plan's facts by id of the model's parameters, each at its actual shape.

    Raises:
        UsageError: the model is none.
        PlanError: the plan does not fit it: names, shapes, or which parameters are tied.
    """
    check_module(model)
    known = {name: p for p in plan.parameters for name in p.names}
    facts: dict[int, Parameter] = {}
    owners: dict[str, int] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        fact = plan.parameter(_plain(name, known))
        first = facts.setdefault(id(tensor), _at_shape(fact, name, tensor))
        if first.name != fact.name or owners.setdefault(fact.name, id(tensor)) != id(tensor):
            raise PlanError(
                f"{name} is tied to another parameter in the plan or in the model, not in both "
                f"(the plan: {' = '.join(fact.names)}).",
                fix="Make the plan from the model as it is trained.",
            )
    return facts


def _plain(name: str, known: Mapping[str, Any]) -> str:
    """A parameter's name in the plan: as it is, or with the fewest wrappers' segments left out."""
    segments = name.split(".")
    wrappers = [i for i, segment in enumerate(segments) if segment in WRAPPERS]
    for count in range(len(wrappers) + 1):
        for removed in combinations(wrappers, count):
            shorter = ".".join(s for i, s in enumerate(segments) if i not in removed)
            if shorter in known:
                return shorter
    return name


def _at_shape(fact: Parameter, name: str, tensor: Tensor) -> Parameter:
    """The fact at the tensor's own shape, whose infinite dimensions may differ from the plan's.

    A shard (FSDP1's flat views, ZeRO-3's empty ones) does not show its shape: the plan's is used.
    FSDP2's DTensor shows the global one.
    """
    shape, planned = tuple(tensor.shape), fact.shape
    if "_fsdp_wrapped_module" in name.split(".") or (0 in shape and 0 not in planned):
        return fact
    infinite = {*fact.fan_in_dims, *fact.fan_out_dims}
    fits = [d in infinite or s == p for d, (s, p) in enumerate(zip(shape, planned, strict=False))]
    if len(shape) == len(planned) and all(fits):
        return replace(fact, shape=shape)
    raise PlanError(
        f"{name} has shape {shape}, and {planned} in the plan, "
        f"where the dimensions that scale with width are {sorted(infinite) or 'none'}.",
        where=fact.source,
        fix="Make the plan from this model.",
    )


def user_groups(
    model: nn.Module, params: Iterable[Any] | None, facts: Mapping[int, Parameter]
) -> list[dict[str, Any]]:
    """The user's groups, each of the model's parameters once.

    Args:
        model: gives its parameters in one group, where ``params`` is None.
        params: the user's parameters, (name, parameter) pairs or groups.
        facts: as of :func:`facts_of`.

    Raises:
        UsageError: they are something else, not the model's, in two groups, or in muP already.
    """
    given = list(model.parameters()) if params is None else listed(params)
    grouped = given if given and isinstance(given[0], Mapping) else [{"params": given}]
    place: dict[int, int] = {}
    groups = []
    for index, group in enumerate(grouped):
        if not isinstance(group, Mapping) or "params" not in group or "lr_mult" in group:
            what = "params must be parameters, pairs or groups that are not in muP (no 'lr_mult')."
            raise UsageError(what, fix="Pass what you would pass to the plain optimizer.")
        items: dict[int, Any] = {}
        for item in listed(group["params"]):
            fact = _fact_of(item, facts)
            first = place.setdefault(id(tensor_of(item)), index)
            if first != index:
                what = f"{fact.name} {fact.shape} is in two groups, {first} and {index}."
                raise UsageError(what, fix="Give it to one; tied parameters are one parameter.")
            items.setdefault(id(tensor_of(item)), item)
        groups.append({**group, "params": list(items.values())})
    return groups


def listed(params: Any) -> list[Any]:
    """One parameter, or an ordered collection, as a list; UsageError for anything else."""
    if isinstance(params, Tensor):
        return [params]
    if isinstance(params, str | set | frozenset) or not isinstance(params, Iterable):
        what = f"params cannot be a {type(params).__name__}."
        raise UsageError(what, fix="Pass an ordered collection, as list(model.parameters()).")
    return list(params)


def tensor_of(item: Any) -> Any:
    """The parameter of an item: itself, or the second of torch >= 2.6's (name, parameter)."""
    return item[1] if isinstance(item, tuple) and len(item) == 2 else item


def _fact_of(item: Any, facts: Mapping[int, Parameter]) -> Parameter:
    """The fact of a parameter that the user gave; UsageError if it is not the model's."""
    tensor = tensor_of(item)
    if id(tensor) not in facts:
        name = f"{item[0]!r} " if isinstance(item, tuple) else ""
        shape = f"of shape {tuple(tensor.shape)} " if isinstance(tensor, Tensor) else ""
        raise UsageError(
            f"A {type(tensor).__name__} {name}{shape}in params is no parameter of the model.",
            fix="Pass parameters of the very model that is given.",
        )
    return facts[id(tensor)]
