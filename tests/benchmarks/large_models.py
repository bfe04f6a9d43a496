"""Time and memory of `automup explain` on the largest models' shapes, beside what cannot be less.

    python tests/benchmarks/large_models.py [llama_405b] [gpt3_175b] [mixtral_8x22b]

Each model file in models/ builds a transformers model at a small width and full depth; the target
is the published shape. For each, two fresh processes: the bare cost (importing torch and
transformers and building the full shape on the meta device once) and the command line, with all
that it does: imports, building at every width, tracing in every variant, the report. Wall and CPU
seconds, peak resident memory, and the ratios. Exit status 1 if a run fails, or takes 20 s of CPU
or 800 MB.

On a busy machine the wall time says little; the CPU time says what an idle one would take, since
the analysis runs in one thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).parent / "models"
SECONDS, MEGABYTES = 20.0, 800.0


@dataclass(frozen=True)
class Case:
    """A model file's function and the published shape."""

    function: str
    target: dict[str, int]


CASES = {
    "llama_405b": Case(
        "llama",
        {"hidden_size": 16384, "num_attention_heads": 128, "intermediate_size": 53248},
    ),
    "gpt3_175b": Case("gpt3", {"n_embd": 12288, "n_head": 96}),
    "mixtral_8x22b": Case(
        "mixtral", {"hidden_size": 6144, "num_attention_heads": 48, "intermediate_size": 16384}
    ),
}


@dataclass(frozen=True)
class Cost:
    """What one process took: seconds on the clock and of the CPU, megabytes at its peak."""

    wall: float
    cpu: float
    memory: float
    status: int

    def __str__(self) -> str:
        return f"{self.wall:7.1f} s {self.cpu:7.1f} s CPU {self.memory:7.0f} MB"


def measure(arguments: list[str]) -> Cost:
    """Run Python with these arguments; its output is dropped, its errors are shown."""
    root = Path(__file__).parents[2] / "autumup"
    paths = [str(root), str(MODELS), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, status)


def bare(name: str, case: Case) -> Cost:
    """Imports and one build on meta at the full shape, without automup."""
    code = (
        f"import torch, transformers, {name}\n"
        f"with torch.device('meta'): {name}.{case.function}(**{case.target!r})"
    )
    return measure(["-c", code])


def explained(name: str, case: Case) -> Cost:
    """The whole command, the width knobs named as a user names them."""
    target = ",".join(f"{knob}={value}" for knob, value in case.target.items())
    command = "import automup.cli; automup.cli.main()"
    model = f"{MODELS / name}.py:{case.function}"
    width = ",".join(case.target)
    return measure(["-c", command, "explain", model, "--width", width, "--target", target])


def main(names: list[str]) -> int:
    failed = False
    for name in names or list(CASES):
        least, whole = bare(name, CASES[name]), explained(name, CASES[name])
        fits = whole.status == 0 and whole.cpu < SECONDS and whole.memory < MEGABYTES
        failed |= not fits
        ratios = f"{whole.cpu / least.cpu:.1f}x CPU, {whole.memory / least.memory:.1f}x memory"
        print(f"{name:14}  bare    {least}")
        print(f"{'':14}  explain {whole}   {ratios}   {'ok' if fits else 'TOO MUCH'}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
