"""The optimizer's part of the code at the end of a converted file."""

from __future__ import annotations

from automup.rewrite.exchange import Exchange
from automup.rules import FAMILIES

#: Families whose factors follow from the table and a shape alone.
WRITTEN = ("sgd", "adam", "sign", "adadelta")

_GROUPS = '''\
# How the optimizers' updates scale: lr times r_out ** a / r_in, eps times 1 / r_out ** b.
MUP_FAMILIES = {families}


def mup_param_groups(
    model, lr, weight_decay=0.0, eps=1e-8, params=None, family="adam"{l2}, **settings
):
    """Parameter groups in muP for a torch optimizer; each carries its ``lr_mult`` too.

    ``lr``, ``weight_decay`` and ``eps`` are the values at the base. ``params`` may be some
    of the model's parameters, or groups of them whose own settings are kept and scaled.
    ``family`` is a key of MUP_FAMILIES. lr * weight_decay is the same at any width.
{about_l2}    A schedule must multiply each group's lr, or set it to ``lr * group["lr_mult"]``.
    """
    if family not in MUP_FAMILIES:
        raise ValueError(f"family must be one of {list(MUP_FAMILIES)}, not {family!r}")
    degree, power = MUP_FAMILIES[family]
    names = {id(p): name for name, p in model.named_parameters()}
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
                group["weight_decay"] = own["weight_decay"] * {decay}
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
    **settings,
):
    """The optimizer of a model in muP; what is not given has the optimizer's own default.

    ``optimizer`` is SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adadelta or a subclass;
    for another, ``family`` says how its updates scale. ``lr`` is the base's.
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
            f"muP is written here for {names}; for {optimizer} pass family=, one of "
            f"{list(MUP_FAMILIES)}"
        )
    family = family or found[0]
    if weight_decay is not None:
        settings["weight_decay"] = weight_decay
    plain = optimizer(model.parameters(), lr=lr, **settings).defaults
    decay = plain.get("weight_decay", 0.0)
{find_l2}    groups = mup_param_groups(model, lr, decay, plain.get("eps"), params, family{is_l2})
    return optimizer(groups, lr=lr, **settings)
'''


# In a file without fused weights that are cut into parts this is left out.
_REFUSAL_OF_PARTS = """\
            if degree and "parts" in row:
                raise ValueError(f"{names[id(p)]}: its parts need different rates here")
"""


# Where weights have multipliers in them, decay counts in another way if it goes through Adam's
# normalisation.
_L2 = {
    "{l2}": ", l2=False",
    "{about_l2}": """\
    ``l2``: the optimizer adds its decay to the gradient and normalises it, as Adam does.
""",
    "{find_l2}": """\
    decoupled = plain.get(
        "decoupled_weight_decay", issubclass(optimizer, torch.optim.AdamW)
    )
    l2 = found[:1] == [family] and not decoupled
""",
    "{is_l2}": ", l2",
}


def groups_code(*, cut: bool, exchanged: Exchange) -> str:
    """``mup_param_groups`` and ``mup_optimizer``; ``cut``: some weights are cut into parts."""
    powers = {name: (int(FAMILIES[name].degree), int(FAMILIES[name].eps_power)) for name in WRITTEN}
    powers["sgd"] = (powers["sgd"][0], 0)  # it has no eps
    listed = ", ".join(f'"{name}": {pair}' for name, pair in powers.items())
    code = _GROUPS.replace("{families}", f"{{{listed}}}")
    for blank, text in _L2.items():
        code = code.replace(blank, text if exchanged else "")
    code = code.replace("{rates}", exchanged.rates())
    code = code.replace("{decay}", "decay_mult" if exchanged else "(1.0 / lr_mult)")
    return code.replace("{refusal}", _REFUSAL_OF_PARTS if cut else "")
