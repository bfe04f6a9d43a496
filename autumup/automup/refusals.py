"""What is refused, in words: the parameter, the operation, its place, and how to proceed.

The same text says what ``strict=False`` left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from automup.errors import UnresolvedError
from automup.facts import Unresolved
from automup.overrides import general_name, matches

MOST = 5
"""How many different items one message names."""


@dataclass(frozen=True)
class Group:
    """The same item in several layers: one item, and the parameters of all of them."""

    item: Unresolved
    parameters: tuple[str, ...]
    after: tuple[str, ...] = ()

    def patterns(self, others: Sequence[str]) -> Iterator[str]:
        """The names, as patterns that match no other parameter: a * where layers differ."""
        for family in self._families():
            pattern = _pattern_of(family)
            whole = not any(matches(pattern, name) for name in {*others} - {*family})
            yield from [pattern] if whole else family

    def _families(self) -> Iterator[list[str]]:
        return _families(self.parameters)

    @property
    def reason(self) -> str:
        """Why, with the names of the parameters before it."""
        head = f"{_listed(self.parameters)}: " if self.parameters else ""
        return f"{head}{_bare(self.item)}"

    def __str__(self) -> str:
        item = self.item
        place = f" at {item.source}" if item.source else ""
        what = "" if item.op == "parameter" else f" ({item.op}{place})"
        after = f", after {_listed(self.after)}" if self.after else ""
        return f"{self.reason}{what}{after}"


def _families(names: Sequence[str]) -> Iterator[list[str]]:
    """Names that differ in layers' numbers alone, together."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(general_name(name), []).append(name)
    yield from families.values()


def _listed(names: Sequence[str]) -> str:
    """Such as ``blocks.*.mix.weight (×12), head.weight``."""
    return ", ".join(
        f"{_pattern_of(family)} (×{len(family)})" if len(family) > 1 else family[0]
        for family in _families(names)
    )


def _pattern_of(names: list[str]) -> str:
    columns = zip(*(name.split(".") for name in names), strict=True)
    return ".".join(column[0] if len(set(column)) == 1 else "*" for column in columns)


def reason_of(item: Unresolved) -> str:
    """Why, with the names of all its parameters before it."""
    head = f"{', '.join(item.parameters)}: " if item.parameters else ""
    after = f", after {', '.join(item.after)}" if item.after else ""
    return f"{head}{_bare(item)}{after}"


def _bare(item: Unresolved) -> str:
    """The reason without the parameter's name before it."""
    return item.reason.removeprefix(f"{item.parameters[0]}: ") if item.parameters else item.reason


def grouped(items: Sequence[Unresolved]) -> list[Group]:
    """Items that differ by their parameters alone, together."""
    found: dict[tuple[str, ...], list[Unresolved]] = {}
    for item in items:
        key = (item.source, item.op, item.override, item.rule, item.advice, _bare(item))
        found.setdefault(key, []).append(item)
    return [
        Group(
            same[0],
            tuple(dict.fromkeys(name for item in same for name in item.parameters)),
            tuple(dict.fromkeys(name for item in same for name in item.after)),
        )
        for same in found.values()
    ]


def described(items: Sequence[Unresolved]) -> str:
    """The items in one line."""
    groups = [str(g) for g in grouped(items)]
    more = [f"and {len(groups) - MOST} more"] if len(groups) > MOST else []
    return "; ".join(groups[:MOST] + more)


def refusal(
    items: Sequence[Unresolved], names: Sequence[str] = (), *, command_line: bool = False
) -> UnresolvedError:
    """The error that refuses these items, with what can be done about them, ready to be copied.

    Args:
        items: what is unresolved.
        names: the names of all parameters; a pattern that is suggested matches no other of them.
        command_line: advise options rather than arguments.
    """
    return UnresolvedError(f"{described(items)}.", fix=_advice(items, names, command_line))


def _advice(items: Sequence[Unresolved], names: Sequence[str], command_line: bool) -> str:
    groups = grouped(items)
    given = {p: g.item.override for g in groups if g.item.override for p in g.patterns(names)}
    ways = [_override(given, command_line) if given else "", _rules(groups, command_line)]
    said = "; or ".join(way for way in ways if way)
    said = f"{said[0].upper()}{said[1:]}." if said else ""
    other = (g.item.advice or _REWRITE for g in groups if not (g.item.override or g.item.rule))
    said = " ".join([said, *dict.fromkeys(other)])
    leave = "--no-strict" if command_line else "strict=False"
    return f"{said.strip()} {leave} leaves {'it' if len(groups) == 1 else 'them'} alone."


def _override(given: Mapping[str, str], command_line: bool) -> str:
    """How to say what the weights are."""
    if command_line:
        said = " ".join(f"--override '{p}={_option(v)}'" for p, v in given.items())
    else:
        entries = ", ".join(f'"{p}": automup.{v}' for p, v in given.items())
        said = f"overrides={{{entries}}}"
    hints = [h for start, h in _HINTS.items() if any(v.startswith(start) for v in given.values())]
    return f"say what the weight is: {said} ({'; '.join(hints)})"


_REWRITE = "Write it with operations that automup knows, or hold that size fixed."
_HINTS = {
    "Role.INPUT": "output instead, if it sums over the dimension that grows",
    "Role.HIDDEN": "it sums over one dimension that grows and writes another",
    "Fans": "fan_in is the dimension that one output sums over",
}


def _option(value: str) -> str:
    return value.removeprefix("Role.").lower() if value.startswith("Role.") else value


def _rules(groups: Sequence[Group], command_line: bool) -> str:
    """How to say what the operations do."""
    calls = dict.fromkeys(g.item.rule for g in groups if g.item.rule)
    if not calls:
        return ""
    where = " in the model file" if command_line else ""
    said = "; ".join(f"automup.{call}" for call in calls)
    return f"register the rule of automup.op that the operation follows{where}: {said}"
