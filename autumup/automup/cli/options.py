"""The options that commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="path.py, path.py:ClassName or package.mod:ClassName")
]
Base = Annotated[
    list[str] | None,
    typer.Option("--base", metavar="NAME=VALUE", help="A knob's value where μP equals SP."),
]
Width = Annotated[
    str, typer.Option("--width", metavar="NAMES", help="Which knobs scale: n_embd,n_head.")
]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="NAME=VALUE", help="Where to train. Default: 4 × base."),
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="SPEC", help="An example input: 'idx:int64[2,16]<96'."),
]
Optimizer = Annotated[
    str, typer.Option("--optimizer", help="adamw, adam, sgd, muon, lion, adafactor, …")
]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--override",
        metavar="PATTERN=ROLE",
        help="What a parameter is: 'blocks.*.w=hidden', or input, output, scalar.",
    ),
]
Constant = Annotated[
    list[str] | None,
    typer.Option(
        "--constant",
        metavar="NAME=VALUE",
        help="A tuned constant, as output_mult=4 or input_lr=0.25; see automup.Constants.",
    ),
]
Form = Annotated[
    str,
    typer.Option(
        "--form", help="default, uniform-lr, uniform-lr-sgd, table8: where factors stand."
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict/--no-strict", help="Refuse what could not be resolved.")
]
