"""Code and modules that several parts of a model share: each part gets its own multiplier."""

from __future__ import annotations

import copy
import importlib
import linecache
import math
import pickle
import sys
from typing import Any

import pytest
import torch
from torch import nn

import automup
from attention_library import Attention, attend, scores

BASE, WIDE = 16, 64
TOKENS = torch.randint(0, 32, (2, 6), generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """Attention within a size of its own."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(width, size), nn.Linear(width, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return attend(self.q(x), self.k(x), x)


class Fixed(Head):
    """The same code, with a size that does not grow: it needs nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return scores(self.q(x), self.k(x)).softmax(-1) @ x


class Model(nn.Module):
    def __init__(self, width: int = BASE) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(32, width), nn.Linear(width, 32)
        self.prepare(width)

    def prepare(self, width: int) -> None:
        raise NotImplementedError

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.mix(self.embed(tokens)))
        return result


class DifferentSizes(Model):
    """Modules of one class with different base sizes, and one that does not grow."""

    def prepare(self, width: int) -> None:
        self.heads = nn.ModuleList([Head(width, width), Head(width, width // 2)])
        self.fixed = Fixed(width, 12)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.fixed(x) + self.heads[0](x) + self.heads[1](x)


class InASequence(DifferentSizes):
    def prepare(self, width: int) -> None:
        self.heads = nn.Sequential(Head(width, width), Head(width, width // 2))
        self.fixed = Fixed(width, 12)


class OneModuleTwoParents(Model):
    """One attention under two names, in two parents, one of which calls it twice."""

    def prepare(self, width: int) -> None:
        shared = Head(width, width)
        self.left, self.right = nn.Sequential(shared), nn.ModuleDict({"again": shared})

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right["again"](x) + self.right["again"](x)


class TwoSizesInOneMethod(Model):
    """One function, called twice by one method, where only one call needs a multiplier."""

    def prepare(self, width: int) -> None:
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)
        self.r, self.s = nn.Linear(width, 12), nn.Linear(width, 12)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return (scores(self.q(x), self.k(x)) + scores(self.r(x), self.s(x))).softmax(-1) @ x


class ThirdParty(Model):
    """Attention in a library's class, decorated, its projections fused; beside one not in muP."""

    def prepare(self, width: int) -> None:
        self.attention = Attention(width)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x)


def head(module: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
    """An attention by hand, its logits times a factor."""
    q = nn.functional.linear(x, module.q.weight, module.q.bias)
    k = nn.functional.linear(x, module.k.weight, module.k.bias)
    return (q @ k.mT * (factor / math.sqrt(q.size(-1)))).softmax(-1) @ x


def by_hand(model: Any) -> torch.Tensor:
    """The muP output: every growing attention at half its scale, at 4 times the base."""
    x = nn.functional.embedding(TOKENS, model.embed.weight)
    if isinstance(model, DifferentSizes):
        mixed = head(model.fixed, x, 1.0) + sum(head(h, x, 0.5) for h in model.heads)
    elif isinstance(model, OneModuleTwoParents):
        mixed = 3 * head(model.left[0], x, 0.5)
    elif isinstance(model, TwoSizesInOneMethod):
        q, k, r, s = (
            nn.functional.linear(x, m.weight, m.bias) for m in (model.q, model.k, model.r, model.s)
        )
        logits = q @ k.mT * (0.5 / 8.0) + r @ s.mT / math.sqrt(12)
        mixed = logits.softmax(-1) @ x
    else:
        weights = model.attention.qkv
        q, k, v = nn.functional.linear(x, weights.weight, weights.bias).chunk(3, -1)
        mixed = (q @ k.mT * (0.5 / 8.0)).softmax(-1) @ v
    return nn.functional.linear(mixed, model.out.weight, model.out.bias)


MODELS = [DifferentSizes, InASequence, OneModuleTwoParents, TwoSizesInOneMethod, ThirdParty]


@pytest.mark.parametrize("form", MODELS, ids=lambda f: f.__name__)
def test_each_part_gets_its_own_multiplier(form: type[Model]) -> None:
    plain = form(WIDE).double()
    before = plain(TOKENS)
    mu = automup.parametrize(form, base={"width": BASE}, inputs=(TOKENS,))
    model = mu(WIDE).double()
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(TOKENS), by_hand(twin), rtol=1e-11, atol=1e-12)
    assert torch.equal(plain(TOKENS), before)


KNOWN: dict[str, type] = {}


class Register(type):
    """A metaclass that registers what it makes."""

    def __init__(cls, *args: Any) -> None:
        super().__init__(*args)
        KNOWN[f"meta:{cls.__name__}"] = cls


class Registered(Model, metaclass=Register):
    """A base that registers its subclasses, twice."""

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        KNOWN[cls.__name__] = cls

    def prepare(self, width: int) -> None:
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)


class ByName(Registered):
    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q = self.q(x)
        return (q @ self.k(x).mT / math.sqrt(q.size(-1))).softmax(-1) @ x


def test_a_registry_of_classes_does_not_hear_of_the_class_in_mup() -> None:
    mu = automup.parametrize(ByName, base={"width": BASE}, inputs=(TOKENS,))
    model: Any = mu(WIDE)
    assert type(model) is not ByName and isinstance(model, ByName)
    assert KNOWN["ByName"] is KNOWN["meta:ByName"] is ByName
    twin = pickle.loads(pickle.dumps(model))
    x = model.embed(TOKENS)
    assert torch.equal(twin(TOKENS), model(TOKENS))
    torch.testing.assert_close(model(TOKENS), model.out(head(model, x, 0.5)))


def test_a_pickle_whose_source_has_changed_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edits are places in a text; in another text they would be other places."""
    text = (
        "import math, torch\n"
        "from test_shared_code import Model, nn\n"
        "class Mine(Model):\n"
        "    def prepare(self, width):\n"
        "        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)\n"
        "    def mix(self, x):\n"
        "        q = self.q(x)\n"
        "        return (q @ self.k(x).mT / math.sqrt(q.size(-1))).softmax(-1) @ x\n"
    )
    file = tmp_path / "a_module_that_changes.py"
    file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("a_module_that_changes")
    model = automup.parametrize(module.Mine, base={"width": BASE}, inputs=(TOKENS,))(WIDE)
    saved = pickle.dumps(model)
    assert torch.equal(pickle.loads(saved)(TOKENS), model(TOKENS))
    file.write_text(text.replace("import math, torch", "import math\nimport torch"))
    linecache.clearcache()
    del sys.modules["a_module_that_changes"]
    importlib.invalidate_caches()
    importlib.import_module("a_module_that_changes")
    with pytest.raises(automup.AutomupError, match="has changed"):
        pickle.loads(saved)


class Branches(Model):
    """One branch for inputs that no example reaches, in which another attention is written."""

    def prepare(self, width: int) -> None:
        self.q, self.k = nn.Linear(width, width), nn.Linear(width, width)

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        q, k = self.q(x), self.k(x)
        if x.size(1) > 100:
            logits = torch.einsum("bid,bjd->bij", q[:, :1], k) * q.size(-1) ** -0.5
            return logits.softmax(-1) @ x
        return (q @ k.mT / math.sqrt(q.size(-1))).softmax(-1) @ x


class BranchesOfAKernel(Branches):
    """The same, where the multiplier goes to the query's output."""

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        both = [self.q(x), self.k(x)]
        if x.size(1) > 100:
            both[0] = torch.einsum("bid,bjd->bid", *both)
        return KERNELS[0](*both).softmax(-1) @ x


KERNELS = [torch.jit.script(scores)]


@pytest.mark.parametrize("form", [Branches, BranchesOfAKernel], ids=lambda f: f.__name__)
def test_code_that_no_trace_ran_fails_instead_of_lacking_its_multiplier(form: type[Model]) -> None:
    with pytest.warns(UserWarning, match=r"No trace ran.*einsum.*test_shared_code\.py"):
        mu = automup.parametrize(form, base={"width": BASE}, inputs=(TOKENS,))
    model: Any = mu(WIDE)
    long = torch.zeros(1, 101, dtype=torch.long)
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(automup.AutomupError, match=r"No trace ran.*test_shared_code\.py"):
            twin(long)
    form(WIDE)(long)
    plain = form(WIDE)
    plain.load_state_dict(model.state_dict())
    expected = plain.out(head(plain, plain.embed(TOKENS), 0.5))
    torch.testing.assert_close(model(TOKENS), expected)
