"""From what is on the command line to a model under study."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automup.capture.values import said
from automup.errors import CaptureError, UsageError

if TYPE_CHECKING:
    from automup.capture.load import ModelSource
    from automup.study import Study


def load(spec: str) -> ModelSource:
    """The model file of a ``FILE[:NAME]``; the imports wait until a command needs it."""
    from automup.capture.load import load_model

    return load_model(spec)


def open_model(
    source: ModelSource,
    base: list[str] | None,
    width: str,
    inputs: list[str] | None,
    override: list[str] | None,
    *,
    small: bool = False,
) -> Study:
    """The study that the common options ask for; knobs are discovered where none are named.

    ``small``: at a smaller base, if the user names none, where only ratios matter.
    """
    from automup.capture.given_inputs import parse_inputs
    from automup.capture.knobs import discover
    from automup.capture.values import parse_assignments
    from automup.capture.widths import check_widths
    from automup.converted import converted_fixed, converted_knobs
    from automup.overrides import Overrides
    from automup.study import study_source

    maker = parse_inputs(inputs) if inputs else None
    overrides = Overrides.parse(override or [])
    recorded, given = converted_knobs(source), parse_assignments(base or [])
    names = [n.strip() for n in width.split(",") if n.strip()]
    if recorded and not small:
        _check_recorded(recorded, given, names)
    given = {**recorded, **converted_fixed(source), **given}
    names = names or list(recorded)
    if not names:
        found = discover(source, given, maker)
        names, given = list(found.width), {**found.values, **given}
    values = source.base_values(names, given)
    check_widths({name: values[name] for name in names})
    fixed = {name: value for name, value in values.items() if name not in names}
    knobs = {name: values[name] for name in names}
    if small and not base:
        from automup.check.base import small_base

        knobs = dict(small_base(source.build, knobs, maker, fixed))
    return study_source(source, knobs, fixed, maker, overrides)


def _check_recorded(
    recorded: Mapping[str, Any], given: Mapping[str, Any], names: Sequence[str]
) -> None:
    """A converted file has its base and its knobs in it, and they cannot be changed from here."""
    other = [n for n, value in recorded.items() if given.get(n, value) != value]
    if other or (names and set(names) != set(recorded)):
        raise UsageError(
            f"The file was converted with base {said(recorded)}, which is in its code.",
            fix="Convert the original file again, with the base and the knobs that you want.",
        )


@contextlib.contextmanager
def running_model() -> Iterator[None]:
    """The model's code runs, see :func:`guest_code`; it may not end the program."""
    from automup.capture.guest import guest_code
    from automup.capture.raised import describe, place_of

    try:
        with guest_code():
            yield
    except SystemExit as error:
        raise CaptureError(
            f"The model calls sys.exit({error.code!r}) when it is built or run.",
            where=place_of(error),
            fix="Raise an exception there instead.",
        ) from error
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise CaptureError(
            f"The model raises {describe(error)} when it is built or run.",
            where=place_of(error),
            fix="Derive it from Exception.",
        ) from error


def check_folder(file: Path) -> None:
    """Refuse, before any work is done, a file that cannot be written where it is to be."""
    if file.is_dir():
        raise UsageError(f"{file} is a folder.", fix="Name a file in it.")
    if not file.parent.is_dir():
        raise UsageError(
            "Cannot write there: no such folder.",
            where=str(file.parent),
            fix="Make it, or write somewhere else.",
        )
