"""Methods that no instance in a model can run: the model's class overrides them.

A file of variants has a base class whose methods some variants replace. What a trace of one variant
leaves out of the base is then no branch that it missed. Code counts as out of reach only if all of
this is sure: for the model's class, and for every other class that has the method and that the
model holds or whose name its code can reach, the method's name finds another class's method first;
and nobody asks for the base's own, by ``super().name`` or by ``Base.name``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

_LOOKED_UP = frozenset({"globals", "eval", "exec", "__subclasses__", "__init_subclass__"})
"""Ways to a class by which its name need not stand in the code that leads to it."""


def overridden_lines(
    text: str, defined: Mapping[str, object], root: type, held: Iterable[type]
) -> frozenset[int]:
    """The lines of methods in a file that a model, or another of its class, never runs.

    Args:
        text: the file's source.
        defined: what the file defined when it ran, by name.
        root: the model's class.
        held: the classes of all modules in the model, its own among them.
    """
    tree = ast.parse(text.removeprefix("\ufeff"))
    nodes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    known = {c: n for n in nodes if isinstance(c := defined.get(n), type)}
    reached = _reached(tree, root.__name__)
    if reached is None:
        return frozenset()
    used = {*held} | {c for c, name in known.items() if name in reached}
    lines: set[int] = set()
    for cls in (c for c in root.__mro__ if c in known):
        related = {n for c, n in known.items() if issubclass(c, cls) or issubclass(root, c)}
        for node in (n for n in nodes[known[cls]].body if isinstance(n, _FUNCTIONS)):
            found = (_finds(c, node.name) for c in used if issubclass(c, cls))
            if cls not in found and not _asked_for(tree, node.name, related):
                lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return frozenset(lines)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _finds(cls: type, name: str) -> type | None:
    """The class whose attribute an instance of a class gets by this name."""
    return next((c for c in cls.__mro__ if name in vars(c)), None)


def _asked_for(tree: ast.Module, name: str, related: Iterable[str]) -> bool:
    """Whether the file has ``super().name``, ``Base.name`` or, in a class's body, ``name``."""
    names = frozenset(related)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == name:
            of = node.value
            if isinstance(of, ast.Call) and getattr(of.func, "id", "") == "super":
                return True
            if isinstance(of, ast.Name) and of.id in names:
                return True
        if isinstance(node, ast.ClassDef) and node.name in names and name in _body_names(node):
            return True
    return False


def _body_names(node: ast.ClassDef) -> set[str]:
    """What a class's body reads while the class is made: aliases, decorators."""
    parts: list[ast.AST] = []
    for statement in node.body:
        inner = isinstance(statement, _FUNCTIONS)
        parts += statement.decorator_list if isinstance(statement, _FUNCTIONS) else []
        parts += [] if inner else [statement]
    return {name for part in parts for name in _reads(part)}


def _reached(tree: ast.Module, root: str) -> frozenset[str] | None:
    """The names that a class's code leads to, other than as the base of a class.

    With them those that statements of the top level hand to somebody, as registries are filled.
    None where a class may be found without its name.
    """
    inside: dict[str, set[str]] = {}
    bases: dict[str, set[str]] = {}
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.If) and "__name__" in _reads(node.test):
            continue  # what runs the file as a script is around the model, not in it
        if any(_is_looked_up(n) for n in ast.walk(node)):
            return None
        parts: list[ast.AST] = [node]
        if isinstance(node, ast.ClassDef):
            parts = [*node.body, *node.keywords, *node.decorator_list]
            bases[node.name] = {name for base in node.bases for name in _reads(base)}
            found |= {node.name} if node.decorator_list and node.name != root else set()
        names = {name for part in parts for name in _reads(part)}
        bound = _bound(node)
        for name in bound:
            inside.setdefault(name, set()).update(names)
        found |= names if not bound else set()
    todo, seen = [root, *found], {root, *found}
    while todo:
        name = todo.pop()
        found |= inside.get(name, set())
        fresh = (inside.get(name, set()) | bases.get(name, set())) - seen
        seen |= fresh
        todo += fresh
    return frozenset(found)


def _is_looked_up(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return bool(node.keywords)  # a metaclass may keep a registry
    named = (getattr(node, field, None) for field in ("id", "attr", "name"))
    return any(name in _LOOKED_UP for name in named)


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement of the top level binds."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    found = (getattr(n, "id", getattr(n, "name", "")) for n in ast.walk(node) if _binds(n))
    return set(found)


def _binds(node: ast.AST) -> bool:
    stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    return stored or isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)


def _reads(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
