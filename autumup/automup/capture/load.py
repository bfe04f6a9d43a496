"""Loading a model file as Python would, choosing its model, and building it with fields overridden.

A model's *fields* are what a width knob can be: the keyword arguments of its constructor, or the
fields of the config object that it takes; a config inside a config has dotted names.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import enum
import importlib
import importlib.util
import inspect
import io
import linecache
import os
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from automup.capture.source import is_user_file
from automup.errors import AutomupError, KnobError, ModelLoadError, UsageError

REQUIRED = inspect.Parameter.empty
"""The value of a field that has no default."""

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
        return _Fields(self.cls, self.module).flat()

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
        fields = _Fields(self.cls, self.module)
        flat = fields.flat()
        self._check_names(values, flat)
        missing = [n for n, default in flat.items() if default is REQUIRED and n not in values]
        if missing:
            raise UsageError(
                f"{self.name} needs {', '.join(missing)}, which has no default.",
                where=os.path.basename(self.file),
                fix="Pass " + " ".join(f"--base {name}=VALUE" for name in missing) + ".",
            )
        try:
            model = fields.construct(values)
        except AutomupError:
            raise
        except Exception as error:
            shown = ", ".join(f"{name}={value!r}" for name, value in values.items())
            raise KnobError(
                f"{self.name}({shown}) cannot be built: {describe(error)}.",
                where=place_of(error) or os.path.basename(self.file),
                fix="Choose other values with --base NAME=VALUE.",
            ) from error
        if not isinstance(model, nn.Module):
            raise ModelLoadError(
                f"{self.name}() returns {type(model).__name__}, which is not an nn.Module.",
                where=os.path.basename(self.file),
            )
        return model

    def _check_names(self, names: Iterable[str], fields: Mapping[str, Any]) -> None:
        unknown = [name for name in names if name not in fields]
        if not unknown or _takes_anything(self.cls):
            return
        close = difflib.get_close_matches(unknown[0], fields, n=1)
        raise UsageError(
            f"{self.name} has no field {unknown[0]!r}.",
            where=os.path.basename(self.file),
            fix=f"Did you mean {close[0]!r}?"
            if close
            else f"It has {', '.join(fields) or 'none'}.",
        )


# --- the fields of a constructor -----------------------------------------------------------------


class _Fields:
    """The fields of one class or function; those of a config that it takes are nested."""

    def __init__(self, owner: Callable[..., Any], module: ModuleType | None = None) -> None:
        self.owner = owner
        self.defaults: dict[str, Any] = {}
        self.nested: dict[str, _Fields] = {}
        self.base: Any = REQUIRED  # the instance that overrides are applied to, if there is one
        for name, (annotation, default) in _parameters(owner).items():
            self.defaults[name] = default
            config = _config_class(annotation, default)
            if config is None and module is not None and default is REQUIRED:
                config = _config_by_name(name, annotation, owner, module)
            if config is not None and config is not owner:
                self.nested[name] = _Fields(config)
                fresh = isinstance(default, _Factory) and default.make is config
                if default is not REQUIRED and default is not None and not fresh:
                    self.nested[name]._start_from(_value(default))
        # the only config of the model's constructor: its fields need no prefix
        self.unprefixed = module is not None and len(self.nested) == 1

    def _start_from(self, instance: Any) -> None:
        self.base = instance
        for name in self.defaults:
            if hasattr(instance, name):
                self.defaults[name] = getattr(instance, name)
                if name in self.nested:
                    self.nested[name]._start_from(self.defaults[name])

    def flat(self) -> dict[str, Any]:
        """Field name -> default, with dotted names for the fields of nested configs."""
        out: dict[str, Any] = {}
        for name, default in self.defaults.items():
            if name in self.nested:
                prefix = "" if self.unprefixed else f"{name}."
                out |= {prefix + inner: v for inner, v in self.nested[name].flat().items()}
            else:
                out[name] = _value(default)
        return out

    def construct(self, values: Mapping[str, Any]) -> Any:
        """Call the owner with these fields overridden."""
        arguments: dict[str, Any] = {n: v for n, v in values.items() if "." not in n}
        for name, inner in self.nested.items():
            prefix = "" if self.unprefixed else f"{name}."
            known = {prefix + n for n in inner.flat()}
            own = {n.removeprefix(prefix): v for n, v in values.items() if n in known}
            for taken in known:
                arguments.pop(taken, None)
            if own or self.defaults[name] is REQUIRED or self.defaults[name] is None:
                arguments[name] = inner.construct(own)
        if self.base is not REQUIRED and dataclasses.is_dataclass(self.base):
            return dataclasses.replace(typing.cast(Any, self.base), **arguments)
        accepted = _parameters(self.owner, class_attributes=False)
        free = _takes_anything(self.owner)
        made = self.owner(**{n: v for n, v in arguments.items() if free or n in accepted})
        for name, value in arguments.items():
            if not free and name not in accepted:  # a class attribute: set on the instance
                setattr(made, name, value)
        return made


@dataclasses.dataclass(frozen=True)
class _Factory:
    make: Callable[[], Any]


def _value(default: Any) -> Any:
    return default.make() if isinstance(default, _Factory) else default


def _parameters(
    owner: Callable[..., Any], class_attributes: bool = True
) -> dict[str, tuple[Any, Any]]:
    """Name -> (annotation, default) of what a class or function takes by keyword."""
    if dataclasses.is_dataclass(owner):
        scope = getattr(owner.__init__, "__globals__", {})
        out = {}
        for f in (f for f in dataclasses.fields(owner) if f.init):
            made = f.default_factory
            missing = REQUIRED if f.default is dataclasses.MISSING else f.default
            default = missing if made is dataclasses.MISSING else _Factory(made)
            out[f.name] = (_resolve(f.type, scope), default)
        return out
    found: dict[str, tuple[Any, Any]] = {}
    for function in _constructors(owner):
        scope = getattr(inspect.unwrap(function), "__globals__", {})
        parameters = list(inspect.signature(function).parameters.values())
        for p in parameters[inspect.isclass(owner) :]:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                found.setdefault(p.name, (_resolve(p.annotation, scope), p.default))
    if inspect.isclass(owner) and class_attributes and not issubclass(owner, nn.Module):
        for name, value in vars(owner).items():  # minGPT's way: defaults as class attributes
            if not name.startswith("_") and isinstance(value, int | float | str | tuple):
                found.setdefault(name, (type(value), value))
    return found


def _constructors(owner: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The function itself; of a class its ``__init__`` and those that it passes **kwargs on to."""
    if not inspect.isclass(owner):
        yield owner
        return
    for cls in owner.__mro__:
        init = vars(cls).get("__init__")
        if cls in (nn.Module, object) or not inspect.isfunction(init):
            continue
        yield init
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(init).parameters.values()):
            return


def _takes_anything(owner: Callable[..., Any]) -> bool:
    """True if unknown keywords are passed on to where we cannot see them."""
    *_, last = [None, *_constructors(owner)]
    if last is None:
        return False
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(last).parameters.values())


def _resolve(annotation: Any, scope: Mapping[str, Any]) -> Any:
    text = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(text, str):
        try:
            return eval(text, dict(scope))
        except Exception:  # a name that only type checkers import
            return None
    return annotation


def _config_class(annotation: Any, default: Any) -> type | None:
    """The config class that a parameter is annotated with, or that its default is one of."""
    made = type(default.make()) if isinstance(default, _Factory) else type(default)
    for kind in (annotation, *typing.get_args(annotation), made):
        if inspect.isclass(kind) and _is_config(kind):
            return kind
    return None


_NOT_CONFIGS = (nn.Module, torch.Tensor, enum.Enum, int, float, str, bytes, dict, list, set, type)


def _is_config(kind: type) -> bool:
    if issubclass(kind, _NOT_CONFIGS) or kind is REQUIRED or kind is _Factory:
        return False
    if dataclasses.is_dataclass(kind):
        return True
    try:
        own = is_user_file(inspect.getfile(kind))
    except (TypeError, OSError):
        return False
    values = [default for _, default in _parameters(kind).values()] if own else []
    return any(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _config_by_name(
    name: str, annotation: Any, owner: Callable[..., Any], module: ModuleType
) -> type | None:
    """The file's only config class, for an unannotated ``config``."""
    if name not in ("config", "cfg", "conf", "args", "hparams", "params"):
        return None
    if annotation not in (REQUIRED, None, Any):
        return None
    classes = {v for v in vars(module).values() if inspect.isclass(v) and _is_config(v)}
    named = {
        c for c in classes if dataclasses.is_dataclass(c) or c.__name__.endswith(("Config", "Args"))
    }
    named -= {inner.owner for c in named for inner in _Fields(c).nested.values()}
    matching = {c for c in named if c.__name__ == f"{getattr(owner, '__name__', '')}Config"}
    chosen = named if len(named) == 1 else matching
    return next(iter(chosen)) if len(chosen) == 1 else None


# --- the file ------------------------------------------------------------------------------------


def load_model(spec: str) -> ModelSource:
    """The model that ``model.py``, ``path.py:Name`` or ``package.module:Name`` stands for.

    Raises:
        ModelLoadError: the file cannot be read or imported, or no model in it can be chosen.
    """
    place, _, name = spec.rpartition(":") if re.search(r":[A-Za-z_]\w*$", spec) else (spec, "", "")
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
    chosen = _named(module, text, name) if name else _root(module, text)
    return ModelSource(chosen, module, str(module.__file__), chosen.__name__, text)


def load_text(text: str, filename: str) -> ModuleType:
    """Run source text as if it were that file: siblings can be imported, spans have their text.

    Raises:
        ModelLoadError: the text does not compile or raised while it ran.
    """
    return _execute(text, Path(filename).resolve(), fresh=False)


def _read(path: Path) -> str:
    fix = "Pass a Python file, such as model.py or model.py:ClassName."
    if path.is_dir():
        raise ModelLoadError(f"{path} is a folder.", fix=fix)
    if not path.is_file():
        raise ModelLoadError(f"{path}: no such file.", fix=fix)
    if path.suffix != ".py":
        raise ModelLoadError(f"{path} is not a Python file.", fix=fix)
    try:
        return path.read_bytes().decode("utf-8-sig")
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
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():  # a file inside a package
        root, name = root.parent, f"{root.name}.{name}"
    _purge(str(root), everything=fresh)
    foreign = name in sys.stdlib_module_names or name in sys.modules
    if "." not in name and foreign and name not in _loaded:
        name = f"_model_{name}"  # never in the way of somebody else's module
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
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except SyntaxError as error:
        where = f"{os.path.basename(error.filename or what)}:{error.lineno}"
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
    except Exception as error:
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


def describe(error: BaseException) -> str:
    """``KeyError: 'x'``: the first line of what an exception says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].rstrip('.')}" if text else type(error).__name__


def place_of(error: BaseException) -> str:
    """``file:line`` of the innermost line of user code that an exception passed through, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    users = [f for f in frames if is_user_file(f.filename)]
    installed = "site-packages" + os.sep
    own = [f for f in users if installed not in f.filename] or users
    return f"{os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""


# --- the model in the file -----------------------------------------------------------------------


def _named(module: ModuleType, text: str, name: str) -> Callable[..., Any]:
    value = getattr(module, name, None)
    where = os.path.basename(str(module.__file__))
    if inspect.isfunction(value) or (inspect.isclass(value) and issubclass(value, nn.Module)):
        return value
    if value is not None:
        kind = "a class" if inspect.isclass(value) else f"a {type(value).__name__} object"
        raise ModelLoadError(
            f"{name} is {kind}, not an nn.Module class or a function that returns one.",
            where=where,
        )
    known = [*_candidates(module), *_functions(module)]
    close = difflib.get_close_matches(name, known, n=1)
    fix = f"Did you mean {close[0]!r}?" if close else f"It has {', '.join(known) or 'no model'}."
    raise ModelLoadError(f"{where} has no {name!r}.", where=where, fix=fix)


def _candidates(module: ModuleType) -> dict[str, type[nn.Module]]:
    """The nn.Module classes that the file defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and (value.__module__, value.__name__) == (module.__name__, name)
    }


def _functions(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]


def _root(module: ModuleType, text: str) -> Callable[..., Any]:
    """The one model class that no other class of the file constructs, subclasses or refers to."""
    classes = _candidates(module)
    path = Path(str(module.__file__))
    if not classes:
        functions = _functions(module)
        hint = f", or name a function: {path.name}:{functions[0]}" if functions else ""
        raise ModelLoadError(
            f"{path} defines no nn.Module class.",
            fix=f"Pass the file that defines the model{hint}.",
        )
    tree = ast.parse(text)
    used = [reached(tree, list(classes)) for reached in (_referred, _constructed)]
    roots = next((r for u in used if (r := [n for n in classes if n not in u])), list(classes))
    if len(roots) == 1:
        return classes[roots[0]]
    lines = {n.name: n.lineno for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}
    listing = ", ".join(f"{name} (line {lines.get(name, '?')})" for name in roots)
    raise ModelLoadError(
        f"{path}: {len(roots)} classes could be the model: {listing}.",
        fix=f"Choose one, as in {path.name}:{roots[-1]}.",
    )


def _referred(tree: ast.Module, classes: Sequence[str]) -> set[str]:
    """Classes that another one names, also by way of the file's functions and tables."""
    names: dict[str, set[str]] = {}
    for node in tree.body:
        found = {n.id for n in _without_annotations(node) if isinstance(n, ast.Name)}
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.setdefault(node.name, set()).update(found)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    names.setdefault(target.id, set()).update(found)
    used: set[str] = set()
    for cls in classes:
        todo, seen = [cls], {cls}
        while todo:
            fresh = names.get(todo.pop(), set()) - seen
            seen |= fresh
            todo += [name for name in fresh if name not in classes]
        used |= seen - {cls}
    return used


def _constructed(tree: ast.Module, classes: Sequence[str]) -> set[str]:
    """Classes that another one calls or subclasses."""
    used: set[str] = set()
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)):
        called = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
        found = {n.id for n in [*called, *node.bases] if isinstance(n, ast.Name)}
        used |= (found - {node.name}) if node.name in classes else set()
    return used


def _without_annotations(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name not in ("annotation", "returns"):
                yield from _without_annotations(child)


# --- values on the command line ------------------------------------------------------------------


def parse_value(text: str) -> Any:
    """``4``, ``1e-3``, ``None``, ``true`` or ``(2, 2)``; anything else is a string."""
    word = {"true": "True", "false": "False", "none": "None"}.get(text.strip(), text.strip())
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError):
        return text.strip()


def parse_assignments(items: Iterable[str]) -> dict[str, Any]:
    """``["n_embd=256,n_head=4", "bias=false"]`` -> names and values.

    Raises:
        UsageError: an item is not NAME=VALUE, or a name is given twice.
    """
    values: dict[str, Any] = {}
    for item in items:
        for part in re.split(r",(?=\s*[A-Za-z_][\w.]*\s*=)", item):
            name, equals, value = part.partition("=")
            name = name.strip()
            if not equals or not value.strip() or not re.fullmatch(r"[A-Za-z_][\w.]*", name):
                raise UsageError(f"{part!r} is not NAME=VALUE.", fix="Write n_embd=256.")
            if name in values:
                raise UsageError(f"{name} is given twice.", fix="Give each name one value.")
            values[name] = parse_value(value)
    return values
