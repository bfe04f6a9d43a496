"""Data in a model's shapes: the loss of whatever a model returns is the loss of its logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from automup.capture.given_inputs import as_maker
from automup.capture.trace import Inputs
from automup.data import Data, load_data, read_text, tokens_of
from automup.errors import ModelLoadError, UsageError
from automup.losses import form_of
from automup.study import Study, open_study

TEXT = bytes(range(32, 127)) * 20


class Tokens(nn.Module):
    """A language model whose output, by ``returns``, is packed in one of the usual ways."""

    def __init__(self, width: int = 8, vocabulary: int = 256, returns: str = "logits") -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary)
        self.returns = returns

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.mix(self.table(tokens))))

    def forward(self, tokens: torch.Tensor, wanted: torch.Tensor | None = None) -> Any:
        logits = self.logits(tokens)
        loss = None if wanted is None else F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        if self.returns == "last without targets":
            return (logits if wanted is not None else logits[:, -1:]), loss
        if self.returns == "only a loss":
            return logits.mean(dim=(1, 2)) if loss is None else loss
        packed = {
            "logits": logits,
            "last": logits[:, -1],
            "pair": (logits, logits.sum()),
            "dict": {"loss": loss, "logits": logits},
        }
        return packed[self.returns]


class Asks(Tokens):
    """It cannot do without targets, and returns a loss alone."""

    def forward(self, tokens: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.logits(tokens).flatten(0, 1), wanted.flatten())


def study(cls: Any, inputs: Any, **fixed: Any) -> Study:
    return open_study(lambda k: cls(**k), {"width": 8}, as_maker(inputs), fixed=fixed)


def text(tmp_path: Path, content: bytes = TEXT) -> str:
    (tmp_path / "text.txt").write_bytes(content)
    return f"text:{tmp_path / 'text.txt'}"


WINDOW = (torch.zeros(2, 12, dtype=torch.long),)


@pytest.mark.parametrize("returns", ["logits", "pair", "dict", "last without targets"])
def test_the_loss_of_any_output_is_that_of_its_logits(returns: str, tmp_path: Path) -> None:
    data = load_data(text(tmp_path), study(Tokens, WINDOW, returns=returns))
    model = Tokens(16, returns=returns)
    x, y = next(data.batches(4, seed=0))
    assert x.shape == y.shape == (4, 12)
    expected = F.cross_entropy(model.logits(x).flatten(0, 1), y.flatten())
    assert torch.equal(data.loss(model, (x, y)), expected)


def test_a_model_that_sees_a_window_and_predicts_one_token_is_trained_on_the_last(
    tmp_path: Path,
) -> None:
    data = load_data(text(tmp_path), study(Tokens, WINDOW, returns="last"))
    model = Tokens(16, returns="last")
    x, y = next(data.batches(4, seed=0))
    assert torch.equal(data.loss(model, (x, y)), F.cross_entropy(model(x), y[:, -1]))


@pytest.mark.parametrize("cls", [Tokens, Asks])
def test_a_model_that_only_returns_a_loss_is_trained_on_it(
    cls: type[Tokens], tmp_path: Path
) -> None:
    inputs = WINDOW if cls is Tokens else WINDOW * 2
    fixed = {"returns": "only a loss"}
    data = load_data(
        text(tmp_path), study(cls, lambda m: tuple(t.clone() for t in inputs), **fixed)
    )
    model = cls(16, **fixed)
    x, y = next(data.batches(4, seed=0))
    assert torch.equal(data.loss(model, (x, y)), model(x, y))


def test_batches_are_windows_of_the_text_the_same_for_the_same_seed(tmp_path: Path) -> None:
    data = load_data(text(tmp_path), study(Tokens, WINDOW))
    x, y = next(data.batches(8, seed=3))
    assert all(bytes(row.tolist()) in TEXT for row in x)
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert torch.equal(x, next(data.batches(8, seed=3))[0])
    assert not torch.equal(x, next(data.batches(8, seed=4))[0])


def test_a_small_vocabulary_gets_bytes_by_frequency() -> None:
    tokens = tokens_of(b"aaaabbbccd", 3)
    assert tokens.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(tokens_of(b"abc", 256), torch.tensor([97, 98, 99], dtype=torch.uint8))


def test_tokens_stay_below_a_small_vocabulary(tmp_path: Path) -> None:
    data = load_data(text(tmp_path), study(Tokens, WINDOW, vocabulary=40))
    x, _ = next(data.batches(64, seed=0))
    assert int(x.max()) == 39


def test_a_folder_is_its_text_files_in_order(tmp_path: Path) -> None:
    for name, content in {"b.py": b"second", "a/z.txt": b"third", "a.bin": b"\0\1"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".hidden").write_bytes(b"no")
    assert read_text(tmp_path) == b"secondthird"


class Images(nn.Module):
    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))).mean(dim=(2, 3)))


def test_digits_are_standardised_and_drawn_by_seed() -> None:
    data = load_data("digits", study(Images, (torch.zeros(2, 3, 16, 16),)))
    x, y = next(data.batches(2000, seed=0))
    assert x.shape == (2000, 3, 16, 16)
    assert set(y.tolist()) == set(range(10))
    assert torch.equal(x[:, 0], x[:, 2])
    assert torch.equal(x[:, :, ::2, ::2], x[:, :, 1::2, 1::2])
    used = x[:, 0, ::2, ::2].flatten(1)
    moves = used.std(dim=0) > 0
    assert used.mean(dim=0).abs().max() < 0.1
    assert (used.std(dim=0)[moves] - 1).abs().mean() < 0.2
    model = Images(16)
    assert torch.equal(data.loss(model, (x, y)), F.cross_entropy(model(x), y))


def test_finding_out_how_a_model_is_called_leaves_no_trace() -> None:
    model = Images(8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    form_of(model, Inputs((torch.ones(2, 3, 16, 16),)), torch.zeros(2, dtype=torch.long))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


FILE = """
import torch

def batches(batch_size, seed):
    while True:
        yield {"x": torch.full((batch_size, 3), float(seed))}

def loss(model, batch):
    return model(batch["x"]).square().mean()
"""


class Numbers(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, width), nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.stem(x)))


NUMBERS = (torch.zeros(2, 3),)


def test_a_file_brings_its_own_batches_and_loss(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    data: Data = load_data(str(tmp_path / "mine.py"), study(Numbers, NUMBERS))
    batch = next(data.batches(5, seed=2))
    model = Numbers(8)
    assert torch.equal(data.loss(model, batch), model(torch.full((5, 3), 2.0)).square().mean())


@pytest.mark.parametrize(
    ("spec", "cls", "inputs", "said"),
    [
        ("nothing", Numbers, NUMBERS, "There is no data 'nothing'"),
        ("text:/nowhere", Numbers, NUMBERS, "/nowhere: no such file or folder"),
        ("digits", Tokens, WINDOW, "first input is torch.int64 (2, 12)"),
        ("digits", Numbers, NUMBERS, "The model returns (2, 1): no logits for targets"),
        ("text:FILE", Numbers, NUMBERS, "first input is torch.float32 (2, 3)"),
        ("text:SHORT", Tokens, WINDOW, "The text has 10 bytes"),
        ("BARE.py", Numbers, NUMBERS, "does not define batches(batch_size, seed)"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    spec: str, cls: Any, inputs: Any, said: str, tmp_path: Path
) -> None:
    (tmp_path / "FILE").write_bytes(TEXT)
    (tmp_path / "SHORT").write_bytes(b"0123456789")
    (tmp_path / "BARE.py").write_text("x = 1\n")
    spec = spec.replace("text:F", f"text:{tmp_path}/F").replace("text:S", f"text:{tmp_path}/S")
    spec = str(tmp_path / spec) if spec.endswith(".py") else spec
    with pytest.raises(UsageError) as refused:
        load_data(spec, study(cls, inputs))
    assert said in str(refused.value)


def test_a_data_file_that_fails_says_where(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\n1 / 0\n")
    with pytest.raises(ModelLoadError, match=r"ZeroDivisionError.*mine.py:2"):
        load_data(str(tmp_path / "mine.py"), study(Numbers, NUMBERS))


class TwoTables(Tokens):
    """Its input table is smaller than its output."""

    def __init__(self, width: int = 8) -> None:
        super().__init__(width)
        self.table = nn.Embedding(50, width)


def test_a_table_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot take a token 126"):
        load_data(text(tmp_path), study(TwoTables, WINDOW))


class Several(Tokens):
    def forward(self, tokens: torch.Tensor) -> Any:
        h = self.table(tokens)
        return {"hidden": h, "logits": self.head(torch.relu(self.mix(h)))}


def test_two_tensors_like_logits_are_not_chosen_from(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="several tensors like logits"):
        load_data(text(tmp_path), study(Several, WINDOW))
