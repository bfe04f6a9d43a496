"""From the recorded init laws at three widths to a formula in the parameters' sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from automup.capture.init_laws import Law
from automup.capture.trace import WeightFact
from automup.facts import SizeLaw

MEASURABLE = 1 << 24  # parameters; a larger model is not built for a check
ENOUGH = 512  # entries, so that an exponent between two widths is known to about 0.1
MOST_DRAWS = 64
Shape = tuple[int, ...]
Records = Mapping[str, tuple[tuple[Shape, Law], ...]]
"""Each parameter's shape and law at the base, at twice the base and at the third width."""

CLOSE = 1e-6


def infer_law(
    name: str, records: Records, fan_in_dims: Mapping[str, tuple[int, ...]]
) -> tuple[SizeLaw, ...] | None:
    """How the constructor's rms depends on sizes: () constant, None where no formula fits.

    The candidates, in order: the dimensions that the weight sums over (1/sqrt(fan_in)); for a
    vector, those of a weight in the same module (torch's biases are drawn by their weight's
    fan_in); its other dimensions; sums of two dimensions (Xavier), also of one and all the others
    as one (of a convolution's kernel seen as a matrix, as in DiT).
    """
    shapes = [shape for shape, _ in records[name]]
    rms = [law.rms for _, law in records[name]]
    if any(not law.known for _, law in records[name]):
        return None
    if all(value == 0.0 for value in rms) or _constant(rms):
        return ()
    if 0.0 in rms:
        return None
    for of, dims, sizes in _candidates(name, shapes, records, fan_in_dims):
        exponent = _exponent(rms, sizes)
        if exponent is not None:
            return (SizeLaw(dims, sizes[0], exponent, of),)
    for d in range(len(shapes[0])):
        joined = tuple(other for other in range(len(shapes[0])) if other != d)
        law = SizeLaw((d,), 0, 0.0, joined=joined)
        exponent = _exponent(rms, [law.size(shape) for shape in shapes])
        if len(joined) > 1 and exponent is not None:
            return (replace(law, base=law.size(shapes[0]), exponent=exponent),)
    return None


def measured(
    build: Callable[[], nn.Module], weights: Sequence[WeightFact]
) -> tuple[WeightFact, ...]:
    """The weights with laws checked on a real draw; a law that it contradicts is measured.

    The recorder can be fooled (by a library's own sampler, by code that looks at the device), so
    every law is compared with what the constructor really draws. What is measured is drawn until
    there are :data:`ENOUGH` entries. Too large a model is believed.
    """
    if sum(math.prod(w.shape) for w in weights) > MEASURABLE:
        return tuple(weights)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        drawn = dict(build().named_parameters())
        unknown = {
            w.name: [_real(drawn[w.name])]
            for w in weights
            if w.name in drawn and contradicts(w.law, drawn[w.name])
        }
        smallest = min((math.prod(w.shape) for w in weights if w.name in unknown), default=ENOUGH)
        for _ in range(min(MOST_DRAWS, ENOUGH // max(1, smallest)) - 1):
            again = dict(build().named_parameters())
            for name, draws in unknown.items():
                draws.append(_real(again[name]))
    return tuple(
        replace(w, law=_measured(unknown[w.name])) if w.name in unknown else w for w in weights
    )


def contradicts(law: Law, drawn: torch.Tensor) -> bool:
    """Whether a real draw is another than a law says."""
    if drawn.is_meta or not drawn.numel():
        return False
    rms = float(_real(drawn.detach()).square().mean().sqrt())
    # The rms of n draws has a relative error of about 1/sqrt(2 n), or (kurtosis) a bit more.
    error = law.rms * (0.01 + 6 / math.sqrt(2 * drawn.numel())) + 1e-12
    return not (law.known and abs(rms - law.rms) <= error)


def _real(drawn: torch.Tensor) -> torch.Tensor:
    """The entries as real numbers: of complex ones the two parts."""
    return (torch.view_as_real(drawn) if drawn.is_complex() else drawn).double()


def _measured(draws: Sequence[torch.Tensor]) -> Law:
    values = torch.stack(list(draws))
    mean, square = float(values.mean()), float(values.square().mean())
    return Law("measured", mean, math.sqrt(max(square - mean**2, 0.0)))


def _constant(values: list[float]) -> bool:
    return max(values) - min(values) <= CLOSE * max(values)


def _exponent(rms: list[float], sizes: list[int]) -> float | None:
    """e such that rms goes as size ** e over all widths, or None."""
    if len(set(sizes)) < len(sizes):
        return None
    slopes = [
        math.log(rms[i] / rms[0]) / math.log(sizes[i] / sizes[0]) for i in range(1, len(sizes))
    ]
    if max(slopes) - min(slopes) > CLOSE:
        return None
    nearest = round(slopes[0] * 12) / 12
    return nearest if abs(nearest - slopes[0]) < CLOSE else slopes[0]


def _candidates(
    name: str, shapes: list[Shape], records: Records, fan_in_dims: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, tuple[int, ...], list[int]]]:
    own = fan_in_dims.get(name, ())
    yield from (("", (d,), [s[d] for s in shapes]) for d in own)
    if len(shapes[0]) == 1:
        module = name.rpartition(".")[0]
        # those beside it, then what is below, as the originals of parametrized weights are
        near = [o for o in fan_in_dims if o != name and o.startswith(module and f"{module}.")]
        for other in sorted(near, key=lambda o: o.count(".")):
            if module or "." not in other:
                dims = fan_in_dims[other]
                yield from ((other, (d,), [s[d] for s, _ in records[other]]) for d in dims)
    rank = len(shapes[0])
    yield from (("", (d,), [s[d] for s in shapes]) for d in range(rank) if d not in own)
    yield from (
        ("", (a, b), [s[a] + s[b] for s in shapes]) for a in range(rank) for b in range(a + 1, rank)
    )
