"""Which constructor fields are width: double each one, without weights, and look at what changes.

Names decide nothing. A main width scales two axes of some weight (a hidden-to-hidden matrix); an
inner width (a feed-forward size) scales one axis of weights whose other axis a main width scales.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from automup.capture.derived import derived, fractions, untried
from automup.capture.inputs import InputMaker, synthesise
from automup.capture.load import ModelSource
from automup.capture.probe import Probe, shapes_of
from automup.capture.raised import describe, place_of
from automup.capture.real import LARGEST
from automup.capture.trace import Variant, Workshop
from automup.capture.widths import build_at, is_scalable, scaled
from automup.errors import AutomupError, InputError, KnobError

A_PART = 1.1
"""By how much doubling a width makes some axis larger, at least."""
Axes = Mapping[tuple[str, int], float]
"""(parameter, axis) -> by what it grew."""


@dataclass(frozen=True)
class Discovery:
    """The width knobs, and for every field what doubling it did.

    ``values``: the base values of knobs that have none of their own, as they derive from others.
    """

    width: tuple[str, ...]
    report: Mapping[str, str]
    values: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Finding:
    """What doubling one field did."""

    kind: str  # main, inner, or the reason why it is no width
    axes: Axes
    own_inputs: bool = False

    @property
    def is_width(self) -> bool:
        return self.kind in ("main", "inner")


def discover(
    source: ModelSource, base: Mapping[str, Any], maker: InputMaker | None = None
) -> Discovery:
    """The width knobs of a model, by structure.

    Args:
        source: the model's class or function.
        base: values that override the fields' defaults.
        maker: makes example inputs; synthesised if left out.

    Raises:
        KnobError: no field looks like a width, or those that do cannot grow together.
        InputError: no inputs were given and none can be found.
    """
    return _search(source, base, maker).run()


def _search(source: ModelSource, base: Mapping[str, Any], maker: InputMaker | None) -> _Search:
    """On the meta device; on real tensors where that cannot run the model, and it is small."""
    try:
        return _Search(source, base, maker)
    except (InputError, KnobError):
        with contextlib.suppress(AutomupError):
            model = build_at(source.build, base, 1).built.model
            if sum(p.numel() for p in model.parameters()) <= LARGEST:
                return _Search(source, base, maker, real=True)
        raise


class _Search:
    """One discovery: the base model, and every field doubled."""

    def __init__(
        self,
        source: ModelSource,
        base: Mapping[str, Any],
        maker: InputMaker | None,
        *,
        real: bool = False,
    ) -> None:
        self._source, self._given = source, dict(base)
        self._known = {**source.constructor_fields(), **base}
        self._fields = {n: v for n, v in self._known.items() if is_scalable(v)}
        self._derived: dict[str, int] = {}
        self._real = real
        shop = build_at(source.build, self._given, 1, real=real)
        self._maker = maker or synthesise(shop)
        self._inputs = self._maker(shop.built.model)
        self._base = self._run(shop)
        if self._base.error is not None:
            raise KnobError(
                f"{source.name} does not run on the example inputs: {describe(self._base.error)}.",
                where=place_of(self._base.error),
                fix="Pass --input NAME:DTYPE[SIZES].",
            )

    def run(self) -> Discovery:
        """Double every field by itself, then settle which of those that grow are width."""
        found = {name: self._look(name) for name in self._fields}
        if not any(f.kind == "main" for f in found.values()):
            found |= self._pairs([n for n, f in found.items() if f.kind.startswith("fails")])
        if any(f.kind == "main" and not f.own_inputs for f in found.values()):
            found = {
                n: replace(f, kind="data: the inputs' size") if f.own_inputs else f
                for n, f in found.items()
            }
        if not any(f.kind == "main" for f in found.values()):
            found |= self._unusual() or self._promoted(found)
        kept, factors = self._without_factors(found)
        main = {a for n in kept if found[n].kind == "main" for a in found[n].axes}
        found |= {n: self._check_inner(n, found[n], main) for n in kept}
        kept = [n for n in kept if found[n].is_width]
        kept = self._jointly(kept, found)
        report = {n: self._report(n, f, kept, factors) for n, f in found.items()}
        if not kept:
            others = untried(self._known, self._fields)
            listing = "; ".join(f"{name} ({text})" for name, text in (report | others).items())
            raise KnobError(
                f"No width knob found in {self._source.name}. "
                f"Doubling its fields did this: {listing or 'it has no integer field'}.",
                where=self._source.file,
                fix="Pass --width NAME --base NAME=VALUE.",
            )
        values = {n: size for n, size in self._derived.items() if n in kept}
        return Discovery(tuple(kept), report, values)

    # --- probes -------------------------------------------------------------------------------

    def _run(self, shop: Workshop) -> Probe:
        shapes = {w.name: w.shape for w in shop.built.weights}
        error: Exception | None = None
        for own in (False, True):
            try:
                inputs = self._maker(shop.built.model) if own else self._inputs
                trace = shop.run(Variant(), inputs)
            except Exception as raised:
                error = error or raised
                continue
            return Probe(shapes, *shapes_of(trace), None, error is not None)
        return Probe(shapes, error=error)

    def _shop(self, values: Mapping[str, Any]) -> Workshop:
        return Workshop(lambda: self._source.build({**self._given, **values}), real=self._real)

    def _probe(self, factors: Mapping[str, int]) -> Probe:
        return self._probe_at({n: scaled(self._fields[n], k) for n, k in factors.items()})

    def _probe_at(self, values: Mapping[str, Any]) -> Probe:
        try:
            shop = self._shop(values)
        except Exception as error:
            return Probe({}, error=error)
        return self._run(shop)

    def _look(self, *names: str) -> _Finding:
        """What doubling does; tripling decides where a coincidence of sizes hides structure."""
        probe = self._probe(dict.fromkeys(names, 2))
        if not probe.shapes and probe.error is not None:
            return _Finding(f"fails when doubled: {probe.said}", {})
        if probe.shapes.keys() != self._base.shapes.keys():
            probe = self._probe(dict.fromkeys(names, 3))
        if probe.shapes.keys() != self._base.shapes.keys():
            return _Finding("depth or a count: adds parameters", {})
        axes = self._base.grown(probe)
        kind = self._kind(probe, axes)
        if kind == "main" and probe.own_inputs and self._is_list(*names):
            kind = "data: holds the inputs' size beside widths, which need an argument of their own"
        return _Finding(kind, axes, probe.own_inputs)

    def _is_list(self, *names: str) -> bool:
        return any(isinstance(self._fields[n], list | tuple) for n in names)

    def _kind(self, probe: Probe, axes: Axes) -> str:
        base = self._base
        twice = _on_two_axes(axes)
        if probe.shapes == base.shapes:
            return "no weight changes" if probe.runs else f"fails when doubled: {probe.said}"
        if (not probe.runs or probe.own_inputs) and not twice:
            return "data: the inputs no longer fit"
        if not probe.runs:
            return f"fails when doubled: {probe.said}"
        # only the first output: others may be hidden states, as wide as the model
        if probe.outputs[:1] != base.outputs[:1] and not twice:
            return "data: the output's size"
        if probe.activations == base.activations:
            return "a table or a longest length: no activation changes"
        if any(s[2:] != probe.shapes[n][2:] for n, s in base.shapes.items() if n in base.kernels):
            return "a kernel size"
        if min(axes.values()) < 1:
            return "splits an axis, as a number of heads does"
        if not twice and _stacks_only(base.shapes, axes):
            return "a number of stacked experts or heads"
        return "main" if twice else "inner"

    # --- choices ------------------------------------------------------------------------------

    def _pairs(self, names: Sequence[str]) -> dict[str, _Finding]:
        """Fields that only grow together: d_model with heads of a fixed size, say."""
        for pair in itertools.combinations(names, 2):
            finding = self._look(*pair)
            if finding.kind == "main":
                return dict.fromkeys(pair, finding)
        return {}

    def _unusual(self) -> dict[str, _Finding]:
        """Without a number that is a width: a fraction of it, or a field that derives from it."""
        self._derived = derived(self._known, self._base.shapes, self._shapes_with)
        for fields in (fractions(self._known), self._derived):
            self._fields |= fields
            found = {name: self._look(name) for name in fields}
            if any(f.kind == "main" for f in found.values()):
                return {n: f for n, f in found.items() if f.kind == "main"}
        return {}

    def _shapes_with(self, values: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
        try:
            shop = self._shop(values)
        except Exception:
            return {}
        return {w.name: w.shape for w in shop.built.weights}

    def _promoted(self, found: Mapping[str, _Finding]) -> dict[str, _Finding]:
        """Without a square weight: the field that scales most, if others scale its partners."""
        inner = {n: f for n, f in found.items() if f.kind == "inner"}
        if len(inner) > 1 and not _on_two_axes({a for f in inner.values() for a in f.axes}):
            return {}
        best = sorted(inner, key=lambda n: -len(inner[n].axes))[:1]
        return {n: replace(inner[n], kind="main") for n in best}

    def _check_inner(self, knob: str, finding: _Finding, main: set[tuple[str, int]]) -> _Finding:
        """An inner width lies between axes of a main width, and is no bottleneck."""
        if finding.kind != "inner":
            return finding
        shapes, partners = self._base.shapes, dict[tuple[str, int], int]()
        for name, axis in finding.axes:
            sizes = [shapes[name][a] for a in range(len(shapes[name])) if (name, a) in main]
            if sizes:
                partners[name, axis] = max(sizes)
        problem = ""
        if len({name for name, _ in self._matrices(finding)}) < 2:
            problem = "only one weight grows, as with a number of latents"
        elif not partners:
            problem = "between axes that do not grow"
        elif len(set(finding.axes.values())) > 1:
            problem = "a part of other sizes, as a state size"
        elif max(finding.axes.values()) < 2 and len({a for _, a in self._matrices(finding)}) == 1:
            problem = "a part of sizes that nothing reads by itself, as heads of keys and values"
        elif max(finding.axes.values()) < A_PART:
            problem = "a small part of other sizes, as what they are rounded to"
        elif not any(shapes[n][axis] >= partner for (n, axis), partner in partners.items()):
            problem = "a bottleneck"
        elif self._rounds(knob, finding):
            problem = "sizes are rounded to multiples of it"
        return replace(finding, kind=f"ambiguous: {problem}") if problem else finding

    def _matrices(self, finding: _Finding) -> list[tuple[str, int]]:
        """The axes of matrices that a field scales."""
        return [(n, axis) for n, axis in finding.axes if len(self._base.shapes[n]) > 1]

    def _rounds(self, name: str, finding: _Finding) -> bool:
        """Whether a smaller value takes less off some axis than a straight line would."""
        value, shapes = self._fields[name], self._base.shapes
        for less in (1, value // 2) if type(value) is int and value > 1 else ():
            probe = self._probe_at({name: less})
            if not probe.runs or probe.shapes.keys() != shapes.keys():
                continue
            for (n, axis), growth in finding.axes.items():
                size, slope = shapes[n][axis], shapes[n][axis] * (growth - 1) / value
                if size - probe.shapes[n][axis] < slope * (value - less) - 1e-6:
                    return True
        return False

    def _without_factors(self, found: Mapping[str, _Finding]) -> tuple[list[str], dict[str, str]]:
        """Width knobs, most axes first, without those that multiply the axes of another."""
        kept: list[str] = []
        factors: dict[str, str] = {}
        names = [n for n, f in found.items() if f.is_width]
        for name in sorted(names, key=lambda n: (found[n].kind != "main", -len(found[n].axes))):
            partners = [o for o in kept if found[o].axes.keys() & found[name].axes.keys()]
            partners = [o for o in partners if found[o] is not found[name]]
            shared = {a for o in partners for a in found[o].axes} & found[name].axes.keys()
            both = self._probe(dict.fromkeys([name, *kept], 2)) if partners else self._base
            same = both.shapes.keys() == self._base.shapes.keys()
            axes = self._base.grown(both) if same else {}
            if max((axes.get(a, 1) for a in shared), default=1) >= 4:
                factors[name] = partners[0]
            else:
                kept.append(name)
        return kept, factors

    def _jointly(self, kept: list[str], found: Mapping[str, _Finding]) -> list[str]:
        """The longest list of knobs that grows together; inner ones are given up first."""
        last: Exception | None = None
        for size in range(len(kept), 0, -1):
            problem = self._misfit(kept[:size])
            if problem is None:
                return kept[:size]
            last = problem
            if found[kept[size - 1]].kind == "main":
                break
        if last is not None:
            raise KnobError(
                f"{', '.join(kept)} look like width, but do not grow together: {describe(last)}.",
                where=place_of(last) or self._source.file,
                fix="Choose with --width NAME, or other sizes with --base NAME=VALUE.",
            ) from last
        return []

    def _misfit(self, names: Sequence[str]) -> Exception | None:
        """Why these knobs cannot grow ×2, and ×3 or ×4, together; None if they can."""
        problems: dict[int, Exception | None] = {}
        for k in (2, 3, 4):
            if k == 4 and problems[3] is None:
                break
            probe = self._probe(dict.fromkeys(names, k))
            problems[k] = probe.error
            if probe.runs:
                axes = (
                    self._base.grown(probe)
                    if probe.shapes.keys() == self._base.shapes.keys()
                    else {}
                )
                if not axes or min(axes.values()) < 1:
                    problems[k] = ValueError(f"at ×{k} the weights' axes do not all grow")
        return problems[2] or problems.get(4, problems[3])

    def _report(
        self, name: str, finding: _Finding, kept: Sequence[str], factors: Mapping[str, str]
    ) -> str:
        if name in factors:
            return f"a factor of what {factors[name]} scales"
        if not finding.is_width:
            return finding.kind
        weights = len({parameter for parameter, _ in finding.axes})
        text = f"width: scales {weights} of {len(self._base.shapes)} weights"
        return text if name in kept else f"ambiguous: {text}, but not together with the others"


def _on_two_axes(axes: Iterable[tuple[str, int]]) -> bool:
    names = [name for name, _ in axes]
    return len(names) > len(set(names))


def _stacks_only(shapes: Mapping[str, tuple[int, ...]], axes: Axes) -> bool:
    """True if only first axes grew, and those of stacked weights among them."""
    stacked = [n for n, _ in axes if len(shapes[n]) >= 3]
    return bool(stacked) and all(axis == 0 for _, axis in axes)
