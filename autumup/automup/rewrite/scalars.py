"""Which side of a product is the author's constant: a scalar, as the source shows it."""

from __future__ import annotations

from collections.abc import Set

import libcst as cst

from automup.rewrite.syntax import dotted, last_name

_SIZES = frozenset({"size", "numel", "dim", "item", "stride"})
_SHAPES = frozenset({"shape", "ndim"})
_BUILTINS = frozenset({"len", "float", "int", "min", "max", "abs", "round", "pow", "sum"})
_MODULES = frozenset({"math", "np", "numpy", "cmath"})
_FUNCTIONS = frozenset({"sqrt", "rsqrt", "log", "log2", "exp", "pow", "prod"})


def is_scalar(node: cst.BaseExpression, tensor_names: Set[str]) -> bool:
    """Whether an expression is a number rather than a tensor, as far as its text shows.

    Numbers, math.*, sizes and shapes, len(), attributes that are not called, and names that are
    not known to be tensors are; any other call may return a tensor, so it is not.
    """
    if isinstance(node, cst.BaseNumber):
        return True
    if isinstance(node, cst.Name):
        return node.value not in tensor_names
    if isinstance(node, cst.Attribute):
        if node.attr.value in _SHAPES:
            return True
        return dotted(node) not in tensor_names and is_scalar(node.value, tensor_names)
    if isinstance(node, cst.Subscript):
        return is_scalar(node.value, tensor_names)
    if isinstance(node, cst.Call):
        return _scalar_call(node, tensor_names)
    return _all_scalar(node, tensor_names)


def _scalar_call(node: cst.Call, tensor_names: Set[str]) -> bool:
    name = last_name(node.func)
    if isinstance(node.func, cst.Attribute):
        if name in _SIZES:
            return True
        if dotted(node.func.value) not in _MODULES:
            return False
    elif name == "len":
        return True
    elif name not in _BUILTINS and name not in _FUNCTIONS:
        return False
    return all(is_scalar(arg.value, tensor_names) for arg in node.args)


def _all_scalar(node: cst.BaseExpression, tensor_names: Set[str]) -> bool:
    """An operation on scalars is a scalar; what is not arithmetic is not."""
    if isinstance(node, cst.BinaryOperation | cst.BooleanOperation):
        return is_scalar(node.left, tensor_names) and is_scalar(node.right, tensor_names)
    if isinstance(node, cst.UnaryOperation):
        return is_scalar(node.expression, tensor_names)
    if isinstance(node, cst.IfExp):
        return is_scalar(node.body, tensor_names) and is_scalar(node.orelse, tensor_names)
    return isinstance(node, cst.NamedExpr) and is_scalar(node.value, tensor_names)
