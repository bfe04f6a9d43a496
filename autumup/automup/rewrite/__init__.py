"""Source text in, muP source text out. Never imports torch, never sees a live model."""

from __future__ import annotations

from automup.rewrite.contents import Contents
from automup.rewrite.edit import edit_sites
from automup.rewrite.generate import convert_source
from automup.rewrite.overridden import overridden_lines
from automup.rewrite.places import function_at
from automup.rewrite.twins import Place, Unrun, find_unrun

__all__ = [
    "Contents",
    "Place",
    "Unrun",
    "convert_source",
    "edit_sites",
    "find_unrun",
    "function_at",
    "overridden_lines",
]
