"""Mutation testing: every mutant of a module that may change a number, against some tests.

    python tests/mutants.py automup.rules tests/test_rules.py
    python tests/mutants.py automup.optim.groups automup.optim.muon tests/test_*.py

prints the mutants that no test notices. The tests are collected once; a mutant is a fork in which
its functions get their other code, or, for what runs at import, one that imports the other module.
It meets the tests that ran the changed statement when all was well (then those of the same files,
which may use what an earlier test left in a cache): first those that noticed others, then in the
order of the files, the quickest first, for at most ``--seconds`` of processor time.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.abc
import importlib.util
import os
import pickle
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from mutations import ROOT, Mutant, file_of, mutants

OPTIONS = ["-x", "-q", "-s", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]


def forked(run: Callable[[], object]) -> int:
    """The process id of a silent child, which exits with 0 if ``run`` gives something true."""
    child = os.fork()
    if child:
        return child
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    done = False
    try:
        done = bool(run())
    finally:
        os._exit(0 if done else 1)


def succeeds(run: Callable[[], object]) -> bool:
    return os.waitpid(forked(run), 0)[1] == 0


# --- what the tests run when all is well ----------------------------------------------------------


@dataclass
class Record:
    """Which lines of some files each test runs, how long it takes, and the libraries it loads."""

    files: frozenset[str]
    lines: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)
    noticed: Counter[str] = field(default_factory=Counter)

    def run(self, items: list[pytest.Item]) -> bool:
        """Run tests, and note what they do; whether they pass."""
        passed = [self._run(item, after) for item, after in followed(items)]
        self.libraries = [
            name
            for name, module in list(sys.modules.items())
            if (file := getattr(module, "__file__", None))
            and not Path(file).is_relative_to(ROOT / "autumup")
            and not Path(file).is_relative_to(ROOT / "tests")
        ]
        return all(passed)

    def _run(self, item: pytest.Item, after: pytest.Item | None) -> bool:
        seen = self.lines.setdefault(item.nodeid, set())

        def line(frame: FrameType, event: str, arg: object) -> Any:
            seen.add((frame.f_code.co_filename, frame.f_lineno))
            return line

        def enter(frame: FrameType, event: str, arg: object) -> Any:
            return line(frame, event, arg) if frame.f_code.co_filename in self.files else None

        start = time.process_time()
        sys.settrace(enter)
        try:
            return passes(item, after)
        finally:
            sys.settrace(None)
            self.seconds[item.nodeid] = time.process_time() - start

    def add(self, other: Record) -> None:
        self.lines.update(other.lines)
        self.seconds.update(other.seconds)
        self.libraries += other.libraries

    def load(self) -> None:
        """Load the libraries, so that no fork must."""
        for name in self.libraries:
            with suppress(Exception):
                importlib.import_module(name)
        gc.freeze()

    def chosen(self, mutant: Mutant, budget: float) -> list[str]:
        """The tests that may notice a mutant, those that probably do first."""
        ran = {
            test
            for test, lines in self.lines.items()
            if any(file == str(mutant.file) and n in mutant.lines for file, n in lines)
        }
        order = {file: i for i, file in enumerate(dict.fromkeys(map(file_of_test, self.lines)))}
        files = {file_of_test(test) for test in ran}
        tests = [t for t in self.lines if not mutant.called or file_of_test(t) in files]
        tests.sort(
            key=lambda t: (t not in ran, -self.noticed[t], order[file_of_test(t)], self.seconds[t])
        )
        spent, within = 0.0, []
        for test in tests:
            if spent < budget:
                within.append(test)
            spent += self.seconds[test]
        return within

    def limit(self, tests: list[str]) -> None:
        """End this process when it runs much longer than it should."""
        signal.setitimer(signal.ITIMER_PROF, 20 + 5 * sum(self.seconds[test] for test in tests))


def file_of_test(test: str) -> str:
    return test.partition("::")[0]


def followed(items: list[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    return zip(items, [*items[1:], None], strict=True)


def passes(item: pytest.Item, after: pytest.Item | None) -> bool:
    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=after))


# --- mutants of functions -------------------------------------------------------------------------


@dataclass
class Loop:
    """A plugin of pytest that meets the collected tests with mutants, in place of running them."""

    names: list[str]
    seconds: float
    record: Record
    found: dict[str, tuple[int, int]] = field(default_factory=dict)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        items = {item.nodeid: item for item in session.items}
        for file in dict.fromkeys(map(file_of_test, items)):
            self._observe([item for test, item in items.items() if file_of_test(test) == file])
        for name in self.names:
            importlib.import_module(name)
        gc.unfreeze()  # what is frozen is not listed
        functions = [f for f in gc.get_objects() if isinstance(f, FunctionType)]
        self.record.load()
        for name in self.names:
            own = [f for f in functions if f.__code__.co_filename == str(file_of(name))]
            assert own, f"{name} has no function, or another copy of it was loaded."
            every = (m for m in mutants(name) if m.called)
            self.found[name] = tally(every, partial(self._survives, own, items))
        return True

    def _observe(self, items: list[pytest.Item]) -> None:
        with tempfile.NamedTemporaryFile() as out:

            def run() -> bool:
                record = Record(self.record.files)
                passed = record.run(items)
                Path(out.name).write_bytes(pickle.dumps(record))
                return passed

            if not succeeds(run):
                pytest.exit(f"{items[0].nodeid} and the others there fail without a mutant.", 1)
            self.record.add(pickle.loads(Path(out.name).read_bytes()))

    def _survives(
        self, functions: list[FunctionType], items: dict[str, pytest.Item], mutant: Mutant
    ) -> bool:
        tests = [items[test] for test in self.record.chosen(mutant, self.seconds)]
        reader, writer = os.pipe()

        def run() -> bool:
            self.record.limit([item.nodeid for item in tests])
            exchange(functions, mutant.code)
            for item, after in followed(tests):
                if not passes(item, after):
                    os.write(writer, item.nodeid.encode())
                    return False
            return True

        survives = succeeds(run)
        os.close(writer)
        with os.fdopen(reader) as said:
            self.record.noticed[said.read()] += 1
        return survives


def exchange(functions: list[FunctionType], code: CodeType) -> None:
    """Give every function of a module its code in the module's mutant."""
    codes = {key_of(code): code for code in codes_in(code)}
    for function in functions:
        function.__code__ = codes[key_of(function.__code__)]


def key_of(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def codes_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from codes_in(constant)


# --- mutants of what runs at import ---------------------------------------------------------------


@dataclass(frozen=True)
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module its mutant's code when it is imported."""

    mutant: Mutant

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self.mutant.name:
            return None
        file = self.mutant.file
        packages = [str(file.parent)] if file.stem == "__init__" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=self, submodule_search_locations=packages
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(self.mutant.code, vars(module))


@dataclass(frozen=True)
class Only:
    """A plugin of pytest: these tests, in this order."""

    tests: list[str]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        rank = {test: i for i, test in enumerate(self.tests)}
        items[:] = sorted((i for i in items if i.nodeid in rank), key=lambda i: rank[i.nodeid])


def survives_import(mutant: Mutant, record: Record, seconds: float) -> bool:
    tests = record.chosen(mutant, seconds)

    def run() -> bool:
        record.limit(tests)
        sys.meta_path.insert(0, Finder(mutant))
        files = dict.fromkeys(map(file_of_test, tests))
        return pytest.main([*OPTIONS, *files], plugins=[Only(tests)]) == 0

    return succeeds(run)


# --- the command ----------------------------------------------------------------------------------


def tally(every: Iterable[Mutant], survives: Callable[[Mutant], bool]) -> tuple[int, int]:
    """How many are killed and survive; prints those that survive."""
    killed = survived = 0
    for mutant in every:
        if survives(mutant):
            survived += 1
            os.write(OUT, f"{mutant.label}\n".encode())
        else:
            killed += 1
    return killed, survived


OUT = os.dup(1)  # for forks, which are silent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="modules, then files of tests")
    parser.add_argument("--seconds", type=float, default=60.0, help="of tests for one mutant")
    given = parser.parse_args()
    sys.dont_write_bytecode = False  # many forks import what is unchanged
    settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate])  # no shrinking
    settings.load_profile("mutants")
    names = [name for name in given.names if name.startswith("automup")]
    tests = [name for name in given.names if name not in names]
    loop = Loop(names, given.seconds, Record(frozenset(str(file_of(name)) for name in names)))
    with tempfile.NamedTemporaryFile() as out:

        def run() -> bool:
            status = pytest.main([*OPTIONS, *tests], plugins=[loop])
            Path(out.name).write_bytes(pickle.dumps((loop.record, loop.found)))
            return int(status) in (0, 5)

        if not succeeds(run):
            sys.exit("The tests fail without a mutant, or cannot be collected.")
        record, found = pickle.loads(Path(out.name).read_bytes())
    record.load()
    for name in names:
        every = (m for m in mutants(name) if not m.called)
        more = tally(every, lambda m: survives_import(m, record, given.seconds))
        killed, survived = map(sum, zip(found[name], more, strict=True))
        print(f"{name}: {killed} killed, {survived} survived", flush=True)


if __name__ == "__main__":
    main()
