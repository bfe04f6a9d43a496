"""Functions compiled anew from edited source, for one module instance and nobody else.

The instance gets a subclass of its class, of the same name, with edited members. Where the edit
stands in a function that a member leads to, what lies on the way is copied and sees the copy of
the next (:mod:`automup.reach`); the modules and classes that it is written in are not touched.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import linecache
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import CellType, FunctionType, MethodType
from typing import Any, Literal

from torch import nn

from automup import reach
from automup.compiling import Guard, compile_edited
from automup.edits import Edit
from automup.errors import RewriteError
from automup.reach import Path, Step


@dataclass(frozen=True)
class Patch:
    """Edits of the function that a path leads to, in the source whose text has this digest.

    ``guards``: statements of it that no trace ran, and that may need a multiplier of their own.
    """

    path: Path
    edits: tuple[Edit, ...]
    digest: str
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class Scaling:
    """A factor on a module's first argument, or on what it returns.

    No hook: torch.compile takes one model's compiled code for another's whose modules differ from
    the first's by their hooks alone, but never by their classes.
    """

    where: Literal["input", "output"]
    factor: float


@dataclass(frozen=True)
class Wrapping:
    """``wrap(function, factor)`` in place of the function that a path leads to.

    ``wrap`` is a function of a module, since pickles hold it by its name.
    """

    path: Path
    wrap: Callable[[Callable[..., Any], float], Callable[..., Any]]
    factor: float


Patches = tuple[Patch | Scaling | Wrapping, ...]


def apply_patch(module: nn.Module, patch: Patch | Scaling | Wrapping) -> None:
    """Make one module run changed code; other instances of its class do not.

    Raises:
        RewriteError: if the source cannot be edited there.
    """
    kind: Any = type(module)
    known: Patches = getattr(kind, "_automup_patches", ())
    if isinstance(patch, Patch):
        same = [p for p in known if isinstance(p, Patch) and p.path == patch.path]
        edits = dict.fromkeys(e for p in (*same, patch) for e in p.edits)
        guards = dict.fromkeys(g for p in (*same, patch) for g in p.guards)
        known = tuple(p for p in known if p not in same)
        patch = replace(patch, edits=tuple(edits), guards=tuple(guards))
    if isinstance(patch, Wrapping):
        alike = [p for p in known if isinstance(p, Wrapping) and p.path == patch.path]
        known = tuple(p for p in known if p not in alike)
        patch = replace(patch, factor=math.prod(p.factor for p in (*alike, patch)))
    _put(module, getattr(kind, "_automup_class", kind), (*known, patch))


def _put(module: nn.Module, cls: type, patches: Patches) -> None:
    """Give a module its patched class, and patch the functions among its own attributes."""
    vars(module).update(vars(module).pop("_automup_own", {}))
    module.__class__ = cls
    tree = _tree(patches)
    own = {str(step.name): below for step, below in tree.items() if step.kind == "own"}
    originals = {name: vars(module)[name] for name in own}
    changed = {name: _changed(value, own[name]) for name, value in originals.items()}
    module.__class__ = _patched_class(cls, patches)
    for name, value in vars(module).items():
        if isinstance(value, MethodType) and value.__self__ is module and name not in own:
            method = value.__func__.__name__  # a method of its own, which may have changed
            if getattr(cls, method, None) is value.__func__:
                originals[name], changed[name] = value, getattr(module, method)
    if changed:
        vars(module).update(changed, _automup_own=originals)


# --- the tree of what changes --------------------------------------------------------------------

EDITS = Step("edits")
"""In a tree, where the patch of the function itself is; not a step."""


def _tree(patches: Patches) -> dict[Any, Any]:
    """The patches by their paths' steps: {step: {step: {EDITS: patch}}}."""
    tree: dict[Any, Any] = {}
    for patch in patches:
        if isinstance(patch, Scaling):
            continue
        at = tree
        for step in patch.path:
            at = at.setdefault(step, {})
        at[EDITS] = patch
    return tree


@cache
def _patched_class(cls: type, patches: Patches) -> type:
    members = {
        step: _changed(vars(cls.__mro__[step.base])[str(step.name)], below)
        for step, below in _tree(patches).items()
        if step.kind == "member"
    }
    made = reach.subclass(
        cls,
        members,
        __reduce_ex__=_reduce,
        __setstate__=_set_state,
        _automup_class=cls,
        _automup_patches=patches,
    )
    for patch in patches:
        if isinstance(patch, Scaling):
            made.forward = _scaled(made.forward, patch)  # type: ignore[attr-defined]
    return made


def _scaled(forward: Callable[..., Any], scaling: Scaling) -> Callable[..., Any]:
    factor = scaling.factor

    @functools.wraps(forward)
    def with_input(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if args:
            return forward(self, args[0] * factor, *args[1:], **kwargs)
        name, *_ = kwargs
        return forward(self, **{**kwargs, name: kwargs[name] * factor})

    @functools.wraps(forward)
    def with_output(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs) * factor

    return with_input if scaling.where == "input" else with_output


def _changed(value: Any, below: Mapping[Any, Any]) -> Any:
    """A copy of an object with what the tree below it says changed."""
    patch = below.get(EDITS)
    parts = {s: _changed(reach.part(value, s), b) for s, b in below.items() if s is not EDITS}
    if isinstance(patch, Wrapping):
        return patch.wrap(_function(value, None, parts), patch.factor)
    if isinstance(value, FunctionType):
        return _function(value, patch, parts)
    return reach.with_parts(value, parts)


# --- functions -----------------------------------------------------------------------------------


def _function(
    function: FunctionType, patch: Patch | None, parts: Mapping[Step, Any]
) -> FunctionType:
    """The function with edits in its source, and with other values for what it calls."""
    inner = parts.get(Step("inner"))
    if inner is not None:
        return _compiled(function, inner)
    names = {str(s.name): new for s, new in parts.items() if s.kind == "global"}
    cells = {str(s.name): CellType(new) for s, new in parts.items() if s.kind == "cell"}
    itself = _own_names(function)
    code = function.__code__
    if patch or names or itself:
        text = read_source(code.co_filename)
        if patch and digest_of(text) != patch.digest:
            raise RewriteError(
                "The source has changed since the multipliers were put into the model.",
                where=code.co_filename,
                fix="Build the model anew and load its state_dict.",
            )
        edits, guards = (patch.edits, patch.guards) if patch else ((), ())
        made = compile_edited(text, code, edits, guards, (*names, *itself), function.__globals__)
        code = made.code
        cells |= {made.names[name]: CellType(new) for name, new in names.items()}
        cells |= {made.names[name]: CellType() for name in itself}
        cells |= {name: CellType(value) for name, value in made.values.items()}
    new = _copied(function, code, cells, parts)
    for name in itself:
        cells[made.names[name]].cell_contents = new
    for name, cell in zip(code.co_freevars, new.__closure__ or (), strict=True):
        if name not in cells and _holds(cell, function):  # a nested function that calls itself
            raise _unreachable(function)
    return new


def _own_names(function: FunctionType) -> tuple[str, ...]:
    """The global names by which a function calls itself: its copy must call the copy."""
    used = sorted(reach.names_used(function.__code__) & function.__globals__.keys())
    return tuple(name for name in used if function.__globals__[name] is function)


def _holds(cell: CellType, value: Any) -> bool:
    try:
        return cell.cell_contents is value
    except ValueError:
        return False


def _copied(
    function: FunctionType, code: Any, cells: Mapping[str, CellType], parts: Mapping[Step, Any]
) -> FunctionType:
    known = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    known.update(cells)
    if not known.keys() >= set(code.co_freevars):
        raise _unreachable(function)
    defaults = function.__defaults__ and tuple(
        parts.get(Step("default", i), value) for i, value in enumerate(function.__defaults__)
    )
    closure = tuple(known[name] for name in code.co_freevars)
    made = FunctionType(code, function.__globals__, function.__name__, defaults, closure)
    named = function.__kwdefaults__
    made.__kwdefaults__ = named and {k: parts.get(Step("default", k), v) for k, v in named.items()}
    was = {id(reach.part(function, s)): new for s, new in parts.items() if s.kind == "cell"}
    made.__dict__ = {k: was.get(id(v), v) for k, v in function.__dict__.items()}  # __wrapped__
    made.__doc__, made.__annotations__ = function.__doc__, function.__annotations__
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    return made


def _compiled(wrapper: FunctionType, inner: Any) -> FunctionType:
    """What ``torch.compile`` makes of another function, with the settings of its wrapper."""
    names = wrapper.__code__.co_freevars
    settings = dict(zip(names, wrapper.__closure__ or (), strict=True)).get("self")
    if settings is None:
        raise _unreachable(wrapper)
    made: FunctionType = settings.cell_contents(inner)
    return made


def _unreachable(function: FunctionType) -> RewriteError:
    return RewriteError(
        f"{function.__qualname__} cannot be compiled anew for one module.",
        where=f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}",
        fix="Keep the scale in a float attribute of the module.",
    )


def read_source(file: str) -> str:
    """The source text that a code object was compiled from."""
    return "".join(linecache.getlines(file))


# --- copies and pickles --------------------------------------------------------------------------


def _patched(module: nn.Module) -> Any:
    """The class with the patches, which another may have wrapped in its turn."""
    return next(cls for cls in type(module).__mro__ if "_automup_patches" in vars(cls))


def _reduce(self: nn.Module, protocol: int) -> Any:
    """Pickle by the author's class and the patches, so that a saved model keeps its multipliers."""
    kind = _patched(self)
    made = super(kind, self).__reduce_ex__(max(protocol, 2))
    if made[0] is not copyreg.__newobj__ or made[1][0] is not kind:  # type: ignore[attr-defined]
        return made  # the author's own way
    state = {**made[2], **made[2].get("_automup_own", {})}
    state.pop("_automup_own", None)
    return (_rebuild, (kind._automup_class, kind._automup_patches), state, *made[3:])


def _rebuild(cls: type, patches: Patches) -> Any:
    kind: Any = _patched_class(cls, patches)
    return kind.__new__(kind)


def _set_state(self: nn.Module, state: dict[str, Any]) -> None:
    kind = _patched(self)
    super(kind, self).__setstate__(state)
    _put(self, kind._automup_class, kind._automup_patches)


def digest_of_file(file: str) -> str:
    """The digest of a source file, by which an edit sees that the file changed."""
    return digest_of(read_source(file))


def digest_of(text: str) -> str:
    """The digest of a source text."""
    return hashlib.sha256(text.encode()).hexdigest()
