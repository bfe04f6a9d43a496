"""``automup transfer``."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from automup.capture.values import said
from automup.cli.models import check_folder, running_model
from automup.errors import UsageError
from automup.progress import telling

if TYPE_CHECKING:
    from automup.sweep.transfer import Transfer


def transfer(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a finished sweep (--out).")],
    target: Annotated[
        list[str] | None,
        typer.Option("--target", metavar="NAME=VALUE", help="Where to train: n_embd=4096."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Also write it, as .json or .yaml."),
    ] = None,
) -> None:
    """Show what a sweep tuned at another width, and how to train there. Runs the model's code."""
    from automup.capture.values import parse_assignments
    from automup.reading import read
    from automup.sweep.results import RESULTS, SweepResult
    from automup.sweep.stored import Call
    from automup.sweep.transfer import transfer as transferred

    if out is not None:
        check_folder(out)
        if out.suffix not in (".json", ".yaml", ".yml"):
            raise UsageError(f"{out} is neither .json nor .yaml.", fix="Name the file so.")
        if out.resolve() == (folder / RESULTS).resolve():
            raise UsageError(f"{out} is the sweep itself.", fix="Choose another --out.")
    result = SweepResult.load(folder)
    if result.about.get("call") is None:
        raise UsageError(
            "This sweep was run in Python, which has the model.",
            where=str(folder),
            fix="Call mu.transfer(result, ...) there.",
        )
    call = read(Call, result.about["call"], "call")
    with telling(f"reading {call.model}"), running_model():
        _, mup = call.opened()
        config = transferred(mup, mup.study, result, parse_assignments(target or []))
    if result.narrowest("mup").optimum.at_edge:
        typer.echo("note: the best learning rate is at an edge of the sweep's grid", err=True)
    if out is not None:
        config.save(out)
    _print(config, out)


def _print(config: Transfer, out: Path | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)

    def line(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    error = "" if config.lr_octaves is None else f" ± {config.lr_octaves:.2f} octaves"
    settings = "".join(f", {name} {value}" for name, value in config.options.items())
    constants = "".join(f", {name} {value:.4g}" for name, value in config.constants.items())
    line(f"{config.model} at {said(config.target)}, tuned at {said(config.tuned_at)}")
    line(
        f"{config.optimizer}{settings}, lr {config.lr:.4g} (2^{math.log2(config.lr):.2f}{error})"
        f"{constants}"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 2, 0, 0))
    for heading in ("parameters", "role", "lr", "decay", "ε", "init std", "mult"):
        table.add_column(heading, no_wrap=True)
    for group in config.groups:
        numbers = (group.lr, group.weight_decay, group.eps, group.init_std, group.multiplier)
        table.add_row(group.parameters, group.role, *map(_number, numbers))
    console.print()
    console.print(table)
    console.print()
    for text in _commands(config, out):
        line(text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _commands(config: Transfer, out: Path | None) -> Iterator[str]:
    """How to train at the target."""
    file = str(out) if out is not None else "config.json"
    if out is None:
        yield f"In Python, after --out {file}:"
    else:
        yield "In Python:"
    yield ""
    yield f"    config = automup.Transfer.load({file!r})"
    yield f"    model = config.make_model()                  # {said(config.target)}"
    yield "    optimizer = config.make_optimizer(model)"
    call = config.call
    if call is None or config.constants or config.optimizer != "adamw":
        return
    written = f"mu_{Path(call.model.partition('.py:')[0]).stem}.py"
    options = [*_repeated("--base", call.base), *_repeated("--input", call.input)]
    options += _repeated("--override", call.override)
    options += ["--width", call.width] if call.width else []
    knobs = [*_repeated("--set", [f"{n}={v}" for n, v in config.target.items()])]
    decay = config.options.get("weight_decay", 0.01)
    yield ""
    yield "Or as a source file (examples/train.py trains any model of bytes):"
    yield ""
    yield "    " + shlex.join(["automup", "convert", call.model, *options, "--out", written])
    train = ["python", "examples/train.py", written, *knobs, "--lr", f"{config.lr:.4g}"]
    yield "    " + shlex.join([*train, "--weight-decay", f"{decay:g}"])


def _repeated(option: str, values: Any) -> list[str]:
    return [word for value in values for word in (option, value)]
