"""The blocks that random models are made of, and how they are put together."""

from __future__ import annotations

import re
from collections.abc import Callable

from random_attention import attention, multihead
from random_layers import depthwise, groups_of_8, normalised, product
from random_multipliers import (
    constant,
    looped,
    on_the_weight,
    other_knob,
    reduction,
    similarity,
)
from random_program import (
    ONE_KNOB,
    THREE_KNOBS,
    Axis,
    Draw,
    Program,
    summed,
    written,
)

FINITE = "8"
VOCABULARY = "48"


def linear(p: Program, draw: Draw) -> None:
    x, size = p.pick(draw)
    out = ("d", "d", "2 * d", "4 * d", FINITE)[draw(5)]
    p.value(product(p, draw, x, size, out), out)


def shared(p: Program, draw: Draw) -> None:
    """One square matrix used twice in a row."""
    x, size = p.pick(draw)
    w = p.weight(draw, written(size), summed(size))
    p.value(f"F.linear(F.relu(F.linear({x}, {w})), {w})", size)


def activation(p: Program, draw: Draw) -> None:
    x, size = p.pick(draw)
    code = (
        "F.relu({0})", "F.gelu({0})", "torch.tanh({0})", "F.silu({0})", "F.softplus({0})",
        "F.leaky_relu({0}, 0.1)", "{0} * torch.sigmoid({0})", "F.relu({0}) ** 2", "F.elu({0})",
        "F.mish({0})", "torch.sin({0})",
    )  # fmt: skip
    p.value(code[draw(len(code))].format(x), size)


def norm(p: Program, draw: Draw) -> None:
    x, size = p.pick(draw)
    p.value(normalised(p, draw, x, size), size)


def residual(p: Program, draw: Draw) -> None:
    x, size = p.pick(draw)
    y, _ = p.pick(draw, lambda other: other == size)
    code = (
        "{0} + {1}", "torch.add({0}, {1}, alpha=0.5)", "({0} + {1}) / math.sqrt(2)",
        "torch.lerp({0}, {1}, 0.3)", "{0} - {1}", "{0}.add({1})", "torch.maximum({0}, {1})",
        "torch.stack([{0}, {1}]).mean(0)", "{0} * torch.sigmoid({1})",
    )  # fmt: skip
    p.value(code[draw(len(code))].format(x, y), size)


def concatenation(p: Program, draw: Draw) -> None:
    """Side by side: the sizes add up."""
    x, size = p.pick(draw, lambda size: size in ("d", "2 * d"))
    y, other = p.pick(draw, lambda other: other in ("d", "2 * d"))
    total = {"dd": "2 * d", "d2 * d": "3 * d", "2 * dd": "3 * d"}.get(size + other, "4 * d")
    if size == other and draw(3) == 0:
        p.value(f"torch.stack([{x}, {y}], -2).flatten(2)", total)
    else:
        p.value(f"torch.cat([{x}, {y}], -1)", total)


def beside_finite(p: Program, draw: Draw) -> None:
    """Infinite channels beside finite ones (or beside others that grow), into one layer."""
    x, size = p.pick(draw, p.grows)
    if "f" in p.knobs:
        y = p.temporary(f"F.linear({x}, {p.weight(draw, written('f'), summed(size))})")
        other = "f"
    elif draw(2) and p.floats:
        y, other = "x", "16"
    else:
        y = p.temporary(f"F.linear({x}, {p.weight(draw, written(FINITE), summed(size))})")
        other = FINITE
    both = Axis("i", ((size,), (other,)))
    w = p.weight(draw, both, written("d"))
    p.value(f"torch.cat([{x}, {y}], -1) @ {w}", "d")


def gate(p: Program, draw: Draw) -> None:
    """Equal parts: u * sigmoid(v)."""
    x, size = p.pick(draw)
    both = product(p, draw, x, size, "2 * d")
    if draw(4) == 0:
        p.value(f"F.glu({both}, -1)", "d")
        return
    cut = ("{}.chunk(2, -1)", "{}.split(self.d, -1)", "({0}[..., : self.d], {0}[..., self.d :])")
    t = p.temporary(both)
    u, v = p.fresh("u"), p.fresh("v")
    p.lines.append(f"{u}, {v} = {cut[draw(3)].format(t)}")
    p.value(f"{u} * {('torch.sigmoid({})', 'F.silu({})', 'F.gelu({})')[draw(3)].format(v)}", "d")


def unequal_cut(p: Program, draw: Draw) -> None:
    """Parts of one projection: d and 2 d grow alike, d and 8 do not."""
    x, size = p.pick(draw)
    other = ("2 * d", FINITE, "f" if "f" in p.knobs else FINITE)[draw(3)]
    w = p.weight(draw, Axis("o", (("d",), (other,))), summed(size))
    u, v = p.fresh("u"), p.fresh("v")
    t = p.temporary(f"F.linear({x}, {w})")
    if draw(2):
        p.lines.append(f"{u}, {v} = {t}.split([self.d, {p.inside(other)}], -1)")
    else:
        p.lines.append(f"{u}, {v} = {t}[..., : self.d], {t}[..., self.d :]")
    back = p.weight(draw, written("d"), summed(other))
    p.value(f"{u} + F.linear(F.gelu({v}), {back})", "d")


def gain(p: Program, draw: Draw) -> None:
    x, size = p.pick(draw)
    way = draw(4)
    if way == 0:
        g, b = p.vector(size), p.vector(size, "torch.randn({}) * 0.1")
        p.value(f"{x} * {g} + {b}", size)
    elif way == 1:  # positions
        table = p.vector(size, "torch.randn({}) * 0.02", written("6"), written(size))
        p.value(f"{x} + {table}", size)
    elif way == 2:  # one learned temperature
        p.value(f"{x} * {p.vector('1')}", size)
    else:
        p.value(f"torch.addcmul({p.vector(size, 'torch.zeros({})')}, {x}, {p.vector(size)})", size)


def token(p: Program, draw: Draw) -> None:
    """A learned token in front, mixed in over time by a weight on finite axes."""
    x, size = p.pick(draw)
    first = p.vector(size, "torch.randn({}) * 0.02", written("1"), written("1"), written(size))
    t = p.temporary(f"torch.cat([{first}.expand({x}.size(0), -1, -1), {x}], 1)")
    mix = p.weight(draw, written("6"), summed("7"))
    p.value(f"F.linear({t}.transpose(1, 2), {mix}).transpose(1, 2)", size)


def squeeze(p: Program, draw: Draw) -> None:
    """A gate for every channel, of the mean over time, through a finite bottleneck."""
    x, size = p.pick(draw)
    small = FINITE if draw(2) else f"({size}) // 4"
    down = p.weight(draw, written(small), summed(size))
    up = p.weight(draw, written(size), summed(small))
    z = p.temporary(f"F.linear(F.relu(F.linear({x}.mean(1, keepdim=True), {down})), {up})")
    p.value(f"{x} * torch.sigmoid({z})", size)


def feed_forward(p: Program, draw: Draw) -> None:
    """Up to another size and back; a size of its own where the model has one."""
    x, size = p.pick(draw)
    inner = "f" if "f" in p.knobs else "3 * d"
    y = p.temporary(product(p, draw, x, size, inner))
    p.value(product(p, draw, f"F.relu({y})", inner, "d"), "d")


def low_rank(p: Program, draw: Draw) -> None:
    """A rank of 4 beside a full matrix, as LoRA does it."""
    x, size = p.pick(draw)
    w = p.weight(draw, written("d"), summed(size))
    a, b = p.weight(draw, written("4"), summed(size)), p.weight(draw, written("d"), summed("4"))
    p.value(f"F.linear({x}, {w}) + 0.5 * F.linear(F.linear({x}, {a}), {b})", "d")


def routed(p: Program, draw: Draw) -> None:
    """Three experts, weighed by a router."""
    x, size = p.pick(draw)
    router = p.weight(draw, written("3"), summed(size))
    r = p.temporary(f"F.linear({x}, {router}).softmax(-1)")
    w = p.weight(draw, written("3"), summed(size), written("d"))
    y = p.temporary(f"torch.einsum('btc,eco->bteo', {x}, {w})")
    p.value(f"torch.einsum('bte,bteo->bto', {r}, {y})", "d")


def recurrent(p: Program, draw: Draw) -> None:
    """torch's own; all their weights are drawn by the size of the state."""
    x, size = p.pick(draw, lambda size: size != "4 * d")
    kind, gates = (("LSTM", "4"), ("GRU", "3"), ("RNN", "1"))[draw(3)]
    root, rows = "d ** -0.5", written(gates, "d")
    layer = p.module(
        f"nn.{kind}({size}, d, batch_first=True)",
        weight_ih_l0=((rows, summed(size)), root),
        weight_hh_l0=((rows, summed("d")), root),
        bias_ih_l0=((rows,), root),
        bias_hh_l0=((rows,), root),
    )
    p.uncounted |= set(list(p.truths)[-4:])  # one node of autograd does all of it
    p.value(f"{layer}({x})[0]", "d")


def apart(p: Program, draw: Draw) -> None:
    x, size = p.pick(draw)
    if draw(2) and p.grows(size) and size != "f":
        p.value(groups_of_8(p, draw, x, size, "d"), "d")
    else:
        p.value(depthwise(p, draw, x, size), size)


def pool(p: Program, draw: Draw) -> None:
    """Over time, which is finite."""
    x, size = p.pick(draw)
    code = (
        "{0} + {0}.mean(1, keepdim=True)", "{0}.cumsum(1)", "{0} - {0}.amax(1, keepdim=True)",
        "{0}.roll(1, 1)", "{0}.flip(1)", "{0} + {0}.sum(1, keepdim=True)",
        "F.avg_pool1d({0}.mT, 3, 1, 1).mT", "F.pad({0}[:, 1:], (0, 0, 1, 0))",
        "torch.cat([{0}[:, :3], {0}[:, 3:]], 1)", "{0}[:, torch.tensor([5, 4, 3, 2, 1, 0])]",
    )  # fmt: skip
    p.value(code[draw(len(code))].format(x), size)


BLOCKS = (
    linear, activation, norm, residual, attention, constant, concatenation, gate, gain, reduction,
    similarity, shared, beside_finite, unequal_cut, token, squeeze, feed_forward, low_rank, routed,
    apart, pool, multihead, attention, linear, on_the_weight, looped, other_knob,
)  # fmt: skip


# --- beginnings and ends --------------------------------------------------------------------------


def write(part: Callable[[], Draw], more: Callable[[], bool]) -> Program:
    """A program of 1 to 5 blocks.

    Args:
        part: begins a part of the program, and gives what its choices are drawn by.
        more: whether another block follows.
    """
    p, tied = begin(part())
    for number in range(5):
        draw = part()
        BLOCKS[draw(len(BLOCKS))](p, draw)
        if number == 4 or not more():
            break
    end(p, part(), tied)
    return p


def begin(draw: Draw) -> tuple[Program, str]:
    """The input layer, and the readout that shares its weight, if one can."""
    p = Program(THREE_KNOBS if draw(6) == 5 else ONE_KNOB)
    p.floats = draw(2) == 1
    if not p.floats:
        return p, embedded(p, draw)
    w = p.weight(draw, written("d"), summed("16"))
    p.value(f"F.linear(x, {w})", "d")
    return p, ""


def end(p: Program, draw: Draw, tied: str) -> None:
    """The readout."""
    if draw(30) == 29:
        recurrent(p, draw)
    x, size = p.values[-1]
    if tied and size == "d" and draw(2):
        if draw(3) == 0:  # used a third time: words mixed by their probabilities
            p.site(p.ratio("d"))
            a = p.temporary(tied.format(x))
            x = p.temporary(f"{a}.softmax(-1) @ {p.inside_table}")
        p.site(p.ratio("d"))
        logits = p.temporary(tied.format(x))
    else:
        logits = p.temporary(product(p, draw, x, size, "10"))
    p.lines.append(f"return {', '.join([logits, *unread(p)])},")


def unread(p: Program) -> list[str]:
    """Means of the values that nothing reads, so that each counts."""
    text = "\n".join(p.lines)
    alone = [name for name, _ in p.values if len(re.findall(rf"\b{name}\b", text)) == 1]
    return [f"{name}.mean(-1)" for name in alone]


def embedded(p: Program, draw: Draw) -> str:
    """Tokens to vectors, by a table in one of several layouts; the readout that shares it."""
    way = draw(5)
    rows, channels = written(VOCABULARY), written("d")
    if way == 0:
        p.init.append("self.emb = nn.Embedding(48, d)")
        p.parameter("emb.weight", (rows, channels), "1")
        return table(p, "self.emb(x)", "self.emb.weight", "F.linear({}, self.emb.weight)")
    if way == 1:  # two names for one tensor
        p.init += [
            "self.emb = nn.Embedding(48, d)",
            "self.head = nn.Linear(d, 48, bias=False)",
            "self.head.weight = self.emb.weight",
        ]
        p.parameter("emb.weight", (rows, channels), "d ** -0.5")
        p.init[-1] = "self.emb.weight = self.head.weight"
        return table(p, "self.emb(x)", "self.emb.weight", "self.head({})")
    if way == 2:  # stored the other way round
        p.init.append("self.table = nn.Parameter(torch.randn(d, 48) * 0.02)")
        p.parameter("table", (channels, rows), "1")
        return table(p, "F.embedding(x, self.table.t())", "self.table.t()", "{} @ self.table")
    if way == 3:
        p.init.append("self.table = nn.Parameter(torch.randn(48, d))")
        p.parameter("table", (rows, channels), "1")
        return table(
            p, "self.table[x]", "self.table", "torch.einsum('btc,vc->btv', {}, self.table)"
        )
    p.init.append("self.table = nn.Parameter(torch.randn(48, d))")
    p.parameter("table", (summed(VOCABULARY), channels), "1")
    code = "F.one_hot(x, 48).to(self.table.dtype) @ self.table"
    return table(p, code, "self.table", "{} @ self.table.mT")


def table(p: Program, code: str, name: str, readout: str) -> str:
    p.inside_table = name
    p.value(code, "d")
    return readout
