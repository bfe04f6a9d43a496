"""A file that ``convert`` wrote, read again: what it records, and the author's model in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from automup.capture.load import ModelSource, load_text
from automup.constants import NO_CONSTANTS, Constants
from automup.edits import Factor
from automup.errors import UsageError
from automup.rewrite import exchange
from automup.rewrite.constructor import CALLS


def converted_knobs(source: ModelSource) -> dict[str, Any]:
    """The base that a converted file records; nothing for a file of the author's."""
    return dict(getattr(source.module, "MUP_KNOBS", {}))


def converted_fixed(source: ModelSource) -> dict[str, Any]:
    """What else a converted file records of how its base was made."""
    return dict(getattr(source.module, "MUP_FIXED", {}))


def converted_form(source: ModelSource) -> str:
    """The form of a converted file."""
    return str(getattr(source.module, "MUP_FORM", "default"))


def converted_constants(source: ModelSource) -> Constants:
    """The constants of a converted file."""
    return Constants.of(getattr(source.module, exchange.CONSTANTS, {}))


def check_unchanged(source: ModelSource, form: str, constants: Constants) -> None:
    """Refuse a form or constants that are asked of a file which has its own; UsageError."""
    if not converted_knobs(source) or (form, constants) == ("default", NO_CONSTANTS):
        return
    if (form, constants) != (converted_form(source), converted_constants(source)):
        raise UsageError(
            "The file was converted before, in its own form and with its own constants.",
            where=source.file,
            fix="Convert the original file again, with those that you want.",
        )


def check_without_constants(source: ModelSource) -> None:
    """Refuse a converted file with constants, for a sweep that would tune others; UsageError."""
    if converted_constants(source).changed:
        raise UsageError(
            "The file was converted with constants of its own, which a sweep would leave out.",
            where=source.file,
            fix="Sweep the original file.",
        )


def without_scales(source: ModelSource) -> ModelSource:
    """A converted file whose modules do not multiply for its form; others as they are.

    What the form multiplies is made up for by init and learning rate, which the calculus, that
    reads the forward pass, cannot see.
    """
    if converted_form(source) == "default":
        return source
    module = load_text(source.text, source.file)
    vars(module)[exchange.CALL] = _without_scales
    return replace(source, cls=getattr(module, source.name), module=module)


class _Ones(dict[str, float]):
    def __missing__(self, name: str) -> float:
        return 1.0


def _without_scales(model: nn.Module) -> None:
    for module in model.modules():
        setattr(module, exchange.SCALES, _Ones())


def original_of(source: ModelSource) -> ModelSource:
    """A converted file with its multipliers set to 1 and its init as drawn; others as they are.

    What muP changes can only be told against the author's model.
    """
    if not converted_knobs(source):
        return source
    text = source.text
    for _, _, size, base, exponent in source.module.MUP_SITES:
        factor = Factor(size, base, exponent)
        for code in (factor.code(), factor.inverse_code()):
            for before in (" ", "=", " (", "=("):  # beside constants it is in parentheses
                text = text.replace(f"{before}{code}", f"{before}1.0")
    module = load_text(text, source.file)
    vars(module).update({call: lambda *args, **options: None for call in CALLS})
    vars(module)[exchange.CALL] = _without_scales
    ones = dict.fromkeys(getattr(module, exchange.CONSTANTS, {}), 1.0)
    vars(module).update({exchange.CONSTANTS: ones} if ones else {})
    return ModelSource(getattr(module, source.name), module, source.file, source.name, text)
