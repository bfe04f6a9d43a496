"""A model compared with itself at another width, in every variant that reaches other code."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any

from torch import nn

from automup.analysis.comparison import Comparison, combine
from automup.analysis.dataflow import align
from automup.analysis.sites import Analysis, analyse
from automup.analysis.weights import WeightSummary
from automup.capture.graph import Node
from automup.capture.inputs import optional_candidates
from automup.capture.memory import short_lived
from automup.capture.runs import Runs
from automup.capture.trace import Forced, Trace, Variant, Workshop
from automup.capture.values import said
from automup.capture.variants import Exploration, absorbed, explore, together
from automup.errors import AutomupError, CaptureError
from automup.models import Knobs, Models, key_of
from automup.overrides import Fans, Overrides, settled


class Variations:
    """The ways to run a model, each traced at the base, and what other widths say against it.

    Args:
        models: the model at any width.
        overrides: what the user says of some parameters.
        exploration: the ways to run it, if they are known; found when left out.
    """

    def __init__(
        self, models: Models, overrides: Overrides, exploration: Exploration | None = None
    ) -> None:
        self._models, self._overrides = models, overrides
        self._analysed: dict[tuple[str, int], Analysis] = {}
        self._weights_of: dict[int, Mapping[str, WeightSummary]] = {}
        if exploration is not None:
            self.__dict__["exploration"] = exploration

    # --- the ways to run it -------------------------------------------------------------------

    def as_set(self) -> Variations:
        """Without the variants that flip the author's settings."""
        reached = tuple((v, t) for v, t in self.exploration.reached if not v.forced)
        return Variations(self._models, self._overrides, Exploration(reached))

    @property
    def flips(self) -> bool:
        """Whether any variant has other settings than the author's."""
        return any(variant.forced for variant in self.exploration.variants)

    @cached_property
    def exploration(self) -> Exploration:
        """The variants that reach all the code that can be reached."""
        models, base = self._models, self._models.base
        given = models.inputs(models.at_base)
        optional: dict[str, list[Any]] = {}
        for name, tensor in optional_candidates(models.at_base, given):
            optional.setdefault(name, []).append(tensor)

        def shop(variant: Variant) -> Workshop:
            return models.shop(base, variant.forced)

        with short_lived(), models.running(base, Variant()):
            tried = {name: tuple(tensors) for name, tensors in optional.items()}
            runs = Runs(shop, models.inputs)
            reached = explore(runs, tried)
            joint = together(reached, runs)
            last = joint[-1:] if len(joint) < len(reached) else ()
            if last and self._runs_wider(last[0], runs.trace(last[0])):
                reached = joint[:-1]
            else:
                last = ()
            traces = [(v, runs.trace(v)) for v in reached]
            wider = [(v, t) for v, t in traces if v == Variant() or self._runs_wider(v, t)]
            wider += [(v, runs.trace(v)) for v in last]
            return Exploration(absorbed([(v, t) for v, t in wider if t is not None]))

    def _runs_wider(self, variant: Variant, at_base: Trace | None) -> bool:
        """Whether a guessed way to run the model works at twice the base too.

        The analysis is kept for :meth:`compare`, or left to it where it fails: it says why. A model
        with other settings than the user's is worth a look only where it can be resolved.
        """
        wide = self._models.wide
        if at_base is None:
            return False
        try:
            wider = self._models.run(wide, variant)
        except AutomupError:  # an optional input that fits the base alone is no way to run it
            return False
        ready = None
        with contextlib.suppress(AutomupError):
            ready = self._analyse(wide, at_base, wider, {})
            self._analysed[key_of(wide), id(at_base)] = ready
        return not variant.forced or (ready is not None and not ready.faults and not ready.opaque)

    # --- the base against another width -------------------------------------------------------

    def compare(self, knobs: Knobs, numbers: Sequence[int] | None = None) -> Comparison:
        """The base against a model at other knobs, in all variants or in those of the numbers."""
        return self._compare(knobs, self.fans, numbers)

    def _compare(
        self, knobs: Knobs, fans: Mapping[str, Fans], numbers: Sequence[int] | None = None
    ) -> Comparison:
        with short_lived():
            reached = self.exploration.reached
            reached = reached if numbers is None else tuple(reached[n] for n in numbers)
            return combine(tuple(self._analysis(knobs, v, trace, fans) for v, trace in reached))

    def _analysis(
        self, knobs: Knobs, variant: Variant, at_base: Trace, fans: Mapping[str, Fans]
    ) -> Analysis:
        ready = self._analysed.pop((key_of(knobs), id(at_base)), None) if not fans else None
        if ready is not None:
            return ready
        with short_lived():  # the wider trace is not needed any more
            wider = self._models.run(knobs, variant)
            try:
                return self._analyse(knobs, at_base, wider, fans)
            except CaptureError:
                self._check_steady(variant, at_base)
                raise

    def _check_steady(self, variant: Variant, at_base: Trace) -> None:
        """Refuse a model that differs from itself at one width, before the width is blamed."""
        try:
            for _ in range(2):  # every other run may be the same
                align(at_base.nodes, self._models.run(self._models.base, variant).nodes)
        except CaptureError as error:
            raise CaptureError(
                "The model does different things each time it is run.",
                where=error.where,
                fix="What runs must not depend on random numbers or on earlier calls.",
            ) from error

    def _analyse(
        self, knobs: Knobs, at_base: Trace, wider: Trace, fans: Mapping[str, Fans]
    ) -> Analysis:
        at = (said(self._models.base), said(knobs))
        shapes = self._models.shapes(knobs)
        flow = align(at_base.nodes, wider.nodes, at=at)
        known = self._weights_of.get(id(at_base))
        found = analyse(flow, shapes, fans, known).alone()
        self._weights_of.setdefault(id(at_base), found.weights)
        return found

    def with_changes(
        self,
        knobs: Knobs,
        at_base: Callable[[nn.Module], None],
        at_wide: Callable[[nn.Module], None],
    ) -> Comparison:
        """The base against a wider model, where both are changed after they are built."""
        models = self._models

        @cache
        def changed(wide: bool, forced: Forced) -> Workshop:
            shop = models.new_shop(knobs if wide else models.base, forced)
            (at_wide if wide else at_base)(shop.built.model)
            return shop

        def trace(wide: bool, variant: Variant) -> tuple[Node, ...]:
            shop = changed(wide, variant.forced)
            return shop.run(variant, models.inputs(shop.built.model)).nodes

        def analysis(variant: Variant, plain: Trace) -> Analysis:
            flow = align(trace(False, variant), trace(True, variant))
            return analyse(flow, shapes, self.fans, self._weights_of.get(id(plain)))

        shapes = models.shapes(knobs)
        with short_lived():
            return combine(tuple(analysis(v, t) for v, t in self.exploration.reached))

    # --- what the user says -------------------------------------------------------------------

    @cached_property
    def fans(self) -> dict[str, Fans]:
        """The fans that the user gave, by parameter.

        Raises:
            UsageError: an override matches no parameter, or does not fit one's shape.
        """
        models = self._models
        given = self._overrides.matched([w.names for w in models.shop(models.base).built.weights])
        shapes = [models.shapes(models.wide)] if given else []
        for knobs in models.one_by_one() if given else ():
            with contextlib.suppress(AutomupError):
                shapes.append(models.shapes(knobs))
        return settled(given, shapes, self._sums)

    def _sums(self) -> dict[str, frozenset[tuple[int, ...]]]:
        """The dimensions that each parameter's uses sum over, whatever the user says."""
        seen = self._compare(self._models.wide, {}).weights
        return {name: summary.sums for name, summary in seen.items()}
