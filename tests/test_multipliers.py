"""Every way to write an attention: its multiplier lands in the live model, and nowhere else.

All forms compute one model, whose muP version an independent float64 reference knows: logits that
are 1/d relative to the base. A multiplier that is missing, or there twice, misses it by far.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.utils.checkpoint import checkpoint

import attention_library
import attention_library as ops
import automup
from attention_library import attend as attend_there
from automup.apply import MethodChange, multiply

BASE, WIDE = 16, 64
TOKENS = torch.randint(0, 32, (2, 6), generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """An attention without a mask; subclasses say how it is computed."""

    def __init__(self, width: int = BASE) -> None:
        super().__init__()
        self.embed = nn.Embedding(32, width)
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, 32)
        self.prepare(width)

    def prepare(self, width: int) -> None:
        """What a form needs besides."""

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.mix(self.embed(tokens)))
        return result


FORMS: list[type[Model]] = []


def form(cls: type[Model]) -> type[Model]:
    FORMS.append(cls)
    return cls


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    return wrapper


def scores(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))


@torch.autocast("cpu", enabled=False)
def guarded(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))


def scaled(q: torch.Tensor, k: torch.Tensor, power: float) -> torch.Tensor:
    return q @ k.mT / q.size(-1) ** power


in_a_lambda = lambda q, k: q @ k.mT / math.sqrt(q.size(-1))  # noqa: E731
REGISTRY = {"dot": scores}


@form
class ByAttribute(Model):
    def prepare(self, width: int) -> None:
        self.scale = width**-0.5

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return (self.q(x) @ self.k(x).mT * self.scale).softmax(-1) @ x


@form
class ByRoundedTensor(Model):
    def prepare(self, width: int) -> None:
        self.register_buffer("scale", torch.tensor(width**-0.5, dtype=torch.bfloat16))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return (self.q(x) @ self.k(x).mT * self.scale.type(x.dtype)).softmax(-1) @ x


@form
class Decorated(Model):
    @logged
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x)
        return (q @ self.k(x).mT / math.sqrt(q.size(-1))).softmax(-1) @ x


@form
class DecoratedThrice(Model):
    @logged
    @torch.autocast("cpu", enabled=False)
    @attention_library.logged
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return guarded(self.q(x), self.k(x)).softmax(-1) @ x


@form
class DecoratedByAnObject(Model):
    @attention_library.Counted
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x)
        return (q @ self.k(x).mT / math.sqrt(q.size(-1))).softmax(-1) @ x


@form
class Compiled(Model):
    @torch.compile(backend="eager")
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x)
        return (q @ self.k(x).mT / math.sqrt(q.size(-1))).softmax(-1) @ x


@form
class Static(Model):
    @staticmethod
    def score(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return q @ k.mT / math.sqrt(q.size(-1))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.q(x), self.k(x)).softmax(-1) @ x


@form
class OfTheClass(Model):
    @classmethod
    def score(cls, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return q @ k.mT / math.sqrt(q.size(-1))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.q(x), self.k(x)).softmax(-1) @ x


@form
class FunctionInTheClass(Model):
    score = staticmethod(scores)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.q(x), self.k(x)).softmax(-1) @ x


@form
class ByLambda(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return in_a_lambda(self.q(x), self.k(x)).softmax(-1) @ x


@form
class OwnLambda(Model):
    def prepare(self, width: int) -> None:
        self.score = lambda q, k: q @ k.mT / math.sqrt(width)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.q(x), self.k(x)).softmax(-1) @ x


@form
class Nested(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        def score(q: torch.Tensor) -> torch.Tensor:
            return q @ self.k(x).mT / math.sqrt(q.size(-1))

        return score(self.q(x)).softmax(-1) @ x


@form
class Partial(Model):
    def prepare(self, width: int) -> None:
        self.score = functools.partial(scaled, power=0.5)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.q(x), self.k(x)).softmax(-1) @ x


@form
class ByProperty(Model):
    @property
    def score(self) -> Callable[..., torch.Tensor]:
        return lambda q, k: q @ k.mT / math.sqrt(q.size(-1))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.q(x), self.k(x)).softmax(-1) @ x


@form
class Registry(Model):
    kind = "dot"

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return REGISTRY[self.kind](self.q(x), self.k(x)).softmax(-1) @ x


@form
class RegistryAfterANorm(Model):
    """The same, where scaling the projections does nothing, and no argument can be scaled."""

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        both = [F.layer_norm(y, y.shape[-1:]) for y in (self.q(x), self.k(x))]
        return REGISTRY["dot"](*both).softmax(-1) @ x


@form
class InterfaceAfterANorm(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        both = [F.layer_norm(y, y.shape[-1:]) for y in (self.q(x), self.k(x))]
        return attention_library.INTERFACE["einsum"](*both).softmax(-1) @ x


@form
class InALibrary(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return ops.attend(self.q(x), self.k(x), x)


@form
class InALibraryByName(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return attend_there(self.q(x), self.k(x), x)


@form
class DecoratedInALibrary(Model):
    @attention_library.logged
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return attention_library.decorated(self.q(x), self.k(x)).softmax(-1) @ x


@form
class ImportedInside(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        from attention_library import attend

        return attend(self.q(x), self.k(x), x)


@form
class Einsum(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return ops.by_einsum(self.q(x), self.k(x)).softmax(-1) @ x


@form
class Strategy(Model):
    def prepare(self, width: int) -> None:
        self.kernel = attention_library.Kernel(0.5)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.kernel(self.q(x), self.k(x)).softmax(-1) @ x


@form
class MadeOutside(Model):
    def prepare(self, width: int) -> None:
        self.score = attention_library.maker(width)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.q(x), self.k(x)).softmax(-1) @ x


@form
class MadeOnTheFly(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return attention_library.maker(x.size(-1))(self.q(x), self.k(x)).softmax(-1) @ x


@form
class DefaultArgument(Model):
    def mix(self, x: torch.Tensor, score: Callable[..., torch.Tensor] = scores) -> torch.Tensor:
        return score(self.q(x), self.k(x)).softmax(-1) @ x


@form
class BoundToAnAttribute(Model):
    def prepare(self, width: int) -> None:
        self.score = self.score_of_kind_one

    def score_of_kind_one(self, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return q @ k.mT / math.sqrt(q.size(-1))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.q(x), self.k(x)).softmax(-1) @ x


class HasMix(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x)
        return (q @ self.k(x).mT / math.sqrt(q.size(-1))).softmax(-1) @ x


@form
class CallsSuper(HasMix):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return super().mix(x) * 1.0


@form
class CallsItsBaseByName(HasMix):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return HasMix.mix(self, x) * 1.0


@form
class Fused(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(self.q(x), self.k(x), x)


@form
class FusedByAlias(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return sdpa(self.q(x), self.k(x), x)


@form
class FusedByAttribute(Model):
    def prepare(self, width: int) -> None:
        self.attend = F.scaled_dot_product_attention

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend(self.q(x), self.k(x), x)


@form
class Flex(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (y[:, None] for y in (self.q(x), self.k(x), x))
        return flex_attention(q, k, v)[:, 0]


def recursive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Row by row, by itself."""
    if q.size(1) > 1:
        return torch.cat([recursive(q[:, :1], k, v), recursive(q[:, 1:], k, v)], 1)
    return (q @ k.mT / math.sqrt(q.size(-1))).softmax(-1) @ v


@form
class Recursive(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return recursive(self.q(x), self.k(x), x)


@form
class TwiceOnALine(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q, k = self.q(x), self.k(x)
        return (scores(q, k) * 0.5 + scores(q, k) * 0.5).softmax(-1) @ x


@form
class Comprehension(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        rows = [q @ self.k(x).mT / math.sqrt(q.size(-1)) for q in self.q(x).split(1, dim=1)]
        return torch.cat(rows, 1).softmax(-1) @ x


@form
class Generator(Model):
    def rows(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        for q in self.q(x).split(1, dim=1):
            yield q @ self.k(x).mT / math.sqrt(q.size(-1))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat(tuple(self.rows(x)), 1).softmax(-1) @ x


@form
class Checkpointed(Model):
    def attend(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x)
        return (q @ self.k(x).mT / math.sqrt(q.size(-1))).softmax(-1) @ x

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.attend, x, use_reentrant=False)


@form
class Mapped(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return torch.vmap(scores)(self.q(x), self.k(x)).softmax(-1) @ x


@form
class OwnBackward(Model):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return attention_library.Rows.apply(self.q(x), self.k(x)).softmax(-1) @ x


def logits_of(model: Any, factor: float) -> torch.Tensor:
    """The output by hand in the model's precision, the attention logits times a factor."""
    return written_out(unscaled(model), factor)


def written_out(model: Any, factor: float) -> torch.Tensor:
    x = model.embed(TOKENS)
    q, k = model.q(x), model.k(x)
    if "AfterANorm" in type(model).__name__:
        q, k = (F.layer_norm(y, y.shape[-1:]) for y in (q, k))
    logits = q @ k.mT * (factor / math.sqrt(x.size(-1)))
    result: torch.Tensor = model.out(logits.softmax(-1) @ x)
    return result


def unscaled(model: nn.Module) -> Any:
    """The author's modules with the weights of a model in muP, for the reference to call."""
    form: Any = getattr(type(model), "_automup_class", type(model))
    twin: nn.Module = form(WIDE).double()
    twin.load_state_dict(model.state_dict())
    return twin


def drawn(make: Callable[[], nn.Module]) -> nn.Module:
    """A model in float64; flex attention has no gradients on a CPU, so none are asked for."""
    torch.manual_seed(0)
    return make().double().requires_grad_(False)


def perturbed(change: Any, by: float) -> Any:
    """The same change with its factor multiplied."""
    if isinstance(change, MethodChange):
        edits = []
        for edit in change.edits:
            base: Any = edit.factor.base * by ** (-1 / edit.factor.exponent)
            edits.append(replace(edit, factor=replace(edit.factor, base=base)))
        return replace(change, edits=tuple(edits))
    return replace(change, factor=change.factor * by)


def assert_equal(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to the last digits of float64."""
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)


def logits_move_by_exactly_the_factor(form: type[Model], mu: automup.Mup) -> None:
    model = drawn(lambda: mu(WIDE))
    (factor,) = {site.factor for site in mu.plan(WIDE).sites}
    assert factor == pytest.approx((BASE / WIDE) ** 0.5, rel=1e-12)
    expected = logits_of(model, factor)
    assert_equal(model(TOKENS), expected)
    other = drawn(lambda: form(WIDE))
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(other(TOKENS), expected)
    changes = mu._realisation.at({"width": WIDE})
    multiply(other, [perturbed(change, 1.01) for change in changes])
    assert_equal(other(TOKENS), logits_of(model, 1.01 * factor))


def models_in_and_out_of_mup_do_not_meet(form: type[Model], mu: automup.Mup) -> None:
    """Built before or after, while the other lives or when it is gone, in threads: no effect."""
    names = [vars(module).copy() for module in (sys.modules[__name__], attention_library)]
    early = drawn(lambda: form(WIDE))
    before = early(TOKENS)
    assert_equal(before, logits_of(early, 1.0))
    model = drawn(lambda: mu(WIDE))
    scaled = model(TOKENS)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(lambda m=m: [m(TOKENS) for _ in range(20)]) for m in (early, model)]
    assert all(torch.equal(x, before) for x in runs[0].result())
    assert all(torch.equal(x, scaled) for x in runs[1].result())
    assert torch.equal(drawn(lambda: form(WIDE))(TOKENS), before)
    del model, runs
    gc.collect()
    assert torch.equal(drawn(lambda: form(WIDE))(TOKENS), before)
    assert torch.equal(early(TOKENS), before)
    for module, known in zip((sys.modules[__name__], attention_library), names, strict=True):
        after = {k: v for k, v in vars(module).items() if not k.startswith("__")}  # Dynamo's own
        assert all(known.get(name) is value for name, value in after.items())


def gradients_have_the_factor(form: type[Model], mu: automup.Mup) -> None:
    if form is Flex:
        return
    model = drawn(lambda: mu(WIDE)).requires_grad_()
    twin = unscaled(model)
    (factor,) = {site.factor for site in mu.plan(WIDE).sites}
    for output in (model(TOKENS), written_out(twin, factor)):
        output.square().sum().backward()
    for actual, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert_equal(actual.grad, expected.grad)


def copies_keep_the_multiplier(form: type[Model], mu: automup.Mup) -> None:
    model = drawn(lambda: mu(WIDE))
    expected = model(TOKENS)
    twins = [copy.deepcopy(model), copy.deepcopy(copy.deepcopy(model))]
    with contextlib.suppress(AttributeError, pickle.PicklingError):
        pickle.dumps(form(WIDE))  # some cannot be, in muP or not
        twins.append(pickle.loads(pickle.dumps(model)))
        twins.append(copy.deepcopy(pickle.loads(pickle.dumps(twins[1]))))
    for twin in twins:
        assert torch.equal(twin(TOKENS), expected)
        twin.q.weight.zero_()
    assert torch.equal(model(TOKENS), expected)


def no_graph_breaks(form: type[Model], mu: automup.Mup) -> None:
    """Compiled as one graph, as the author's model is; neither runs the other's code."""
    torch.compiler.reset()
    plain, model = drawn(lambda: form(WIDE)), drawn(lambda: mu(WIDE))
    before = torch.compile(plain, backend="eager", fullgraph=True)(TOKENS)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_equal(compiled(TOKENS), model(TOKENS))
    assert_equal(torch.compile(plain, backend="eager", fullgraph=True)(TOKENS), before)
    assert_equal(before, plain(TOKENS))


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_the_multiplier_lands_in_this_model_alone(form: type[Model]) -> None:
    """One test for each form, since to read the model takes longer than all the checks."""
    torch.manual_seed(0)
    early = drawn(lambda: form(WIDE))
    before = early(TOKENS)
    mu = automup.parametrize(form, base={"width": BASE}, inputs=(TOKENS,))
    assert torch.equal(early(TOKENS), before)
    logits_move_by_exactly_the_factor(form, mu)
    gradients_have_the_factor(form, mu)
    models_in_and_out_of_mup_do_not_meet(form, mu)
    copies_keep_the_multiplier(form, mu)
    no_graph_breaks(form, mu)
