"""A multiplier that belongs into a function of torch's goes to the call of it, where that is it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import automup
from automup.errors import RewriteError
from conversions import (
    MODELS,
    assert_bit_identical_at_base,
    assert_nothing_left,
    assert_parametrize_agrees,
    assert_ruff_passes,
    assert_well_written,
    converted,
    folder_of_files,
    load_module,
    one,
)

folder = pytest.fixture(autouse=True, scope="module")(folder_of_files)
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
# A softmax over n channels is of size 1/n, a vector of length 1 has entries of size n^-1/2.
FACTORS = {"SoftmaxFunction": 4.0, "SoftmaxModule": 4.0, "Normalize": 2.0}
calls = load_module("library_calls", MODELS / "library_calls.py")


@pytest.mark.parametrize("name", FACTORS)
def test_what_the_call_returns_is_multiplied(name: str) -> None:
    kind = getattr(calls, name)
    model, plain = automup.parametrize(kind, inputs=(X,))(128), kind(128)
    h = torch.randn(3, 128)
    torch.testing.assert_close(model.normalised(h), FACTORS[name] * plain.normalised(h))
    torch.testing.assert_close(kind(128).normalised(h), plain.normalised(h))


@pytest.mark.parametrize("name", FACTORS)
def test_converted_files_multiply_it_too(name: str) -> None:
    pair = converted(one(f"library_calls.py:{name}", width=32))
    assert_well_written(pair)
    assert_ruff_passes(pair)
    assert_bit_identical_at_base(pair)
    assert_nothing_left(pair)
    assert_parametrize_agrees(pair)


class ByHand(nn.Module):
    """torch's function for attention, called with the weights of four layers."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.head = nn.Linear(width, 5)

    def attend(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result: tuple[torch.Tensor, torch.Tensor] = F.multi_head_attention_forward(
            h, h, h, h.size(-1), 2, None,
            torch.cat([self.q.bias, self.k.bias, self.v.bias]),
            None, None, False, 0.0, self.out.weight, self.out.bias, self.training,
            use_separate_proj_weight=True, average_attn_weights=False,
            q_proj_weight=self.q.weight, k_proj_weight=self.k.weight, v_proj_weight=self.v.weight,
        )  # fmt: skip
        return result

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x)
        result: torch.Tensor = self.head(h + self.attend(h)[0])
        return result


def test_logits_of_torchs_function_move_by_exactly_the_factor() -> None:
    """log(weights) differences between keys are differences of logits: they scale by the factor."""
    mu = automup.parametrize(ByHand, inputs=(torch.randn(5, 2, 6),))
    model, plain = mu(128), ByHand(128)
    plain.load_state_dict(model.state_dict())
    h = torch.randn(5, 2, 128)
    logits = [m.attend(h)[1].log() for m in (plain, model)]  # type: ignore[operator]
    before, after = (x - x[..., :1] for x in logits)
    torch.testing.assert_close(after, 0.5 * before, rtol=1e-4, atol=1e-5)
    assert [site.kind for site in mu.plan(128).sites] == ["attention"]


class ByAnotherName(ByHand):
    def attend(self, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        attend = getattr(F, "_".join(["multi", "head", "attention", "forward"]))
        result: tuple[torch.Tensor, torch.Tensor] = attend(
            h, h, h, h.size(-1), 2, None,
            torch.cat([self.q.bias, self.k.bias, self.v.bias]),
            None, None, False, 0.0, self.out.weight, self.out.bias,
            use_separate_proj_weight=True,
            q_proj_weight=self.q.weight, k_proj_weight=self.k.weight, v_proj_weight=self.v.weight,
        )  # fmt: skip
        return result


def test_a_call_that_nothing_leads_to_is_refused() -> None:
    with pytest.raises(RewriteError, match="multi_head_attention_forward"):
        automup.parametrize(ByAnotherName, inputs=(torch.randn(5, 2, 6),))


class PassingBy(nn.MultiheadAttention):
    """Calls torch's forward by its class, which no subclass of this one can come between."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return x + nn.MultiheadAttention.forward(self, x, x, x)[0]


class Attending(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, width), nn.Linear(width, 5)
        self.attention = PassingBy(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.attention(self.embed(x)))
        return result


def test_a_class_that_passes_its_parent_by_is_refused() -> None:
    with pytest.raises(RewriteError, match="torch's multi_head_attention_forward"):
        automup.parametrize(Attending, inputs=(torch.randn(5, 2, 6),))
