"""A model function at any width: built without its weights, drawn, run; each width built once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from torch import nn

from automup.analysis.dataflow import Size
from automup.analysis.verification import COINCIDENCE
from automup.capture.init_laws import Law
from automup.capture.inputs import InputMaker, synthesise
from automup.capture.laws import measured
from automup.capture.meta import SHADOW_LIMIT
from automup.capture.raised import describe, place_of
from automup.capture.trace import Forced, Trace, Variant, WeightFact, Workshop
from automup.capture.values import said
from automup.capture.widths import scaled
from automup.errors import AutomupError, CaptureError, KnobError

Knobs = Mapping[str, Any]


def key_of(knobs: Knobs) -> str:
    """What two ways to give the same knobs have in common."""
    return repr(sorted(knobs.items()))


class Models:
    """A model function and its base knobs, built at the widths that are asked for.

    Args:
        build: makes the model from the knobs' values.
        base: the knobs at which muP equals SP.
        inputs: makes example inputs for a model; synthesised when left out.
        fixed: other arguments of ``build``, the same at all widths.
        real: run the model on real tensors instead of the meta device.
    """

    def __init__(
        self,
        build: Callable[[Knobs], nn.Module],
        base: Knobs,
        inputs: InputMaker | None = None,
        fixed: Knobs | None = None,
        *,
        real: bool = False,
    ) -> None:
        self._build, self._real = build, real
        self._shops: dict[tuple[str, Forced], Workshop] = {}
        self.base, self.fixed = dict(base), dict(fixed or {})
        self.wide = self.scaled_knobs(2)
        if not self.shop(self.base).built.weights:
            name = type(self.at_base).__name__
            raise KnobError(f"{name} has no parameters: there is nothing to scale.")
        self.shapes(self.wide)
        self.inputs = inputs or synthesise(self.shop(self.base), self.shop(self.wide))

    # --- knobs --------------------------------------------------------------------------------

    def scaled_knobs(self, factor: float) -> dict[str, Any]:
        """All knobs times a factor."""
        return {name: scaled(value, factor) for name, value in self.base.items()}

    def one_by_one(self) -> Iterator[Knobs]:
        """The knobs with each of them doubled alone, if there are several."""
        for name, value in self.base.items() if len(self.base) > 1 else ():
            yield {**self.base, name: scaled(value, 2)}

    @cached_property
    def third(self) -> dict[str, Any]:
        """The width that verifies: three times the base, or the next legal multiple."""
        for multiple in (3, 4, 5, 6, 8):
            knobs = self.scaled_knobs(multiple)
            try:
                self.shop(knobs)
            except KnobError as error:
                last = error
            else:
                return knobs
        raise last

    # --- models -------------------------------------------------------------------------------

    def build(self, knobs: Knobs) -> nn.Module:
        """The model at these knobs, as its author builds it."""
        return self._build({**self.fixed, **knobs})

    def drawn(self, knobs: Knobs) -> nn.Module:
        """The model on real tensors, its weights drawn, by a later method if the author has one."""
        model = self.build(knobs)
        late = self.shop(knobs).built.late_init
        if late:
            getattr(model, late)()
        return model

    @property
    def at_base(self) -> nn.Module:
        """The model at the base, built without its weights."""
        return self.shop(self.base).built.model

    def shop(self, knobs: Knobs, forced: Forced = ()) -> Workshop:
        """The model at these knobs, built without its weights.

        Raises:
            KnobError: if it cannot be built with them.
        """
        key = (key_of(knobs), forced)
        if key not in self._shops:
            try:
                self._shops[key] = self.new_shop(knobs, forced)
            except AutomupError:
                raise
            except Exception as error:
                shown = ", ".join(f"{name}={value!r}" for name, value in knobs.items())
                raise KnobError(
                    f"The model cannot be built with {shown}: {describe(error)}.",
                    where=place_of(error),
                    fix="Choose another base, or scale other knobs.",
                ) from error
        return self._shops[key]

    def new_shop(self, knobs: Knobs, forced: Forced = (), *, limit: int = SHADOW_LIMIT) -> Workshop:
        """The same, built anew for somebody who is to change it."""
        return Workshop(lambda: self.build(knobs), forced, real=self._real, limit=limit)

    # --- runs ---------------------------------------------------------------------------------

    def run(self, knobs: Knobs, variant: Variant) -> Trace:
        """The trace of a variant at these knobs."""
        shop = self.shop(knobs, variant.forced)
        with self.running(knobs, variant):
            return shop.run(variant, self.inputs(shop.built.model))

    @contextlib.contextmanager
    def running(self, knobs: Knobs, variant: Variant) -> Iterator[None]:
        """Say where the model failed, if it fails in the block."""
        try:
            yield
        except AutomupError:
            raise
        except Exception as error:
            how = f"{variant}, {said(knobs)}"
            raise CaptureError(
                f"The model failed while it was traced ({how}): {describe(error)}.",
                where=place_of(error),
                fix="Pass other example inputs."
                if dict(knobs) == self.base
                else f"It runs at {said(self.base)}: what is fixed there must follow the width.",
            ) from error

    # --- weights ------------------------------------------------------------------------------

    def shapes(self, knobs: Knobs) -> dict[str, tuple[Size, ...]]:
        """Every parameter's sizes at the base and at other knobs.

        Raises:
            CaptureError: if the model has other parameters there.
        """
        base, wide = self.shop(self.base).built.weights, self.shop(knobs).built.weights
        if [w.names for w in base] != [w.names for w in wide]:
            odd = sorted({w.name for w in base} ^ {w.name for w in wide})
            what = ", ".join(odd[:3]) or "the same names in another order, or tied otherwise"
            raise CaptureError(
                f"The model has other parameters at another width ({what}).",
                where=f"{said(self.base)} against {said(knobs)}",
                fix=f"{COINCIDENCE} A knob of the depth is no width.",
            )
        return {
            a.name: tuple(zip(a.shape, b.shape, strict=True))
            for a, b in zip(base, wide, strict=True)
        }

    @cached_property
    def weights(self) -> tuple[tuple[WeightFact, ...], ...]:
        """The weights at the three widths, their laws checked against real draws."""
        return tuple(
            measured(lambda k=k: self.drawn(k), self.shop(k).built.weights)  # type: ignore[misc]
            for k in (self.base, self.wide, self.third)
        )

    @cached_property
    def laws(self) -> dict[str, tuple[tuple[tuple[int, ...], Law], ...]]:
        """Every parameter's shape and law at the three widths."""
        return {
            triple[0].name: tuple((w.shape, w.law) for w in triple)
            for triple in zip(*self.weights, strict=True)
        }
