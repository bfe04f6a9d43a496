"""What a converted file must have of a form and of constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from automup.capture.load import ModelSource
from automup.constants import Constants
from automup.edits import Edit, Factor
from automup.errors import RewriteError
from automup.forms import UNIFORM, check_form
from automup.models import Knobs
from automup.plan import Plan
from automup.planning import make_plan
from automup.queries import tuned
from automup.rewrite.exchange import SCALES, Exchange
from automup.rules import FAMILIES
from automup.scaled_weights import (
    Place,
    ReadPlace,
    find_places,
    own_names,
    read_edit,
    scales_of,
)
from automup.study import Study
from automup.tuning import check_constants
from automup.weight_reads import Reads


def exchanged_plan(study: Study, target: Knobs, form: str, constants: Constants) -> Plan:
    """The plan at a target with these constants, in this form."""
    return tuned(study, make_plan(study, target), constants).with_form(form)


def exchange_of(source: ModelSource, study: Study, form: str, constants: Constants) -> Exchange:
    """What the file must have of a form and of constants.

    Raises:
        UsageError: if there is no such form, or a constant has no place in the model.
        RewriteError: if the form has no place for a weight's factor in the file; names it.
    """
    check_form(form)
    check_constants(study, constants)
    if form == "default":
        return Exchange(form, constants)
    models, reached = study.models, study.exploration.reached
    widths = [models.third, *(knobs for knobs, _ in study.probes)]
    plans = [exchanged_plan(study, knobs, form, constants) for knobs in widths]
    _check_parts(make_plan(study, models.wide), form)
    traces, lines = [trace.nodes for _, trace in reached], study.exploration.lines
    found = find_places(models, plans, traces, lines)
    reads = [reads for p in found if isinstance(p, ReadPlace) for _, reads in p.methods]
    names = {name: p.name for p in plans[0].parameters for name in p.names}
    model = models.at_base
    places = [place for place in found if isinstance(place, Place)]
    for place in places:
        _check_free(place)
    places = [place for place in places if place.numerator or place.output]
    scaled = _patterns({place.module: _attributes(model, place, names) for place in places})
    types = dict.fromkeys(type(model.get_submodule(place.module)) for place in places)
    classes = {_class_code(source, cls): f"Mup{cls.__name__}" for cls in types}
    if len({*classes.values()}) < len(classes):
        raise RewriteError(
            f"Two classes whose modules need a multiplier are called alike: {', '.join(classes)}.",
            where=source.file,
            fix="Rename one, or use the default form.",
        )
    attributes = frozenset(
        name.rpartition(".")[2]
        for plan in plans
        for scaled_name in scales_of(plan)
        for name in plan.parameter(scaled_name).names
    )
    return Exchange(
        form, constants, scaled, classes, attributes, _readers(source, reads), _edits_of(reads)
    )


def _readers(source: ModelSource, found: Iterable[Reads]) -> dict[str, tuple[str, ...]]:
    """The classes of the file whose methods read weights that they multiply, and which.

    Raises:
        RewriteError: if it is not at the top level of the file.
    """
    readers: dict[str, dict[str, None]] = {}
    for reads in found:
        if reads.file != source.file or reads.owner not in vars(source.module):
            raise RewriteError(
                f"The multiplier of a weight goes into {reads.function}, which is no method of a "
                "class at the top level of the file.",
                where=f"{reads.file}:{reads.spans[0][1].line}",
                fix="Convert the file that has it, or use the default form.",
            )
        readers.setdefault(reads.owner, {}).update((name, None) for name, _ in reads.spans)
    return {owner: tuple(names) for owner, names in readers.items()}


def _edits_of(found: Iterable[Reads]) -> tuple[Edit, ...]:
    """A class that several modules have is edited once."""
    edits = {
        read_edit(span, Factor("", 1, 0.0, named=f'{reads.me}.{SCALES}["{name}"]')): None
        for reads in found
        for name, span in reads.spans
    }
    return tuple(edits)


def _check_parts(plan: Plan, form: str) -> None:
    """A scale that goes with fan_out is not one for rows that grow differently."""
    family = FAMILIES[UNIFORM[form]] if form in UNIFORM else None
    for p in plan.parameters if family and family.degree else ():
        if p.parts:
            raise RewriteError(
                f"{p.name}: its rows are cut into parts that grow differently, and have one "
                "multiplier in this form.",
                where=p.source,
                fix="Use the default form, or a layer for each part.",
            )


def _check_free(place: Place) -> None:
    """Every scale must be one that the module multiplies by, as the file checks, too."""
    for name, other in place.same:
        if name == other and name not in (place.numerator, place.output):
            raise RewriteError(
                f"{name}: its factor changes nothing, as its module normalises it, and the file "
                "has no place for that.",
                fix="Use the default form, or automup.parametrize.",
            )


def _attributes(model: nn.Module, place: Place, names: Mapping[str, str]) -> tuple[str, str]:
    """A place's parameters, by what their module calls them."""
    called = {first: own for own, first in own_names(model, place.module, names).items()}
    return called.get(place.numerator, ""), called.get(place.output, "")


def _patterns(places: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """The places by name, with ``*`` for numbers where all modules that are so called agree."""
    found: dict[str, dict[tuple[str, str], None]] = {}
    for path, place in places.items():
        found.setdefault(_starred(path), {})[place] = None
    agreed = {name: next(iter(all_)) for name, all_ in found.items() if len(all_) == 1}
    each = {path: place for path, place in places.items() if _starred(path) not in agreed}
    return {**agreed, **each}


def _starred(path: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in path.split("."))


def _class_code(source: ModelSource, cls: type) -> str:
    """What the file may call a class.

    Raises:
        RewriteError: if it has no name for it.
    """
    if getattr(torch.nn, cls.__name__, None) is cls:
        return f"torch.nn.{cls.__name__}"
    for name, value in vars(source.module).items():
        if value is cls:
            return name
    raise RewriteError(
        f"The multiplier of a weight goes around its {cls.__qualname__}, a class of "
        f"{cls.__module__} that the file does not name.",
        where=source.file,
        fix="Import the class into the file, or use the default form.",
    )
