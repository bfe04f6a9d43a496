"""The author's own optimizer construction, rewired to muP's parameter groups."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst
from libcst import matchers as m

from automup.errors import RewriteError
from automup.rewrite.constructor import is_plain_method, self_name
from automup.rewrite.imports import Imports
from automup.rewrite.syntax import code, dotted, keyword

_SCALED = ("lr", "weight_decay", "eps")
_ADAM = ("params", "lr", "betas", "eps", "weight_decay", "amsgrad")
_SGD = ("params", "lr", "momentum", "dampening", "weight_decay", "nesterov")
_POSITIONS = {"Adam": _ADAM, "AdamW": _ADAM, "SGD": _SGD}
_LONGEST = 70  # characters of a call that is left on one line


def rewire(
    module: cst.Module, root: cst.ClassDef, imports: Imports, file: str, *, l2: bool = False
) -> cst.Module:
    """The module with muP's groups in every torch.optim optimizer that the root class makes.

    ``torch.optim.AdamW(groups, lr=lr, ...)`` in a method gets ``mup_param_groups(self, lr=lr,
    params=groups, ...)`` for its first argument. Where the text does not show what else reaches
    the optimizer (``**kwargs``, an lr that is computed by a call), or its class has no rule here,
    the whole call becomes ``mup_optimizer(self, ..., optimizer=torch.optim.X)``, which sees the
    values (and refuses the class) when it runs. ``l2``: ``mup_param_groups`` must know whether the
    optimizer adds its decay to the gradient.

    Raises:
        RewriteError: if the arguments of a construction cannot be told apart.
    """
    editor = _Rewire(imports, module.default_indent, file, l2)
    body = [editor.method(n) if isinstance(n, cst.FunctionDef) else n for n in root.body.body]
    if not editor.found:
        return module
    return module.with_deep_changes(root, body=root.body.with_changes(body=body))


class _Rewire(cst.CSTTransformer):
    def __init__(self, imports: Imports, indent: str, file: str, l2: bool) -> None:
        super().__init__()
        self.imports, self.indent, self.file, self.l2 = imports, indent, file, l2
        self.found = False

    def method(self, function: cst.FunctionDef) -> cst.FunctionDef:
        """The method with muP's groups in each optimizer that it makes."""
        if not is_plain_method(function):
            return function
        self.function = function
        return cst.ensure_type(function.visit(self), cst.FunctionDef)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.Call:
        package, _, name = self.imports.origin(original_node.func).rpartition(".")
        if package != "torch.optim" or not name[:1].isupper() or name == "Optimizer":
            return updated_node
        self.found = True
        given = _given(updated_node, name)
        if given is None:
            raise RewriteError(
                f"What `{code(original_node)}` passes to the optimizer cannot be told apart.",
                where=self.file,
                fix="Pass everything but the parameters by keyword.",
            )
        if name in _POSITIONS and self._is_plain(updated_node, given):
            return self._with_groups(updated_node, given, name)
        return self._as_mup_optimizer(updated_node, given)

    def _is_plain(self, call: cst.Call, given: dict[str, cst.Arg]) -> bool:
        """Whether all that muP scales is written in the call, and may be evaluated twice."""
        for arg in call.args:
            if arg.star == "**" and not _leaves_alone(arg.value, self.function):
                return False
        if self.l2 and "decoupled_weight_decay" in given:
            return False
        scaled = [given[key].value for key in _SCALED if key in given]
        return not any(isinstance(v, cst.Call) or m.findall(v, m.Call()) for v in scaled)

    def _with_groups(self, call: cst.Call, given: dict[str, cst.Arg], name: str) -> cst.Call:
        me = self_name(self.function)
        params = code(given["params"].value)
        lr = code(given["lr"].value) if "lr" in given else "1e-3"  # torch's default
        parts = [me, f"lr={lr}"]
        if params != f"{me}.parameters()":
            parts.append(f"params={params}")
        if "weight_decay" in given:
            parts.append(f"weight_decay={code(given['weight_decay'].value)}")
        elif name == "AdamW":
            parts.append("weight_decay=0.01")  # torch's default
        if name == "SGD":
            parts.append('family="sgd"')
        elif "eps" in given:
            parts.append(f"eps={code(given['eps'].value)}")
        if self.l2 and name == "Adam":
            parts.append("l2=True")
        groups = cst.parse_expression(f"mup_param_groups({', '.join(parts)})")
        args = [a.with_changes(value=groups) if a is given["params"] else a for a in call.args]
        return _laid_out(call.with_changes(args=args), self.indent)

    def _as_mup_optimizer(self, call: cst.Call, given: dict[str, cst.Arg]) -> cst.Call:
        me = self_name(self.function)
        names = {id(arg): name for name, arg in given.items()}
        args = [cst.Arg(cst.Name(me))]
        for arg in call.args:
            if arg is given["params"] and code(arg.value) == f"{me}.parameters()":
                continue
            name = names.get(id(arg))
            if name is not None and arg.keyword is None:
                arg = _keyword(name, arg.value).with_changes(comma=arg.comma)
            args.append(arg)
        stars = [arg for arg in args if arg.star == "**"]
        plain = [arg for arg in args if arg.star != "**"]
        args = [*plain, _keyword("optimizer", call.func), *stars]
        commas = [a.with_changes(comma=_comma(a)) for a in args[:-1]]
        new = call.with_changes(func=cst.Name("mup_optimizer"), args=[*commas, args[-1]])
        return _laid_out(new, self.indent)


def _comma(arg: cst.Arg) -> cst.Comma:
    if isinstance(arg.comma, cst.Comma):
        return arg.comma
    return cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))


def _keyword(name: str, value: cst.BaseExpression) -> cst.Arg:
    none = cst.SimpleWhitespace("")
    return cst.Arg(value, keyword=cst.Name(name), equal=cst.AssignEqual(none, none))


def _given(call: cst.Call, optimizer: str) -> dict[str, cst.Arg] | None:
    """The arguments by name; None if there is ``*args``, or a position without a known name."""
    positions: Sequence[str] = _POSITIONS.get(optimizer, ("params", "lr"))
    found: dict[str, cst.Arg] = {}
    for index, arg in enumerate(call.args):
        if arg.star == "*" or (not arg.keyword and not arg.star and index >= len(positions)):
            return None
        if not arg.star:
            found[arg.keyword.value if arg.keyword else positions[index]] = arg
    return found if "params" in found else None


def _leaves_alone(value: cst.BaseExpression, method: cst.FunctionDef) -> bool:
    """Whether ``**value`` visibly holds no lr, weight_decay or eps."""
    if isinstance(value, cst.IfExp):
        return _leaves_alone(value.body, method) and _leaves_alone(value.orelse, method)
    if isinstance(value, cst.Dict):
        keys = [e.key if isinstance(e, cst.DictElement) else None for e in value.elements]
        return all(
            isinstance(k, cst.SimpleString) and k.evaluated_value not in _SCALED for k in keys
        )
    if isinstance(value, cst.Call) and dotted(value.func) == "dict":
        plain = all(arg.keyword is not None for arg in value.args)
        return plain and not any(keyword(value, key) for key in _SCALED)
    if not isinstance(value, cst.Name):
        return False
    name = m.Name(value.value)
    stored = m.findall(method, m.Assign(targets=[m.AssignTarget(target=name)]))
    uses = len(m.findall(method, name))
    splats = len(m.findall(method, m.Arg(value=name, star="**")))
    if not stored or uses != len(stored) + splats:  # changed, passed on or a parameter
        return False
    return all(_leaves_alone(cst.ensure_type(n, cst.Assign).value, method) for n in stored)


def _laid_out(call: cst.Call, indent: str) -> cst.Call:
    """A call that became too long for its line, with one argument on each."""
    text = code(call)
    if "\n" in text or len(text) <= _LONGEST:
        return call
    inner = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace(indent))
    outer = cst.ParenthesizedWhitespace(indent=True)
    args = [
        a.with_changes(
            comma=cst.Comma(whitespace_after=inner), whitespace_after_arg=cst.SimpleWhitespace("")
        )
        for a in call.args
    ]
    args[-1] = args[-1].with_changes(comma=cst.Comma(whitespace_after=outer))
    return call.with_changes(args=args, whitespace_before_args=inner)
