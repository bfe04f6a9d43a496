"""Functions of a file that only constructors lead to: what they compute are no activations."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import libcst as cst
from libcst import matchers as m

from automup.rewrite.edit import Source
from automup.rewrite.statements import Outline
from automup.rewrite.syntax import last_name

INIT = "__init__"


def only_in_constructors(
    tree: Source, outline: Outline, executed: frozenset[int]
) -> frozenset[str]:
    """Names of functions that the file calls in constructors alone, or in such functions.

    Not those that a trace ran, nor those that are told of without being called (what is kept may be
    called later), nor what the file never names: it may be called from outside.
    """
    names = {f.name for f in outline.functions}
    # A lambda that is made there is a part of its statement, and may be called later.
    names -= {f.name for f in outline.functions if f.ran(executed) or _has_lambda(f.node)}
    methods = {f.name for f in outline.functions if f.owner}
    callers: dict[str, set[str]] = {name: set() for name in names}
    for node in m.findall(tree.module, m.Name(m.MatchIfTrue(names.__contains__))):
        assert isinstance(node, cst.Name)
        if _mentions(tree.parent(node), node, methods):
            callers[node.value].add(_caller(tree, node))
    found = {INIT}
    while more := {n for n in names - found if callers[n] and callers[n] - {n} <= found}:
        found |= more
    return frozenset(found)


def _has_lambda(function: cst.FunctionDef) -> bool:
    return bool(m.findall(function.body, m.Lambda()))


def _mentions(parent: cst.CSTNode, name: cst.Name, methods: Collection[str]) -> bool:
    """Whether a name stands for a function: no definition, no attribute that cannot be a method."""
    if isinstance(parent, cst.Attribute) and parent.attr is name:
        return name.value in methods
    return not (isinstance(parent, cst.FunctionDef) and parent.name is name)


def _caller(tree: Source, name: cst.Name) -> str:
    """The function around a call of something of this name; "" for any other mention."""
    node: cst.CSTNode = name
    parent = tree.parent(node)
    if isinstance(parent, cst.Attribute):
        node, parent = parent, tree.parent(parent)
    if isinstance(parent, cst.Arg):  # self.apply(self.draw)
        node, parent = parent, tree.parent(parent)
        called = isinstance(parent, cst.Call) and last_name(parent.func) == "apply"
    else:
        called = isinstance(parent, cst.Call) and parent.func is node
    return next(_functions(tree, parent), "") if called else ""


def _functions(tree: Source, node: cst.CSTNode) -> Iterator[str]:
    """The functions around a node, innermost first, by name; "" for what has none."""
    at: cst.CSTNode | None = node
    while at is not None:
        if isinstance(at, cst.Lambda):
            yield ""
        if isinstance(at, cst.FunctionDef):
            yield at.name.value
        at = tree.parents.get(at)
