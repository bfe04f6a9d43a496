"""Whether an expression is the same as an edited one, and what its size is called there."""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import libcst as cst

from automup.edits import Edit
from automup.rewrite.forms import MATMULS, is_attention, repeatable
from automup.rewrite.imports import Imports
from automup.rewrite.scalars import is_scalar
from automup.rewrite.syntax import code, keyword, last_name, positional


@dataclass(frozen=True)
class Twin:
    """How an edit reads at a twin of its expression."""

    size: str
    tensor_names: frozenset[str]


def match_twin(
    site: cst.CSTNode, other: cst.CSTNode, edit: Edit, imports: Imports
) -> Twin | str | None:
    """The edit's size at ``other`` if that is the same expression; a reason if it has none there.

    None: it is another expression.
    """
    if type(site) is not type(other):
        return None
    renamed = _renaming(site, other, imports)
    if not _same(site, other, edit, renamed, imports):
        return None
    names = renamed if renamed is not None else {}
    size = _size(site, other, edit, names, imports)
    if size is None:
        return "is the same expression as the edited one, but its own names do not tell the size,"
    tensors = {names.get(name, name) for name in edit.tensor_names}
    return Twin(size, frozenset(tensors))


def _same(
    site: cst.CSTNode,
    other: cst.CSTNode,
    edit: Edit,
    renamed: Mapping[str, str] | None,
    imports: Imports,
) -> bool:
    if isinstance(site, cst.Call) and isinstance(other, cst.Call):
        if is_attention(site, edit, imports):
            return imports.called(site.func) == imports.called(other.func)
        if edit.module_call and not imports.origin(site.func):
            return _text(site.func) == _text(other.func) and bool(other.args)
    if _same_weight(site, other):
        return True
    if renamed is None:
        return False
    if all(old == new for old, new in renamed.items()):
        return True
    return edit.constant and _tells(site, edit)


def _same_weight(site: cst.CSTNode, other: cst.CSTNode) -> bool:
    """Whether both contract something with the same attribute of ``self``: ``h @ self.w``."""
    if isinstance(site, cst.BinaryOperation) and isinstance(other, cst.BinaryOperation):
        if not isinstance(site.operator, cst.MatrixMultiply) or type(site.operator) is not type(
            other.operator
        ):
            return False
        weights = [_text(site.right), _text(other.right)]
    elif isinstance(site, cst.Call) and isinstance(other, cst.Call):
        if last_name(site.func) not in MATMULS or _text(site.func) != _text(other.func):
            return False
        weights = [",".join(_text(arg) for arg in call.args[1:]) for call in (site, other)]
    else:
        return False
    return weights[0] == weights[1] and "self." in weights[0]


def _tells(site: cst.CSTNode, edit: Edit) -> bool:
    """Whether the author's constant is one that names do not matter for: a size, an attribute."""
    if isinstance(site, cst.AugAssign):
        sides: list[cst.BaseExpression] = [site.value]
    elif isinstance(site, cst.BinaryOperation):
        sides = [site.left, site.right]
    elif isinstance(site, cst.Call):
        sides = [arg.value for arg in site.args]
    else:
        sides = []
    constants = [_text(side) for side in sides if is_scalar(side, edit.tensor_names)]
    return any(mark in text for text in constants for mark in (".size(", ".shape[", "self."))


def _size(
    site: cst.CSTNode,
    other: cst.CSTNode,
    edit: Edit,
    renamed: Mapping[str, str],
    imports: Imports,
) -> str | None:
    """The factor's size expression in the twin's names."""
    there = _names_in(_text(other)) | {"self"}
    tree = ast.parse(edit.factor.size, mode="eval")
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - set(dir(builtins))
    if {renamed.get(name, name) for name in used} <= there and used <= {*renamed, "self"}:
        return ast.unparse(_Renamer(renamed).visit(tree))
    if used <= there:
        return edit.factor.size
    if isinstance(site, cst.Call) and isinstance(other, cst.Call):
        attention = is_attention(site, edit, imports)
        here, there_too = _sized(site, attention), _sized(other, attention)
        for position, text in enumerate(here):
            if text == edit.factor.size:  # query and key have the same last size
                return next(filter(None, [*there_too[position:], *there_too]), None)
    return None


def _sized(call: cst.Call, attention: bool) -> list[str]:
    """``.size(-1)`` of the first argument, of query and key for attention; "" where unclear."""
    found = []
    for index, name in enumerate(("query", "key") if attention else ("input",)):
        arg = positional(call, index) or keyword(call, name)
        clear = arg is not None and repeatable(arg.value)
        found.append(f"{_text(arg)}.size(-1)" if arg is not None and clear else "")
    return found


class _Renamer(ast.NodeTransformer):
    def __init__(self, renamed: Mapping[str, str]) -> None:
        self.renamed = renamed

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.renamed.get(node.id, node.id), node.ctx)


def _text(node: cst.CSTNode) -> str:
    """Source text without the differences that white space makes."""
    return ast.unparse(_syntax(node))


def _syntax(node: cst.CSTNode) -> ast.AST:
    if isinstance(node, cst.Arg):
        node = node.value
    text = code(node)
    if isinstance(node, cst.BaseExpression):
        return ast.parse(f"({text}\n)", mode="eval").body
    return ast.parse(textwrap.dedent(text)).body[0]


def _names_in(text: str) -> set[str]:
    return {n.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}


def _renaming(site: cst.CSTNode, other: cst.CSTNode, imports: Imports) -> dict[str, str] | None:
    """The one-to-one renaming of local names that turns one expression into the other, if any."""
    renamed: dict[str, str] = {}
    if not _unify(_syntax(site), _syntax(other), renamed):
        return None
    fixed = {*imports.all, "self", *dir(builtins)}
    moved = {old for old, new in renamed.items() if old != new}
    if moved & fixed or len(set(renamed.values())) < len(renamed):
        return None
    return renamed


def _unify(one: object, two: object, renamed: dict[str, str]) -> bool:
    if isinstance(one, ast.Name) and isinstance(two, ast.Name):
        return renamed.setdefault(one.id, two.id) == two.id
    if isinstance(one, ast.AST) and type(one) is type(two):
        return all(
            _unify(getattr(one, field, None), getattr(two, field, None), renamed)
            for field in one._fields
        )
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(
            _unify(a, b, renamed) for a, b in zip(one, two, strict=True)
        )
    return type(one) is type(two) and one == two
