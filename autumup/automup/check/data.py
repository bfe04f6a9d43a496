"""A check as plain data, and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from automup.check.result import Check, Reading, Trained


def as_json(check: Check) -> str:
    """The whole check as JSON."""
    return json.dumps(as_dict(check), indent=1, ensure_ascii=False)


def as_dict(check: Check) -> dict[str, Any]:
    """The whole check as plain data; what is not a number is None.

    ``findings`` has the culprit first; ``readings`` has every exponent with its 95 % confidence
    interval, of the model and, in ``other``, of what was measured beside it.
    """
    return {
        "model": check.model,
        "passed": check.passed,
        "optimizer": check.optimizer,
        "lr": check.lr,
        "base": dict(check.base),
        "widths": list(check.widths),
        "seeds": check.seeds,
        "steps": check.steps,
        "findings": [_plain(asdict(f)) for f in check.findings],
        "remarks": [_plain(asdict(f)) for f in check.remarks],
        "readings": _readings(check.trained),
        "other": _readings(check.other) if check.other else [],
    }


def _readings(trained: Trained) -> list[dict[str, Any]]:
    return [{"model": trained.label, **_reading(r)} for r in trained.readings]


def _reading(reading: Reading) -> dict[str, Any]:
    place, fit = reading.place, reading.fit
    numbers = {"exponent": fit.slope, "error": fit.error, "low": fit.low, "high": fit.high}
    return {
        "place": place.name,
        "kind": place.kind,
        "source": place.source,
        "what": reading.what,
        "step": reading.step,
        "values": list(reading.values),
        **_plain(numbers),
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The same with rounded numbers."""
    return {k: _number(v) if isinstance(v, float) else v for k, v in values.items()}


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
