"""What training moves, and how that depends on width: the slopes of the coverage table.

One protocol for every model, SP and muP alike, and nothing is tuned to any of them:

- A few steps of Adam at a small rate, from the model's own init, on a task with structure. On
  random targets, or with a larger rate, what a short run shows is its transient.
- The movement of the output is the mean of ``|output after - output before|``, each coordinate
  weighted by how much the loss asks of it at the start (the size of its gradient there). Without
  the weights, most of a readout over a vocabulary are tokens that no target asks for: they move by
  what the hidden change has in common with their random rows, which dies out as width^-1/2, and a
  right model with a tied table reads -0.4 (ThreeWayTied -0.42, T5Encoder -0.38, Gemma -0.34
  without weights; -0.03, -0.10, -0.03 with them; in SP +1.2, +0.8, +1.1 and +1.6, +1.3, +1.4).
- Inside, the plain mean of every module's output, and a wider band for it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._pytree import tree_flatten, tree_unflatten

from automup.check.fit import slope
from automup.check.synthetic import settle, structured_loss
from zoo.recording import call, tensors
from zoo.table import Slope

LR, STEPS, SEEDS, NOISE = 2e-3, 4, 3, 7

Make = Callable[[int], nn.Module]
Optimize = Callable[[nn.Module], torch.optim.Optimizer]
Read = Callable[[Any], Tensor]


def first_floating(returned: Any) -> Tensor:
    """The first floating tensor of what forward returns."""
    return next(x for x in tensors(returned) if x.is_floating_point())


@dataclass(frozen=True)
class Task:
    """Inputs and a loss with structure, the same at every width.

    ``targets``: classes, or values for the squared distance.
    """

    inputs: Any
    read: Read
    growing: tuple[bool, ...]

    def output(self, model: nn.Module) -> Tensor:
        """What people read, from the same noise each time where the forward draws some."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(NOISE)
            return self.read(call(model, self.inputs)).float()

    def loss(self, output: Tensor) -> Tensor:
        """See :func:`automup.check.synthetic.structured_loss`."""
        return structured_loss(output, list(tensors(self.inputs)), self.growing)


def task(make: Make, inputs: Any, read: Read | None) -> Task:
    """The task for a model; which axes of its output grow is seen at two widths."""
    reader = read or first_floating
    with torch.no_grad():
        shapes = [reader(call(settle(make(k)), inputs)).shape for k in (1, 2)]
    return Task(inputs, reader, tuple(a != b for a, b in zip(*shapes, strict=True)))


@dataclass(frozen=True)
class Moved:
    """How far training moved the model's output, and that of every module, by module path."""

    output: float
    modules: Mapping[str, float]


def train(model: nn.Module, optimize: Optimize, job: Task, steps: int = STEPS) -> Moved:
    """Train a few steps and compare with the start. See :func:`settle` for the mode."""
    settle(model)
    optimizer = optimize(model)
    with watched(model) as before:
        start = job.output(model).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(job.loss(start), start)
    for _ in range(steps):
        optimizer.zero_grad()
        job.loss(job.output(model)).backward()
        optimizer.step()
    with torch.no_grad(), watched(model) as after:
        end = job.output(model)
    moved = {
        name: _distance(before[name], after[name])
        for name in before
        if name in after and before[name].shape == after[name].shape
    }
    weight = gradient.abs() / gradient.abs().sum()
    return Moved(float(((end - start).abs() * weight).sum()), moved)


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())


@contextlib.contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The first floating tensor that every module returns, by module path, from its first call.

    What a parametrization returns is a weight and no activation: it is left out.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            found = next((x for x in tensors(result) if x.is_floating_point()), None)
            if found is None or not found.numel() or is_batchedtensor(found):
                return  # what vmap maps over may not leave it
            if name not in seen:
                seen[name] = found.detach().float().clone()

        return hook

    lists = [n for n, m in model.named_modules() if isinstance(m, ParametrizationList)]
    hooks = [
        m.register_forward_hook(keep(n))
        for n, m in model.named_modules()
        if n and not any(n == w or n.startswith(f"{w}.") for w in lists)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def is_free(model: nn.Module, name: str, job: Task) -> bool:
    """Whether the output stays as it is when what a module returns is doubled: a norm follows.

    Such an activation may have any size, and be no fault.
    """

    def double(module: nn.Module, args: Any, result: Any) -> Any:
        leaves, spec = tree_flatten(result)
        doubled = [2 * x if isinstance(x, Tensor) and x.is_floating_point() else x for x in leaves]
        return tree_unflatten(doubled, spec)

    with torch.no_grad():
        before = job.output(settle(model))
        with model.get_submodule(name).register_forward_hook(double):
            after = job.output(model)
    return float((after - before).abs().max()) <= 1e-3 * float(before.abs().max())


def amplified(
    times: Sequence[int], make: Make, job: Task, at_start: tuple[float, float] = (-0.65, -0.35)
) -> list[str]:
    """The modules whose output is noise that falls as width^-1/2 at first, and is then normalised.

    A layer of fixed size that reads a growing one starts so, by the theory: its init is n^-1, and
    what it has learned, of size 1, outgrows the draw. A norm behind it makes the draw 1 again, and
    the first steps move it as width^+1/2 until they saturate, whatever its init and rate: the gain
    of the norm is √n, and what the layers before it learn lies along its rows. MNASNet, whose last
    convolution has 1280 channels at any width, reads +0.58 at a rate so small (2e-8) that nothing
    saturates, and -0.03 when that convolution grows, too. SigLIP reads +0.44 (+0.62 at a rate of
    2e-6, where the theory's limit is +0.5), +0.14 over x8 to x64, +0.20 after 16 steps and +0.00
    after 64; +0.11 with a shared space that grows. There a hidden rate left unscaled reads +0.56,
    but beside the noise +0.60: what is excused so is judged by its modules, which show that fault
    as +0.5.
    """
    runs = [[_start(make, job, k, seed) for k in times] for seed in range(SEEDS)]
    slopes = {n: s.value for n, s in module_slopes(times, runs).items()}
    low, high = at_start
    found = [n for n, slope in slopes.items() if low < slope < high]
    return [n for n in found if is_free(make(times[0]), n, job)]


def _start(make: Make, job: Task, k: int, seed: int) -> Moved:
    """By how much what a module returns varies over examples, in the place of its movement."""
    torch.manual_seed(seed)
    with torch.no_grad(), watched(settle(model := make(k))) as seen:
        job.output(model)
    spread = {n: (x - x.mean(0)).square().mean().sqrt() for n, x in seen.items() if x.dim()}
    return Moved(0.0, {n: float(s) for n, s in spread.items()})


def output_slope(times: Sequence[int], runs: Sequence[Sequence[Moved]]) -> Slope:
    """The slope of the output's movement; ``runs`` by seed and width."""
    return _slope(times, [[m.output for m in run] for run in runs])


def module_slopes(times: Sequence[int], runs: Sequence[Sequence[Moved]]) -> dict[str, Slope]:
    """The slopes of all modules that ran and moved in every run."""
    every = [moved.modules for run in runs for moved in run]
    names = [n for n in every[0] if all(0 < modules.get(n, 0) < math.inf for modules in every)]
    return {n: _slope(times, [[m.modules[n] for m in run] for run in runs]) for n in names}


def _slope(times: Sequence[int], runs: Sequence[Sequence[float]]) -> Slope:
    values = [slope(times, run) for run in runs]
    mean = sum(values) / len(values)
    spread = sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)
    return Slope(mean, math.sqrt(spread / len(values)))
