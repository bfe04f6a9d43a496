"""What each family of optimizers is said to do, measured on the optimizers themselves."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

import automup
import cases
from automup.api import Mup
from automup.errors import UsageError
from automup.optim import Several
from automup.optimizers import known_class
from automup.rules import Ratios, Role, multipliers

Settings = dict[str, Any]


class Lion(torch.optim.Optimizer):
    """Chen et al. (arXiv:2302.06675), as its public packages write it."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            a, b = group["betas"]
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * (a * mean + (1 - a) * p.grad).sign())
                mean.mul_(b).add_(p.grad, alpha=1 - b)


Lion.__module__, Lion.__qualname__ = "lion_pytorch.lion_pytorch", "Lion"

# Every class, with settings in which its eps and its decay matter.
EVERY: list[tuple[Any, Settings]] = [
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (torch.optim.ASGD, {"lr": 0.1, "lambd": 0.1, "weight_decay": 0.1}),
    (torch.optim.Adam, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1, "amsgrad": True}),
    (torch.optim.AdamW, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1}),
    (torch.optim.NAdam, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1}),
    (
        torch.optim.NAdam,
        {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    (torch.optim.Adamax, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1}),
    (torch.optim.RMSprop, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1, "momentum": 0.5}),
    (torch.optim.Adagrad, {"lr": 0.1, "eps": 0.1, "weight_decay": 0.1}),
    (torch.optim.Adadelta, {"lr": 5.0, "eps": 0.1, "weight_decay": 0.1}),
    (torch.optim.Adafactor, {"lr": 0.1, "eps": (1e-4, 0.3), "weight_decay": 0.1}),
    (Lion, {"lr": 0.1, "weight_decay": 0.1}),
]
NAMES = [f"{cls.__name__}-{i}" for i, (cls, _) in enumerate(EVERY)]


def run(
    cls: Any, settings: Settings, start: torch.Tensor, gradient: Callable[..., Any], steps: int = 8
) -> torch.Tensor:
    """Where a parameter gets to; ``gradient`` is a function of it and of the step."""
    p = nn.Parameter(start.clone())
    optimizer = cls([p], **settings)
    for step in range(steps):
        p.grad = gradient(p.detach(), step)
        optimizer.step()
    return p.detach()


def scaled(settings: Settings, cls: Any, factors: Any) -> Settings:
    """The settings times their factors."""
    out = dict(settings)
    for key in ("lr", "weight_decay", "lambd"):
        if key in out:
            out[key] *= getattr(factors, key)
    if isinstance(out.get("eps"), tuple):
        out["eps"] = (out["eps"][0] * factors.eps, out["eps"][1] * factors.floor)
    elif "eps" in out:
        out["eps"] *= factors.eps
    return out


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("cls", "settings"), EVERY, ids=NAMES)
def test_a_multiplier_is_exchanged_for_its_settings(cls: Any, settings: Settings) -> None:
    """w with the loss f(A w) against W with f(W): A w = W after every step, decay included."""
    known = known_class(cls)
    gen = torch.Generator().manual_seed(0)
    start = torch.randn(3, 4, generator=gen, dtype=torch.float64)
    noise = torch.randn(8, 3, 4, generator=gen, dtype=torch.float64)
    a = 3.0
    factors = multipliers(known.family, Ratios(1, 1), Role.SCALAR, gain=a, l2=known.is_l2(settings))

    def of_product(w: torch.Tensor, step: int) -> torch.Tensor:
        return a * (torch.sin(a * w) + noise[step])

    def of_weight(w: torch.Tensor, step: int) -> torch.Tensor:
        return torch.sin(w) + noise[step]

    with_multiplier = a * run(cls, settings, start, of_product)
    without = run(cls, scaled(settings, cls, factors), a * start, of_weight)
    torch.testing.assert_close(without, with_multiplier, rtol=1e-9, atol=1e-9)
    assert (without - a * start).abs().min() > 1e-4


@pytest.mark.parametrize(("cls", "settings"), EVERY, ids=NAMES)
def test_an_entry_moves_by_one_over_fan_in_whatever_the_gradient(
    cls: Any, settings: Settings
) -> None:
    """Gradients are 1 / r_o of the base's: with its factors, each entry moves 1 / r_i of it."""
    known = known_class(cls)
    plain = {**settings, "weight_decay": 0.0} | ({"lambd": 0.0} if "lambd" in settings else {})
    gen = torch.Generator().manual_seed(1)
    start = torch.randn(3, 4, generator=gen, dtype=torch.float64)
    noise = torch.randn(8, 3, 4, generator=gen, dtype=torch.float64)
    ratios = Ratios(4.0, 16.0)
    factors = multipliers(known.family, ratios, Role.HIDDEN)
    entry = factors.floor if known.family == "adafactor" else 1.0  # what it is drawn by
    base = run(cls, plain, start, lambda w, t: noise[t], steps=1) - start
    wide = run(cls, scaled(plain, cls, factors), entry * start, lambda w, t: noise[t] / 16, 1)
    torch.testing.assert_close(wide - entry * start, base / 4, rtol=1e-9, atol=1e-12)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)  # ASGD keeps its rate in the default type
    yield
    torch.set_default_dtype(torch.float32)


# --- movement with width -------------------------------------------------------------------------

TRAINED: list[tuple[Any, Settings, int]] = [
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}, 4),
    (torch.optim.ASGD, {"lr": 0.05}, 4),
    (torch.optim.Adam, {"lr": 2e-3}, 4),
    (torch.optim.NAdam, {"lr": 2e-3}, 4),
    (torch.optim.RAdam, {"lr": 2e-3}, 9),  # its first steps divide by nothing
    (torch.optim.Adamax, {"lr": 2e-3}, 4),
    (torch.optim.RMSprop, {"lr": 5e-4}, 4),
    (torch.optim.Adagrad, {"lr": 2e-3}, 4),
    (torch.optim.Adadelta, {"lr": 1.0}, 4),
    (torch.optim.Adafactor, {"lr": 2e-2}, 4),
    (torch.optim.Muon, {"lr": 2e-2, "rest": {"lr": 2e-3}}, 4),
    (torch.optim.Muon, {"lr": 2e-3, "adjust_lr_fn": "match_rms_adamw"}, 4),
    (Lion, {"lr": 1e-3}, 4),
]


class Relu(nn.Module):
    """No biases, whose movement would hide what the weights do; a readout of zeros."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inner = nn.Linear(16, width, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(2))
        self.outer = nn.Linear(width, 10, bias=False)
        for layer in (self.inner, *self.hidden):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / layer.in_features))
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.inner(x))
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.outer(x)


X, Y = cases.VECTORS[:, :16], cases.CLASSES


@functools.cache
def relu() -> Mup:
    return automup.parametrize(Relu, inputs=(X[:2],))


def movement(build: Any, make: Any, steps: int) -> float:
    moved = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = build()
        optimizer = make(model)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
        with torch.no_grad():
            moved.append(float(model(X).abs().mean()))  # from zero
    return sum(moved) / len(moved)


def plain_optimizer(cls: Any, settings: Settings) -> Callable[[nn.Module], Any]:
    """What one writes by hand in SP: Muon for the hidden matrices."""

    def make(model: nn.Module) -> Any:
        if cls is not torch.optim.Muon:
            return cls(model.parameters(), **settings)
        own = {k: v for k, v in settings.items() if k != "rest"}
        hidden = [p for n, p in model.named_parameters() if "hidden" in n and p.ndim == 2]
        rest = [p for p in model.parameters() if all(p is not h for h in hidden)]
        adam = torch.optim.AdamW(rest, **settings.get("rest", {"lr": own["lr"]}))
        return Several(cls(hidden, **own), adam)

    return make


@pytest.mark.filterwarnings("ignore:.*limits every learning rate")
@pytest.mark.parametrize(
    ("cls", "settings", "steps"),
    TRAINED,
    ids=[f"{c.__name__}-{i}" for i, (c, *_) in enumerate(TRAINED)],
)
def test_outputs_move_alike_at_every_width(cls: Any, settings: Settings, steps: int) -> None:
    widths = [32, 64, 128, 256]
    up = [
        movement(lambda w=w: relu()(w), lambda m: relu().optimizer(m, cls, **settings), steps)
        for w in widths
    ]
    sp = [movement(lambda w=w: Relu(w), plain_optimizer(cls, settings), steps) for w in widths]
    assert -0.1 < cases.slope(widths, up) < 0.1
    assert cases.slope(widths, sp) > 0.3


# --- choices where opinions differ, and refusals -------------------------------------------------


def groups_by_name(mu: Mup, model: nn.Module, *args: Any, **settings: Any) -> dict[str, Any]:
    names = {id(p): n for n, p in model.named_parameters()}
    groups = mu.param_groups(model, *args, **settings)
    return {names[id(p)]: group for group in groups for p in group["params"]}


def test_the_embedding_s_rate_and_the_decay_by_other_opinions() -> None:
    mu = automup.parametrize(cases.GPT.build, base={"width": 32}, inputs=cases.GPT.inputs)
    model = mu(128)
    plain = groups_by_name(mu, model, lr=1.0, weight_decay=1.0)
    other = groups_by_name(mu, model, lr=1.0, weight_decay=1.0, embedding_lr="sqrt", decay="sqrt")
    for name, group in plain.items():
        embedding = "wte" in name or "wpe" in name
        hidden = group["lr"] == 1 / 4
        assert other[name]["lr"] == (1 / 2 if embedding else group["lr"])
        assert other[name]["weight_decay"] == (2.0 if hidden else 1.0)


def test_the_decay_by_sqrt_is_for_sign_methods_too() -> None:
    own = groups_by_name(relu(), relu()(128), Lion, weight_decay=1.0, decay="sqrt")
    assert own["hidden.0.weight"]["weight_decay"] == 2.0
    assert own["inner.weight"]["weight_decay"] == 1.0


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (torch.optim.Rprop, {}, "No muP for Rprop: it has step sizes"),
        (type("SOAP", (torch.optim.Optimizer,), {}), {}, "No muP for SOAP.*preconditioner"),
        (type("Shampoo", (torch.optim.Optimizer,), {}), {}, 'Shampoo.*family="muon"'),
        (torch.optim.Adagrad, {"initial_accumulator_value": 0.1}, "initial_accumulator_value"),
        (torch.optim.SGD, {"decay": "sqrt"}, 'decay="sqrt" is a rule for AdamW'),
        (torch.optim.AdamW, {"embedding_lr": "large"}, "no embedding_lr 'large'.*constant, sqrt"),
        (torch.optim.AdamW, {"rest": {}}, "rest is for Muon only"),
    ],
)
def test_what_has_no_rule_is_refused(cls: Any, settings: Settings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        relu().param_groups(relu()(64), cls, **settings)


def test_adafactor_of_transformers_with_its_own_steps_is_refused() -> None:
    class Adafactor(torch.optim.Optimizer):
        """The signature of transformers.optimization.Adafactor."""

        def __init__(
            self,
            params: Any,
            lr: float | None = None,
            eps: Any = (1e-30, 1e-3),
            scale_parameter: bool = True,
            relative_step: bool = True,
            weight_decay: float = 0.0,
        ) -> None:
            super().__init__(params, {"lr": lr, "eps": eps})

    Adafactor.__module__, Adafactor.__qualname__ = "transformers.optimization", "Adafactor"
    model = relu()(64)
    with pytest.raises(UsageError, match="relative_step=False"):
        relu().param_groups(model, Adafactor)
    with pytest.raises(UsageError, match="relative_step=False"):
        relu().param_groups(model, Adafactor, family="adam")
    own = groups_by_name(relu(), model, Adafactor, lr=1.0, relative_step=False)
    hidden = own["hidden.0.weight"]
    assert hidden["eps"] == pytest.approx((1e-30 / 4, 1e-3 / 2**0.5), rel=1e-12, abs=0)
    assert hidden["lr"] == pytest.approx(2**-0.5)  # 1 / r_i, over its init law
    plain = {"lr": 1.0, "relative_step": False, "scale_parameter": False}
    assert groups_by_name(relu(), model, Adafactor, **plain)["hidden.0.weight"]["lr"] == 0.5
