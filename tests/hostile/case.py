"""A hostile case: files, a call, all that it must say; and the model files that cases vary."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

HEAD = "import torch\nimport torch.nn as nn\n\n\n"
CONVERT = "convert net.py --out mu.py"
WIDE = f"{CONVERT} --width width"
EXPLAIN = "explain net.py --width width"
CHECK = "check net.py --width width --widths 1,2 --seeds 1 --steps 1"
SWEEP = (
    "sweep net.py --width width --data data.py --widths 1,2 --lr 2^-8:2^-7 --seeds 1 --steps 2 "
    "--batch 4 --no-sp"
)
DONE = "mu.py: Net in μP; base width=16"
"""What a conversion says that goes well, whatever its file does."""


@dataclass(frozen=True)
class Case:
    """A call of the command line in a folder with these files.

    ``says`` is all that it prints on stderr, "HERE" standing for the folder. A failing call prints
    nothing else and writes nothing; one that does well and names an output has written it.
    """

    name: str
    command: str
    status: int
    says: str
    files: dict[str, str | bytes]

    def __str__(self) -> str:
        return self.name


def net(
    hidden: str = "",
    init: str = "",
    top: str = "",
    bottom: str = "",
    bases: str = "nn.Module",
    takes: str = "self, width: int = 16, features: int = 6",
    forward: str = "self, x",
) -> dict[str, str | bytes]:
    """A folder with a small model; ``hidden`` are lines of forward, ``init`` of the constructor."""
    body = f"""class Net({bases}):
    def __init__({takes}):
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.head = nn.Linear(width, 3)
{_indented(init)}
    def forward({forward}):
        h = torch.relu(self.stem(x))
{_indented(hidden)}
        return self.head(h)
"""
    return {"net.py": HEAD + top + body + bottom}


def own(
    init: str, forward: str, top: str = "", takes: str = "self, width: int = 16"
) -> dict[str, str | bytes]:
    """A folder with a model of one's own."""
    body = f"class Net(nn.Module):\n    def __init__({takes}):\n        super().__init__()\n"
    body += f"{_indented(init)}\n\n    def forward(self, x):\n{_indented(forward)}\n"
    return {"net.py": HEAD + top + body}


DATA = """
import torch


def batches(batch_size, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(batch_size, 6, generator=generator)


def loss(model, x):
    return (model(x) - x[:, :3]).square().mean()
"""


def trained(old: str = "", new: str = "") -> dict[str, str | bytes]:
    """A folder with the small model and data for it, of which a text is replaced."""
    assert old in DATA, old
    return {**net(), "data.py": DATA.replace(old, new) if old else DATA}


def _indented(code: str) -> str:
    return textwrap.indent(textwrap.dedent(code), " " * 8)


NET = str(net()["net.py"])


def changed(files: dict[str, str | bytes], *changes: tuple[str, str]) -> dict[str, str | bytes]:
    """The files with these texts of the model replaced."""
    text = str(files["net.py"])
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return {**files, "net.py": text}
