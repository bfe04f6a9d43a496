"""The models that the laws are tested on: how to build each, feed it, and read its logits."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import einsum_net
import gpt
import gpt_manual
import llama
import mlp
import resnet

_random = torch.Generator().manual_seed(7)
_text = torch.frombuffer(bytearray(Path(argparse.__file__).read_bytes()[:98]), dtype=torch.uint8)
TOKENS, TARGETS = _text[:-2].long().view(4, 24), _text[1:-1].long().view(4, 24)  # real text
IMAGES = torch.randn(4, 3, 32, 32, generator=_random)
VECTORS = torch.randn(64, 64, generator=_random)
CLASSES = torch.randint(0, 10, (64,), generator=_random)


@dataclass(frozen=True, eq=False)
class Case:
    """A model function of one width, with a base, example inputs, and its logits."""

    name: str
    build: Callable[..., nn.Module]
    base: int
    inputs: Any
    logits: Callable[[nn.Module], torch.Tensor]
    targets: torch.Tensor

    def loss(self, model: nn.Module) -> torch.Tensor:
        logits = self.logits(model)
        targets = self.targets[: len(logits)]
        return F.cross_entropy(logits.flatten(0, -2), targets.flatten())

    def __str__(self) -> str:
        return self.name


def _gpt(**settings: Any) -> Callable[..., nn.Module]:
    return lambda width=32: gpt.GPT(gpt.GPTConfig(n_embd=width, **settings))


def _hf_gpt2(width: int = 32) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=256, n_embd=width, n_layer=2, n_head=4, n_positions=64, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def _hf_llama(width: int = 32) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=256, hidden_size=width, intermediate_size=3 * width, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def _with_targets(model: nn.Module) -> torch.Tensor:
    return model(TOKENS, TARGETS)[0]


def _tokens(model: nn.Module) -> torch.Tensor:
    return model(TOKENS)


def _hf(model: nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


def _heads_scale(width: int = 32) -> nn.Module:
    return llama.Llama(dim=width, n_heads=width // 8, n_kv_heads=width // 16, head_dim=8)


MLP = Case(
    "mlp", lambda width=32: mlp.MLP(width=width), 32, (VECTORS[:2],), lambda m: m(VECTORS), CLASSES
)
RESNET = Case(
    "resnet",
    lambda width=8: resnet.ResNet(width=width),
    8,
    (IMAGES[:2],),
    lambda m: m(IMAGES),
    CLASSES,
)
GPT = Case("gpt", _gpt(), 32, (TOKENS,), _with_targets, TARGETS)
WRITTEN_OUT = Case("gpt-written-out", _gpt(flash=False), 32, (TOKENS,), _with_targets, TARGETS)
MANUAL = Case(
    "gpt-manual",
    lambda width=32: gpt_manual.GPT(gpt_manual.GPTConfig(n_embd=width)),
    32,
    (TOKENS,),
    _with_targets,
    TARGETS,
)
LLAMA = Case("llama", lambda width=32: llama.Llama(dim=width), 32, (TOKENS,), _tokens, TARGETS)
HEADS = Case("llama-heads-scale", _heads_scale, 32, (TOKENS,), _tokens, TARGETS)
EINSUM = Case(
    "einsum", lambda width=32: einsum_net.EinsumNet(d_model=width), 32, (TOKENS,), _tokens, TARGETS
)
HF_GPT2 = Case("transformers-gpt2", _hf_gpt2, 32, {"input_ids": TOKENS}, _hf, TARGETS)
HF_LLAMA = Case("transformers-llama", _hf_llama, 32, {"input_ids": TOKENS}, _hf, TARGETS)

HAND_WRITTEN = (MLP, RESNET, GPT, WRITTEN_OUT, MANUAL, LLAMA, HEADS, EINSUM)
ALL = (*HAND_WRITTEN, HF_GPT2, HF_LLAMA)


def train(
    case: Case, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int
) -> torch.Tensor:
    """Train on the case's one batch; the losses."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = case.loss(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def movement(
    case: Case,
    build: Callable[[], nn.Module],
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    seeds: int = 3,
) -> float:
    """Mean absolute change of the logits over 4 steps, averaged over seeds."""
    moved = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = build()
        with torch.no_grad():
            before = case.logits(model)
        train(case, model, optimizer(model), steps=4)
        with torch.no_grad():
            moved.append(float((case.logits(model) - before).abs().mean()))
    return sum(moved) / seeds


def slope(widths: list[int], values: list[float]) -> float:
    """Of log value against log width, least squares."""
    x, y = [math.log(w) for w in widths], [math.log(v) for v in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return top / sum((a - mean_x) ** 2 for a in x)
