"""A check as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from automup.capture.values import said
from automup.check.result import Check, Finding, Reading, Trained

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 3
"""How many of the places that share a finding are named."""


def verdict(check: Check) -> str:
    """Passed, or the culprit, in one sentence."""
    if check.culprit is None:
        return "pass: all that was measured moves alike at every width"
    return f"fail: {described(check.culprit)}"


def described(finding: Finding, others: Sequence[str] = ()) -> str:
    """A finding, with the further places that it is true of."""
    more = f" and {len(others) - SHOWN + 1} more" if len(others) >= SHOWN else ""
    names = ", ".join((finding.place, *others[: SHOWN - 1])) + more
    where = f" ({finding.source})" if finding.source else ""
    numbers = ""
    if finding.witness != "training" and math.isfinite(finding.measured):
        measured, expected = signed(finding.measured), signed(finding.expected)
        numbers = f": width^{measured}, in μP width^{expected}" if measured != expected else ""
    also = f". {finding.also}" if finding.also else ""
    return f"{names}{where}: {finding.cause}{numbers}{also}"


def grouped(findings: Iterable[Finding]) -> list[tuple[Finding, list[str]]]:
    """Findings that say the same of several places as one, with the other places."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.witness, _kind(finding)), []).append(finding)
    others = ((first, dict.fromkeys(f.place for f in rest)) for first, *rest in groups.values())
    return [(first, [place for place in rest if place != first.place]) for first, rest in others]


def _kind(finding: Finding) -> str:
    if finding.witness == "training":
        return finding.place  # each has its own numbers
    return f"{finding.cause}, {finding.expected:.2f}"


def setting(check: Check) -> str:
    """How it was measured."""
    widths = ", ".join(f"×{w:g}" for w in check.widths)
    return (
        f"{check.model}, base {said(check.base)}, widths {widths}; {check.optimizer}, "
        f"lr {check.lr:g}, {check.steps} steps, {check.seeds} seeds"
    )


def lines(check: Check) -> Iterator[str]:
    """What there is to say beside the verdict."""
    for number, (finding, others) in enumerate(grouped(check.findings)):
        if number:
            yield f"also: {described(finding, others)}"
        elif others:
            yield f"the same: {', '.join(others)}"
    for finding, others in grouped(check.remarks):
        yield f"note: {described(finding, others)}"


# --- the table of exponents -----------------------------------------------------------------------


def header(check: Check) -> list[str]:
    """Place and source, and for each model the exponents of the size at init and of the change."""
    labels = [s.label for s in _subjects(check)]
    cells = (f"{label}: {what}" for label in labels for what in ("init", "change"))
    return ["place", "source", *cells]


def rows(check: Check) -> Iterator[list[str]]:
    """A row for every place, in the order of the dataflow.

    Places that differ in numbers alone (the layers of a stack) share a row, with the exponents that
    are the furthest from 0.
    """
    folded: dict[str, list[str]] = {}
    for name in dict.fromkeys(r.place.name for r in check.trained.readings):
        folded.setdefault(_pattern(name), []).append(name)
    for pattern, names in folded.items():
        source = next(r.place.source for r in check.trained.readings if r.place.name == names[0])
        label = f"{pattern} (×{len(names)})" if len(names) > 1 else names[0]
        cells = [c for s in _subjects(check) for c in _cells(s, names, check.steps)]
        yield [label, source, *cells]


def _subjects(check: Check) -> list[Trained]:
    return [check.trained, *([check.other] if check.other else [])]


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _cells(trained: Trained, names: Sequence[str], steps: int) -> Iterator[str]:
    for what, step in (("size", 0), ("change", steps)):
        readings = [r for n in names if (r := trained.of(n, what, step)) and _is_known(r)]
        worst = max(readings, key=lambda r: abs(r.fit.slope), default=None)
        yield signed(worst.fit.slope) if worst else ""


def signed(value: float) -> str:
    """Two decimals, never -0.00."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _is_known(reading: Reading) -> bool:
    return math.isfinite(reading.fit.slope)


def as_text(check: Check) -> str:
    """The verdict with all findings, without the table."""
    return "\n".join([verdict(check), *lines(check), setting(check)])


def as_table(check: Check, console: Console | None = None) -> None:
    """Print the verdict, the findings and the exponents on a rich console (default: stdout)."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    console.print(Text(verdict(check), style="bold green" if check.passed else "bold red"))
    for line in lines(check):
        console.print(Text(line))
    console.print(Text(setting(check), style="dim"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for index, heading in enumerate(header(check)):
        table.add_column(heading, justify="right" if index > 1 else "left", overflow="fold")
    for row in rows(check):
        table.add_row(*map(Text, row))
    console.print()
    console.print(table)
