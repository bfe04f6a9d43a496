"""Running a model without its weights: every tensor on the meta device, small known ones shadowed.

Tensors that depend on no parameter and on no random draw (masks, positions, token ids) have a real
CPU *shadow* beside their meta tensor, so code that reads values (``.item()``, ``if mask.all()``)
runs as it would. A read of a value that only the weights could tell is answered by a guess and
recorded in ``guesses``: the caller decides whether to trust the run.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from automup.capture.source import Frame, user_frames

SHADOW_LIMIT = 1 << 20  # elements; larger constants are not worth holding
_META = torch.device("meta")
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Guess:
    """A value that the traced code asked for and that only the weights could tell.

    ``grave``: a number that may have an exponent of its own, so no guess at it will do.
    """

    what: str
    frame: Frame | None
    grave: bool = False


class MetaMode(TorchDispatchMode):
    """Redirects every allocation to the meta device and keeps shadows of small known tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.guesses: list[Guess] = []
        self._shadows: dict[int, torch.Tensor] = {}
        self._metas: dict[int, torch.Tensor] = {}
        self._keep: list[torch.Tensor] = []
        self._results = _Results()

    def adopt(self, earlier: MetaMode) -> None:
        """Know what an earlier mode knew: the buffers that the constructor made."""
        self._shadows, self._metas, self._keep = earlier._shadows, earlier._metas, earlier._keep
        self._results = earlier._results

    def shadow(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The real value of a tensor, or None if nobody knows it."""
        if tensor.is_meta:
            return self._shadows.get(id(tensor))
        twin = self._metas.get(
            id(tensor)
        )  # a real tensor that was overwritten lives on as its twin
        return tensor if twin is None else self._shadows.get(id(twin))

    def admit(self, tensor: torch.Tensor) -> torch.Tensor:
        """An input of the model, as it is to be passed."""
        return self.to_meta(tensor)

    def to_meta(self, tensor: torch.Tensor) -> torch.Tensor:
        """The meta twin of a real tensor, with the tensor itself as its shadow."""
        if tensor.is_meta:
            return tensor
        twin = self._metas.get(id(tensor))
        if twin is None:
            twin = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=_META
            )
            self._metas[id(tensor)] = twin
            self._remember(twin, tensor)
        return twin

    def forget(self, tensor: torch.Tensor) -> None:
        """The tensor is a weight: its value at the start says nothing of what it will be."""
        self._shadows.pop(id(self.to_meta(tensor)), None)

    def size_of(self, tensor: torch.Tensor) -> float | None:
        """The root mean square of a known tensor's entries, None of an unknown one's."""
        real = self.shadow(tensor)
        return None if real is None else root_mean_square(real)

    def guess(self, what: str, answer: Any, *, grave: bool = False) -> Any:
        """Answer a read of an unknown value, on the record."""
        frames = user_frames(3, limit=1)
        self.guesses.append(Guess(what, frames[0] if frames else None, grave))
        return answer

    def _remember(self, meta: torch.Tensor, real: torch.Tensor) -> None:
        self._keep += (meta, real)
        if real.numel() <= SHADOW_LIMIT:
            self._shadows[id(meta)] = real

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        with torch._C.DisableTorchFunction():  # reading .is_meta here is nobody's business
            return self._dispatch(func, args, kwargs or {})

    def _dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _READS:
            return _READS[func](self, *args)
        tensors = tensors_in((args, kwargs))
        read = tensors_read(func, tensors)
        known = all(self.shadow(x) is not None for x in read)
        if func is torch.ops.aten.nonzero.default and not known:
            return self._unknown_nonzero(args[0])
        if func is torch.ops.aten.lift_fresh.default:
            return args[0]  # torch.tensor(...) stays on the device that code expects of it
        meta_args, meta_kwargs = args, kwargs
        if "device" in kwargs or not all(x.is_meta for x in tensors):
            meta_args, meta_kwargs = tree_map(self._to_meta_value, (args, kwargs))
        if not tensors and _takes_device(func):
            meta_kwargs = {**meta_kwargs, "device": _META}
        try:
            out = self._results.run(func, meta_args, meta_kwargs)
        except NotImplementedError:
            if not known:
                raise
            out = None
        if known and is_deterministic(func):
            return self._with_shadow(func, args, kwargs, out)
        if func._schema.is_mutable:
            for tensor in written_tensors(func, meta_args, meta_kwargs):
                self._shadows.pop(id(tensor), None)
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
        metas = [x for x in tree_leaves(out) if isinstance(x, torch.Tensor)]
        if any(x.numel() > SHADOW_LIMIT for x in metas):
            return out
        real_args, real_kwargs = tree_map(self._to_real_value, (args, kwargs))
        real = func(*real_args, **real_kwargs)
        if out is None:  # the operation has no meta kernel: its shapes come from the real run
            return tree_map(lambda x: self.to_meta(x) if isinstance(x, torch.Tensor) else x, real)
        reals = [x for x in tree_leaves(real) if isinstance(x, torch.Tensor)]
        for meta, value in zip(metas, reals, strict=True):
            self._remember(meta, value)
        return out

    def _unknown_nonzero(self, mask: torch.Tensor) -> torch.Tensor:
        rows = self.guess("the number of nonzero entries", max(1, mask.numel() // 2))
        return torch.empty(rows, mask.dim(), dtype=torch.long, device=_META)


def root_mean_square(real: torch.Tensor) -> float | None:
    """Of the entries that count: not those of a mask, -inf or the least number of its dtype."""
    if real.numel() == 0 or real.device.type != "cpu":
        return None
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        values = (
            real.detach().abs() if real.is_complex() else real.detach().double().abs()
        ).double()
        if real.numel() == 1:
            return float(values)
        values = values[values < MASKED]
        return float(values.square().mean().sqrt()) if values.numel() else 0.0


MASKED = 1e4
"""Larger constants are masks: what they are added to does not matter."""


@functools.cache
def _reads_no_values(func: Any) -> bool:
    """True for operations of whose tensor arguments only the shape matters."""
    name = func._schema.name.removeprefix("aten::")
    return bool(name.startswith("new_") or name.endswith("_like"))


def tensors_read(func: Any, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors whose values have a part in the result."""
    if _reads_no_values(func):
        return []
    whole = tensors and tensors[0].numel() * tensors[0].element_size() == _bytes(tensors[0])
    if func in _OVERWRITES and whole:
        return tensors[1:]
    return tensors


def _bytes(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().nbytes())


_aten = torch.ops.aten
_OVERWRITES = {
    _aten.fill_.Scalar, _aten.fill_.Tensor, _aten.zero_.default, _aten.copy_.default,
}  # fmt: skip


class _Results:
    """Meta results by operation and geometry: the layers of a deep model ask the same again.

    torch computes many of them in Python, which is most of the time of a trace.
    """

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operation's result on meta; views and writes are always run."""
        if not _is_functional(func):
            return func(*args, **kwargs)
        try:
            key = (func, _geometry(args), _geometry(kwargs))
            made = self._known.get(key)
        except TypeError:  # an argument that cannot be hashed
            return func(*args, **kwargs)
        if made is None:
            out = func(*args, **kwargs)
            if all(type(x) is torch.Tensor for x in (out if type(out) is tuple else (out,))):
                self._known[key] = _geometry(out)
            return out
        return _empty(made)


@functools.cache
def _is_functional(func: Any) -> bool:
    """True for operations whose results share no memory with their arguments."""
    schema = func._schema
    return not any(a.alias_info for a in (*schema.arguments, *schema.returns))


def _geometry(value: Any) -> Any:
    """What a meta result depends on: sizes, strides and dtypes of tensors, all other values."""
    if isinstance(value, torch.Tensor):
        return (_TENSOR, value.shape, value.stride(), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(_geometry(item) for item in value)
    if type(value) is dict:
        return tuple((key, _geometry(item)) for key, item in value.items())
    return (type(value), value)


_TENSOR = object()


def _empty(geometry: Any) -> Any:
    """Meta tensors of a recorded geometry."""
    if geometry[0] is _TENSOR:
        return torch.empty_strided(geometry[1], geometry[2], dtype=geometry[3], device=_META)
    return tuple(_empty(item) for item in geometry)


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors in an operation's arguments, which nest only tuples, lists and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [x for item in value for x in tensors_in(item)] if value else []
    return [x for item in value.values() for x in tensors_in(item)] if type(value) is dict else []


@functools.cache
def _takes_device(func: Any) -> bool:
    return any(a.name == "device" for a in func._schema.arguments)


@functools.cache
def is_deterministic(func: Any) -> bool:
    """False for random draws and for memory that nobody has written yet."""
    if torch.Tag.nondeterministic_seeded in func.tags:
        return False
    return "empty" not in func._schema.name


def written_tensors(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[torch.Tensor]:
    """The tensors that an operation's schema says it writes."""
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            yield from tensors_in(value)


def _read_item(mode: MetaMode, tensor: torch.Tensor) -> Any:
    real = mode.shadow(tensor)
    if real is not None:
        return real.item()
    if tensor.dtype is torch.bool:
        return mode.guess("the truth of a tensor", False)
    if tensor.dtype.is_floating_point:
        return mode.guess("the value of a tensor", 1.0, grave=True)
    return mode.guess("the value of a tensor", 0)


def _read_equal(mode: MetaMode, a: torch.Tensor, b: torch.Tensor) -> bool:
    left, right = mode.shadow(a), mode.shadow(b)
    if left is not None and right is not None:
        return torch.equal(left, right)
    return bool(mode.guess("whether two tensors are equal", False))


def _read_nonzero(mode: MetaMode, tensor: torch.Tensor) -> bool:
    return bool(_read_item(mode, tensor))


_READS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten._local_scalar_dense.default: _read_item,
    torch.ops.aten.item.default: _read_item,
    torch.ops.aten.equal.default: _read_equal,
    torch.ops.aten.is_nonzero.default: _read_nonzero,
}


class ReadGuard(TorchFunctionMode):
    """Answers the reads of values that torch refuses on meta before they are dispatched.

    ``on_meta_init`` is told of the functions of ``torch.nn.init`` that return early on meta.
    """

    def __init__(self, mode: MetaMode, on_meta_init: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        self._mode, self._on_meta_init = mode, on_meta_init

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == _IS_META and self._on_meta_init is not None:
            frame = sys._getframe(1)
            if frame.f_code.co_filename == torch.nn.init.__file__:
                self._on_meta_init(frame)
        read = _PYTHON_READS.get(getattr(func, "__name__", ""))
        first = args[0] if args else None
        if read is not None and isinstance(first, torch.Tensor) and first.is_meta:
            return read(self._mode, *args, **kwargs)
        return func(*args, **kwargs)


_IS_META = torch.Tensor.is_meta.__get__  # type: ignore[attr-defined]


def _guessed_values(mode: MetaMode, tensor: torch.Tensor) -> Any:
    grave = tensor.dtype.is_floating_point
    made = torch.ones if grave else torch.zeros
    return mode.guess("the values of a tensor", made(tensor.shape, dtype=tensor.dtype), grave=grave)


def _tolist(mode: MetaMode, tensor: torch.Tensor) -> Any:
    real = mode.shadow(tensor)
    if real is None:
        real = _guessed_values(mode, tensor)
    return real.tolist()


def _numpy(mode: MetaMode, tensor: torch.Tensor) -> Any:
    real = mode.shadow(tensor)
    if real is None:
        real = _guessed_values(mode, tensor)
    return real.numpy()


def _new_tensor(
    mode: MetaMode, tensor: torch.Tensor, data: Any, *, dtype: Any = None, **_: Any
) -> torch.Tensor:
    return torch.tensor(data, dtype=dtype or tensor.dtype)


def _convert(kind: type) -> Callable[[MetaMode, torch.Tensor], Any]:
    return lambda mode, tensor: kind(_read_item(mode, tensor))


_PYTHON_READS: dict[str, Callable[..., Any]] = {
    "item": _read_item,
    "new_tensor": _new_tensor,
    "tolist": _tolist,
    "numpy": _numpy,
    "equal": _read_equal,
    "__bool__": _convert(bool),
    "__int__": _convert(int),
    "__index__": _convert(int),
    "__float__": _convert(float),
}


@contextlib.contextmanager
def without_weights(
    on_meta_init: Callable[[Any], None] | None = None,
) -> Iterator[MetaMode]:
    """Run the block with every tensor on meta, shadows for small known ones, no gradient."""
    mode = MetaMode()
    with mode, ReadGuard(mode, on_meta_init), torch.no_grad():
        yield mode
