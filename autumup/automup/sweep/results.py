"""What a sweep found: every run, the optimum of each width, its drift, and what drift costs."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from automup.errors import PlanError
from automup.files import write_atomically
from automup.sweep.fit import Curve, Estimate, Optimum, drift, mean, optimum, regret
from automup.sweep.settings import Point
from automup.sweep.stored import SCHEMA, records
from automup.sweep.tune import Tuned

RESULTS = "sweep.json"


@dataclass(frozen=True)
class Row:
    """One width of one parametrization, in the table.

    Args:
        parametrization: "mup" or "sp".
        multiple: the width, as a multiple of the base.
        knobs: the width knobs' values.
        optimum: of its loss curve.
        drift: of the optimum from that of the narrowest width, in octaves.
        transferred: the mean loss at the narrowest width's best learning rate.
        regret: the relative excess of that over the loss at the own best; 0.01 is 1 %.
    """

    parametrization: str
    multiple: float
    knobs: Mapping[str, Any]
    optimum: Optimum
    drift: Estimate
    transferred: float
    regret: float


@dataclass(frozen=True)
class SweepResult:
    """A finished sweep; prints as a table.

    Args:
        about: what was run: the model, its base, the data, the optimizer, steps, seeds, ...
        runs: the result of each run: the mean loss of its last part, infinite if it diverged.
        tuned: the constants and the learning rate tuned at the narrowest width, if any were.
    """

    about: Mapping[str, Any]
    runs: Mapping[Point, float]
    tuned: Tuned | None = None

    @cached_property
    def curves(self) -> dict[str, dict[float, Curve]]:
        """The losses by parametrization, multiple and learning rate, in the order of the seeds.

        Where muP and SP are the same model, the base, its runs count for both.
        """
        found: dict[str, dict[float, dict[float, list[float]]]] = {}
        order = sorted(self.runs, key=lambda p: (p.parametrization, p.multiple, p.lr, p.seed))
        for point in order:
            widths = found.setdefault(point.parametrization, {})
            losses = widths.setdefault(point.multiple, {}).setdefault(point.lr, [])
            losses.append(self.runs[point])
        mup, sp = found["mup"], found.get("sp")
        if sp is not None:
            sp = {multiple: sp.get(multiple, curve) for multiple, curve in mup.items()}
        return {"mup": mup, **({"sp": sp} if sp is not None else {})}  # type: ignore[dict-item]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The table: muP first, each parametrization's widths in order."""
        return tuple(self._row(name, multiple) for name, c in self.curves.items() for multiple in c)

    def _row(self, parametrization: str, multiple: float) -> Row:
        curves = self.curves[parametrization]
        narrow, curve = curves[min(curves)], curves[multiple]
        return Row(
            parametrization,
            multiple,
            self.about["knobs"][f"{multiple:g}"],
            optimum(curve),
            drift(narrow, curve),
            mean(curve[optimum(narrow).lr]),
            regret(narrow, curve),
        )

    def widest(self, parametrization: str) -> Row:
        """The row of the widest model."""
        return [row for row in self.rows if row.parametrization == parametrization][-1]

    def narrowest(self, parametrization: str) -> Row:
        """The row of the narrowest model."""
        return next(row for row in self.rows if row.parametrization == parametrization)

    def __str__(self) -> str:
        from automup.sweep.table import as_text

        return as_text(self)

    # --- files --------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Everything as JSON; infinite and unknown numbers are null."""
        data = {
            "automup_sweep": SCHEMA,
            "about": dict(self.about),
            "tuned": asdict(self.tuned) if self.tuned else None,
            "runs": [asdict(p) | {"loss": loss} for p, loss in self.runs.items()],
            "widths": [asdict(row) for row in self.rows],
        }
        return json.dumps(_finite(data), indent=1, ensure_ascii=False, default=str)

    def to_csv(self) -> str:
        """The runs as CSV; a run that diverged has the loss inf."""
        text = io.StringIO()
        names = list(next(iter(self.about["knobs"].values())))
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["parametrization", "multiple", *names, "lr", "seed", "loss"])
        for p, loss in self.runs.items():
            knobs = self.about["knobs"][f"{p.multiple:g}"]
            values = (knobs[name] for name in names)
            writer.writerow([p.parametrization, f"{p.multiple:g}", *values, p.lr, p.seed, loss])
        return text.getvalue()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write sweep.json, runs.csv, sweep.png and sweep.svg into a folder, made if need be."""
        from automup.sweep.plots import picture

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / RESULTS, self.to_json() + "\n")
        write_atomically(place / "runs.csv", self.to_csv())
        for name in ("sweep.png", "sweep.svg"):
            picture(self, place / name)

    @staticmethod
    def load(folder: str | os.PathLike[str]) -> SweepResult:
        """Read what :meth:`save` wrote.

        Raises:
            PlanError: there is no finished sweep in the folder, or what is there is damaged.
        """
        file = Path(folder, RESULTS)
        try:
            about, stored, tuned = records(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(
                f"No finished sweep: {error.strerror}.",
                where=str(file),
                fix="Pass the folder of --out of `automup sweep`.",
            ) from None
        except ValueError as error:
            said = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
            raise PlanError(
                f"Not a sweep of schema {SCHEMA}: {said}.",
                where=str(file),
                fix="Write it again with the same `automup sweep` command.",
            ) from None
        runs = {
            Point(r.parametrization, r.multiple, r.lr, r.seed): math.inf
            if r.loss is None
            else r.loss
            for r in stored
        }
        return SweepResult(about, runs, tuned)


def _finite(value: Any) -> Any:
    """The same data with null for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
