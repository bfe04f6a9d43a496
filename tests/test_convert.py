"""The laws of ``convert``: the file it writes is the author's at the base, and in muP above it."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import automup
import cases
from automup.api import Mup
from automup.capture.flex import opened_flex_attention
from automup.capture.load import load_model
from automup.convert import convert
from automup.errors import RewriteError, UnresolvedError
from automup.planning import make_plan
from automup.study import study_source
from cases import Case
from conftest import EXAMPLES, ROOT
from conversions import (
    FOLDER,
    MODELS,
    OPTIMIZERS,
    File,
    assert_bit_identical_at_base,
    assert_nothing_left,
    assert_parametrize_agrees,
    assert_ruff_passes,
    assert_same,
    assert_same_settings,
    assert_well_written,
    converted,
    folder_of_files,
    load_module,
    one,
    refusal,
    settings,
)

attention_forms = load_module("attention_forms", MODELS / "attention_forms.py")
folder = pytest.fixture(autouse=True, scope="module")(folder_of_files)

# --- the examples --------------------------------------------------------------------------------

EXAMPLE_FILES: dict[Case, File] = {
    cases.MLP: one("mlp.py", width=32),
    cases.RESNET: one("resnet.py", width=8),
    cases.GPT: one("gpt.py", n_embd=32),
    cases.WRITTEN_OUT: File("gpt.py", (("n_embd", 32),), (("flash", False),)),
    cases.MANUAL: one("gpt_manual.py", n_embd=32),
    cases.LLAMA: one("llama.py", dim=32),
    cases.HEADS: File(
        "llama.py", (("dim", 32), ("n_heads", 4), ("n_kv_heads", 2)), (("head_dim", 8),)
    ),
    cases.EINSUM: one("einsum_net.py", d_model=32),
}
EXAMPLE = pytest.mark.parametrize("case", EXAMPLE_FILES, ids=str)


@EXAMPLE
def test_at_base_everything_is_bit_identical(case: Case) -> None:
    pair = converted(EXAMPLE_FILES[case])
    for optimizer, options in OPTIMIZERS:
        torch.manual_seed(1)
        plain = case.build(case.base)
        ours = pair.build("convert", dict(pair.file.base))
        assert_same(plain, ours)
        assert torch.equal(case.logits(plain), case.logits(ours))
        cases.train(case, plain, optimizer(plain.parameters(), **options), 3)
        mup_optimizer = pair.made.module.mup_optimizer
        cases.train(case, ours, mup_optimizer(ours, optimizer=optimizer, **options), 3)
        assert_same(plain, ours)


@EXAMPLE
def test_at_four_times_the_base_it_is_what_parametrize_makes(case: Case) -> None:
    pair = converted(EXAMPLE_FILES[case])
    mu = automup.parametrize(case.build, base={"width": case.base}, inputs=case.inputs)
    torch.manual_seed(1)
    theirs, ours = mu(4 * case.base), pair.build("convert", pair.file.wide)
    assert_same(theirs, ours, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(case.logits(ours), case.logits(theirs))
    for optimizer, options in OPTIMIZERS:
        made = pair.made.module.mup_optimizer(ours, optimizer=optimizer, **options)
        assert_same_settings(
            settings(made, ours), settings(mu.optimizer(theirs, optimizer, **options), theirs)
        )


@EXAMPLE
def test_the_output_is_complete_and_final(case: Case) -> None:
    pair = converted(EXAMPLE_FILES[case])
    assert_well_written(pair)
    assert_nothing_left(pair)
    assert_ruff_passes(pair)


@pytest.mark.parametrize("case", [cases.GPT, cases.LLAMA], ids=str)
def test_a_converted_file_moves_at_any_width_alike(case: Case) -> None:
    pair = converted(EXAMPLE_FILES[case])
    widths = [case.base * k for k in (1, 2, 4, 8)]
    (knob,) = dict(pair.file.base)
    moved = [
        cases.movement(
            case,
            lambda w=w: pair.again.models.build({knob: w}),
            lambda m: pair.made.module.mup_optimizer(m, lr=2e-3, optimizer=torch.optim.Adam),
        )
        for w in widths
    ]
    assert -0.3 < cases.slope(widths, moved) < 0.2


def test_configure_optimizers_makes_mup_groups_and_keeps_the_split() -> None:
    pair = converted(EXAMPLE_FILES[cases.GPT])
    for knobs in (dict(pair.file.base), pair.file.wide):
        model = pair.build("convert", knobs)
        arguments = {"learning_rate": 3e-3, "betas": (0.9, 0.95), "device_type": "cpu"}
        optimizer = model.configure_optimizers(weight_decay=0.1, **arguments)
        assert type(optimizer) is torch.optim.AdamW
        assert all(g["betas"] == (0.9, 0.95) for g in optimizer.param_groups)
        width = knobs["n_embd"] / dict(pair.file.base)["n_embd"]
        found = settings(optimizer, model)
        assert found.keys() == dict(model.named_parameters()).keys()
        for name, parameter in model.named_parameters():
            lr, decay, eps, mult = found[name]
            hidden = parameter.dim() == 2 and "wte" not in name and "wpe" not in name
            assert mult == (1 / width if hidden else 1)
            assert lr == 3e-3 * mult
            assert math.isclose(decay * mult, 0.1 if parameter.dim() >= 2 else 0.0)
            assert math.isclose(eps, 1e-8 / width)


# --- branches ------------------------------------------------------------------------------------

NANOGPT = one("nanogpt.py", n_embd=32)


@pytest.mark.parametrize(
    "file", [EXAMPLE_FILES[cases.GPT], EXAMPLE_FILES[cases.WRITTEN_OUT], NANOGPT], ids=str
)
def test_every_branch_gives_the_same_mup_logits(file: File) -> None:
    """Also where the buffer of one branch is made by the constructor of that branch alone."""
    pair = converted(file)
    model = pair.build("convert", file.wide)
    tokens, targets = cases.TOKENS, cases.TARGETS
    ones = torch.ones(64, 64).tril().view(1, 1, 64, 64)
    theirs = Mup(pair.study, pair.study.models.build, strict=True).apply(
        pair.build("author", file.wide)
    )
    with torch.no_grad():
        logits = theirs(tokens, targets)[0]
        for flash in (True, False):
            for module in model.modules():
                if hasattr(module, "flash"):
                    module.flash = flash
                    module.bias = ones
            for training in (True, False):
                model.train(training)
                torch.testing.assert_close(model(tokens, targets)[0], logits)
                torch.testing.assert_close(model(tokens)[0], logits[:, [-1]])


def test_the_constructor_of_the_other_branch_makes_a_mup_model_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = converted(NANOGPT)
    fused = pair.build("convert", NANOGPT.wide)
    monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")
    written_out = pair.build("convert", NANOGPT.wide)
    monkeypatch.undo()
    assert not written_out.transformer.h[0].attn.flash
    a, b = (m(cases.TOKENS, cases.TARGETS)[0] for m in (fused, written_out))
    torch.testing.assert_close(a, b)


# --- files of every kind -------------------------------------------------------------------------

FILES = [
    one("sibling.py", dim=32),
    one("package/model.py", dim=32),
    one("several.py", width=32),
    one("gemma.py", hidden_size=32),
    NANOGPT,
    one("init_called.py", width=32),
    File("init_called.py", (("width", 32),), late="init_weights"),
    File("init_later.py", (("width", 32),), late="init_weights"),
    one("init_optional.py", width=32),
    File("init_optional.py", (("width", 32),), late="reset_parameters"),
    File("init_optional.py", (("width", 32),), (("draw", False),), "reset_parameters"),
    one("init_inherited.py", width=32),
    File("init_inherited.py", (("width", 32),), late="init_weights"),
    one("init_partial.py", width=32),
    File("init_partial.py", (("width", 32),), late="init_weights"),
    one("wrapped_layers.py", width=32),
    one("other_self.py", width=32),
    one("inherited.py", width=32),
    one("factory.py:build_model", width=32),
    one("factory.py:drawn_model", width=32),
    one("patches.py", width=32),
]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_files_of_every_kind(file: File) -> None:
    pair = converted(file)
    assert_well_written(pair)
    assert_bit_identical_at_base(pair)
    assert_nothing_left(pair)
    assert_parametrize_agrees(pair)


@pytest.mark.parametrize(
    "body, text",
    [
        ("return nn.Sequential(Wide(width, width))", "Build the model in"),
        ("class Own(Wide): pass\n    return Own(width, width)", "Build the model in"),
        ("from several import Decoder\n    return Decoder(5, width, 16)", "several.py:Decoder"),
        (
            "model = Wide(width, width)\n    nn.init.normal_(model.up)\n    return model.eval()",
            "draw in the constructor of the class",
        ),
    ],
    ids=["Sequential", "local", "elsewhere", "draws"],
)
def test_a_function_whose_model_has_no_class_to_edit(body: str, text: str) -> None:
    before, _, _ = (FOLDER / "factory.py").read_text().partition("    return Wide(dim")
    file = one(f"factory_{abs(hash(body))}.py:build_model", width=32)
    (FOLDER / file.name.partition(":")[0]).write_text(f"{before}    {body}\n")
    assert text in str(refusal(file))


@pytest.mark.parametrize("given", [False, True])
def test_flex_attention_is_given_its_scale(given: bool) -> None:
    """Trained as the plain operations that it means: torch has no backward of it on the CPU."""
    file = File("flex.py", (("width", 32),), (("given", given),))
    pair = converted(file)
    with opened_flex_attention():
        assert_bit_identical_at_base(pair)
        assert_nothing_left(pair)
        assert_parametrize_agrees(pair)
    assert "scale=(1.0 / math.sqrt(q.size(-1))) * (16 / q.size(-1)) ** 0.5" in pair.made.text
    assert "scale=0.5 * q.size(-1) ** -0.5 * (16 / q.size(-1)) ** 0.5" in pair.made.text
    model, theirs = (pair.build(which, dict(file.base)) for which in ("convert", "author"))
    with torch.no_grad():
        assert torch.equal(model(cases.TOKENS % 64), theirs(cases.TOKENS % 64))


@pytest.mark.parametrize(
    "name, knob, ending, indent, mark",
    [
        ("gemma", "hidden_size", "\r\n", "    ", ""),
        ("gemma", "hidden_size", "\n", "\t", ""),
        ("nanogpt", "n_embd", "\r\n", "\t", ""),
        ("nanogpt", "n_embd", "\n", "    ", "\ufeff"),
    ],
    ids=["CRLF", "tabs", "CRLF and tabs", "byte order mark"],
)
def test_line_endings_indentation_and_byte_order_marks_are_kept(
    name: str, knob: str, ending: str, indent: str, mark: str
) -> None:
    text = mark + (FOLDER / f"{name}.py").read_text(encoding="utf-8").replace("    ", indent)
    file = one(f"{name}_{len(indent)}_{len(ending)}_{len(mark)}.py", **{knob: 32})
    (FOLDER / file.name).write_bytes(text.replace("\n", ending).encode())
    made = Path(converted(file).made.file).read_bytes().decode()
    assert made.startswith("\ufeff") == bool(mark)
    assert made.count(ending) == made.count("\n")
    plain = converted(one(f"{name}.py", **{knob: 32})).made.text
    assert made.removeprefix("\ufeff").replace(ending, "\n").replace(indent, "    ") == plain


# --- ways to write an attention ------------------------------------------------------------------


@pytest.mark.parametrize("form", attention_forms.FORMS)
def test_every_way_to_write_an_attention(form: str) -> None:
    file = one(f"form_{attention_forms.slug(form)}.py", dim=32)
    (FOLDER / file.name).write_text(attention_forms.text(form), encoding="utf-8")
    pair = converted(file)
    assert pair.notes == ()
    assert len(pair.study.exponents.spots) == (form not in attention_forms.NEUTRAL)
    assert_well_written(pair)
    assert_bit_identical_at_base(pair)
    assert_nothing_left(pair)
    if form not in attention_forms.STANDARD:
        assert_parametrize_agrees(pair)
        return
    reference = one("form_reference.py", dim=32)  # all these are one model, whatever its code
    (FOLDER / reference.name).write_text(attention_forms.text("times the attribute"))
    assert_parametrize_agrees(pair, converted(reference))


@pytest.mark.parametrize("form", attention_forms.REFUSED)
def test_an_attention_that_the_file_does_not_hold_is_refused_by_name(form: str) -> None:
    file = one(f"form_{attention_forms.slug(form)}.py", dim=32)
    (FOLDER / file.name).write_text(attention_forms.text(form), encoding="utf-8")
    error = refusal(file)
    assert isinstance(error, RewriteError | UnresolvedError)
    assert "report this as a bug" not in str(error)
    assert file.name in str(error)


# --- init that runs later ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, method",
    [
        ("init_called", "init_weights"),
        ("init_inherited", "init_weights"),
        ("init_optional", "reset_parameters"),
    ],
)
def test_the_init_is_rescaled_once_however_often_it_is_drawn(name: str, method: str) -> None:
    pair = converted(one(f"{name}.py", width=32))
    model = pair.build("convert", pair.file.wide)
    first = {k: v.clone() for k, v in model.state_dict().items()}
    for _ in range(2):
        torch.manual_seed(1)
        getattr(model, method)()
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, first[key]), key
    # std 0.1 at the base; by the table the hidden weight is halved, the readout quartered
    for key, std in {"stem": 0.1, "hidden": 0.05, "head": 0.025}.items():
        assert abs(float(first[key].std()) / std - 1) < 0.1


def test_a_method_that_draws_some_weights_rescales_those() -> None:
    pair = converted(one("init_partial.py", width=32))
    model = pair.build("convert", pair.file.wide)
    first = {k: v.clone() for k, v in model.state_dict().items()}
    for _ in range(2):
        torch.manual_seed(1)
        model.init_weights()
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, first[key]), key
    plain = pair.build("author", pair.file.wide).state_dict()
    # by the table the readout is quartered; torch's biases, which shrink with width, grow by 2
    for key, factor in {"stem": 1.0, "head": 0.25, "layers.1.weight": 1.0}.items():
        torch.testing.assert_close(first[key], factor * plain[key])
    torch.testing.assert_close(first["layers.1.bias"], 2.0 * plain["layers.1.bias"])


@pytest.mark.parametrize("name", ["init_called", "init_later", "init_inherited"])
def test_a_model_built_on_meta_is_initialised_in_mup(name: str) -> None:
    pair = converted(File(f"{name}.py", (("width", 32),), late="init_weights"))
    with torch.device("meta"):
        model = pair.again.models.build(pair.file.wide)
    model = model.to_empty(device="cpu")
    torch.manual_seed(1)
    model.init_weights()
    assert_same(pair.build("convert", pair.file.wide), model)


# --- the command itself --------------------------------------------------------------------------


def test_the_command_writes_what_convert_returns(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "gpt.py", tmp_path / "gpt.py")
    before = (tmp_path / "gpt.py").read_bytes()
    main = "import automup.cli; automup.cli.main()"
    arguments = ["convert", "gpt.py", "--out", "mu_gpt.py", "--base", "n_embd=32"]
    done = subprocess.run(
        [sys.executable, "-c", main, *arguments, "--width", "n_embd"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "autumup")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (tmp_path / "mu_gpt.py").read_text() == converted(EXAMPLE_FILES[cases.GPT]).made.text
    assert (tmp_path / "gpt.py").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gpt.py", "mu_gpt.py"]


def test_a_converted_file_runs_where_automup_is_not_installed(tmp_path: Path) -> None:
    pair = converted(EXAMPLE_FILES[cases.MLP])
    shutil.copy(pair.made.file, tmp_path / "mu_mlp.py")
    code = (
        "import sys; sys.modules['automup'] = None; import mu_mlp, torch; m = mu_mlp.MLP(width=64)"
    )
    code += "; mu_mlp.mup_optimizer(m, lr=1e-3); m(torch.ones(2, 64))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_converting_leaves_the_study_as_it_was() -> None:
    """The check loads the new text under the author's name: nothing of it may stay behind."""
    path = FOLDER / "study_stays.py"
    shutil.copy(FOLDER / "gemma.py", path)
    source = load_model(str(path))
    study = study_source(source, {"hidden_size": 32})
    before = make_plan(study, {"hidden_size": 128})
    convert(source, study)
    assert make_plan(study, {"hidden_size": 128}) == before
    again = study_source(source, {"hidden_size": 32})
    assert make_plan(again, {"hidden_size": 128}) == before
    assert sys.modules[source.module.__name__] is source.module
    assert importlib.import_module(source.module.__name__) is source.module
