"""Operations that move entries about: views, slices, joins, writes into parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import torch

from automup.analysis.dataflow import Op, Size, log_ratio, product
from automup.analysis.flow import Flow
from automup.analysis.ops.registry import floating_inputs, rule
from automup.analysis.ops.statistics import is_statistic
from automup.analysis.states import EPSILON, ZERO, State, join_states, scaled
from automup.analysis.views import Axis, expanded, mapped, repeated, reshaped, resized
from automup.capture.graph import Node


def _on_other_axes(
    state: State, change: Callable[[tuple[Axis, ...]], Sequence[Axis] | None]
) -> State:
    """The same entries, moved about."""
    return replace(state, views=mapped(state.views, change)) if state.views else state


@rule("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "alias", "detach", "clone",
      "_to_copy", "contiguous", "lift_fresh", "lift_fresh_copy", "flatten", "unflatten", "view_as",
      "positive", "_reshape_alias", "_conj", "_conj_physical", "conj", "copysign")  # fmt: skip
def _reshape(flow: Flow, op: Op) -> State:
    """Same entries in the same order: atoms are regrouped to the new sizes."""
    state = flow.state(op.arg(0))
    return _on_other_axes(state, lambda axes: reshaped(axes, op.sizes))


@rule("t", "numpy_T")
def _t(flow: Flow, op: Op) -> State:
    state = flow.state(op.arg(0))
    return _on_other_axes(state, lambda axes: axes[::-1])


@rule("transpose", "swapaxes")
def _transpose(flow: Flow, op: Op) -> State:
    first, second = op.arg(1), op.arg(2)

    def swap(axes: tuple[Axis, ...]) -> list[Axis]:
        moved = list(axes)
        moved[first], moved[second] = axes[second], axes[first]
        return moved

    state = flow.state(op.arg(0))
    return _on_other_axes(state, swap)


@rule("permute")
def _permute(flow: Flow, op: Op) -> State:
    state, order = flow.state(op.arg(0)), op.arg(1)
    return _on_other_axes(state, lambda axes: [axes[d] for d in order])


@rule("expand")
def _expand(flow: Flow, op: Op) -> State:
    state = flow.state(op.arg(0))
    return _on_other_axes(state, lambda axes: expanded(axes, op.sizes))


# (*, 2) -> (*), complex
@rule("view_as_complex")
def _as_complex(flow: Flow, op: Op) -> State:
    state = flow.state(op.arg(0))
    return replace(state, views=mapped(state.views, lambda axes: axes[:-1]))


# (*), complex -> (*, 2)
@rule("view_as_real")
def _as_real(flow: Flow, op: Op) -> State:
    state = flow.state(op.arg(0))
    return replace(state, views=mapped(state.views, lambda axes: (*axes, repeated((2, 2)))))


# each dimension tiled, and new ones in front
@rule("repeat")
def _repeat(flow: Flow, op: Op) -> State:
    state, times = flow.state(op.arg(0)), list(zip(*op.number(1), strict=True))

    def tile(axes: tuple[Axis, ...]) -> list[Axis]:
        before = ((),) * (len(times) - len(axes)) + axes
        return [repeated(n) + axis for n, axis in zip(times, before, strict=True)]

    return _on_other_axes(state, tile)


# x[..., i, ...] -> one dimension fewer
@rule("select")
def _select(flow: Flow, op: Op) -> State:
    state, dim = flow.state(op.arg(0)), op.arg(1)

    def drop(axes: tuple[Axis, ...]) -> list[Axis]:
        return [a for d, a in enumerate(axes) if d != dim % len(axes)]

    return _on_other_axes(state, drop)


# x[..., a:b:c, ...]: a slice of fixed length out of an infinite axis is finite
@rule("slice", "narrow")
def _slice(flow: Flow, op: Op) -> State:
    return _cut(flow, flow.state(op.arg(0)), op.arg(1, "dim", 0), op.sizes)


def _cut(flow: Flow, state: State, dim: int, sizes: tuple[Size, ...]) -> State:
    dim = dim % len(sizes)
    return _on_other_axes(state, lambda axes: resized(axes, dim, sizes[dim]))


# -> several slices along one dimension
@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_split",
      "unsafe_split_with_sizes", "unsafe_chunk")  # fmt: skip
def _split(flow: Flow, op: Op) -> list[State]:
    dim, parts = op.arg(2, "dim", 0), _part_sizes(flow, op)
    sources = _taken_apart(flow, op) or [op.arg(0)] * len(parts)
    pairs = zip(sources, parts, strict=True)
    return [_cut(flow, flow.state(source), dim, sizes) for source, sizes in pairs]


def _taken_apart(flow: Flow, op: Op) -> list[Node] | None:
    """Of each part that an operation splits off a concatenation, the operand that it lies in.

    None if it splits something else, or a part has entries of several operands.
    """
    joined = op.arg(0)
    if op.base.target not in _SPLITS or joined.target is not _aten.cat.default:
        return None
    cat, rank = flow.dataflow.ops[joined], len(flow.sizes(joined))
    dim = op.arg(2, "dim", 0) % rank
    if cat.arg(1, "dim", 0) % rank != dim:
        return None
    ends = _ends([flow.sizes(n)[dim] for n in cat.arg(0)])
    parts = _ends([sizes[dim] for sizes in _part_sizes(flow, op)])
    found = [
        node
        for part in pairwise([(0, 0), *parts])
        for node, whole in zip(cat.arg(0), pairwise([(0, 0), *ends]), strict=True)
        if all(whole[0][w] <= part[0][w] < part[1][w] <= whole[1][w] for w in (0, 1))
    ]
    return found if len(found) == len(parts) else None


def _ends(sizes: Sequence[Size]) -> list[Size]:
    """Where each of several pieces ends, at both widths."""
    return list(zip(*(accumulate(s[w] for s in sizes) for w in (0, 1)), strict=True))


@rule("unbind")
def _unbind(flow: Flow, op: Op) -> list[State]:
    state, dim = flow.state(op.arg(0)), op.arg(1, "dim", 0)

    def drop(axes: tuple[Axis, ...]) -> list[Axis]:
        return [a for d, a in enumerate(axes) if d != dim % len(axes)]

    part = replace(state, views=mapped(state.views, drop))
    return [part for _ in _part_sizes(flow, op)]


def _part_sizes(flow: Flow, op: Op) -> list[tuple[Size, ...]]:
    """The sizes of the parts of an operation that returns several tensors."""
    parts: dict[Any, tuple[Size, ...]] = {
        n.args[1]: flow.sizes(n) for n in flow.dataflow.readers(op.base)
    }
    whole: tuple[Size, ...] = flow.sizes(op.arg(0))
    return [parts.get(i, whole) for i in range(max(parts, default=-1) + 1)]


# entries of several tensors side by side, or on a new dimension
@rule("cat", "stack", "concatenate")
def _cat(flow: Flow, op: Op) -> State:
    parts = [n for n in op.arg(0) if isinstance(n, Node)]
    states = [flow.state(n) for n in parts]
    readers = [flow.dataflow.ops[n] for n in flow.dataflow.readers(op.base)]
    if readers and all(_taken_apart(flow, reader) for reader in readers):
        return join_states(states)  # nobody reads it as a whole
    joined = flow.join(op, states)
    if joined.kind == "activation":
        for part in parts:
            flow.consume(op, part)  # a learned token beside activations is used as it is
        return joined
    added = len(op.sizes) > len(flow.sizes(parts[0]))
    dim = op.arg(1, "dim", 0) % len(op.sizes)

    def place(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return (*axes[:dim], (), *axes[dim:]) if added else axes

    views = [v for s in states for v in mapped(s.views, place)]
    return replace(joined, views=tuple(views))


# pieces of a tensor written into another: the sizes of both must agree
@rule("slice_scatter", "select_scatter", "index_put", "_index_put_impl", "index_add", "index_copy",
      "scatter", "scatter_add", "masked_scatter", "copy", "fill", "scatter_reduce")  # fmt: skip
def _write(flow: Flow, op: Op) -> State:
    values = floating_inputs(flow, op)
    if op.base.target in _OVERWRITES:
        values = [n for n in values if n is not op.arg(0)]
        if len(values) == 1 and is_statistic(flow.state(values[0])):
            return flow.state(values[0])  # kept in a buffer, as spectral norm does
    for value in values:
        flow.consume(op, value)
    states = [flow.state(v).without_views() for v in values]
    if len(values) > 1 and states[0].log == ZERO and _fills_a_part(flow, op, values[-1]):
        return flow.unknown(op, "it fills a fixed number of entries along an infinite axis")
    if op.base.target in _ADDING and len(values) > 1:
        states[-1] = _gathered(flow, op, states[-1], values[-1])
    return flow.join(op, states)


def _fills_a_part(flow: Flow, op: Op, source: Node) -> bool:
    """Whether more of the entries stay zero the wider the model: a sum over them is a finite one.

    The best k of n latents, put back in their places, feed as many weights at any width.
    """
    grows = log_ratio(product(op.sizes)) - log_ratio(product(flow.sizes(source)))
    return op.base.target in _PUTS and grows > EPSILON


def _gathered(flow: Flow, op: Op, state: State, source: Node) -> State:
    """Entries of an infinite axis that are added up into a finite one: a sum like any other."""
    before, after = product(flow.sizes(source)), product(op.sizes)
    surplus = log_ratio(before) - log_ratio(after)
    if surplus <= EPSILON:
        return state
    return scaled(state, op.base, surplus, "sum", _last_infinite(flow.sizes(source)))


def _last_infinite(sizes: tuple[Size, ...]) -> Size:
    return next((s for s in reversed(sizes) if log_ratio(s)), (1, 1))


_aten = torch.ops.aten
_SPLITS = {_aten.split.Tensor, _aten.split_with_sizes.default}
_OVERWRITES = {_aten.copy_.default, _aten.fill_.Tensor}
_PUTS = {
    _aten.scatter.src, _aten.scatter_.src, _aten.scatter_add.default, _aten.scatter_add_.default,
    _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default,
    _aten.index_copy.default, _aten.index_copy_.default,
    _aten.index_add.default, _aten.index_add_.default,
}  # fmt: skip
_ADDING = {
    _aten.index_add.default, _aten.index_add_.default, _aten.scatter_add.default,
    _aten.scatter_add_.default, _aten.index_put.default, _aten.index_put_.default,
    _aten._index_put_impl_.default,
}  # fmt: skip


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d",
      "replication_pad2d", "flip", "roll", "repeat_interleave", "diagonal", "unfold",
      "im2col", "col2im", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "as_strided",
      "upsample_nearest1d", "upsample_nearest2d", "upsample_linear1d", "upsample_bilinear2d",
      "_upsample_bilinear2d_aa", "upsample_bicubic2d", "_upsample_bicubic2d_aa", "diag_embed",
      "rot90", "grid_sampler_2d", "index_fill", "real", "imag", "_neg_view")  # fmt: skip
def _moved(flow: Flow, op: Op) -> State:
    """Entries are copied, dropped or interpolated; which dimension they came from is lost."""
    state = flow.state(op.arg(0))
    return replace(state, views=tuple(v.with_axes(None) for v in state.views))
