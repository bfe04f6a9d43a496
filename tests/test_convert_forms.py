"""Converted files in every form and with constants: they train as the live model does, to the last
digits, and are the author's at the base."""

from __future__ import annotations

import copy
import functools
import io
import pickle
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

import automup
import cases
from automup.api import Mup
from automup.capture.load import ModelSource, load_model
from automup.constants import Constants
from automup.convert import convert
from automup.errors import RewriteError, UnresolvedError, UsageError
from automup.rules import DECAYS, EMBEDDING_LRS
from automup.study import study_source
from cases import Case
from conversions import (
    FOLDER,
    File,
    Pair,
    assert_nothing_left,
    assert_ruff_passes,
    assert_same,
    assert_same_settings,
    assert_well_written,
    converted,
    folder_of_files,
    one,
)
from conversions import settings as settings_of

folder = pytest.fixture(autouse=True, scope="module")(folder_of_files)

FILES: dict[Case, File] = {
    cases.MLP: one("mlp.py", width=32),
    cases.RESNET: one("resnet.py", width=8),
    cases.GPT: one("gpt.py", n_embd=32),
    cases.LLAMA: one("llama.py", dim=32),
    cases.EINSUM: one("einsum_net.py", d_model=32),
}
FORMS = ("uniform-lr", "uniform-lr-sgd", "table8")


class Lion(torch.optim.SGD):
    """A sign method, for whose updates only the sign of the gradient counts."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                with torch.no_grad():
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.sub_(p.grad.sign(), alpha=group["lr"])


ADAM: dict[str, tuple[Any, dict[str, Any]]] = {
    "adamw": (torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.1, "eps": 1e-4}),
    "adam l2": (torch.optim.Adam, {"lr": 1e-3, "weight_decay": 0.1}),
    "adam flag": (
        torch.optim.Adam, {"lr": 1e-3, "weight_decay": 0.1, "decoupled_weight_decay": True}
    ),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.1}),
    "sign": (Lion, {"lr": 1e-4, "weight_decay": 0.1, "family": "sign"}),
}  # fmt: skip
SGD: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (
        torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    ),
}  # fmt: skip
OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "adadelta": (torch.optim.Adadelta, {"lr": 1.0, "weight_decay": 0.1}),
}
OPTIMIZERS = {
    "uniform-lr": ADAM,
    "uniform-lr-sgd": SGD,
    "table8": ADAM | SGD | OTHERS,
    "default": ADAM | SGD | OTHERS,
}


@functools.cache
def live(file: File) -> Mup:
    study = converted(File(file.name, file.base, file.fixed)).study
    mu = Mup(study, lambda **knobs: study.models.build(knobs), strict=True, form=file.form)
    return mu.with_constants(Constants(**dict(file.constants)))


def losses(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    inputs = {"resnet": cases.IMAGES, "mlp": cases.VECTORS}.get(case.name)
    found = []
    for _ in range(5):
        optimizer.zero_grad()
        logits = case.logits(model) if inputs is None else model(inputs.double())
        targets = case.targets[: len(logits)]
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


def assert_trains_as_the_live_model(
    case: Case, file: File, family: str, width: int, **choices: str
) -> None:
    make, settings = OPTIMIZERS[file.form][family]
    settings = {**settings, **choices}
    pair, mu = converted(file), live(file)
    knobs = {name: width * value for name, value in file.base}
    mu(**knobs)  # traced in the default precision
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        models = []
        for which in ("author", "convert"):
            models.append(pair.build(which, knobs))
        theirs, ours = mu.apply(models[0], **knobs), models[1]
        assert_same(theirs, ours, rtol=1e-12, atol=0.0)
        made = pair.made.module.mup_optimizer(ours, optimizer=make, **settings)
        expected = losses(case, theirs, mu.optimizer(theirs, make, **settings))
        found = losses(case, ours, made)
    finally:
        torch.set_default_dtype(before)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0.0)
    assert expected[0] != expected[-1]
    if file.form in ("uniform-lr", "uniform-lr-sgd"):
        assert {group["lr"] for group in made.param_groups} == {settings["lr"]}
        assert {group["lr_mult"] for group in made.param_groups} == {1.0}


def in_form(case: Case, form: str, **constants: float) -> File:
    file = FILES[case]
    return File(file.name, file.base, file.fixed, form=form, constants=tuple(constants.items()))


@pytest.mark.parametrize(
    ("form", "family"), [(form, family) for form in FORMS for family in OPTIMIZERS[form]]
)
@pytest.mark.parametrize("case", FILES, ids=str)
def test_a_form_trains_as_the_live_model_does(case: Case, form: str, family: str) -> None:
    assert_trains_as_the_live_model(case, in_form(case, form), family, 4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", FILES, ids=str)
def test_in_any_form_the_base_is_the_authors_model(case: Case, form: str) -> None:
    pair = converted(in_form(case, form))
    make, settings = next(iter(OPTIMIZERS[form].values()))
    base = dict(pair.file.base)
    plain, ours = pair.build("author", base), pair.build("convert", base)
    assert_same(plain, ours)
    for a, b in zip(pair.outputs(plain), pair.outputs(ours), strict=True):
        assert torch.equal(a, b)
    pair.train(plain, make(plain.parameters(), **settings))
    pair.train(ours, pair.made.module.mup_optimizer(ours, optimizer=make, **settings))
    assert_same(plain, ours)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", FILES, ids=str)
def test_the_file_is_complete_and_final(case: Case, form: str) -> None:
    pair = converted(in_form(case, form))
    assert_well_written(pair)
    assert_ruff_passes(pair)
    with pytest.raises(UsageError, match="converted before"):
        convert(pair.made, pair.again, form=form, constants=Constants(output_mult=2))
    assert convert(pair.made, pair.again, form=form).text == pair.made.text


@pytest.mark.parametrize("form", FORMS)
def test_the_calculus_finds_it_in_mup_without_the_multipliers_of_the_form(form: str) -> None:
    pair = converted(in_form(cases.GPT, form))
    assert not pair.again.exponents.spots
    assert not pair.again.exponents.unresolved


# --- constants ------------------------------------------------------------------------------------

TUNED = {
    "input_mult": 3.0,
    "output_mult": 0.5,
    "input_lr": 0.5,
    "hidden_lr": 2.0,
    "output_lr": 4.0,
    "input_init": 2.0,
    "hidden_init": 0.5,
    "output_init": 3.0,
}
ATTENTION = {**TUNED, "attention_mult": 2.0}
CONSTANTS = {
    cases.MLP: TUNED,
    cases.RESNET: TUNED,
    cases.GPT: ATTENTION,
    cases.LLAMA: ATTENTION,
    cases.EINSUM: ATTENTION,
}


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize(
    ("form", "family"),
    [("default", "adamw"), ("default", "adam l2"), ("default", "sgd"), ("default", "adadelta")]
    + [("uniform-lr", "adamw"), ("uniform-lr-sgd", "sgd"), ("table8", "rmsprop")],
)
@pytest.mark.parametrize("case", [cases.MLP, cases.RESNET, cases.GPT], ids=str)
def test_constants_train_as_in_the_live_model(
    case: Case, form: str, family: str, width: int
) -> None:
    file = in_form(case, form, **CONSTANTS[case])
    assert_trains_as_the_live_model(case, file, family, width)


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize(
    ("form", "family", "init"),
    [("default", "adamw", 0.0), ("uniform-lr", "adamw", 0.5), ("uniform-lr-sgd", "sgd", 0.5)],
)
@pytest.mark.parametrize("case", [cases.GPT, cases.LLAMA], ids=str)
def test_the_rows_of_queries_are_drawn_as_in_the_live_model(
    case: Case, form: str, family: str, init: float, width: int
) -> None:
    file = in_form(case, form, query_init=init, hidden_init=2.0)
    assert_trains_as_the_live_model(case, file, family, width)


@pytest.mark.parametrize("case", FILES, ids=str)
def test_a_file_with_constants_is_complete_and_final(case: Case) -> None:
    pair = converted(in_form(case, "default", **CONSTANTS[case]))
    assert_well_written(pair)
    assert_ruff_passes(pair)
    assert_nothing_left(pair)


def test_a_zeroed_readout_starts_at_zero_and_gains_of_one_stay() -> None:
    pair = converted(in_form(cases.LLAMA, "default", output_init=0.0, input_init=5.0))
    for width in (32, 128):
        model = pair.build("convert", {"dim": width})
        assert not cases.LLAMA.logits(model).any()
        assert {float(p) for p in model.norm.weight} == {1.0}


TORCHS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])
"""


def test_torchs_own_attention_has_its_constant_also_at_the_base() -> None:
    tuned = Constants(attention_mult=8.0)
    made = convert_text(TORCHS, "torchs.py", constants=tuned)
    source = load_model(str(FOLDER / "torchs.py"))
    mu = automup.parametrize(lambda width=16: source.build({"width": width}), constants=tuned)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    for width in (16, 64):
        found = []
        for build in (mu, lambda w: made.build({"width": w}), mu.with_constants(Constants())):
            torch.manual_seed(0)
            found.append(build(width)(x))
        torch.testing.assert_close(found[1], found[0])
        assert not torch.allclose(found[2], found[0], rtol=1e-3)


FUSED = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.width = width
        self.embed, self.head = nn.Linear(8, width), nn.Linear(width, 5)
        self.qkv = nn.Linear(width, ROWS)

    def parts(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return PARTS

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        q, k, v = (part.transpose(1, 2) for part in self.parts(self.qkv(x)))
        y = F.scaled_dot_product_attention(q, k.expand_as(q), v.expand_as(q))
        return self.head(x + y.transpose(1, 2).flatten(2))
"""
FUSED_ROWS = {
    "larger": ("3 * width", "qkv.unflatten(-1, (2, 3, -1)).unbind(-2)"),
    "more": ("3 * width", "qkv.unflatten(-1, (-1, 3, 8)).unbind(-2)"),
    "one_key": (
        "width + 16",
        "[part.unflatten(-1, (-1, 8)) for part in qkv.split([self.width, 8, 8], -1)]",
    ),
}


@pytest.mark.parametrize("form", ["default", "uniform-lr"])
@pytest.mark.parametrize("kind", FUSED_ROWS)
def test_fused_queries_are_drawn_as_in_the_live_model(kind: str, form: str) -> None:
    (rows, parts), tuned = FUSED_ROWS[kind], Constants(query_init=0.0, hidden_init=2.0)
    text = FUSED.replace("ROWS", rows).replace("PARTS", parts)
    made = convert_text(text, f"fused_{kind}_{form}.py", form=form, constants=tuned)
    source = load_model(str(FOLDER / f"fused_{kind}_{form}.py"))
    mu = automup.parametrize(
        lambda width=16: source.build({"width": width}), form=form, constants=tuned
    )
    for width in (16, 32, 80):
        models = []
        for build in (mu, lambda w: made.build({"width": w})):
            torch.manual_seed(0)
            models.append(build(width))
        assert_same(*models, rtol=1e-6, atol=0.0)
        query, *others = models[1].parts(models[1].qkv(torch.ones(2, 3, width)))
        assert not query.any() and all(part.all() for part in others)


def test_a_tuned_model_can_be_tuned_again_in_its_table() -> None:
    """The numbers stand in one place: a site and a row read them from there."""
    pair = converted(in_form(cases.GPT, "default", **ATTENTION))
    text = pair.made.text
    assert text.count("2.0,") == 3  # attention_mult, hidden_lr, input_init
    assert text.count('MUP_CONSTANTS["attention_mult"]') == 2  # fused and written out
    again = converted(in_form(cases.GPT, "default", **{**ATTENTION, "attention_mult": 8.0}))
    assert again.made.text == text.replace('"attention_mult": 2.0', '"attention_mult": 8.0')


def test_a_constant_without_a_place_is_refused() -> None:
    with pytest.raises(UsageError, match="attention_mult"):
        converted(in_form(cases.MLP, "default", attention_mult=2.0))


# --- where opinions differ ------------------------------------------------------------------------

CHOICES = [
    {"decay": decay, "embedding_lr": rate} for decay in DECAYS for rate in EMBEDDING_LRS
]  # fmt: skip


def settings_or_refusal(
    make: Callable[..., torch.optim.Optimizer], model: nn.Module
) -> dict[str, tuple[float, ...]]:
    try:
        return settings_of(make(), model)
    except (UsageError, ValueError):
        return {}


@pytest.mark.filterwarnings("ignore:.*L2 term")
@pytest.mark.parametrize("tuned", [False, True], ids=["", "tuned"])
@pytest.mark.parametrize("form", ["default", *FORMS])
@pytest.mark.parametrize("case", [cases.MLP, cases.RESNET, cases.GPT], ids=str)
def test_choices_are_those_of_the_live_model(case: Case, form: str, tuned: bool) -> None:
    """Each parameter's settings, for every optimizer and choice; what one refuses both refuse."""
    file = in_form(case, form, **(CONSTANTS[case] if tuned else {}))
    pair, mu, refused = converted(file), live(file), set()
    for width in (1, 2, 4):
        knobs = {name: width * value for name, value in file.base}
        theirs, ours = mu(**knobs), pair.build("convert", knobs)
        for (family, (make, given)), choices in product(OPTIMIZERS[form].items(), CHOICES):
            expected = settings_or_refusal(
                lambda: mu.optimizer(theirs, make, **given, **choices),  # noqa: B023
                theirs,
            )
            found = settings_or_refusal(
                lambda: pair.made.module.mup_optimizer(ours, optimizer=make, **given, **choices),  # noqa: B023
                ours,
            )
            assert_same_settings(found, expected)
            refused |= set() if found else {(family, *choices.values())}
    uniform = form in ("uniform-lr", "uniform-lr-sgd")
    assert refused == {
        (family, decay, rate)
        for family, decay, rate in product(OPTIMIZERS[form], DECAYS, EMBEDDING_LRS)
        if (decay == "sqrt" and family in ("sgd", "adadelta")) or (uniform and rate == "sqrt")
    }


@pytest.mark.parametrize("choices", CHOICES[1:], ids=lambda choices: " ".join(choices.values()))
@pytest.mark.parametrize("case", [cases.MLP, cases.GPT], ids=str)
def test_choices_train_as_in_the_live_model(case: Case, choices: dict[str, str]) -> None:
    file = in_form(case, "default", **CONSTANTS[case])
    assert_trains_as_the_live_model(case, file, "adamw", 4, **choices)
    if choices["decay"] == "coupled":
        file = in_form(case, "table8")
        assert_trains_as_the_live_model(case, file, "sgd", 4, **choices)


@pytest.mark.parametrize(
    ("choices", "text"),
    [
        ({"decay": "none"}, r"decay must be one of \['independent', 'coupled', 'sqrt'\] for adam"),
        ({"decay": "sqrt", "optimizer": torch.optim.SGD}, r"'coupled'\] for sgd, not 'sqrt'"),
        ({"embedding_lr": "cube"}, "embedding_lr must be constant or sqrt, not 'cube'"),
    ],
)
def test_choices_that_there_are_not(choices: dict[str, Any], text: str) -> None:
    pair = converted(in_form(cases.MLP, "default"))
    with pytest.raises(ValueError, match=text):
        pair.made.module.mup_optimizer(pair.build("convert", {"width": 64}), 0.1, **choices)


def test_a_file_whose_data_is_as_wide_as_the_model_has_no_choice_of_its_rate() -> None:
    text = SMALL.replace("nn.Linear(8, width)", "nn.Linear(width, width)")
    text = text.replace("self.body(x)", "self.body(x.mean(-1, keepdim=True) * self.norm.weight)")
    assert "embedding_lr" not in convert_text(text, "no_embedding.py").text


# --- what a user does with the model --------------------------------------------------------------


def mlp_in_form(form: str = "uniform-lr") -> tuple[Pair, nn.Module]:
    pair = converted(in_form(cases.MLP, form))
    return pair, pair.build("convert", {"width": 128})


def test_copies_pickles_and_state_dicts_keep_the_multipliers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair, model = mlp_in_form()
    module = pair.made.module
    monkeypatch.setitem(sys.modules, module.__name__, module)  # its analysis loaded it anew
    expected = model(cases.VECTORS)
    buffer = io.BytesIO()
    pickle.dump(model, buffer)
    buffer.seek(0)
    fresh = pair.build("convert", {"width": 128})
    nn.init.zeros_(fresh.fc_out.weight)
    fresh.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), pickle.load(buffer), fresh):
        assert torch.equal(other(cases.VECTORS), expected)
    plain = pair.build("author", {"width": 128})
    assert list(model.state_dict()) == list(plain.state_dict())
    assert isinstance(model.fc_out, nn.Linear)


def test_a_compiled_model_does_not_take_another_ones_multipliers() -> None:
    """Two models of the same shapes and other bases, as the factors are what differs."""
    _, model = mlp_in_form()
    other = copy.deepcopy(model)
    other.fc_out.mup_input *= 3.0
    for made in (model, other):
        compiled = torch.compile(made, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(cases.VECTORS), made(cases.VECTORS))


def test_the_optimizer_of_another_family_is_refused() -> None:
    pair, model = mlp_in_form()
    with pytest.raises(ValueError, match=r"one lr is for all with .* adam family, not of 'sgd'"):
        pair.made.module.mup_optimizer(model, lr=0.1, optimizer=torch.optim.SGD)


def test_the_authors_adam_says_where_its_decay_goes() -> None:
    text = SMALL + (
        "    def configure_optimizers(self):\n"
        "        return torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=0.1)\n"
    )
    made = convert_text(text, "adam_inside.py", form="uniform-lr")
    assert "weight_decay=0.1, l2=True)" in " ".join(made.text.split())
    model = made.build({"width": 64})
    theirs = made.module.mup_optimizer(model, lr=1e-3, weight_decay=0.1, optimizer=torch.optim.Adam)
    ours = model.configure_optimizers()
    for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert {k: a[k] for k in ("lr", "weight_decay", "eps")} == {
            k: b[k] for k in ("lr", "weight_decay", "eps")
        }


# --- other structures -----------------------------------------------------------------------------

SMALL = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 16, inner: int = 16):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(8, width),
            nn.GELU(),
            nn.Linear(width, inner),
            nn.GELU(),
            nn.Linear(inner, width),
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.body(x)))

"""


def convert_text(text: str, name: str, *knobs: str, **settings: Any) -> ModelSource:
    path = FOLDER / name
    path.write_text(text)
    source = load_model(str(path))
    study = study_source(source, {knob: 16 for knob in knobs or ("width",)})
    out = FOLDER / f"mu_{name}"
    out.write_text(convert(source, study, **settings).text)
    return load_model(str(out))


@pytest.mark.parametrize("target", [(64, 16), (16, 64), (32, 64)])
@pytest.mark.parametrize("form", FORMS)
def test_knobs_that_grow_apart(form: str, target: tuple[int, int]) -> None:
    """A matrix whose fans grow alike where it was traced has a factor elsewhere, for SGD."""
    made = convert_text(SMALL, f"apart_{form}.py", "width", "inner", form=form)
    source = load_model(str(FOLDER / f"apart_{form}.py"))
    knobs = dict(zip(("width", "inner"), target, strict=True))
    base = {"width": 16, "inner": 16}
    default, mu = (
        automup.parametrize(lambda **knobs: source.build(knobs), base=base, form=name)
        for name in ("default", form)
    )
    make, settings = next(iter(OPTIMIZERS[form].values()))
    found = []
    for build, optimize in (
        (lambda: default(**knobs), default.optimizer),
        (lambda: mu(**knobs), mu.optimizer),
        (lambda: made.build(knobs), made.module.mup_optimizer),
    ):
        torch.manual_seed(0)
        model = build().double()
        call = {"optimizer": make} if optimize is made.module.mup_optimizer else {}
        args = () if call else (make,)
        found.append(trained(model, optimize(model, *args, **call, **settings)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=0.0)  # the draw is in float32
    torch.testing.assert_close(found[2], found[1], rtol=1e-5, atol=0.0)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 8, generator=generator, dtype=torch.float64)
    found = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


@pytest.mark.parametrize(
    ("name", "form"), [("init_partial.py", "uniform-lr"), ("init_called.py", "table8")]
)
def test_a_subclass_of_the_model_itself_is_not_taken_for_the_model(name: str, form: str) -> None:
    """Where the model holds a weight of its own, its class is one of those that multiply."""
    file = File(name, (("width", 32),), form=form)
    pair, mu = converted(file), live(file)
    assert pair.made.cls.__name__ == pair.source.cls.__name__
    theirs = mu.apply(pair.build("author", file.wide))
    ours = pair.build("convert", file.wide)
    assert type(ours).__name__ == f"Mup{pair.made.cls.__name__}"
    assert_same(theirs, ours, rtol=1e-6, atol=0.0)
    for a, b in zip(pair.outputs(theirs), pair.outputs(ours), strict=True):
        torch.testing.assert_close(b, a)


def test_a_layer_of_a_deeper_model_is_scaled_too() -> None:
    """The depth is no part of the conversion, so the table stands for any."""
    pair = converted(in_form(cases.MLP, "uniform-lr"))
    deep = pair.made.build({"width": 128, "depth": 7})
    factors = {m.mup_input for m in deep.hidden}
    assert factors == {0.25}


READS = """
import torch
from torch import nn


class Mix(nn.Module):
    def __init__(self, rows: int, columns: int, bias: bool):
        super().__init__()
        self.w = nn.Parameter(torch.empty(rows, columns))
        self.b = nn.Parameter(torch.zeros(columns)) if bias else None
        self.draw()

    def draw(self):
        nn.init.normal_(self.w, std=self.w.shape[0] ** -0.5)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] == self.w.shape[0]
        return x @ self.w

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.product(torch.tanh(x)) if x.dim() > 1 else self.w.t() @ torch.tanh(x)
        return torch.tanh(y if self.b is None else y + self.b)


class Gated(Mix):
    def __init__(self, width: int):
        super().__init__(width, width, False)
        self.table = nn.Parameter(torch.randn(2, width, width) / width**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:
            x = x + self.table.data[0, 0]
        return super().forward(x) * torch.tanh(torch.einsum("bi,io->bo", x, self.table[1]))


class Net(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.one, self.two, self.gated = Mix(8, width, True), Mix(width, width, True), Gated(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gated(self.two(self.one(x))))
"""


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_multiplied_where_methods_read_them(form: str) -> None:
    """In a helper, in a branch that no trace ran, at an index, in an inherited method."""
    made = convert_text(READS, f"reads_{form}.py", form=form)
    source = load_model(str(FOLDER / f"reads_{form}.py"))
    default, mu = (
        automup.parametrize(lambda width=16: source.build({"width": width}), form=name)
        for name in ("default", form)
    )
    make, settings = next(iter(OPTIMIZERS[form].values()))
    plan = mu.plan(48)
    models = [default(48).double(), mu(48).double(), made.build({"width": 48}).double()]
    with torch.no_grad():
        for name, weight in models[0].named_parameters():
            for model in models[1:]:
                model.get_parameter(name).copy_(weight / plan.scale(plan.parameter(name)))
    optimizers = [
        default.optimizer(models[0], make, **settings),
        mu.optimizer(models[1], make, **settings),
        made.module.mup_optimizer(models[2], optimizer=make, **settings),
    ]
    expected, *found = map(trained, models, optimizers)
    for each in found:
        torch.testing.assert_close(each, expected, rtol=1e-9, atol=0.0)
    row = torch.randn(16 * 3, dtype=torch.float64)
    two = [model.two(row) for model in models]
    for each in two[1:]:
        torch.testing.assert_close(each, two[0], rtol=1e-9, atol=1e-12)
    twice = copy.deepcopy(models[2]).two(row)
    assert torch.equal(twice, two[2])


# --- what is refused ------------------------------------------------------------------------------


def test_weights_that_torchs_own_code_reads_are_refused_by_name() -> None:
    with pytest.raises(
        RewriteError, match=r"attention.in_proj_weight: no place .*headAttention is not"
    ):
        convert_text(TORCHS, "torchs_form.py", form="uniform-lr")


@pytest.mark.parametrize(
    "method",
    ["def tied(self, x): return x @ self.w", "def again(self): torch.Tensor.normal_(self.w)"],
    ids=["reads", "draws"],
)
def test_a_method_that_no_trace_ran_may_mean_either_weight(method: str) -> None:
    text = READS.replace("def product", f"{method}\n\n    def product")
    with pytest.raises(RewriteError, match=r"no trace ran Mix\.\w+, which reads it"):
        convert_text(text, f"reads_unrun_{len(method)}.py", form="uniform-lr")


def test_code_that_no_trace_ran_may_not_read_a_stored_weight() -> None:
    text = SMALL + (
        "    def tied(self, x):\n        return F.embedding(x, self.body[2].weight)\n"
        "    def count(self):\n        return self.head.weight.numel()\n"
    )
    convert_text(text, "unrun_default.py")
    with pytest.raises(UnresolvedError, match=r"line \d+: return F.embedding.*in this form"):
        convert_text(text, "unrun_form.py", form="uniform-lr")


def test_the_file_must_have_a_name_for_the_modules() -> None:
    text = SMALL.replace("nn.Linear(width, 5)", "made(width)").replace(
        "class Net", "import outside\n\nmade = outside.head\n\n\nclass Net"
    )
    (FOLDER / "outside.py").write_text(
        "from torch import nn\n\nclass Head(nn.Linear):\n    pass\n\n"
        "def head(width):\n    return Head(width, 5)\n"
    )
    with pytest.raises(RewriteError, match=r"around its Head, a class of outside that the file"):
        convert_text(text, "nameless.py", form="table8")
    named = text.replace("import outside\n", "import outside\nfrom outside import Head\n")
    made = convert_text(named, "named.py", form="table8")
    assert "class MupHead(_MupScaled, Head):" in made.text


def test_a_name_of_the_files_own_is_not_replaced() -> None:
    with pytest.raises(RewriteError, match="MupLinear of its own"):
        convert_text(SMALL + "\n\nMupLinear = None\n", "own_name.py", form="uniform-lr")


COSINE = """
import torch
import torch.nn.functional as F
from torch import nn


class Cosine(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight / self.weight.norm(dim=1, keepdim=True))


class Net(nn.Module):
    def __init__(self, width: int = 16):
        super().__init__()
        self.inner, self.cosine, self.head = nn.Linear(8, width), Cosine(width), nn.Linear(width, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.cosine(torch.relu(self.inner(x)))))
"""


def test_a_weight_that_its_module_normalises_has_any_factor_in_memory_and_none_in_a_file() -> None:
    with pytest.raises(RewriteError, match=r"cosine.weight: its factor changes nothing"):
        convert_text(COSINE, "cosine.py", form="uniform-lr")
    source = load_model(str(FOLDER / "cosine.py"))
    default, formed = (
        automup.parametrize(lambda width=16: source.build({"width": width}), form=form)
        for form in ("default", "uniform-lr")
    )
    plan = formed.plan(64)
    models = [default(64).double(), formed(64).double()]
    with torch.no_grad():
        for (name, weight), stored in zip(
            models[0].named_parameters(), models[1].parameters(), strict=True
        ):
            stored.copy_(weight / plan.scale(plan.parameter(name)))
    found = [
        trained(model, mu.optimizer(model, lr=1e-2, eps=1e-4))
        for mu, model in zip((default, formed), models, strict=True)
    ]
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=0.0)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no form 'table9'.*uniform-lr"):
        convert_text(SMALL, "table9.py", form="table9")
