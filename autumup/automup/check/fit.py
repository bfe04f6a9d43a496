"""Straight lines through log size against log width, with what the seeds say of their slopes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from automup.check.result import Fit

#: Two-sided 95 % quantiles of Student's t by degrees of freedom, 1 to 10; beyond, about the last.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


def fit(widths: Sequence[float], runs: Sequence[Sequence[float]]) -> Fit:
    """The mean over the seeds of each seed's slope; nan where a run has zeros or no numbers.

    Args:
        widths: multiples of the base, at least two.
        runs: sizes by seed and width. Seeds are independent, widths of one seed are not quite:
            so the error comes from the spread of the slopes, not from the residuals.
    """
    slopes = [slope(widths, run) for run in runs]
    mean = sum(slopes) / len(slopes)
    if len(slopes) == 1:
        return Fit(mean, math.nan, -math.inf, math.inf)
    spread = sum((s - mean) ** 2 for s in slopes) / (len(slopes) - 1)
    error = math.sqrt(spread / len(slopes))
    margin = _T[min(len(slopes) - 1, len(_T)) - 1] * error
    return Fit(mean, error, mean - margin, mean + margin)


def slope(widths: Sequence[float], sizes: Sequence[float]) -> float:
    """Least squares of log2 size against log2 width; nan where a size is 0 or infinite."""
    if not all(0 < s < math.inf for s in sizes):
        return math.nan
    x, y = [math.log2(w) for w in widths], [math.log2(s) for s in sizes]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return top / sum((a - mean_x) ** 2 for a in x)
