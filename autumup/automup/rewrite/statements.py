"""The statements of a file's functions, and which of them no trace ever executed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import libcst as cst

from automup.rewrite.edit import Source
from automup.rewrite.syntax import dotted

_INERT = (cst.Import, cst.ImportFrom, cst.Raise, cst.Assert, cst.Pass, cst.Global, cst.Nonlocal)
_JUMPS = (cst.Break, cst.Continue)


@dataclass(frozen=True)
class Statement:
    """A simple statement's line, or the header of a compound one: what runs as one step."""

    nodes: tuple[cst.CSTNode, ...]
    first: int
    last: int

    def ran(self, executed: frozenset[int]) -> bool:
        return any(line in executed for line in range(self.first, self.last + 1))

    @cached_property
    def expressions(self) -> tuple[cst.CSTNode, ...]:
        """Every expression of it, outer ones first, and its own operation."""
        return tuple(found for node in self.nodes for found in walk(node))


def walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The expressions in a node, itself first if it is one."""
    if isinstance(node, (cst.BaseExpression, cst.AugAssign)):
        yield node
    for child in node.children:
        yield from walk(child)


@dataclass(frozen=True)
class Function:
    """A function with the statements of its own body, those of nested functions left out."""

    node: cst.FunctionDef
    owner: str
    statements: tuple[Statement, ...]
    first: int
    last: int

    @property
    def name(self) -> str:
        return self.node.name.value

    def ran(self, executed: frozenset[int]) -> bool:
        return any(statement.ran(executed) for statement in self.statements)


@dataclass(frozen=True)
class Outline:
    """A file's functions, and for each of its classes the bases that are in the file too."""

    functions: tuple[Function, ...]
    bases: dict[str, tuple[str, ...]]

    def family(self, name: str) -> frozenset[str]:
        """A class with its bases and the classes that derive from it."""
        up = set(self._above(name))
        return frozenset(up | {c for c in self.bases if name in self._above(c)})

    def _above(self, name: str) -> Iterator[str]:
        yield name
        for base in self.bases.get(name, ()):
            yield from self._above(base)

    def executed_classes(self, executed: frozenset[int]) -> frozenset[str]:
        """Classes with a method that ran, and their bases."""
        ran = {f.owner for f in self.functions if f.owner and f.ran(executed)}
        return frozenset(c for name in ran for c in self._above(name))

    def methods(self, owner: str) -> frozenset[str]:
        """Names of the methods of a class and of the classes around it in the file."""
        family = self.family(owner)
        return frozenset(f.name for f in self.functions if f.owner in family)


@lru_cache(maxsize=8)
def outline(tree: Source) -> Outline:
    """The functions and classes of a file."""
    collector = _Collector(tree)
    tree.module.visit(collector)
    known = set(collector.bases)
    bases = {c: tuple(b for b in bs if b in known and b != c) for c, bs in collector.bases.items()}
    return Outline(tuple(collector.functions), bases)


class _Collector(cst.CSTVisitor):
    def __init__(self, tree: Source) -> None:
        self.tree = tree
        self.classes: list[str] = []
        self.functions: list[Function] = []
        self.bases: dict[str, tuple[str, ...]] = {}

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.classes.append(node.name.value)
        self.bases[node.name.value] = tuple(dotted(arg.value) for arg in node.bases)

    def leave_ClassDef(self, original_node: cst.ClassDef) -> None:
        self.classes.pop()

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        at = self.tree.positions[node]
        owner = self.classes[-1] if self.classes else ""
        statements = tuple(_statements(node.body, self.tree))
        self.functions.append(Function(node, owner, statements, at.start.line, at.end.line))


def _statements(body: cst.BaseSuite, tree: Source) -> Iterator[Statement]:
    for number, node in enumerate(body.body):
        if isinstance(node, cst.SimpleStatementLine):
            yield from _simple(node.body, tree, docstring=number == 0)
        elif isinstance(node, cst.BaseSmallStatement):
            yield from _simple([node], tree, docstring=number == 0)
        elif not isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            yield from _compound(node, tree)


def _simple(
    parts: Sequence[cst.BaseSmallStatement], tree: Source, *, docstring: bool
) -> Iterator[Statement]:
    for part in parts:
        if isinstance(part, (*_INERT, *_JUMPS)):
            continue
        if isinstance(part, cst.Expr) and isinstance(part.value, cst.BaseString):
            continue
        yield _statement([part], tree)


def _statement(nodes: Sequence[cst.CSTNode], tree: Source) -> Statement:
    at = [tree.positions[node] for node in nodes]
    return Statement(tuple(nodes), min(a.start.line for a in at), max(a.end.line for a in at))


def _compound(node: cst.CSTNode, tree: Source) -> Iterator[Statement]:
    """The header of an if, for, while, with, try or match, then what is below it."""
    header = [c for c in node.children if isinstance(c, (cst.BaseExpression, cst.WithItem))]
    if header:
        yield _statement(header, tree)
    for child in node.children:
        if isinstance(child, cst.BaseSuite):
            yield from _statements(child, tree)
        elif isinstance(
            child, (cst.If, cst.Else, cst.ExceptHandler, cst.ExceptStarHandler, cst.Finally)
        ):
            yield from _compound(child, tree)
        elif isinstance(child, cst.MatchCase):
            yield from _statements(child.body, tree)
