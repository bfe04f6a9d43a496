"""torch's flex attention, opened: while a model is traced it runs as the operations that it means.

In itself it is one higher-order operation, which a recorder cannot see into, and which refuses the
meta device. torch has the same in plain operations, as the reference for its kernels.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def opened_flex_attention() -> Iterator[None]:
    """Run flex attention as plain operations in the block, on any device."""
    outer: Any = sys.modules.get("torch.nn.attention.flex_attention")
    inner: Any = sys.modules.get("torch._higher_order_ops.flex_attention")
    if outer is None or inner is None:  # then no model has imported it
        yield
        return
    opened = {
        "flex_attention_hop": inner.math_attention,
        "_validate_device": lambda *tensors: None,
        "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG": True,
    }
    before = {name: getattr(outer, name) for name in opened if hasattr(outer, name)}
    for name in before:
        setattr(outer, name, opened[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(outer, name, value)
