"""Training one subject a few steps at every width and seed, and what moved.

The protocol, and why each part of it is as it is:

- The *change* since init is judged, not the size: a wrong learning rate of the input layer hardly
  shows in sizes.
- Readouts start at zero. With them as drawn, the first steps of a right model read -0.25 to -0.39,
  since the readout's own random part meets what the layers before it have moved. A tied readout
  cannot be zeroed: the change of the output is weighted by what the loss asks of each coordinate
  (its gradient at the start). Without the weights most of a vocabulary moves by chance, which dies
  out with width, and a right tied model reads -0.4.
- One batch, no dropout, and a learning rate at or below the optimum: larger ones saturate, which
  hides what grows too fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from automup.check.fit import fit
from automup.check.result import Place, Reading, Trained
from automup.check.synthetic import settle
from automup.check.watching import Seen, distance, size, watched
from automup.errors import TrainingError
from automup.guarded import endless, loss_on, stepping, take_step
from automup.optim.settings import SCALED

if TYPE_CHECKING:
    from automup.data import Data

OUTPUT = "model output"
"""The place of what the model returns; no module can be called so."""
NOISE = 7
"""The seed of whatever a forward pass draws: the same noise each time."""

Knobs = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is checked: how a model is built and drawn at some knobs, and its optimizer."""

    label: str
    build: Callable[[Knobs], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]


@dataclass(frozen=True)
class Protocol:
    """How every run goes: ``zeroed`` are the readouts that start at zero."""

    knobs: tuple[Knobs, ...]
    seeds: range
    steps: int
    batch_size: int
    zeroed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Weight:
    """A parameter before training: its root mean square, and the settings of its group.

    ``rows`` are the mean squares of its rows along each of its dimensions.
    """

    shape: tuple[int, ...]
    rms: float
    rows: tuple[tuple[float, ...], ...]
    settings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One width and seed: sizes at init, then sizes and changes after every step, by place.

    ``loss`` is that after the last step.
    """

    places: Mapping[str, Place]
    start: Mapping[str, float]
    sizes: tuple[Mapping[str, float], ...]
    changes: tuple[Mapping[str, float], ...]
    weights: Mapping[str, Weight]
    optimizer: str
    loss: float


def train_all(
    subject: Subject, data: Data, protocol: Protocol, done: Callable[[], None] = lambda: None
) -> list[list[Run]]:
    """Every run, by seed and width; ``done`` is called after each."""
    runs = []
    for seed in protocol.seeds:
        row = []
        for knobs in protocol.knobs:
            row.append(run(subject, data, protocol, knobs, seed))
            done()
        runs.append(row)
    return runs


def run(subject: Subject, data: Data, protocol: Protocol, knobs: Knobs, seed: int) -> Run:
    """Train a model at some knobs and compare with its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = settle(subject.build(knobs))
        optimizer = subject.optimizer(model)
        weights = _weights(model, optimizer)
        zero(model, protocol.zeroed)
        batch = next(endless(data, protocol.batch_size, seed))
        start, importance = _start(model, data, batch)
        sizes, changes = [], []
        for _ in range(protocol.steps):
            take_step(optimizer, loss_of(model, data, batch))
            with torch.no_grad(), watched(model) as now:
                loss = float(loss_of(model, data, batch))
            values = {**now.values, OUTPUT: joined(now.outputs)}
            sizes.append({n: size(v) for n, v in values.items()})
            changes.append(dict(_changes(start, values, importance)))
    places = {**start.places, OUTPUT: Place(OUTPUT, "output", _last_source(start))}
    return Run(
        places,
        {n: size(v) for n, v in start.values.items()},
        tuple(sizes),
        tuple(changes),
        weights,
        type(optimizer).__name__,
        loss,
    )


def loss_of(model: nn.Module, data: Data, batch: Any) -> Tensor:
    """The loss, from the same noise each time where the forward draws some."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(NOISE)
        return loss_on(data, model, batch)


def zero(model: nn.Module, names: Iterable[str]) -> None:
    """Set some parameters to zero."""
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).zero_()


def joined(outputs: Sequence[Tensor]) -> Tensor:
    """All that a model returns as one vector; a loss beside logits is left out."""
    if not outputs:
        raise TrainingError(
            "The loss does not call the model.", fix="Let loss(model, batch) do so."
        )
    tensors = [t for t in outputs if t.dim()] or list(outputs)
    return torch.cat([t.detach().float().flatten() for t in tensors])


def _start(model: nn.Module, data: Data, batch: Any) -> tuple[Seen, dict[str, Tensor]]:
    """What the model computes before training, and what the loss asks of its output's entries.

    Also of every module whose result is an output.
    """
    with watched(model) as seen:
        loss = loss_of(model, data, batch)
    outputs = [t for t in seen.outputs if t.dim()] or seen.outputs
    trained = [t for t in outputs if t.requires_grad]
    with stepping():
        grads = torch.autograd.grad(loss, trained, allow_unused=True) if trained else ()
    known = {id(t): g.abs().float() for t, g in zip(trained, grads, strict=True) if g is not None}
    parts = [known.get(id(t), torch.zeros_like(t, dtype=torch.float)) for t in outputs]
    importance = {OUTPUT: torch.cat([p.flatten() for p in parts])} if parts else {}
    for name, tensor in seen.owners.items():
        if id(tensor) in known:
            importance[name] = known[id(tensor)]
    seen.values[OUTPUT] = joined(seen.outputs)
    seen.owners.clear()
    return seen, {n: w for n, w in importance.items() if float(w.sum()) > 0}


def _changes(
    start: Seen, values: Mapping[str, Tensor], importance: Mapping[str, Tensor]
) -> Iterator[tuple[str, float]]:
    for name, before in start.values.items():
        after = values.get(name)
        if after is not None and after.shape == before.shape:
            yield name, distance(before, after, importance.get(name))


def _last_source(seen: Seen) -> str:
    return next((p.source for p in reversed(seen.places.values()) if p.kind == "module"), "")


def _weights(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Weight]:
    """Every parameter as it is drawn, with the settings of the group that trains it."""
    groups = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    found = {}
    for name, p in model.named_parameters():
        squares = p.detach().float().square()
        rows = [_row_means(squares, d) for d in range(p.dim())]
        group = groups.get(id(p), {})
        settings = {k: float(group[k]) for k in SCALED if isinstance(group.get(k), Real | Tensor)}
        rms = float(squares.mean().sqrt()) if p.numel() else 0.0
        found[name] = Weight(tuple(p.shape), rms, tuple(rows), settings)
    return found


def _row_means(squares: Tensor, dim: int) -> tuple[float, ...]:
    rows = squares.movedim(dim, 0)
    return tuple(rows.reshape(len(rows), -1).mean(1).tolist())


def readings(label: str, runs: Sequence[Sequence[Run]], widths: Sequence[float]) -> Trained:
    """How everything that moved grows with width, in the order of the dataflow."""
    first = runs[0][0]
    found = []
    for name, place in first.places.items():
        taken = [("size", 0, [[r.start.get(name, 0.0) for r in row] for row in runs])]
        for step in range(len(first.changes)):
            sizes = [[r.sizes[step].get(name, 0.0) for r in row] for row in runs]
            changes = [[r.changes[step].get(name, 0.0) for r in row] for row in runs]
            taken += [("size", step + 1, sizes), ("change", step + 1, changes)]
        for what, step, values in taken:
            if all(v > 0 for row in values for v in row):
                means = tuple(sum(column) / len(column) for column in zip(*values, strict=True))
                found.append(Reading(place, what, step, means, fit(widths, values)))
    return Trained(label, tuple(found))
