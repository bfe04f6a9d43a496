"""Options that cannot be meant."""

from __future__ import annotations

from case import CONVERT, NET, WIDE, Case, net

CASES = [
    Case(
        "opt base twice",
        CONVERT + " --base width=1 --base width=2",
        2,
        "automup: width is given twice. Give each name one value.",
        net(),
    ),
    Case(
        "opt base nonsense",
        CONVERT + " --base =3",
        2,
        "automup: '=3' is not NAME=VALUE. Write n_embd=256.",
        net(),
    ),
    Case(
        "opt width twice",
        WIDE + ",width",
        0,
        "mu.py: Net in μP; base width=16",
        net(),
    ),
    Case(
        "opt target zero",
        "explain net.py --width width --target width=0",
        2,
        "automup: A width cannot be width=0: it is a positive number. Pass width=256, or so.",
        net(),
    ),
    Case(
        "opt target negative",
        "explain net.py --width width --target width=-8",
        2,
        "automup: A width cannot be width=-8: it is a positive number. Pass width=256, or so.",
        net(),
    ),
    Case(
        "opt target text",
        "explain net.py --width width --target width=big",
        2,
        "automup: A width cannot be width='big': it is a positive number. Pass width=256, or so.",
        net(),
    ),
    Case(
        "opt target float",
        "explain net.py --width width --target width=64.5",
        1,
        "automup: Net(width=64.5) cannot be built: TypeError: empty(): argument 'size' "
        "(position 1) must be tuple of ints, but found element of type float at pos 0. "
        "(net.py:8) Choose other values with --base NAME=VALUE.",
        net(),
    ),
    Case(
        "opt target overflow",
        "explain net.py --width width --target width=1000000000000000000000",
        1,
        "automup: Net(width=1000000000000000000000) cannot be built: TypeError: "
        "empty(): argument 'size' failed to unpack the object at pos 1 with error "
        '"Overflow when unpacking long long. (net.py:8) Choose other values with --base'
        " NAME=VALUE.",
        net(),
    ),
    Case(
        "opt input zero",
        WIDE + " --input x:float32[0,6]",
        0,
        "mu.py: Net in μP; base width=16",
        net(),
    ),
    Case(
        "opt input empty",
        WIDE + " --input x:float32[]",
        1,
        "automup: The model failed while it was traced (eval, width=16): RuntimeError: "
        "both arguments to linear need to be at least 1D, but they are 0D and 2D. "
        "(net.py:12) Pass other example inputs.",
        net(),
    ),
    Case(
        "opt input dtype",
        WIDE + " --input x:float99[2,6]",
        2,
        "automup: --input 'x:float99[2,6]': 'float99' is not a dtype. Use int64, float32 or bool.",
        net(),
    ),
    Case(
        "opt input huge",
        WIDE + " --input x:float32[999999999,999999999]",
        2,
        "automup: --input 'x:float32[999999999,999999999]': too large for an example. "
        "Fewer samples say as much.",
        net(),
    ),
    Case(
        "opt input neg",
        WIDE + " --input x:float32[-1,6]",
        2,
        "automup: --input 'x:float32[-1,6]' is not NAME:DTYPE[SIZES]. Write "
        "'idx:int64[2,16]<96' or 'x:float32[2,3,32,32]'.",
        net(),
    ),
    Case(
        "opt input name",
        WIDE + " --input y:float32[2,6]",
        1,
        "automup: Net.forward has no argument 'y'. Did you mean 'x'?",
        net(),
    ),
    Case(
        "opt input bound",
        WIDE + " --input x:float32[2,6]<3",
        2,
        "automup: --input 'x:float32[2,6]<3': the bound < is for integers, and at least"
        " 1. Drop it.",
        net(),
    ),
    Case(
        "opt input bound0",
        WIDE + " --input x:int64[2,6]<0",
        2,
        "automup: --input 'x:int64[2,6]<0': the bound < is for integers, and at least 1. Drop it.",
        net(),
    ),
    Case(
        "opt input twice",
        WIDE + " --input x:float32[2,6] --input x:float32[2,6]",
        2,
        "automup: --input x is given twice. Give each name once.",
        net(),
    ),
    Case(
        "opt input two",
        WIDE + " --input float32[2,6] --input float32[2,6]",
        1,
        "automup: Net.forward cannot be called with these inputs: too many positional "
        "arguments. It is forward(x).",
        net(),
    ),
    Case(
        "opt override nonsense",
        WIDE + " --override stem",
        2,
        "automup: 'stem' is not PATTERN=ROLE. Write --override 'blocks.*.w=hidden'.",
        net(),
    ),
    Case(
        "opt override role",
        WIDE + " --override *=big",
        2,
        "automup: The override for '*' is 'big', which is no role. Roles are input, "
        "hidden, output, scalar; or name dimensions: 'Fans(fan_in=1, fan_out=0)'.",
        net(),
    ),
    Case(
        "opt override none",
        WIDE + " --override nope.*=hidden",
        2,
        "automup: The override for 'nope.*' matches no parameter. Parameters are "
        "stem.weight, stem.bias, head.weight, …",
        net(),
    ),
    Case(
        "opt override misfit",
        WIDE + " --override stem.bias=hidden",
        2,
        "automup: stem.bias is said to be a hidden weight, which has two that grow, but"
        " only its dimension 0 grows. Roles that fit: Role.INPUT, Role.OUTPUT.",
        net(),
    ),
    Case(
        "opt override hack",
        WIDE + " --override stem.weight=__import__('os').system('touch_owned')",
        2,
        "automup: The override for 'stem.weight' is "
        "\"__import__('os').system('touch_owned')\", which is no role. Roles are input, "
        "hidden, output, scalar; or name dimensions: 'Fans(fan_in=1, fan_out=0)'.",
        net(),
    ),
    Case(
        "opt optimizer",
        "explain net.py --optimizer nope",
        2,
        "automup: There is no optimizer 'nope'. Known: [...].",
        net(),
    ),
    Case(
        "opt out empty",
        "convert net.py --out=",
        2,
        "automup: . is a folder. Name a file in it.",
        net(),
    ),
    Case(
        "opt out dir",
        "convert net.py --out sub/",
        2,
        "automup: sub is a folder. Name a file in it.",
        {**net(), "sub/x": ""},
    ),
    Case(
        "opt out file as dir",
        "convert net.py --out net.py/mu.py",
        2,
        "automup: Cannot write there: no such folder. (net.py) Make it, or write somewhere else.",
        net(),
    ),
    Case(
        "opt save model",
        "explain net.py --save net.py",
        2,
        "automup: That file is there and is no plan. (net.py) Name a .json file.",
        net(),
    ),
    Case(
        "opt spec empty",
        "explain :Net",
        2,
        "automup: . is a folder. Pass a Python file, such as model.py or model.py:ClassName.",
        net(),
    ),
    Case(
        "opt spec colon",
        "explain net.py:",
        2,
        "automup: net.py:: no such file. Pass a Python file, such as model.py or "
        "model.py:ClassName.",
        net(),
    ),
    Case(
        "opt spec two",
        "explain net.py:Net:Net",
        2,
        "automup: net.py:Net: no such file. Pass a Python file, such as model.py or "
        "model.py:ClassName.",
        net(),
    ),
    Case(
        "opt spec number",
        "explain net.py:3",
        2,
        "automup: net.py:3: no such file. Pass a Python file, such as model.py or "
        "model.py:ClassName.",
        net(),
    ),
    Case(
        "opt spec star",
        "explain *.py",
        2,
        "automup: *.py: no such file. Pass a Python file, such as model.py or model.py:ClassName.",
        net(),
    ),
    Case(
        "opt spec url",
        "explain https://example.org/net.py",
        2,
        "automup: https:/example.org/net.py: no such file. Pass a Python file, such as "
        "model.py or model.py:ClassName.",
        net(),
    ),
    Case(
        "opt spec builtin",
        "explain net.py:__name__",
        2,
        "automup: __name__ is a str object, not an nn.Module class or a function that "
        "returns one. (net.py) Name the class, or a function that builds the model.",
        net(),
    ),
    Case(
        "opt ext upper",
        "explain NET.PY",
        2,
        "automup: NET.PY is not a Python file. Pass a Python file, such as model.py or "
        "model.py:ClassName.",
        {"NET.PY": NET},
    ),
]
