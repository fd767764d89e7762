"""The measuring itself: what is counted, and that random networks are what they claim."""

from __future__ import annotations

import dataclasses
import json
import sys

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from typer.testing import CliRunner

from tests.generation.tiny_model import CONFIG
from voxmlx.benchmark import (
    PARTS,
    count_operations,
    decoder_bytes,
    measure,
    noise,
    same_ids,
    step_operations,
    sweep,
)
from voxmlx.cli.main import app
from voxmlx.errors import MissingExtraError, OutputError
from voxmlx.models import random_model as random_module
from voxmlx.models.random_model import CONFIGS, random_model


@pytest.mark.parametrize("n_rows, width", [(1, 1), (1, 8), (3, None)])
def test_every_position_is_counted_once(n_rows, width):
    model = random_model(CONFIG, mx.float32)

    result = measure(model, [noise(1.0)] * n_rows, positions_per_pass=width)

    # 1 s is 12.5 positions, then delay, BOS and buffer; the last position gives a token too.
    assert result.tokens == n_rows * (13 + 6 + 1 + 10 - 6)
    assert 1 <= result.passes <= result.tokens
    assert result.passes == result.tokens or width != 1
    assert 0 < result.first_token_s <= result.total_s
    assert result.audio_s == pytest.approx(n_rows)
    values = result.as_dict()
    assert values["positions_per_pass"] * result.passes == pytest.approx(result.tokens)


def test_packed_random_weights_have_a_normal_layers_spread():
    config = dataclasses.replace(CONFIG, decoder=dataclasses.replace(CONFIG.decoder, dim=128))
    model = random_model(config, mx.float32, bits=4)
    layer = model.decoder.layers[0].mlp.gate_proj

    weight = mx.dequantize(layer.weight, layer.scales, layer.biases, 64, 4)

    assert float(mx.std(weight)) == pytest.approx(128**-0.5, rel=0.05)
    assert abs(float(mx.mean(weight))) < 0.01
    assert {x.dtype for _, x in tree_flatten(model.parameters())} == {mx.float32, mx.uint32}


def test_decoder_bytes_leave_the_constant_part_out():
    model = random_model(CONFIG, mx.float32)
    decoder = dict(tree_flatten(model.decoder.parameters()))
    constant = sum(x.nbytes for name, x in decoder.items() if "ada_norm" in name)

    assert constant > 0
    assert decoder_bytes(model) == sum(x.nbytes for x in decoder.values()) - constant


def test_release_has_the_released_size():
    decoder = CONFIGS["4b"].decoder

    assert (decoder.n_layers, decoder.dim, decoder.vocab_size) == (26, 3072, 131072)


def test_command_prints_one_object_a_batch_size(monkeypatch):
    monkeypatch.setitem(random_module.CONFIGS, "tiny", CONFIG)

    result = CliRunner().invoke(
        app, "bench --random-weights tiny --seconds 1 --rows 1 --rows 2 --json".split()
    )

    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["rows"] for line in lines] == [1, 2]
    assert all(np.isfinite(value) for line in lines for value in line.values())


@pytest.mark.parametrize(
    "arguments",
    ["--random-weights tiny --model other", "--bits 4", "--rows 65", "--peers --plot x.png"],
)
def test_options_that_do_not_fit_are_refused(arguments):
    result = CliRunner().invoke(app, f"bench {arguments}".split())

    assert result.exit_code != 0


def test_a_sweep_grows_and_its_rows_write_what_one_alone_writes():
    model = random_model(CONFIG, mx.float32)

    found = sweep(model, noise(4.0), [1, 3], 1)

    assert [m.audio_s for m in found.by_length] == pytest.approx([4 / part for part in PARTS])
    assert [m.rows for m in found.by_length] == [1] * len(PARTS)
    tokens = [m.tokens for m in found.by_length]
    assert tokens == sorted(set(tokens))
    assert [m.rows for m in found.by_rows] == [1, 3]
    assert [m.audio_s for m in found.by_rows] == pytest.approx([1.0, 3.0])
    assert found.same_ids == [1.0, 1.0]
    assert found.by_rows[1].ids == found.by_length[1].ids * 3


def test_ids_that_differ_or_are_missing_lower_the_share():
    model = random_model(CONFIG, mx.float32)
    alone = measure(model, [noise(1.0)])
    (ids,) = alone.ids
    n = len(ids)

    other = dataclasses.replace(alone, rows=2, tokens=2 * n - 1, ids=(ids[:-1], (-1, *ids[1:])))

    assert same_ids(other, alone) == (2 * n - 2) / (2 * n)


def test_command_draws_both_panels(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(random_module.CONFIGS, "tiny", CONFIG)
    path = tmp_path / "speed.png"
    command = "bench --random-weights tiny --seconds 2 --rows 1 --rows 2 --runs 1 --json --plot"

    result = CliRunner().invoke(app, [*command.split(), str(path)])

    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["panel"] for line in lines] == ["length"] * len(PARTS) + ["rows"] * 2
    assert [line["rows"] for line in lines] == [1] * len(PARTS) + [1, 2]
    assert all(line["rtf"] > 0 for line in lines)
    assert all(0 <= line["same_ids"] <= 1 for line in lines[len(PARTS) :])
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert len(path.read_bytes()) > 5000


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = ["bench", "--random-weights", "tiny", "--plot", str(tmp_path / "speed.png")]

    result = CliRunner().invoke(app, arguments)

    assert isinstance(result.exception, MissingExtraError)
    assert 'pip install "voxmlx[plot]>=0.1"' in str(result.exception)


def test_a_plot_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(random_module.CONFIGS, "tiny", CONFIG)
    command = "bench --random-weights tiny --seconds 1 --rows 1 --runs 1 --plot"

    result = CliRunner().invoke(app, [*command.split(), str(tmp_path / "none" / "speed.png")])

    assert isinstance(result.exception, OutputError)
    assert "speed.png: cannot be written" in str(result.exception)


def test_views_are_counted_apart():
    x = mx.arange(6.0) + 1
    mx.eval(x)

    assert count_operations(mx.sin(x).reshape(2, 3) * mx.cos(x).reshape(2, 3)) == (3, 2)


def test_a_layer_more_is_as_many_operations_more():
    def count(n_layers):
        decoder = dataclasses.replace(CONFIG.decoder, n_layers=n_layers)
        return step_operations(random_model(dataclasses.replace(CONFIG, decoder=decoder)))

    one, two, three = (count(n) for n in (1, 2, 3))

    assert 0 < two[0] - one[0] == three[0] - two[0] < 120


@pytest.mark.skipif(sys.platform == "darwin", reason="Apple's MLX brings a quick product")
def test_a_graph_without_its_products_is_not_counted():
    assert step_operations(random_model(CONFIG, mx.float32)) is None
