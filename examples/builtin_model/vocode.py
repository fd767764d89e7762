"""Speech as a parametric synthesiser would have made it: smoothed spectra, pulses and noise.

Works on clips of any speaker; which frames have a voice is read from their phone labels.
"""

from __future__ import annotations

import math

import torch
from common import PHONE_ID
from torch import Tensor

HOP, WINDOW, SIZE, ORDER = 80, 400, 512, 48
VOICELESS = "SIL CH F HH K P S SH T TH".split()
LATE = 640  # samples by which bank labels come after the sound


def vocode(wave: Tensor, labels: Tensor, gen: torch.Generator) -> Tensor:
    """(B, n) clips with their (B, n / 320) phone labels, spoken again by a vocoder.

    The envelope keeps 18 to 40 cepstral coefficients, smoothed over 4 to 25 ms (one sigma) and made
    flatter or sharper. Most clips get a new pitch contour, some keep their own fine structure.
    """
    B, n = wave.shape
    device = wave.device

    def rand(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=gen, device=device) * (high - low) + low

    window = torch.hann_window(WINDOW, device=device)

    def stft(x: Tensor) -> Tensor:
        return torch.stft(x, SIZE, HOP, WINDOW, window, return_complex=True)

    spec = stft(wave)
    frames = spec.shape[2]
    cepstrum = torch.fft.irfft(spec.abs().clamp_min(1e-5).log(), dim=1)[:, :ORDER]
    order = torch.arange(ORDER, device=device)
    bins = torch.arange(SIZE // 2 + 1, device=device)
    waves = torch.cos(2 * math.pi / SIZE * bins[:, None] * order) * torch.where(order > 0, 2, 1)
    order = order[None, :, None]
    cepstrum = cepstrum * (1 - (order - rand(B, 1, 1, low=18, high=40)) / 6).clamp(0, 1)
    own = waves @ cepstrum
    rate = torch.fft.rfftfreq(frames, device=device)
    sigma = rand(B, 1, 1, low=0.8, high=5.0)  # frames of 5 ms
    slow = torch.exp(-2 * (math.pi * sigma * rate) ** 2)
    cepstrum = torch.fft.irfft(torch.fft.rfft(cepstrum, dim=2) * slow, frames, dim=2)
    sharp = torch.where(order > 0, rand(B, 1, 1, low=0.85, high=1.2), 1.0)
    smooth = waves @ (cepstrum * sharp)

    voiceless = torch.tensor([PHONE_ID[p] for p in VOICELESS], device=device)
    at = (torch.arange(frames, device=device) * HOP + LATE) // 320
    voice = (~torch.isin(labels, voiceless)).float()[:, at.clamp_max(labels.shape[1] - 1)]
    voice = torch.nn.functional.avg_pool1d(voice[:, None], 5, 1, 2).squeeze(1)
    voice = voice * (rand(B, 1) > 0.06)  # a few whisper
    t = torch.arange(n, device=device) / 16_000
    pitch = torch.exp(rand(B, 1, low=math.log(75), high=math.log(290)))
    range_ = rand(B, 1, high=0.2)
    for low, high in ((0.1, 0.5), (0.5, 1.5), (1.5, 4.0)):
        swing = torch.sin(2 * math.pi * (rand(B, 1, low=low, high=high) * t + rand(B, 1)))
        pitch = pitch * torch.exp(range_ * swing)
    cycle = (pitch.double() / 16_000).cumsum(1).floor()
    pulse = (cycle.diff(dim=1, prepend=cycle[:, :1]) > 0) * (16_000 / pitch).sqrt()
    noise = torch.randn(B, n, generator=gen, device=device)
    freq = torch.linspace(0, 8_000, SIZE // 2 + 1, device=device)[None, :, None]
    limit = rand(B, 1, 1, low=2_500, high=11_000)
    share = voice[:, None] / (1 + (freq / limit) ** 8)
    source = share * stft(pulse) + (1 - share.square()).sqrt() * stft(noise)
    made = source / window.square().sum().sqrt() * smooth.exp()
    kept = spec * (smooth - own).clamp_max(4.0).exp()
    out = torch.where(rand(B, 1, 1) < 0.25, kept, made)
    return torch.istft(out, SIZE, HOP, WINDOW, window, length=n)
