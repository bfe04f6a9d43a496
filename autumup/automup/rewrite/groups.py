"""The optimizer's part of the code at the end of a converted file."""

from __future__ import annotations

from automup.forms import UNIFORM
from automup.rewrite.exchange import Exchange
from automup.rewrite.listing import entries, in_line
from automup.rules import FAMILIES

#: Families whose factors follow from the table and a shape alone.
WRITTEN = ("sgd", "adam", "sign", "adadelta")

_GROUPS = '''\
# How the optimizers' updates scale: lr times r_out ** a / r_in, eps times 1 / r_out ** b.
{families}
# What weight decay is multiplied by where muP multiplies lr by rule, and the user by tuned.
MUP_DECAYS = {
    "independent": lambda rule, tuned: 1.0 / (rule * tuned),  # lr * weight_decay is kept
    "coupled": lambda rule, tuned: 1.0,  # weight_decay is kept
    "sqrt": lambda rule, tuned: rule**-0.5,  # for Adam's family, arXiv:2510.15262
}


def mup_param_groups(
    model,
    lr,
    weight_decay=0.0,
    eps=1e-8,
    params=None,
    family="adam",
    decay="independent",
{arguments}    **settings,
):
    """Parameter groups in muP for a torch optimizer; each carries its ``lr_mult`` too.

    ``lr``, ``weight_decay`` and ``eps`` are the values at the base. ``params`` may be some
    of the model's parameters, or groups of them whose own settings are kept and scaled.
    ``family`` is a key of MUP_FAMILIES, ``decay`` one of MUP_DECAYS.
{about}    A schedule must multiply each group's lr, or set it to ``lr * group["lr_mult"]``.
    """
    if family not in MUP_FAMILIES:
        raise ValueError(f"family must be one of {list(MUP_FAMILIES)}, not {family!r}")
    degree, power = MUP_FAMILIES[family]
    decays = [name for name in MUP_DECAYS if name != "sqrt" or not degree]
    if decay not in decays:
        raise ValueError(f"decay must be one of {decays} for {family}, not {decay!r}")
{check}    names = {id(p): name for name, p in model.named_parameters()}
    params = [params] if isinstance(params, torch.Tensor) else params
    params = list(model.parameters() if params is None else params)
    if not params or not isinstance(params[0], dict):
        params = [{"params": params}]
    groups, seen = {}, set()
    for index, own in enumerate(params):
        if "lr_mult" in own:
            raise ValueError("params holds groups that are in muP already")
        own = {"lr": lr, "weight_decay": weight_decay, **settings, **own}
        if power and eps is not None:
            own.setdefault("eps", eps)
        members = own.pop("params")
        for p in [members] if isinstance(members, torch.Tensor) else members:
            p = p[1] if isinstance(p, tuple) else p  # (name, parameter)
            if id(p) not in names:
                raise ValueError(f"params has a tensor {tuple(p.shape)} not in the model")
            if id(p) in seen:
                continue
            seen.add(id(p))
            row = _mup_row(names[id(p)])
            r_in, r_out = _mup_ratios(row, p.shape)
{refusal}{rates}            if key not in groups:
                # products, so that a tensor lr is neither changed nor shared
                group = groups[key] = {"params": [], **own, "lr_mult": lr_mult}
                group["lr"] = own["lr"] * lr_mult
                group["weight_decay"] = own["weight_decay"] * decay_mult
                if eps_mult != 1.0:
                    group["eps"] = own["eps"] * eps_mult
            groups[key]["params"].append(p)
    return list(groups.values())


def mup_optimizer(
    model,
    lr,
    weight_decay=None,
    optimizer=torch.optim.AdamW,
    params=None,
    family=None,
    decay="independent",
{choices}    **settings,
):
    """The optimizer of a model in muP; what is not given has the optimizer's own default.

    ``optimizer`` is SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adadelta or a subclass;
    for another, ``family`` says how its updates scale. ``lr`` is the base's, and the rest as
    of mup_param_groups.
    """
    known = {
        torch.optim.SGD: "sgd",
        torch.optim.Adadelta: "adadelta",
        torch.optim.Adam: "adam",
        torch.optim.AdamW: "adam",
        torch.optim.NAdam: "adam",
        torch.optim.RAdam: "adam",
        torch.optim.Adamax: "adam",
        torch.optim.RMSprop: "adam",
    }
    found = [known[c] for c in getattr(optimizer, "__mro__", ()) if c in known]
    if family is None and not found:
        names = ", ".join(c.__name__ for c in known)
        raise TypeError(
            f"muP is written here for {names}. For {optimizer} pass family=, one of "
            f"{list(MUP_FAMILIES)}, if its updates scale so; automup.parametrize has Muon, "
            "Adafactor and others"
        )
    family = family or found[0]
    if weight_decay is not None:
        settings["weight_decay"] = weight_decay
    plain = optimizer(model.parameters(), lr=lr, **settings).defaults
{find_l2}    given = lr, plain.get("weight_decay", 0.0), plain.get("eps"), params, family, decay
    groups = mup_param_groups(model, *given{passed})
    return optimizer(groups, lr=lr, **settings)
'''

_PLAIN_RATES = """\
            rule, tuned = r_out**degree / r_in, {tuned}
{embedding}            lr_mult = rule * tuned
            decay_mult = MUP_DECAYS[decay](rule, tuned)
            eps_mult = 1.0 / r_out**power if "eps" in own else 1.0
            key = (index, lr_mult, decay_mult, eps_mult)
"""
_RATES = """\
            gain = _mup_gain(row, p.shape)
            rule, tuned = r_out**degree / r_in, {tuned}
{embedding}            lr_mult = rule * tuned * gain ** (1 + degree)
            decay_mult = MUP_DECAYS[decay](rule, tuned) / gain ** (2 if l2 else 1 + degree)
            eps_mult = 1.0 / (r_out * gain) ** power if "eps" in own else 1.0
{promise}            key = (index, lr_mult, decay_mult, eps_mult)
"""
_ONE_RATE = """\
            if abs(lr_mult - 1.0) > 1e-9:
                raise ValueError(
                    f"in the form {MUP_FORM} one lr is for all with optimizers of the "
                    f"{known} family, not of {family!r}{constant}"
                )
            lr_mult = 1.0
"""

# In a file without fused weights that are cut into parts this is left out.
_REFUSAL_OF_PARTS = """\
            if degree and "parts" in row:
                raise ValueError(f"{names[id(p)]}: its parts need different rates here")
"""


# Where a weight reads the data.
_EMBEDDING = {
    "{arguments}": """\
    embedding_lr="constant",
""",
    "{choices}": """\
    embedding_lr="constant",
""",
    "{about}": """\
    ``embedding_lr="sqrt"`` multiplies the lr of matrices that read the data by
    r_out ** -0.5 (arXiv:2407.17465, arXiv:2506.15025).
""",
    "{check}": """\
    if embedding_lr not in ("constant", "sqrt"):
        raise ValueError(f"embedding_lr must be constant or sqrt, not {embedding_lr!r}")
""",
    "{embedding}": """\
            if embedding_lr == "sqrt" and row.get("layer") == "input" and p.dim() > 1:
                tuned *= r_out**-0.5
""",
    "{constant}": "; embedding_lr must be constant",
    "{passed}": ", embedding_lr",
}

# Where weights have multipliers in them, decay counts in another way if it goes through Adam's
# normalisation.
_L2 = {
    "{arguments}": """\
    l2=False,
""",
    "{about}": """\
    ``l2``: the optimizer adds its decay to the gradient and normalises it, as Adam does.
""",
    "{find_l2}": """\
    decoupled = plain.get(
        "decoupled_weight_decay", issubclass(optimizer, torch.optim.AdamW)
    )
    l2 = found[:1] == [family] and not decoupled
""",
    "{passed}": ", l2=l2",
}


def groups_code(*, cut: bool, reads: bool, exchanged: Exchange) -> str:
    """``mup_param_groups`` and ``mup_optimizer``.

    ``cut``: some weights are cut into parts; ``reads``: some matrices read the data.
    """
    powers = {name: (int(FAMILIES[name].degree), int(FAMILIES[name].eps_power)) for name in WRITTEN}
    powers["sgd"] = (powers["sgd"][0], 0)  # it has no eps
    listed = entries({name: str(pair) for name, pair in powers.items()})
    family = UNIFORM.get(exchanged.form, "")
    code = _GROUPS.replace("{families}", in_line("MUP_FAMILIES", listed).rstrip())
    code = code.replace("{rates}", _RATES if exchanged else _PLAIN_RATES)
    code = code.replace("{promise}", _ONE_RATE.replace("{known}", family) if family else "")
    code = code.replace("{tuned}", "_mup_constants(row)[1]" if exchanged.tuned else "1.0")
    code = code.replace("{refusal}", _REFUSAL_OF_PARTS if cut else "")
    chosen = [*([_EMBEDDING] if reads else []), *([_L2] if exchanged else [])]
    for blank in {**_EMBEDDING, **_L2}:
        code = code.replace(blank, "".join(texts.get(blank, "") for texts in chosen))
    return code
