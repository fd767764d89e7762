from __future__ import annotations

import re

import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.checkpoint import open_checkpoint
from voxmlx.checkpoints.load import build_model
from voxmlx.quantization.recipes import RECIPES, hlwq_recipe
from voxmlx.streaming.session import LIVE_ROWS
from voxmlx_convert.convert import Options, convert
from voxmlx_convert.report import memory_use, tensor_errors


@pytest.fixture
def source(tmp_path):
    return tiny.write_folder(tmp_path / "source", "hf", tiny.internal_weights(1))


@pytest.mark.parametrize(
    ("recipe", "low", "high"),
    [
        (RECIPES["int8"], 0.004, 0.012),
        (RECIPES["int4"].rotated(), 0.07, 0.11),
        (hlwq_recipe(5), 0.05, 0.06),
    ],
)
def test_errors_are_those_of_the_formats(source, tmp_path, recipe, low, high):
    plan = convert(str(source), tmp_path / "new", Options(recipe=recipe)).plan
    errors = tensor_errors(open_checkpoint(source), tmp_path / "new", plan)

    assert {e.path for e in errors} == set(plan.settings)
    assert all(low < e.relative < high for e in errors)
    assert sum(e.nbytes for e in errors) < plan.total.nbytes


def test_the_page_holds_every_matrix_and_loads_nothing(source, tmp_path):
    options = Options(recipe=RECIPES["mixed-4-8"], report=True)
    plan = convert(str(source), tmp_path / "new", options).plan
    page = (tmp_path / "new" / "report.html").read_text()

    assert all(f"<td>{path}</td>" in page for path in plan.settings)
    assert page.count("<svg") == 1 and "</html>" in page
    assert not re.search(r"<(script|link|img)|https?://(?!www\.w3\.org)", page)


def test_memory_is_what_caches_hold(source, tmp_path):
    plan = convert(str(source), tmp_path / "new", Options(recipe=RECIPES["int8"])).plan
    config = open_checkpoint(source).config
    plain, eight, four = memory_use(config, plan)

    model = build_model(config)
    assert plain.weights == plan.total.nbytes
    cache = model.decoder.make_cache(LIVE_ROWS)
    cache.place(1)
    per_slot = plain.decoder_kv / (config.decoder.sliding_window + LIVE_ROWS)
    assert per_slot == cache.nbytes / cache.capacity
    assert np.isclose(eight.decoder_kv / plain.decoder_kv, (8 + 64 / 32) / 32)
    assert four.total < eight.total < plain.total
