"""The forms that a multiplier can take at a site: each is tried in turn on one expression.

A form gets the expression (its children already edited) and answers with the new one, or with
None if it does not fit. All of them are exact at the base: the factor is 1.0 there, and it enters
as one more product after the author's own arithmetic, whose order is never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import libcst as cst

from automup.edits import Edit
from automup.rewrite.arguments import add_keyword
from automup.rewrite.attention import FUNCTION
from automup.rewrite.imports import Imports
from automup.rewrite.scalars import is_scalar
from automup.rewrite.syntax import (
    PRODUCT,
    UNARY,
    at_least,
    code,
    keyword,
    last_name,
    positional,
    precedence,
    product,
    with_value,
)

SDPA = "scaled_dot_product_attention"
FLEX = "flex_attention"
_MUL = frozenset({"mul", "mul_", "multiply", "multiply_"})
_DIV = frozenset({"div", "div_", "divide", "divide_", "true_divide", "true_divide_"})
# Contractions that are methods of a tensor as well, and those that are functions only.
_METHODS = frozenset({"matmul", "mm", "bmm", "mv", "dot", "vdot", "inner", "tensordot"})
MATMULS = _METHODS | {"einsum", "linear", "bilinear", "conv1d", "conv2d", "conv3d"}
# input + alpha * (first @ second)
_ADDED = frozenset({"addmm", "addmv", "addbmm", "baddbmm"})
_FIRST = ("input", "query", "self", "a", "mat1", "tensor", "x")
# Methods that give another view of the same tensor: cheap, and safe to write twice.
_VIEWS = frozenset({"transpose", "permute", "view", "reshape", "swapaxes", "unsqueeze", "squeeze"})

Node = cst.BaseExpression | cst.AugAssign


@dataclass
class Context:
    """What a form may need to know of the file, and what it asks of it."""

    imports: Imports
    uses_math: bool = False

    def sqrt(self) -> str:
        """How this file calls math.sqrt; asks for the import if it has none."""
        if name := self.imports.local("math.sqrt"):
            return name
        self.uses_math = True
        return f"{self.imports.name_for('math')}.sqrt"


def beside(constant: cst.BaseExpression, factor: str) -> cst.BaseExpression:
    """``constant * factor``, inside the constant's own parentheses if it has some."""
    bare = constant.with_changes(lpar=[], rpar=[])
    both = product(bare, cst.parse_expression(factor))
    return both.with_changes(lpar=constant.lpar, rpar=constant.rpar)


def attention_with_projections(node: Node, edit: Edit, context: Context) -> Node | None:
    """torch's ``multi_head_attention_forward``: the block has one that takes a multiplier."""
    if not edit.projects or not isinstance(node, cst.Call):
        return None
    called = node.with_changes(func=cst.Name(FUNCTION))
    return add_keyword(called, "mup_scale", _factor(edit))


def attention_scale(node: Node, edit: Edit, context: Context) -> Node | None:
    """``scale=`` of an attention call: the author's times the factor, or torch's default's."""
    if not isinstance(node, cst.Call):
        return None
    scale = keyword(node, "scale")
    given = scale if scale is not None and code(scale.value) != "None" else None
    if not is_attention(node, edit, context.imports) and (given is None or edit.module_call):
        return None
    if given is not None:
        return with_value(node, given, product(given.value, _factor(edit)))
    size = None if any(a.star == "**" for a in node.args) else _head_size(node)
    if size is None:  # the logits are linear in the query
        return first_operand(node, edit, context)
    # torch computes 1.0 / sqrt(d) in double as well, so at the base this is its own default.
    value = product(cst.parse_expression(f"(1.0 / {context.sqrt()}({size}))"), _factor(edit))
    return with_value(node, scale, value) if scale else add_keyword(node, "scale", value)


def is_attention(call: cst.Call, edit: Edit, imports: Imports) -> bool:
    """Whether an edited call is one of attention, which takes ``scale=``."""
    return edit.attention or imports.called(call.func) == SDPA


def _head_size(call: cst.Call) -> str | None:
    """The size that torch's default scale takes: the last of the query, which is the key's too.

    None if neither can be written a second time without being computed a second time. The
    factor's own size would not do there: it may be another axis that grows like the head.
    """
    for index, name in enumerate(("query", "key")):
        arg = keyword(call, name) or positional(call, index)
        if arg is not None and repeatable(arg.value):
            return f"{code(arg.value.with_changes(lpar=[], rpar=[]))}.size(-1)"
    first = call.args[0] if call.args else None
    if first is None or first.star != "*":
        return None
    if repeatable(first.value):
        return f"{code(first.value)}[0].size(-1)"
    unbound = _unbound(first.value)
    return f"{unbound}.size(-1)" if unbound else None


def _unbound(node: cst.BaseExpression) -> str:
    """The tensor in ``tensor.unbind(0)`` whose last axis the parts keep.

    The parts of what goes into attention have two axes at least, so axis 1 is not the last either.
    """
    if not isinstance(node, cst.Call) or not isinstance(node.func, cst.Attribute):
        return ""
    dims = [code(a.value) for a in node.args]
    if node.func.attr.value != "unbind" or not repeatable(node.func.value):
        return ""
    return code(node.func.value) if dims in ([], ["0"], ["1"], ["-2"], ["-3"], ["-4"]) else ""


def repeatable(node: cst.BaseExpression) -> bool:
    """Whether an expression costs and changes nothing when it is written a second time."""
    if "\n" in code(node) or "\r" in code(node):
        return False
    if isinstance(node, cst.Call):
        called = node.func
        if not isinstance(called, cst.Attribute) or called.attr.value not in _VIEWS:
            return False
        return repeatable(called.value)
    if isinstance(node, (cst.Attribute, cst.Subscript)):
        return repeatable(node.value)
    return isinstance(node, cst.Name)


def author_constant(node: Node, edit: Edit, context: Context) -> Node | None:
    """The author's own constant in a product or quotient: the factor goes beside it."""
    if not edit.constant:
        return None
    if isinstance(node, cst.AugAssign):
        return in_place(node, edit)
    if isinstance(node, cst.BinaryOperation):
        return _constant_operand(node, edit)
    if not isinstance(node, cst.Call):
        return None
    name = last_name(node.func)
    if name in _MUL or name in _DIV:
        return _constant_argument(node, edit, context, divides=name in _DIV)
    alpha = keyword(node, "alpha")
    return with_value(node, alpha, product(alpha.value, _factor(edit))) if alpha else None


def in_place(node: cst.AugAssign, edit: Edit) -> cst.AugAssign | None:
    """``x *= c``, ``x /= c`` and ``x @= w`` with the factor beside the right-hand side."""
    if isinstance(node.operator, (cst.MultiplyAssign, cst.MatrixMultiplyAssign)):
        return node.with_changes(value=beside(node.value, edit.factor.code()))
    if isinstance(node.operator, cst.DivideAssign):
        return node.with_changes(value=beside(node.value, edit.factor.inverse_code()))
    return None


def _constant_operand(node: cst.BinaryOperation, edit: Edit) -> Node | None:
    if not isinstance(node.operator, (cst.Multiply, cst.Divide)):
        return None
    left, right = (is_scalar(side, edit.tensor_names) for side in (node.left, node.right))
    if left == right:
        return None
    if left:
        return node.with_changes(left=beside(node.left, edit.factor.code()))
    divides = isinstance(node.operator, cst.Divide)
    factor = edit.factor.inverse_code() if divides else edit.factor.code()
    return node.with_changes(right=at_least(beside(node.right, factor), UNARY))


def _constant_argument(
    node: cst.Call, edit: Edit, context: Context, *, divides: bool
) -> Node | None:
    """``x.mul(c)``, ``torch.div(x, c)``: the scalar one of the two operands."""
    function = _is_function(node, context)
    if keyword(node, "rounding_mode") is not None:
        return None
    first = (positional(node, 0) or keyword(node, "input")) if function else None
    second = positional(node, 1 if function else 0) or keyword(node, "other")
    if second is None or (function and first is None):
        return None
    scalar = is_scalar(second.value, edit.tensor_names)
    if first is None or not is_scalar(first.value, edit.tensor_names):
        factor = edit.factor.inverse_code() if divides else edit.factor.code()
        return with_value(node, second, beside(second.value, factor)) if scalar else None
    if scalar:
        return None
    return with_value(node, first, beside(first.value, edit.factor.code()))


def first_operand(node: Node, edit: Edit, context: Context) -> Node | None:
    """A contraction or a submodule: the first tensor that goes in is multiplied."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.MatrixMultiply):
        left = parenthesised_product(node.left, edit)
        return node.with_changes(left=left)
    if not isinstance(node, cst.Call):
        return None
    name = last_name(node.func)
    submodule, function = _is_submodule(node, edit, context), _is_function(node, context)
    if name in _ADDED and not submodule:
        alpha = keyword(node, "alpha")
        if alpha is None:
            bare = _factor(edit).with_changes(lpar=[], rpar=[])
            return add_keyword(node, "alpha", bare)
        return with_value(node, alpha, product(alpha.value, _factor(edit)))
    if name in _METHODS and not submodule and not function:
        method = cst.ensure_type(node.func, cst.Attribute)
        return node.with_changes(
            func=method.with_changes(value=parenthesised_product(method.value, edit))
        )
    if is_attention(node, edit, context.imports) or (name in MATMULS and function):
        return _multiply_argument(node, edit, einsum=name == "einsum")
    if edit.module_call and (submodule or function):
        return _multiply_argument(node, edit, einsum=False)
    return None


def parenthesised_product(node: cst.BaseExpression, edit: Edit) -> cst.BaseExpression:
    """``(node * factor)``, for a place that binds tighter than a product."""
    if node.lpar and precedence(node.with_changes(lpar=[], rpar=[])) >= PRODUCT:
        return beside(node, edit.factor.code())
    return at_least(product(node, _factor(edit)), UNARY)


def _multiply_argument(node: cst.Call, edit: Edit, *, einsum: bool) -> Node | None:
    named = (keyword(node, name) for name in _FIRST)
    index = 1 if einsum and not (node.args and _is_text(node.args[-1].value)) else 0
    arg = positional(node, index) or next((a for a in named if a is not None), None)
    if arg is None and len(node.args) == 1 and not node.args[0].star:
        arg = node.args[0]
    if arg is None or isinstance(arg.value, cst.BaseNumber) or _is_text(arg.value):
        return None
    operand = arg.value
    if einsum and isinstance(operand, (cst.List, cst.Tuple)) and operand.elements:
        head = operand.elements[0]
        if not isinstance(head, cst.Element):
            return None
        head = head.with_changes(value=product(head.value, _factor(edit)))
        operand = operand.with_changes(elements=[head, *operand.elements[1:]])
        return with_value(node, arg, operand)
    return with_value(node, arg, product(operand, _factor(edit)))


def _is_text(node: cst.BaseExpression) -> bool:
    return isinstance(node, (cst.SimpleString, cst.ConcatenatedString, cst.FormattedString))


def _is_function(node: cst.Call, context: Context) -> bool:
    """Whether what is called was imported, or is a bare name: not a method of a tensor."""
    return isinstance(node.func, cst.Name) or bool(context.imports.origin(node.func))


def _is_submodule(node: cst.Call, edit: Edit, context: Context) -> bool:
    """Whether a chain of attributes like ``self.heads[i]`` is called, not a tensor's method."""
    at: cst.BaseExpression = node.func
    while isinstance(at, (cst.Attribute, cst.Subscript)):
        at = at.value
    if not isinstance(at, cst.Name) or at.value in edit.tensor_names:
        return False
    return not context.imports.origin(node.func)


def whole(node: Node, edit: Edit, context: Context) -> Node | None:
    """The result itself, whatever it is."""
    if isinstance(node, cst.AugAssign):
        return in_place(node, edit)
    return product(node, _factor(edit))


def _factor(edit: Edit) -> cst.BaseExpression:
    return cst.parse_expression(edit.factor.code())


FORMS: tuple[Callable[[Node, Edit, Context], Node | None], ...] = (
    attention_with_projections,
    attention_scale,
    author_constant,
    first_operand,
    whole,
)
