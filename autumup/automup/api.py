"""``automup.parametrize``: any function that returns a model, in muP at any width."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from automup import optim
from automup.apply import Change, check_fresh, check_plain, multiply, rescale_init
from automup.capture.given_inputs import as_maker
from automup.constants import NO_CONSTANTS, Constants
from automup.errors import RewriteError, UnresolvedError, UsageError
from automup.facts import Unresolved
from automup.forms import check_form
from automup.initialise import initialise
from automup.optim import check_module
from automup.overrides import Fans, Overrides, matches
from automup.plan import Plan
from automup.planning import make_plan
from automup.queries import tuned
from automup.realise import Realisation, realise
from automup.refusals import described, refusal
from automup.report import Explanation, describe
from automup.rules import Role
from automup.scaled_weights import Place, ReadPlace, find_places, scales_of
from automup.study import Study, open_study
from automup.targets import check_shapes, knobs_of_function, knobs_of_model, target_of
from automup.tuning import check_constants

if TYPE_CHECKING:
    from automup.check import Check
    from automup.data import Data
    from automup.sweep.results import SweepResult
    from automup.sweep.transfer import Transfer


def parametrize(
    model_fn: Callable[..., nn.Module],
    *,
    base: Mapping[str, Any] | int | None = None,
    inputs: Any = None,
    strict: bool = True,
    overrides: Mapping[str, Role | Fans] | None = None,
    constants: Constants = NO_CONSTANTS,
    form: str = "default",
) -> Mup:
    """Put a model into the maximal update parametrization, at any width.

    The model is traced at its base width, at twice the base, and at a third width that verifies
    what the first two say. No large weight is ever allocated for it.

    Args:
        model_fn: any callable that returns an ``nn.Module``.
        base: the values of the width knobs at which muP equals SP, by keyword of ``model_fn``.
            Left out, the knob is its first parameter, at its default (256 without a default).
        inputs: a tuple of example tensors, a dict of keyword tensors, or a callable of the model
            that returns either. Left out, they are found from forward's signature.
        strict: refuse (the default) what could not be resolved, or leave it alone: a warning says
            what, and so do ``unresolved`` and the plan.
        overrides: what some parameters are, in place of what the analysis says: by pattern of
            their names (``*`` stands for any characters but a dot, ``**`` for any at all) a
            :class:`Role`, or :class:`Fans` where a role does not tell which dimension is which.
        constants: what was tuned at the base beside the learning rate, see :class:`Constants`.
        form: where the factors of weights stand. "default": in init and learning rate.
            "uniform-lr", "uniform-lr-sgd": in multipliers of the forward pass, so that all groups
            share one learning rate, for Adam's family or for SGD's. "table8": a readout is
            multiplied by 1 / fan_in and drawn and trained as at the base (Tensor Programs V, Table
            8), as mup does. All train the same function (the abc-symmetry, section J.2.1).

    Raises:
        KnobError: if the model cannot be built at the widths that are needed.
        InputError: if no example input makes it run.
        CaptureError: if it does different things at different widths.
        UsageError: if a width is not positive; if an override matches no parameter, or does not
            fit one's shape; if a constant has no place in the model.
        UnresolvedError: if something mixes an infinite axis in an unknown way (unless not strict).
        RewriteError: if a multiplier has no place in the live model.
    """
    knobs = knobs_of_function(model_fn, base)
    study = open_study(
        lambda values: model_fn(**values),
        knobs,
        as_maker(inputs) if inputs is not None else None,
        overrides=Overrides.of(overrides),
    )
    mu = Mup(study, model_fn, strict=strict, form=check_form(form)).with_constants(constants)
    if study.redraw and study.redraw.loses(mu.plan(**study.wide).parameters):
        warnings.warn(f"{study.redraw.warning}.", stacklevel=2)
    return mu


def _on_cpu() -> contextlib.AbstractContextManager[Any]:
    """What a study builds is real, also under ``torch.device("meta")``, as its caller may be."""
    away = torch.get_default_device().type != "cpu"
    return torch.device("cpu") if away else contextlib.nullcontext()


class Mup:
    """A model function in muP: call it with a width to get the model. See :func:`parametrize`."""

    def __init__(
        self,
        study: Study,
        model_fn: Callable[..., nn.Module],
        *,
        strict: bool,
        form: str = "default",
    ) -> None:
        self._study, self._model_fn, self._strict, self.form = study, model_fn, strict, form
        self._plans: dict[str, Plan] = {}
        self._realisation: Realisation = self._checked()
        self.constants = NO_CONSTANTS

    def with_constants(self, constants: Constants) -> Mup:
        """The same with other constants; it shares all that was found out of the model.

        Raises:
            UsageError: if one of them has no place in the model.
        """
        if not isinstance(constants, Constants):
            raise UsageError(
                f"constants is a {type(constants).__name__}.",
                fix="Pass automup.Constants(output_mult=2), or so.",
            )
        check_constants(self._study, constants)
        tuned = copy(self)
        tuned.constants = constants
        for name in ("_any_plan", "_places"):
            tuned.__dict__.pop(name, None)
        tuned._places  # noqa: B018
        return tuned

    def _checked(self) -> Realisation:
        """The realisation; without flipped settings where only those cannot be resolved.

        The code that they alone reach then counts as code that no trace ran.
        """
        try:
            return self._realised()
        except (UnresolvedError, RewriteError):
            if not self._study.flips:
                raise
            flipped, self._study = self._study, self._study.as_set()
            with contextlib.suppress(UnresolvedError, RewriteError):
                return self._realised()
            self._study = flipped
            raise

    def _realised(self) -> Realisation:
        if self.unresolved and self._strict:
            names = [w.name for w in self._study.models.shop(self.base).built.weights]
            raise refusal(self.unresolved, names)
        if self.unresolved:
            warnings.warn(f"Left alone: {described(self.unresolved)}.", stacklevel=4)
        return realise(self._study)

    @property
    def unresolved(self) -> tuple[Unresolved, ...]:
        """What the analysis could not resolve and ``strict=False`` left alone."""
        return self._study.exponents.unresolved

    @property
    def study(self) -> Study:
        """What was found out of the model."""
        return self._study

    @property
    def base(self) -> dict[str, Any]:
        """The width knobs' values at which muP equals SP."""
        return dict(self._study.base)

    def __call__(self, *args: Any, **knobs: Any) -> nn.Module:
        """The model at these knobs, in muP: the same class, the same state_dict keys."""
        target = target_of(self.base, args, knobs)
        model = self._model_fn(**target)
        self._apply(model, target, rescale=True)
        return model

    def apply(self, model: nn.Module, *, rescale: bool = True, **knobs: Any) -> nn.Module:
        """Put a model that was built elsewhere into muP, in place, and return it.

        Args:
            model: an instance of the same model at some width, freshly initialised.
            rescale: multiply its weights by the init factors. Pass False for loaded weights.
            knobs: the widths that it was built with; read off its shapes when left out.

        Raises:
            PlanError: if its parameters are not those of the parametrized model at these knobs.
            UsageError: if it is in muP already, or if weights to rescale are not as its
                constructor draws them.
        """
        check_module(model)
        target = self._target_of(model, knobs)
        check_shapes(self._study.models, model, target)
        models, changes = self._study.models, self._changes(target)
        changed = target != self.base or self.constants.changed
        check_plain(model, models.shop(target).built.model, changes)
        if rescale and changed:
            laws = {w.name: w.law for w in models.shop(target).built.weights}
            trusted = {name for name, seen in models.laws.items() if all(x.whole for _, x in seen)}
            check_fresh(model, {name: law for name, law in laws.items() if name in trusted})
        self._apply(model, target, rescale=rescale)
        return model

    def init_(
        self, model: nn.Module, *, seed: int | None = None, leave: Sequence[str] = (), **knobs: Any
    ) -> nn.Module:
        """Draw a model's weights where they lie, in muP, and return it; for models built on meta.

        ::

            with torch.device("meta"):
                model = mu(8192)
            fully_shard(model)              # or not
            model.to_empty(device="cuda")
            mu.init_(model)

        Weights follow the laws by which the constructor draws them, times muP's factors; buffers
        get the values that the constructor gives them. The same seed makes the same weights,
        however often it is called and however the model is sharded (on one kind of device), and no
        process ever holds more of a weight than its shard.

        Args:
            model: the model in muP; in several processes, all of them call this together.
            seed: of all draws. Left out, it is drawn from torch's global generator; processes
                that share a sharded model then agree on one.
            leave: patterns of names to leave alone (``*`` is any characters but a dot, ``**`` any).
            knobs: the widths that it was built with; read off its shapes when left out.

        Raises:
            UsageError: a parameter is on the meta device still; a pattern matches nothing.
            PlanError: the model is another, or of other widths.
            UnresolvedError: how the constructor makes a tensor could not be followed; names it.
        """
        if isinstance(leave, str):
            raise UsageError("leave is one text.", fix='Pass several: leave=["head.*"].')
        if seed is not None and not hasattr(seed, "__index__"):
            raise UsageError(f"seed is {seed!r}.", fix="Pass a whole number.")
        target = self._target_of(model, knobs)
        plan = self.plan(**target)
        names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
        for pattern in leave:
            if not any(matches(pattern, name) for name in names):
                raise UsageError(
                    f"leave: {pattern!r} matches no tensor of the model.",
                    fix=f"Its names are {', '.join(names[:3])}, …",
                )

        def left(name: str) -> bool:
            return any(matches(pattern, name) for pattern in leave)

        with _on_cpu():
            initialise(model, plan, self._study.models, left=left, seed=seed)
        return model

    def _apply(self, model: nn.Module, target: dict[str, Any], *, rescale: bool) -> None:
        if target == self.base and not self.constants.changed:
            return
        if rescale:
            rescale_init(model, self.plan(**target))
        multiply(model, self._changes(target))

    @cached_property
    def _places(self) -> tuple[Place | ReadPlace, ...]:
        """Where the factors go that the form takes out of the learning rates."""
        if self.form == "default":
            return ()
        models, reached = self._study.models, self._study.exploration.reached
        widths = [models.third, *(knobs for knobs, _ in self._study.probes)]
        plans = [self.plan(**knobs) for knobs in widths]
        with _on_cpu():
            traces, lines = [t.nodes for _, t in reached], self._study.exploration.lines
            return find_places(models, plans, traces, lines)

    def _changes(self, target: dict[str, Any]) -> tuple[Change, ...]:
        """The multipliers of a model at a target."""
        scales = scales_of(self.plan(**target)) if self._places else {}
        stored = (change for place in self._places for change in place.changes(scales))
        return (*self._site_changes(target), *stored)

    def _site_changes(self, target: dict[str, Any]) -> tuple[Change, ...]:
        if self.constants.changed:
            with _on_cpu():
                return self._realisation.tuned(target, self.constants)
        if target == self.base:
            return ()
        with _on_cpu():
            return self._realisation.at(target)

    def plan(self, *args: Any, **knobs: Any) -> Plan:
        """The plan at these knobs: every fact about every parameter and site."""
        target = target_of(self.base, args, knobs)
        key = repr(target)
        if key not in self._plans:
            with _on_cpu():
                self._plans[key] = make_plan(self._study, target)
        plan = self._plans[key]
        if self.constants.changed:
            with _on_cpu():
                plan = tuned(self._study, plan, self.constants)
        return plan if self.form == "default" else plan.with_form(self.form)

    def explain(self, *args: Any, optimizer: str = "adamw", **knobs: Any) -> Explanation:
        """What muP does to every parameter at these knobs; prints as a table."""
        return describe(self.plan(*args, **knobs), optimizer)

    def optimizer(
        self,
        model: nn.Module,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        **settings: Any,
    ) -> torch.optim.Optimizer:
        """An optimizer with muP's groups; see :func:`automup.optim.optimizer`."""
        made: torch.optim.Optimizer = optim.optimizer(
            self._any_plan, model, optimizer_class, **settings
        )
        return made

    def param_groups(
        self,
        model: nn.Module,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        **settings: Any,
    ) -> list[dict[str, Any]]:
        """muP's parameter groups as plain dicts; see :func:`automup.optim.param_groups`."""
        return optim.param_groups(self._any_plan, model, optimizer_class, **settings)

    def check(
        self,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW,
        *,
        lr: float | None = None,
        widths: Sequence[float] = (),
        seeds: int = 3,
        steps: int = 3,
        data: Data | None = None,
    ) -> Check:
        """The coordinate check: does training move every activation alike at all widths.

        Trains the model a few steps, in muP and in SP, at multiples of a small base.

        Args:
            optimizer_class: what it is trained with.
            lr: the learning rate at the base; 2e-3 for Adam's family and 0.05 for SGD's.
            widths: multiples of the small base; 1, 2, 4 and 8, or to 4 for a large model.
            seeds: how many times each width is trained.
            steps: how long; the readout is judged at step 2 and the rest at step 3.
            data: ``batches(batch_size, seed)`` and ``loss(model, batch)``, see
                :mod:`automup.data`; a task made of the example inputs when left out.
        """
        from automup.check.cases import check_mup

        return check_mup(
            self, optimizer_class, lr=lr, widths=widths, seeds=seeds, steps=steps, data=data
        )

    def at_base(self, base: Mapping[str, Any]) -> Mup:
        """The same model function with another base, analysed there; constants and form stay."""
        models = self._study.models
        study = open_study(
            models.build, base, models.inputs, self._study.name, None, self._study.overrides
        )
        again = Mup(study, self._model_fn, strict=self._strict, form=self.form)
        return again.with_constants(self.constants)

    def sweep(self, data: Data | str, **settings: Any) -> SweepResult:
        """Train at several widths and learning rates, in SP and in muP.

        For the settings and what is raised see :func:`automup.sweep.python.sweep_model`.
        """
        from automup.sweep.python import sweep_model

        return sweep_model(self, self._study, self._model_fn, data, **settings)

    def transfer(self, result: SweepResult, *args: Any, **knobs: Any) -> Transfer:
        """What a sweep tuned, at other knobs: every parameter's lr, decay, eps and init."""
        from automup.sweep.transfer import transfer

        names = dict(zip(self.base, args, strict=False))
        return transfer(self, self._study, result, {**names, **knobs})

    @cached_property
    def _any_plan(self) -> Plan:
        """A plan whose ratios are recomputed from the shapes of the model at hand."""
        return self.plan(**self._study.wide)

    def _target_of(self, model: nn.Module, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """The widths of a model that was built: those that are named, or what its shapes say."""
        if knobs:
            return target_of(self.base, (), knobs)
        return knobs_of_model(self._study.models, model)
