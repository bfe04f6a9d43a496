"""Marking an expression in a test's source, and making its edit."""

from __future__ import annotations

from automup.edits import Edit, Factor
from automup.facts import Span

HEAD = Factor("k.size(-1)", 32, -0.5)
WIDTH = Factor("x.size(-1)", 256, -1.0)


def span_of(source: str, text: str, nth: int = 0) -> Span:
    """The span of the nth occurrence of a text in the source."""
    at = -1
    for _ in range(nth + 1):
        at = source.index(text, at + 1)
    lines = source[:at].splitlines(keepends=True) or [""]
    ended = source[: at + len(text)].splitlines(keepends=True)

    def corner(lines: list[str]) -> tuple[int, int]:
        if lines[-1].endswith(("\n", "\r")):
            return len(lines) + 1, 0
        return len(lines), len(lines[-1])

    return Span("model.py", *corner(lines), *corner(ended))


def edit_of(
    source: str,
    text: str,
    factor: Factor = HEAD,
    *,
    constant: bool = False,
    tensors: str = "q k v x y w att",
    call: bool = False,
    nth: int = 0,
) -> Edit:
    """An edit of the expression with this text."""
    return Edit(span_of(source, text, nth), factor, constant, frozenset(tensors.split()), call)
