"""Model files are imported as Python would import them, and what goes wrong is said in one line."""

from __future__ import annotations

import linecache
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from automup.capture.fields import REQUIRED
from automup.capture.load import load_model, load_text
from automup.capture.values import parse_assignments, parse_value
from automup.errors import KnobError, ModelLoadError, UsageError

HEAD = "import torch\nfrom torch import nn\nfrom dataclasses import dataclass, field\n"
NET = """
class Net(nn.Module):
    def __init__(self, width: int = 8, bias: bool = True):
        super().__init__()
        self.fc = nn.Linear(4, width, bias=bias)
"""


@pytest.fixture(autouse=True)
def restored_path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


def write(path: Path, body: str, head: str = HEAD) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + textwrap.dedent(body), encoding="utf-8")
    return str(path)


def message(spec: str) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load_model(spec)
    return str(caught.value)


def test_arguments_are_fields(tmp_path: Path) -> None:
    source = load_model(write(tmp_path / "model.py", NET))
    assert source.name == "Net" and source.file == str(tmp_path / "model.py")
    assert source.constructor_fields() == {"width": 8, "bias": True}
    assert source.build({"width": 16}).fc.weight.shape == (16, 4)


def test_siblings_reloading_and_equal_stems(tmp_path: Path) -> None:
    body = """
    from parts import SIZE
    class Net(nn.Module):
        def __init__(self, width=SIZE):
            super().__init__()
    """
    for folder, size in (("a", 3), ("b", 5), ("a", 7)):  # the last one: a sibling that changed
        write(tmp_path / folder / "parts.py", f"SIZE = {size}\n")
        spec = write(tmp_path / folder / "model.py", body)
        assert load_model(spec).constructor_fields() == {"width": size}
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_file_in_a_package(tmp_path: Path) -> None:
    write(tmp_path / "pkg" / "__init__.py", "from .model import Net\n")
    write(tmp_path / "pkg" / "norm.py", "SIZE = 6\n")
    spec = write(tmp_path / "pkg" / "model.py", "from .norm import SIZE\n" + NET)
    source = load_model(spec)
    assert source.module.__name__ == "pkg.model"
    assert source.cls is sys.modules["pkg"].Net
    sys.path.insert(0, str(tmp_path))
    assert load_model("pkg.model:Net").file == spec


def test_a_stem_that_is_somebody_elses(tmp_path: Path) -> None:
    import types

    assert load_model(write(tmp_path / "types.py", NET)).name == "Net"
    assert sys.modules["types"] is types


def test_text_runs_as_a_file_that_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path / "parts.py", "SIZE = 3\n")
    path = tmp_path / "mu_model.py"
    for size in (1, 2):
        module = load_text(f"from parts import SIZE\nN = SIZE + {size}  # é\n", str(path))
        assert 3 + size == module.N and module.__name__ == "mu_model"
    linecache.checkcache()
    assert linecache.getline(str(path), 2) == "N = SIZE + 2  # é\n"
    assert not path.exists()


CONFIG = """
@dataclass
class Attn:
    n_head: int = 2
    n_ff: int | None = None
    def __post_init__(self):
        self.n_ff = self.n_ff or 4 * self.n_head

@dataclass
class Config:
    width: int = 8
    attn: Attn = field(default_factory=Attn)

class Net(nn.Module):
    def __init__(self, config{annotation}):
        super().__init__()
        self.fc = nn.Linear(config.width, config.attn.n_ff)
"""


@pytest.mark.parametrize(
    "annotation", ["", ": Config", ": 'Config'", ": Config | None = Config(width=8)"]
)
def test_config_fields(tmp_path: Path, annotation: str) -> None:
    spec = write(tmp_path / "model.py", CONFIG.replace("{annotation}", annotation))
    source = load_model(spec)
    assert source.constructor_fields()["width"] == 8
    assert source.constructor_fields()["attn.n_head"] == 2
    built = source.build({"width": 16, "attn.n_head": 3})
    assert built.fc.weight.shape == ((12 if "=" not in annotation else 8), 16)


def test_a_config_with_class_attributes(tmp_path: Path) -> None:
    body = """
    class Config:
        width = 8
    class Net(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.fc = nn.Linear(4, config.width)
    """
    source = load_model(write(tmp_path / "model.py", body))
    assert source.constructor_fields() == {"width": 8}
    assert source.build({"width": 16}).fc.out_features == 16


MADE = """
class Node:
    def __init__(self, **fields):
        self.__dict__.update(fields)

class Net(nn.Module):
    @{decorator}
    def any_name({arguments}):
        '''What there is to set.'''
        made = Node()
        made.width = None
        made.attn = Node()
        made.attn.heads = 2
        {also}
        return made

    def __init__(self, config):
        super().__init__()
        self.fc = nn.Linear(4, config.width)
"""


@pytest.mark.parametrize("decorator, arguments", [("staticmethod", ""), ("classmethod", "cls")])
def test_a_config_that_the_class_makes(tmp_path: Path, decorator: str, arguments: str) -> None:
    body = MADE.format(decorator=decorator, arguments=arguments, also="made.bias = True")
    source = load_model(write(tmp_path / "made.py", body) + ":Net")
    assert source.constructor_fields() == {"width": None, "bias": True}
    built: Any = source.build({"width": 6})
    assert built.fc.out_features == 6


@pytest.mark.parametrize("also", ["open('seen', 'w').close()", "made.bias = print()", "made = 1"])
def test_what_does_more_than_make_a_config_is_not_called(tmp_path: Path, also: str) -> None:
    body = MADE.format(decorator="staticmethod", arguments="", also=also)
    source = load_model(write(tmp_path / "made.py", body) + ":Net")
    assert source.constructor_fields() == {"config": REQUIRED}


def test_the_root_is_the_class_that_no_other_uses(tmp_path: Path) -> None:
    body = """
    class A(nn.Module): ...
    class B(nn.Module): ...
    KINDS = {"b": B}
    def make(kind): return KINDS[kind]()
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([A(), make("b")])
        @classmethod
        def small(cls) -> "Root": return Root()
    """
    spec = write(tmp_path / "model.py", body)
    assert load_model(spec).name == "Root"
    assert load_model(f"{spec}:A").name == "A"
    assert "Did you mean 'Root'" in message(f"{spec}:Rot")
    assert "make" in message(f"{spec}:zzz")


def test_a_function_that_returns_a_module(tmp_path: Path) -> None:
    spec = write(tmp_path / "model.py", "def make(width, k=2): return nn.Linear(width, k)\n")
    source = load_model(f"{spec}:make")
    assert source.constructor_fields() == {"width": REQUIRED, "k": 2}
    assert isinstance(source.build({"width": 3}), nn.Linear)
    assert source.base_values(["width"], {"k": 3}) == {"width": 256, "k": 3}
    with pytest.raises(UsageError, match=r"needs width.*--base width=VALUE"):
        source.build({})
    assert "model.py:make" in message(spec)


def test_build_errors(tmp_path: Path) -> None:
    source = load_model(write(tmp_path / "model.py", NET + "        assert width != 9, 'odd'\n"))
    with pytest.raises(UsageError, match=r"no field 'widht'.*Did you mean 'width'"):
        source.build({"widht": 3})
    with pytest.raises(KnobError, match=r"Net\(width=9\).*AssertionError: odd.*model.py:9"):
        source.build({"width": 9})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("class Net(nn.Module:\n    pass\n", ["syntax error", "model.py:4"]),
        ("import no_such_thing\n", ["No module named", "model.py:4", "Install no_such_thing"]),
        ("def f():\n    return 1 / 0\nf()\n", ["ZeroDivisionError", "model.py:5"]),
        ("import sys\nsys.exit(3)\n", ["exits when it is imported", "__main__", "model.py:5"]),
        ("X = 1\n", ["defines no nn.Module class"]),
        ("class A(nn.Module): ...\nclass B(nn.Module): ...\n", ["A (line 4), B (line 5)", ":B"]),
    ],
)
def test_broken_files(tmp_path: Path, body: str, said: list[str]) -> None:
    text = message(write(tmp_path / "model.py", body))
    assert all(part in text for part in said), text


def test_paths_that_are_no_model_files(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"# ok\n# caf\xe9\n")
    (tmp_path / "model.txt").write_text("")
    assert "no such file" in message(str(tmp_path / "gone.py"))
    assert "no such file" in message("gone")
    assert "is a folder" in message(str(tmp_path))
    assert "not a Python file" in message(str(tmp_path / "model.txt"))
    assert "latin.py:2" in message(str(tmp_path / "latin.py"))
    assert "No module named" in message("no.such:Net")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("1e-3", 1e-3),
        ("true", True),
        ("None", None),
        ("(2, 3)", (2, 3)),
        ("gelu", "gelu"),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_assignments() -> None:
    assert parse_assignments(["a=1,b.c=(2,3)", "d = x"]) == {"a": 1, "b.c": (2, 3), "d": "x"}
    for wrong in (["a"], ["a="], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(UsageError):
            parse_assignments(wrong)
