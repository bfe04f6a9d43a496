"""From a model file to a muP model file: edits from the analysis, checked on the file they make."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

from torch import nn
from torch._library.custom_ops import CustomOpDef

from automup.capture.load import ModelSource
from automup.capture.trace import Workshop
from automup.constants import NO_CONSTANTS, Constants
from automup.conversion_check import check_converted
from automup.converted import check_unchanged, converted_knobs
from automup.edits import Edit, Multiplier
from automup.errors import RewriteError, UnresolvedError
from automup.exchange_check import check_exchanged
from automup.exchanging import exchange_of
from automup.plan import Plan
from automup.planning import make_plan
from automup.queries import tuned
from automup.refusals import grouped, refusal
from automup.rewrite import (
    Contents,
    Unrun,
    convert_source,
    find_unrun,
    function_at,
    overridden_lines,
)
from automup.rewrite.exchange import NO_EXCHANGE, Exchange
from automup.study import Study
from automup.written import Written, rows_of_attention, write_multipliers


@dataclass(frozen=True)
class Conversion:
    """The converted file's text, and what the user should know about it."""

    text: str
    notes: tuple[str, ...]


def convert(
    source: ModelSource,
    study: Study,
    *,
    strict: bool = True,
    form: str = "default",
    constants: Constants = NO_CONSTANTS,
) -> Conversion:
    """Rewrite a model file into muP; one that was converted before stays as it is.

    Args:
        source: the file, as loaded.
        study: the study of its model.
        strict: refuse what could not be resolved, and code that no trace ran and that might
            need a multiplier; otherwise leave both as they are, and say so.
        form, constants: as of :func:`automup.parametrize`. The file trains as that model does.

    Raises:
        UsageError: if there is no such form, or a constant has no place in the model.
        UnresolvedError: if something mixes an infinite axis in an unknown way, or (strict) if
            unexecuted code contracts activations.
        RewriteError: if a multiplier has no place in the file, or the result fails its check.
    """
    check_unchanged(source, form, constants)
    if converted_knobs(source):
        return Conversion(source.text, ())
    if strict:
        refuse_unresolved(study)
    _root_class(source, study)  # or what belongs elsewhere would be said of its code
    exchanged = exchange_of(source, study, form, constants)
    written = write_multipliers(source, study, exchanged)
    unrun = _unrun(source, study, written, exchanged)
    if unrun.suspicious and strict:
        raise UnresolvedError(
            "No trace ran this code, and it may need a multiplier: "
            + "; ".join(f"line {p.line}: {p.text} ({p.why})" for p in unrun.suspicious),
            where=source.file,
            fix="Pass an --input that reaches it, or --no-strict to leave it as it is.",
        )
    plan = make_plan(study, study.wide)
    text_of = partial(_text, source, study, plan, written, unrun.twins)
    text = text_of(NO_EXCHANGE)
    check_converted(source, study, text)
    if exchanged:
        plain, text = text, text_of(exchanged)
        if exchanged.tuned and exchanged.form != "default":
            plain = text_of(Exchange(constants=exchanged.constants))
        check_exchanged(source, study, exchanged, plain, text)
    places = (*unrun.suspicious, *unrun.notes)
    notes = tuple(f"not run by any trace: line {p.line}: {p.text} ({p.why})" for p in places)
    left = tuple(f"not resolved: {group}" for group in grouped(plan.unresolved))
    known = [note for note in plan.notes if not study.redraw or note != study.redraw.warning]
    return Conversion(text, (*known, *left, *notes))


def _unrun(source: ModelSource, study: Study, written: Written, exchanged: Exchange) -> Unrun:
    """The file's code that no trace ran, but for that of other models and of kernels."""
    lines = frozenset(n for file, n in study.exploration.lines if file == source.file)
    rewritten = frozenset(function_at(source.text, edit.span.line) for edit in exchanged.reads)
    unrun = find_unrun(source.text, lines, [*written.edits], exchanged.attributes, rewritten)
    held = {type(m) for m in study.models.at_base.modules()}
    elsewhere = _kernel_lines(source)
    root = _root_class(source, study)
    elsewhere |= overridden_lines(source.text, vars(source.module), root, held)
    suspicious, notes = (
        tuple(p for p in places if p.line not in elsewhere)
        for places in (unrun.suspicious, unrun.notes)
    )
    return Unrun(unrun.twins, suspicious, notes)


def _text(
    source: ModelSource,
    study: Study,
    plan: Plan,
    written: Written,
    twins: Sequence[Edit],
    exchanged: Exchange,
) -> str:
    """The converted file."""
    root = _root_class(source, study)
    formed = tuned(study, plan, exchanged.constants).with_form(exchanged.form)
    functions, redrawn = _init_functions(study, formed)
    contents = Contents(
        root_class=root.__name__,
        parameters=plan.parameters,
        edits=[*map(exchanged.of_edit, [*written.edits, *twins]), *exchanged.reads],
        knobs=study.base,
        fixed=_given(source, study),
        init_functions=functions,
        redrawn=redrawn,
        factory="" if functions else _factory(source, study, root, formed),
        sites=_multipliers(source, written, twins),
        head_dims={f"{name}.out_proj.weight": n for name, n in written.head_dims.items()},
        attention_classes=written.attention_classes,
        queries={p.name: p.query for p in formed.parameters if p.query},
        exchanged=exchanged,
    )
    return convert_source(source.text, source.file, contents)


def _given(source: ModelSource, study: Study) -> dict[str, Any]:
    """What makes the model at the base, besides its width knobs and the file's own defaults."""
    defaults = source.constructor_fields()
    fixed = study.models.fixed.items()
    return {name: value for name, value in fixed if defaults.get(name) != value}


def _root_class(source: ModelSource, study: Study) -> type:
    """The model's class: the one that was named, or that of what the named function builds.

    Raises:
        RewriteError: if that class is not in the file.
    """
    if isinstance(source.cls, type):
        return source.cls
    cls: type = type(study.models.at_base)
    home = cls.__module__
    named = vars(source.module).get(cls.__name__)
    if named is cls and home == source.module.__name__:
        return named
    file = getattr(sys.modules.get(home), "__file__", None) or home
    elsewhere = home != source.module.__name__ and home.partition(".")[0] != "torch"
    raise RewriteError(
        f"{source.name} builds a {cls.__qualname__}, whose class is not at the top level of the "
        "file.",
        where=source.file,
        fix=f"Convert {file}:{cls.__name__}."
        if elsewhere
        else f"Build the model in the constructor of a class of the file, which {source.name} "
        "then returns.",
    )


def _kernel_lines(source: ModelSource) -> frozenset[int]:
    """The lines of functions that torch runs behind an operation of the file's own.

    No trace sees inside an operation: what it does is for its rule or an override to say.
    """
    found: set[int] = set()
    for op in vars(source.module).values():
        if isinstance(op, CustomOpDef):
            for kernel in (*vars(op).values(), *vars(op).get("_backend_fns", {}).values()):
                if isinstance(kernel, FunctionType) and kernel.__module__ == source.module.__name__:
                    lines, first = inspect.getsourcelines(kernel)
                    found.update(range(first, first + len(lines)))
    return frozenset(found)


def _multipliers(source: ModelSource, written: Written, twins: Sequence[Edit]) -> list[Multiplier]:
    """The rows of MUP_SITES; a twin is of the kind of the edit whose factor it shares."""
    kinds = written.edits
    by_factor = {edit.factor: kind for edit, kind in kinds.items()}
    rows = {
        Multiplier(
            kinds.get(edit) or by_factor.get(edit.factor, "twin"),
            function_at(source.text, edit.span.line),
            edit.factor,
        ): None
        for edit in (*kinds, *twins)
    }
    return [*rows, *rows_of_attention(written)]


def refuse_unresolved(study: Study) -> None:
    """Raise what the analysis could not resolve."""
    if study.exponents.unresolved:
        names = [w.name for w in study.models.shop(study.base).built.weights]
        raise refusal(study.exponents.unresolved, names, command_line=True)


def _init_functions(study: Study, plan: Plan) -> tuple[list[str], frozenset[str]]:
    """The methods of the root class at whose end the init factors belong.

    A method that draws the weights anew, its own or inherited, and may be called again after the
    constructor; the constructor, too, where it does not call that method. With them the weights
    that the method draws, where others need a factor too, or where they need one in both places.

    Raises:
        RewriteError: if a weight would need another factor in each.
    """
    redraw, scaled = study.redraw, _rescaled(plan)
    if redraw is None or not redraw.weights & scaled:
        return [], frozenset()
    if redraw.called:
        return [redraw.name], redraw.weights if scaled - redraw.weights else frozenset()
    if redraw.otherwise:
        raise RewriteError(
            f"{redraw.name} draws {redraw.otherwise[0]} otherwise than the constructor does, which "
            "does not call it: it is not known which of the two training starts from.",
            fix=f"Call self.{redraw.method}() at the end of the constructor.",
        )
    both = not redraw.needed or bool(scaled - redraw.weights)
    functions = [redraw.name, f"{redraw.cls.__name__}.__init__"]
    return functions, redraw.weights if both else frozenset()


def _rescaled(plan: Plan) -> set[str]:
    """The weights of which any part is drawn otherwise."""
    return {p.name for p in plan.parameters if any(factor != 1.0 for *_, factor in p.drawn[1])}


def _factory(source: ModelSource, study: Study, cls: type, plan: Plan) -> str:
    """The function that was named, if it draws weights after the class's constructor made them."""
    scaled = _rescaled(plan)
    if isinstance(source.cls, type) or not scaled:
        return ""
    versions: dict[str, int] = {}
    original: Any = cls.__init__  # type: ignore[misc]
    own = "__init__" in vars(cls)

    @functools.wraps(original)
    def noted(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        versions.update({name: p._version for name, p in self.named_parameters()})

    cls.__init__ = noted  # type: ignore[misc]
    try:
        built = Workshop(lambda: study.models.build(study.base)).built
    finally:
        cls.__init__ = original  # type: ignore[misc]
        if not own:
            del cls.__init__  # type: ignore[misc]
    later = {n for n, p in built.model.named_parameters() if versions.get(n) != p._version}
    return source.name if later & scaled and not built.late_init else ""
