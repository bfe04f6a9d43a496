"""Methods that no instance in a model can run, and every way in which one still can."""

from __future__ import annotations

import pytest

from automup.rewrite import overridden_lines

FILE = """\
class Base:
    def run(self):
        return self.mix()

    def mix(self):
        return 1  # overridden

    def both(self):
        return 2


class Model(Base):
    part = None

    def mix(self):
        return 3


class Sister(Base):
    def other(self):
        return 4
"""


def out_of_reach(source: str, *held: str) -> set[str]:
    defined: dict[str, object] = {}
    exec(source, defined)
    classes = [c for name in ("Model", *held) if isinstance(c := defined[name], type)]
    lines = overridden_lines(source, defined, classes[0], classes)
    return {source.splitlines()[n - 1].strip() for n in lines}


OVERRIDDEN = {"def mix(self):", "return 1  # overridden"}


def test_what_the_model_overrides() -> None:
    assert out_of_reach(FILE) == OVERRIDDEN


@pytest.mark.parametrize(
    "change",
    [
        ("return 3", "return super().mix()"),
        ("return 3", "return super(Model, self).mix()"),
        ("return 3", "return Base.mix(self)"),
        ("return 3", "return Sister().mix()"),
        ("return 2", "return Sister().mix()"),
        ("return 2", "return build().mix()"),
        ("return 2", "return KINDS[0]().mix()"),
        ("return 2", "return Base.__subclasses__()[1]().mix()"),
        ("return 2", "return globals()['Sister']().mix()"),
        ("part = None", "part = staticmethod(lambda: Sister())"),
        ("def both", "alias = mix\n\n    def both"),
        ("class Sister(Base):", "@register\nclass Sister(Base):"),
        ("        return 4\n", "        return 4\n\n\nregister(Sister)\n"),
        ("        return 4\n", "        return 4\n\n\nTABLE[0] = Sister\n"),
        ("class Model(Base)", "class Model(Base, metaclass=Meta)"),
    ],
    ids=lambda change: change[1].replace("\n", " "),
)
def test_what_can_still_run(change: tuple[str, str]) -> None:
    before = "TABLE = {}\n\n\nclass Meta(type):\n    pass\n\n\n"
    before += "def register(cls):\n    return cls\n\n\n"
    after = "\n\nKINDS = [Sister]\n\n\ndef build():\n    return Sister()\n"
    assert out_of_reach(before + FILE + after) == OVERRIDDEN
    assert change[0] in FILE
    assert out_of_reach(before + FILE.replace(*change) + after) == set()


def test_another_module_of_the_model_that_has_it() -> None:
    assert out_of_reach(FILE, "Sister") == set()
    own = FILE.replace("def other", "def mix")
    assert out_of_reach(own, "Sister") == OVERRIDDEN


def test_scripts_and_siblings_do_not_count() -> None:
    script = '\n\nif __name__ == "__main__":\n    Sister().mix()\n'
    assert out_of_reach(FILE + script) == OVERRIDDEN
    sister = FILE.replace("return 4", "return Sister().mix()")
    assert out_of_reach(sister) == OVERRIDDEN
