"""The code at the end of a converted file: plain torch that computes muP from MUP_BASE."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from automup.rewrite import attention
from automup.rewrite.contents import Contents
from automup.rewrite.exchange import Exchange
from automup.rewrite.groups import groups_code
from automup.rewrite.listing import entries, in_line, in_lines, quoted
from automup.rewrite.table import Row, table_code

NAMES = (
    "MUP_KNOBS",
    "MUP_FIXED",
    "MUP_SITES",
    "MUP_BASE",
    "MUP_FAMILIES",
    "MUP_DECAYS",
    "MUP_REDRAWN",
    "mup_init_",
    "mup_param_groups",
    "mup_optimizer",
    "_mup_row",
    "_mup_ratios",
    attention.FUNCTION,
    attention.CLASS,
    attention.CALL,
)

_HEADER = """\
# ----------------------------------------------------------------------------------------
# Maximal update parametrization (muP, arXiv:2203.03466), written by automup.
#
# MUP_KNOBS holds the width knobs at the base, where muP is the standard parametrization.
{fixed}# MUP_SITES lists the multipliers in the forward pass: kind, function, and the size, base
# and exponent of (size / base) ** exponent.
# MUP_BASE has a row for every parameter: the dimensions of its shape that grow with width
# and their sizes at the base. A * in a name stands for any layer's number; {} means that
# nothing grows.
#   fan_in   {dimension: base size} that one output sums over
#   fan_out  {dimension: base size} that one input feeds
"""
_HEADER_FIXED = """\
# MUP_FIXED holds what else was given to make the model at the base.
"""
_HEADER_READS = """\
#   layer    "input" for a weight that reads the data
"""
_HEADER_PARTS = """\
#   parts    [(base size, whether it grows), ...] of the rows of a fused weight, in order
"""
_HEADER_QUERY = """\
#   query    (dimension, first, last, of, blocks): the rows of each block that write the queries
#            of attention, at the base; of so many blocks, or, if 0, of as many as there are
"""
_HEADER_QUERY_PART = """\
#   query_part  which of the parts writes the queries
"""
_HEADER_INIT = """\
#   init     how the constructor's own std changes with width already: [(exponent,
#            dimensions, base size), ...], each (sum of sizes / base size) ** exponent; a
#            fourth entry names the parameter whose dimensions they are. None: as drawn
"""

_HEADER_JOINED = """\
#            dimensions in parentheses count as one, of their product.
"""

_REDRAWN = """\

# The weights that a method draws anew and rescales itself, whenever it is called.
"""

_LOOKUP = '''\
def _mup_row(name):
    """The row of MUP_BASE for a parameter, also inside DDP or torch.compile."""
    path = name.split(".")
    paths = [path]
    for wrapper in ("_orig_mod", "_checkpoint_wrapped_module", "module"):
        while wrapper in path:
            at = path.index(wrapper)
            path = path[:at] + path[at + 1 :]
            paths.append(path)
    for path in paths:
        for pattern, row in MUP_BASE.items():
            parts = pattern.split(".")
            if len(parts) == len(path) and all(
                a == b or (a == "*" and b.isdigit()) for a, b in zip(parts, path, strict=True)
            ):
                return row
    raise KeyError(
        f"MUP_BASE has no row for {name}. Pass the model itself, not a part of it; if an "
        "option of the model adds this parameter, convert the original file with it on."
    )
'''

_RATIOS = '''\
def _mup_ratios(row, shape):
    """How many times the base's fan_in and fan_out a parameter of this shape has."""
    return [
        math.prod(shape[d] for d in dims) / math.prod(dims.values())
        for dims in (row.get("fan_in", {}), row.get("fan_out", {}))
    ]
'''

_RATIOS_OF_PARTS = '''\
def _mup_ratios(row, shape):
    """How many times the base's fan_in and fan_out a parameter of this shape has.

    Of a fused weight, fan_out is that of the rows that grow.
    """
    fixed = sum(size for size, grows in row.get("parts", []) if not grows)
    fan_in, fan_out = row.get("fan_in", {}), row.get("fan_out", {})
    return [
        math.prod(shape[d] for d in fan_in) / math.prod(fan_in.values()),
        (math.prod(shape[d] for d in fan_out) - fixed) / (math.prod(fan_out.values()) - fixed),
    ]


def _mup_parts(row, p):
    """The parts of a fused weight, or a weight as it is, and whether each one's fan_out grows."""
    if "parts" not in row:
        return [(p, "fan_out" in row)]
    (dim,) = row["fan_out"]
    r_out = _mup_ratios(row, p.shape)[1]
    sizes = [round(size * r_out) if grows else size for size, grows in row["parts"]]
    return list(zip(p.split(sizes, dim), [grows for _, grows in row["parts"]], strict=True))
'''

_INIT = '''\
@torch.no_grad()
def mup_init_(model{arguments}):
    """Rescale freshly drawn weights, in place, so that their std follows muP.{said}"""
    shapes = {n: p.shape for n, p in model.named_parameters(remove_duplicate=False)}
    for name, p in model.named_parameters():
        row = _mup_row(name)
{chosen}        laws = row.get("init", [])
{unknown}        drawn = 1.0  # the constructor's own std, relative to the base
        for exponent, dims, base, *of in {laws}:
            shape = p.shape
            for pattern in of:
                for number in filter(str.isdigit, name.split(".")):
                    pattern = pattern.replace("*", number, 1)
                shape = shapes[pattern]
{drawn}        r_in, r_out = _mup_ratios(row, p.shape)
'''
_DRAWN = """\
            drawn *= (sum(shape[d] for d in dims) / base) ** exponent
"""
_DRAWN_JOINED = """\
            sizes = [math.prod(shape[i] for i in (d if type(d) is tuple else [d])) for d in dims]
            drawn *= (sum(sizes) / base) ** exponent
"""
# In a file where a method draws some of the weights anew, and the constructor the others.
_CHOICE = {
    "{arguments}": ", redrawn=None",
    "{said}": """

    ``redrawn``: of all weights, only those of MUP_REDRAWN (True), or only the others (False).
    """,
    "{chosen}": """\
        if redrawn not in (None, any(row is MUP_BASE[drawn] for drawn in MUP_REDRAWN)):
            continue
""",
}

_RESCALE = """\
        if "fan_in" not in row:
            wanted = 1.0
        elif "fan_out" not in row:
            wanted = 1.0 / r_in
        else:
            wanted = r_in**-0.5 * min(1.0, math.sqrt(r_out / r_in))
        factor = {factor}
        if factor != 1.0:
            p.mul_(factor)
"""
_RESCALE_PARTS = """\
        for rows, grows in _mup_parts(row, p):
            if "fan_in" not in row:
                wanted = 1.0
            elif not grows:
                wanted = 1.0 / r_in
            else:
                wanted = r_in**-0.5 * min(1.0, math.sqrt(r_out / r_in))
            factor = {factor}
            if factor != 1.0:
                rows.mul_(factor)
"""

_SCALE_QUERIES = """\
        if "query" in row:
            dim, first, last, of, blocks = row["query"]
            split = p.unflatten(dim, (blocks or p.shape[dim] // of, -1))
            start, stop = (edge * split.shape[dim + 1] // of for edge in (first, last))
            split.narrow(dim + 1, start, stop - start).mul_(MUP_CONSTANTS["query_init"])
"""
_SCALE_QUERY_PART = """\
        if "query_part" in row:
            _mup_parts(row, p)[row["query_part"]][0].mul_(MUP_CONSTANTS["query_init"])
"""


@dataclass(frozen=True)
class Block:
    """The code at the end of a converted file.

    Attributes:
        contents: what it says.
        rows: its table.
        init: whether anything calls ``mup_init_``.
        redrawn: rows of the weights that a method draws anew, if it does not draw all.
    """

    contents: Contents
    rows: Mapping[str, Row]
    init: bool
    redrawn: Sequence[str]

    @property
    def exchanged(self) -> Exchange:
        return self.contents.exchanged

    @property
    def _cut(self) -> bool:
        return any(row.parts for row in self.rows.values())

    @property
    def _joined(self) -> bool:
        return any(law.joined for row in self.rows.values() for law in row.init or ())

    @property
    def _reads(self) -> bool:
        return any(row.layer == "input" for row in self.rows.values())

    @property
    def _has_queries(self) -> bool:
        return any(row.query for row in self.rows.values())

    @property
    def _has_query_parts(self) -> bool:
        return any(row.query_part is not None for row in self.rows.values())

    def code(self) -> str:
        """The block's source."""
        parts = [self._header() + self._tables(), *self._functions()]
        return "\n\n".join(parts)

    def _header(self) -> str:
        """Comments on the tables."""
        optional = {
            _HEADER_PARTS: self._cut,
            attention.HEADER: bool(self.contents.head_dims),
            _HEADER_READS: self._reads and not self.exchanged.tuned,
            _HEADER_QUERY: self._has_queries,
            _HEADER_QUERY_PART: self._has_query_parts,
            _HEADER_INIT: any(row.init != () for row in self.rows.values()),
            _HEADER_JOINED: self._joined,
        }
        fixed = _HEADER_FIXED if self.contents.fixed else ""
        said = _HEADER.replace("{fixed}", fixed)
        return said + "".join(t for t, shown in optional.items() if shown) + self.exchanged.header()

    def _tables(self) -> str:
        said = self.contents
        knobs, fixed = (
            entries({name: repr(value) for name, value in given.items()})
            for given in (said.knobs, said.fixed)
        )
        code = in_line("MUP_KNOBS", knobs) + (in_line("MUP_FIXED", fixed) if fixed else "")
        code += in_lines("MUP_SITES", [site.code() for site in said.sites], "[]")
        code += self.exchanged.tables() + table_code(self.rows)
        if self.redrawn:
            code += _REDRAWN + in_line("MUP_REDRAWN", map(quoted, self.redrawn), "[]")
        return code

    def _functions(self) -> Iterator[str]:
        said, cut = self.contents, self._cut
        yield _LOOKUP
        yield _RATIOS_OF_PARTS if cut else _RATIOS
        yield from self.exchanged.functions()
        if self.init:
            yield self._rescaling()
        if said.head_dims or any(edit.projects for edit in said.edits):
            constant = self.exchanged.of_site("attention")
            heads = bool(said.head_dims)
            yield attention.attention_code(heads, said.attention_classes, constant)
        yield groups_code(cut=cut, reads=self._reads, exchanged=self.exchanged)

    def _rescaling(self) -> str:
        """``mup_init_``."""
        text = _INIT.replace("{drawn}", _DRAWN_JOINED if self._joined else _DRAWN)
        text += _RESCALE_PARTS if self._cut else _RESCALE
        text += _SCALE_QUERIES if self._has_queries else ""
        text += _SCALE_QUERY_PART if self._has_query_parts else ""
        blanks = {blank: choice if self.redrawn else "" for blank, choice in _CHOICE.items()}
        for blank, filled in {**blanks, **self.exchanged.of_init(cut=self._cut)}.items():
            text = text.replace(blank, filled)
        return text


def in_style(text: str, modules: Mapping[str, str], indent: str, newline: str) -> str:
    """A block's source in the style of a file.

    Args:
        text: the source.
        modules: what the file calls ``torch`` and ``math``.
        indent: one level of indentation.
        newline: the line ending.
    """
    for module, local in modules.items():
        if local != module:
            text = re.sub(rf"(?<![\w.]){module}\.(?=\w+[(.,)])", f"{local}.", text)
    lines = []
    for line in text.split("\n"):
        bare = line.lstrip(" ")
        depth = len(line) - len(bare)
        lines.append(indent * (depth // 4) + " " * (depth % 4) + bare)
    return newline.join(lines)
