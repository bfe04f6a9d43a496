"""The command line: every wrong call is one paragraph and a status; what is printed is exact."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from automup import __version__
from conftest import EXAMPLES, ROOT, Result, Run, contents

HEAD = "import torch\nimport torch.nn as nn\n\n\n"


def net(hidden: str = "", init: str = "", name: str = "Net", stem: str = "self.stem(x)") -> str:
    """A model file; ``hidden`` are lines that change ``h``, ``init`` lines of the constructor."""
    return f"""
class {name}(nn.Module):
    def __init__(self, width: int = 16, features: int = 6):
        super().__init__()
        self.stem = nn.Linear(features, width)
        self.head = nn.Linear(width, 3)
{textwrap.indent(textwrap.dedent(init), " " * 8)}
    def forward(self, x):
        h = torch.relu({stem})
{textwrap.indent(textwrap.dedent(hidden), " " * 8)}
        return self.head(h)
"""


NET = HEAD + net()


# --- errors --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """A wrong call: its files, its arguments, its status, and what the message must say.

    ``said``: what is wrong and where; ``fix``: what to do.
    """

    name: str
    arguments: str
    status: int
    said: tuple[str, ...]
    fix: str = ""
    files: dict[str, str | bytes] = field(default_factory=lambda: {"net.py": NET})

    def __str__(self) -> str:
        return self.name


CONVERT = "convert net.py --out mu_net.py"
ONE = f"{CONVERT} --width width"


def model(hidden: str = "", init: str = "", **kwargs: str) -> dict[str, str | bytes]:
    return {"net.py": HEAD + net(hidden, init, **kwargs)}


WRONG_CALLS = [
    Wrong(
        "no such file", "convert no.py --out mu.py", 2, ("no.py: no such file",), "Pass a Python"
    ),
    Wrong("a folder", "convert . --out mu.py", 2, (". is a folder",), "model.py:ClassName"),
    Wrong(
        "not Python", "convert a.txt --out mu.py", 2, ("a.txt",), "Pass a Python", {"a.txt": "x"}
    ),
    Wrong(
        "a plan to convert",
        "convert plan.json --out mu.py",
        2,
        ("plan.json is not a Python file",),
        "Pass a Python",
        {"plan.json": "[]"},
    ),
    Wrong("not UTF-8", CONVERT, 2, ("net.py:1", "UTF-8"), "Save it", {"net.py": b"# \xff\n"}),
    Wrong("syntax error", CONVERT, 2, ("syntax error", "net.py:2"), "", {"net.py": "\ndef f(:\n"}),
    Wrong(
        "missing import",
        CONVERT,
        2,
        ("ModuleNotFoundError: No module named 'nowhere'", "net.py:2"),
        "Install nowhere",
        {"net.py": "import torch\nimport nowhere\n"},
    ),
    Wrong(
        "failing import",
        CONVERT,
        2,
        ("ZeroDivisionError", "net.py:1"),
        "",
        {"net.py": "1 / 0\n"},
    ),
    Wrong(
        "exit at import",
        CONVERT,
        2,
        ("exits when it is imported", "net.py:2"),
        '__name__ == "__main__"',
        {"net.py": "import sys\nsys.exit(3)\n"},
    ),
    Wrong(
        "no model", CONVERT, 2, ("net.py", "no nn.Module"), "Pass the file", {"net.py": "x = 1\n"}
    ),
    Wrong(
        "several models",
        CONVERT,
        2,
        ("2 classes could be the model", "Net (line 6)", "Other (line "),
        "net.py:Other",
        {"net.py": NET + net(name="Other")},
    ),
    Wrong(
        "unknown class", "convert net.py:Nett --out mu.py", 2, ("no 'Nett'",), "Did you mean 'Net'"
    ),
    Wrong(
        "unknown constant",
        "explain net.py --constant readout=4",
        2,
        ("No constant 'readout'",),
        "output_mult",
    ),
    Wrong(
        "a constant without a place",
        "explain net.py --constant attention_mult=4",
        2,
        ("attention_mult: the model has no multiplier",),
        "Leave attention_mult at 1",
    ),
    Wrong("no output", "convert net.py", 2, ("Nowhere to write",), "--out FILE"),
    Wrong(
        "the output exists",
        CONVERT,
        2,
        ("exists", "mu_net.py"),
        "--force",
        {"net.py": NET, "mu_net.py": "mine"},
    ),
    Wrong(
        "the output is the input",
        "convert net.py --out ./net.py --force",
        2,
        ("is the input",),
        "--out",
    ),
    Wrong(
        "no output folder", "convert net.py --out no/mu.py", 2, ("no such folder", "no"), "Make it"
    ),
    Wrong(
        "the output is a folder",
        "convert net.py --out . --force",
        2,
        ("is a folder",),
        "Name a file",
    ),
    Wrong(
        "--save has no folder", "explain net.py --save no/p.json", 2, ("no such folder",), "Make it"
    ),
    Wrong("--save is the model", "explain net.py --save net.py", 2, ("net.py", "no plan"), ".json"),
    Wrong(
        "bad --format", "explain net.py --format xml", 2, ("'xml'",), "table, json, markdown, html"
    ),
    Wrong(
        "bad --optimizer", "explain net.py --optimizer adamx", 2, ("'adamx'",), "adamw, adam, sgd"
    ),
    Wrong(
        "bad --base", f"{CONVERT} --base width:3", 2, ("'width:3' is not NAME=VALUE",), "n_embd=256"
    ),
    Wrong("unknown --base", f"{CONVERT} --base widht=9", 2, ("no field 'widht'",), "mean 'width'"),
    Wrong("unknown --width", f"{CONVERT} --width widht", 2, ("no field 'widht'",), "mean 'width'"),
    Wrong(
        "unknown --target",
        "explain net.py --width width --target features=9",
        2,
        ("features is not a width knob",),
        "--width",
    ),
    Wrong("no width", f"{CONVERT} --width width --base width=0", 2, ("width=0",), "width=256"),
    Wrong("bad --input", f"{CONVERT} --input x:wat[2", 2, ("'x:wat[2' is not",), "Write '"),
    Wrong("unknown option", f"{CONVERT} --wat", 2, ("No such option: --wat",), "convert --help"),
    Wrong("unknown command", "konvert net.py", 2, ("'konvert'", "mean 'convert'"), "--help"),
    Wrong("no argument", "convert", 2, ("MODEL",), "convert --help"),
    Wrong("no such plan", "explain plan.json", 1, ("plan.json", "No such file"), ""),
    Wrong(
        "truncated plan",
        "explain plan.json",
        1,
        ("Not a plan", "plan.json"),
        "explain MODEL --save",
        {"plan.json": '{"automup_plan": 1, "mo'},
    ),
    Wrong(
        "a plan of another version",
        "explain plan.json",
        1,
        ("Not a plan of schema", "plan.json"),
        "explain MODEL --save",
        {"plan.json": '{"automup_plan": 99}'},
    ),
]

NO_MODEL = [
    Wrong(
        "no width knob",
        CONVERT,
        1,
        ("No width knob found in Net", "net.py"),
        "--width NAME --base NAME=VALUE",
        {
            "net.py": NET.replace("width: int = 16, features: int = 6", "name: str = 'a'")
            .replace("features, width", "6, 16")
            .replace("width, 3", "16, 3")
        },
    ),
    Wrong(
        "a knob that breaks divisibility",
        ONE,
        1,
        ("Net(width=32) cannot be built: AssertionError: 48 heads", "net.py:11"),
        "--base NAME=VALUE",
        model(init="assert 48 % width == 0, '48 heads'"),
    ),
    Wrong(
        "the only knob breaks divisibility",
        CONVERT,
        1,
        ("No width knob found", "width (fails when doubled", "48 heads"),
        "--width NAME",
        model(init="assert 48 % width == 0, '48 heads'"),
    ),
    Wrong(
        "no input fits",
        ONE,
        1,
        ("No example input makes Net.forward(x) run", "no attribute 'nodes'", "net.py:13"),
        "--input",
        model(stem="self.stem(x.nodes['a'])"),
    ),
    Wrong(
        "the given input does not fit",
        f"{ONE} --input x:float32[2,7]",
        1,
        ("RuntimeError", "net.py:13"),
        "inputs",
    ),
    Wrong(
        "forward fails",
        ONE,
        1,
        ("no good", "net.py:14"),
        "--input",
        model("raise ValueError('no good')"),
    ),
    Wrong(
        "as many steps as width",
        ONE,
        1,
        ("different things at two widths", "net.py:1"),
        "must not depend on the width",
        model("for _ in range(h.size(-1) // 16):\n    h = torch.tanh(h)"),
    ),
    Wrong(
        "another branch at another width",
        ONE,
        1,
        ("different things at two widths", "net.py:14"),
        "must not depend on the width",
        model("h = torch.tanh(h) if h.size(-1) > 40 else torch.sigmoid(h)"),
    ),
    Wrong(
        "as many layers as width",
        ONE,
        1,
        ("other parameters at another width", "more.1."),
        "",
        model(
            "for layer in self.more:\n    h = layer(h)",
            "self.more = nn.ModuleList(nn.Linear(width, width) for _ in range(width // 16))",
        ),
    ),
    *(
        Wrong(f"unresolved: {op}", ONE, 1, (op, "net.py:14"), fix, model(f"h = {code}"))
        for op, code, fix in (
            ("cumsum", "h.cumsum(-1)", "Write it with"),
            ("cumprod", "h.cumprod(-1)", "Write it with"),
            ("fft", "torch.fft.fft(h).real", "Write it with"),
            ("prod", "h * h.prod(-1, keepdim=True)", 'register_op("aten::prod", automup.op.'),
            ("solve", "torch.linalg.solve(h.mT @ h, h.mT).mT", 'register_op("aten::_linalg_solve'),
        )
    ),
    Wrong(
        "exit when built",
        ONE,
        1,
        ("sys.exit(4)", "net.py:11"),
        "Raise",
        model(init="raise SystemExit(4)"),
    ),
    Wrong(
        "exit when run", ONE, 1, ("sys.exit(4)", "net.py:14"), "Raise", model("raise SystemExit(4)")
    ),
    Wrong(
        "a name that the file needs",
        ONE,
        1,
        ("mup_optimizer of its own", "net.py"),
        "Rename it",
        {"net.py": NET + "\n\ndef mup_optimizer():\n    pass\n"},
    ),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrong", [*WRONG_CALLS, *NO_MODEL], ids=str)
def test_an_error_is_one_paragraph_and_leaves_nothing(
    wrong: Wrong, run: Run, tmp_path: Path
) -> None:
    for name, text in wrong.files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    before = contents(tmp_path)
    result = run(*wrong.arguments.split())
    assert (result.status, result.out) == (wrong.status, ""), result
    paragraph = result.err.removesuffix("\n")
    assert paragraph.startswith("automup: ") and "\n" not in paragraph
    assert "Traceback" not in paragraph
    for part in (*wrong.said, wrong.fix):
        assert part in paragraph
    assert contents(tmp_path) == before


def test_an_interrupt_is_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(spec: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("automup.capture.load.load_model", interrupted)
    result = run("explain", "net.py")
    assert (result.status, result.out) == (130, "") and "Traceback" not in result.err


def test_explain_lists_what_is_unresolved_and_says_so_by_its_status(run: Run) -> None:
    Path("net.py").write_text(HEAD + net("h = h.cumsum(-1)"))
    result = run("explain", "net.py", "--format", "json")
    assert result.status == 1
    (item,) = json.loads(result.out)["unresolved"]
    assert item["source"].startswith("net.py:14:") and "cumsum" in item["op"]
    assert run("explain", "net.py", "--no-strict").status == 0


# --- what a right call prints --------------------------------------------------------------------


def json_of(run: Run, *arguments: str) -> dict[str, Any]:
    result = run("explain", *arguments, "--format", "json")
    assert result.status == 0, result.err
    return json.loads(result.out)


GPT = ("gpt.py", "--base", "n_embd=32", "--width", "n_embd")
MLP = ("mlp.py", "--base", "width=32", "--width", "width")


@pytest.mark.usefixtures("examples")
def test_constants_on_the_command_line_and_in_the_saved_plan(run: Run) -> None:
    tuned = ("--constant", "output_mult=4,hidden_lr=0.5", "--constant", "input_init=2")
    data = json_of(run, *MLP, *tuned, "--save", "plan.json")
    rows = {p["name"]: p for p in data["parameters"]}
    assert (rows["fc_out.weight"]["lr_mult"], rows["fc_in.weight"]["init_mult"]) == (1, 2)
    assert rows["hidden.0.weight"]["lr_mult"] == 0.5 / 4
    assert json_of(run, "plan.json") == data
    assert json_of(run, *MLP, "--save", "plain.json")["constants"] != data["constants"]
    assert json_of(run, "plain.json", *tuned) == data


@pytest.mark.usefixtures("examples")
def test_a_form_and_constants_are_written_and_read_again(run: Run) -> None:
    given = ("--form", "uniform-lr", "--constant", "output_mult=4,hidden_lr=0.5")
    assert run("convert", *MLP, *given, "--out", "mu_mlp.py").status == 0
    data = json_of(run, "mu_mlp.py")
    here = json_of(run, *MLP, *given)
    assert (data["form"], data["constants"]) == (here["form"], here["constants"])
    assert data["form"] == "uniform-lr"
    assert {p["lr_mult"] for p in data["parameters"]} == {1.0}
    assert [p["init_std"] for p in data["parameters"]] == [
        p["init_std"] for p in here["parameters"]
    ]
    title = " ".join(run("explain", "mu_mlp.py").out.split())
    assert "output_mult=4, hidden_lr=0.5; form uniform-lr" in title
    assert run("convert", "mu_mlp.py", *given, "--diff").out == ""
    for other in (("--form", "table8"), ("--constant", "output_mult=2")):
        for command in (("convert", "mu_mlp.py", "--diff"), ("explain", "mu_mlp.py")):
            refused = run(*command, *other)
            assert refused.status == 2
            assert "converted before" in refused.err
    swept = run("sweep", "mu_mlp.py", "--data", "digits")
    assert (swept.status, "constants of its own" in swept.err) == (2, True)
    checked = run("check", "mu_mlp.py", "--widths", "1,2,4", "--seeds", "2", "--steps", "2")
    assert checked.status == 0, checked.out


@pytest.fixture
def examples(tmp_path: Path) -> None:
    for name in ("gpt.py", "mlp.py", "llama.py"):
        shutil.copy(EXAMPLES / name, tmp_path / name)


@pytest.mark.usefixtures("examples")
def test_the_json_is_the_contract(run: Run) -> None:
    data = json_of(run, *GPT, "--target", "n_embd=128")
    assert {"model", "base", "target", "optimizer", "parameters", "sites", "unresolved"} <= set(
        data
    )
    assert (data["model"], data["optimizer"]) == ("GPT", "adamw")
    assert (data["base"], data["target"]) == ({"n_embd": 32}, {"n_embd": 128})
    assert data["unresolved"] == []
    parameter = {
        "name", "names", "shape", "base_shape", "role", "fan_in", "fan_out", "base_fan_in",
        "base_fan_out", "init_std", "init_mult", "lr_mult", "wd_mult", "eps_mult", "multiplier",
        "reason", "source",
    }  # fmt: skip
    site = {"kind", "source", "exponents", "factor", "modules", "reason"}
    assert all(set(p) == parameter for p in data["parameters"])
    assert all(set(s) == site for s in data["sites"])
    assert {p["role"] for p in data["parameters"]} <= {"input", "hidden", "output", "scalar"}
    assert {s["kind"] for s in data["sites"]} == {"attention", "readout"}
    assert all(re.fullmatch(r"gpt\.py:\d+:\d+", s["source"]) for s in data["sites"])
    (tied,) = [p for p in data["parameters"] if len(p["names"]) > 1]
    assert tied["names"] == ["transformer.wte.weight", "lm_head.weight"]
    assert tied["multiplier"] == 0.25
    hidden = {p["name"]: p for p in data["parameters"]}["transformer.h.1.mlp.c_fc.weight"]
    numbers = ("fan_in", "base_fan_in", "init_mult", "lr_mult", "wd_mult", "eps_mult")
    assert [hidden[key] for key in numbers] == [128, 32, 0.5, 0.25, 4.0, 0.25]


def test_the_json_is_alone_on_stdout_whatever_the_model_prints(run: Run) -> None:
    text = HEAD + net("print('running')", "print('building')") + "\nprint('importing')\n"
    Path("net.py").write_text(text)
    result = run("explain", "net.py", "--format", "json")
    assert json.loads(result.out)["model"] == "Net"
    assert all(word in result.err for word in ("importing", "building", "running"))
    assert run("convert", "net.py", "--diff").out.startswith("--- net.py")


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("format", ["table", "json", "markdown", "html"])
def test_a_saved_plan_explains_itself_as_the_model_does(format: str, run: Run) -> None:
    first = run("explain", *GPT, "--format", format, "--save", "plan.json")
    assert first.status == 0 and first.out
    again = run("explain", "plan.json", "--format", format)
    assert again == Result(0, first.out, "")
    marks = {"table": "──", "json": '"parameters"', "markdown": "| --- |", "html": "<table>"}
    assert marks[format] in first.out
    assert "\x1b" not in first.out


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(
    "arguments",
    [
        GPT,
        MLP,
        ("llama.py", "--base", "dim=32", "--width", "dim"),
    ],
    ids=["gpt", "mlp", "llama"],
)
def test_a_converted_file_explains_itself_as_the_original_does(
    arguments: tuple[str, ...], run: Run
) -> None:
    """Its base is in the file, so none is named; init and sites are in its code."""
    before = json_of(run, *arguments)
    assert run("convert", *arguments, "--out", "mu.py").status == 0
    after = json_of(run, "mu.py")
    for key in ("model", "base", "target"):
        assert after[key] == before[key]
    keys = (
        "name", "names", "shape", "base_shape", "role", "fan_in", "fan_out", "base_fan_in",
        "base_fan_out", "init_std", "lr_mult", "wd_mult", "eps_mult",
    )  # fmt: skip
    for ours, theirs in zip(after["parameters"], before["parameters"], strict=True):
        for key in keys:
            expected = theirs[key]
            if key == "init_std":
                assert ours[key] == pytest.approx(expected, rel=1e-6), (theirs["name"], key)
            else:
                assert ours[key] == expected, (theirs["name"], key)


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("option", ["--base width=64", "--width d_in", "--width width,d_in"])
def test_the_base_of_a_converted_file_cannot_be_changed(option: str, run: Run) -> None:
    assert run("convert", *MLP, "--out", "mu.py").status == 0
    for command in ("explain mu.py", "convert mu.py --diff"):
        result = run(*command.split(), *option.split())
        assert (result.status, result.out) == (2, "")
        assert "converted with base width=32" in result.err
        assert "Convert the original file again" in result.err
    assert run("explain", "mu.py", "--base", "width=32", "--width", "width").status == 0


@pytest.mark.usefixtures("examples")
def test_diff_prints_the_edits_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    before = contents(tmp_path)
    result = run("convert", *GPT, "--diff")
    assert result.status == 0
    assert result.out.startswith("--- gpt.py\n+++ mu_gpt.py\n@@ ")
    removed = [line for line in result.out.splitlines() if line.startswith("-")]
    assert len(removed) == 5  # the header, an attention, two readouts, the optimizer
    assert "+MUP_BASE = {" in result.out.splitlines()
    assert contents(tmp_path) == before
    # also beside --out, whether it exists or not
    assert run("convert", *MLP, "--diff", "--out", "x.py").status == 0
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("examples")
def test_force_overwrites_and_converting_a_converted_file_changes_nothing(
    run: Run, tmp_path: Path
) -> None:
    Path("mu.py").write_text("old")
    assert run("convert", *MLP, "--out", "mu.py", "--force").status == 0
    assert "MUP_BASE" in Path("mu.py").read_text()
    assert run("convert", "mu.py", "--out", "twice.py").status == 0
    assert Path("twice.py").read_bytes() == Path("mu.py").read_bytes()
    assert run("convert", "mu.py", "--diff").out == ""
    assert Path("mlp.py").read_bytes() == (EXAMPLES / "mlp.py").read_bytes()


def test_the_version(run: Run) -> None:
    assert run("--version") == Result(0, f"automup {__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("convert",), ("explain",)], ids=str)
def test_help_names_every_option(arguments: tuple[str, ...], run: Run) -> None:
    result = run(*arguments, "--help")
    assert result.status == 0 and result.err == ""
    options = {
        (): ["convert", "explain", "--version"],
        ("convert",): ["--out", "--base", "--width", "--input", "--diff", "--force", "--strict"],
        ("explain",): ["--base", "--target", "--optimizer", "--format", "--save", "--no-strict"],
    }[arguments]
    assert all(option in result.out for option in options)


# --- the real thing ------------------------------------------------------------------------------


def process(code: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "autumup"), **settings}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


MAIN = "import automup.cli; automup.cli.main()"


def test_help_is_quick_and_imports_no_torch() -> None:
    code = """
import sys
sys.argv = ["automup", "--help"]
try:
    import automup.cli
    automup.cli.main()
finally:
    loaded = {name.partition(".")[0] for name in sys.modules}
    assert not loaded & {"torch", "libcst", "networkx", "numpy"}, loaded
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = process(code)
    assert done.returncode == 0, done.stderr
    assert "convert" in done.stdout
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert seconds < 0.5  # of the processor: the machine may be busy


def test_errors_of_the_real_command(tmp_path: Path) -> None:
    done = process(MAIN, "convert", str(tmp_path / "no.py"), "--out", str(tmp_path / "x.py"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("automup: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_piped_has_no_colour_codes(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    arguments = ("explain", str(tmp_path / "net.py"), "--width", "width")
    piped = process(MAIN, *arguments, TERM="xterm-256color", COLUMNS="80")
    assert piped.returncode == 0, piped.stderr
    assert "\x1b" not in piped.stdout + piped.stderr
    assert "stem.weight" in piped.stdout


def test_no_color_is_respected_on_a_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(NET)
    assert run("explain", "net.py", "--width", "width", "--save", "plan.json").status == 0
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" in run("explain", "plan.json").out
    monkeypatch.setenv("NO_COLOR", "1")
    text = run("explain", "plan.json").out
    assert not re.search(r"\x1b\[[\d;]*(3[0-9]|4[0-9]|9[0-9])m", text)  # bold and dim may stay
