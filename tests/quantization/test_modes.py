from __future__ import annotations

import mlx.core as mx
import pytest

from voxmlx.config import QuantizationConfig
from voxmlx.quantization import modes
from voxmlx.quantization.modes import (
    can_pack,
    dequantize,
    infer_quantization,
    make_quantization,
    packed_arrays,
    quantize,
)

SETTINGS = [
    *(make_quantization("affine", b, g) for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128)),
    *(make_quantization(mode) for mode in ("mxfp4", "nvfp4", "mxfp8")),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_stated_arrays_are_those_that_mlx_makes(setting, dtype):
    weight = mx.random.normal((24, 256), key=mx.random.key(0)).astype(dtype)

    arrays = quantize(weight, setting)

    stated = packed_arrays((24, 256), dtype, setting)
    assert {n: (tuple(a.shape), a.dtype) for n, a in arrays.items()} == stated


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_shapes_tell_the_setting(setting):
    arrays = packed_arrays((24, 256), mx.float32, setting)

    found = infer_quantization(
        256, arrays["weight"][0], arrays["scales"][0], has_biases="biases" in arrays
    )

    assert found == setting


def test_shapes_of_nothing():
    assert infer_quantization(256, (24, 31), (24, 4), has_biases=True) is None


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_blocks_of_rows_change_nothing(setting, monkeypatch):
    weight = mx.random.normal((50, 256), key=mx.random.key(1))
    whole = quantize(weight, setting)
    monkeypatch.setattr(modes, "BLOCK_SIZE", 256 * 7)

    blocks = quantize(weight, setting)

    assert all(mx.array_equal(whole[name], blocks[name]) for name in whole)


def test_cast_comes_before_packing():
    weight = mx.random.normal((8, 64), key=mx.random.key(2))
    setting = make_quantization(bits=4)

    arrays = quantize(weight, setting, mx.float16)

    expected = quantize(weight.astype(mx.float16), setting)
    assert all(mx.array_equal(arrays[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("setting", "bound"),
    [(make_quantization(bits=b), 1.6 / 2**b) for b in (2, 3, 4, 5, 6, 8)]
    + [(make_quantization(m), e) for m, e in (("mxfp4", 0.14), ("nvfp4", 0.12), ("mxfp8", 0.03))],
    ids=str,
)
def test_error_on_gaussian_weights(setting, bound):
    """Relative Frobenius error; int4 with groups of 64 is at 0.091, and halves with each bit."""
    weight = mx.random.normal((256, 512), key=mx.random.key(3))

    back = dequantize(quantize(weight, setting), setting, mx.float32)

    error = mx.linalg.norm(back - weight) / mx.linalg.norm(weight)
    assert error.item() < bound


def test_defaults_of_a_mode():
    assert make_quantization() == QuantizationConfig(4, 64, "affine")
    assert make_quantization("nvfp4") == QuantizationConfig(4, 16, "nvfp4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("affine", 7), "bits of mode affine must be one of 2, 3, 4, 5, 6, 8, got 7"),
        (("mxfp4", 8), "bits of mode mxfp4 must be one of 4, got 8"),
        (("affine", 4, 16), "group size of mode affine must be one of 32, 64, 128, got 16"),
    ],
)
def test_formats_that_mlx_lacks(arguments, message):
    with pytest.raises(ValueError) as info:
        make_quantization(*arguments)
    assert str(info.value) == message


def test_unknown_mode():
    with pytest.raises(ValueError, match="mode must be one of affine, .*, got 'int4'"):
        make_quantization("int4")


@pytest.mark.parametrize(
    ("shape", "expected"), [((4, 128), True), ((4, 96), False), ((4, 2, 64), False), ((64,), False)]
)
def test_can_pack(shape, expected):
    assert can_pack(shape, make_quantization()) is expected
