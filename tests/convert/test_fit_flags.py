"""Flags that fit weights to speech or choose bits for a size."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from voxmlx.quantization.modes import ROTATED
from voxmlx_convert.cli import Rotate, app, build_budget, build_recipe
from voxmlx_convert.convert import Budget


def test_a_size_is_a_budget():
    assert build_budget(None) is None
    assert build_budget("2.4GB") == Budget(2_400_000_000)
    rotated = build_budget("700MB", group_size=128, rotate=Rotate.HADAMARD)
    assert rotated == Budget(700_000_000, ROTATED, 128)


@pytest.mark.parametrize("flags", [{"bits": 4}, {"recipe": "int4"}, {"mode": "nvfp4"}], ids=str)
def test_a_size_chooses_bits_itself(flags):
    with pytest.raises(ValueError, match="chooses bits itself"):
        build_budget("2.4GB", **flags)


def test_rotation_needs_something_to_rotate():
    with pytest.raises(ValueError, match="--q-rotate goes with"):
        build_recipe(rotated=True)
    with pytest.raises(ValueError, match="only affine matrices can be rotated"):
        build_recipe(mode="mxfp4", rotated=True)
    settings = build_recipe(quantize=True, embedding="8", rotated=True).parts
    assert {s.mode for s in settings.values()} == {ROTATED}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--calibrate", "a.wav"], "--calibrate goes with -q"),
        (["-q", "--calibrate", "a.wav", "--calibrate-method", "magic"], "method must be one of"),
        (["-q", "--calibrate", "a.wav", "--calibrate-seconds", "0"], "must be more than 0"),
        (["--q-target-size", "small"], "such as 2.4GB"),
    ],
)
def test_bad_usage(arguments, message):
    result = CliRunner().invoke(app, ["source", *arguments], env={"COLUMNS": "200"})

    assert result.exit_code == 2
    assert message in result.output
