"""The check of a converted file: it must be in muP, and at the base the author's model exactly."""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Iterator, Sequence

import torch
from torch.utils._pytree import tree_leaves

from automup.analysis.comparison import Comparison
from automup.capture.load import ModelSource, load_text
from automup.capture.raised import describe
from automup.errors import AutomupError, RewriteError
from automup.models import Knobs, Models
from automup.planning import make_plan
from automup.rewrite.attention import in_sight
from automup.study import Study, study_source

CHECKABLE = 1 << 24  # parameters; a larger base model is not built for the bit-for-bit check


def check_converted(source: ModelSource, study: Study, text: str) -> None:
    """The converted file must be in muP, and at the base the author's model bit for bit.

    Args:
        source: the author's file.
        study: the study of its model.
        text: the converted file.

    Raises:
        RewriteError: if it is not, or does not run.
    """
    with trying(source):
        wrong = _faults(source, study, text)
    if wrong:
        raise RewriteError(
            f"The converted file is not in muP: {'; '.join(wrong)}.",
            where=source.file,
            fix=_advice(source, wrong),
        )


@contextlib.contextmanager
def trying(source: ModelSource) -> Iterator[None]:
    """Inside, a file made of the author's is loaded under its name; what it raises is a fault.

    Raises:
        RewriteError: says what it raised.
    """
    lines = linecache.cache.get(source.file)
    try:
        yield
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


def _advice(source: ModelSource, wrong: Sequence[str]) -> str:
    if _UNSTEADY in wrong:
        return "Draw with torch what it draws, and keep no count of its calls: it must be testable."
    if not isinstance(source.cls, type):
        return f"If {source.name} draws weights, let the constructor of the class draw them."
    return "Please report this as a bug, with the model file."


def _faults(source: ModelSource, study: Study, text: str) -> list[str]:
    """What the analysis of the converted file still finds, and where it differs at the base."""
    author = study.models
    before = _run_at_base(author)  # loading the text defines the file's own operations anew
    seen = in_sight(text)
    made = loaded(source, seen)
    converted = study_source(made, study.base, author.fixed, author.inputs, study.overrides)
    left = converted.exponents
    plan = make_plan(converted, converted.wide)
    wrong = [str(s.span) for s in left.spots] + _new_problems(study, left)
    wrong += [f"init of {p.name}" for p in plan.parameters if p.init_mult != 1.0 and not p.parts]
    wrong += _wrong_parts(study, converted)
    if seen != text:
        made = loaded(source, text)
    after = _run_at_base(Models(made.build, study.base, author.inputs, author.fixed))
    if not _same(before, after):
        wrong.append(_UNLIKE if _same(before, _run_at_base(author)) else _UNSTEADY)
    return wrong


def loaded(source: ModelSource, text: str) -> ModelSource:
    """The file with another text."""
    module = load_text(text, source.file)
    return ModelSource(getattr(module, source.name), module, source.file, source.name, text)


def _wrong_parts(study: Study, converted: Study) -> list[str]:
    """Fused weights whose parts the converted constructor does not draw as planned.

    Their law has no single exponent, so real draws at twice the base are compared.
    """
    fused = [p for p in make_plan(study, study.wide).parameters if p.parts]
    size = sum(p.numel() for p in study.models.shop(study.wide).built.model.parameters())
    if not fused or size > CHECKABLE:
        return []
    before, after = (drawn_at(s.models, study.wide) for s in (study, converted))
    wrong = []
    for p in fused:
        rows = [part.size for part in p.parts]
        pieces = before[p.name].split(rows, p.fan_out_dims[0])
        planned = [piece * part.init_mult for piece, part in zip(pieces, p.parts, strict=True)]
        if not torch.allclose(torch.cat(planned, p.fan_out_dims[0]), after[p.name]):
            wrong.append(f"init of {p.name}")
    return wrong


def drawn_at(models: Models, knobs: Knobs) -> dict[str, torch.Tensor]:
    """The weights of a model as drawn with the seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {name: p.detach() for name, p in models.drawn(knobs).named_parameters()}


def _new_problems(study: Study, left: Comparison) -> list[str]:
    """What the converted file leaves open that the author's did not."""
    before = {u.reason for u in study.exponents.unresolved}
    return [u.reason for u in left.unresolved if u.reason not in before]


_UNLIKE = "at the base its weights or outputs differ from the author's"
_UNSTEADY = "the author's own model differs from itself in two runs with the same seed"


def _same(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    """Whether two models have the same weights and outputs, bit for bit."""
    return len(before) == len(after) and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        for a, b in zip(before, after, strict=True)
    )


def _run_at_base(models: Models) -> list[torch.Tensor]:
    """The weights and outputs at the base; nothing of a model too large to be built for it."""
    if sum(p.numel() for p in models.at_base.parameters()) > CHECKABLE:
        return []
    eager = torch.compiler.set_stance("force_eager")
    with torch.random.fork_rng(devices=[]), torch.no_grad(), eager:
        torch.manual_seed(0)
        model = models.drawn(models.base)
        model.eval()
        inputs = models.inputs(model)
        outputs = model(*inputs.args, **inputs.kwargs)
        leaves = (x for x in tree_leaves(outputs) if isinstance(x, torch.Tensor))
        tensors = [x.as_subclass(torch.Tensor) for x in leaves]
        return [p.detach() for p in model.state_dict().values()] + tensors
