"""What the user says of a parameter in place of the analysis: its role, or its fans."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from automup.errors import UsageError
from automup.rules import Role

Sizes = tuple[tuple[int, int], ...]
"""A parameter's shape at the base and at a wider model, dimension by dimension."""


@dataclass(frozen=True)
class Fans:
    """Which dimensions of a parameter count in fan_in and which in fan_out.

    A number stands for one dimension, negative ones count from the last. A dimension in neither is
    carried along and counts in no factor (the number of experts in a stack, say).

    Raises:
        UsageError: a dimension is no whole number, or is in both.
    """

    fan_in: tuple[int, ...] | int = ()
    fan_out: tuple[int, ...] | int = ()

    def __post_init__(self) -> None:
        for name in ("fan_in", "fan_out"):
            dims = getattr(self, name)
            dims = tuple(dims) if isinstance(dims, list | tuple) else (dims,)
            if not all(type(d) is int for d in dims):
                raise UsageError(
                    f"{name}={getattr(self, name)!r} names no dimensions.",
                    fix="Write Fans(fan_in=1, fan_out=0), or Fans(fan_in=(1, 2), fan_out=0).",
                )
            object.__setattr__(self, name, dims)
        self._refuse_both(self.fan_in, self.fan_out)  # type: ignore[arg-type]

    @staticmethod
    def _refuse_both(fan_in: tuple[int, ...], fan_out: tuple[int, ...]) -> None:
        for dim in fan_in:
            if dim in fan_out:
                raise UsageError(
                    f"Dimension {dim} is in fan_in and in fan_out.",
                    fix="A dimension is either summed over or written.",
                )

    @property
    def summed(self) -> tuple[int, ...]:
        """The dimensions that one output sums over."""
        return self.fan_in  # type: ignore[return-value]

    @property
    def written(self) -> tuple[int, ...]:
        """The dimensions that one input feeds."""
        return self.fan_out  # type: ignore[return-value]

    def for_rank(self, name: str, rank: int) -> Fans:
        """The same dimensions, counted from the first, in order.

        Raises:
            UsageError: the parameter has no such dimension, or one is in both.
        """
        for dim in (*self.summed, *self.written):
            if not -rank <= dim < rank:
                raise UsageError(
                    f"{name} has {rank} dimensions, so there is no dimension {dim} in it.",
                    fix=f"Count them from 0 to {rank - 1}.",
                )
        summed, written = (
            tuple(sorted({d % rank for d in dims})) for dims in (self.summed, self.written)
        )
        self._refuse_both(summed, written)
        return Fans(summed, written)

    def __str__(self) -> str:
        def dims(values: tuple[int, ...]) -> str:
            return str(values[0] if len(values) == 1 else values)

        named = (("fan_in", self.summed), ("fan_out", self.written))
        return f"Fans({', '.join(f'{name}={dims(v)}' for name, v in named if v)})"


Given = Role | Fans


@dataclass(frozen=True)
class Overrides:
    """Patterns of parameter names, each with what the user says of the parameters that it matches.

    ``*`` stands for any characters but a dot, ``**`` for any at all. A tied parameter has several
    names, and a pattern may match any of them.
    """

    items: tuple[tuple[str, Given], ...] = ()

    @staticmethod
    def of(given: Mapping[str, Given | str] | None) -> Overrides:
        """From what ``parametrize`` takes; UsageError for a value that is no role and no Fans."""
        if given is not None and not isinstance(given, Mapping):
            raise UsageError(
                f"overrides is a {type(given).__name__}.",
                fix='Pass a dict: {"blocks.*.w": Role.HIDDEN}.',
            )
        return Overrides(tuple((str(p), _given(p, v)) for p, v in (given or {}).items()))

    @staticmethod
    def parse(items: Iterable[str]) -> Overrides:
        """From the command line: ``PATTERN=hidden`` or ``PATTERN=Fans(fan_in=1, fan_out=0)``.

        Raises:
            UsageError: it is neither, or a pattern is given twice.
        """
        found: dict[str, Given] = {}
        for item in items:
            pattern, equals, value = item.partition("=")
            pattern = pattern.strip()
            if not equals or not pattern or not value.strip():
                raise UsageError(
                    f"{item!r} is not PATTERN=ROLE.", fix="Write --override 'blocks.*.w=hidden'."
                )
            if pattern in found:
                raise UsageError(f"{pattern} is given twice.", fix="Give each pattern one role.")
            found[pattern] = _parsed(pattern, value.strip())
        return Overrides(tuple(found.items()))

    def matched(self, parameters: Sequence[tuple[str, ...]]) -> dict[str, Given]:
        """What is said of each parameter, by its first name.

        Args:
            parameters: all names of every parameter.

        Raises:
            UsageError: a pattern matches nothing, or two say different things of one parameter.
        """
        found: dict[str, tuple[str, Given]] = {}
        for pattern, given in self.items:
            hits = [names for names in parameters if any(matches(pattern, n) for n in names)]
            if not hits:
                raise _no_match(pattern, [name for names in parameters for name in names])
            for names in hits:
                other, said = found.setdefault(names[0], (pattern, given))
                if said != given:
                    raise UsageError(
                        f"Two overrides say different things of {names[0]}: {other!r} says {said}, "
                        f"{pattern!r} says {given}.",
                        fix="Let each parameter match one of them.",
                    )
        return {name: given for name, (_, given) in found.items()}


def _given(pattern: str, value: object) -> Given:
    if isinstance(value, Fans):
        return value
    if isinstance(value, str) and value in {str(role) for role in Role}:
        return Role(value)
    roles = ", ".join(f"Role.{role.name}" for role in Role)
    raise UsageError(
        f"The override for {pattern!r} is {value!r}, which is no role.",
        fix=f"Roles are {roles}; or name dimensions: automup.Fans(fan_in=1, fan_out=0).",
    )


def _parsed(pattern: str, text: str) -> Given:
    try:
        call = ast.parse(text, mode="eval").body
        if (
            isinstance(call, ast.Call)
            and not call.args
            and ast.unparse(call.func) in ("Fans", "automup.Fans")
        ):
            return Fans(**{str(k.arg): ast.literal_eval(k.value) for k in call.keywords})
    except (SyntaxError, ValueError, TypeError):
        pass
    roles = ", ".join(str(role) for role in Role)
    if text.lower() not in {str(role) for role in Role}:
        raise UsageError(
            f"The override for {pattern!r} is {text!r}, which is no role.",
            fix=f"Roles are {roles}; or name dimensions: 'Fans(fan_in=1, fan_out=0)'.",
        )
    return Role(text.lower())


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern matches a parameter's name, see :class:`Overrides`."""
    parts = re.split(r"(\*\*|\*)", pattern)
    regex = "".join({"*": r"[^.]*", "**": ".*"}.get(p) or re.escape(p) for p in parts)
    return re.fullmatch(regex, name) is not None


def _no_match(pattern: str, names: list[str]) -> UsageError:
    general = list(dict.fromkeys(map(general_name, names)))
    near = difflib.get_close_matches(general_name(pattern), general, 3, 0.5)
    last = pattern.rpartition(".")[2]
    near = near or [name for name in general if name.rpartition(".")[2] == last][:3]
    return UsageError(
        f"The override for {pattern!r} matches no parameter.",
        fix=f"Near it are {', '.join(near)}."
        if near
        else f"Parameters are {', '.join(general[:3])}" + (", …" if len(general) > 3 else "."),
    )


def general_name(name: str) -> str:
    """The name with a * for each number: the pattern of all layers' parameters of that name."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


# --- from roles to dimensions ---------------------------------------------------------------------


def settled(
    given: Mapping[str, Given],
    shapes: Sequence[Mapping[str, Sizes]],
    seen: Callable[[], Mapping[str, Collection[tuple[int, ...]]]],
) -> dict[str, Fans]:
    """The dimensions that every override means.

    A role says which fans grow, not which dimension is which. An input weight's infinite dimensions
    are all written, an output weight's are all summed over; of a hidden weight's two, the one that
    the operations were seen to sum over is its fan_in; where the two have one size at every width,
    both ways give the same numbers, and torch's convention (fan_in last) is as good as the other.

    Args:
        given: what the user says, by parameter.
        shapes: the parameters' sizes in each direction in which the model may grow.
        seen: for each parameter the infinite dimensions that its uses sum over, one tuple a use;
            asked only if a role alone does not tell.

    Raises:
        UsageError: the shape does not allow the role, or does not tell which dimension is which.
    """
    fans: dict[str, Fans] = {}
    for name, said in given.items():
        rank = len(shapes[0][name])
        if isinstance(said, Fans):
            fans[name] = said.for_rank(name, rank)
            continue
        grows = growing_dims([s[name] for s in shapes])
        square = is_square([s[name] for s in shapes])
        fans[name] = _of_role(name, said, grows, square, seen)
    return fans


def _of_role(
    name: str,
    role: Role,
    grows: tuple[int, ...],
    square: bool,
    seen: Callable[[], Mapping[str, Collection[tuple[int, ...]]]],
) -> Fans:
    if role is Role.SCALAR and not grows:
        return Fans()
    if role is Role.INPUT and grows:
        return Fans((), grows)
    if role is Role.OUTPUT and grows:
        return Fans(grows, ())
    if role is Role.HIDDEN and len(grows) > 1:
        used = {dims for dims in seen().get(name, ()) if 0 < len(dims) < len(grows)}
        sums = {grows[1:]} if square and len(used) != 1 else used
        if len(sums) == 1:
            (summed,) = sums
            return Fans(summed, tuple(d for d in grows if d not in summed))
        raise UsageError(
            f"{name} is said to be hidden, but not which of its dimensions {_listed(grows)} it "
            "sums over, and its use does not tell.",
            fix=f"Name them: {suggestion(grows)} or {suggestion(grows[::-1])}.",
        )
    wants = {
        Role.SCALAR: "none that grows",
        Role.INPUT: "one that grows",
        Role.OUTPUT: "one that grows",
        Role.HIDDEN: "two that grow",
    }
    has = f"its dimensions that grow are {_listed(grows)}" if len(grows) > 1 else (
        f"only its dimension {grows[0]} grows" if grows else "none of its dimensions grows"
    )  # fmt: skip
    raise UsageError(
        f"{name} is said to be {_article(role)} weight, which has {wants[role]}, but {has}.",
        fix=f"Roles that fit: {', '.join(_fitting(len(grows)))}.",
    )


def growing_dims(sizes: Iterable[Sizes]) -> tuple[int, ...]:
    """The dimensions of one parameter that differ from the base in any direction."""
    return tuple(sorted({d for s in sizes for d, (a, b) in enumerate(s) if a != b}))


def is_square(sizes: Sequence[Sizes]) -> bool:
    """Whether exactly two dimensions grow, and are of one size in every direction."""
    grows = growing_dims(sizes)
    return len(grows) == 2 and all(s[grows[0]] == s[grows[1]] for s in sizes)


def _listed(dims: tuple[int, ...]) -> str:
    return " and ".join(map(str, dims)) if len(dims) < 3 else ", ".join(map(str, dims))


def _article(role: Role) -> str:
    return f"an {role}" if role in (Role.INPUT, Role.OUTPUT) else f"a {role}"


def _fitting(count: int) -> list[str]:
    roles = [Role.SCALAR] if not count else [Role.INPUT, Role.OUTPUT]
    return [f"Role.{role.name}" for role in (*roles, *([Role.HIDDEN] if count > 1 else []))]


def suggestion(grows: Sequence[int]) -> Fans:
    """Fans in which the last of these dimensions is summed over."""
    return Fans(tuple(grows[-1:]), tuple(sorted(grows[:-1])))
