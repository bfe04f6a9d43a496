"""Train a byte-level language model from any model file, as its author wrote it or converted.

    python examples/train.py examples/gpt.py --width 512 --lr 3e-3 --steps 200
    python examples/train.py mu_gpt.py --width 512 --lr 3e-3 --steps 200

The text is the source of Python's own standard library, which is on every machine that runs this.
A file that defines ``mup_optimizer(model, lr, weight_decay=...)``, as converted ones do, is trained
with it, any other with ``torch.optim.AdamW``: nothing else differs between the two, and the same
seed gives the same batches.

On several GPUs, or processes of a CPU, the same command under torchrun: FSDP2 shards the model, and
the processes share each batch.

    torchrun --nproc-per-node 8 examples/train.py mu_gpt.py --width 4096 --compile --checkpoint run/
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import inspect
import math
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
import torch.nn as nn
import torch.nn.functional as F
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import parallel
from model_file import (
    WIDTH_NAMES,
    Recipe,
    TrainError,
    describe,
    find_model,
    listing,
    load_module,
    parse_value,
)
from parallel import Processes

CONTEXT_NAMES = ("block_size", "max_seq_len", "max_len", "max_position_embeddings")
CORPUS_BYTES = 4_000_000


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The model's own loss if it takes targets, else the cross-entropy of its logits."""
    takes_targets = "targets" in inspect.signature(model.forward).parameters
    output = model(x, targets=y) if takes_targets else model(x)
    logits, *rest = output if isinstance(output, tuple) else (output,)
    if not isinstance(logits, torch.Tensor) or logits.shape[:-1] != y.shape:
        raise ValueError(f"its output is not one row of logits for each of {tuple(y.shape)} bytes")
    if logits.shape[-1] < 256:
        raise ValueError(f"a vocabulary of {logits.shape[-1]} cannot hold 256 byte values")
    if takes_targets and rest and isinstance(rest[0], torch.Tensor):
        return rest[0]
    return F.cross_entropy(logits.flatten(0, -2).float(), y.flatten())


# --- the text ------------------------------------------------------------------------------------


def load_corpus() -> torch.Tensor:
    """The first megabytes of the standard library's sources, in the order of their paths."""
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(stdlib.rglob("*.py"), key=lambda path: path.relative_to(stdlib).as_posix())
    corpus = bytearray()
    for path in paths:
        if "site-packages" in path.parts or "dist-packages" in path.parts:
            continue  # not the standard library's own
        corpus += path.read_bytes()
        if len(corpus) >= CORPUS_BYTES:
            break
    if len(corpus) < 100_000:
        raise TrainError(f"{stdlib}: no standard library sources to train on")
    return torch.frombuffer(corpus[:CORPUS_BYTES], dtype=torch.uint8)


def batches(
    corpus: torch.Tensor, batch_size: int, seq_len: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Random windows of the text and the same windows one byte later, forever."""
    generator = torch.Generator().manual_seed(seed)
    window = torch.arange(seq_len + 1)
    while True:
        starts = torch.randint(len(corpus) - seq_len, (batch_size, 1), generator=generator)
        tokens = corpus[starts + window].long()
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


# --- training ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Run:
    """How to train: for how long, on what, at what precision, and where checkpoints go."""

    steps: int
    device: torch.device
    processes: Processes
    half: bool
    folder: Path | None = None
    save_every: int = 0

    def saves_after(self, step: int) -> bool:
        due = self.save_every and step % self.save_every == 0
        return self.folder is not None and bool(due or step == self.steps)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Iterator[tuple[torch.Tensor, torch.Tensor]],
    how: Run,
    first: int,
    console: Console,
) -> list[float]:
    """Train from step ``first`` on and return the loss of each step."""
    losses: list[torch.Tensor] = []
    progress = Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    steps, on_cuda = how.steps, how.device.type == "cuda"
    with progress:
        task = progress.add_task("training", total=steps, completed=first, loss="")
        for step in range(first + 1, steps + 1):
            losses.append(one_step(model, optimizer, next(data), how, is_first=not losses))
            if how.folder is not None and how.saves_after(step):
                parallel.save(how.folder, step, model, optimizer)
            # reading a loss waits for the GPU: do it now and then only
            if step % 10 == 0 or step == steps or not on_cuda:
                recent = losses[-20:]
                running = torch.stack(recent).mean().item()
                progress.update(task, completed=step, loss=f"{running:.4f}")
                if not console.is_terminal and (step % max(1, steps // 10) == 0 or step == steps):
                    console.print(f"step {step:>6}/{steps}  loss {running:.4f}")
    return torch.stack(losses).tolist() if losses else []


def one_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[torch.Tensor, torch.Tensor],
    how: Run,
    *,
    is_first: bool,
) -> torch.Tensor:
    """One step of the optimizer; the loss before it, over all processes."""
    x, y = (how.processes.share(t).to(how.device, non_blocking=True) for t in batch)
    with torch.autocast(how.device.type, torch.bfloat16, enabled=how.half):
        try:
            loss = loss_of(model, x, y)
        except Exception as error:
            if not is_first:
                raise
            raise TrainError(
                f"{type(model).__name__} cannot be trained on bytes: {describe(error)}"
            ) from error
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return how.processes.mean(loss.detach())


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train a byte-level language model on Python's own standard library.",
    )
    parser.add_argument("model", metavar="MODEL", help="a model file, or file.py:ClassName")
    parser.add_argument("--width", type=positive, help=f"sets the first of {listing(WIDTH_NAMES)}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set another argument or config field of the model (repeatable)",
    )
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate (default: 3e-3)")
    parser.add_argument("--weight-decay", type=float, default=0.0, help="(default: 0)")
    parser.add_argument("--steps", type=positive, default=200, help="(default: 200)")
    parser.add_argument("--batch-size", type=positive, default=16, help="(default: 16)")
    parser.add_argument(
        "--seq-len", type=positive, help="bytes per sequence (default: the model's longest, or 64)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of init and batches (default: 0)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="bfloat16: under autocast (default: on a GPU)",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile each layer")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FOLDER", help="save there, and go on from what is there"
    )
    parser.add_argument(
        "--save-every", type=positive, metavar="STEPS", help="(default: after the last step)"
    )
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write the loss of every step")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def choose_device(name: str | None, processes: Processes) -> torch.device:
    own = f"cuda:{processes.local}" if processes.count > 1 else "cuda"
    try:
        device = torch.device(name or (own if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise TrainError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def make_optimizer(
    module: ModuleType, model: nn.Module, lr: float, weight_decay: float
) -> tuple[torch.optim.Optimizer, str]:
    """The file's own muP optimizer if it has one, else AdamW, and what to call it."""
    own = getattr(module, "mup_optimizer", None)
    try:
        if own is not None:
            return own(model, lr, weight_decay=weight_decay), "mup_optimizer of the file"
        params = model.parameters()
        return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay), "torch.optim.AdamW"
    except (TypeError, ValueError) as error:
        raise TrainError(f"no optimizer: {describe(error)}") from error


def read_settings(args: argparse.Namespace, recipe: Recipe) -> dict[str, object]:
    """The model's arguments that the command line sets."""
    values: dict[str, object] = {}
    if args.width is not None:
        values[recipe.width_name] = args.width
    for setting in args.set:
        key, equals, value = setting.partition("=")
        if not equals:
            raise TrainError(f"--set {setting}: expected NAME=VALUE")
        values[key.strip()] = parse_value(value.strip())
    if "vocab_size" in recipe.required:
        values.setdefault("vocab_size", 256)
    return values


def run(args: argparse.Namespace, console: Console, processes: Processes) -> None:
    """Load, build, train, report."""
    file, _, name = args.model.partition(".py:")
    module = load_module(Path(file + ".py" if name else args.model))
    recipe = Recipe(find_model(module, name or None))
    values = read_settings(args, recipe)
    if args.batch_size % processes.count:
        raise TrainError(
            f"--batch-size {args.batch_size}: {processes.count} processes cannot share it"
        )
    device = choose_device(args.device, processes)
    half = (args.precision or ("bfloat16" if device.type == "cuda" else "")) == "bfloat16"
    how = Run(args.steps, device, processes, half, args.checkpoint, args.save_every or 0)

    torch.manual_seed(args.seed)
    built = recipe.build(values).to(device).train()
    size = sum(parameter.numel() for parameter in built.parameters())
    model = parallel.prepare(built, processes, compiled=args.compile)
    optimizer, optimizer_name = make_optimizer(module, model, args.lr, args.weight_decay)
    known = {**recipe.defaults, **values}
    longest = next((known[name] for name in CONTEXT_NAMES if name in known), 64)
    seq_len = args.seq_len or (longest if isinstance(longest, int) else 64)
    data = batches(load_corpus(), args.batch_size, seq_len, args.seed)

    if args.csv is not None and not args.csv.parent.is_dir():  # rather now than afterwards
        raise TrainError(f"--csv {args.csv}: no such folder")

    settings = ", ".join(f"{key}={value}" for key, value in values.items()) or "defaults"
    shared = f" x {processes.count} processes" if processes.count > 1 else ""
    console.print(
        escape(
            f"{recipe.cls.__name__} ({settings}): {size:,} parameters on {device}{shared}\n"
            f"{optimizer_name}, lr {args.lr:g}, weight decay {args.weight_decay:g}; "
            f"batches of {args.batch_size} x {seq_len} bytes, seed {args.seed}"
        ),
        highlight=False,
        soft_wrap=True,
    )
    start = time.perf_counter()
    first = parallel.resume(args.checkpoint, model, optimizer) if args.checkpoint else 0
    for _ in range(first):
        next(data)
    losses = train(model, optimizer, data, how, first, console)
    seconds = time.perf_counter() - start

    tail = losses[-math.ceil(len(losses) / 10) :] if losses else []
    console.print(
        f"final loss {sum(tail) / len(tail):.4f} (mean of the last {len(tail)} of "
        f"{len(losses)} steps, {seconds:.0f} s)"
        if tail
        else f"nothing to do: {args.checkpoint} is at step {first}",
        highlight=False,
        soft_wrap=True,
    )
    if args.csv is not None and processes.first:
        write_csv(args.csv, losses, first)


def write_csv(path: Path, losses: list[float], first: int) -> None:
    """The loss of every step, counted from 1."""
    try:
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(("step", "loss"))
            writer.writerows(enumerate(losses, start=first + 1))
    except OSError as error:
        raise TrainError(f"--csv {path}: {error.strerror}") from error


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 when interrupted, 2 when the call is wrong."""
    args = parse_arguments(argv)
    processes = parallel.start()
    try:
        run(args, Console(quiet=not processes.first), processes)
    except TrainError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: interrupted", file=sys.stderr)
        return 1
    finally:
        parallel.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
