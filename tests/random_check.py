"""What automup must say and do about a random program, and how to show where it does not.

    python tests/random_check.py 0,0/1,5/2

checks the program that these choices make, and prints it as a script that runs by itself.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

import automup
import oracle
from automup.errors import RewriteError, UnresolvedError
from automup.plan import Plan
from models_small import IMPORTS, load
from random_blocks import write
from random_program import Draw, Program, Truth

TOKENS = torch.arange(12).view(2, 6) * 7 % 48
FLOATS = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(3))


Choices = tuple[tuple[int, ...], ...]
"""What makes a program: the choices of its beginning, of every block, and of its end."""


def program_of(choices: Choices) -> Program:
    """The program that these choices make; where a part's choices end, the rest are 0."""
    parts = iter(choices)
    left = [len(choices) - 2]

    def part() -> Draw:
        rest = iter(next(parts, ()))
        return lambda bound: next(rest, 0) % bound

    def more() -> bool:
        left[0] -= 1
        return left[0] > 0

    return write(part, more)


def as_text(choices: Choices) -> str:
    return "/".join(",".join(map(str, part)) for part in choices)


def from_text(text: str) -> Choices:
    return tuple(tuple(int(c) for c in part.split(",") if c) for part in text.split("/"))


def source_of(program: Program) -> str:
    """The class ``M`` of the knobs."""
    constructor = textwrap.indent("\n".join(program.init), " " * 8)
    forward = textwrap.indent("\n".join(program.lines), " " * 8)
    return (
        f"class M(nn.Module):\n    def __init__(self, {', '.join(program.knobs)}):\n"
        f"        super().__init__()\n{constructor}\n\n    def forward(self, x):\n{forward}\n"
    )


def check(program: Program) -> bool:
    """Everything that is known of a program must hold; False if automup may refuse it and does.

    Raises:
        AssertionError: if something does not.
    """
    module = load(source_of(program))
    build: Callable[..., nn.Module] = lambda **knobs: module.M(**knobs)  # noqa: E731
    given = FLOATS if program.floats else TOKENS
    torch.manual_seed(0)
    try:
        mu = automup.parametrize(build, base=program.widths.base, inputs=(given,))
        plan = mu.plan(**program.widths.target)
        torch.manual_seed(1)
        narrow, wide = mu(), mu(**program.widths.target)
        lr = oracle.rates(mu.param_groups(wide, torch.optim.Adam, lr=1.0))
    except (UnresolvedError, RewriteError):
        if program.refusable:
            return False
        raise
    finally:
        sys.modules.pop(module.__name__, None)
    compare_plan(program, plan)
    compare_init(program, narrow, wide)
    compare_counts(
        program, plan, build(**program.widths.base), build(**program.widths.target), given
    )
    compare_rates(program, mu, wide)
    layouts = {name: truth.layout for name, truth in program.truths.items()}
    a, b = oracle.align(narrow, wide, lr, layouts=layouts)
    exact = given.double() if given.is_floating_point() else given
    with torch.no_grad():
        pairs = list(zip(*(m.train(program.training)(exact) for m in (b, a)), strict=True))
    for number, (left, right) in enumerate(pairs):
        error = oracle.difference(left, right)
        assert error < 1e-6, f"output {number} of the widened network is off by {error:.3g}"
    return True


def compare_plan(program: Program, plan: Plan) -> None:
    """Fans, init factors and multipliers."""
    assert {p.name for p in plan.parameters} == program.truths.keys()
    for parameter in plan.parameters:
        truth, name = program.truths[parameter.name], parameter.name
        assert parameter.ratios.fan_in == pytest.approx(truth.fan_in), f"fan_in of {name}"
        if truth.unequal:
            rows = [part.init_mult for part in parameter.parts for _ in range(part.size)]
            right = [truth.init_of(block) for block in truth.cut for _ in range(block.wide)]
            unset = truth.drawn is None  # zeros times anything
            assert unset or rows == pytest.approx(right), f"init of the parts of {name}"
        else:
            assert parameter.ratios.fan_out == pytest.approx(truth.fan_out), f"fan_out of {name}"
            assert parameter.init_mult == pytest.approx(truth.init), f"init of {name}"
    wanted = sorted(f for f in program.factors if abs(f - 1) > 1e-9)
    assert sorted(s.factor for s in plan.sites if s.factor != 1) == pytest.approx(wanted), "sites"


def compare_init(program: Program, narrow: nn.Module, wide: nn.Module) -> None:
    """What the real models' weights are drawn with, each part of a fused one by itself."""
    for (name, small), large in zip(narrow.named_parameters(), wide.parameters(), strict=True):
        truth = program.truths[name]
        if truth.drawn is None or not small.any():
            continue
        for spread, before, after in parts(truth, small.detach(), large.detach()):
            growth, error = oracle.growth(before, after)
            assert growth == pytest.approx(spread, rel=error + 0.02), f"spread of {name}"


def parts(
    truth: Truth, small: torch.Tensor, large: torch.Tensor
) -> Iterable[tuple[float, torch.Tensor, torch.Tensor]]:
    """A weight's parts at both widths, with the growth of the spread that muP wants of each."""
    if not truth.unequal:
        return [(truth.spread, small, large)]
    return zip(
        [truth.spread_of(block) for block in truth.cut],
        small.split([block.size for block in truth.cut], truth.cut_dim),
        large.split([block.wide for block in truth.cut], truth.cut_dim),
        strict=True,
    )


def compare_rates(program: Program, mu: automup.Mup, wide: nn.Module) -> None:
    """The learning rates of SGD; Adam's are tested by what they do."""
    if any(truth.unequal for truth in program.truths.values()):
        return  # refused: no tensor has two rates
    rates = oracle.rates(mu.param_groups(wide, torch.optim.SGD, lr=1.0))
    for name, parameter in wide.named_parameters():
        truth = program.truths[name]
        wanted = truth.fan_out / truth.fan_in
        assert rates[id(parameter)] == pytest.approx(wanted), f"SGD's rate of {name}"


def compare_counts(
    program: Program, plan: Plan, narrow: nn.Module, wide: nn.Module, given: torch.Tensor
) -> None:
    """The plan's fans against those that are counted by running the models."""
    given = given.clone().requires_grad_(given.is_floating_point())
    small = oracle.counted_fan_in(narrow, lambda m: m(given))
    large = oracle.counted_fan_in(wide, lambda m: m(given))
    for parameter in plan.parameters:
        said, name = (parameter.base_fan_in, parameter.fan_in), parameter.name
        if name in program.uncounted:
            continue
        pairs = list(zip(small[name], large[name], strict=True))
        least = min(b / a for a, b in pairs)  # a weight of several uses follows its input role
        counted = {pair for pair in pairs if pair[1] / pair[0] == least}
        assert said in counted, f"fan_in of {name}: counted {counted}, the plan says {said}"


# --- showing a failure ----------------------------------------------------------------------------


def script(program: Program, choices: Choices) -> str:
    """A script that runs by itself and prints what is wanted beside what is found."""
    given = "torch.randn(2, 6, 16)" if program.floats else "torch.arange(12).view(2, 6) * 7 % 48"
    wanted = "\n".join(
        f"    {name!r}: ({t.fan_in:g}, {t.fan_out:g}, {t.init:g}),"
        for name, t in program.truths.items()
    )
    factors = sorted(f for f in program.factors if abs(f - 1) > 1e-9)
    return f'''\
"""A random model on which automup and the truth differ. Choices: {as_text(choices)}"""
import automup
{IMPORTS.strip()}


{source_of(program)}

WANTED = {{  # growth of fan_in, of fan_out, and what the init is multiplied by
{wanted}
}}
mu = automup.parametrize(
    lambda **knobs: M(**knobs), base={dict(program.widths.base)}, inputs=({given},)
)
plan = mu.plan(**{dict(program.widths.target)})
for p in plan.parameters:
    found = (p.ratios.fan_in, p.ratios.fan_out, p.init_mult)
    print(p.name, "found", *(f"{{x:.5g}}" for x in found), "wanted", *WANTED[p.name])
print("multipliers found", sorted(s.factor for s in plan.sites), "wanted", {factors})
'''


if __name__ == "__main__":
    chosen = from_text(sys.argv[1])
    print(script(program_of(chosen), chosen))
    print("right" if check(program_of(chosen)) else "refused, as it may be", file=sys.stderr)
