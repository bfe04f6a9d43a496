"""From a model file and settings on the command line to a model."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType

import torch.nn as nn

WIDTH_NAMES = ("n_embd", "dim", "d_model", "hidden_size", "width")


class TrainError(Exception):
    """Something that the caller can put right; shown without a traceback."""


# --- the model file ------------------------------------------------------------------------------


def load_module(path: Path) -> ModuleType:
    """Import a file as Python would: its siblings and its package can be imported from it."""
    if not path.is_file():
        raise TrainError(f"{path}: no such file")
    path = path.resolve()
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():  # a file inside a package
        root, name = root.parent, f"{root.name}.{name}"
    sys.path.insert(0, str(root))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TrainError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        if "." in name:
            importlib.import_module(name.rpartition(".")[0])
        spec.loader.exec_module(module)
    except Exception as error:
        raise TrainError(f"{path}: cannot be imported: {describe(error)}") from error
    return module


def describe(error: BaseException) -> str:
    """The last line of a traceback."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def find_model(module: ModuleType, name: str | None) -> type[nn.Module]:
    """The class of that name, or else the one module class that no other in the file uses."""
    classes = {
        cls.__name__: cls
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, nn.Module) and cls.__module__ == module.__name__
    }
    if name is not None:
        if name not in classes:
            raise TrainError(
                f"{module.__file__}: no nn.Module class {name!r}; it has {listing(classes)}"
            )
        return classes[name]
    used = {
        mentioned
        for cls in classes.values()
        for mentioned in names_used_by(cls)
        if mentioned != cls.__name__
    }
    roots = [cls for cls in classes.values() if cls.__name__ not in used]
    if len(roots) != 1:
        names = [cls.__name__ for cls in roots] or list(classes)
        raise TrainError(
            f"{module.__file__}: {listing(names)} could be the model; "
            f"choose with {Path(module.__file__ or '').name}:ClassName"
            if names
            else f"{module.__file__}: defines no nn.Module class"
        )
    return roots[0]


def names_used_by(cls: type) -> Iterator[str]:
    """Global names in the methods of a class, and its base classes."""
    yield from (base.__name__ for base in cls.__bases__)
    todo: list[CodeType] = []
    for member in vars(cls).values():
        function = getattr(member, "__func__", member)  # static and class methods
        if inspect.isfunction(inspect.unwrap(function)):
            todo.append(inspect.unwrap(function).__code__)
    while todo:
        code = todo.pop()
        yield from code.co_names
        todo += [const for const in code.co_consts if isinstance(const, CodeType)]


def listing(names: typing.Iterable[str]) -> str:
    return ", ".join(names) or "none"


# --- the model -----------------------------------------------------------------------------------


class Recipe:
    """How to build a model class: its arguments are its own, or a config dataclass's fields."""

    def __init__(self, cls: type[nn.Module]):
        self.cls = cls
        self.config_class: type | None = None
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        try:
            hints = typing.get_type_hints(cls.__init__)
        except (NameError, TypeError):
            hints = {}
        if len(parameters) == 1 or (parameters and parameters[0].name in ("config", "args")):
            self.config_class = self._config_class(parameters[0], hints.get(parameters[0].name))
        self.defaults: dict[str, object] = {}
        if self.config_class is not None:
            for field in dataclasses.fields(self.config_class):
                made = field.default_factory
                default = made() if made is not dataclasses.MISSING else field.default
                self.defaults[field.name] = default
            self.required = [k for k, v in self.defaults.items() if v is dataclasses.MISSING]
        else:
            named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            self.defaults = {p.name: p.default for p in named}
            self.required = [p.name for p in named if p.default is p.empty]

    def _config_class(self, parameter: inspect.Parameter, hint: object) -> type | None:
        """The dataclass that a parameter takes, by annotation, by default, or the file's only."""
        for candidate in (hint, *typing.get_args(hint), type(parameter.default)):
            if inspect.isclass(candidate) and dataclasses.is_dataclass(candidate):
                return candidate
        if hint is not None or parameter.default is not parameter.empty:
            return None
        module = sys.modules[self.cls.__module__]
        found = [
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and dataclasses.is_dataclass(value)
            and not issubclass(value, nn.Module)
        ]
        return found[0] if len(found) == 1 else None

    @property
    def width_name(self) -> str:
        for name in WIDTH_NAMES:
            if name in self.defaults:
                return name
        raise TrainError(
            f"{self.cls.__name__}: which argument is its width? Name it with --set NAME=VALUE; "
            f"it takes {listing(self.defaults)}"
        )

    def build(self, values: dict[str, object]) -> nn.Module:
        unknown = [name for name in values if name not in self.defaults]
        if unknown:
            raise TrainError(
                f"{self.cls.__name__} has no {listing(unknown)}; it takes {listing(self.defaults)}"
            )
        missing = [name for name in self.required if name not in values]
        if missing:
            raise TrainError(
                f"{self.cls.__name__} needs {listing(missing)}: give it with --set NAME=VALUE"
            )
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
        try:
            if self.config_class is not None:
                return self.cls(self.config_class(**values))
            return self.cls(**values)
        except Exception as error:
            raise TrainError(
                f"{self.cls.__name__}({shown}) cannot be built: {describe(error)}"
            ) from error


def parse_value(text: str) -> object:
    """``4``, ``1e-3``, ``None``, ``true`` or ``(2, 2)``; anything else is a string."""
    try:
        return ast.literal_eval(text.title() if text in ("true", "false", "none") else text)
    except (ValueError, SyntaxError):
        return text
