"""The queries of a model's attention, seen at several widths; and a plan that knows them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from automup.analysis.open_ends import place_of_node
from automup.analysis.queries import Rows, UnseenError, query_rows
from automup.analysis.weights import Part
from automup.capture.graph import Node
from automup.constants import Constants
from automup.errors import AutomupError, UsageError
from automup.facts import moved
from automup.models import Knobs
from automup.plan import Plan

if TYPE_CHECKING:
    from automup.study import Study


def tuned(study: Study, plan: Plan, constants: Constants) -> Plan:
    """A plan of a study's model with constants; it is told what the queries are, if one is theirs.

    Raises:
        UsageError: if the queries cannot be told.
    """
    if constants.query_init != 1.0:
        queries = {name: dataclasses.astuple(rows) for name, rows in study.queries.items()}
        parameters = (
            dataclasses.replace(p, query=queries.get(p.name, ())) for p in plan.parameters
        )
        plan = dataclasses.replace(plan, parameters=tuple(parameters))
    return plan.with_constants(constants)


def find_queries(study: Study) -> dict[str, Rows]:
    """The rows of weights, at the base, that write the queries of attention.

    At every width that is looked at they must be where the weight's shape says: the same share of
    it, or of each head in it, or the same of its parts where some of them do not grow.

    Raises:
        UsageError: if they cannot be told, or not multiplied; says what stands in the way.
    """
    found: dict[str, Rows] = {}
    ways: dict[str, set[str]] = {}
    for nodes in _traces(study):
        try:
            here = query_rows(nodes)
        except UnseenError as error:
            raise _refusal(error.why, place_of_node(error.node)) from None
        for name, rows in here.items():
            parts = study.exponents.weights[name].parts
            seen = _ways(found.setdefault(name, rows), rows, parts)
            ways[name] = ways.get(name, seen) & seen
            if not ways[name]:
                raise _refusal(f"the rows of {name} that write its queries change with width")
    if not found:
        raise _refusal("the model has no attention whose queries a weight writes")
    for name, rows in found.items():
        weight = study.exponents.weights[name]
        if not rows.whole and not (weight.in_step and weight.fan_out_dims == (rows.dim,)):
            raise _refusal(f"the rows of {name} that write its queries do not grow as the others")
    return {
        name: rows if ways[name] != {"place"} else dataclasses.replace(rows, blocks=0)
        for name, rows in found.items()
    }


def _ways(base: Rows, other: Rows, parts: Sequence[Part]) -> set[str]:
    """By what the rows at one width follow from those at the base."""
    if not base.whole and not all(part.grows for part in parts):
        sizes, widened = [part.size[0] for part in parts], other.size * other.blocks
        fixed = sum(part.size[0] for part in parts if not part.grows)
        ratio = (widened - fixed) / (sum(sizes) - fixed)
        wide = [round(part.size[0] * ratio) if part.grows else part.size[0] for part in parts]
        edges = [moved(edge, sizes, wide) for edge in (base.first, base.last)]
        plain = base.blocks == other.blocks == 1
        return {"parts"} if plain and edges == [other.first, other.last] else set()
    same = {"share": base.share == other.share, "place": base.place == other.place}
    return {way for way, holds in same.items() if holds}


def _traces(study: Study) -> Iterator[tuple[Node, ...]]:
    """The runs of the model, at the base first, then at the widths that verify it."""
    models, reached = study.models, study.exploration.reached
    yield from (trace.nodes for _, trace in reached)
    for knobs in (models.wide, models.third):
        yield from (models.run(knobs, variant).nodes for variant, _ in reached)
    for alone in models.one_by_one():
        yield from _where_it_runs(study, alone)


def _where_it_runs(study: Study, knobs: Knobs) -> Iterator[tuple[Node, ...]]:
    for variant, _ in study.exploration.reached:
        nodes = None
        with contextlib.suppress(AutomupError):
            nodes = study.models.run(knobs, variant).nodes
        if nodes is not None:
            yield nodes


def _refusal(why: str, where: str = "") -> UsageError:
    return UsageError(
        f"query_init: {why}.",
        where=where,
        fix="Leave query_init at 1, or draw what writes the queries so in the model's constructor.",
    )
