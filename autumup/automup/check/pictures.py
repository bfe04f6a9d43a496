"""The picture of a check: size against width, one line for each place, one panel for each step."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automup.check.result import Check, Reading, Trained
from automup.errors import UsageError
from automup.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""The colour of all text and lines, which a page replaces by its own."""

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "automup",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "axes.titlecolor"), INK),
}


def save_picture(check: Check, path: str | Path) -> None:
    """Write the picture, as PNG or SVG by the file's name.

    Raises:
        UsageError: the file is called otherwise.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise UsageError(f"{path} is neither .png nor .svg.", fix="Name one of them.")
    figure = draw(check)
    drawn = io.BytesIO()
    kind, undated = suffix.lstrip("."), {} if suffix == ".png" else _UNDATED
    figure.savefig(drawn, format=kind, dpi=130, facecolor="white", metadata=undated)
    write_atomically(Path(path), drawn.getvalue())


_UNDATED: dict[str, Any] = {"Date": None, "Creator": None, "Type": None, "Format": None}


def inline_svg(check: Check) -> str:
    """The picture for a page: transparent, in the page's own colour of text, without addresses."""
    figure = draw(check)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata=_UNDATED)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    return svg.replace(INK, "currentColor")


def draw(check: Check) -> Figure:
    """A row of panels for each model: sizes at init, then the change after every step."""
    import matplotlib
    from matplotlib.figure import Figure

    subjects = [check.trained, *([check.other] if check.other else [])]
    panels = [("size", 0), *(("change", step + 1) for step in range(check.steps))]
    height = 2.6 * len(subjects) + 0.7
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(2.5 * len(panels) + 1.2, height), layout="constrained")
        axes = figure.subplots(len(subjects), len(panels), squeeze=False, sharex=True, sharey=True)
        for row, subject in zip(axes, subjects, strict=True):
            for axis, (what, step) in zip(row, panels, strict=True):
                _panel(axis, check, subject, what, step)
            row[0].set_ylabel(f"{subject.label}: mean |entry|")
        _legend(figure, check)
        figure.suptitle(f"{check.model}, {check.optimizer}, lr {check.lr:g}: entry size by width")
    return figure


def _panel(axis: Any, check: Check, subject: Trained, what: str, step: int) -> None:
    """All places of one model after one step."""
    from matplotlib.ticker import NullLocator

    names = list(dict.fromkeys(r.place.name for r in check.trained.readings))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    for index, name in enumerate(names):
        reading = subject.of(name, what, step)
        if reading is not None:
            axis.plot(check.widths, reading.values, **_line(reading, index, len(names)))
    axis.set_xticks(check.widths, [f"×{w:g}" for w in check.widths])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.grid(True, alpha=0.25, linewidth=0.6)
    steps = f"after {step} step{'s' if step > 1 else ''}"
    axis.set_title("size at init" if step == 0 else f"change {steps}")


def _line(reading: Reading, index: int, count: int) -> dict[str, Any]:
    """By what the place is: its colour goes with its position in the dataflow."""
    if reading.place.kind == "output":
        return {"color": "#d1495b", "linewidth": 2.4, "zorder": 3}
    style = (0, (2, 1.5)) if reading.place.kind == "logits" else "solid"
    return {"color": _colour(index, count), "linewidth": 1.1, "linestyle": style}


def _colour(index: int, count: int) -> Any:
    import matplotlib

    return matplotlib.colormaps["viridis"](0.2 + 0.65 * index / max(1, count - 1))


def _legend(figure: Figure, check: Check) -> None:
    """What the lines are; where there are few, each by its name."""
    from matplotlib.lines import Line2D

    readings = {r.place.name: r for r in check.trained.readings}
    names = [n for n, r in readings.items() if r.place.kind != "output"]
    shown = names if len(names) <= 8 else [names[0], names[-1]]
    order = list(readings)
    styles = {n: _line(readings[n], order.index(n), len(order)) for n in shown}
    handles = [Line2D([], [], label=name, **style) for name, style in styles.items()]
    if len(names) > len(shown):
        between = "… in the order of the dataflow …"
        handles.insert(1, Line2D([], [], linestyle="none", label=between))
        handles += _of_kind(readings.values(), "logits", "dashed: logits of attention")
    handles += _of_kind(readings.values(), "output", "model output")
    columns = min(5, len(handles))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def _of_kind(readings: Any, kind: str, label: str) -> list[Any]:
    from matplotlib.lines import Line2D

    found: Sequence[Reading] = [r for r in readings if r.place.kind == kind]
    return [Line2D([], [], label=label, **_line(found[0], 0, 2))] if found else []
