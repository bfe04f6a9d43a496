"""Processes that share a sweep: nothing is lost, nothing is run twice, whoever is killed.

Set AUTOMUP_TEST_STORAGE to the URL of an empty database to test that one, too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from worker import KEYS

from automup.errors import UsageError
from automup.sweep.claims import BEAT, MACHINE, Claims, machine
from automup.sweep.storage import open_storage, study_in

PLACES = ["journal", "sqlite"] + (["server"] if "AUTOMUP_TEST_STORAGE" in os.environ else [])


Place = tuple[str, str]  # a storage, and the name of a study in it


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    storages = {
        "journal": f"{tmp_path}/sweep.log",
        "sqlite": f"sqlite:///{tmp_path}/sweep.db",
        "server": os.environ.get("AUTOMUP_TEST_STORAGE", ""),
    }
    return storages[request.param], str(tmp_path)


def start(place: Place, seconds: float, patience: float = 60.0) -> subprocess.Popen[str]:
    worker = Path(__file__).parent / "worker.py"
    command = [sys.executable, str(worker), *place, str(seconds), str(patience)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], line: str, count: int) -> list[str]:
    """What a process says up to the n-th line that begins so."""
    assert process.stdout is not None
    said: list[str] = []
    while sum(s.startswith(line) for s in said) < count:
        said.append(process.stdout.readline())
        assert said[-1], "it ended"
    return said


def rest(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.splitlines()


def ended(said: list[str]) -> list[str]:
    return [s.removeprefix("end ").strip() for s in said if s.startswith("end")]


def results(place: Place) -> Counter[str]:
    """How many results the study has for each run."""
    storage, name = place
    trials = study_in(open_storage(storage), name).get_trials()
    return Counter(t.user_attrs["key"] for t in trials if t.state is TrialState.COMPLETE)


def test_several_processes_share_the_runs_and_none_is_run_twice(place: Place) -> None:
    processes = [start(place, 0.05) for _ in range(3)]
    said = [rest(process) for process in processes]
    assert sorted(key for s in said for key in ended(s)) == sorted(KEYS)
    assert results(place) == Counter(list(KEYS))


def test_a_killed_process_loses_one_run_and_a_finished_sweep_runs_nothing(place: Place) -> None:
    first = start(place, 0.2)
    before = read_until(first, "begin", 4)
    first.send_signal(signal.SIGKILL)
    before += first.communicate()[0].splitlines()
    after = rest(start(place, 0.0))
    assert sorted(ended(before) + ended(after)) == sorted(KEYS)
    assert len(ended(before)) >= 3
    assert results(place) == Counter(list(KEYS))
    assert rest(start(place, 0.0)) == []


def test_a_process_that_lives_takes_over_at_once_what_a_killed_one_held(place: Place) -> None:
    victim = start(place, 30.0)
    read_until(victim, "begin", 1)
    other = start(place, 0.01, patience=600.0)  # which no beat can run out of
    read_until(other, "begin", len(KEYS) - 1)  # all but the victim's
    victim.kill()
    said = rest(other)
    victim.communicate()
    assert len(ended(said)) >= 1
    assert results(place) == Counter(list(KEYS))


def test_a_process_that_stands_still_is_taken_for_dead_and_its_late_result_dropped(
    place: Place,
) -> None:
    frozen = start(place, 0.5, patience=1.0)
    read_until(frozen, "begin", 1)
    frozen.send_signal(signal.SIGSTOP)
    said = rest(start(place, 0.0, patience=1.0))
    frozen.send_signal(signal.SIGCONT)
    rest(frozen)
    assert sorted(ended(said)) == sorted(KEYS)
    assert results(place) == Counter(list(KEYS))


# --- one process ----------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return study_in(open_storage(str(tmp_path / "sweep.log")), "one")


def far(claims: Claims) -> Claims:
    """As if it ran on another machine."""
    claims._machine = "another machine"
    return claims


ABOUT = {"parametrization": "mup", "multiple": 1.0, "lr": 0.1, "seed": 0}


def test_of_two_claims_the_first_holds_until_it_is_given_up(study: optuna.Study) -> None:
    one, two = Claims(study), far(Claims(study))
    held = one.claim("run", ABOUT)
    assert held is not None
    assert two.claim("run", ABOUT) is None
    one.fail(held.trial_id)
    again = two.claim("run", ABOUT)
    assert again is not None
    two.finish(again.trial_id, 1.5)
    assert one.claim("run", ABOUT) is None
    assert one.done == {"run": 1.5}


def test_on_another_machine_a_claim_dies_by_its_beat_alone(study: optuna.Study) -> None:
    one, two = far(Claims(study, patience=0.2)), Claims(study, patience=0.2)
    held = one.claim("run", ABOUT)
    assert held is not None
    two.refresh()
    for beat in range(3):  # it beats: it lives
        time.sleep(0.15)
        one._storage.set_trial_user_attr(held.trial_id, BEAT, beat + 1)
        two.refresh()
        assert two.taken == {"run"}
    time.sleep(0.3)
    two.refresh()
    assert two.taken == set()
    one.finish(held.trial_id, 1.0)
    two.refresh()
    assert two.done == {}


def test_a_claim_beats_while_it_is_held_and_is_free_after_an_error(study: optuna.Study) -> None:
    claims, other = Claims(study, patience=0.1), far(Claims(study, patience=0.1))
    held = claims.claim("run", ABOUT)
    assert held is not None

    def fails() -> None:
        with claims.held(held.trial_id):
            time.sleep(0.3)
            other.refresh()
            assert other.taken == {"run"}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    other.refresh()
    assert other.taken == set()
    assert study.get_trials()[0].user_attrs[BEAT] > 0
    assert study.get_trials()[0].user_attrs[MACHINE] == machine()


def test_each_dead_trial_is_buried_by_one(study: optuna.Study) -> None:
    buried: list[int] = []
    watchers = [Claims(study, 0.1, lambda trial: buried.append(trial.number)) for _ in range(3)]
    assert far(Claims(study)).claim("run", ABOUT) is not None
    for _ in range(2):
        for watcher in watchers:
            watcher.refresh()
        time.sleep(0.2)
    assert buried == [0]


def test_a_journal_with_a_torn_line_is_read_and_written_on(tmp_path: Path) -> None:
    file = tmp_path / "sweep.log"
    claims = Claims(study_in(open_storage(str(file)), "one"))
    held = claims.claim("run", ABOUT)
    assert held is not None
    claims.finish(held.trial_id, 2.0)
    whole = file.read_bytes()
    file.write_bytes(whole + whole.splitlines()[-1][:20])  # as a killed writer leaves it
    later = Claims(study_in(open_storage(str(file)), "one"))
    assert later.claim("another", ABOUT) is not None
    last = Claims(study_in(open_storage(str(file)), "one"))
    last.refresh()
    assert last.done == {"run": 2.0} and last.taken == {"another"}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nodb://user:secret@host/x", "nodb://host/x is no database"),
        ("sqlite:////nowhere/x.db", "unable to open database file"),
        ("/nowhere/sweep.log", "no such folder"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_refused(place: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_storage(place)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("not a journal\n" * 3)
    with pytest.raises(UsageError, match="no journal"):
        open_storage(str(tmp_path / "x.log"))
