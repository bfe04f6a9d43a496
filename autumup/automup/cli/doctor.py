"""``automup doctor``: what is installed here, for a first look and for a report of a bug."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

import automup

NEEDED = (
    "torch", "networkx", "libcst", "typer", "rich", "optuna", "matplotlib", "scikit-learn", "pyyaml"
)  # fmt: skip
OPTIONAL = {"transformers": "its own models"}


def doctor() -> None:
    """Show versions and devices, and what is missing for what."""
    for name, value in findings():
        typer.echo(f"{name + ':':14} {value}")
    missing = [name for name in NEEDED if version(name) is None]
    if missing:
        raise typer.Exit(1)


def findings() -> Iterator[tuple[str, str]]:
    """What is shown: (what, what was found)."""
    yield "automup", f"{automup.__version__} ({Path(automup.__file__).parent})"
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "system", platform.platform()
    for name in NEEDED:
        yield name, version(name) or "missing: install it with pip"
    for name, use in OPTIONAL.items():
        yield name, version(name) or f"not there; only needed for {use}"
    if version("torch") is not None:
        yield "devices", ", ".join(devices())


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    if package == "torch":  # which knows its build, too: +cpu, +cu130
        import torch

        return str(torch.__version__)
    return found


def devices() -> Iterator[str]:
    """What torch can compute on. automup reads models on the meta device and needs none of them."""
    import torch

    yield f"CPU ({torch.get_num_threads()} threads)"
    for number in range(torch.cuda.device_count()):
        yield torch.cuda.get_device_name(number)
    if torch.backends.mps.is_available():
        yield "MPS"
