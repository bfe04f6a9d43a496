"""The constants in the code that go with width: which are a weight's own multiplier, which a fault.

The calculus asks for a factor wherever an activation's exponent is off. Where the code itself
scales a readout (mup's way), it asks for the inverse of what is there: that is no fault but a gauge
(see :mod:`automup.check.audit`), if init and learning rate of the readout go with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from automup.analysis.comparison import Spot
from automup.analysis.sites import Correction
from automup.capture.graph import Node
from automup.check.result import Finding
from automup.rules import Role

_CAUSES = {
    "attention": "the attention scale is not 1/d",
    "readout": "the readout shares its weight with an input, and its output is not scaled",
}


Readers = Mapping[Node, Sequence[Node]]
"""Who reads each value of a trace."""


def gauges(spots: Sequence[Spot], roles: Mapping[str, Role], readers: Readers) -> dict[str, float]:
    """By readout, the power of the width that the code itself multiplies its output by.

    Args:
        spots: where the calculus asks for a factor, between the base and twice the base.
        roles: by parameter's name.
        readers: of the values of the traces that the spots are in.
    """
    found: dict[str, float] = {}
    for spot in spots:
        for name in _weights(spot, roles, readers) or ():
            found[name] = found.get(name, 0.0) - spot.first.log
    return found


def faults_in_code(
    spots: Sequence[Spot], roles: Mapping[str, Role], readers: Readers
) -> list[Spot]:
    """The places where the calculus asks for a factor that is no readout's own."""
    return [spot for spot in spots if _weights(spot, roles, readers) is None]


def _weights(spot: Spot, roles: Mapping[str, Role], readers: Readers) -> set[str] | None:
    """The readouts that a constant stands beside; None if it is none, or at no readout."""
    if spot.first.kind != "scale" or not all(c.constant for c in spot.corrections):
        return None
    found = {_weight_beside(c, roles, readers) for c in spot.corrections}
    return None if None in found else {name for name in found if name}


def _weight_beside(
    correction: Correction, roles: Mapping[str, Role], readers: Readers
) -> str | None:
    """The readout next to a constant in the dataflow, behind it or before it."""
    for onward in (True, False):
        pending, seen = [correction.node], {correction.node}
        while pending and len(seen) < 20:
            node = pending.pop(0)
            name = _readout_read_by(node, roles)
            if name and node is not correction.node:
                return name
            around = readers.get(node, ()) if onward else node.all_input_nodes
            new = [n for n in around if n not in seen]
            seen.update(new)
            pending += new
    return None


def _readout_read_by(node: Node, roles: Mapping[str, Role]) -> str | None:
    """The readout that an operation contracts, perhaps through a view of it."""
    for source in node.all_input_nodes if node.op == "call_function" else ():
        current = source
        while current.op == "call_function" and len(current.all_input_nodes) == 1:
            current = current.all_input_nodes[0]
        name = current.parameter
        if name and roles.get(name) is Role.OUTPUT:
            return str(name)
    return None


def findings(spots: Sequence[Spot]) -> Iterator[Finding]:
    """The faults in the code, as findings: what the exponent is without the missing factor."""
    for spot in spots:
        places = ", ".join(m or "the model" for m in spot.modules)
        kind, why = spot.first.kind, spot.first.why
        cause = _CAUSES.get(kind) or f"a factor of {kind} is missing ({why})"
        yield Finding(places, str(spot.span), "code", -spot.first.exponent, 0.0, cause)
