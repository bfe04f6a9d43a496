"""Whether a model has a place for each constant: one that has none is refused, never ignored."""

from __future__ import annotations

from automup.analysis.open_ends import place_of_node, place_of_use
from automup.constants import Constants
from automup.errors import UsageError
from automup.study import Study


def check_constants(study: Study, constants: Constants) -> None:
    """Refuse multipliers that the model has no place for.

    Raises:
        UsageError: names the constant, and what stands in its way.
    """
    if constants.input_mult != 1.0:
        _check_end(study, "input_mult", "input")
    if constants.output_mult != 1.0:
        _check_end(study, "output_mult", "output")
    if constants.attention_mult != 1.0:
        _check_attention(study)
    if constants.query_init != 1.0:
        study.queries  # noqa: B018


def _check_end(study: Study, constant: str, end: str) -> None:
    """All weights at an end of the model must be able to take a multiplier, and there must be one.

    A shared weight that is both at an end and elsewhere cannot, but for a readout that has a site.
    """
    exponents = study.exponents
    weights = exponents.weights.items()
    for name, weight in weights:
        if end in weight.ends and weight.layer != end:
            raise UsageError(
                f"{constant}: the multiplier of {name} cannot be put into the weight, which is "
                "used elsewhere too, or in a way that is not linear.",
                where=place_of_use(weight),
                fix=f"Leave {constant} at 1, or write the multiplier into the model.",
            )
    readouts = end == "output" and any(c.end for s in exponents.spots for c in s.corrections)
    if not readouts and not any(weight.layer == end for _, weight in weights):
        where = "reads the data" if end == "input" else "is a readout"
        raise UsageError(
            f"{constant}: no weight of the model {where}, so there is nothing to multiply.",
            fix=f"Leave {constant} at 1.",
        )


def _check_attention(study: Study) -> None:
    """Every attention of the model must have a site for its logits."""
    exponents = study.exponents
    reached: dict[object, bool] = {}
    for analysis in exponents.analyses:
        for node, covered in analysis.attentions.items():
            reached[node] = reached.get(node, False) or covered
    bare = [node for node, covered in reached.items() if not covered]
    if bare or not any(spot.first.kind == "attention" for spot in exponents.spots):
        what = "this attention" if bare else "the model"
        raise UsageError(
            f"attention_mult: {what} has no multiplier in μP (its logits do not grow with width), "
            "so there is no place for a constant.",
            where=place_of_node(bare[0]) if bare else "",
            fix="Leave attention_mult at 1, or write the multiplier into the model.",
        )
