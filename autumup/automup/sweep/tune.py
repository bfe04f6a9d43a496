"""Tuning at the narrowest width: the learning rate with muP's constants and decay, by Optuna."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from automup.sweep.claims import Claims
from automup.sweep.fit import mean
from automup.sweep.settings import Range, Settings
from automup.sweep.trial import score
from automup.sweep.watch import Watch

#: The losses of one run, step by step: of what is tuned and this lr, with this seed.
Losses = Callable[[Mapping[str, float], float, int], Iterator[float]]

#: How often in each run a trial may be given up.
_LOOKS = 4

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Tuned:
    """The best of the settings that were tried at the narrowest width.

    Args:
        constants: the tuned constants, and settings of the optimizer, by name.
        lr: the learning rate that they were tuned with.
        loss: the mean over the seeds.
        trials: how many settings were tried.
        pruned: how many of them were given up early.
    """

    constants: Mapping[str, float]
    lr: float
    loss: float
    trials: int
    pruned: int


def tune(
    study: optuna.Study, settings: Settings, losses: Losses, watch: Watch, patience: float
) -> Tuned:
    """Try ``settings.trials`` settings, with whoever shares the study, and return the best one.

    Trials that look worse than the median at the same step are pruned, on all quarters of a run
    but the first; one that diverges is over. What a killed process had begun is tried again.
    """
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=8, n_warmup_steps=1)

    def again(dead: FrozenTrial) -> None:
        if dead.params:
            study.enqueue_trial(dead.params)

    claims = Claims(study, patience, again)
    wait = 0.1
    while True:
        trials = claims.refresh()
        finished = [t for t in trials if t.state in _FINISHED]
        watch.show("tuning", len(finished), settings.trials, _said(finished))
        if len(finished) >= settings.trials:
            return _best(finished)
        trial = _ask(claims, trials, settings)
        if trial is None:  # others are at the last ones
            time.sleep(wait)
            wait = min(2 * wait, 5.0)
            continue
        wait = 0.1
        with claims.held(trial._trial_id):
            value, state = _try(trial, settings, losses)
        claims.finish(trial._trial_id, value, state)


def _ask(claims: Claims, trials: list[FrozenTrial], settings: Settings) -> optuna.Trial | None:
    """The next trial, if one is missing; of those that come at once, the first ones are kept."""
    if len(_counted(trials)) >= settings.trials:
        return None
    # seeded by how many there are: the same proposals again in a sweep that is run again
    claims.study.sampler = optuna.samplers.TPESampler(
        seed=len(trials), multivariate=True, constant_liar=True
    )
    trial = claims.study.ask()
    for name, value in claims.identity.items():
        trial.set_user_attr(name, value)
    numbers = [t.number for t in _counted(claims.refresh())]
    if trial.number in numbers[: settings.trials]:
        return trial
    claims.fail(trial._trial_id)
    return None


def _counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [t for t in trials if t.state in (*_FINISHED, TrialState.RUNNING)]


def _try(trial: optuna.Trial, settings: Settings, losses: Losses) -> tuple[float, TrialState]:
    """The mean result over the seeds, or what it was when the trial was given up."""
    lr = trial.suggest_float("lr", min(settings.lrs), max(settings.lrs), log=True)
    constants = {item.name: _suggest(trial, item) for item in settings.tune}
    results: list[float] = []
    for seed in range(settings.seeds):
        seen: list[float] = []
        for loss in losses(constants, lr, seed):
            seen.append(loss)
            look, left = divmod(len(seen) * _LOOKS, settings.steps)
            if math.isfinite(loss) and left < _LOOKS:
                trial.report(score(seen, settings), seed * _LOOKS + look - 1)
                if trial.should_prune():
                    return score(seen, settings), TrialState.PRUNED
        results.append(score(seen, settings))
        if math.isinf(results[-1]):
            break
    return mean(results), TrialState.COMPLETE


def _suggest(trial: optuna.Trial, item: Range) -> float:
    if item.choices:
        return float(trial.suggest_categorical(item.name, item.choices))
    return trial.suggest_float(item.name, item.low, item.high, log=True)


def _best(finished: list[FrozenTrial]) -> Tuned:
    complete = [t for t in finished if t.state is TrialState.COMPLETE and t.value is not None]
    best = min(complete, key=lambda t: (t.value, t.number))
    assert best.value is not None
    constants = {name: value for name, value in best.params.items() if name != "lr"}
    pruned = len(finished) - len(complete)
    return Tuned(constants, best.params["lr"], best.value, len(finished), pruned)


def _said(finished: list[FrozenTrial]) -> str:
    if not any(t.state is TrialState.COMPLETE for t in finished):
        return ""
    best = _best(finished)
    told = ", ".join(f"{name} {value:.3g}" for name, value in best.constants.items())
    return f"best {best.loss:.4f} at lr {best.lr:.2g}, {told}"
