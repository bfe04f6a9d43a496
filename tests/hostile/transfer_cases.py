"""A sweep's file that is damaged, edited or of another model, and calls of transfer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from case import NET, Case, net

TRANSFER = "transfer sweep --target width=64"
CALL = {
    "model": "net.py",
    "base": [],
    "width": "width",
    "input": [],
    "override": [],
    "strict": True,
}
ABOUT: dict[str, Any] = {
    "model": "Net", "base": {"width": 16}, "fixed": {},
    "knobs": {"1": {"width": 16}, "2": {"width": 32}}, "constants": {}, "optimizer": "adamw",
    "options": {}, "steps": 2, "batch_size": 4, "seeds": 1, "last": 0.5, "data": "data.py",
    "call": CALL,
}  # fmt: skip
RUNS = [
    {"parametrization": "mup", "multiple": multiple, "lr": lr, "seed": 0, "loss": loss}
    for multiple in (1.0, 2.0)
    for lr, loss in ((0.125, 2.0), (0.25, 1.0), (0.5, 2.0))
]


def swept(
    about: Mapping[str, Any] | None = None,
    call: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
    **changes: Any,
) -> dict[str, str | bytes]:
    """A folder with a sweep, of which some facts are others; ... takes one out."""
    told = {**ABOUT, "call": _without({**CALL, **(call or {})}), **(about or {})}
    runs = [_without({**RUNS[0], **(run or {})}), *RUNS[1:]]
    facts = {"automup_sweep": 1, "about": _without(told), "tuned": None, "runs": runs, "widths": []}
    return {**net(), "sweep/sweep.json": json.dumps(_without({**facts, **changes}))}


def _without(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not ...}


GOOD = str(swept()["sweep/sweep.json"])

OPTIONS = {
    "sweep --target width=0": (
        2,
        "A width cannot be width=0: it is a positive number. Pass width=256, or so.",
    ),
    "sweep --target width=-1": (
        2,
        "A width cannot be width=-1: it is a positive number. Pass width=256, or so.",
    ),
    "sweep --target width=1e400": (
        2,
        "A width cannot be width=inf: it is a positive number. Pass width=256, or so.",
    ),
    "sweep --target width=nan": (
        2,
        "A width cannot be width='nan': it is a positive number. Pass width=256, or so.",
    ),
    "sweep --target width=big": (
        2,
        "A width cannot be width='big': it is a positive number. Pass width=256, or so.",
    ),
    "sweep --target width=64.5": (
        1,
        "Net(width=64.5) cannot be built: TypeError: empty(): argument 'size' (position 1) "
        "must be tuple of ints, but found element of type float at pos 0. (net.py:8) Choose "
        "other values with --base NAME=VALUE.",
    ),
    "sweep --target width=true": (
        2,
        "A width cannot be width=True: it is a positive number. Pass width=256, or so.",
    ),
    "sweep --target width=(64,64)": (
        1,
        "Net(width=(64, 64)) cannot be built: TypeError: empty(): argument 'size' (position 1) "
        "must be tuple of ints, but found element of type tuple at pos 0. (net.py:8) Choose "
        "other values with --base NAME=VALUE.",
    ),
    "sweep --target width": (
        2,
        "'width' is not NAME=VALUE. Write n_embd=256.",
    ),
    "sweep --target =3": (
        2,
        "'=3' is not NAME=VALUE. Write n_embd=256.",
    ),
    "sweep --target depth=3": (
        2,
        "depth is no width knob. The knobs are width: pass --target width=VALUE.",
    ),
    "sweep --target features=9": (
        2,
        "features is no width knob. The knobs are width: pass --target width=VALUE.",
    ),
    "sweep --target width=64 --target width=65": (
        2,
        "width is given twice. Give each name one value.",
    ),
    "sweep": (
        2,
        "No target is given. The knobs are width: pass --target width=VALUE.",
    ),
    "nope --target width=64": (
        1,
        "No finished sweep: No such file or directory. (nope/sweep.json) Pass the folder of "
        "--out of `automup sweep`.",
    ),
    "net.py --target width=64": (
        1,
        "No finished sweep: Not a directory. (net.py/sweep.json) Pass the folder of --out of "
        "`automup sweep`.",
    ),
    "sweep --target width=64 --out x.txt": (
        2,
        "x.txt is neither .json nor .yaml. Name the file so.",
    ),
    "sweep --target width=64 --out sweep": (
        2,
        "sweep is a folder. Name a file in it.",
    ),
    "sweep --target width=64 --out no/x.json": (
        2,
        "Cannot write there: no such folder. (no) Make it, or write somewhere else.",
    ),
    "sweep --target width=64 --out net.py/x.json": (
        2,
        "Cannot write there: no such folder. (net.py) Make it, or write somewhere else.",
    ),
    "sweep --target width=64 --out sweep/sweep.json": (
        2,
        "sweep/sweep.json is the sweep itself. Choose another --out.",
    ),
    "sweep --target width=64 --out .json": (
        2,
        ".json is neither .json nor .yaml. Name the file so.",
    ),
    "sweep --target width=64 --out x.json.gz": (
        2,
        "x.json.gz is neither .json nor .yaml. Name the file so.",
    ),
    "sweep --target width=64 --out net.py": (
        2,
        "net.py is neither .json nor .yaml. Name the file so.",
    ),
    "": (
        2,
        "Missing argument 'FOLDER'. See `automup transfer --help`.",
    ),
    "sweep --target width=64 --nope": (
        2,
        "No such option: --nope. See `automup transfer --help`.",
    ),
    "sweep more": (
        2,
        "Got unexpected extra argument(s) (more). See `automup transfer --help`.",
    ),
}

"""What follows the command: its status, and what it says."""
DAMAGED: dict[str, tuple[dict[str, str | bytes], str]] = {
    "empty": (
        {**net(), "sweep/sweep.json": ""},
        "it is not JSON (Expecting value: line 1 column 1 (char 0))",
    ),
    "no JSON": (
        {**net(), "sweep/sweep.json": "hello"},
        "it is not JSON (Expecting value: line 1 column 1 (char 0))",
    ),
    "a list": (
        {**net(), "sweep/sweep.json": "[]"},
        "automup_sweep must be 1, and there is none",
    ),
    "null": (
        {**net(), "sweep/sweep.json": "null"},
        "automup_sweep must be 1, and there is none",
    ),
    "truncated": (
        {**net(), "sweep/sweep.json": GOOD[:300]},
        "it is not JSON (Expecting property name enclosed in double quotes: line 1 column 301 "
        "(char 300))",
    ),
    "a NaN": (
        {**net(), "sweep/sweep.json": GOOD.replace("0.125", "NaN")},
        "it holds NaN, which is no number",
    ),
    "an infinity": (
        {**net(), "sweep/sweep.json": GOOD.replace("0.125", "1e999")},
        "runs[0].lr is inf",
    ),
    "binary": (
        {**net(), "sweep/sweep.json": b"\x80\x04pickle"},
        "it is not UTF-8",
    ),
    "nested": (
        {**net(), "sweep/sweep.json": "[" * 100_000},
        "its lists are nested too deeply",
    ),
    "UTF-16": (
        {**net(), "sweep/sweep.json": GOOD.encode("utf-16")},
        "it is not UTF-8",
    ),
    "twice": (
        {**net(), "sweep/sweep.json": GOOD * 2},
        "it is not JSON (Extra data: line 1 column 891 (char 890))",
    ),
    "another schema": (
        swept(automup_sweep=2),
        "automup_sweep must be 1, and it has 2",
    ),
    "no schema": (
        swept(automup_sweep=...),
        "automup_sweep must be 1, and there is none",
    ),
    "a schema in text": (
        swept(automup_sweep="1"),
        "automup_sweep must be 1, and it has 1",
    ),
    "a true schema": (
        swept(automup_sweep=True),
        "automup_sweep must be 1, and it has True",
    ),
    "an unknown key": (
        swept(extra=1),
        "extra is not known",
    ),
    "no runs": (
        swept(runs=[]),
        "it has no runs in muP",
    ),
    "runs in an object": (
        swept(runs={}),
        "runs is dict, not a list",
    ),
    "a run of nothing": (
        swept(runs=[None]),
        "runs[0] is None, not an object",
    ),
    "runs missing": (
        swept(runs=...),
        "runs is missing",
    ),
    "a run twice": (
        swept(runs=[*RUNS, RUNS[0]]),
        "its runs are no whole grid of learning rates and seeds",
    ),
    "a run too few": (
        swept(runs=RUNS[1:]),
        "its runs are no whole grid of learning rates and seeds",
    ),
    "runs of SP alone": (
        swept(runs=[{**run, "parametrization": "sp"} for run in RUNS]),
        "it has no runs in muP",
    ),
    "a parametrization unknown": (
        swept(run={"parametrization": "ntk"}),
        "runs[0].parametrization is neither mup nor sp",
    ),
    "a parametrization as a number": (
        swept(run={"parametrization": 3}),
        "runs[0].parametrization is 3, not text",
    ),
    "a width unknown": (
        swept(run={"multiple": 3}),
        "runs[0].multiple is no width of about.knobs",
    ),
    "a width in text": (
        swept(run={"multiple": "1"}),
        "runs[0].multiple is '1', not a number",
    ),
    "a width negative": (
        swept(run={"multiple": -1}),
        "runs[0].multiple is no width of about.knobs",
    ),
    "an lr of 0": (
        swept(run={"lr": 0}),
        "runs[0].lr is 0",
    ),
    "an lr negative": (
        swept(run={"lr": -1}),
        "runs[0].lr is -1",
    ),
    "an lr enormous": (
        swept(run={"lr": 1e308}),
        "runs[0].lr is 1e+308",
    ),
    "an lr missing": (
        swept(run={"lr": ...}),
        "runs[0].lr is missing",
    ),
    "an lr true": (
        swept(run={"lr": True}),
        "runs[0].lr is True, not a number",
    ),
    "a seed in text": (
        swept(run={"seed": "0"}),
        "runs[0].seed is '0', not a whole number",
    ),
    "a seed in between": (
        swept(run={"seed": 0.5}),
        "runs[0].seed is 0.5, not a whole number",
    ),
    "a loss in text": (
        swept(run={"loss": "1"}),
        "runs[0].loss is '1', not a number",
    ),
    "a loss missing": (
        swept(run={"loss": ...}),
        "runs[0].loss is missing",
    ),
    "a loss in a list": (
        swept(run={"loss": [1]}),
        "runs[0].loss is list, not a number",
    ),
    "a key in a run": (
        swept(run={"x": 1}),
        "runs[0].x is not known",
    ),
    "no knobs": (
        swept(about={"knobs": {}}),
        "runs[0].multiple is no width of about.knobs",
    ),
    "knobs in text": (
        swept(about={"knobs": "width"}),
        "about.knobs is 'width', not an object",
    ),
    "a knob in text": (
        swept(about={"knobs": {"1": "width=16", "2": {}}}),
        "about.knobs.1 is 'width=16', not an object",
    ),
    "no base": (
        swept(about={"base": ...}),
        "about.base is missing",
    ),
    "an optimizer as a number": (
        swept(about={"optimizer": 3}),
        "about.optimizer is 3, not text",
    ),
    "a setting lr": (
        swept(about={"options": {"lr": 1}}),
        "about.options.lr is no setting",
    ),
    "a setting params": (
        swept(about={"options": {"params": []}}),
        "about.options.params is no setting",
    ),
    "a constant in text": (
        swept(about={"constants": {"output_mult": "2"}}),
        "about.constants.output_mult is '2', not a number",
    ),
    "steps in text": (
        swept(about={"steps": "2"}),
        "about.steps is '2', not a whole number",
    ),
    "an escape in the model's name": (
        swept(about={"model": "Net\x1b[2J"}),
        "about.model holds characters that cannot be printed",
    ),
    "a call in text": (
        swept(about={"call": "net.py"}),
        "about.call is 'net.py', not an object",
    ),
    "a call of no model": (
        swept(call={"model": ...}),
        "about.call.model is missing",
    ),
    "a model as a number": (
        swept(call={"model": 3}),
        "about.call.model is 3, not text",
    ),
    "a model in a list": (
        swept(call={"model": ["net.py"]}),
        "about.call.model is list, not text",
    ),
    "bases in text": (
        swept(call={"base": "width=16"}),
        "about.call.base is 'width=16', not a list",
    ),
    "a base as a number": (
        swept(call={"base": [3]}),
        "about.call.base[0] is 3, not text",
    ),
    "strict as text": (
        swept(call={"strict": "yes"}),
        "about.call.strict is 'yes', not true or false",
    ),
    "another option": (
        swept(call={"isolated": False}),
        "about.call.isolated is not known",
    ),
    "tuned in text": (
        swept(tuned="yes"),
        "tuned is 'yes', not an object",
    ),
    "tuned a list": (
        swept(tuned=[]),
        "tuned is list, not an object",
    ),
    "tuned of nothing": (
        swept(tuned={}),
        "tuned.constants is missing",
    ),
}
"""What is no sweep, and why."""
UNFIT = {
    "all diverged": (
        swept(runs=[{**run, "loss": None} for run in RUNS]),
        "Every run of the narrowest width diverged: there is nothing to transfer.",
    ),
    "another base": (
        swept(about={"base": {"width": 8}}),
        "The model has the base width=16 now, and the sweep was run with width=8. Give the "
        "model its old defaults again, or run the sweep again.",
    ),
    "an optimizer unknown": (
        swept(about={"optimizer": "nope"}),
        "There is no optimizer 'nope'. Known: [...].",
    ),
    "a setting unknown": (
        swept(about={"options": {"x": 1}}),
        "AdamW takes no x. It takes [...].",
    ),
    "a constant unknown": (
        swept(about={"constants": {"x": 1}}),
        "No constant 'x'. Known: [...].",
    ),
    "a constant negative": (
        swept(about={"constants": {"output_mult": -1}}),
        "output_mult cannot be -1. Pass a finite number above 0.",
    ),
    "a constant without a place": (
        swept(about={"constants": {"attention_mult": 2}}),
        "attention_mult: the model has no multiplier in μP (its logits do not grow with "
        "width), so there is no place for a constant. Leave attention_mult at 1, or write the "
        "multiplier into the model.",
    ),
    "no call": (
        swept(about={"call": ...}),
        "This sweep was run in Python, which has the model. (sweep) Call mu.transfer(result, "
        "...) there.",
    ),
    "a call of nothing": (
        swept(about={"call": None}),
        "This sweep was run in Python, which has the model. (sweep) Call mu.transfer(result, "
        "...) there.",
    ),
    "a model that is not there": (
        swept(call={"model": "other.py"}),
        "other.py: no such file. Pass a Python file, such as model.py or model.py:ClassName.",
    ),
    "a model on the net": (
        swept(call={"model": "https://example.org/net.py"}),
        "https:/example.org/net.py: no such file. Pass a Python file, such as model.py or "
        "model.py:ClassName.",
    ),
    "a model that is no model": (
        swept(call={"model": "os:getcwd"}),
        "getcwd is a builtin_function_or_method object, not an nn.Module class or a function "
        "that returns one. (os.py) Name the class, or a function that builds the model.",
    ),
    "the model is gone": (
        {"sweep/sweep.json": GOOD},
        "net.py: no such file. Pass a Python file, such as model.py or model.py:ClassName.",
    ),
    "the model has other names": (
        {**swept(), "net.py": NET.replace("width", "size")},
        "Net has no field 'width'. (net.py) It has size, features.",
    ),
    "the model has another base": (
        {**swept(), "net.py": NET.replace("int = 16", "int = 8")},
        "The model has the base width=8 now, and the sweep was run with width=16. Give the "
        "model its old defaults again, or run the sweep again.",
    ),
}
"""A whole sweep that cannot be carried anywhere, and what is said."""

CASES = [
    Case("transfer", TRANSFER, 0, "", swept()),
    *(
        Case(f"transfer {rest}", f"transfer {rest}".strip(), status, f"automup: {says}", swept())
        for rest, (status, says) in OPTIONS.items()
    ),
    *(
        Case(
            f"a sweep: {name}",
            TRANSFER,
            1,
            f"automup: Not a sweep of schema 1: {reason}. (sweep/sweep.json) Write it again with "
            "the same `automup sweep` command.",
            files,
        )
        for name, (files, reason) in DAMAGED.items()
    ),
    *(
        Case(f"a sweep: {name}", TRANSFER, 2, f"automup: {says}", files)
        for name, (files, says) in UNFIT.items()
    ),
]
