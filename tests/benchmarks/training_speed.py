"""What muP costs a training, beside the plain model and beside mup 1.0.0.

    python tests/benchmarks/training_speed.py [forward] [step] [setup] [analysis] [--quick]

``forward``: forward and backward, eager and compiled. ``step``: the optimizer's, foreach and fused.
``setup``: putting a model into muP, against mup's base, delta and set_base_shapes. ``analysis``:
how the time to parametrize goes with depth and width. On a GPU where there is one, else the CPU.

Each ratio is of two models that take turns, a few steps each, and is the median over the turns. On
the CPU, CPU time is measured: on a busy machine the clock says little, while ratios of turns next
to each other hold.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mup
import torch
import torch.nn.functional as F
from torch import nn

import automup

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import gpt
import mlp

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Build = Callable[[int], nn.Module]


# --- models --------------------------------------------------------------------------------------


def gpt_of(layers: int, heads: int = 4) -> Build:
    return lambda width=64: gpt.GPT(
        gpt.GPTConfig(n_embd=width, n_layer=layers, n_head=heads, block_size=128)
    )


def mlp_of(width: int = 64) -> nn.Module:
    return mlp.MLP(width=width)


def with_mup(build: Build) -> Build:
    """The model as mup's README asks for it; its edit of the attention costs nothing."""

    def made(width: int) -> nn.Module:
        model: Any = build(width)
        if isinstance(model, gpt.GPT):
            model.lm_head = mup.MuSharedReadout(model.transformer.wte.weight, bias=False)
        else:
            model.fc_out = mup.MuReadout(width, 10)
        return model

    return made


def in_mup(build: Build, width: int, base: int = 64) -> nn.Module:
    theirs = with_mup(build)
    delta = theirs(2 * base)
    model: nn.Module = mup.set_base_shapes(theirs(width), theirs(base), delta=delta)
    return model


def batch_for(model: nn.Module) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    if isinstance(model, gpt.GPT):
        tokens = torch.randint(0, 256, (4, 64), device=DEVICE)
        return tokens, tokens
    return torch.randn(128, 64, device=DEVICE), torch.randint(0, 10, (128,), device=DEVICE)


def loss_of(model: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = model(x, y) if "targets" in model.forward.__code__.co_varnames else model(x)
    return out[1] if isinstance(out, tuple) else F.cross_entropy(out, y)


MODELS: dict[str, tuple[Build, int]] = {
    "MLP, 256 wide": (mlp_of, 256),
    "GPT, 4 layers, 256 wide": (gpt_of(4), 256),
}


# --- timing --------------------------------------------------------------------------------------


def seconds(work: Callable[[], object], times: int) -> float:
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(times):
            work()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / times
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def compared(works: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Seconds of the first, and of each other the median ratio to it over turns."""
    for work in works.values():
        seconds(work, 3)
    once = max(seconds(work, 3) for work in works.values())
    times = max(1, round(0.04 / once))
    found: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(seconds(works[name], times))
    plain = found[names[0]]
    ratios = {
        name: statistics.median(a / b for a, b in zip(found[name], plain, strict=True))
        for name in names[1:]
    }
    return {names[0]: statistics.median(plain), **ratios}


def row(what: str, measured: dict[str, float], limit: float) -> None:
    (first, base), *ratios = measured.items()
    shown = "  ".join(f"{name} {ratio:.3f}" for name, ratio in ratios)
    fits = "ok" if measured["automup"] <= limit else f"over {limit}"
    print(f"{what:42} {first} {1e3 * base:8.3f} ms   {shown}   {fits}", flush=True)


# --- what is measured ----------------------------------------------------------------------------


def forward(turns: int) -> None:
    for name, (build, width) in MODELS.items():
        mu = automup.parametrize(lambda width=64, b=build: b(width))  # type: ignore[misc]
        made = {"plain": build(width), "automup": mu(width), "mup": in_mup(build, width)}
        for how in ("eager", "compiled"):
            works = {}
            for who, model in made.items():
                model = copy.deepcopy(model) if who != "mup" else model
                x, y = batch_for(model.to(DEVICE))
                if how == "compiled":
                    model.compile()
                works[who] = lambda m=model, x=x, y=y: loss_of(m, x, y).backward()  # type: ignore[misc]
            row(f"forward+backward, {name}, {how}", compared(works, turns), 1.01)


def step(turns: int) -> None:
    build, width = gpt_of(12), 256
    mu = automup.parametrize(lambda width=64: build(width))
    for settings in ({"foreach": True}, {"fused": True}):
        plain, ours, theirs = build(width), mu(width), in_mup(build, width)
        given: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.1, **settings}
        works, groups = {}, {}
        for who, model, make in (
            ("plain", plain, lambda m, **s: torch.optim.AdamW(m.parameters(), **s)),
            ("automup", ours, mu.optimizer),
            ("mup", theirs, lambda m, **s: mup.MuAdamW(m.parameters(), **s)),
        ):
            loss_of(model.to(DEVICE), *batch_for(model)).backward()
            optimizer = make(model, **given)
            works[who], groups[who] = optimizer.step, len(optimizer.param_groups)
        distinct = {
            tuple(sorted((k, v) for k, v in group.items() if isinstance(v, float)))
            for group in mu.param_groups(ours, **given)
        }
        row(f"AdamW step, GPT, 12 layers, {next(iter(settings))}", compared(works, turns), 1.03)
        print(f"{'':42} groups: {groups}, distinct settings: {len(distinct)}")


SIZES = {"4 layers": (4, 4, 256), "124M": (12, 12, 768), "1.5B": (48, 25, 1600)}


def one_setup(size: str, who: str) -> None:
    """In a process of its own: the parts of putting a model into muP, and the memory."""
    layers, heads, width = SIZES[size]
    base = 4 * heads
    config = {"block_size": 1024, "vocab_size": 50304} if size != "4 layers" else {}

    def build(width: int = base) -> Any:
        return gpt.GPT(gpt.GPTConfig(n_embd=width, n_layer=layers, n_head=heads, **config))

    model, other = build(width), build(width) if who == "automup" else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    marks = [("", time.process_time())]
    if who == "mup":
        theirs = with_mup(build)
        model.lm_head = mup.MuSharedReadout(model.transformer.wte.weight, bias=False)
        narrow, delta = theirs(base), theirs(2 * base)
        marks.append(("base and delta", time.process_time()))
        mup.set_base_shapes(model, narrow, delta=delta)
        marks.append(("set_base_shapes", time.process_time()))
    else:
        mu = automup.parametrize(build, inputs=(torch.randint(0, 256, (2, 16)),))
        marks.append(("parametrize", time.process_time()))
        mu.plan(width)
        marks.append(("plan", time.process_time()))
        mu.apply(other)
        marks.append(("first apply", time.process_time()))
        mu.apply(model)
        marks.append(("apply", time.process_time()))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parts = itertools.pairwise(marks)
    shown = "  ".join(f"{name} {1e3 * (t - last):8.0f} ms" for (_, last), (name, t) in parts)
    print(f"setup, {size:10} {who:8} {shown}   peak {after:6.0f} MB, {after - before:5.0f} above")


def setup(turns: int) -> None:
    for size in SIZES:
        for who in ("mup", "automup"):
            subprocess.run([sys.executable, __file__, "one", size, who], check=True)


def analysis(turns: int) -> None:
    depths = [("depth", layers, 64) for layers in (2, 4, 8, 16, 32)]
    for what, layers, base in (*depths, *(("width", 4, base) for base in (64, 256, 1024, 4096))):
        start = time.process_time()
        mu = automup.parametrize(gpt_of(layers), base=base)
        mu.plan(4 * base)
        taken = time.process_time() - start
        print(
            f"analysis against {what}: {layers:3} layers, base {base:5}: {taken:6.2f} s", flush=True
        )


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["one"]:
        one_setup(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parts = {"forward": forward, "step": step, "setup": setup, "analysis": analysis}
    parser.add_argument("parts", nargs="*", choices=[*parts, []])
    parser.add_argument("--quick", action="store_true", help="few turns, to see that it runs")
    args = parser.parse_args()
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU, one thread, CPU time"
    print(f"torch {torch.__version__} on {name}")
    for part in args.parts or parts:
        parts[part](5 if args.quick else 21)


if __name__ == "__main__":
    main()
