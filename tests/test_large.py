"""What keeps the analysis of deep models linear in their depth, and what it leaves behind."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

import automup
from automup.analysis import parts
from automup.capture.graph import Node
from automup.capture.ground import one_thread
from automup.capture.memory import short_lived


class Residual(nn.Module):
    """A stream that every layer adds to; two optional inputs reach a branch each."""

    def __init__(self, d: int = 16, depth: int = 4) -> None:
        super().__init__()
        self.table = nn.Embedding(11, d)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(d, d) for _ in range(depth))
        self.out = nn.Linear(d, 11)

    def forward(self, idx, mask=None, targets=None):
        x = self.table(idx)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x)).relu()
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        logits = self.out(x)
        if targets is not None:
            return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits


def _study(depth: int):
    idx = torch.arange(10).view(2, 5)
    return automup.parametrize(lambda d=16: Residual(d, depth), inputs=(idx,))._study


def test_optional_inputs_are_given_together_where_that_reaches_what_each_does():
    reached = [[name for name, _ in v.extra] for v in _study(2).exploration.variants]
    assert reached == [[], ["mask", "targets"]]


class Dropped(nn.Module):
    """Dropout as a module, of whole features, as a function, and inside attention."""

    def __init__(self, rate: float, d: int = 16) -> None:
        super().__init__()
        self.qkv, self.out, self.drop = nn.Linear(d, 3 * d), nn.Linear(d, 5), nn.Dropout(rate)
        self.features, self.rate = nn.Dropout1d(rate), rate

    def forward(self, x):
        q, k, v = self.qkv(self.drop(x)).view(*x.shape[:2], 3, 4, -1).permute(2, 0, 3, 1, 4)
        p = self.rate if self.training else 0.0
        heads = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p)
        x = nn.functional.dropout(heads.transpose(1, 2).flatten(2), self.rate, self.training)
        return self.out(self.features(x))


@pytest.mark.parametrize("rate", [0.1, 0.5])  # torch leaves out what is its default, 0.5
def test_a_training_run_stands_for_the_same_run_without_dropout(rate):
    mu = automup.parametrize(
        lambda d: Dropped(rate, d),
        base={"d": 16},
        inputs=lambda m: (torch.ones(2, 3, m.out.in_features),),
    )
    assert [str(v) for v in mu._study.exploration.variants] == ["train"]
    assert [site.kind for site in mu.plan(32).sites] == ["attention"]


def test_rows_in_a_residual_stream_are_followed_once(monkeypatch):
    steps = []
    after = parts._after
    monkeypatch.setattr(parts, "_after", lambda *a: steps.append(a) or after(*a))

    def count(depth: int) -> int:
        steps.clear()
        _study(depth)
        return len(steps)

    assert count(16) < 2.5 * count(8)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        frozen = gc.get_freeze_count()
        with short_lived(), short_lived():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
        assert gc.get_freeze_count() == frozen
    finally:
        gc.enable()


def test_what_the_caller_froze_stays_frozen():
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with short_lived():
            pass
        assert gc.get_freeze_count() >= frozen > 0
    finally:
        gc.unfreeze()


def test_cycles_made_in_the_block_are_freed_at_its_end():
    import weakref

    class Node:
        pass

    with short_lived():
        node = Node()
        node.itself = node
        known = weakref.ref(node)
        del node
    assert known() is None


def test_threads_are_as_the_caller_set_them():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ValueError), one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError
        assert torch.get_num_threads() == 3
        _study(2)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_trace_is_freed_without_the_collector():
    study = _study(2)
    variant = study.exploration.variants[0]

    def alive() -> int:
        return sum(isinstance(thing, Node) for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()
        trace = study.models.run(study.wide, variant)
        assert alive() >= before + len(trace.nodes)
        del trace
        assert alive() == before
    finally:
        gc.enable()
