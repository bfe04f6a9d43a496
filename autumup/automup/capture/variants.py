"""Which ways to run a model: enough of them that its branches are seen.

A model file branches (``if self.flash``, ``if targets is not None``). Starting from one run, the
names in the tests of branches that did not run say what to try next: an optional input, an
attribute with another value, the training mode. What runs and reaches new lines is kept.
"""

from __future__ import annotations

import ast
import functools
import linecache
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from automup.analysis.dataflow import align, contains
from automup.capture.graph import Node
from automup.capture.reads import Guess
from automup.capture.runs import Lines, Runs
from automup.capture.source import is_user_file
from automup.capture.trace import Trace, Variant
from automup.errors import CaptureError

Tests = frozenset[tuple[str, Any]]
"""Names that a test looks at, with the value that it compares them to, or None."""
MOST = 12  # variants; a model with more independent switches is reported by its unrun lines


@dataclass(frozen=True)
class Exploration:
    """The variants worth analysing, each with its trace, which has the lines that it executed."""

    reached: tuple[tuple[Variant, Trace], ...]

    @property
    def variants(self) -> tuple[Variant, ...]:
        return tuple(variant for variant, _ in self.reached)

    @property
    def lines(self) -> Lines:
        """The lines that some variant executed."""
        return frozenset().union(*(trace.lines for _, trace in self.reached))

    @property
    def guesses(self) -> tuple[Guess, ...]:
        """The values that had to be guessed on the way."""
        return tuple(guess for _, trace in self.reached for guess in trace.guesses)


def explore(runs: Runs, optional_inputs: Mapping[str, tuple[Any, ...]]) -> tuple[Variant, ...]:
    """Run the model in more and more ways until no way reaches new lines.

    Args:
        runs: what a variant does.
        optional_inputs: tensors worth trying for forward's optional parameters.
    """
    plain, training = Variant(), Variant(training=True)
    kept, lines = [plain], set(runs.lines(plain))
    first, trained = runs.trace(plain), runs.trace(training)
    if first and trained and not _do_the_same(first.nodes, trained.nodes):
        kept.append(training)
        lines |= trained.lines
    tried: set[str] = set()
    found = True
    while found and len(kept) < MOST:
        found = False
        tests = unrun_tests(frozenset(lines), _files(runs.model))
        for variant in _candidates(runs.model, tests, optional_inputs):
            if str(variant) + repr(variant.extra) in tried:
                continue
            tried.add(str(variant) + repr(variant.extra))
            if len(kept) == MOST or runs.lines(variant) <= lines:
                continue
            if not runs.lines_again(variant) <= lines:
                kept.append(variant)
                lines |= runs.lines(variant)
                found = True
    return tuple(kept)


def together(reached: Sequence[Variant], runs: Runs) -> tuple[Variant, ...]:
    """The variants with optional inputs, all given at once where no line is lost by that.

    Each variant is traced and analysed at every width, so one that does for several is a saving.
    A line that runs only where one input is given and another is not keeps them apart.
    """
    parts = [v for v in reached if v.extra and not v.forced and not v.training]
    given = tuple(item for variant in parts for item in variant.extra)
    if len(parts) < 2 or len(dict(given)) < len(given):
        return tuple(reached)
    rest = [v for v in reached if v not in parts]
    joint = Variant(extra=given)
    lines = frozenset().union(*map(runs.lines, reached))
    if not lines <= runs.lines(joint).union(*map(runs.lines, rest)):
        return tuple(reached)
    return (*rest, joint)


def absorbed(reached: Sequence[tuple[Variant, Trace]]) -> tuple[tuple[Variant, Trace], ...]:
    """The variants without those that another one contains: given labels, most models only go on.

    What the analysis says of the longer run it then says of the shorter one too.
    """
    kept = list(reached)
    for item in reached:
        variant, trace = item
        if any(
            other.forced == variant.forced
            and other.training >= variant.training
            and longer is not trace
            and set(variant.extra) <= set(other.extra)
            and trace.lines <= longer.lines.union(*(t.lines for _, t in kept if t is not trace))
            and contains(longer.nodes, trace.nodes)
            for other, longer in kept
        ):
            kept.remove(item)
    return tuple(kept)


def _do_the_same(a: Sequence[Node], b: Sequence[Node]) -> bool:
    try:
        align(a, b)
    except CaptureError:
        return False
    return True


def _candidates(
    model: nn.Module, tests: Tests, optional_inputs: Mapping[str, tuple[Any, ...]]
) -> Iterator[Variant]:
    names = {name for name, _ in tests}
    for name, tensors in optional_inputs.items():
        if name in names:
            yield from (Variant(extra=((name, tensor),)) for tensor in tensors)
    for name, value in sorted(tests, key=str):
        now = {v for m in model.modules() if isinstance(v := vars(m).get(name), bool | str | int)}
        if value is None and name != "training":
            yield from (
                Variant(forced=((name, not v),)) for v in sorted(now, key=str) if type(v) is bool
            )
        elif value is not None and any(type(v) is type(value) and v != value for v in now):
            yield Variant(forced=((name, value),))


def _files(model: nn.Module) -> frozenset[str]:
    """The user files in which the model's classes and their bases are written."""
    classes = {c for m in model.modules() for c in type(m).__mro__ if c is not object}
    files = (_file_of(c) for c in classes)
    return frozenset(f for f in files if f and is_user_file(f))


@functools.cache
def _file_of(cls: type) -> str:
    function = vars(cls).get("forward") or vars(cls).get("__init__")
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    return str(code.co_filename) if code is not None else ""


def unrun_tests(lines: Lines, files: frozenset[str]) -> Tests:
    """What the tests of branches that did not run look at, in functions that did.

    ``if self.flash:`` gives ``("flash", None)``, ``if self.kind == "sdpa":`` ``("kind", "sdpa")``.
    """
    names: set[tuple[str, Any]] = set()
    for file in files:
        ran = {line for name, line in lines if name == file}
        for function in _functions(file):
            if any(line in ran for node in function.body for line in _span(node)):
                names |= _unrun_names(function, ran)
    return frozenset(names)


def _functions(file: str) -> tuple[ast.FunctionDef, ...]:
    return _functions_of("".join(linecache.getlines(file)))


@functools.cache
def _functions_of(text: str) -> tuple[ast.FunctionDef, ...]:
    try:
        tree = ast.parse(text.removeprefix("\ufeff"))
    except (SyntaxError, ValueError):  # code that runs but cannot be read: no branches are seen
        return ()
    return tuple(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef))


def _span(node: ast.AST) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)  # type: ignore[attr-defined]


def _unrun_names(function: ast.FunctionDef, ran: set[int]) -> set[tuple[str, Any]]:
    names: set[tuple[str, Any]] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.If):
            branches = [b for b in (node.body, node.orelse or _after(function, node)) if b]
            if any(not _ran(branch, ran) for branch in branches):
                names |= _names(node.test)
        elif isinstance(node, ast.IfExp) and node.lineno in ran:
            names |= _names(node.test)  # both arms may share a line: try both
    return names


def _after(function: ast.FunctionDef, node: ast.If) -> list[ast.stmt]:
    """What runs instead of an ``if`` without ``else`` that returns: the rest of its block."""
    for parent in ast.walk(function):
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(parent, block, None)
            if isinstance(statements, list) and node in statements:
                return list(statements[statements.index(node) + 1 :])
    return []


def _ran(branch: list[ast.stmt], ran: set[int]) -> bool:
    return any(line in ran for node in branch for line in _span(node))


def _names(test: ast.expr) -> set[tuple[str, Any]]:
    found = {n.id for n in ast.walk(test) if isinstance(n, ast.Name)}
    found |= {n.attr for n in ast.walk(test) if isinstance(n, ast.Attribute)}
    compared = {
        (side.attr, other.value)
        for node in ast.walk(test)
        if isinstance(node, ast.Compare)
        for side, other in _sides(node)
        if isinstance(side, ast.Attribute) and isinstance(other, ast.Constant)
    }
    values = {pair for pair in compared if isinstance(pair[1], str | int)}
    return {(name, None) for name in found - {"self"}} | values


def _sides(node: ast.Compare) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Both ways round of every comparison with a value, or with a set of values."""
    for other in node.comparators:
        members = other.elts if isinstance(other, ast.Tuple | ast.List | ast.Set) else [other]
        for member in members:
            yield node.left, member
            yield member, node.left
