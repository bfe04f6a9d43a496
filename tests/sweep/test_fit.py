"""The optimum of a curve, its error, its drift, and the regret, where they are known."""

from __future__ import annotations

import math
import statistics

import pytest

from automup.sweep.fit import drift, jackknife, optimum, regret

LRS = [2.0**e for e in range(-10, -2)]


def parabola(at: float, noise: tuple[float, ...] = (0.0,), step: float = 1.0) -> dict:
    """A loss with its minimum at log2(lr) = at + noise, for each seed."""
    exponents = [-10 + step * i for i in range(int(8 / step))]
    return {2.0**e: [1 + (e - at - shift) ** 2 for shift in noise] for e in exponents}


@pytest.mark.parametrize("at", [-6.4, -7.0, -5.1])
@pytest.mark.parametrize("step", [1.0, 0.5])
def test_the_vertex_of_a_parabola_is_found(at: float, step: float) -> None:
    found = optimum(parabola(at, step=step))
    assert found.log2_lr.value == pytest.approx(at)
    assert not found.at_edge
    assert abs(math.log2(found.lr) - at) <= step / 2 + 1e-9


def test_an_uneven_grid_is_fitted_too() -> None:
    curve = {2.0**e: [(e + 6.3) ** 2] for e in (-10, -8, -6.5, -6, -3)}
    assert optimum(curve).log2_lr.value == pytest.approx(-6.3)


@pytest.mark.parametrize("at", [-20, 5])
def test_an_optimum_at_the_edge_is_said_to_be_one(at: float) -> None:
    found = optimum(parabola(at))
    assert found.at_edge
    assert 2.0**found.log2_lr.value == found.lr in (LRS[0], LRS[-1])


def test_beside_runs_that_diverged_the_optimum_is_known_to_a_step() -> None:
    curve = {2.0**-8: [2.0, 2.0], 2.0**-7: [1.0, 1.0], 2.0**-6: [math.inf, 1.0]}
    found = optimum(curve)
    assert found.log2_lr.value == -7
    assert found.log2_lr.error >= 1 / math.sqrt(12)


def test_where_every_run_diverged_there_is_no_optimum() -> None:
    found = optimum({lr: [math.inf, math.inf] for lr in LRS})
    assert math.isnan(found.log2_lr.value) and math.isinf(found.loss)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = [1.0, 2.5, 4.0, 0.5, 3.0]
    error = jackknife(lambda kept: statistics.fmean(values[i] for i in kept), len(values))
    assert error == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)))
    assert math.isnan(jackknife(lambda kept: 1.0, 1))


def test_the_error_of_an_optimum_is_that_of_its_seeds() -> None:
    noise = (-0.2, 0.1, 0.1)
    found = optimum(parabola(-6.0, noise))
    assert found.log2_lr.value == pytest.approx(-6.0)
    assert found.log2_lr.error == pytest.approx(statistics.stdev(noise) / math.sqrt(3))


def test_what_all_widths_share_of_the_noise_is_no_drift() -> None:
    noise = (-0.2, 0.1, 0.1)
    moved = drift(parabola(-5.0, noise), parabola(-7.3, noise))
    assert moved.value == pytest.approx(-2.3)
    assert moved.error == pytest.approx(0, abs=1e-9)


def test_regret_is_the_excess_loss_at_the_narrow_optimum() -> None:
    narrow, wide = parabola(-5), parabola(-7)
    assert regret(narrow, wide) == pytest.approx(4.0)
    assert regret(wide, wide) == 0
    diverged = {lr: [math.inf] if lr > 2.0**-6 else losses for lr, losses in wide.items()}
    assert math.isinf(regret(narrow, diverged))
