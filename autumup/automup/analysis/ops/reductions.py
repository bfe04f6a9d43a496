"""Operations over a whole axis: sums, means, norms, softmax, normalisation layers, losses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from automup.analysis.dataflow import Op, Size, log_ratio, product
from automup.analysis.flow import Flow
from automup.analysis.ops.arithmetic import add
from automup.analysis.ops.registry import forget, kind_of, rule
from automup.analysis.ops.statistics import is_entries, is_statistic, statistic, std_of
from automup.analysis.states import State, multiplied, powered, scaled
from automup.analysis.views import infinite_dims
from automup.capture.graph import Node


def _reduced(flow: Flow, op: Op) -> Size:
    """How many entries are summed into one."""
    before, after = product(flow.sizes(op.arg(0))), product(op.sizes)
    return (max(1, before[0] // max(1, after[0])), max(1, before[1] // max(1, after[1])))


# a sum over an infinite axis adds it once: during training its terms are aligned
@rule("sum", "nansum")
def _sum(flow: Flow, op: Op) -> State:
    state, count = flow.state(op.arg(0)), _reduced(flow, op)
    if not log_ratio(count):
        return _reduction(flow, op)
    if state.kind == "weight":
        if not _is_product_of_vectors(state):
            return flow.unknown(op, "a sum over an infinite dimension of a weight")
        flow.consume(op, op.arg(0))
        state = replace(state, kind="activation")
    return scaled(state.without_views(), op.base, log_ratio(count), "sum", count)


def _is_product_of_vectors(state: State) -> bool:
    """a * b of vectors that grow, which the sum contracts as it does two activations' products."""
    axes = [v.axes for v in state.views]
    known = [infinite_dims(a) for a in axes if a is not None]
    return len(axes) > 1 and len(known) == len(axes) and all(len(dims) == 1 for dims in known)


# |x| over an infinite axis of n entries of size s is s * sqrt(n)
@rule("linalg_vector_norm", "norm", "frobenius_norm")
def _norm(flow: Flow, op: Op) -> State:
    state, count = flow.state(op.arg(0)), _reduced(flow, op)
    order = op.arg(1, "ord", 2)
    if order not in (2, 2.0, None) and log_ratio(count):
        return flow.unknown(op, f"a norm of order {order} over an infinite dimension")
    if is_statistic(state):
        return state
    if is_entries(state):
        return statistic(state, std_of(flow, state) + 0.5 * log_ratio(count))
    if state.kind == "weight" and log_ratio(count):
        return flow.unknown(op, "a norm over an infinite dimension of a weight")
    state = _reduction(flow, op)
    return scaled(state, op.base, 0.5 * log_ratio(count), "sum", count)


_MEANS = {torch.ops.aten.mean.dim, torch.ops.aten.mean.default}


# means, extremes and medians keep the size
@rule("mean", "amax", "amin", "max", "min", "median", "nanmean", "aminmax", "topk", "sort",
      "kthvalue", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
      "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "cummax",
      "max_pool3d_with_indices", "adaptive_max_pool2d")  # fmt: skip
def _reduction(flow: Flow, op: Op) -> State:
    state = flow.state(op.arg(0))
    if is_entries(state) and op.base.target in _MEANS:
        return statistic(state, state.log)  # the mean of n entries Theta(n^-1/2): Theta(1/n)
    if state.kind == "weight" and not state.neutral:
        return flow.unknown(op, "a statistic of a weight that grows with width")
    flow.consume(op, op.arg(0))
    if len(op.base.all_input_nodes) > 1 and op.fact.shape:  # max(a, b): coordinate by coordinate
        return add(flow, op)
    return state.without_views()


# var = mean of squares
@rule("var", "std", "var_mean", "std_mean")
def _var(flow: Flow, op: Op) -> State | list[State]:
    name = str(op.base.target)
    weight = flow.state(op.arg(0))
    if is_entries(weight):
        spread = statistic(weight, std_of(flow, weight) * (2.0 if "var" in name else 1.0))
        return [spread, statistic(weight, weight.log)] if "mean" in name else spread
    state = _reduction(flow, op)
    if "var_mean" in name or "std_mean" in name:
        spread = powered(state, 2.0) if "var" in name else state
        return [spread, state]
    return powered(state, 2.0) if "var" in name else state


@rule("cumsum", "cumprod", "logcumsumexp")
def _cumsum(flow: Flow, op: Op) -> State:
    dim = op.arg(1, "dim", 0)
    if op.sizes and log_ratio(op.sizes[dim % len(op.sizes)]):
        return flow.unknown(op, "a running sum along an infinite dimension")
    return _reduction(flow, op)


# (v, gain, dim) -> (gain * v / |v|, |v|), |v| over all dimensions but one
@rule("_weight_norm_interface")
def _weight_norm(flow: Flow, op: Op) -> State | list[State]:
    weight, gain = flow.state(op.arg(0)), flow.state(op.arg(1))
    if not is_entries(weight):
        return flow.unknown(op, "a weight norm of something that is no weight by itself")
    kept = int(op.arg(2, "dim", 0)) % len(flow.sizes(op.arg(0)))
    count = product(s for d, s in enumerate(flow.sizes(op.arg(0))) if d != kept)
    norm = statistic(weight, std_of(flow, weight) + 0.5 * log_ratio(count))
    flow.consume(op, op.arg(1))
    views = tuple(replace(v, raw=False) for v in weight.views)
    return [replace(multiplied(multiplied(weight, gain), norm, -1.0), views=views), norm]


# exp(x) / sum exp(x): entries over an infinite axis share one unit between them
@rule("_softmax", "_safe_softmax", "softmax")
def _softmax(flow: Flow, op: Op) -> State:
    flow.sink(op, op.arg(0), "it goes into a softmax")
    flow.consume(op, op.arg(0))
    size = op.sizes[op.arg(1)]
    return scaled(State(0.0, kind_of(flow, op)), op.base, -log_ratio(size), "sum", size)


# --- normalisations: the size of the input is forgotten, gain and bias are coordinate-wise ------


# (input, normalized_shape, gain, bias, eps) -> (output, mean, rstd)
@rule("native_layer_norm")
def _layer_norm(flow: Flow, op: Op) -> list[State]:
    return _normalised(flow, op, op.arg(2), op.arg(3))


# (input, normalized_shape, gain, eps) -> (output, rstd)
@rule("_fused_rms_norm")
def _rms_norm(flow: Flow, op: Op) -> list[State]:
    return _normalised(flow, op, op.arg(2), None)


# (input, gain, bias, ...) -> (output, ...)
@rule("native_group_norm", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm",
      "_native_batch_norm_legit_no_training", "_batch_norm_with_update", "batch_norm",
      "_batch_norm_no_update", "instance_norm", "_batch_norm_impl_index",
      "miopen_batch_norm")  # fmt: skip
def _batch_norm(flow: Flow, op: Op) -> list[State]:
    return _normalised(flow, op, op.arg(1), op.arg(2))


def _normalised(flow: Flow, op: Op, gain: Any, bias: Any) -> list[State]:
    out = State(0.0, "activation")
    flow.consume(op, op.arg(0))
    for weight in (gain, bias):
        if isinstance(weight, Node):
            flow.consume(op, weight)
            flow.sink(op, weight, "it is the gain or bias of a normalisation")
    return [out] * 5


# a transform along finite axes keeps the size; along an infinite one it mixes it
@rule("_fft_c2c", "_fft_r2c", "_fft_c2r")
def _fft(flow: Flow, op: Op) -> State:
    sizes = flow.sizes(op.arg(0))
    if any(log_ratio(sizes[d]) for d in op.arg(1)):
        return flow.unknown(op, "a Fourier transform along an infinite axis")
    flow.consume(op, op.arg(0))
    return flow.state(op.arg(0)).without_views()


# log-probabilities do not grow with width
@rule("_log_softmax", "log_softmax", "logsumexp")
def _log_softmax(flow: Flow, op: Op) -> State:
    return _read_as_it_is(flow, op)


# (input, target, ..., reduction) -> (): a mean over an infinite axis, but not a sum, is finite
@rule("mse_loss", "huber_loss", "smooth_l1_loss", "binary_cross_entropy",
      "binary_cross_entropy_with_logits", "l1_loss", "kl_div", "soft_margin_loss")  # fmt: skip
def _loss(flow: Flow, op: Op) -> State:
    if log_ratio(_reduced(flow, op)) and _SUM in op.base.args[2:]:
        return flow.unknown(op, "a loss summed over an infinite axis")
    return _read_as_it_is(flow, op)


_SUM = 2  # torch's number for reduction="sum"


def _read_as_it_is(flow: Flow, op: Op) -> State:
    state = forget(flow, op)
    for value in op.base.all_input_nodes:
        flow.consume(op, value)
    return state.without_views()


# (.., t, d), (.., s, d) -> (.., t, s): the distance of vectors of d entries grows as sqrt(d)
@rule("_cdist_forward", "cdist", "_euclidean_dist")
def _cdist(flow: Flow, op: Op) -> State:
    size = flow.sizes(op.arg(0))[-1]
    both = flow.join(op, [flow.state(n) for n in op.base.all_input_nodes])
    for value in op.base.all_input_nodes:
        flow.consume(op, value)
    return scaled(both.without_views(), op.base, 0.5 * log_ratio(size), "sum", size)


# (.., 2 c, ..) -> (.., c, ..): one half times the sigmoid of the other
@rule("glu")
def _glu(flow: Flow, op: Op) -> State:
    flow.sink(op, op.arg(0), "it goes into a sigmoid gate")
    flow.consume(op, op.arg(0))
    return State(0.0, kind_of(flow, op))


@rule("nll_loss_forward", "nll_loss2d_forward", "nll_loss_nd")
def _nll(flow: Flow, op: Op) -> list[State]:
    state = flow.state(op.arg(0)).without_views()
    return [state, State(0.0, "known")]
