"""Inputs that are dicts or dataclasses, and several whose sizes have nothing to do with another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import automup
from automup.capture.given_inputs import parse_inputs
from automup.capture.inputs import synthesise
from automup.capture.load import load_model
from automup.capture.nested import tensors_of
from automup.capture.widths import build_at

MODELS = Path(__file__).parent / "zoo" / "models"


@pytest.mark.parametrize(
    "spec",
    [
        "interfaces.py:DictInDictOut",
        "interfaces.py:DataclassInOut",
        "interfaces.py:BilinearScorer",
    ],
)
def test_found(spec: str) -> None:
    """What is found runs on real tensors."""
    source = load_model(str(MODELS / spec))
    inputs = synthesise(build_at(source.build, {}, 1))(model := source.build())
    model(*inputs.args, **inputs.kwargs)


@pytest.mark.parametrize("name", ["DictInDictOut", "DataclassInOut"])
def test_parts_are_given_by_dotted_names(name: str) -> None:
    model = load_model(f"{MODELS}/interfaces.py:{name}").build()
    maker = parse_inputs(["batch.tokens:int64[4,7]<64", "batch.features:float32[4,8]"])
    inputs = maker(model)
    assert [tuple(t.shape) for t in tensors_of(inputs.args)] == [(4, 7), (4, 8)]
    model(*inputs.args)


def test_a_dataclass_is_an_input_and_not_a_constant() -> None:
    """Its tensors are activations: contracted over the width they need no weight to be one.

    x has d entries of size 1; x·h is a sum of d aligned terms, so it needs 1/d.
    """
    source = """
import dataclasses
import torch
from torch import nn

@dataclasses.dataclass
class Batch:
    x: torch.Tensor
    ids: torch.Tensor

class M(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.embed = nn.Embedding(8, width)
    def forward(self, batch: Batch):
        return (self.embed(batch.ids) * batch.x).sum(-1)
"""
    namespace: dict[str, object] = {}
    exec(source, namespace)
    model, batch = namespace["M"], namespace["Batch"]

    def inputs(module: torch.nn.Module) -> tuple[object]:
        width = module.embed.weight.shape[1]  # type: ignore[union-attr, index]
        return (batch(torch.ones(3, width), torch.arange(3)),)  # type: ignore[operator]

    mu = automup.parametrize(model, base={"width": 16}, inputs=inputs)  # type: ignore[arg-type]
    plan = mu.plan(32)
    assert [(s.kind, dict(s.exponents)) for s in plan.sites] == [("reduction", {"width": -1.0})]
