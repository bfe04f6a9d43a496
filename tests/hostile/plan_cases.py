"""Plan files that are damaged, edited, of another version, or hostile."""

from __future__ import annotations

import json
from typing import Any

from case import Case

PLAN = "explain plan.json"
PARAMETER = {
    "name": "w", "names": ["w"], "shape": [32, 6], "base_shape": [16, 6], "fan_in": 6,
    "fan_out": 32, "base_fan_in": 6, "base_fan_out": 16, "fan_in_dims": [], "fan_out_dims": [0],
    "init_kind": "normal", "init_std": 0.1, "init_mult": 1.0, "init_law": None, "reason": "r",
    "source": "net.py:1:1",
}  # fmt: skip
SITE = {
    "kind": "attention", "span": dict.fromkeys(("line", "column", "end_line", "end_column"), 1)
    | {"file": "net.py"}, "function": "f", "op": "mm", "exponents": [["width", -0.5]],
    "factor": 0.5, "modules": ["net"], "reason": "r",
}  # fmt: skip


def plan(parameter: dict[str, Any] | None = None, **changes: Any) -> dict[str, str | bytes]:
    """A folder with a plan, in which some facts are others; ... takes one out."""
    facts = {
        "automup_plan": 1, "model": "Net", "base": {"width": 16}, "target": {"width": 32},
        "parameters": [PARAMETER | (parameter or {})], "sites": [SITE], "unresolved": [],
        "notes": [],
    } | changes  # fmt: skip
    return {"plan.json": json.dumps({k: v for k, v in facts.items() if v is not ...})}


CASES = [
    Case(
        "plan good",
        PLAN,
        0,
        "",
        plan(),
    ),
    Case(
        "plan missing",
        PLAN,
        1,
        "automup: Cannot read the plan: No such file or directory. (plan.json)",
        {},
    ),
    Case(
        "plan empty",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: it is not JSON (Expecting value: line 1 "
        "column 1 (char 0)). (plan.json) Make it again with `automup explain MODEL "
        "--save FILE`.",
        {"plan.json": ""},
    ),
    Case(
        "plan truncated",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: it is not JSON (Unterminated string "
        "starting at: line 1 column 199 (char 198)). (plan.json) Make it again with "
        "`automup explain MODEL --save FILE`.",
        {"plan.json": plan()["plan.json"][:200]},
    ),
    Case(
        "plan binary",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: it is not UTF-8. (plan.json) Make it "
        "again with `automup explain MODEL --save FILE`.",
        {"plan.json": b"\x80\x04\x95pickle"},
    ),
    Case(
        "plan pickle",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: it is not JSON (Expecting value: line 1 "
        "column 1 (char 0)). (plan.json) Make it again with `automup explain MODEL "
        "--save FILE`.",
        {"plan.json": b"cos\nsystem\n(S'touch owned'\ntR."},
    ),
    Case(
        "plan folder",
        PLAN,
        1,
        "automup: The plan is no ordinary file. (plan.json)",
        {"plan.json/x": ""},
    ),
    Case(
        "plan list",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: automup_plan must be one of READABLE, "
        "and there is none. (plan.json) Make it again with `automup explain MODEL "
        "--save FILE`.",
        {"plan.json": "[]"},
    ),
    Case(
        "plan number",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: automup_plan must be one of READABLE, "
        "and there is none. (plan.json) Make it again with `automup explain MODEL "
        "--save FILE`.",
        {"plan.json": "3"},
    ),
    Case(
        "plan nan",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: it holds NaN, which is no number. "
        "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
        {"plan.json": plan()["plan.json"].replace("0.1", "NaN")},
    ),
    Case(
        "plan infinity",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].init_std is inf. "
        "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
        {"plan.json": plan()["plan.json"].replace("0.1", "1e999")},
    ),
    Case(
        "plan deep",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: its lists are nested too deeply. "
        "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
        {"plan.json": "[" * 100000},
    ),
    Case(
        "plan long int",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: Exceeds the limit (4300 digits) for "
        "integer string conversion: value has 5000 digits; use "
        "sys.set_int_max_str_digits() to increase the limit. (plan.json) Make it again "
        "with `automup explain MODEL --save FILE`.",
        {"plan.json": '{"automup_plan": ' + "1" * 5000 + "}"},
    ),
    Case(
        "plan newer",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: automup_plan must be one of READABLE, "
        "and it has 99. (plan.json) Make it again with `automup explain MODEL --save "
        "FILE`.",
        plan(automup_plan=99),
    ),
    Case(
        "plan true version",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: automup_plan must be one of READABLE, "
        "and it has True. (plan.json) Make it again with `automup explain MODEL --save "
        "FILE`.",
        plan(automup_plan=True),
    ),
    Case(
        "plan text version",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: automup_plan must be one of READABLE, "
        "and it has 1. (plan.json) Make it again with `automup explain MODEL --save "
        "FILE`.",
        plan(automup_plan="1"),
    ),
    Case(
        "plan unknown key",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: extra is not known. (plan.json) Make it "
        "again with `automup explain MODEL --save FILE`.",
        plan(extra="x"),
    ),
    Case(
        "plan dunder key",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: __class__ is not known. (plan.json) Make"
        " it again with `automup explain MODEL --save FILE`.",
        plan(__class__="os.system"),
    ),
    Case(
        "plan missing key",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters is missing. (plan.json) Make "
        "it again with `automup explain MODEL --save FILE`.",
        plan(parameters=...),
    ),
    Case(
        "plan parameters dict",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters is dict, not a list. "
        "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan(parameters={}),
    ),
    Case(
        "plan parameter null",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0] is None, not an object. "
        "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan(parameters=[None]),
    ),
    Case(
        "plan name number",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].name is 3, not text. "
        "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan({"name": 3}),
    ),
    Case(
        "plan name escape",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].name holds characters that"
        " cannot be printed. (plan.json) Make it again with `automup explain MODEL "
        "--save FILE`.",
        plan({"name": "w\u001b[2J", "names": ["w\u001b[2J"]}),
    ),
    Case(
        "plan name newline",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].name holds characters that"
        " cannot be printed. (plan.json) Make it again with `automup explain MODEL "
        "--save FILE`.",
        plan({"name": "w\nautomup: ok", "names": ["w\nautomup: ok"]}),
    ),
    Case(
        "plan shape text",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].shape is '32', not a list."
        " (plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan({"shape": "32"}),
    ),
    Case(
        "plan shape float",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].shape[0] is 32.5, not a "
        "whole number. (plan.json) Make it again with `automup explain MODEL --save "
        "FILE`.",
        plan({"shape": [32.5, 6]}),
    ),
    Case(
        "plan shape bool",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].shape[0] is True, not a "
        "whole number. (plan.json) Make it again with `automup explain MODEL --save "
        "FILE`.",
        plan({"shape": [True, 6]}),
    ),
    Case(
        "plan shape rank",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].shape, base_shape and the "
        "dimensions in its fans do not fit. (plan.json) Make it again with `automup "
        "explain MODEL --save FILE`.",
        plan({"shape": [32]}),
    ),
    Case(
        "plan dims beyond",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].shape, base_shape and the "
        "dimensions in its fans do not fit. (plan.json) Make it again with `automup "
        "explain MODEL --save FILE`.",
        plan({"fan_out_dims": [7]}),
    ),
    Case(
        "plan dims negative",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].shape, base_shape and the "
        "dimensions in its fans do not fit. (plan.json) Make it again with `automup "
        "explain MODEL --save FILE`.",
        plan({"fan_out_dims": [-1]}),
    ),
    Case(
        "plan zero base",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].shape has a dimension that"
        " grows and cannot be a size. (plan.json) Make it again with `automup explain "
        "MODEL --save FILE`.",
        plan({"base_shape": [0, 6]}),
    ),
    Case(
        "plan negative",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].shape has a dimension that"
        " grows and cannot be a size. (plan.json) Make it again with `automup explain "
        "MODEL --save FILE`.",
        plan({"shape": [-32, 6]}),
    ),
    Case(
        "plan negative mult",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].init_mult is negative. "
        "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan({"init_mult": -1}),
    ),
    Case(
        "plan names",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].names does not begin with "
        "its name. (plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan({"names": []}),
    ),
    Case(
        "plan twice",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: it has two parameters of one name. "
        "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan(parameters=[PARAMETER, PARAMETER]),
    ),
    Case(
        "plan parts",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].parts do not add up to its"
        " shape. (plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan({"parts": [{"size": 3, "base_size": 3, "grows": False, "init_mult": 1.0}]}),
    ),
    Case(
        "plan parts missing",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].parts[0].base_size is "
        "missing. (plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan({"parts": [{"size": 3}]}),
    ),
    *(
        Case(
            f"plan {what}",
            PLAN,
            1,
            "automup: Not a plan of schema SCHEMA: parameters[0].query does not fit its shape. "
            "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
            plan({"query": query}),
        )
        for what, query in {
            "queries of nowhere": [7, 0, 1, 2, 1],
            "queries of nothing": [0, 0, 0, 0, 0],
            "queries beyond": [0, 3, 9, 8, 1],
            "queries of uneven blocks": [0, 0, 1, 3, 0],
            "queries in part": [0, 0],
        }.items()
    ),
    Case(
        "plan site",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: sites[0].span is missing. (plan.json) "
        "Make it again with `automup explain MODEL --save FILE`.",
        plan(sites=[{"kind": "attention"}]),
    ),
    Case(
        "plan site exponents",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: sites[0].exponents[0] has 1 entries, not"
        " 2. (plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan(sites=[SITE | {"exponents": [["a"]]}]),
    ),
    Case(
        "plan huge dims",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: parameters[0].shape has a dimension that"
        " grows and cannot be a size. (plan.json) Make it again with `automup explain "
        "MODEL --save FILE`.",
        plan({"shape": [10**400, 6]}),
    ),
    Case(
        "plan html",
        PLAN + " --format html",
        0,
        "",
        plan(
            {"name": "<script>alert(1)</script>", "names": ["<script>alert(1)</script>"]},
            model="<img src=x onerror=alert(1)>",
        ),
    ),
    Case(
        "plan markdown",
        PLAN + " --format markdown",
        0,
        "",
        plan({"reason": "a | b\\n[x](javascript:alert(1)) `code`"}),
    ),
    Case(
        "plan base text",
        PLAN,
        1,
        "automup: Not a plan of schema SCHEMA: base is 'width', not an object. "
        "(plan.json) Make it again with `automup explain MODEL --save FILE`.",
        plan(base="width"),
    ),
    Case(
        "plan as module",
        "explain plan.json --width w",
        2,
        "automup: --width is for a model; a saved plan has its base, target and inputs "
        "in it. (plan.json) Leave it out, or explain the model.",
        plan(),
    ),
]
