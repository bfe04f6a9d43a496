"""What sweep.json holds, read with suspicion: the model that it names is opened and run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from automup.reading import parse, read
from automup.sweep.settings import LEAST, MOST, RESERVED
from automup.sweep.tune import Tuned

if TYPE_CHECKING:
    from automup.api import Mup
    from automup.capture.load import ModelSource

SCHEMA = 1


@dataclass(frozen=True)
class Call:
    """The model that a command line named, and the options that it was opened with."""

    model: str
    base: tuple[str, ...]
    width: str
    input: tuple[str, ...]
    override: tuple[str, ...]
    strict: bool

    def opened(self) -> tuple[ModelSource, Mup]:
        """The model's file and the model in muP; its code is run."""
        from automup.api import Mup
        from automup.cli.models import load, open_model
        from automup.converted import check_without_constants, original_of

        source = load(self.model)
        check_without_constants(source)
        source = original_of(source)
        base, inputs, override = map(list, (self.base, self.input, self.override))
        study = open_model(source, base, self.width, inputs, override)
        return source, Mup(study, lambda **knobs: study.models.drawn(knobs), strict=self.strict)


@dataclass(frozen=True)
class _About:
    model: str
    base: Mapping[str, Any]
    fixed: Mapping[str, Any]
    knobs: Mapping[str, Mapping[str, Any]]
    constants: Mapping[str, float]
    optimizer: str
    options: Mapping[str, Any]
    steps: int
    batch_size: int
    seeds: int
    last: float
    data: str
    call: Call | None = None


@dataclass(frozen=True)
class Record:
    """One run; without a loss it diverged."""

    parametrization: str
    multiple: float
    lr: float
    seed: int
    loss: float | None


@dataclass(frozen=True)
class _Stored:
    about: _About
    tuned: Tuned | None
    runs: tuple[Record, ...]
    widths: Any  # of other programs; made anew here


def records(text: str) -> tuple[dict[str, Any], tuple[Record, ...], Tuned | None]:
    """What a sweep says about itself, its runs, and what it tuned.

    Raises:
        ValueError: the text is no sweep of this schema; says where.
    """
    data = parse(text)
    version = data.pop("automup_sweep", None) if isinstance(data, dict) else None
    if version != SCHEMA or version is True:
        found = "there is none" if version is None else f"it has {str(version)[:20]}"
        raise ValueError(f"automup_sweep must be {SCHEMA}, and {found}")
    stored: _Stored = read(_Stored, data, "")
    for fault in _faults(stored):
        raise ValueError(fault)
    return data["about"], stored.runs, stored.tuned


def _faults(stored: _Stored) -> Iterator[str]:
    for name in RESERVED & stored.about.options.keys():
        yield f"about.options.{name} is no setting"
    grids: dict[tuple[str, float], list[tuple[float, int]]] = {}
    for number, run in enumerate(stored.runs):
        place = f"runs[{number}]"
        if run.parametrization not in ("mup", "sp"):
            yield f"{place}.parametrization is neither mup nor sp"
        if f"{run.multiple:g}" not in stored.about.knobs:
            yield f"{place}.multiple is no width of about.knobs"
        if not LEAST <= run.lr <= MOST:
            yield f"{place}.lr is {run.lr}"
        grids.setdefault((run.parametrization, run.multiple), []).append((run.lr, run.seed))
    if not any(name == "mup" for name, _ in grids):
        yield "it has no runs in muP"
    whole = {(lr, seed) for grid in grids.values() for lr, seed in grid}
    if any(set(grid) != whole or len(grid) != len(whole) for grid in grids.values()):
        yield "its runs are no whole grid of learning rates and seeds"
    if len(whole) != len({lr for lr, _ in whole}) * len({seed for _, seed in whole}):
        yield "its runs are no whole grid of learning rates and seeds"
