"""Which function a line of source belongs to."""

from __future__ import annotations

import ast


def function_at(text: str, line: int) -> str:
    """The qualified name of the innermost function around a line, as Python gives it."""
    found = ""
    pending: list[tuple[ast.AST, str]] = [(ast.parse(text.removeprefix("\ufeff")), "")]
    while pending:
        node, path = pending.pop()
        for child in ast.iter_child_nodes(node):
            inside = path
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                inside = f"{path}{child.name}"
                if child.lineno <= line <= (child.end_lineno or child.lineno):
                    if not isinstance(child, ast.ClassDef):
                        found = inside
                        inside += ".<locals>"
                    inside += "."
                else:
                    continue
            pending.append((child, inside))
    return found
