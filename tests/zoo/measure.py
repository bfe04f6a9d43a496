"""Everything that the coverage table says of one model."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import automup
from automup.api import Mup
from automup.capture.flex import opened_flex_attention
from automup.capture.given_inputs import as_maker
from automup.capture.load import ModelSource, load_model, load_text
from automup.convert import convert
from automup.errors import AutomupError
from automup.facts import Parameter
from automup.plan import Plan
from automup.study import study_source
from zoo import movement
from zoo.entry import Entry
from zoo.fans import Fans, count_fans
from zoo.recording import call, tensors
from zoo.table import FAILED, REFUSED, RIGHT, WRONG, Row, Slope

OUTPUT_BAND, MODULE_BAND = (-0.3, 0.2), (-0.5, 0.3)
"""Slopes of what moves in a right model: of the output (issue 3), and of modules inside, where a
short run is noisier; every fault of the rules that was tried moved some module out of the latter
(thresholds from 24 MLPs and 12 GPTs, of which none was a false alarm)."""
FIRST, WIDER, LARGE = (1, 2, 4, 8), (4, 8, 16, 32), 2e7
"""Widths, as multiples of the base; and parameters that are too many to train."""


def measure(entry: Entry) -> Row:
    """One row; an exception that is no refusal is a row, too."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    row = Row(entry.name, entry.origin, expected=entry.expects_refusal)
    torch.manual_seed(0)
    try:
        small = entry.at(1)
    except Exception as error:
        return replace(row, refusal=f"its own constructor: {_said(error)}")
    row = replace(row, parameters=sum(p.numel() for p in small.parameters()))
    start, mu = time.process_time(), None
    try:
        mu = automup.parametrize(entry.build, base=dict(entry.base), inputs=entry.inputs())
        plan = mu.plan(**entry.knobs(4))
    except AutomupError as error:
        row = replace(row, outcome=REFUSED, refusal=str(error))
    except Exception as error:
        row = replace(row, outcome=FAILED, refusal=_said(error))
    else:
        row = replace(row, outcome=RIGHT, sites=len(plan.sites), unresolved=len(plan.unresolved))
        row = replace(row, seconds=time.process_time() - start)
        row = _judged(entry, mu, row)
    row = replace(row, seconds=row.seconds or time.process_time() - start)
    return _converted(entry, row, mu if row.outcome in (RIGHT, WRONG) else None)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _judged(entry: Entry, mu: Mup, row: Row) -> Row:
    """The row of a model that was not refused, with what the oracles say."""
    if entry.expects_refusal:
        row = _faulty(row, f"It must be refused: {entry.expects_refusal}.")
    try:
        with opened_flex_attention():  # its kernel has no backward on the CPU; its reference has
            row = _with_roles(entry, mu.plan(**entry.knobs(2)), row)
            return _with_slopes(entry, mu, row)
    except AutomupError as error:
        return replace(row, outcome=REFUSED, refusal=str(error))
    except Exception as error:
        return replace(row, outcome=FAILED, refusal=f"not measured: {_said(error)}")


def _faulty(row: Row, *faults: str) -> Row:
    return replace(row, outcome=WRONG if faults else row.outcome, faults=(*row.faults, *faults))


# --- roles ----------------------------------------------------------------------------------------


def _with_roles(entry: Entry, plan: Plan, row: Row) -> Row:
    """Compare the plan at twice the base with the counts."""
    torch.manual_seed(0)
    counted = count_fans(entry.at(1), entry.at(2), entry.inputs())
    growing = [p for p in plan.parameters if p.shape != p.base_shape]
    known = [p for p in growing if p.name in counted and not counted[p.name].problem]
    faults = [f for p in known for f in disagreements(p, counted[p.name])]
    right = sum(not [*disagreements(p, counted[p.name])] for p in known)
    row = replace(row, roles=(right, len(known)))
    row = _faulty(row, *faults)
    silent = [p for p in growing if p not in known]
    notes = [f"{p.name} was not counted: {_why(counted.get(p.name))}." for p in silent]
    return replace(row, faults=(*row.faults, *notes))


def _why(fans: Fans | None) -> str:
    return fans.problem if fans else "this forward does not read it"


def disagreements(parameter: Parameter, fans: Fans) -> Iterator[str]:
    """What the plan says otherwise than the counts."""
    ratios = parameter.ratios
    ours = parameter.role.value, ratios.fan_in, ratios.fan_out, parameter.fixed
    if parameter.fixed and not fans.fixed:  # what cuts the rows comes after another operation
        whole = math.prod(parameter.shape) / math.prod(parameter.base_shape) / ratios.fan_in
        ours = parameter.role.value, ratios.fan_in, whole, 0
    theirs = fans.role, fans.r_in, fans.r_out, fans.fixed
    close = all(math.isclose(a, b, rel_tol=0.01) for a, b in zip(ours[1:], theirs[1:], strict=True))
    if ours[0] != theirs[0] or not close:
        says = "{} with fan_in ×{:g}, fan_out ×{:g}, {} fixed rows"
        yield (
            f"{parameter.name} is {says.format(*ours)} in the plan; counted {says.format(*theirs)}."
        )


# --- slopes ---------------------------------------------------------------------------------------


def _with_slopes(entry: Entry, mu: Mup, row: Row) -> Row:
    """Train at several widths, SP and muP.

    What the theory says of is the limit. A reading below the band is taken again over the widths
    from 4 times the base on, or after twice the steps where those are too large: what dies out
    with width or with the first steps is flatter there, a wrong exponent is not. One above the
    band is not: what grows too fast saturates, and would be flatter, too.

    A module that moves less in wider models is a note and no fault: attention logits fall as
    width^-1/2 at first, and the probabilities of a softmax over width fall as 1/width for good.
    Too small a rate of its weights shows in the roles and in the output.
    """
    torch.manual_seed(0)
    job = movement.task(entry.at, entry.inputs(), entry.output)
    large = mu.plan(**entry.knobs(2))
    steps = movement.STEPS
    times = FIRST if _size(row, large, FIRST[-1]) < LARGE else FIRST[:-1]
    runs = _runs(entry, mu, job, times, steps)
    up = movement.output_slope(times, runs)
    if up.value < OUTPUT_BAND[0] and _size(row, large, WIDER[-1]) < LARGE:
        before, times = f"{up} over ×{times[0]} to ×{times[-1]}", WIDER
        runs = _runs(entry, mu, job, times, steps)
        up = movement.output_slope(times, runs)
        note = f"Its μP slope is {before}, and {up} over ×{times[0]} to ×{times[-1]}."
        row = replace(row, faults=(*row.faults, note))
    elif up.value < OUTPUT_BAND[0]:
        before, steps = f"{up} after {steps} steps", 2 * steps
        runs = _runs(entry, mu, job, times, steps)
        up = movement.output_slope(times, runs)
        note = f"Its μP slope is {before}, and {up} after {steps}."
        row = replace(row, faults=(*row.faults, note))
    inside = movement.module_slopes(times, runs)
    out = {n: s for n, s in inside.items() if not _near(s, MODULE_BAND)}
    free = [
        n
        for n in out
        if n in _multiplied_later(large) or movement.is_free(mu(**entry.knobs(2)), n, job)
    ]
    inside, out = ({n: s for n, s in d.items() if n not in free} for d in (inside, out))
    sp = movement.output_slope(times, _runs(entry, None, job, times, steps))
    counts = (len(inside) - len(out), len(inside))
    said = {n: f"What {n} returns moves as width^{s}." for n, s in out.items()}
    faults = [text for n, text in said.items() if out[n].value > 0]
    notes = [text for n, text in said.items() if out[n].value < 0]
    row = replace(row, faults=(*row.faults, *notes))
    if math.isnan(sp.value):
        reason = "its movement is not finite in SP either: weights that nobody initialises"
        return replace(row, outcome=FAILED, refusal=reason)
    low, high = OUTPUT_BAND
    loud = movement.amplified(times, lambda k: mu(**entry.knobs(k)), job) if up.value > high else []
    if loud:
        note = f"What {loud[0]} returns is normalised noise at first: its steps grow as width^+1/2."
        row, high = replace(row, faults=(*row.faults, note)), high + 0.5
    if not _inside(up.value, (low, high)):
        faults.append(f"In μP the output moves as width^{up}.")
    return _faulty(replace(row, sp=sp, mup=up, exponents=counts), *faults)


def _multiplied_later(plan: automup.Plan) -> set[str]:
    """The modules of shared weights: their multiplier may stand at a constant behind them."""
    names = [
        n for site in plan.sites if site.parameter for n in plan.parameter(site.parameter).names
    ]
    return {name.rpartition(".")[0] for name in names}


def _runs(
    entry: Entry, mu: Mup | None, job: movement.Task, times: tuple[int, ...], steps: int
) -> list[list[movement.Moved]]:
    """What moved, by seed and width; in SP without ``mu``."""
    seeds = range(movement.SEEDS)
    return [[_moved(entry, mu, job, k, seed, steps) for k in times] for seed in seeds]


def _moved(
    entry: Entry, mu: Mup | None, job: movement.Task, k: int, seed: int, steps: int
) -> movement.Moved:
    torch.manual_seed(seed)
    model = mu(**entry.knobs(k)) if mu else entry.at(k)
    make = mu.optimizer if mu else _adam
    return movement.train(model, lambda m: make(m, torch.optim.Adam, lr=movement.LR), job, steps)


def _adam(model: nn.Module, cls: Any, lr: float) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = cls(model.parameters(), lr=lr)
    return made


def _inside(value: float, band: tuple[float, float]) -> bool:
    return band[0] <= value <= band[1]


def _near(slope: Slope, band: tuple[float, float]) -> bool:
    """Whether a slope is in the band, or would be within twice its error."""
    return band[0] - 2 * slope.error <= slope.value <= band[1] + 2 * slope.error


def _size(row: Row, twice: Plan, times: int) -> float:
    """How many parameters a wider model has, from how their number grows."""
    small = row.parameters or 1
    growth = sum(math.prod(p.shape) for p in twice.parameters) / small
    return small * growth ** math.log2(times)


# --- convert --------------------------------------------------------------------------------------


def _converted(entry: Entry, row: Row, mu: Mup | None) -> Row:
    """The row with what ``automup convert`` does to the model's file."""
    if not entry.path:
        return row
    try:
        source = load_model(entry.path)
        base = entry.fields_of(entry.base)
        values = source.base_values([*base], base)
        fixed = {name: value for name, value in values.items() if name not in base}
        study = study_source(source, base, fixed, as_maker(entry.inputs()))
        text = convert(source, study).text
    except AutomupError as error:
        return replace(row, convert=str(error))
    except Exception as error:
        return replace(row, outcome=FAILED, convert=_said(error), refusal=row.refusal or "convert")
    row = replace(row, convert="yes")
    if mu is None:
        return row
    try:
        return _faulty(row, *_differences(entry, source, text, mu))
    except Exception as error:
        return _faulty(row, f"The converted file does not run: {_said(error)}.")


def _differences(entry: Entry, source: ModelSource, text: str, mu: Mup) -> Iterator[str]:
    """Whether the converted file's model is the live one, at four times the base."""
    beside = source.file.removesuffix(".py") + "_mup.py"  # its own name, for who reads lines
    module = load_text(text, beside)
    made = ModelSource(getattr(module, source.name), module, beside, source.name, text)
    outputs = []
    for build in (lambda **knobs: made.build(entry.fields_of(knobs)), mu):
        torch.manual_seed(0)
        model = build(**entry.knobs(4)).eval()
        with torch.no_grad():
            outputs.append([*tensors(call(model, entry.inputs()))])
    for a, b in zip(*outputs, strict=True):
        if not torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5, equal_nan=True):
            yield "The converted model differs from the live one at four times the base."
            return
