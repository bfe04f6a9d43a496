"""The plan for people and programs: a table, JSON, markdown, HTML.

``data`` is the contract with programs; ``document`` is what ``terminal`` and ``markup`` render.
"""

from __future__ import annotations

import io
import shutil
import sys
from dataclasses import dataclass
from typing import Any

from automup.optimizers import named
from automup.plan import Plan
from automup.report.data import as_dict, as_json
from automup.report.markup import as_fragment, as_html, as_markdown
from automup.report.terminal import WIDTH, as_table

__all__ = [
    "WIDTH",
    "Explanation",
    "as_dict",
    "as_html",
    "as_json",
    "as_markdown",
    "as_table",
    "describe",
]


@dataclass(frozen=True)
class Explanation:
    """A plan's report: prints as a table, shows as HTML or markdown in a notebook."""

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
        return text.get().rstrip("\n")

    def _repr_html_(self) -> str:
        return as_fragment(self.plan, self.optimizer, self.decay)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

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
    named(optimizer)
    return Explanation(plan, optimizer, decay)
