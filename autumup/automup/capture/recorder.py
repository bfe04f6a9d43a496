"""The recorder: every aten operation of a forward pass as a :class:`Node`.

Parameters, buffers and constants are ``get_attr`` nodes, inputs are placeholders. Writes in place
give new nodes; a read of a tensor whose storage was written through another view gives a node
:func:`written` that joins them, so the graph is in single-assignment form.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._pytree import tree_leaves

from automup.capture.graph import Fact, Node, written
from automup.capture.ground import Execute
from automup.capture.init_laws import Law
from automup.capture.meta import MetaMode
from automup.capture.real import RealMode
from automup.capture.source import (
    FRAMES,
    Frame,
    first_argument,
    frame_of,
    innermost_frame,
    sizes_in_scope,
    traced_frames,
)
from automup.capture.tensors import storage_of, traits_of, written_tensors
from automup.errors import CaptureError

_Callers = tuple[tuple[Frame, ...], tuple[str, ...], tuple[Mapping[str, Any], ...]]
"""The places and scopes of a frame's callers; the modules that are ``self`` there and in it."""
_RESUMED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class GraphRecorder:
    """Records operations into ``nodes`` while a model runs under a meta or a real mode.

    ``law_of``: how the model's constructor drew a tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        ground: MetaMode | RealMode,
        law_of: Callable[[torch.Tensor], Law],
    ) -> None:
        self.nodes: list[Node] = []
        self._ground, self._law_of = ground, law_of
        self._modules = {id(m): n for n, m in model.named_modules()}
        self._stack: list[str] = []
        self._nodes: dict[int, tuple[Node, int]] = {}
        self._writes: dict[int, list[Node]] = {}
        self._covered: dict[Node, Any] = {}
        self._unindexed: list[torch.Tensor] = []
        self._views: dict[int, list[torch.Tensor]] = {}
        self._scopes: dict[Any, Mapping[str, Any]] = {}
        self._owners: dict[FrameType, str] = {}
        self._callers: dict[FrameType, _Callers] = {}
        self._keep: list[Any] = [model]
        self._constants = 0
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            self._leaf("get_attr", name, tensor, is_parameter=isinstance(tensor, nn.Parameter))

    # --- leaves -----------------------------------------------------------------------------

    def placeholder(self, name: str, tensor: torch.Tensor) -> None:
        """Declare an input of the model."""
        self._leaf("placeholder", name, tensor)

    def _leaf(self, op: str, name: str, tensor: torch.Tensor, is_parameter: bool = False) -> Node:
        fact = self._fact(tensor, known=not is_parameter)
        if fact.value is None and op == "get_attr" and not is_parameter:
            law = self._law_of(tensor)  # a table that the constructor drew
            if law.known:
                fact = replace(fact, known=False, value=law.rms, peak=law.rms)
        node = Node(op, name, fact=fact, parameter=name if is_parameter else None)
        self.nodes.append(node)
        self._register(tensor, node)
        return node

    def outputs(self, result: Any) -> None:
        """Declare what the model returned."""
        nodes = tuple([self._node(t) for t in returned_tensors(result)])
        self.nodes.append(Node("output", "output", (nodes,), inputs=tuple(dict.fromkeys(nodes))))

    # --- operations ---------------------------------------------------------------------------

    def _watch(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], execute: Execute
    ) -> Any:
        read: list[Node] = []
        node_args = self._argument(args, read)
        node_kwargs = self._argument(kwargs, read) if kwargs else None
        self._keep += (args, kwargs)  # alive, so that no id is used twice while recording
        out = execute(func, args, kwargs)
        if func in _COPIES and isinstance(out, torch.Tensor) and out.dtype == args[0].dtype:
            self._register(out, node_args[0])  # a copy, or not: that may depend on the strides
            return out
        node = self._call(func, node_args, node_kwargs, read)
        place = self._place(func)
        self._bind(out, node, place)
        if traits_of(func).writes:
            for tensor in written_tensors(func, args, kwargs):
                self._write(tensor, node, out, place)
        return out

    def _argument(self, value: Any, read: list[Node]) -> Any:
        """An argument with nodes for tensors, which are added to those that are read."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, torch.Tensor):
            node = self._node(value)
            read.append(node)
            return node
        if isinstance(value, tuple | list):
            return kind([self._argument(item, read) for item in value])
        if isinstance(value, dict):
            return {key: self._argument(item, read) for key, item in value.items()}
        return _plain(value)

    def _call(self, func: Any, args: Any, kwargs: Any, read: Sequence[Node]) -> Node:
        once = tuple(dict.fromkeys(read)) if len(read) > 1 else tuple(read)
        node = Node("call_function", func, args, kwargs, once)
        self.nodes.append(node)
        return node

    def _place(self, func: Any) -> dict[str, Any]:
        """Where the operation stands: module, frames, sizes in scope, modules on the way."""
        frame, library = innermost_frame(2)
        wanted = id(func) in _MAY_BE_SITES or func.namespace not in _TORCHS_OWN
        frames, owners, scopes = self._callers_of(frame) if frame else ((), (), ())
        return {
            "module": self._stack[-1] if self._stack else "",
            "frames": (frame_of(frame), *frames) if frame else (),
            "scopes": (self._scope(frame), *scopes) if frame and wanted else (),
            "library": library,
            "owners": owners,
            "derived": torch._C._current_autograd_node() is not None,
        }

    def _callers_of(self, frame: FrameType) -> _Callers:
        """What is known of the frames that led to one: they stand still while it runs.

        A generator runs for a while only, and then again for another caller.
        """
        known = self._callers.get(frame)
        if known is None:
            chain = traced_frames(frame, FRAMES)
            known = (
                tuple([frame_of(f) for f in chain[1:]]),
                tuple([self._owner(f) for f in chain]),
                tuple([self._scope(f) for f in chain[1:]]),
            )
            if not frame.f_code.co_flags & _RESUMED:
                self._callers[frame] = known
        return known

    def _scope(self, frame: FrameType) -> Mapping[str, Any]:
        """The sizes in scope; the layers of a deep model share what is the same in all of them."""
        sizes = sizes_in_scope(frame)
        return self._scopes.setdefault(tuple(sizes.items()), sizes)

    def _owner(self, frame: FrameType) -> str:
        """The module that is ``self`` in a frame, looked up once while its module runs."""
        owner = self._owners.get(frame)
        if owner is None:
            owner = self._owners[frame] = self._modules.get(id(first_argument(frame)), "?")
        return owner

    def _bind(self, out: Any, node: Node, place: dict[str, Any]) -> None:
        if isinstance(out, torch.Tensor):
            node.fact = self._fact(out, **place)
            self._register(out, node)
            return
        node.fact = Fact((), False, **place)
        for i, item in enumerate(out if isinstance(out, list | tuple) else ()):
            if isinstance(item, torch.Tensor | list | tuple):
                part = self._call(operator.getitem, (node, i), None, (node,))
                self._bind(item, part, place)

    def _write(self, tensor: torch.Tensor, node: Node, out: Any, place: Any) -> None:
        """The tensor, and every view of its storage, now holds what the node computed."""
        if out is not tensor:
            node = self._nodes[id(out)][0] if isinstance(out, torch.Tensor) else node
        if node.fact.shape != tuple(tensor.shape):
            node.fact = self._fact(tensor, **place)
        writes = self._writes.setdefault(storage_of(tensor), [])
        writes.append(node)
        self._covered[node] = _geometry(tensor)
        self._register(tensor, node)

    # --- tensors and nodes ----------------------------------------------------------------------

    def _register(self, tensor: torch.Tensor, node: Node) -> None:
        seen = len(self._writes.get(storage_of(tensor), ())) if self._writes else 0
        self._nodes[id(tensor)] = (node, seen)
        self._unindexed.append(tensor)
        self._keep.append(tensor)

    def _node(self, tensor: torch.Tensor) -> Node:
        """The node that holds a tensor's present value."""
        if id(tensor) not in self._nodes and not self._adopt(tensor):
            self._constants += 1
            return self._leaf("get_attr", f"constant_{self._constants}", tensor)
        node, seen = self._nodes[id(tensor)]
        pending = self._writes.get(storage_of(tensor), [])[seen:] if self._writes else []
        whole = [i for i, n in enumerate(pending) if self._covered[n] == _geometry(tensor)]
        if whole:  # what was there before is gone
            node, pending = pending[whole[-1]], pending[whole[-1] + 1 :]
        if pending:
            joined = self._call(written, (node, *pending), None, (node, *pending))
            joined.fact = self._fact(tensor)
            self._register(tensor, joined)
            return joined
        return node

    def _adopt(self, tensor: torch.Tensor) -> bool:
        """A tensor made without dispatch (``.data``) is the one with its storage and geometry."""
        for view in self._unindexed:
            self._views.setdefault(storage_of(view), []).append(view)
        self._unindexed.clear()
        for other in reversed(self._views.get(storage_of(tensor), [])):
            if _geometry(other) == _geometry(tensor):
                self._nodes[id(tensor)] = self._nodes[id(other)]
                self._keep.append(tensor)
                return True
        return False

    def _fact(self, tensor: torch.Tensor, known: bool | None = None, **place: Any) -> Fact:
        if known is None:
            known = self._ground.shadow(tensor) is not None
        value, peak = self._ground.sizes_of(tensor) if known else (None, None)
        return Fact(
            tuple(tensor.shape),
            tensor.dtype.is_floating_point or tensor.dtype.is_complex,
            known=known,
            value=value,
            peak=peak,
            **place,
        )

    # --- modules --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def recording(self) -> Iterator[GraphRecorder]:
        """Record what runs in the block, with the path of the module that runs it."""
        hooks = (
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave),
        )
        try:
            with self._ground.watched_by(self._watch):
                yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        inside = self._stack[-1] if self._stack else ""
        self._stack.append(self._modules.get(id(module), inside))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._stack.pop()
        self._owners.clear()  # a frame keeps all that it can see alive
        self._callers.clear()


_aten = torch.ops.aten
_COPIES = frozenset(
    {_aten.clone.default, _aten.contiguous.default, _aten.alias.default, _aten.detach.default}
)
_TORCHS_OWN = frozenset({"aten", "prims", "prim"})
_MAY_BE_SITES = frozenset(
    id(getattr(packet, overload))
    for packet in (
        _aten.mm, _aten.bmm, _aten.addmm, _aten.baddbmm, _aten.mv, _aten.dot, _aten.addmv,
        _aten.mul, _aten.div, _aten.sum, _aten.convolution, _aten.pow, _aten.linalg_vector_norm,
        _aten.mul_, _aten.div_,
    )
    for overload in packet.overloads()
)  # fmt: skip


_PLAIN = frozenset({int, float, bool, str, complex, type(None), torch.dtype, torch.device})


def _plain(value: Any) -> Any:
    """A non-tensor argument as it is told of."""
    if value is None or isinstance(value, int | float | bool | str | complex):
        return value
    if isinstance(value, torch.dtype | torch.device | torch.memory_format | torch.layout):
        return value
    return str(value)


def _geometry(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset(), tensor.dtype


def returned_tensors(result: Any) -> list[torch.Tensor]:
    """What is trained on of what a model returned; in unknown objects, of their fields.

    Raises:
        CaptureError: if there is nothing.
    """
    found = [t for t in _tensors(result) if t.is_floating_point() or t.is_complex()]
    if not found:
        raise CaptureError(
            f"forward returns no floating-point tensor ({type(result).__name__}).",
            fix="Pass inputs with which it returns what is trained on.",
        )
    return found


def _tensors(value: Any, depth: int = 3) -> Iterator[torch.Tensor]:
    for leaf in tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif depth and not isinstance(leaf, nn.Module | type):
            for item in _fields(leaf):
                yield from _tensors(item, depth - 1)


def _fields(value: Any) -> Iterator[Any]:
    """What an object of an unknown class holds, in its dictionary or in its slots."""
    yield from getattr(value, "__dict__", {}).values()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                yield getattr(value, name)
