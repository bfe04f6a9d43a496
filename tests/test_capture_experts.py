"""Mixtures of experts and autocast without weights: what runs depends on values nobody knows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import automup
from automup.capture.meta import without_weights


class Experts(nn.Module):
    """Experts by name, each run on the tokens that the router sends to it."""

    def __init__(self, width: int, experts: int = 3, classes: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(7, width)
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleDict({f"e{i}": nn.Linear(width, width) for i in range(experts)})
        self.stack = nn.Parameter(torch.randn(experts, width, width) * width**-0.5)
        self.classes = classes
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        best = self.router(x).softmax(-1).argmax(-1)
        chosen = nn.functional.one_hot(best, num_classes=self.classes)
        out = torch.zeros_like(x)
        for expert in chosen.sum(0).greater(0).nonzero():
            (rows,) = torch.where(chosen[:, expert[0]] > 0)
            name = expert[0] % len(self.experts)
            found = self.experts[f"e{name}"](x[rows]) @ self.stack[expert[0]]
            out.index_add_(0, rows, found)
        return self.head(x + out)


@pytest.mark.parametrize("classes", [3, 4])
def test_every_expert_is_run_on_every_token(classes: int) -> None:
    # a fourth class that no token is sent to (a sentinel) is an expert beyond the end of the stack
    mu = automup.parametrize(
        lambda width=16: Experts(width, classes=classes), inputs=(torch.randn(6, 7),)
    )
    plan = mu.plan(64)
    for i in range(3):
        assert plan.parameter(f"experts.e{i}.weight").role.value == "hidden"
    assert plan.parameter("stack").fan_in_dims == (1,)
    assert plan.parameter("router.weight").role.value == "output"
    assert any("nonzero" in note for note in plan.notes)


class Counted(nn.Module):
    """Experts in turn, each on as many tokens as a count says; sorted by expert in eval mode."""

    def __init__(self, width: int, by_bincount: bool) -> None:
        super().__init__()
        self.by_bincount = by_bincount
        self.embed, self.router = nn.Linear(7, width), nn.Linear(width, 4)
        self.experts = nn.ModuleList([nn.Linear(width, width) for _ in range(4)])
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        weights, chosen = self.router(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        if self.by_bincount:
            counts = torch.bincount(chosen.flatten(), minlength=4).tolist()
        else:
            counts = nn.functional.one_hot(chosen, 4).sum((0, 1)).tolist()
        order, start = chosen.flatten().argsort(), 0
        for expert, count in zip(self.experts, counts, strict=True):
            if count == 0:
                continue
            rows, start = order[start : start + count], start + count
            tokens = rows // 2
            out[tokens] += expert(x[tokens]) * weights.flatten()[rows, None]
        return self.head(x + out)


@pytest.mark.parametrize("by_bincount", [True, False])
def test_tokens_that_are_counted_choose_alike_at_all_widths(by_bincount: bool) -> None:
    """How many tokens an expert gets is no size that grows; none may be left out."""
    mu = automup.parametrize(lambda width=16: Counted(width, by_bincount))  # its inputs are found
    plan = mu.plan(64)
    roles = [plan.parameter(f"experts.{i}.weight").role.value for i in range(4)]
    assert roles == ["hidden"] * 4
    assert plan.parameter("router.weight").role.value == "output"
    assert not plan.sites


@pytest.mark.parametrize(
    ("a", "b", "offsets"),
    [((6, 8), (2, 8, 4), 2), ((2, 6, 8), (2, 8, 4), 0), ((6, 8), (8, 4), 2)],
)
def test_grouped_products_have_the_same_shape_as_on_the_cpu(
    a: tuple[int, ...], b: tuple[int, ...], offsets: int
) -> None:
    ends = torch.tensor([3, a[-2]], dtype=torch.int32) if offsets else None
    if len(a) == len(b) == 2:
        ends = torch.tensor([3, a[-1]], dtype=torch.int32)
    left, right = torch.randn(a), torch.randn(b)
    real = torch._grouped_mm(left, right, offs=ends)
    with without_weights() as mode:
        ends = mode.to_meta(ends) if ends is not None else None
        made = torch._grouped_mm(mode.to_meta(left), mode.to_meta(right), offs=ends)
        assert made.is_meta
    assert (made.shape, made.dtype) == (real.shape, real.dtype)


def test_autocast_is_entered_by_the_device_of_a_tensor() -> None:
    def turned(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return x.float() * 2

    with without_weights():
        assert turned(torch.ones(3)).is_meta
    with pytest.raises(RuntimeError):
        torch.autocast("meta", enabled=False)
