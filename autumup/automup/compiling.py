"""One function's code compiled anew from edited source, in the scope that it was written in.

The names that shall mean something else in it are made parameters of a function around it, so in
the new code they are free variables, and the globals of its file stay the same living dictionary::

    def attend(q, k): ...  ->  def around(scores, math): def attend(q, k): ...
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

from automup.edits import Edit
from automup.errors import RewriteError, UnresolvedError
from automup.rewrite import edit_sites

AROUND, MARK, GUARD = "_automup_around", "_automup_mark", "_automup_guard"
_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class Guard:
    """A statement that no trace ran and that may need a multiplier: what it does, and where."""

    line: int
    what: str
    where: str


def refuse(what: str, where: str) -> None:
    """Refuse to run a guarded statement."""
    raise UnresolvedError(
        f"No trace ran this code, and it may need a multiplier: {what}.",
        where=where,
        fix="Pass `inputs` that reach it to parametrize.",
    )


@dataclass(frozen=True)
class Compiled:
    """New code; ``names``: each renamed global's free variable; ``values``: those of new ones."""

    code: CodeType
    names: Mapping[str, str]
    values: Mapping[str, Any]


def compile_edited(
    text: str,
    code: CodeType,
    edits: Sequence[Edit],
    guards: Sequence[Guard],
    renamed: Sequence[str],
    known: Mapping[str, Any],
) -> Compiled:
    """The code of a function after edits of its file.

    Args:
        text: the source of its file.
        code: its code as it is.
        edits: what to edit; their spans lie in this function.
        guards: statements of it before which it shall fail.
        renamed: names of globals, dotted where an attribute of one is meant, to make free.
        known: the function's globals.

    Raises:
        RewriteError: if the source does not hold the function, or an edit has no place in it.
    """
    edited = text
    if edits:
        edited = edit_sites(text, tuple(edits), filename=code.co_filename, add_imports=False)
    number = _number_of(code, _in_order(_parsed(text)))
    tree = _parsed(edited)
    node = _in_order(tree)[number]
    names = {n: f"_automup_{i}" if "." in n else n for i, n in enumerate(dict.fromkeys(renamed))}
    # The edits may have come to need math, by a name that the file has not bound otherwise.
    values: dict[str, Any] = {
        n: math for n in ("math", "_math") if edits and n not in known and n not in names
    }
    values |= {GUARD: refuse} if guards else {}
    guarded = {guard.line: guard for guard in guards}
    tree = _Around(node, names, (*names.values(), *values), guarded).visit(tree)
    module = compile(ast.fix_missing_locations(tree), code.co_filename, "exec", dont_inherit=True)
    new = _renamed(_inside(module, code.co_name), code.co_qualname)
    for name in names.values():
        if name not in new.co_freevars:
            raise RewriteError(
                f"{code.co_qualname} does not call {name} by its global name alone.",
                where=f"{code.co_filename}:{code.co_firstlineno}",
                fix="Keep the scale in a float attribute of the module.",
            )
    return Compiled(new, names, values)


def _parsed(text: str) -> ast.Module:
    return ast.parse(text.removeprefix("\ufeff"))


def _in_order(tree: ast.AST) -> list[_Function]:
    """The functions of a file in the order of the text, which edits of expressions keep."""
    found = [n for n in ast.walk(tree) if isinstance(n, _Function)]
    return sorted(found, key=lambda n: (n.lineno, n.col_offset))


def _number_of(code: CodeType, functions: Sequence[_Function]) -> int:
    """Which of a file's functions has this code."""
    for number, node in enumerate(functions):
        if isinstance(node, ast.Lambda):
            if code.co_name == "<lambda>" and _runs_in(code, node.body):
                return number
        elif node.name == code.co_name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first == code.co_firstlineno:
                return number
    raise RewriteError(
        f"The source of {code.co_qualname} is not where it was compiled from.",
        where=f"{code.co_filename}:{code.co_firstlineno}",
        fix="Restart after changing a model's file; code that is generated cannot be edited.",
    )


def _runs_in(code: CodeType, body: ast.expr) -> bool:
    """Whether the code's last expression, what a lambda returns, is this one."""
    spans = [p for p in code.co_positions() if None not in p]
    whole = (body.lineno, body.end_lineno, body.col_offset, body.end_col_offset)
    return code.co_firstlineno <= body.lineno and whole in spans


class _Around(ast.NodeTransformer):
    """Puts a function with the given parameters around one node, in which names are renamed."""

    def __init__(
        self,
        node: _Function,
        names: Mapping[str, str],
        parameters: Sequence[str],
        guards: Mapping[int, Guard],
    ) -> None:
        self.node, self.names, self.inside, self.guards = node, names, False, guards
        self.args = ast.arguments(
            [], [ast.arg(p) for p in (MARK, *parameters)], None, [], [], None, []
        )

    def visit(self, node: ast.AST) -> Any:
        if node is not self.node:
            made: Any = super().visit(node)
            guarded = self.inside and isinstance(node, ast.stmt) and node.lineno in self.guards
            return [self._guard(node), made] if guarded else made
        self.inside = True
        inner: Any = self.generic_visit(node)
        self.inside = False
        if isinstance(node, ast.Lambda):
            return ast.copy_location(ast.Lambda(self.args, inner), node)
        around = ast.FunctionDef(AROUND, self.args, [inner], [], None, None)
        return ast.copy_location(around, node)

    def _guard(self, node: ast.AST) -> ast.AST:
        guard = self.guards[node.lineno]  # type: ignore[attr-defined]
        args: list[ast.expr] = [ast.Constant(guard.what), ast.Constant(guard.where)]
        call = ast.Call(ast.Name(GUARD, ast.Load()), args, [])
        return ast.copy_location(ast.Expr(call), node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        name = self.names.get(ast.unparse(node)) if self.inside else None
        if name is not None and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Name(name, ast.Load()), node)
        return self.generic_visit(node)


def _inside(module: CodeType, name: str) -> CodeType:
    """The code of this name in the one that takes the parameter MARK."""
    pending = [module]
    for code in pending:
        inner = [c for c in code.co_consts if isinstance(c, CodeType)]
        if MARK in code.co_varnames:
            return next(c for c in inner if c.co_name == name)
        pending += inner
    raise AssertionError("the function was put there")


def _renamed(code: CodeType, name: str) -> CodeType:
    """The code under another qualified name, as those nested in it."""
    consts = tuple(
        _renamed(c, f"{name}{c.co_qualname.removeprefix(code.co_qualname)}")
        if isinstance(c, CodeType)
        else c
        for c in code.co_consts
    )
    return code.replace(co_qualname=name, co_consts=consts)
