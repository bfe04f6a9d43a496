"""Code that no trace ran: twins of edited expressions, and what else would need a look.

A multiplier in one branch and not in its twin is a silent error. A twin gets the same edit only
where that is certain: in the same class, the same submodule called, the same weight contracted,
attention again, or the same arithmetic; and with a size that its own names express. Everything
else that could need a multiplier is reported by its line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import libcst as cst

from automup.edits import Edit
from automup.facts import Span
from automup.rewrite.alike import Twin, match_twin
from automup.rewrite.attention import TORCHS
from automup.rewrite.construction import only_in_constructors
from automup.rewrite.constructor import self_name
from automup.rewrite.edit import Source, read
from automup.rewrite.forms import FLEX, SDPA
from automup.rewrite.imports import Imports, read_imports
from automup.rewrite.statements import Function, Outline, Statement, outline, walk
from automup.rewrite.syntax import code, dotted, last_name

_CONTRACTIONS = frozenset(
    {
        "matmul",
        "mm",
        "bmm",
        "mv",
        "einsum",
        "tensordot",
        "baddbmm",
        "addmm",
        "addbmm",
        SDPA,
        FLEX,
        TORCHS,
    }
)
_FUNCTIONS = frozenset({"linear", "bilinear", "conv1d", "conv2d", "conv3d"})


@dataclass(frozen=True)
class Place:
    """A statement that was never executed, and why it matters."""

    line: int
    text: str
    why: str


@dataclass(frozen=True)
class Unrun:
    """What :func:`find_unrun` found.

    ``twins``: edits for unexecuted expressions that are the same as an edited one.
    ``suspicious``: unexecuted statements that contract activations and got no edit.
    ``notes``: unexecuted statements that multiply, divide or call a submodule.
    """

    twins: tuple[Edit, ...]
    suspicious: tuple[Place, ...]
    notes: tuple[Place, ...]


def find_unrun(
    source: str,
    executed_lines: frozenset[int],
    edits: Sequence[Edit],
    scaled: frozenset[str] = frozenset(),
    rewritten: frozenset[str] = frozenset(),
) -> Unrun:
    """Judge every statement of a file's functions that no trace executed.

    Classes of which nothing ran belong to other models; constructors hold no activations. Both
    are left out. ``scaled``: attributes that hold a parameter which its module multiplies; what
    reads one beside its module is suspicious, but in the ``rewritten`` functions, by their
    qualified names, which multiply it themselves.

    Raises:
        RewriteError: if the source does not parse or a span is not in it.
    """
    filename = edits[0].span.file if edits else "source"
    tree = read(source, filename)
    imports = read_imports(tree.module)
    search = _Search(tree, outline(tree), imports, executed_lines, tuple(edits), scaled, rewritten)
    twins: list[Edit] = []
    suspicious: list[Place] = []
    notes: list[Place] = []
    for function, statement in search.unexecuted():
        found = [*search.twins(function, statement)]
        twins += [twin for twin in found if isinstance(twin, Edit)]
        if found and all(isinstance(twin, Edit) for twin in found):
            continue
        reasons = [twin for twin in found if isinstance(twin, str)]
        grave = reasons[0] if reasons else search.contraction(function, statement)
        grave = grave or search.reading(function, statement)
        mild = "" if grave or search.constructs(function) else search.note(function, statement)
        if (grave or mild) and function.name not in search.constructors:
            text = source.splitlines()[statement.first - 1].strip()
            (suspicious if grave else notes).append(
                Place(statement.first, text, " ".join((grave or mild).split()))
            )
    return Unrun(tuple(dict.fromkeys(twins)), tuple(suspicious), tuple(notes))


@dataclass(frozen=True)
class _Search:
    tree: Source
    outline: Outline
    imports: Imports
    executed: frozenset[int]
    edits: tuple[Edit, ...]
    scaled: frozenset[str]
    rewritten: frozenset[str]

    @cached_property
    def constructors(self) -> frozenset[str]:
        return only_in_constructors(self.tree, self.outline, self.executed)

    def unexecuted(self) -> Iterator[tuple[Function, Statement]]:
        """The statements to judge, in the order of the file."""
        for function in self._candidates():
            if function.name == "__init__":
                continue
            for statement in function.statements:
                if not statement.ran(self.executed):
                    yield function, statement

    def _candidates(self) -> list[Function]:
        """Functions of executed classes, executed functions, and functions that those name."""
        classes = self.outline.executed_classes(self.executed)
        functions = self.outline.functions
        chosen = [f for f in functions if f.owner in classes or f.ran(self.executed)]
        known = {f.name: f for f in functions if not f.owner}
        for function in chosen:  # grows while it is read
            for name in _names(function.node):
                if name in known and known[name] not in chosen:
                    chosen.append(known[name])
        return sorted(chosen, key=lambda f: f.first)

    def twins(self, function: Function, statement: Statement) -> Iterator[Edit | str]:
        """Edits for the twins in a statement; a text where one has no size of its own."""
        spans = {edit.span for edit in self.edits}
        for edit in self.edits:
            site = self.tree.find(edit.span)
            if not self._related(function, edit.span.line):
                continue
            for node in statement.expressions:
                span = self._span(node, edit.span.file)
                if span in spans:
                    continue
                twin = match_twin(site, node, edit, self.imports)
                if isinstance(twin, Twin):
                    factor = dataclasses.replace(edit.factor, size=twin.size)
                    yield dataclasses.replace(
                        edit, span=span, factor=factor, tensor_names=twin.tensor_names
                    )
                elif twin:
                    yield f"{twin} at line {edit.span.line}"

    def _related(self, function: Function, line: int) -> bool:
        """Whether the function and the one around a line share a class, or are the same."""
        around = [f for f in self.outline.functions if f.first <= line <= f.last]
        if not around:
            return False
        inner = max(around, key=lambda f: f.first)
        if inner is function:
            return True
        return bool(inner.owner) and function.owner in self.outline.family(inner.owner)

    def _span(self, node: cst.CSTNode, file: str) -> Span:
        at = self.tree.positions[node]
        return Span(file, at.start.line, at.start.column, at.end.line, at.end.column)

    def contraction(self, function: Function, statement: Statement) -> str:
        """Why a statement contracts activations or uses a weight, or ""."""
        for node in statement.expressions:
            if _is_matmul(node):
                return "contracts with @"
            if not isinstance(node, cst.Call):
                continue
            name = self.imports.called(node.func)
            plain = isinstance(node.func, cst.Name) or bool(self.imports.origin(node.func))
            if name in _CONTRACTIONS or (name in _FUNCTIONS and plain):
                return f"contracts with {name}"
            if name == "softmax" and not self._drives(function):
                return "takes a softmax"
        return ""

    def reading(self, function: Function, statement: Statement) -> str:
        """Whether a statement reads the values of a parameter that its module multiplies, or ""."""
        here = f"{function.owner}.{function.name}"
        if not self.scaled or here in self.rewritten or self.constructs(function):
            return ""
        nodes = [*statement.expressions]
        facts = {id(n.value) for n in nodes if isinstance(n, cst.Attribute) and _tells_a_fact(n)}
        for node in nodes:
            scaled = isinstance(node, cst.Attribute) and node.attr.value in self.scaled
            if scaled and id(node) not in facts:
                return f"reads {code(node)}, which its module multiplies in this form"
        return ""

    def _drives(self, function: Function) -> bool:
        """Whether a function that never ran calls the whole model: it is around it, not in it."""
        return not function.ran(self.executed) and any(
            dotted(node.func).removesuffix(".forward") in _selves(function)
            for statement in function.statements
            for node in statement.expressions
            if isinstance(node, cst.Call)
        )

    def constructs(self, function: Function) -> bool:
        """Whether a constructor calls this method, or applies it: it makes or draws weights."""
        family = self.outline.family(function.owner) if function.owner else frozenset()
        return any(function.name in self._called.get(owner, ()) for owner in family)

    @cached_property
    def _called(self) -> dict[str, frozenset[str]]:
        """By class, what its constructor calls or applies of its own."""
        found: dict[str, frozenset[str]] = {}
        for function in self.outline.functions:
            if function.name == "__init__":
                calls = (
                    node
                    for statement in function.statements
                    for node in statement.expressions
                    if isinstance(node, cst.Call)
                )
                parts = (part for call in calls for part in (call.func, *_applied(call)))
                names = frozenset(dotted(part).partition(".")[2] for part in parts)
                found[function.owner] = found.get(function.owner, frozenset()) | names
        return found

    def note(self, function: Function, statement: Statement) -> str:
        """Why a statement may touch activations, or ""."""
        called = self._submodule(function, statement)
        if called:
            return f"calls {called}"
        if not any(_is_product(node) for node in statement.expressions):
            return ""
        active = function.ran(self.executed) or any(
            self._submodule(function, s) or self.contraction(function, s)
            for s in function.statements
        )
        return "multiplies or divides" if active else ""

    def _submodule(self, function: Function, statement: Statement) -> str:
        """What ``self.something(...)`` a statement calls that is not a method of the class."""
        methods = self.outline.methods(function.owner) | _MODULE_METHODS
        for node in statement.expressions:
            if isinstance(node, cst.Call) and not _asks_for_a_fact(node):
                attribute = _attribute_of(_selves(function), node.func)
                if attribute and attribute not in methods:
                    return code(node.func)
        return ""


def _tells_a_fact(node: cst.Attribute) -> bool:
    """Whether an attribute of a tensor, or what such a method returns, is not in its values."""
    return node.attr.value in FACTS


def _asks_for_a_fact(call: cst.Call) -> bool:
    """``weight.numel()``, ``x.size(-1)``: a submodule would be given a tensor."""
    return (
        isinstance(call.func, cst.Attribute)
        and _tells_a_fact(call.func)
        and all(_is_whole(arg.value) for arg in call.args)
    )


def _is_whole(node: cst.BaseExpression) -> bool:
    inner = node.expression if isinstance(node, cst.UnaryOperation) else node
    return isinstance(inner, cst.Integer)


FACTS = frozenset(
    {"shape", "size", "dtype", "device", "numel", "dim", "ndim", "requires_grad", "is_cuda", "grad"}
)
"""What a tensor or a parameter tells that is not in its values."""


def _applied(call: cst.Call) -> Iterator[cst.BaseExpression]:
    """What ``self.apply(...)`` is given."""
    if last_name(call.func) == "apply":
        yield from (arg.value for arg in call.args)


_MODULE_METHODS = frozenset(
    {"parameters", "named_parameters", "modules", "named_modules", "children", "named_children"}
    | {"state_dict", "load_state_dict", "eval", "train", "to", "apply", "register_buffer"}
    | {"buffers", "named_buffers", "requires_grad_", "half", "float", "cuda", "cpu", "add_module"}
)


def _is_matmul(node: cst.CSTNode) -> bool:
    operator = node.operator if isinstance(node, (cst.BinaryOperation, cst.AugAssign)) else None
    return isinstance(operator, (cst.MatrixMultiply, cst.MatrixMultiplyAssign))


def _selves(function: Function) -> frozenset[str]:
    """What a method may call its instance; a function inside of it has it from there."""
    return frozenset({"self", self_name(function.node)})


def _attribute_of(selves: frozenset[str], function: cst.BaseExpression) -> str:
    """``heads`` of ``self.heads[0]``, ``transformer`` of ``self.transformer.wte``, else ""."""
    attribute = ""
    while isinstance(function, (cst.Attribute, cst.Subscript)):
        attribute = function.attr.value if isinstance(function, cst.Attribute) else attribute
        function = function.value
    return attribute if isinstance(function, cst.Name) and function.value in selves else ""


def _is_product(node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Call):
        return last_name(node.func) in {"mul", "mul_", "div", "div_", "addcmul", "baddbmm"}
    if isinstance(node, cst.BinaryOperation):
        numbers = all(isinstance(side, cst.BaseNumber) for side in (node.left, node.right))
        return isinstance(node.operator, (cst.Multiply, cst.Divide)) and not numbers
    return isinstance(node, cst.AugAssign) and isinstance(
        node.operator, (cst.MultiplyAssign, cst.DivideAssign)
    )


def _names(node: cst.CSTNode) -> frozenset[str]:
    return frozenset(n.value for n in walk(node) if isinstance(n, cst.Name))
