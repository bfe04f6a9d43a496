"""One check from the model to the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from automup.capture.graph import readers_of
from automup.capture.values import said
from automup.capture.widths import scaled
from automup.check.audit import Audit, Terms, audit
from automup.check.constants import faults_in_code, findings, gauges
from automup.check.diagram import diagram_of
from automup.check.responses import Responses
from automup.check.result import Check, Trained
from automup.check.training import Knobs, Protocol, Run, Subject, readings, train_all
from automup.check.verdict import Judge, in_order, judged_steps, positions
from automup.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from automup.data import Data
    from automup.plan import Plan
    from automup.study import Study


@dataclass(frozen=True)
class Settings:
    """What the user can choose of a check; ``first`` is the first of its seeds.

    Raises:
        UsageError: a number is out of range.
    """

    lr: float
    widths: tuple[float, ...] = (1, 2, 4, 8)
    seeds: int = 3
    steps: int = 3
    batch_size: int = 16
    first: int = 0

    def __post_init__(self) -> None:
        check_rate(self.lr)
        check_multiples(self.widths)
        for name in ("seeds", "steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}.", fix="It is at least 1.")


def check_rate(lr: float) -> None:
    """Raise UsageError unless it is a learning rate that can move something."""
    if not 0 < lr < math.inf:
        raise UsageError(f"The learning rate is {lr}.", fix="It is a finite number above 0.")


def check_multiples(widths: Sequence[float]) -> None:
    """Raise UsageError unless these are multiples of the base that a slope can be fitted to."""
    if len(set(widths)) < 2 or not all(0 < width < math.inf for width in widths):
        shown = ",".join(f"{width:g}" for width in widths) or "(none)"
        raise UsageError(
            f"The widths {shown} are no multiples to compare.", fix="Pass two or more, as 1,2,4,8."
        )


@dataclass(frozen=True, eq=False)
class Case:
    """A model to check.

    Args:
        study: the study of the very code that is checked, or of the author's model where automup's
            own multipliers are checked.
        plan: its plan at twice the base.
        subject: how it is built and trained.
        terms: how strictly the table is meant.
        audits_code: whether the constants in the code are the user's, and so to be audited.
        other: what to measure beside it.
    """

    study: Study
    plan: Plan
    subject: Subject
    terms: Terms
    audits_code: bool
    other: Subject | None = None


def check(
    case: Case, data: Data, settings: Settings, done: Callable[[], None] = lambda: None
) -> Check:
    """Train, audit, judge. ``done`` is called after every run."""
    widths = settings.widths
    knobs = tuple(knobs_at(case.study, width) for width in widths)
    responses = Responses(case.subject, data, knobs[0], settings.batch_size)
    zeroed = responses.final_readouts(case.plan)
    seeds = range(settings.first, settings.first + settings.seeds)
    protocol = Protocol(knobs, seeds, settings.steps, settings.batch_size, zeroed)
    runs = train_all(case.subject, data, protocol, done)
    _check_finite(runs, knobs)
    trained = readings(case.subject.label, runs, widths)
    audited = _audited(case, runs, widths)
    judge = Judge(trained, case.plan, judged_steps(settings.steps, bool(zeroed)), responses)
    return Check(
        model=case.study.name,
        optimizer=runs[0][0].optimizer,
        lr=settings.lr,
        base=dict(knobs[0]),
        widths=widths,
        seeds=settings.seeds,
        steps=settings.steps,
        findings=in_order(audited.findings, judge.findings(), positions(runs[0][0].places)),
        remarks=audited.remarks,
        trained=trained,
        plan=case.plan,
        diagram=diagram_of(case.study.exploration.reached[0][1].nodes, case.plan),
        other=_beside(case.other, data, protocol, widths, done),
    )


def _check_finite(runs: Sequence[Sequence[Run]], knobs: Sequence[Knobs]) -> None:
    """Raise TrainingError if a run diverged: what is not a number has no slope."""
    for row in runs:
        for run, at in zip(row, knobs, strict=True):
            if not math.isfinite(run.loss):
                raise TrainingError(
                    f"At {said(at)} the loss is {run.loss} after a few steps: there is no slope to "
                    "judge.",
                    fix="Check with a smaller learning rate.",
                )


def knobs_at(study: Study, width: float) -> Knobs:
    """The study's knobs at a multiple of its base."""
    return {name: scaled(value, width) for name, value in study.base.items()}


def _beside(
    other: Subject | None,
    data: Data,
    protocol: Protocol,
    widths: Sequence[float],
    done: Callable[[], None],
) -> Trained | None:
    if other is None:
        return None
    return readings(other.label, train_all(other, data, protocol, done), widths)


def _audited(case: Case, runs: Sequence[Sequence[Run]], widths: Sequence[float]) -> Audit:
    """The audit of weights and groups, and of the code's constants where they are the user's."""
    if not case.audits_code:
        return audit(case.plan, runs, widths, case.terms, {})
    spots = case.study.exponents.spots
    roles = {p.name: p.role for p in case.plan.parameters}
    readers = readers_of(n for _, trace in case.study.exploration.reached for n in trace.nodes)
    factors = {
        name: [(width / widths[0]) ** power for width in widths]
        for name, power in gauges(spots, roles, readers).items()
    }
    found = audit(case.plan, runs, widths, case.terms, factors)
    faults = faults_in_code(spots, roles, readers)
    return replace(found, findings=(*findings(faults), *found.findings))
