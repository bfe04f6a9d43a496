"""A model at one width run in one variant or another: first for its lines, then for its trace.

Most guesses at how to run a model reach nothing new, and to see that takes a third of a trace.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from automup.capture.trace import Inputs, Trace, Variant, Workshop

Lines = frozenset[tuple[str, int]]


class Runs:
    """What each variant did; those that do not run, or are another model, did nothing.

    Args:
        shop_for: the workshop for a variant's forced attributes.
        inputs_for: the example inputs of a model.

    The plain variant is run at once, and raises what the model raises.
    """

    def __init__(
        self,
        shop_for: Callable[[Variant], Workshop],
        inputs_for: Callable[[nn.Module], Inputs],
    ) -> None:
        self._shop_for, self._inputs_for = shop_for, inputs_for
        self._lines: dict[str, Lines] = {}
        self._traces: dict[str, Trace | None] = {}
        shop = shop_for(Variant())
        self.model = shop.built.model
        self._weights = _weights(shop)
        first = shop.run(Variant(), inputs_for(self.model), record_lines=True)
        self._traces[_key(Variant())] = first

    def lines(self, variant: Variant) -> Lines:
        """The lines of user files that a variant executes."""
        key = _key(variant)
        trace = self._traces.get(key)
        if trace is not None:
            return trace.lines
        if key not in self._lines:
            self._lines[key] = self._scouted(variant)
        return self._lines[key]

    def lines_again(self, variant: Variant) -> Lines:
        """The same of another run: what is only done once (a warning, a cache) says nothing."""
        self._lines[_key(variant)] = self._scouted(variant)
        return self.lines(variant)

    def trace(self, variant: Variant) -> Trace | None:
        """What a variant does, with the lines that it executes."""
        key = _key(variant)
        if key not in self._traces:
            self._traces[key] = self._traced(variant, self._lines.get(key))
        return self._traces[key]

    def _scouted(self, variant: Variant) -> Lines:
        try:
            shop = self._shop_for(variant)
            same = _weights(shop) == self._weights
            inputs = self._inputs_for(shop.built.model)
            return shop.scout(variant, inputs) if same else frozenset()
        except Exception:  # any failure of user code means: this is not a way to run the model
            return frozenset()

    def _traced(self, variant: Variant, lines: Lines | None) -> Trace | None:
        try:
            shop = self._shop_for(variant)
            if _weights(shop) != self._weights:
                return None
            inputs = self._inputs_for(shop.built.model)
            if lines is None:
                return shop.run(variant, inputs, record_lines=True)
            return replace(shop.run(variant, inputs), lines=lines)
        except Exception:  # as above
            return None


def _weights(shop: Workshop) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    return [(w.names, w.shape) for w in shop.built.weights]


def _key(variant: Variant) -> str:
    return str(variant) + repr(variant.extra)
