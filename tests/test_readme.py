"""What the README and the pages of docs/ show is what the program prints today.

A comment above a block, which GitHub does not show, says what becomes of it:

    <!-- run -->                 a python block; or a block whose first line is "$ automup ..."
    <!-- output -->              what the python block before it prints
    <!-- not run: the reason --> every other python or console block

The python blocks share one namespace. Output may be abridged; a line "…" stands for what is left
out:

    <!-- run; omit: REGEX -->               without the lines that match
    <!-- run; omit: REGEX .. REGEX -->      without those from a match up to the next match of the
                                            second one, or to the end if that is empty

Rewrite what is shown with ``UPDATE_README=1 pytest tests/test_readme.py``.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main

from automup import cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TESTED_ELSEWHERE = ("coverage.md", "recipes.md")  # by tests/zoo and tests/training
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *(p for p in DOCS if p.name not in TESTED_ELSEWHERE)]
UPDATE = bool(os.environ.get("UPDATE_README"))
GAP = "…"
BLOCK = re.compile(
    r"^<!-- (?P<kind>run|output|not run)(?P<how>.*?) -->\n```(?P<language>\w+)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A marked block: ``omit`` are pairs of patterns, the second None for single lines."""

    kind: str
    omit: tuple[tuple[str, str | None], ...]
    language: str
    body: str
    number: int
    page: Path

    def __str__(self) -> str:
        return f"{self.page.stem}-{self.language}{self.number}"


def blocks(page: Path) -> Iterator[Block]:
    for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8"))):
        orders = (
            [o.strip() for o in match["how"].split(";")[1:]] if match["kind"] != "not run" else []
        )
        assert all(o.startswith("omit: ") for o in orders), match["how"]
        pairs = [re.split(r" \.\.(?: |$)", o.removeprefix("omit: "), maxsplit=1) for o in orders]
        omit = tuple((first, *(rest or [None])) for first, *rest in pairs)
        yield Block(match["kind"], omit, match["language"], match["body"], number, page)


TEXT = README.read_text(encoding="utf-8")
BLOCKS = {page: list(blocks(page)) for page in PAGES}
COMMANDS = [b for p in PAGES for b in BLOCKS[p] if b.kind == "run" and b.language != "python"]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


# --- what is shown -------------------------------------------------------------------------------


def abridged(printed: str, omit: Iterable[tuple[str, str | None]]) -> str:
    """The output without the lines that the block leaves out, each gap as one line."""
    lines = [line.rstrip() for line in printed.rstrip().splitlines()]
    for first, last in omit:
        gone = without(lines, re.compile(first), last)
        assert gone, f"nothing to omit: {first}"
        kept = set(range(len(lines))) - gone
        # single lines that are left out here and there are one gap, at the last of them
        ends = {max(gone)} if last is None else {i for i in gone if i + 1 not in gone}
        lines = [lines[i] if i in kept else GAP for i in range(len(lines)) if i in kept | ends]
    text = "\n".join(lines)
    return re.sub(rf"^{GAP}(\n+{GAP})+$", GAP, text, flags=re.MULTILINE) + "\n"


def without(lines: list[str], first: re.Pattern[str], last: str | None) -> set[int]:
    """The numbers of the lines to leave out; a blank line before ``last`` stays."""
    if last is None:
        return {i for i, line in enumerate(lines) if first.search(line)}
    gone: set[int] = set()
    inside = False
    for number, line in enumerate(lines):
        if inside and last and re.search(last, line):
            inside = False
            if not lines[number - 1]:
                gone.discard(number - 1)
        inside = inside or bool(first.search(line))
        if inside:
            gone.add(number)
    return gone


def compare(page: Path, shown: dict[int, str]) -> None:
    """Blocks by number with what they should show: assert that they do, or rewrite the page."""
    if not UPDATE:
        assert shown == {b.number: b.body for b in BLOCKS[page] if b.number in shown}
        return
    assert "PYTEST_XDIST_WORKER" not in os.environ, "update pages without -n"
    text = page.read_text(encoding="utf-8")
    matches = list(BLOCK.finditer(text))
    for number in sorted(shown, reverse=True):
        start, end = matches[number].span("body")
        text = text[:start] + shown[number] + text[end:]
    page.write_text(text, encoding="utf-8")


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that holds the examples, and output that no terminal has a say in."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_commands_print_what_is_shown(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    command = block.body.splitlines()[0]
    assert command.startswith("$ automup ")
    monkeypatch.setattr(sys, "argv", shlex.split(command.removeprefix("$ ")))
    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        pytest.raises(SystemExit) as ended,
    ):
        cli.main()
    assert ended.value.code == 0, printed.getvalue()
    compare(block.page, {block.number: f"{command}\n{abridged(printed.getvalue(), block.omit)}"})


@by_page
def test_the_code_prints_what_is_shown(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "readme"}
    shown: dict[int, str] = {}
    blocks = BLOCKS[page]
    for number, block in enumerate(blocks):
        if block.kind != "run" or block.language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.body, f"{page.name}, block {number}", "exec"), namespace)
        follows = blocks[number + 1] if number + 1 < len(blocks) else None
        if follows is not None and follows.kind == "output":
            shown[follows.number] = abridged(printed.getvalue(), follows.omit)
        else:
            assert not printed.getvalue(), "its output is not shown"
    compare(page, shown)


# --- what is said --------------------------------------------------------------------------------


@by_page
def test_every_block_of_code_says_whether_it_is_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(python|console|diff)$", text, flags=re.MULTILINE)
    assert len(fences) == sum(b.language in ("python", "console", "diff") for b in BLOCKS[page])


def test_the_command_line_is_described_as_it_is() -> None:
    """All of it is in docs/options.md, which has a test of its own."""
    section = TEXT.split("\n## Command line\n")[1].split("\n## ")[0]
    commands: Any = typer.main.get_command(cli.app)
    parameters = [p for c in (commands, *commands.commands.values()) for p in c.params]
    options = {o for p in parameters for o in (*p.opts, *p.secondary_opts)}
    assert set(re.findall(r"--[a-z][a-z-]*", section)) <= options
    assert all(f"`automup {name}" in section for name in commands.commands)


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if not (page.parent / t).exists()] == []


def test_both_commands_install_the_same_torch() -> None:
    pinned = re.search(r"torch==[\d.]+", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert pinned is not None
    assert set(re.findall(r"torch==[\d.]+", TEXT)) == {pinned[0]}
