"""The plan for people and programs: a table, JSON, markdown, HTML.

The JSON is a contract (:func:`as_dict`). The other three render one document, so they cannot
differ: a title and sections of plain cells, in which repeated layers are one row.
"""

from __future__ import annotations

import html
import io
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from automup.errors import UsageError
from automup.plan import Parameter, Plan, Site
from automup.rules import multipliers

if TYPE_CHECKING:
    from rich.console import Console

#: The family of each optimizer that a report can be for, by name (as ``optim.OPTIMIZERS``).
FAMILY_OF_NAME = {"adamw": "adam", "adam": "adam", "sgd": "sgd"}

#: Width of a table that no terminal limits, and the least width of its last column.
WIDTH, WHY_WIDTH = 120, 28

_Cells = tuple[str, ...]

_ASCII = str.maketrans({"×": "x", "→": "->", "ε": "eps", "μ": "mu", "·": "*"})

_STYLE = """
.automup { color-scheme: light dark; color: light-dark(#1c1e21, #e3e5e8); padding: 1.5rem;
  background: light-dark(#fff, #16181b); font: 14px/1.5 system-ui, sans-serif; }
.automup table { border-collapse: collapse; margin-top: 1.5rem; }
.automup th, .automup td { text-align: left; vertical-align: top; padding: .25rem .7rem;
  border-bottom: 1px solid light-dark(#dfe2e6, #33373d); white-space: pre-line; }
.automup td:first-child { font-family: ui-monospace, monospace; }
.automup .one { color: light-dark(#a4a9b0, #666c75); }
"""


def as_dict(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> dict[str, Any]:
    """The report as data: the contract of ``explain --format json``.

    Args:
        plan: the plan; its sites and unresolved places are listed after its parameters.
        optimizer: a key of :data:`FAMILY_OF_NAME`, in any case.
        decay: "independent" or "coupled", see :func:`automup.rules.multipliers`.

    Raises:
        UsageError: no such optimizer.
    """
    family = family_of(optimizer)
    return {
        "model": plan.model,
        "base": dict(plan.base),
        "target": dict(plan.target),
        "optimizer": optimizer.lower(),
        "family": family,
        "decay": decay,
        "parameters": [_parameter(p, plan.sites, family, decay) for p in plan.parameters],
        "sites": [
            _picked(s, "kind source exponents factor modules reason")
            | {"exponents": dict(s.exponents)}
            for s in plan.sites
        ],
        "unresolved": [_picked(u, "source op reason") for u in plan.unresolved],
        "notes": list(plan.notes),
    }


def _picked(fact: Any, keys: str) -> dict[str, Any]:
    values = {key: getattr(fact, key) for key in keys.split()}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def family_of(optimizer: str) -> str:
    family = FAMILY_OF_NAME.get(optimizer.lower())
    if family is None:
        known = ", ".join(FAMILY_OF_NAME)
        raise UsageError(f"There is no optimizer {optimizer!r}.", fix=f"Known: {known}.")
    return family


def _parameter(p: Parameter, sites: Iterable[Site], family: str, decay: str) -> dict[str, Any]:
    """One parameter's entry. A weight that several sites read has one multiplier: each use's."""
    factors = multipliers(family, p.ratios, decay=decay)
    sizes = "name names shape base_shape role fan_in fan_out base_fan_in base_fan_out"
    return {
        **_picked(p, f"{sizes} init_std init_mult"),
        "role": str(p.role),
        "lr_mult": factors.lr,
        "wd_mult": factors.weight_decay,
        "eps_mult": factors.eps if family == "adam" else 1.0,
        "multiplier": next((s.factor for s in sites if s.parameter in p.names), 1.0),
        **_picked(p, "reason source"),
    }


@dataclass(frozen=True)
class _Section:
    """A table of text. The last column is prose, which may wrap; the others never do."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def widths(self) -> tuple[int, int]:
        """Characters that the other columns need, gaps included, and those that the last does."""
        columns = list(zip(self.header, *self.rows, strict=True))
        longest = [max(len(line) for cell in c for line in cell.split("\n")) for c in columns]
        return sum(longest[:-1]) + 2 * (len(longest) - 1), longest[-1]


def _document(plan: Plan, optimizer: str, decay: str) -> tuple[str, list[_Section]]:
    """The title, then what there is of parameters, sites, unresolved places and notes."""
    data = as_dict(plan, optimizer, decay)
    title = (
        f"{plan.model} in μP: base {_knobs(plan.base)} → target {_knobs(plan.target)}; "
        f"{data['optimizer']} ({data['family']} family), {decay} decay"
    )
    fold = _fold([(p["names"], _cells(p, plan)) for p in data["parameters"]])
    sites = [(s.kind, s.source, _formula(s), _modules(s, plan), s.reason) for s in plan.sites]
    header = "parameter|role|fan_in → fan_out|init|lr|decay|ε|mult|why"
    sections = [
        _Section(tuple(header.split("|")), tuple((name, *cells) for name, cells in fold)),
        _Section(("site", "source", "factor (size / base)", "modules", "why"), tuple(sites)),
        _Section(
            ("unresolved", "source", "why"),
            tuple((u.op, u.source, u.reason) for u in plan.unresolved),
        ),
        _Section(("notes",), tuple((note,) for note in plan.notes)),
    ]
    return title, [section for section in sections if section.rows]


def _knobs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{knob}={value}" for knob, value in values.items())


def _cells(p: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    ratios = plan.parameter(p["name"]).ratios
    fans = ((p["fan_in"], ratios.fan_in), (p["fan_out"], ratios.fan_out))
    sizes = (f"{fan}" if ratio == 1 else f"{fan} {_times(ratio)}" for fan, ratio in fans)
    keys = ("init_mult", "lr_mult", "wd_mult", "eps_mult", "multiplier")
    why = f"{p['reason']} ({p['source']})" if p["source"] else p["reason"]
    return p["role"], " → ".join(sizes), *(_times(p[key]) for key in keys), why


def _number(value: float) -> str:
    text = f"{value:.4g}"
    return f"{value:.0f}" if "e+" in text else text


def _times(factor: float) -> str:
    return "1" if factor == 1 else f"×{_number(factor)}"


def _formula(site: Site) -> str:
    """Such as ``(n_embd/4)^-0.5 = 0.5``: each axis stands for its size / its size at the base."""
    axes = ((a if a.isidentifier() else f"({a})", e) for a, e in site.exponents if e)
    powers = " · ".join(f"{axis}^{exponent:g}" for axis, exponent in axes)
    return f"{powers} = {_number(site.factor)}" if powers else _number(site.factor)


def _modules(site: Site, plan: Plan) -> str:
    return "\n".join(name for name, _ in _fold([([m or plan.model], ()) for m in site.modules]))


def _fold(rows: Iterable[tuple[Sequence[str], _Cells]]) -> list[tuple[str, _Cells]]:
    """Rows that are equal but for the numbers in their names' paths, as one row each.

    Args:
        rows: (names, cells), names[1:] being the names that are tied to the first.
    """
    found: dict[tuple[str, int, _Cells], list[Sequence[str]]] = {}
    for names, cells in rows:
        found.setdefault((_pattern(names[0]), len(names), cells), []).append(names)
    same_pattern = Counter(pattern for pattern, _, _ in found)
    folded = []
    for (pattern, _, cells), members in found.items():
        lines = [_label([names[0] for names in members], whole=same_pattern[pattern] == 1)]
        tied = [([name], ()) for names in members for name in names[1:]]
        lines += [f"= {name}" for name, _ in _fold(tied)]
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


def as_json(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> str:
    """:func:`as_dict` as JSON text."""
    return json.dumps(as_dict(plan, optimizer, decay), indent=2, ensure_ascii=False)


def as_markdown(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> str:
    """The report as GitHub-flavoured markdown; errors as :func:`as_dict`."""
    title, sections = _document(plan, optimizer, decay)
    blocks = [f"**{_md(title)}**"]
    for section in sections:
        lines = [map(_md, section.header), ["---"] * len(section.header)]
        for first, *rest in section.rows:
            code = "<br>".join(f"`{name}`" for name in first.split("\n"))
            lines.append([code if rest else _md(first), *map(_md, rest)])
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(blocks) + "\n"


def _md(text: str) -> str:
    for special in "\\|*_<`":
        text = text.replace(special, f"\\{special}")
    return text.replace("\n", "<br>")


def as_html(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> str:
    """The report as one self-contained page, light or dark; errors as :func:`as_dict`."""
    title, fragment = html.escape(f"automup: {plan.model}"), _fragment(plan, optimizer, decay)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<style>:root { color-scheme: light dark } body { margin: 0; background: Canvas }</style>"
        f"</head><body>{fragment}</body></html>\n"
    )


def _fragment(plan: Plan, optimizer: str, decay: str) -> str:
    title, sections = _document(plan, optimizer, decay)
    parts = [f'<style>{_STYLE}</style><div class="automup"><strong>{html.escape(title)}</strong>']
    for section in sections:
        lines = [_tags("th", section.header), *(_tags("td", row) for row in section.rows)]
        parts.append(f"<table>{''.join(lines)}</table>")
    return "\n".join(parts) + "</div>"


def _tags(tag: str, cells: Sequence[str]) -> str:
    one = {"1": ' class="one"'}
    inner = (f"<{tag}{one.get(cell, '')}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{''.join(inner)}</tr>"


def as_table(
    plan: Plan, optimizer: str = "adamw", console: Console | None = None, decay: str = "independent"
) -> None:
    """Print the report on a rich console (default: stdout); errors as :func:`as_dict`.

    On a terminal it keeps to the terminal's width; piped, it is as wide as its names need, and
    at least :data:`WIDTH`.
    """
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    title, sections = _document(plan, optimizer, decay)
    before = console.width
    if not console.is_terminal:
        console.width = max(before, WIDTH, *(section.widths()[0] for section in sections))
    try:
        console.print(Text(_encodable(title, console), style="bold"))
        for section in sections:
            console.print()
            _print(section, console)
    finally:
        console.width = before


def _print(section: _Section, console: Console) -> None:
    """A table; where its last column would get too narrow, that one goes below it as a list.

    Where even the names do not fit, they go there too and the table has numbers for them.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    needed, last = section.widths()
    fits = console.width - needed >= min(WHY_WIDTH, last)
    columns = len(section.header) - (not fits)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for index, heading in enumerate(section.header[:columns]):
        wraps = fits and index == columns - 1
        table.add_column(_encodable(heading, console), no_wrap=not wraps, overflow="fold")
    below: dict[str, list[str]] = {}
    for number, (*cells, why) in enumerate(section.rows, 1):
        if needed > console.width:
            below.setdefault(why, []).append(f"[{number}] {cells[0]}")
            cells[0] = f"[{number}]"
        elif not fits:
            below.setdefault(why, []).append(cells[0])
        texts = (_encodable(cell, console) for cell in [*cells, why][:columns])
        table.add_row(*(Text(text, style="dim" if text == "1" else "") for text in texts))
    console.print(table)
    if below:
        console.print()
    for why, names in below.items():
        listed = ", ".join(names).replace("\n", " ")
        console.print(Text(_encodable(f"- {listed}: {why}", console)))


def _encodable(text: str, console: Console) -> str:
    """The text in characters that the console's encoding has."""
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(console.encoding, "replace").decode(console.encoding)
    return text


@dataclass(frozen=True)
class Explanation:
    """A plan's report: prints as a table, shows as HTML in a notebook."""

    plan: Plan
    optimizer: str = "adamw"
    decay: str = "independent"

    def __str__(self) -> str:
        from rich.console import Console

        on_terminal = sys.stdout is not None and sys.stdout.isatty()
        console = Console(
            file=io.StringIO(),
            width=shutil.get_terminal_size((WIDTH, 24)).columns if on_terminal else WIDTH,
            force_terminal=on_terminal,
            color_system=None,
            force_jupyter=False,
        )
        with console.capture() as text:
            as_table(self.plan, self.optimizer, console, self.decay)
        return "\n".join(line.rstrip() for line in text.get().splitlines())

    def _repr_html_(self) -> str:
        return _fragment(self.plan, self.optimizer, self.decay)

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract as data, see :func:`as_dict`."""
        return as_dict(self.plan, self.optimizer, self.decay)

    def to_json(self) -> str:
        """The JSON contract as text."""
        return as_json(self.plan, self.optimizer, self.decay)

    def to_markdown(self) -> str:
        """The report as markdown."""
        return as_markdown(self.plan, self.optimizer, self.decay)


def describe(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> Explanation:
    """What ``mu.explain(width)`` returns; UsageError for an optimizer that it does not know."""
    family_of(optimizer)
    return Explanation(plan, optimizer, decay)
