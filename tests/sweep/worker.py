"""A process of a sweep whose runs only wait: it says on stdout which runs it begins and ends.

python worker.py STORAGE STUDY SECONDS PATIENCE
"""

from __future__ import annotations

import sys
import time

from automup.sweep.claims import Claims
from automup.sweep.settings import Point
from automup.sweep.storage import open_storage, study_in
from automup.sweep.watch import Silent
from automup.sweep.work import key_of, work

POINTS = [Point("mup", 1.0, 2.0**-e, seed) for e in range(4) for seed in range(3)]
KEYS = {key_of(point, {}): point for point in POINTS}


def loss(point: Point) -> float:
    return point.lr + point.seed


def main(place: str, study: str, seconds: float, patience: float) -> None:
    def result(point: Point) -> float:
        print("begin", key_of(point, {}), flush=True)
        time.sleep(seconds)
        print("end", key_of(point, {}), flush=True)
        return loss(point)

    claims = Claims(study_in(open_storage(place), study), patience)
    found = work(claims, KEYS, result, Silent())
    assert found == {key: loss(point) for key, point in KEYS.items()}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
