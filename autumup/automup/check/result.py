"""What a check finds: places, fits and findings, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from automup.check.diagram import Diagram
    from automup.plan import Plan


@dataclass(frozen=True)
class Place:
    """Something that the forward pass computes.

    ``kind``: "module" (what a module returns), "logits" (what goes into a softmax) or "output"
    (what the model returns). ``source`` is where the user's code calls it, ``file:line``.
    """

    name: str
    kind: str
    source: str = ""


@dataclass(frozen=True)
class Fit:
    """log size = slope * log width + constant.

    ``error``: the standard error of the slope over the seeds; ``low`` and ``high``: its 95 %
    confidence interval by Student's t.
    """

    slope: float
    error: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.slope:+.2f} ± {self.error:.2f}"


@dataclass(frozen=True)
class Reading:
    """How one quantity of a place grows with width.

    ``what``: "size" or "change" (since init); ``step``: after how many steps; ``values``: by
    width, the mean over the seeds.
    """

    place: Place
    what: str
    step: int
    values: tuple[float, ...]
    fit: Fit


@dataclass(frozen=True)
class Finding:
    """Something that is not as muP asks.

    ``place`` is a parameter, a module, attention logits or a line; ``witness`` how it was found:
    "optimizer", "init", "code" or "training"; ``measured`` and ``expected`` are exponents of the
    width; ``also`` is what else shows it.
    """

    place: str
    source: str
    witness: str
    measured: float
    expected: float
    cause: str
    also: str = ""


@dataclass(frozen=True)
class Trained:
    """What training showed of one subject: every reading, in the order of the dataflow."""

    label: str
    readings: tuple[Reading, ...]

    def of(self, place: str, what: str, step: int) -> Reading | None:
        """One reading, if it was taken."""
        found = (r for r in self.readings if (r.place.name, r.what, r.step) == (place, what, step))
        return next(found, None)


@dataclass(frozen=True)
class Check:
    """The result of a coordinate check.

    ``widths`` are multiples of ``base``; ``findings`` has the culprit first and is empty if and
    only if the check passed; ``remarks`` are deviations from the table that do no harm; ``other``
    is what was measured beside it (the model in SP); ``plan`` is that at twice the base.
    """

    model: str
    optimizer: str
    lr: float
    base: Mapping[str, object]
    widths: tuple[float, ...]
    seeds: int
    steps: int
    findings: tuple[Finding, ...]
    remarks: tuple[Finding, ...]
    trained: Trained
    plan: Plan
    diagram: Diagram
    other: Trained | None = None

    @property
    def passed(self) -> bool:
        return not self.findings

    @property
    def culprit(self) -> Finding | None:
        """The earliest place in the dataflow that is off."""
        return self.findings[0] if self.findings else None

    def __str__(self) -> str:
        from automup.check.text import as_text

        return as_text(self)

    def to_json(self) -> str:
        """Everything that was measured; see :func:`automup.check.data.as_dict`."""
        from automup.check.data import as_json

        return as_json(self)

    def plot(self, path: str | Path) -> None:
        """Write the picture as .png or .svg: size against width, by place and step."""
        from automup.check.pictures import save_picture

        save_picture(self, path)

    def save_html(self, path: str | Path) -> None:
        """Write one page with all there is: verdict, picture, exponents, model graph, plan."""
        from automup.check.page import save_page

        save_page(self, path)
