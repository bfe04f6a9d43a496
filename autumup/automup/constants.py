"""The transferable constants of Tensor Programs V: what is tuned at the base beside the lr.

muP fixes how everything changes with width, and leaves a constant free in each place. Tuned on the
narrow model, a constant stays optimal on the wide one (arXiv:2203.03466, Tables 1 and 2:
alpha_input, alpha_output, alpha_attn, per-layer learning rates and init).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from automup.errors import UsageError
from automup.rules import Role


@dataclass(frozen=True)
class Constants:
    """Factors on what the author's model and optimizer do, the same at every width.

    With all at 1, the default, nothing is changed.

    Attributes:
        input_mult: multiplies the output of the model's input layers: weights that read the data,
            with the biases and positions that are added to it before anything else happens.
        output_mult: multiplies the model's outputs where an infinite axis is summed into them: the
            readouts, with their biases.
        attention_mult: multiplies attention logits, where automup has a multiplier for them.
        input_lr, hidden_lr, output_lr: multiply the learning rates by role. Biases, gains and
            scalars go with ``input_lr``: fan_in is 1, one entry moves one output coordinate, as
            of an input weight (the first column of Table 3, "input weights and all biases").
        input_init, hidden_init, output_init: multiply the std of the initial draw by role; 0 makes
            zeros. What is not drawn at random (a gain of ones) stays. A readout's bias goes with
            ``output_init``: 0 makes outputs of 0, as mup's ``readout_zero_init``.
        query_init: multiplies the std of what writes the queries of attention, weights and biases,
            of a fused projection those rows alone; 0 makes logits of 0, so that every position is
            attended alike at first, at every width (Tensor Programs V, D.2). Queries are told from
            keys by the dataflow.

    Raises:
        UsageError: a multiplier or rate that is not positive, an init factor below 0.
    """

    input_mult: float = 1.0
    output_mult: float = 1.0
    attention_mult: float = 1.0
    input_lr: float = 1.0
    hidden_lr: float = 1.0
    output_lr: float = 1.0
    input_init: float = 1.0
    hidden_init: float = 1.0
    output_init: float = 1.0
    query_init: float = 1.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            zero = name.endswith("_init")
            if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
                raise UsageError(
                    f"{name} cannot be {value!r}.",
                    fix=f"Pass a finite number {'of at least' if zero else 'above'} 0.",
                )
            object.__setattr__(self, name, float(value))

    @property
    def changed(self) -> dict[str, float]:
        """Those that are not 1."""
        return {k: value for k, value in dataclasses.asdict(self).items() if value != 1.0}

    def lr(self, role: Role) -> float:
        """The factor of a parameter's learning rate."""
        factors = {Role.HIDDEN: self.hidden_lr, Role.OUTPUT: self.output_lr}
        return factors.get(role, self.input_lr)

    def init(self, role: Role, layer: str) -> float:
        """The factor of the std of a parameter's draw; for ``layer`` see :meth:`multiplier`."""
        if role is Role.HIDDEN:
            return self.hidden_init
        return self.output_init if role is Role.OUTPUT or layer == "output" else self.input_init

    def multiplier(self, layer: str) -> float:
        """What a parameter's output is multiplied by, one of ``layer`` "input", "output" or ""."""
        return {"input": self.input_mult, "output": self.output_mult}.get(layer, 1.0)

    def of_site(self, kind: str, end: bool, layer: str) -> float:
        """What the multiplier of a site is multiplied by.

        Args:
            kind: of the site.
            end: whether it is a readout of the model.
            layer: of the shared weight that a readout reads. Where that holds an input multiplier,
                W = A w, w h is W h / A.
        """
        above, below = self.names_at_site(kind, end, layer)
        product = math.prod(getattr(self, name) for name in above)
        return float(product / math.prod(getattr(self, name) for name in below))

    @staticmethod
    def names_at_site(kind: str, end: bool, layer: str) -> tuple[list[str], list[str]]:
        """The constants that multiply a site, and those that divide it; see :meth:`of_site`."""
        if kind == "attention":
            return ["attention_mult"], []
        return ["output_mult"] if end else [], [f"{layer}_mult"] if layer else []

    @staticmethod
    def of(values: Mapping[str, object]) -> Constants:
        """From names and numbers; UsageError for another name or value."""
        known = [field.name for field in dataclasses.fields(Constants)]
        for name in values:
            if name not in known:
                raise UsageError(f"No constant {name!r}.", fix=f"Known: {', '.join(known)}.")
        return Constants(**values)  # type: ignore[arg-type]


NO_CONSTANTS = Constants()
