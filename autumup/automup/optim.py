"""The optimizer in muP: ordinary param groups whose lr, decay and eps follow the plan.

Groups are plain dicts, so any trainer that takes param groups takes these, and at the base there
is one group in the order of ``model.parameters()``: the plain optimizer, bit for bit.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from automup.errors import PlanError, UsageError
from automup.plan import Parameter, Plan
from automup.rules import FAMILIES, Multipliers

#: How the updates of each class scale; a subclass scales as its nearest ancestor here does.
OPTIMIZER_FAMILIES: dict[type[torch.optim.Optimizer], str] = {
    torch.optim.SGD: "sgd",
    torch.optim.Adam: "adam",
    torch.optim.AdamW: "adam",
}

#: The optimizers that the command line knows, by name.
OPTIMIZERS = {cls.__name__.lower(): cls for cls in OPTIMIZER_FAMILIES}

#: Path segments that torch's wrappers (DDP, torch.compile, FSDP1) put into parameter names.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module")

#: The settings that follow the plan.
SCALED = ("lr", "weight_decay", "eps")


def family_of(optimizer_class: Any) -> str:
    """The family ("adam", "sgd") that an optimizer class belongs to, by inheritance.

    Raises:
        UsageError: if it descends from no class of :data:`OPTIMIZER_FAMILIES`.
    """
    if not callable(optimizer_class):
        raise UsageError(
            f"A {type(optimizer_class).__name__} is no optimizer class.",
            fix="Pass a class, such as torch.optim.AdamW.",
        )
    for ancestor in getattr(optimizer_class, "__mro__", ()):
        if ancestor in OPTIMIZER_FAMILIES:
            return OPTIMIZER_FAMILIES[ancestor]
    name = getattr(optimizer_class, "__qualname__", optimizer_class)
    raise UsageError(
        f"automup does not know how the updates of {name} scale with width.",
        fix='Pass family="adam" (updates with entries of size 1, as Adam\'s) or family="sgd" '
        "(updates proportional to the gradient).",
    )


def optimizer_class_of(name: str) -> type[torch.optim.Optimizer]:
    """The optimizer class of a name on the command line, in any case; UsageError if unknown."""
    return OPTIMIZERS[_known("optimizer", name.lower(), OPTIMIZERS)]


def optimizer(
    plan: Plan, model: nn.Module, optimizer_class: Any = torch.optim.AdamW, **settings: Any
) -> Any:
    """The optimizer of a model in muP: an ordinary ``optimizer_class`` over :func:`param_groups`.

    The arguments and errors are those of :func:`param_groups`; settings (betas, momentum, fused,
    ...) reach the class as they are. At the base it trains bit for bit as the plain one.
    """
    groups = param_groups(plan, model, optimizer_class, **settings)
    unset = {"params", "family", "decay", *(k for k in SCALED if settings.get(k) is None)}
    given = {k: _scaled(value, 1.0) for k, value in settings.items() if k not in unset}
    return optimizer_class(groups, **given)


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
    **settings: Any,
) -> list[dict[str, Any]]:
    """A model's parameters in as few groups as muP needs, as plain dicts for any trainer.

    Each group carries ``params``, ``lr`` (times ``lr_mult``, which it carries too),
    ``weight_decay`` and ``eps`` where the optimizer has them, the settings, and the user's keys.

    Args:
        plan: the plan; each parameter's ratios follow from its actual shape.
        model: the model, perhaps inside DDP, torch.compile or FSDP.
        optimizer_class: the class that the groups are for; its defaults fill what is left out.
        lr, weight_decay, eps: the values at the base. A tensor is copied into each group.
        params: the user's own parameters, (name, parameter) pairs or groups; default: all.
        family: "adam" or "sgd", for a class that automup does not know.
        decay: "independent" keeps lr * weight_decay across width, "coupled" keeps weight_decay.
        settings: any other setting of the optimizer; a group's own value wins.

    Raises:
        UsageError: the call is wrong: an unknown class, setting or parameter.
        PlanError: the plan does not fit the model.
    """
    _known("decay", decay, ("independent", "coupled"))
    kind = family_of(optimizer_class) if family is None else _known("family", family, FAMILIES)
    values = zip(SCALED, (lr, weight_decay, eps), strict=True)
    given = {**{key: value for key, value in values if value is not None}, **settings}
    defaults = _defaults(optimizer_class, given)
    facts = _facts(plan, model)

    def factors_of(item: Any, l2: bool) -> Multipliers:
        fact = facts[id(_tensor(item))]
        if kind == "sgd":
            _refuse_parts(fact)
        return plan.factors(fact, kind, decay=decay, l2=l2)

    groups = []
    for own in _user_groups(model, params, facts):
        whole = {**defaults, **given, **own}
        factors = partial(factors_of, l2=_is_l2(optimizer_class, whole))
        split = _split(own["params"], _values(whole, kind), factors)
        groups += [{**given, **own, **group} for group in split]
    _warn_of_l2(optimizer_class, groups, decay)
    return groups


def _refuse_parts(fact: Parameter) -> None:
    """SGD's learning rate goes with fan_out, which the rows of a fused weight do not share."""
    if any(part.grows != fact.parts[0].grows for part in fact.parts):
        rows = ", ".join(f"{p.base_size} that {'grow' if p.grows else 'stay'}" for p in fact.parts)
        raise UsageError(
            f"{fact.name}: its rows are cut into parts ({rows}), which need different learning "
            "rates with SGD.",
            where=fact.source,
            fix="Use an optimizer of Adam's family, or a layer for each part.",
        )


def _values(settings: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Those of a group's settings that follow the plan, with their values at the base."""
    keys = SCALED if family == "adam" else SCALED[:2]
    # An eps that is no number (Adafactor's pair) is not Adam's, and stays the user's.
    values = {k: settings[k] for k in keys if isinstance(settings.get(k), Real | Tensor)}
    if "lr" not in values:
        raise UsageError("The learning rate is not a number or a tensor.", fix="Pass lr=...")
    return values


def _split(
    items: Iterable[Any], values: Mapping[str, Any], factors_of: Callable[[Any], Multipliers]
) -> Iterator[dict[str, Any]]:
    """One of the user's groups as the fewest groups with one value of each setting."""
    found: dict[tuple[float, ...], tuple[dict[str, float], list[Any]]] = {}
    for item in items:
        factors = asdict(factors_of(item))
        # 0 stays 0 whatever its factor, so it splits nothing (lr_mult is carried: it does).
        key = tuple(factors[k] for k in values if k == "lr" or values[k] != 0)
        found.setdefault(key, (factors, []))[1].append(item)
    for factors, members in found.values() or [(dict.fromkeys(SCALED, 1.0), [])]:
        scaled = {key: _scaled(value, factors[key]) for key, value in values.items()}
        yield {"params": members, **scaled, "lr_mult": factors["lr"]}


def _defaults(make: Any, given: Iterable[str]) -> dict[str, Any]:
    """An optimizer's settings with their defaults; UsageError if it does not take a given one.

    A constructor that takes ``**kwargs`` hands them on, so it has its parent's settings too.
    """
    settings: dict[str, Any] = {}
    variadic = False
    classes = reversed(make.__mro__) if isinstance(make, type) else ()
    chain = [vars(c)["__init__"] for c in classes if "__init__" in vars(c)] or [make]
    for constructor in chain:
        parameters = inspect.signature(constructor).parameters.values()
        variadic = any(p.kind is p.VAR_KEYWORD for p in parameters)
        own = {p.name: p.default for p in parameters if not str(p).startswith("*")}
        settings = {**settings, **own} if variadic else own
    takes = [key for key in settings if key not in ("self", "params")]
    unknown = ", ".join(key for key in given if key not in takes)
    if unknown and not variadic:
        name = getattr(make, "__qualname__", make)
        raise UsageError(f"{name} takes no {unknown}.", fix=f"It takes {', '.join(takes)}.")
    return settings


def check_module(model: Any) -> None:
    """UsageError for what is no model, such as its class or its parameters."""
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"A {type(model).__name__} is no model.", fix="Pass the nn.Module that is trained."
        )


def _facts(plan: Plan, model: nn.Module) -> dict[int, Parameter]:
    """The plan's facts by id of the model's parameters, each at its actual shape; or PlanError."""
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


def _user_groups(
    model: nn.Module, params: Iterable[Any] | None, facts: Mapping[int, Parameter]
) -> list[dict[str, Any]]:
    """The user's groups, each of the model's parameters once."""
    given = list(model.parameters()) if params is None else _listed(params)
    grouped = given if given and isinstance(given[0], Mapping) else [{"params": given}]
    place: dict[int, int] = {}
    groups = []
    for index, group in enumerate(grouped):
        if not isinstance(group, Mapping) or "params" not in group or "lr_mult" in group:
            what = "params must be parameters, pairs or groups that are not in muP (no 'lr_mult')."
            raise UsageError(what, fix="Pass what you would pass to the plain optimizer.")
        items: dict[int, Any] = {}
        for item in _listed(group["params"]):
            fact = _fact_of(item, facts)
            first = place.setdefault(id(_tensor(item)), index)
            if first != index:
                what = f"{fact.name} {fact.shape} is in two groups, {first} and {index}."
                raise UsageError(what, fix="Give it to one; tied parameters are one parameter.")
            items.setdefault(id(_tensor(item)), item)
        groups.append({**group, "params": list(items.values())})
    return groups


def _listed(params: Any) -> list[Any]:
    if isinstance(params, Tensor):
        return [params]
    if isinstance(params, str | set | frozenset) or not isinstance(params, Iterable):
        what = f"params cannot be a {type(params).__name__}."
        raise UsageError(what, fix="Pass an ordered collection, as list(model.parameters()).")
    return list(params)


def _tensor(item: Any) -> Any:
    """The parameter of an item: itself, or the second of torch >= 2.6's (name, parameter)."""
    return item[1] if isinstance(item, tuple) and len(item) == 2 else item


def _fact_of(item: Any, facts: Mapping[int, Parameter]) -> Parameter:
    """The fact of a parameter that the user gave; UsageError if it is not the model's."""
    tensor = _tensor(item)
    if id(tensor) not in facts:
        name = f"{item[0]!r} " if isinstance(item, tuple) else ""
        shape = f"of shape {tuple(tensor.shape)} " if isinstance(tensor, Tensor) else ""
        raise UsageError(
            f"A {type(tensor).__name__} {name}{shape}in params is no parameter of the model.",
            fix="Pass parameters of the very model that is given.",
        )
    return facts[id(tensor)]


def _scaled(value: Any, factor: float) -> Any:
    """value * factor: a new tensor of a tensor, since schedulers write into theirs."""
    if factor != 1:
        return value * factor
    return value.clone() if isinstance(value, Tensor) else value


def _is_l2(make: Any, settings: Mapping[str, Any]) -> bool:
    """Whether the optimizer adds its decay to a gradient that it then normalises."""
    adam = isinstance(make, type) and issubclass(make, torch.optim.Adam)
    decoupled = settings.get("decoupled_weight_decay", False)
    return adam and not issubclass(make, torch.optim.AdamW) and not decoupled


def _warn_of_l2(make: Any, groups: list[dict[str, Any]], decay: str) -> None:
    """torch's Adam adds its decay to the gradient, then normalises: no factor undoes that."""
    l2 = [g for g in groups if _is_l2(make, g)] if decay == "independent" else []
    if any(g["lr_mult"] != 1 and g.get("weight_decay", 0) != 0 for g in l2):
        warnings.warn(
            "torch.optim.Adam's weight_decay is an L2 term inside the normalised gradient, so "
            'decay="independent" cannot hold exactly across widths. Use torch.optim.AdamW.',
            stacklevel=3,
        )


def _known(what: str, name: str, known: Iterable[str]) -> str:
    if name not in known:
        raise UsageError(f"There is no {what} {name!r}.", fix=f"Known: {', '.join(known)}.")
    return name
