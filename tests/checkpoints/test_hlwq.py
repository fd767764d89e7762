from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests import tiny_checkpoints as tiny
from voxmlx.checkpoints.load import load_model
from voxmlx.errors import CheckpointError
from voxmlx.quantization import hlwq


def pack_five(codes, order):
    """Forty-bit groups with Python's own integers."""
    out = bytearray()
    for group in np.asarray(codes, np.int64).reshape(-1, 8):
        places = range(8) if order == "little" else range(7, -1, -1)
        value = sum(int(c) << (5 * p) for c, p in zip(group, places, strict=True))
        out += value.to_bytes(5, order)
    return mx.array(np.frombuffer(bytes(out), np.uint8))


def write(folder, spelling, bits=5):
    """One model in a spelling of HLWQ, under Transformers' names; returns the numbers meant."""
    weights = tiny.internal_weights(4)
    external = tiny.layout_weights("hf", weights)
    names = {tiny.hf_name(name): name for name in weights}
    coded, plain, meant = {}, {}, {}
    for name, w in external.items():
        skip = w.ndim != 2 or "norm" in name or "embed_tokens" in name
        if skip or w.shape[1] % 128:
            plain[name] = mx.array(w).astype(mx.bfloat16)
            continue
        codes, norms = hlwq.encode(mx.array(w), bits)
        table = mx.array(hlwq.centroids(bits))
        meant[names[name]] = hlwq.decode(codes, norms, w.shape[1], table)
        coded |= spell(spelling, name.removesuffix(".weight"), codes, norms, table)
    folder.mkdir(exist_ok=True)
    if spelling == "flat":
        mx.save_safetensors(str(folder / "codes.safetensors"), coded)
        mx.save_safetensors(str(folder / "bf16.safetensors"), plain)
    else:
        mx.save_safetensors(str(folder / "model.safetensors"), coded | plain)
    tiny.write_json(folder / "config.json", tiny.hf_config())
    tiny.write_tekken(folder)
    return meant


def spell(spelling, stem, codes, norms, table):
    rows, n_blocks, _ = codes.shape
    flat = stem.replace(".", "__")
    meta = mx.array([rows, n_blocks, 128, codes.size], dtype=mx.int64)
    matrix = codes.reshape(rows, -1)
    if spelling == "flat":
        packed = pack_five(codes, "big")
        return {f"{flat}__packed": packed, f"{flat}__norms": norms, f"{flat}__meta": meta}
    if spelling == "dotted":
        packed = pack_five(codes, "big")
        return {f"{stem}__packed": packed, f"{stem}__norms": norms, f"{stem}__meta": meta}
    if spelling == "hlwq-q5":
        meta = mx.array([*meta.tolist(), n_blocks * 128], dtype=mx.int64)
        packed, stem = pack_five(codes, "big"), f"{stem}.weight"
        return {f"{stem}__packed": packed, f"{stem}__norms": norms, f"{stem}__meta": meta}
    if spelling == "dunder":
        return {f"{flat}__codes": matrix.astype(mx.int8), f"{flat}__norms": norms}
    scaled = {f"{stem}.norms": norms, f"{stem}.ct_scaled": table / 128**0.5}
    if spelling == "v4":
        return {**scaled, f"{stem}.codes": matrix.astype(mx.int8)}
    if spelling == "v4 halves":
        halves = codes[..., :64] | (codes[..., 64:] << 4)
        return {**scaled, f"{stem}.codes": halves.reshape(rows, -1)}
    if spelling == "v5":
        return {**scaled, f"{stem}.codes": pack_five(codes, "little").reshape(rows, -1)}
    raise ValueError(spelling)


def parameter(model, name):
    for key in name.split("."):
        model = model[int(key)] if key.isdigit() else model[key]
    return model


@pytest.mark.parametrize(
    "spelling", ["flat", "dotted", "hlwq-q5", "dunder", "v4", "v4 halves", "v5"]
)
def test_every_spelling_gives_the_same_numbers(tmp_path, spelling):
    meant = write(tmp_path, spelling, bits=4 if spelling == "v4 halves" else 5)

    loaded = load_model(tmp_path)

    assert len(meant) > 10
    for name, expected in meant.items():
        if "q_proj" in name or "k_proj" in name:
            continue  # rows in another order; compared below
        assert mx.allclose(parameter(loaded.model, name), expected, atol=1e-2), name
    assert parameter(loaded.model, "decoder.embed_tokens.weight").dtype == mx.bfloat16


def test_rotary_rows_come_back_in_order(tmp_path):
    write(tmp_path, "hlwq-q5")
    w = mx.array(tiny.internal_weights(4)["decoder.layers.0.attention.q_proj.weight"])

    got = parameter(load_model(tmp_path).model, "decoder.layers.0.attention.q_proj.weight")

    assert float(mx.linalg.norm(got - w) / mx.linalg.norm(w)) < 0.06


def test_compressed_tensors_int4(tmp_path):
    weights = tiny.layout_weights("hf", tiny.internal_weights(4))
    name = "language_model.model.layers.0.mlp.up_proj"
    w = weights.pop(f"{name}.weight")
    groups = w.reshape(len(w), -1, 128)
    scales = np.abs(groups).max(axis=-1, keepdims=True) / 7
    codes = (np.rint(groups / scales) + 8).astype(np.uint32).reshape(len(w), -1, 8)
    words = (codes << (4 * np.arange(8, dtype=np.uint32))).sum(axis=-1, dtype=np.uint32)
    tensors = {n: mx.array(x) for n, x in weights.items()}
    tensors[f"{name}.weight_packed"] = mx.array(words.view(np.int32))
    tensors[f"{name}.weight_scale"] = mx.array(scales[..., 0])
    tensors[f"{name}.weight_shape"] = mx.array(w.shape)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), tensors)
    tiny.write_json(tmp_path / "config.json", tiny.hf_config())
    tiny.write_tekken(tmp_path)

    got = parameter(load_model(tmp_path).model, "decoder.layers.0.mlp.up_proj.weight")

    assert np.allclose(np.array(got.astype(mx.float32)), w, atol=scales.max() * 0.52)


@pytest.mark.parametrize(
    "spelling, change, message",
    [
        ("hlwq-q5", lambda t, n: t.pop(f"{n}.weight__norms"), "has no norms"),
        (
            "hlwq-q5",
            lambda t, n: t.update({f"{n}.weight__norms": t[f"{n}.weight__norms"][:-3]}),
            "its meta says",
        ),
        (
            "dunder",
            lambda t, n: t.update(
                {f"{n.replace('.', '__')}__norms": t[f"{n.replace('.', '__')}__norms"][:-3]}
            ),
            "holds no whole number of bits",
        ),
        (
            "hlwq-q5",
            lambda t, n: t.update({f"{n}.weight__norms": t[f"{n}.weight__norms"] * float("nan")}),
            "norms that are negative or not finite",
        ),
        (
            "hlwq-q5",
            lambda t, n: t.update({f"{n}.weight__packed": t[f"{n}.weight__packed"][::-1]}),
            "evenly spread codes: its bits are in another order",
        ),
    ],
)
def test_mixed_up_file_is_refused(tmp_path, spelling, change, message):
    write(tmp_path, spelling)
    path = str(tmp_path / "model.safetensors")
    tensors = dict(mx.load(path))
    mx.eval(tensors)
    change(tensors, "language_model.model.layers.0.mlp.up_proj")
    mx.save_safetensors(path, tensors)

    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)
