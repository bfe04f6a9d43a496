"""What a site edit is: where, by how much, and what is known of the expression there."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from automup.errors import RewriteError
from automup.facts import Span


@dataclass(frozen=True)
class Factor:
    """A multiplier ``constant * (size / base) ** exponent``.

    Without a constant it is exactly 1.0 when the size is the base's. ``size`` is an expression that
    is valid in the scope of the site, such as ``k.size(-1)``. ``named`` is code for the constant.
    Without a size it is the constant alone.
    """

    size: str
    base: int
    exponent: float
    constant: float = 1.0
    named: str = ""

    def code(self) -> str:
        """The multiplier as source, for the right of a ``*``: ``(32 / k.size(-1)) ** 0.5``."""
        return self._power(self.exponent, self.constant, "*")

    def inverse_code(self) -> str:
        """Its reciprocal in the same style, for a constant that the author divides by."""
        return self._power(-self.exponent, 1.0 / self.constant, "/")

    def _power(self, exponent: float, constant: float, by: str) -> str:
        if not self.size:
            return self.named or repr(constant)
        power = self._ratio_power(exponent)
        if self.named:
            named = self.named if by == "*" or " " not in self.named else f"({self.named})"
            return f"({power} {by} {named})"
        return power if constant == 1.0 else f"({power} * {constant!r})"

    def _ratio_power(self, exponent: float) -> str:
        if exponent == 0:
            return "1.0"
        size = self._size()
        ratio = f"({self.base} / {size})" if exponent < 0 else f"({size} / {self.base})"
        power = abs(exponent)
        if power == 1:
            return ratio
        return f"{ratio} ** {int(power) if power == int(power) else power!r}"

    def _size(self) -> str:
        try:
            tree = ast.parse(self.size, mode="eval").body
        except SyntaxError:
            raise RewriteError(
                f"The size {self.size!r} is not an expression.",
                fix="Give a size that is valid where the multiplier goes, as k.size(-1).",
            ) from None
        bare = isinstance(tree, (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.Constant))
        return self.size if bare else f"({self.size})"


@dataclass(frozen=True)
class Multiplier:
    """One row of a converted file's MUP_SITES: what its forward pass multiplies, and where."""

    kind: str
    function: str
    factor: Factor

    def code(self) -> str:
        """The row as source."""
        f = self.factor
        return f'("{self.kind}", "{self.function}", "{f.size}", {f.base}, {f.exponent!r})'


@dataclass(frozen=True)
class Edit:
    """One multiplier for the expression at a span.

    ``constant``: the operation there multiplies or divides by a scalar constant.
    ``tensor_names``: local names that are bound to tensors of one dimension or more.
    ``module_call``: the expression calls a submodule or a linear function.
    ``attention``: it calls attention that computes with ``scale=``, whatever its name is.
    ``projects``: it calls torch's ``multi_head_attention_forward``.
    """

    span: Span
    factor: Factor
    constant: bool
    tensor_names: frozenset[str]
    module_call: bool
    attention: bool = False
    projects: bool = False
