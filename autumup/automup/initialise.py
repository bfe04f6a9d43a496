"""Drawing a model's weights where they lie: after ``to_empty``, on shards, without its constructor.

Every tensor is drawn in blocks of rows, each by a generator of its own, seeded by the tensor's name
and the block's number. So the weights do not depend on how they are sharded, and no process holds
more of a tensor than its shard and one block.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from automup.capture.draws import Draw
from automup.capture.init_laws import Law
from automup.capture.laws import MEASURABLE, contradicts
from automup.capture.meta import SHADOW_LIMIT
from automup.errors import PlanError, UnresolvedError, UsageError
from automup.facts import Parameter
from automup.models import Knobs, Models
from automup.plan import Plan

BLOCK = 1 << 20
"""Entries that are drawn at once, or one row of a tensor whose rows are longer."""


def initialise(
    model: nn.Module,
    plan: Plan,
    models: Models,
    *,
    left: Callable[[str], bool],
    seed: int | None = None,
) -> None:
    """Draw all weights of a model anew, in place, and fill its buffers.

    Args:
        model: the model, on any device but meta, perhaps sharded.
        plan: at the model's own knobs.
        models: the model function, which says how its tensors start.
        left: whether the tensor of a name is left as it is.
        seed: of all draws; by default from torch's global generator.

    Raises:
        UsageError: a parameter or buffer is on meta still.
        PlanError: a tensor has another shape in the plan.
        UnresolvedError: how the constructor makes a tensor could not be followed.
    """
    _tie(model, plan)
    tensors = {name: tensor for name, tensor in _tensors(model) if not left(name)}
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise UsageError(
                f"{name} is on the meta device.", fix="Call model.to_empty(device=...) first."
            )
    plain = {name: place for name, place in _plain_on_meta(model) if not left(name)}
    values = {name: getattr(module, attribute) for name, (module, attribute) in plain.items()}
    draws = _starts(models, plan.target, {**tensors, **values})
    device = next((tensor.device for tensor in tensors.values()), None)
    for name, (module, attribute) in plain.items():
        tensors[name] = torch.empty_like(values[name], device=device)
        setattr(module, attribute, tensors[name])
    number = _agreed(tensors.values(), seed)
    with torch.no_grad():
        for name, tensor in tensors.items():
            factors = _factors(plan.parameter(name)) if isinstance(tensor, nn.Parameter) else ()
            _Start(draws[name], factors, f"{number}/{name}").fill(tensor)


def _tie(model: nn.Module, plan: Plan) -> None:
    """Make tied parameters one again: ``to_empty`` makes one for each of their names."""
    for fact in plan.parameters:
        for name in fact.names[1:]:
            path, _, attribute = name.rpartition(".")
            with contextlib.suppress(AttributeError):  # another model, which will be refused
                setattr(model.get_submodule(path), attribute, model.get_parameter(fact.name))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _plain_on_meta(model: nn.Module) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """Plain attributes that are tensors on meta: ``to_empty`` does not move them."""
    for path, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_meta:
                yield f"{path}.{attribute}" if path else attribute, (module, attribute)


def _starts(
    models: Models, target: Mapping[str, object], tensors: Mapping[str, Tensor]
) -> dict[str, Draw]:
    """How each of a model's tensors starts, or an error that names those of which nobody knows."""
    draws = _draws(models, target, tensors)
    unknown = [name for name, draw in draws.items() if not draw.known]
    _refuse(unknown or _contradicted(models, tensors))
    return draws


def _draws(models: Models, knobs: Knobs, tensors: Mapping[str, Tensor]) -> dict[str, Draw]:
    """How these tensors start, as far as it can be told of a model with these knobs."""
    found: dict[str, Draw] = {}
    limit, largest = 0, SHADOW_LIMIT
    while largest > limit:  # some table was too large to be computed on the way
        limit = largest
        shop = models.new_shop(knobs, limit=limit)
        for name, tensor in tensors.items():
            if name not in found or not found[name].known:
                found[name] = shop.draw_of(_twin(shop.built.model, name, tensor))
        largest = max((math.prod(d.shape) for d in found.values() if not d.known), default=0)
    return found


def _contradicted(models: Models, names: Iterable[str]) -> list[str]:
    """The tensors of which a real draw of the base says something else than what is known."""
    if sum(math.prod(w.shape) for w in models.shop(models.base).built.weights) > MEASURABLE:
        return []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        real = models.drawn(models.base)
        drawn = {name: _named(real, name) for name in names}
        draws = _draws(models, models.base, drawn)
    return [name for name, draw in draws.items() if not _agrees(draw, drawn[name])]


def _agrees(draw: Draw, drawn: Tensor) -> bool:
    if draw.value is not None:
        return torch.equal(draw.value.to(drawn), drawn)
    return not contradicts(draw.law, drawn)


def _twin(model: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """The tensor of this name in another model, where it has to have the same shape."""
    try:
        twin = _named(model, name)
    except AttributeError:
        twin = None
    if twin is None or twin.shape != tensor.shape:
        raise PlanError(
            f"{name} has shape {tuple(tensor.shape)}, and "
            f"{None if twin is None else tuple(twin.shape)} in the parametrized model.",
            fix="Pass the widths that the model was built with: mu.init_(model, width=...).",
        )
    return twin


def _named(model: nn.Module, name: str) -> Tensor:
    path, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), attribute)
    return tensor


def _refuse(names: Sequence[str]) -> None:
    if names:
        raise UnresolvedError(
            f"How the constructor makes {', '.join(names)} could not be followed, so it cannot be "
            "drawn anew.",
            fix=f"Leave it, mu.init_(model, leave=[{names[0]!r}]), and set it yourself: as the "
            "constructor does, times its init_mult in mu.plan(...).",
        )


def _agreed(tensors: Iterable[Tensor], seed: int | None) -> int:
    """The seed, the same in all processes that hold shards of the same tensors."""
    if seed is not None:
        return seed
    number = torch.randint(1 << 62, ())
    for mesh in {mesh: None for mesh in map(_mesh, tensors) if mesh is not None}:
        from torch.distributed.tensor import DTensor, Replicate  # slow to import

        local = number.to(mesh.device_type)
        same = DTensor.from_local(local, mesh, [Replicate()] * mesh.ndim, run_check=True)
        number = same.to_local().cpu()
    return int(number)


def _mesh(tensor: Tensor) -> Any:
    """The processes that hold shards of a tensor, a DTensor then; None of another tensor."""
    return getattr(tensor, "device_mesh", None)


# --- one tensor ----------------------------------------------------------------------------------

Factors = tuple[tuple[int, int, float], ...]
"""A factor for each of consecutive pieces along a dimension: (dimension, size, factor)."""


def _factors(fact: Parameter) -> Factors:
    dim, drawn = fact.drawn
    return tuple((dim, size, factor) for size, _, factor in drawn)


@dataclass(frozen=True)
class _Start:
    """How a tensor starts in muP: its draw times its factors, seeded by ``key``."""

    draw: Draw
    factors: Factors
    key: str

    def fill(self, tensor: Tensor) -> None:
        """Write the tensor's entries, or those of its shard."""
        local: Tensor = tensor.to_local() if _mesh(tensor) else tensor  # type: ignore[attr-defined]
        shape, index = self.draw.shape or (1,), _indices(tensor)
        local = local.view(1) if tensor.dim() == 0 else local
        if tuple(map(len, index)) != tuple(local.shape):
            raise UsageError(f"A shard of shape {tuple(local.shape)} is of an unknown kind.")
        count = max(1, BLOCK // max(1, math.prod(shape[1:])))
        done = 0
        while done < len(index[0]) and local.numel():
            number = int(index[0][done]) // count
            rows = range(number * count, min((number + 1) * count, shape[0]))
            inside = index[0][(index[0] >= rows.start) & (index[0] < rows.stop)]
            block = self._block(rows, number, local)
            for dim, chosen in enumerate((inside - rows.start, *index[1:])):
                if len(chosen) != block.shape[dim]:
                    block = block.index_select(dim, chosen.to(block.device))
            local[done : done + len(inside)].copy_(self._scaled(block, (inside, *index[1:])))
            done += len(inside)

    def _block(self, rows: range, number: int, like: Tensor) -> Tensor:
        """Some rows of the whole tensor, as the constructor makes them."""
        shape = self.draw.shape or (1,)
        if self.draw.value is not None:
            return self.draw.value.reshape(shape)[rows.start : rows.stop].to(like.device)
        double = like.dtype == torch.float64
        dtype = torch.float64 if double else torch.float32
        block = torch.empty(len(rows), *shape[1:], device=like.device, dtype=dtype)
        generator = torch.Generator(like.device)
        generator.manual_seed(_hash(f"{self.key}/{number}"))
        for box, law in self.draw.boxes:
            first, *rest = box or (range(1),)
            part = (_overlap(first, rows), *(slice(r.start, r.stop, r.step) for r in rest))
            _sample(block[part], law, generator)
        return block

    def _scaled(self, block: Tensor, index: Sequence[Tensor]) -> Tensor:
        if all(factor == 1.0 for _, _, factor in self.factors):
            return block
        dim = self.factors[0][0]
        each = [
            torch.full((size,), factor, dtype=torch.float64) for _, size, factor in self.factors
        ]
        chosen = torch.cat(each)[index[dim]].to(block)
        return block * chosen.view([-1 if d == dim else 1 for d in range(block.dim())])


def _overlap(part: range, rows: range) -> slice:
    """Where in some rows those of a part lie."""
    skipped = max(0, -((part.start - rows.start) // part.step))
    begin = part.start + skipped * part.step
    end = max(begin, min(part.stop, rows.stop))
    return slice(begin - rows.start, end - rows.start, part.step)


def _sample(part: Tensor, law: Law, generator: torch.Generator) -> None:
    """Fill a tensor by a law that says all about its entries."""
    if law.std == 0.0:
        part.fill_(law.mean)
    elif law.cut is not None:
        mean, std, low, high = law.cut
        nn.init.trunc_normal_(part, mean, std, low, high, generator=generator)
    elif law.kind == "uniform":
        half = law.std * math.sqrt(3)
        part.uniform_(law.mean - half, law.mean + half, generator=generator)
    else:
        part.normal_(law.mean, law.std, generator=generator)


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little")


def _indices(tensor: Tensor) -> list[Tensor]:
    """For each dimension which entries of the whole tensor this process holds, in order."""
    index = [torch.arange(size) for size in tensor.shape] or [torch.arange(1)]
    mesh = _mesh(tensor)
    if mesh is None:
        return index
    where = mesh.get_coordinate()
    for axis, placement in enumerate(tensor.placements):  # type: ignore[attr-defined]
        dim = getattr(placement, "dim", None)
        if dim is not None:
            spread = index[dim].view([-1 if d == dim else 1 for d in range(tensor.dim())])
            pieces, _ = placement._split_tensor(
                spread, mesh.size(axis), with_padding=False, contiguous=True
            )
            index[dim] = pieces[where[axis]].reshape(-1)
    return index
