"""Train a byte-level language model from any model file, as its author wrote it or converted.

    python examples/train.py examples/gpt.py --width 512 --lr 3e-3 --steps 200
    python examples/train.py mu_gpt.py --width 512 --lr 3e-3 --steps 200

The text is the source of Python's own standard library, which is on every machine that runs this.
A file that defines ``mup_optimizer(model, lr, weight_decay=...)``, as converted ones do, is trained
with it, any other with ``torch.optim.AdamW``: nothing else differs between the two, and the same
seed gives the same batches.
"""

from __future__ import annotations

import argparse
import ast
import csv
import dataclasses
import importlib
import importlib.util
import inspect
import math
import sys
import sysconfig
import time
import typing
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType

import torch
import torch.nn as nn
import torch.nn.functional as F
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

WIDTH_NAMES = ("n_embd", "dim", "d_model", "hidden_size", "width")
CONTEXT_NAMES = ("block_size", "max_seq_len", "max_len", "max_position_embeddings")
CORPUS_BYTES = 4_000_000


class TrainError(Exception):
    """Something that the caller can put right; shown without a traceback."""


# --- the model file ------------------------------------------------------------------------------


def load_module(path: Path) -> ModuleType:
    """Import a file as Python would: its siblings and its package can be imported from it."""
    if not path.is_file():
        raise TrainError(f"{path}: no such file")
    path = path.resolve()
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():  # a file inside a package
        root, name = root.parent, f"{root.name}.{name}"
    sys.path.insert(0, str(root))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TrainError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        if "." in name:
            importlib.import_module(name.rpartition(".")[0])
        spec.loader.exec_module(module)
    except Exception as error:
        raise TrainError(f"{path}: cannot be imported: {describe(error)}") from error
    return module


def describe(error: BaseException) -> str:
    """The last line of a traceback."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def find_model(module: ModuleType, name: str | None) -> type[nn.Module]:
    """The class of that name, or else the one module class that no other in the file uses."""
    classes = {
        cls.__name__: cls
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, nn.Module) and cls.__module__ == module.__name__
    }
    if name is not None:
        if name not in classes:
            raise TrainError(
                f"{module.__file__}: no nn.Module class {name!r}; it has {listing(classes)}"
            )
        return classes[name]
    used = {
        mentioned
        for cls in classes.values()
        for mentioned in names_used_by(cls)
        if mentioned != cls.__name__
    }
    roots = [cls for cls in classes.values() if cls.__name__ not in used]
    if len(roots) != 1:
        names = [cls.__name__ for cls in roots] or list(classes)
        raise TrainError(
            f"{module.__file__}: {listing(names)} could be the model; "
            f"choose with {Path(module.__file__ or '').name}:ClassName"
            if names
            else f"{module.__file__}: defines no nn.Module class"
        )
    return roots[0]


def names_used_by(cls: type) -> Iterator[str]:
    """Global names in the methods of a class, and its base classes."""
    yield from (base.__name__ for base in cls.__bases__)
    todo: list[CodeType] = []
    for member in vars(cls).values():
        function = getattr(member, "__func__", member)  # static and class methods
        if inspect.isfunction(inspect.unwrap(function)):
            todo.append(inspect.unwrap(function).__code__)
    while todo:
        code = todo.pop()
        yield from code.co_names
        todo += [const for const in code.co_consts if isinstance(const, CodeType)]


def listing(names: typing.Iterable[str]) -> str:
    return ", ".join(names) or "none"


# --- the model -----------------------------------------------------------------------------------


class Recipe:
    """How to build a model class: its arguments are its own, or a config dataclass's fields."""

    def __init__(self, cls: type[nn.Module]):
        self.cls = cls
        self.config_class: type | None = None
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        try:
            hints = typing.get_type_hints(cls.__init__)
        except (NameError, TypeError):
            hints = {}
        if len(parameters) == 1 or (parameters and parameters[0].name in ("config", "args")):
            self.config_class = self._config_class(parameters[0], hints.get(parameters[0].name))
        self.defaults: dict[str, object] = {}
        if self.config_class is not None:
            for field in dataclasses.fields(self.config_class):
                made = field.default_factory
                default = made() if made is not dataclasses.MISSING else field.default
                self.defaults[field.name] = default
            self.required = [k for k, v in self.defaults.items() if v is dataclasses.MISSING]
        else:
            named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            self.defaults = {p.name: p.default for p in named}
            self.required = [p.name for p in named if p.default is p.empty]

    def _config_class(self, parameter: inspect.Parameter, hint: object) -> type | None:
        """The dataclass that a parameter takes, by annotation, by default, or the file's only."""
        for candidate in (hint, *typing.get_args(hint), type(parameter.default)):
            if inspect.isclass(candidate) and dataclasses.is_dataclass(candidate):
                return candidate
        if hint is not None or parameter.default is not parameter.empty:
            return None
        module = sys.modules[self.cls.__module__]
        found = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and dataclasses.is_dataclass(value)
            and not issubclass(value, nn.Module)
        ]
        return found[0] if len(found) == 1 else None

    @property
    def width_name(self) -> str:
        for name in WIDTH_NAMES:
            if name in self.defaults:
                return name
        raise TrainError(
            f"{self.cls.__name__}: which argument is its width? Name it with --set NAME=VALUE; "
            f"it takes {listing(self.defaults)}"
        )

    def build(self, values: dict[str, object]) -> nn.Module:
        unknown = [name for name in values if name not in self.defaults]
        if unknown:
            raise TrainError(
                f"{self.cls.__name__} has no {listing(unknown)}; it takes {listing(self.defaults)}"
            )
        missing = [name for name in self.required if name not in values]
        if missing:
            raise TrainError(
                f"{self.cls.__name__} needs {listing(missing)}: give it with --set NAME=VALUE"
            )
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        try:
            if self.config_class is not None:
                return self.cls(self.config_class(**values))
            return self.cls(**values)
        except Exception as error:
            raise TrainError(
                f"{self.cls.__name__}({shown}) cannot be built: {describe(error)}"
            ) from error


def parse_value(text: str) -> object:
    """``4``, ``1e-3``, ``None``, ``true`` or ``(2, 2)``; anything else is a string."""
    try:
        return ast.literal_eval(text.title() if text in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        return text


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


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    device: torch.device,
    console: Console,
) -> list[float]:
    """Train for a number of steps and return the loss of each."""
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
    on_cuda = device.type == "cuda"
    with progress:
        task = progress.add_task("training", total=steps, loss="")
        for step in range(1, steps + 1):
            x, y = (tokens.to(device, non_blocking=True) for tokens in next(data))
            with torch.autocast(device.type, torch.bfloat16, enabled=on_cuda):
                try:
                    loss = loss_of(model, x, y)
                except Exception as error:
                    if losses:
                        raise
                    raise TrainError(
                        f"{type(model).__name__} cannot be trained on bytes: {describe(error)}"
                    ) from error
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            # reading a loss waits for the GPU: do it now and then only
            if step % 10 == 0 or step == steps or not on_cuda:
                recent = losses[-20:]
                running = torch.stack(recent).mean().item()
                progress.update(task, completed=step, loss=f"{running:.4f}")
                if not console.is_terminal and (step % max(1, steps // 10) == 0 or step == steps):
                    console.print(f"step {step:>6}/{steps}  loss {running:.4f}")
    return torch.stack(losses).tolist()


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
    parser.add_argument("--csv", type=Path, metavar="PATH", help="write the loss of every step")
    return parser.parse_args(argv)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def choose_device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
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


def run(args: argparse.Namespace, console: Console) -> None:
    """Load, build, train, report."""
    file, _, name = args.model.partition(".py:")
    module = load_module(Path(file + ".py" if name else args.model))
    recipe = Recipe(find_model(module, name or None))

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
    device = choose_device(args.device)

    torch.manual_seed(args.seed)
    model = recipe.build(values).to(device).train()
    optimizer, optimizer_name = make_optimizer(module, model, args.lr, args.weight_decay)
    known = {**recipe.defaults, **values}
    longest = next((known[name] for name in CONTEXT_NAMES if name in known), 64)
    seq_len = args.seq_len or (longest if isinstance(longest, int) else 64)
    corpus = load_corpus()

    if args.csv is not None and not args.csv.parent.is_dir():  # rather now than afterwards
        raise TrainError(f"--csv {args.csv}: no such folder")

    size = sum(parameter.numel() for parameter in model.parameters())
    settings = ", ".join(f"{key}={value}" for key, value in values.items()) or "defaults"
    console.print(
        escape(
            f"{type(model).__name__} ({settings}): {size:,} parameters on {device}\n"
            f"{optimizer_name}, lr {args.lr:g}, weight decay {args.weight_decay:g}; "
            f"batches of {args.batch_size} x {seq_len} bytes, seed {args.seed}"
        ),
        highlight=False,
        soft_wrap=True,
    )
    start = time.perf_counter()
    data = batches(corpus, args.batch_size, seq_len, args.seed)
    losses = train(model, optimizer, data, args.steps, device, console)
    seconds = time.perf_counter() - start

    tail = losses[-math.ceil(len(losses) / 10) :]
    console.print(
        f"final loss {sum(tail) / len(tail):.4f} (mean of the last {len(tail)} of "
        f"{len(losses)} steps, {seconds:.0f} s)",
        highlight=False,
        soft_wrap=True,
    )
    if args.csv is not None:
        write_csv(args.csv, losses)


def write_csv(path: Path, losses: list[float]) -> None:
    """The loss of every step, counted from 1."""
    try:
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle)
            writer.writerow(("step", "loss"))
            writer.writerows(enumerate(losses, start=1))
    except OSError as error:
        raise TrainError(f"--csv {path}: {error.strerror}") from error


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 when done, 1 when interrupted, 2 when the call is wrong."""
    args = parse_arguments(argv)
    try:
        run(args, Console())
    except TrainError as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train.py: interrupted", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
