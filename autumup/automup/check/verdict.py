"""From readings and the audit to a verdict, the culprit first.

Where the thresholds come from. The smallest fault of muP's table changes an exponent by 1/2 (an
init that is short of a square root, an attention scale), most change it by 1. Right models read
within 0.1 of 0; what finite width adds to that falls with width and so reads negative. A change
that grows faster than width^0.3 is a fault, and one that falls faster than width^-0.5 is one where
the theory gives no reason for it: attention logits fall as width^-1/2 at init (q and k are
independent there), and so do the first steps of them, the probabilities of a softmax over width for
good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from automup.check.responses import Responses
from automup.check.result import Finding, Reading, Trained
from automup.check.training import OUTPUT
from automup.plan import Plan
from automup.rules import Role

HIGH, LOW = 0.3, -0.5
READOUT_STEP, HIDDEN_STEP = 2, 3


def judged_steps(steps: int, zeroed: bool) -> tuple[int, int]:
    """The steps after which the readout and all else are judged.

    With the readout at zero, the first step moves only the readout: the layers before it are one
    step later.
    """
    return (min(READOUT_STEP if zeroed else HIDDEN_STEP, steps), min(HIDDEN_STEP, steps))


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges the readings of one subject.

    Args:
        trained: the readings.
        plan: what its parameters are.
        steps: after how many the readout and all else are judged.
        responses: what the output does when an activation is scaled.
    """

    trained: Trained
    plan: Plan
    steps: tuple[int, int]
    responses: Responses

    def findings(self) -> list[Finding]:
        """The readings that are off, in the order of the dataflow, with their likely cause."""
        found = list(self._off())
        output_off = any(r.place.name == OUTPUT for r in found)
        return [self._finding(r) for r in found if not self._excused(r, output_off)]

    def _off(self) -> Iterator[Reading]:
        """One reading for each place that is off: its change, else its size at init."""
        trained, moving = self.trained, {OUTPUT, *entrances(self.plan)}
        for name in dict.fromkeys(r.place.name for r in trained.readings):
            change = trained.of(name, "change", self.steps[name != OUTPUT])
            start = trained.of(name, "size", 0)
            if change and _surely(change) > HIGH:
                yield change
            elif start and _surely(start) > HIGH:
                yield start
            elif change and name in moving and _surely(change) < LOW:
                yield change

    def _excused(self, reading: Reading, output_off: bool) -> bool:
        """Whether a place may read high.

        Behind a norm an activation may have any size: its change beside its size counts. A factor
        may stand behind the module that the output is affine in (a shared readout's): then the
        output itself is judged.
        """
        place = reading.place
        if place.kind != "module" or reading.fit.slope < 0:
            return False
        if self.responses.is_free(place.name):
            start = self.trained.of(place.name, "size", 0)
            beside = start.fit.slope if start else 0.0
            return reading.step == 0 or reading.fit.slope - beside <= HIGH
        return not output_off and self.responses.is_last(place.name)

    def _finding(self, reading: Reading) -> Finding:
        place, slope = reading.place, reading.fit.slope
        if reading.step == 0:
            moved = f"its size goes as width^{reading.fit} at init"
        else:
            steps = f"{reading.step} step{'s' if reading.step > 1 else ''}"
            moved = f"it changes as width^{reading.fit} in {steps}"
        cause = f"{moved}; {signature(reading, self.plan)}"
        return Finding(place.name, place.source, "training", slope, 0.0, cause)


def _surely(reading: Reading) -> float:
    """A slope less its standard error, towards 0."""
    fit = reading.fit
    error = 0.0 if math.isnan(fit.error) else fit.error
    return math.copysign(max(0.0, abs(fit.slope) - error), fit.slope)


def signature(reading: Reading, plan: Plan) -> str:
    """The likely cause of a reading, by the kind of place and the sign."""
    place, high = reading.place, reading.fit.slope > 0
    roles = {p.role for p in plan.parameters if place.name in _owners(p.names) and len(p.shape) > 1}
    if place.kind == "logits":
        return "attention logits that grow: still scaled by 1/√d?"
    if place.kind == "output" or Role.OUTPUT in roles:
        return "a readout that is not scaled?" if high else "a readout scaled twice?"
    if reading.step == 0:
        return "an init whose std does not fall as fan_in^-1/2?"
    if Role.HIDDEN in roles:
        return "a hidden learning rate that is not divided by fan_in?"
    if Role.INPUT in roles:
        return (
            "an input learning rate that grows with width?"
            if high
            else "an input learning rate that is divided by width?"
        )
    return "what flows in here, or a sum over width without a factor?"


def _owners(names: Sequence[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def entrances(plan: Plan) -> frozenset[str]:
    """Modules whose matrices are all input weights."""
    roles: dict[str, set[Role]] = {}
    for p in plan.parameters:
        for owner in _owners(p.names) if len(p.shape) > 1 else ():
            roles.setdefault(owner, set()).add(p.role)
    return frozenset(owner for owner, found in roles.items() if found == {Role.INPUT})


def in_order(
    audited: Sequence[Finding], trained: Sequence[Finding], position: Callable[[Finding], float]
) -> tuple[Finding, ...]:
    """All findings, the culprit first.

    What the audit finds is exact, so it comes first, in the order of the dataflow; what training
    shows is its symptom, unless it shows before any of it.
    """
    audited = sorted(audited, key=position)
    if not audited:
        return tuple(sorted(trained, key=position))
    first = position(audited[0])
    symptoms = [f for f in trained if position(f) >= first]
    separate = [f for f in trained if position(f) < first]
    if symptoms:
        worst = max(symptoms, key=lambda f: abs(f.measured))
        also = f"Training shows it: {worst.place} as width^{worst.measured:+.2f}."
        audited = [replace(audited[0], also=also), *audited[1:]]
    return (*audited, *separate)


def positions(places: Iterable[str]) -> Callable[[Finding], float]:
    """Where a finding stands in the dataflow, by the place it is at or the module that owns it."""
    index = {name: i for i, name in enumerate(places)}

    def position(finding: Finding) -> float:
        name = finding.place.partition(", ")[0].partition("[")[0]
        if finding.witness == "code" and f"{name}: logits" in index:
            return index[f"{name}: logits"]
        while name:
            if name in index:
                return index[name]
            inside = [i for place, i in index.items() if place.startswith(f"{name}.")]
            if inside:
                return min(inside)
            name = name.rpartition(".")[0]
        return len(index)

    return position
