"""Tiny models written from a few lines of source: what differs between the rows of a table.

The product reads source files, so each model becomes a file of its own.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

_FOLDER = Path(tempfile.mkdtemp(prefix="automup-small-"))
IMPORTS = """\
import dataclasses
import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def causal(t):
    return torch.tril(torch.ones(t, t, dtype=torch.bool))


"""


def load(source: str) -> Any:
    """The module that a source text makes, from a file of its own."""
    text = IMPORTS + textwrap.dedent(source)
    name = "small_" + hashlib.sha256(text.encode()).hexdigest()[:16]
    if name not in sys.modules:
        path = _FOLDER / f"{name}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def _lines(text: str, depth: int = 8) -> str:
    return textwrap.indent(textwrap.dedent(text).strip("\n"), " " * depth)


def model(init: str, forward: str, before: str = "") -> Callable[[int], nn.Module]:
    """``M(d)`` with these lines in its constructor and in its forward of one argument ``x``."""
    module = load(
        textwrap.dedent(before)
        + "\n\nclass M(nn.Module):\n    def __init__(self, d):\n        super().__init__()\n"
        + _lines(init)
        + "\n\n    def forward(self, x):\n"
        + _lines(forward)
        + "\n"
    )
    return lambda width: module.M(width)


def vectors(
    init: str, body: str, *, before: str = "", floats: bool = False, head: bool = True
) -> Callable[[int], nn.Module]:
    """An input layer, ``body`` on ``h`` of shape (batch, d), and a readout to 10 classes."""
    first = "nn.Linear(16, d, bias=False)" if floats else "nn.Embedding(64, d)"
    last = "self.head = nn.Linear(d, 10, bias=False)" if head else ""
    returns = "return self.head(h)" if head else ""
    return model(
        f"self.emb = {first}\n{textwrap.dedent(init).strip()}\n{last}",
        f"h = F.relu(self.emb(x))\n{textwrap.dedent(body).strip()}\n{returns}",
        before,
    )


_ATTENTION = """
class A(nn.Module):
    def __init__(self, d, h=4):
        super().__init__()
        self.h, self.hd = h, d // h
        self.q = nn.Linear(d, d, bias=False)
        self.k = nn.Linear(d, d, bias=False)
        self.v = nn.Linear(d, d, bias=False)
        self.o = nn.Linear(d, d, bias=False)
{init}

    def forward(self, x):
        B, t, d = x.shape
        q, k, v = [
            z.view(B, t, self.h, d // self.h).transpose(1, 2)
            for z in (self.q(x), self.k(x), self.v(x))
        ]
{body}
        return self.o(y.transpose(1, 2).reshape(B, t, d))
"""
SOFTMAX = "y = a.masked_fill(~causal(t), float('-inf')).softmax(-1) @ v"


def attention(init: str, body: str, *, before: str = "") -> Callable[[int], nn.Module]:
    """A residual block whose attention computes logits ``a`` (or ``y``) from ``q, k, v``."""
    if "y = " not in body:
        body = f"{textwrap.dedent(body).strip()}\n{SOFTMAX}"
    text = _ATTENTION.format(init=_lines(init), body=_lines(body))
    return model(
        """
        self.emb = nn.Embedding(64, d)
        self.n = nn.LayerNorm(d, bias=False)
        self.a = A(d)
        self.nf = nn.LayerNorm(d, bias=False)
        self.head = nn.Linear(d, 64, bias=False)
        """,
        """
        x = self.emb(x)
        x = x + self.a(self.n(x))
        return self.head(self.nf(x))
        """,
        before + text,
    )


def images(init: str, body: str) -> Callable[[int], nn.Module]:
    """A stem on (batch, 3, 8, 8), ``body`` on ``h`` of d channels, a pooled readout."""
    return model(
        f"self.emb = nn.Conv2d(3, d, 3, padding=1, bias=False)\n{init}\n"
        "self.head = nn.Linear(d, 10, bias=False)",
        f"h = F.relu(self.emb(x))\n{textwrap.dedent(body).strip()}\n"
        "return self.head(h.mean((2, 3)))",
    )
