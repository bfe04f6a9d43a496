"""A sweep from Python: what ``mu.sweep`` does."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automup.data import Data, load_data
from automup.errors import UsageError
from automup.files import make_folder
from automup.sweep.results import SweepResult
from automup.sweep.run import sweep
from automup.sweep.settings import Settings, grid_of, parse_lrs, parse_tune
from automup.sweep.storage import open_storage
from automup.sweep.trial import Trainer, choose_device
from automup.sweep.watch import watching

if TYPE_CHECKING:
    from automup.api import Mup
    from automup.study import Study


def sweep_model(
    mup: Mup,
    study: Study,
    model_fn: Callable[..., Any],
    data: Data | str,
    *,
    widths: Sequence[float] = (1, 2, 4, 8),
    lr: str | Sequence[float] = "",
    tune: Mapping[str, str] | None = None,
    storage: str = "",
    out: str | os.PathLike[str] | None = None,
    device: str = "",
    quiet: bool = False,
    **settings: Any,
) -> SweepResult:
    """Train a model at several widths and learning rates, in SP and in muP.

    Args:
        mup, study, model_fn: the model.
        data: ``text:PATH``, ``digits``, a Python file, or an object with ``batches(batch_size,
            seed)`` and ``loss(model, batch)``; see :class:`automup.data.Data`.
        widths: multiples of the base; every width knob is multiplied.
        lr: the learning rates, or a grid such as ``"2^-12:2^-4"``; nine octaves when left out.
        tune: ranges of constants to tune at the narrowest width first, by name, as on the command
            line: ``{"output_mult": "0.25:16", "output_init": "0,1"}``.
        storage: PostgreSQL's or SQLite's URL, or a journal file, to be shared or resumed; a
            journal file in ``out`` when left out, and memory without either.
        out: a folder to write the results to.
        device: where to train; a GPU if there is one.
        quiet: show no progress.
        settings: the other fields of :class:`automup.sweep.settings.Settings`: ``seeds``,
            ``steps``, ``batch_size``, ``last``, ``optimizer`` (a name), ``options``, ``sp``,
            ``trials``.

    Raises:
        UsageError: a setting is out of range, or the data does not fit the model.
    """
    own = _settings(widths, lr, tune or {}, settings)
    made = load_data(data, study) if isinstance(data, str) else data
    constants = mup.constants.changed
    trainer = Trainer(mup, study, made, own, choose_device(device), constants)
    trainer.rehearse()
    if out is not None:
        make_folder(Path(out))
        storage = storage or str(Path(out, "journal.log"))
    about = {"data": data if isinstance(data, str) else type(data).__name__}
    with watching(quiet) as watch:
        result = sweep(trainer, about, _code(model_fn), open_storage(storage), watch)
    if out is not None:
        result.save(out)
    return result


def _settings(
    widths: Sequence[float],
    lr: str | Sequence[float],
    tune: Mapping[str, str],
    rest: Mapping[str, Any],
) -> Settings:
    if not isinstance(tune, Mapping):
        raise UsageError(
            f"tune is a {type(tune).__name__}.", fix='Pass {"output_mult": "0.25:16"}.'
        )
    known = {f.name for f in fields(Settings)} - {"multiples", "lrs", "tune"}
    for name in rest.keys() - known:
        raise UsageError(f"A sweep takes no {name}.", fix=f"It takes {', '.join(sorted(known))}.")
    grid = lr or grid_of(rest.get("optimizer", "adamw"))
    return Settings(
        multiples=_numbers("widths", widths),
        lrs=parse_lrs(grid) if isinstance(grid, str) else _numbers("lr", grid),
        tune=parse_tune([f"{name}={values}" for name, values in tune.items()]),
        **rest,
    )


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"{name} is {values!r}.", fix=f"Pass several: {name}=({values}, ...).")
    return tuple(values)


def _code(model_fn: Callable[..., Any]) -> str:
    """The source text of the file that defines a model, as far as it is known."""
    try:
        return inspect.getsource(inspect.getmodule(model_fn) or model_fn)
    except (OSError, TypeError):
        return ""
