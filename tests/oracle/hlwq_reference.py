"""Make the fixture of ``tests/quantization/test_hlwq_reference.py`` with HLWQ's published package.

    python -m tests.oracle.hlwq_reference       # writes tests/fixtures/hlwq.npz

Needs torch and ``polarquant`` 0.6.0; the test itself needs neither.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from polarengine_vllm.hf_integration import _bitpack_5
from polarengine_vllm.packing import pack_codes_q5
from polarengine_vllm.quantizer import PolarQuantizer
from polarengine_vllm.utils import pack_codes_half_block

SHAPE = (6, 300)  # the last block is padded


def main() -> None:
    w = np.random.default_rng(0).standard_t(4, SHAPE).astype(np.float32) * 0.02
    quantizer = PolarQuantizer()
    out = {"weight": w}
    for bits in (4, 5):
        result = quantizer.quantize_tensor(torch.from_numpy(w), bits)
        out |= {f"codes_{bits}": result["codes"].numpy(), f"norms_{bits}": result["norms"].numpy()}
        out[f"ct_scaled_{bits}"] = result["ct_scaled"].numpy()
    five = torch.from_numpy(out["codes_5"])
    out["low_first"] = pack_codes_q5(five).numpy()
    out["high_first"] = _bitpack_5(five.reshape(-1))[0].numpy()
    out["halves"] = pack_codes_half_block(torch.from_numpy(out["codes_4"]), 128).numpy()
    np.savez_compressed(Path(__file__).parents[1] / "fixtures" / "hlwq.npz", **out)


if __name__ == "__main__":
    main()
