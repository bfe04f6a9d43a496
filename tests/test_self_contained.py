"""Models that differentiate themselves, begin with zeros, compute with complex numbers, or contract
their own vectors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import automup

X = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))


class Energy(nn.Module):
    """Its output is a gradient: W^T follows from W, whatever it sums over."""

    def __init__(self, width: int = 32, act: type[nn.Module] = nn.Softplus) -> None:
        super().__init__()
        self.first, self.mid, self.last = (
            nn.Linear(12, width), nn.Linear(width, width), nn.Linear(width, 1, bias=False),
        )  # fmt: skip
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.last(self.act(self.mid(self.act(self.first(x)))))
            (force,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
        return -force


@pytest.mark.parametrize("act", [nn.Softplus, nn.SiLU, nn.Tanh, nn.GELU, nn.ReLU, nn.Sigmoid])
def test_a_model_that_differentiates_itself(act: type[nn.Module]) -> None:
    mu = automup.parametrize(lambda width=32: Energy(width, act), inputs=(X,))
    plan = mu.plan(128)
    roles = {p.name: p.role.value for p in plan.parameters if p.name.endswith("weight")}
    assert roles == {"first.weight": "input", "mid.weight": "hidden", "last.weight": "output"}
    assert not plan.sites


class FromZeros(nn.Module):
    """A state of keys times values that begins with zeros, read by a query, in two steps."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(12, width) for _ in "qkv")
        self.out = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        state, out = torch.zeros(len(x), q.size(-1), v.size(-1)), torch.zeros_like(v)
        for _ in range(2):
            out = out + torch.einsum("bk,bkv->bv", q, state)
            state = state + k[:, :, None] * v[:, None]
        return self.out(out)


def test_a_state_that_begins_with_zeros() -> None:
    (site,) = automup.parametrize(FromZeros, inputs=(X,)).plan(128).sites
    assert site.factor == pytest.approx(1 / 4)  # q·k over the width, nothing divides


class Dot(nn.Module):
    """A gate made of the product of two vectors of the model's own, over the width."""

    def __init__(self, width: int = 32, how: str = "sum") -> None:
        super().__init__()
        self.how = how
        self.read, self.out = nn.Linear(12, width), nn.Linear(width, 5)
        self.a, self.b = (nn.Parameter(0.1 * torch.randn(width)) for _ in "ab")

    def forward(self, x: Tensor) -> Tensor:
        dot = (self.a * self.b).sum() if self.how == "sum" else self.a @ self.b
        return self.out(F.relu(self.read(x)) * torch.exp(dot))


@pytest.mark.parametrize("how", ["sum", "matmul"])
def test_vectors_that_meet_over_the_width_are_a_query_and_a_key(how: str) -> None:
    mu = automup.parametrize(lambda width=32: Dot(width, how), inputs=(X,))
    plan = mu.plan(128)
    (site,) = plan.sites
    assert site.factor == pytest.approx(1 / 4)
    assert {plan.parameter(n).role.value for n in "ab"} == {"input"}
    torch.manual_seed(0)
    model = mu(128)
    a, b = model.get_parameter("a"), model.get_parameter("b")
    expected = model.out(F.relu(model.read(X)) * torch.exp((a * b).sum() / 4))
    torch.testing.assert_close(model(X), expected)


class Diagonal(nn.Module):
    """A parameter that is the real and imaginary parts of complex numbers."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.read, self.out = nn.Linear(12, width), nn.Linear(width, 5)
        self.c = nn.Parameter(torch.view_as_real(torch.randn(width, 3, dtype=torch.cfloat)))

    def forward(self, x: Tensor) -> Tensor:
        gain = torch.einsum("hn,hnl->hl", torch.view_as_complex(self.c), torch.ones(1, 3, 1) + 0j)
        return self.out(F.relu(self.read(x)) * gain.real.squeeze(-1))


def test_complex_entries_keep_their_dimensions() -> None:
    row = automup.parametrize(Diagonal, inputs=(X,)).plan(128).parameter("c")
    assert (row.role.value, row.init_mult) == ("input", 1.0)
