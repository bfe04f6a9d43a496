"""Weights that are several weights in one: a fused projection whose parts grow differently.

``Linear(d, (heads + 2 * kv_heads) * hd)`` with fixed kv_heads writes a part that grows and a part
that does not. No single factor is right for both, so such a weight is refused, not averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from automup.analysis.dataflow import Dataflow, Op, Size, log_ratio
from automup.analysis.flow import EPSILON, Use

_aten = torch.ops.aten
_SPLITS = {_aten.split.Tensor, _aten.split_with_sizes.default}


def unequal_parts(dataflow: Dataflow, uses: Sequence[Use]) -> dict[str, str]:
    """What is wrong with each weight whose output is cut into parts of different growth."""
    by_node: dict[fx.Node, list[str]] = {}
    for use in uses:
        if use.how in ("matmul", "convolution"):
            by_node.setdefault(use.node, []).append(use.parameter)
    problems: dict[str, str] = {}
    for source, whole, parts in _cuts(dataflow):
        growth = [log_ratio(size) for size in parts]
        if max(growth) - min(growth) < EPSILON:
            continue
        sizes = ", ".join(f"{a}→{b}" for a, b in parts)
        for weight in by_node.get(_written_by(dataflow, source, whole, by_node), []):
            problems[weight] = f"its output is cut into parts that grow differently ({sizes})"
    return problems


def _cuts(dataflow: Dataflow) -> Iterator[tuple[fx.Node, Size, list[Size]]]:
    """Every value that is cut along an infinite axis: the value, the axis's size, the parts'."""
    slices: dict[tuple[fx.Node, int], set[Size]] = {}
    for op in dataflow.ops.values():
        target = op.base.target
        if target in _SPLITS:
            source, dim = _source(dataflow, op, 2)
            parts = [dataflow.ops[n].sizes[dim] for n in op.base.users if n in dataflow.ops]
            yield source, dataflow.ops[source].sizes[dim], parts
        elif target is _aten.slice.Tensor:
            source, dim = _source(dataflow, op, 1)
            slices.setdefault((source, dim), set()).add(op.sizes[dim])
    for (source, dim), found in slices.items():
        whole = dataflow.ops[source].sizes[dim]
        only_sliced = all(n.target is _aten.slice.Tensor for n in source.users)
        if len(found) > 1 or only_sliced:
            yield source, whole, sorted({*found, whole} if only_sliced else found)


def _source(dataflow: Dataflow, op: Op, position: int) -> tuple[fx.Node, int]:
    source: Any = op.arg(0)
    return source, int(op.arg(position, "dim", 0)) % len(dataflow.ops[source].sizes)


def _written_by(
    dataflow: Dataflow, node: fx.Node, size: Size, contractions: dict[fx.Node, list[str]]
) -> Any:
    """The contraction that wrote the axis, found through operations that keep it."""
    while node not in contractions:
        if size not in dataflow.ops[node].sizes:
            return None
        sources = [n for n in node.all_input_nodes if size in dataflow.ops[n].sizes]
        if len(sources) != 1 and node.target not in (_aten.add.Tensor,):
            return None
        node = sources[0]
    return node
