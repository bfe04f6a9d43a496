"""Files that are no model's source, or hardly; and what they do when they are imported."""

# ruff: noqa: E501 (a model file is one line here)

from __future__ import annotations

from case import CONVERT, NET, WIDE, Case, net

CASES = [
    Case(
        "empty",
        CONVERT,
        2,
        "automup: HERE/net.py defines no nn.Module class at its top level. Pass the "
        "file that defines the model.",
        {"net.py": ""},
    ),
    Case(
        "only comments",
        CONVERT,
        2,
        "automup: HERE/net.py defines no nn.Module class at its top level. Pass the "
        "file that defines the model.",
        {"net.py": "# nothing\n"},
    ),
    Case(
        "binary",
        CONVERT,
        2,
        "automup: net.py is no text: it has null bytes. Pass a Python file, such as "
        "model.py or model.py:ClassName.",
        {"net.py": bytes(range(256))},
    ),
    Case(
        "null bytes",
        CONVERT,
        2,
        "automup: net.py is no text: it has null bytes. Pass a Python file, such as "
        "model.py or model.py:ClassName.",
        {"net.py": b"x = 1\0\n"},
    ),
    Case(
        "utf16",
        CONVERT,
        2,
        "automup: net.py is no text: it has null bytes. Pass a Python file, such as "
        "model.py or model.py:ClassName.",
        {"net.py": NET.encode("utf-16")},
    ),
    Case(
        "latin1 declared",
        CONVERT,
        2,
        "automup: net.py is not UTF-8: invalid continuation byte. (net.py:2) Save it as UTF-8.",
        {"net.py": b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + NET.encode()},
    ),
    Case(
        "utf8 declared latin comment",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {"net.py": "# -*- coding: utf-8 -*-\n# café\n" + NET},
    ),
    Case(
        "ascii declared",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {"net.py": "# -*- coding: latin-1 -*-\n# cafe\n" + NET},
    ),
    Case(
        "bom",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {"net.py": b"\xef\xbb\xbf" + NET.encode()},
    ),
    Case(
        "crlf",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {"net.py": NET.replace("\n", "\r\n")},
    ),
    Case(
        "cr only",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {"net.py": NET.replace("\n", "\r")},
    ),
    Case(
        "tabs",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {"net.py": NET.replace("    ", "\t")},
    ),
    Case(
        "mixed tabs",
        WIDE,
        2,
        "automup: HERE/net.py: syntax error: inconsistent use of tabs and spaces in "
        "indentation. (net.py:7)",
        {"net.py": NET.replace("        super", "\tsuper")},
    ),
    Case(
        "form feed",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {"net.py": NET.replace("\n\n\n", "\n\f\n\n")},
    ),
    Case(
        "no newline at end",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        {"net.py": NET.rstrip("\n")},
    ),
    Case(
        "indentation error",
        CONVERT,
        2,
        "automup: HERE/net.py: syntax error: expected an indented block after function "
        "definition on line 1. (net.py:2)",
        {"net.py": "def f():\nreturn 1\n"},
    ),
    Case(
        "syntax error in sibling",
        CONVERT,
        2,
        "automup: HERE/net.py: syntax error: invalid syntax. (part.py:1)",
        {"net.py": "from part import x\n" + NET, "part.py": "def (\n"},
    ),
    Case(
        "python 2",
        CONVERT,
        2,
        "automup: HERE/net.py: syntax error: Missing parentheses in call to 'print'. "
        "Did you mean print(...)?. (net.py:1)",
        {"net.py": "print 'hello'\n"},
    ),
    Case(
        "deep nesting",
        CONVERT,
        2,
        "automup: HERE/net.py: syntax error: too many nested parentheses. (net.py:1)",
        {"net.py": "x = " + "(" * 300 + ")" * 300 + "\n"},
    ),
    Case(
        "deep expr",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: MemoryError[...].",  # how Python says it
        {"net.py": "x = " + "-" * 20000 + "1\n"},
    ),
    Case(
        "notebook",
        "convert net.ipynb --out mu.py",
        2,
        "automup: net.ipynb is not a Python file. Pass a Python file, such as model.py "
        "or model.py:ClassName.",
        {"net.ipynb": "{}"},
    ),
    Case(
        "checkpoint",
        "explain model.pt",
        2,
        "automup: model.pt is not a Python file. Pass a Python file, such as model.py "
        "or model.py:ClassName.",
        {"model.pt": b"PK\3\4"},
    ),
    Case(
        "prints",
        WIDE,
        0,
        "hi\nhi\nmu.py: Net in μP; base width=16",
        net(top="print('hi')\n"),
    ),
    Case(
        "raises import",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: RuntimeError: boom. (net.py:5)",
        net(top="raise RuntimeError('boom')\n"),
    ),
    Case(
        "raises multi-line",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: RuntimeError: boom. (net.py:5)",
        net(top="raise RuntimeError('boom\\nTraceback: more\\nlines')\n"),
    ),
    Case(
        "raises no message",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: RuntimeError. (net.py:5)",
        net(top="raise RuntimeError\n"),
    ),
    Case(
        "raises bad str",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: E, which cannot be printed. (net.py:7)",
        net(top="class E(Exception):\n    def __str__(self): raise self\nraise E\n"),
    ),
    Case(
        "raises non-str str",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: E, which cannot be printed. (net.py:7)",
        net(top="class E(Exception):\n    def __str__(self): return 3\nraise E\n"),
    ),
    Case(
        "raises escape",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: RuntimeError: \\x1b[2J\\x1b]0;t\\x07 "
        "wiped. (net.py:5)",
        net(top="raise RuntimeError('\\x1b[2J\\x1b]0;t\\x07 wiped')\n"),
    ),
    Case(
        "raises long",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: RuntimeError: long long long long "
        "long long long long long long long long long long long long long long long "
        "long long long long long long long long long long long long long long long "
        "long long long long long long long long long long long long long long long "
        "long long long long long long long long long long long …. (net.py:5)",
        net(top="raise RuntimeError('long ' * 100000)\n"),
    ),
    Case(
        "raises BaseException",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: Stop: no. (net.py:6)",
        net(top="class Stop(BaseException): pass\nraise Stop('no')\n"),
    ),
    Case(
        "raises KeyboardInterrupt",
        CONVERT,
        130,
        "automup: interrupted.",
        net(top="raise KeyboardInterrupt\n"),
    ),
    Case(
        "raises GeneratorExit",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: GeneratorExit. (net.py:5)",
        net(top="raise GeneratorExit\n"),
    ),
    Case(
        "raises BaseException built",
        WIDE,
        1,
        "automup: The model raises BaseException: no when it is built or run. "
        "(net.py:10) Derive it from Exception.",
        net(init="raise BaseException('no')"),
    ),
    Case(
        "raises BaseException run",
        WIDE,
        1,
        "automup: The model raises BaseException: no when it is built or run. "
        "(net.py:13) Derive it from Exception.",
        net("raise BaseException('no')"),
    ),
    Case(
        "recursion import",
        CONVERT,
        2,
        "automup: HERE/net.py cannot be imported: RecursionError: [...]. (net.py:5)",
        net(top="def f(): f()\nf()\n"),
    ),
    Case(
        "recursion built",
        WIDE,
        1,
        "automup: Net(width=16) cannot be built: RecursionError: [...]. (net.py:10) "
        "Choose other values with --base NAME=VALUE.",
        net(init="def f(): f()\nf()\n"),
    ),
    Case(
        "memory built",
        WIDE,
        1,
        "automup: Net(width=16) cannot be built: MemoryError. (net.py:10) Choose other "
        "values with --base NAME=VALUE.",
        net(init="raise MemoryError"),
    ),
    Case(
        "exit0",
        CONVERT,
        2,
        "automup: HERE/net.py exits when it is imported (SystemExit). (net.py:6) Put "
        'what it runs under `if __name__ == "__main__":`.',
        net(top="import sys\nsys.exit()\n"),
    ),
    Case(
        "quit",
        CONVERT,
        2,
        "automup: HERE/net.py exits when it is imported (SystemExit: None). (net.py:5) "
        'Put what it runs under `if __name__ == "__main__":`.',
        net(top="quit()\n"),
    ),
    Case(
        "stdin import",
        CONVERT,
        2,
        "name? automup: HERE/net.py cannot be imported: EOFError: EOF when reading a "
        "line. (net.py:5)",
        net(top="name = input('name? ')\n"),
    ),
    Case(
        "stdin read",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(top="import sys\nname = sys.stdin.read()\n"),
    ),
    Case(
        "stdin built",
        WIDE,
        1,
        "automup: Net(width=16) cannot be built: EOFError: EOF when reading a line. "
        "(net.py:10) Choose other values with --base NAME=VALUE.",
        net(init="input()"),
    ),
    Case(
        "chdir import",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(
            top="import os\nos.makedirs('/tmp/probe/else', exist_ok=True)\nos.chdir('/tmp/probe/else')\n"
        ),
    ),
    Case(
        "chdir built",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(init="import os\nos.chdir('/tmp/probe/else')\n"),
    ),
    Case(
        "closes stdout",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(top="import sys\nsys.stdout.close()\n"),
    ),
    Case(
        "deletes stdout",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(top="import sys\nsys.stdout = None\nsys.stderr = None\n"),
    ),
    Case(
        "argv",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(top="import sys\nassert len(sys.argv) == 1, sys.argv\n"),
    ),
    Case(
        "argparse required",
        CONVERT,
        2,
        'usage: net.py [-h] data\nnet.py: error: the following arguments are required: data\nautomup: HERE/net.py exits when it is imported (SystemExit: 2). (net.py:8) Put what it runs under `if __name__ == "__main__":`.',
        net(
            top="import argparse\np = argparse.ArgumentParser()\np.add_argument('data')\np.parse_args()\n"
        ),
    ),
    Case(
        "default dtype",
        WIDE,
        0,
        "mu.py: Net in μP; base width=16",
        net(top="torch.set_default_dtype(torch.float64)\n"),
    ),
]
