"""Records every ATen operation of a real model that reads a parameter, for the oracle to replay.

A parameter is recognised by its storage, whatever views lie between it and the operation: a view
is no more than (size, stride, offset) on that storage, so replaying it needs no rule for any view.
What an operation makes of parameters and constants alone (a cast, 1 + w, exp(w), v / |v|) is a
*derived* weight; it is kept as the recipe that made it, and replayed where it meets an activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

LOOKUPS = ("embedding", "index", "index_select", "gather", "take_along_dim")
"""Operations that copy entries of their first argument to places that another argument chooses."""


@dataclass(frozen=True)
class Alias:
    """A view of a parameter or of a derived weight."""

    storage: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Blank:
    """A tensor whose values do not matter: an activation or a floating constant."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    active: bool


@dataclass(frozen=True, eq=False)
class Call:
    """One operation, with tensors replaced by :class:`Alias` and :class:`Blank`."""

    op: Any
    args: Any
    kwargs: Any

    @property
    def name(self) -> str:
        return str(self.op.overloadpacket.__name__) if hasattr(self.op, "overloadpacket") else ""

    def leaves(self, kind: type) -> list[Any]:
        found = tree_leaves((self.args, self.kwargs), is_leaf=lambda x: isinstance(x, Alias))
        return [x for x in found if isinstance(x, kind)]

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for calls that count alike (the steps of a recurrent layer)."""
        leaves, spec = tree_flatten((self.args, self.kwargs), is_leaf=_is_spec)
        return (
            self.op,
            str(spec),
            *(tuple(x.shape) if isinstance(x, Tensor) else repr(x) for x in leaves),
        )


def _is_spec(x: object) -> bool:
    return isinstance(x, Alias | Blank)


@dataclass
class Record:
    """What one run showed: uses of weights, and how derived weights were made."""

    names: dict[int, str]
    leaves: dict[int, Tensor]
    growing_dims: dict[str, tuple[int, ...]]
    uses: list[Call] = field(default_factory=list)
    reads: list[list[Alias]] = field(default_factory=list)
    """Of every use, the views of its result that other operations read."""
    recipes: dict[int, tuple[Call, int]] = field(default_factory=dict)
    keep: list[Any] = field(default_factory=list)

    def sources(self, storage: int) -> set[str]:
        """The parameters that a storage holds, or was made of."""
        if storage in self.names:
            return {self.names[storage]}
        call = self.recipes[storage][0]
        return {n for a in call.leaves(Alias) for n in self.sources(a.storage)}

    def rank(self, storage: int) -> int:
        """The most growing dimensions of any parameter in it."""
        return max(len(self.growing_dims[name]) for name in self.sources(storage))


class Recorder(TorchDispatchMode):
    """Records the uses of some parameters while a model runs. See the module.

    Args:
        parameters: by name; two names of one tensor count once.
        growing: which dimensions of each grow with width.
        inputs: the model's example inputs; all that depends on them is an activation.
        contracts: says of a call of weights alone whether it contracts a growing axis: such a
            call is a use (learned queries times a projection), not a recipe.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        growing: dict[str, tuple[int, ...]],
        inputs: Any,
        contracts: Callable[[Record, Call], bool],
    ) -> None:
        super().__init__()
        names: dict[int, str] = {}
        for name, p in parameters.items():
            names.setdefault(_storage(p), name)
        self.record = Record(names, {_storage(p): p for p in parameters.values()}, growing)
        self._active = {_storage(x) for x in tensors(inputs)}
        self._results: dict[int, int] = {}
        self._counter = ThreadPoolExecutor(1)
        self._contracts = contracts
        self.record.keep += [inputs, parameters]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(tensors((args, kwargs)))
        weights = [x for x in given if self._is_weight(x)]
        # What a backward pass inside of forward does with a weight follows from its use in forward.
        derived = torch._C._current_autograd_node() is not None
        call = self._call(func, args, kwargs) if weights and not derived else None
        result = func(*args, **kwargs)
        made = list(tensors(result))
        self.record.keep += made
        self._note_reads(given, {_storage(x) for x in made})
        if call is None:
            if any(_storage(x) in self._active for x in given):
                self._active |= {_storage(x) for x in made}
            return result
        mixed = any(_storage(x) in self._active for x in given)
        own = any(_storage(m) == _storage(w) for m in made for w in weights)
        if not own or (mixed and func._schema.is_mutable):  # else a view, or itself
            self._note(call, mixed, given, made)
        return result

    def _note(self, call: Call, mixed: bool, given: list[Tensor], made: list[Tensor]) -> None:
        if call.name in LOOKUPS:
            # A row of a table is an activation whose entries are the table's own; what is chosen
            # from a stack of matrices is a matrix that something else will contract.
            used = all(self._dims(a.storage) < 3 for a in call.leaves(Alias))
        else:
            # Below a dispatch mode autograd is off for this thread, so another one counts.
            used = mixed or self._counter.submit(self._contracts, self.record, call).result()
        if used or any(_storage(x) in map(_storage, given) for x in made):  # or written in place
            self._results |= {_storage(x): len(self.record.uses) for x in made[:1]}
            self.record.uses.append(call)
            self.record.reads.append([])
            self._active |= {_storage(x) for x in made}
            return
        for number, x in enumerate(made):
            if x.is_floating_point() or x.is_complex():
                self.record.recipes[_storage(x)] = (call, number)

    def _dims(self, storage: int) -> int:
        """The dimensions of the largest parameter in a storage."""
        record = self.record
        sources = record.sources(storage)
        return max(p.dim() for k, p in record.leaves.items() if record.names[k] in sources)

    def _note_reads(self, given: list[Tensor], made: set[int]) -> None:
        for x in given:
            number = self._results.get(_storage(x))
            if number is not None and _storage(x) not in made:
                alias = _alias(x)
                if alias not in self.record.reads[number]:
                    self.record.reads[number].append(alias)

    def _is_weight(self, x: Tensor) -> bool:
        key = _storage(x)
        return key not in self._active and (key in self.record.names or key in self.record.recipes)

    def _call(self, func: Any, args: Any, kwargs: Any) -> Call:
        return Call(func, *tree_map(self._spec, (args, kwargs)))

    def _spec(self, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if self._is_weight(x):
            return _alias(x)
        if x.is_floating_point() or x.is_complex():
            return Blank(tuple(x.shape), x.stride(), x.dtype, _storage(x) in self._active)
        return x.detach().clone()


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's output for positional or keyword inputs."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors of a tree of containers (dataclasses and ModelOutputs included)."""
    for x in tree_leaves(tree):
        if isinstance(x, Tensor):
            yield x
        elif hasattr(x, "__dataclass_fields__") and not isinstance(x, type):
            yield from tensors([getattr(x, name) for name in x.__dataclass_fields__])


def _alias(x: Tensor) -> Alias:
    return Alias(_storage(x), tuple(x.shape), x.stride(), x.storage_offset())


def _storage(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)
