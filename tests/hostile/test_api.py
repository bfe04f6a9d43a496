"""Wrong calls from Python: each raises an error of automup's that says what, where and what to do."""

# ruff: noqa: E501 (a call and its message are one line each)

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import automup
import automup.optim


class Net(nn.Module):
    def __init__(self, width: int = 16, depth: int = 1) -> None:
        super().__init__()
        self.stem, self.mix = nn.Linear(6, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.mix(torch.relu(self.stem(x)))))


class Other(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, width), nn.Linear(width, 3)


class Data:
    def batches(self, batch_size: int, seed: int) -> Any:
        yield torch.randn(batch_size, 6)

    def loss(self, model: nn.Module, batch: torch.Tensor) -> Any:
        return model(batch).square().mean()


CALLS = {
    "automup.parametrize(3)": "UsageError: parametrize takes a function that builds the model, not 3. Pass the class, or lambda width=256: Model(width).",
    "automup.parametrize(None)": "UsageError: parametrize takes a function that builds the model, not None. Pass the class, or lambda width=256: Model(width).",
    "automup.parametrize(Net())": "UsageError: parametrize takes a function that builds the model, not a model. Pass the class, or lambda width=256: Model(width).",
    "automup.parametrize(lambda: Net())": "KnobError: <lambda> takes no arguments, so no width can scale. Pass a function of the width, such as lambda width=256: Model(width).",
    "automup.parametrize(lambda *a: Net(*a))": "KnobError: No width knob: the model function names no argument, it takes *a. Name it: base={'width': 256}.",
    "automup.parametrize(Net, base={})": "KnobError: No width knob: `base` is empty. Pass base={'width': 256}.",
    "automup.parametrize(Net, base=0)": "UsageError: A width cannot be width=0: it is a positive number. Pass width=256, or so.",
    "automup.parametrize(Net, base=-4)": "UsageError: A width cannot be width=-4: it is a positive number. Pass width=256, or so.",
    'automup.parametrize(Net, base=float("nan"))': "UsageError: A width cannot be width=nan: it is a positive number. Pass width=256, or so.",
    'automup.parametrize(Net, base="16")': "KnobError: A width knob is '16', not a number, so it cannot be scaled. Give it a number: base={'name': 256}, or --base NAME=256.",
    "automup.parametrize(Net, base=[16])": "KnobError: The model cannot be built with width=[16]: TypeError: empty(): argument 'size' (position 1) must be tuple of ints, but found element of type list at pos 0. (test_api.py:[...]) Choose another base, or scale other knobs.",
    'automup.parametrize(Net, base={"wide": 16})': "KnobError: The model cannot be built with wide=16: TypeError: Net.__init__() got an unexpected keyword argument 'wide'. Choose another base, or scale other knobs.",
    'automup.parametrize(Net, base={"width": 0})': "UsageError: A width cannot be width=0: it is a positive number. Pass width=256, or so.",
    'automup.parametrize(Net, base={"width": True})': "KnobError: A width knob is True, not a number, so it cannot be scaled. Give it a number: base={'name': 256}, or --base NAME=256.",
    'automup.parametrize(Net, base={"width": None})': "KnobError: A width knob is None, not a number, so it cannot be scaled. Give it a number: base={'name': 256}, or --base NAME=256.",
    "automup.parametrize(Net, base={3: 4})": "KnobError: The model cannot be built with 3=4: TypeError: keywords must be strings. Choose another base, or scale other knobs.",
    "automup.parametrize(lambda width=16: None)": "KnobError: The model cannot be built with width=16: TypeError: the model function returned NoneType. Choose another base, or scale other knobs.",
    "automup.parametrize(lambda width=16: Net)": "KnobError: The model cannot be built with width=16: TypeError: the model function returned type. Choose another base, or scale other knobs.",
    "automup.parametrize(lambda width=16: 1/0)": "KnobError: The model cannot be built with width=16: ZeroDivisionError: division by zero. Choose another base, or scale other knobs.",
    "automup.parametrize(Net, inputs=3)": "UsageError: inputs is int. Pass a tuple of tensors, a dict of keyword tensors, or a function of the model.",
    'automup.parametrize(Net, inputs="x")': "UsageError: inputs is str. Pass a tuple of tensors, a dict of keyword tensors, or a function of the model.",
    "automup.parametrize(Net, inputs=())": "InputError: Net.forward cannot be called with these inputs: missing a required argument: 'x'. It is forward(x[...].",
    "automup.parametrize(Net, inputs={})": "InputError: Net.forward cannot be called with these inputs: missing a required argument: 'x'. It is forward(x[...].",
    "automup.parametrize(Net, inputs=(torch.zeros(2,5),))": "CaptureError: The model failed while it was traced (eval, width=16): RuntimeError: a and b must have same reduction dim, but got [2, 5] X [6, 16]. (test_api.py:[...]) Pass other example inputs.",
    'automup.parametrize(Net, inputs={"y": torch.zeros(2,6)})': "InputError: Net.forward cannot be called with these inputs: missing a required argument: 'x'. It is forward(x[...].",
    "automup.parametrize(Net, inputs=lambda m: None)": "UsageError: inputs is NoneType. Pass a tuple of tensors, a dict of keyword tensors, or a function of the model.",
    "automup.parametrize(Net, inputs=(torch.zeros(2,6).numpy(),))": "CaptureError: The model failed while it was traced (eval, width=16): TypeError: linear(): argument 'input' (position 1) must be Tensor, not numpy.ndarray. (test_api.py:[...]) Pass other example inputs.",
    'automup.parametrize(Net, inputs=X, overrides="stem.weight=hidden")': 'UsageError: overrides is a str. Pass a dict: {"blocks.*.w": Role.HIDDEN}.',
    'automup.parametrize(Net, inputs=X, overrides={"stem.weight": "big"})': "UsageError: The override for 'stem.weight' is 'big', which is no role. Roles are Role.INPUT, Role.HIDDEN, Role.OUTPUT, Role.SCALAR; or name dimensions: automup.Fans(fan_in=1, fan_out=0).",
    'automup.parametrize(Net, inputs=X, overrides={"stem.weight": "hidden"})': "UsageError: stem.weight is said to be a hidden weight, which has two that grow, but only its dimension 0 grows. Roles that fit: Role.INPUT, Role.OUTPUT.",
    'automup.parametrize(Net, inputs=X, overrides={"nope": automup.Role.HIDDEN})': "UsageError: The override for 'nope' matches no parameter. Parameters are stem.weight, stem.bias, mix.weight, …",
    "automup.parametrize(Net, inputs=X, overrides={3: automup.Role.HIDDEN})": "UsageError: The override for '3' matches no parameter. Parameters are stem.weight, stem.bias, mix.weight, …",
    'automup.parametrize(Net, inputs=X, overrides={"mix.weight": automup.Fans(fan_in=7, fan_out=0)})': "UsageError: mix.weight has 2 dimensions, so there is no dimension 7 in it. Count them from 0 to 1.",
    'automup.parametrize(Net, inputs=X, constants={"output_mult": 2})': "UsageError: constants is a dict. Pass automup.Constants(output_mult=2), or so.",
    "automup.parametrize(Net, inputs=X, constants=None)": "UsageError: constants is a NoneType. Pass automup.Constants(output_mult=2), or so.",
    "automup.Constants(output_mult=-1)": "UsageError: output_mult cannot be -1. Pass a finite number above 0.",
    'automup.Constants(output_mult="2")': "UsageError: output_mult cannot be '2'. Pass a finite number above 0.",
    "automup.Constants(output_mult=torch.tensor(2.))": "UsageError: output_mult cannot be tensor(2.). Pass a finite number above 0.",
    'automup.parametrize(Net, inputs=X, form="nope")': "UsageError: There is no form 'nope'. Known: default, uniform-lr, uniform-lr-sgd, table8.",
    "automup.parametrize(Net, inputs=X, form=None)": "UsageError: There is no form None. Known: default, uniform-lr, uniform-lr-sgd, table8.",
    "mu(0)": "UsageError: A width cannot be width=0: it is a positive number. Pass width=256, or so.",
    "mu(-1)": "UsageError: A width cannot be width=-1: it is a positive number. Pass width=256, or so.",
    'mu("32")': "UsageError: A width cannot be width='32': it is a positive number. Pass width=256, or so.",
    "mu(True)": "UsageError: A width cannot be width=True: it is a positive number. Pass width=256, or so.",
    "mu(None)": "UsageError: A width cannot be width=None: it is a positive number. Pass width=256, or so.",
    "mu(1,2)": "KnobError: 2 widths given for the knobs width.",
    "mu(depth=2)": "KnobError: depth is no width knob; the knobs are width. Fix other arguments in the model function, or name them in `base`.",
    "mu(32, width=32)": "KnobError: width is given twice. Give each width once.",
    'mu(float("inf"))': "UsageError: A width cannot be width=inf: it is a positive number. Pass width=256, or so.",
    "mu(torch.tensor(32))": "UsageError: A width cannot be width=tensor(32): it is a positive number. Pass width=256, or so.",
    'mu.plan("x")': "UsageError: A width cannot be width='x': it is a positive number. Pass width=256, or so.",
    'mu.explain(32, optimizer="nope")': "UsageError: There is no optimizer 'nope'. Known: [...].",
    "mu.explain(32, optimizer=torch.optim.SGD)": "UsageError: There is no optimizer <class 'torch.optim.sgd.SGD'>. Known: [...].",
    "mu.apply(Other(32))": "PlanError: This is not the parametrized model at width=16: stem.weight, of shape (16, 6) there, is missing here. Build it by the same function, and pass the widths that it was built with: mu.apply(model, width=...).",
    "mu.apply(None)": "UsageError: A NoneType is no model. Pass the nn.Module that is trained.",
    "mu.apply(Net)": "UsageError: A type is no model. Pass the nn.Module that is trained.",
    "mu.apply(Net(32), width=64)": "PlanError: This is not the parametrized model at width=64: stem.weight, of shape (64, 6) there, has shape (32, 6) here. Build it by the same function, and pass the widths that it was built with: mu.apply(model, width=...).",
    "mu.apply(Net(32), wide=64)": "KnobError: wide is no width knob; the knobs are width. Fix other arguments in the model function, or name them in `base`.",
    "mu.init_(Other(32))": "PlanError: a.weight has shape (32, 6), and None in the parametrized model. Pass the widths that the model was built with: mu.init_(model, width=...).",
    'mu.init_(mu(32), seed="x")': "UsageError: seed is 'x'. Pass a whole number.",
    'mu.init_(mu(32), leave="stem.*")': 'UsageError: leave is one text. Pass several: leave=["head.*"].',
    'mu.init_(Net(32).to("meta"))': "UsageError: stem.weight is on the meta device. Call model.to_empty(device=...) first.",
    "mu.optimizer(None)": "UsageError: A NoneType is no model. Pass the nn.Module that is trained.",
    "mu.optimizer(Other(32))": "PlanError: The plan for Net has no parameter called 'a.weight'. Make the plan from this model.",
    "mu.optimizer(model.parameters())": "UsageError: A generator is no model. Pass the nn.Module that is trained.",
    "mu.optimizer(model, torch.optim.AdamW(model.parameters()))": "UsageError: A AdamW is no optimizer class. Pass a class, such as torch.optim.AdamW.",
    'mu.optimizer(model, "adamw")': "UsageError: A str is no optimizer class. Pass a class, such as torch.optim.AdamW.",
    'mu.optimizer(model, type("Mine", (torch.optim.Optimizer,), {}))': "UsageError: automup does not know how the updates of Mine scale with width. Pass [...].",
    "mu.optimizer(model, torch.optim.LBFGS)": "UsageError: No muP for LBFGS: it has step sizes of its own, with absolute bounds, that no learning rate scales. Use another optimizer.",
    "mu.optimizer(model, nope=3)": "UsageError: AdamW takes no nope. It takes [...].",
    'mu.optimizer(model, lr="1e-3")': "UsageError: The learning rate is not a number or a tensor. Pass lr=...",
    'mu.optimizer(model, decay="nope")': "UsageError: There is no decay 'nope'. Known: independent, coupled, sqrt.",
    'mu.optimizer(model, embedding_lr="nope")': "UsageError: There is no embedding_lr 'nope'. Known: constant, sqrt.",
    'mu.optimizer(model, family="nope")': "UsageError: There is no family 'nope'. Known: sgd, adam, sign, adadelta, adafactor, muon.",
    'mu.optimizer(model, adjust="none")': "UsageError: adjust is for Muon only. Leave out adjust.",
    'mu.optimizer(model, torch.optim.Muon, lr=.1, rest={"nope": 1})': "UsageError: AdamW takes no nope. It takes [...].",
    'mu.param_groups(model, params="all")': "UsageError: params cannot be a str. Pass an ordered collection, as list(model.parameters()).",
    "mu.param_groups(model, params=[nn.Parameter(torch.zeros(3))])": "UsageError: A Parameter of shape (3,) in params is no parameter of the model. Pass parameters of the very model that is given.",
    'mu.param_groups(model, params=[{"lr": 3}])': "UsageError: params must be parameters, pairs or groups that are not in muP (no 'lr_mult'). Pass what you would pass to the plain optimizer.",
    "automup.optim.param_groups(plan, Other(32))": "PlanError: The plan for Net has no parameter called 'a.weight'. Make the plan from this model.",
    'plan.save(".")': "OutputError: . cannot be written: Is a directory. Nothing was changed; write somewhere else.",
    'plan.save("no/such/plan.json")': "OutputError: no/such/plan.json cannot be written: No such file or directory. Nothing was changed; write somewhere else.",
    'automup.Plan.load("nope.json")': "PlanError: Cannot read the plan: No such file or directory. (nope.json)",
    'plan.parameter("nope")': "PlanError: The plan for Net has no parameter called 'nope'. Make the plan from this model.",
    "mu.check(lr=0)": "UsageError: The learning rate is 0. It is a finite number above 0.",
    "mu.check(widths=(1,))": "UsageError: The widths 1 are no multiples to compare. Pass two or more, as 1,2,4,8.",
    "mu.check(seeds=0, widths=(1,2))": "UsageError: seeds is 0. It is at least 1.",
    "mu.check(steps=-1, widths=(1,2))": "UsageError: steps is -1. It is at least 1.",
    "mu.check(data=3, widths=(1,2), seeds=1)": "TrainingError: The data fails in batches(16, 0): AttributeError: 'int' object has no attribute 'batches'.",
    'mu.check("adamw")': "UsageError: A str is no optimizer class. Pass a class, such as torch.optim.AdamW.",
    "mu.check(widths=(1,1.03), seeds=1)": "KnobError: 16 × 1.03 is not a whole number. Choose another base.",
    "mu.sweep(3)": "TrainingError: The data fails in batches(16, 0): AttributeError: 'int' object has no attribute 'batches'.",
    'mu.sweep("nope")': "UsageError: There is no data 'nope'. Pass text:PATH (a file or a folder), digits, or a Python file with batches and loss.",
    "mu.sweep(D(), lr=[0], widths=[1])": "UsageError: lr cannot be 0. Give at least one number, all from 1e-12 to 1e+12.",
    'mu.sweep(D(), lr="x", widths=[1])': "UsageError: --lr: 'x' is not a number. Write 0.001 or 2^-10.",
    "mu.sweep(D(), lr=0.1, widths=[1])": "UsageError: lr is 0.1. Pass several: lr=(0.1, ...).",
    "mu.sweep(D(), lr=[.1], widths=[])": "UsageError: widths cannot be empty. Give at least one number, all from 1e-12 to 1e+12.",
    "mu.sweep(D(), lr=[.1], widths=2)": "UsageError: widths is 2. Pass several: widths=(2, ...).",
    'mu.sweep(D(), lr=[.1], tune={"foo": "1:2"})': "UsageError: --tune 'foo=1:2': no such constant, or given twice. Write NAME=LOW:HIGH or NAME=A,B,C with one of [...].",
    'mu.sweep(D(), lr=[.1], tune="output_mult=1:2")': 'UsageError: tune is a str. Pass {"output_mult": "0.25:16"}.',
    'mu.sweep(D(), lr=[.1], tune={"output_mult": (1, 2)})': "UsageError: --tune output_mult: '(1' is not a number. Write 0.001 or 2^-10.",
    "mu.sweep(D(), lr=[.1], optimizer=torch.optim.SGD)": "UsageError: There is no optimizer <class 'torch.optim.sgd.SGD'>. Known: [...].",
    'mu.sweep(D(), lr=[.1], options={"lr": 1})': "UsageError: lr is no setting that a sweep can pass. The learning rates are lr.",
    "mu.sweep(D(), lr=[.1], nope=1)": "UsageError: A sweep takes no nope. It takes [...].",
    'mu.sweep(D(), lr=[.1], storage="nodb://x")': "UsageError: nodb://x is no database: Can't load plugin: sqlalchemy.dialects:nodb.",
    'automup.Transfer.load("nope.json")': "PlanError: Cannot read it: No such file or directory. (nope.json)",
    'automup.register_op("nope", automup.op.Elementwise())': "UsageError: There is no operation 'nope'. Import what defines it first.",
    'automup.register_op("mylib::x", "elementwise")': "UsageError: 'elementwise' is no rule for an operation. Pass one of automup.op, such as register_op(\"mylib::scan\", automup.op.Elementwise()).",
    "automup.register_op(3, automup.op.Elementwise())": 'UsageError: 3 is no operation. Pass its name, "namespace::name".',
    'automup.register_op("aten::relu", automup.op.Elementwise())': "UsageError: aten::relu has a rule already: one of automup itself. Pass replace=True to put another in its place, everywhere.",
    'mu.with_constants({"output_mult": 2})': "UsageError: constants is a dict. Pass automup.Constants(output_mult=2), or so.",
    "mu.with_constants(automup.Constants(attention_mult=2))": "UsageError: attention_mult: the model has no multiplier in μP (its logits do not grow with width), so there is no place for a constant. Leave attention_mult at 1, or write the multiplier into the model.",
    "automup.Fans(fan_in=1, fan_out=1)": "UsageError: Dimension 1 is in fan_in and in fan_out. A dimension is either summed over or written.",
    'automup.Fans(fan_in="x")': "UsageError: fan_in='x' names no dimensions. Write Fans(fan_in=1, fan_out=0), or Fans(fan_in=(1, 2), fan_out=0).",
    'mu.at_base({"wide": 3})': "KnobError: The model cannot be built with wide=3: TypeError: Net.__init__() got an unexpected keyword argument 'wide'. Choose another base, or scale other knobs.",
}
"""Code, and the error that it raises, with [...] for what depends on the versions."""


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    inputs = (torch.zeros(2, 6),)
    mu = automup.parametrize(Net, inputs=inputs)
    return {
        "automup": automup, "torch": torch, "nn": nn, "Net": Net, "Other": Other, "D": Data,
        "X": inputs, "mu": mu, "model": mu(32), "plan": mu.plan(32),
    }  # fmt: skip


@pytest.mark.parametrize("code", CALLS)
def test_a_wrong_call_says_what_is_wrong(
    code: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(automup.AutomupError) as raised:
        eval(code, dict(names))
    text = f"{type(raised.value).__name__}: {raised.value}"
    pattern = re.escape(CALLS[code]).replace(re.escape("[...]"), ".*")
    assert re.fullmatch(pattern, text, re.DOTALL), text
    assert not list(tmp_path.iterdir())


def test_a_pattern_that_leaves_nothing_alone(names: dict[str, Any]) -> None:
    mu = names["mu"]
    with pytest.raises(automup.AutomupError, match=r"leave: 'stm.\*' matches no tensor"):
        mu.init_(mu(32), leave=["stm.*"])


def test_an_output_folder_that_is_a_file(names: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(automup.AutomupError, match="The folder cannot be made: File exists"):
        names["mu"].sweep(Data(), lr=[0.1], out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
