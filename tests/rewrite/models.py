"""Model files to convert, and their facts as a plan would give them."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from automup.facts import Parameter, SizeLaw
from automup.rewrite import Contents, convert_source
from automup.rules import Ratios, init_multiplier, role_of

MLP = '''\
# An MLP with PyTorch's own init.
import torch.nn as nn


class MLP(nn.Module):  # the root
    """A docstring."""

    def __init__(self, width=32):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(8, width),  # 0
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
        )
        self.head = nn.Linear(width, 4)
        # the constructor ends here

    def forward(self, x):
        return self.head(self.body(x).relu())

# the file ends here
'''

GPT = '''\
"""A language model."""

import math

import torch
from torch import nn, optim


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        return x + self.down(self.up(self.norm(x)).relu())


class GPT(nn.Module):
    def __init__(self, width=32, layers=2):
        super().__init__()
        self.wte = nn.Embedding(16, width)
        self.h = nn.ModuleList([Block(width) for _ in range(layers)])
        self.head = nn.Linear(width, 16, bias=False)
        self.head.weight = self.wte.weight
        self.init_weights()

    def init_weights(self):
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, x):
        x = self.wte(x)
        for block in self.h:
            x = block(x)
        return self.head(x)

    def configure(self, lr, decay, extra=None):
        decayed = [p for p in self.parameters() if p.dim() > 1]
        rest = [p for p in self.parameters() if p.dim() < 2]
        groups = [
            {"params": decayed, "weight_decay": decay},
            {"params": rest, "weight_decay": 0.0},
        ]
        return optim.AdamW(groups, lr=lr)
'''

_count = 0


@cache
def _mlp_facts(target: int) -> list[Parameter]:
    return facts(load(MLP).MLP, 32, target, mlp_law)


@cache
def _gpt_facts(source: str, target: int) -> list[Parameter]:
    return facts(load(source).GPT, 32, target)


def load(source: str) -> Any:
    """The source's module, run."""
    global _count
    _count += 1
    module = types.ModuleType(f"model_under_test_{_count}")
    sys.modules[module.__name__] = module
    exec(compile(source, f"{module.__name__}.py", "exec"), module.__dict__)
    return module


def facts(
    build: Callable[[int], Any],
    base: int,
    target: int,
    law: Callable[[str], tuple[SizeLaw, ...] | None] = lambda name: (),
) -> list[Parameter]:
    """Facts of a model of plain Linear layers, Embeddings and norms."""
    small, large = build(base), build(target)
    wide = dict(large.named_parameters())
    aliases: dict[int, list[str]] = {}
    for name, p in small.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(p), []).append(name)
    shapes = {n: (tuple(p.shape), tuple(wide[n].shape)) for n, p in small.named_parameters()}
    found = []
    for name, p in small.named_parameters():
        old, new = shapes[name]
        grown = {d for d in range(p.dim()) if old[d] != new[d]}
        sums = p.dim() > 1 and "wte" not in name
        fan_in = tuple(sorted(grown & {1})) if sums else ()
        fan_out = tuple(sorted(grown - set(fan_in)))
        laws = law(name)
        mult = expected_init(old, new, fan_in, fan_out, laws, shapes)
        found.append(
            Parameter(
                name, tuple(aliases[id(p)]), new, old, 0, 0, 0, 0, fan_in, fan_out,
                "normal", None, mult, laws, "", "model.py:1",
            )
        )  # fmt: skip
    return found


def ratio(old: tuple[int, ...], new: tuple[int, ...], dims: tuple[int, ...]) -> float:
    return math.prod(new[d] for d in dims) / math.prod(old[d] for d in dims)


def expected_init(
    old: tuple[int, ...],
    new: tuple[int, ...],
    fan_in: tuple[int, ...],
    fan_out: tuple[int, ...],
    laws: tuple[SizeLaw, ...] | None,
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> float:
    ratios = Ratios(ratio(old, new, fan_in), ratio(old, new, fan_out))
    factor = init_multiplier(ratios, role_of(bool(fan_in), bool(fan_out)))
    for item in laws or ():
        sizes = shapes[item.of][1] if item.of else new
        factor /= (sum(sizes[d] for d in item.dims) / item.base) ** item.exponent
    return factor


def mlp_law(name: str) -> tuple[SizeLaw, ...]:
    """PyTorch's own init: both by 1/sqrt(the weight's fan_in)."""
    of = "" if name.endswith("weight") else name.replace("bias", "weight")
    return (SizeLaw((1,), 8 if name.startswith("body.0") else 32, -0.5, of),)


def mlp_facts(target: int = 64) -> list[Parameter]:
    return _mlp_facts(target)


def gpt_facts(source: str = GPT, target: int = 64) -> list[Parameter]:
    return _gpt_facts(source, target)


def converted_mlp(source: str = MLP, **options: Any) -> str:
    return convert(source, "MLP", mlp_facts(), **options)


def converted_gpt(source: str = GPT, **options: Any) -> str:
    options = {"init_functions": ["GPT.init_weights"], **options}
    return convert(source, "GPT", gpt_facts(), **options)


def convert(source: str, root: str, parameters: list[Parameter], **options: Any) -> str:
    lists = {"edits": [], "init_functions": [], **options}
    return _convert(source, root, tuple(parameters), *map(tuple, lists.values()))


@cache
def _convert(source: str, root: str, parameters: Any, edits: Any, init_functions: Any) -> str:
    facts = Contents(root, parameters, edits, {"n_embd": 8}, init_functions=init_functions)
    return convert_source(source, "dir/model.py", facts)
