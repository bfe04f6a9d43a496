"""What a file imports, and adding one plain import where its author would have."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from automup.rewrite.syntax import dotted, last_name


@dataclass(frozen=True)
class Imports:
    """Local names that a file's imports bind, as ``{"F": "torch.nn.functional", ...}``.

    ``top`` are those of the module's own level, ``all`` those of its functions too; ``others``
    are names that anything else in the file binds.
    """

    top: dict[str, str]
    all: dict[str, str]
    others: frozenset[str]

    def origin(self, function: cst.BaseExpression) -> str:
        """The full dotted name of what is called, or "" if it does not start at an import."""
        root, _, rest = dotted(function).partition(".")
        if root not in self.all:
            return ""
        return f"{self.all[root]}.{rest}" if rest else self.all[root]

    def called(self, function: cst.BaseExpression) -> str:
        """The last name of what is called, as its module calls it: no ``as`` changes it."""
        return self.origin(function).rpartition(".")[2] or last_name(function)

    def local(self, module: str) -> str:
        """The top-level name that is bound to this module or member, or ""."""
        return next((name for name, origin in self.top.items() if origin == module), "")

    def name_for(self, module: str) -> str:
        """A name to reach the module by: the one that it has, or a free one to import it as."""
        return self.local(module) or (f"_{module}" if module in self.others else module)


def _bindings(node: cst.Import | cst.ImportFrom) -> dict[str, str]:
    if isinstance(node.names, cst.ImportStar):
        return {}
    prefix = ""
    if isinstance(node, cst.ImportFrom):
        source = dotted(node.module) if node.module is not None else ""
        prefix = "." * len(node.relative) + source + "."
    found = {}
    for alias in node.names:
        name = dotted(alias.name)
        if alias.asname is not None:
            found[cst.ensure_type(alias.asname.name, cst.Name).value] = prefix + name
        elif isinstance(node, cst.ImportFrom):
            found[name] = prefix + name
        else:
            root = name.partition(".")[0]
            found[root] = root
    return found


class _Names(cst.CSTVisitor):
    def __init__(self) -> None:
        self.imported: dict[str, str] = {}
        self.bound: set[str] = set()

    def visit_Import(self, node: cst.Import) -> bool:
        self.imported.update(_bindings(node))
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        self.imported.update(_bindings(node))
        return False

    def visit_Param(self, node: cst.Param) -> None:
        self.bound.add(node.name.value)

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        if isinstance(node.target, cst.Name):
            self.bound.add(node.target.value)

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self.bound.add(node.name.value)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        self.bound.add(node.name.value)


@lru_cache(maxsize=8)
def read_imports(module: cst.Module) -> Imports:
    """The names that a module's imports bind."""
    names = _Names()
    module.visit(names)
    top: dict[str, str] = {}
    for statement in module.body:
        if isinstance(statement, cst.SimpleStatementLine):
            for small in statement.body:
                if isinstance(small, (cst.Import, cst.ImportFrom)):
                    top.update(_bindings(small))
    return Imports(top, names.imported, frozenset(names.bound))


def ensure_import(module: cst.Module, name: str) -> cst.Module:
    """The module with ``import name`` among its imports, once; unchanged if it is there.

    The line goes among the imports of its kind (standard library or not) in alphabetical order.
    """
    imports = read_imports(module)
    if imports.local(name):
        return module
    local = imports.name_for(name)
    text = f"import {name}" if local == name else f"import {name} as {local}"
    line = cst.parse_statement(text, config=module.config_for_parsing)
    return module.with_changes(body=_insert(list(module.body), line, name))


_Statement = cst.SimpleStatementLine | cst.BaseCompoundStatement


def _split(statement: _Statement) -> tuple[list[cst.EmptyLine], list[cst.EmptyLine]]:
    """The blank lines before a statement, and the comments that belong to it."""
    lines = list(statement.leading_lines)
    head = 0
    while head < len(lines) and lines[head].comment is None:
        head += 1
    return lines[:head], lines[head:]


def _docstring(statement: _Statement) -> bool:
    small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
    return isinstance(small, cst.Expr) and isinstance(
        small.value, (cst.SimpleString, cst.ConcatenatedString)
    )


def _module_of(statement: _Statement) -> str:
    """The first module that a top-level import statement names, else the empty string."""
    if not isinstance(statement, cst.SimpleStatementLine) or not statement.body:
        return ""
    small = statement.body[0]
    if isinstance(small, cst.Import):
        return dotted(small.names[0].name)
    if isinstance(small, cst.ImportFrom):
        source = dotted(small.module) if small.module is not None else ""
        return "." * len(small.relative) + source
    return ""


def _is_from(statement: _Statement) -> bool:
    small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
    return isinstance(small, cst.ImportFrom)


def _standard(statement: _Statement) -> bool:
    return _module_of(statement).partition(".")[0] in sys.stdlib_module_names


def _import_block(body: Sequence[_Statement]) -> tuple[int, int]:
    """Where a module's first run of imports starts, after docstring and __future__, and ends."""
    first = 0
    while first < len(body) and (
        (first == 0 and _docstring(body[0])) or _module_of(body[first]) == "__future__"
    ):
        first += 1
    end = first
    while end < len(body) and _module_of(body[end]):
        end += 1
    return first, end


def _insert(body: Sequence[_Statement], line: _Statement, name: str) -> list[_Statement]:
    """The statements with an import line in its place, blank lines between groups kept right."""
    first, end = _import_block(body)
    gap = cst.EmptyLine(indent=False)
    standard = name in sys.stdlib_module_names
    kin = [i for i in range(first, end) if _standard(body[i]) == standard]
    before = next((i for i in kin if _is_from(body[i]) or _module_of(body[i]) > name), None)
    if before is None and not kin and standard and first < end:
        before = first  # a group of its own, before the others
    if before is not None:  # opens the group, so it takes the blank lines over
        head, comments = _split(body[before])
        line = line.with_changes(leading_lines=head)
        rest = comments if kin else [gap, *comments]
        return [
            *body[:before],
            line,
            body[before].with_changes(leading_lines=rest),
            *body[before + 1 :],
        ]
    if kin:
        return [*body[: kin[-1] + 1], line, *body[kin[-1] + 1 :]]
    after = list(body[end:])
    if after and not _split(after[0])[0]:
        after[0] = after[0].with_changes(leading_lines=[gap, *after[0].leading_lines])
    return [*body[:end], line.with_changes(leading_lines=[gap] if end else []), *after]
