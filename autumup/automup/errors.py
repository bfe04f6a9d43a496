"""The errors that automup shows its users: what is wrong, where, and what to do about it."""

from __future__ import annotations


class AutomupError(Exception):
    """Base of every error that automup raises on purpose.

    Args:
        what: one sentence that says what is wrong.
        where: ``file:line``, a parameter's path, or nothing.
        fix: what the user can do about it.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(self._message())

    def _message(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f" {self.fix}" if self.fix else ""
        return f"{self.what}{place}{advice}"


class UsageError(AutomupError):
    """The call itself is wrong: a missing file, an unknown option, an output that exists."""


class ModelLoadError(UsageError):
    """The model file cannot be read, imported, or holds no model that can be chosen."""


class KnobError(AutomupError):
    """No width knob was found, or the model cannot be built at a width that it needs."""


class InputError(AutomupError):
    """No example input makes the model's forward run."""


class CaptureError(AutomupError):
    """The model could not be traced, or its traces at two widths do not align."""


class EndlessError(CaptureError):
    """A run of the model that has no end where its weights are not known: a loop on data."""


class UnresolvedError(AutomupError):
    """The analysis met something that it will not guess."""


class TrainingError(AutomupError):
    """The model could not be trained: its batches, its loss or its optimizer failed."""


class PlanError(AutomupError):
    """A plan file is unreadable, or does not fit the model that it is applied to."""


class RewriteError(AutomupError):
    """A multiplier has no safe place in the source, or in the live model."""


class OutputError(AutomupError):
    """A result cannot be written: a full disk, a folder without permission."""
