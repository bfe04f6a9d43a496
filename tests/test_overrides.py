"""What the user says of a parameter replaces what the analysis says, and nothing is guessed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.testing
from torch import nn

import automup
from automup import Fans, Role, cli
from automup.errors import UnresolvedError, UsageError
from automup.overrides import Overrides, matches
from models_small import model

FLOATS = torch.randn(2, 6, 16)


@torch.library.custom_op("mixing::mix", mutates_args=())
def mix(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w


mix.register_fake(lambda x, w: x @ w)

STACK = """
class Mix(nn.Module):
    def __init__(self, d, wide):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(d, wide) * 0.02)

    def forward(self, x):
        return torch.ops.mixing.mix(x, self.weight)


class Block(nn.Module):
    def __init__(self, d, wide):
        super().__init__()
        self.mix = Mix(d, wide)
        self.out = nn.Linear(wide, d)

    def forward(self, x):
        return x + self.out(torch.relu(self.mix(x)))
"""


def stack(wide: str = "d") -> Any:
    """Blocks whose mixing of the width is an operation that nobody knows."""
    return model(
        f"self.first = nn.Linear(16, d)\n"
        f"self.blocks = nn.Sequential(Block(d, {wide}), Block(d, {wide}))\n"
        "self.head = nn.Linear(d, 8)",
        "return self.head(self.blocks(torch.relu(self.first(x))))",
        STACK,
    )


def plan_of(build: Any, overrides: Any = None, **options: Any) -> automup.Plan:
    mu = automup.parametrize(build, base=32, inputs=(FLOATS,), overrides=overrides, **options)
    return mu.plan(128)


def rows(plan: automup.Plan) -> dict[str, Any]:
    return {p.name: (str(p.role), p.ratios, p.init_mult) for p in plan.parameters}


PLAIN = STACK.replace("torch.ops.mixing.mix(x, self.weight)", "x @ self.weight")


@pytest.mark.parametrize(
    "wide, said", [("d", Role.HIDDEN), ("d", "hidden"), ("2 * d", Fans(fan_in=0, fan_out=1)),
                   ("2 * d", Fans(fan_in=-2, fan_out=-1))],
)  # fmt: skip
def test_an_unknown_layer_whose_weight_is_said_is_the_layer_of_plain_torch(
    wide: str, said: Any
) -> None:
    plan = plan_of(stack(wide), {"blocks.*.mix.weight": said})
    known = model(
        f"self.first = nn.Linear(16, d)\n"
        f"self.blocks = nn.Sequential(Block(d, {wide}), Block(d, {wide}))\n"
        "self.head = nn.Linear(d, 8)",
        "return self.head(self.blocks(torch.relu(self.first(x))))",
        PLAIN,
    )
    assert rows(plan) == rows(plan_of(known))
    overridden = plan.parameter("blocks.1.mix.weight")
    assert overridden.reason == "overridden by the user"
    assert re.fullmatch(r"small_\w+\.py:22:15", overridden.source)
    assert plan.unresolved == ()
    assert automup.Plan.from_json(plan.to_json()) == plan


def test_the_refusal_gives_an_override_that_settles_it() -> None:
    """What it says is copied, word for word."""
    for wide in ("d", "2 * d"):
        with pytest.raises(UnresolvedError) as refused:
            plan_of(stack(wide))
        (found,) = re.findall(r"overrides=(\{.*?\}) ", str(refused.value))
        assert plan_of(stack(wide), eval(found, {"automup": automup})).unresolved == ()


def test_every_role_has_the_ratios_of_its_row_in_the_table() -> None:
    """r = 4, and torch.randn draws the same std at every width."""
    expected = {
        Role.INPUT: (1.0, 16.0, 1.0),
        Role.HIDDEN: (4.0, 4.0, 0.5),
        Role.OUTPUT: (16.0, 1.0, 1 / 16),
    }
    for role, (r_in, r_out, init) in expected.items():
        p = plan_of(stack(), {"blocks.*.mix.weight": role}).parameter("blocks.0.mix.weight")
        assert (p.role, p.ratios.fan_in, p.ratios.fan_out) == (role, r_in, r_out)
        assert p.init_mult == pytest.approx(init)


def test_multipliers_follow_what_is_said() -> None:
    """A table that two uses share: its entries are Θ(1), so the second use needs d_base / d."""
    tied = model(
        "self.table = nn.Embedding(64, d)\nself.l = nn.Linear(d, d)",
        "h = torch.relu(self.l(self.table(x)))\nreturn h @ self.table.weight.T",
    )
    tokens = (torch.randint(0, 64, (2, 6)),)

    def sites(said: Role) -> list[Any]:
        mu = automup.parametrize(tied, base=32, inputs=tokens, overrides={"table.weight": said})
        return [(s.kind, s.factor) for s in mu.plan(128).sites]

    assert sites(Role.INPUT) == [("readout", 0.25)]
    with pytest.raises(UnresolvedError, match=r"grows as width\^-1"):
        sites(Role.OUTPUT)  # its rows then shrink with width, where they go into a layer


def test_a_tied_parameter_answers_to_each_of_its_names() -> None:
    tied = model(
        "self.e = nn.Embedding(64, d)\nself.head = nn.Linear(d, 64, bias=False)\n"
        "self.head.weight = self.e.weight",
        "return self.head(torch.relu(self.e(x)))",
    )
    tokens = (torch.randint(0, 64, (2, 6)),)
    for name in ("e.weight", "head.weight", "h*.weight", "**.weight"):
        mu = automup.parametrize(tied, base=32, inputs=tokens, overrides={name: "input"})
        assert mu.plan(64).parameter("e.weight").reason == "overridden by the user"


def test_an_override_that_says_what_the_analysis_says_changes_no_number() -> None:
    build = model(
        "self.a = nn.Linear(16, d)\nself.b = nn.Linear(d, 3 * d)\nself.c = nn.Linear(3 * d, 8)",
        "return self.c(torch.relu(self.b(torch.relu(self.a(x)))))",
    )
    given = {"a.*": "input", "b.weight": "hidden", "b.bias": "input", "c.weight": "output",
             "c.bias": "scalar"}  # fmt: skip
    said, seen = plan_of(build, given), plan_of(build)
    assert rows(said) == rows(seen)
    assert [p.fan_in for p in said.parameters] == [p.fan_in for p in seen.parameters]
    assert said.sites == seen.sites


def test_stacked_experts_keep_the_dimension_that_is_in_no_fan() -> None:
    build = model(
        "self.a = nn.Linear(16, d)\nself.w = nn.Parameter(torch.randn(d // 8, d, d))\n"
        "self.o = nn.Linear(d, 8)",
        "h = torch.relu(self.a(x))\nreturn self.o(torch.relu(torch.ops.mixing.mix(h, self.w[0])))",
    )
    p = plan_of(build, {"w": Fans(fan_in=1, fan_out=2)}).parameter("w")
    assert (p.fan_in_dims, p.fan_out_dims, p.role) == ((1,), (2,), Role.HIDDEN)
    with pytest.raises(UsageError, match="not which of its dimensions 0, 1, 2"):
        plan_of(build, {"w": Role.HIDDEN})


def test_a_knob_that_grows_alone_leaves_the_other_dimension() -> None:
    """Each knob's own probe sees one dimension grow; the role is about all of them together."""
    module = model("pass", "pass", STACK)  # only to load the classes
    source = module.__closure__[0].cell_contents  # type: ignore[index]

    class Two(nn.Module):
        def __init__(self, d: int, wide: int) -> None:
            super().__init__()
            self.first, self.block = nn.Linear(16, d), source.Block(d, wide)
            self.head = nn.Linear(d, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.block(torch.relu(self.first(x))))

    mu = automup.parametrize(
        Two, base={"d": 32, "wide": 48}, inputs=(FLOATS,),
        overrides={"block.mix.weight": Fans(fan_in=0, fan_out=1)},
    )  # fmt: skip
    ratios = mu.plan(d=128, wide=96).parameter("block.mix.weight").ratios
    assert (ratios.fan_in, ratios.fan_out) == (4.0, 2.0)


def test_two_activations_are_no_layer_whatever_their_weights_are() -> None:
    build = model(
        "self.a = nn.Linear(16, d)\nself.w = nn.Parameter(torch.randn(d, d))",
        "h = torch.relu(self.a(x))\nreturn torch.ops.mixing.mix(h, h.mT @ h) @ self.w[:, :8]",
    )
    with pytest.raises(UnresolvedError, match="mix mixes an infinite axis"):
        plan_of(build, {"w": Role.HIDDEN})


@pytest.mark.parametrize(
    "pattern, name, fits",
    [
        ("blocks.*.w", "blocks.0.w", True),
        ("blocks.*.w", "blocks.0.mix.w", False),
        ("blocks.**.w", "blocks.0.mix.w", True),
        ("**", "anything.at.all", True),
        ("*", "w", True),
        ("*", "a.w", False),
        ("w", "ww", False),
        ("a.w", "abw", False),
        ("h*.w", "head.w", True),
        ("[ab].w", "a.w", False),
    ],
)
def test_what_a_pattern_matches(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


@pytest.mark.parametrize(
    "text, said",
    [
        ("w=hidden", Role.HIDDEN),
        ("w=INPUT", Role.INPUT),
        ("w = Fans(fan_in=1, fan_out=(0, 2))", Fans(1, (0, 2))),
        ("w=automup.Fans(fan_in=-1)", Fans(fan_in=(-1,))),
    ],
)
def test_the_command_line_says_the_same(text: str, said: Any) -> None:
    assert Overrides.parse([text]) == Overrides.of({"w": said})


@pytest.mark.parametrize("text", ["w", "w=", "=hidden", "w=wide", "w=Fans(fan_in='a')", "w=Fans(1)",
                                  "w=Fans(depth=1)", "w=exit()"])  # fmt: skip
def test_what_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Overrides.parse([text])


FILE = f"""\
import torch
from torch import nn

@torch.library.custom_op("filed::mix", mutates_args=())
def mix(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return x @ w

mix.register_fake(lambda x, w: x @ w)

{STACK.replace("torch.ops.mixing.mix", "mix")}

class Net(nn.Module):
    def __init__(self, d: int = 32):
        super().__init__()
        self.first = nn.Linear(16, d)
        self.blocks = nn.Sequential(Block(d, d), Block(d, d))
        self.head = nn.Linear(d, 8)

    def forward(self, x: torch.Tensor):
        return self.head(self.blocks(torch.relu(self.first(x))))
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "net.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Any:
        common = ("--width", "d", "--input", "x:float32[2,6,16]")
        return typer.testing.CliRunner().invoke(cli.app, [*arguments, *common])

    return call


def test_explain_and_convert_take_overrides(run: Any) -> None:
    refused = run("explain", "net.py:Net")
    assert isinstance(refused.exception, UnresolvedError) and "unresolved" in refused.output
    (option,) = re.findall(r"--override '(.*?)'", str(refused.exception))
    assert option == "blocks.*.mix.weight=hidden"
    shown = run("explain", "net.py:Net", "--override", option, "--format", "json")
    assert shown.exit_code == 0, shown.output
    data = json.loads(shown.stdout)
    (row,) = [p for p in data["parameters"] if p["name"] == "blocks.1.mix.weight"]
    assert (row["role"], row["reason"]) == ("hidden", "overridden by the user")
    assert isinstance(run("convert", "net.py:Net", "--out", "mu.py").exception, UnresolvedError)
    made = run("convert", "net.py:Net", "--out", "mu.py", "--override", option)
    assert made.exit_code == 0, made.output
    assert (
        '"blocks.*.mix.weight": {"fan_in": {1: 32}, "fan_out": {0: 32}}'
        in Path("mu.py").read_text()
    )
    again = run("convert", "mu.py:Net", "--out", "again.py", "--override", option)
    assert again.exit_code == 0, again.output
    assert Path("again.py").read_text() == Path("mu.py").read_text()


def test_convert_takes_a_rule_that_the_file_registers(run: Any) -> None:
    rule = 'automup.register_op("filed::mix", automup.op.Contraction(right_dims=(0,)))'
    ruled = FILE.replace("class Net(", f"{rule}\n\nclass Net(")
    Path("net.py").write_text(f"import automup\n{ruled}")
    made = run("convert", "net.py:Net", "--out", "mu.py")
    assert made.exit_code == 0, made.output
    assert (
        '"blocks.*.mix.weight": {"fan_in": {0: 32}, "fan_out": {1: 32}}'
        in Path("mu.py").read_text()
    )
