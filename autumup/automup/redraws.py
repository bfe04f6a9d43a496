"""A method that draws the weights of a model anew, which its constructor may or may not call.

``reset_parameters`` of a graph network, called before every run; ``init_weights`` of a model that
is built on meta. What it draws after muP has rescaled the weights is not in muP.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import nn

from automup.capture.init_laws import Law
from automup.capture.trace import LATE_INITS
from automup.facts import Parameter
from automup.models import Models

SMALL = 1 << 24  # parameters; a larger base model is not built on real tensors


@dataclass(frozen=True)
class Redraw:
    """A method of the model's class that draws weights, and can be called without arguments.

    ``called``: by what builds the model; ``needed``: nothing else draws some of the weights;
    ``weights``: what it draws; ``otherwise``: those of them whose std it scales with width in
    another way than the constructor does.
    """

    cls: type[nn.Module]
    method: str
    called: bool
    needed: bool
    weights: frozenset[str]
    otherwise: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.cls.__name__}.{self.method}"

    @property
    def warning(self) -> str:
        return (
            f"{self.name} draws weights anew, and what builds the model does not call it: weights "
            "that it draws later are not in muP; call it where the model is built"
        )

    def loses(self, parameters: Sequence[Parameter]) -> bool:
        """Whether a later call of the method would undo what muP makes of the init."""
        if self.called:
            return False
        needed = {p.name for p in parameters if p.init_mult != 1.0 or p.parts}
        return not self.weights.isdisjoint({*needed, *self.otherwise})


def find_redraw(models: Models) -> Redraw | None:
    """The method that draws the weights of a model at any width, if its class has one."""
    cls = type(models.at_base)
    method = next((m for m in LATE_INITS if _callable_alone(getattr(cls, m, None))), "")
    if not method:
        return None
    with _counted(cls, method) as calls:
        shop = models.new_shop(models.base)
    needed = shop.built.late_init == method
    called = calls[0] > needed
    if needed and not called and sum(p.numel() for p in shop.built.model.parameters()) < SMALL:
        with _counted(cls, method) as calls, torch.random.fork_rng(devices=[]):
            models.build(models.base)  # on meta some libraries' constructors draw nothing
        called = calls[0] > 0
    shops = shop, models.new_shop(models.wide)
    made = [{w.name: w.law for w in s.built.weights} for s in shops]
    drawn = [s.laws_of(method) for s in shops]
    otherwise = [name for name in drawn[0] if name in drawn[1] and _differs(name, made, drawn)]
    return Redraw(cls, method, called, needed, frozenset(drawn[0]), tuple(otherwise))


def _differs(name: str, made: list[dict[str, Law]], drawn: list[dict[str, Law]]) -> bool:
    first, again = ([laws[name].rms for laws in at] for at in (made, drawn))
    known = all(rms > 0 and math.isfinite(rms) for rms in (*first, *again))
    return known and not math.isclose(first[1] / first[0], again[1] / again[0], rel_tol=1e-3)


@contextlib.contextmanager
def _counted(cls: type, method: str) -> Iterator[list[int]]:
    """How often a method is called in the block."""
    original: Callable[..., Any] = getattr(cls, method)
    own, calls = method in vars(cls), [0]

    def counted(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return original(self, *args, **kwargs)

    setattr(cls, method, counted)
    try:
        yield calls
    finally:
        setattr(cls, method, original)
        if not own:
            delattr(cls, method)


def _callable_alone(method: object) -> bool:
    """Whether it is a method that needs no argument but its instance."""
    if not isinstance(method, FunctionType):
        return False
    rest = [*inspect.signature(method).parameters.values()][1:]
    passed_on = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in passed_on for p in rest)
