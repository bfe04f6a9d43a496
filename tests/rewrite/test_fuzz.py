"""Random edits of real source files: the result parses, keeps its comments, differs there only.

The sources are the examples, the zoo's models, the standard library and, where it is installed,
transformers' models: as they are, with Windows line ends, or with tabs. A refusal is fine; a file
that is broken or changed elsewhere is not. More of it, from other files each time:

    FUZZ=2000 pytest tests/rewrite/test_fuzz.py
"""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from automup.edits import Edit, Factor
from automup.errors import RewriteError
from automup.facts import Span
from automup.rewrite import edit_sites
from conftest import EXAMPLES, ROOT

EXAMPLES_RUN = int(os.environ.get("FUZZ", "15"))
LARGEST = 12_000 if EXAMPLES_RUN < 100 else 120_000  # bytes of a source
FACTORS = [
    Factor("k.size(-1)", 32, -0.5),
    Factor("x.size(-1)", 256, -1.0),
    Factor("n + 1", 8, 2.0),
    Factor("x.size(-1)", 64, -1.0, 0.3),
]


def sources() -> Iterator[Path]:
    yield from sorted(EXAMPLES.glob("*.py"))
    yield from sorted((ROOT / "tests" / "zoo" / "models").glob("*.py"))
    yield from sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    found = importlib.util.find_spec("transformers")
    if found is not None and found.origin is not None:
        yield from sorted(Path(found.origin).parent.glob("models/*/modeling_*.py"))


SOURCES = [path for path in sources() if 0 < path.stat().st_size < LARGEST]


def span_of(node: ast.expr, lines: list[str]) -> Span:
    """The span in characters; ast counts bytes."""

    def characters(line: int, column: int) -> int:
        return len(lines[line - 1].encode()[:column].decode())

    end, last = node.end_lineno or 0, node.end_col_offset or 0
    start = characters(node.lineno, node.col_offset)
    return Span("model.py", node.lineno, start, end, characters(end, last))


def candidates(tree: ast.Module) -> list[tuple[ast.expr, ast.stmt]]:
    """Expressions that a trace could name, each with the innermost statement around it."""
    found: list[tuple[ast.expr, ast.stmt]] = []

    def walk(node: ast.AST, statement: ast.stmt | None) -> None:
        statement = node if isinstance(node, ast.stmt) else statement
        if isinstance(node, ast.Call | ast.BinOp | ast.AugAssign) and statement is not None:
            found.append((node, statement))  # type: ignore[arg-type]
        for child in ast.iter_child_nodes(node):
            walk(child, statement)

    walk(tree, None)
    return found


def comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [t.string.rstrip() for t in tokens if t.type == tokenize.COMMENT]


def edited_lines(statement: ast.stmt) -> range:
    """The lines that an edit in a statement may change: of a compound one, its header's."""
    body = getattr(statement, "body", None)
    end = statement.end_lineno or statement.lineno
    if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
        end = max(statement.lineno, body[0].lineno - 1)
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
    return range(first, end + 1)


@settings(
    max_examples=EXAMPLES_RUN,
    deadline=None,
    derandomize="FUZZ" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(st.data())
def test_random_edits_of_real_files(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(SOURCES), "file")
    text = path.read_text(encoding="utf-8", errors="replace").removeprefix("\ufeff")
    style = data.draw(st.sampled_from(["as it is", "windows"]), "style")
    text = text.replace("\r\n", "\n").replace("\f", "")
    lines = text.split("\n")
    found = candidates(ast.parse(text))
    if not found:
        return
    chosen = data.draw(st.lists(st.sampled_from(range(len(found))), min_size=1, max_size=4))
    text = text.replace("\n", "\r\n") if style == "windows" else text
    edits: list[Edit] = []
    touched: set[int] = set()
    for number in dict.fromkeys(chosen):
        node, statement = found[number]
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        factor = data.draw(st.sampled_from(FACTORS))
        constant, call = data.draw(st.booleans()), data.draw(st.booleans())
        edit = Edit(span_of(node, lines), factor, constant, frozenset(names), call)
        try:
            edit_sites(text, [edit], filename="model.py", add_imports=False)
        except RewriteError as refusal:
            note(f"refused: {refusal}")
            continue
        edits.append(edit)
        touched.update(edited_lines(statement))
    try:
        after = edit_sites(text, edits, filename="model.py", add_imports=False)
    except RewriteError:
        return
    ast.parse(after)
    assert comments(after) == comments(text)
    if not edits:
        return
    assert after != text
    old, new = text.split("\n"), after.split("\n")
    assert len(old) == len(new)
    changed = {
        number for number, pair in enumerate(zip(old, new, strict=True), 1) if len({*pair}) > 1
    }
    assert changed <= touched
    assert (after.count("\r\n") == after.count("\n")) == (style == "windows") or "\n" not in after
    assert any(e.factor.size in after for e in edits)
