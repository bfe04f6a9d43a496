"""Ways to train a model in muP on four processes, in pairs or together.

Every process draws the same model from the same seed, gets its share of the batch, and tells the
loss over the whole batch: what one process alone computes is what all of them must get.
"""

from __future__ import annotations

import itertools
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parent))

from small_models import (
    MODELS,
    SEED,
    STEPS,
    TOKENS,
    Mixed,
    fresh,
    on_meta,
    optimizer_of,
    parametrized,
    training,
)

from automup import initialise

PROCESSES = 4


def averaged(losses: Iterator[torch.Tensor], mesh: DeviceMesh, steps: int = STEPS) -> list[float]:
    """The first losses, averaged over the processes of a mesh."""
    found = []
    for loss in itertools.islice(losses, steps):
        dist.all_reduce(loss, group=mesh.get_group())
        found.append(float(loss) / mesh.size())
    return found


def trained(name: str, model: nn.Module, mesh: DeviceMesh, **settings: Any) -> list[float]:
    """The losses of a model whose batch is split over the processes of a mesh."""
    share = TOKENS.chunk(mesh.size())[mesh.get_local_rank()]
    return averaged(training(model, optimizer_of(name, model, **settings), share), mesh)


def sharded(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """The model under FSDP2, each of its blocks by itself."""
    for block in model.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def tensor_parallel(model: Mixed, mesh: DeviceMesh) -> Mixed:
    """The model with every projection split over the processes of a mesh, by heads or by rows."""
    columns, rows = ColwiseParallel(), RowwiseParallel()
    plan = dict.fromkeys(("q", "k", "v", "up"), columns) | dict.fromkeys(("o", "down"), rows)
    for block in model.blocks:
        parallelize_module(block, mesh, plan)
    return model


# --- ways ----------------------------------------------------------------------------------------


def ddp(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> list[float]:
    return trained(name, DistributedDataParallel(fresh(name)), whole)


def fsdp_on_four(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> list[float]:
    return trained(name, sharded(fresh(name), whole), whole, fused=True)


def fsdp_on_two(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> list[float]:
    return trained(name, sharded(fresh(name), pairs["outer"]), pairs["outer"], foreach=False)


def fsdp_in_replicas(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> list[float]:
    return trained(name, sharded(fresh(name), pairs), whole)


def fsdp_compiled(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> list[float]:
    model = fresh(name)
    for block in model.blocks:  # type: ignore[union-attr]
        block.compile(backend="eager")
    return trained(name, sharded(model, whole), whole)


def fsdp_resumed(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> list[float]:
    """Half of the steps, then the rest in another model of another seed with the state loaded."""
    share = TOKENS.chunk(whole.size())[whole.get_local_rank()]
    first = sharded(fresh(name), whole)
    optimizer = optimizer_of(name, first)
    losses = averaged(training(first, optimizer, share), whole, STEPS // 2)
    weights, moments = get_state_dict(first, optimizer)
    second = sharded(fresh(name, seed=9), whole)
    other = optimizer_of(name, second)
    set_state_dict(second, other, model_state_dict=weights, optim_state_dict=moments)
    return losses + averaged(training(second, other, share), whole, STEPS - STEPS // 2)


def tensors_on_two(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> list[float]:
    """Both pairs on the whole batch, since nothing averages their gradients."""
    model: Any = tensor_parallel(fresh(name), pairs["inner"])  # type: ignore[arg-type]
    return averaged(training(model, optimizer_of(name, model), TOKENS), pairs["inner"])


def tensors_and_fsdp(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> list[float]:
    model: Any = tensor_parallel(fresh(name), pairs["inner"])  # type: ignore[arg-type]
    return trained(name, sharded(model, pairs["outer"]), pairs["outer"])


Way = Callable[[str, DeviceMesh, DeviceMesh], list[float]]
ANY_MODEL: tuple[Way, ...] = (
    ddp, fsdp_on_four, fsdp_on_two, fsdp_in_replicas, fsdp_compiled, fsdp_resumed,
)  # fmt: skip
WAYS: tuple[tuple[Way, str], ...] = (
    *itertools.product(ANY_MODEL, MODELS),
    *itertools.product(
        (tensors_on_two, tensors_and_fsdp), ("attribute", "attribute in uniform-lr")
    ),
    *itertools.product((ddp, fsdp_resumed), ("gpt in uniform-lr", "multihead in table8")),
)


# --- weights drawn on shards ---------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The most entries of any tensor that an operation makes."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta:
                local = getattr(tensor, "_local_tensor", tensor)
                self.entries = max(self.entries, local.numel())
        return made


@dataclass(frozen=True)
class Drawn:
    """A training from weights that were drawn on shards, and the largest tensor while they were."""

    losses: list[float]
    largest: int
    allowed: int


def drawn_on_four(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> Drawn:
    return _drawn(name, sharded(on_meta(name), whole), whole)


def drawn_with_tensors(name: str, whole: DeviceMesh, pairs: DeviceMesh) -> Drawn:
    model: Any = tensor_parallel(on_meta(name), pairs["inner"])  # type: ignore[arg-type]
    return _drawn(name, sharded(model, pairs["outer"]), pairs["outer"])


def _drawn(name: str, model: nn.Module, mesh: DeviceMesh) -> Drawn:
    with Largest() as seen:
        model.to_empty(device="cpu")
        parametrized(name).init_(model, seed=SEED)
    shards: list[Any] = list(model.parameters())
    allowed = max(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in shards)
    return Drawn(trained(name, model, mesh), seen.entries, allowed)


DRAWN = (*itertools.product((drawn_on_four,), MODELS), (drawn_with_tensors, "attribute"))


def run(rank: int, folder: str) -> None:
    """What one process does: all the ways; the first writes what they found."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", PROCESSES)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES)
    whole = init_device_mesh("cpu", (PROCESSES,))
    pairs = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
    initialise.BLOCK = 64  # a fraction of a shard
    found = {(way.__name__, name): way(name, whole, pairs) for way, name in (*WAYS, *DRAWN)}
    if rank == 0:
        Path(f"{folder}/found").write_bytes(pickle.dumps(found))
    dist.destroy_process_group()
