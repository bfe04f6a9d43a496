"""Data that somebody else wrote, read as frozen dataclasses: nothing is taken on trust, or run."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def parse(text: str) -> Any:
    """JSON text as data.

    Raises:
        ValueError: it is not JSON, or holds NaN or Infinity, or lists in lists without end.
    """

    def no_number(name: str) -> Any:
        raise ValueError(f"it holds {name}, which is no number")

    try:
        return json.loads(text, parse_constant=no_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    except RecursionError:
        raise ValueError("its lists are nested too deeply") from None


def read(kind: Any, value: Any, place: str) -> Any:
    """A value as its type says: a dataclass of a dict, a tuple of a list, or the value itself.

    Args:
        kind: a type hint of a dataclass's field, or a dataclass.
        value: what :func:`parse` returned.
        place: what errors call the value.

    Raises:
        ValueError: it is none of that type.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return kind(**dict(_fields(kind, value, place)))  # type: ignore[operator]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # X | None
        rest = next(a for a in arguments if a is not types.NoneType)
        return None if value is None else read(rest, value, place)
    if origin is tuple:
        return _tuple(arguments, value, place)
    if origin is not None and issubclass(origin, Mapping):
        items = _checked(dict, "an object", value, place).items()
        return {name: read(arguments[1], item, f"{place}.{name}") for name, item in items}
    if kind is float:
        number = _checked((int, float), _PLAIN[float], value, place)
        if not math.isfinite(number):
            raise ValueError(f"{place} is {number}")
        return number
    _checked(kind, _PLAIN[kind], value, place)
    if kind is str and not value.isprintable():
        raise ValueError(f"{place} holds characters that cannot be printed")
    return value


def _fields(kind: Any, value: Any, place: str) -> Iterator[tuple[str, Any]]:
    given = _checked(dict, "an object", value, place)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    inside = f"{place}." if place else ""
    for name in given:
        if name not in fields:
            raise ValueError(f"{inside}{name} is not known")
    for name, field in fields.items():
        if name in given:
            yield name, read(hints[name], given[name], inside + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{inside}{name} is missing")


def _tuple(kinds: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    items = _checked(list, "a list", value, place)
    if kinds[-1] is ...:
        kinds = kinds[:1] * len(items)
    if len(kinds) != len(items):
        raise ValueError(f"{place} has {len(items)} entries, not {len(kinds)}")
    pairs = zip(kinds, items, strict=True)
    return tuple(read(kind, item, f"{place}[{i}]") for i, (kind, item) in enumerate(pairs))


def _checked(kind: Any, called: str, value: Any, place: str) -> Any:
    """The value, if it is of this type; a truth value is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        shown = value if value is None or isinstance(value, str | int | float) else type(value)
        text = shown.__name__ if isinstance(shown, type) else repr(shown)[:40]
        raise ValueError(f"{place or 'it'} is {text}, not {called}")
    return value
