from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.load import load_model
from voxmlx.errors import CheckpointError
from voxmlx.quantization import marlin

HF = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}


@pytest.fixture
def weights(monkeypatch):
    monkeypatch.setitem(tiny.DECODER, "hidden", 256)  # tiles need multiples of 128
    return tiny.internal_weights(3)


def write_marlin(folder, weights):
    """A folder as the published converter writes it; returns the decoder's numbers in float32."""
    plain, packed, meant = {}, {}, {}
    for name, w in weights.items():
        path, leaf = name.rsplit(".", 1)
        kind = path.rsplit(".", 1)[-1]
        if not path.startswith("decoder.layers") or kind not in HF:
            plain[tiny.native_name(name)] = w.swapaxes(1, 2) if w.ndim == 3 else w
            continue
        outside = f"layers.{path.split('.')[2]}.{HF[kind]}.{kind}"
        rows = len(w) // tiny.DECODER["head_dim"]
        stored = tiny.to_half_rows(w, rows) if kind in ("q_proj", "k_proj") else w
        codes, scales = marlin.quantize(stored)
        packed[f"{outside}.B"] = marlin.pack_codes(codes)
        packed[f"{outside}.s"] = marlin.permute_scales(np.ascontiguousarray(scales.T))
        own_codes, own_scales = marlin.quantize(w)  # rows are independent, so order is no matter
        steps = np.repeat(own_scales.astype(np.float32), 128, axis=1)
        meant[name] = (own_codes.astype(np.float32) - 8) * steps
    folder.mkdir(exist_ok=True)
    arrays = {name: mx.array(x).astype(mx.bfloat16) for name, x in plain.items()}
    arrays |= {name: mx.array(x) for name, x in packed.items()}
    mx.save_safetensors(str(folder / "consolidated.safetensors"), arrays)
    tiny.write_json(folder / "params.json", tiny.params())
    tiny.write_tekken(folder)
    return meant


def test_numbers_are_exact(tmp_path, weights):
    meant = write_marlin(tmp_path, weights)

    model = load_model(tmp_path, mx.float32).model

    for name, expected in meant.items():
        module = model
        for key in name.split(".")[:-1]:
            module = module[int(key)] if key.isdigit() else module[key]
        assert (module.bits, module.group_size, module.mode) == (4, 128, "affine")
        got = mx.dequantize(module.weight, module.scales, module.biases, group_size=128, bits=4)
        assert np.array_equal(np.array(got), expected), name
    assert mx.array_equal(
        model.encoder.layers[0].attention.q_proj.weight,
        mx.array(weights["encoder.layers.0.attention.q_proj.weight"])
        .astype(mx.bfloat16)
        .astype(mx.float32),
    )


def test_stored_types_are_kept_and_do_not_widen(tmp_path, weights):
    write_marlin(tmp_path, weights)

    model = load_model(tmp_path).model

    assert model.encoder.norm.weight.dtype == mx.bfloat16
    assert model.decoder.embed_tokens.weight.dtype == mx.bfloat16
    assert model.decoder.layers[0].attention.q_proj.scales.dtype == mx.float16
    rows = model.embed_audio(mx.zeros((1, 64, 128)))
    hidden = model(
        mx.zeros((1, 8), mx.int32), rows, model.decoder.make_cache(8), model.decoder.conditioning(6)
    )
    assert (rows.dtype, hidden.dtype) == (mx.float16, mx.float16)
    assert model.decoder.logits(hidden).dtype == mx.bfloat16


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("layers.0.mlp.up_proj.s"), "has no scales 'layers.0.mlp.up_proj.s'"),
        (lambda t: t.pop("layers.0.mlp.up_proj.B"), "'layers.0.mlp.up_proj.s' has no '.B' beside"),
        (
            lambda t: t.update({"layers.0.mlp.up_proj.s": mx.ones((2, 256), mx.float16)}),
            r"needs scales of shape \(1, 256\), got \(2, 256\); only groups of 128",
        ),
        (
            lambda t: t.update({"layers.1.mlp.up_proj.s": mx.zeros((1, 256), mx.float16)}),
            "has scales that are not positive; the file is damaged",
        ),
        (
            lambda t: t.update({"layers.0.mlp.up_proj.B": mx.ones((8, 512), mx.float16)}),
            "is no matrix of int32 tiles",
        ),
    ],
)
def test_mixed_up_file_is_refused(tmp_path, weights, change, message):
    write_marlin(tmp_path, weights)
    path = str(tmp_path / "consolidated.safetensors")
    tensors = dict(mx.load(path))
    mx.eval(tensors)
    change(tensors)
    mx.save_safetensors(path, tensors)

    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)
