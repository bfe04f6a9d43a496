"""The model as a diagram: what reads weights, and attention, in layers of the dataflow."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx

from automup.capture.graph import Node
from automup.plan import Plan

WIDTH, HEIGHT, GAP_X, GAP_Y = 230, 46, 26, 30
"""Of a box and between boxes, in pixels."""

_RANK = ("scalar", "input", "output", "hidden")
_SOFTMAX = ("aten._softmax.default", "aten._safe_softmax.default")


@dataclass(frozen=True)
class Box:
    """A module that reads weights, or a softmax.

    ``role`` is that of its matrices ("" of a softmax), ``shape`` of the largest; ``layer`` and
    ``column`` are its place; ``count`` is how many alike it stands for.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    layer: int
    column: int
    count: int


@dataclass(frozen=True)
class Diagram:
    """Boxes in the order of the dataflow, and edges between their numbers."""

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


@dataclass
class _Found:
    """Boxes by name with the weights they read, and who feeds whom, as the graph is walked."""

    weights: dict[str, set[str]] = field(default_factory=dict)
    feeds: set[tuple[str, str]] = field(default_factory=set)


def diagram_of(nodes: Sequence[Node], plan: Plan) -> Diagram:
    """The diagram of a trace's nodes; layers that differ in their numbers alone are one."""
    found = _walk(nodes)
    counts: dict[str, set[str]] = defaultdict(set)
    for name in found.weights:
        counts[_pattern(name)].add(name)
    order = {pattern: i for i, pattern in enumerate(counts)}
    dag = nx.DiGraph()
    dag.add_nodes_from(order)
    for a, b in found.feeds:
        if order[_pattern(a)] < order[_pattern(b)]:  # a stack's end does not feed its start again
            dag.add_edge(_pattern(a), _pattern(b))
    dag = nx.transitive_reduction(dag)
    layers = _layers(dag, order)
    columns: dict[int, int] = defaultdict(int)
    boxes = []
    for pattern, names in counts.items():
        weights = {w for n in names for w in found.weights[n]}
        role, shape = _role(plan, weights)
        layer = layers[pattern]
        boxes.append(Box(pattern, role, shape, layer, columns[layer], len(names)))
        columns[layer] += 1
    edges = sorted((order[a], order[b]) for a, b in dag.edges)
    return Diagram(tuple(boxes), tuple(edges))


def _walk(nodes: Sequence[Node]) -> _Found:
    found = _Found()
    weights: dict[Node, set[str]] = {}  # nodes that are made of weights and constants alone
    sources: dict[Node, set[str]] = {}  # the boxes that an activation comes from
    for node in nodes:
        inputs = node.all_input_nodes
        if node.op == "get_attr":
            name = node.parameter
            weights[node] = {name} if name else set()
        elif node.op == "call_function" and inputs and all(n in weights for n in inputs):
            weights[node] = set().union(*(weights[n] for n in inputs))
        else:
            before = set().union(*(sources.get(n, set()) for n in inputs))
            read = set().union(*(weights.get(n, set()) for n in inputs))
            sources[node] = _into_box(found, node, before, read)
    return found


def _into_box(found: _Found, node: Node, before: set[str], read: set[str]) -> set[str]:
    """The boxes that a node's value comes from: its own if it reads weights, else those before."""
    softmax = str(node.target) in _SOFTMAX
    if node.op != "call_function" or not (read or softmax):
        return before
    module = node.fact.module
    name = f"{module}: softmax" if softmax else module or next(iter(sorted(read)))
    found.weights.setdefault(name, set()).update(read)
    found.feeds |= {(source, name) for source in before if source != name}
    return {name}


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _layers(dag: nx.DiGraph, order: Mapping[str, int]) -> dict[str, int]:
    """Each box one layer below the lowest that feeds it."""
    layers: dict[str, int] = {}
    for name in sorted(dag.nodes, key=order.__getitem__):
        layers[name] = 1 + max((layers[n] for n in dag.predecessors(name)), default=-1)
    return layers


def _role(plan: Plan, weights: Iterable[str]) -> tuple[str, tuple[int, ...]]:
    """The role of the largest of a box's weights, and its shape at the base."""
    facts = [p for p in plan.parameters if set(p.names) & set(weights)]
    if not facts:
        return "", ()
    largest = max(facts, key=lambda p: (len(p.shape) > 1, _RANK.index(p.role.value)))
    return largest.role.value, largest.base_shape


# --- as SVG ---------------------------------------------------------------------------------------


def as_svg(diagram: Diagram, culprits: Iterable[str] = ()) -> str:
    """The diagram, coloured by role with the classes of a page's style; culprits are outlined."""
    across: dict[int, int] = defaultdict(int)
    for box in diagram.boxes:
        across[box.layer] = max(across[box.layer], box.column + 1)
    widest = max(across.values(), default=1)
    width = widest * (WIDTH + GAP_X) + GAP_X
    height = (len(across)) * (HEIGHT + GAP_Y) + GAP_Y
    places = [_place(box, across[box.layer], width) for box in diagram.boxes]
    marked = {_pattern(name) for name in culprits}
    lines = [_edge(places[a], places[b]) for a, b in diagram.edges]
    drawn = [_box(b, p, marked) for b, p in zip(diagram.boxes, places, strict=True)]
    return (
        f'<svg class="diagram" role="img" aria-label="model graph" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">{"".join([*lines, *drawn])}</svg>'
    )


def _place(box: Box, columns: int, width: int) -> tuple[float, float]:
    left = (width - columns * (WIDTH + GAP_X) + GAP_X) / 2
    return left + box.column * (WIDTH + GAP_X), GAP_Y / 2 + box.layer * (HEIGHT + GAP_Y)


def _edge(above: tuple[float, float], below: tuple[float, float]) -> str:
    x1, y1 = above[0] + WIDTH / 2, above[1] + HEIGHT
    x2, y2 = below[0] + WIDTH / 2, below[1]
    bend = (y2 - y1) / 2
    path = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    return f'<path class="edge" d="{path}"/>'


def _box(box: Box, place: tuple[float, float], marked: set[str]) -> str:
    x, y = place
    off = any(box.name == m or m.startswith(f"{box.name}.") for m in marked)
    kind = f"role {box.role or 'none'}{' off' if off else ''}"
    shape = " × ".join(map(str, box.shape))
    below = f"{box.role} {shape}" if box.role else "attention"
    times = f" (×{box.count})" if box.count > 1 else ""
    title = html.escape(f"{box.name}{times}")
    shown = html.escape(_shortened(f"{box.name}{times}"))
    return (
        f'<g class="{kind}"><title>{title}</title><rect x="{x:g}" y="{y:g}" width="{WIDTH}" '
        f'height="{HEIGHT}" rx="6"/><text x="{x + 10:g}" y="{y + 19:g}">{shown}</text>'
        f'<text class="small" x="{x + 10:g}" y="{y + 36:g}">{html.escape(below)}</text></g>'
    )


def _shortened(text: str, most: int = 32) -> str:
    return text if len(text) <= most else "…" + text[1 - most :]
