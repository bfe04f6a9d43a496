"""automup: any PyTorch model in the maximal update parametrization.

``parametrize`` in code, ``automup convert | explain | check`` on the command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AutomupError",
    "Constants",
    "Fans",
    "Plan",
    "Role",
    "Transfer",
    "op",
    "parametrize",
    "register_op",
]

from automup.constants import Constants
from automup.errors import AutomupError
from automup.plan import Plan
from automup.rules import Role

if TYPE_CHECKING:
    from automup import op
    from automup.analysis.ops.custom import register_op
    from automup.api import parametrize
    from automup.overrides import Fans
    from automup.sweep.transfer import Transfer

_LATER = {
    "Transfer": "automup.sweep.transfer",
    "Fans": "automup.overrides",
    "parametrize": "automup.api",
    "register_op": "automup.analysis.ops.custom",
}


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for: the command line must start fast."""
    if name == "op":
        return import_module("automup.op")
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'automup' has no attribute {name!r}")
