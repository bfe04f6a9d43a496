"""What the model's output does when a weight or an activation is scaled: 0, 1 and 2 times.

That tells which readouts can start at zero, and which readings that are off are no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from automup.check.training import Knobs, Subject, joined, loss_of
from automup.check.watching import watched
from automup.guarded import endless
from automup.plan import Plan
from automup.rules import Role

if TYPE_CHECKING:
    from automup.data import Data

ROUNDING = 1e-3
"""What float32 may differ by, beside the largest entry."""


@dataclass(frozen=True, eq=False)
class Responses:
    """The narrowest model and one batch."""

    subject: Subject
    data: Data
    knobs: Knobs
    batch_size: int

    def final_readouts(self, plan: Plan) -> frozenset[str]:
        """The readouts that nothing follows: what the model returns is affine in each of them.

        A shared one is not among them: at zero its other use would be, too.
        """
        model, batch = self._model()
        own = (p for p in plan.parameters if p.role is Role.OUTPUT and len(p.names) == 1)
        names = [p.name for p in own if len(p.shape) > 1]
        return frozenset(n for n in names if is_affine(*self._by_weight(model, batch, n)))

    def is_free(self, module: str) -> bool:
        """Whether a norm follows: doubling what a module returns leaves the output as it is."""
        _, one, two = self._by_activation(module)
        return one.shape == two.shape and _largest(two - one) <= ROUNDING * _largest(one)

    def is_last(self, module: str) -> bool:
        """Whether the output is affine in what a module returns."""
        return is_affine(*self._by_activation(module))

    def _model(self) -> tuple[nn.Module, Any]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.subject.build(self.knobs).eval()
        return model, next(endless(self.data, self.batch_size, 0))

    def _by_weight(self, model: nn.Module, batch: Any, name: str) -> list[Tensor]:
        weight = model.get_parameter(name)
        drawn = weight.detach().clone()

        def outputs() -> Iterable[Tensor]:
            for factor in (0.0, 1.0, 2.0):
                weight.copy_(drawn * factor)
                yield self._output(model, batch)
            weight.copy_(drawn)

        with torch.no_grad():
            return list(outputs())

    def _by_activation(self, module: str) -> list[Tensor]:
        model, batch = self._model()
        found = []
        with torch.no_grad():
            for factor in (0.0, 1.0, 2.0):
                hook = model.get_submodule(module).register_forward_hook(_times(factor))
                found.append(self._output(model, batch))
                hook.remove()
        return found

    def _output(self, model: nn.Module, batch: Any) -> Tensor:
        with watched(model) as seen:
            loss_of(model, self.data, batch)
        return joined(seen.outputs)


def _times(factor: float) -> Callable[..., Any]:
    def scale(value: Any) -> Any:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return value * factor if floating else value

    return lambda module, args, result: tree_map(scale, result)


def is_affine(zero: Tensor, one: Tensor, two: Tensor) -> bool:
    """Whether values at 0, 1 and 2 lie on a line that is not level."""
    if zero.shape != one.shape or one.shape != two.shape:
        return False
    moved = _largest(one - zero)
    return moved > 0 and _largest(two - 2 * one + zero) <= ROUNDING * moved


def _largest(value: Tensor) -> float:
    return float(value.abs().max())
