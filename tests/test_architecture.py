"""Facts flow one way: which module may import what, in the source and in a fresh process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT

PACKAGE = ROOT / "autumup" / "automup"
HEAVY = {"torch", "libcst", "numpy", "networkx"}


def imports(path: Path, *, typing: bool = False) -> Iterator[str]:
    """The modules that a file imports when it is imported; ``typing``: those for types, too."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        skipped = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not skipped and (typing or not for_types):
            todo += ast.iter_child_nodes(node)


@pytest.mark.parametrize(
    "module", ["rules", "plan", "errors", "files", "reading", "constants", "report", "cli"]
)
def test_facts_can_be_read_without_torch(module: str) -> None:
    code = f"""
import sys
import automup.{module}
loaded = {{name.partition(".")[0] for name in sys.modules}} & {HEAVY!r}
assert not loaded, loaded
"""
    environment = {"PYTHONPATH": str(PACKAGE.parent), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_the_rewriter_sees_no_live_model() -> None:
    seen = {m for path in (PACKAGE / "rewrite").glob("*.py") for m in imports(path, typing=True)}
    assert not {m for m in seen if m.partition(".")[0] == "torch"}
    below = ("automup.capture", "automup.study", "automup.models", "automup.api", "automup.apply")
    assert not {m for m in seen if m.startswith(below)}


def test_nothing_imports_the_command_line() -> None:
    door = PACKAGE / "__main__.py"
    others = [p for p in PACKAGE.rglob("*.py") if PACKAGE / "cli" not in p.parents and p != door]
    assert not [
        p for p in others if any(m.startswith("automup.cli") for m in imports(p, typing=True))
    ]


def test_the_analysis_draws_no_report_and_changes_no_model() -> None:
    """capture and analysis come before the plan's users."""
    later = (
        "automup.report",
        "automup.rewrite",
        "automup.apply",
        "automup.optim",
        "automup.convert",
    )
    for folder in ("capture", "analysis"):
        for path in (PACKAGE / folder).rglob("*.py"):
            assert not [m for m in imports(path) if m.startswith(later)], path
