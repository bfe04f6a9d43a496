"""Where the factor of a stored weight goes in a live model: around the module that owns it.

A module computes f(x; w). With W = s w for each of its weights, a, b and c, say, it must compute
f(x; s_a a, ...). For a Linear that is t f(u x; w, b) with t = s_b and u = s_w / s_b, for an
Embedding or a norm t f(x; w). No type is looked up: the factors that a module's own weights allow
are tried on it, with weights and factors drawn at random, so that what agrees is an identity. Then
the whole model is tried. Where none does, the weight is multiplied where the module's own methods
read it. What fits nowhere is refused by name.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from automup.apply import Change, InputChange, MethodChange, OutputChange, multiply
from automup.capture.graph import Node
from automup.capture.runs import Lines
from automup.capture.trace import Inputs
from automup.edits import Edit, Factor
from automup.errors import RewriteError
from automup.facts import Span
from automup.models import Models
from automup.plan import Plan
from automup.reach import Path, find_member
from automup.weight_reads import Reads, UnreadError, find_reads

CLOSE = 1e-5
"""The relative difference of what is equal but for rounding; a factor at a wrong place is of 1."""

Factors = Mapping[str, float]
"""By a parameter's first name."""


@dataclass(frozen=True)
class Place:
    """A module's input times scale(numerator) / scale(output), its output times scale(output).

    Each is a parameter's name, or nothing for 1. ``same`` pairs parameters with the one of these
    whose scale they must have.
    """

    module: str
    numerator: str
    output: str
    same: tuple[tuple[str, str], ...] = ()

    def changes(self, scales: Factors) -> Iterator[Change]:
        """What to change in a model where the weights have these factors.

        Raises:
            RewriteError: if there a weight has another one than its place gives it.
        """
        for name, other in self.same:
            if not math.isclose(scales.get(name, 1.0), scales.get(other, 1.0)):
                raise _refusal(name, "these widths need it where those that were traced do not")
        above, below = (scales.get(name, 1.0) for name in (self.numerator, self.output))
        if above != below:
            yield InputChange(self.module, above / below)
        if below != 1.0:
            yield OutputChange(self.module, below)


@dataclass(frozen=True)
class ReadPlace:
    """Where a module's methods read its weights: what each calls them, and their first names."""

    module: str
    methods: tuple[tuple[Path, Reads], ...]
    names: tuple[tuple[str, str], ...]

    def changes(self, scales: Factors) -> Iterator[Change]:
        """What to change in a model where the weights have these factors."""
        factors = {own: scales.get(name, 1.0) for own, name in self.names}
        for path, reads in self.methods:
            edits = tuple(
                read_edit(span, Factor("", 1, 0.0, factors[own]))
                for own, span in reads.spans
                if factors[own] != 1.0
            )
            if edits:
                yield MethodChange(self.module, path, edits, file=reads.file)


def read_edit(span: Span, factor: Factor) -> Edit:
    """The edit of a read of a weight."""
    return Edit(span, factor, constant=False, tensor_names=frozenset(), module_call=False)


def scales_of(plan: Plan) -> dict[str, float]:
    """The factors of a plan's weights that are not 1."""
    found = {p.name: plan.scale(p) for p in plan.parameters}
    return {name: value for name, value in found.items() if abs(value - 1.0) > 1e-12}


def find_places(
    models: Models, plans: Sequence[Plan], traces: Sequence[Sequence[Node]], lines: Lines
) -> tuple[Place | ReadPlace, ...]:
    """For every module whose weights need a factor at some width where it goes.

    A weight whose factor is 1 wherever it was looked at, as sqrt(r_o / r_i) is where both fans grow
    alike, has a place, too, or must keep its factor.

    Args:
        models: the model function.
        plans: at several widths beyond the base.
        traces: the nodes of its traces, which show who reads which weight.
        lines: the lines that they ran.

    Raises:
        RewriteError: if a weight's factor has no place; names it.
    """
    first = {name: p.name for p in plans[0].parameters for name in p.names}
    needed = {*itertools.chain(*map(scales_of, plans))}
    drawn = _random_scales(plans)
    if not drawn:
        return ()
    model = _trial_model(models)
    args, kwargs = in_double(models.inputs(model))
    calls = _calls(model, args, kwargs)
    beside = _read_beside(traces, first)
    places: list[Place | ReadPlace] = []
    kept: set[str] = set()
    for path, module in model.named_modules():
        own = own_names(model, path, first)
        mine = drawn.keys() & set(own.values())
        if not mine:
            continue
        try:
            for name in sorted(mine & beside):
                raise _refusal(name, "code beside its own module reads it")
            places.append(_place_in(path, module, own, drawn, calls.get(path), lines))
        except RewriteError:
            if mine & needed:
                raise
            kept |= mine
    for name in kept:
        drawn.pop(name)
    places.append(Place("", "", "", tuple((name, "") for name in sorted(kept))))
    stored = _stored(model, first, drawn)
    multiply(stored, [change for place in places for change in place.changes(drawn)])
    if not alike(model(*args, **kwargs), stored(*args, **kwargs)):
        raise _refusal(", ".join(drawn), "the model does not read it through its module alone")
    return tuple(places)


def _random_scales(plans: Sequence[Plan]) -> dict[str, float]:
    """A random factor for every weight that may need one; equal where they are so at all widths."""
    each = [scales_of(plan) for plan in plans]
    may = {p.name: None for p in plans[0].parameters if plans[0].has_scale(p)}
    generator = torch.Generator().manual_seed(0)
    known: dict[tuple[float, ...], float] = {}
    found = {}
    for name in dict.fromkeys(itertools.chain(may, *each)):
        key = tuple(round(scales.get(name, 1.0), 9) for scales in each)
        value = 1.5 + 1.5 * float(torch.rand((), generator=generator))
        found[name] = known.setdefault(key, value)
    return found


def _trial_model(models: Models) -> nn.Module:
    """The model at the base in float64, no weight of it 0."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = models.drawn(models.base).double().eval()
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1).requires_grad_(False)
    return model


def in_double(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call in float64."""

    def double(value: Any) -> Any:
        real = isinstance(value, Tensor) and value.is_floating_point()
        return value.double() if real else value

    args, kwargs = tree_map(double, (tuple(inputs.args), dict(inputs.kwargs)))
    return args, kwargs


def _calls(model: nn.Module, args: Any, kwargs: Any) -> dict[str, tuple[Any, Any]]:
    """The arguments of the first call of each module."""
    seen: dict[str, tuple[Any, Any]] = {}

    def hook(path: str) -> Callable[..., None]:
        return lambda module, a, k: seen.setdefault(path, (a, k)) and None

    handles = [
        module.register_forward_pre_hook(hook(path), with_kwargs=True)
        for path, module in model.named_modules()
    ]
    try:
        model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _own(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(module.named_parameters(recurse=False))


def own_names(model: nn.Module, path: str, first: Mapping[str, str]) -> dict[str, str]:
    """What a module calls its own parameters, each with the first name that the model has for it.

    ``first`` has the latter by any name of a parameter in the model.
    """
    attributes = [name for name, _ in _own(model.get_submodule(path))]
    return {name: first[f"{path}.{name}" if path else name] for name in attributes}


def _read_beside(traces: Sequence[Sequence[Node]], first: Mapping[str, str]) -> set[str]:
    """The weights that code beside their own module reads, in any run of it."""
    owners: dict[str, set[str]] = {}
    for name, known in first.items():
        owners.setdefault(known, set()).add(name.rpartition(".")[0])
    return {
        first[source.parameter]
        for nodes in traces
        for node in nodes
        if node.op == "call_function"
        for source in node.all_input_nodes
        if source.parameter and node.fact.module not in owners[first[source.parameter]]
    }


def _place_in(
    path: str,
    module: nn.Module,
    own: Mapping[str, str],
    scales: Factors,
    call: tuple[Any, Any] | None,
    lines: Lines,
) -> Place | ReadPlace:
    """Where the factors of a module's own weights go: around it, or else where it reads them."""
    try:
        return _place(path, module, own, scales, call)
    except RewriteError as error:
        names = tuple((n, first) for n, first in own.items() if first in scales)
        try:
            found = find_reads(module, [n for n, _ in names], lines)
        except UnreadError as why:
            raise _refusal(names[0][1], str(why)) from error
        ways = [find_member(module, reads.file, reads.function) for reads in found]
        read = {n for reads in found for n, _ in reads.spans}
        if None in ways or read != {n for n, _ in names}:
            raise
        methods = zip(ways, found, strict=True)
        return ReadPlace(path, tuple((way, reads) for way, reads in methods if way), names)


def _place(
    path: str,
    module: nn.Module,
    own: Mapping[str, str],
    scales: Factors,
    call: tuple[Any, Any] | None,
) -> Place:
    """Where the factors of a module's own weights go, by trying."""
    name = next(name for name in own.values() if name in scales)
    if call is None:
        raise _refusal(name, "its module is not called")
    args, kwargs = call
    stored = copy.deepcopy(module)
    for attribute, parameter in _own(stored):
        parameter.data = parameter.data / scales.get(own[attribute], 1.0)
    try:
        expected = module(*args, **kwargs)
    except RuntimeError as error:  # as within a transformation of functions
        raise _refusal(name, f"its {type(module).__name__} does not run by itself") from error
    names, attributes = ["", *own.values()], {first: name for name, first in own.items()}
    for numerator, output in sorted(itertools.product(names, names), key=lambda p: p[0] != p[1]):
        above, below = scales.get(numerator, 1.0), scales.get(output, 1.0)
        real = bool(args) and isinstance(args[0], Tensor) and args[0].is_floating_point()
        if above != below and not real:
            continue
        given = (args[0] * (above / below), *args[1:]) if above != below else args
        result = stored(*given, **kwargs)
        if isinstance(result, Tensor) and alike(expected, result * below):
            same = _same_scales(own, (numerator, output, ""), scales)
            for name in (n for n, other in same if n == other and n not in (numerator, output)):
                if not _depends(module, attributes[name], args, kwargs):
                    raise _refusal(name, "what its module returns does not depend on it")
            return Place(path, numerator, output, same)
    raise _refusal(name, f"its {type(module).__name__} is not linear in it and its input")


def _same_scales(
    own: Mapping[str, str], known: Sequence[str], scales: Factors
) -> tuple[tuple[str, str], ...]:
    """Each of a module's parameters with the one whose factor it has.

    With itself, if none has: where any factor of it is the same, as under a norm of the weight.
    """
    found = []
    for name in dict.fromkeys(own.values()):
        others = [k for k in known if scales.get(k, 1.0) == scales.get(name, 1.0)]
        found.append((name, others[0] if others and name not in others else name))
    return tuple(found)


def _depends(module: nn.Module, attribute: str, args: Any, kwargs: Any) -> bool:
    """Whether what a module returns changes with the direction of a weight."""
    other = copy.deepcopy(module)
    weight = other.get_parameter(attribute)
    weight.data = weight.data + torch.rand_like(weight)
    return not alike(module(*args, **kwargs), other(*args, **kwargs))


def _stored(model: nn.Module, first: Mapping[str, str], scales: Factors) -> nn.Module:
    """A copy that holds w = W / s for every weight."""
    stored = copy.deepcopy(model)
    for name, parameter in stored.named_parameters():
        parameter.data = parameter.data / scales.get(first[name], 1.0)
    return stored


def alike(a: Any, b: Any) -> bool:
    """Whether the tensors in two results are equal but for rounding."""
    pairs = zip(tree_leaves(a), tree_leaves(b), strict=True)
    return all(_same(x, y) for x, y in pairs if isinstance(x, Tensor))


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.is_floating_point() or not a.numel():
        return a.shape == b.shape
    return float((a - b).abs().max()) <= CLOSE * float(a.abs().max())


def _refusal(name: str, why: str) -> RewriteError:
    return RewriteError(
        f"{name}: no place for the multiplier that this form needs: {why}.",
        fix="Use the default form, which puts it into the learning rate.",
    )
