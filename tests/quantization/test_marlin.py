from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.quantization import marlin


def pack_by_formula(codes):
    """Word and nibble of each code from the closed form, one element at a time."""
    n_out, n_in = codes.shape
    words = np.zeros((n_in // 16, 2 * n_out), np.uint32)
    for n in range(n_out):
        for k in range(n_in):
            word = 128 * (n // 64) + 16 * (n % 8) + 4 * ((k % 8) // 2) + (n % 64) // 16
            nibble = 4 * (k % 2) + 2 * ((n % 16) // 8) + (k % 16) // 8
            words[k // 16, word] |= np.uint32(int(codes[n, k]) << (4 * nibble))
    return words.view(np.int32)


@pytest.mark.parametrize("shape", [(64, 128), (192, 256)])
def test_tiles_follow_the_closed_form(shape):
    codes = np.random.default_rng(0).integers(0, 16, shape, dtype=np.uint8)

    tiles = marlin.pack_codes(codes)

    assert tiles.shape == (shape[1] // 16, 2 * shape[0])
    assert np.array_equal(tiles, pack_by_formula(codes))
    assert np.array_equal(marlin.unpack_codes(tiles), codes)


def test_scales_are_transposed_in_blocks_of_64():
    scales = np.arange(2 * 128, dtype=np.float16).reshape(2, 128)

    stored = marlin.permute_scales(scales)

    assert stored[0, :10].tolist() == [0, 8, 16, 24, 32, 40, 48, 56, 1, 9]
    assert stored[1, 64] == scales[1, 64] and stored[1, 65] == scales[1, 72]
    assert np.array_equal(marlin.permute_scales(stored), scales)


@pytest.mark.parametrize("shape", [(64, 128), (256, 384)])
def test_affine_packing_means_the_same_numbers(shape):
    w = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    codes, scales = marlin.quantize(w)
    tiles, stored = marlin.pack_codes(codes), marlin.permute_scales(scales.T)

    s = mx.array(marlin.affine_scales(stored)).astype(mx.float32)
    weight = marlin.affine_weight(mx.array(tiles))
    got = mx.dequantize(weight, s, -8 * s, group_size=128, bits=4)

    steps = np.repeat(scales.astype(np.float32), 128, axis=1)
    assert np.array_equal(np.array(got), (codes.astype(np.float32) - 8) * steps)
    # Rounding moves by half a step, clipping of the largest positive weight by a whole one.
    assert np.all(np.abs(np.array(got) - w.astype(np.float16)) <= 1.001 * steps)
    assert np.array_equal(marlin.tiles_of(np.array(weight)), tiles)
    assert np.array_equal(marlin.marlin_scales(np.array(s)), stored.astype(np.float32))


def test_partial_tiles_are_refused():
    with pytest.raises(ValueError, match="needs a multiple of 64 outputs and 128 inputs"):
        marlin.pack_codes(np.zeros((60, 128), np.uint8))
    with pytest.raises(ValueError, match="not whole tiles of 16 inputs and 64 outputs"):
        marlin.unpack_codes(np.zeros((8, 100), np.int32))
