"""A model in muP on several processes trains as it does on one: DDP, FSDP2, tensor parallel."""

from __future__ import annotations

import pytest
import torch
import torch.multiprocessing
from processes import PROCESSES, WAYS, Way, run
from small_models import losses_of_one_process

Losses = dict[tuple[str, str], list[float]]


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """What all ways give, on processes that are started once: that takes longer than the rest."""
    folder = str(tmp_path_factory.mktemp("processes"))
    torch.multiprocessing.spawn(run, args=(folder,), nprocs=PROCESSES)
    found: Losses = torch.load(f"{folder}/losses.pt")
    return found


@pytest.mark.parametrize("way, name", [pytest.param(w, n, id=f"{w.__name__}-{n}") for w, n in WAYS])
def test_the_losses_are_those_of_one_process(way: Way, name: str, losses: Losses) -> None:
    assert losses[way.__name__, name] == pytest.approx(losses_of_one_process(name), rel=1e-9)
