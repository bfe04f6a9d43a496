"""A config that a model's own class makes: ``GPT.get_default_config()``, as minGPT has it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

_PLAIN = (int, float, str, bool, tuple, list, type(None))


def config_maker(owner: type) -> Callable[[], Any] | None:
    """The one static or class method without arguments that does nothing but fill in a config.

    It is known by its statements before it is called: an object is made, its fields are set to
    constants (or to objects that are made so), and it is returned.
    """
    found = [
        getattr(owner, name)
        for name, member in vars(owner).items()
        if isinstance(member, staticmethod | classmethod) and _fills_in(member.__func__)
    ]
    return found[0] if len(found) == 1 and not inspect.signature(found[0]).parameters else None


def plain_fields(config: Any) -> dict[str, Any]:
    """The fields of a config that hold numbers, names, lists of such, or nothing yet."""
    return {n: v for n, v in vars(config).items() if n[:1] != "_" and isinstance(v, _PLAIN)}


def _fills_in(function: Callable[..., Any]) -> bool:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return False
    if not isinstance(tree, ast.FunctionDef):
        return False
    body = [s for s in tree.body if not _is_docstring(s)]
    if len(body) < 2 or not isinstance(body[-1], ast.Return):
        return False
    made, names = body[-1].value, function.__globals__
    if not isinstance(made, ast.Name) or not _sets(body[0], made.id, names, ast.Name):
        return False
    return all(_sets(s, made.id, names, ast.Attribute) for s in body[1:-1])


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _sets(statement: ast.stmt, config: str, names: Mapping[str, Any], kind: type) -> bool:
    """Whether a statement is ``config = Config()``, or ``config.some.field = constant``."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return False
    target, value = statement.targets[0], statement.value
    if not isinstance(target, kind):
        return False
    while isinstance(target, ast.Attribute):
        target = target.value
    if not isinstance(target, ast.Name) or target.id != config:
        return False
    if isinstance(value, ast.Call):
        made = names.get(value.func.id) if isinstance(value.func, ast.Name) else None
        return inspect.isclass(made) and not value.args and not value.keywords
    try:
        ast.literal_eval(value)
    except ValueError:
        return False
    return kind is ast.Attribute
