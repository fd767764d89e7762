from __future__ import annotations

import mlx.core as mx
import pytest

from voxmlx.quantization.modes import (
    ROTATED,
    dequantize,
    make_quantization,
    packed_arrays,
    quantize,
)
from voxmlx_convert.calibration.gptq import pack_codes, solve, unpack_codes


@pytest.fixture
def layer():
    """Weights, and inputs that share much of their variance."""
    w = mx.random.normal((32, 256), key=mx.random.key(0)) * 0.05
    shared = mx.random.normal((2000, 40), key=mx.random.key(1))
    mix = mx.random.normal((40, 256), key=mx.random.key(2))
    x = shared @ mix + 0.3 * mx.random.normal((2000, 256), key=mx.random.key(3))
    return w, x


@pytest.mark.parametrize("mode", ["affine", ROTATED])
@pytest.mark.parametrize("bits", [3, 4, 6])
def test_outputs_change_less_than_by_rounding(layer, mode, bits):
    w, x = layer
    setting = make_quantization(mode, bits, 64)

    def loss(arrays) -> float:
        return mx.square(x @ (dequantize(arrays, setting, mx.float32) - w).T).mean().item()

    fitted = solve(w, x.T @ x, setting)

    expected = packed_arrays(w.shape, w.dtype, setting)
    assert {k: (tuple(a.shape), a.dtype) for k, a in fitted.items()} == expected
    assert loss(fitted) < 0.5 * loss(quantize(w, setting))


def test_scales_are_those_that_half_precision_holds(layer):
    w, x = layer
    setting = make_quantization(bits=4)
    fitted = solve(w.astype(mx.bfloat16), x.T @ x, setting)

    assert fitted["scales"].dtype == mx.bfloat16
    error = x @ (dequantize(fitted, setting, mx.float32) - w.astype(mx.bfloat16)).T
    rounded = quantize(w.astype(mx.bfloat16), setting)
    plain = x @ (dequantize(rounded, setting, mx.float32) - w.astype(mx.bfloat16)).T
    assert mx.square(error).mean() < 0.5 * mx.square(plain).mean()


def test_inputs_that_are_always_zero_do_no_harm(layer):
    w, x = layer
    x[:, 5] = 0
    x[:, 128:] = 0

    fitted = solve(w, x.T @ x, make_quantization(bits=4))

    assert all(mx.isfinite(a).all().item() for n, a in fitted.items() if n != "weight")


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_codes_are_packed_as_mlx_does(bits):
    w = mx.random.normal((8, 128), key=mx.random.key(bits))
    packed, scales, biases = mx.quantize(w, group_size=64, bits=bits)

    codes = unpack_codes(packed, bits)

    assert mx.array_equal(pack_codes(codes, bits), packed)
    groups = codes.astype(mx.float32).reshape(8, 2, 64) * scales[..., None] + biases[..., None]
    back = mx.dequantize(packed, scales, biases, group_size=64, bits=bits)
    assert mx.allclose(groups.reshape(8, 128), back, atol=1e-6)
