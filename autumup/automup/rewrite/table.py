"""MUP_BASE: the facts of a plan as the table that a converted file carries.

One row for each parameter, or for all layers that share one: which dimensions grow, their sizes at
the base, and how the constructor's own std changes with width. The generated code computes every
factor from a row and the parameter's actual shape.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, combinations, pairwise
from types import MappingProxyType

from automup.constants import NO_CONSTANTS, Constants
from automup.errors import RewriteError
from automup.facts import Parameter, SizeLaw, ratios
from automup.rewrite.listing import entries, in_lines, quoted
from automup.rules import init_multiplier

WIDEST = 83  # characters of a row on one line
Dims = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Row:
    """What a parameter's factors follow from.

    ``fan_in`` and ``fan_out`` pair infinite dimensions with their base sizes; ``init`` is the law
    that the constructor follows, None where the init is to be left alone. ``parts`` are the pieces
    of a fused weight's rows: their base sizes, and whether they grow. ``head_dim`` is the size of a
    head at the base where the weight is the output projection of torch's own attention. ``layer``
    is "input" for a matrix that reads the data; it, ``drawn``, ``query`` and ``query_part``, the
    number of one of the ``parts``, say which constants are the parameter's, where there are any.
    """

    fan_in: Dims
    fan_out: Dims
    init: tuple[SizeLaw, ...] | None
    parts: tuple[tuple[int, bool], ...] = ()
    head_dim: int = 0
    layer: str = ""
    drawn: bool = True
    query: tuple[int, ...] = ()
    query_part: int | None = None

    def code(self) -> dict[str, str]:
        """The row's entries as source; what is empty is left out."""
        entries = {}
        for key, dims in (("fan_in", self.fan_in), ("fan_out", self.fan_out)):
            if dims:
                entries[key] = "{" + ", ".join(f"{d}: {size}" for d, size in dims) + "}"
        if self.parts:
            entries["parts"] = f"[{', '.join(map(str, self.parts))}]"
        if self.head_dim:
            entries["head_dim"] = str(self.head_dim)
        if self.layer:
            entries["layer"] = f'"{self.layer}"'
        if not self.drawn:
            entries["drawn"] = "False"
        if self.query:
            entries["query"] = str(self.query)
        if self.query_part is not None:
            entries["query_part"] = str(self.query_part)
        if self.init is None:
            entries["init"] = "None"
        elif self.init:
            entries["init"] = "[" + ", ".join(map(_law_code, self.init)) + "]"
        return entries


def _law_code(law: SizeLaw) -> str:
    several = [*law.dims, *([law.joined] if law.joined else [])]
    dims = ", ".join(map(str, several)) + ("," if len(several) == 1 else "")
    of = f", {quoted(law.of)}" if law.of else ""
    return f"({law.exponent!r}, ({dims}), {law.base}{of})"


def table(
    parameters: Sequence[Parameter],
    head_dims: Mapping[str, int] = MappingProxyType({}),
    *,
    constants: Constants = NO_CONSTANTS,
    queries: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> dict[str, Row]:
    """The rows by name pattern, in the order of the parameters.

    Args:
        parameters: the plan's facts.
        head_dims: sizes of heads at the base, by the weights that carry them.
        constants: those that the file has.
        queries: the rows that one of them multiplies, see :class:`automup.plan.Parameter`.

    Raises:
        RewriteError: if the factor that the plan gives a parameter's init has no formula.
    """
    shapes = {name: p.shape for p in parameters for name in p.names}
    rows = {}
    for p in parameters:
        layer = p.layer if p.is_embedding and p.fan_out_dims else ""
        rows[p.name] = replace(_row(p, shapes), head_dim=head_dims.get(p.name, 0), layer=layer)
    for p in parameters if constants.changed else ():
        kept = p.init_std == 0.0 and constants.init(p.role, p.layer) != 1.0
        rows[p.name] = replace(rows[p.name], layer=p.layer, drawn=not kept)
        if p.name in queries and p.init_std != 0.0:
            rows[p.name] = _with_queries(rows[p.name], p, queries[p.name])
    patterns = _patterns(rows)
    return {patterns[name]: _general(name, row) for name, row in rows.items()}


def _with_queries(row: Row, p: Parameter, query: tuple[int, ...]) -> Row:
    """The row that says which of a weight's rows write queries; a part of it, where they are."""
    _, first, last, of, _ = query
    if not row.parts or (first, last) == (0, of):
        return replace(row, query=query)
    edges = [*accumulate((size for size, _ in row.parts), initial=0)]
    if (first, last) not in pairwise(edges):
        raise RewriteError(
            f"{p.name}: the rows that write its queries are no part of those that grow alike.",
            where=p.source,
            fix="Leave query_init at 1, or use automup.parametrize.",
        )
    return replace(row, query_part=edges.index(first))


def patterns_of(names: Iterable[str], rows: Mapping[str, Row]) -> dict[str, list[str]]:
    """The table's pattern for each of these parameters, with all of them that it stands for."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(next(p for p in rows if _fits(p, name)), []).append(name)
    return found


def _fits(pattern: str, name: str) -> bool:
    parts, path = pattern.split("."), name.split(".")
    return len(parts) == len(path) and all(
        a == b or (a == "*" and b.isdigit()) for a, b in zip(parts, path, strict=True)
    )


def _patterns(rows: Mapping[str, Row]) -> dict[str, str]:
    """The pattern that each parameter's row has in the table."""
    families: dict[str, list[str]] = {}
    for name in rows:
        families.setdefault(_pattern(name, frozenset()), []).append(name)
    patterns: dict[str, str] = {}
    for names in families.values():
        patterns.update(_shared(names, rows))
    return patterns


def needs_init(parameters: Sequence[Parameter]) -> bool:
    """Whether any parameter's init must change once all infinite dimensions have doubled."""
    shapes = {name: p.shape for p in parameters for name in p.names}
    doubled = {name: _doubled(p) for p in parameters for name in p.names}
    for p in parameters:
        laws = _row(p, shapes).init
        if laws is None:
            continue
        if p.fixed and p.fan_in_dims:  # rows that grow and rows that stay differ in their init
            return True
        if not math.isclose(_factor(p, laws, _doubled(p), doubled), 1.0):
            return True
    return False


def _doubled(p: Parameter) -> tuple[int, ...]:
    grown = {*p.fan_in_dims, *p.fan_out_dims}
    return tuple(2 * n if d in grown else n for d, n in enumerate(p.base_shape))


def _row(p: Parameter, shapes: Mapping[str, tuple[int, ...]]) -> Row:
    fan_in, fan_out = (
        tuple((d, p.base_shape[d]) for d in dims) for dims in (p.fan_in_dims, p.fan_out_dims)
    )
    for law in p.init_law or ():
        if law.of and law.of not in shapes:
            raise RewriteError(
                f"{p.name}: its init follows the shape of {law.of}, which the plan does not have.",
                where=p.source,
                fix="Make the plan again.",
            )
    if p.init_law is None:
        agrees, planned = False, p.init_mult
    else:
        planned = _factor(p, p.init_law, p.shape, shapes)
        agrees = math.isclose(planned, p.init_mult, rel_tol=1e-6)
    if not agrees and any(m != 1.0 for m in (p.init_mult, *(part.init_mult for part in p.parts))):
        raise RewriteError(
            f"{p.name}: its init needs a factor of {p.init_mult:g} at the target, but how the "
            "constructor's std changes with width fits no formula in sizes.",
            where=p.source,
            fix="Initialise it with a std that is constant or a power of its sizes.",
        )
    parts = tuple((part.base_size, part.grows) for part in p.parts)
    return Row(fan_in, fan_out, p.init_law if agrees else None, parts)


def _factor(
    p: Parameter,
    laws: Sequence[SizeLaw] | None,
    shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
) -> float:
    """What the generated mup_init_ multiplies a parameter (its rows that grow) of this shape by."""
    grown = ratios(shape, p.base_shape, p.fan_in_dims, p.fan_out_dims, p.fixed)
    law = 1.0
    for item in laws or ():
        sizes = shapes[item.of] if item.of else shape
        law *= (item.size(sizes) / item.base) ** item.exponent
    return init_multiplier(grown, p.role) / law


def _pattern(name: str, literal: frozenset[int]) -> str:
    """The name with ``*`` for its numbers, but for those at the literal positions."""
    parts = name.split(".")
    return ".".join("*" if s.isdigit() and i not in literal else s for i, s in enumerate(parts))


def _shared(names: Sequence[str], rows: Mapping[str, Row]) -> dict[str, str]:
    """Patterns for names that are alike but for numbers, with as many ``*`` as the rows allow."""
    numbers = [i for i, part in enumerate(names[0].split(".")) if part.isdigit()]
    for count in range(len(numbers) + 1):
        for literal in map(frozenset, combinations(numbers, count)):
            found: dict[str, set[Row]] = {}
            for name in names:
                general = _general(name, rows[name])
                found.setdefault(_pattern(name, literal), set()).add(general)
            if all(len(shared) == 1 for shared in found.values()):
                return {name: _pattern(name, literal) for name in names}
    return {name: name for name in names}


def _general(name: str, row: Row) -> Row:
    """The row with ``*`` in other parameters' names for the numbers that they share with this."""
    laws = row.init and tuple(replace(law, of=_starred(law.of, name)) for law in row.init)
    return replace(row, init=laws)


def _starred(of: str, name: str) -> str:
    numbers = [part for part in name.split(".") if part.isdigit()]
    parts = of.split(".")
    for i, part in enumerate(parts):
        if part.isdigit():
            if not numbers or numbers.pop(0) != part:
                break
            parts[i] = "*"
    return ".".join(parts)


def table_code(rows: Mapping[str, Row]) -> str:
    """The assignment of MUP_BASE."""
    return in_lines("MUP_BASE", [_entry(pattern, row.code()) for pattern, row in rows.items()])


def _entry(pattern: str, values: Mapping[str, str]) -> str:
    items = entries(values)
    line = f"{quoted(pattern)}: {{{', '.join(items)}}}"
    if len(line) <= WIDEST:
        return line
    lines = "".join(f"        {item},\n" for item in items)
    return f"{quoted(pattern)}: {{\n{lines}    }}"
