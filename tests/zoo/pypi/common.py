"""What the entries from PyPI share: example inputs, and models of transformers made by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.entry import Entry, Inputs, register
from zoo.pypi.torchvision_on_cpu import mend_torchvision

BATCH, LENGTH, VOCAB, CLASSES = 2, 12, 250, 10


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def tokens(length: int = LENGTH, vocab: int = VOCAB) -> Tensor:
    """Token ids, none of them among the first few, which mean padding, start and end."""
    return torch.randint(5, vocab, (BATCH, length), generator=_generator())


def noise(*shape: int) -> Tensor:
    """What stands for an image, a spectrogram or a wave."""
    return torch.randn(*shape, generator=_generator())


def image(size: int = 32) -> Tensor:
    return noise(BATCH, 3, size, size)


def field(name: str) -> Callable[[Any], Tensor]:
    """Reads one field of what forward returns."""

    def read(returned: Any) -> Tensor:
        found = getattr(returned, name)
        assert isinstance(found, Tensor)
        return found

    return read


def whole(returned: Any) -> Tensor:
    """For a forward that returns one tensor."""
    assert isinstance(returned, Tensor)
    return returned


def from_transformers(
    model: str,
    config: str,
    fixed: Mapping[str, Any],
    widths: Callable[..., Mapping[str, Any]] | None = None,
    attention: str = "",
) -> Callable[..., nn.Module]:
    """A function of the knobs that builds a model of transformers from its configuration.

    Args:
        model, config: names of classes of transformers.
        fixed: fields of the configuration that are the same at every width.
        widths: from the knobs to fields of the configuration; left out, the knobs are fields.
        attention: ``attn_implementation``; left out, the library's default.
    """

    def build(**knobs: Any) -> nn.Module:
        mend_torchvision()
        import transformers

        fields = {**fixed, **(widths(**knobs) if widths else knobs)}
        settings = getattr(transformers, config)(**fields)
        if attention:
            settings._attn_implementation = attention
        made = getattr(transformers, model)(settings)
        assert isinstance(made, nn.Module)
        return made

    return build


def hf(
    name: str,
    model: str,
    config: str,
    base: Mapping[str, Any],
    inputs: Callable[[], Inputs],
    output: str = "logits",
    *,
    fixed: Mapping[str, Any],
    widths: Callable[..., Mapping[str, Any]] | None = None,
    attention: str = "",
    refused: str = "",
) -> Entry:
    """Register a model of transformers; see :func:`from_transformers` and :class:`Entry`."""
    build = from_transformers(model, config, fixed, widths, attention)
    return register(
        Entry(
            f"transformers/{name}",
            "transformers",
            build,
            base,
            inputs,
            field(output),
            expects_refusal=refused,
        )
    )


def token_ids() -> Inputs:
    return {"input_ids": tokens()}


def two_sequences() -> Inputs:
    """What an encoder reads and what a decoder reads."""
    return {"input_ids": tokens(), "decoder_input_ids": tokens(8)}


def pixels() -> Inputs:
    return {"pixel_values": image()}
