"""What is written on the command line, as the runs of a sweep."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from automup.errors import UsageError
from automup.sweep.settings import (
    Point,
    Range,
    Settings,
    parse_lrs,
    parse_multiples,
    parse_tune,
)


@pytest.mark.parametrize(
    ("text", "lrs"),
    [
        ("2^-4:2^-1", (1 / 16, 1 / 8, 1 / 4, 1 / 2)),
        ("2^-2:2^-1:0.5", (0.25, 0.25 * 2**0.5, 0.5)),
        ("0.001:0.005", (0.001, 0.002, 0.004)),
        ("1e-3, 3e-3,2^-5", (1e-3, 3e-3, 1 / 32)),
    ],
)
def test_learning_rates(text: str, lrs: tuple[float, ...]) -> None:
    assert parse_lrs(text) == pytest.approx(lrs)


@pytest.mark.parametrize("text", ["", "a", "2^-1:2^-4", "1:2:3:4", "2^-2:2^-1:0", "0^-1", "1e-3,"])
def test_what_is_no_learning_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--lr"):
        parse_lrs(text)


def test_ranges_to_tune() -> None:
    assert parse_tune(["output_mult=0.25:2^4,hidden_init=0.5,1,2", "output_init=0,1"]) == (
        Range("output_mult", 0.25, 16.0),
        Range("hidden_init", choices=(0.5, 1.0, 2.0)),
        Range("output_init", choices=(0.0, 1.0)),
    )


@pytest.mark.parametrize(
    "text", ["depth=1:2", "output_mult", "output_mult=2:1", "output_mult=0:1", "input_lr=x"]
)
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--tune"):
        parse_tune([text])


@pytest.mark.parametrize(
    "changed",
    [{"seeds": 0}, {"steps": 0}, {"last": 0.0}, {"last": 1.5}, {"multiples": ()}, {"lrs": (-1.0,)}],
)
def test_settings_out_of_range_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**{"lrs": (0.1,), **changed})


def test_each_point_of_the_grid_is_run_once_and_the_base_only_in_mup() -> None:
    settings = Settings(multiples=parse_multiples("2,1,×4,1"), lrs=(0.2, 0.1), seeds=2)
    points = settings.points(same_at_base=True)
    assert len(points) == len(set(points)) == 2 * 2 * (3 + 2)
    assert {p.parametrization for p in points if p.multiple == 1} == {"mup"}
    assert points[0] == Point("mup", 1.0, 0.1, 0)
    assert len(settings.points(same_at_base=False)) == 2 * 2 * (3 + 3)
    plain = dataclasses.replace(settings, sp=False)
    assert {p.parametrization for p in plain.points(same_at_base=False)} == {"mup"}
