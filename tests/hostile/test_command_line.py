"""The command line met with everything that can be wrong: each case's whole message, its status.

A call that fails writes nothing and prints one paragraph after what the model printed itself; none
ends in a traceback, and none changes a file that was there.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import check_cases
import class_cases
import data_cases
import file_cases
import model_cases
import option_cases
import plan_cases
import pytest
import sweep_cases
import torch
import transfer_cases
from case import Case

from automup.plan import READABLE, SCHEMA
from conftest import Run, contents

TABLES = (
    file_cases, class_cases, model_cases, option_cases, plan_cases,
    check_cases, data_cases, sweep_cases, transfer_cases,
)  # fmt: skip
CASES = [case for table in TABLES for case in table.CASES]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What model files change in the process that imports them."""
    handlers, dtype = logging.root.handlers[:], torch.get_default_dtype()
    environment = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.root.handlers[:] = handlers
    os.environ.clear()
    os.environ.update(environment)
    torch.set_default_dtype(dtype)


def expected(case: Case, folder: Path) -> re.Pattern[str]:
    """What a case says, with [...] for what Python or torch words differently by version."""
    here = {"HERE": os.path.realpath(folder), "SCHEMA": str(SCHEMA), "READABLE": str(READABLE)}
    text = re.escape(case.says)
    for word, value in here.items():
        text = text.replace(word, re.escape(value))
    return re.compile(text.replace(re.escape("[...]"), "[^\n]*"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_says_what_is_wrong_and_changes_nothing(case: Case, run: Run, tmp_path: Path) -> None:
    for name, text in case.files.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = contents(tmp_path)
    result = run(*case.command.split(" "))
    said = result.err.removesuffix("\n")
    assert result.status == case.status, said
    assert expected(case, tmp_path).fullmatch(said), said
    new = {} if case.status or " mu.py" not in case.command else {str(tmp_path / "mu.py")}
    after = contents(tmp_path)
    assert after.keys() - before.keys() == set(new)
    assert before.items() <= after.items()
    assert bool(result.out) == (case.status == 0 and not new)


def test_the_table_is_large_and_no_case_is_listed_twice() -> None:
    assert len(CASES) >= 400
    assert len({case.name for case in CASES}) == len(CASES)
