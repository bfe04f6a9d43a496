"""Search for several arguments at once: change one at a time, keep what gets forward further."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")


def climb(
    count: int, options: Sequence[T], attempt: Callable[[Sequence[T]], Exception | None]
) -> tuple[T, ...] | None:
    """Options for all of ``count`` arguments that forward runs on; None if none are found.

    Trying all combinations of three arguments takes too long; one at a time does not, since what
    runs further before it raises has one argument more that is right.

    Args:
        count: how many arguments; for a single one there is nothing to combine.
        options: what any of them could be, likely ones first.
        attempt: runs forward; what it raised, or None.
    """
    if count < 2 or not options:
        return None
    current, best = [options[0]] * count, (-1, -1)
    for _ in range(count):
        before = best
        for place, option in itertools.product(range(count), options):
            trial = [*current[:place], option, *current[place + 1 :]]
            reached, error = _reach(lambda t=trial: attempt(t))  # type: ignore[misc]
            if error is None:
                return tuple(trial)
            if reached > best:
                best, current = reached, trial
        if best == before:
            break
    return None


def _reach(run: Callable[[], Exception | None]) -> tuple[tuple[int, int], Exception | None]:
    """How many operations ran before one raised, and the line that it got to; what it raised."""
    counter = _Counter()  # type: ignore[no-untyped-call]
    with counter:
        error = run()
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    return (counter.steps, (frames[-1].lineno or 0) if frames else 0), error


class _Counter(TorchDispatchMode):
    steps = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.steps += 1
        return result
