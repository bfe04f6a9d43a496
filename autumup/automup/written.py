"""Where a file can have each multiplier of its model: what ``convert`` writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import nn

from automup.analysis.comparison import Spot
from automup.analysis.placement import called_at, edit_for, frame_owner, takes_scale
from automup.analysis.sites import Correction
from automup.capture.load import ModelSource
from automup.edited import call_forms
from automup.edits import Edit, Factor, Multiplier
from automup.errors import RewriteError
from automup.live_forms import Form, multihead_form
from automup.realise import mended_by
from automup.rewrite import attention
from automup.rewrite.exchange import Exchange
from automup.study import Study


@dataclass(frozen=True)
class Written:
    """The multipliers of a file.

    ``edits``: each with the kind of its spot. ``head_dims``: torch's own attention modules, by
    name, each with the size of its heads at the base; ``attention_classes``: those of the file.
    """

    edits: dict[Edit, str]
    head_dims: dict[str, int]
    attention_classes: tuple[str, ...] = ()


def write_multipliers(source: ModelSource, study: Study, exchanged: Exchange) -> Written:
    """Everything that the file must have, with the constants of its sites.

    Raises:
        RewriteError: if a multiplier has no place in the file; names it.
    """
    written = Written({}, {})
    for spot in study.exponents.spots:
        if all(_in_file(source, spot, c) for c in spot.corrections):
            edits = [*_edits(source, study, spot)]
        elif heads := _head_dims(source, study, spot):
            written.head_dims.update(heads)
            continue
        else:
            edits = _edits_of_calls(source, study, spot)
        constant = _constant(study, spot, exchanged)
        written.edits.update((_times(edit, constant), spot.first.kind) for edit in edits)
    modules = [study.models.at_base.get_submodule(name) for name in written.head_dims]
    own = {type(m).__name__: None for m in modules if type(m) is not nn.MultiheadAttention}
    return replace(written, attention_classes=tuple(own))


def _constant(study: Study, spot: Spot, exchanged: Exchange) -> str:
    """The constants of a spot as code; all that its modules compute there must have the same."""
    found: dict[str, str] = {}
    for c in spot.corrections:
        weight = study.exponents.weights.get(c.parameter)
        code = exchanged.of_site(c.kind, end=c.end, layer=weight.layer if weight else "")
        found.setdefault(code, c.node.fact.module)
    if len(found) > 1:
        raise RewriteError(
            "One line serves modules of different constants: " + ", ".join(found.values()) + ".",
            where=str(spot.frame),
            fix="Give each its own code, or use automup.parametrize.",
        )
    return next(iter(found))


def _times(edit: Edit, constant: str) -> Edit:
    return replace(edit, factor=replace(edit.factor, named=constant))


def rows_of_attention(written: Written) -> list[Multiplier]:
    """The rows of MUP_SITES for torch's own attention."""
    sizes = sorted(set(written.head_dims.values()))
    factors = [Factor("module.head_dim", n, -0.5) for n in sizes]
    return [Multiplier("attention", attention.CALL, factor) for factor in factors]


def _in_file(source: ModelSource, spot: Spot, correction: Correction) -> bool:
    """Whether the expression that needs the multiplier is one of the file's own."""
    here = spot.frame is not None and spot.frame.file == source.file
    return here and (
        correction.outside_library
        or _takes_scale(source, spot, correction)
        or _projects(source, spot, correction)
    )


def _takes_scale(source: ModelSource, spot: Spot, correction: Correction) -> bool:
    library = correction.node.fact.library
    return takes_scale(spot.span, library, vars(source.module))


def _projects(source: ModelSource, spot: Spot, correction: Correction) -> bool:
    """Whether the file calls torch's function for projections and attention there."""
    library = correction.node.fact.library
    if library[-1:] != (attention.TORCHS,):
        return False
    function = getattr(F, attention.TORCHS)
    return called_at(spot.span, vars(source.module)) is function


def _edits(source: ModelSource, study: Study, spot: Spot) -> Iterator[Edit]:
    """The edit at a spot; all its modules must agree on it."""
    model = study.models.at_base
    edits: dict[Edit, str] = {}
    for correction in spot.corrections:
        fact = correction.node.fact
        owners = [frame_owner(model, path) for path in fact.owners]
        scaled = _takes_scale(source, spot, correction)
        edit = edit_for(correction, 0, owners)
        edit = replace(edit, attention=scaled, projects=_projects(source, spot, correction))
        edits.setdefault(edit, fact.module)
    if len({edit.factor.base for edit in edits}) > 1:
        raise RewriteError(
            "One line serves modules of different base sizes: " + ", ".join(edits.values()) + ".",
            where=str(spot.frame),
            fix="Give each its own code, or use automup.parametrize.",
        )
    yield from _once(edits)


def _once(edits: Iterable[Edit]) -> Iterator[Edit]:
    """One edit for each factor at a place: a line may run many times, each with its own scope."""
    found: dict[tuple[Any, ...], Edit] = {}
    for edit in edits:
        key = (edit.span, edit.factor.base, edit.factor.exponent)
        first = found.setdefault(key, edit)
        found[key] = replace(first, tensor_names=first.tensor_names | edit.tensor_names)
    yield from found.values()


# --- multipliers of code outside the file ---------------------------------------------------------


def _head_dims(source: ModelSource, study: Study, spot: Spot) -> dict[str, int]:
    """The attention modules of torch that compute a spot, with the size of a head at the base."""
    found: dict[str, int] = {}
    models = [study.models.shop(knobs).built.model for knobs in (study.base, study.wide)]
    names = {id(module): name for name, module in models[0].named_modules()}
    for correction in spot.corrections:
        base, wide = (m.get_submodule(correction.node.fact.module) for m in models)
        if not isinstance(base, nn.MultiheadAttention) or not isinstance(wide, type(base)):
            return {}
        own = type(base) is not nn.MultiheadAttention
        if own and not (_is_own(source, base) and _mends(study, spot, multihead_form)):
            return {}
        if (correction.size, correction.exponent) != ((base.head_dim, wide.head_dim), -0.5):
            return {}
        found[names[id(base)]] = base.head_dim
    return found


def _is_own(source: ModelSource, module: nn.MultiheadAttention) -> bool:
    """Whether its class is at the top level of the file."""
    cls = type(module)
    return vars(source.module).get(cls.__name__) is cls and cls.__module__ == source.module.__name__


def _edits_of_calls(source: ModelSource, study: Study, spot: Spot) -> list[Edit]:
    """Edits of what the file passes to the code that computes a spot, if they mend it.

    Raises:
        RewriteError: if none does.
    """
    if spot.first.kind != "readout":
        for form in call_forms(study, spot, source.file):
            if _mends(study, spot, form):
                changes = [x for c in spot.corrections for x in form(spot, c)]
                return [edit for change in changes for edit in change.edits]
    correction, fact = spot.first, spot.first.node.fact
    inside = next((f for f in fact.frames if f.file == source.file), None)
    raise RewriteError(
        f"The multiplier of this {correction.kind} belongs into code outside the file: "
        + (f"torch's {fact.library[0]}." if fact.library else f"{spot.span}."),
        where=str(inside or ""),
        fix="Write it in the file itself"
        + ("." if fact.library else ", or use automup.parametrize on the live model."),
    )


def _mends(study: Study, spot: Spot, form: Form) -> bool:
    """Whether a model with this form of the multiplier runs, and needs it no more."""
    try:
        return spot.key in mended_by(study, spot, form)
    except RewriteError:
        return False
