"""Example inputs: tried until forward runs, from its signature and the model's first weights."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from automup.capture.arguments import (
    call_form,
    empty_dicts,
    parameters_of,
    parts_of,
    tensors_in,
)
from automup.capture.climb import climb
from automup.capture.raised import describe, place_of
from automup.capture.recipes import Recipe, likely_recipes, side_recipes
from automup.capture.trace import Inputs, Workshop
from automup.errors import InputError

InputMaker = Callable[[nn.Module], Inputs]
"""Makes the example inputs of a model; called once per width."""

_TRIES = 150


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
            tried.append(", ".join(_spell(r, model) for r in recipes) or "no argument")
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
    found = fallback or next(filter(None, (_climbed(shop, wide, names) for names in seen)), None)
    if found is not None:
        return found
    raise InputError(
        f"No example input makes {type(model).__name__}.forward({_signature(model)}) run. "
        f"Tried {'; '.join(dict.fromkeys(tried[:3])) or 'none'}{' and more' * (len(tried) > 3)}; "
        f"what it met first was {describe(first) if first else 'nothing'}.",
        where=place_of(first) if first else "",
        fix="Pass --input 'idx:int64[2,16]<96', or inputs= in Python.",
    ) from first


def _signature(model: nn.Module) -> str:
    names = [n if p.default is p.empty else f"{n}=" for n, p in parameters_of(model).items()]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def _spell(recipe: Recipe, model: nn.Module) -> str:
    tensor = recipe.make(model)
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _plans(model: nn.Module) -> list[list[str]]:
    """Which arguments to give: the required ones, then with what models often also need."""
    parameters = parameters_of(model)
    required = [
        part for n, p in parameters.items() if p.default is p.empty for part in parts_of(model, n)
    ]
    main = getattr(type(model), "main_input_name", None)
    if main in parameters and main not in required:
        required.append(main)
    first = required if required or empty_dicts(model) else list(parameters)[:1]
    often = ("input_ids", "pixel_values", "decoder_input_ids") if main else ()
    extra = [[*first, n] for n in often if n in parameters and n not in first]
    return [first, *extra]


def _asked_for(error: Exception, model: nn.Module, names: Sequence[str]) -> list[str]:
    """The first of forward's parameters that the exception's message names."""
    if isinstance(error, KeyError) and error.args:  # a dict's missing key
        asked = [f"{name}.{error.args[0]}" for name in empty_dicts(model)][:1]
        return [name for name in asked if name not in names]
    words = re.findall(r"\w+", str(error))
    known = parameters_of(model)
    return [w for w in words if w in known and w not in names][:1] if len(names) < 4 else []


def _maker(names: Sequence[str], recipes: Sequence[Recipe]) -> InputMaker:
    def make(model: nn.Module) -> Inputs:
        values = [recipe.make(model) for recipe in recipes]
        return call_form(model, dict(zip(names, values, strict=True)))

    return make


def _combinations(
    shop: Workshop, wide: Workshop | None, names: Sequence[str]
) -> Iterator[tuple[Recipe, ...]]:
    """Recipes for every argument, likely ones first; those with a growing size come last."""
    model = shop.built.model
    own, mixed = _ideas(shop, wide)
    choices = [own, *[mixed] * (len(names) - 1)]
    ranked = itertools.product(*(list(enumerate(c)) for c in choices))
    limited = itertools.islice(ranked, 20000)

    def cost(combination: tuple[tuple[int, Recipe], ...]) -> tuple[bool, int]:
        infinite = wide is not None and any(
            r.shape(model) != r.shape(wide.built.model) for _, r in combination
        )
        return infinite, sum(i for i, _ in combination)

    best = sorted(limited, key=cost)[:_TRIES] if names else [()]
    return (tuple(r for _, r in combination) for combination in best)


def _ideas(shop: Workshop, wide: Workshop | None) -> tuple[list[Recipe], list[Recipe]]:
    """Recipes for the first argument, and for any further one."""
    model = shop.built.model
    growing = {
        size
        for a, b in zip(shop.built.weights, wide.built.weights if wide else (), strict=False)
        for x, y in zip(a.shape, b.shape, strict=False)
        if x != y
        for size in (x, y)
    }
    own = [r for r in likely_recipes(model, growing) if _makes(r, model)]
    later = [r for r in side_recipes(growing) if _makes(r, model)]
    mixed = [r for pair in itertools.zip_longest(own, later) for r in pair if r is not None]
    return own, mixed


def _climbed(shop: Workshop, wide: Workshop | None, names: Sequence[str]) -> InputMaker | None:
    def attempt(recipes: Sequence[Recipe]) -> Exception | None:
        maker = _maker(names, recipes)
        error = _failure(shop, maker)
        return error or (_failure(wide, maker) if wide is not None else None)

    recipes = climb(len(names), _ideas(shop, wide)[1], attempt)
    return _maker(names, recipes) if recipes is not None else None


def _makes(recipe: Recipe, model: nn.Module) -> bool:
    """False for sizes that would be absurd as an example."""
    shape = recipe.shape(model)
    return min(shape) > 0 and torch.Size(shape).numel() <= 1 << 22


def _failure(shop: Workshop, maker: InputMaker) -> Exception | None:
    inputs = maker(shop.built.model)
    with _IndexGuard() as guard:
        error = shop.try_forward(inputs)
    tensors = tensors_in(inputs)
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
    kinds += [((*batch, count), torch.bool) for count in _patches(model, shape[2:])]
    for name, p in parameters_of(model).items():
        if p.default is None and name not in given:
            for size, dtype in dict.fromkeys(kinds):
                fill = 0 if dtype is torch.long else 1
                yield name, torch.full(size, fill, dtype=dtype, device="cpu")


def _patches(model: nn.Module, image: tuple[int, ...]) -> Iterator[int]:
    """How many patches the model's first convolution cuts a picture into, if that is what it does.

    A mask of patches, as masked image modelling has it, has as many.
    """
    convs = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    conv = next(convs, None) if len(image) == 2 else None
    if conv is not None and conv.kernel_size == conv.stride and conv.stride[0] > 1:
        rows, columns = (size // n for size, n in zip(image, conv.stride, strict=True))
        yield rows * columns
