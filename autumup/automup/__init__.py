"""automup: any PyTorch model in the maximal update parametrization.

``parametrize`` in code, ``automup convert | explain`` on the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["AutomupError", "Plan", "Role", "parametrize"]

from automup.errors import AutomupError
from automup.plan import Plan
from automup.rules import Role

if TYPE_CHECKING:
    from automup.api import parametrize


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: the command line must start fast."""
    if name == "parametrize":
        from automup.api import parametrize

        return parametrize
    raise AttributeError(f"module 'automup' has no attribute {name!r}")
