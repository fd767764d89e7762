"""Learning scales and biases of packed weights from the float model's distributions.

Codes stay; only the two numbers of each group move, by gradient descent on the Kullback-Leibler
divergence from the float model's logits, through the whole network as it is in use (after mlx-lm's
DWQ). Each group's weights have a factor and a shift in steps of its scale, so that one learning
rate suits every layer.

Memory: the packed network, three float32 numbers for each of the two of a group, and the
activations of one sample; the float model only while its logits are computed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from voxmlx.models.voxtral_realtime import VoxtralRealtime
from voxmlx.quantization.rotated import setting_of
from voxmlx_convert.calibration.samples import Sample, logits, mean_kl

LEARNING_RATE = 5e-4
EPOCHS = 8

_logger = logging.getLogger(__name__)

Deltas = dict[str, dict[str, mx.array]]


def reference_logits(model: VoxtralRealtime, samples: Sequence[Sample]) -> list[mx.array]:
    """The float model's logits for every sample, ``(n_outputs, vocab)`` float16 each."""
    found = []
    for sample in samples:
        scores = logits(model, sample)
        # Differences of a thousandth of a logit do not matter, half the memory does.
        scores = (scores - scores.max(axis=-1, keepdims=True)).astype(mx.float16)
        mx.eval(scores)
        found.append(scores)
    return found


def divergence(
    model: VoxtralRealtime, samples: Sequence[Sample], references: Sequence[mx.array]
) -> float:
    """Mean divergence from the float model over the samples, in nats."""
    values = [
        mean_kl(reference, logits(model, sample))
        for sample, reference in zip(samples, references, strict=True)
    ]
    return float(np.mean([np.array(value) for value in values]))


def distill(
    model: VoxtralRealtime,
    samples: Sequence[Sample],
    references: Sequence[mx.array],
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Move scales and biases of all affine modules of a network, in place, if that helps.

    Args:
        model: A packed network, not prepared for inference.
        samples: What it is run on.
        references: What :func:`reference_logits` gave for them.
        epochs: Passes over the samples.
        learning_rate: Of Adam at its start; it falls to a hundredth along a cosine.
        seed: Of the order of the samples.
        on_step: Called with the number of each step and its loss.
    """
    modules = {
        path: module
        for path, module in model.named_modules()
        if setting_of(module) is not None and "biases" in module
    }
    before = divergence(model, samples, references)
    start = {path: (m.scales, m.biases) for path, m in modules.items()}
    deltas: Deltas = {
        path: {name: mx.zeros(scales.shape) for name in ("factor", "shift")}
        for path, (scales, _) in start.items()
    }

    def place(deltas: Deltas) -> None:
        for path, module in modules.items():
            scales, biases = (x.astype(mx.float32) for x in start[path])
            dtype = start[path][0].dtype
            module.scales = (scales * (1 + deltas[path]["factor"])).astype(dtype)
            module.biases = (
                biases * (1 + deltas[path]["factor"]) + scales * deltas[path]["shift"]
            ).astype(dtype)

    def loss(deltas: Deltas, sample: Sample, reference: mx.array) -> mx.array:
        place(deltas)
        return mean_kl(reference, logits(model, sample))

    n_steps = epochs * len(samples)
    schedule = optim.cosine_decay(learning_rate, n_steps, learning_rate / 100)
    adam = optim.Adam(schedule, betas=[0.9, 0.95], bias_correction=True)
    gradient = mx.value_and_grad(loss)
    order = _order(len(samples), epochs, seed)
    for step, i in enumerate(order):
        value, gradients = gradient(deltas, samples[i], references[i])
        deltas = adam.apply_gradients(gradients, deltas)
        mx.eval(deltas, adam.state, value)
        on_step(step, float(np.array(value)))
    place(deltas)
    mx.eval(model.parameters())
    after = divergence(model, samples, references)
    if not after < before:
        _logger.warning("distillation did not help: %.4g nats before, %.4g after", before, after)
        for path, module in modules.items():
            module.scales, module.biases = start[path]


def _order(n_samples: int, epochs: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return [int(i) for _ in range(epochs) for i in rng.permutation(n_samples)]
