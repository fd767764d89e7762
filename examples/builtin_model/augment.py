"""Sound on the device: the bank of samples, clips cut from it by plan, and what roughens them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from common import LEFT_PAD, SAMPLES_PER_TOKEN, TRACK_RATE, Shard
from torch import Tensor

OFFSET = LEFT_PAD * SAMPLES_PER_TOKEN
FFT_SIZES = (262_144, 393_216, 589_824, 1_179_648)
ROOM = 8_000  # samples of the longest room response
SILENT = -0.62  # log-mel of exact zeros is -0.625


class Bank:
    """All shards' samples (int16) and phone tracks (uint8) in device memory, as they arrive."""

    def __init__(self, folder: Path, capacity: int, device: str) -> None:
        self.folder, self.device = folder, device
        self.audio = torch.zeros(capacity, dtype=torch.int16, device=device)
        self.track = torch.full((capacity // 160,), 255, dtype=torch.uint8, device=device)
        self.base: list[int] = []
        self.used = 160

    def add(self, name: str) -> None:
        """Append one shard."""
        shard = Shard.load(self.folder / name)
        n = len(shard.audio)
        if self.used + n + 160 > len(self.audio):
            raise MemoryError(f"{name}: {self.used + n} samples, the bank holds {len(self.audio)}")
        self.audio[self.used : self.used + n] = torch.from_numpy(shard.audio).to(self.device)
        self.track[self.used // 160 : self.used // 160 + n // 160] = torch.from_numpy(
            shard.track
        ).to(self.device)
        self.base.append(self.used)
        self.used += n

    def cut(self, segments: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """(B, S, 6) segments to (B, length) audio after the left pad, (B, length / 320) labels."""
        device = self.device
        base = torch.tensor([*self.base, 0], dtype=torch.float64, device=device)
        start = segments[..., 1] + base[segments[..., 0].long()]
        t = torch.arange(length, device=device, dtype=torch.float64)[None] - OFFSET
        t = t.expand(segments.shape[0], -1).contiguous()
        empty = segments[..., 3] <= 0
        first = torch.where(empty, torch.inf, segments[..., 2])  # unused rows come last
        mine = (torch.searchsorted(first.contiguous(), t, right=True) - 1).clamp_min(0)

        def of(values: Tensor) -> Tensor:
            return values.gather(1, mine)

        into = t - of(segments[..., 2])
        rest = of(segments[..., 3]) - into
        inside = (into >= 0) & (rest > 0)
        position = torch.where(inside, of(start) + into * of(segments[..., 4]), 0.0)
        fade = (torch.minimum(into, rest).float() / 48).clamp(0, 1)  # no clicks at cuts
        gain = torch.where(inside, of(segments[..., 5]).float() * fade, 0.0)
        whole = position.floor()
        f = (position - whole).float()
        i = whole.long().clamp_(1, len(self.audio) - 3)
        a, b, c, d = (self.audio[i + k].float() for k in (-1, 0, 1, 2))
        wave = b + 0.5 * f * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))
        # an encoder frame is labelled by the phone 40 ms before it begins: it hears no future
        at = torch.arange(0, length, 320, device=device) - 640
        at = at.clamp_min(0)
        labels = self.track[(position[:, at] / (16_000 // TRACK_RATE)).long()].long()
        labels = torch.where(inside[:, at], labels, torch.zeros_like(labels))
        return wave * gain / 32768, labels


class Roughen:
    """Noise, babble, music, rooms, filters, levels; `strength` 0 to 1: how often and how much."""

    def __init__(self, device: str, length: int, seed: int = 0) -> None:
        self.device = device
        self.gen = torch.Generator(device=device).manual_seed(seed)
        self.music = self._music(24, length)

    def _rand(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=self.gen, device=self.device) * (high - low) + low

    def _music(self, count: int, length: int) -> Tensor:
        """(count, length) plain chord progressions with decaying harmonics."""
        t = torch.arange(length, device=self.device) / 16_000
        out = torch.zeros(count, length, device=self.device)
        for c in range(count):
            beat = float(self._rand(1, low=0.18, high=0.7))
            notes = math.ceil(length / 16_000 / beat)
            phase = t / beat
            index = phase.long().clamp_max(notes - 1)
            envelope = torch.exp(-(phase - index) * float(self._rand(1, low=0.5, high=4)))
            for _ in range(3):
                midi = 36 + (self._rand(notes) * 40).round()
                f0 = (440 * 2 ** ((midi - 69) / 12))[index]
                for h in range(1, 7):
                    weight = h ** -float(self._rand(1, low=0.5, high=2))
                    out[c] += (
                        weight * envelope * torch.sin(2 * math.pi * h * f0 * t) * (h * f0 < 7_000)
                    )
        return out / out.square().mean(1, keepdim=True).sqrt()

    def _curves(self, batch: int, n_fft: int, strength: float) -> Tensor:
        """(B, n_fft / 2 + 1) gains: smooth random equaliser, band limits."""
        freq = torch.linspace(0, 8_000, n_fft // 2 + 1, device=self.device)
        octave = torch.log2(freq.clamp_min(40) / 40)  # 0 to 7.6
        knots = (self._rand(batch, 10) - 0.5) * 20 * strength
        x = octave.clamp_max(8.99)
        k = x.long()
        db = knots[:, k] * (1 - (x - k)) + knots[:, k + 1] * (x - k)
        # rooms and microphones often hold far more below 100 Hz than synthetic voices do
        boost = self._rand(batch, 1) * 15 * (self._rand(batch, 1) < 0.4 * strength)
        gain = 10 ** ((db + boost / (1 + (freq / 120) ** 4)) / 20)
        low = torch.where(
            self._rand(batch, 1) < 0.3 * strength, self._rand(batch, 1, low=2_700, high=7_500), 1e5
        )
        high = torch.where(
            self._rand(batch, 1) < 0.25 * strength, self._rand(batch, 1, low=60, high=350), 1e-3
        )
        return gain / (1 + (freq / low) ** 12).sqrt() / (1 + (high / freq.clamp_min(1)) ** 6).sqrt()

    def _rooms(self, batch: int, n_fft: int, strength: float) -> Tensor:
        """(B, n_fft / 2 + 1) complex responses: a direct path and, for some, a decaying tail."""
        n = ROOM
        t = torch.arange(n, device=self.device) / 16_000
        rt60 = self._rand(batch, 1, low=0.1, high=0.6)
        tail = torch.randn(batch, n, generator=self.gen, device=self.device) * torch.exp(
            -6.9 * t / rt60
        )
        tail[:, :16] = 0
        ratio = 10 ** (-self._rand(batch, 1, low=0, high=18) / 20)
        tail = tail / tail.square().sum(1, keepdim=True).sqrt() * ratio
        tail = tail * (self._rand(batch, 1) < 0.4 * strength)
        tail[:, 0] = 1
        return torch.fft.rfft(tail, n_fft)

    def _noise(self, batch: int, n_fft: int, length: int) -> Tensor:
        """(B, length) coloured noise of unit power."""
        freq = torch.linspace(0, 1, n_fft // 2 + 1, device=self.device).clamp_min(1e-3)
        tilt = self._rand(batch, 1, low=0, high=1.1)
        spectrum = torch.randn(
            batch, n_fft // 2 + 1, generator=self.gen, device=self.device, dtype=torch.complex64
        )
        noise = torch.fft.irfft(spectrum * freq**-tilt, n_fft)[:, :length]
        slow = 1 + 0.8 * torch.sin(
            2
            * math.pi
            * self._rand(batch, 1, low=0.1, high=1.5)
            * torch.linspace(0, length / 16_000, length, device=self.device)
            + 6.28 * self._rand(batch, 1)
        )
        noise = noise * torch.where(self._rand(batch, 1) < 0.3, slow, torch.ones_like(slow))
        return noise / noise.square().mean(1, keepdim=True).sqrt()

    def __call__(self, wave: Tensor, samples: Tensor, voiced: Tensor, strength: float) -> Tensor:
        """(B, n) clean clips to rough ones; zeros outside the clip stay exact zeros."""
        B, n = wave.shape
        n_fft = next(size for size in FFT_SIZES if size >= n + ROOM)
        t = torch.arange(n, device=self.device)[None] - OFFSET
        inside = ((t >= 0) & (t < samples[:, None])).float()
        active = (wave.abs() > 0.01).float().sum(1).clamp_min(1)
        level = (wave.square().sum(1) / active).sqrt()[:, None].clamp_min(1e-3)
        response = self._curves(B, n_fft, strength) * self._rooms(B, n_fft, strength)
        wave = torch.fft.irfft(torch.fft.rfft(wave, n_fft) * response, n_fft)[:, :n]
        drive = level * self._rand(B, 1, low=1.5, high=8.0)
        wave = torch.where(
            self._rand(B, 1) < 0.12 * strength, torch.tanh(wave / drive) * drive, wave
        )
        level = torch.where(voiced[:, None], level, torch.full_like(level, 0.05))

        def at(low: float, high: float) -> Tensor:
            return level * 10 ** (-self._rand(B, 1, low=low, high=high) / 20)

        quietest = 40 - 4 * strength
        noise = self._noise(B, n_fft, n) * at(quietest - 34 * strength, 50)
        chance = torch.where(voiced[:, None], 0.3 + 0.4 * strength, 0.75)
        wave = wave + noise * (self._rand(B, 1) < chance)
        clean = (
            wave.roll(1, 0)
            + wave.roll(2, 0) * 0.8
            + wave.roll(5, 0) * 0.8
            + wave.roll(7, 0).flip(1)
        )
        babble = clean / clean.square().mean(1, keepdim=True).sqrt().clamp_min(1e-3)
        wave = wave + babble * at(8, 25) * (self._rand(B, 1) < 0.15 * strength) * voiced[:, None]
        music = self.music[(self._rand(B) * len(self.music)).long(), :n]
        chance = torch.where(voiced[:, None], 0.1 * strength, 0.4)
        wave = wave + music * at(6, 25) * (self._rand(B, 1) < chance)
        target = 10 ** (self._rand(B, 1, low=-20 - 18 * strength, high=-13) / 20)
        wave = (wave * (target / level)).clamp(-1, 1) * inside
        return (wave * 32767).round() / 32768


def bend_mel(mel: Tensor, strength: float, gen: torch.Generator) -> Tensor:
    """Other vocal tracts, smooth synthesisers and noise floors, in (B, 128, F) log-mel frames.

    The frequency axis of most clips is stretched by up to 19 %; a few clips are smoothed in time
    and frequency, as vocoders do; others lose what lies 40 to 64 dB below their peak.
    """
    B, bins, frames = mel.shape
    device = mel.device

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=gen, device=device)

    ratio = torch.exp((rand(B, 1) * 2 - 1) * 0.175 * strength * (rand(B, 1) < 0.7))
    step = (15 + 27 * math.log(8) / math.log(6.4)) / (bins + 1)
    centre = (torch.arange(bins, device=device) + 1) * step
    hertz = torch.where(
        centre < 15, centre * 200 / 3, 1_000 * torch.exp((centre - 15) * math.log(6.4) / 27)
    )[None]
    knee = 6_400 * torch.minimum(1 / ratio, torch.ones_like(ratio))
    top = 8_000 - (8_000 - ratio * knee) * (8_000 - hertz) / (8_000 - knee)
    bent = torch.where(hertz < knee, ratio * hertz, top)
    scale = torch.where(
        bent < 1_000, bent * 3 / 200, 15 + 27 * torch.log(bent.clamp_min(1) / 1_000) / math.log(6.4)
    )
    at = (scale / step - 1).clamp(0, bins - 1.001)
    low = at.long()
    share = (at - low)[:, :, None]
    index = low[:, :, None].expand(-1, -1, frames)
    out = mel.gather(1, index) * (1 - share) + mel.gather(1, index + 1) * share
    smooth = torch.nn.functional.avg_pool2d(
        out[:, None], (3, 3), 1, 1, count_include_pad=False
    ).squeeze(1)
    out = torch.where(rand(B, 1, 1) < 0.12 * strength, smooth, out)
    peak = mel.amax((1, 2), keepdim=True)
    floor = peak - 1.0 - 0.6 * rand(B, 1, 1)
    raised = torch.where(mel > SILENT, torch.maximum(out, floor), out)
    return torch.where(rand(B, 1, 1) < 0.25 * strength, raised, out)


def warp_time(mel: Tensor, strength: float, gen: torch.Generator) -> Tensor:
    """Speed that changes within a word: frames of (B, 128, F) are moved by up to 42 ms."""
    B, bins, frames = mel.shape
    device = mel.device
    t = torch.arange(frames, device=device)[None] / 100  # seconds
    moved = torch.zeros(B, frames, device=device)
    for _ in range(3):
        draw = torch.rand(B, 3, 1, generator=gen, device=device)
        moved += (
            1.4 * draw[:, 0] * torch.sin(2 * math.pi * ((0.4 + 2.4 * draw[:, 1]) * t + draw[:, 2]))
        )
    at = (torch.arange(frames, device=device)[None] + strength * moved).clamp(0, frames - 1.001)
    low = at.long()
    share = (at - low)[:, None]
    index = low[:, None].expand(-1, bins, -1)
    return mel.gather(2, index) * (1 - share) + mel.gather(2, index + 1) * share


def mask_mel(mel: Tensor, strength: float, gen: torch.Generator) -> Tensor:
    """Blank a few bands and short stretches of (B, 128, F) with the clip's mean."""
    B, bins, frames = mel.shape
    device = mel.device

    def spans(count: int, size: int, widest: float) -> Tensor:
        start = torch.rand(B, count, 1, generator=gen, device=device) * size
        width = torch.rand(B, count, 1, generator=gen, device=device) * widest
        axis = torch.arange(size, device=device)[None, None]
        return ((axis >= start) & (axis < start + width)).any(1)

    hidden = (
        spans(2, bins, 4 + 28 * strength)[:, :, None]
        | spans(max(1, frames // 160), frames, 4 + 26 * strength)[:, None]
    )
    return torch.where(hidden, mel.mean((1, 2), keepdim=True), mel)


def to_device(plan: dict[str, Any], device: str) -> dict[str, Any]:
    """A plan's tensors on the device."""
    return {
        k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in plan.items()
    }
