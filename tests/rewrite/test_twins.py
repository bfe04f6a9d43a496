"""Code that no trace ran: which of it gets an edit, and which is reported."""

from __future__ import annotations

import pytest
from helpers import HEAD, WIDTH, edit_of

from automup.edits import Edit, Factor
from automup.rewrite import Unrun, edit_sites, find_unrun

HEADER = "import math\n\nimport torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n\n\n"

GPT = (
    HEADER
    + '''\
class Attention(nn.Module):
    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.flash:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            att = (q @ k.mT) * (1.0 / math.sqrt(k.size(-1)))  # unrun
            att = att.masked_fill(self.mask == 0, -1e9)  # unrun
            att = F.softmax(att, dim=-1)  # unrun
            y = att @ v  # unrun
        return self.proj(y)

    def cached(self, x, query, cache):
        """Never called."""
        y = F.scaled_dot_product_attention(query, cache[0], cache[1])  # unrun
        return self.proj(y)  # unrun


class Other(nn.Module):
    def forward(self, x):
        return x @ x.mT  # unrun


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        if config.bias:
            self.bias = config.scale * 2 @ 3  # unrun

    def forward(self, idx, targets=None):
        x = self.wte(idx)
        if targets is not None:
            logits = self.lm_head(x)
        else:
            logits = self.lm_head(x[:, [-1], :])  # unrun
            aux = self.aux_head(x)  # unrun
            logits = logits * 2.0 + helper(aux)  # unrun
            loss = None  # unrun
        return logits, loss

    def estimate(self, dt):
        flops = 6 * self.count + 12 * self.layers * dt  # unrun
        return flops / dt  # unrun

    @torch.no_grad()
    def generate(self, idx, temperature=1.0):
        for _ in range(9):  # unrun
            logits, _ = self(idx)  # unrun
            logits = logits[:, -1, :] / temperature  # unrun
            probs = F.softmax(logits, dim=-1)  # unrun
            idx = torch.multinomial(probs, 1)  # unrun
        return idx  # unrun

    def sample(self, idx):
        return F.softmax(self.forward(idx)[0], dim=-1)  # unrun


def helper(x):
    """A docstring."""
    assert x is not None  # unrun
    return torch.einsum("bid,bjd->bij", x, x)  # unrun


def train(model):
    return model.x @ model.y  # unrun
'''
)


def unrun(source: str, *edits: Edit) -> Unrun:
    lines = source.splitlines()
    executed = frozenset(n for n, text in enumerate(lines, 1) if "# unrun" not in text)
    return find_unrun(source, executed, edits)


def test_gpt() -> None:
    found = unrun(
        GPT,
        edit_of(GPT, "F.scaled_dot_product_attention(q, k, v, is_causal=True)"),
        edit_of(GPT, "self.lm_head(x)", WIDTH, call=True),
    )
    twins = {(GPT.splitlines()[t.span.line - 1].strip(), t.factor) for t in found.twins}
    assert twins == {
        ("logits = self.lm_head(x[:, [-1], :])  # unrun", WIDTH),
        (
            "y = F.scaled_dot_product_attention(query, cache[0], cache[1])  # unrun",
            Factor("cache[0].size(-1)", 32, -0.5),
        ),
    }
    assert [(p.text.partition("  #")[0], p.why) for p in found.suspicious] == [
        ("att = (q @ k.mT) * (1.0 / math.sqrt(k.size(-1)))", "contracts with @"),
        ("att = F.softmax(att, dim=-1)", "takes a softmax"),
        ("y = att @ v", "contracts with @"),
        ('return torch.einsum("bid,bjd->bij", x, x)', "contracts with einsum"),
    ]
    assert [(p.text.partition("  #")[0], p.why) for p in found.notes] == [
        ("return self.proj(y)", "calls self.proj"),
        ("aux = self.aux_head(x)", "calls self.aux_head"),
        ("logits = logits * 2.0 + helper(aux)", "multiplies or divides"),
    ]
    assert all(GPT.splitlines()[p.line - 1].strip() == p.text for p in found.suspicious)


def test_twins_can_be_edited() -> None:
    edit = edit_of(GPT, "self.lm_head(x)", WIDTH, call=True)
    twins = unrun(GPT, edit).twins
    result = edit_sites(GPT, [edit, *twins], filename="m.py")
    assert "self.lm_head(x * (256 / x.size(-1)))" in result
    assert "self.lm_head(x[:, [-1], :] * (256 / x.size(-1)))" in result


def method(body: str, before: str = "") -> str:
    return f"{HEADER}class M(nn.Module):\n    def forward(self, x, q, k, v, w, att):\n" + "".join(
        f"        {line}\n" for line in [*before.splitlines(), *body.splitlines()]
    )


CASES = [
    # the edited expression, the unexecuted one, the twin's size ("" none, "!" reported)
    ("(q @ k.mT) * (1.0 / math.sqrt(k.size(-1)))", "(s @ t.mT) * (1.0 / math.sqrt(t.size(-1)))",
     {"constant": True}, "t.size(-1)"),
    ("att / math.sqrt(k.size(-1))", "s / math.sqrt(t.size(-1))", {"constant": True}, "t.size(-1)"),
    ("att * self.scale", "s * self.scale", {"constant": True}, "!"),
    ("q * self.scale", "s * self.scale", {"constant": True, "factor": Factor("q.size(-1)", 8, -1)},
     "s.size(-1)"),
    ("att * 2.0", "s * 2.0", {"constant": True}, ""),
    ("q @ k", "q @ k", {}, "k.size(-1)"),
    ("q @ k", "att @ v", {}, ""),
    ("x @ self.w.t()", "h @ self.w.t()", {"factor": WIDTH, "call": True}, "h.size(-1)"),
    ("x @ self.w.t()", "h @ self.v.t()", {"factor": WIDTH, "call": True}, ""),
    ("F.linear(x, self.w)", "F.linear(x[:, -1], self.w)", {"factor": WIDTH, "call": True},
     "x.size(-1)"),
    ("F.linear(x, self.w)", "F.linear(h, self.w)", {"factor": WIDTH, "call": True}, "h.size(-1)"),
    ("F.linear(x, self.w)", "F.linear(x, self.other)", {"factor": WIDTH, "call": True}, ""),
    ("self.head(x)", "self.head(h)", {"factor": WIDTH, "call": True}, "h.size(-1)"),
    ("self.head(x)", "self.head(f(h))", {"factor": WIDTH, "call": True}, "!"),
    ("self.head(x)", "self.tail(x)", {"factor": WIDTH, "call": True}, ""),
    ("self.head(x)", "self.head(f(h))",
     {"factor": Factor("self.head.weight.size(1)", 8, -1), "call": True},
     "self.head.weight.size(1)"),
    ("F.scaled_dot_product_attention(q, k, v)", "F.scaled_dot_product_attention(s, t, v)", {},
     "t.size(-1)"),
    ("F.scaled_dot_product_attention(q, k, v)",
     "torch.nn.functional.scaled_dot_product_attention(s, t[0], v, is_causal=True)", {},
     "t[0].size(-1)"),
    ("F.scaled_dot_product_attention(q, k, v)", "F.scaled_dot_product_attention(s, f(t), v)", {},
     "s.size(-1)"),
    ("F.scaled_dot_product_attention(q, k, v)", "F.scaled_dot_product_attention(f(s), f(t), v)",
     {}, "!"),
]  # fmt: skip


@pytest.mark.parametrize(("edited", "other", "how", "size"), CASES, ids=lambda c: str(c)[:30])
def test_twin(edited: str, other: str, how: dict[str, object], size: str) -> None:
    source = method(f"y = {edited}\nif self.other:\n    y = {other}  # unrun\nreturn y")
    found = unrun(source, edit_of(source, edited, **how))
    assert [t.factor.size for t in found.twins] == ([size] if size not in ("", "!") else [])
    told = [p for p in found.suspicious if "same expression" in p.why]
    assert bool(told) == (size == "!")
    for twin in found.twins:
        edit_sites(source, [twin], filename="m.py")


def test_in_place_twin() -> None:
    source = method("att *= q.size(-1) ** -0.5\nif x:\n    s *= t.size(-1) ** -0.5  # unrun")
    edit = edit_of(
        source, "att *= q.size(-1) ** -0.5", Factor("q.size(-1)", 8, -0.5), constant=True
    )
    (twin,) = unrun(source, edit).twins
    assert twin.factor.size == "t.size(-1)" and "s" in twin.tensor_names


def test_statements_that_never_count() -> None:
    body = '"""q @ k"""\nif x:\n    import os\n    raise ValueError(q @ k)\n    pass\n'
    source = method(body.replace("\n", "  # unrun\n"))
    assert unrun(source) == Unrun((), (), ())


def test_headers_of_compound_statements() -> None:
    source = (
        method(
            "if x:\n    while (q @ k).any():  # unrun\n        with f(q @ k):  # unrun\n"
            "            for i in q @ v:  # unrun\n                try:\n"
            "                    y = [i @ i]  # unrun\n"
            "                except E: z = q @ q  # unrun\n"
            "    elif q @ x:  # unrun\n        pass\n    match q @ w:  # unrun\n"
            "        case 1: y = w @ w  # unrun"
        )
        .replace("\n            elif", "\n        elif")
        .replace("\n            match", "\n        match")
    )
    assert len(unrun(source).suspicious) == 8


def test_a_file_where_all_ran() -> None:
    assert unrun(method("y = q @ k\nreturn self.head(y) * 2")) == Unrun((), (), ())


def test_an_instance_of_another_name() -> None:
    source = method("if x:\n    return self.head(x)  # unrun\nreturn x")
    notes = [p.why for p in unrun(source).notes]
    assert notes == ["calls self.head"]
    assert [p.why for p in unrun(source.replace("self", "me")).notes] == ["calls me.head"]


@pytest.mark.parametrize(
    "call, why",
    [
        ("n = self.head.weight.numel()", []),
        ("n = self.head.weight.size(-1) + self.table.dim()", []),
        ("return self.head.size(x)", ["calls self.head.size"]),
        ("return self.size(x, 0)", ["calls self.size"]),
    ],
)
def test_a_question_about_a_tensor_is_no_call_of_a_submodule(call: str, why: list[str]) -> None:
    source = method(f"if x:\n    {call}  # unrun\nreturn x")
    assert [p.why for p in unrun(source).notes] == why


def test_bases_of_executed_classes_count_and_strangers_do_not() -> None:
    source = HEADER + (
        "class Base(nn.Module):\n    def attend(self, q, k):\n        return q @ k  # unrun\n\n\n"
        "class M(Base):\n    def forward(self, q, k):\n        return self.attend(q, k)\n\n\n"
        "class Stranger(nn.Module):\n    def forward(self, q, k):\n        return q @ k  # unrun\n"
    )
    assert [p.line for p in unrun(source).suspicious] == [10]
    assert HEAD.base == 32


CONSTRUCTED = (
    HEADER
    + """\
import numpy as np


def table(size):
    return grid(size) @ np.eye(size)  # unrun


def grid(size):
    return torch.einsum("m,d->md", torch.arange(size), torch.arange(size))  # unrun


def kept(q, k):
    return q @ k  # unrun


def made(size):
    return lambda q: q @ q.mT  # unrun


def both(x):
    return x @ x.mT  # unrun


class M(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.draw(size)
        self.apply(self.start)
        self.attend, self.other = kept, made(size)
        self.mask = both(torch.eye(size))

    def draw(self, size):
        def inner(n):
            return torch.ones(n, n) @ torch.ones(n)  # unrun

        self.table = table(size) @ inner(size)  # unrun

    def start(self, module):
        module.weight.copy_(module.weight @ module.weight)  # unrun

    def forward(self, x, y=None):
        if y is not None:
            x = self.attend(x, y) + both(x)  # unrun
        return x + 1
"""
)


def test_what_only_constructors_call_holds_no_activations() -> None:
    """Unlike what they keep: it may be called by any name."""
    assert [place.text.partition("  #")[0] for place in unrun(CONSTRUCTED).suspicious] == [
        "return q @ k",
        "return lambda q: q @ q.mT",
        "return x @ x.mT",
    ]
