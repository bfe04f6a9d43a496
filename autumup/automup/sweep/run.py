"""A whole sweep: the constants first, then the grid, each run by whoever is free."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from optuna.storages import BaseStorage

from automup.capture.nested import tensors_of
from automup.guarded import endless
from automup.sweep.claims import PATIENCE, Claims
from automup.sweep.results import SweepResult
from automup.sweep.settings import SETTINGS, Point
from automup.sweep.storage import storing, study_in
from automup.sweep.trial import Trainer
from automup.sweep.tune import Tuned, tune
from automup.sweep.watch import Watch
from automup.sweep.work import key_of, work

Results = dict[Point, float]


def sweep(
    trainer: Trainer,
    about: Mapping[str, Any],
    code: str,
    storage: BaseStorage,
    watch: Watch,
    patience: float = PATIENCE,
) -> SweepResult:
    """Run a sweep, or what is missing of it, and return what it found.

    Args:
        trainer: the model, its data and the settings.
        about: what else is to be said of it in the result: the data's name, the call.
        code: the source text of the model: a sweep of other code is another sweep.
        storage, watch, patience: see :func:`run`.
    """
    study, settings = trainer.study, trainer.settings
    knobs = {f"{m:g}": study.models.scaled_knobs(m) for m in sorted(set(settings.multiples))}
    name = name_of(trainer, code)
    with storing():
        tuned, results = run(trainer, storage, name, watch, patience)
    told = ("optimizer", "options", "steps", "batch_size", "seeds", "last")
    whole = {
        "model": study.name,
        "base": study.base,
        "fixed": study.models.fixed,
        "knobs": knobs,
        "constants": {**trainer.constants, **(tuned.constants if tuned else {})},
        **{name: getattr(settings, name) for name in told},
        **about,
    }
    return SweepResult(whole, results, tuned)


def run(
    trainer: Trainer, storage: BaseStorage, name: str, watch: Watch, patience: float = PATIENCE
) -> tuple[Tuned | None, Results]:
    """Run what is missing of a sweep, together with any process that shares the storage.

    Args:
        trainer: the model, its data and the settings.
        storage: where results are kept.
        name: the study's name; what is in its name must be the same in all its processes.
        watch: who is told how far it is.
        patience: seconds without a sign after which another process counts as dead.
    """
    settings = trainer.settings
    tuned = None
    if settings.tune:
        ranges = [asdict(item) for item in settings.tune]
        where = (min(settings.multiples), settings.seeds, min(settings.lrs), max(settings.lrs))
        about = digest(ranges, where, trainer.constants)
        study = study_in(storage, f"{name}-tune-{about}")
        tuned = tune(study, settings, _at_narrowest(trainer), watch, patience)
    constants = {**trainer.constants, **(tuned.constants if tuned else {})}
    constants = {n: value for n, value in constants.items() if value != 1 or n in SETTINGS}
    trainer = replace(trainer, constants=constants)
    points = settings.points(same_at_base=not constants)
    keys = {key_of(point, constants): point for point in points}
    claims = Claims(study_in(storage, name), patience)
    done = work(claims, keys, trainer.result, watch)
    return tuned, {point: done[key] for key, point in keys.items()}


def _at_narrowest(trainer: Trainer) -> Callable[..., Any]:
    narrowest = min(trainer.settings.multiples)

    def losses(constants: Mapping[str, float], lr: float, seed: int) -> Any:
        tuning = replace(trainer, constants={**trainer.constants, **constants})
        return tuning.losses(Point("mup", narrowest, lr, seed))

    return losses


def name_of(trainer: Trainer, code: str) -> str:
    """The name of the study of a sweep: the model's, and a digest of all that a result depends on.

    The same command finds its study again; another model, other data or other settings of a run
    have another one. Widths, learning rates, seeds and constants are in the keys instead, so a
    grid that is extended runs only what is new.

    Args:
        trainer: the model, its data and the settings.
        code: the source text of the model.
    """
    study, settings = trainer.study, trainer.settings
    batch = next(endless(trainer.data, settings.batch_size, 0))
    shapes = [(w.name, w.shape) for w in study.models.shop(study.base).built.weights]
    about = digest(
        [code, study.base, study.models.fixed, shapes, _digest_of(batch)],
        [settings.steps, settings.batch_size, settings.last],
        [settings.optimizer, settings.options],
    )
    return f"automup-{study.name}-{about}"


def digest(*parts: Any) -> str:
    """Twelve hex digits that stand for these values."""
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _digest_of(batch: Any) -> list[Any]:
    tensors: Sequence[torch.Tensor] = list(tensors_of(batch))
    return [(tuple(t.shape), hashlib.sha256(_bytes_of(t)).hexdigest()) for t in tensors]


def _bytes_of(tensor: torch.Tensor) -> bytes:
    dense = tensor.detach().to_dense().contiguous().reshape(-1)
    return dense.view(torch.uint8).numpy().tobytes()
