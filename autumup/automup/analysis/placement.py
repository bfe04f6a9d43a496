"""From a correction to an edit: where in the source, and which expression there is the size."""

from __future__ import annotations

import ast
import inspect
import linecache
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch import nn

from automup.analysis.dataflow import Op, Size
from automup.analysis.sites import Correction
from automup.capture.source import Frame
from automup.edits import Edit, Factor
from automup.errors import RewriteError
from automup.facts import Span


def edit_for(correction: Correction, depth: int, owners: Sequence[nn.Module | None]) -> Edit:
    """The edit that puts a correction into the source of one of its frames.

    Args:
        correction: what an operation needs.
        depth: which of its frames, 0 the innermost.
        owners: ``self`` of each frame in the base model, None where there is none.

    Raises:
        RewriteError: if no expression in scope there tells the size of the axis.
    """
    op = correction.op
    frame = op.fact.frames[depth]
    scope = _paired(op, depth)
    text = span_text(frame.span)
    named = next(_sizes(scope, correction.size, text), None)
    if named is None and owners[depth] is not None:
        named = _from_weights(owners[depth], correction, _first_argument(frame))
    if named is None:  # a factor is a power of a ratio: any size that grows alike has it
        named = next(_sizes(scope, correction.size, text, alike=True), None)
    if named is None:
        base, wide = correction.size
        raise RewriteError(
            f"No name in scope tells the size of the axis that is {base} at the base and {wide} at "
            "twice the base.",
            where=str(frame),
            fix="Give the size a name there, such as `head_dim = q.size(-1)`.",
        )
    return Edit(
        span=frame.span,
        factor=Factor(*named, round(correction.exponent, 9)),
        constant=correction.constant,
        tensor_names=frozenset(n for n, (b, _) in scope.items() if isinstance(b, tuple) and b),
        module_call=correction.kind == "readout",
    )


def span_text(span: Span) -> str:
    """The source text of a span, lines joined."""
    lines = [linecache.getline(span.file, n) for n in range(span.line, span.end_line + 1)]
    if not lines:
        return ""
    lines[-1] = lines[-1][: span.end_column]
    lines[0] = lines[0][span.column :]
    return "".join(lines)


def _paired(op: Op, depth: int) -> dict[str, tuple[Any, Any]]:
    """What names in scope say about sizes at both widths."""
    if depth >= len(op.fact.scopes):
        return {}
    base: Mapping[str, Any] = op.fact.scopes[depth]
    wide: Mapping[str, Any] = op.wide_fact.scopes[depth]
    return {name: (value, wide[name]) for name, value in base.items() if name in wide}


Named = tuple[str, int]
"""An expression for a size, with its value at the base."""


def _sizes(
    scope: Mapping[str, tuple[Any, Any]], size: Size, text: str, *, alike: bool = False
) -> Iterator[Named]:
    """Expressions that have this size: names in the expression itself first, last dims first.

    ``alike``: those that are a multiple or a fraction of it at both widths.
    """
    words = re.findall(r"\w+", text)
    found = [
        (
            _rank(name, words),
            not isinstance(base, tuple),
            -dim if dim is not None else 0,
            expression,
            value,
        )
        for name, (base, wide) in scope.items()
        for dim, expression, value in _readings(name, base, wide, size, alike)
    ]
    return ((expression, value) for *_, expression, value in sorted(found))


def _rank(name: str, words: list[str]) -> int:
    """Where a name first stands in the expression; last if it does not."""
    last = name.rpartition(".")[2]
    return words.index(last) if last in words else len(words)


def _readings(
    name: str, base: Any, wide: Any, size: Size, alike: bool
) -> Iterator[tuple[int | None, str, int]]:
    def fits(a: int, b: int) -> bool:
        return (a, b) == size or (alike and a > 0 and a * size[1] == b * size[0])

    if isinstance(base, int):
        if fits(base, wide):
            yield None, name, base
    elif len(base) == len(wide):
        for dim in range(len(base)):
            if fits(base[dim], wide[dim]):
                yield dim, f"{name}.size({dim - len(base)})", base[dim]


def _from_weights(owner: Any, correction: Correction, self_name: str) -> Named | None:
    """The size of a weight below ``self``: the readout's own first."""
    if not self_name:
        return None
    for name, parameter in owner.named_parameters(remove_duplicate=False):
        if re.search(r"(^|\.)\d+(\.|$)", name):
            continue
        for dim in reversed(range(parameter.dim())):
            if parameter.shape[dim] == correction.size[0] and (
                not correction.parameter or correction.parameter.endswith(name)
            ):
                return f"{self_name}.{name}.size({dim})", correction.size[0]
    return None


def _first_argument(frame: Frame) -> str:
    """What a frame's function calls its first argument, which need not be ``self``; "" unknown.

    That is the innermost function of the frame's name around its expression.
    """
    name = frame.function.rpartition(".")[2]
    start, end = (frame.line, frame.byte_column), (frame.end_line, frame.end_byte_column)
    around = [
        (node.lineno, node.col_offset, [*node.args.posonlyargs, *node.args.args])
        for node in _functions("".join(linecache.getlines(frame.file)))
        if name == getattr(node, "name", "<lambda>")
        and (node.lineno, node.col_offset) <= start
        and end <= (node.end_lineno or 0, node.end_col_offset or 0)
    ]
    arguments = max(around, key=lambda found: found[:2])[2] if around else []
    return arguments[0].arg if arguments else ""


@lru_cache(maxsize=8)
def _functions(text: str) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, ...]:
    try:
        tree = ast.parse(text.removeprefix("\ufeff"))
    except SyntaxError:
        return ()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return tuple(node for node in ast.walk(tree) if isinstance(node, kinds))


def called_at(span: Span, names: Mapping[str, Any]) -> Any:
    """What the call at a span calls, if that is known by a name in its file; else None.

    Args:
        span: of the expression.
        names: the globals of its file.
    """
    call = _call_at(span)
    if call is None:
        return None
    root, *rest = ast.unparse(call.func).split(".")
    called = names.get(root)
    for name in rest:
        called = getattr(called, name, None)
    return called


def _call_at(span: Span) -> ast.Call | None:
    try:
        call = ast.parse(f"({span_text(span)}\n)", mode="eval").body
    except SyntaxError:
        return None
    return call if isinstance(call, ast.Call) else None


def takes_scale(span: Span, library: Sequence[str], names: Mapping[str, Any]) -> bool:
    """Whether the call at a span is torch's attention, written in Python, with a ``scale`` to give.

    Args:
        span: of the expression.
        library: torch's functions that it runs, the one that it calls last.
        names: the globals of its file.
    """
    call, called = _call_at(span), called_at(span, names)
    if not library or call is None:
        return False
    if getattr(inspect.unwrap(called), "__qualname__", "") != library[-1]:
        return False
    try:
        parameters = [*inspect.signature(called).parameters]
    except (TypeError, ValueError):
        return False
    if parameters[:2] != ["query", "key"] or "scale" not in parameters:
        return False
    given = any(isinstance(arg, ast.Starred) for arg in call.args)
    return not given and len(call.args) <= parameters.index("scale")


def frame_owner(model: nn.Module, path: str) -> nn.Module | None:
    """The module that was ``self`` in a frame."""
    return None if path == "?" else model.get_submodule(path)
