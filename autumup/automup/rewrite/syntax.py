"""What Python's grammar says about an expression: its precedence, and where it needs parentheses.

libcst prints a tree exactly as it is given, so whoever puts a product in the place of another
expression has to know whether the place binds tighter than ``*``.
"""

from __future__ import annotations

from collections.abc import Callable

import libcst as cst

LOWEST, TERNARY, OR, AND, NOT, COMPARISON = range(6)
BIT_OR, BIT_XOR, BIT_AND, SHIFT, SUM, PRODUCT, UNARY, POWER, AWAIT, ATOM = range(6, 16)

_BINARY: dict[type[cst.BaseBinaryOp], int] = {
    cst.BitOr: BIT_OR,
    cst.BitXor: BIT_XOR,
    cst.BitAnd: BIT_AND,
    cst.LeftShift: SHIFT,
    cst.RightShift: SHIFT,
    cst.Add: SUM,
    cst.Subtract: SUM,
    cst.Power: POWER,
}

_OTHER: dict[type[cst.BaseExpression], int] = {
    cst.NamedExpr: LOWEST,
    cst.Yield: LOWEST,
    cst.Tuple: LOWEST,
    cst.StarredElement: LOWEST,
    cst.Lambda: LOWEST,
    cst.IfExp: TERNARY,
    cst.Comparison: COMPARISON,
    cst.Await: AWAIT,
}

# Parents that delimit an expression themselves: a bare product is safe in any of their slots.
_DELIMITING = (
    cst.Arg,
    cst.Element,
    cst.StarredElement,
    cst.DictElement,
    cst.Index,
    cst.Slice,
    cst.Return,
    cst.Expr,
    cst.Assign,
    cst.AnnAssign,
    cst.AugAssign,
    cst.NamedExpr,
    cst.Lambda,
    cst.Yield,
    cst.If,
    cst.While,
    cst.For,
    cst.CompFor,
    cst.CompIf,
    cst.ListComp,
    cst.SetComp,
    cst.GeneratorExp,
    cst.DictComp,
    cst.Param,
    cst.WithItem,
    cst.Assert,
)
# The same, but beside a keyword, which a closing parenthesis may touch: ``(x)if y else z``.
_BY_KEYWORD = (cst.IfExp, cst.BooleanOperation, cst.Comparison, cst.ComparisonTarget)


def precedence(node: cst.BaseExpression) -> int:
    """How tightly an expression binds; anything in its own parentheses is an atom."""
    if node.lpar:
        return ATOM
    if isinstance(node, cst.BinaryOperation):
        return _BINARY.get(type(node.operator), PRODUCT)
    if isinstance(node, cst.UnaryOperation):
        return NOT if isinstance(node.operator, cst.Not) else UNARY
    if isinstance(node, cst.BooleanOperation):
        return OR if isinstance(node.operator, cst.Or) else AND
    return _OTHER.get(type(node), ATOM)


def parenthesised(node: cst.BaseExpression) -> cst.BaseExpression:
    """The expression inside one more pair of parentheses."""
    return node.with_changes(
        lpar=[cst.LeftParen(), *node.lpar], rpar=[*node.rpar, cst.RightParen()]
    )


def at_least(node: cst.BaseExpression, level: int) -> cst.BaseExpression:
    """The expression, parenthesised if it binds less tightly than ``level``."""
    return node if precedence(node) >= level else parenthesised(node)


def product(left: cst.BaseExpression, right: cst.BaseExpression) -> cst.BinaryOperation:
    """``left * right``, with the parentheses that the operands need."""
    return cst.BinaryOperation(
        left=at_least(left, PRODUCT), operator=cst.Multiply(), right=at_least(right, UNARY)
    )


def holds_product(parent: cst.CSTNode, child: cst.BaseExpression) -> bool:
    """Whether a bare product can stand where ``child`` stands in ``parent``."""
    if isinstance(parent, cst.BinaryOperation):
        level = _BINARY.get(type(parent.operator), PRODUCT)
        return level < PRODUCT or (level == PRODUCT and parent.left is child)
    if isinstance(parent, _BY_KEYWORD):
        return not child.lpar
    if isinstance(parent, cst.UnaryOperation):
        return isinstance(parent.operator, cst.Not) and not child.lpar
    return isinstance(parent, _DELIMITING)


def is_target(node: cst.CSTNode, parent_of: Callable[[cst.CSTNode], cst.CSTNode]) -> bool:
    """Whether the expression is assigned to or deleted rather than read."""
    parent = parent_of(node)
    while isinstance(parent, (cst.Tuple, cst.List, cst.BaseElement)):
        node, parent = parent, parent_of(parent)
    if isinstance(parent, (cst.AssignTarget, cst.AsName, cst.Del)):
        return True
    return getattr(parent, "target", None) is node


def code(node: cst.CSTNode) -> str:
    """The node's source text."""
    return cst.Module(body=[]).code_for_node(node)


def dotted(node: cst.BaseExpression) -> str:
    """``a.b.c`` for a chain of attributes that starts at a name, else the empty string."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        root = dotted(node.value)
        return f"{root}.{node.attr.value}" if root else ""
    return ""


def last_name(function: cst.BaseExpression) -> str:
    """The last name of what is called: ``softmax`` of ``F.softmax``, else the empty string."""
    if isinstance(function, cst.Attribute):
        return function.attr.value
    return function.value if isinstance(function, cst.Name) else ""


def keyword(call: cst.Call, name: str) -> cst.Arg | None:
    """The call's argument given as ``name=``."""
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value == name:
            return arg
    return None


def positional(call: cst.Call, index: int) -> cst.Arg | None:
    """The call's argument at this position, if neither it nor one before it is unpacked."""
    head = call.args[: index + 1]
    plain = len(head) > index and not any(arg.star or arg.keyword for arg in head)
    return head[index] if plain else None


def with_value(call: cst.Call, arg: cst.Arg, value: cst.BaseExpression) -> cst.Call:
    """The call with another value for one of its arguments."""
    new = [a.with_changes(value=value) if a is arg else a for a in call.args]
    return call.with_changes(args=new)
