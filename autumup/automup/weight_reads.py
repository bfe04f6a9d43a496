"""Where the methods of a module read its own weights: ``torch.einsum("btd,df->btf", x, self.w)``.

A weight W = s w that no factor around its module can stand for is multiplied where it is read. The
value of a parameter is linear in s, so no operation has to be known; but a method that draws it, in
place, means the stored w, and one that no trace ran may mean either.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from automup.capture.runs import Lines
from automup.capture.source import Frame, is_user_file
from automup.facts import Span
from automup.recompile import read_source
from automup.rewrite.twins import FACTS


class UnreadError(Exception):
    """Why a weight cannot be multiplied where its module reads it."""


@dataclass(frozen=True)
class Reads:
    """The reads in one method.

    Attributes:
        file, owner, function: where it is: the name of its class and its own, qualified.
        me: what it calls the instance.
        spans: what to multiply, each with the parameter, by what the module calls it.
    """

    file: str
    owner: str
    function: str
    me: str
    spans: tuple[tuple[str, Span], ...]


def find_reads(module: nn.Module, attributes: Collection[str], lines: Lines) -> tuple[Reads, ...]:
    """All reads of a module's own parameters in its methods.

    Args:
        module: the module.
        attributes: what it calls them.
        lines: what its traces ran.

    Raises:
        UnreadError: if a method is not the user's code, or reads one and never ran.
    """
    kind = type(module)
    found = []
    for owner in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        file = _file_of(owner)
        if file and not is_user_file(file):
            raise UnreadError(f"the code of {owner.__name__} is not the model's own")
        for method in _methods(file, owner.__qualname__):
            spans = _spans(method, file, frozenset(attributes))
            if not spans or method.name == "__init__":
                continue
            name, me = f"{owner.__qualname__}.{method.name}", method.args.args[0].arg
            if any((file, n) in lines for n in range(method.lineno, _end(method) + 1)):
                found.append(Reads(file, owner.__qualname__, name, me, spans))
            elif next(c for c in kind.__mro__ if method.name in vars(c)) is owner:
                raise UnreadError(f"no trace ran {name}, which reads it")
    return tuple(found)


def _file_of(cls: type) -> str:
    """The file of a class's functions; nothing if it has none."""
    functions = (value for value in vars(cls).values() if hasattr(value, "__code__"))
    return next((function.__code__.co_filename for function in functions), "")


@lru_cache(maxsize=64)
def _classes(text: str) -> dict[str, ast.ClassDef]:
    """The classes of a file, by their qualified names."""
    tree = ast.parse(text.removeprefix("\ufeff"))
    found: dict[str, ast.ClassDef] = {}
    pending = [("", node) for node in tree.body]
    for prefix, node in pending:
        if isinstance(node, ast.ClassDef):
            found[f"{prefix}{node.name}"] = node
            pending += [(f"{prefix}{node.name}.", inner) for inner in node.body]
    return found


def _methods(file: str, name: str) -> Iterator[ast.FunctionDef]:
    known = _classes(read_source(file)).get(name)
    for node in known.body if known else []:
        if isinstance(node, ast.FunctionDef) and node.args.args:
            yield node


def _end(node: ast.AST) -> int:
    return getattr(node, "end_lineno", 0) or 0


def _spans(
    method: ast.FunctionDef, file: str, attributes: frozenset[str]
) -> tuple[tuple[str, Span], ...]:
    """What reads the value of a parameter in a method, in order; indexed, if it is at once."""
    found = _reads(method, file, attributes)
    return tuple(sorted(found, key=lambda read: (read[1].line, read[1].column)))


def _reads(
    method: ast.FunctionDef, file: str, attributes: frozenset[str]
) -> Iterator[tuple[str, Span]]:
    me = method.args.args[0].arg
    parents = {child: node for node in ast.walk(method) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(method):
        named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if not named or node.value.id != me or node.attr not in attributes:  # type: ignore[attr-defined]
            continue
        read: ast.expr = node  # type: ignore[assignment]
        parent = parents[read]
        while _is_same(parent, read):
            read, parent = parent, parents[parent]  # type: ignore[assignment]
        if not _is_no_value(read, parent):
            yield node.attr, _span(read, file, method)  # type: ignore[attr-defined]


def _is_same(parent: ast.AST, read: ast.expr) -> bool:
    """Whether this is the parameter itself, or entries of it."""
    if isinstance(parent, ast.Subscript):
        return parent.value is read
    return isinstance(parent, ast.Attribute) and parent.attr == "data"


def _is_no_value(read: ast.expr, parent: ast.AST) -> bool:
    """Whether this tells a fact of the parameter, or writes into it, as ``nn.init`` does."""
    if not isinstance(getattr(read, "ctx", ast.Load()), ast.Load):
        return True
    if isinstance(parent, ast.Attribute):
        return parent.attr in FACTS or parent.attr.endswith("_")
    if isinstance(parent, ast.Call):
        *before, name = ast.unparse(parent.func).split(".")
        return name.endswith("_") and before[-1:] in ([], ["init"])
    return isinstance(parent, ast.Compare) and isinstance(parent.ops[0], ast.Is | ast.IsNot)


def _span(node: ast.expr, file: str, method: ast.FunctionDef) -> Span:
    end = node.end_lineno or node.lineno, node.end_col_offset or 0
    return Frame(file, node.lineno, node.col_offset, *end, method.name, method.lineno).span
