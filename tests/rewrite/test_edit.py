"""Site edits: what the source looks like after, that it means the same at the base, and errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from helpers import HEAD, WIDTH, edit_of, span_of

from automup.edits import Edit, Factor
from automup.errors import RewriteError
from automup.facts import Span
from automup.rewrite import edit_sites


@dataclass(frozen=True)
class Case:
    """One expression before and after; ``power`` is the factor's exponent in the result."""

    name: str
    before: str
    after: str
    span: str = ""  # the part that is edited; the whole expression if empty
    factor: Factor = HEAD
    constant: bool = False
    call: bool = False
    linear: bool = True  # the result is multiplied by the factor


ROOT = "(32 / k.size(-1)) ** 0.5"
OVER = "(k.size(-1) / 32) ** 0.5"
WIDE = "(256 / x.size(-1))"
SQRT = "1.0 / math.sqrt(k.size(-1))"

IMPORTS = """\
import math

import torch
import torch.nn.functional as F

if 0:
    import einops_einsum

"""

CASES = [
    # 2: beside the author's constant
    Case("times", f"att * ({SQRT})", f"att * ({SQRT} * {ROOT})", constant=True),
    Case("over", "att / math.sqrt(d)", f"att / (math.sqrt(d) * {OVER})", constant=True),
    Case("over-number", "att / 8", f"att / (8 * {OVER})", constant=True),
    Case("constant-first", "scale * att", f"scale * {ROOT} * att", constant=True),
    Case("constant-first-parens", f"({SQRT}) * att", f"({SQRT} * {ROOT}) * att", constant=True),
    Case("attribute", "att * cfg.scale", f"att * (cfg.scale * {ROOT})", constant=True),
    Case("power", "att * d ** -0.5", f"att * (d ** -0.5 * {ROOT})", constant=True),
    Case("power-of-size", "q * q.size(-1) ** -0.5",
         f"q * (q.size(-1) ** -0.5 * {ROOT})", constant=True),
    Case("shape", "att / k.shape[-1] ** 0.5",
         f"att / (k.shape[-1] ** 0.5 * {OVER})", constant=True),
    Case("negative", "att * -scale", f"att * (-scale * {ROOT})", constant=True),
    Case("sum-constant", "att * (scale + 1)", f"att * ((scale + 1) * {ROOT})", constant=True),
    Case("conditional-constant", "att * (scale if d else 1)",
         f"att * ((scale if d else 1) * {ROOT})", constant=True),
    Case("chain", "q @ k.mT * scale", f"q @ k.mT * (scale * {ROOT})", constant=True),
    Case("contraction-in-parens", f"(q @ k.mT) * ({SQRT})",
         f"(q @ k.mT) * ({SQRT} * {ROOT})", constant=True),
    Case("inside-softmax", "F.softmax(att * scale, dim=-1)",
         f"F.softmax(att * (scale * {ROOT}), dim=-1)", "att * scale", constant=True, linear=False),
    Case("mul-method", "att.mul(scale)", f"att.mul(scale * {ROOT})", constant=True),
    Case("div-method", "att.div(math.sqrt(d))",
         f"att.div(math.sqrt(d) * {OVER})", constant=True),
    Case("mul-function", "torch.mul(att, scale)", f"torch.mul(att, scale * {ROOT})",
         constant=True),
    Case("div-function", "torch.div(att, other=scale)",
         f"torch.div(att, other=scale * {OVER})", constant=True),
    Case("alpha", "torch.baddbmm(att, q, k.mT, beta=0.0, alpha=scale)",
         f"torch.baddbmm(att, q, k.mT, beta=0.0, alpha=scale * {ROOT})", constant=True),
    Case("both-tensors", "att * att", f"att * att * {ROOT}", constant=True),
    Case("called-submodule-is-no-scalar", "layer(att) * scale",
         f"layer(att) * (scale * {ROOT})", constant=True),
    Case("both-unknown", "a * scale", f"a * scale * {ROOT}", constant=True),
    # 3: the first operand of a contraction
    Case("matmul", "q @ k.mT", f"(q * {ROOT}) @ k.mT"),
    Case("matmul-of-sum", "(q + q) @ k.mT", f"((q + q) * {ROOT}) @ k.mT"),
    Case("matmul-chain", "q @ k.mT @ v", f"(q @ k.mT * {ROOT}) @ v"),
    Case("matmul-function", "torch.matmul(q, k.mT)", f"torch.matmul(q * {ROOT}, k.mT)"),
    Case("matmul-sum-argument", "torch.bmm(q + q, k.mT)",
         f"torch.bmm((q + q) * {ROOT}, k.mT)"),
    Case("matmul-method", "q.matmul(k.mT)", f"(q * {ROOT}).matmul(k.mT)"),
    Case("matmul-method-of-call", "q.mT.mT.bmm(k.mT)", f"(q.mT.mT * {ROOT}).bmm(k.mT)"),
    Case("einsum", 'torch.einsum("bid,bjd->bij", q, k)',
         f'torch.einsum("bid,bjd->bij", q * {ROOT}, k)'),
    Case("einsum-list", 'torch.einsum("bid,bjd->bij", [q, k])',
         f'torch.einsum("bid,bjd->bij", [q * {ROOT}, k])'),
    Case("einsum-spec-last", 'einops_einsum.einsum(q, k, "b i d, b j d -> b i j")',
         f'einops_einsum.einsum(q * {ROOT}, k, "b i d, b j d -> b i j")', linear=False),
    Case("added", "torch.baddbmm(z, q, k.mT)", f"torch.baddbmm(z, q, k.mT, alpha={ROOT})"),
    Case("linear", "F.linear(x, w)", f"F.linear(x * {WIDE}, w)", factor=WIDTH),
    Case("linear-keyword", "F.linear(weight=w, input=x)",
         f"F.linear(weight=w, input=x * {WIDE})", factor=WIDTH),
    Case("submodule", "head(x)", f"head(x * {WIDE})", factor=WIDTH, call=True),
    Case("submodule-of-difference", "cfg.head(x - 0)", f"cfg.head((x - 0) * {WIDE})",
         factor=WIDTH, call=True),
    Case("submodule-negated", "head(-x)", f"head(-x * {WIDE})", factor=WIDTH, call=True),
    Case("submodule-slice", "head(x[:, [-1], :])", f"head(x[:, [-1], :] * {WIDE})",
         factor=WIDTH, call=True),
    Case("readout-matmul", "x @ w.t()", f"(x * {WIDE}) @ w.t()", factor=WIDTH, call=True),
    Case("readout-sum", "(x * w[0]).sum(-1)", f"(x * w[0]).sum(-1) * {WIDE}", factor=WIDTH,
         call=True),
    Case("method-named-like-a-function", "cfg.linear(x)", f"cfg.linear(x) * {WIDE}",
         factor=WIDTH),
    # 4: the whole expression, in every kind of place
    Case("sum", "q + k", f"(q + k) * {ROOT}"),
    Case("in-sum", "(q + k) + v", f"(q + k) * {ROOT} + v", "q + k", linear=False),
    Case("right-of-product", "q * (k + 1)", f"q * ((k + 1) * {ROOT})", "k + 1"),
    Case("left-of-product", "k.tanh() * q", f"k.tanh() * {ROOT} * q", "k.tanh()"),
    Case("right-of-quotient", "q / k.cosh()", f"q / (k.cosh() * {ROOT})", "k.cosh()",
         linear=False),
    Case("attribute-of", "(q + k).mT", f"((q + k) * {ROOT}).mT", "q + k"),
    Case("method-of", "k.sum(1).relu()", f"(k.sum(1) * {ROOT}).relu()", "k.sum(1)"),
    Case("subscript-of", "k.cos()[0]", f"(k.cos() * {ROOT})[0]", "k.cos()"),
    Case("negated", "-k.cos()", f"-(k.cos() * {ROOT})", "k.cos()"),
    Case("power-of", "k.cos() ** 2", f"(k.cos() * {ROOT}) ** 2", "k.cos()", linear=False),
    Case("compared", "k.cos() > 0", f"k.cos() * {ROOT} > 0", "k.cos()", linear=False),
    Case("conditional", "k.cos() if d else q", f"k.cos() * {ROOT} if d else q", "k.cos()"),
    Case("conditional-glued", "(q+k)if d else(q)", f"((q+k) * {ROOT})if d else(q)", "q+k"),
    Case("is-conditional", "q if d else k", f"(q if d else k) * {ROOT}"),
    Case("walrus", "(s := k.cos())", f"(s := k.cos() * {ROOT})", "k.cos()"),
    Case("starred", "torch.stack([*k.cos()])", f"torch.stack([*k.cos() * {ROOT}])", "k.cos()"),
    Case("listed", "torch.cat([q, k.cos()])", f"torch.cat([q, k.cos() * {ROOT}])", "k.cos()",
         linear=False),
    Case("multi-line", "(q\n  + k)", f"(q\n  + k) * {ROOT}", "q\n  + k"),
    Case("multi-line-commented", "(\n  q  # one\n  + k  # two\n)",
         f"(\n  q  # one\n  + k  # two\n) * {ROOT}", "q  # one\n  + k"),
    # other exponents
    Case("square", "k.cos()", "k.cos() * (32 / k.size(-1)) ** 2",
         factor=Factor("k.size(-1)", 32, -2.0)),
    Case("grows", "k.cos()", "k.cos() * (k.size(-1) / 32)",
         factor=Factor("k.size(-1)", 32, 1.0)),
    Case("compound-size", "k.cos()", "k.cos() * (32 / (C // H))",
         factor=Factor("C // H", 32, -1.0)),
    # 1: attention's scale
    Case("sdpa", "F.scaled_dot_product_attention(q, k, v)",
         "F.scaled_dot_product_attention(q, k, v, "
         f"scale=(1.0 / math.sqrt(q.size(-1))) * {ROOT})", linear=False),
    Case("sdpa-given", "F.scaled_dot_product_attention(q, k, v, scale=scale)",
         f"F.scaled_dot_product_attention(q, k, v, scale=scale * {ROOT})", linear=False),
    Case("sdpa-given-sum", "F.scaled_dot_product_attention(q, k, v, scale=scale + 1)",
         f"F.scaled_dot_product_attention(q, k, v, scale=(scale + 1) * {ROOT})", linear=False),
    Case("sdpa-none", "F.scaled_dot_product_attention(q, k, v, scale=None)",
         "F.scaled_dot_product_attention(q, k, v, "
         f"scale=(1.0 / math.sqrt(q.size(-1))) * {ROOT})", linear=False),
    Case("sdpa-view", "F.scaled_dot_product_attention(q.unsqueeze(1), k[:, None], v[:, None])",
         "F.scaled_dot_product_attention(q.unsqueeze(1), k[:, None], v[:, None], "
         f"scale=(1.0 / math.sqrt(q.unsqueeze(1).size(-1))) * {ROOT})", linear=False),
    Case("sdpa-computed-query", "F.scaled_dot_product_attention(layer(q), k, v)",
         "F.scaled_dot_product_attention(layer(q), k, v, "
         f"scale=(1.0 / math.sqrt(k.size(-1))) * {ROOT})", linear=False),
    Case("sdpa-computed-both", "F.scaled_dot_product_attention(layer(q), layer(k), v)",
         f"F.scaled_dot_product_attention(layer(q) * {ROOT}, layer(k), v)", linear=False),
    Case("sdpa-unpacked", "F.scaled_dot_product_attention(*qkv, is_causal=True)",
         "F.scaled_dot_product_attention(*qkv, is_causal=True, "
         f"scale=(1.0 / math.sqrt(qkv[0].size(-1))) * {ROOT})", linear=False),
    Case("sdpa-unbound", "F.scaled_dot_product_attention(*packed.unbind(0))",
         "F.scaled_dot_product_attention(*packed.unbind(0), "
         f"scale=(1.0 / math.sqrt(packed.size(-1))) * {ROOT})", linear=False),
    Case("sdpa-keywords", "F.scaled_dot_product_attention(q, k, v, **{})",
         f"F.scaled_dot_product_attention(q * {ROOT}, k, v, **{{}})", linear=False),
    Case("sdpa-lines", "F.scaled_dot_product_attention(\n    q, k, v,\n    is_causal=True,\n)",
         "F.scaled_dot_product_attention(\n    q, k, v,\n    is_causal=True,\n    "
         f"scale=(1.0 / math.sqrt(q.size(-1))) * {ROOT},\n)", linear=False),
    Case("sdpa-lines-commented",
         "F.scaled_dot_product_attention(\n    q, k, v,\n    is_causal=True,  # no peeking\n)",
         "F.scaled_dot_product_attention(\n    q, k, v,\n    is_causal=True,  # no peeking\n    "
         f"scale=(1.0 / math.sqrt(q.size(-1))) * {ROOT},\n)", linear=False),
]  # fmt: skip


class _Config:
    """Attributes that the cases read."""

    scale = 0.3

    def head(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * x

    linear = head


def _scope(width: int) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    scope: dict[str, object] = {
        "torch": torch, "F": F, "math": math, "cfg": _Config(), "scale": 0.3, "C": 2 * width,
        "H": 2, "d": width, "layer": torch.sin, "head": lambda x: 3 * x, "a": draw(5, 5),
        "z": torch.zeros(2, 5, 5, dtype=torch.float64), "att": draw(2, 5, 5),
        **{name: draw(2, 5, width) for name in "qkv"},
        "x": draw(2, 3, 8 * width), "w": draw(7, 8 * width),
        "packed": draw(3, 2, 5, width),
    }  # fmt: skip
    scope["qkv"] = (scope["q"], scope["k"], scope["v"])
    return scope


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_edit(case: Case) -> None:
    before, after = (f"{IMPORTS}out = {text}\n" for text in (case.before, case.after))
    edit = edit_of(
        before,
        case.span or case.before,
        case.factor,
        constant=case.constant,
        call=case.call,
        nth=IMPORTS.count(case.span or case.before),
    )
    result = edit_sites(before, [edit], filename="model.py")
    assert result == after
    if "einops_einsum." in before:
        return
    base, wide = _scope(32), _scope(128)
    for scope in (base, wide):
        exec(before, scope)
        scope["expected"] = scope["out"]
        exec(result, scope)
    assert torch.equal(base["out"], base["expected"])
    if case.linear:
        ratio = 4.0**case.factor.exponent
        torch.testing.assert_close(wide["out"], wide["expected"] * ratio)


ATTENTION = '''\
"""A docstring."""

from __future__ import annotations

import os  # ours
from dataclasses import dataclass

import torch.nn.functional as F


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)
'''


def _attend(source: str) -> str:
    edit = edit_of(source, "F.scaled_dot_product_attention(q, k, v)")
    return edit_sites(source, [edit], filename="model.py")


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        ("import os\n", "import math\nimport os\n"),
        ("import inspect\n", "import inspect\nimport math\n"),
        ("import abc\nfrom os import sep\n", "import abc\nimport math\nfrom os import sep\n"),
        ("import math\n", "import math\n"),
        ("import math as m\n", "import math as m\n"),
        ("from math import sqrt\n", "from math import sqrt\n"),
        ("import torch\n", "import math\n\nimport torch\n"),
        ("# ours\nimport torch\n", "# ours\nimport math\n\nimport torch\n"),
        ("", "import math\n\n"),
        ('"""Doc."""\nimport torch\n', '"""Doc."""\nimport math\n\nimport torch\n'),
        ('"""Doc."""\n\nfrom __future__ import annotations\n',
         '"""Doc."""\n\nfrom __future__ import annotations\n\nimport math\n\n'),
        ("#!/usr/bin/env python\n# -*- coding: utf-8 -*-\nimport torch\n",
         "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\nimport math\n\nimport torch\n"),
        ("def math():\n    pass\n", "import math as _math\n\ndef math():\n    pass\n"),
    ],
)  # fmt: skip
def test_import(imports: str, expected: str) -> None:
    result = _attend(f"{imports}y = F.scaled_dot_product_attention(q, k, v)\n")
    call = {"m\n": "m.sqrt", "sqrt\n": "sqrt"}.get(imports.split(" ")[-1], "math.sqrt")
    call = "_math.sqrt" if "def math" in imports else call
    assert result == (
        f"{expected}y = F.scaled_dot_product_attention(q, k, v, scale=(1.0 / {call}(q.size(-1))) "
        "* (32 / k.size(-1)) ** 0.5)\n"
    )


def test_import_goes_among_the_imports_once() -> None:
    once = _attend(ATTENTION)
    assert "\n\nimport math\nimport os  # ours\nfrom dataclasses import dataclass\n\n" in once
    edit = edit_of(once, once[once.index("F.scaled") :].strip())
    assert edit_sites(once, [edit], filename="model.py").count("import math") == 1


def test_lines_keep_their_numbers_without_imports() -> None:
    edit = edit_of(ATTENTION, "F.scaled_dot_product_attention(q, k, v)")
    result = edit_sites(ATTENTION, [edit], filename="model.py", add_imports=False)
    assert len(result.splitlines()) == len(ATTENTION.splitlines())


@pytest.mark.parametrize(
    ("before", "after", "constant"),
    [
        ("att *= scale", f"att *= scale * {ROOT}", True),
        ("att /= math.sqrt(d)", f"att /= math.sqrt(d) * {OVER}", True),
        ("att *= scale + 1", f"att *= (scale + 1) * {ROOT}", True),
        ("att *= q", f"att *= q * {ROOT}", False),
        ("return(q + k)", f"return(q + k) * {ROOT}", False),
        ("return q + k", f"return (q + k) * {ROOT}", False),
        ("yield q", f"yield q * {ROOT}", False),
        ("for row in q: pass", f"for row in q * {ROOT}: pass", False),
        ("f = lambda q: q + k", f"f = lambda q: (q + k) * {ROOT}", False),
        ("x[q] = y", f"x[q * {ROOT}] = y", False),
        ("if q: pass", f"if q * {ROOT}: pass", False),
    ],
)
def test_statements(before: str, after: str, constant: bool) -> None:
    """Edits in places that are statements or belong to one."""
    text = before if before[:4] in ("att ",) else "q + k" if "q + k" in before else "q"
    nth = 1 if text == "q" and before.startswith("f =") else 0
    edit = edit_of(before, text, constant=constant, nth=nth)
    assert edit_sites(before, [edit], filename="model.py") == after


def test_nested_edits() -> None:
    source = "y = F.softmax((q @ k.mT) * scale + bias(x), -1) @ v\n"
    edits = [
        edit_of(source, "(q @ k.mT) * scale", constant=True),
        edit_of(source, "q @ k.mT"),
        edit_of(source, source[4:-1], WIDTH),
        edit_of(source, "bias(x)", WIDTH, call=True),
    ]
    expected = (
        f"y = (F.softmax(((q * {ROOT}) @ k.mT) * (scale * {ROOT}) + bias(x * {WIDE}), -1)"
        f" * {WIDE}) @ v\n"
    )
    assert edit_sites(source, edits, filename="m.py") == expected
    assert edit_sites(source, edits[::-1], filename="m.py") == expected


@pytest.mark.parametrize(
    ("source", "constant", "expected"),
    [
        ("q @ k", False, f"(q * {ROOT} * {WIDE}) @ k"),
        ("q * scale", True, f"q * (scale * {ROOT} * {WIDE})"),
        ("q + k", False, f"(q + k) * {ROOT} * {WIDE}"),
        ("sdpa.scaled_dot_product_attention(q, k, v, scale=s)", False,
         f"sdpa.scaled_dot_product_attention(q, k, v, scale=s * {ROOT} * {WIDE})"),
    ],
)  # fmt: skip
def test_two_factors_at_one_span(source: str, constant: bool, expected: str) -> None:
    edits = [edit_of(source, source, f, constant=constant) for f in (HEAD, WIDTH, HEAD)]
    assert edit_sites(source, edits, filename="m.py") == expected


def test_everything_else_stays() -> None:
    source = (
        "# -*- coding: utf-8 -*-\r\ndef f(q, k):\r\n\tif q:  # größe\t \r\n"
        "\t\ty = 'ü', q @ k.mT  # s\r\n"
        "\r\n\t\t\r\n\treturn y ;  z = 1  # end\r\n# tail"
    )
    result = edit_sites(source, [edit_of(source, "q @ k.mT")], filename="m.py")
    assert result == source.replace("q @", f"(q * {ROOT}) @")


def test_byte_order_mark_stays() -> None:
    edit = Edit(span_of("y = q @ k\n", "q @ k"), HEAD, False, frozenset("qk"), False)
    result = edit_sites("\ufeffy = q @ k\n", [edit], filename="m.py")
    assert result == f"\ufeffy = (q * {ROOT}) @ k\n"


def test_chain_over_lines_is_found_by_its_end() -> None:
    """Python 3.11 starts the span of a method call over lines at the method's name."""
    source = "y = (\n    q.mT\n    .mT\n    .matmul(k.mT)  # s\n)\n"
    span = span_of(source, "matmul(k.mT)")
    edit = Edit(span, HEAD, False, frozenset("qk"), False)
    assert edit_sites(source, [edit], filename="m.py") == (
        f"y = (\n    (q.mT\n    .mT * {ROOT})\n    .matmul(k.mT)  # s\n)\n"
    )
    span = span_of(source, "mT", 1)
    edit = Edit(span, HEAD, False, frozenset("qk"), False)
    assert f"    (q.mT\n    .mT * {ROOT})\n" in edit_sites(source, [edit], filename="m.py")


def test_real_positions() -> None:
    """Spans as CPython reports them find their expressions."""
    source = "def f(q, k):\n    s = 'é'; y = (q.abs()\n        .matmul(k.mT))\n    return y\n"
    code = next(c for c in compile(source, "m.py", "exec").co_consts if hasattr(c, "co_positions"))
    lines = source.splitlines()
    for line, end_line, column, end_column in set(code.co_positions()):
        if None in (line, end_line, column, end_column) or line == end_line == 1:
            continue
        start = len(lines[line - 1].encode()[:column].decode())
        end = len(lines[end_line - 1].encode()[:end_column].decode())
        text = lines[end_line - 1][:end]
        if not text.endswith(")") or text.endswith("'"):
            continue
        edit = Edit(Span("m.py", line, start, end_line, end), HEAD, False, frozenset("qk"), False)
        assert edit_sites(source, [edit], filename="m.py") != source


@pytest.mark.parametrize(
    ("source", "text", "where", "what"),
    [
        ("x = 1\ny = q + k\n", "q +", "m.py:2:4", "No expression"),
        ("y = f'{q + k}'\n", "q + k", "m.py:1", "f-string"),
        ("q.data[0] = 1\n", "q.data[0]", "m.py:1", "target of an assignment"),
        ("(q, k) = 1, 2\n", "q", "m.py:1", "target of an assignment"),
        ("x = 1\ny += k\n", "y += k", "m.py:2", "no place"),
        ("y = = k\n", "y", "m.py:1", "does not parse"),
    ],
)
def test_errors(source: str, text: str, where: str, what: str) -> None:
    with pytest.raises(RewriteError, match=what) as caught:
        edit_sites(source, [edit_of(source, text)], filename="/some/where/m.py")
    assert caught.value.where.endswith(where) and caught.value.fix


def test_factor_is_one_at_the_base() -> None:
    for exponent in (-0.5, 0.5, -1, 1, -2, -0.25, 1 / 3, 0):
        factor = Factor("n", 48, exponent)
        assert eval(factor.code(), {"n": 48}) == eval(factor.inverse_code(), {"n": 48}) == 1.0
        assert math.isclose(eval(factor.code(), {"n": 96}), 2**exponent)
        assert math.isclose(eval(factor.inverse_code(), {"n": 96}), 2**-exponent)


def test_source_without_edits_is_untouched() -> None:
    assert edit_sites("not python at all", [], filename="m.py") == "not python at all"
