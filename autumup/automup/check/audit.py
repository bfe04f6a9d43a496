"""What needs no training: initial weights, optimizer groups and constants against muP's table.

Everything is a ratio to the narrowest width, so it does not matter which base the code has.

A weight's multiplier, init and learning rate can be traded against each other without changing
training: for Adam (A m, B / m, C / m), for SGD (A m, B / m, C / m^2). So a factor that the code has
beside a weight counts into both of the others: mup's readout (output / m, init and rate constant)
and automup's (init / m, rate / m) are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from automup.check.fit import slope
from automup.check.result import Finding
from automup.check.training import Run, Weight
from automup.facts import Parameter, ratios
from automup.plan import Plan
from automup.rules import FAMILIES, Multipliers, Ratios, Role, init_multiplier, multipliers

EXACT = 1e-3
"""How far a setting may be from the table: it is computed, not measured."""

INIT = 0.1
"""How far an init's exponent may be off besides its sampling error; the least fault is 1/2."""

SIGMAS = 4.0


@dataclass(frozen=True)
class Terms:
    """How strictly the table is meant.

    ``family``: of the optimizer, "" if unknown; ``own``: the code is automup's, so that every
    number must be the plan's. Another's may keep epsilon, couple the decay, and draw small what may
    start at zero.
    """

    family: str
    own: bool


@dataclass(frozen=True)
class Audit:
    """Findings by parameter, and remarks on what does no harm."""

    findings: tuple[Finding, ...]
    remarks: tuple[Finding, ...]


@dataclass(frozen=True)
class Subject:
    """One parameter at all widths: the plan's facts and what was found, by width.

    ``factors`` are the code's own factors beside it, and ``scales`` those that the plan's form puts
    there, both relative to the narrowest width.
    """

    fact: Parameter
    widths: tuple[float, ...]
    grown: tuple[Ratios, ...]
    weights: tuple[tuple[Weight, ...], ...]
    factors: tuple[float, ...]
    scales: tuple[float, ...]

    def setting(self, key: str) -> tuple[float, ...] | None:
        """A setting of its group by width, or None where it has none."""
        found = [seeds[0].settings.get(key) for seeds in self.weights]
        return None if None in found else tuple(f for f in found if f is not None)

    def exponent(self, values: Sequence[float]) -> float:
        """The power of the width that values by width follow."""
        return slope(self.widths, values)

    def table(self, family: str) -> list[Multipliers]:
        """What muP's table says of its settings, by width, in the plan's form."""
        role = self.fact.role
        return [
            multipliers(family, r, role, gain=1.0 / scale)
            for r, scale in zip(self.grown, self.scales, strict=True)
        ]


def audit(
    plan: Plan,
    runs: Sequence[Sequence[Run]],
    widths: Sequence[float],
    terms: Terms,
    factors: Mapping[str, Sequence[float]],
) -> Audit:
    """Compare every parameter with the table.

    Args:
        plan: what the code's dataflow says of every parameter.
        runs: by seed and width.
        widths: multiples of the base.
        factors: by parameter, the factor that the code has beside it, by width.
    """
    subjects = list(_subjects(plan, runs, widths, factors))
    found = [pair for subject in subjects for pair in _of(subject, terms)]
    found += _decay(subjects, terms)
    findings = [finding for finding, grave in found if grave or terms.own]
    remarks = [finding for finding, grave in found if not (grave or terms.own)]
    return Audit(tuple(findings), tuple(remarks))


def _subjects(
    plan: Plan,
    runs: Sequence[Sequence[Run]],
    widths: Sequence[float],
    factors: Mapping[str, Sequence[float]],
) -> Iterator[Subject]:
    by_width = list(zip(*runs, strict=True))
    for fact in plan.parameters:
        if not all(fact.name in run.weights for row in runs for run in row):
            continue
        if fact.shape != fact.base_shape and not (fact.fan_in_dims or fact.fan_out_dims):
            continue  # nothing that ran uses it, or it could not be resolved
        weights = tuple(tuple(run.weights[fact.name] for run in at) for at in by_width)
        shapes = [seeds[0].shape for seeds in weights]
        dims = (fact.fan_in_dims, fact.fan_out_dims)
        grown = tuple(ratios(s, shapes[0], *dims, fact.fixed) for s in shapes)
        ones = (1.0,) * len(widths)
        beside = tuple(factors.get(fact.name, ones))
        scales = [plan.scale(replace(fact, shape=shape)) for shape in shapes]
        formed = tuple(scale / scales[0] for scale in scales)
        yield Subject(fact, tuple(widths), grown, weights, beside, formed)


def _of(subject: Subject, terms: Terms) -> Iterator[tuple[Finding, bool]]:
    """What is off with one parameter, and whether it is grave for code that is not automup's."""
    yield from _init(subject)
    if terms.family:
        yield from _rate(subject, terms.family)
        yield from _epsilon(subject, terms.family)


# --- init -----------------------------------------------------------------------------------------


def _init(subject: Subject) -> Iterator[tuple[Finding, bool]]:
    fact = subject.fact
    for label, role, drawn, grown in _pieces(subject):
        pairs = zip(grown, subject.scales, strict=True)
        expected = [init_multiplier(r, role) / scale for r, scale in pairs]
        rms = [math.sqrt(sum(s) / len(s)) * f for s, f in zip(drawn, subject.factors, strict=True)]
        if not any(rms):
            continue
        if not all(rms):
            cause = "is zero at some widths only"
            yield Finding(label, fact.source, "init", math.nan, 0.0, cause), True
            continue
        measured, wanted = subject.exponent(rms), subject.exponent(expected)
        if abs(measured - wanted) > INIT + SIGMAS * _sampling_error(subject):
            small = measured < wanted and role is not Role.HIDDEN
            yield _init_finding(label, fact, role, measured, wanted), not small


def _init_finding(
    label: str, fact: Parameter, role: Role, measured: float, wanted: float
) -> Finding:
    if len(fact.names) > 1 and measured > wanted:
        cause = "the init of a shared tensor was rescaled for its other role"
    elif role is Role.OUTPUT and measured > wanted:
        cause = "the readout is not scaled: its init does not fall with its fan_in"
    else:
        cause = f"the init does not follow the law of {_article(role)} weight"
    return Finding(label, fact.source, "init", measured, wanted, cause)


def _article(role: Role) -> str:
    return f"{'an' if role.value[0] in 'aeiou' else 'a'} {role.value}"


def _sampling_error(subject: Subject) -> float:
    """The standard error of an init's exponent: that of a log2 rms of N draws is 0.72 / sqrt(N)."""
    sizes = [math.prod(seeds[0].shape) * len(seeds) for seeds in subject.weights]
    x = [math.log2(w) for w in subject.widths]
    mean = sum(x) / len(x)
    spread = sum((a - mean) ** 2 for a in x)
    parts = ((a - mean) ** 2 * (0.72**2 * 2 / max(1, n)) for a, n in zip(x, sizes, strict=True))
    return math.sqrt(sum(parts)) / spread


def _pieces(
    subject: Subject,
) -> Iterator[tuple[str, Role, list[list[float]], tuple[Ratios, ...]]]:
    """(name, role, mean squares by width and seed, ratios): the whole, or each fused part."""
    fact = subject.fact
    if not fact.parts:
        squares = [[w.rms**2 for w in seeds] for seeds in subject.weights]
        yield fact.name, fact.role, squares, subject.grown
        return
    dim, start = fact.fan_out_dims[0], [0] * len(subject.widths)
    for part in fact.parts:
        sizes = [round(part.base_size * (r.fan_out if part.grows else 1)) for r in subject.grown]
        cuts = [slice(a, a + n) for a, n in zip(start, sizes, strict=True)]
        squares = [
            [sum(w.rows[dim][cut]) / max(1, len(w.rows[dim][cut])) for w in seeds]
            for seeds, cut in zip(subject.weights, cuts, strict=True)
        ]
        own = Role.HIDDEN if part.grows and fact.fan_in_dims else Role.OUTPUT
        role = own if fact.fan_in_dims else (Role.INPUT if part.grows else Role.SCALAR)
        grown = tuple(r if part.grows else replace(r, fan_out=1.0) for r in subject.grown)
        yield f"{fact.name}[{cuts[0].start}:{cuts[0].stop}]", role, squares, grown
        start = [cut.stop for cut in cuts]


# --- the optimizer's groups -----------------------------------------------------------------------


def _rate(subject: Subject, family: str) -> Iterator[tuple[Finding, bool]]:
    rates = subject.setting("lr")
    if rates is None or not all(rates):
        return
    power = FAMILIES[family].gain
    found = [
        rate / rates[0] * factor**power for rate, factor in zip(rates, subject.factors, strict=True)
    ]
    table = [row.lr for row in subject.table(family)]
    if not _same(found, table):
        measured, wanted = subject.exponent(found), subject.exponent(table)
        cause = _rate_cause(subject.fact, measured, wanted, family)
        yield (
            Finding(subject.fact.name, subject.fact.source, "optimizer", measured, wanted, cause),
            True,
        )


def _rate_cause(fact: Parameter, measured: float, wanted: float, family: str) -> str:
    role = fact.role.value
    if abs(measured - wanted) < 0.01:
        return f"the learning rate of this {role} weight is a constant factor off the table"
    if fact.role is Role.INPUT and measured < wanted:
        return "the learning rate of an input weight falls with width, which stops it from learning"
    if wanted < 0 and measured > wanted:
        return f"the learning rate of {_article(fact.role)} weight is not divided by its fan_in"
    return f"the learning rate of {_article(fact.role)} weight does not follow {family}'s rule"


def _epsilon(subject: Subject, family: str) -> Iterator[tuple[Finding, bool]]:
    values = subject.setting("eps")
    if family != "adam" or values is None or not all(values):
        return
    found = [v / values[0] for v in values]
    table = [row.eps for row in subject.table(family)]
    if not _same(found, table):
        measured, wanted = subject.exponent(found), subject.exponent(table)
        cause = "Adam's epsilon does not follow the gradient, which falls with fan_out"
        finding = Finding(
            subject.fact.name, subject.fact.source, "optimizer", measured, wanted, cause
        )
        yield finding, not _same(found, [1.0] * len(found))


def _same(found: Sequence[float], table: Sequence[float]) -> bool:
    return all(math.isclose(a, b, rel_tol=EXACT) for a, b in zip(found, table, strict=True))


# --- decay ----------------------------------------------------------------------------------------


def _decay(subjects: Sequence[Subject], terms: Terms) -> Iterator[tuple[Finding, bool]]:
    """Decay that is lost, or that follows another rule than that of the other weights.

    A hidden weight that starts with another decay than the rest is grave in automup's code alone.
    """
    decaying = [(s, d) for s in subjects if (d := s.setting("weight_decay")) is not None]
    ways = {s.fact.name: _ways(s, d, terms) for s, d in decaying if any(d)}
    agreed = _majority(ways)
    usual = _usual(decaying)
    for subject, decay in decaying:
        fact = subject.fact
        ours = ways.get(fact.name, frozenset())
        matrix = fact.role is Role.HIDDEN and len(fact.shape) > 1
        if any(decay) and agreed not in ours:
            found = [d / decay[0] if decay[0] else math.nan for d in decay]
            wanted = subject.exponent(_wanted_decay(subject, agreed, terms))
            measured = subject.exponent(found)
            cause = f"the weight decay does not go with width as {_SAID[agreed]}"
            yield Finding(fact.name, fact.source, "optimizer", measured, wanted, cause), True
        elif matrix and not _alike(_start(subject, decay), usual):
            cause = (
                f"its weight decay is {decay[0]:g} at the narrowest width, which is not that of "
                "the other hidden weights"
            )
            yield Finding(fact.name, fact.source, "optimizer", math.nan, math.nan, cause), False


_SAID = {
    "independent": "1 / lr does (lr × decay is kept)",
    "coupled": "the others' does, which is constant",
    "": "any rule says",
}


def _ways(subject: Subject, decay: Sequence[float], terms: Terms) -> frozenset[str]:
    """The rules that a parameter's decay follows."""
    if not decay[0]:
        return frozenset()
    found = [d / decay[0] for d in decay]
    rules = ("independent",) if terms.own else ("independent", "coupled")
    return frozenset(r for r in rules if _same(found, _wanted_decay(subject, r, terms)))


def _wanted_decay(subject: Subject, way: str, terms: Terms) -> list[float]:
    if way != "independent":
        return [1.0] * len(subject.grown)
    if terms.own and terms.family:
        return [row.weight_decay for row in subject.table(terms.family)]
    rates = subject.setting("lr") or (1.0,) * len(subject.grown)
    return [rates[0] / rate if rate else math.nan for rate in rates]


def _majority(ways: Mapping[str, frozenset[str]]) -> str:
    counts = {w: sum(w in found for found in ways.values()) for w in ("independent", "coupled")}
    return max(counts, key=lambda way: counts[way])


def _start(subject: Subject, decay: Sequence[float]) -> tuple[float, float]:
    """The decay at the narrowest width, and times the learning rate there."""
    rates = subject.setting("lr") or (1.0,)
    return decay[0], decay[0] * rates[0]


def _alike(start: tuple[float, float], usual: tuple[float, float]) -> bool:
    """Whether a weight starts with the others' decay or lr * decay: either is a rule."""
    known = [(a, b) for a, b in zip(start, usual, strict=True) if not math.isnan(b)]
    return not known or any(math.isclose(a, b, rel_tol=EXACT) for a, b in known)


def _usual(decaying: Sequence[tuple[Subject, tuple[float, ...]]]) -> tuple[float, float]:
    """What most hidden matrices start with, see :func:`_start`; nan where there is no most."""
    hidden = [(s, d) for s, d in decaying if s.fact.role is Role.HIDDEN and len(s.fact.shape) > 1]
    starts = [_start(s, d) for s, d in hidden]
    decays, products = ([f"{start[i]:.4g}" for start in starts] for i in (0, 1))
    return _most(decays), _most(products)


def _most(values: Sequence[str]) -> float:
    """The value that more than half have, or nan."""
    most = max(values, key=values.count, default="nan")
    return float(most) if values.count(most) > len(values) / 2 else math.nan
