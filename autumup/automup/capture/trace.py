"""One trace: a model built at one width and run once, without its weights."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_map

from automup.capture.init_laws import UNKNOWN, InitRecorder, Law
from automup.capture.meta import Guess, MetaMode, without_weights
from automup.capture.recorder import GraphRecorder
from automup.capture.source import is_user_file

LATE_INITS = ("initialize_weights", "init_weights", "reset_parameters")
"""Methods that models built on meta are initialised by, after the constructor."""


@dataclass(frozen=True)
class Inputs:
    """The arguments of one forward call."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One way to run the model: its inputs, its mode, boolean attributes set otherwise."""

    inputs: Inputs
    training: bool = False
    flipped: tuple[tuple[str, bool], ...] = ()
    """(attribute name, value) set on every module that has it."""

    def __str__(self) -> str:
        parts = ["train" if self.training else "eval"]
        parts += [f"{name}={value}" for name, value in self.flipped]
        parts += [f"with {name}" for name in self.inputs.kwargs]
        return ", ".join(parts)


@dataclass(frozen=True)
class WeightFact:
    """A parameter of the built model: its names (more than one when tied), shape and init law."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    law: Law

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Build:
    """A model built without its weights, and how its constructor draws them."""

    model: nn.Module
    weights: tuple[WeightFact, ...]
    late_init: str = ""
    """The method that had to be called after the constructor to draw the weights, if one had."""


@dataclass(frozen=True)
class Trace:
    """What one run recorded. ``lines`` are the executed lines of user files."""

    graph: fx.Graph
    guesses: tuple[Guess, ...]
    lines: frozenset[tuple[str, int]]


class Workshop:
    """Builds models and runs them without their weights; one per width."""

    def __init__(self, build: Callable[[], nn.Module], guess_bool: bool = False) -> None:
        self._recorder = InitRecorder()
        self._guess_bool = guess_bool
        self._build = build
        self.built = self._construct()

    @contextlib.contextmanager
    def _weightless(self) -> Iterator[MetaMode]:
        with without_weights(self._guess_bool, self._recorder.on_meta_init) as mode:
            if hasattr(self, "_mode"):
                mode.adopt(self._mode)
            self._mode = mode
            yield mode

    def _construct(self) -> Build:
        late = ""
        with self._weightless(), self._recorder:
            model = self._build()
            if not isinstance(model, nn.Module):
                raise TypeError(f"the model function returned {type(model).__name__}")
            if not all(self._recorder.law(p).known for p in model.parameters()):
                late = _call_late_init(model)
        names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        weights = tuple(
            WeightFact(tuple(names[id(p)]), tuple(p.shape), self._recorder.law(p))
            for p in model.parameters()
        )
        return Build(model, weights, late)

    def run(self, variant: Variant, *, record_lines: bool = False) -> Trace:
        """Run one forward pass and record it. The model is left as it was found."""
        model = self.built.model
        lines: set[tuple[str, int]] = set()
        with self._weightless() as mode, _as_variant(model, variant):
            inputs = tree_map(
                lambda x: mode.to_meta(x) if isinstance(x, torch.Tensor) else x,
                (variant.inputs.args, dict(variant.inputs.kwargs)),
            )
            recorder = GraphRecorder(model, mode)
            for name, tensor in _named_tensors(model, *inputs):
                recorder.placeholder(name, tensor)
            with recorder.recording(), _recording_lines(lines) if record_lines else _nothing():
                result = model(*inputs[0], **inputs[1])
            recorder.outputs(result)
        return Trace(recorder.graph, tuple(mode.guesses), frozenset(lines))

    def try_forward(self, inputs: Inputs) -> Exception | None:
        """Run forward in eval mode; the exception that it raised, if it did."""
        try:
            self.run(Variant(inputs))
        except Exception as error:
            return error
        return None


def _call_late_init(model: nn.Module) -> str:
    """Call the first of the late init methods that the model has; its name, or nothing."""
    for name in LATE_INITS:
        method = getattr(model, name, None)
        if callable(method):
            with contextlib.suppress(TypeError):  # it needs arguments: not ours to guess
                method()
                return name
    return ""


@contextlib.contextmanager
def _as_variant(model: nn.Module, variant: Variant) -> Iterator[None]:
    """Put the model into the variant's mode, and back."""
    modes = [(m, m.training) for m in model.modules()]
    flips = [
        (m, name, vars(m)[name], value)
        for name, value in variant.flipped
        for m in model.modules()
        if isinstance(vars(m).get(name), bool)
    ]
    model.train(variant.training)
    for module, name, _, value in flips:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, old, _ in flips:
            setattr(module, name, old)
        for module, training in modes:
            module.training = training


def _named_tensors(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The input tensors with the names of forward's parameters."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except TypeError:
        bound = {f"arg{i}": a for i, a in enumerate(args)} | dict(kwargs)
    for name, value in bound.items():
        leaves = torch.utils._pytree.tree_leaves(value)
        for i, leaf in enumerate(x for x in leaves if isinstance(x, torch.Tensor)):
            yield (name if len(leaves) == 1 else f"{name}_{i}"), leaf


@contextlib.contextmanager
def _recording_lines(lines: set[tuple[str, int]]) -> Iterator[None]:
    """Record the executed lines of user files."""

    def local(frame: FrameType, event: str, arg: Any) -> Any:
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def enter(frame: FrameType, event: str, arg: Any) -> Any:
        return local(frame, event, arg) if is_user_file(frame.f_code.co_filename) else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield


__all__ = ["UNKNOWN", "Build", "Inputs", "Trace", "Variant", "WeightFact", "Workshop"]
