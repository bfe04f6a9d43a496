"""Lets a torchvision that was built for CUDA be imported beside a CPU build of torch.

PyPI's torchvision registers two operators in a library that only loads beside CUDA, and fails on
import without them ("operator torchvision::nms does not exist"). vit-pytorch and timm import it,
and transformers imports it wherever it is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import torch

_DEFINED: list[Any] = []


def import_torchvision() -> Any:
    """torchvision, with the schemas of its two operators defined where its library is missing."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DEFINED.append(library)  # it undefines them when it is collected
    return importlib.import_module("torchvision")


def mend_torchvision() -> None:
    """Make torchvision importable if it is installed."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
