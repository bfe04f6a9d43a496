"""Attention of random models: heads that grow in size or in number, and every way to scale them."""

from __future__ import annotations

from dataclasses import dataclass

from random_program import Axis, Draw, Program, summed, written

# logits of q and k, and the power of the head's size that the constants beside them contribute
SCALES: tuple[tuple[str, float], ...] = (
    ("{q} @ {k}.transpose(-2, -1) / math.sqrt({q}.size(-1))", -0.5),
    ("{q} @ {k}.transpose(-2, -1) * {k}.size(-1) ** -0.5", -0.5),
    ("{q} @ {k}.mT / {q}.size(-1)", -1.0),
    ("{q} @ {k}.transpose(-2, -1)", 0.0),
    ("({q} * {q}.size(-1) ** -0.25) @ ({k} * {k}.size(-1) ** -0.25).transpose(-2, -1)", -0.5),
    ("torch.einsum('bhtc,bhsc->bhts', {q}, {k}) / {q}.shape[-1] ** 0.5", -0.5),
    ("torch.einsum('bhtc,bhsc->bhts', {q} / math.sqrt({q}.size(-1)), {k})", -0.5),
    ("torch.matmul({q}, {k}.mT).div(math.sqrt({q}.size(-1)))", -0.5),
    ("{q} @ {k}.transpose(-2, -1) * torch.full((1,), {q}.size(-1) ** -0.5)", -0.5),
    ("{q} @ ({k} * {k}.size(-1) ** -1).mT", -1.0),
    ("({q} @ {k}.mT) * self.{s}", -0.5),
    ("10 * F.normalize({q}, dim=-1) @ F.normalize({k}, dim=-1).transpose(-2, -1)", -1.0),
    ("({q}.unsqueeze(-2) * {k}.unsqueeze(-3)).sum(-1) / math.sqrt({q}.size(-1))", -0.5),
)


@dataclass(frozen=True)
class Heads:
    """How the channels of queries and of keys and values are cut: (heads, size of a head)."""

    queries: tuple[str, str]
    keys: tuple[str, str]

    @property
    def grouped(self) -> bool:
        return self.queries != self.keys


def heads(p: Program, draw: Draw, size: str) -> Heads:
    """Four heads that grow, heads of 8, or as many heads as a knob says; fewer for the keys."""
    if "h" in p.knobs and size == "d":
        number, inner = "h", "d // h"
        half = "h // 2"
    elif draw(2):
        number, inner = f"({size}) // 8", "8"
        half = f"({size}) // 16"
    else:
        number, inner, half = "4", f"({size}) // 4", "2"
    keys = (number, number, number, half, "1", "2")[draw(6)]
    return Heads((number, inner), (keys, inner))


def projections(
    p: Program, draw: Draw, cut: Heads, x: str, size: str, memory: str, other: str
) -> list[str]:
    """Queries of x, keys and values of the memory: (batch, heads, time, size of a head)."""
    names = [p.fresh(letter) for letter in "qkv"]
    way = draw(5) if x == memory else 0
    parts = (cut.queries, cut.keys, cut.keys)
    if way == 0:
        for name, atoms, source, i in zip(
            names, parts, (x, memory, memory), (size, other, other), strict=True
        ):
            w = p.weight(draw, written(*atoms), summed(i))
            p.lines.append(f"{name} = F.linear({source}, {w})")
    elif way == 1:  # one layer of torch's for all three, with its bias
        axis, root = Axis("o", parts), f"({size}) ** -0.5"
        layer = p.module(
            f"nn.Linear({size}, {axis.code})",
            weight=((axis, summed(size)), root),
            bias=((axis,), root),
        )
        split(p, draw, f"{layer}({x})", names, cut)
    elif way == 2:
        w = p.weight(draw, summed(size), Axis("o", parts))
        split(p, draw, f"({x} @ {w})", names, cut)
    elif way == 3 and not cut.grouped:  # every head's q, k and v side by side
        number, inner = cut.queries
        w = p.weight(draw, written(number, "3", inner), summed(size))
        both = p.temporary(f"F.linear({x}, {w}).unflatten(-1, ({p.inside(number)}, 3, -1))")
        cutting = (
            f"{both}.unbind(-2)",
            f"{both}[..., 0, :], {both}[..., 1, :], {both}[..., 2, :]",
        )[draw(2)]
        p.lines.append(f"{', '.join(names)} = {cutting}")
        p.lines += [f"{name} = {name}.transpose(1, 2)" for name in names]
        return names
    else:  # queries apart from keys and values
        wq = p.weight(draw, written(*cut.queries), summed(size))
        wkv = p.weight(draw, Axis("o", (cut.keys, cut.keys)), summed(size))
        p.lines.append(f"{names[0]} = F.linear({x}, {wq})")
        p.lines.append(f"{names[1]}, {names[2]} = F.linear({x}, {wkv}).chunk(2, -1)")
    for name, (number, _) in zip(names, parts, strict=True):
        p.lines.append(f"{name} = {name}.unflatten(-1, ({p.inside(number)}, -1)).transpose(1, 2)")
    return names


def split(p: Program, draw: Draw, code: str, names: list[str], cut: Heads) -> None:
    if not cut.grouped and draw(2):
        p.lines.append(f"{', '.join(names)} = {code}.chunk(3, -1)")
        return
    sizes = [f"({n}) * ({i})" for n, i in (cut.queries, cut.keys, cut.keys)]
    if draw(2):
        p.lines.append(
            f"{', '.join(names)} = {code}.split([{', '.join(map(p.inside, sizes))}], -1)"
        )
        return
    whole, (a, b, _) = p.temporary(code), (p.inside(s) for s in sizes)
    p.lines.append(f"{names[0]} = {whole}[..., : {a}]")
    p.lines.append(f"{names[1]} = {whole}[..., {a} : {a} + {b}]")
    p.lines.append(f"{names[2]} = {whole}[..., {a} + {b} :]")


def repeated(p: Program, draw: Draw, cut: Heads, q: str, k: str, v: str) -> tuple[str, str]:
    """Keys and values for every head of the queries."""
    if not cut.grouped or (cut.keys[0] == "1" and draw(2)):
        return k, v
    n = p.temporary(f"{q}.size(1) // {k}.size(1)", "n")
    form = (
        f"{{0}}.repeat_interleave({n}, 1)",
        f"{{0}}[:, :, None].expand(-1, -1, {n}, -1, -1).flatten(1, 2)",
    )[draw(2)]
    return p.temporary(form.format(k), "k"), p.temporary(form.format(v), "v")


def attention(p: Program, draw: Draw) -> None:
    x, size = p.pick(draw, p.grows)
    memory, other = (x, size) if draw(4) else p.pick(draw)
    cut = heads(p, draw, size)
    q, k, v = projections(p, draw, cut, x, size, memory, other)
    inner = cut.queries[1]
    norm = draw(6)
    if norm == 0:
        p.lines += [f"{n} = F.layer_norm({n}, ({p.inside(inner)},), eps=1e-20)" for n in (q, k)]
    elif norm == 1:
        gain = (written(inner),), "1"
        layer = p.module(f"nn.RMSNorm({inner}, eps=1e-20)", weight=gain)
        p.lines += [f"{n} = {layer}({n})" for n in (q, k)]
    if inner == "8" and draw(4) == 0:
        rotate(p, q, k)
    k, v = repeated(p, draw, cut, q, k, v)
    how = draw(len(SCALES) + 3)
    if how < len(SCALES):
        y = written_out(p, draw, cut, q, k, v, how)
    elif how < len(SCALES) + 2:
        y = fused(p, draw, cut, q, k, v)
    else:
        y = without_softmax(p, draw, cut, q, k, v)
    out = p.weight(draw, written(size), summed(*cut.queries))
    p.value(f"F.linear({y}.transpose(1, 2).flatten(2), {out})", size)


def rotate(p: Program, q: str, k: str) -> None:
    """Rotary positions, in heads of 8."""
    p.init.append("angles = torch.outer(torch.arange(6.0), 100.0 ** (-torch.arange(4.0) / 4))")
    p.init.append("self.register_buffer('angles', angles.repeat(1, 2))")
    turned = "torch.cat([-{0}[..., 4:], {0}[..., :4]], -1)"
    for n in (q, k):
        p.lines.append(f"{n} = {n} * self.angles.cos() + {turned.format(n)} * self.angles.sin()")


def written_out(p: Program, draw: Draw, cut: Heads, q: str, k: str, v: str, how: int) -> str:
    number, inner = cut.queries
    scale = p.fresh("s")
    code, power = SCALES[how]
    if "{s}" in code:
        p.init.append(f"self.{scale} = ({inner}) ** -0.5")
    a = p.temporary(code.format(q=q, k=k, s=scale), "a")
    growth = p.ratio(inner) ** (1 + power)
    if draw(8) == 0:  # the width of the model, not of the head
        a = p.temporary(f"{a} / math.sqrt(self.d)", "a")
        # no axis of the logits grows: where nothing else does, automup finds no size for it
        p.refusable |= "h" in p.knobs or growth == 1.0
        growth *= p.ratio("d") ** -0.5
    p.site(growth)
    if number == "4" and draw(4) == 0:  # a slope for every head
        slopes = f"torch.tensor([1.0, 0.5, 0.25, 0.125], dtype={a}.dtype).view(4, 1, 1)"
        a = p.temporary(f"{a} - {slopes} * torch.arange(6, dtype={a}.dtype)", "a")
    if draw(4) == 0:  # relative positions
        table = p.vector("", "torch.zeros({})", written(number), written("6"), written("6"))
        a = p.temporary(f"{a} + {table}", "a")
    if draw(4) == 0:
        a = p.temporary(f"5 * torch.tanh({a} / 5)", "a")
    if draw(4) == 0:
        a = p.temporary(f"{a}.masked_fill(~causal({a}.size(-1)), float('-inf'))", "a")
        return p.temporary(f"{a}.softmax(-1) @ {v}", "y")
    if draw(4) == 0:
        return p.temporary(f"torch.sigmoid({a}) @ {v}", "y")
    if draw(2):
        return p.temporary(f"torch.einsum('bhts,bhsc->bhtc', F.softmax({a}, -1), {v})", "y")
    return p.temporary(f"{a}.softmax(dim=-1) @ {v}", "y")


def fused(p: Program, draw: Draw, cut: Heads, q: str, k: str, v: str) -> str:
    """torch's own, with its default scale or a given one."""
    ratio = p.ratio(cut.queries[1])
    extra, growth = (
        ("", ratio**0.5),
        (", is_causal=True", ratio**0.5),
        (f", scale={q}.size(-1) ** -0.5", ratio**0.5),
        (f", scale=1 / {q}.size(-1)", 1.0),
        (", scale=1.0", ratio),
    )[draw(5)]
    p.site(growth)
    return p.temporary(f"F.scaled_dot_product_attention({q}, {k}, {v}{extra})", "y")


def without_softmax(p: Program, draw: Draw, cut: Heads, q: str, k: str, v: str) -> str:
    """Linear attention: of positive features, normalised or not."""
    p.lines += [f"{n} = F.elu({n}) + 1" for n in (q, k)]
    if cut.grouped:
        v = p.temporary(f"{v}.expand(-1, {q}.size(1), -1, -1)", "v")
        k = p.temporary(f"{k}.expand(-1, {q}.size(1), -1, -1)", "k")
    both = p.temporary(f"torch.einsum('bhsc,bhse->bhce', {k}, {v})", "m")
    y = p.temporary(f"torch.einsum('bhtc,bhce->bhte', {q}, {both})", "y")
    if draw(2):
        z = p.temporary(f"torch.einsum('bhtc,bhc->bht', {q}, {k}.sum(2))", "z")
        return p.temporary(f"{y} / {z}.unsqueeze(-1)", "y")
    p.site(p.ratio(cut.queries[1]))
    return p.temporary(f"torch.tanh({y})", "y")


def multihead(p: Program, draw: Draw) -> None:
    """torch's own module."""
    x, size = p.pick(draw, p.grows)
    atoms = (("4", f"({size}) // 4"), (f"({size}) // 8", "8"))[draw(2)]
    three, bias = Axis("o", (atoms,) * 3), bool(draw(2))
    parameters: dict[str, tuple[tuple[Axis, ...], str | None]] = {
        "in_proj_weight": ((three, summed(size)), f"(4 * ({size})) ** -0.5")
    }
    if bias:
        parameters["in_proj_bias"] = ((three,), None)
    parameters["out_proj.weight"] = ((written(size), summed(*atoms)), f"({size}) ** -0.5")
    if bias:
        parameters["out_proj.bias"] = ((written(size),), None)
    layer = p.module(
        f"nn.MultiheadAttention({size}, {atoms[0]}, bias={bias}, batch_first=True)", **parameters
    )
    p.site(p.ratio(atoms[1]) ** 0.5)
    weights = ("", ", need_weights=False")[draw(2)]
    p.value(f"{layer}({x}, {x}, {x}{weights})[0]", size)
