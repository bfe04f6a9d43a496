"""The table of muP in numbers worked out by hand: fan_in 4 times, fan_out 9 times the base.

Spectral condition: std r_i^-1/2 min(1, sqrt(r_o / r_i)); Tensor Programs V for rates.
"""

from __future__ import annotations

import math

import pytest

from automup.rules import Multipliers, Ratios, Role, init_multiplier, multipliers, role_of

HIDDEN = Ratios(4.0, 9.0)
NARROWING = Ratios(9.0, 4.0)


@pytest.mark.parametrize(
    ("ratios", "role", "std"),
    [
        (HIDDEN, Role.HIDDEN, 1 / 2),  # 4^-1/2, as fan_out grows faster
        (NARROWING, Role.HIDDEN, 1 / 3 * 2 / 3),  # 9^-1/2 sqrt(4 / 9)
        (HIDDEN, Role.OUTPUT, 1 / 4),
        (HIDDEN, Role.INPUT, 1.0),
        (HIDDEN, Role.SCALAR, 1.0),
    ],
)
def test_the_std_of_a_draw(ratios: Ratios, role: Role, std: float) -> None:
    assert init_multiplier(ratios, role) == pytest.approx(std, rel=1e-12)


@pytest.mark.parametrize(
    ("family", "lr", "eps"),
    [
        ("sgd", 9 / 4, 1 / 9),
        ("adam", 1 / 4, 1 / 9),
        ("sign", 1 / 4, 1.0),
        ("adadelta", 9 / 4, 1 / 81),
        ("adafactor", 1 / 4 / (1 / 2), 1 / 9),
        ("muon", 3 / 2, 2 / 3),
    ],
)
def test_the_rate_and_eps_of_each_family(family: str, lr: float, eps: float) -> None:
    found = multipliers(family, HIDDEN, Role.HIDDEN)
    assert (found.lr, found.eps) == (pytest.approx(lr), pytest.approx(eps))
    assert found.weight_decay == pytest.approx(1 / lr)
    assert found.lambd == pytest.approx(1 / lr)
    assert found.floor == pytest.approx(1 / 2)


def test_decay_and_embeddings_by_the_papers_that_differ() -> None:
    def adam(**how: str) -> Multipliers:
        return multipliers("adam", HIDDEN, Role.HIDDEN, **how)  # type: ignore[arg-type]

    assert adam(decay="coupled").weight_decay == 1.0
    assert adam(decay="sqrt").weight_decay == pytest.approx(2.0)
    assert adam(embedding_lr="sqrt").lr == pytest.approx(1 / 4 / 3)
    assert adam(embedding_lr="sqrt").weight_decay == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("family", "lr"), [("adam", 5.0), ("sgd", 25.0), ("adafactor", 1.0), ("muon", 5.0)]
)
def test_a_multiplier_that_was_put_into_the_weight(family: str, lr: float) -> None:
    """W = 5 w: lr times 5^(1 + degree), less 1 where the update is in units of the weight."""
    plain, put = (multipliers(family, HIDDEN, Role.HIDDEN, gain=g) for g in (1.0, 5.0))
    assert put.lr / plain.lr == pytest.approx(lr)
    assert put.weight_decay / plain.weight_decay == pytest.approx(1 / lr)
    assert plain.eps / put.eps == pytest.approx(5.0)
    assert put.floor / plain.floor == pytest.approx(5.0)


def test_what_the_user_or_the_optimizer_puts_on_a_rate_itself() -> None:
    plain = multipliers("muon", HIDDEN, Role.HIDDEN)
    tuned = multipliers("muon", HIDDEN, Role.HIDDEN, rate=2.0)
    applied = multipliers("muon", HIDDEN, Role.HIDDEN, applied=3.0)
    assert tuned.lr / plain.lr == pytest.approx(2.0)
    assert applied.lr / plain.lr == pytest.approx(1 / 3)
    in_gradient = multipliers("adam", HIDDEN, Role.HIDDEN, gain=5.0, l2=True)
    assert in_gradient.weight_decay == pytest.approx(4.0 / 25)


def test_at_the_base_every_number_is_exactly_one() -> None:
    for family in ("sgd", "adam", "sign", "adadelta", "adafactor", "muon"):
        for role in Role:
            found = multipliers(family, Ratios(1.0, 1.0), role)
            assert (found.lr, found.weight_decay, found.eps, found.floor) == (1.0, 1.0, 1.0, 1.0)
    assert Multipliers(1.0, 1.0, 1.0).floor == 1.0
    assert math.isclose(init_multiplier(Ratios(1.0, 1.0), Role.HIDDEN), 1.0, rel_tol=0)


def test_roles_by_what_grows() -> None:
    found = [role_of(i, o) for i in (False, True) for o in (False, True)]
    assert found == [Role.SCALAR, Role.INPUT, Role.OUTPUT, Role.HIDDEN]
