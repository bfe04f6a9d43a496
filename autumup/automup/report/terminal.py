"""The report as a table on a terminal, or in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from automup.plan import Plan
from automup.report.document import Section, document_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

#: Width of a table that no terminal limits, and the least width of its last column.
WIDTH, WHY_WIDTH = 120, 28

_ASCII = str.maketrans({"×": "x", "→": "->", "ε": "eps", "μ": "mu", "·": "*"})


def as_table(
    plan: Plan, optimizer: str = "adamw", console: Console | None = None, decay: str = "independent"
) -> None:
    """Print the report on a rich console (default: stdout); errors as :func:`as_dict`.

    On a terminal it keeps to the terminal's width; piped, it is as wide as its names need, and
    at least :data:`WIDTH`.
    """
    from rich.console import Console, Group
    from rich.text import Text

    console = console or Console()
    title, sections = document_of(plan, optimizer, decay)
    before = console.width
    if not console.is_terminal:
        console.width = max(before, WIDTH, *(section.widths()[0] for section in sections))
    try:
        parts: list[RenderableType] = [Text(_encodable(title, console), style="bold")]
        for section in sections:
            parts += [Text(), *_parts(section, console)]
        console.print(_without_trailing_spaces(Group(*parts), console), soft_wrap=True)
    finally:
        console.width = before


def _parts(section: Section, console: Console) -> Iterator[RenderableType]:
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
    yield table
    if below:
        yield Text()
    for why, names in below.items():
        listed = ", ".join(names).replace("\n", " ")
        yield Text(_encodable(f"- {listed}: {why}", console))


def _without_trailing_spaces(part: RenderableType, console: Console) -> Text:
    """What it looks like on this console: a table pads the last cell of every line."""
    from rich.text import Text

    whole = Text.assemble(*((s.text, s.style or "") for s in console.render(part)))
    lines = whole.split("\n")
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _encodable(text: str, console: Console) -> str:
    """The text in characters that the console's encoding has."""
    try:
        text.encode(console.encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(console.encoding, "replace").decode(console.encoding)
    return text
