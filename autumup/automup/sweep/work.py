"""The grid, run by whoever is free: this loop is all that a process of a sweep does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

from automup.sweep.claims import Claims
from automup.sweep.settings import Point
from automup.sweep.watch import Watch


def work(
    claims: Claims, keys: Mapping[str, Point], result: Callable[[Point], float], watch: Watch
) -> dict[str, float]:
    """Run points that nobody has run or is running, until all are done; then their results."""
    wait = 0.1
    while True:
        claims.refresh()
        done = {key: claims.done[key] for key in keys if key in claims.done}
        watch.show("runs", len(done), len(keys), _said(done, keys))
        if len(done) == len(keys):
            return done
        free = (key for key in keys if key not in done and key not in claims.taken)
        claim = None
        for key in free:
            claim = claims.claim(key, asdict(keys[key]))
            if claim is not None:
                break
        if claim is None:  # others are at the last ones
            time.sleep(wait)
            wait = min(2 * wait, 5.0)
            continue
        wait = 0.1
        with claims.held(claim.trial_id):
            value = result(keys[claim.key])
        claims.finish(claim.trial_id, value)


def _said(done: Mapping[str, float], keys: Mapping[str, Point]) -> str:
    if not done:
        return ""
    key = min(done, key=done.__getitem__)
    point = keys[key]
    return f"best {done[key]:.4f}: {point.parametrization} ×{point.multiple:g} lr {point.lr:.2g}"


def key_of(point: Point, constants: Mapping[str, float]) -> str:
    """What a run is called in the storage; SP has no constants."""
    tuned = constants if point.parametrization == "mup" else {}
    told = "".join(f" {name}={value:.9g}" for name, value in sorted(tuned.items()))
    return f"{point.parametrization} x{point.multiple:g} lr={point.lr:.9g} seed={point.seed}{told}"
