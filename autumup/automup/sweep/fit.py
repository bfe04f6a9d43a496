"""Where a loss curve is lowest, how sure that is, and how it moves with width."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

#: A loss curve: the losses of all seeds, in the order of the seeds, at each learning rate.
Curve = Mapping[float, Sequence[float]]


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error over the seeds (nan with a single seed)."""

    value: float
    error: float


@dataclass(frozen=True)
class Optimum:
    """The best learning rate of one curve.

    Args:
        log2_lr: the optimum on the log2 axis (nan if every run diverged).
        lr: the best learning rate of the grid.
        loss: the mean loss over the seeds there.
        at_edge: the best is the first or the last of the grid: the optimum may be beyond.
    """

    log2_lr: Estimate
    lr: float
    loss: float
    at_edge: bool


def optimum(curve: Curve) -> Optimum:
    """The optimum of a curve: vertex of the parabola through its best point and both neighbours.

    On the axes log2(lr) and mean loss over the seeds. At an edge, or beside runs that diverged, it
    is the best point itself, known to a step of the grid: that adds a variance of step**2 / 12.
    """
    lr, loss = _best(curve, _all(curve))
    lrs = sorted(curve)
    if math.isinf(loss):
        return Optimum(Estimate(math.nan, math.nan), lr, loss, False)
    at_edge = lr in (lrs[0], lrs[-1])
    error = jackknife(lambda kept: vertex(curve, kept), _count(curve))
    if _parabola(curve, _all(curve)) is None:
        error = math.hypot(error, _step(lrs, lr) / math.sqrt(12))
    return Optimum(Estimate(vertex(curve, _all(curve)), error), lr, loss, at_edge)


def drift(narrow: Curve, wide: Curve) -> Estimate:
    """How many octaves the optimum moves from one width to another; negative: it falls.

    The seeds are the same at both widths, so their common part cancels in the error.
    """
    everything = _all(narrow)

    def moved(kept: Sequence[int]) -> float:
        return vertex(wide, kept) - vertex(narrow, kept)

    return Estimate(moved(everything), jackknife(moved, len(everything)))


def regret(narrow: Curve, wide: Curve) -> float:
    """What it costs at the wide width to use the narrow one's best learning rate of the grid.

    The relative excess of the mean loss over that at the wide width's own best: 0.01 is 1 %; nan
    where that best is no positive number, of which nothing can be a fraction.
    """
    transferred, _ = _best(narrow, _all(narrow))
    _, best = _best(wide, _all(wide))
    return mean(wide[transferred]) / best - 1 if 0 < best < math.inf else math.nan


def vertex(curve: Curve, seeds: Sequence[int]) -> float:
    """log2 of the optimum of the mean over these seeds, see :func:`optimum`; nan without any."""
    lr, loss = _best(curve, seeds)
    if math.isinf(loss):
        return math.nan
    fitted = _parabola(curve, seeds)
    return math.log2(lr) if fitted is None else fitted


def _parabola(curve: Curve, seeds: Sequence[int]) -> float | None:
    """The vertex of the parabola through the best point and its neighbours, if it has both."""
    lrs = sorted(curve)
    middle = lrs.index(_best(curve, seeds)[0])
    three = lrs[middle - 1 : middle + 2] if middle else []
    if len(three) < 3:
        return None
    x = [math.log2(lr) for lr in three]
    y = [mean([curve[lr][s] for s in seeds]) for lr in three]
    # the parabola's slope is the left chord's at that chord's middle, the right one's at its own
    left, right = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    if not math.isfinite(right - left) or left == right:
        return None
    a, b = (x[0] + x[1]) / 2, (x[1] + x[2]) / 2
    return a - left * (b - a) / (right - left)


def jackknife(statistic: Callable[[Sequence[int]], float], count: int) -> float:
    """The standard error of a statistic of ``count`` samples (Efron and Stein, 1981).

    Args:
        statistic: its value from the samples with these numbers.
        count: how many samples there are; with one, the error is unknown: nan.
    """
    if count < 2:
        return math.nan
    values = [statistic([i for i in range(count) if i != left]) for left in range(count)]
    center = mean(values)
    return math.sqrt((count - 1) / count * sum((v - center) ** 2 for v in values))


def mean(values: Sequence[float]) -> float:
    """The mean; infinite if one is."""
    return sum(values) / len(values)


def _best(curve: Curve, seeds: Sequence[int]) -> tuple[float, float]:
    """The learning rate with the lowest mean loss over these seeds, and that loss."""
    means = {lr: mean([curve[lr][s] for s in seeds]) for lr in sorted(curve)}
    lr = min(means, key=means.__getitem__)
    return lr, means[lr]


def _count(curve: Curve) -> int:
    return len(next(iter(curve.values())))


def _all(curve: Curve) -> range:
    return range(_count(curve))


def _step(lrs: Sequence[float], lr: float) -> float:
    """The larger distance to a neighbour on the grid, in octaves; 0 if there is none."""
    at = lrs.index(lr)
    around = [n for n in (at - 1, at + 1) if 0 <= n < len(lrs)]
    return max((abs(math.log2(lrs[n] / lr)) for n in around), default=0.0)
