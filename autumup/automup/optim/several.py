"""Several optimizers as one, as Muon for matrices with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from automup.errors import UsageError


class Several(torch.optim.Optimizer):
    """Optimizers that step together, each over its own parameters.

    ``param_groups`` and ``state`` are theirs, in order, so schedulers, gradient scalers and
    checkpoints see one optimizer; ``optimizers`` are the parts.
    """

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers
        super().__init__([g for o in optimizers for g in o.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on the very groups and state of the whole."""
        groups = list(self.param_groups)
        for part in self.optimizers:
            part.state = self.state
            count = len(part.param_groups)
            part.param_groups, groups = groups[:count], groups[count:]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of each; the closure runs once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.optimizers:
            part.step()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused once it is made: which of the optimizers is it for?"""
        if len(self.param_groups) == sum(len(part.param_groups) for part in self.optimizers):
            raise UsageError(
                "A group cannot be added to several optimizers at once.",
                fix="Add it to one of .optimizers, before they are put together.",
            )
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()
