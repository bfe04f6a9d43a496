"""The report as markdown and as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

from automup.plan import Plan
from automup.report.document import document_of

_STYLE = """
.automup { color-scheme: light dark; color: light-dark(#1c1e21, #e3e5e8); padding: 1.5rem;
  background: light-dark(#fff, #16181b); font: 14px/1.5 system-ui, sans-serif; }
.automup table { border-collapse: collapse; margin-top: 1.5rem; }
.automup th, .automup td { text-align: left; vertical-align: top; padding: .25rem .7rem;
  border-bottom: 1px solid light-dark(#dfe2e6, #33373d); white-space: pre-line; }
.automup td:first-child { font-family: ui-monospace, monospace; }
.automup .one { color: light-dark(#a4a9b0, #666c75); }
"""


def as_markdown(plan: Plan, optimizer: str = "adamw", decay: str = "independent") -> str:
    """The report as GitHub-flavoured markdown; errors as :func:`as_dict`."""
    title, sections = document_of(plan, optimizer, decay)
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
    title, fragment = html.escape(f"automup: {plan.model}"), as_fragment(plan, optimizer, decay)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<style>:root { color-scheme: light dark } body { margin: 0; background: Canvas }</style>"
        f"</head><body>{fragment}</body></html>\n"
    )


def as_fragment(plan: Plan, optimizer: str, decay: str) -> str:
    """What goes into a page's body: a notebook's output cell, say."""
    title, sections = document_of(plan, optimizer, decay)
    parts = [f'<style>{_STYLE}</style><div class="automup"><strong>{html.escape(title)}</strong>']
    for section in sections:
        lines = [_tags("th", section.header), *(_tags("td", row) for row in section.rows)]
        parts.append(f"<table>{''.join(lines)}</table>")
    return "\n".join(parts) + "</div>"


def _tags(tag: str, cells: Sequence[str]) -> str:
    one = {"1": ' class="one"'}
    inner = (f"<{tag}{one.get(cell, '')}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f"<tr>{''.join(inner)}</tr>"
