"""The picture of a sweep: loss against learning rate, one curve for each width."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from automup.files import write_atomically
from automup.sweep.fit import Curve, mean
from automup.sweep.results import Row, SweepResult
from automup.sweep.table import headline, said

_NAMES = {"mup": "μP: maximal update parametrization", "sp": "SP: standard parametrization"}

#: A loss that spans this factor is shown on a log axis.
_LOG_FROM = 3.0


def picture(result: SweepResult, file: Path) -> None:
    """Draw the sweep into a file; its suffix says what kind.

    SP and muP are side by side on the same axes. A curve is the mean over the seeds, its band
    their range, the dot the fitted optimum; runs that diverged are left out.
    """
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "automup", "svg.fonttype": "none"}):
        figure = _drawn(result)
        kind = file.suffix.lstrip(".")
        drawn = io.BytesIO()
        figure.savefig(
            drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {}
        )
    write_atomically(file, drawn.getvalue())


def _drawn(result: SweepResult) -> Any:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    names = [name for name in ("sp", "mup") if name in result.curves]
    figure = Figure(figsize=(1.2 + 4.2 * len(names), 4.4), layout="constrained")
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        rows = [row for row in result.rows if row.parametrization == name]
        for number, row in enumerate(rows):
            color = colormaps["viridis"](0.9 * number / max(1, len(rows) - 1))
            _curve(axes, result.curves[name][row.multiple], row, color)
        axes.set_title(_NAMES[name], fontsize=11)
        axes.set_xlabel("learning rate")
        axes.set_xscale("log", base=2)
        if not any(math.isfinite(row.optimum.loss) for row in rows):
            lrs = list(result.curves[name][rows[0].multiple])
            axes.set_xlim(min(lrs) / 2, max(lrs) * 2)  # nothing is drawn that could say so
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("training loss")
    low, high = _limits(result)
    if high > _LOG_FROM * low > 0:
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_formatter("{x:g}")
        panels[0].yaxis.set_minor_formatter("")
    panels[0].set_ylim(low, high)
    panels[-1].legend(fontsize=8, frameon=False)
    figure.suptitle(headline(result.about), fontsize=8, color="0.4")
    return figure


def _curve(axes: Any, curve: Curve, row: Row, color: Any) -> None:
    finite = {lr: losses for lr, losses in curve.items() if all(map(math.isfinite, losses))}
    lrs = list(finite)
    means = [mean(losses) for losses in finite.values()]
    axes.plot(lrs, means, color=color, marker=".", markersize=4, linewidth=1.4, label=said(row))
    low, high = [min(v) for v in finite.values()], [max(v) for v in finite.values()]
    axes.fill_between(lrs, low, high, color=color, alpha=0.15, linewidth=0)
    best = row.optimum
    if math.isfinite(best.loss):
        style = {"s": 46, "zorder": 5, "edgecolors": "white", "linewidths": 0.8}
        axes.scatter([2.0**best.log2_lr.value], [best.loss], color=color, **style)


def _limits(result: SweepResult) -> tuple[float, float]:
    """The best loss and the largest within three octaves of an optimum, with some room."""
    near: list[float] = []
    for name, widths in result.curves.items():
        for multiple, curve in widths.items():
            row = next(
                r for r in result.rows if (r.parametrization, r.multiple) == (name, multiple)
            )
            around = (m for lr, m in _means(curve) if abs(math.log2(lr / row.optimum.lr)) <= 3)
            near += [m for m in around if math.isfinite(m)]
    low, high = (min(near), max(near)) if near else (0.0, 1.0)
    room = 0.0 if high > low or low else 1.0
    return low - 0.05 * abs(low) - room, high + 0.05 * abs(high) + room


def _means(curve: Curve) -> list[tuple[float, float]]:
    return [(lr, mean(losses)) for lr, losses in curve.items()]
