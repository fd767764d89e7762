from __future__ import annotations

import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.checkpoint import open_checkpoint
from voxmlx.quantization.modes import make_quantization
from voxmlx.quantization.recipes import uniform
from voxmlx.version import __version__
from voxmlx_convert.model_card import CardFacts, render_card
from voxmlx_convert.plan import make_plan
from voxmlx_convert.verify import Verification

COMMAND = "voxmlx-convert mistralai/Voxtral --mlx-path out -q"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return open_checkpoint(tiny.write_folder(tmp_path_factory.mktemp("card"), "native"))


def render(checkpoint, recipe=None, source="mistralai/Voxtral", verification=None):
    plan = make_plan(checkpoint, recipe=recipe)
    return render_card(CardFacts(source, "me/voxtral-4bit", COMMAND, plan, verification))


def test_card_of_a_quantised_repository(checkpoint):
    card = render(checkpoint, uniform(make_quantization(bits=4, group_size=32)))

    head, _, body = card.removeprefix("---\n").partition("---\n")
    assert "base_model: mistralai/Voxtral\nbase_model_relation: quantized\n" in head
    assert "pipeline_tag: automatic-speech-recognition" in head
    assert body.startswith("\n# me/voxtral-4bit\n")
    assert "mlx-audio reads this folder as well." in body
    assert 'load("me/voxtral-4bit")' in body
    assert f'pip install "voxmlx>={__version__}"' in body
    assert f"```bash\n{COMMAND}\n```" in body
    assert "| embedding | 168,960 | 4 bits, group 32, affine | 0.000 | 6.00 |" in body
    assert "| 480 ms (default) | 8.72% |" in body
    assert "$" not in card


def test_card_of_a_local_float_source(checkpoint):
    card = render(checkpoint, source="/home/someone/models/voxtral")

    assert "base_model" not in card
    assert "from `voxtral` with" in card
    assert "/home/someone" not in card


def test_card_says_what_was_verified(checkpoint):
    result = Verification(61, 0.5, 0.02, 2.0, 0.003, 0.983, 0.95, "a", "b")

    card = render(checkpoint, verification=result)

    assert "## Checked against the source" in card
    assert "On one piece of audio (61 tokens of 80 ms)" in card
    assert "| largest logit error | 0.5 (standard deviation of the logits: 2) |" in card
    assert "| same likeliest token | 98.30% |" in card


def test_card_of_a_packing_that_mlx_lacks(checkpoint):
    recipe = uniform(make_quantization(bits=4, group_size=32)).rotated()

    assert "mlx-audio reads" not in render(checkpoint, recipe)
