"""How a model file is organised, and what is the model in it."""

# ruff: noqa: E501 (a model file is one line here)

from __future__ import annotations

import textwrap

from case import CONVERT, HEAD, NET, WIDE, Case, changed, net

CASES = [
    Case(
        "a sum of 1500 terms",
        WIDE,
        1,
        "automup: Something is nested more deeply than Python can follow, such as an "
        "expression of many hundred terms. Write it in several statements.",
        net(top="y = 1" + "+1" * 1500 + "\n"),
    ),
    Case(
        "nested ifs",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(top="".join("    " * i + "if True:\n" for i in range(90)) + "    " * 90 + "pass\n"),
    ),
    Case(
        "circular",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {"net.py": "import other\n" + NET, "other.py": "import net\nW = 3\n"},
    ),
    Case(
        "circular from",
        WIDE,
        2,
        "automup: HERE/net.py cannot be imported: ImportError: cannot import name 'V' "
        "from 'net' (HERE/net.py). (other.py:1)",
        {
            "net.py": "from other import W\n" + NET + "V = 3\n",
            "other.py": "from net import V\nW = 3\n",
        },
    ),
    Case(
        "relative no package",
        WIDE,
        2,
        "automup: HERE/net.py cannot be imported: ImportError: attempted relative "
        "import with no known parent package. (net.py:1)",
        {
            "net.py": "from .part import SIZE\n" + NET,
            "part.py": "import torch.nn as nn\nSIZE = 6\n",
        },
    ),
    Case(
        "relative beyond",
        WIDE.replace("net.py", "pkg/net.py"),
        2,
        "automup: HERE/pkg/net.py cannot be imported: ImportError: attempted relative "
        "import beyond top-level package. (net.py:1)",
        {"pkg/__init__.py": "", "pkg/net.py": "from ...part import SIZE\n" + NET},
    ),
    Case(
        "package",
        WIDE.replace("net.py", "pkg/net.py"),
        0,
        "mu.py: Net in μP; base width=16",
        {
            "pkg/__init__.py": "from .part import SIZE\n",
            "pkg/part.py": "import torch.nn as nn\nSIZE = 6\n",
            "pkg/net.py": "from .part import SIZE\nfrom . import SIZE as S\n" + NET,
        },
    ),
    Case(
        "package init raises",
        WIDE.replace("net.py", "pkg/net.py"),
        2,
        "automup: HERE/pkg/net.py cannot be imported: ZeroDivisionError: division by "
        "zero. (__init__.py:1)",
        {"pkg/__init__.py": "1/0\n", "pkg/net.py": NET},
    ),
    Case(
        "package bad name",
        WIDE.replace("net.py", "my-pkg/net.py"),
        0,
        "mu.py: Net in μP; base width=16",
        {"my-pkg/__init__.py": "", "my-pkg/net.py": NET},
    ),
    Case(
        "package init is model",
        WIDE.replace("net.py", "pkg/__init__.py"),
        0,
        "mu.py: Net in μP; base width=16",
        {"pkg/__init__.py": NET},
    ),
    Case(
        "dash name",
        WIDE.replace("net.py", "my-net.v2.py"),
        0,
        "mu.py: Net in μP; base width=16",
        {"my-net.v2.py": NET},
    ),
    Case(
        "stdlib name",
        WIDE.replace("net.py", "random.py"),
        0,
        "mu.py: Net in μP; base width=16",
        {"random.py": NET},
    ),
    Case(
        "torch name",
        WIDE.replace("net.py", "torch.py"),
        0,
        "mu.py: Net in μP; base width=16",
        {"torch.py": NET},
    ),
    Case(
        "module spec missing",
        "explain pkg.nat:Net",
        2,
        "automup: pkg.nat cannot be imported: ModuleNotFoundError: No module named "
        "'pkg.nat'. Install pkg.nat, or put its folder on PYTHONPATH.",
        {"pkg/__init__.py": "", "pkg/net.py": NET},
    ),
    Case(
        "module spec torch",
        "explain torch.nn:Linear",
        2,
        "automup: Linear needs in_features, out_features: no default is known. "
        "(__init__.py) Pass --base in_features=VALUE --base out_features=VALUE, or "
        "name a function that makes the model: __init__.py:FUNCTION.",
        {},
    ),
    Case(
        "module spec function attr",
        "explain pkg.net:torch",
        2,
        "automup: torch is a module object, not an nn.Module class or a function that "
        "returns one. (net.py) Name the class, or a function that builds the model.",
        {"pkg/__init__.py": "", "pkg/net.py": NET},
    ),
    Case(
        "main guard",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(bottom="\n\nif __name__ == '__main__':\n    raise SystemExit(Net())\n"),
    ),
    Case(
        "no defaults",
        CONVERT,
        2,
        "automup: Net needs width, features: no default is known. (net.py) Pass --base "
        "width=VALUE --base features=VALUE, or name a function that makes the model: "
        "net.py:FUNCTION.",
        net(takes="self, width, features"),
    ),
    Case(
        "no defaults width",
        WIDE,
        2,
        "automup: Net needs features: no default is known. (net.py) Pass --base features=VALUE, or "
        "name a function that makes the model: net.py:FUNCTION.",
        net(takes="self, width, features"),
    ),
    Case(
        "no defaults given",
        WIDE + " --base features=6",
        0,
        "mu.py: Net in μP; base width=256",
        net(takes="self, width, features"),
    ),
    Case(
        "star args",
        CONVERT,
        1,
        "automup: Net() cannot be built: IndexError: tuple index out of range. "
        "(net.py:8) Pass what it needs with --base NAME=VALUE, or name a function that "
        "builds it: net.py:FUNCTION.",
        changed(
            net(takes="self, *sizes"),
            ("features, width", "6, sizes[0]"),
            ("width, 3", "sizes[0], 3"),
        ),
    ),
    Case(
        "star kwargs",
        CONVERT,
        1,
        "automup: Net() cannot be built: KeyError: 'width'. (net.py:8) Pass what it "
        "needs with --base NAME=VALUE, or name a function that builds it: "
        "net.py:FUNCTION.",
        changed(
            net(takes="self, **kw"),
            ("features, width", "6, kw['width']"),
            ("width, 3", "kw['width'], 3"),
        ),
    ),
    Case(
        "kwargs named",
        WIDE + " --base width=16",
        0,
        "mu.py: Net in μP; base width=16",
        changed(
            net(takes="self, **kw"),
            ("features, width", "6, kw['width']"),
            ("width, 3", "kw['width'], 3"),
        ),
    ),
    Case(
        "positional only",
        WIDE,
        2,
        "automup: Net has no field 'width'. (net.py) It has features.",
        net(takes="self, width=16, /, features=6"),
    ),
    Case(
        "keyword only",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(takes="self, *, width=16, features=6"),
    ),
    Case(
        "string width",
        WIDE + " --base width=wide",
        2,
        "automup: A width cannot be width='wide': it is a positive number. Pass width=256, or so.",
        net(),
    ),
    Case(
        "float width",
        WIDE + " --base width=16.5",
        1,
        "automup: Net(width=16.5) cannot be built: TypeError: empty(): argument 'size' "
        "(position 1) must be tuple of ints, but found element of type float at pos 0. "
        "(net.py:8) Choose other values with --base NAME=VALUE.",
        net(),
    ),
    Case(
        "bool width",
        WIDE + " --base width=true",
        2,
        "automup: A width cannot be width=True: it is a positive number. Pass width=256, or so.",
        net(),
    ),
    Case(
        "neg width",
        WIDE + " --base width=-4",
        2,
        "automup: A width cannot be width=-4: it is a positive number. Pass width=256, or so.",
        net(),
    ),
    Case(
        "huge width 2",
        WIDE + " --base width=1" + "0" * 30,
        1,
        "automup: Net(width=1000000000000000000000000000000) cannot be built: "
        "TypeError: empty(): argument 'size' failed to unpack the object at pos 1 with "
        'error "Overflow when unpacking long long. (net.py:8) Choose other values with '
        "--base NAME=VALUE.",
        net(),
    ),
    Case(
        "width 1",
        WIDE + " --base width=1",
        0,
        "mu.py: Net in μP; base width=1",
        net(),
    ),
    Case(
        "abstract",
        WIDE,
        1,
        "automup: Net(width=16) cannot be built: TypeError: [...]. (net.py) Choose "
        "other values with --base NAME=VALUE.",
        net(
            top="import abc\n\n\n",
            bases="nn.Module, abc.ABC",
            hidden="h = self.act(h)",
            bottom="\n    @abc.abstractmethod\n    def act(self, x): ...\n",
        ),
    ),
    Case(
        "forward missing",
        WIDE,
        1,
        "automup: No example input makes Net.forward(input) run. Tried float32[2, 6]; "
        "float32[2, 12, 6]; float32[2, 8, 6] and more; what it met first was "
        'NotImplementedError: Module [Net] is missing the required "forward" function. '
        "Pass --input 'idx:int64[2,16]<96', or inputs= in Python.",
        changed(net(), ("def forward", "def backward")),
    ),
    Case(
        "super init missing",
        WIDE,
        1,
        "automup: Net(width=16) cannot be built: AttributeError: cannot assign module "
        "before Module.__init__() call. (net.py:7) Choose other values with --base "
        "NAME=VALUE.",
        changed(net(), ("        super().__init__()\n", "")),
    ),
    Case(
        "nested class",
        CONVERT,
        2,
        "automup: HERE/net.py defines no nn.Module class at its top level. Pass the "
        "file that defines the model.",
        {"net.py": "class Outer:\n" + textwrap.indent(NET, "    ")},
    ),
    Case(
        "nested class named",
        "convert net.py:Outer.Net --out mu.py",
        1,
        "automup: Net() cannot be built: NameError: name 'nn' is not defined. "
        "(net.py:9) Pass what it needs with --base NAME=VALUE, or name a function that "
        "builds it: net.py:FUNCTION.",
        {"net.py": "class Outer:\n" + textwrap.indent(NET, "    ")},
    ),
    Case(
        "duplicated",
        WIDE,
        1,
        "automup: The file defines the class Net 2 times. (net.py) Leave one of them, "
        "or rename the others.",
        {"net.py": NET + NET},
    ),
    Case(
        "decorated",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(top="def keep(c):\n    c.kept = True\n    return c\n\n\n@keep\n"),
    ),
    Case(
        "decorated wrap",
        WIDE,
        2,
        "automup: HERE/net.py defines no nn.Module class at its top level. Pass the "
        "file that defines the model, or name a function: net.py:wrap.",
        net(top="def wrap(c):\n    return lambda *a, **k: c(*a, **k)\n\n\n@wrap\n"),
    ),
    Case(
        "decorated to function named",
        WIDE.replace("net.py", "net.py:Net"),
        1,
        "automup: <lambda> builds a Net, whose class is not at the top level of the "
        "file. (HERE/net.py) Build the model in the constructor of a class of the file,"
        " which <lambda> then returns.",
        net(top="def wrap(c):\n    return lambda *a, **k: c(*a, **k)\n\n\n@wrap\n"),
    ),
    Case(
        "dataclass module",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {
            "net.py": "import torch, dataclasses\nimport torch.nn as nn\n@dataclasses.dataclass(eq=False)\nclass Net(nn.Module):\n    width: int = 16\n    def __post_init__(self):\n        super().__init__()\n        self.a = nn.Linear(6, self.width)\n        self.b = nn.Linear(self.width, 3)\n    def forward(self, x): return self.b(torch.relu(self.a(x)))\n"
        },
    ),
    Case(
        "generated",
        CONVERT,
        1,
        "automup: The class Net is not at the top level of the file. (net.py) Convert "
        "the file that defines it.",
        {
            "net.py": HEAD
            + "def init(self, width=16):\n    nn.Module.__init__(self)\n    self.a = nn.Linear(6, width)\n    self.b = nn.Linear(width, 3)\n\n\ndef forward(self, x):\n    return self.b(torch.relu(self.a(x)))\n\n\nNet = type('Net', (nn.Module,), {'__init__': init, 'forward': forward})\n"
        },
    ),
    Case(
        "exec generated",
        CONVERT,
        1,
        "automup: The class Net is not at the top level of the file. (net.py) Convert "
        "the file that defines it.",
        {"net.py": "exec(" + repr(NET) + ")\n"},
    ),
    Case(
        "getattr module",
        "convert net.py:Net --out mu.py",
        2,
        "automup: net.py has no 'Net'. (net.py) It has no model.",
        {"net.py": "def __getattr__(name):\n    raise AttributeError(name)\n"},
    ),
    Case(
        "meta class",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(top="class M(type):\n    pass\n\n\n", bases="nn.Module, metaclass=M"),
    ),
    Case(
        "instance",
        "convert net.py:net --out mu.py",
        2,
        "automup: net is a Net object, not an nn.Module class or a function that "
        "returns one. (net.py) Name the class, or a function that builds the model.",
        net(bottom="\n\nnet = Net()\n"),
    ),
    Case(
        "function raises",
        "explain net.py:make",
        1,
        "automup: make() cannot be built: ValueError: nope. (net.py:18) Pass what it "
        "needs with --base NAME=VALUE, or name a function that builds it: "
        "net.py:FUNCTION.",
        net(bottom="\n\ndef make(width=16):\n    raise ValueError('nope')\n"),
    ),
    Case(
        "function returns None",
        "explain net.py:make",
        2,
        "automup: make() returns NoneType, which is not an nn.Module. (net.py)",
        net(bottom="\n\ndef make(width=16):\n    Net(width)\n"),
    ),
    Case(
        "function nested return",
        "explain net.py:make",
        2,
        "automup: make() returns list, which is not an nn.Module. (net.py)",
        net(bottom="\n\ndef make(width=16):\n    return [Net(width)]\n"),
    ),
    Case(
        "scripted",
        "explain net.py:net",
        2,
        "automup: net is a RecursiveScriptModule object, not an nn.Module class or a "
        "function that returns one. (net.py) Name the class, or a function that builds "
        "the model.",
        net(bottom="\n\nnet = torch.jit.script(Net())\n"),
    ),
    Case(
        "generator forward",
        WIDE,
        1,
        "automup: No example input makes Net.forward(x) run. Tried float32[2, 6]; "
        "float32[2, 12, 6]; float32[2, 8, 6] and more; what it met first was forward "
        "returns no floating-point tensor (generator). Pass --input "
        "'idx:int64[2,16]<96', or inputs= in Python.",
        net("yield h"),
    ),
    Case(
        "lambda model",
        "explain net.py:make",
        0,
        "",
        net(bottom="\n\nmake = lambda width=16: Net(width)\n"),
    ),
]
