"""Calibration sees what the network computes in use."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from tests.oracle import native
from voxmlx.pipeline import load
from voxmlx_convert.calibration.samples import logits, make_sample
from voxmlx_convert.calibration.stages import first_inputs, stages
from voxmlx_convert.verify import forced_logits


def run_all(model, samples, conditioned=True):
    rows = first_inputs(model, samples)
    for stage in stages(model, conditioned):
        rows = [stage.run(sample, x) for sample, x in zip(samples, rows, strict=True)]
    return [model.decoder.logits(x)[0] for x in rows]


def test_stage_by_stage_gives_the_scores_of_the_whole(model, samples):
    for staged, sample in zip(run_all(model, samples), samples, strict=True):
        whole = logits(model, sample)
        assert staged.shape == (sample.n_outputs, model.config.decoder.vocab_size)
        assert mx.abs(staged - whole).max() < 1e-3 * mx.abs(whole).max()


def test_the_scores_are_those_of_use(folder, model, samples):
    pipeline = load(folder, dtype="float32")
    audio = native.speech_like(1.0, 10)
    tokens = pipeline.generate(audio, sample_rate=16000).tokens
    sample = make_sample(model, pipeline.tokenizer, audio, tokens)

    assert sample.placed == samples[0].placed
    used = forced_logits(pipeline, audio, tokens)
    assert np.abs(np.array(logits(model, sample)) - used).max() < 1e-3 * np.abs(used).max()


def test_without_the_delay_the_activations_are_others(model, samples):
    whole = logits(model, samples[0])
    staged = run_all(model, samples[:1], conditioned=False)[0]

    assert mx.abs(staged - whole).max() > 0.05 * mx.abs(whole).max()


def test_every_linear_matrix_belongs_to_a_stage(model):
    grouped = [path for stage in stages(model) for group in stage.groups for path in group]
    linear = [
        path
        for path, module in model.named_modules()
        if "weight" in module and module.weight.ndim == 2 and "norm" not in path
    ]

    assert sorted(grouped) == sorted(linear)
