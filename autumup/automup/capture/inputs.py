"""Example inputs: synthesised from forward's signature and the model's first weights, or given.

A *recipe* describes one argument with sizes that are read off the model it is made for, so the
same recipe serves every width; sizes that do not grow give the same tensor at all of them.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from automup.capture.load import describe, place_of
from automup.capture.trace import Inputs, Workshop
from automup.errors import InputError, UsageError

InputMaker = Callable[[nn.Module], Inputs]
"""Makes the example inputs of a model; called once per width."""

BATCH = 2
_LENGTHS = (12, 16, 8, 5, 3)
_IMAGES = (32, 64, 28, 224, 96, 16)
_TRIES = 150

Size = Callable[[nn.Module], int]


@dataclass(frozen=True)
class _Recipe:
    """One argument: its sizes, and the number of values if it holds integers."""

    sizes: tuple[int | Size, ...]
    below: int | Size | None = None
    dtype: torch.dtype | None = None

    def shape(self, model: nn.Module) -> tuple[int, ...]:
        return tuple(_size(s, model) for s in self.sizes)

    def make(self, model: nn.Module) -> torch.Tensor:
        """The tensor for this model; the same numbers every time."""
        source = torch.Generator("cpu").manual_seed(0)
        shape = self.shape(model)
        if self.dtype is torch.bool:
            return torch.ones(shape, dtype=torch.bool, device="cpu")
        if self.below is not None:
            high = max(1, _size(self.below, model))
            return torch.randint(high, shape, generator=source, device="cpu")
        floating = (p.dtype for p in model.parameters() if p.is_floating_point())
        values = torch.randn(shape, generator=source, device="cpu")
        return values.to(self.dtype or next(floating, torch.float32))


def _size(size: int | Size, model: nn.Module) -> int:
    return size if isinstance(size, int) else size(model)


def _axis(parameter: str, axis: int) -> Size:
    return lambda model: model.get_parameter(parameter).shape[axis]


def _attribute(module: str, name: str) -> Size:
    return lambda model: int(getattr(model.get_submodule(module), name))


# --- synthesis -----------------------------------------------------------------------------------


def synthesise(shop: Workshop, wide: Workshop | None = None) -> InputMaker:
    """A maker of inputs that make forward run, at both widths if a wider model is given.

    Raises:
        InputError: nothing that was tried runs.
    """
    model, tried = shop.built.model, list[str]()
    first: Exception | None = None
    fallback: InputMaker | None = None
    seen = _plans(model)
    plans = [(names, _combinations(shop, wide, names)) for names in seen]
    while plans:
        names, combinations = plans.pop(0)
        for recipes in combinations:
            maker = _maker(names, recipes)
            error = _failure(shop, maker)
            tried.append(", ".join(_spell(r, model) for r in recipes))
            if error is None and (wide is None or _failure(wide, maker) is None):
                return maker
            if error is None:
                fallback = fallback or maker
                continue
            first = first or error
            more = [*names, *_asked_for(error, model, names)]
            if more not in seen and len(seen) < 8:  # what it asks for first, the rest after
                seen.append(more)
                plans[:0] = [(more, _combinations(shop, wide, more)), (names, combinations)]
                break
    if fallback is not None:
        return fallback
    raise InputError(
        f"No example input makes {type(model).__name__}.forward({_signature(model)}) run. "
        f"Tried {'; '.join(dict.fromkeys(tried[:3]))}{' and more' * (len(tried) > 3)}; "
        f"the first raised {describe(first) if first else 'nothing'}.",
        where=place_of(first) if first else "",
        fix="Pass --input 'idx:int64[2,16]<96', or inputs= in Python.",
    ) from first


def _signature(model: nn.Module) -> str:
    names = [n if p.default is p.empty else f"{n}=" for n, p in _parameters(model).items()]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def _spell(recipe: _Recipe, model: nn.Module) -> str:
    tensor = recipe.make(model)
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _parameters(model: nn.Module) -> dict[str, inspect.Parameter]:
    """forward's parameters that tensors can be given to; ``*args`` stands for one argument."""
    found = inspect.signature(model.forward).parameters
    return {n: p for n, p in found.items() if p.kind is not p.VAR_KEYWORD}


def _plans(model: nn.Module) -> list[list[str]]:
    """Which arguments to give: the required ones, then with what models often also need."""
    parameters = _parameters(model)
    required = [n for n, p in parameters.items() if p.default is p.empty]
    main = getattr(type(model), "main_input_name", None)
    if main in parameters and main not in required:
        required.append(main)
    first = required or list(parameters)[:1]
    often = ("input_ids", "pixel_values", "decoder_input_ids") if main else ()
    extra = [[*first, n] for n in often if n in parameters and n not in first]
    return [first, *extra]


def _asked_for(error: Exception, model: nn.Module, names: Sequence[str]) -> list[str]:
    """The first of forward's parameters that the exception's message names."""
    words = re.findall(r"\w+", str(error))
    known = _parameters(model)
    return [w for w in words if w in known and w not in names][:1] if len(names) < 4 else []


def _maker(names: Sequence[str], recipes: Sequence[_Recipe]) -> InputMaker:
    def make(model: nn.Module) -> Inputs:
        values = [recipe.make(model) for recipe in recipes]
        return _call_form(model, dict(zip(names, values, strict=True)))

    return make


def _call_form(model: nn.Module, named: Mapping[str, Any]) -> Inputs:
    """Leading required parameters go by position, all others by keyword."""
    rest, args = dict(named), list[Any]()
    for name, p in _parameters(model).items():
        optional = p.default is not p.empty and "main_input_name" in dir(type(model))
        if name not in rest or optional or p.kind is p.KEYWORD_ONLY:
            break
        args.append(rest.pop(name))
    return Inputs(tuple(args), rest)


def _combinations(
    shop: Workshop, wide: Workshop | None, names: Sequence[str]
) -> Iterator[tuple[_Recipe, ...]]:
    """Recipes for every argument, likely ones first; those with a growing size come last."""
    model = shop.built.model
    growing = {
        size
        for a, b in zip(shop.built.weights, wide.built.weights if wide else (), strict=False)
        for x, y in zip(a.shape, b.shape, strict=False)
        if x != y
        for size in (x, y)
    }
    own = [r for r in _recipes(model, growing) if _makes(r, model)]
    later = [r for r in _side_recipes(growing) if _makes(r, model)]
    mixed = [r for pair in itertools.zip_longest(own, later) for r in pair if r is not None]
    choices = [own, *[mixed] * (len(names) - 1)]
    ranked = itertools.product(*(list(enumerate(c)) for c in choices))
    limited = itertools.islice(ranked, 20000)

    def cost(combination: tuple[tuple[int, _Recipe], ...]) -> tuple[bool, int]:
        infinite = wide is not None and any(
            r.shape(model) != r.shape(wide.built.model) for _, r in combination
        )
        return infinite, sum(i for i, _ in combination)

    best = sorted(limited, key=cost)[:_TRIES] if names else [()]
    return (tuple(r for _, r in combination) for combination in best)


def _makes(recipe: _Recipe, model: nn.Module) -> bool:
    """False for sizes that would be absurd as an example."""
    shape = recipe.shape(model)
    return min(shape) > 0 and torch.Size(shape).numel() <= 1 << 22


def _failure(shop: Workshop, maker: InputMaker) -> Exception | None:
    inputs = maker(shop.built.model)
    with _IndexGuard() as guard:
        error = shop.try_forward(inputs)
    tensors = [*inputs.args, *inputs.kwargs.values()]
    if error is None and tensors and not tensors[0].is_floating_point() and not guard.indexed:
        return TypeError("the integers are used as if they were features")  # meta would not mind
    return error


class _IndexGuard(TorchFunctionMode):
    """Raises for an index beyond its table, which nobody checks on the meta device."""

    indexed = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.embedding or func is torch.embedding:
            index, table = args[:2] if func is F.embedding else (args[1], args[0])
            self._check(index, table.shape[0])
        elif func is torch.Tensor.__getitem__:
            indices = args[1] if isinstance(args[1], tuple) else (args[1],)
            for axis, index in enumerate(indices):
                if isinstance(index, torch.Tensor) and index.dtype in (torch.int32, torch.int64):
                    self._check(index, args[0].shape[axis])
        elif func in (F.one_hot, F.embedding_bag, torch.gather, torch.index_select):
            self.indexed = True
        return func(*args, **kwargs)

    def _check(self, index: torch.Tensor, rows: int) -> None:
        self.indexed = True
        top = index.max() if index.numel() else None
        if top is not None and int(torch.ops.aten._local_scalar_dense(top)) >= rows:
            raise IndexError(f"index out of range: a table of {rows} rows is read beyond its end")


# --- recipes -------------------------------------------------------------------------------------


def _recipes(model: nn.Module, growing: set[int]) -> list[_Recipe]:
    """What the first modules that own weights could take, and what the first table could."""
    owners = [(n, m) for n, m in model.named_modules() if any(True for _ in m.parameters(False))]
    tables = [(n, m) for n, m in owners if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    convs = [(n, m) for n, m in owners if isinstance(m, nn.modules.conv._ConvNd)]
    lengths = [t for t in _LENGTHS if t not in growing] + _fixed_lengths(model, growing)
    images = _image_sizes(model)
    chosen = dict([*owners[:8], *tables[:1], *convs[:1]])
    each = [_for_module(name, module, lengths, images) for name, module in chosen.items()]
    # the first idea of every module, then the second of every module, and so on
    found = [r for ideas in itertools.zip_longest(*each) for r in ideas if r is not None]
    unique: dict[Any, _Recipe] = {}
    for r in found:
        key = (r.shape(model), None if r.below is None else _size(r.below, model))
        unique.setdefault(key, r)
    return list(unique.values())


def _for_module(
    name: str, module: nn.Module, lengths: Sequence[int], images: Sequence[int]
) -> Iterator[_Recipe]:
    """Likely inputs of one module, from its own weights' shapes."""
    prefix = f"{name}." if name else ""
    if isinstance(module, nn.modules.conv._ConvNd):
        channels = _attribute(name, "in_channels")
        spatial = module.weight.dim() - 2
        sizes = (64, 16, 128, 3000) if spatial == 1 else images if spatial == 2 else (16, 32, 8)
        yield from (_Recipe((BATCH, channels, *[s] * spatial)) for s in sizes)
        return
    for local, weight in itertools.islice(module.named_parameters(recurse=False), 3):
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            yield from (_Recipe((BATCH, t), _axis(prefix + local, 0)) for t in lengths)
            yield _Recipe((BATCH,), _axis(prefix + local, 0))
            continue
        linear = isinstance(module, nn.Linear | nn.RNNBase | nn.RNNCellBase)
        if weight.dim() == 2 and not linear:  # a raw table, or a weight stored (in, out)
            yield from (_Recipe((BATCH, t), _axis(prefix + local, 0)) for t in lengths)
        axes = [1] if linear and weight.dim() == 2 else range(weight.dim())
        for axis in (a for a in axes if weight.shape[a] > 1):
            yield from _features(weight.shape[axis], _axis(prefix + local, axis), lengths, images)


def _features(
    size: int, at: Size, lengths: Sequence[int], images: Sequence[int]
) -> Iterator[_Recipe]:
    """A vector, a sequence or an image whose features, channels or patches have this size."""
    yield _Recipe((BATCH, at))
    yield from (_Recipe((BATCH, t, at)) for t in lengths)
    for side in images:
        if size % (side * side) == 0:
            yield _Recipe((BATCH, size // (side * side), side, side))
    for channels in (3, 1):  # square patches, flattened
        if size % channels == 0 and round((size / channels) ** 0.5) ** 2 * channels == size:
            yield _Recipe((BATCH, channels, images[0], images[0]))
    yield _Recipe((BATCH, at, images[0], images[0]))


def _fixed_lengths(model: nn.Module, growing: set[int]) -> list[int]:
    """Sequence lengths that a positional parameter (1, T, d) or a (T, T) weight asks for."""
    sizes = [
        n
        for p in model.parameters()
        for n in (p.shape[-2:-1] if p.dim() == 3 else p.shape[-1:] if p.dim() == 2 else ())
        if n not in growing and 1 < n <= 256
    ]
    return [n for n in dict.fromkeys(sizes) if n not in _LENGTHS][:6]


def _image_sizes(model: nn.Module) -> list[int]:
    """Common sides, after those that a patch embedding and its positional weight imply."""
    strides = [m.stride[0] for m in model.modules() if isinstance(m, nn.Conv2d)][:1]
    rows = {p.shape[-2] for p in model.parameters() if 2 <= p.dim() <= 3}
    implied = [
        stride * round(n**0.5)
        for stride in strides
        for row in sorted(rows)
        for n in (row, row - 1)
        if stride > 2 and n > 1 and round(n**0.5) ** 2 == n
    ]
    common = [s for s in _IMAGES if s in implied]
    return list(dict.fromkeys([*common, *_IMAGES, *implied[:4]]))


def _side_recipes(growing: set[int]) -> Iterator[_Recipe]:
    """What a second argument often is: a time, a label, a mask, a scalar per example."""
    length = next(t for t in _LENGTHS if t not in growing)
    yield _Recipe((BATCH,))
    yield _Recipe((BATCH,), 2)
    yield _Recipe((BATCH, length), 2)
    yield _Recipe((BATCH, length), dtype=torch.bool)
    yield _Recipe((length, length), dtype=torch.bool)
    yield _Recipe((BATCH, 1))


# --- inputs that the user gives ------------------------------------------------------------------

_SPEC = re.compile(r"(?:([A-Za-z_]\w*)\s*:)?\s*(\w+)\s*\[([\d,\s]*)\]\s*(?:<\s*(\d+))?")
_DTYPES = {"long": "int64", "int": "int32", "float": "float32", "half": "float16"}


def parse_inputs(specs: Sequence[str]) -> InputMaker:
    """The maker of ``["idx:int64[2,16]<96", "float32[2,3,32,32]"]``.

    Raises:
        UsageError: a spec is not NAME:DTYPE[SIZES]<BOUND (the name and the bound are optional).
    """
    named: dict[str, _Recipe] = {}
    plain: list[_Recipe] = []
    for spec in specs:
        name, recipe = _parse_input(spec)
        if name in named:
            raise UsageError(f"--input {name} is given twice.", fix="Give each name once.")
        if name:
            named[name] = recipe
        else:
            plain.append(recipe)

    def make(model: nn.Module) -> Inputs:
        known = inspect.signature(model.forward).parameters
        for name in named:
            if name not in known and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
                close = difflib.get_close_matches(name, known, n=1) or list(known)
                raise InputError(
                    f"{type(model).__name__}.forward has no argument {name!r}.",
                    fix=f"Did you mean {close[0]!r}?" if close else "It takes none.",
                )
        values = {name: recipe.make(model) for name, recipe in named.items()}
        first = tuple(recipe.make(model) for recipe in plain)
        return Inputs(first, values) if first else _call_form(model, values)

    return make


def _parse_input(spec: str) -> tuple[str, _Recipe]:
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        raise UsageError(
            f"--input {spec!r} is not NAME:DTYPE[SIZES].",
            fix="Write 'idx:int64[2,16]<96' or 'x:float32[2,3,32,32]'.",
        )
    name, kind, sizes, bound = match.groups()
    dtype = getattr(torch, _DTYPES.get(kind, kind), None)
    if not isinstance(dtype, torch.dtype) or dtype.is_complex:
        raise UsageError(
            f"--input {spec!r}: {kind!r} is not a dtype.", fix="Use int64, float32 or bool."
        )
    integral = not dtype.is_floating_point and dtype is not torch.bool
    if bound and (not integral or int(bound) < 1):
        raise UsageError(
            f"--input {spec!r}: the bound < is for integers, and at least 1.", fix="Drop it."
        )
    shape = tuple(int(s) for s in sizes.replace(" ", "").split(",") if s)
    return name or "", _Recipe(shape, int(bound or 2) if integral else None, dtype)


def as_maker(inputs: Any) -> InputMaker | None:
    """A tensor, a tuple, a dict of keyword tensors, or a callable of the model; None stays None.

    Raises:
        UsageError: it is none of these.
    """
    if inputs is None:
        return None
    if callable(inputs) and not isinstance(inputs, torch.Tensor | nn.Module):
        return lambda model: _normalised(inputs(model))
    fixed = _normalised(inputs)
    return lambda model: fixed


def _normalised(value: Any) -> Inputs:
    if isinstance(value, Inputs):
        return value
    if isinstance(value, torch.Tensor):
        return Inputs((value,))
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return Inputs((), dict(value))
    if isinstance(value, tuple | list):
        return Inputs(tuple(value))
    raise UsageError(
        f"inputs is {type(value).__name__}.",
        fix="Pass a tuple of tensors, a dict of keyword tensors, or a function of the model.",
    )


def optional_candidates(model: nn.Module, inputs: Inputs) -> Iterator[tuple[str, Any]]:
    """For each argument that is None by default and not given: tensors worth trying, by name."""
    given = inspect.signature(model.forward).bind_partial(*inputs.args, **inputs.kwargs).arguments
    tensors = [x for x in given.values() if isinstance(x, torch.Tensor) and x.dim()]
    if not tensors:
        return
    shape, batch = tuple(tensors[0].shape), tensors[0].shape[:1]
    kinds: list[tuple[tuple[int, ...], torch.dtype]] = [(shape[:2], torch.long)]
    if len(shape) > 2 or tensors[0].is_floating_point():
        kinds = [(tuple(batch), torch.long), *kinds, (shape, torch.float32)]
    else:
        kinds += [(tuple(batch), torch.long)]
    kinds += [(shape[:2], torch.bool), (shape[:2], torch.float32)]
    for name, p in _parameters(model).items():
        if p.default is None and name not in given:
            for size, dtype in dict.fromkeys(kinds):
                fill = 0 if dtype is torch.long else 1
                yield name, torch.full(size, fill, dtype=dtype, device="cpu")
