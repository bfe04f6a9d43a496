"""The call at the end of a function that builds the model and draws its weights."""

from __future__ import annotations

import libcst as cst
from libcst import matchers as m

from automup.errors import RewriteError
from automup.rewrite.constructor import CALLS, Line


def add_call_in(module: cst.Module, function: str, call: str, file: str) -> cst.Module:
    """The module with ``mup_init_(model)`` before a function returns the model.

    Args:
        module: the file.
        function: the name of a function at its top level.
        call: a function of the muP block, one of ``CALLS``.
        file: the file's name, for errors.

    Raises:
        RewriteError: if the function does not end by returning a name, or returns elsewhere too.
    """
    named = m.FunctionDef(name=m.Name(function))
    found = [s for s in module.body if m.matches(s, named)]
    made = cst.ensure_type(found[-1], cst.FunctionDef) if found else None
    body = [*made.body.body] if made is not None else []
    last = body[-1] if body else None
    ends = m.matches(last, m.SimpleStatementLine([m.Return(m.Name())])) if last else False
    if made is None or not ends or len(m.findall(made, m.Return())) > 1:
        raise RewriteError(
            f"{function} draws weights, and does not end by returning the model by a name.",
            where=file,
            fix="Write `return model` as its only return, or draw in the constructor of the class.",
        )
    line = cst.ensure_type(last, cst.SimpleStatementLine)
    model = cst.ensure_type(cst.ensure_type(line.body[0], cst.Return).value, cst.Name).value
    added = cst.SimpleStatementLine(
        [cst.Expr(cst.parse_expression(Line(call).code(model)))],
        leading_lines=line.leading_lines,
        trailing_whitespace=cst.TrailingWhitespace(
            cst.SimpleWhitespace("  "), cst.Comment(CALLS[call])
        ),
    )
    block = made.body.with_changes(body=[*body[:-1], added, line.with_changes(leading_lines=[])])
    return module.with_deep_changes(made, body=block)
