"""The algebra of exponents against numbers: a state says what its value does with width."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automup.analysis.ends import INPUT, OUTPUT, TIED
from automup.analysis.flow import Use
from automup.analysis.states import (
    ZERO,
    State,
    join_states,
    multiplied,
    powered,
    ratio_log,
    scaled,
)
from automup.analysis.weights import WeightSummary, alike, summarise

Size = tuple[int, int]
LOGS = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0])


Log = Callable[[dict[str, float]], float]


@dataclass(frozen=True)
class Value:
    """A state, and the log of what it stands for, as a function of the logs of its factors."""

    state: State
    log: Log


@st.composite
def values(draw: st.DrawFn) -> tuple[Value, dict[str, float]]:
    """An expression of factors, each with a log of its own, and those logs."""
    logs: dict[str, float] = {}
    pile: list[Value] = []

    def times_a_number(a: Value) -> Value:
        name, log = f"n{len(logs)}", draw(LOGS)
        logs[name] = log
        state = scaled(a.state, name, log, "constant", (1, 2))  # type: ignore[arg-type]
        return Value(state, lambda at: a.log(at) + at[name])

    def result(a: Value, b: Value, step: str) -> Value:
        if step == "times":
            return Value(multiplied(a.state, b.state), lambda at: a.log(at) + b.log(at))
        if step == "over":
            return Value(multiplied(a.state, b.state, -1.0), lambda at: a.log(at) - b.log(at))
        if step == "scale":
            return times_a_number(a)
        power = draw(st.sampled_from([2.0, 0.5, -1.0]))
        return Value(powered(a.state, power), lambda at: power * a.log(at))

    steps = st.sampled_from(["leaf", "times", "over", "power", "scale"])
    for step in ["leaf", "leaf", *draw(st.lists(steps, max_size=6))]:
        if step == "leaf":
            made = times_a_number(Value(State(), lambda at: 0.0))
        else:
            made = result(pile[-1], pile[draw(st.integers(0, len(pile) - 1))], step)
        healed = abs(made.log(logs)) < 1e-9  # of what is neutral nothing has to be undone
        pile.append(Value(made.state, lambda at: 0.0) if healed else made)
    return pile[-1], logs


@given(values())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_logs_add_and_a_degree_is_a_derivative(case: tuple[Value, dict[str, float]]) -> None:
    value, logs = case
    here = value.log(logs)
    assert value.state.log == pytest.approx(here, abs=1e-9)
    assert value.state.neutral == (abs(here) < 1e-9)
    slopes = {n: value.log({**logs, n: logs[n] + 1.0}) - here for n, log in logs.items() if log}
    assert {n: o.degree for n, o in value.state.origins.items() if o.degree} == pytest.approx(
        {n: slope for n, slope in slopes.items() if slope}, abs=1e-9
    )


def test_zero_times_anything_is_zero() -> None:
    zero, two = State(ZERO, "known"), State(1.0)
    for state in (multiplied(zero, two), multiplied(two, zero), powered(zero, 2.0)):
        assert state.log == ZERO
        assert state.neutral
        assert not state.origins
    assert multiplied(zero, two).kind == "activation"
    assert multiplied(zero, zero).kind == "known"
    assert scaled(State(1.0), "n", ZERO, "constant", (1, 1)).log == ZERO  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base", "wide", "log"),
    [
        (1.0, 2.0, 1.0),
        (-8, 2, -2.0),
        (0.5, 0.5, 0.0),
        (0, 0.0, ZERO),
        (0, 1, None),
        (1, 0, None),
        ("a", 1, None),
        (1, None, None),
        (math.inf, math.inf, 0.0),
        (-math.inf, 1, 0.0),
        (1, -math.inf, 0.0),
        (math.nan, 1, 0.0),
        (1, math.nan, 0.0),
    ],
)
def test_the_log_of_a_constant(base: Any, wide: Any, log: float | None) -> None:
    assert ratio_log(base, wide) == log


def test_of_a_sum_the_largest_counts() -> None:
    """Numbers are carried along: constants count only where there is nothing else."""
    made = [scaled(State(kind=k), n, log, "sum", (1, 2)) for k, n, log in SUMMANDS]  # type: ignore[arg-type]
    for some in itertools.chain.from_iterable(itertools.combinations(made, n) for n in (1, 2, 3)):
        live = [s for s in some if s.kind != "known"] or some
        state = join_states(some)
        assert state.log == max(s.log for s in live)
        assert state.kind == next(k for k in ORDER if k in {s.kind for s in some})
        assert state.views == ()
        expected = {n for s in live for n in s.origins} if state.log else set()
        assert set(state.origins) == expected
    assert join_states([]) == State()


ORDER = ("activation", "weight", "known")
SUMMANDS = [("activation", "a", 0.5), ("weight", "w", 1.0), ("known", "k", 2.0)]
SUMMANDS += [("activation", "b", -0.5), ("weight", "v", 0.0)]


# --- weights --------------------------------------------------------------------------------------


def used(in_dims: tuple[int, ...], fan_in: Size, fan_out: Size) -> WeightSummary:
    shape = ((16, 64), (8, 16))  # (out, in): r_o 4, r_i 2
    use = Use("w", NODE, "matmul", in_dims, fan_in, fan_out)
    return summarise([use], {"w": shape}, {}, {"w"})["w"]


class _Fact:
    derived = False


class _Node:
    fact = _Fact()


NODE: Any = _Node()


@pytest.mark.parametrize(
    ("in_dims", "out_dims", "log", "std", "spectral", "narrow"),
    [
        # n_o grows by 4 = 2^2 and n_i by 2: a matrix is drawn by n_i^-1/2, of norm (n_o / n_i)^1/2
        ((1,), (0,), -1.0, -0.5, 0.5, 0.5 - 0.5),
        ((1, 0), (), -3.0, -3.0, -1.5, 3.0),  # both summed: a readout, drawn by 1 / n_i
        ((0,), (1,), -2.0, -1.0 - 0.5, -0.5, 1.0),  # r_o < r_i: sqrt(r_o / r_i) less
    ],
)
def test_a_weight_grows_as_the_table_draws_and_trains_it(
    in_dims: Any, out_dims: Any, log: float, std: float, spectral: float, narrow: float
) -> None:
    """An entry that meets aligned activations is 1 / r_i (docs/how.md)."""
    sizes = {0: (16, 64), 1: (8, 16), None: (1, 1)}

    def fan(dims: tuple[int, ...]) -> Size:
        return (
            math.prod(sizes[d][0] for d in dims),
            math.prod(sizes[d][1] for d in dims),
        )

    weight = used(in_dims, fan(in_dims), fan(out_dims))
    assert (weight.fan_in_dims, weight.fan_out_dims) == (in_dims, out_dims)
    assert not weight.problem
    for scale in (weight.scale, weight.scale_at(((16, 64), (8, 16)))):
        assert (scale.log, scale.std, scale.spectral) == pytest.approx((log, std, spectral))
    twice = weight.scale_at(((16, 256), (8, 32)))
    assert (twice.log, twice.spectral) == pytest.approx((2 * log, 2 * spectral))
    below = weight.scale_at(((16, 4), (8, 4)))  # 1 / 4 and 1 / 2 of the base
    assert (below.log, below.std, below.spectral) == pytest.approx((-log, narrow, -spectral))


def test_scales_are_alike_where_every_one_is() -> None:
    weight = used((1,), (8, 16), (16, 64)).scale
    other = used((0,), (16, 64), (8, 16)).scale
    assert alike({"w": weight}, {"w": weight})
    assert not alike({"w": weight}, {"w": other})
    assert not alike({"w": weight}, {"v": weight})
    for part in ("log", "std", "spectral"):
        differs = replace(weight, **{part: 2.0})
        assert not alike({"v": weight, "w": weight}, {"v": weight, "w": differs})
    assert not alike({"w": weight}, {})


@pytest.mark.parametrize(
    ("ends", "layer"),
    [
        ({INPUT}, "input"),
        ({INPUT, TIED}, "input"),
        ({OUTPUT}, "output"),
        ({TIED}, ""),
        ({INPUT, OUTPUT}, ""),
        ({OUTPUT, TIED}, ""),
        (set(), ""),
    ],
)
def test_a_weight_is_of_a_layer_with_all_its_uses(ends: set[str], layer: str) -> None:
    assert replace(used((1,), (8, 16), (16, 64)), ends=frozenset(ends)).layer == layer
