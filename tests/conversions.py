"""A model file, what ``convert`` makes of it, and the laws that hold between the two."""

from __future__ import annotations

import ast
import functools
import importlib.util
import io
import math
import shutil
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from automup.api import Mup
from automup.capture.load import ModelSource, load_model, load_text
from automup.constants import Constants
from automup.convert import convert
from automup.converted import without_scales
from automup.errors import AutomupError
from automup.planning import make_plan
from automup.rewrite.attention import in_sight
from automup.study import Study, study_source
from conftest import EXAMPLES, ROOT


def load_module(name: str, path: Path) -> ModuleType:
    """A helper beside the models, whose folder is not on the path: it has a package in it."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FOLDER = Path(tempfile.mkdtemp(prefix="automup-convert-"))
MODELS = Path(__file__).parent / "models"
OPTIMIZERS: list[tuple[Any, dict[str, Any]]] = [
    (torch.optim.AdamW, {"lr": 3e-3, "weight_decay": 0.1}),
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
]


def folder_of_files() -> Iterator[None]:
    """The folder that model files are converted in, with the siblings that they import."""
    before = list(sys.path)
    shutil.copytree(EXAMPLES, FOLDER, dirs_exist_ok=True)
    shutil.copytree(MODELS, FOLDER, dirs_exist_ok=True)
    yield
    sys.path[:] = before
    converted.cache_clear()
    studied.cache_clear()
    shutil.rmtree(FOLDER)


@dataclass(frozen=True)
class File:
    """A model file and the call that converts it; ``late`` draws the weights when it is built."""

    name: str
    base: tuple[tuple[str, int], ...]
    fixed: tuple[tuple[str, Any], ...] = ()
    late: str = ""
    form: str = "default"
    constants: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{k}={v}" for k, v in self.fixed), self.late]).strip()

    @property
    def wide(self) -> dict[str, int]:
        return {name: 4 * value for name, value in self.base}


@dataclass(frozen=True, eq=False)
class Pair:
    """A model file and what convert made of it, each with its study.

    That of the converted file has it do at the base what it does at any other width.
    """

    file: File
    source: ModelSource
    study: Study
    made: ModelSource
    again: Study
    notes: tuple[str, ...]

    def build(self, which: str, knobs: dict[str, int]) -> nn.Module:
        torch.manual_seed(1)
        source = self.source if which == "author" else self.made
        model = source.build({**dict(self.file.fixed), **knobs})
        if self.file.late:
            torch.manual_seed(1)
            getattr(model, self.file.late)()
        return model

    def outputs(self, model: nn.Module) -> list[torch.Tensor]:
        inputs = self.study.models.inputs(model)
        found = tree_leaves(model(*inputs.args, **inputs.kwargs))
        return [x for x in found if isinstance(x, torch.Tensor)]

    def train(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            floats = [x for x in self.outputs(model) if x.is_floating_point()]
            sum(x.square().mean() for x in floats).backward()  # type: ignore[union-attr]
            optimizer.step()


@functools.cache
def studied(
    model: str, base: tuple[tuple[str, int], ...], fixed: tuple[tuple[str, Any], ...]
) -> tuple[ModelSource, Study]:
    """A model file and its study, which all that is made of it share."""
    source = load_model(model)
    return source, study_source(source, dict(base), dict(fixed))


@functools.cache
def converted(file: File) -> Pair:
    name, colon, function = file.name.partition(":")
    path = FOLDER / name
    source, study = studied(f"{path}{colon}{function}", file.base, file.fixed)
    constants = Constants.of(dict(file.constants))
    conversion = convert(source, study, form=file.form, constants=constants)
    out = path.with_name(f"mu_{abs(hash(file))}_{path.name}")
    out.write_text(conversion.text, encoding="utf-8", newline="")
    made = load_model(f"{out}{colon}{function}")
    text = in_sight(conversion.text)
    module = load_text(text, str(out))
    seen = without_scales(replace(made, cls=getattr(module, made.name), module=module, text=text))
    again = study_source(seen, dict(file.base), dict(file.fixed), study.models.inputs)
    return Pair(file, source, study, made, again, conversion.notes)


def refusal(file: File) -> AutomupError:
    with pytest.raises(AutomupError) as caught:
        converted(file)
    return caught.value


def one(name: str, **base: int) -> File:
    return File(name, tuple(base.items()))


def assert_same(a: nn.Module, b: nn.Module, **tolerance: float) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert list(left) == list(right)
    for name, tensor in left.items():
        if tolerance:
            torch.testing.assert_close(right[name], tensor, **tolerance, msg=name)
        else:
            assert torch.equal(right[name], tensor), name


def settings(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, tuple[float, ...]]:
    """Each parameter's lr, decay, eps and lr_mult."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (g["lr"], g["weight_decay"], g.get("eps", 0.0), g["lr_mult"])
        for g in optimizer.param_groups
        for p in g["params"]
    }


def assert_same_settings(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        for a, b in zip(values, theirs[name], strict=True):
            assert math.isclose(a, b, rel_tol=1e-12), (name, values, theirs[name])


def comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [t.string for t in tokens if t.type == tokenize.COMMENT]


# --- the laws, on any file -----------------------------------------------------------------------


def assert_bit_identical_at_base(pair: Pair) -> None:
    base = dict(pair.file.base)
    for optimizer, options in OPTIMIZERS:
        plain, ours = pair.build("author", base), pair.build("convert", base)
        assert_same(plain, ours)
        for a, b in zip(pair.outputs(plain), pair.outputs(ours), strict=True):
            assert torch.equal(a, b)
        pair.train(plain, optimizer(plain.parameters(), **options))
        mup_optimizer = pair.made.module.mup_optimizer
        pair.train(ours, mup_optimizer(ours, optimizer=optimizer, **options))
        assert_same(plain, ours)


def assert_parametrize_agrees(pair: Pair, reference: Pair | None = None) -> None:
    """With parametrize of the author's file, or of another file that holds the same model."""
    reference = reference or pair
    mu = Mup(reference.study, reference.study.models.build, strict=True)
    theirs = mu.apply(reference.build("author", pair.file.wide))
    ours = pair.build("convert", pair.file.wide)
    assert_same(theirs, ours, rtol=1e-6, atol=0.0)
    for a, b in zip(pair.outputs(theirs), pair.outputs(ours), strict=True):
        torch.testing.assert_close(b, a)
    for optimizer, options in OPTIMIZERS:
        made = pair.made.module.mup_optimizer(ours, optimizer=optimizer, **options)
        assert_same_settings(
            settings(made, ours), settings(mu.optimizer(theirs, optimizer, **options), theirs)
        )


def assert_well_written(pair: Pair) -> None:
    before, after = pair.source.text, pair.made.text
    ast.parse(after)
    assert after.endswith("\n")
    left = comments(after)
    for comment in comments(before):
        assert comment in left
        left.remove(comment)
    assert "automup" not in {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(after))
        for name in [getattr(node, "module", None) or "", *(a.name for a in _aliases(node))]
    }
    assert public(pair.source) <= public(pair.made)


def _aliases(node: ast.AST) -> list[ast.alias]:
    return node.names if isinstance(node, ast.Import | ast.ImportFrom) else []


def public(source: ModelSource) -> set[str]:
    return {name for name in vars(source.module) if not name.startswith("_")}


def assert_nothing_left(pair: Pair) -> None:
    """The converted file's own analysis finds it in muP, and converting it changes nothing."""
    assert not pair.again.exponents.spots
    assert not pair.again.exponents.unresolved
    plan = make_plan(pair.again, pair.file.wide)
    assert {p.name: p.init_mult for p in plan.parameters if p.init_mult != 1.0} == {}
    assert convert(pair.made, pair.again).text == pair.made.text


def assert_ruff_passes(pair: Pair) -> None:
    config = str(ROOT / "pyproject.toml")
    # An edit may make a line of the author's too long: wrapping it would be a larger change.
    options = ["--no-cache", "--config", config, "--extend-ignore", "E501", pair.made.file]
    command = [sys.executable, "-m", "ruff", "check", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
