"""docs/options.md has every argument and every option there is, with its default."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import automup
from automup import cli
from automup.api import Mup
from automup.optim import param_groups
from automup.sweep.python import sweep_model
from automup.sweep.settings import Settings
from conftest import ROOT

PAGE = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
COMMANDS: Any = typer.main.get_command(cli.app)
NEEDED, WORDS = object(), object()
"""An option that must be given; a default that only words can say."""


def sections(part: str) -> Iterator[tuple[list[str], dict[str, tuple[str, ...]]]]:
    """The names in each heading of a part, and the rows of its table by what is in code first."""
    text = PAGE.split(f"\n## {part}\n")[1].split("\n## ")[0]
    for section in text.split("\n### ")[1:]:
        heading, _, body = section.partition("\n")
        lines = [line for line in body.splitlines() if line.startswith("| `")]
        cells = [tuple(c.strip() for c in line.strip("|").split(" | ")) for line in lines]
        assert len({row[0] for row in cells}) == len(cells)
        yield re.findall(r"`([^`]+)`", heading), {row[0].strip("| "): row[1:] for row in cells}


def agrees(cell: str, default: Any) -> bool:
    """Whether a cell says this default: in code if it is a value, in words if it is none."""
    if default is NEEDED:
        return cell == "needed"
    if isinstance(default, bool):
        return cell in (("on", "`True`") if default else ("off", "`False`"))
    if default in (None, "", (), 0) or default is WORDS:
        return bool(cell) and not cell.startswith("`")
    shown = repr(default).replace("'", '"')
    return cell.startswith((f"`{shown}`", f"`{default}`"))


# --- in code -------------------------------------------------------------------------------------


def keywords(call: Callable[..., Any], *without: str) -> dict[str, Any]:
    """The arguments of a call that are given by keyword, with their defaults."""
    parameters = inspect.signature(call).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} | {
        p.name: p.default
        for p in parameters
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty and p.name not in without
    }


def fields(kind: Any, *without: str) -> dict[str, Any]:
    return {
        f.name: WORDS if f.default is dataclasses.MISSING else f.default
        for f in dataclasses.fields(kind)
        if f.name not in without
    }


ARGUMENTS = {
    "automup.parametrize": {**keywords(automup.parametrize), "constants": WORDS},
    "Mup.apply": keywords(Mup.apply),
    "Mup.init_": keywords(Mup.init_),
    "Mup.explain": keywords(Mup.explain),
    "Mup.param_groups": keywords(param_groups, "optimizer_class"),
    "automup.Constants": fields(automup.Constants),
    "Mup.check": keywords(Mup.check, "optimizer_class"),
    "Mup.sweep": {
        **fields(Settings, "multiples", "lrs", "tune"),
        **keywords(sweep_model),
    },
}
DESCRIBED = {names[0]: rows for names, rows in sections("In code")}


def test_every_call_that_takes_keywords_is_described() -> None:
    public = {f"Mup.{name}": call for name, call in vars(Mup).items() if not name.startswith("_")}
    takes = {name for name, call in public.items() if inspect.isfunction(call) and keywords(call)}
    same = {"Mup.optimizer"}  # as param_groups
    assert takes - same <= DESCRIBED.keys() == ARGUMENTS.keys()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_argument_has_its_default(name: str) -> None:
    rows = {key.strip("`"): row for key, row in DESCRIBED[name].items()}
    assert rows.keys() == ARGUMENTS[name].keys()
    wrong = [key for key, row in rows.items() if not agrees(row[0], ARGUMENTS[name][key])]
    assert wrong == []
    assert all(len(row) == 3 and row[1] for row in rows.values())  # default, what, source


# --- on the command line -------------------------------------------------------------------------


def options(command: str) -> dict[str, Any]:
    """A command's options, long names joined, with their defaults."""
    found = {}
    for p in COMMANDS.commands[command].params:
        names = [o for o in (*p.opts, *p.secondary_opts) if o.startswith("--")]
        if names and names != ["--help"]:
            default = str(p.default) if isinstance(p.default, Path) else p.default
            found[", ".join(names)] = NEEDED if p.required else default
    return found


@pytest.mark.parametrize("command", COMMANDS.commands)
def test_every_option_has_its_default(command: str) -> None:
    tables = [rows for names, rows in sections("On the command line") if command in names]
    rows = {
        ", ".join(re.findall(r"--[a-z][a-z-]*", key)): row
        for table in tables
        for key, row in table.items()
    }
    known = options(command)
    assert rows.keys() == known.keys()
    assert sum(map(len, tables)) == len(rows)  # none twice
    if command == "transfer":
        known["--target"] = NEEDED  # it says so itself, with the knobs' names
    assert [key for key, row in rows.items() if not agrees(row[0], known[key])] == []


def test_every_source_is_a_paper_that_is_named() -> None:
    for _, rows in sections("In code"):
        for *_, source in rows.values():
            named = r"TP-V|TP-IVb|spectral|CompleteP|abc-symmetry|\d{4}\.\d{5}"
            assert not source or re.search(named, source)
