"""Loading a model file as Python would, and building its model with fields overridden."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import io
import linecache
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from automup.capture.choose import choose_model
from automup.capture.fields import REQUIRED, Fields, takes_anything
from automup.capture.guest import guest_code, one_process
from automup.capture.raised import describe, place_of
from automup.errors import AutomupError, KnobError, ModelLoadError, UsageError

LARGEST = 8 << 20
"""The size in bytes above which a file is taken for anything but a model's source."""

_loaded: dict[str, str] = {}  # modules in sys.modules that came with a model file: name -> root


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A model's class, or a function that returns a model, and the file that defines it."""

    cls: Callable[..., Any]
    module: ModuleType
    file: str
    name: str
    text: str

    def constructor_fields(self) -> dict[str, Any]:
        """Every field that can be overridden, with its default; ``REQUIRED`` if it has none."""
        return Fields(self.cls, self.module).flat()

    def base_values(self, width: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
        """The given values, and for each named width knob its default, or 256 if it has none.

        Raises:
            UsageError: a name is not a field.
        """
        fields = self.constructor_fields()
        self._check_names([*given, *width], fields)
        own = {n: 256 if fields.get(n) is REQUIRED else fields.get(n, 256) for n in width}
        return own | dict(given)

    def build(self, overrides: Mapping[str, Any] | None = None) -> nn.Module:
        """The model with these fields overridden.

        Raises:
            UsageError: an override is not a field, or a field without a default is not given.
            KnobError: the constructor raised; its message and place are in the error.
            ModelLoadError: what was built is not a module.
        """
        values = dict(overrides or {})
        fields = Fields(self.cls, self.module)
        flat = fields.flat()
        self._check_names(values, flat)
        missing = [n for n, default in flat.items() if default is REQUIRED and n not in values]
        if missing:
            raise UsageError(
                f"{self.name} needs {', '.join(missing)}: no default is known.",
                where=os.path.basename(self.file),
                fix="Pass "
                + " ".join(f"--base {name}=VALUE" for name in missing)
                + ", or name a function that makes the model: "
                f"{os.path.basename(self.file)}:FUNCTION.",
            )
        try:
            with one_process():
                model = fields.construct(values)
        except AutomupError:
            raise
        except Exception as error:
            shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
            raise KnobError(
                f"{self.name}({shown}) cannot be built: {describe(error)}.",
                where=place_of(error) or os.path.basename(self.file),
                fix="Choose other values with --base NAME=VALUE."
                if values
                else "Pass what it needs with --base NAME=VALUE, or name a function that builds "
                f"it: {os.path.basename(self.file)}:FUNCTION.",
            ) from error
        if not isinstance(model, nn.Module):
            raise ModelLoadError(
                f"{self.name}() returns {type(model).__name__}, which is not an nn.Module.",
                where=os.path.basename(self.file),
            )
        return model

    def _check_names(self, names: Iterable[str], fields: Mapping[str, Any]) -> None:
        unknown = [name for name in names if name not in fields]
        if not unknown or takes_anything(self.cls):
            return
        close = difflib.get_close_matches(unknown[0], fields, n=1)
        raise UsageError(
            f"{self.name} has no field {unknown[0]!r}.",
            where=os.path.basename(self.file),
            fix=f"Did you mean {close[0]!r}?"
            if close
            else f"It has {', '.join(fields) or 'none'}.",
        )


def load_model(spec: str) -> ModelSource:
    """The model that ``model.py``, ``path.py:Name`` or ``package.module:Name`` stands for.

    Raises:
        ModelLoadError: the file cannot be read or imported, or no model in it can be chosen.
    """
    named = re.search(r":[A-Za-z_][\w.]*$", spec) and not spec.endswith(".py")
    place, _, name = spec.rpartition(":") if named else (spec, "", "")
    path = Path(place)
    if path.suffix == ".py" or path.exists() or not re.fullmatch(r"[A-Za-z_][\w.]*", place):
        text = _read(path)
        module = _execute(text, path.resolve(), fresh=True)
    elif not name:
        close = f"{place}.py" if Path(f"{place}.py").is_file() else "model.py"
        raise ModelLoadError(f"{spec}: no such file.", fix=f"Pass a path such as {close}.")
    else:
        module = _import(place)
        text = _read(Path(str(module.__file__)))
    chosen = choose_model(module, text.removeprefix("\ufeff"), name)
    return ModelSource(chosen, module, str(module.__file__), chosen.__name__, text)


def load_text(text: str, filename: str) -> ModuleType:
    """Run source text as if it were that file: siblings can be imported, spans have their text.

    Raises:
        ModelLoadError: the text does not compile or raised while it ran.
    """
    return _execute(text, Path(filename).resolve(), fresh=False)


def load_beside(filename: str) -> ModuleType:
    """Run a further Python file beside a model's, which stays loaded: its folder can be imported.

    Raises:
        ModelLoadError: the file cannot be read, or raised while it ran.
    """
    path = Path(filename)
    text = _read(path)
    module = ModuleType(f"_beside_{path.stem}")
    module.__file__ = str(path.resolve())
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    with _importing(str(path.resolve().parent), filename):
        exec(compile(text, module.__file__, "exec", dont_inherit=True), vars(module))
    return module


def _read(path: Path) -> str:
    fix = "Pass a Python file, such as model.py or model.py:ClassName."
    if path.is_dir():
        raise ModelLoadError(f"{path} is a folder.", fix=fix)
    if not path.exists():
        raise ModelLoadError(f"{path}: no such file.", fix=fix)
    if path.suffix != ".py" or not path.is_file():
        raise ModelLoadError(f"{path} is not a Python file.", fix=fix)
    try:
        if path.stat().st_size > LARGEST:
            raise ModelLoadError(f"{path} has more than {LARGEST >> 20} MiB of text.", fix=fix)
        data = path.read_bytes()
        if b"\0" in data:
            raise ModelLoadError(f"{path} is no text: it has null bytes.", fix=fix)
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ModelLoadError(
            f"{path} is not UTF-8: {error.reason}.",
            where=f"{path.name}:{line}",
            fix="Save it as UTF-8.",
        ) from error
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}.") from error


def _execute(text: str, path: Path, fresh: bool) -> ModuleType:
    """Compile and run the text under the name that Python would give the file."""
    root, name = path.parent, path.stem.replace(".", "_")
    while (root / "__init__.py").is_file():  # a file inside a package
        root, name = root.parent, f"{root.name}.{name}"
    _purge(str(root), everything=fresh)
    foreign = name in sys.stdlib_module_names or name in sys.modules
    if "." not in name and foreign and name not in _loaded:
        name = f"_model_{name}"  # never in the way of somebody else's module
    text = text.removeprefix("\ufeff")
    lines = io.StringIO(text, newline=None).readlines()
    linecache.cache[str(path)] = (len(text), None, lines, str(path))
    with _importing(str(root), str(path)):
        code = compile(text, str(path), "exec", dont_inherit=True)
        if "." in name:
            importlib.import_module(name.rpartition(".")[0])
            if fresh and name in sys.modules:  # the package imports it by itself
                return sys.modules[name]
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None  # the path ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        exec(code, vars(module))
    return module


def _import(name: str) -> ModuleType:
    _purge("", everything=True)
    with _importing(os.getcwd(), name):
        module = importlib.import_module(name)
    if getattr(module, "__file__", None) is None:
        raise ModelLoadError(f"{name} has no source file.", fix="Name the module of the class.")
    return module


def _purge(root: str, everything: bool) -> None:
    """Forget modules that came with earlier model files (or only those of other folders)."""
    for name, origin in list(_loaded.items()):
        if everything or origin != root:
            sys.modules.pop(name, None)
            del _loaded[name]
    importlib.invalidate_caches()


@contextlib.contextmanager
def _importing(root: str, what: str) -> Iterator[None]:
    """Run the model file's own code; what it raises becomes a ModelLoadError."""
    before, argv, no_bytecode = set(sys.modules), sys.argv, sys.dont_write_bytecode
    if sys.path[:1] != [root]:
        sys.path.insert(0, root)  # it stays: a model may import when it is built or run
    sys.argv, sys.dont_write_bytecode = [what], True
    try:
        with guest_code():
            yield
    except SyntaxError as error:
        line = f":{error.lineno}" if error.lineno else ""
        where = f"{os.path.basename(error.filename or what)}{line}"
        raise ModelLoadError(f"{what}: syntax error: {error.msg}.", where=where) from error
    except ModuleNotFoundError as error:
        raise ModelLoadError(
            f"{what} cannot be imported: {describe(error)}.",
            where=place_of(error),
            fix=f"Install {error.name}, or put its folder on PYTHONPATH.",
        ) from error
    except SystemExit as error:
        raise ModelLoadError(
            f"{what} exits when it is imported ({describe(error)}).",
            where=place_of(error),
            fix='Put what it runs under `if __name__ == "__main__":`.',
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ModelLoadError(
            f"{what} cannot be imported: {describe(error)}.", where=place_of(error)
        ) from error
    finally:
        sys.argv, sys.dont_write_bytecode = argv, no_bytecode
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            installed = "site-packages" in file or name.partition(".")[0] == "automup"
            if file.startswith(root.rstrip(os.sep) + os.sep) and not installed:
                _loaded[name] = root
