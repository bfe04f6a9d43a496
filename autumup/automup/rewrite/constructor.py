"""The calls at the end of the root class's constructor, or of its init method."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import libcst as cst
from libcst import matchers as m

from automup.errors import RewriteError
from automup.rewrite import attention, exchange
from automup.rewrite.syntax import code, dotted, last_name

CALLS = {
    "mup_init_": "# rescale the init to muP",
    attention.CALL: "# the logits of torch's own attention",
    exchange.CALL: "# the multipliers of the weights",
}
"""The functions of the muP block that a model calls, and what is said of that."""


@dataclass(frozen=True)
class Line:
    """A call of a function of the muP block, with a further argument if it has one."""

    call: str
    only: str = ""

    def code(self, me: str) -> str:
        return f"{self.call}({me}, {self.only})" if self.only else f"{self.call}({me})"


def add_call(
    module: cst.Module,
    call: str,
    root: cst.ClassDef,
    init_functions: Sequence[str],
    file: str,
    only: str = "",
) -> cst.Module:
    """The module with ``mup_init_(self)`` where the root class's weights have all been drawn.

    That is the end of the constructor; if a method of the class draws the weights (again) and may
    be called later, it is the end of the outermost such method, and there alone, so that however
    often it is called each draw is rescaled once. A method counts if it can be called without
    arguments, which ``_init_weights(self, module)``, called for each submodule, cannot.

    A class that inherits the constructor, or that method, gets one that passes everything on.

    Args:
        module: the file.
        call: a function of the muP block, one of ``CALLS``.
        root: the model's class, in the file.
        init_functions: qualified names of the methods that draw weights; none to have the call at
            the end of the constructor whatever they draw.
        file: the file's name, for errors.
        only: a further argument, for a call that is one of several.

    Raises:
        RewriteError: if a decorator makes the constructor, or no one place comes after every draw.
    """
    methods = {n.name.value: n for n in root.body.body if isinstance(n, cst.FunctionDef)}
    constructor = methods.get("__init__")
    chosen = _outermost(root, methods, init_functions, file)
    inherited = _inherited(root, methods, init_functions)
    line = Line(call, only)
    if chosen is None and inherited:
        made = _with_override(root, inherited, line, module, file)
        return module.with_deep_changes(root, body=made)
    if chosen is not None and constructor is not None and not only:
        _check_last(constructor, chosen.name.value, file)
    function = chosen or constructor or _after_generated(root, methods, file)
    if function is None:
        made = _with_override(root, "__init__", line, module, file)
        return module.with_deep_changes(root, body=made)
    return module.with_deep_changes(function, body=_with_call(function, line, file).body)


def self_name(function: cst.FunctionDef) -> str:
    """The name of a method's first parameter."""
    params = [*function.params.posonly_params, *function.params.params]
    return params[0].name.value if params else ""


def is_plain_method(function: cst.FunctionDef) -> bool:
    """Whether a function in a class gets the instance first."""
    names = {last_name(d.decorator) for d in function.decorators}
    return bool(self_name(function)) and not names & {"staticmethod", "classmethod"}


def _outermost(
    root: cst.ClassDef,
    methods: dict[str, cst.FunctionDef],
    init_functions: Sequence[str],
    file: str,
) -> cst.FunctionDef | None:
    names = []
    for qualified in init_functions:
        owner, _, name = qualified.rpartition(".")
        own = owner == root.name.value and name in methods and name != "__init__"
        if own and _callable_alone(methods[name]):
            names.append(name)
    outer = [
        name
        for name in dict.fromkeys(names)
        if not any(_uses(methods[other], name) for other in names if other != name)
    ]
    if len(outer) > 1:
        raise RewriteError(
            f"{' and '.join(outer)} both draw weights of {root.name.value}, so no one place comes "
            "after every draw.",
            where=file,
            fix="Let one of them call the other.",
        )
    return methods[outer[0]] if outer else None


def _after_generated(
    root: cst.ClassDef, methods: dict[str, cst.FunctionDef], file: str
) -> cst.FunctionDef | None:
    """What a constructor that a decorator makes from the class's fields calls at its end."""
    if not root.decorators:
        return None
    last = methods.get("__post_init__")
    if last is None and any(m.matches(line, _FIELD) for line in root.body.body):
        raise RewriteError(
            f"{root.name.value} has no constructor in the file, and its decorator may make one, so "
            "its init cannot be rescaled.",
            where=file,
            fix="Write its __init__ into the class.",
        )
    return last


_FIELD = m.SimpleStatementLine(body=[m.AnnAssign()])


def _inherited(
    root: cst.ClassDef, methods: dict[str, cst.FunctionDef], init_functions: Sequence[str]
) -> str:
    """The init method that the class has from a base, or ""."""
    for qualified in init_functions:
        owner, _, name = qualified.rpartition(".")
        if owner == root.name.value and name != "__init__" and name not in methods:
            return name
    return ""


def _with_override(
    root: cst.ClassDef, name: str, line: Line, module: cst.Module, file: str
) -> cst.IndentedBlock:
    """The class's body with a method of its own that calls the inherited one, then the block's.

    It stands before the first method but the constructor, and takes whatever the inherited one
    takes: the base's signature is not written down twice.
    """
    text = f"def {name}(self, *args, **kwargs):\n    super().{name}(*args, **kwargs)\n"
    made = cst.parse_statement(text, config=module.config_for_parsing)
    made = _with_call(cst.ensure_type(made, cst.FunctionDef), line, file)
    block = _indented(root.body)
    body = [*block.body]
    functions = [i for i, n in enumerate(body) if isinstance(n, cst.FunctionDef)]
    after = [i + 1 for i in functions if m.matches(body[i], _CONSTRUCTOR)]
    at = [*after, *functions, len(body)][0]
    blank = cst.EmptyLine(indent=False)
    if m.matches(body[0], _NOTHING):  # `pass` gives way; what was said of it stays
        lines = [*cst.ensure_type(body[0], cst.SimpleStatementLine).leading_lines]
        comment = cst.ensure_type(body[0], cst.SimpleStatementLine).trailing_whitespace.comment
        said = [cst.EmptyLine(comment=comment)] if comment else []
        return block.with_changes(
            body=[made.with_changes(leading_lines=[*lines, *said]), *body[1:]]
        )
    behind = body[at] if at < len(body) else None
    if isinstance(behind, cst.FunctionDef) and not any(
        line.comment is None for line in behind.leading_lines[:1]
    ):
        body[at] = behind.with_changes(leading_lines=[blank, *behind.leading_lines])
    made = made.with_changes(leading_lines=[blank] if at else [])
    return block.with_changes(body=[*body[:at], made, *body[at:]])


_CONSTRUCTOR = m.FunctionDef(m.Name("__init__"))
_NOTHING = m.SimpleStatementLine(body=[m.Pass() | m.Expr(m.Ellipsis())])


def _indented(suite: cst.BaseSuite) -> cst.IndentedBlock:
    """A body on lines of its own, also where it stood on the line of the colon."""
    if isinstance(suite, cst.IndentedBlock):
        return suite
    one = cst.ensure_type(suite, cst.SimpleStatementSuite)
    line = cst.SimpleStatementLine(one.body, trailing_whitespace=one.trailing_whitespace)
    return cst.IndentedBlock([line])


def _callable_alone(function: cst.FunctionDef) -> bool:
    params = [*function.params.posonly_params, *function.params.params][1:]
    params += function.params.kwonly_params
    return is_plain_method(function) and all(p.default is not None for p in params)


def _uses(method: cst.FunctionDef, name: str, part: cst.CSTNode | None = None) -> bool:
    """Whether a method, or a part of it, names an attribute of its ``self``."""
    attribute = m.Attribute(value=m.Name(self_name(method)), attr=m.Name(name))
    return bool(m.findall(part or method, attribute))


def _check_last(constructor: cst.FunctionDef, method: str, file: str) -> None:
    """Refuse a constructor that makes or draws weights after it called the init method."""
    called = False
    for statement in constructor.body.body:
        if called:
            for node in m.findall(statement, m.Call()):
                if _may_draw(cst.ensure_type(node, cst.Call)):
                    raise RewriteError(
                        f"The constructor calls {method}, which must be the last to draw weights, "
                        f"and then `{code(node)}`.",
                        where=file,
                        fix=f"Move the call of {method} to the end of the constructor.",
                    )
        called = called or _uses(constructor, method, statement)


def _may_draw(call: cst.Call) -> bool:
    name = last_name(call.func)
    if name == "apply" or (name.endswith("_") and not name.endswith("__")):
        return True
    full = dotted(call.func)
    return full.startswith(("nn.", "torch.nn.")) or (
        "." not in full and full[:1].isupper() and not hasattr(builtins, full)
    )


def _with_call(function: cst.FunctionDef, made: Line, file: str) -> cst.FunctionDef:
    small = cst.Expr(cst.parse_expression(made.code(self_name(function))))
    function = function.with_changes(body=_indented(function.body))
    before = _BeforeReturns(lambda: cst.SimpleStatementLine([small.deep_clone()]), file)
    function = cst.ensure_type(function.visit(before), cst.FunctionDef)
    block = cst.ensure_type(function.body, cst.IndentedBlock)
    last = block.body[-1]
    if isinstance(last, cst.SimpleStatementLine) and isinstance(
        last.body[-1], (cst.Return, cst.Raise)
    ):
        return function
    line = cst.SimpleStatementLine(
        [small],
        trailing_whitespace=cst.TrailingWhitespace(
            cst.SimpleWhitespace("  "), cst.Comment(CALLS[made.call])
        ),
    )
    return function.with_changes(body=block.with_changes(body=[*block.body, line]))


class _BeforeReturns(cst.CSTTransformer):
    """Puts the call before every return of a function."""

    def __init__(self, line: Callable[[], cst.SimpleStatementLine], file: str) -> None:
        super().__init__()
        self.line, self.file = line, file
        self.depth = 0

    def visit_FunctionDef(self, node: cst.FunctionDef) -> bool:
        self.depth += 1
        return self.depth == 1

    def leave_FunctionDef(
        self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef
    ) -> cst.FunctionDef:
        self.depth -= 1
        return updated_node

    def visit_ClassDef(self, node: cst.ClassDef) -> bool:
        return False

    def visit_Return(self, node: cst.Return) -> None:
        value = node.value
        if isinstance(value, cst.Call) or (value is not None and m.findall(value, m.Call())):
            raise RewriteError(
                f"`{code(node)}` may draw weights after the place where the init is rescaled.",
                where=self.file,
                fix="Give the value a name first, then return the name.",
            )

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.BaseStatement]:
        body = updated_node.body
        if not isinstance(body[-1], cst.Return):
            return updated_node
        if len(body) > 1:
            return updated_node.with_changes(body=self._joined(body))
        return cst.FlattenSentinel([self.line(), updated_node])

    def leave_SimpleStatementSuite(
        self, original_node: cst.SimpleStatementSuite, updated_node: cst.SimpleStatementSuite
    ) -> cst.SimpleStatementSuite:
        if not isinstance(updated_node.body[-1], cst.Return):
            return updated_node
        return updated_node.with_changes(body=self._joined(updated_node.body))

    def _joined(self, body: Sequence[cst.BaseSmallStatement]) -> list[cst.BaseSmallStatement]:
        semicolon = cst.Semicolon(whitespace_after=cst.SimpleWhitespace(" "))
        call = self.line().body[0].with_changes(semicolon=semicolon)
        return [*body[:-1], call, body[-1]]
