"""From a finished sweep to the configuration of another width, and to its model and optimizer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automup.capture.values import said
from automup.constants import Constants
from automup.errors import KnobError, PlanError, UsageError
from automup.files import write_atomically
from automup.reading import parse, read
from automup.report.data import as_dict
from automup.report.document import fold
from automup.sweep.results import SweepResult
from automup.sweep.settings import split
from automup.sweep.stored import Call

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from automup.api import Mup
    from automup.study import Study

SCHEMA = 1


@dataclass(frozen=True)
class Group:
    """Parameters that share their settings at the target.

    Args:
        parameters: their names; ``*`` stands for the layers' numbers.
        role: input, hidden, output or scalar.
        lr, weight_decay, eps: of the optimizer, where it has them.
        init_std: of the initial draw (None: not known).
        multiplier: of the output, in the forward pass.
    """

    parameters: str
    role: str
    lr: float
    weight_decay: float | None
    eps: float | None
    init_std: float | None
    multiplier: float


@dataclass(frozen=True)
class Transfer:
    """Everything that was tuned on the narrow model, at the target.

    Args:
        call: the model and the options that it was opened with; None for one from Python.
        model: its name.
        base, tuned_at, target: the width knobs' values where muP equals SP, where it was tuned,
            and where it is to be trained.
        optimizer: its name.
        options: its other settings.
        lr: the learning rate to give to it, the optimum of the narrowest width.
        lr_octaves: the error of that, in octaves (None: one seed).
        constants: those of muP, tuned.
        groups: what each parameter gets.
    """

    call: Call | None
    model: str
    base: Mapping[str, Any]
    tuned_at: Mapping[str, Any]
    target: Mapping[str, Any]
    optimizer: str
    options: Mapping[str, Any]
    lr: float
    lr_octaves: float | None
    constants: Mapping[str, float]
    groups: tuple[Group, ...]

    def to_json(self) -> str:
        """The configuration as JSON, with its schema version."""
        return json.dumps({"automup_transfer": SCHEMA, **asdict(self)}, indent=1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration: as YAML if the file's name says so, else as JSON."""
        text = self.to_json()
        if _is_yaml(path):
            import yaml

            text = yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True)
        write_atomically(Path(path), text.rstrip() + "\n")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Transfer:
        """Read what :meth:`save` wrote.

        Raises:
            PlanError: the file is missing or no such configuration.
        """
        import yaml

        try:
            text = Path(path).read_text(encoding="utf-8")
            data = yaml.safe_load(text) if _is_yaml(path) else parse(text)
            version = data.pop("automup_transfer", None) if isinstance(data, dict) else None
            if version != SCHEMA or version is True:
                raise ValueError("automup_transfer is another or missing")
            config: Transfer = read(Transfer, json.loads(json.dumps(data)), "")
            if not config.lr > 0:
                raise ValueError(f"lr is {config.lr}")
            return config
        except OSError as error:
            raise PlanError(f"Cannot read it: {error.strerror}.", where=str(path)) from None
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            raise PlanError(
                f"Not a configuration of schema {SCHEMA}: {_first_line(error)}.",
                where=str(path),
                fix="Make it with `automup transfer FOLDER --target … --out FILE`.",
            ) from None

    # --- the model ----------------------------------------------------------------------------

    @cached_property
    def mup(self) -> Mup:
        """The model in muP with the tuned constants, opened as the sweep opened it.

        Raises:
            UsageError: the sweep was run in Python, which knows the model: ``mu.transfer``.
        """
        if self.call is None:
            raise UsageError(
                f"This sweep of {self.model} was run in Python, which has the model.",
                fix="Use its mu.with_constants(automup.Constants(...)) and the lr in the file.",
            )
        _, mup = self.call.opened()
        check_base(mup.base, self.base)
        return mup.with_constants(Constants.of(self.constants))

    def make_model(self) -> nn.Module:
        """The model at the target, in muP, freshly drawn."""
        return self.mup(**self.target)

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """Its optimizer, with the tuned learning rate."""
        from automup.optim import optimizer_class_of

        cls = optimizer_class_of(self.optimizer)
        return self.mup.optimizer(model, cls, lr=self.lr, **self.options)


def _first_line(error: Exception) -> str:
    return (
        "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"{error}".splitlines()[0]
    )


def _is_yaml(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix in (".yaml", ".yml")


def transfer(mup: Mup, study: Study, result: SweepResult, target: Mapping[str, Any]) -> Transfer:
    """The configuration of a target width, from what a sweep tuned at its narrowest.

    Args:
        mup, study: the model of the sweep.
        result: the sweep.
        target: values of width knobs. What is not given of several knobs grows as much as the
            first that is.

    Raises:
        UsageError: a name is no knob, the sweep has no optimum, or the model's base is another.
    """
    row = result.narrowest("mup")
    if math.isnan(row.optimum.log2_lr.value):
        raise UsageError("Every run of the narrowest width diverged: there is nothing to transfer.")
    from automup.optim import optimizer_class_of

    about = result.about
    check_base(mup.base, about["base"])
    whole = _whole(mup.base, target)
    constants, decay = split(about["constants"])
    options = {**about["options"], **decay}
    lr = 2.0**row.optimum.log2_lr.value
    error = row.optimum.log2_lr.error
    tuned = mup.with_constants(Constants.of(constants))
    facts = as_dict(tuned.plan(**whole), about["optimizer"])["parameters"]
    model = study.models.shop(whole).built.model  # without its weights
    cls = optimizer_class_of(about["optimizer"])
    made = tuned.optimizer(model, cls, lr=lr, **options)
    return Transfer(
        call=read(Call | None, about.get("call"), "call"),
        model=about["model"],
        base=mup.base,
        tuned_at=row.knobs,
        target=whole,
        optimizer=about["optimizer"],
        options=options,
        lr=lr,
        lr_octaves=None if math.isnan(error) else error,
        constants=constants,
        groups=tuple(_groups(facts, model, made)),
    )


def check_base(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> None:
    """Refuse a model whose base has changed: what was tuned is relative to it.

    Raises:
        UsageError: the two differ.
    """
    if json.loads(json.dumps(base, default=str)) != json.loads(json.dumps(tuned, default=str)):
        raise UsageError(
            f"The model has the base {said(base)} now, and the sweep was run with {said(tuned)}.",
            fix="Give the model its old defaults again, or run the sweep again.",
        )


def _whole(base: Mapping[str, Any], target: Mapping[str, Any]) -> dict[str, Any]:
    from automup.capture.widths import check_widths, scaled

    unknown = sorted(set(target) - set(base))
    if unknown or not target:
        raise UsageError(
            f"{unknown[0]} is no width knob." if unknown else "No target is given.",
            fix=f"The knobs are {', '.join(base)}: pass --target {next(iter(base))}=VALUE.",
        )
    check_widths(target)
    name, value = next(iter(target.items()))
    if not isinstance(value, int | float) and len(target) < len(base):
        raise UsageError(f"{name}={value} does not say what else grows.", fix="Give every knob.")
    try:
        return {n: target.get(n) or scaled(v, value / base[name]) for n, v in base.items()}
    except KnobError as error:
        raise UsageError(f"{error.what}", fix="Give every knob in --target.") from error


def _groups(
    parameters: list[dict[str, Any]], model: nn.Module, optimizer: Optimizer
) -> Iterator[Group]:
    """Each parameter's facts with the settings of its group, repeated layers as one."""
    of_tensor = {id(t): group for group in optimizer.param_groups for t in group["params"]}
    of_name = {name: of_tensor[id(t)] for name, t in model.named_parameters()}
    cells: list[tuple[list[str], tuple[Any, ...]]] = []
    for p in parameters:
        group = of_name[p["name"]]
        numbers = (group.get(key) for key in ("lr", "weight_decay", "eps"))
        own = (float(n) if isinstance(n, int | float) else None for n in numbers)
        cells.append((p["names"], (p["role"], *own, p["init_std"], p["multiplier"])))
    for name, row in fold(cells):
        yield Group(name.replace("\n", " "), *row)
