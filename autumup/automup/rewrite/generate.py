"""The whole conversion of a file: edits, one call that rescales the init, and the muP block."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence

import libcst as cst
from libcst import matchers as m

from automup.errors import RewriteError
from automup.facts import Parameter
from automup.rewrite import attention
from automup.rewrite.block import NAMES, Block, in_style
from automup.rewrite.constructor import add_call
from automup.rewrite.contents import Contents
from automup.rewrite.edit import byte_order_mark, edit_sites, parse
from automup.rewrite.exchange import CALL
from automup.rewrite.factory import add_call_in
from automup.rewrite.imports import Imports, ensure_import, read_imports
from automup.rewrite.optimizers import rewire
from automup.rewrite.table import Row, needs_init, patterns_of, table


def convert_source(source: str, filename: str, contents: Contents) -> str:
    """The muP version of a model file, which does not import automup.

    A file that was converted before comes back as it is.

    Args:
        source: the file's text, with its line endings.
        filename: its name, for errors.
        contents: what it has to hold.

    Raises:
        RewriteError: if any part of the conversion has no safe place in the file.
    """
    if _is_converted(parse(source, filename)):
        return source
    file, exchanged = os.path.basename(filename), contents.exchanged
    module = parse(edit_sites(source, contents.edits, filename=filename), filename)
    imports = read_imports(module)
    subclasses = (f"Mup{name}" for name in contents.attention_classes)
    _check_names(imports, [*NAMES, *exchanged.names, *subclasses], file)
    root = _root(module, contents.root_class, file)
    module = rewire(module, root, imports, file, l2=bool(exchanged))
    block = _block(contents, file)
    module = _with_calls(module, block, file)
    for name in ("torch", "math"):
        module = ensure_import(module, name)
    imports = read_imports(module)
    text = in_style(
        block.code(),
        {name: imports.local(name) for name in ("torch", "math")},
        module.default_indent,
        module.default_newline,
    )
    return byte_order_mark(source) + _with_block(module, text, contents.root_class).code


def _block(contents: Contents, file: str) -> Block:
    rows = table(
        contents.parameters,
        contents.head_dims,
        constants=contents.exchanged.constants,
        queries=contents.queries,
    )
    return Block(
        contents,
        rows,
        init=contents.exchanged.rescales or needs_init(contents.parameters),
        redrawn=_redrawn_rows(contents.redrawn, contents.parameters, rows, file),
    )


def _with_calls(module: cst.Module, block: Block, file: str) -> cst.Module:
    """The module with what it calls of the block, where its weights have been drawn."""
    said = block.contents
    calls: list[tuple[str, Sequence[str], str]] = []
    if block.init and said.factory:
        module = add_call_in(module, said.factory, "mup_init_", file)
    elif block.init:
        found = _init_calls(said.init_functions, block.redrawn)
        calls += [("mup_init_", functions, only) for functions, only in found]
    calls += [(attention.CALL, (), "")] if said.head_dims else []
    calls += [(CALL, (), "")] if said.exchanged.multiplies else []
    for call, functions, only in calls:
        root = _root(module, said.root_class, file)
        module = add_call(module, call, root, functions, file, only)
    return module


def _init_calls(
    init_functions: Sequence[str], redrawn: Sequence[str]
) -> Iterator[tuple[Sequence[str], str]]:
    """Where the init is rescaled, each with an argument if that is a part of it."""
    if not redrawn:
        yield init_functions, ""
        return
    method, *rest = init_functions
    yield [method], "redrawn=True"
    yield [], "" if rest else "redrawn=False"  # the constructor, which calls the method or not


def _redrawn_rows(
    redrawn: Collection[str], parameters: Sequence[Parameter], rows: Mapping[str, Row], file: str
) -> list[str]:
    """The rows of the table that a method draws anew."""
    found = patterns_of([p.name for p in parameters], rows) if redrawn else {}
    for names in found.values():
        drawn, left = {*names} & {*redrawn}, {*names} - {*redrawn}
        if drawn and left:
            raise RewriteError(
                f"A method draws {min(drawn)} anew but not {min(left)}, which is alike.",
                where=file,
                fix="Draw all of them in the method, or none.",
            )
    return [pattern for pattern, names in found.items() if {*names} <= {*redrawn}]


def _is_converted(module: cst.Module) -> bool:
    assigned = m.SimpleStatementLine(
        body=[m.Assign(targets=[m.AssignTarget(target=m.Name("MUP_BASE"))])]
    )
    return any(m.matches(statement, assigned) for statement in module.body)


def _check_names(imports: Imports, names: Sequence[str], file: str) -> None:
    for name in names:
        if name in imports.others or name in imports.all:
            raise RewriteError(
                f"The file has a {name} of its own, which the muP code would replace.",
                where=file,
                fix="Rename it.",
            )


def _root(module: cst.Module, name: str, file: str) -> cst.ClassDef:
    named = [s for s in module.body if isinstance(s, cst.ClassDef) and s.name.value == name]
    if len(named) > 1:
        raise RewriteError(
            f"The file defines the class {name} {len(named)} times.",
            where=file,
            fix="Leave one of them, or rename the others.",
        )
    if named:
        return named[0]
    raise RewriteError(
        f"The class {name} is not at the top level of the file.",
        where=file,
        fix="Convert the file that defines it.",
    )


def _with_block(module: cst.Module, text: str, root_class: str) -> cst.Module:
    """The module with the block after its definitions, before code that would use the model."""
    block = cst.parse_module(text, config=module.config_for_parsing)
    # As the first statement of a module the table has its comments in the module's header.
    blank = cst.EmptyLine(indent=False)
    first = block.body[0].with_changes(
        leading_lines=[blank, blank, *block.header, *block.body[0].leading_lines]
    )
    body = list(module.body)
    defined = frozenset(
        n.name.value for n in body if isinstance(n, (cst.ClassDef, cst.FunctionDef))
    )
    names = [n.name.value if isinstance(n, cst.ClassDef) else "" for n in body]
    start = names.index(root_class) + 1
    index = next((i for i in range(start, len(body)) if _runs(body[i], defined)), len(body))
    if index == len(body):
        footer = [*module.footer]
        first = first.with_changes(leading_lines=[*footer, *first.leading_lines])
        module = module.with_changes(footer=[])
    else:
        head = [*body[index].leading_lines]
        while head and head[0].comment is None:
            head.pop(0)
        body[index] = body[index].with_changes(leading_lines=[blank, blank, *head])
    body[index:index] = [first, *block.body[1:]]
    return module.with_changes(body=body, has_trailing_newline=True)


def _runs(statement: cst.CSTNode, defined: frozenset[str]) -> bool:
    """Whether a top-level statement does more than define: it may build the model."""
    if isinstance(statement, (cst.ClassDef, cst.FunctionDef)):
        return False
    if not isinstance(statement, cst.SimpleStatementLine):
        return True
    if any(
        isinstance(part, cst.Expr) and isinstance(part.value, cst.Call) for part in statement.body
    ):
        return True
    calls = m.findall(statement, m.Call(func=m.Name()))
    return any(
        cst.ensure_type(cst.ensure_type(call, cst.Call).func, cst.Name).value in defined
        for call in calls
    )
