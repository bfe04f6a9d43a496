"""Laws of weights that the constructor computes instead of drawing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import automup
from automup.capture.init_laws import InitRecorder
from automup.capture.meta import without_weights


def made(build: object) -> Tensor:
    recorder = InitRecorder()
    with without_weights(recorder.on_meta_init) as mode, mode.watched_by(recorder.watch):
        parameter = nn.Parameter(build())  # type: ignore[operator]
    assert parameter.is_meta
    return torch.tensor([recorder.law(parameter).mean, recorder.law(parameter).std])


@pytest.mark.parametrize(
    ("build", "value"),
    [
        (lambda: torch.log(torch.tensor(64**-0.5)), -math.log(8)),
        (lambda: torch.ones(3).mul_(16).sqrt().exp_(), math.exp(4)),
        (lambda: torch.full((2, 2), 2.0).pow(3) - torch.ones(2).sigmoid() * 0, 8.0),
    ],
)
def test_equal_entries_stay_equal(build: object, value: float) -> None:
    assert made(build).tolist() == pytest.approx([value, 0.0], rel=1e-6)


def test_a_function_of_draws_stays_unknown() -> None:
    assert made(lambda: torch.randn(3).exp()).isnan().all()


class Temperature(nn.Module):
    """Attention whose scale is learned and starts at 1/sqrt(d)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.temperature = nn.Parameter(torch.log(torch.tensor(width**-0.5)))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.q(x) @ self.k(x).transpose(-1, -2) * self.temperature.exp()
        return logits.softmax(-1) @ self.v(x)


def test_a_learned_scale_starts_where_it_starts_at_the_base() -> None:
    mu = automup.parametrize(
        lambda width=16: nn.Sequential(
            nn.Linear(5, width), Temperature(width), nn.Linear(width, 3)
        ),
        inputs=(torch.randn(2, 4, 5),),
    )
    model = mu(64)
    # 1/sqrt(d) of the base, times base/d: together what muP's 1/d is, equal to SP at the base
    assert model[1].temperature.item() == pytest.approx(math.log(16**-0.5), rel=1e-6)
    (site,) = mu.plan(64).sites
    assert (site.kind, site.factor) == ("attention", 0.25)


class Decays(nn.Module):
    """Rates that are written one by one, spread over the same range at any width."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, width), nn.Linear(width, 3)
        decay = torch.ones(width)
        for i in range(width):
            decay[i] = -5 + 8 * (i / (width - 1)) ** 0.7
        self.decay = nn.Parameter(decay)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.sigmoid(self.decay) * self.up(x))


def test_values_that_are_written_one_by_one_are_left_as_they_are() -> None:
    """Their rms changes a little with their number, which is no power of the width."""
    mu = automup.parametrize(Decays, inputs=(torch.randn(4, 5),))
    assert mu.plan(64).parameter("decay").init_mult == 1.0
    assert torch.equal(mu(64).decay, Decays(64).decay)


class RandomTable(nn.Module):
    """Random numbers that are never trained, between two layers."""

    def __init__(self, width: int, power: float) -> None:
        super().__init__()
        self.up, self.mid, self.down = (
            nn.Linear(5, width),
            nn.Linear(width, width),
            nn.Linear(width, 3),
        )
        self.register_buffer("table", torch.randn(width) * width**power)

    def forward(self, x: Tensor) -> Tensor:
        doubled = (2 * self.table).unsqueeze(0).abs()
        return self.down(torch.relu(self.mid(torch.tanh(self.up(x)) * doubled)))


@pytest.mark.parametrize("power", [0.0, -0.5, -1.0])
def test_a_random_table_has_the_size_of_its_law(power: float) -> None:
    """Its values are not known, but what multiplies by it shrinks as it does."""
    mu = automup.parametrize(
        lambda width=16: RandomTable(width, power), inputs=(torch.randn(4, 5),)
    )
    found = [exponent for site in mu.plan(64).sites for _, exponent in site.exponents]
    assert found == ([-power] if power else [])


def test_complex_numbers_have_the_law_of_their_parts() -> None:
    two = made(lambda: torch.complex(torch.randn(3) * 2, torch.ones(3)))
    assert two.tolist() == pytest.approx([0.5, (2.5 - 0.25) ** 0.5])  # of 4 and 1 the mean square


class Spectral(nn.Module):
    """A Fourier layer as its authors draw it, and complex eigenvalues as those of the LRU do."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, width), nn.Linear(width, 3)
        self.modes = nn.Parameter(torch.rand(width, width, 4, dtype=torch.cfloat) / width**2)
        mixed = torch.complex(torch.randn(width, width), torch.randn(width, width))
        self.mixed = nn.Parameter(mixed / (2 * width) ** 0.5)
        self.decay, self.turn = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.fft.rfft(self.up(x), dim=1)
        seen = torch.einsum("bxi,iox->bxo", seen[:, :4], self.modes)
        seen = (seen @ self.mixed) * torch.complex(-torch.exp(self.decay), self.turn).exp()
        return self.down(torch.fft.irfft(seen, n=x.shape[1], dim=1))


def test_complex_weights_are_hidden_ones_with_laws_that_fit_a_formula() -> None:
    """Hidden weights go as n^-1/2; the authors' n^-2 lacks n^3/2, and n^-1/2 lacks nothing."""
    mu = automup.parametrize(Spectral, inputs=(torch.randn(2, 9, 5),))
    plan = mu.plan(64)
    for name, dims, mult in (("modes", ((0,), (1,)), 8.0), ("mixed", ((0,), (1,)), 1.0)):
        weight = plan.parameter(name)
        assert (weight.fan_in_dims, weight.fan_out_dims) == dims
        assert weight.init_mult == pytest.approx(mult)
        assert weight.init_law
    assert plan.parameter("decay").role.value == "input"
    assert not plan.sites
