"""Site edits: source text and the places that need a multiplier in, edited source text out.

Every byte that is not part of an edit stays as it was. The place is found by its exact span, as
``code.co_positions`` gave it; where the multiplier goes in it is for :mod:`automup.rewrite.forms`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider

from automup.edits import Edit, Factor
from automup.errors import RewriteError
from automup.facts import Span
from automup.rewrite.forms import FORMS, Context, Node, whole
from automup.rewrite.imports import ensure_import, read_imports
from automup.rewrite.syntax import holds_product, is_target, parenthesised

__all__ = ["Edit", "Factor", "Source", "byte_order_mark", "edit_sites", "parse"]


def edit_sites(
    source: str, edits: Sequence[Edit], *, filename: str, add_imports: bool = True
) -> str:
    """The source with a multiplier at every edit's span.

    Edits may nest, and several different ones may share a span; the very same edit given twice
    (once for each module that runs the line) counts once. Without ``add_imports`` every line keeps
    its number, and who compiles the result must have ``math`` in its globals.

    Raises:
        RewriteError: if the source does not parse, a span is not in it, or holds no expression
            that a multiplier can be put into.
    """
    if not edits:
        return source
    tree = read(source, filename)
    by_node: dict[cst.CSTNode, list[Edit]] = {}
    for edit in dict.fromkeys(edits):
        by_node.setdefault(tree.find(edit.span), []).append(edit)
    context = Context(read_imports(tree.module))
    edited = tree.module.visit(_Editor(tree, by_node, context))
    if context.uses_math and add_imports:
        edited = ensure_import(edited, "math")
    return byte_order_mark(source) + edited.code


def parse(source: str, filename: str) -> cst.Module:
    """The file's syntax tree; RewriteError if the source does not parse."""
    try:
        return cst.parse_module(source)
    except cst.ParserSyntaxError as error:
        raise RewriteError(
            f"The source does not parse: {error.message}",
            where=f"{os.path.basename(filename)}:{error.raw_line}",
            fix="Correct the file first.",
        ) from None


@lru_cache(maxsize=8)
def read(source: str, filename: str) -> Source:
    """The parsed file with positions; one file is read many times over, once for each edit."""
    return Source(source, filename)


def byte_order_mark(source: str) -> str:
    """The mark that a source starts with, if any: libcst drops it."""
    return source[: source.startswith("\ufeff")]


class _Family(cst.CSTVisitor):
    """The parent of every node; libcst's own provider looks for a method for each attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.parents: dict[cst.CSTNode, cst.CSTNode] = {}
        self._line: list[cst.CSTNode] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if self._line:
            self.parents[node] = self._line[-1]
        self._line.append(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self._line.pop()

    def on_visit_attribute(self, node: cst.CSTNode, attribute: str) -> None:
        pass

    def on_leave_attribute(self, original_node: cst.CSTNode, attribute: str) -> None:
        pass


class Source:
    """A parsed file with the positions and parents of its nodes."""

    def __init__(self, source: str, filename: str) -> None:
        self.filename = filename
        # `unsafe_skip_copy`: a tree fresh from the parser has no node twice.
        wrapper = MetadataWrapper(parse(source, filename), unsafe_skip_copy=True)
        self.module = wrapper.module
        self.positions: Mapping[cst.CSTNode, CodeRange] = wrapper.resolve(PositionProvider)
        family = _Family()
        self.module.visit(family)
        self.parents: Mapping[cst.CSTNode, cst.CSTNode] = family.parents
        self._by_span: dict[tuple[int, int, int, int], cst.CSTNode] = {}
        self._by_end: dict[tuple[int, int], cst.CSTNode] = {}
        for node, at in self.positions.items():
            if isinstance(node, (cst.BaseExpression, cst.AugAssign)):
                self._by_span.setdefault(_corners(at), node)
            if isinstance(node, cst.Call):
                self._by_end[at.end.line, at.end.column] = node

    def parent(self, node: cst.CSTNode) -> cst.CSTNode:
        return self.parents[node]

    def line(self, node: cst.CSTNode) -> int:
        return self.positions[node].start.line

    def place(self, line: int) -> str:
        """``file:line``, as errors give it."""
        return f"{os.path.basename(self.filename)}:{line}"

    def find(self, span: Span) -> cst.CSTNode:
        """The expression (or augmented assignment) at a span.

        In a chain of methods over several lines Python starts the span at the last attribute's
        name; the call, or the attribute, is the one that ends where the span ends.
        """
        node = self._by_span.get((span.line, span.column, span.end_line, span.end_column))
        if node is None:
            node = self._by_end.get((span.end_line, span.end_column))
            if node is not None and not self._begins_inside(node, span):
                node = None
        if node is None:
            raise RewriteError(
                "No expression of the source is exactly where the traced operation was.",
                where=f"{self.place(span.line)}:{span.column}",
                fix="Trace the model again: the file changed, or the code is generated.",
            )
        parent = self.parents.get(node)
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            return parent
        return node

    def _begins_inside(self, node: cst.CSTNode, span: Span) -> bool:
        start = self.positions[node].start
        return (start.line, start.column) <= (span.line, span.column)

    def in_f_string(self, node: cst.CSTNode) -> bool:
        at: cst.CSTNode | None = node
        while at is not None and not isinstance(at, cst.FormattedStringExpression):
            at = self.parents.get(at)
        return at is not None


def _corners(at: CodeRange) -> tuple[int, int, int, int]:
    return at.start.line, at.start.column, at.end.line, at.end.column


class _Editor(cst.CSTTransformer):
    """Applies each node's edits when its children are done."""

    def __init__(
        self, tree: Source, by_node: Mapping[cst.CSTNode, Sequence[Edit]], context: Context
    ) -> None:
        super().__init__()
        self.tree, self.by_node, self.context = tree, by_node, context

    def on_leave(self, original_node: cst.CSTNode, updated_node: cst.CSTNode) -> cst.CSTNode:  # type: ignore[override]
        edits = self.by_node.get(original_node, ())
        if edits:
            self._check_place(original_node)
        for edit in edits:
            updated_node = self._apply(original_node, updated_node, edit)
        return updated_node

    def _check_place(self, node: cst.CSTNode) -> None:
        where = self.tree.place(self.tree.line(node))
        if self.tree.in_f_string(node):
            raise RewriteError(
                "A multiplier is needed inside an f-string.",
                where=where,
                fix="Compute the value on a line of its own.",
            )
        if is_target(node, self.tree.parent):
            raise RewriteError(
                "A multiplier is needed on the target of an assignment.",
                where=where,
                fix="Assign the value to a name first, then to its place.",
            )

    def _apply(self, original: cst.CSTNode, node: cst.CSTNode, edit: Edit) -> cst.CSTNode:
        assert isinstance(node, (cst.BaseExpression, cst.AugAssign))
        for form in FORMS:
            new = form(node, edit, self.context)
            if new is not None:
                return self._fitted(original, new) if form is whole else new
        raise RewriteError(
            "A multiplier is needed here, but this statement has no place for one.",
            where=self.tree.place(self.tree.line(original)),
            fix="Write the operation as an expression of its own: x = ...",
        )

    def _fitted(self, original: cst.CSTNode, new: Node) -> cst.CSTNode:
        """A product, in parentheses if the place of the old expression binds tighter."""
        if isinstance(new, cst.AugAssign) or new.lpar:
            return new
        assert isinstance(original, cst.BaseExpression)
        if holds_product(self.tree.parent(original), original):
            return new
        return parenthesised(new)
