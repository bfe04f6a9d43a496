"""How each multiplier gets into a live model: decided once, checked by tracing the result.

A form of change is a guess; what makes it right is the check. The model with its changes is traced
again, at the base, where it must compute with the author's own numbers, and at the wider end, where
the calculus must find nothing left to correct: then each factor is what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from torch import fx, nn

from automup.analysis.comparison import Comparison, Spot
from automup.analysis.placement import frame_owner
from automup.analysis.sites import Correction
from automup.apply import (
    AttributeChange,
    Change,
    InputChange,
    MethodChange,
    MultiheadChange,
    OutputChange,
    multiply,
)
from automup.edited import edited_forms, refuse_unrun
from automup.errors import RewriteError, UnresolvedError
from automup.plan import Span
from automup.reach import Path
from automup.study import Knobs, Study

HOOKS = 4  # modules before an operation whose outputs are tried: those next to it

Form = Callable[[Spot, Correction], Iterable[Change]]
"""Makes the changes for one correction of a spot at some target."""


@dataclass(frozen=True)
class Realisation:
    """For every spot of a study the form of its multiplier."""

    forms: Mapping[tuple[Span, float], Form]

    def changes(self, comparison: Comparison) -> tuple[Change, ...]:
        """What to change in a model at the comparison's wider end.

        Raises:
            UnresolvedError: if the target needs a multiplier where twice the base needs none.
        """
        found: dict[Change, None] = {}
        for spot in comparison.spots:
            form = self.forms.get(spot.key)
            if form is None:
                raise UnresolvedError(
                    "This target needs a multiplier where twice the base needs none.",
                    where=str(spot.span),
                    fix="Scale the same knobs as at the target when choosing the base.",
                )
            for correction in spot.corrections:
                found.update(dict.fromkeys(form(spot, correction)))
        return tuple(_merged(found))


def _merged(changes: Iterable[Change]) -> Iterator[Change]:
    """All edits of one function together, as they are compiled together."""
    edits: dict[tuple[str, Path], list[Any]] = {}
    for change in changes:
        if isinstance(change, MethodChange):
            edits.setdefault((change.module, change.path), []).extend(change.edits)
        else:
            yield change
    for (module, path), every in edits.items():
        yield MethodChange(module, path, tuple(dict.fromkeys(every)))


def realise(study: Study) -> Realisation:
    """Decide every spot's form and check that together they leave nothing to correct.

    What is most likely is tried at once for all spots; if that does not hold, each by itself.

    Raises:
        RewriteError: if a multiplier has no place in the live model; names it.
    """
    realisation = Realisation(_choose(study, careful=False))
    if _problem(study, realisation) is not None:
        realisation = Realisation(_choose(study, careful=True))
        if problem := _problem(study, realisation):
            raise problem
    return realisation


def _choose(study: Study, *, careful: bool) -> dict[tuple[Span, float], Form]:
    chosen: dict[tuple[Span, float], Form] = {}
    for spot in study.exponents.spots:
        if spot.key not in chosen:
            form, mended = _choice(study, spot, careful=careful)
            # One change may mend several spots, as a scale that two branches share.
            chosen |= dict.fromkeys(mended - chosen.keys(), _nothing)
            chosen[spot.key] = form
    return chosen


def _nothing(spot: Spot, correction: Correction) -> Sequence[Change]:
    return ()


def _choice(
    study: Study, spot: Spot, *, careful: bool
) -> tuple[Form, frozenset[tuple[Span, float]]]:
    """The first form that mends a spot, and all the spots that it mends.

    Raises:
        RewriteError: if there is none.
        UnresolvedError: if there is, but code that no trace ran may need another multiplier.
    """
    refusal: RewriteError | None = None
    for form, sure in _forms(study, spot):
        try:
            if sure and not careful:
                for correction in spot.corrections:
                    list(form(spot, correction))
                return form, frozenset()
            mended = _mended(study, spot, form)
        except RewriteError as error:
            refusal = refusal or error
            continue
        if mended:
            return form, mended
    raise refusal or _no_place(spot)


def _problem(study: Study, realisation: Realisation) -> RewriteError | None:
    """What is wrong with a model that is changed so, if anything is."""
    for knobs, direction in study.probes if realisation.forms else ():
        changes = realisation.changes(direction)
        try:
            left = _after(study, knobs, tuple(c for c in changes if not _beyond_calculus(c)))
        except RewriteError as error:
            return error
        scaled = {c.module for c in changes if _beyond_calculus(c)}
        spots = [s for s in left.spots if not scaled.issuperset(s.modules)]
        if spots or not _same_at_base(study, left):
            spot = spots[0] if spots else direction.spots[0]
            return RewriteError(
                f"The multiplier of this {spot.first.kind} did not take effect in the live model.",
                where=str(spot.span),
                fix="Keep the scale in a float attribute of the module, or use `automup convert`.",
            )
    return None


def _beyond_calculus(change: Change) -> bool:
    """A scaled query and the other projections share one bias tensor: its parts differ in size.

    That these logits move by the factor is a test of :mod:`automup.multihead` itself.
    """
    return isinstance(change, MultiheadChange)


def _after(study: Study, knobs: Knobs, changes: tuple[Change, ...]) -> Comparison:
    """What the calculus says once the changes are made, at the base with factor 1.

    Raises:
        RewriteError: if the changed model does not run.
    """
    neutral = tuple(c if isinstance(c, MethodChange) else replace(c, factor=1.0) for c in changes)
    try:
        return study.with_changes(
            knobs, lambda m: multiply(m, neutral), lambda m: multiply(m, changes)
        )
    except RewriteError:
        raise
    except Exception as error:  # the changed code may fail in any way
        raise RewriteError(
            f"With its multipliers the model does not run: {error}",
            fix="Keep the scales in float attributes of the modules.",
        ) from error


def _same_at_base(study: Study, after: Comparison) -> bool:
    """Whether the base computes with the author's own numbers still, and ones, after the changes.

    A formula in the wrong size is 1 at no width, which the calculus, that compares widths, cannot
    see.
    """
    for number, analysis in enumerate(after.analyses):
        before = _numbers(study.trace(study.base, number).graph.nodes)
        if not _numbers(analysis.dataflow.ops) <= before | {1.0}:
            return False
    return True


def _numbers(nodes: Iterable[fx.Node]) -> set[float]:
    """The constants that a graph computes with."""
    args = {x for n in nodes for x in (*n.args, *n.kwargs.values()) if type(x) is float}
    return args | {fact.value for n in nodes if (fact := n.meta.get("fact")) and fact.value}


def _mended(study: Study, spot: Spot, form: Form) -> frozenset[tuple[Span, float]]:
    """The spots that a form mends, in every direction; none if it causes others."""
    mended: set[tuple[Span, float]] = set()
    for knobs, direction in study.probes:
        here = next((s for s in direction.spots if s.key == spot.key), None)
        if here is None:
            continue
        changes = tuple(_merged(dict.fromkeys(x for c in here.corrections for x in form(here, c))))
        after = _after(study, knobs, changes)
        before = {s.key for s in direction.spots}
        left = {s.key for s in after.spots}
        edited = any(isinstance(c, MethodChange) for c in changes)  # which moves what is behind it
        moved = {_line(key) for key in left} <= {_line(key) for key in before}
        if not (moved if edited else left <= before) or not _same_at_base(study, after):
            return frozenset()
        if (len(left) >= len(before)) if edited else (spot.key in left):
            return frozenset()
        if len(after.unresolved) != len(direction.unresolved):
            return frozenset()
        mended |= {spot.key} if edited else before - left
    return frozenset(mended)


def _line(key: tuple[Span, float]) -> tuple[str, int, float]:
    return key[0].file, key[0].line, key[1]


# --- the forms -----------------------------------------------------------------------------------


def _forms(study: Study, spot: Spot) -> Iterator[tuple[Form, bool]]:
    """Forms to try, with whether the first look at one is enough to go on with it."""
    model = study.shop(study.base).built.model
    fact = spot.first.node.meta["fact"]
    yield from ((_attribute_form(model, name), False) for name in _attributes(model, spot))
    late: list[Form] = []
    if spot.first.outside_library:
        for form, by_registry in edited_forms(study, spot):
            if by_registry:  # another entry may be taken out of it later
                late.append(form)
            else:
                yield form, True
    if spot.first.kind == "attention" and isinstance(
        model.get_submodule(fact.module), nn.MultiheadAttention
    ):
        yield _multihead_form, True
    if spot.first.kind == "readout":
        if _owns(model, spot.first.reader, spot.first.parameter):
            yield _input_form, True
    else:
        ways = edited_forms(study, spot, argument=True)
        yield from ((form, False) for form, by_registry in ways if not by_registry)
        for number in range(min(HOOKS, len(_upstream(model, spot.first)))):
            yield _output_form(study, number), False
    yield from ((form, True) for form in late)


def _no_place(spot: Spot) -> RewriteError:
    return RewriteError(
        f"No place for the multiplier of this {spot.first.kind} in the live model: it is computed "
        f"in {_computed_in(spot)}, which is not a method of one of the model's own modules.",
        where=str(spot.span),
        fix="Write it as a method of a module of your own"
        + ("." if spot.first.node.meta["fact"].library else ", or keep the scale in an attribute."),
    )


def _computed_in(spot: Spot) -> str:
    library = spot.first.node.meta["fact"].library
    if library:
        return f"torch's {library[0]}"
    return spot.frame.function if spot.frame else "code without a source"


def _attributes(model: nn.Module, spot: Spot) -> Iterator[str]:
    """Float attributes of the modules whose frames computed the value, innermost first."""
    found: dict[str, None] = {}
    for path in spot.first.node.meta["fact"].owners:
        owner = frame_owner(model, path)
        for name, value in vars(owner).items() if owner is not None else ():
            if type(value) is float and value not in (0.0, float("inf")):
                found[name] = None
    yield from found


def _attribute_form(model: nn.Module, attribute: str) -> Form:
    def change(spot: Spot, correction: Correction) -> Sequence[Change]:
        for path in correction.node.meta["fact"].owners:
            owner = frame_owner(model, path)
            if owner is not None and type(vars(owner).get(attribute)) is float:
                return (AttributeChange(path, attribute, 2.0**correction.log),)
        return ()

    return change


def _input_form(spot: Spot, correction: Correction) -> Sequence[Change]:
    return (InputChange(correction.reader, 2.0**correction.log),)


def _multihead_form(spot: Spot, correction: Correction) -> Sequence[Change]:
    return (MultiheadChange(correction.node.meta["fact"].module, 2.0**correction.log),)


def _owns(model: nn.Module, path: str, parameter: str) -> bool:
    """Whether the module itself holds the tied weight that its forward reads."""
    module = model.get_submodule(path)
    tied = dict(model.named_parameters(remove_duplicate=False)).get(parameter)
    return any(p is tied for p in module.parameters(recurse=False))


def _output_form(study: Study, number: int) -> Form:
    """The output of a module that the value is computed from, as the query's projection.

    Where the code between is linear in it, whoever computes it, this moves the value by the factor.
    """

    model = study.shop(study.base).built.model

    def change(spot: Spot, correction: Correction) -> Sequence[Change]:
        if not correction.node.meta["fact"].library:
            refuse_unrun(study, spot.span)
        paths = _upstream(model, correction)
        return tuple(OutputChange(path, 2.0**correction.log) for path in paths[number : number + 1])

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


def _returned_by(model: nn.Module, source: fx.Node, reader: fx.Node) -> str | None:
    """The outermost module that computed a value which another module reads."""
    inner, outer = (
        [*filter(None, n.meta["fact"].module.split("."))] if "fact" in n.meta else []
        for n in (source, reader)
    )
    common = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(inner, outer, strict=False))
    )
    for end in range(common + 1, len(inner) + 1):
        path = ".".join(inner[:end])
        forward = type(model.get_submodule(path)).forward
        if forward is not nn.Module.forward:
            return path
    return None
