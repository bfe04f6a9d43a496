"""How the tables of a converted file are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def quoted(text: str) -> str:
    """A string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def entries(values: Mapping[str, str]) -> list[str]:
    """The entries of a dictionary of code, by name."""
    return [f"{quoted(name)}: {code}" for name, code in values.items()]


def in_line(name: str, items: Iterable[str], brackets: str = "{}") -> str:
    """The assignment of a list or dictionary, on one line."""
    return f"{name} = {brackets[0]}{', '.join(items)}{brackets[1]}\n"


def in_lines(name: str, items: Iterable[str], brackets: str = "{}") -> str:
    """The assignment of a list or dictionary, each item on a line of its own."""
    lines = "".join(f"    {item},\n" for item in items)
    opening = f"{brackets[0]}\n{lines}" if lines else brackets[0]
    return f"{name} = {opening}{brackets[1]}\n"
