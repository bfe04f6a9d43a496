"""Running a model without its weights: every tensor on the meta device, small known ones shadowed.

Tensors that depend on no parameter and on no random draw (masks, positions, token ids) have a real
CPU *shadow* beside their meta tensor, so code that reads values (``.item()``, ``if mask.all()``)
runs as it would. A read of a value that only the weights could tell is answered by a guess and
recorded in ``guesses``: the caller decides whether to trust the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_map

from automup.capture.ground import Ground
from automup.capture.reads import DISPATCHED_READS, Guess, ReadGuard
from automup.capture.results import Results
from automup.capture.source import user_frames
from automup.capture.tensors import (
    magnitudes,
    mapped,
    storage_of,
    tensors_in,
    tensors_read,
    traits_of,
    written_tensors,
)
from automup.errors import EndlessError

SHADOW_LIMIT = 1 << 20  # elements; larger constants are not worth holding
MOST_GUESSES = 20_000  # in one run: a loop on data may have no end where nothing is known
_META = torch.device("meta")
_CPU = torch.device("cpu")
_NONZERO = torch.ops.aten.nonzero.default
_BINCOUNT = torch.ops.aten.bincount.default
_LIFT = torch.ops.aten.lift_fresh.default


class MetaMode(Ground):
    """Redirects every allocation to the meta device and keeps shadows of small known tensors.

    What is known of a tensor is kept by its id, with the tensor, so that no other gets the id.
    """

    def __init__(self, limit: int = SHADOW_LIMIT) -> None:
        super().__init__()
        self._limit = limit
        self.guesses: list[Guess] = []
        self._shadows: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._metas: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._keep: list[torch.Tensor] = []  # on meta: they hold nothing
        self._known_in: dict[int, list[int]] = {}  # by storage, the ids of those with shadows
        self._results = Results()

    def adopt(self, earlier: MetaMode) -> None:
        """Know what an earlier mode knew: the buffers that the constructor made."""
        self._shadows, self._metas, self._keep = earlier._shadows, earlier._metas, earlier._keep
        self._known_in, self._results = earlier._known_in, earlier._results

    def shadow(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The real value of a tensor, or None if nobody knows it."""
        if not tensor.is_meta:
            known = self._metas.get(id(tensor))
            if known is None:
                return tensor
            tensor = known[1]  # a real tensor that was overwritten lives on as its twin
        pair = self._shadows.get(id(tensor))
        return None if pair is None else pair[1]

    def value_behind(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The real value of a tensor, or of the one that it was made of: a parameter's data."""
        known = self.shadow(tensor)
        if known is not None or not tensor.is_meta:
            return known
        key, layout = storage_of(tensor), (tensor.shape, tensor.stride())
        found = [m for m in self._keep if storage_of(m) == key]
        alike = [m for m in found if (m.shape, m.stride()) == layout]
        return self.shadow(alike[-1]) if alike else None

    def admit(self, tensor: torch.Tensor) -> torch.Tensor:
        """An input of the model, as it is to be passed."""
        return self.to_meta(tensor)

    def to_meta(self, tensor: torch.Tensor) -> torch.Tensor:
        """The meta twin of a real tensor, with the tensor itself as its shadow."""
        if tensor.is_meta:
            return tensor
        known = self._metas.get(id(tensor))
        if known is not None:
            return known[1]
        twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META)
        self._metas[id(tensor)] = tensor, twin
        self._remember(twin, tensor)
        return twin

    def forget(self, tensor: torch.Tensor) -> None:
        """The tensor is a weight: its value at the start says nothing of what it will be."""
        self._shadows.pop(id(self.to_meta(tensor)), None)

    def remember(self, tensor: torch.Tensor, real: torch.Tensor) -> None:
        """Know the value of a tensor, whatever was written into it."""
        self._remember(self.to_meta(tensor), real)

    def sizes_of(self, tensor: torch.Tensor) -> tuple[float | None, float | None]:
        """Root mean square and largest of a known tensor's entries, None of an unknown one's."""
        real = self.shadow(tensor)
        return (None, None) if real is None else magnitudes(real)

    def guess(self, what: str, answer: Any, *, grave: bool = False) -> Any:
        """Answer a read of an unknown value, on the record."""
        frames = user_frames(3, limit=1)
        self.guesses.append(Guess(what, frames[0] if frames else None, grave))
        if len(self.guesses) >= MOST_GUESSES:
            raise EndlessError(
                f"The model reads {what} {MOST_GUESSES} times: a loop on data, perhaps, which has "
                "no end where the weights are not known.",
                where=str(frames[0]) if frames else "",
                fix="Bound the loop by a size, or by a number of its own.",
            )
        return answer

    def _remember(self, meta: torch.Tensor, real: torch.Tensor) -> None:
        self._keep.append(meta)
        if real.numel() <= self._limit:
            self._shadows[id(meta)] = meta, real
            self._known_in.setdefault(storage_of(meta), []).append(id(meta))

    def _lose(self, tensor: torch.Tensor) -> None:
        """What nobody knows was written into a tensor: every view of its storage may hold it."""
        for key in self._known_in.pop(storage_of(tensor), ()):
            self._shadows.pop(key, None)

    def execute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation without values, and on the shadows of what has some."""
        traits = traits_of(func)
        if func in DISPATCHED_READS:
            return DISPATCHED_READS[func](self, *args)
        tensors = tensors_in(args)
        if kwargs:
            tensors += tensors_in(kwargs)
        known = all([self.shadow(x) is not None for x in tensors_read(traits, tensors)])
        if func is _NONZERO and not known:
            return self._unknown_nonzero(args[0])
        if func is _LIFT:
            return args[0]  # torch.tensor(...) stays on the device that code expects of it
        meta_args, meta_kwargs = args, kwargs
        if "device" in kwargs or not all(x.is_meta for x in tensors):
            meta_args, meta_kwargs = mapped(self._to_meta_value, (args, kwargs))
        if not tensors and traits.takes_device:
            meta_kwargs = {**meta_kwargs, "device": _META}
        try:
            out = self._results.run(traits, meta_args, meta_kwargs)
        except NotImplementedError:
            if func is _BINCOUNT and not known:
                return self._unknown_bincount(*args, **kwargs)
            if not known:
                raise
            out = None
        if known and traits.deterministic:
            return self._with_shadow(func, args, kwargs, out)
        if traits.writes:
            for tensor in written_tensors(func, meta_args, meta_kwargs):
                self._lose(tensor)
        return out

    def _to_meta_value(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.to_meta(value)
        return _META if isinstance(value, torch.device) else value

    def _to_real_value(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            real = self.shadow(value)
            if real is None:  # only its shape matters, or it is overwritten whole
                real = torch.empty(value.shape, dtype=value.dtype)
            return real
        return _CPU if isinstance(value, torch.device) else value

    def _with_shadow(self, func: Any, args: Any, kwargs: Any, out: Any) -> Any:
        """Run the operation on the shadows too, where the result is small."""
        metas = tensors_in(out)
        if any(x.numel() > self._limit for x in metas):
            return out
        real_args, real_kwargs = mapped(self._to_real_value, (args, kwargs))
        real = func(*real_args, **real_kwargs)
        if out is None:  # the operation has no meta kernel: its shapes come from the real run
            return tree_map(lambda x: self.to_meta(x) if isinstance(x, torch.Tensor) else x, real)
        reals = tensors_in(real)
        for meta, value in zip(metas, reals, strict=True):
            self._remember(meta, value)
        return out

    def _unknown_bincount(
        self, values: torch.Tensor, weights: torch.Tensor | None = None, minlength: int = 0
    ) -> torch.Tensor:
        """How many tokens each expert gets, with as many experts as the code says."""
        self.guess("the largest of some numbers", minlength)
        dtype = torch.int64 if weights is None else torch.float64
        return torch.empty(max(1, minlength), dtype=dtype, device=_META)

    def _unknown_nonzero(self, mask: torch.Tensor) -> torch.Tensor:
        """As if every entry counted: then every expert of a mixture runs, each on all tokens."""
        self.guess("the number of nonzero entries", mask.numel())
        if mask.numel() > self._limit:
            return torch.empty(mask.numel(), mask.dim(), dtype=torch.long, device=_META)
        return self.to_meta(torch.ones(mask.shape, dtype=torch.bool).nonzero())


@contextlib.contextmanager
def _autocast_on_meta() -> Iterator[None]:
    """``torch.autocast`` knows no meta device: it shall mean the CPU's, which leaves meta alone."""
    original = torch.autocast.__init__

    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        original(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    torch.autocast.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__init__ = original  # type: ignore[method-assign]


@contextlib.contextmanager
def without_weights(
    on_meta_init: Callable[[Any], None] | None = None, limit: int = SHADOW_LIMIT
) -> Iterator[MetaMode]:
    """Run the block with every tensor on meta, shadows for small known ones, no gradient."""
    mode = MetaMode(limit)
    with mode, ReadGuard(mode, on_meta_init), _autocast_on_meta(), torch.no_grad():
        yield mode
