"""Norms, means and variances of weights, by which a weight is normalised before it is used.

A statistic of a weight is no use of it: v / |v| sums over what v sums over. Its size is that of the
weight in muP: entries drawn with the table's std, and the largest singular value sqrt(n_o / n_i).
"""

from __future__ import annotations

from dataclasses import replace

from automup.analysis.flow import Flow
from automup.analysis.states import State


def is_entries(state: State) -> bool:
    """Whether a value is the entries of one weight, as they are."""
    return state.kind == "weight" and len(state.views) == 1 and state.views[0].raw


def is_statistic(state: State) -> bool:
    """Whether a value is made of statistics of weights alone."""
    return state.kind == "weight" and bool(state.views) and all(v.statistic for v in state.views)


def std_of(flow: Flow, state: State) -> float:
    """How the std of a weight's entries grows, in octaves."""
    return flow.scale(state.views[0].parameter).std


def statistic(state: State, log: float) -> State:
    """A statistic of the weight in ``state`` that grows by ``log`` octaves."""
    view = replace(state.views[0], axes=None, raw=False, statistic=True)
    return State(log, "weight", (view,))
