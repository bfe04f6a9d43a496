"""Who runs what: many processes on many machines share one Optuna study without a server.

A run is claimed by creating a running trial that carries its key. A storage numbers trials in one
order for all, so of several claims on one key the lowest one that lives holds: whoever finds a
lower one than its own gives way. A claim lives while its process does (seen at once on the same
machine) and its beat changes (seen within a patience by anyone, without comparing clocks). The
claim of a dead process is failed, and so free again.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

#: Seconds without a beat after which a process counts as dead.
PATIENCE = 60.0

KEY, OWNER, MACHINE, PROCESS, BEAT = "key", "owner", "machine", "process", "beat"


@dataclass(frozen=True)
class Claim:
    """A trial that this process holds."""

    trial_id: int
    key: str


def machine() -> str:
    """This machine and process namespace; nothing where processes cannot be looked up."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def process(pid: int) -> str:
    """A process and when it began, by which a later one of the same number differs."""
    with contextlib.suppress(OSError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        state, *fields = stat.rpartition(")")[2].split()
        return f"{pid} {fields[18]}" if state not in "ZX" else ""
    return ""


class Claims:
    """The claims of one process on the runs of one study.

    Args:
        study: the shared study.
        patience: seconds without a beat after which another process counts as dead.
        buried: called with each trial whose process died, by one process alone.
    """

    def __init__(
        self,
        study: optuna.Study,
        patience: float = PATIENCE,
        buried: Callable[[FrozenTrial], None] = lambda trial: None,
    ) -> None:
        self.study, self.patience, self._buried = study, patience, buried
        self.owner, self._machine = uuid.uuid4().hex, machine()
        self._storage = study._storage
        self._seen: dict[int, tuple[object, float]] = {}
        self.done: dict[str, float] = {}
        self.taken: set[str] = set()

    @property
    def identity(self) -> dict[str, str | int]:
        """The attributes by which others see who holds a trial, and whether it lives."""
        about = {OWNER: self.owner, MACHINE: self._machine, PROCESS: process(os.getpid())}
        return {**about, BEAT: 0}

    def refresh(self) -> list[FrozenTrial]:
        """Read the study: what is done, what is taken; free what the dead held.

        Returns:
            the trials in their order, without those that have just been freed.
        """
        self.done, self.taken = {}, set()
        trials = self.study.get_trials(deepcopy=False)
        freed: set[int] = set()
        for trial in trials:
            key = str(trial.user_attrs.get(KEY))
            if trial.state is TrialState.COMPLETE and trial.value is not None:
                self.done.setdefault(key, trial.value)
            elif trial.state is TrialState.RUNNING and self._lives(trial):
                self.taken.add(key)
            elif trial.state is TrialState.RUNNING:
                freed.add(trial._trial_id)
                if self.fail(trial._trial_id):
                    self._buried(trial)
        kept = (trial for trial in trials if trial._trial_id not in freed)
        return sorted(kept, key=lambda trial: (trial.number, trial._trial_id))

    def _lives(self, trial: FrozenTrial) -> bool:
        attrs = trial.user_attrs
        if attrs.get(OWNER) == self.owner:
            return True
        on_this = self._machine and attrs.get(MACHINE) == self._machine
        if on_this and attrs.get(PROCESS):
            pid = str(attrs[PROCESS]).partition(" ")[0]
            if not pid.isdigit() or process(int(pid)) != attrs[PROCESS]:
                return False
        now = time.monotonic()
        beat, since = self._seen.setdefault(trial._trial_id, (attrs.get(BEAT), now))
        if beat != attrs.get(BEAT):
            self._seen[trial._trial_id] = (attrs.get(BEAT), now)
            return True
        return now - since <= self.patience

    def claim(self, key: str, about: Mapping[str, float | int | str]) -> Claim | None:
        """Claim a run; None if another process holds it or has done it.

        Args:
            key: the run.
            about: its parameters, for whoever looks at the study with Optuna's tools.
        """
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(about),
            distributions={name: _distribution(value) for name, value in about.items()},
            user_attrs={KEY: key, **self.identity},
        )
        own = self._storage.create_new_trial(self.study._study_id, template_trial=template)
        same = [t for t in self.refresh() if t.user_attrs.get(KEY) == key]
        first = next(t._trial_id for t in same if t.state is TrialState.RUNNING)
        if key in self.done or first != own:
            self.fail(own)
            return None
        return Claim(own, key)

    @contextlib.contextmanager
    def held(self, trial_id: int) -> Iterator[None]:
        """Beat while the block runs; whatever interrupts it frees the trial."""
        stop = threading.Event()
        beating = threading.Thread(target=self._beat, args=(trial_id, stop), daemon=True)
        beating.start()
        try:
            yield
        except BaseException:
            self.fail(trial_id)
            raise
        finally:
            stop.set()
            beating.join()

    def _beat(self, trial_id: int, stop: threading.Event) -> None:
        count = 0
        while not stop.wait(self.patience / 4):
            count += 1
            try:
                self._storage.set_trial_user_attr(trial_id, BEAT, count)
            except UpdateFinishedTrialError:  # it was taken for dead
                return
            except StorageInternalError:  # the database is busy: the next beat will do
                continue

    def finish(self, trial_id: int, value: float, state: TrialState = TrialState.COMPLETE) -> None:
        """Record a result, unless the trial was taken for dead in between."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial_id, state, [value])

    def fail(self, trial_id: int) -> bool:
        """Give a trial up; False if somebody else was first."""
        try:
            return self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return False


def _distribution(value: float | int | str) -> optuna.distributions.BaseDistribution:
    """A wide distribution of the value's kind, the same for all trials of a study."""
    if isinstance(value, str):
        return optuna.distributions.CategoricalDistribution(("mup", "sp"))
    if isinstance(value, int):
        return optuna.distributions.IntDistribution(0, 1_000_000)
    return optuna.distributions.FloatDistribution(1e-12, 1e12, log=True)
