"""A file that ``convert`` wrote, read again: what it records, and the author's model in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from automup.capture.load import ModelSource, load_text
from automup.edits import Factor
from automup.rewrite import attention
from automup.rewrite.constructor import CALLS


def converted_knobs(source: ModelSource) -> dict[str, Any]:
    """The base that a converted file records; nothing for a file of the author's."""
    return dict(getattr(source.module, "MUP_KNOBS", {}))


def converted_fixed(source: ModelSource) -> dict[str, Any]:
    """What else a converted file records of how its base was made."""
    return dict(getattr(source.module, "MUP_FIXED", {}))


@contextlib.contextmanager
def without_attention(module: ModuleType) -> Iterator[None]:
    """Inside, a converted file makes models without the multiplier of torch's own attention.

    The calculus does not see it: it is on a part of a bias.
    """
    given = vars(module).get(attention.CALL)
    vars(module)[attention.CALL] = lambda model: None
    try:
        yield
    finally:
        vars(module)[attention.CALL] = given


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
            text = text.replace(f" {code}", " 1.0")
    module = load_text(text, source.file)
    vars(module).update({call: lambda *args, **options: None for call in CALLS})
    return ModelSource(getattr(module, source.name), module, source.file, source.name, text)
