from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.kernels.bits import pack_bits, unpack_bits


def pack_as_integers(codes, bits, order):
    """The definition, with Python's own integers."""
    total = len(codes) * bits
    value = 0
    for i, code in enumerate(codes):
        shift = i * bits if order == "little" else total - bits - i * bits
        value |= int(code) << shift
    return list(value.to_bytes(total // 8, order))


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_bytes_are_those_of_one_long_integer(bits, order):
    codes = np.random.default_rng(bits).integers(0, 1 << bits, 16)

    packed = pack_bits(mx.array(codes), bits, order)

    assert packed.dtype == mx.uint8
    groups = codes.reshape(-1, 8)
    expected = [byte for group in groups for byte in pack_as_integers(group, bits, order)]
    assert packed.tolist() == expected


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_unpack_inverts_pack(bits, order):
    codes = mx.array(np.random.default_rng(bits).integers(0, 1 << bits, (3, 5, 16)))

    packed = pack_bits(codes, bits, order)

    assert packed.shape == (3, 5, 2 * bits)
    assert mx.array_equal(unpack_bits(packed, bits, order), codes)


def test_five_bits_as_published():
    codes = mx.arange(1, 9)

    assert pack_bits(codes, 5, "big").tolist() == [8, 134, 66, 152, 232]
    assert pack_bits(codes, 5, "little").tolist() == [65, 12, 82, 204, 65]


def test_little_order_is_that_of_mlx():
    x = mx.array(np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32))
    words, scales, biases = mx.quantize(x, group_size=64, bits=5)
    codes = unpack_bits(words.view(mx.uint8), 5)

    expected = mx.dequantize(words, scales, biases, group_size=64, bits=5)
    assert mx.allclose(codes * scales + biases, expected, atol=1e-6)


def test_partial_groups_are_refused():
    with pytest.raises(ValueError, match="5-bit codes come in groups of 8, got 4"):
        pack_bits(mx.zeros(4, mx.uint32), 5)
    with pytest.raises(ValueError, match="5-bit codes come in groups of 5 bytes, got 7"):
        unpack_bits(mx.zeros(7, mx.uint8), 5)
