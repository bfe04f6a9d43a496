"""The forms that a multiplier can take in a live model, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile

import torch.nn.functional as F
from torch import nn

from automup.analysis.comparison import Spot
from automup.analysis.placement import frame_owner
from automup.analysis.sites import Correction
from automup.apply import (
    AttentionChange,
    AttributeChange,
    Change,
    InputChange,
    MultiheadChange,
    OutputChange,
)
from automup.capture.graph import Node
from automup.edited import call_forms, edited_forms, guard_only, way_to
from automup.errors import RewriteError
from automup.study import Study

ATTENTION = F.multi_head_attention_forward
OUTPUTS = 4  # modules before an operation whose outputs are tried: those next to it

Form = Callable[[Spot, Correction], Iterable[Change]]
"""Makes the changes for one correction of a spot at some target."""


def forms_for(study: Study, spot: Spot) -> Iterator[tuple[Form, bool]]:
    """Forms to try, with whether the first look at one is enough to go on with it."""
    model = study.models.at_base
    fact = spot.first.node.fact
    yield from ((_attribute_form(model, name), False) for name in _attributes(model, spot))
    late: list[Form] = []
    if spot.first.outside_library:
        for form, by_registry in edited_forms(study, spot):
            if by_registry:  # another entry may be taken out of it later
                late.append(form)
            else:
                yield form, True
    module = model.get_submodule(fact.module)
    if spot.first.kind == "attention" and isinstance(module, nn.MultiheadAttention):
        # a class of the author's may pass by what the form changes
        yield multihead_form, type(module).forward is nn.MultiheadAttention.forward
    if fact.library[-1:] == (ATTENTION.__name__,):
        yield _attention_form(study), True
    if spot.first.kind == "readout":
        if _owns(model, spot.first.reader, spot.first.parameter):
            yield _input_form, True
    else:
        yield from ((form, False) for form in call_forms(study, spot))
        for number in range(min(OUTPUTS, len(_upstream(model, spot.first)))):
            yield _output_form(study, number), False
    yield from ((form, True) for form in late)


def no_place(spot: Spot) -> RewriteError:
    """The refusal of a spot that no form fits."""
    return RewriteError(
        f"No place for the multiplier of this {spot.first.kind} in the live model: it is computed "
        f"in {_computed_in(spot)}, which is not a method of one of the model's own modules.",
        where=str(spot.span),
        fix="Write it as a method of a module of your own"
        + ("." if spot.first.node.fact.library else ", or keep the scale in an attribute."),
    )


def _computed_in(spot: Spot) -> str:
    library = spot.first.node.fact.library
    if library:
        return f"torch's {library[0]}"
    return spot.frame.function if spot.frame else "code without a source"


def _attributes(model: nn.Module, spot: Spot) -> Iterator[str]:
    """Float attributes of the modules whose frames computed the value, innermost first."""
    found: dict[str, None] = {}
    for path in spot.first.node.fact.owners:
        owner = frame_owner(model, path)
        for name, value in vars(owner).items() if owner is not None else ():
            if type(value) is float and value not in (0.0, float("inf")):
                found[name] = None
    yield from found


def _attribute_form(model: nn.Module, attribute: str) -> Form:
    def change(spot: Spot, correction: Correction) -> Sequence[Change]:
        for path in correction.node.fact.owners:
            owner = frame_owner(model, path)
            if owner is not None and type(vars(owner).get(attribute)) is float:
                return (AttributeChange(path, attribute, correction.factor),)
        return ()

    return change


def _input_form(spot: Spot, correction: Correction) -> Sequence[Change]:
    return (InputChange(correction.reader, correction.factor),)


def multihead_form(spot: Spot, correction: Correction) -> Sequence[Change]:
    """One of torch's own attention modules: its logits are multiplied by its query."""
    return (MultiheadChange(correction.node.fact.module, correction.factor),)


def _attention_form(study: Study) -> Form:
    """Torch's attention, which a function of the author's calls by hand."""

    def change(spot: Spot, correction: Correction) -> Sequence[Change]:
        owner, path = way_to(study, correction, ATTENTION)
        scaled = AttentionChange(owner, path, correction.factor)
        return (scaled, *guard_only(study, correction))

    return change


def _owns(model: nn.Module, path: str, parameter: str) -> bool:
    """Whether the module itself holds the tied weight that its forward reads."""
    module = model.get_submodule(path)
    tied = dict(model.named_parameters(remove_duplicate=False)).get(parameter)
    return any(p is tied for p in module.parameters(recurse=False))


def _output_form(study: Study, number: int) -> Form:
    """The output of a module that the value is computed from, as the query's projection.

    Where the code between is linear in it, whoever computes it, this moves the value by the factor.
    """

    model = study.models.at_base

    def change(spot: Spot, correction: Correction) -> Sequence[Change]:
        paths = _upstream(model, correction)[number : number + 1]
        scaled = (OutputChange(path, correction.factor) for path in paths)
        own = not correction.node.fact.library
        return (*scaled, *(guard_only(study, correction) if own else ()))

    return change


def _upstream(model: nn.Module, correction: Correction) -> list[str]:
    """The modules whose outputs an operation is computed from, nearest first."""
    found: dict[str, None] = {}
    pending, seen = [correction.node], {correction.node}
    for node in pending:
        for source in node.all_input_nodes:
            if source in seen or source.op in ("get_attr", "placeholder"):
                continue
            seen.add(source)
            path = _returned_by(model, source, node)
            if path is None:
                pending.append(source)
            else:
                found[path] = None
    return list(found)


def _returned_by(model: nn.Module, source: Node, reader: Node) -> str | None:
    """The outermost module that computed a value which another module reads."""
    inner, outer = ([*filter(None, n.fact.module.split("."))] for n in (source, reader))
    common = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(inner, outer, strict=False))
    )
    for end in range(common + 1, len(inner) + 1):
        path = ".".join(inner[:end])
        forward = type(model.get_submodule(path)).forward
        if forward is not nn.Module.forward:
            return path
    return None
