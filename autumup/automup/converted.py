"""A file that ``convert`` wrote, read again: what it records, and the author's model in it."""

from __future__ import annotations

from typing import Any

from automup.capture.load import ModelSource, load_text
from automup.edits import Factor
from automup.rewrite.constructor import CALLS


def converted_knobs(source: ModelSource) -> dict[str, Any]:
    """The base that a converted file records; nothing for a file of the author's."""
    return dict(getattr(source.module, "MUP_KNOBS", {}))


def converted_fixed(source: ModelSource) -> dict[str, Any]:
    """What else a converted file records of how its base was made."""
    return dict(getattr(source.module, "MUP_FIXED", {}))


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
            for before in " =":
                text = text.replace(f"{before}{code}", f"{before}1.0")
    module = load_text(text, source.file)
    vars(module).update({call: lambda *args, **options: None for call in CALLS})
    return ModelSource(getattr(module, source.name), module, source.file, source.name, text)
