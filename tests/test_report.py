"""The report's laws: the JSON contract, folding, and tables that lose nothing at any width."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from automup import optim, report
from automup.errors import UsageError
from automup.facts import Parameter, Site, Span, Unresolved
from automup.optimizers import NAMED
from automup.plan import Plan

Shape = tuple[int, ...]


def parameter(name: str, shape: Shape, base: Shape, ins: Shape, outs: Shape) -> Parameter:
    def size(of: Shape, dims: Shape) -> int:
        return math.prod(of[d] for d in dims)

    return Parameter(
        name=name,
        names=(name,),
        shape=shape,
        base_shape=base,
        fan_in=size(shape, ins),
        fan_out=size(shape, outs),
        base_fan_in=size(base, ins),
        base_fan_out=size(base, outs),
        fan_in_dims=ins,
        fan_out_dims=outs,
        init_kind="normal",
        init_std=0.02,
        init_mult=0.5,
        init_law=None,
        reason="sums over n_embd | writes n_embd",
        source="gpt.py:52",
    )


def gpt(layers: int = 3, times: int = 4) -> Plan:
    w, b = 64 * times, 64
    tied = parameter("wte.weight", (65, w), (65, b), (), (1,))
    parameters = [dataclasses.replace(tied, names=("wte.weight", "head.weight"))]
    for i in range(layers):
        parameters.append(parameter(f"h.{i}.attn.c_attn.weight", (w, w), (b, b), (1,), (0,)))
        parameters.append(parameter(f"h.{i}.ln.weight", (w,), (b,), (), (0,)))
    span = Span("/somewhere/gpt.py", 52, 15, 52, 30)
    attention = Site(
        kind="attention",
        span=span,
        function="Attention.forward",
        op="matmul",
        exponents=(("n_embd/4", -0.5),),
        factor=times**-0.5,
        modules=tuple(f"h.{i}.attn" for i in range(layers)),
        reason="query·key",
    )
    readout = dataclasses.replace(
        attention,
        kind="readout",
        exponents=(("n_embd", -1.0),),
        factor=1 / times,
        modules=("",),
        reason="tied <script> readout",
        parameter="head.weight",
    )
    return Plan(
        model="GPT",
        base={"n_embd": b},
        target={"n_embd": w},
        parameters=tuple(parameters),
        sites=(attention, readout),
        unresolved=(Unresolved("gpt.py:9:1", "cumsum", "mixes n_embd"),),
        notes=("a note",),
    )


def printed(plan: Plan, width: int = 160, **kwargs: Any) -> str:
    console = Console(file=io.StringIO(), width=width, **kwargs)
    with console.capture() as capture:
        report.as_table(plan, console=console)
    assert console.width == width, "the caller's console is as it was"
    return capture.get()


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_the_json_is_the_contract() -> None:
    plan = gpt()
    data = json.loads(report.as_json(plan))
    assert {"model", "base", "target", "optimizer", "parameters", "sites", "unresolved"} <= {*data}
    assert (data["model"], data["optimizer"]) == ("GPT", "adamw")
    assert (data["base"], data["target"]) == ({"n_embd": 64}, {"n_embd": 256})
    assert [p["name"] for p in data["parameters"]] == [p.name for p in plan.parameters]
    for entry in data["parameters"]:
        assert {*entry} == {
            *("name", "names", "shape", "base_shape", "role", "fan_in", "fan_out", "base_fan_in"),
            *("base_fan_out", "init_std", "init_mult", "lr_mult", "wd_mult", "eps_mult"),
            *("multiplier", "reason", "source"),
        }
        assert entry["role"] in ("input", "hidden", "output", "scalar")
    assert {*data["sites"][0]} == {"kind", "source", "exponents", "factor", "modules", "reason"}
    assert data["sites"][0]["exponents"] == {"n_embd/4": -0.5}
    assert data["sites"][0]["source"] == "gpt.py:52:15"
    assert data["unresolved"] == [
        {"source": "gpt.py:9:1", "op": "cumsum", "reason": "mixes n_embd"}
    ]
    assert data == report.as_dict(plan), "plain data, the same before and after JSON"


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
@pytest.mark.parametrize("decay", ["independent", "coupled"])
def test_it_reports_what_the_optimizer_does(name: str, decay: str) -> None:
    """The same numbers as param_groups, for every optimizer that either of them knows."""
    plan = gpt()
    model = nn.Module()
    model.wte = nn.Embedding(65, 256)
    model.head = nn.Linear(256, 65, bias=False)
    model.head.weight = model.wte.weight
    model.h = nn.ModuleList(nn.Module() for _ in range(3))
    for block in model.h:
        block.attn = nn.Module()
        block.attn.c_attn = nn.Linear(256, 256, bias=False)
        block.ln = nn.LayerNorm(256, bias=False)
    eps = {"adafactor": (1.0, 1.0)}.get(name, 1.0)
    rates = {"lr": 1.0, "weight_decay": 1.0, **({} if name in ("sgd", "asgd") else {"eps": eps})}
    cls = optim.OPTIMIZERS[name]
    rest = {"rest": rates} if name == "muon" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        groups = optim.param_groups(plan, model, cls, decay=decay, **rates, **rest)
    entries = {p["name"]: p for p in report.as_dict(plan, name, decay)["parameters"]}
    names = {id(p): n for n, p in model.named_parameters()}
    for group in groups:
        for p in group["params"]:
            entry = entries[names[id(p)]]
            assert entry["lr_mult"] == group["lr"] == group["lr_mult"]
            assert entry["wd_mult"] == group["weight_decay"]
            eps = group.get("eps", 1.0)
            assert entry["eps_mult"] == (eps[0] if isinstance(eps, tuple) else eps)


def test_at_the_base_every_factor_is_one() -> None:
    plan = gpt(times=1)
    for optimizer in NAMED:
        for entry in report.as_dict(plan, optimizer)["parameters"]:
            mults = ("lr_mult", "wd_mult", "eps_mult", "multiplier")
            assert [entry[key] for key in mults] == [1.0] * 4


def test_a_multiplier_belongs_to_the_weight_that_its_site_reads() -> None:
    """Tied names count, and two branches of one readout are not multiplied with each other."""
    plan = gpt()
    twice = dataclasses.replace(plan, sites=(*plan.sites, plan.sites[1]))
    for each in (plan, twice):
        found = {p["name"]: p["multiplier"] for p in report.as_dict(each)["parameters"]}
        assert found.pop("wte.weight") == 0.25
        assert set(found.values()) == {1.0}


def test_unknown_optimizers_are_refused() -> None:
    for make in (report.as_dict, report.as_table, report.describe, report.as_html):
        with pytest.raises(UsageError, match=r"'lamb'.*adamw, adam, sgd"):
            make(gpt(), "lamb")


@given(st.integers(1, 120))
@settings(max_examples=15, deadline=None)
def test_repeated_layers_are_one_row(layers: int) -> None:
    text = printed(gpt(layers))
    assert text.count("attn.c_attn.weight") == 1
    name = f"h.*.attn.c_attn.weight (×{layers})" if layers > 1 else "h.0.attn.c_attn.weight"
    assert name in text
    assert ("h.*.attn (×" in text) == (layers > 1), "modules of a site too"


def test_a_layer_that_differs_is_its_own_row_and_the_rest_say_which() -> None:
    plan = gpt(12)
    odd = tuple(
        dataclasses.replace(p, init_mult=0.125) if p.name.startswith(("h.0.attn", "h.5.a")) else p
        for p in plan.parameters
    )
    text = printed(dataclasses.replace(plan, parameters=odd))
    assert "h.{0,5}.attn.c_attn.weight (×2)" in text
    assert "h.{1-4,6-11}.attn.c_attn.weight (×10)" in text
    assert "h.*.ln.weight (×12)" in text


def test_tied_names_are_shown() -> None:
    assert re.search(r"wte\.weight .*\n= head\.weight", printed(gpt()))


@given(st.integers(20, 200), st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_text_is_lost_at_any_width(width: int, terminal: bool) -> None:
    plan = gpt()
    text = printed(plan, width, force_terminal=terminal, color_system=None)
    assert "…" not in text
    assert all(line == line.rstrip() for line in text.splitlines()), "nothing but what is seen"
    names = ["wte.weight", "h.*.attn.c_attn.weight (×3)", "h.*.ln.weight (×3)"]
    if not terminal:
        assert all(name in text for name in names), "on one line each, for grep"
    else:
        assert all(len(line) <= width for line in text.splitlines())
    if width >= 80 or not terminal:
        for part in [*names, "×0.25", "(n_embd/4)^-0.5 = 0.5", "gpt.py:52:15", "mixes n_embd"]:
            assert squeezed(part) in squeezed(text)


def test_the_title_says_what_it_is_for() -> None:
    first = printed(gpt()).splitlines()[0]
    for part in ("GPT", "n_embd=64", "n_embd=256", "adamw", "adam family", "independent"):
        assert part in first
    assert "sgd family" in str(report.describe(gpt(), "SGD"))


def test_piped_output_has_no_escapes_and_no_color_no_colours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "\x1b" not in printed(gpt())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*[349][0-7]", printed(gpt(), force_terminal=True))


def test_a_stream_that_has_no_unicode_gets_words() -> None:
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=140)
    report.as_table(gpt(), console=console)
    console.file.flush()
    assert b"GPT in muP: base n_embd=64 -> target n_embd=256" in raw.getvalue()
    assert b"x0.25" in raw.getvalue()


def test_markup_in_names_is_text() -> None:
    plan = dataclasses.replace(gpt(), notes=("x[..., :12] [bold]is finite[/bold]",))
    assert "x[..., :12] [bold]is finite[/bold]" in printed(plan)


def test_markdown_tables_are_well_formed() -> None:
    blocks = report.as_markdown(gpt()).split("\n\n")
    tables = [block.splitlines() for block in blocks if block.startswith("|")]
    assert len(tables) == 4
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "| `h.*.attn.c_attn.weight (×3)` | hidden | 256 ×4 → 256 ×4 |" in "\n".join(tables[0])


def test_html_is_one_safe_page() -> None:
    class Page(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []
            self.seen: set[str] = set()

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.seen.add(tag)
            assert not {"src", "href"} & {key for key, _ in attrs}, "self-contained"
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    page = Page()
    page.feed(report.as_html(gpt()))
    assert page.open == []
    assert "table" in page.seen
    assert "script" not in page.seen, "text is escaped"


def test_an_explanation_is_the_report_in_every_form() -> None:
    plan = gpt()
    explanation = report.describe(plan, "sgd")
    lines = str(explanation).splitlines()
    assert max(map(len, lines)) <= report.WIDTH
    assert lines == [line.rstrip() for line in lines]
    assert explanation.to_dict() == report.as_dict(plan, "sgd") == json.loads(explanation.to_json())
    assert explanation.to_markdown() == report.as_markdown(plan, "sgd")
    assert explanation._repr_html_() in report.as_html(plan, "sgd")


def test_it_imports_neither_torch_nor_libcst_nor_rich() -> None:
    code = (
        "import sys, automup.report as r; from automup.plan import Plan;"
        "r.as_json(Plan('M', {}, {}, ())); r.as_html(Plan('M', {}, {}, ()));"
        "print({'torch', 'libcst', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(report.__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
