"""Codes, norms, tables and packings equal those of HLWQ's published package."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from voxmlx.kernels.bits import pack_bits
from voxmlx.quantization import hlwq


@pytest.fixture(scope="module")
def reference():
    return dict(np.load(Path(__file__).parents[1] / "fixtures" / "hlwq.npz"))


@pytest.mark.parametrize("bits", [4, 5])
def test_codes_norms_and_table(reference, bits):
    codes, norms = hlwq.encode(mx.array(reference["weight"]), bits)

    assert np.array_equal(np.array(codes).reshape(6, 384), reference[f"codes_{bits}"])
    assert np.array_equal(np.array(norms), reference[f"norms_{bits}"])
    table = reference[f"ct_scaled_{bits}"] * 128**0.5
    assert np.allclose(hlwq.centroids(bits), table, atol=2e-6)


def test_both_orders_of_bits(reference):
    codes = mx.array(reference["codes_5"].astype(np.uint8))

    assert np.array_equal(np.array(pack_bits(codes, 5, "little")), reference["low_first"])
    flat = codes.reshape(-1)
    assert np.array_equal(np.array(pack_bits(flat, 5, "big")), reference["high_first"])
    written = hlwq.pack(mx.array(reference["weight"]), 5)
    assert np.array_equal(np.array(written["weight__packed"]), reference["high_first"])
    assert written["weight__meta"].tolist() == [6, 3, 128, 6 * 384, 300]
