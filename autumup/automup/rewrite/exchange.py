"""What a converted file puts into multipliers rather than init and rate, and what the user tuned.

By the abc-symmetry (Tensor Programs V, arXiv:2203.03466, J.2.1) a weight W = A w / s, that the
forward pass multiplies by s, is drawn by A / s times w's law and trained by w's rate times
(A / s) ** (1 + degree): see :class:`automup.rules.Family`. A is a tuned multiplier, s the form's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from automup.constants import NO_CONSTANTS, Constants
from automup.edits import Edit
from automup.forms import UNIFORM
from automup.rewrite.listing import entries, in_lines
from automup.rules import FAMILIES

CALL = "mup_scale_"
CONSTANTS = "MUP_CONSTANTS"
SCALES = "mup_scales"
"""What a module calls the factors of parameters that its own code multiplies."""
NAMES = (
    "MUP_FORM", "MUP_SCALED", "MUP_CLASSES", "MUP_READERS", CONSTANTS, CALL,
    "_MupScaled", "_mup_scale", "_mup_gain", "_mup_constants",
)  # fmt: skip


@dataclass(frozen=True)
class Exchange:
    """The form and the constants of a converted file.

    ``scaled``: the modules (``*`` for numbers) that multiply, each with the names of two of its
    parameters, or of none (""): its input is multiplied by the scale of the first over that of the
    second, its output by that of the second. ``classes``: what such modules are of, as code, each
    with the name of the class that multiplies. ``attributes``: what modules call their parameters
    that have a scale. ``readers``: the file's classes whose own code multiplies parameters where it
    reads them, by the edits ``reads``, and what they call these.
    """

    form: str = "default"
    constants: Constants = NO_CONSTANTS
    scaled: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    attributes: frozenset[str] = frozenset()
    readers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reads: tuple[Edit, ...] = ()

    def __bool__(self) -> bool:
        return self.form != "default" or self.tuned

    @property
    def tuned(self) -> bool:
        return bool(self.constants.changed)

    @property
    def multiplies(self) -> bool:
        """Whether modules multiply."""
        return bool(self.scaled or self.readers)

    @property
    def rescales(self) -> bool:
        """Whether weights are drawn otherwise, even where muP itself changes no init."""
        multiplied = {"input_mult", "output_mult"} & self.constants.changed.keys()
        return self.form != "default" or self._redraws or bool(multiplied)

    @property
    def _redraws(self) -> bool:
        return any(name.endswith("_init") for name in self.constants.changed)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the file's own may not be."""
        return (*NAMES, *self.classes.values())

    # --- the code ---------------------------------------------------------------------------------

    def header(self) -> str:
        """Comments on the tables."""
        said = ""
        if self.tuned:
            said += _HEADER_CONSTANTS
            said += _HEADER_DRAWN if self._redraws else ""
        if self.form != "default":
            said += _HEADER_FORM.replace("{form}", self.form)
        said += _HEADER_SCALED if self.scaled else ""
        return said + (_HEADER_READERS if self.readers else "")

    def tables(self) -> str:
        """The tables beside MUP_BASE."""
        code = ""
        if self.tuned:
            values = {name: repr(value) for name, value in self.constants.changed.items()}
            code += in_lines(CONSTANTS, entries(values))
        if self.form != "default":
            code += f'MUP_FORM = "{self.form}"\n'
        if self.scaled:
            rows = {path: f'("{a}", "{b}")' for path, (a, b) in self.scaled.items()}
            code += in_lines("MUP_SCALED", entries(rows))
        return code

    def functions(self) -> list[str]:
        """The functions and classes, in order; none of them without an exchange."""
        if not self:
            return []
        found = [_CONSTANTS] if self.tuned else []
        if self.form != "default":
            found.append(self._scale())
        found.append(self._gain())
        tables = []
        if self.scaled:
            found += [_SCALED, *map(_class, self.classes.items())]
            listed = [f"{k}: {name}" for k, name in self.classes.items()]
            tables.append(in_lines("MUP_CLASSES", listed))
        if self.readers:
            listed = [f"{cls}: {_names(names)}" for cls, names in self.readers.items()]
            tables.append(in_lines("MUP_READERS", listed))
        if tables:
            code = _MULTIPLY + (_READ if self.readers else "")
            code += _AROUND if self.scaled else _NOWHERE
            found.append("".join(tables) + "\n\n" + code)
        return found

    def _scale(self) -> str:
        """The formulas of :func:`automup.forms.scale`."""
        ratios, known = "r_in, r_out", ""
        if self.form == "table8":
            value = '1.0 / r_in if "fan_out" not in row else 1.0'
            ratios = "r_in, _"
        elif FAMILIES[UNIFORM[self.form]].degree:
            value = "math.sqrt(r_out / r_in)"
            if self.tuned:
                value = "mult * math.sqrt(rate * r_out / r_in)"
        else:
            value, ratios = ("mult * rate / r_in" if self.tuned else "1.0 / r_in"), "r_in, _"
        if "mult" in value:
            known = "    mult, rate, _ = _mup_constants(row)\n"
        return _SCALE.format(ratios=ratios, known=known, value=value)

    def _gain(self) -> str:
        value = "_mup_constants(row)[0]" if self.tuned else "1.0"
        return _GAIN.replace(
            "{value}", f"{value} / _mup_scale(row, shape)" if self.form != "default" else value
        )

    def of_site(self, kind: str, *, end: bool = False, layer: str = "") -> str:
        """The constants of a site, as code to multiply by; "" for none. See ``Constants``."""
        above, below = (
            [f'{CONSTANTS}["{name}"]' for name in names if name in self.constants.changed]
            for names in self.constants.names_at_site(kind, end, layer)
        )
        if not above and not below:
            return ""
        return " / ".join([" * ".join(above) or "1.0", *below])

    def of_edit(self, edit: Edit) -> Edit:
        """An edit as the file has it: without the constants if it has none."""
        factor = edit.factor if self.tuned else replace(edit.factor, named="")
        return replace(edit, factor=factor)

    def of_init(self, *, cut: bool) -> dict[str, str]:
        """What fills the blanks of ``mup_init_``; ``cut``: some weights are cut into parts."""
        if not self:
            return {"{unknown}": _LEAVE, "{laws}": "laws", "{factor}": "wanted / drawn"}
        line = f"\n{' ' * (12 if cut else 8)}factor *= _mup_gain(row, p.shape)"
        line += f" * _mup_constants(row{', grows' if cut else ''})[2]" if self.tuned else ""
        factor = f"1.0 if laws is None else wanted / drawn{line}"
        return {"{unknown}": "", "{laws}": "laws or []", "{factor}": factor}


NO_EXCHANGE = Exchange()


def _names(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _class(pair: tuple[str, str]) -> str:
    cls, name = pair
    return f"class {name}(_MupScaled, {cls}):\n    pass\n"


_HEADER_CONSTANTS = """\
# MUP_CONSTANTS holds what was tuned at the base, the same at every width (Tensor Programs V,
# Tables 1 and 2); what is not in it is 1. A multiplier of weights is in their init and learning
# rate, that of attention or of a shared readout in the forward pass.
#   layer    "input" or "output": the end of the model whose constants are the parameter's
"""
_HEADER_DRAWN = """\
#   drawn    False where the author's init is not random, so that no constant changes it
"""
_HEADER_FORM = """\
# MUP_FORM: every parameter stands for a weight scale * p, as the forward pass multiplies it;
# _mup_scale has the scale, and init and learning rate make up for it (the abc-symmetry,
# arXiv:2203.03466, J.2.1): training is that of any other form.
"""
_HEADER_SCALED = """\
# MUP_SCALED lists the modules that do so, with two of their parameters each: scale(first) /
# scale(second) multiplies the input, scale(second) the output; "" has scale 1.
"""

_HEADER_READERS = """\
# MUP_READERS lists the classes that multiply parameters of their own where they read them, by
# self.mup_scales.
"""

_CONSTANTS = '''\
def _mup_constants(row, grows=True):
    """What MUP_CONSTANTS has for a parameter: its multiplier, learning rate and init."""
    layer, role = row.get("layer", ""), "input"
    if "fan_in" in row:
        role = "hidden" if grows and "fan_out" in row else "output"
    drawn = "output" if (role, layer) == ("input", "output") else role
    return (
        MUP_CONSTANTS.get(f"{layer}_mult", 1.0),
        MUP_CONSTANTS.get(f"{role}_lr", 1.0),
        MUP_CONSTANTS.get(f"{drawn}_init", 1.0) if row.get("drawn", True) else 1.0,
    )
'''

_SCALE = '''\
def _mup_scale(row, shape):
    """What the forward pass multiplies a parameter by."""
    {ratios} = _mup_ratios(row, shape)
{known}    return {value}
'''

_GAIN = '''\
def _mup_gain(row, shape):
    """The multiplier that a parameter has in it; init and learning rate make up for it."""
    return {value}
'''

_SCALED = '''\
class _MupScaled:
    """A module that multiplies its input and its output, for the scales of its parameters."""

    def forward(self, *args, **kwargs):
        if self.mup_input is not None:
            args = (args[0] * self.mup_input, *args[1:])
        output = super().forward(*args, **kwargs)
        return output if self.mup_output is None else output * self.mup_output
'''

_MULTIPLY = '''\
def mup_scale_(model):
    """Let modules multiply, in place; at the base, by 1."""
    names = {id(p): name for name, p in model.named_parameters()}
    for path, module in model.named_modules():
        own = module.named_parameters(recurse=False)
        scales = {name: _mup_scale(_mup_row(names[id(p)]), p.shape) for name, p in own}
'''
_READ = """\
        read = {n for cls, own in MUP_READERS.items() if isinstance(module, cls) for n in own}
        if read:
            module.mup_scales = {name: scales.pop(name, 1.0) for name in sorted(read)}
"""
_NOWHERE = """\
        if not all(math.isclose(scale, 1.0) for scale in scales.values()):
            raise KeyError(f"MUP_READERS has no place for the scales of {path}: {scales}")
"""
_AROUND = """\
        alike = ".".join("*" if part.isdigit() else part for part in path.split("."))
        place = MUP_SCALED.get(path) or MUP_SCALED.get(alike)
        first, second = place if place and type(module) in MUP_CLASSES else ("", "")
        known = [1.0, scales.get(first, 1.0), scales.get(second, 1.0)]
        if not all(any(math.isclose(scale, k) for k in known) for scale in scales.values()):
            raise KeyError(f"MUP_SCALED has no place for the scales of {path}: {scales}")
        if (first, second) != ("", ""):
            module.__class__ = MUP_CLASSES[type(module)]
            module.mup_input = known[1] / known[2] if first != second else None
            module.mup_output = known[2] if second else None
"""

_LEAVE = """\
        if laws is None:
            continue
"""
