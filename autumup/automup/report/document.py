"""The document that the table, markdown and HTML all render, so that they cannot differ.

It is a title and sections of plain cells, in which repeated layers are one row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from automup.facts import Site
from automup.plan import Plan
from automup.refusals import grouped
from automup.report.data import as_dict

Cells = tuple[str, ...]
"""One row of a section, without its name."""

Row = TypeVar("Row", bound=tuple[Any, ...])


@dataclass(frozen=True)
class Section:
    """A table of text. The last column is prose, which may wrap; the others never do."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def widths(self) -> tuple[int, int]:
        """Characters that the other columns need, gaps included, and those that the last does."""
        columns = list(zip(self.header, *self.rows, strict=True))
        longest = [max(len(line) for cell in c for line in cell.split("\n")) for c in columns]
        return sum(longest[:-1]) + 2 * (len(longest) - 1), longest[-1]


def document_of(plan: Plan, optimizer: str, decay: str) -> tuple[str, list[Section]]:
    """The title, then what there is of parameters, sites, unresolved places and notes."""
    data = as_dict(plan, optimizer, decay)
    title = (
        f"{plan.model} in μP: base {_knobs(plan.base)} → target {_knobs(plan.target)}; "
        f"{data['optimizer']} ({data['family']} family), {decay} decay"
    )
    if plan.constants.changed:
        title += f"; {_knobs(plan.constants.changed)}"
    if plan.form != "default":
        title += f"; form {plan.form}"
    rows = fold([(p["names"], _cells(p, plan)) for p in data["parameters"]])
    sites = [(s.kind, s.source, _formula(s), _modules(s, plan), s.reason) for s in plan.sites]
    header = "parameter|role|fan_in → fan_out|init|lr|decay|ε|mult|why"
    sections = [
        Section(tuple(header.split("|")), tuple((name, *cells) for name, cells in rows)),
        Section(("site", "source", "factor (size / base)", "modules", "why"), tuple(sites)),
        Section(
            ("unresolved", "source", "why"),
            tuple((g.item.op, g.item.source, g.reason) for g in grouped(plan.unresolved)),
        ),
        Section(("notes",), tuple((note,) for note in plan.notes)),
    ]
    return title, [section for section in sections if section.rows]


def _knobs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{knob}={value:g}" if isinstance(value, float) else f"{knob}={value}"
        for knob, value in values.items()
    )


def _cells(p: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    ratios = plan.parameter(p["name"]).ratios
    fans = ((p["fan_in"], ratios.fan_in), (p["fan_out"], ratios.fan_out))
    sizes = (f"{fan}" if ratio == 1 else f"{fan} {_times(ratio)}" for fan, ratio in fans)
    keys = ("init_mult", "lr_mult", "wd_mult", "eps_mult", "multiplier")
    why = f"{p['reason']} ({p['source']})" if p["source"] else p["reason"]
    init, *factors = (_times(p[key]) for key in keys)
    role = p["role"]
    if "parts" in p:
        role = _each(part["role"] for part in p["parts"])
        init = _each(_times(part["init_mult"]) for part in p["parts"])
        rows = _few(["{}:{}".format(*part["rows"]) for part in p["parts"]], ", ")
        why = f"fused, cut into rows {rows}; {why}"
    return role, " → ".join(sizes), init, *factors, why


def _each(values: Iterable[str]) -> str:
    """The values of a fused weight's parts: one for neighbours that share it."""
    return _few([value for value, _ in groupby(values)], " | ")


def _few(values: Sequence[str], between: str) -> str:
    """The first four of many."""
    return between.join([*values[:4], *(["…"] if len(values) > 4 else [])])


def _number(value: float) -> str:
    text = f"{value:.4g}"
    return f"{value:.0f}" if "e+" in text else text


def _times(factor: float) -> str:
    return "1" if factor == 1 else f"×{_number(factor)}"


def _formula(site: Site) -> str:
    """Such as ``(n_embd/4)^-0.5 = 0.5``: each axis stands for its size / its size at the base."""
    axes = ((a if a.isidentifier() else f"({a})", e) for a, e in site.exponents if e)
    powers = " · ".join(f"{axis}^{exponent:g}" for axis, exponent in axes)
    constant = f"{_number(site.constant)} · " if site.constant != 1 else ""
    value = _number(site.factor)
    return f"{constant}{powers} = {value}" if powers else value


def _modules(site: Site, plan: Plan) -> str:
    return "\n".join(name for name, _ in fold([([m or plan.model], ()) for m in site.modules]))


def fold(rows: Iterable[tuple[Sequence[str], Row]]) -> list[tuple[str, Row]]:
    """Rows that are equal but for the numbers in their names' paths, as one row each.

    Args:
        rows: (names, cells), names[1:] being the names that are tied to the first.
    """
    found: dict[tuple[str, int, Row], list[Sequence[str]]] = {}
    for names, cells in rows:
        found.setdefault((_pattern(names[0]), len(names), cells), []).append(names)
    same_pattern = Counter(pattern for pattern, _, _ in found)
    folded = []
    for (pattern, _, cells), members in found.items():
        lines = [_label([names[0] for names in members], whole=same_pattern[pattern] == 1)]
        tied = [([name], ()) for names in members for name in names[1:]]
        lines += [f"= {name}" for name, _ in fold(tied)]
        folded.append(("\n".join(lines), cells))
    return folded


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _label(names: Sequence[str], whole: bool) -> str:
    """``h.*.w (×12)``, or ``h.{1-11}.w (×11)`` where the rest of the layers are other rows."""
    if len(names) == 1:
        return names[0]
    parts = []
    for column in zip(*(name.split(".") for name in names), strict=True):
        varies = len(set(column)) > 1
        parts.append(column[0] if not varies else "*" if whole else f"{{{_ranges(column)}}}")
    return f"{'.'.join(parts)} (×{len(names)})"


def _ranges(numbers: Iterable[str]) -> str:
    """1, 2, 3, 7 as ``1-3,7``."""
    runs = groupby(enumerate(sorted(set(map(int, numbers)))), key=lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in ends)
