"""Layers of random models: one weight between two sizes, written in many ways."""

from __future__ import annotations

from collections.abc import Callable

from random_program import Axis, Draw, Program, summed, written

New = Callable[..., str]
"""Makes a weight of the given axes."""


def permuted(draw: Draw, axes: dict[str, Axis]) -> tuple[str, list[Axis]]:
    """A random order of an einsum's letters, and their axes."""
    left, letters = list(axes), ""
    while left:
        letters += left.pop(draw(len(left)))
    return letters, [axes[c] for c in letters]


# --- products: one expression each, x of (batch, time, i) to (batch, time, o) ---------------------


def _linear(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    return f"F.linear({x}, {new(written(o), summed(i))})"


def _linear_bias(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    w, b = new(written(o), summed(i)), p.vector(o, "torch.zeros({})")
    return f"F.linear({x}, {w}, {b})"


def _matmul(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    w = new(summed(i), written(o))
    return (f"{x} @ {w}", f"torch.matmul({x}, {w})", f"torch.tensordot({x}, {w}, 1)")[draw(3)]


def _transposed(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    w = new(written(o), summed(i))
    return f"{x} @ {w}{('.t()', '.mT', '.transpose(0, 1)', '.permute(1, 0)')[draw(4)]}"


def _halves_out(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    letters, axes = permuted(draw, {"c": summed(i), "h": written("2"), "e": written(f"({o}) // 2")})
    return f"torch.einsum('btc,{letters}->bthe', {x}, {new(*axes)}).flatten(2)"


def _halves_in(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    letters, axes = permuted(draw, {"o": written(o), "h": summed("2"), "e": summed(f"({i}) // 2")})
    return f"torch.einsum('{letters},bthe->bto', {new(*axes)}, {x}.unflatten(-1, (2, -1)))"


def _einsum_front(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    return f"torch.einsum('ij,btj->ibt', {new(written(o), summed(i))}, {x}).permute(1, 2, 0)"


def _conv1d(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    w = new(written(o), summed(i), summed("3"))
    return f"F.conv1d({x}.mT, {w}, padding=1).mT"


def _conv1d_groups(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    w = new(written(o), summed(f"({i}) // 2"), summed("3"))
    return f"F.conv1d({x}.mT, {w}, padding=1, groups=2).mT"


def _conv2d(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    w = new(written(o), summed(i), summed("1"), summed("3"))
    return f"F.conv2d({x}.mT.unflatten(-1, (2, 3)), {w}, padding=(0, 1)).flatten(2).mT"


def _conv_transpose1d(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    w = new(summed(i), written(o), summed("3"))
    return f"F.conv_transpose1d({x}.mT, {w}, padding=1).mT"


def _conv_transpose_groups(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    w = new(summed("2", f"({i}) // 2"), written(f"({o}) // 2"), summed("1"))
    return f"F.conv_transpose1d({x}.mT, {w}, groups=2).mT"


def _module(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    root = f"({i}) ** -0.5"
    axes = written(o), summed(i)
    layer = p.module(f"nn.Linear({i}, {o})", weight=(axes, root), bias=((written(o),), root))
    return f"{layer}({x})"


def _conv_module(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    axes, root = (written(o), summed(i), summed("3")), f"({i}) ** -0.5"
    layer = p.module(
        f"nn.Conv1d({i}, {o}, 3, padding=1)", weight=(axes, root), bias=((written(o),), root)
    )
    return f"{layer}({x}.mT).mT"


def _conv_transpose_module(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    """torch takes the second dimension for the fan_in of these, too."""
    axes, root = (summed(i), written(o), summed("3")), f"({o}) ** -0.5"
    layer = p.module(
        f"nn.ConvTranspose1d({i}, {o}, 3, padding=1)",
        weight=(axes, root),
        bias=((written(o),), root),
    )
    return f"{layer}({x}.mT).mT"


def _experts_averaged(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    """Three matrices in a stack, all applied, their outputs averaged."""
    letters, axes = permuted(draw, {"e": written("3"), "c": summed(i), "o": written(o)})
    return f"torch.einsum('btc,{letters}->ebto', {x}, {new(*axes)}).mean(0)"


def _experts_bmm(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    """One matrix of a stack for each half of the batch."""
    if draw(2):
        return f"torch.bmm({x}, {new(written('2'), summed(i), written(o))})"
    return f"torch.bmm({x}, {new(written('2'), written(o), summed(i))}.mT)"


def _stacked(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    a, b = new(summed(i), written(o)), new(summed(i), written(o))
    return f"torch.bmm({x}, torch.stack([{a}, {b}]))"


def _baddbmm(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    b = p.vector(o, "torch.zeros({})", written("2"), written("1"), written(o))
    return f"torch.baddbmm({b}, {x}, {new(written('2'), summed(i), written(o))})"


def _addmm(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    b = p.vector(o, "torch.zeros({})")
    return (
        f"torch.addmm({b}, {x}.flatten(0, 1), {new(summed(i), written(o))}).unflatten(0, (2, -1))"
    )


def _stored_in_halves(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    """A weight of three axes that a view makes two of."""
    way = draw(3)
    if way == 0:
        return (
            f"F.linear({x}, {new(written('2'), written(f'({o}) // 2'), summed(i))}.flatten(0, 1))"
        )
    if way == 1:
        w = new(summed(i), written("2"), written(f"({o}) // 2"))
        return f"{x} @ {w}.reshape({x}.size(-1), -1)"
    w = new(written(o), summed("2"), summed(f"({i}) // 2"))
    return f"F.linear({x}, {w}.view(-1, {x}.size(-1)))"


def _cut_from_stack(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    """One tensor that holds two layers."""
    way = draw(4)
    if way == 0:
        w = new(written("2"), written(o), summed(i))
        return f"F.linear({x}, {w}[0]) + F.linear({x}, {w}[1])"
    if way == 1:
        w = new(written("2"), summed(i), written(o))
        return f"sum({x} @ m for m in {w}.unbind())"
    if way == 2:
        w = p.temporary(new(Axis("o", ((o,), (o,))), summed(i)), "m")
        half = p.inside(o)
        return f"F.linear({x}, {w}[: {half}]) * torch.sigmoid(F.linear({x}, {w}[{half} :]))"
    a, b = p.fresh("m"), p.fresh("m")
    w = new(summed(i), Axis("o", ((o,), (o,))))
    p.lines.append(f"{a}, {b} = {w}.chunk(2, 1)")
    return f"torch.maximum({x} @ {a}, {x} @ {b})"


def _masked(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    return f"F.linear({x}, {new(written(o), summed(i))} * 0.5)"


def _cast(p: Program, draw: Draw, new: New, x: str, i: str, o: str) -> str:
    return f"F.linear({x}, {new(written(o), summed(i))}.to({x}.dtype).contiguous())"


PRODUCTS = (
    _linear, _matmul, _transposed, _halves_out, _halves_in, _einsum_front, _conv1d, _conv1d_groups,
    _conv2d, _conv_transpose1d, _conv_transpose_groups, _module, _conv_module,
    _conv_transpose_module, _experts_averaged, _experts_bmm, _stacked, _baddbmm, _addmm,
    _linear_bias, _stored_in_halves, _cut_from_stack, _masked, _cast,
)  # fmt: skip


def product(p: Program, draw: Draw, x: str, i: str, o: str) -> str:
    """An expression: x of i channels times a new matrix, of o channels."""
    make = PRODUCTS[draw(len(PRODUCTS))]
    return make(p, draw, lambda *axes: p.weight(draw, *axes), x, i, o)


# --- layers that keep the channels apart, at least in part ----------------------------------------


def depthwise(p: Program, draw: Draw, x: str, size: str) -> str:
    """Every channel by itself: fan_in is the taps, whatever the channels."""
    way = draw(3)
    if way == 0:
        w = p.weight(draw, written(size), summed("1"), summed("3"))
        return f"F.conv1d({x}.mT, {w}, padding=1, groups={p.inside(size)}).mT"
    if way == 1:
        w = p.weight(draw, written(size), summed("1"), summed("3"))
        return f"F.conv_transpose1d({x}.mT, {w}, padding=1, groups={p.inside(size)}).mT"
    root = "1"
    axes = (written(size), summed("1"), summed("3"))
    layer = p.module(
        f"nn.Conv1d({size}, {size}, 3, padding=1, groups={size})",
        weight=(axes, root),
        bias=((written(size),), root),
    )
    return f"{layer}({x}.mT).mT"


def groups_of_8(p: Program, draw: Draw, x: str, i: str, o: str) -> str:
    """As many groups as 8 channels fit into: every weight of the inner layer sums over 8 alone."""
    heads = (f"({i}) // 8", "8")
    into = p.weight(draw, written(*heads), summed(i))
    y = p.temporary(f"F.linear({x}, {into})")
    way = draw(3)
    if way == 0:
        w = p.weight(draw, written(*heads), summed("8"), summed("3"))
        y = p.temporary(f"F.conv1d({y}.mT, {w}, padding=1, groups={p.inside(i)} // 8).mT")
    elif way == 1:  # a map of its own for each
        w = p.weight(draw, written(heads[0]), summed("8"), written("8"))
        y = p.temporary(
            f"torch.einsum('bthc,hce->bthe', {y}.unflatten(-1, (-1, 8)), {w}).flatten(2)"
        )
    else:  # one map for all
        w = p.weight(draw, summed("8"), written("8"))
        y = p.temporary(f"({y}.unflatten(-1, (-1, 8)) @ {w}).flatten(2)")
    out = p.weight(draw, written(o), summed(*heads))
    return f"F.linear({y}, {out})"


# --- normalisations -------------------------------------------------------------------------------


def normalised(p: Program, draw: Draw, x: str, size: str) -> str:
    """x with each token's channels (or each channel's tokens) brought to size 1."""
    way, inside = draw(9), p.inside(size)
    if way == 0:
        return f"F.layer_norm({x}, ({inside},), eps=1e-20)"
    if way == 1:
        gain = (written(size),), "1"
        return f"{p.module(f'nn.LayerNorm({size}, eps=1e-20)', weight=gain, bias=gain)}({x})"
    if way == 2:
        gain = p.vector(size)
        return f"{x} * torch.rsqrt({x}.pow(2).mean(-1, keepdim=True) + 1e-20) * {gain}"
    if way == 3:
        return f"F.group_norm({x}.mT, 4, eps=1e-20).mT"
    if way == 4:
        layer = p.module(f"nn.RMSNorm({size}, eps=1e-20)", weight=((written(size),), "1"))
        return f"{layer}({x})"
    if way == 5:
        p.training = True
        gain = (written(size),), "1"
        layer = p.module(f"nn.BatchNorm1d({size}, eps=1e-20)", weight=gain, bias=gain)
        return f"{layer}({x}.mT).mT"
    if way == 6:
        gain, bias = p.vector(size), p.vector(size, "torch.zeros({})")
        y = p.temporary(f"{x} - {x}.mean(-1, keepdim=True)")
        y = f"{y} / ({y}.var(-1, keepdim=True, unbiased=False) + 1e-20).sqrt()"
        return f"{y} * {gain} + {bias}"
    if way == 7:
        return f"F.normalize({x}, dim=-1) * {x}.size(-1) ** 0.5"
    return f"F.instance_norm({x}.mT, eps=1e-20).mT"
