"""Blocks of random models whose constants and sums change with width: what needs a multiplier."""

from __future__ import annotations

from random_layers import normalised
from random_program import Draw, Program, summed, written


def power_of_width(p: Program, draw: Draw, x: str, size: str, power: float) -> str:
    """x times a power of its width, as people write it."""
    forms = [f"{x} * {{}} ** {power}", f"{x} / {{}} ** {-power}"]
    if abs(power) == 0.5:
        forms.append(f"{x} {'*' if power > 0 else '/'} math.sqrt({{}})")
    if power == -0.25:
        forms.append(f"{x} / math.sqrt(math.sqrt({{}}))")
    forms.append(f"{x} * torch.tensor({{}}) ** {power}")
    form = forms[draw(len(forms))]
    sources = [f"{x}.size(-1)", f"{x}.shape[-1]"]
    if size in p.knobs:
        sources += [f"self.{size}"] * 2
    if draw(4) == 0:
        attribute = p.fresh("s")
        p.init.append(f"self.{attribute} = ({size}) ** {power}")
        return f"{x} * self.{attribute}"
    if draw(8) == 0:
        attribute = p.fresh("s")
        p.init.append(f"self.register_buffer('{attribute}', torch.tensor(({size}) ** {power}))")
        return f"{x} * self.{attribute}"
    return form.format(sources[draw(len(sources))])


POWERS = (-1.0, -0.5, -0.25, 0.5, 1.0)


def constant(p: Program, draw: Draw) -> None:
    """A power of the width, and what makes it matter or not."""
    x, size = p.pick(draw)
    power = POWERS[draw(len(POWERS))]
    t = p.temporary(power_of_width(p, draw, x, size, power))
    growth, width = p.ratio(size) ** power, f"{x}.size(-1)"
    follow = draw(6)
    if follow == 0:
        p.site(growth)
        p.value(f"F.gelu({t})", size)
    elif follow == 1:
        p.value(normalised(p, draw, t, size), size)
    elif follow == 2:  # found through a layer and a homogeneous function
        p.site(growth)
        y = p.weight(draw, summed(size), written(size))
        p.value(f"torch.tanh(F.relu({t}) @ {y})", size)
    elif follow == 3:
        p.value(f"F.gelu(({t} * 2.0) * {width} ** {-power})", size)
    elif follow == 4:
        p.site(growth)
        p.value(f"{x} + {t}", size)
    else:  # two constants leave the sum of their powers
        again = POWERS[draw(len(POWERS))]
        p.site(p.ratio(size) ** (power + again))
        p.value(f"torch.tanh(F.relu({t}) * {width} ** {again})", size)


def other_knob(p: Program, draw: Draw) -> None:
    """A power of a width that is not the value's own."""
    x, size = p.pick(draw)
    knob = ("f", "h", "d")[draw(3)]
    if knob not in p.knobs or size == knob:
        knob = "d"
    power = POWERS[draw(len(POWERS))]
    p.refusable |= p.ratio(knob) != p.ratio(size)
    p.site(p.ratio(knob) ** power)
    p.value(f"torch.tanh({x} * self.{knob} ** {power})", size)


def on_the_weight(p: Program, draw: Draw) -> None:
    """A power of the width that multiplies a weight, as NTK parametrization has it."""
    x, size = p.pick(draw)
    power = POWERS[draw(len(POWERS))]
    w = p.weight(draw, written("d"), summed(size))
    p.site(p.ratio(size) ** power)
    p.value(f"torch.tanh(F.linear({x}, {w} * {x}.size(-1) ** {power}))", "d")


def looped(p: Program, draw: Draw) -> None:
    """One line that runs for several weights."""
    x, size = p.pick(draw)
    q, k, v, o = (p.weight(draw, written(size), summed(size)) for _ in range(4))
    t, a = p.temporary(f"F.layer_norm({x}, ({p.inside(size)},), eps=1e-20)"), p.fresh("a")
    scale, power = ((" / math.sqrt({0}.size(-1))", 0.5), (" / {0}.size(-1)", 0.0), ("", 1.0))[
        draw(3)
    ]
    p.lines += [
        f"for left, right in (({q}, {k}), ({v}, {o})):",
        f"    {a} = F.linear({t}, left) @ F.linear({t}, right).mT{scale.format(t)}",
        f"    {t} = {t} + {a}.softmax(-1) @ {t}",
    ]
    p.site(p.ratio(size) ** power)
    p.value(t, size)


def reduction(p: Program, draw: Draw) -> None:
    """One number per token, back to d channels."""
    x, size = p.pick(draw)
    code, power = (
        ("{0}.sum(-1, keepdim=True)", 1.0),
        ("{0}.mean(-1, keepdim=True)", 0.0),
        ("{0}.norm(dim=-1, keepdim=True)", 0.5),
        ("({0} * {0}).sum(-1, keepdim=True)", 1.0),
        ("{0}.square().mean(-1, keepdim=True).sqrt()", 0.0),
        ("{0}.amax(-1, keepdim=True)", 0.0),
        ("torch.einsum('btc->bt', {0}).unsqueeze(-1)", 1.0),
        ("torch.einsum('btc,btc->bt', {0}, {0})[..., None]", 1.0),
        ("({0} @ {0}.mT).mean(-1, keepdim=True)", 1.0),
        ("{0}.sum(-1, keepdim=True) / {0}.size(-1)", 0.0),
        ("{0}.sum(-1, keepdim=True) / math.sqrt({0}.size(-1))", 0.5),
    )[draw(11)]
    p.site(p.ratio(size) ** power)
    t = p.temporary(code.format(x))
    w = p.weight(draw, written("d"), summed("1"))
    p.value(f"F.linear(torch.tanh({t}), {w})", "d")


def similarity(p: Program, draw: Draw) -> None:
    """Values that attend to each other without weights."""
    x, size = p.pick(draw)
    y, _ = p.pick(draw, lambda other: other == size)
    code, power = (
        ("{0} @ {1}.transpose(-2, -1)", 1.0),
        ("torch.einsum('bsc,btc->bts', {1}, {0})", 1.0),
        ("torch.bmm({0}, {1}.mT) / math.sqrt({0}.size(-1))", 0.5),
        ("F.cosine_similarity({0}.unsqueeze(2), {1}.unsqueeze(1), dim=-1)", 0.0),
        ("-torch.cdist({0}, {1})", 0.5),
    )[draw(5)]
    t = p.temporary(code.format(x, y))
    p.site(p.ratio(size) ** power)
    p.value(f"{t}.softmax(-1) @ {y}", size)
