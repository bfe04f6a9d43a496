"""One small rule per aten operation: what it does to sizes, to weights' dimensions, to exponents.

A rule takes the walk and the operation and returns the state of the result (a list for several).
The comment above each is its shape algebra.
"""

from automup.analysis.ops import arithmetic, contractions, movement, reductions
from automup.analysis.ops.registry import RULES, fallback_for, unregistered

__all__ = [
    "RULES",
    "arithmetic",
    "contractions",
    "fallback_for",
    "movement",
    "reductions",
    "unregistered",
]
