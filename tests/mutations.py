"""The mutants of a module that may change a number: every sign, number, condition and order."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, cast

ROOT = Path(__file__).parents[1]

Change = Callable[[Any], None]

OTHER: dict[type, type] = {
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
PAIRS = [("fan_in", "fan_out"), ("min", "max"), ("any", "all"), ("fan_in_dims", "fan_out_dims")]
SWAPPED = {**dict(PAIRS), **{b: a for a, b in PAIRS}}
#: Functions whose arguments' order says nothing, or the type checker holds.
SYMMETRIC = {"min", "max", "isinstance", "issubclass", "getattr", "hasattr", "cast", "partial"}
#: Keywords that change no number.
SILENT = {"frozen", "strict", "stacklevel", "init", "repr"}


def changes(node: ast.AST) -> Iterator[Change]:
    """How to make a node mean something else."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OTHER:
        yield lambda n: setattr(n, "op", OTHER[type(n.op)]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield lambda n: become(n, n.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.If | ast.IfExp | ast.While) and not negatable(node.test):
        yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    if isinstance(node, ast.comprehension):
        for i, condition in enumerate(node.ifs):
            if not negatable(condition):
                yield lambda n, i=i: n.ifs.__setitem__(i, ast.UnaryOp(ast.Not(), n.ifs[i]))
    if isinstance(node, ast.BoolOp):
        for i in range(len(node.values)):
            yield lambda n, i=i: without(n, i)
    if isinstance(node, ast.Compare):
        for i in range(len(node.ops)):
            yield lambda n, i=i: n.ops.__setitem__(i, OTHER[type(n.ops[i])]())
        last = node.comparators[-1]
        if isinstance(node.ops[-1], ast.In | ast.NotIn) and isinstance(last, ast.Tuple | ast.Set):
            for i in range(len(last.elts)):
                yield lambda n, i=i: n.comparators[-1].elts.pop(i)
    if isinstance(node, ast.Attribute) and node.attr in SWAPPED:
        yield lambda n: setattr(n, "attr", SWAPPED[n.attr])
    if isinstance(node, ast.Name) and node.id in SWAPPED:
        yield lambda n: setattr(n, "id", SWAPPED[n.id])
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and ordered(node.elts):
        yield lambda n: swap(n.elts, 0, 1)
    if isinstance(node, ast.Call) and len(node.args) > 1 and name_of(node.func) not in SYMMETRIC:
        yield lambda n: swap(n.args, -2, -1)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield lambda n: setattr(n, "value", ast.Constant(None))


def ordered(items: list[ast.expr]) -> bool:
    """Whether the order of items may count: not that of names."""
    return len(items) > 1 and not all(isinstance(item, ast.Constant) for item in items)


def negatable(test: ast.expr) -> bool:
    """Whether another change turns a condition into its opposite."""
    if isinstance(test, ast.Compare):
        return len(test.ops) == 1 and not isinstance(
            test.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE
        )
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def name_of(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


def become(node: ast.AST, other: ast.AST) -> None:
    node.__class__ = other.__class__
    node.__dict__ = other.__dict__


def without(node: Any, i: int) -> None:
    node.values.pop(i)
    if len(node.values) == 1:
        become(node, node.values[0])


def swap(items: list[Any], i: int, j: int) -> None:
    items[i], items[j] = items[j], items[i]


@dataclass(frozen=True)
class Place:
    """A node, the statement that it belongs to, and whether that runs when a function is called."""

    node: ast.AST
    statement: ast.AST
    called: bool


def places(node: ast.AST, statement: ast.AST, called: bool = False) -> Iterator[Place]:
    """The nodes of a module that may change a number: no annotations and no messages."""
    yield Place(node, statement, called)
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    for name, value in ast.iter_fields(node):
        inner = called or (
            name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        )
        if name in ("annotation", "returns", "type"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.keyword) and child.arg in SILENT:
                continue
            if isinstance(child, ast.AST):
                own = child if isinstance(child, ast.stmt) else statement
                yield from places(child, own, inner)


@dataclass(frozen=True)
class Mutant:
    """A module's other code, and where it differs.

    ``lines``: of the changed statement; ``called``: it runs when a function is called, else when
    the module is imported.
    """

    name: str
    file: Path
    code: CodeType
    label: str
    lines: range
    called: bool


def mutants(name: str) -> Iterator[Mutant]:
    file = file_of(name)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for number, place in enumerate(places(tree, tree)):
        for changed in changes(place.node):
            other = copy.deepcopy(tree)
            node = [p.node for p in places(other, other)][number]
            changed(node)
            ast.fix_missing_locations(other)
            at, statement = getattr(place.node, "lineno", 0), cast(Any, place.statement)
            first = getattr(statement, "lineno", 0)
            label = f"{file.name}:{at or first}: {shown(place.node)}  ->  {shown(node)}"
            lines = range(first, getattr(statement, "end_lineno", 0) + 1)
            yield Mutant(name, file, compile(other, str(file), "exec"), label, lines, place.called)


def shown(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).splitlines()[:2])


def file_of(name: str) -> Path:
    module = ROOT / "autumup" / name.replace(".", "/")
    return module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
