"""The coverage table: one row for each model, as data and as markdown."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

RIGHT, REFUSED, WRONG, FAILED, ABSENT = "right", "refused", "wrong", "failed", "not installed"
OUTCOMES = (RIGHT, REFUSED, WRONG, FAILED, ABSENT)
SHORT, LONG, MANY = 70, 500, 8
"""Characters of a reason in the table and below it; faults that are listed of one model."""
NOISY = 0.1
"""A standard error that is worth showing."""


@dataclass(frozen=True)
class Slope:
    """The power of the width by which something moves, with its standard error over seeds."""

    value: float
    error: float

    def __str__(self) -> str:
        noise = f" ± {self.error:.2f}" if self.error > NOISY else ""
        return "–" if math.isnan(self.value) else f"{self.value:+.2f}{noise}".replace("-", "−")


@dataclass(frozen=True)
class Row:
    """What was found about one model.

    Args:
        outcome: one of :data:`OUTCOMES`.
        parameters: how many numbers the base model has.
        roles, exponents: how many of how many agree with the oracle.
        refusal: why ``parametrize`` refused it, or what went wrong.
        convert: "yes", or why not; nothing where the model is no single file.
        sp, mup: slopes of the output's movement.
        seconds: of the analysis.
        faults: every disagreement, one sentence each.
    """

    name: str
    origin: str
    outcome: str = FAILED
    parameters: int | None = None
    sites: int | None = None
    unresolved: int | None = None
    roles: tuple[int, int] | None = None
    exponents: tuple[int, int] | None = None
    refusal: str = ""
    expected: str = ""
    convert: str = ""
    sp: Slope | None = None
    mup: Slope | None = None
    seconds: float | None = None
    faults: tuple[str, ...] = field(default=())


def row_from(data: dict[str, Any]) -> Row:
    """A row from what ``dataclasses.asdict`` made of it, through JSON."""
    slopes = {k: Slope(**data[k]) if data[k] else None for k in ("sp", "mup")}
    pairs = {k: tuple(data[k]) if data[k] else None for k in ("roles", "exponents")}
    return Row(**{**data, **slopes, **pairs, "faults": tuple(data["faults"])})


def summary(rows: Iterable[Row]) -> str:
    """How many are right, refused and wrong, in one line."""
    counts = Counter(row.outcome for row in rows)
    shown = [o for o in OUTCOMES if counts[o] or o in (RIGHT, REFUSED, WRONG)]
    return " · ".join(f"{counts[o]} {o}" for o in shown)


def document(rows: Sequence[Row], command: str, versions: str) -> str:
    """The whole page."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.origin, []).append(row)
    parts = [_intro(command, versions), f"**{len(rows)} models: {summary(rows)}.**\n"]
    for origin, group in groups.items():
        parts.append(f"## {origin}\n\n{len(group)} models: {summary(group)}.\n\n{_table(group)}")
    for outcome, title in ((WRONG, "Wrong"), (FAILED, "Failed"), (REFUSED, "Refused")):
        found = [row for row in rows if row.outcome == outcome]
        if found:
            parts.append(f"## {title}\n\n" + "\n".join(map(_details, found)) + "\n")
    others = [row for row in rows if row.faults and row.outcome not in (WRONG, FAILED, REFUSED)]
    if others:
        parts.append("## Notes\n\n" + "\n".join(map(_details, others)) + "\n")
    refused = [r for r in rows if r.convert not in ("", "yes") and r.outcome == RIGHT]
    if refused:
        lines = [f"- **{r.name}**: {_short(r.convert, LONG)}" for r in refused]
        title = "## Right in memory, refused by `convert`\n\n"
        parts.append(title + "\n".join(lines) + "\n")
    return "\n".join(parts)


_HEADER = (
    "model", "parameters", "sites", "unresolved", "roles", "exponents", "convert", "SP slope",
    "μP slope", "s",
)  # fmt: skip


def _table(rows: Sequence[Row]) -> str:
    lines = [
        _line(_HEADER),
        _line(["---", *["---:"] * 2, "---", *["---:"] * 2, "---"] + ["---:"] * 3),
    ]
    return "\n".join(lines + [_line(_cells(row)) for row in rows]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: Row) -> list[str]:
    marked = {RIGHT: row.name, WRONG: f"**{row.name}** ✗"}.get(row.outcome, f"{row.name} °")
    convert = row.convert if row.convert in ("", "yes") else "no"
    return [
        marked,
        _count(row.parameters),
        _or_dash(row.sites),
        _unresolved(row),
        _of(row.roles),
        _of(row.exponents),
        convert or "–",
        str(row.sp or "–"),
        str(row.mup or "–"),
        f"{row.seconds:.1f}" if row.seconds is not None else "–",
    ]


def _unresolved(row: Row) -> str:
    if row.refusal:
        return f"{row.outcome}: {_short(row.refusal)}"
    return _or_dash(row.unresolved)


def _count(n: int | None) -> str:
    if n is None:
        return "–"
    return f"{n / 1e6:.2g} M" if n >= 1e6 else f"{n / 1e3:.0f} k" if n >= 1e3 else str(n)


def _or_dash(value: object) -> str:
    return "–" if value is None else str(value)


def _of(pair: tuple[int, int] | None) -> str:
    return "–" if pair is None else f"{pair[0]}/{pair[1]}"


def _short(text: str, most: int = SHORT) -> str:
    first = _clean(text)
    return first if len(first) <= most else first[: most - 1].rsplit(" ", 1)[0] + " …"


def _clean(text: str) -> str:
    """One line that breaks no table and tells no machine's folders."""
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    line = re.sub(r"/\S*/site-packages/", "", line)
    return re.sub(r"/\S*/tests/zoo/", "", line)


def _details(row: Row) -> str:
    lines = []
    if row.refusal:
        known = " (expected)" if row.expected else ""
        lines.append(f"{_short(row.refusal, LONG)}{known}")
    lines += [_clean(f) for f in row.faults[:MANY]]
    if len(row.faults) > MANY:
        lines.append(f"And {len(row.faults) - MANY} more.")
    return f"- **{row.name}**: " + " ".join(lines)


def _intro(command: str, versions: str) -> str:
    return f"""# Coverage

What automup makes of every model of its zoo (`tests/zoo`), measured by

```
{command}
```

with {versions}.
Each model is read by `automup.parametrize` at its base, and then checked by two oracles that share
no code with the analysis.

- **sites, unresolved**: multipliers that the plan has, and what it left open; or why the model was
  refused, said more fully below the tables.
- **roles**: weights with a growing dimension whose role, fan_in and fan_out agree with the first
  oracle, of those that it can count. It reruns every operation of the real model that reads a
  weight, with random positive numbers for the weight and what it meets, and counts through
  autograd how many entries of the weight feed one output coordinate, at two widths
  (`tests/zoo/fans.py`).
- **exponents**: outputs of modules, of those that move, whose movement in training does not depend
  on width in μP (slope between −0.5 and +0.3).
- **SP slope, μP slope**: how the movement of the output after 4 steps of Adam at 2e-3 goes with
  width, as a power: over ×1, ×2, ×4, ×8 of the base (to ×4 where ×8 is large), the mean of
  3 seeds, with its standard error where that is above 0.1. Each coordinate of the output counts by
  what the loss asks of it (`tests/zoo/movement.py` says why). μP is right between −0.3 and +0.2;
  a reading below is taken again over ×4 to ×32, where a transient is flatter and a wrong exponent
  is not, and noted.
- **convert**: whether the file converts, and the converted model is the live one.
- **s**: CPU seconds of `parametrize` and of the plan at 4 times the base.

A model is *right* when all agree, *refused* (°) when automup says by name why it will not do it,
and *wrong* (✗) when anything disagrees: a silent error. *Failed* is an exception that is not a
refusal, or a time-out.
"""
