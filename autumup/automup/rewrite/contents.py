"""What a converted file is made from, beside the author's text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from automup.edits import Edit, Multiplier
from automup.facts import Parameter
from automup.rewrite.exchange import NO_EXCHANGE, Exchange


@dataclass(frozen=True)
class Contents:
    """The facts of one model that its converted file holds.

    Attributes:
        root_class: the model's class, at the top level of the file.
        parameters: the plan's facts, in the order of the model's parameters.
        edits: the multipliers, twins included.
        knobs: the width knobs' values at the base.
        fixed: what else was given to make the model, other than its own defaults.
        init_functions: qualified names of methods of the root class that draw weights and may be
            called after the constructor (``"GPT.init_weights"``).
        redrawn: the parameters that the first of the init functions draws, if it does not draw all
            that need to be rescaled.
        factory: a function of the file that draws the weights of what the constructor made.
        sites: the multipliers that the edits make, for the reader.
        head_dims: torch's own attention modules whose logits need one, by the weights of their
            output projections, each with the size of its heads at the base.
        attention_classes: the file's own classes among them.
        queries: the rows of parameters that write queries, as the plan has them.
        exchanged: the form that the file gets, and the constants.
    """

    root_class: str
    parameters: Sequence[Parameter]
    edits: Sequence[Edit]
    knobs: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    init_functions: Sequence[str] = ()
    redrawn: Collection[str] = ()
    factory: str = ""
    sites: Sequence[Multiplier] = ()
    head_dims: Mapping[str, int] = field(default_factory=dict)
    attention_classes: Sequence[str] = ()
    queries: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    exchanged: Exchange = NO_EXCHANGE
