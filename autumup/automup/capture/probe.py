"""One model built at some values of its fields and run once: the sizes of everything in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from automup.capture.raised import describe
from automup.capture.trace import Trace


@dataclass(frozen=True)
class Probe:
    """A model built at some values and run: its weights' shapes, its activations', its outputs'."""

    shapes: Mapping[str, tuple[int, ...]]
    activations: tuple[tuple[int, ...], ...] = ()
    outputs: tuple[tuple[int, ...], ...] = ()
    kernels: frozenset[str] = frozenset()
    error: Exception | None = None
    own_inputs: bool = False
    """It did not run on the base's inputs, but does on inputs made for it."""

    @property
    def runs(self) -> bool:
        return self.error is None

    @property
    def said(self) -> str:
        """What it failed with."""
        return describe(self.error) if self.error is not None else "nothing"

    def grown(self, other: Probe) -> dict[tuple[str, int], float]:
        """The axes that another probe has larger or smaller, kernels left out."""
        return {
            (name, axis): new / old
            for name, shape in self.shapes.items()
            for axis, (old, new) in enumerate(zip(shape, other.shapes[name], strict=False))
            if old != new and not (name in self.kernels and axis >= 2)
        }


def shapes_of(trace: Trace) -> tuple[Any, Any, frozenset[str]]:
    """Shapes of what depends on the inputs, shapes of the outputs, convolution weights."""
    live: set[Any] = set()
    kernels: set[str] = set()
    activations: list[tuple[int, ...]] = []
    for node in trace.nodes:
        inputs = node.all_input_nodes
        if node.op == "placeholder" or any(n in live for n in inputs):
            live.add(node)
            if node.fact.floating:
                activations.append(node.fact.shape)
        if node.op == "call_function" and node.target is torch.ops.aten.convolution.default:
            kernels.update(n.parameter for n in inputs[1:2] if n.parameter)
    output = next(n for n in reversed(trace.nodes) if n.op == "output")
    shapes = tuple(n.fact.shape for n in output.all_input_nodes)
    return tuple(activations), shapes, frozenset(kernels)
