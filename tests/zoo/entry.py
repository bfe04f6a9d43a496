"""What the zoo holds: models by name, with the knobs that scale them and inputs that run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Inputs = tuple[Any, ...] | dict[str, Any]
ZOO: dict[str, Entry] = {}


@dataclass(frozen=True)
class Entry:
    """One model.

    Args:
        name: unique in the zoo.
        origin: "hand-written" or the PyPI distribution that the model comes from, unmodified.
        build: makes the model from the knobs, by keyword.
        base: the knobs at the base; all of them scale together, by 2, 4 and 8.
        inputs: makes example inputs, the same at every width: positional or by keyword.
        output: the tensor of what forward returns that people read (its movement is measured).
        path: the model's source file, for those that are one; ``convert`` is tried on it.
        fields: what the file itself calls knobs that have another name here.
        expects_refusal: the reason for which automup must refuse it; empty where it must not.
    """

    name: str
    origin: str
    build: Callable[..., nn.Module]
    base: Mapping[str, Any]
    inputs: Callable[[], Inputs]
    output: Callable[[Any], Tensor] | None = None
    path: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    expects_refusal: str = ""

    def knobs(self, times: int) -> dict[str, Any]:
        """The knobs at a multiple of the base."""
        return {name: _times(value, times) for name, value in self.base.items()}

    def fields_of(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """The knobs by the names that the file itself has for them."""
        return {self.fields.get(name, name): value for name, value in knobs.items()}

    def at(self, times: int) -> nn.Module:
        """The model at a multiple of the base, as its author builds it."""
        return self.build(**self.knobs(times))


def _times(value: Any, times: int) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_times(v, times) for v in value)
    return value * times


def register(entry: Entry) -> Entry:
    """Add a model to the zoo."""
    if entry.name in ZOO:
        raise ValueError(f"the zoo has a {entry.name} already")
    ZOO[entry.name] = entry
    return entry
