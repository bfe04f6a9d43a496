"""``automup sweep``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from automup.cli.isolation import COMMAND
from automup.cli.models import running_model
from automup.cli.options import Base, Input, Model, Optimizer, Override, Strict, Width
from automup.errors import UsageError
from automup.files import make_folder
from automup.progress import telling

if TYPE_CHECKING:
    from automup.sweep.results import SweepResult
    from automup.sweep.settings import Settings
    from automup.sweep.stored import Call
    from automup.sweep.trial import Trainer

Data = Annotated[
    str,
    typer.Option(
        "--data", metavar="SPEC", help="text:PATH, digits, or a file.py with batches and loss."
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--setting", metavar="NAME=VALUE", help="Of the optimizer: momentum=0.9."),
]
Widths = Annotated[str, typer.Option("--widths", help="Multiples of the base.")]
Lr = Annotated[
    str,
    typer.Option("--lr", help="A grid of octaves, 2^-12:2^-4, or a list. Default: nine octaves."),
]
Seeds = Annotated[int, typer.Option("--seeds", help="How many, of weights and batches.")]
Steps = Annotated[int, typer.Option("--steps", help="Of each run.")]
Batch = Annotated[int, typer.Option("--batch", help="The batch size.")]
Last = Annotated[float, typer.Option("--last", help="The part of the steps whose mean counts.")]
Sp = Annotated[bool, typer.Option("--sp/--no-sp", help="Run SP beside μP.")]
Tune = Annotated[
    list[str] | None,
    typer.Option(
        "--tune",
        metavar="NAME=LOW:HIGH",
        help="Tune constants and weight_decay at the narrowest width first: output_mult=0.25:16.",
    ),
]
Trials = Annotated[int, typer.Option("--trials", help="How many settings to tune with.")]
Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        metavar="PLACE",
        help="postgresql://…, sqlite:///FILE or a journal file, for processes to share.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the results are written.")
]
Jobs = Annotated[
    int, typer.Option("--jobs", min=0, help="Processes here. Default: one for each GPU, else one.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Take part, write and print nothing.")]


def sweep(
    model: Model,
    data: Data,
    base: Base = None,
    width: Width = "",
    input: Input = None,
    override: Override = None,
    optimizer: Optimizer = "adamw",
    setting: Setting = None,
    widths: Widths = "1,2,4,8",
    lr: Lr = "",
    seeds: Seeds = 3,
    steps: Steps = 100,
    batch: Batch = 16,
    last: Last = 0.5,
    sp: Sp = True,
    tune: Tune = None,
    trials: Trials = 60,
    storage: Storage = "",
    out: Out = Path("sweep"),
    jobs: Jobs = 0,
    quiet: Quiet = False,
    strict: Strict = True,
) -> None:
    """Train at several widths and learning rates, in SP and in μP. Importing MODEL runs its code.

    A run that the storage has is not repeated: the same command resumes a sweep, and shares the
    work with others that run it at the same time.
    """
    from automup.capture.values import parse_assignments
    from automup.optim import optimizer_class_of
    from automup.sweep.settings import Settings, grid_of, parse_lrs, parse_multiples, parse_tune
    from automup.sweep.stored import Call

    settings = Settings(
        multiples=parse_multiples(widths),
        lrs=parse_lrs(lr or grid_of(optimizer)),
        seeds=seeds,
        steps=steps,
        batch_size=batch,
        last=last,
        optimizer=optimizer.lower(),
        options=parse_assignments(setting or []),
        sp=sp,
        tune=parse_tune(tune or []),
        trials=trials,
    )
    optimizer_class_of(optimizer)
    _check_out(out)
    given = (tuple(options or ()) for options in (base, input, override))
    bases, inputs, overrides = given
    call = Call(model, bases, width, inputs, overrides, strict)
    with running_model():
        with telling(f"reading {model}", quiet=quiet):
            code, trainer = _trainer(call, data, settings)
        if not storage:
            make_folder(out)
        with _others(jobs):
            about = {"data": data, "call": asdict(call)}
            result = _swept(trainer, about, code, storage or str(out / "journal.log"), quiet)
    if not quiet:
        _show(result, out)


def _trainer(call: Call, data: str, settings: Settings) -> tuple[str, Trainer]:
    """The model's source text, and what trains it: tried out for a step."""
    from automup.data import load_data
    from automup.sweep.trial import Trainer, choose_device

    source, mup = call.opened()
    trainer = Trainer(mup, mup.study, load_data(data, mup.study), settings, choose_device())
    trainer.rehearse()
    return source.text, trainer


def _check_out(out: Path) -> None:
    """Refuse at once what could not be made in the end."""
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UsageError(f"{there} is no folder.", fix="Name another with --out.")


def _swept(
    trainer: Trainer, about: Mapping[str, object], code: str, storage: str, quiet: bool
) -> SweepResult:
    from automup.sweep.run import sweep
    from automup.sweep.storage import open_storage
    from automup.sweep.watch import watching

    try:
        with watching(quiet) as watch:
            return sweep(trainer, about, code, open_storage(storage), watch)
    except KeyboardInterrupt:
        typer.echo("note: what is done is kept; the same command goes on from there", err=True)
        raise


def _show(result: SweepResult, out: Path) -> None:
    from rich.console import Console

    from automup.sweep.table import print_result

    result.save(out)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    print_result(result, console)
    typer.echo(f"written to {out}: sweep.json, runs.csv, sweep.png, sweep.svg", err=True)


@contextlib.contextmanager
def _others(jobs: int) -> Iterator[None]:
    """The further processes that take part: the same command, each with its own GPU, quietly."""
    devices = _devices()
    count = jobs or max(1, len(devices))
    if count == 1:
        yield
        return
    command = [*COMMAND, *sys.argv[1:], "--jobs", "1", "--quiet"]
    children = []
    for number in range(1, count):
        environment = {"OMP_NUM_THREADS": _threads(count), **os.environ}
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        children.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    try:
        yield
        for child in children:
            child.wait()
    finally:
        for child in children:
            child.terminate()


def _threads(count: int) -> str:
    """The threads of each of so many processes, unless the user says; this one's are set."""
    import torch

    threads = max(1, (os.cpu_count() or 1) // count)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads)
    return str(threads)


def _devices() -> Sequence[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = [d.strip() for d in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]
