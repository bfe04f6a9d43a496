"""Searching for a program on which automup and the truth differ, and making it small."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from random_blocks import write
from random_check import Choices, as_text, check, program_of, script
from random_program import Draw


class Disagreement(AssertionError):
    """automup and the truth differ about a program; ``choices`` make the smallest one found."""

    def __init__(self, report: str, choices: Choices) -> None:
        super().__init__(report)
        self.choices = choices


@st.composite
def all_choices(draw: Any) -> Choices:
    """The choices that make a program."""
    made: list[list[int]] = []

    def part() -> Draw:
        chosen: list[int] = []
        made.append(chosen)

        def choose(bound: int) -> int:
            chosen.append(draw(st.integers(0, bound - 1)))
            return chosen[-1]

        return choose

    write(part, lambda: draw(st.integers(0, 2)) > 0)
    return tuple(map(tuple, made))


def search(examples: int, start: int, again: str = "") -> None:
    """Check so many random programs.

    Args:
        examples: how many.
        start: the seed that they follow from.
        again: the command that repeats this search.

    Raises:
        Disagreement: with the smallest program found for which a check fails.
    """
    failed: dict[Choices, Exception] = {}

    @seed(start)
    @settings(
        max_examples=examples, deadline=None, database=None, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate,),
    )  # fmt: skip
    @given(all_choices())
    def run(choices: Choices) -> None:
        error = failed.get(choices) or failure(choices)
        if error:
            failed[choices] = error
            raise error

    try:
        run()
    except Exception as error:
        if not failed:
            raise
        choices, cause = shrunk(*failed.popitem())
        raise Disagreement(report(choices, cause, again), choices) from error


def failure(choices: Choices) -> Exception | None:
    """What is wrong with a program, if anything."""
    try:
        check(program_of(choices))
    except Exception as error:
        return error
    return None


PATIENCE = 60.0
"""Seconds for making a failing program smaller."""


def shrunk(choices: Choices, cause: Exception) -> tuple[Choices, Exception]:
    """A smaller program that fails in the same way: fewer blocks, shorter parts, lower choices.

    Hypothesis' own shrinking takes minutes here, as it does not know what the choices mean.
    """
    until, before = time.monotonic() + PATIENCE, None
    while before != choices:
        before = choices
        for move in MOVES:
            place = 0
            while (candidate := move(choices, place)) and time.monotonic() < until:
                error = None if candidate == choices else failure(candidate)
                if type(error) is type(cause):
                    choices, cause = candidate, error
                else:
                    place += 1
    return choices, cause


Move = Callable[[Choices, int], Choices | None]
"""The choices with the part or choice at a place changed; None behind the last one."""


def _without(choices: Choices, place: int) -> Choices | None:
    """Blocks are dropped, the first ones first; one stays."""
    if len(choices) == 3 or place + 1 >= len(choices) - 1:
        return None
    return (*choices[: place + 1], *choices[place + 2 :])


def _kept(share: float) -> Move:
    """A part's last choices become 0; a block stays what it is."""

    def move(choices: Choices, place: int) -> Choices | None:
        if place >= len(choices):
            return None
        part = choices[place]
        return (*choices[:place], part[: max(1, int(len(part) * share))], *choices[place + 1 :])

    return move


def _lowered(lower: Callable[[int], int]) -> Move:
    def move(choices: Choices, place: int) -> Choices | None:
        places = [(i, j) for i, part in enumerate(choices) for j in range(len(part))]
        if place >= len(places):
            return None
        i, j = places[place]
        part = choices[i]
        changed = (*part[:j], lower(part[j]), *part[j + 1 :])
        return (*choices[:i], changed, *choices[i + 1 :])

    return move


MOVES: tuple[Move, ...] = (
    _without, _kept(0.0), _kept(0.5), _kept(0.75), _lowered(lambda choice: 0),
    _lowered(lambda choice: choice // 2),
)  # fmt: skip


def report(choices: Choices, cause: Exception, again: str) -> str:
    """What failed, how to see it again, and the program as a script."""
    return (
        f"{type(cause).__name__}: {cause}\n\n"
        f"this program again: python tests/random_check.py {as_text(choices)}\n"
        + (f"the whole search again: {again}\n" if again else "")
        + f"\n{script(program_of(choices), choices)}"
    )
