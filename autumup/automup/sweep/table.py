"""A sweep's result as text."""

from __future__ import annotations

import io
import math
import shutil
import sys
from typing import TYPE_CHECKING, Any

from automup.sweep.fit import Estimate
from automup.sweep.results import Row, SweepResult

if TYPE_CHECKING:
    from rich.console import Console

TITLES = {"mup": "μP", "sp": "SP"}

HEADER = ("", "width", "optimum lr", "drift", "best loss", "at the narrowest's lr")


def as_text(result: SweepResult) -> str:
    """The result as plain text, as wide as the terminal or as it needs."""
    from rich.console import Console

    width = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 120
    console = Console(file=io.StringIO(), width=width, color_system=None, force_jupyter=False)
    with console.capture() as text:
        print_result(result, console)
    return "\n".join(line.rstrip() for line in text.get().rstrip().splitlines())


def print_result(result: SweepResult, console: Console) -> None:
    """Print what was run, the table, and a sentence for each parametrization."""
    from rich import box
    from rich.table import Table

    console.print(headline(result.about), soft_wrap=True, highlight=False)
    if result.tuned is not None:
        console.print(_tuned(result), soft_wrap=True, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for heading in HEADER:
        table.add_column(heading, no_wrap=True)
    last = ""
    for row in result.rows:
        if last and row.parametrization != last:
            table.add_section()
        table.add_row(*_cells(row, first=row.parametrization != last))
        last = row.parametrization
    console.print()
    console.print(table)
    console.print()
    for name in result.curves:
        console.print(_sentence(result, name), soft_wrap=True, highlight=False)


def headline(about: Any) -> str:
    """What was run, in a line."""
    percent = f"{about['last'] * 100:g} %"
    options = "".join(f", {name} {value}" for name, value in about["options"].items())
    return (
        f"{about['model']} on {about['data']}: {about['optimizer']}{options}, {about['steps']} "
        f"steps of batch {about['batch_size']}, {about['seeds']} seed"
        f"{'s' if about['seeds'] > 1 else ''}; loss: mean of the last {percent} of the steps"
    )


def _tuned(result: SweepResult) -> str:
    tuned, row = result.tuned, result.narrowest("mup")
    assert tuned is not None
    values = ", ".join(f"{name} {value:.3g}" for name, value in tuned.constants.items())
    return (
        f"tuned at {said(row)}, {tuned.trials} trials ({tuned.pruned} pruned): {values}, "
        f"lr {power(math.log2(tuned.lr))}; loss {tuned.loss:.4f}"
    )


def _cells(row: Row, first: bool) -> list[str]:
    best = row.optimum
    edge = " (edge)" if best.at_edge else ""
    moves = not (first or math.isnan(row.drift.value))
    return [
        TITLES[row.parametrization] if first else "",
        said(row),
        f"{power(best.log2_lr.value)}{_error(best.log2_lr)}{edge}",
        f"{row.drift.value:+.2f}{_error(row.drift)}" if moves else "",
        loss(best.loss),
        loss(row.transferred) + ("" if row.regret == 0 else f"  (+{percent(row.regret)})"),
    ]


def _sentence(result: SweepResult, parametrization: str) -> str:
    row, narrow = result.widest(parametrization), result.narrowest(parametrization)
    diverged = [r for r in (row, narrow) if math.isinf(r.optimum.loss)]
    if diverged:
        return f"{TITLES[parametrization]}: every run of {said(diverged[0])} diverged"
    return (
        f"{TITLES[parametrization]}: from {said(narrow)} to {said(row)} the optimum moves "
        f"{row.drift.value:+.2f}{_error(row.drift)} octaves; training the widest at the "
        f"narrowest's lr costs {percent(row.regret)}"
    )


def said(row: Row) -> str:
    """A width: its knobs and the multiple."""
    knobs = ", ".join(f"{name}={value}" for name, value in row.knobs.items())
    return f"{knobs} ×{row.multiple:g}"


def power(exponent: float) -> str:
    """A learning rate as a power of two."""
    return "–" if math.isnan(exponent) else f"2^{exponent:.2f}"


def loss(value: float) -> str:
    """Four digits, or that it diverged."""
    return f"{value:.4f}" if math.isfinite(value) else "diverges"


def percent(value: float) -> str:
    """A fraction in per cent."""
    if math.isnan(value):
        return "?"
    return f"{value * 100:.1f} %" if math.isfinite(value) else "everything: it diverges"


def _error(estimate: Estimate) -> str:
    return "" if math.isnan(estimate.error) else f" ± {estimate.error:.2f}"
