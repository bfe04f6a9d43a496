"""What a model is trained on: batches by seed, and the loss of a model on a batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automup.capture.load import load_beside
from automup.capture.nested import with_tensors
from automup.errors import UsageError
from automup.losses import FIX, Form, form_of

if TYPE_CHECKING:
    from automup.capture.trace import Inputs
    from automup.study import Study

#: Of a text, its first bytes are used: enough for any run that a sweep can repeat.
TEXT_BYTES = 4_000_000

SPECS = "text:PATH (a file or a folder), digits, or a Python file with batches and loss"


class Data(Protocol):
    """Training data of a sweep or a check."""

    def batches(self, batch_size: int, seed: int) -> Iterator[Any]:
        """Batches on the CPU, the same ones for the same seed; endless, or started anew."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of a model on a batch, which is on the model's device: a scalar."""
        ...


def load_data(spec: str, study: Study) -> Data:
    """The data that ``text:PATH``, ``digits`` or ``file.py`` stands for, in this model's shapes.

    Args:
        spec: ``text:PATH``: next-byte prediction on a file, or on all text files of a folder in
            the order of their paths, in windows of the length that the model's example input has;
            ``digits``: scikit-learn's 8×8 images, standardised; a Python file that defines
            ``batches(batch_size, seed)`` and ``loss(model, batch)``.
        study: the model; its example input and its output at the base say what it takes.

    Raises:
        UsageError: there is no such data, or the model cannot be trained on it.
    """
    kind, _, place = spec.partition(":")
    if kind == "text" and place:
        return _text(read_text(Path(place)), study)
    if spec == "digits":
        return _digits(study)
    if spec.endswith(".py"):
        return FileData.of(spec)
    raise UsageError(f"There is no data {spec!r}.", fix=f"Pass {SPECS}.")


def to_device(batch: Any, device: torch.device) -> Any:
    """The same batch with its tensors on a device."""
    return with_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _example(study: Study) -> tuple[nn.Module, Inputs]:
    """A base model on real tensors, and inputs that make it run."""
    model = study.models.drawn(study.base)
    return model, study.models.inputs(model)


def _first_tensor(inputs: Inputs, integers: bool, what: str) -> Tensor:
    """The tensor that the data goes to; UsageError if it is of another kind."""
    from automup.capture.arguments import tensors_in

    first = next(iter(tensors_in(inputs)), None)
    if first is None or first.is_floating_point() is integers or first.dim() < 2:
        shown = "nothing" if first is None else f"{first.dtype} {tuple(first.shape)}"
        raise UsageError(
            f"The model's first input is {shown}, and {what}.",
            fix=f"Pass other data: {SPECS}; or another example with --input.",
        )
    return first


# --- text -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TextData:
    """Windows of a text and the same windows one token later: x and y, both (batch, time).

    Args:
        tokens: the whole text, 1-d.
        time: the length of a window.
        form: how the model is called.
    """

    tokens: Tensor
    time: int
    form: Form

    def batches(self, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows at random places of the text, forever."""
        generator = torch.Generator().manual_seed(seed)
        window = torch.arange(self.time + 1)
        places = len(self.tokens) - self.time
        while True:
            starts = torch.randint(places, (batch_size, 1), generator=generator)
            rows = self.tokens[starts + window].long()
            yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean cross-entropy of the next token, in nats."""
        return self.form.loss(model, *batch)


def _text(text: bytes, study: Study) -> TextData:
    model, inputs = _example(study)
    first = _first_tensor(inputs, True, "text needs integers (batch, time)")
    if first.dim() != 2:
        raise UsageError(
            f"The model's first input has shape {tuple(first.shape)}, and text is (batch, time).",
            fix=FIX,
        )
    time = first.shape[1]
    if len(text) < 2 * (time + 1):
        raise UsageError(
            f"The text has {len(text)} bytes, and the model reads windows of {time}.",
            fix="Pass a longer text, or a shorter example with --input.",
        )
    form = form_of(model, inputs, torch.zeros_like(first, dtype=torch.long))
    vocabulary = form.classes(model) or 256
    tokens = tokens_of(text, vocabulary)
    form.check(model, int(tokens.max()))
    return TextData(tokens, time, form)


def tokens_of(text: bytes, vocabulary: int) -> Tensor:
    """A text as uint8 tokens below ``vocabulary``: its bytes, or their ranks by frequency.

    With fewer than 256 tokens, the most frequent byte is 0, the next one 1, and all bytes that are
    rarer than the last token but one share the last.
    """
    raw = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    if vocabulary >= 256:
        return raw
    counts = torch.bincount(raw.long(), minlength=256)
    order = torch.argsort(counts, descending=True, stable=True)
    rank = torch.empty(256, dtype=torch.long)
    rank[order] = torch.arange(256)
    return rank.clamp(max=vocabulary - 1).to(torch.uint8)[raw.long()]


def read_text(path: Path) -> bytes:
    """The first :data:`TEXT_BYTES` of a file, or of a folder's text files in order of their paths.

    A folder's hidden files and those that are not UTF-8 are left out.

    Raises:
        UsageError: there is no such file, or no text in it.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder.", fix="Pass --data text:PATH.")
    text = bytearray()
    for file in _files(path):
        try:
            part = file.read_bytes()
        except OSError as error:
            raise UsageError(f"{file} cannot be read: {error.strerror}.") from error
        if file == path or _is_text(part):
            text += part
        if len(text) >= TEXT_BYTES:
            break
    if not text:
        raise UsageError(f"{path}: no text.", fix="Pass a file of text, or a folder of such files.")
    return bytes(text[:TEXT_BYTES])


def _files(path: Path) -> Iterator[Path]:
    """The file itself, or a folder's files in the order of their relative paths; none hidden."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(n for n in folders if n != "__pycache__" and not n.startswith("."))
        yield from (Path(folder, n) for n in sorted(names) if not n.startswith("."))


def _is_text(part: bytes) -> bool:
    try:
        part.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in part


# --- digits ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DigitsData:
    """scikit-learn's 1797 digits, standardised: x in the model's shape, y (batch,) of classes.

    Args:
        images: (1797, ...) in the shape of the model's example input.
        labels: (1797,) int64, 0 to 9.
        form: how the model is called.
    """

    images: Tensor
    labels: Tensor
    form: Form

    def batches(self, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Digits drawn with replacement, forever."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            rows = torch.randint(len(self.labels), (batch_size,), generator=generator)
            yield self.images[rows], self.labels[rows]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean cross-entropy, in nats."""
        return self.form.loss(model, *batch)


def _digits(study: Study) -> DigitsData:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError("digits needs scikit-learn.", fix="pip install scikit-learn.") from error
    model, inputs = _example(study)
    first = _first_tensor(inputs, False, "digits needs numbers (batch, ...)")
    form = form_of(model, inputs, torch.zeros(len(first), dtype=torch.long))
    classes = form.classes(model)
    if classes is not None and classes < 10:
        raise UsageError(f"The model tells {classes} classes apart, digits has 10.", fix=FIX)
    images, labels = load_digits(return_X_y=True)
    pixels = torch.as_tensor(images, dtype=torch.float32)
    spread = pixels.std(dim=0)
    pixels = (pixels - pixels.mean(dim=0)) / torch.where(spread > 0, spread, 1.0)
    shaped = _in_shape(pixels, tuple(first.shape[1:]))
    return DigitsData(shaped, torch.as_tensor(labels, dtype=torch.long), form)


def _in_shape(pixels: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Digits (n, 64) as (n, *shape): as they are, or as images that are repeated and enlarged."""
    if torch.Size(shape).numel() == 64:
        return pixels.reshape(-1, *shape)
    if len(shape) != 3:
        raise UsageError(
            f"The model takes {shape} numbers for each sample, and a digit has 8×8.",
            fix="Pass an example of 64 numbers or of an image with --input, or other data.",
        )
    image = pixels.reshape(-1, 1, 8, 8).expand(-1, shape[0], 8, 8)
    return F.interpolate(image, size=shape[1:], mode="nearest")


# --- a file ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileData:
    """The ``batches`` and ``loss`` of a Python file."""

    make: Callable[[int, int], Iterator[Any]]
    measure: Callable[[nn.Module, Any], Tensor]

    @staticmethod
    def of(path: str) -> FileData:
        """Run the file; UsageError if it lacks either function, ModelLoadError if it fails."""
        module = load_beside(path)
        functions = [getattr(module, name, None) for name in ("batches", "loss")]
        if not all(callable(function) for function in functions):
            raise UsageError(
                f"{path} does not define batches(batch_size, seed) and loss(model, batch).",
                fix="Define both, at the top level of the file.",
            )
        return FileData(*functions)  # type: ignore[arg-type]

    def batches(self, batch_size: int, seed: int) -> Iterator[Any]:
        """What the file's ``batches`` gives."""
        return iter(self.make(batch_size, seed))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """What the file's ``loss`` gives."""
        return self.measure(model, batch)
