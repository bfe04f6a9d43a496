"""One trace: a model built at one width and run once, without its weights."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from automup.capture.caches import forget_tensors, without_caches
from automup.capture.draws import Draw, draw_of
from automup.capture.flex import opened_flex_attention
from automup.capture.graph import Node
from automup.capture.ground import one_thread
from automup.capture.guest import one_process
from automup.capture.init_laws import UNKNOWN, InitRecorder, Law
from automup.capture.meta import SHADOW_LIMIT, without_weights
from automup.capture.nested import tensors_of, with_tensors
from automup.capture.reads import Guess
from automup.capture.real import on_real_tensors
from automup.capture.recorder import GraphRecorder, returned_tensors
from automup.capture.restored import Belongings
from automup.errors import EndlessError, KnobError

LATE_INITS = ("initialize_weights", "init_weights", "reset_parameters")
"""Methods that models built on meta are initialised by, after the constructor."""


@dataclass(frozen=True)
class Inputs:
    """The arguments of one forward call."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


Forced = tuple[tuple[str, bool | str | int], ...]
"""Attributes held at a value, on every module that sets them: ((name, value), ...)."""


@dataclass(frozen=True)
class Variant:
    """One way to run a model: mode, attributes forced, optional inputs given."""

    training: bool = False
    forced: Forced = ()
    extra: tuple[tuple[str, Any], ...] = ()
    """Optional arguments of forward: ((name, tensor), ...)."""

    def __str__(self) -> str:
        parts = ["train" if self.training else "eval"]
        parts += [f"{name}={value}" for name, value in self.forced]
        parts += [f"with {name}" for name, _ in self.extra]
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

    nodes: tuple[Node, ...]
    guesses: tuple[Guess, ...]
    lines: frozenset[tuple[str, int]]


class Workshop:
    """A model built once and run as often as one likes, without its weights; one per width.

    Args:
        build: makes the model.
        forced: attributes that modules are made to hold, whatever their code sets.
        real: run on real tensors, for models that the meta device cannot run.
        limit: how many entries a tensor may have whose value is computed on the way.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        forced: Forced = (),
        *,
        real: bool = False,
        limit: int = SHADOW_LIMIT,
    ) -> None:
        self._recorder = InitRecorder()
        self._real, self._limit = real, limit
        self._build = build
        self._forced = dict(forced)
        self._mode: Any = None
        self.built = self._construct()

    @contextlib.contextmanager
    def _ground(self) -> Iterator[Any]:
        """The mode that the model is built and run under; it keeps what it knows."""
        ground: Any = on_real_tensors()
        if not self._real:
            ground = without_weights(self._recorder.on_meta_init, self._limit)
        fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # it would hide the operations inside
        try:
            stance = torch.compiler.set_stance("force_eager")
            with stance, one_thread(), opened_flex_attention(), ground as mode:
                if self._mode is not None:
                    mode.adopt(self._mode)
                self._mode = mode
                yield mode
        finally:
            torch.backends.mha.set_fastpath_enabled(fast_path)

    def _construct(self) -> Build:
        late = ""
        with self._ground() as mode, mode.watched_by(self._recorder.watch), _holding(self._forced):
            model = self._build()
            if not isinstance(model, nn.Module):
                raise TypeError(f"the model function returned {type(model).__name__}")
            _check_readable(model)
            if not all(self._recorder.law(p).known for p in model.parameters()):
                late = _call_late_init(model)
        forget_tensors(model)
        self._values: dict[int, torch.Tensor | None] = {}
        for parameter in model.parameters():
            if not self._recorder.law(parameter).whole:
                self._values[id(parameter)] = self._mode.value_behind(parameter)
            self._mode.forget(parameter)
        names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        weights = tuple(
            WeightFact(tuple(names[id(p)]), tuple(p.shape), self._recorder.law(p))
            for p in model.parameters()
        )
        self._belongings = Belongings(model)
        return Build(model, weights, late)

    def draw_of(self, tensor: torch.Tensor) -> Draw:
        """How a parameter, buffer or other tensor of the model starts, before anything has run."""
        value = self._values.get(id(tensor), self._mode.value_behind(tensor))
        return draw_of(self._recorder, tensor, value)

    def laws_of(self, method: str) -> dict[str, Law]:
        """How a method of the model draws its weights anew, by the names of those that it draws."""
        before, self._recorder = self._recorder, InitRecorder()
        model = self.built.model
        with self._ground() as mode, mode.watched_by(self._recorder.watch):
            getattr(model, method)()
        after, self._recorder = self._recorder, before
        laws = {name: after.law(p) for name, p in model.named_parameters()}
        return {name: law for name, law in laws.items() if law != UNKNOWN}

    @contextlib.contextmanager
    def _ready(self, variant: Variant, inputs: Inputs) -> Iterator[tuple[Any, Any, Any]]:
        """The mode to run under and the arguments. The model is left as it was."""
        model = self.built.model
        with (
            without_caches(model),
            self._belongings.restored(self._mode),
            one_process(),
            self._ground() as mode,
            _in_mode(model, variant.training),
        ):
            given = (tuple(inputs.args), {**inputs.kwargs, **dict(variant.extra)})
            args, kwargs = with_tensors(given, mode.admit)
            yield mode, args, kwargs

    def run(self, variant: Variant, inputs: Inputs, *, record_lines: bool = False) -> Trace:
        """Run one forward pass and record it."""
        model = self.built.model
        lines: set[tuple[str, int]] = set()
        with self._ready(variant, inputs) as (mode, args, kwargs):
            recorder = GraphRecorder(model, mode, self._recorder.law)
            for name, tensor in _named_tensors(model, args, kwargs):
                recorder.placeholder(name, tensor)
            with recorder.recording(), mode.recording_lines(lines) if record_lines else _nothing():
                result = model(*args, **kwargs)
            recorder.outputs(result)
        return Trace(tuple(recorder.nodes), tuple(mode.guesses), frozenset(lines))

    def scout(self, variant: Variant, inputs: Inputs) -> frozenset[tuple[str, int]]:
        """The lines of user files that one forward pass executes; nothing else is recorded.

        Raises:
            CaptureError: if it returns nothing that could be trained on.
        """
        lines: set[tuple[str, int]] = set()
        with self._ready(variant, inputs) as (mode, args, kwargs), mode.recording_lines(lines):
            result = self.built.model(*args, **kwargs)
        returned_tensors(result)
        return frozenset(lines)

    def try_forward(self, inputs: Inputs) -> Exception | None:
        """Run forward in eval mode; the exception that it raised, if it did."""
        try:
            with self._ready(Variant(), inputs) as (_, args, kwargs):
                returned_tensors(self.built.model(*args, **kwargs))
        except EndlessError:  # other inputs would take as long
            raise
        except Exception as error:
            return error
        return None


def _check_readable(model: nn.Module) -> None:
    """Refuse a module that hides its code, and weights without a shape."""
    if isinstance(model, torch.jit.ScriptModule):
        raise KnobError(
            f"The model is scripted ({type(model).__name__}), which hides its code.",
            fix="Build it without torch.jit, and script it afterwards.",
        )
    lazy = next((n for n, p in model.named_parameters() if is_lazy(p)), None)
    if lazy is not None:
        raise KnobError(
            f"{lazy} is lazy: it has no shape before a first call.",
            fix="Give its layer the input's size: nn.Linear(64, width) for nn.LazyLinear(width).",
        )


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
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put the model into train or eval mode, and back."""
    modes = [(m, m.training) for m in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _holding(forced: Mapping[str, Any]) -> Iterator[None]:
    """Make every module that sets one of these attributes, to its type, hold the forced value."""
    if not forced:
        yield
        return
    original = nn.Module.__setattr__

    def set_forced(module: nn.Module, name: str, value: Any) -> None:
        held = name in forced and type(value) is type(forced[name])
        original(module, name, forced[name] if held else value)

    nn.Module.__setattr__ = set_forced  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.__setattr__ = original  # type: ignore[method-assign]


def _named_tensors(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The input tensors with the names of forward's parameters."""
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except TypeError:
        bound = {f"arg{i}": a for i, a in enumerate(args)} | dict(kwargs)
    for name, value in bound.items():
        leaves = list(tensors_of(value))
        for i, leaf in enumerate(leaves):
            yield (name if len(leaves) == 1 else f"{name}_{i}"), leaf


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield
