"""What a check shows: picture, page, graph, text; and how exponents are fitted and judged."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from torch import nn

import automup
import gpt
import mlp
from automup.check import Check
from automup.check.diagram import diagram_of
from automup.check.fit import fit, slope
from automup.check.watching import watched
from automup.errors import UsageError


@pytest.fixture(scope="module")
def checked() -> Check:
    mu = automup.parametrize(lambda width=32: mlp.MLP(width=width))
    return mu.check(seeds=2, widths=(1, 2, 4))


# --- fits -----------------------------------------------------------------------------------------


def test_a_power_law_is_fitted_exactly() -> None:
    widths = (1, 2, 4, 8)
    assert slope(widths, [3 * w**0.5 for w in widths]) == pytest.approx(0.5)
    found = fit(widths, [[w**0.25 for w in widths], [5 * w**0.75 for w in widths]])
    assert found.slope == pytest.approx(0.5)
    assert found.error == pytest.approx(0.25)  # two slopes, 0.25 to either side
    assert found.low == pytest.approx(0.5 - 12.71 * 0.25)  # Student's t with one degree of freedom


def test_what_does_not_move_has_no_exponent() -> None:
    assert math.isnan(slope((1, 2), (0.0, 1.0)))
    one = fit((1, 2), [[1.0, 2.0]])
    assert (one.slope, one.high) == (1.0, math.inf)  # one seed says nothing of its error


# --- attention logits -----------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
def test_logits_of_fused_attention_are_seen(causal: bool) -> None:
    q, k = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    attention = nn.functional.scaled_dot_product_attention
    with torch.no_grad(), watched(nn.Identity()) as seen:
        attention(q, k, k, is_causal=causal, scale=0.3)
    wanted = q @ k.transpose(-1, -2) * 0.3
    logits = seen.values["logits"]
    here = logits.isfinite()
    assert here.all() != causal
    torch.testing.assert_close(logits[here], wanted[here])


def test_logits_of_torchs_attention_module_are_seen() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    model = nn.Sequential()
    model.attend = attention
    x = torch.randn(2, 5, 8)
    with torch.no_grad(), watched(model) as seen:  # the fast path would hide them
        attention(x, x, x, need_weights=False)
    assert seen.places["attend: logits"].kind == "logits"
    assert seen.values["attend: logits"].numel() == 2 * 2 * 5 * 5  # batch, heads, time, time


# --- what is shown --------------------------------------------------------------------------------


def test_pictures(checked: Check, tmp_path: Path) -> None:
    checked.plot(tmp_path / "check.png")
    assert (tmp_path / "check.png").read_bytes().startswith(b"\x89PNG")
    checked.plot(tmp_path / "check.svg")
    text = (tmp_path / "check.svg").read_text()
    for shown in ("size at init", "change after 3 steps", "fc_in", "model output", "×4", "SP"):
        assert shown in text
    with pytest.raises(UsageError, match="neither"):
        checked.plot(tmp_path / "check.pdf")


class Strict(HTMLParser):
    """Fails on tags that are not closed in order; keeps all text and addresses."""

    VOID = ("meta", "br", "link", "img", "hr", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(v) for k, v in attrs if k in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_needs_no_network(checked: Check, tmp_path: Path) -> None:
    checked.save_html(tmp_path / "check.html")
    page = (tmp_path / "check.html").read_text()
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert all(address.startswith("#") for address in parser.addresses)
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    text = " ".join(parser.text)
    for part in ("pass: ", "Exponents", "hidden.* (×2)", "fc_out.weight", "base width=32"):
        assert part in text
    assert page.count("<svg") == 2 and "light-dark(" in page


def test_the_graph_has_a_box_for_what_reads_weights_and_for_attention() -> None:
    mu = automup.parametrize(lambda width=32: gpt.GPT(gpt.GPTConfig(n_embd=width)))
    nodes = mu.study.exploration.reached[0][1].nodes
    found = diagram_of(nodes, mu.plan(64))
    boxes = {box.name: box for box in found.boxes}
    attention = boxes["transformer.h.*.attn.c_attn"]
    assert (attention.role, attention.count, attention.shape) == ("hidden", 2, (96, 32))
    assert boxes["transformer.h.*.attn: softmax"].layer == attention.layer + 1
    numbers = {box.name: i for i, box in enumerate(found.boxes)}
    for a, b in found.edges:
        assert found.boxes[a].layer < found.boxes[b].layer
    assert (numbers["transformer.ln_f"], numbers["lm_head"]) in found.edges


def test_json_and_text(checked: Check) -> None:
    data = json.loads(checked.to_json())
    assert data["passed"] and data["widths"] == [1, 2, 4] and data["base"] == {"width": 32}
    change = [r for r in data["readings"] if (r["place"], r["what"]) == ("hidden.0", "change")]
    assert [r["step"] for r in change] == [1, 2, 3]
    assert all(r["low"] < r["exponent"] < r["high"] and len(r["values"]) == 3 for r in change)
    assert change[0]["source"].startswith("mlp.py:")
    assert str(checked).startswith("pass: ")
