"""Example inputs are found from structure, are the same every time, and fit every width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import automup
from automup.capture.given_inputs import as_maker, parse_inputs
from automup.capture.inputs import optional_candidates, synthesise
from automup.capture.trace import Inputs, Workshop
from automup.errors import InputError, UsageError


class Tokens(nn.Module):
    """Embeddings of tokens and of positions, of which there are few."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.pos = nn.Embedding(5, d)
        self.tok = nn.Embedding(50, d)
        self.head = nn.Linear(d, 50)

    def forward(self, i: torch.Tensor, targets: torch.Tensor | None = None) -> Any:
        return self.head(self.tok(i) + self.pos(torch.arange(i.shape[1])))


class Raw(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(40, d))
        self.out = nn.Parameter(torch.randn(d, 3))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids] @ self.out


class Block(nn.Module):
    """Takes activations: its input is as wide as it is."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.fc = nn.Linear(d, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, _, _ = x.shape
        return x + self.fc(self.norm(x))


class Letters(nn.Module):
    """Words, and the letters of each, of which there are fewer."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.word, self.letter = nn.Embedding(50, d), nn.Embedding(20, 4)
        self.spell, self.head = nn.Conv2d(4, d, (1, 3)), nn.Linear(2 * d, 3)

    def forward(self, words: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
        spelled = self.spell(self.letter(letters).permute(0, 3, 1, 2)).amax(-1).transpose(1, 2)
        return self.head(torch.cat([self.word(words), spelled], -1))


class Image(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, d, 4, 4)
        self.pos = nn.Parameter(torch.zeros(1, 49, d))
        self.fc = nn.Linear(d, 2)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        h = self.conv(x).flatten(2).transpose(1, 2) + self.pos
        return self.fc(h * t.view(-1, 1, 1))


class Optional(nn.Module):
    """All of forward's arguments are optional, and two are needed."""

    main_input_name = "input_ids"

    def __init__(self, d: int) -> None:
        super().__init__()
        self.tok = nn.Embedding(30, d)

    def forward(self, mask: Any = None, input_ids: Any = None, other_ids: Any = None) -> Any:
        if other_ids is None:
            raise ValueError("You have to specify other_ids")
        return self.tok(input_ids) + self.tok(other_ids)


CASES: list[tuple[Callable[[int], nn.Module], list[tuple[int, ...]]]] = [
    (lambda d: nn.Sequential(nn.Linear(7, d), nn.Linear(d, 2)), [(2, 7)]),
    (lambda d: nn.Sequential(nn.Flatten(), nn.Linear(48, d)), [(2, 48)]),
    (lambda d: nn.Conv1d(3, d, 3), [(2, 3, 64)]),
    (lambda d: nn.LSTM(6, d, batch_first=True), [(2, 6)]),
    (Tokens, [(2, 5)]),
    (Letters, [(2, 12), (2, 12, 8)]),
    (Raw, [(2, 12)]),
    (Image, [(2, 3, 28, 28), (2,)]),
    (Optional, [(2, 12), (2, 12)]),
]


def tensors(inputs: Inputs) -> list[torch.Tensor]:
    return [*inputs.args, *inputs.kwargs.values()]


@pytest.mark.parametrize(("make", "shapes"), CASES)
def test_synthesis(make: Callable[[int], nn.Module], shapes: list[tuple[int, ...]]) -> None:
    state = torch.get_rng_state()
    maker = synthesise(Workshop(lambda: make(16)), Workshop(lambda: make(32)))
    assert torch.equal(state, torch.get_rng_state())
    narrow, wide = make(16), make(32)
    first, second = maker(narrow), maker(wide)
    assert [tuple(t.shape) for t in tensors(first)] == shapes
    assert all(map(torch.equal, tensors(first), tensors(second)))
    narrow(*first.args, **first.kwargs)  # on real weights
    wide(*second.args, **second.kwargs)


def test_an_input_as_wide_as_the_model() -> None:
    maker = synthesise(Workshop(lambda: Block(16)), Workshop(lambda: Block(32)))
    assert [maker(Block(d)).args[0].shape[-1] for d in (16, 32)] == [16, 32]


def test_lengths_avoid_the_widths() -> None:
    maker = synthesise(Workshop(lambda: Raw(12)), Workshop(lambda: Raw(24)))
    assert maker(Raw(12)).args[0].shape == (2, 16)


def test_optional_arguments_go_by_keyword() -> None:
    assert list(synthesise(Workshop(lambda: Optional(8)))(Optional(8)).kwargs) == [
        "input_ids",
        "other_ids",
    ]


class Stubborn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, graph: Any, mode: str = "a") -> Any:
        raise KeyError("edges")


def test_an_error_that_says_what_was_tried() -> None:
    with pytest.raises(InputError) as caught:
        synthesise(Workshop(Stubborn))
    text = str(caught.value)
    for part in ("Stubborn.forward(graph, mode=)", "float32[2, 3]", "KeyError: 'edges'", "--input"):
        assert part in text
    assert "test_inputs.py:" in caught.value.where


def test_parsed_inputs() -> None:
    model = Tokens(4)
    made = parse_inputs(["i:int64[2,5]<9"])(model)
    assert made.args[0].shape == (2, 5) and int(made.args[0].max()) < 9
    made = parse_inputs(["long[2,4]<9", "targets:bool[2,4]"])(model)
    assert len(made.args) == 1 and made.kwargs["targets"].dtype is torch.bool
    made = parse_inputs(["input : float [ 2, 3 ]"])(nn.Linear(3, 3))
    assert made.args[0].shape == (2, 3) and made.args[0].dtype is torch.float32


@pytest.mark.parametrize("spec", ["idx", "i:int64", "i:int65[2]", "i:float32[2]<3", "i:int64[2]<0"])
def test_specs_that_make_no_sense(spec: str) -> None:
    with pytest.raises(UsageError, match="--input"):
        parse_inputs([spec])


def test_a_name_that_forward_has_not() -> None:
    with pytest.raises(InputError, match="Did you mean 'targets'"):
        parse_inputs(["target:int64[2]"])(Tokens(4))


def test_what_the_api_accepts() -> None:
    x, model = torch.ones(2, 3), nn.Linear(3, 3)
    assert as_maker(None) is None
    for given in (x, (x,), [x], lambda m: x, lambda m: (x,), Inputs((x,))):
        maker = as_maker(given)
        assert maker is not None and maker(model).args == (x,)
    maker = as_maker({"input": x})
    assert maker is not None and maker(model).kwargs == {"input": x}
    with pytest.raises(UsageError, match="inputs is int"):
        as_maker(3)


def test_optional_candidates() -> None:
    found = list(optional_candidates(Tokens(4), Inputs((torch.ones(2, 5, dtype=torch.long),))))
    assert {name for name, _ in found} == {"targets"}
    assert tuple(found[0][1].shape) == (2, 5) and found[0][1].dtype is torch.long


class Masked(nn.Module):
    """Patches of a picture, of which some are hidden behind a learned one."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, d, 4, stride=4)
        self.hidden = nn.Parameter(torch.randn(d))
        self.head = nn.Linear(d, 5)

    def forward(self, picture: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        h = self.patches(picture).flatten(2).transpose(1, 2)
        if mask is not None:
            h = torch.where(mask.unsqueeze(-1), self.hidden, h)
        return self.head(h)


def test_a_mask_of_patches_is_tried() -> None:
    mu = automup.parametrize(Masked, base={"d": 16}, inputs=(torch.randn(2, 3, 32, 32),))
    assert mu.plan(d=64).parameter("hidden").role is automup.Role.INPUT
