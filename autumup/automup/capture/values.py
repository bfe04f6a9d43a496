"""Values as they are written on the command line: ``n_embd=256,bias=false``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from typing import Any

from automup.errors import UsageError


def parse_value(text: str) -> Any:
    """``4``, ``1e-3``, ``None``, ``true`` or ``(2, 2)``; anything else is a string."""
    word = {"true": "True", "false": "False", "none": "None"}.get(text.strip(), text.strip())
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return text.strip()


def said(values: Mapping[str, Any]) -> str:
    """Knobs and their values as people read them: ``width=256, heads=8``."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def parse_assignments(items: Iterable[str]) -> dict[str, Any]:
    """``["n_embd=256,n_head=4", "bias=false"]`` -> names and values.

    Raises:
        UsageError: an item is not NAME=VALUE, or a name is given twice.
    """
    values: dict[str, Any] = {}
    for item in items:
        for part in re.split(r",(?=\s*[A-Za-z_][\w.]*\s*=)", item):
            name, equals, value = part.partition("=")
            name = name.strip()
            if not equals or not value.strip() or not re.fullmatch(r"[A-Za-z_][\w.]*", name):
                raise UsageError(f"{part!r} is not NAME=VALUE.", fix="Write n_embd=256.")
            if name in values:
                raise UsageError(f"{name} is given twice.", fix="Give each name one value.")
            values[name] = parse_value(value)
    return values
