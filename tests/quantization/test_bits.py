from __future__ import annotations

import numpy as np
import pytest

from voxmlx.quantization.bits import pack, unpack


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_unpack_inverts_pack(bits, order):
    codes = np.random.default_rng(bits).integers(0, 1 << bits, (3, 5, 16), dtype=np.uint8)

    packed = pack(codes, bits, order)

    assert packed.shape == (3, 5, 2 * bits) and packed.dtype == np.uint8
    assert np.array_equal(unpack(packed, bits, order), codes)


def test_five_bits_in_both_orders():
    codes = np.arange(1, 9)

    assert pack(codes, 5, "big").tolist() == [8, 134, 66, 152, 232]
    assert pack(codes, 5, "little").tolist() == [65, 12, 82, 204, 65]


def test_little_order_is_that_of_mlx():
    import mlx.core as mx

    x = mx.array(np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32))
    words, scales, biases = mx.quantize(x, group_size=64, bits=5)
    codes = unpack(np.array(words).view(np.uint8), 5, "little")

    expected = mx.dequantize(words, scales, biases, group_size=64, bits=5)
    assert np.allclose(codes * np.array(scales) + np.array(biases), np.array(expected), atol=1e-6)


def test_bad_codes_are_refused():
    with pytest.raises(ValueError, match="codes must be below 8, got 9"):
        pack(np.full(8, 9), 3)
    with pytest.raises(ValueError, match="4 codes of 5 bits do not fill whole bytes"):
        pack(np.zeros(4, int), 5)
    with pytest.raises(ValueError, match="5-bit codes come in groups of 5 bytes"):
        unpack(np.zeros(7, np.uint8), 5)
