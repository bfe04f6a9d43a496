"""The converted file as a whole: its factors, its base, and that it keeps what the author wrote."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tokenize
from io import StringIO
from pathlib import Path

import pytest
import torch
from helpers import WIDTH, edit_of

from automup.errors import RewriteError
from automup.facts import SizeLaw
from automup.rules import Ratios, multipliers
from models import (
    GPT,
    MLP,
    convert,
    converted_gpt,
    converted_mlp,
    expected_init,
    facts,
    gpt_facts,
    load,
    mlp_facts,
    mlp_law,
    ratio,
)

TABLE = """\
MUP_BASE = {
    "body.0.weight": {"fan_out": {0: 32}, "init": [(-0.5, (1,), 8)]},
    "body.0.bias": {"fan_out": {0: 32}, "init": [(-0.5, (1,), 8, "body.*.weight")]},
    "body.2.weight": {
        "fan_in": {1: 32},
        "fan_out": {0: 32},
        "init": [(-0.5, (1,), 32)],
    },
    "body.2.bias": {"fan_out": {0: 32}, "init": [(-0.5, (1,), 32, "body.*.weight")]},
    "body.4.weight": {
        "fan_in": {1: 32},
        "fan_out": {0: 32},
        "init": [(-0.5, (1,), 32)],
    },
    "body.4.bias": {"fan_out": {0: 32}, "init": [(-0.5, (1,), 32, "body.*.weight")]},
    "head.weight": {"fan_in": {1: 32}, "init": [(-0.5, (1,), 32)]},
    "head.bias": {"init": [(-0.5, (1,), 32, "head.weight")]},
}
"""


def test_table() -> None:
    assert TABLE in converted_mlp()
    assert """MUP_BASE = {
    "wte.weight": {"fan_out": {1: 32}},
    "h.*.norm.weight": {"fan_out": {0: 32}},
    "h.*.norm.bias": {"fan_out": {0: 32}},
    "h.*.up.weight": {"fan_in": {1: 32}, "fan_out": {0: 128}},
    "h.*.down.weight": {"fan_in": {1: 128}, "fan_out": {0: 32}},
}
""" in converted_gpt()


@pytest.mark.parametrize("width", [16, 32, 64, 96, 100, 512])
def test_init_factors(width: int) -> None:
    plain, module = load(MLP), load(converted_mlp())
    torch.manual_seed(0)
    expected = plain.MLP(width)
    torch.manual_seed(0)
    model = module.MLP(width)
    base = mlp_facts()
    shapes = {
        p.name: (p.base_shape, tuple(q.shape))
        for p, (_, q) in zip(base, expected.named_parameters(), strict=True)
    }
    for p, (name, drawn) in zip(base, expected.named_parameters(), strict=True):
        factor = expected_init(*shapes[name], p.fan_in_dims, p.fan_out_dims, mlp_law(name), shapes)
        with torch.no_grad():
            wanted = drawn * factor if factor != 1.0 else drawn
        assert torch.equal(wanted, model.get_parameter(name)), name


@pytest.mark.parametrize("family", ["adam", "sgd", "sign", "adadelta"])
@pytest.mark.parametrize("width", [32, 96, 512])
def test_optimizer_factors(width: int, family: str) -> None:
    module = load(converted_gpt())
    model = module.GPT(width, layers=3)
    groups = module.mup_param_groups(model, 0.1, 0.3, 1e-6, family=family)
    named = {id(p): (n, p) for n, p in model.named_parameters()}
    base = {p.name: p for p in gpt_facts()}
    seen = 0
    for group in groups:
        for p in group["params"]:
            name, _ = named[id(p)]
            fact = base[name.replace("h.2", "h.1")]
            old, new = fact.base_shape, tuple(p.shape)
            ratios = Ratios(ratio(old, new, fact.fan_in_dims), ratio(old, new, fact.fan_out_dims))
            wanted = multipliers(family, ratios, fact.role)
            assert group["lr"] == 0.1 * wanted.lr and group["lr_mult"] == wanted.lr
            assert group["weight_decay"] == 0.3 * wanted.weight_decay
            assert group.get("eps") == (
                1e-6 * wanted.eps if family in ("adam", "adadelta") else None
            )
            seen += 1
    assert seen == len(named)
    assert len(groups) == len({(g["lr"], g.get("eps")) for g in groups})
    assert len(groups) == 1 or width > 32


@pytest.mark.parametrize("optimizer", ["AdamW", "Adam", "SGD", "NAdam", "RMSprop", "Adadelta"])
@pytest.mark.parametrize("case", ["mlp", "gpt"])
def test_base_is_bit_identical(case: str, optimizer: str) -> None:
    edit = edit_of(GPT, "self.head(x)", dataclasses.replace(WIDTH, base=32), call=True)
    source, result, inputs = {
        "mlp": (MLP, converted_mlp(), torch.randn(5, 8)),
        "gpt": (GPT, converted_gpt(edits=[edit]), torch.randint(16, (3, 5))),
    }[case]
    settings = {
        "lr": 0.01,
        "weight_decay": 0.1,
        **({"momentum": 0.9} if optimizer == "SGD" else {}),
    }
    models = []
    for text, converted in ((source, False), (result, True)):
        module = load(text)
        torch.manual_seed(0)
        model = getattr(module, case.upper())()
        cls = getattr(torch.optim, optimizer)
        if converted:
            stepper = module.mup_optimizer(model, optimizer=cls, **settings)
            assert len(stepper.param_groups) == 1
            assert stepper.param_groups[0]["params"] == list(model.parameters())
        else:
            stepper = cls(model.parameters(), **settings)
        for _ in range(3):
            stepper.zero_grad()
            model(inputs).square().mean().backward()
            stepper.step()
        models.append(model)
    for one, two in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(models[0](inputs), models[1](inputs))


def test_configure_is_rewired() -> None:
    result = converted_gpt()
    assert (
        """\
        return optim.AdamW(
            mup_param_groups(self, lr=lr, params=groups, weight_decay=0.01),
            lr=lr,
        )
"""
        in result
    )
    plain, module = load(GPT), load(result)
    base = module.GPT(32).configure(0.1, 0.2)
    old = plain.GPT(32).configure(0.1, 0.2)
    for one, two in zip(old.param_groups, base.param_groups, strict=True):
        for key in set(one) - {"params"}:
            assert one[key] == two[key]
    wide = module.GPT(128).configure(0.1, 0.2).param_groups
    decays = {(g["weight_decay"], g["lr"]) for g in wide}
    assert decays == {(0.2, 0.1), (0.2 * 4, 0.1 / 4), (0.0, 0.1)}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("optim.SGD(groups, lr, 0.9)",
         'optim.SGD(mup_param_groups(self, lr=lr, params=groups, family="sgd"), lr, 0.9)'),
        ("optim.Adam(self.parameters())", "optim.Adam(mup_param_groups(self, lr=1e-3))"),
        ("torch.optim.Adam(params=groups, lr=lr, eps=1e-5)",
         "torch.optim.Adam(params=mup_param_groups(self, lr=lr, params=groups, eps=1e-5), lr=lr, "
         "eps=1e-5)"),
        ("optim.AdamW(groups, lr=lr, weight_decay=decay, **dict(fused=False))",
         "optim.AdamW(mup_param_groups(self, lr=lr, params=groups, weight_decay=decay), lr=lr, "
         "weight_decay=decay, **dict(fused=False))"),
        ("optim.AdamW(groups, lr=lr, **extra)",
         "mup_optimizer(self, params=groups, lr=lr, optimizer=optim.AdamW, **extra)"),
        ("optim.AdamW(self.parameters(), lr=float(lr), **{'lr': 1})",
         "mup_optimizer(self, lr=float(lr), optimizer=optim.AdamW, **{'lr': 1})"),
        ("optim.RMSprop(groups, lr=lr)",
         "mup_optimizer(self, params=groups, lr=lr, optimizer=optim.RMSprop)"),
        ("optim.lr_scheduler.LambdaLR(groups, decay)",
         "optim.lr_scheduler.LambdaLR(groups, decay)"),
    ],
)  # fmt: skip
def test_rewired_calls(call: str, expected: str) -> None:
    source = GPT.replace("optim.AdamW(groups, lr=lr)", call)
    result = converted_gpt(source)
    squeezed = " ".join(result.split()).replace("( ", "(").replace(", )", ")")
    assert f"return {expected}" in squeezed


@pytest.mark.parametrize(
    ("lines", "plain"),
    [
        ("extra = dict(fused=True) if lr else {'betas': (0.9, 0.9)}", True),
        ("extra = dict(weight_decay=0.1)", False),
        ("extra = {}\n        extra['lr'] = 3", False),
        ("extra = {**other}", False),
    ],
)
def test_keywords_that_are_passed_on(lines: str, plain: bool) -> None:
    source = GPT.replace("extra=None", "other").replace(
        "return optim.AdamW(groups, lr=lr)",
        f"{lines}\n        return optim.AdamW(groups, lr=lr, **extra)",
    )
    assert ("optim.AdamW(\n" in converted_gpt(source)) == plain


@pytest.mark.parametrize("name", ["Rprop", "Muon"])
def test_unsupported_optimizer_is_refused_when_it_is_used(name: str) -> None:
    module = load(converted_gpt(GPT.replace("optim.AdamW(groups", f"optim.{name}(groups")))
    text = rf"written here for SGD.*{name}.* pass family=.* automup.parametrize has Muon"
    with pytest.raises(TypeError, match=text):
        module.GPT().configure(0.1, 0.1)


def test_tensor_lr_is_neither_changed_nor_shared() -> None:
    module = load(converted_gpt())
    lr = torch.tensor(0.5)
    stepper = module.mup_optimizer(module.GPT(128), lr, foreach=False)
    rates = [g["lr"] for g in stepper.param_groups]
    assert lr == 0.5 and len({id(r) for r in rates}) == len(rates) and lr is not rates[0]
    assert set(map(float, rates)) == {0.125, 0.5}
    rates[0].mul_(2)
    assert lr == 0.5


def test_users_groups_keep_their_settings() -> None:
    module = load(converted_gpt())
    model = module.GPT(64)
    groups = module.mup_param_groups(
        model,
        0.1,
        0.2,
        params=[
            {"params": model.wte.weight, "lr": 0.5, "name": "a"},
            {"params": (p for p in model.h.parameters()), "weight_decay": 0.0, "betas": (0, 0)},
        ],
        betas=(0.8, 0.9),
    )
    assert [(g["lr"], g["weight_decay"], g["betas"], g.get("name")) for g in groups] == [
        (0.5, 0.2, (0.8, 0.9), "a"),
        (0.1, 0.0, (0, 0), None),
        (0.05, 0.0, (0, 0), None),
    ]
    pairs = module.mup_param_groups(model, 0.1, params=model.named_parameters())
    plain = module.mup_param_groups(model, 0.1, params=model.parameters())
    assert [g["params"] for g in pairs] == [g["params"] for g in plain]
    for wrong, text in (
        ([torch.nn.Parameter(torch.ones(2))], "not in the model"),
        (groups, "already"),
    ):
        with pytest.raises(ValueError, match=text):
            module.mup_param_groups(model, 0.1, params=wrong)
    with pytest.raises(ValueError, match="family"):
        module.mup_param_groups(model, 0.1, family="muon")


def test_defaults_of_the_optimizer_are_kept() -> None:
    module = load(converted_gpt())
    model = module.GPT(64)
    decays = {g["weight_decay"] for g in module.mup_optimizer(model, 0.1).param_groups}
    assert decays == {0.01, 0.02}
    eps = {g["eps"] for g in module.mup_optimizer(model, 0.1, eps=1e-4).param_groups}
    assert eps == {0.5e-4}
    sgd = module.mup_optimizer(model, 0.1, optimizer=torch.optim.SGD, momentum=0.9, nesterov=True)
    assert {g["weight_decay"] for g in sgd.param_groups} == {0}
    assert all(g["momentum"] == 0.9 and g["nesterov"] and "eps" not in g for g in sgd.param_groups)


def test_tied_parameters_come_once_and_in_order() -> None:
    module = load(converted_gpt())
    model = module.GPT()
    params = [*model.parameters(), model.head.weight, model.wte.weight]
    (group,) = module.mup_param_groups(model, 0.1, params=params)
    assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]


class Wrapper(torch.nn.Module):
    """Puts a segment before a model's names, as DDP and torch.compile do."""

    def __init__(self, name: str, inner: torch.nn.Module) -> None:
        super().__init__()
        self.add_module(name, inner)


def test_names_inside_wrappers() -> None:
    module = load(converted_gpt())
    model = module.GPT(64)
    for name in ("module", "_orig_mod"):
        wrapped = Wrapper("module", Wrapper(name, model))
        wrapped.module._modules[name].h[0] = Wrapper("_orig_mod", model.h[0])
        one, two = (module.mup_param_groups(m, 0.1) for m in (wrapped, model))
        assert [g["params"] for g in one] == [g["params"] for g in two]
    for inner in (model, Wrapper("submodule", model)):
        other = Wrapper("strange", inner)
        with pytest.raises(KeyError, match="strange"):
            module.mup_param_groups(other, 0.1)


def test_a_submodule_that_is_called_module() -> None:
    """Segments of wrappers are left out only if the whole name is not in the table."""
    source = MLP.replace("body", "module")
    module = load(convert(source, "MLP", facts(load(source).MLP, 32, 64)))
    model = module.MLP(64)
    for wrapped in (model, Wrapper("module", model), Wrapper("_orig_mod", model)):
        assert len(module.mup_param_groups(wrapped, 0.1)) == len(
            module.mup_param_groups(model, 0.1)
        )


def test_sums_in_laws() -> None:
    """Xavier's std goes by the sum of both dimensions."""
    laws = {
        "body.0.weight": (SizeLaw((0, 1), 40, -0.5),),
        "head.weight": (SizeLaw((0, 1), 36, -0.5),),
    }
    parameters = facts(load(MLP).MLP, 32, 64, lambda n: laws.get(n, ()))
    module = load(convert(MLP, "MLP", parameters))
    torch.manual_seed(0)
    plain = load(MLP).MLP(96)
    torch.manual_seed(0)
    model = module.MLP(96)
    factor = (104 / 40) ** 0.5
    torch.testing.assert_close(model.body[0].weight, plain.body[0].weight * factor)
    factor = 3**-1 * (100 / 36) ** 0.5
    torch.testing.assert_close(model.head.weight, plain.head.weight * factor)


def test_unknown_laws() -> None:
    """What the plan leaves alone is left alone; a factor without a formula is refused."""
    parameters = facts(load(MLP).MLP, 32, 64, mlp_law)
    alone = [dataclasses.replace(p, init_law=None, init_mult=1.0) for p in parameters]
    result = convert(MLP, "MLP", alone)
    assert '"init": None' in result and "mup_init_" not in result
    zeros = [dataclasses.replace(p, init_law=(), init_mult=1.0) for p in parameters]
    module = load(convert(MLP, "MLP", [*parameters[:-2], *zeros[-2:]]))
    assert module.MUP_BASE["head.weight"] == {"fan_in": {1: 32}, "init": None}
    with pytest.raises(RewriteError, match=r"body.2.bias: its init needs a factor of 1.4142"):
        convert(MLP, "MLP", [dataclasses.replace(p, init_law=None) for p in parameters])


def test_rows_that_differ_by_layer_are_literal() -> None:
    parameters = gpt_facts()
    changed = [
        dataclasses.replace(p, init_law=None, init_mult=1.0) if p.name == "h.1.up.weight" else p
        for p in parameters
    ]
    table = load(convert(GPT, "GPT", changed)).MUP_BASE
    assert [n for n in table if "up" in n] == ["h.0.up.weight", "h.1.up.weight"]
    assert "h.*.down.weight" in table


def test_deeper_models_and_unknown_parameters() -> None:
    module = load(converted_gpt())
    assert module.mup_param_groups(module.GPT(64, layers=5), 0.1)
    model = module.GPT(64)
    model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(KeyError, match=r"no row for extra\.weight"):
        module.mup_param_groups(model, 0.1)


def comments(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    return [t.string for t in tokens if t.type == tokenize.COMMENT]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("indent", ["    ", "\t", "  "])
@pytest.mark.parametrize("end", ["", "\n"])
def test_style_of_the_file(newline: str, indent: str, end: str) -> None:
    source = (MLP.rstrip("\n") + end).replace("    ", indent).replace("\n", newline)
    result = converted_mlp(source)
    assert [c for c in comments(result) if c in comments(source)] == comments(source)
    assert result.count("\n") == result.count(newline) == len(result.splitlines())
    assert result.endswith(newline)
    lines = [line for line in result.splitlines() if line[:1].isspace()]
    # a docstring's own lines and continued conditions may be deeper, but in the same unit
    assert all(line.startswith(indent) for line in lines)
    kept = [line for line in source.splitlines() if line.strip()]
    after = iter(result.splitlines())
    assert all(line in after for line in kept)
    assert load(result).MLP(64) is not None


def test_converting_twice_changes_nothing() -> None:
    for result, root, parameters in (
        (converted_mlp(), "MLP", mlp_facts()),
        (converted_gpt(), "GPT", gpt_facts()),
    ):
        edit = edit_of("x = q @ k", "q @ k")
        assert convert(result, root, parameters, edits=[edit]) == result


def test_no_automup_and_ruff_is_content(tmp_path: Path) -> None:
    main = '\n\nif __name__ == "__main__":\n    print(MLP(64))\n'
    edit = edit_of(GPT, "self.head(x)", dataclasses.replace(WIDTH, base=32), call=True)
    results = [converted_mlp(), converted_mlp(MLP + main), converted_gpt(edits=[edit])]
    for i, result in enumerate(results):
        assert "import automup" not in result
        (tmp_path / f"{i}.py").write_text(result)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E4,E7,E9,F", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_block_comes_before_code_that_runs() -> None:
    main = '\n\n# run it\nif __name__ == "__main__":\n    MLP(64)\n'
    result = converted_mlp(MLP + main)
    assert result.endswith(main) and result.index("MUP_BASE") < result.index("# run it")
    script = (
        MLP + "\nSIZES = dict(a=1)\n\n\ndef build(n):\n    return MLP(n)\n\n\nmodel = build(64)\n"
    )
    result = converted_mlp(script)
    assert result.index("def build") < result.index("MUP_BASE") < result.index("model = build")
    assert load(result).model.head.in_features == 64


def test_import_aliases() -> None:
    source = MLP.replace(
        "import torch.nn as nn", "import math as m\n\nimport torch as th\nimport torch.nn as nn"
    )
    result = converted_mlp(source)
    assert "import torch\n" not in result and "import math\n" not in result
    module = load(result)
    assert "th.optim.AdamW" in result and "m.prod" in result
    assert module.mup_optimizer(module.MLP(64), 0.1)


END = "        # the constructor ends here"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return", ["        mup_init_(self)", "        return"]),
        ("if width:\n            return", ["            mup_init_(self)", "            return"]),
        ("if width: return", ["        if width: mup_init_(self); return"]),
        ("def f():\n            return 3", ["            return 3"]),
    ],
)
def test_early_returns(before: str, after: list[str]) -> None:
    result = converted_mlp(MLP.replace(END, f"        {before}\n"))
    lines = result.splitlines()
    at = lines.index(after[0])
    assert lines[at : at + len(after)] == after
    torch.manual_seed(0)
    model = load(result).MLP(128)
    torch.manual_seed(0)
    plain = load(MLP).MLP(128)
    torch.testing.assert_close(model.head.weight, plain.head.weight * 0.5)


def test_one_line_constructor() -> None:
    source = (
        "import torch.nn as nn\n\n\nclass M(nn.Module):\n"
        "    def __init__(me, w=4): super().__init__(); me.h = nn.Linear(w, 2)  # all of it\n"
    )
    result = convert(source, "M", facts(load(source).M, 4, 8))
    assert "me.h = nn.Linear(w, 2)  # all of it\n        mup_init_(me)" in result
    assert load(result).M(8)


def test_init_method() -> None:
    """Where a method draws the weights the call is at its end, once for each draw."""
    result = converted_gpt()
    assert result.count("mup_init_(self)") == 1
    module = load(result)
    model = module.GPT(128)
    for _ in range(2):
        model.init_weights()
        assert 0.009 < model.h[0].up.weight.std() < 0.011
    assert 0.018 < model.wte.weight.std() < 0.022


def test_inner_init_methods_do_not_count() -> None:
    source = GPT.replace(
        "    def forward(self, x):\n        x = self.wte",
        "    def _init(self, module):\n        return None\n\n"
        "    def reset_parameters(self):\n        self.init_weights()\n\n"
        "    def forward(self, x):\n        x = self.wte",
    )
    names = ["GPT._init", "GPT.init_weights", "GPT.reset_parameters", "Block.other"]
    result = converted_gpt(source, init_functions=names)
    assert "        self.init_weights()\n        mup_init_(self)  # rescale" in result
    result = converted_gpt(source, init_functions=["GPT._init"])
    assert result.index("mup_init_(self)") < result.index("def init_weights")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("self.init_weights()\n", "self.init_weights()\n        self.z = nn.Linear(2, 2)\n"),
         "must be the last to draw"),
        (("self.init_weights()\n", "self.init_weights()\n        self.head.weight.data.mul_(2)\n"),
         "must be the last to draw"),
        (("    def forward(self, x):\n        x = self.wte",
          "    def other(self):\n        pass\n\n    def forward(self, x):\n        x = self.wte"),
         "both draw weights"),
        (("def configure", "def mup_optimizer"), "has a mup_optimizer of its own"),
        (("class GPT(", "class Other("), "class GPT is not at the top level"),
        (("nn.init.normal_(p, std=0.02)\n",
          "nn.init.normal_(p, std=0.02)\n        return self.apply(print)\n"),
         "may draw weights after"),
        (("optim.AdamW(groups, lr=lr)", "optim.AdamW(*groups)"), "cannot be told apart"),
    ],
)  # fmt: skip
def test_refusals(change: tuple[str, str], text: str) -> None:
    assert change[0] in GPT
    with pytest.raises(RewriteError, match=text) as caught:
        converted_gpt(GPT.replace(*change), init_functions=["GPT.init_weights", "GPT.other"])
    assert caught.value.where == "model.py" and caught.value.fix


BASE = MLP.replace("class MLP(nn.Module):  # the root", "class Base(nn.Module):")
NEW = ["def __init__(self, *args, **kwargs):", "    super().__init__(*args, **kwargs)"]
CALLED = [*NEW, "    mup_init_(self)  # rescale the init to muP"]


@pytest.mark.parametrize(
    "body, expected",
    [
        (" pass", CALLED),
        (" pass  # as its base", ["# as its base", *CALLED]),
        ("\n    # why\n    ...\n    # more", ["# why", *CALLED, "# more"]),
        ('\n    """Words."""', ['"""Words."""', "", *CALLED]),
        (
            "\n    kind = 1\n\n    # of x\n    def f(self): return 1",
            ["kind = 1", "", *CALLED, "", "# of x", "def f(self): return 1"],
        ),
        ("\n    # of x\n    def f(self): pass", [*CALLED, "", "# of x", "def f(self): pass"]),
        ("\n\n    def f(self): pass", [*CALLED, "", "def f(self): pass"]),
    ],
    ids=["one line", "comment", "ellipsis", "docstring", "attribute", "method", "spaced"],
)
def test_an_inherited_constructor(body: str, expected: list[str]) -> None:
    after = convert(BASE + f"\n\nclass MLP(Base):{body}\n", "MLP", mlp_facts())
    lines = after.partition("class MLP(Base):\n")[2].partition("\n\n\n")[0].rstrip().split("\n")
    assert [line.removeprefix("    ") for line in lines] == expected
    torch.manual_seed(0)
    narrow = load(BASE).Base()
    torch.manual_seed(0)
    for a, b in zip(narrow.parameters(), load(after).MLP().parameters(), strict=True):
        assert torch.equal(a, b)
    assert convert(after, "MLP", mlp_facts()) == after


def test_an_inherited_init_method() -> None:
    own = "\n    def __init__(self):\n        super().__init__(3)\n\n    def f(self): pass\n"
    source = BASE + f"\n    def draw(self): pass\n\n\nclass MLP(Base):{own}"
    after = convert(source, "MLP", mlp_facts(), init_functions=["MLP.draw"])
    lines = [line.replace("__init__", "draw") for line in CALLED]
    made = "".join(f"    {line}\n" for line in lines)
    assert own.replace("    def f", f"{made}\n    def f") in after


def test_a_constructor_that_a_decorator_makes() -> None:
    fields = "\n\n@dataclass\nclass MLP(Base):\n    width: int = 3\n"
    with pytest.raises(RewriteError, match="its decorator may make one"):
        convert(BASE + fields, "MLP", mlp_facts())
    fields += "\n    def __post_init__(self):\n        super().__init__(self.width)\n"
    after = convert(BASE + fields, "MLP", mlp_facts())
    assert "super().__init__(self.width)\n        mup_init_(self)" in after
    assert "*args" not in after
