"""A check as one page that needs no network: verdict, picture, graph, exponents, explanation."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from automup.check import text
from automup.check.diagram import as_svg
from automup.check.pictures import inline_svg
from automup.check.result import Check
from automup.files import write_atomically
from automup.optimizers import NAMED
from automup.report.markup import as_fragment

_ROLES = ("input", "hidden", "output", "scalar")

_STYLE = """
:root { color-scheme: light dark;
  --ink: light-dark(#1c1e21, #e3e5e8); --paper: light-dark(#fff, #16181b);
  --faint: light-dark(#6b7280, #9aa1ab); --line: light-dark(#dfe2e6, #33373d);
  --pass: light-dark(#1a7f37, #4ac26b); --fail: light-dark(#c1121f, #ff7b72);
  --input: light-dark(#cfe8ff, #17405f); --hidden: light-dark(#e2dcff, #3b2f73);
  --output: light-dark(#ffe0c2, #6b3d12); --scalar: light-dark(#e8eaed, #2e3238); }
body { margin: 0; padding: 2rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
.verdict { border-left: 5px solid; padding: .6rem 1rem; margin: 1rem 0; font-weight: 600; }
.pass { border-color: var(--pass); color: var(--pass); }
.fail { border-color: var(--fail); color: var(--fail); }
.faint { color: var(--faint); } ul { padding-left: 1.2rem; }
.scroll { overflow-x: auto; } .scroll > svg { max-width: none; }
.picture svg { width: 100%; height: auto; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem .8rem .2rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; }
.numbers td:nth-child(n+3), .numbers th:nth-child(n+3) { text-align: right;
  font-variant-numeric: tabular-nums; }
.numbers td:first-child { font-family: ui-monospace, monospace; font-size: .9em; }
.edge { fill: none; stroke: var(--faint); stroke-width: 1.3; }
.role rect { stroke: var(--line); stroke-width: 1; }
.role text { fill: var(--ink); font-size: 13px; }
.role .small { fill: var(--faint); font-size: 11.5px; }
.input rect { fill: var(--input); } .hidden rect { fill: var(--hidden); }
.output rect { fill: var(--output); } .scalar rect { fill: var(--scalar); }
.none rect { fill: none; stroke-dasharray: 4 3; }
.off rect { stroke: var(--fail); stroke-width: 2.5; }
.key { display: inline-block; width: .9rem; height: .9rem; margin: 0 .3rem 0 1rem;
  border: 1px solid var(--line); border-radius: 3px; vertical-align: -2px; }
.automup { padding: 0 !important; background: none !important; }
"""


def save_page(check: Check, path: str | Path) -> None:
    """Write the page, atomically."""
    write_atomically(Path(path), as_page(check))


def as_page(check: Check) -> str:
    """The page: HTML in the reader's colours, light or dark, with inline SVG."""
    name = html.escape(check.model)
    sections = [
        _verdict(check),
        _section("Entry size by width", f'<div class="picture">{inline_svg(check)}</div>'),
        _section("Exponents", _PREFACE + _table(text.header(check), text.rows(check))),
        _section("Model", _diagram(check)),
        _section("What μP does", _explained(check)),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{name}: check</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )


_PREFACE = (
    '<p class="faint">Size and change since the start go as width to these powers; in μP 0. '
    "Logits of attention and the output may fall as width^-0.5 at init.</p>"
)


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}"


def _verdict(check: Check) -> str:
    state = "pass" if check.passed else "fail"
    items = "".join(f"<li>{html.escape(line)}</li>" for line in text.lines(check))
    return (
        f"<h1>{html.escape(check.model)}: coordinate check</h1>"
        f'<div class="faint">{html.escape(text.setting(check))}</div>'
        f'<div class="verdict {state}">{html.escape(text.verdict(check))}</div>'
        + (f"<ul>{items}</ul>" if items else "")
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row("th", header), *(_row("td", row) for row in rows)]
    return f'<div class="scroll"><table class="numbers">{"".join(lines)}</table></div>'


def _row(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _diagram(check: Check) -> str:
    keys = "".join(
        f'<span class="key" style="background: var(--{role})"></span>{role}' for role in _ROLES
    )
    svg = as_svg(check.diagram, [f.place for f in check.findings])
    return f'<div class="faint">by role:{keys}</div><div class="scroll">{svg}</div>'


def _explained(check: Check) -> str:
    known = check.optimizer.lower()
    optimizer = known if known in NAMED else "adamw"
    return f'<div class="scroll">{as_fragment(check.plan, optimizer, "independent")}</div>'
