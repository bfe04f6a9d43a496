"""How many planted faults `automup check` finds and attributes, and how often it cries wolf.

    python tests/benchmarks/planted_faults.py [MODEL ...] [--right 13] [--seeds 2] [--only KIND]

Eight models are converted by automup. In the converted model one fault at a time is planted, and
the check judges the file as it is:

- multiplier: one occurrence of a factor is taken out of the file (attention, shared readout);
- init: one weight keeps the init that its constructor draws, or an input weight loses a square
  root of the width;
- lr: one weight keeps the base's learning rate, or one whose rate is constant gets it divided by
  the width;
- decay: one weight keeps the base's decay, gets none, or twice as much, where the width is not the
  base's.

Of layers that are alike, one is taken. A fault is *caught* if the check fails, and *attributed* if
the culprit is that parameter (or the module of that factor). Both are also counted for each witness
alone: the audit, and training. Then the unchanged models are checked with other seeds: each alarm
is false. Rates, and every miss, are printed; exit status 1 if there is a miss or a false alarm.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automup.capture.load import ModelSource, load_model, load_text
from automup.check.cases import case_of, own_optimizer
from automup.check.result import Check
from automup.check.run import Case, Settings, check
from automup.check.synthetic import Synthetic
from automup.cli.models import open_model
from automup.convert import convert
from automup.edits import Factor
from automup.facts import Parameter
from automup.plan import Plan
from automup.planning import make_plan
from automup.rules import Role
from automup.study import Study

ROOT = Path(__file__).parents[2]
FILES = {
    "mlp": "examples/mlp.py",
    "resnet": "examples/resnet.py",
    "gpt": "examples/gpt.py",
    "gpt_manual": "examples/gpt_manual.py",
    "llama": "examples/llama.py",
    "einsum_net": "examples/einsum_net.py",
    "lstm": "tests/benchmarks/models/lstm.py",
    "mixer": "tests/benchmarks/models/mixer.py",
}
LR, DECAY = 2e-3, 0.1

Tamper = Callable[[nn.Module, torch.optim.Optimizer], None]


@dataclass(frozen=True)
class Fault:
    """One fault: ``text`` is a changed file, or ``init`` and ``groups`` change what it makes.

    ``places`` are the names that a right attribution has.
    """

    kind: str
    name: str
    places: tuple[str, ...]
    text: str = ""
    init: Callable[[nn.Module, float], None] | None = None
    groups: Callable[[dict[str, Any], float], None] | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """A converted model: its file, its study at a small base, and its plan."""

    name: str
    source: ModelSource
    study: Study
    plan: Plan

    @staticmethod
    def of(name: str) -> Model:
        original = load_model(str(ROOT / FILES[name]))
        text = convert(original, open_model(original, None, "", None, None)).text
        return Model.read(name, original, text)

    @staticmethod
    def read(name: str, original: ModelSource, text: str) -> Model:
        module = load_text(text, original.file.removesuffix(".py") + "_mup.py")
        cls = getattr(module, original.name)
        source = ModelSource(cls, module, str(module.__file__), original.name, text)
        study = open_model(source, None, "", None, None, small=True)
        return Model(name, source, study, make_plan(study, study.wide))

    def width(self, model: nn.Module) -> float:
        """How many times the narrowest width a model is, told from what grows the least."""
        shapes = {name: p.shape for name, p in model.named_parameters()}
        grown = [
            a / b
            for p in self.plan.parameters
            for a, b in zip(shapes[p.name], p.base_shape, strict=True)
        ]
        return min((ratio for ratio in grown if ratio != 1), default=1.0)


# --- faults ---------------------------------------------------------------------------------------


def faults_of(model: Model) -> Iterator[Fault]:
    yield from _multipliers(model)
    seen: set[str] = set()
    for fact in reversed(model.plan.parameters):
        pattern = re.sub(r"\.\d+\.", ".*.", fact.name)
        if pattern in seen:
            continue
        seen.add(pattern)
        yield from _inits(fact)
        yield from _rates(fact)
        yield from _decays(fact)


def _multipliers(model: Model) -> Iterator[Fault]:
    """Every occurrence of a factor in the file, without it."""
    text = model.source.text
    planted: set[int] = set()
    for kind, _, size, base, exponent in model.source.module.MUP_SITES:
        factor = Factor(size, base, exponent)
        for code in (f" {factor.code()}", f" {factor.inverse_code()}"):
            for match in re.finditer(re.escape(code), text):
                if match.start() in planted:
                    continue
                planted.add(match.start())
                changed = f"{text[: match.start()]} 1.0{text[match.end() :]}"
                line = text[: match.start()].count("\n") + 1
                yield Fault("multiplier", f"{kind} (line {line})", _statement(text, line), changed)


def _statement(text: str, line: int) -> tuple[str, ...]:
    """The lines of the innermost statement that a line is in."""
    nodes = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.stmt))
    ends = [(n.lineno, n.end_lineno or n.lineno) for n in nodes]
    inside = [(first, last) for first, last in ends if first <= line <= last]
    first, last = min(inside, key=lambda lines: lines[1] - lines[0])
    return tuple(map(str, range(first, last + 1)))


def _inits(fact: Parameter) -> Iterator[Fault]:
    if fact.init_kind in ("zeros", "ones", "constant") or not fact.init_std:
        return
    grows = {"hidden": -0.5, "output": -1.0}.get(fact.role.value, 0.0)
    wrong = 0.5 if grows else -0.5  # a square root too large, or (an input) too small

    def spoil(model: nn.Module, width: float) -> None:
        with torch.no_grad():
            model.get_parameter(fact.name).mul_(width**wrong)

    yield Fault(f"init, {_kind(fact)}", fact.name, (fact.name,), init=spoil)


def _kind(fact: Parameter) -> str:
    return "matrix" if len(fact.shape) > 1 else "vector"


def _rates(fact: Parameter) -> Iterator[Fault]:
    power = 1.0 if fact.role in (Role.HIDDEN, Role.OUTPUT) else -1.0

    def spoil(group: dict[str, Any], width: float) -> None:
        group["lr"] *= width**power

    yield Fault(f"lr, {_kind(fact)}", fact.name, (fact.name,), groups=spoil)


def _decays(fact: Parameter) -> Iterator[Fault]:
    def lost(group: dict[str, Any], width: float) -> None:
        group["weight_decay"] *= 1.0 if width == 1 else 0.0

    def doubled(group: dict[str, Any], width: float) -> None:
        group["weight_decay"] *= 1.0 if width == 1 else 2.0

    def unscaled(group: dict[str, Any], width: float) -> None:
        group["weight_decay"] /= width

    yield Fault("decay removed", fact.name, (fact.name,), groups=lost)
    yield Fault("decay doubled", fact.name, (fact.name,), groups=doubled)
    if fact.role in (Role.HIDDEN, Role.OUTPUT):
        yield Fault("decay not scaled", fact.name, (fact.name,), groups=unscaled)


# --- checks ---------------------------------------------------------------------------------------


def case_with(model: Model, fault: Fault | None) -> Case:
    """The model as it is, with the fault."""
    if fault is not None and fault.text:
        model = Model.read(model.name, model.source, fault.text)
    study = model.study
    plain = own_optimizer(model.source, study.models.drawn(study.base), torch.optim.AdamW, LR)

    def make(built: nn.Module) -> torch.optim.Optimizer:
        optimizer = plain(built)
        for group in optimizer.param_groups:  # the file's default is small: make it count
            group["weight_decay"] *= DECAY / 0.01
        if fault is not None and fault.groups is not None:
            _spoil(optimizer, built, model, fault)
        return optimizer

    case = case_of(study, make, own=True)
    if fault is None or fault.init is None:
        return case
    spoil = fault.init

    def build(knobs: Any) -> nn.Module:
        built = study.models.drawn(knobs)
        spoil(built, model.width(built))
        return built

    return replace(case, subject=replace(case.subject, build=build))


def _spoil(optimizer: torch.optim.Optimizer, built: nn.Module, model: Model, fault: Fault) -> None:
    parameter = built.get_parameter(fault.name)
    assert fault.groups is not None
    for group in optimizer.param_groups:
        if any(p is parameter for p in group["params"]):
            group["params"] = [p for p in group["params"] if p is not parameter]
            own = {**group, "params": [parameter]}
            fault.groups(own, model.width(built))
            optimizer.add_param_group(own)
            return
    raise AssertionError(f"{fault.name} is in no group")


@dataclass(frozen=True)
class Outcome:
    """What the check said of one fault."""

    caught: bool
    attributed: bool
    audit: bool
    training: bool
    said: str


def judged(result: Check, fault: Fault) -> Outcome:
    culprit = result.culprit
    audit = any(f.witness != "training" for f in result.findings)
    training = any(f.witness == "training" or f.also for f in result.findings)
    right = culprit is not None and _names(culprit.place, culprit.source, fault)
    return Outcome(bool(result.findings), right, audit, training, str(culprit))


def _names(place: str, source: str, fault: Fault) -> bool:
    if fault.kind == "multiplier":  # by its line
        return source.split(":")[1] in fault.places
    return place.partition("[")[0] in fault.places


WITNESSES = ("caught", "attributed", "audit", "training")


@dataclass
class Tally:
    """Counts by kind of fault, and what went wrong."""

    planted: Counter[str] = field(default_factory=Counter)
    found: dict[str, Counter[str]] = field(
        default_factory=lambda: {what: Counter() for what in WITNESSES}
    )
    misses: int = 0
    checks: int = 0
    alarms: int = 0

    def fault(self, model: str, fault: Fault, outcome: Outcome) -> None:
        self.planted[fault.kind] += 1
        for what, counter in self.found.items():
            counter[fault.kind] += bool(getattr(outcome, what))
        if not (outcome.caught and outcome.attributed):
            self.misses += 1
            print(f"{model}: {fault.kind} of {fault.name}: {outcome.said}", flush=True)

    def right(self, model: str, result: Check, seed: int) -> None:
        self.checks += 1
        if not result.passed:
            self.alarms += 1
            print(f"{model}: false alarm with seed {seed}: {result}", flush=True)

    def show(self) -> None:
        print(f"\n{'fault':18} planted  caught  attributed  by the audit  by training")
        for kind, count in self.planted.items():
            cells = [self.found[what][kind] for what in WITNESSES]
            numbers = zip((7, 7, 11, 13, 12), (count, *cells), strict=True)
            print(f"{kind:18} " + " ".join(f"{n:{width}}" for width, n in numbers))
        total = sum(self.planted.values())
        caught, attributed = (sum(self.found[what].values()) for what in WITNESSES[:2])
        print(f"{'all':18} {total:7} {caught:7} {attributed:11}")
        print(f"right models: {self.alarms} false alarms in {self.checks} checks", flush=True)


def run(names: list[str], right: int, seeds: int, only: str) -> int:
    settings, tally = Settings(LR, seeds=seeds), Tally()
    for name in names:
        start = time.process_time()
        model = Model.of(name)
        data = Synthetic.of(model.study.models)
        for fault in faults_of(model):
            if fault.kind.startswith(only):
                result = check(case_with(model, fault), data, settings)
                tally.fault(name, fault, judged(result, fault))
        for number in range(1, right + 1):
            chosen = replace(settings, first=100 * number)
            tally.right(name, check(case_with(model, None), data, chosen), chosen.first)
        print(f"{name}: {time.process_time() - start:.0f} s of CPU", flush=True)
    tally.show()
    return int(bool(tally.misses or tally.alarms))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=list(FILES))
    parser.add_argument("--right", type=int, default=13, help="checks of each unchanged model")
    parser.add_argument("--seeds", type=int, default=2, help="of each check")
    parser.add_argument("--only", default="", help="one kind of fault")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.exit(run(options.models, options.right, options.seeds, options.only))


if __name__ == "__main__":
    main()
