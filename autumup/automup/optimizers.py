"""The optimizers that automup knows, as data: which family each is of, and what it does itself.

Classes are named by package and name, so that none has to be imported; a subclass is what its
nearest ancestor here is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from automup.errors import UsageError
from automup.facts import Parameter
from automup.rules import FAMILIES

Adjustment = Callable[[Sequence[int]], float]

#: What implementations of Muon multiply the learning rate of a matrix by, of its last two sizes.
ADJUSTMENTS: dict[str, Adjustment] = {
    "none": lambda shape: 1.0,
    "original": lambda shape: math.sqrt(max(1.0, shape[-2] / shape[-1])),
    "match_rms_adamw": lambda shape: 0.2 * math.sqrt(max(shape[-2:])),
}


@dataclass(frozen=True)
class Known:
    """One optimizer class.

    Attributes:
        family: a key of :data:`automup.rules.FAMILIES`.
        decay: "decoupled", or "l2": added to a gradient that is then normalised, unless the setting
            ``decoupled_weight_decay`` says otherwise. Of no account for SGD.
        pair: its eps is one for the gradient and one in units of the weight, as Adafactor's.
        squared_eps: its eps is added to the square of what the family's is added to.
        ranks: the ranks of the matrices that a muon optimizer takes.
        adjustment: of a muon optimizer, the key of :data:`ADJUSTMENTS` that it uses where no
            ``adjust_lr_fn`` says.
        auxiliary: it has groups for other parameters too, which it trains by Adam.
        settings: defaults that its constructor's signature does not show.
        refusal: why it cannot be used, and what to do.
    """

    family: str = ""
    decay: str = "decoupled"
    pair: bool = False
    squared_eps: bool = False
    ranks: frozenset[int] = frozenset({2})
    adjustment: str = ""
    auxiliary: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    refusal: tuple[str, str] = ("", "")

    def at(self, settings: Mapping[str, Any]) -> Known:
        """With these settings: Adafactor may leave out the size of the weight."""
        unscaled = self.family == "adafactor" and settings.get("scale_parameter") is False
        return replace(self, family="adam") if unscaled else self

    def family_of(self, parameter: Parameter) -> str:
        """The family that a parameter is trained by: what Muon does not take goes to Adam."""
        if self.family == "muon" and not is_matrix(parameter, self.ranks):
            return "adam"
        return self.family

    def is_l2(self, settings: Mapping[str, Any]) -> bool:
        """Whether it adds its decay to a gradient that it then normalises."""
        return self.decay == "l2" and not settings.get("decoupled_weight_decay", False)

    def applied(self, parameter: Parameter, adjust: str | Adjustment | None) -> float:
        """What the class itself multiplies a matrix's lr by, relative to the base.

        Raises:
            UsageError: nothing says what that is.
        """
        if self.family_of(parameter) != "muon":
            return 1.0
        name = adjust or self.adjustment
        if not name:
            raise UsageError(
                "What this Muon multiplies a matrix's learning rate by is not known.",
                fix=f"Pass adjust=..., a function of the shape or one of {', '.join(ADJUSTMENTS)}.",
            )
        rule = name if callable(name) else ADJUSTMENTS[name]
        return rule(parameter.shape) / rule(parameter.base_shape)


def is_matrix(p: Parameter, ranks: frozenset[int] = frozenset({2})) -> bool:
    """Whether a weight is a hidden matrix, a finite stack of some, or a hidden convolution's.

    Muon's law holds for those: one dimension is summed, one is written. Embeddings, readouts and
    vectors are no such (Keller Jordan's Muon trains them by Adam); nor is a fused weight whose rows
    are cut into parts of different roles, which need different norms.
    """
    summed, written = p.fan_in_dims, p.fan_out_dims
    if p.fixed or len(p.shape) not in ranks:
        return False
    dims = {1, 2} if len(p.shape) == 3 else {0, 1}  # a stack, or a kernel that is flattened
    return len(summed) == len(written) == 1 and {*summed, *written} == dims


_ADAM, _L2 = Known("adam"), Known("adam", "l2")
_LION = Known("sign")
_MUON = Known("muon", adjustment="original")
_AUXILIARY = replace(
    _MUON,
    ranks=frozenset({2, 3, 4}),
    auxiliary=True,
    settings={"lr": 0.02, "momentum": 0.95, "weight_decay": 0.0},
)
_SECOND_ORDER = Known(
    refusal=(
        "the size of its updates depends on its preconditioner's exponents, grafting and blocks, "
        "and on the rank of the gradients, so no rule in widths alone holds",
        'For Shampoo with exponents of 1/4 on both sides and no grafting pass family="muon"; its '
        "updates are then orthogonalised momentum (arXiv:2409.20325).",
    )
)
_STEP_SIZES = Known(
    refusal=(
        "it has step sizes of its own, with absolute bounds, that no learning rate scales",
        "Use another optimizer.",
    )
)

#: (package, class) -> what it is. "" stands for any package.
CLASSES: dict[tuple[str, str], Known] = {
    ("torch", "SGD"): Known("sgd"),
    ("torch", "ASGD"): Known("sgd"),
    ("torch", "Adam"): _L2,
    ("torch", "AdamW"): _ADAM,
    ("torch", "NAdam"): _L2,
    ("torch", "RAdam"): _L2,
    ("torch", "Adamax"): _L2,
    ("torch", "RMSprop"): _L2,
    ("torch", "Adagrad"): _L2,
    ("torch", "SparseAdam"): _ADAM,
    ("torch", "Adadelta"): Known("adadelta", "l2"),
    ("torch", "Adafactor"): Known("adafactor", pair=True),
    ("torch", "Muon"): _MUON,
    ("torch", "Rprop"): _STEP_SIZES,
    ("torch", "LBFGS"): _STEP_SIZES,
    ("transformers", "Adafactor"): Known("adafactor", pair=True, squared_eps=True),
    ("lion_pytorch", "Lion"): _LION,
    ("timm", "Lion"): _LION,
    ("muon", "SingleDeviceMuon"): replace(_MUON, ranks=frozenset({2, 3, 4})),
    ("muon", "MuonWithAuxAdam"): _AUXILIARY,
    ("muon", "SingleDeviceMuonWithAuxAdam"): _AUXILIARY,
    ("muon", "Muon"): Known(
        refusal=(
            "it takes no groups, so its learning rate cannot differ between weights",
            "Use MuonWithAuxAdam of the same package.",
        )
    ),
    ("", "Shampoo"): _SECOND_ORDER,
    ("", "DistributedShampoo"): _SECOND_ORDER,
    ("", "SOAP"): _SECOND_ORDER,
}

#: The names on the command line; those of torch are classes of ``torch.optim``.
NAMED: dict[str, Known] = {
    "adamw": _ADAM,  # these three come first
    "adam": _L2,
    "sgd": Known("sgd"),
    **{
        name.lower(): known
        for (package, name), known in CLASSES.items()
        if package == "torch" and not known.refusal[0] and name != "SparseAdam"
    },
    "lion": _LION,
}


def known_class(optimizer_class: Any, family: str | None = None) -> Known:
    """What is known of an optimizer class, by inheritance; ``family`` is the user's word on it.

    Raises:
        UsageError: it is unknown, or has no rule; says what to do.
    """
    if not callable(optimizer_class):
        raise UsageError(
            f"A {type(optimizer_class).__name__} is no optimizer class.",
            fix="Pass a class, such as torch.optim.AdamW.",
        )
    found = Known()
    for ancestor in getattr(optimizer_class, "__mro__", ()):
        module = getattr(ancestor, "__module__", "")  # made by type() where nothing has a name
        package, name = module.partition(".")[0], ancestor.__qualname__
        found = CLASSES.get((package, name)) or CLASSES.get(("", name)) or found
        if found != Known():
            break
    if family is not None:
        if family not in FAMILIES:
            raise UsageError(
                f"There is no family {family!r}.", fix=f"Known: {', '.join(FAMILIES)}."
            )
        return found if found.family == family else Known(family)
    if found.family:
        return found
    name = getattr(optimizer_class, "__qualname__", optimizer_class)
    if found.refusal[0]:
        raise UsageError(f"No muP for {name}: {found.refusal[0]}.", fix=found.refusal[1])
    raise UsageError(
        f"automup does not know how the updates of {name} scale with width.",
        fix='Pass family="adam" (updates with entries of size 1, as Adam\'s), family="sign" (the '
        'same without eps), family="sgd" (updates proportional to the gradient) or family="muon" '
        "(orthogonalised updates).",
    )


def named(name: str) -> Known:
    """What is known of an optimizer by its name, in any case; UsageError if there is none."""
    found = NAMED.get(name.lower()) if isinstance(name, str) else None
    if found is None:
        raise UsageError(f"There is no optimizer {name!r}.", fix=f"Known: {', '.join(NAMED)}.")
    return found
