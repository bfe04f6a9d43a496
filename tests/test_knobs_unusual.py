"""Widths that are no plain numbers: fractions, fields that derive from others, mixed lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from automup.capture.knobs import discover
from automup.capture.load import load_model
from automup.errors import KnobError

KNOBS = Path(__file__).parent / "zoo" / "models" / "knobs.py"


@pytest.mark.parametrize(
    ("name", "width", "values"),
    [
        ("NestedConfig", ("block.d_model",), {}),
        ("TupleOfWidths", ("widths",), {}),
        ("WidthMult", ("width_mult",), {}),
        ("DerivedFields", ("dim",), {}),
        ("PresetWithOverride", ("width",), {"width": 32}),
        ("MultipleOf", ("dim",), {}),
        ("EncoderDecoderWidths", ("enc_dim", "dec_dim"), {}),
    ],
)
def test_found(name: str, width: tuple[str, ...], values: dict[str, int]) -> None:
    found = discover(load_model(f"{KNOBS}:{name}"), {})
    assert (found.width, dict(found.values)) == (width, values)


@pytest.mark.parametrize("multiple_of", [2, 32, 256])
def test_what_sizes_are_rounded_to_is_no_width(multiple_of: int) -> None:
    """Doubled, it makes some larger; halved, it does not take half as much away."""
    found = discover(load_model(f"{KNOBS}:MultipleOf"), {"multiple_of": multiple_of})
    assert found.width == ("dim",)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("AllSizes", "sizes (data: holds the inputs' size beside widths"),
        ("ListOfWidths", "hidden_sizes (None by default)"),
        ("Preset", "size (a name, 'tiny')"),
        ("DictConfig", "config (None by default)"),
    ],
)
def test_asks(name: str, said: str) -> None:
    with pytest.raises(KnobError) as caught:
        discover(load_model(f"{KNOBS}:{name}"), {})
    assert said in caught.value.what
    assert "--width" in str(caught.value)


def test_a_derived_width_reaches_the_command_line(tmp_path: Path) -> None:
    """Its base is what it derives to, though its default is None."""
    from typer.testing import CliRunner

    from automup.cli import app

    out = tmp_path / "out.py"
    spec = f"{KNOBS}:PresetWithOverride"
    result = CliRunner().invoke(app, ["convert", spec, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert 'MUP_KNOBS = {"width": 32}' in out.read_text()
