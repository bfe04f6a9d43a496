"""Mutation testing: every mutant of a module that may change a number, against some tests.

    python tests/mutants.py automup.rules tests/test_rules.py

prints the mutants that no test notices. Each runs in a fork of this process, which has torch
already; a mutant of ``frozen=True`` or of a message changes no number.
"""

from __future__ import annotations

import ast
import copy
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
import torch  # noqa: F401 (every mutant has it loaded)

ROOT = Path(__file__).parents[1]
OTHER: dict[type, type] = {
    ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Pow: ast.Mult,
}  # fmt: skip
SWAPPED = {"fan_in": "fan_out", "fan_out": "fan_in", "min": "max", "max": "min"}


def change(node: ast.AST) -> Callable[[Any], None] | None:
    """How to make a node mean something else, or None."""
    if isinstance(node, ast.BinOp) and type(node.op) in OTHER:
        return lambda n: setattr(n, "op", OTHER[type(n.op)]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return lambda n: setattr(n, "value", not n.value)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.If | ast.IfExp):
        return lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    if isinstance(node, ast.Attribute) and node.attr in SWAPPED:
        return lambda n: setattr(n, "attr", SWAPPED[n.attr])
    if isinstance(node, ast.Name) and node.id in SWAPPED:
        return lambda n: setattr(n, "id", SWAPPED[n.id])
    return None


def mutants(tree: ast.Module) -> Iterator[tuple[int, ast.Module]]:
    for number, node in enumerate(ast.walk(tree)):
        changed = change(node)
        if changed is not None:
            mutant = copy.deepcopy(tree)
            changed([*ast.walk(mutant)][number])
            yield getattr(node, "lineno", 0), ast.fix_missing_locations(mutant)


class Mutant(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module another code when it is imported."""

    def __init__(self, name: str, file: Path, code: CodeType) -> None:
        self._name, self._file, self._code = name, file, code

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._file, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, vars(module))


def noticed(mutant: Mutant, tests: list[str]) -> bool:
    """Whether the tests fail in a fork that imports the mutant."""
    child = os.fork()
    if child == 0:
        sys.meta_path.insert(0, mutant)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        status = 1
        try:
            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(status and 1)
    return os.waitpid(child, 0)[1] != 0


def main(name: str, *tests: str) -> None:
    file = (ROOT / "autumup" / name.replace(".", "/")).with_suffix(".py")
    text = file.read_text(encoding="utf-8")
    killed = survived = 0
    for line, tree in mutants(ast.parse(text)):
        if noticed(Mutant(name, file, compile(tree, str(file), "exec")), list(tests)):
            killed += 1
        else:
            survived += 1
            print(f"{file.name}:{line}: {text.splitlines()[line - 1].strip()}", flush=True)
    print(f"{name}: {killed} killed, {survived} survived")


if __name__ == "__main__":
    main(*sys.argv[1:])
