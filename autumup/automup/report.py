"""The plan for people and programs: a table, JSON, markdown, HTML.

The JSON is a contract (``as_dict``). The other three render one document, so they cannot differ:
a title and sections of plain cells, in which repeated layers are one row.
"""

from __future__ import annotations

import html
import io
import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
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

_ASCII = str.maketrans({"×": "x", "→": "->", "ε": "eps", "μ": "mu", "·": "*"})

_STYLE = """
.automup { color-scheme: light dark; color: light-dark(#1c1e21, #e3e5e8); margin: 1.5rem;
  background: light-dark(#fff, #16181b); font: 14px/1.5 system-ui, sans-serif; }
.automup table { border-collapse: collapse; }
.automup th, .automup td { text-align: left; vertical-align: top; padding: .25rem .7rem;
  border-bottom: 1px solid light-dark(#dfe2e6, #33373d); white-space: pre-line; }
.automup td:first-child { font-family: ui-monospace, monospace; }
.automup .one { color: light-dark(#a4a9b0, #666c75); }
"""


def as_dict(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> dict[str, Any]:
    """The report as data: the contract of ``explain --format json``.

    Args:
        plan: the plan; its sites and unresolved places are listed after its parameters.
        optimizer: a key of :data:`FAMILY_OF_NAME`.
        decay: "independent" or "coupled", see :func:`automup.rules.multipliers`.

    Raises:
        UsageError: no such optimizer.
    """
    name, family = _family(optimizer)
    return {
        "model": plan.model,
        "base": dict(plan.base),
        "target": dict(plan.target),
        "optimizer": name,
        "family": family,
        "decay": decay,
        "parameters": [_parameter(p, plan.sites, family, decay) for p in plan.parameters],
        "sites": [
            {
                "kind": site.kind,
                "source": site.source,
                "exponents": dict(site.exponents),
                "factor": site.factor,
                "modules": list(site.modules),
                "reason": site.reason,
            }
            for site in plan.sites
        ],
        "unresolved": [
            {"source": u.source, "op": u.op, "reason": u.reason} for u in plan.unresolved
        ],
        "notes": list(plan.notes),
    }


def as_json(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> str:
    """:func:`as_dict` as JSON text."""
    return json.dumps(as_dict(plan, optimizer, decay), indent=2, ensure_ascii=False)


def as_markdown(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> str:
    """The report as GitHub-flavoured markdown; errors as :func:`as_dict`."""
    title, sections = _document(plan, optimizer, decay)
    blocks = [f"# {_md(title)}"]
    for section in sections:
        blocks.append(f"## {_md(section.title)}")
        lines = [[_md(cell) for cell in section.header], ["---"] * len(section.header)]
        lines += [
            ["<br>".join(f"`{part}`" for part in first.split("\n")), *map(_md, rest)]
            for first, *rest in section.rows
        ]
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if plan.notes:
        blocks.append("\n".join(["## Notes", "", *(f"- {_md(note)}" for note in plan.notes)]))
    return "\n\n".join(blocks) + "\n"


def _md(text: str) -> str:
    for special in "\\|*_<`":
        text = text.replace(special, f"\\{special}")
    return text.replace("\n", "<br>")


def as_html(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> str:
    """The report as one self-contained page, light or dark; errors as :func:`as_dict`."""
    title = html.escape(f"automup: {plan.model}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<style>:root { color-scheme: light dark } body { margin: 0; background: Canvas }</style>"
        f"</head><body>{_fragment(plan, optimizer, decay)}</body></html>\n"
    )


def _fragment(plan: Plan, optimizer: str, decay: str) -> str:
    title, sections = _document(plan, optimizer, decay)
    parts = [f'<style>{_STYLE}</style><div class="automup"><h2>{html.escape(title)}</h2>']
    for section in sections:
        lines = [_tags("th", section.header), *(_tags("td", row) for row in section.rows)]
        parts.append(f"<h3>{html.escape(section.title)}</h3><table>{''.join(lines)}</table>")
    if plan.notes:
        items = "".join(f"<li>{html.escape(note)}</li>" for note in plan.notes)
        parts.append(f"<h3>Notes</h3><ul>{items}</ul>")
    return "\n".join(parts) + "</div>"


def _tags(tag: str, cells: Sequence[str]) -> str:
    one = ' class="one"'
    inner = (f"<{tag}{one if c == '1' else ''}>{html.escape(c)}</{tag}>" for c in cells)
    return f"<tr>{''.join(inner)}</tr>"


def as_table(
    plan: Plan,
    optimizer: str = "adamw",
    console: Console | None = None,
    decay: str = "independent",
) -> None:
    """Print the report on a rich console (default: stdout); errors as :func:`as_dict`.

    On a terminal it keeps to the terminal's width; piped, it is at least :data:`WIDTH` wide.
    """
    from rich.console import Console

    console = console or Console()
    width = console.width if console.is_terminal else max(console.width, WIDTH)
    _print(plan, _document(plan, optimizer, decay), console, width)


def _print(
    plan: Plan, document: tuple[str, tuple[Section, ...]], console: Console, width: int
) -> None:
    from rich.text import Text

    title, sections = document
    before = console.width
    widest = max(section.widths()[0] for section in sections)
    console.width = width if console.is_terminal else max(width, widest)
    try:
        console.print(Text(_encodable(title, console), style="bold"))
        for section in sections:
            console.print(Text(f"\n{_encodable(section.title, console)}", style="bold"))
            _print_section(section, console)
        if plan.notes:
            console.print(Text("\nNotes", style="bold"))
        for note in plan.notes:
            console.print(Text(f"- {_encodable(note, console)}"))
    finally:
        console.width = before


def _print_section(section: Section, console: Console) -> None:
    """A table; where its last column would get too narrow, that one goes below it as a list."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    needed, last = section.widths()
    fits = console.width - needed >= min(WHY_WIDTH, last)
    columns = len(section.header) - (0 if fits else 1)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, heading in enumerate(section.header[:columns]):
        wraps = (index == columns - 1) if fits else (index == 0)
        table.add_column(_encodable(heading, console), no_wrap=not wraps, overflow="fold")
    for row in section.rows:
        cells = (_encodable(cell, console) for cell in row[:columns])
        table.add_row(*(Text(cell, style="dim" if cell == "1" else "") for cell in cells))
    console.print(table)
    if not fits:
        for why, rows in groupby(section.rows, key=lambda row: row[-1]):
            names = ", ".join(row[0].replace("\n", " ") for row in rows)
            console.print(Text(_encodable(f"- {names}: {why}", console)))


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

        terminal = sys.stdout is not None and sys.stdout.isatty()
        width = shutil.get_terminal_size((WIDTH, 24)).columns if terminal else WIDTH
        out = io.StringIO()
        console = Console(
            file=out, width=width, color_system=None, force_terminal=terminal, force_jupyter=False
        )
        _print(self.plan, _document(self.plan, self.optimizer, self.decay), console, width)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

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
    name, _ = _family(optimizer)
    return Explanation(plan, name, decay)
