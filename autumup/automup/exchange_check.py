"""The check of a converted file with a form or constants, beside that of its default form."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from automup.apply import rows_of
from automup.capture.load import ModelSource
from automup.conversion_check import CHECKABLE, drawn_at, loaded, trying
from automup.errors import RewriteError
from automup.exchanging import exchanged_plan
from automup.models import Models
from automup.plan import Plan
from automup.rewrite.exchange import Exchange
from automup.scaled_weights import alike, in_double
from automup.study import Study


def check_exchanged(
    source: ModelSource, study: Study, exchanged: Exchange, plain: str, text: str
) -> None:
    """The file must draw what the plan says, and compute what it computes in the default form.

    A model of more than 16 million parameters is not built for it.

    Args:
        source: the author's file.
        study: the study of its model.
        exchanged: the form and the constants.
        plain: the converted file in the default form, with the constants if the form is another.
        text: the converted file.

    Raises:
        RewriteError: if it does not.
    """
    model = study.models.shop(study.wide).built.model
    if sum(p.numel() for p in model.parameters()) > CHECKABLE:
        return
    plan = exchanged_plan(study, study.wide, exchanged.form, exchanged.constants)
    with trying(source):
        wrong = [f"init of {name}" for name in _misdrawn(source, study, text, plan)]
        if exchanged.form != "default":
            same = _same_function(source, study, (plain, text), plan)
            wrong += [] if same else [_UNLIKE]
    if wrong:
        raise RewriteError(
            f"The converted file is not what was asked for: {'; '.join(wrong)}.",
            where=source.file,
            fix="Please report this as a bug, with the model file.",
        )


_UNLIKE = "its outputs differ from those of the default form"


def _models_of(source: ModelSource, study: Study, text: str) -> Models:
    return Models(loaded(source, text).build, study.base, study.models.inputs, study.models.fixed)


def _misdrawn(source: ModelSource, study: Study, text: str, plan: Plan) -> Iterator[str]:
    """Weights that are not the author's draws times the plan's factors, at the plan's target."""
    author = drawn_at(study.models, plan.target)
    made = drawn_at(_models_of(source, study, text), plan.target)
    for name, weight in author.items():
        for rows, factor in rows_of(weight, plan.parameter(name)):
            rows.mul_(factor)
        if not torch.allclose(weight, made[name], rtol=1e-4, atol=0.0, equal_nan=True):
            yield name


def _same_function(source: ModelSource, study: Study, texts: tuple[str, str], plan: Plan) -> bool:
    """Whether the default form with weights W computes what the other does with W / scale."""
    default, formed = (_drawn(_models_of(source, study, text), plan) for text in texts)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for (name, weight), stored in zip(
            default.named_parameters(), formed.parameters(), strict=True
        ):
            weight.add_(torch.randn_like(weight), alpha=0.1)  # no zeros, which hide a factor
            stored.copy_(weight / plan.scale(plan.parameter(name)))
        args, kwargs = in_double(study.models.inputs(default))
        return alike(default(*args, **kwargs), formed(*args, **kwargs))


def _drawn(models: Models, plan: Plan) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.drawn(plan.target).double().eval()
