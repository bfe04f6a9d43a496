"""Adding a keyword argument to a call in the way that the call is laid out."""

from __future__ import annotations

import libcst as cst


def add_keyword(call: cst.Call, name: str, value: cst.BaseExpression) -> cst.Call:
    """The call with ``name=value`` after its last argument; a trailing comma stays trailing."""
    new = cst.Arg(
        value=value,
        keyword=cst.Name(name),
        equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
    )
    if not call.args:
        return call.with_changes(args=[new])
    *others, last = call.args
    if isinstance(last.comma, cst.Comma):
        before, after = _around(call, last.comma)
        last = last.with_changes(comma=last.comma.with_changes(whitespace_after=before))
        new = new.with_changes(comma=cst.Comma(whitespace_after=after))
    else:
        comma = cst.Comma(whitespace_after=_own_line(call) or cst.SimpleWhitespace(" "))
        new = new.with_changes(whitespace_after_arg=last.whitespace_after_arg)
        last = last.with_changes(comma=comma, whitespace_after_arg=cst.SimpleWhitespace(""))
    return call.with_changes(args=[*others, last, new])


def _around(
    call: cst.Call, comma: cst.Comma
) -> tuple[cst.BaseParenthesizableWhitespace, cst.BaseParenthesizableWhitespace]:
    """White space before and after an argument that goes behind a trailing comma.

    A comment on the comma's line stays with the argument before it.
    """
    after = comma.whitespace_after
    line = _own_line(call)
    if not isinstance(after, cst.ParenthesizedWhitespace) or line is None:
        return cst.SimpleWhitespace(" "), after
    before = line.with_changes(first_line=after.first_line)
    plain = after.first_line.with_changes(whitespace=cst.SimpleWhitespace(""), comment=None)
    return before, after.with_changes(first_line=plain)


def _own_line(call: cst.Call) -> cst.ParenthesizedWhitespace | None:
    """The line break before the call's last argument, if it starts a line, without comments."""
    space: cst.BaseParenthesizableWhitespace = call.whitespace_before_args
    if len(call.args) > 1:
        comma = call.args[-2].comma
        if isinstance(comma, cst.Comma):
            space = comma.whitespace_after
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return None
    line = space.first_line.with_changes(whitespace=cst.SimpleWhitespace(""), comment=None)
    return space.with_changes(first_line=line, empty_lines=[])
