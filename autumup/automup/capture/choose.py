"""Which class of a model file is the model: the one that was named, or the one at the root."""

from __future__ import annotations

import ast
import difflib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from automup.errors import ModelLoadError


def choose_model(module: ModuleType, text: str, name: str = "") -> Callable[..., Any]:
    """The model's class, or the function of that name that returns a model.

    Args:
        module: the model file, imported.
        text: its source.
        name: the class or function to take; without one it must be clear which class it is.

    Raises:
        ModelLoadError: there is no model of this name, or not exactly one that could be meant.
    """
    return _named(module, name) if name else _root(module, text)


def _named(module: ModuleType, name: str) -> Callable[..., Any]:
    value: Any = module
    for part in name.split("."):  # Outer.Inner is a class inside another
        value = getattr(value, part, None)
    where = os.path.basename(str(module.__file__))
    if inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, nn.Module)):
        return value
    if value is not None:
        kind = "a class" if inspect.isclass(value) else f"a {type(value).__name__} object"
        raise ModelLoadError(
            f"{name} is {kind}, not an nn.Module class or a function that returns one.",
            where=where,
            fix="Name the class, or a function that builds the model.",
        )
    known = [*_candidates(module), *_functions(module)]
    close = difflib.get_close_matches(name, known, n=1)
    fix = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(known) or 'no model'}."
    raise ModelLoadError(f"{where} has no {name!r}.", where=where, fix=fix)


def _candidates(module: ModuleType) -> dict[str, type[nn.Module]]:
    """The nn.Module classes that the file defines, but for those of a converted file's block."""
    written = [*getattr(module, "MUP_CLASSES", {}).values()]
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and (value.__module__, value.__name__) == (module.__name__, name)
        and value not in written
    }


def _functions(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _root(module: ModuleType, text: str) -> Callable[..., Any]:
    """The one model class that no other class of the file constructs, subclasses or refers to."""
    classes = _candidates(module)
    path = Path(str(module.__file__))
    if not classes:
        functions = _functions(module)
        hint = f", or name a function: {path.name}:{functions[0]}" if functions else ""
        raise ModelLoadError(
            f"{path} defines no nn.Module class at its top level.",
            fix=f"Pass the file that defines the model{hint}.",
        )
    tree = ast.parse(text)
    used = [reached(tree, list(classes)) for reached in (_referred, _constructed)]
    roots = next((r for u in used if (r := [n for n in classes if n not in u])), list(classes))
    if len(roots) == 1:
        return classes[roots[0]]
    lines = {n.name: n.lineno for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    listing = ", ".join(f"{name} (line {lines.get(name, '?')})" for name in roots)
    raise ModelLoadError(
        f"{path}: {len(roots)} classes could be the model: {listing}.",
        fix=f"Choose one, as in {path.name}:{roots[-1]}.",
    )


def _referred(tree: ast.Module, classes: Sequence[str]) -> set[str]:
    """Classes that another one names, also by way of the file's functions and tables."""
    names: dict[str, set[str]] = {}
    for node in tree.body:
        found = {n.id for n in _without_annotations(node) if isinstance(n, ast.Name)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.setdefault(node.name, set()).update(found)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    names.setdefault(target.id, set()).update(found)
    used: set[str] = set()
    for cls in classes:
        todo, seen = [cls], {cls}
        while todo:
            fresh = names.get(todo.pop(), set()) - seen
            seen |= fresh
            todo += [name for name in fresh if name not in classes]
        used |= seen - {cls}
    return used


def _constructed(tree: ast.Module, classes: Sequence[str]) -> set[str]:
    """Classes that another one calls or subclasses."""
    used: set[str] = set()
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)):
        called = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
        found = {n.id for n in [*called, *node.bases] if isinstance(n, ast.Name)}
        used |= (found - {node.name}) if node.name in classes else set()
    return used


def _without_annotations(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                yield from _without_annotations(child)
