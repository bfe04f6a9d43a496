"""A method that draws the weights anew, which the constructor does not call."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import automup
from automup.capture.load import load_model, load_text
from automup.convert import convert
from automup.errors import RewriteError
from automup.study import study_source

FILE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)

    def reset_parameters(self):
        {draw}

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))
"""
ALIKE = "self.first.reset_parameters(); self.last.reset_parameters()"
OTHERWISE = "nn.init.normal_(self.last.weight, std=0.02)"
NEEDLESS = "nn.init.normal_(self.first.weight)"


def file_of(folder: Path, draw: str) -> Path:
    path = folder / "net.py"
    path.write_text(FILE.format(draw=draw))
    return path


def module_of(folder: Path, draw: str) -> ModuleType:
    return load_text(FILE.format(draw=draw), str(folder / "net.py"))


def converted(path: Path) -> ModuleType:
    source = load_model(f"{path}:Net")
    study = study_source(source, {"width": 16})
    conversion = convert(source, study)
    assert not any("draws weights anew" in note for note in conversion.notes)
    return load_text(conversion.text, str(path.with_name("mu_net.py")))


def test_a_converted_model_is_in_mup_however_often_it_is_drawn(tmp_path: Path) -> None:
    """The readout's init is n^-1; the layer's own is n^-1/2, so a half is missing."""
    mu = converted(file_of(tmp_path, ALIKE))
    author = module_of(tmp_path, ALIKE)
    for times in (0, 1, 2):
        models: list[nn.Module] = []
        for module in (mu, author):
            torch.manual_seed(0)
            models.append(module.Net(64))
            for _ in range(times):
                models[-1].reset_parameters()  # type: ignore[operator]
        ours, theirs = ({n: p for n, p in m.named_parameters()} for m in models)
        torch.testing.assert_close(ours["last.weight"], theirs["last.weight"] / 2)
        torch.testing.assert_close(ours["first.weight"], theirs["first.weight"])


def test_two_laws_for_one_weight_are_refused(tmp_path: Path) -> None:
    """A std of 0.02 needs n^-1, that of the layer n^-1/2: one file cannot know which is used."""
    with pytest.raises(
        RewriteError, match=r"Net.reset_parameters draws last.weight otherwise"
    ) as e:
        converted(file_of(tmp_path, OTHERWISE))
    assert e.value.fix == "Call self.reset_parameters() at the end of the constructor."


def test_a_live_model_warns_of_what_would_undo_its_init(tmp_path: Path) -> None:
    for draw in (ALIKE, OTHERWISE):
        with pytest.warns(UserWarning, match="Net.reset_parameters draws weights anew"):
            automup.parametrize(module_of(tmp_path, draw).Net, inputs=(torch.ones(2, 6),))


def test_no_warning_where_nothing_is_undone(tmp_path: Path) -> None:
    file = module_of(tmp_path, OTHERWISE)

    def drawn(width: int = 16) -> nn.Module:
        model: nn.Module = file.Net(width)
        model.reset_parameters()  # type: ignore[operator]
        return model

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mu = automup.parametrize(drawn, inputs=(torch.ones(2, 6),))
        automup.parametrize(module_of(tmp_path, NEEDLESS).Net, inputs=(torch.ones(2, 6),))
    assert mu.plan(64).parameter("last.weight").init_mult == 0.25
