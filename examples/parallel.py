"""What train.py needs to run on one device or many: processes, shards and checkpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint
import torch.nn as nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard


@dataclass(frozen=True)
class Processes:
    """This process among those that torchrun started; alone without it."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """This process's rows of a batch that all of them drew alike."""
        return batch.chunk(self.count)[self.rank]

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a number over the processes."""
        if self.count > 1:
            dist.all_reduce(value)
        return value / self.count


def start() -> Processes:
    """Join the other processes, if torchrun started this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes()
    local = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size(), local)


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The members of the model's lists of modules: its layers."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    inner = {id(x) for outer in lists for m in outer for x in m.modules() if x is not m}
    members = [m for outer in lists for m in outer if id(m) not in inner]
    return [m for m in members if not isinstance(m, nn.ModuleList | nn.ModuleDict)]


def prepare(model: nn.Module, processes: Processes, *, compiled: bool) -> nn.Module:
    """The model compiled, layer by layer where it has layers, and sharded over the processes.

    Both in place: its class and the names of its parameters stay.
    """
    blocks = blocks_of(model)
    for module in (blocks or [model]) if compiled else ():
        module.compile()
    if processes.count > 1:
        for block in blocks:
            fully_shard(block)
        fully_shard(model)
    return model


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint; each process writes its shards."""
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments}
    checkpoint.save(state, checkpoint_id=folder / f"step-{step:08}")


def resume(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the last whole checkpoint of a folder; the number of its step, or 0 without one."""
    found = sorted(path.parent for path in folder.glob("step-*/.metadata"))
    if not found:
        return 0
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments}
    checkpoint.load(state, checkpoint_id=found[-1])
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
    )
    return int(found[-1].name.removeprefix("step-"))
