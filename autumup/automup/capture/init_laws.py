"""How a constructor draws its weights: mean and standard deviation of every storage, exactly.

While the constructor runs, each random or filling operation sets the law of the storage that it
writes; arithmetic on a tensor carries the law along. What cannot be followed is ``UNKNOWN``. Where
entries are independent draws, ``whole`` laws, the tensor can be drawn again from its law alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._pytree import tree_map

from automup.capture.ground import Execute
from automup.capture.tensors import storage_of, tensors_in, traits_of, written_tensors


@dataclass(frozen=True)
class Law:
    """The distribution of a tensor's entries: kind, mean and standard deviation.

    ``whole``: the entries are equal, or independent draws of this kind, so the law says all.
    ``cut``: of a truncated normal, mean and std before it was cut, and where: (mean, std, a, b).
    """

    kind: str
    mean: float
    std: float
    whole: bool = False
    cut: tuple[float, float, float, float] | None = None

    @property
    def rms(self) -> float:
        """Root mean square of an entry."""
        return math.hypot(self.mean, self.std)

    @property
    def known(self) -> bool:
        return not math.isnan(self.std)


UNKNOWN = Law("unknown", math.nan, math.nan)


def _law_of_values(tensor: torch.Tensor) -> Law:
    """The law of a real tensor that nobody was seen to draw, such as ``torch.tensor(0.5)``."""
    if tensor.is_meta or not tensor.numel() or not tensor.is_floating_point():
        return UNKNOWN
    with torch._C._DisableTorchDispatch():
        values = tensor.detach().double()
        mean, std = float(values.mean()), float(values.std(unbiased=False))
    return constant(mean) if std == 0.0 else Law("measured", mean, std)


def constant(value: float) -> Law:
    """All entries are one value."""
    return Law("constant", value, 0.0, whole=True)


def normal(mean: float, std: float) -> Law:
    """The law of N(mean, std)."""
    return Law("normal", mean, std, whole=True)


def uniform(low: float, high: float) -> Law:
    """The law of U(low, high), whose std is the length over sqrt(12)."""
    return Law("uniform", (low + high) / 2, (high - low) / math.sqrt(12), whole=True)


def truncated_normal(mean: float, std: float, low: float, high: float) -> Law:
    """The law of N(mean, std) with what falls outside [low, high] drawn again."""
    a, b = (low - mean) / std, (high - mean) / std
    mass = _cdf(b) - _cdf(a)
    shift = (_pdf(a) - _pdf(b)) / mass
    variance = 1 + (a * _pdf(a) - b * _pdf(b)) / mass - shift**2
    spread = std * math.sqrt(max(variance, 0.0))
    return Law("truncated normal", mean + std * shift, spread, True, (mean, std, low, high))


def _pdf(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _cdf(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


class InitRecorder:
    """Follows the law of every storage while a constructor runs."""

    def __init__(self) -> None:
        self._laws: dict[int, Law] = {}
        self._pieces: dict[int, tuple[Law, list[tuple[torch.Tensor, Law]]]] = {}
        self._keep: list[torch.Tensor] = []

    def law(self, value: Any) -> Law:
        """The law of a tensor's entries, or of a number."""
        if isinstance(value, torch.Tensor):
            known = self._laws.get(storage_of(value))
            return _law_of_values(value) if known is None else known
        return constant(float(value)) if isinstance(value, int | float) else UNKNOWN

    def set(self, tensor: torch.Tensor, law: Law) -> None:
        """All entries of this tensor follow the law from now on (a view: part of its storage)."""
        self._keep.append(tensor)
        key = storage_of(tensor)
        if 0 < _share(tensor) < 1 and key in self._laws:
            before, pieces = self._pieces.setdefault(key, (self._laws[key], []))
            pieces.append((tensor, law))
            self._laws[key] = _mixture(before, [(_share(view), law) for view, law in pieces])
        else:
            self._pieces.pop(key, None)
            self._laws[key] = law

    def draws(self, tensor: torch.Tensor) -> tuple[tuple[torch.Tensor, Law], ...]:
        """The laws that a tensor is drawn by, one after another, each with the view it fills.

        Nothing if they do not say all about its entries.
        """
        law = self.law(tensor)
        before, pieces = self._pieces.get(storage_of(tensor), (law, []))
        found = ((tensor, before), *pieces)
        return found if all(law.whole for _, law in found) else ()

    def on_meta_init(self, frame: Any) -> None:
        """Record what an early return of ``torch.nn.init`` on meta would have drawn."""
        rule = _META_INITS.get(frame.f_code.co_name)
        values = frame.f_locals
        if "tensor" in values:
            self.set(values["tensor"], rule(values) if rule else UNKNOWN)

    def watch(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], execute: Execute
    ) -> Any:
        """Carry out an operation and set the laws of what it writes or makes."""
        name = func._schema.name.removeprefix("aten::")
        rule = _RULES.get(name) or _RULES.get(name.removesuffix("_"))
        law = rule(self, args, kwargs) if rule else UNKNOWN
        if not law.known and torch.Tag.pointwise in func.tags:
            law = self._of_constants(func, args, kwargs)
        out = execute(func, args, kwargs)
        if traits_of(func).writes:
            for tensor in written_tensors(func, args, kwargs) if name not in _METADATA_ONLY else ():
                self.set(tensor, law)
        else:
            before = {storage_of(x) for x in tensors_in(args)}
            for tensor in tensors_in(out):
                if storage_of(tensor) not in before:
                    self.set(tensor, law)
        return out

    def _of_constants(self, func: Any, args: Any, kwargs: Any) -> Law:
        """Coordinate by coordinate, equal entries give equal entries: log(1/sqrt(d)), say."""
        tensors = tensors_in((args, kwargs))
        laws = [self.law(x) for x in tensors]
        if not laws or not all(law.std == 0.0 for law in laws):
            return UNKNOWN

        def number(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            return torch.tensor(self.law(value).mean, dtype=value.dtype, device="cpu")

        with torch._C._DisableTorchDispatch():
            made = func(*tree_map(number, args), **tree_map(number, kwargs))
        known = isinstance(made, torch.Tensor) and made.is_floating_point()
        return constant(float(made)) if known else UNKNOWN


_METADATA_ONLY = {"set_", "resize_", "squeeze_", "unsqueeze_", "t_", "transpose_", "detach_"}


def _share(tensor: torch.Tensor) -> float:
    """How much of its storage a tensor is."""
    capacity = tensor.untyped_storage().nbytes() // max(1, tensor.element_size())
    return tensor.numel() / max(1, capacity)


def _mixture(before: Law, pieces: list[tuple[float, Law]]) -> Law:
    """The law of a storage that was written piece by piece; what is left has its law from before.

    Pieces are taken not to overlap, which the check against a real draw will tell.
    """
    rest = max(0.0, 1 - math.fsum(share for share, _ in pieces))
    parts = [*pieces, (rest, before)] if rest > 1e-9 else pieces
    total = math.fsum(share for share, _ in parts)
    mean = math.fsum(share * law.mean for share, law in parts) / total
    square = math.fsum(share * law.rms**2 for share, law in parts) / total
    table = len(parts) > 2 and all(law.std == 0.0 for _, law in parts)  # written one by one
    return Law("measured" if table else "mixture", mean, math.sqrt(max(square - mean**2, 0.0)))


def _argument(args: Any, kwargs: Any, position: int, name: str, default: float) -> float:
    value = args[position] if len(args) > position else kwargs.get(name, default)
    return float(value)


def _normal(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    return normal(_argument(args, kwargs, 1, "mean", 0.0), _argument(args, kwargs, 2, "std", 1.0))


def _normal_of(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    """``torch.normal(mean, std)``, either of which may be a tensor."""
    mean = rec.law(args[0])
    std = rec.law(args[1] if len(args) > 1 else kwargs.get("std", 1.0))
    return normal(mean.mean, std.mean) if mean.std == std.std == 0.0 else UNKNOWN


def _uniform(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    return uniform(_argument(args, kwargs, 1, "from", 0.0), _argument(args, kwargs, 2, "to", 1.0))


def _fill(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    value = args[1] if len(args) > 1 else kwargs.get("fill_value", kwargs.get("value"))
    return rec.law(value)


def _same(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    return rec.law(args[0])


def _again(position: int) -> Callable[..., Law]:
    """Entries that are those of another tensor: as they are distributed, but not independent."""

    def rule(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
        law = rec.law(args[position])
        return law if law.std == 0.0 else replace(law, whole=False)

    return rule


def _clamp(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    """Taken to cut nothing off, as of a truncated normal that was drawn between the bounds."""
    law = rec.law(args[0])
    return law if law.cut else replace(law, whole=False)


def _scaled(law: Law, factor: float) -> Law:
    return _moved(replace(law, std=law.std * abs(factor)), factor, 0.0)


def _moved(law: Law, factor: float, shift: float) -> Law:
    """The law of x * factor + shift, for the mean and for where it is cut."""
    cut = law.cut
    if cut is not None:
        low, high = sorted((cut[2] * factor + shift, cut[3] * factor + shift))
        cut = (cut[0] * factor + shift, cut[1] * abs(factor), low, high)
    return replace(law, mean=law.mean * factor + shift, cut=cut)


def _eye(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    """Ones on the diagonal of a rows x columns matrix."""
    rows = int(args[0])
    columns = int(args[1]) if len(args) > 1 and isinstance(args[1], int) else rows
    mean = min(rows, columns) / (rows * columns)
    return Law("identity", mean, math.sqrt(mean * (1 - mean)))


def _mul(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    left, right = rec.law(args[0]), rec.law(args[1])
    if right.std == 0.0:
        return _scaled(left, right.mean)
    return _scaled(right, left.mean) if left.std == 0.0 else UNKNOWN


def _div(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    left, right = rec.law(args[0]), rec.law(args[1])
    return _scaled(left, 1 / right.mean) if right.std == 0.0 and right.mean else UNKNOWN


def _sum(sign: float) -> Callable[..., Law]:
    def rule(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
        left = rec.law(args[0])
        right = _scaled(rec.law(args[1]), sign * float(kwargs.get("alpha", 1)))
        for law, other in ((left, right), (right, left)):
            if other.std == 0.0:
                return _moved(law, 1.0, other.mean)
        return Law("sum", left.mean + right.mean, math.hypot(left.std, right.std))

    return rule


def _erfinv(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    """erfinv(U(l, h)) is N(0, 1/2) truncated: how some libraries draw a truncated normal."""
    law = rec.law(args[0])
    if law.kind != "uniform":
        return UNKNOWN
    half = law.std * math.sqrt(3)
    low, high = (_probit((1 + law.mean + s * half) / 2) for s in (-1, 1))
    return _scaled(truncated_normal(0.0, 1.0, low, high), math.sqrt(0.5))


def _probit(p: float) -> float:
    clipped = min(max(2 * p - 1, -1 + 1e-15), 1 - 1e-15)
    return math.sqrt(2) * float(torch.erfinv(torch.tensor(clipped, dtype=torch.float64)))


def _number(value: float) -> Callable[..., Law]:
    return lambda rec, args, kwargs: constant(value)


def _draw(law: Law) -> Callable[..., Law]:
    return lambda rec, args, kwargs: law


def _standard(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    """Of complex numbers, real and imaginary parts, as which they are kept, share the variance."""
    like = args[0].dtype if args and isinstance(args[0], torch.Tensor) else None
    dtype = kwargs.get("dtype") or like
    return normal(0.0, math.sqrt(0.5) if dtype is not None and dtype.is_complex else 1.0)


def _complex(rec: InitRecorder, args: Any, kwargs: Any) -> Law:
    """Real and imaginary parts, each with its own law."""
    return _mixture(UNKNOWN, [(0.5, rec.law(args[0])), (0.5, rec.law(args[1]))])


_RULES: dict[str, Callable[[InitRecorder, Any, Any], Law]] = {
    "normal_": _normal,
    "normal": _normal_of,
    "uniform": _uniform,
    "randn": _standard,
    "randn_like": _standard,
    "rand": _draw(uniform(0.0, 1.0)),
    "rand_like": _draw(uniform(0.0, 1.0)),
    "fill": _fill,
    "full": _fill,
    "full_like": _fill,
    "new_full": _fill,
    "scalar_tensor": _same,
    "mul": _mul,
    "div": _div,
    "add": _sum(1.0),
    "sub": _sum(-1.0),
    "erfinv": _erfinv,
    "eye": _eye,
    "complex": _complex,
    "copy": _again(1),
    "repeat": _again(0),
    "clamp": _clamp,
    "neg": lambda rec, args, kwargs: _scaled(rec.law(args[0]), -1.0),
    **dict.fromkeys(("zero", "zeros", "zeros_like", "new_zeros"), _number(0.0)),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), _number(1.0)),
    **dict.fromkeys(("clone", "_to_copy", "lift_fresh", "lift_fresh_copy", "detach"), _same),
}


def _orthogonal(values: Any) -> Law:
    """A (semi-)orthogonal rows x cols matrix has entries of rms gain / sqrt(max(rows, cols))."""
    tensor, gain = values["tensor"], float(values["gain"])
    rows = tensor.shape[0]
    return Law("orthogonal", 0.0, gain / math.sqrt(max(rows, tensor.numel() // rows)))


def _sparse(values: Any) -> Law:
    """Normal entries of which a share is zeroed in every column."""
    return Law("sparse", 0.0, float(values["std"]) * math.sqrt(1 - float(values["sparsity"])))


_META_INITS: dict[str, Callable[[Any], Law]] = {
    "_no_grad_trunc_normal_": lambda v: truncated_normal(v["mean"], v["std"], v["a"], v["b"]),
    "orthogonal_": _orthogonal,
    "sparse_": _sparse,
}
