"""A model in muP on several processes trains as it does on one: DDP, FSDP2, tensor parallel."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.multiprocessing
from processes import DRAWN, PROCESSES, WAYS, Way, run
from small_models import losses_of_one_process, losses_of_one_process_drawn

from automup import initialise

Found = dict[tuple[str, str], Any]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What all ways give, on processes that are started once: that takes longer than the rest."""
    folder = str(tmp_path_factory.mktemp("processes"))
    torch.multiprocessing.spawn(run, args=(folder,), nprocs=PROCESSES)
    everything: Found = pickle.loads(Path(f"{folder}/found").read_bytes())
    return everything


def rows(table: Any) -> list[Any]:
    return [pytest.param(way, name, id=f"{way.__name__}-{name}") for way, name in table]


@pytest.mark.parametrize("way, name", rows(WAYS))
def test_the_losses_are_those_of_one_process(way: Way, name: str, found: Found) -> None:
    assert found[way.__name__, name] == pytest.approx(losses_of_one_process(name), rel=1e-9)


@pytest.mark.parametrize("way, name", rows(DRAWN))
def test_weights_drawn_on_shards_are_those_of_one_process(
    way: Callable[..., Any], name: str, found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no process made a tensor larger than its shards."""
    monkeypatch.setattr(initialise, "BLOCK", 64)
    drawn = found[way.__name__, name]
    assert drawn.losses == pytest.approx(losses_of_one_process_drawn(name), rel=1e-9)
    assert drawn.largest <= drawn.allowed
