"""From a model file to a muP model file: edits from the analysis, checked on the file they make."""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch._library.custom_ops import CustomOpDef
from torch.utils._pytree import tree_leaves

from automup.analysis.comparison import Comparison, Spot
from automup.analysis.placement import edit_for, frame_owner, takes_scale
from automup.capture.load import ModelSource, load_text
from automup.capture.raised import describe
from automup.capture.trace import LATE_INITS, Workshop
from automup.edits import Edit, Multiplier
from automup.errors import AutomupError, RewriteError, UnresolvedError
from automup.models import Knobs
from automup.plan import Plan
from automup.planning import make_plan
from automup.refusals import grouped, refusal
from automup.rewrite import (
    convert_source,
    find_unrun,
    function_at,
    overridden_lines,
)
from automup.study import Study, study_source

CHECKABLE = 1 << 24  # parameters; a larger base model is not built for the bit-for-bit check


@dataclass(frozen=True)
class Conversion:
    """The converted file's text, and what the user should know about it."""

    text: str
    notes: tuple[str, ...]


def convert(source: ModelSource, study: Study, *, strict: bool = True) -> Conversion:
    """Rewrite a model file into muP.

    Args:
        source: the file, as loaded.
        study: the study of its model.
        strict: refuse what could not be resolved, and code that no trace ran and that might
            need a multiplier; otherwise leave both as they are, and say so.

    Raises:
        UnresolvedError: if something mixes an infinite axis in an unknown way, or (strict) if
            unexecuted code contracts activations.
        RewriteError: if a multiplier has no place in the file, or the result fails its check.
    """
    if strict:
        refuse_unresolved(study)
    plan = make_plan(study, study.wide)
    spots = study.exponents.spots
    kinds = {edit: spot.first.kind for spot in spots for edit in _edits(source, study, spot)}
    edits = [*kinds]
    lines = frozenset(n for file, n in study.exploration.lines if file == source.file)
    unrun = find_unrun(source.text, lines, edits)
    root = _root_class(source, study)
    held = {type(m) for m in study.models.at_base.modules()}
    elsewhere = _kernel_lines(source)
    elsewhere |= overridden_lines(source.text, vars(source.module), root, held)
    suspicious = [p for p in unrun.suspicious if p.line not in elsewhere]
    if suspicious and strict:
        raise UnresolvedError(
            "No trace ran this code, and it may need a multiplier: "
            + "; ".join(f"line {p.line}: {p.text} ({p.why})" for p in suspicious),
            where=source.file,
            fix="Pass an --input that reaches it, or --no-strict to leave it as it is.",
        )
    text = convert_source(
        source.text,
        filename=source.file,
        root_class=root.__name__,
        parameters=plan.parameters,
        edits=[*edits, *unrun.twins],
        init_functions=_init_functions(source, root, study, plan),
        knobs=study.base,
        sites=_multipliers(source, kinds, unrun.twins),
    )
    _check(source, study, text)
    places = (*suspicious, *(p for p in unrun.notes if p.line not in elsewhere))
    notes = tuple(f"not run by any trace: line {p.line}: {p.text} ({p.why})" for p in places)
    left = tuple(f"not resolved: {group}" for group in grouped(plan.unresolved))
    return Conversion(text, (*plan.notes, *left, *notes))


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


def _multipliers(
    source: ModelSource, kinds: Mapping[Edit, str], twins: Sequence[Edit]
) -> list[Multiplier]:
    """The rows of MUP_SITES; a twin is of the kind of the edit whose factor it shares."""
    by_factor = {edit.factor: kind for edit, kind in kinds.items()}
    rows = {
        Multiplier(
            kinds.get(edit) or by_factor.get(edit.factor, "twin"),
            function_at(source.text, edit.span.line),
            edit.factor,
        ): None
        for edit in (*kinds, *twins)
    }
    return [*rows]


def refuse_unresolved(study: Study) -> None:
    """Raise what the analysis could not resolve."""
    if study.exponents.unresolved:
        names = [w.name for w in study.models.shop(study.base).built.weights]
        raise refusal(study.exponents.unresolved, names, command_line=True)


def _edits(source: ModelSource, study: Study, spot: Spot) -> Iterator[Edit]:
    """The edit at a spot; all its modules must agree on it."""
    model = study.models.at_base
    edits: dict[Edit, str] = {}
    for correction in spot.corrections:
        fact = correction.node.meta["fact"]
        here = spot.frame is not None and spot.frame.file == source.file
        scaled = here and takes_scale(spot.span, fact.library, vars(source.module))
        if not here or not (correction.outside_library or scaled):
            inside = next((f for f in fact.frames if f.file == source.file), None)
            raise RewriteError(
                f"The multiplier of this {correction.kind} belongs into code outside the file: "
                + (f"torch's {fact.library[0]}." if fact.library else f"{spot.span}."),
                where=str(inside or ""),
                fix="Write it in the file itself"
                + ("." if fact.library else ", or use automup.parametrize on the live model."),
            )
        owners = [frame_owner(model, path) for path in fact.owners]
        edit = replace(edit_for(correction, 0, owners), attention=scaled)
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


def _init_functions(source: ModelSource, cls: type, study: Study, plan: Plan) -> list[str]:
    """The methods of the root class at whose end the init factors belong.

    A method that draws the weights anew, its own or inherited, and may be called again after the
    constructor; the constructor itself where it does not call that method.
    """
    methods = [m for m in LATE_INITS if _callable_alone(getattr(cls, m, None))]
    scaled = {p.name for p in plan.parameters if p.init_mult != 1.0}
    if not methods or not scaled:
        return []
    calls, drawn = _redraws(study, cls, methods[0])
    name = f"{cls.__name__}.{methods[0]}"
    if not drawn & scaled:
        return []
    if scaled - drawn:
        raise RewriteError(
            f"{name} draws some weights anew but not {sorted(scaled - drawn)[0]}, so no one call "
            "can rescale all of them exactly once.",
            where=source.file,
            fix=f"Draw all weights in {methods[0]}, or none.",
        )
    return [name] if calls else [name, f"{cls.__name__}.__init__"]


def _redraws(study: Study, cls: type, method: str) -> tuple[int, set[str]]:
    """How often the constructor calls a method, and the weights that the method draws."""
    original, own, calls = getattr(cls, method), method in vars(cls), [0]

    def counted(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return original(self, *args, **kwargs)

    setattr(cls, method, counted)
    try:
        shop = Workshop(lambda: study.models.build(study.base))
        during = calls[0] - (1 if shop.built.late_init == method else 0)
    finally:
        setattr(cls, method, original)
        if not own:
            delattr(cls, method)
    return during, shop.redrawn_by(method)


def _callable_alone(method: object) -> bool:
    """Whether it is a method that needs no argument but its instance."""
    if not isinstance(method, FunctionType):
        return False
    rest = [*inspect.signature(method).parameters.values()][1:]
    passed_on = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in passed_on for p in rest)


# --- the check -----------------------------------------------------------------------------------


def _check(source: ModelSource, study: Study, text: str) -> None:
    """The converted file must be in muP, and at the base the author's model bit for bit."""
    lines = linecache.cache.get(source.file)
    try:
        wrong = _faults(source, study, text)
    except Exception as error:  # the file that was made may fail in any way
        said = error if isinstance(error, AutomupError) else f"{describe(error)}."
        raise RewriteError(
            f"The converted file does not stand up to its own check: {said}",
            where=source.file,
            fix="Please report this as a bug, with the model file.",
        ) from error
    finally:  # loading the text under the author's file name left its lines and module behind
        sys.modules[source.module.__name__] = source.module
        if lines is not None:
            linecache.cache[source.file] = lines
    if wrong:
        raise RewriteError(
            f"The converted file is not in muP: {'; '.join(wrong)}.",
            where=source.file,
            fix="Please report this as a bug, with the model file."
            if isinstance(source.cls, type)
            else f"If {source.name} draws weights, let the constructor of the class draw them.",
        )


def _faults(source: ModelSource, study: Study, text: str) -> list[str]:
    """What the analysis of the converted file still finds, and where it differs at the base."""
    before = _run_at_base(study)  # loading the text defines the file's own operations anew
    module = load_text(text, source.file)
    made = ModelSource(getattr(module, source.name), module, source.file, source.name, text)
    converted = study_source(
        made, study.base, study.models.fixed, study.models.inputs, study.overrides
    )
    left = converted.exponents
    plan = make_plan(converted, converted.wide)
    wrong = [str(s.span) for s in left.spots] + _new_problems(study, left)
    wrong += [f"init of {p.name}" for p in plan.parameters if p.init_mult != 1.0 and not p.parts]
    wrong += _wrong_parts(study, converted)
    return wrong + _differences(before, _run_at_base(converted))


def _wrong_parts(study: Study, converted: Study) -> list[str]:
    """Fused weights whose parts the converted constructor does not draw as planned.

    Their law has no single exponent, so real draws at twice the base are compared.
    """
    fused = [p for p in make_plan(study, study.wide).parameters if p.parts]
    size = sum(p.numel() for p in study.models.shop(study.wide).built.model.parameters())
    if not fused or size > CHECKABLE:
        return []
    before, after = (_drawn_at(s, study.wide) for s in (study, converted))
    wrong = []
    for p in fused:
        rows = [part.size for part in p.parts]
        pieces = before[p.name].split(rows, p.fan_out_dims[0])
        planned = [piece * part.init_mult for piece, part in zip(pieces, p.parts, strict=True)]
        if not torch.allclose(torch.cat(planned, p.fan_out_dims[0]), after[p.name]):
            wrong.append(f"init of {p.name}")
    return wrong


def _drawn_at(study: Study, knobs: Knobs) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {name: p.detach() for name, p in study.models.drawn(knobs).named_parameters()}


def _new_problems(study: Study, left: Comparison) -> list[str]:
    """What the converted file leaves open that the author's did not."""
    before = {u.reason for u in study.exponents.unresolved}
    return [u.reason for u in left.unresolved if u.reason not in before]


def _differences(before: list[torch.Tensor], after: list[torch.Tensor]) -> list[str]:
    """Where the converted model differs from the author's at the base, on real tensors."""
    same = len(before) == len(after) and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(before, after, strict=True)
    )
    return [] if same else ["at the base its weights or outputs differ from the author's"]


def _run_at_base(study: Study) -> list[torch.Tensor]:
    """The weights and outputs at the base; nothing of a model too large to be built for it."""
    if sum(p.numel() for p in study.models.at_base.parameters()) > CHECKABLE:
        return []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = study.models.drawn(study.base).eval()
        inputs = study.models.inputs(model)
        outputs = model(*inputs.args, **inputs.kwargs)
        tensors = [x for x in tree_leaves(outputs) if isinstance(x, torch.Tensor)]
        return [p.detach() for p in model.state_dict().values()] + tensors
