"""Fitted models are nearer to the float model than rounded ones, and convert like any other."""

from __future__ import annotations

import mlx.core as mx
import pytest
import soundfile

from tests.oracle import native
from voxmlx.checkpoints.load import load_model
from voxmlx.config import QuantizationConfig
from voxmlx.errors import AudioError
from voxmlx.quantization.modes import ROTATED, can_pack, make_quantization
from voxmlx.quantization.recipes import is_quantizable, uniform
from voxmlx.quantization.rotated import quantize_modules, setting_of
from voxmlx_convert.calibration.distill import distill, reference_logits
from voxmlx_convert.calibration.fit import Calibration, Calibrator
from voxmlx_convert.calibration.layerwise import quantize_layerwise
from voxmlx_convert.calibration.samples import logits, mean_kl
from voxmlx_convert.calibration.sensitivity import BITS, Unit, allocate, parse_size
from voxmlx_convert.convert import Budget, Options, convert

INT4 = make_quantization(bits=4)


def settings(model, setting: QuantizationConfig) -> dict[str, QuantizationConfig]:
    return {
        path: setting
        for path, m in model.named_modules()
        if "weight" in m and is_quantizable(path) and can_pack(tuple(m.weight.shape), setting)
    }


@pytest.fixture(scope="module")
def references(folder, samples):
    return reference_logits(load_model(folder, mx.float32).model, samples)


def divergence(model, samples, references) -> float:
    pairs = zip(references, samples, strict=True)
    return sum(mean_kl(r, logits(model, s)).item() for r, s in pairs)


@pytest.mark.parametrize("mode", ["affine", ROTATED])
def test_gptq_then_distillation_each_come_nearer(folder, samples, references, mode):
    setting = make_quantization(mode, 4, 64 if mode == "affine" else 128)
    rounded, fitted = (load_model(folder, mx.float32).model for _ in range(2))
    wanted = settings(rounded, setting)
    quantize_modules(rounded, wanted)
    quantize_layerwise(fitted, samples, wanted)
    after_rounding = divergence(rounded, samples, references)
    after_gptq = divergence(fitted, samples, references)
    codes = fitted.decoder.layers[0].mlp.gate_proj.weight
    distill(fitted, samples, references, epochs=3)

    assert {p: setting_of(m) for p, m in fitted.named_modules() if setting_of(m)} == wanted
    assert after_gptq < 0.7 * after_rounding
    assert divergence(fitted, samples, references) < 0.7 * after_gptq
    assert mx.array_equal(fitted.decoder.layers[0].mlp.gate_proj.weight, codes)


def test_fitted_weights_are_written(folder, samples, references, tmp_path):
    recording = tmp_path / "speech.wav"
    soundfile.write(recording, native.speech_like(1.2, 10), 16000, subtype="FLOAT")
    recipe, steps = uniform(INT4), []
    convert(str(folder), tmp_path / "rounded", Options(recipe=recipe))
    calibration = Calibration((str(recording),), method="gptq")
    options = Options(recipe=recipe, calibration=calibration)
    convert(str(folder), tmp_path / "fitted", options, on_step=steps.append)

    rounded, fitted = (load_model(tmp_path / name).model for name in ("rounded", "fitted"))
    n_layers = len(fitted.encoder.layers) + len(fitted.decoder.layers)
    assert len(steps) == n_layers + 2  # adapter and head
    assert fitted.decoder.embed_tokens.scales.dtype == rounded.decoder.embed_tokens.scales.dtype
    assert divergence(fitted, samples, references) < divergence(rounded, samples, references)


def test_a_cpu_fits_16_bits_in_float32_and_stores_16(folder, tmp_path):
    recording = tmp_path / "speech.wav"
    soundfile.write(recording, native.speech_like(1.2, 10), 16000, subtype="FLOAT")
    halves, calibration = tmp_path / "halves", Calibration((str(recording),))
    convert(str(folder), halves, Options(dtype=mx.float16))
    on_cpu = mx.default_device() == mx.cpu

    used = Calibrator(halves, calibration).model.encoder.norm.weight.dtype
    assert used == (mx.float32 if on_cpu else mx.float16)
    convert(str(halves), tmp_path / "4", Options(recipe=uniform(INT4), calibration=calibration))
    packed = load_model(tmp_path / "4").model.decoder.embed_tokens
    assert (packed.scales.dtype, packed.biases.dtype) == (mx.float16, mx.float16)


def test_a_size_is_reached_by_choosing_bits(folder, tmp_path):
    recording = tmp_path / "speech.wav"
    soundfile.write(recording, native.speech_like(1.2, 10), 16000, subtype="FLOAT")
    small = convert(str(folder), tmp_path / "4", Options(recipe=uniform(INT4))).plan.total.nbytes
    budget = Budget(round(1.1 * small))
    calibration = Calibration((str(recording),), seconds=1.2, method="gptq")
    result = convert(
        str(folder), tmp_path / "mixed", Options(budget=budget, calibration=calibration)
    )

    assert 0.97 * budget.n_bytes < result.plan.total.nbytes <= budget.n_bytes
    assert len({s.bits for s in result.plan.settings.values()}) > 1
    load_model(tmp_path / "mixed")
    with pytest.raises(ValueError, match="too small: at 3 bits everywhere"):
        convert(str(folder), tmp_path / "no", Options(budget=Budget(1000), calibration=calibration))


def test_bits_go_to_the_unit_that_needs_them():
    costs = {bits: bits * 100 for bits in BITS}
    units = [
        Unit((path,), costs, {bits: loss * 4.0**-bits for bits in BITS})
        for path, loss in (("calm", 1.0), ("touchy", 100.0))
    ]

    assert allocate(units, 900) == {"calm": 3, "touchy": 6}
    assert allocate(units, 600) == {"calm": 3, "touchy": 3}
    assert allocate(units, 10_000) == {"calm": 8, "touchy": 8}


@pytest.mark.parametrize(
    ("text", "n"), [("2.4GB", 2_400_000_000), ("700 MiB", 700 * 2**20), ("1gb", 10**9)]
)
def test_sizes(text, n):
    assert parse_size(text) == n


@pytest.mark.parametrize("text", ["2.4", "GB", "-1GB", "2,4GB"])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="such as 2.4GB"):
        parse_size(text)


def test_calibration_refuses_what_it_cannot_use(folder, tmp_path):
    packed = tmp_path / "packed"
    convert(str(folder), packed, Options(recipe=uniform(INT4)))
    missing = Options(recipe=uniform(INT4), calibration=Calibration((str(tmp_path / "no.wav"),)))

    with pytest.raises(ValueError, match="in floating point, .* is quantised"):
        convert(str(packed), tmp_path / "a", Options(budget=Budget(10**9)))
    with pytest.raises(AudioError, match="no.wav"):
        convert(str(folder), tmp_path / "b", missing)
    with pytest.raises(ValueError, match="method must be one of"):
        Calibration(method="magic")


def test_the_package_brings_recordings():
    assert len(Calibration().files()) > 3
