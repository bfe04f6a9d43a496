"""The plan: every fact that muP needs about one model at one width, as frozen data.

A plan is keyed by qualified parameter names, holds no tensors and runs no code, so it can be
saved, compared, read and applied anywhere.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from automup.constants import NO_CONSTANTS, Constants
from automup.errors import PlanError, UsageError
from automup.facts import Parameter, Site, Unresolved
from automup.files import write_atomically
from automup.forms import at_one_rate, check_form, may_change, scale
from automup.reading import parse, read
from automup.rules import Multipliers, multipliers, role_of

SCHEMA = 2
READABLE = (1, 2)
"""1 has no constants; what it has not is as without any."""
MOST = 1 << 63  # no tensor is as large
LARGEST = 256 << 20
"""The size in bytes above which a file is no plan: that of the largest models has 1 MiB."""


@dataclass(frozen=True)
class Plan:
    """Every fact about one model at one target width. See :class:`Parameter` and :class:`Site`."""

    model: str
    base: Mapping[str, Any]
    target: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    sites: tuple[Site, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()
    notes: tuple[str, ...] = ()
    constants: Constants = NO_CONSTANTS
    form: str = "default"

    def with_form(self, form: str) -> Plan:
        """The plan of the same training in another form; this one must be in the default form."""
        if self.form != "default":
            raise PlanError(
                f"This plan is in the form {self.form!r} already.", fix="Start from the default."
            )
        formed = dataclasses.replace(self, form=check_form(form))
        parameters = (_stored(p, 1.0 / formed.scale(p)) for p in self.parameters)
        return dataclasses.replace(formed, parameters=tuple(parameters))

    def scale(self, p: Parameter) -> float:
        """What the forward pass multiplies a parameter by, at its shape: see :mod:`forms`."""

        def lr(family: str) -> float:
            gain, rate = self.constants.multiplier(p.layer), self.constants.lr(p.role)
            return multipliers(family, p.ratios, p.role, gain=gain, rate=rate).lr

        return scale(self.form, p.ratios, p.role, lr)

    def has_scale(self, p: Parameter) -> bool:
        """Whether :meth:`scale` of a parameter may change with width, as its formula has it."""
        return may_change(self.form, bool(p.fan_in_dims), bool(p.fan_out_dims))

    def with_constants(self, constants: Constants) -> Plan:
        """The plan of the same model with other constants; its own must be 1, as a plan's is that
        was made without any.
        """
        if self.constants.changed:
            raise PlanError(
                "This plan has constants already.", fix="Start from the plan without them."
            )
        if constants.query_init != 1.0 and not any(p.query for p in self.parameters):
            raise PlanError(
                "The plan does not know what writes queries.",
                fix="Pass query_init where the plan is made: to parametrize, or explain MODEL.",
            )
        layers = {name: p.layer for p in self.parameters for name in p.names}
        return dataclasses.replace(
            self,
            parameters=tuple(_tuned(p, constants) for p in self.parameters),
            sites=tuple(_tuned_site(s, constants, layers) for s in self.sites),
            constants=constants,
        )

    def factors(
        self,
        p: Parameter,
        family: str,
        *,
        decay: str = "independent",
        embedding_lr: str = "constant",
        applied: float = 1.0,
        l2: bool = False,
    ) -> Multipliers:
        """The optimizer's factors for a parameter; see :func:`automup.rules.multipliers`."""
        found = multipliers(
            family,
            p.ratios,
            p.role,
            decay=decay,
            embedding_lr=embedding_lr if p.is_embedding else "constant",
            gain=self.constants.multiplier(p.layer) / self.scale(p),
            rate=self.constants.lr(p.role),
            applied=applied,
            l2=l2,
        )
        return dataclasses.replace(found, lr=at_one_rate(self.form, family, found.lr))

    def parameter(self, name: str) -> Parameter:
        """The parameter with this qualified name, tied names included.

        Raises:
            PlanError: if the plan has no such parameter.
        """
        found = self._by_name.get(name)
        if found is None:
            raise PlanError(
                f"The plan for {self.model} has no parameter called {name!r}.",
                fix="Make the plan from this model.",
            )
        return found

    @cached_property
    def _by_name(self) -> dict[str, Parameter]:
        return {name: p for p in self.parameters for name in p.names}

    def to_json(self) -> str:
        """The plan as JSON, with its schema version."""
        return json.dumps({"automup_plan": SCHEMA, **dataclasses.asdict(self)}, indent=1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, atomically."""
        write_atomically(Path(path), self.to_json() + "\n")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Read a plan that :meth:`save` wrote.

        Raises:
            PlanError: if the file is missing, truncated, or not a plan of this schema.
        """
        where, file = str(path), Path(path)
        try:
            if file.exists() and not file.is_file():
                raise PlanError("The plan is no ordinary file.", where=where)
            if file.stat().st_size > LARGEST:
                raise ValueError(f"it has more than {LARGEST >> 20} MiB")
            return Plan.from_json(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"Cannot read the plan: {error.strerror}.", where=where) from None
        except (ValueError, UsageError) as error:
            said = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error
            raise PlanError(
                f"Not a plan of schema {SCHEMA}: {said}.",
                where=where,
                fix="Make it again with `automup explain MODEL --save FILE`.",
            ) from None

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan in a JSON text; raises ValueError, which says where, on anything else."""
        data = parse(text)
        version = data.pop("automup_plan", None) if isinstance(data, dict) else None
        if version not in READABLE or version is True:
            found = "there is none" if version is None else f"it has {str(version)[:20]}"
            raise ValueError(f"automup_plan must be one of {READABLE}, and {found}")
        plan: Plan = read(Plan, data, "")
        for number, parameter in enumerate(plan.parameters):
            for fault in _faults(parameter):
                raise ValueError(f"parameters[{number}].{fault}")
        if len(plan._by_name) < sum(len(p.names) for p in plan.parameters):
            raise ValueError("it has two parameters of one name")
        return plan


def _tuned(p: Parameter, constants: Constants) -> Parameter:
    """A parameter with its share of the constants: W = A w, and w is drawn that much wider."""

    def drawn(grows: bool) -> float:
        if p.init_std == 0.0:  # not random
            return 1.0
        return constants.init(role_of(bool(p.fan_in_dims), grows), p.layer)

    gain = constants.multiplier(p.layer)
    factor = gain * drawn(bool(p.fan_out_dims))
    parts = tuple(
        dataclasses.replace(part, init_mult=part.init_mult * gain * drawn(part.grows))
        for part in p.parts
    )
    std = None if p.init_std is None else p.init_std * factor
    done = dataclasses.replace(p, init_mult=p.init_mult * factor, init_std=std, parts=parts)
    queries = constants.query_init != 1.0 and p.query and p.init_std != 0.0
    return _with_queries(done, constants.query_init) if queries else done


def _with_queries(p: Parameter, factor: float) -> Parameter:
    """A parameter whose rows that write queries are drawn that much wider."""
    _, first, last, of, _ = p.query
    whole = (first, last) == (0, of)
    return _stored(p, factor) if whole else dataclasses.replace(p, query_mult=factor)


def _stored(p: Parameter, factor: float) -> Parameter:
    """A parameter that is drawn that much wider."""
    parts = tuple(dataclasses.replace(q, init_mult=q.init_mult * factor) for q in p.parts)
    std = None if p.init_std is None else p.init_std * factor
    return dataclasses.replace(p, init_mult=p.init_mult * factor, init_std=std, parts=parts)


def _tuned_site(site: Site, constants: Constants, layers: Mapping[str, str]) -> Site:
    constant = constants.of_site(site.kind, site.end, layers.get(site.parameter, ""))
    return dataclasses.replace(site, factor=site.factor * constant, constant=constant)


def _faults(p: Parameter) -> Iterator[str]:
    """Facts of a parameter that do not fit each other, so that its ratios mean nothing."""
    dims = {*p.fan_in_dims, *p.fan_out_dims}
    if p.names[:1] != (p.name,):
        yield "names does not begin with its name"
    if len(p.shape) != len(p.base_shape) or not dims <= {*range(len(p.shape))}:
        yield "shape, base_shape and the dimensions in its fans do not fit"
    elif not all(0 < s[d] < MOST for s in (p.shape, p.base_shape) for d in dims):
        yield "shape has a dimension that grows and cannot be a size"
    elif p.parts and not _add_up(p):
        yield "parts do not add up to its shape"
    elif p.query and not _queries_fit(p):
        yield "query does not fit its shape"
    if min([p.init_mult, p.query_mult, *(part.init_mult for part in p.parts)]) < 0:
        yield "init_mult is negative"


def _queries_fit(p: Parameter) -> bool:
    if len(p.query) != 5 or not 0 <= p.query[0] < len(p.shape):
        return False
    dim, first, last, of, blocks = p.query
    cut = bool(p.parts)
    if not 0 <= first < last <= of or (cut and (blocks, p.fan_out_dims) != (1, (dim,))):
        return False
    size, base = p.shape[dim], p.base_shape[dim]
    even = cut or not size % (blocks or of)
    return even and of * (blocks or base // of) == base


def _add_up(p: Parameter) -> bool:
    sizes = [part.size for part in p.parts], [part.base_size for part in p.parts]
    totals = [[s[d] for d in p.fan_out_dims] for s in (p.shape, p.base_shape)]
    positive = min(map(min, sizes)) > 0 and any(part.grows for part in p.parts)
    return positive and [[sum(s)] for s in sizes] == totals
