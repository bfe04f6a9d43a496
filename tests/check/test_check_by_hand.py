"""`automup check --as-is` on muP that was written by hand: right, and with what goes wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from automup import cli
from conftest import EXAMPLES, ROOT

BY_HAND = (ROOT / "tests" / "models" / "mup_by_hand.py").read_text()
QUICK = ("--seeds", "2", "--format", "json")


def checked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, dict[str, Any]]:
    """The exit status and the JSON of `automup check`."""
    monkeypatch.setattr(sys, "argv", ["automup", "check", *arguments, *QUICK])
    monkeypatch.setattr(sys, "path", list(sys.path))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(str(ended.value.code or 0)), json.loads(capsys.readouterr().out)


def edited(old: str, new: str) -> str:
    assert BY_HAND.count(old) == 1
    return BY_HAND.replace(old, new)


def test_right_code_passes_whatever_its_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its readout is divided by the width and keeps init and rate: mup's form, not automup's."""
    (tmp_path / "by_hand.py").write_text(BY_HAND)
    status, found = checked(capsys, monkeypatch, str(tmp_path / "by_hand.py"), "--as-is")
    assert (status, found["findings"]) == (0, [])
    assert found["base"] == {"width": 32}
    # small deviations that do no harm are said all the same
    remarks = {(r["place"], r["witness"]) for r in found["remarks"]}
    assert ("attn.qkv.bias", "init") in remarks and ("embed.weight", "optimizer") in remarks


FAULTS = {
    "1/sqrt(d) was left": (
        "math.sqrt(8) / k.size(-1)",
        "k.size(-1) ** -0.5",
        ("attn", "code", "the attention scale is not 1/d", 0.5),
    ),
    "the readout was forgotten": (
        "self.head(self.ln_f(x)) / self.mult",
        "self.head(self.ln_f(x))",
        ("head.weight", "init", "the readout is not scaled", 0.0),
    ),
    "the readout is scaled twice": (
        "self.head(self.ln_f(x)) / self.mult",
        "self.head(self.ln_f(x)) / self.mult**2",
        ("head.weight", "optimizer", "the learning rate of an output weight", -2.0),
    ),
    "the rate of embeddings is divided": (
        '{"params": [p for p in self.parameters() if id(p) not in hidden]},',
        '{"params": [p for p in self.parameters() if p.dim() == 1]},'
        '{"params": [self.embed.weight, self.head.weight], "lr": learning_rate / self.mult},',
        ("embed.weight", "optimizer", "the learning rate of an input weight falls", -1.0),
    ),
    "the rate of hidden weights is not divided": (
        '"lr": learning_rate / self.mult,',
        '"lr": learning_rate,',
        ("attn.qkv.weight", "optimizer", "the learning rate of a hidden weight is not", 0.0),
    ),
    "the init of hidden weights is constant": (
        "nn.init.normal_(p, std=0.1 / math.sqrt(self.mult))",
        "nn.init.normal_(p, std=0.1)",
        ("attn.qkv.weight", "init", "the init does not follow the law of a hidden weight", 0.0),
    ),
    "the decay of hidden weights is lost": (
        '"weight_decay": weight_decay * self.mult,',
        '"weight_decay": weight_decay * self.mult * (self.mult == 1),',
        ("attn.qkv.weight", "optimizer", "the weight decay does not go with width", None),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_people_get_wrong_is_named(
    fault: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new, (place, witness, cause, exponent) = FAULTS[fault]
    (tmp_path / "by_hand.py").write_text(edited(old, new))
    status, found = checked(capsys, monkeypatch, str(tmp_path / "by_hand.py"), "--as-is")
    assert status == 1
    culprit = found["findings"][0]
    assert (culprit["place"], culprit["witness"]) == (place, witness)
    assert cause in culprit["cause"]
    assert culprit["source"].startswith("by_hand.py:")
    if exponent is None:
        assert culprit["measured"] is None
    else:
        assert abs(culprit["measured"] - exponent) < 0.05


def test_a_plain_file_passes_in_mup_and_fails_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(EXAMPLES / "mlp.py")
    status, found = checked(capsys, monkeypatch, file)
    assert status == 0 and found["passed"]
    plain = {(r["place"], r["what"], r["step"]): r["exponent"] for r in found["other"]}
    assert plain["model output", "change", 2] > 0.8  # SP beside it
    status, found = checked(capsys, monkeypatch, file, "--as-is")
    assert status == 1
    # the earliest place: the first hidden layer's rate, not the readout that moves most
    assert found["findings"][0]["place"] == "hidden.0.weight"


def test_a_converted_file_is_judged_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "mu_mlp.py"
    argv = ["automup", "convert", str(EXAMPLES / "mlp.py"), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    status, found = checked(capsys, monkeypatch, str(out))
    assert (status, found["findings"], found["remarks"]) == (0, [], [])
    # and every number in it counts: a row that is lost is named
    broken, rows = re.subn(r'("fc_out.weight": \{)"fan_in": \{1: 64\}, ', r"\1", out.read_text())
    assert rows == 1
    out.write_text(broken)
    status, found = checked(capsys, monkeypatch, str(out))
    assert status == 1 and found["findings"][0]["place"] == "fc_out.weight"
