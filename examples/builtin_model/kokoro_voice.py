"""Kokoro-82M as a batched speaker: phonemes, voices and speeds in, sound and durations out.

The network is the ``kokoro`` package's own (0.9.4, Apache-2.0), built without its text front end. A
batch has one length, for the decoder normalises over time: shorter sentences get a longer pause
after their last phoneme, so no padding is ever heard or normalised. Sort sentences by length first.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

SAMPLE_RATE = 24000
FRAME = 600
"""Samples of one duration frame (25 ms)."""

_MAY_MISS = re.compile(r"^bert\.pooler\.|\.norm\.(weight|bias)$")

STYLE = 128
"""A voice is 128 numbers for the sound and 128 for the prosody."""


@dataclass(frozen=True)
class Manner:
    """How a batch is spoken, beside its voices: B sentences, L letters with the two end marks.

    Attributes:
        rhythm: (B, L) added to the logarithm of each letter's duration.
        contrast: (B,) exponent on the letters' durations about their mean: below 1 is more even.
        pitch: (B,) factor on the pitch; `melody`: (B,) exponent on its movement about its mean.
        near: (B, L) ids of other letters; `share`: (B, L) how far each letter's sound moves there.
        blur: (B,) sigma in frames by which sounds run into each other.
        noise: (B,) slow noise on the sounds, in shares of their spread over the sentence.
        wobble: (B,) slow noise on pitch and energy.
        colour: (B, 128) sound of the voice in the last, wave-making part of the network.
    """

    rhythm: torch.Tensor
    contrast: torch.Tensor
    pitch: torch.Tensor
    melody: torch.Tensor
    near: torch.Tensor
    share: torch.Tensor
    blur: torch.Tensor
    noise: torch.Tensor
    wobble: torch.Tensor
    colour: torch.Tensor

    def to(self, device: str | torch.device) -> Manner:
        """The same on a device."""
        return Manner(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def build(weights: dict[str, np.ndarray], package: Path) -> nn.Module:
    """The network with its weights, from the folder that holds the unpacked ``kokoro`` wheel.

    Raises:
        ValueError: If weights are missing or unknown. ``bert.pooler`` is never used, and instance
            norms keep their factor of one, which the export left out.
    """
    modules = _import_networks(package)
    from transformers import AlbertConfig

    model = modules["model"].KModel.__new__(modules["model"].KModel)
    nn.Module.__init__(model)
    albert = AlbertConfig(
        vocab_size=178,
        hidden_size=768,
        num_attention_heads=12,
        intermediate_size=2048,
        max_position_embeddings=512,
        num_hidden_layers=12,
        attn_implementation="eager",
    )
    model.bert = modules["modules"].CustomAlbert(albert)
    model.bert_encoder = nn.Linear(768, 512)
    model.context_length = 512
    model.predictor = modules["modules"].ProsodyPredictor(
        style_dim=STYLE, d_hid=512, nlayers=3, max_dur=50, dropout=0.2
    )
    model.text_encoder = modules["modules"].TextEncoder(
        channels=512, kernel_size=5, depth=3, n_symbols=178
    )
    model.decoder = modules["istftnet"].Decoder(
        dim_in=512,
        style_dim=STYLE,
        dim_out=80,
        disable_complex=False,
        upsample_kernel_sizes=[20, 12],
        upsample_rates=[10, 6],
        gen_istft_hop_size=5,
        gen_istft_n_fft=20,
        resblock_dilation_sizes=[[1, 3, 5]] * 3,
        resblock_kernel_sizes=[3, 7, 11],
        upsample_initial_channel=512,
    )
    for module in model.modules():
        if hasattr(module, "weight_g"):  # the export folded weight normalisation in
            nn.utils.remove_weight_norm(module)
    state = {name: torch.from_numpy(np.array(x, order="C")) for name, x in weights.items()}
    report = model.load_state_dict(state, strict=False)
    missing = [name for name in report.missing_keys if not _MAY_MISS.search(name)]
    if missing or report.unexpected_keys:
        raise ValueError(f"weights do not fit: {missing[:3]} {report.unexpected_keys[:3]}")
    return model.eval()


def _import_networks(package: Path) -> dict[str, types.ModuleType]:
    """Import the package's networks without its text front end, which needs more packages."""
    import importlib

    sys.path.insert(0, str(package))
    sys.modules.setdefault("misaki", types.ModuleType("misaki"))
    if importlib.util.find_spec("loguru") is None:
        quiet = types.ModuleType("loguru")
        quiet.logger = types.SimpleNamespace(debug=lambda *_, **__: None)
        sys.modules["loguru"] = quiet
    root = types.ModuleType("kokoro")
    root.__path__ = [str(package / "kokoro")]
    sys.modules["kokoro"] = root
    return {n: importlib.import_module(f"kokoro.{n}") for n in ("istftnet", "modules", "model")}


@torch.no_grad()
def synthesise(
    model: nn.Module,
    ids: Sequence[Sequence[int]],
    styles: torch.Tensor,
    speeds: torch.Tensor,
    manner: Manner | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Speak a batch of sentences.

    Args:
        model: What :func:`build` returned.
        ids: Phoneme ids of each sentence, without the two end marks.
        styles: Voices, ``(B, 256)``.
        speeds: Relative speeds, ``(B,)``.
        manner: How they speak; None for the network's own way.

    Returns:
        Sound, ``(B, n)`` float32 at 24 kHz; durations, ``(B, L)`` in frames, end marks included.
    """
    device = styles.device
    sound_style, prosody_style = styles[:, :STYLE], styles[:, STYLE:]
    lengths = torch.tensor([len(sentence) + 2 for sentence in ids])
    L = int(lengths.max())
    tokens = torch.zeros(len(ids), L, dtype=torch.long)
    for row, sentence in zip(tokens, ids, strict=True):
        row[1 : 1 + len(sentence)] = torch.as_tensor(sentence)
    tokens = tokens.to(device)
    padding = torch.arange(L, device=device) >= lengths.to(device)[:, None]

    hidden = model.bert(tokens, attention_mask=(~padding).int())
    hidden = model.bert_encoder(hidden).transpose(1, 2)
    predictor = model.predictor
    prosody = predictor.text_encoder(hidden, prosody_style, lengths, padding)
    durations = _durations(predictor, prosody, lengths, speeds, manner).masked_fill(padding, 0)

    total = durations.sum(1)
    n_frames = int(total.max())
    rows = torch.arange(len(ids), device=device)
    durations[rows, lengths.to(device) - 1] += n_frames - total
    phoneme = _phoneme_of_frame(durations, n_frames).to(prosody.dtype)
    pitch, energy = predictor.F0Ntrain(prosody.transpose(1, 2) @ phoneme, prosody_style)
    text = model.text_encoder(tokens, lengths, padding)
    colour = sound_style
    if manner is None:
        text = text @ phoneme
    else:
        other = model.text_encoder(manner.near, lengths, padding)
        text = _smeared(torch.lerp(text, other, manner.share[:, None]) @ phoneme, manner)
        pitch = _repitched(pitch, manner)
        energy = energy + manner.wobble[:, None] * energy.std(1, keepdim=True) * _slow(energy, 12)
        colour = manner.colour
    return _sound(model.decoder, text, pitch, energy, sound_style, colour), durations


def _sound(
    decoder: nn.Module,
    text: torch.Tensor,
    pitch: torch.Tensor,
    energy: torch.Tensor,
    style: torch.Tensor,
    colour: torch.Tensor,
) -> torch.Tensor:
    """The network's decoder, ``(B, n)``; its wave-making part has a style of its own."""
    sides = torch.cat(
        [decoder.F0_conv(pitch.unsqueeze(1)), decoder.N_conv(energy.unsqueeze(1))], dim=1
    )
    x = decoder.encode(torch.cat([text, sides], dim=1), style)
    sides = torch.cat([decoder.asr_res(text), sides], dim=1)
    for block in decoder.decode:  # the last one doubles the frames
        x = block(torch.cat([x, sides], dim=1), style)
    return decoder.generator(x, colour, pitch).squeeze(1)


def _slow(like: torch.Tensor, width: int) -> torch.Tensor:
    """Noise of unit power over the last axis, smoothed over about `width` steps."""
    noise = torch.randn_like(like)
    flat = nn.functional.avg_pool1d(
        noise.flatten(0, -2)[:, None], width, 1, width // 2, count_include_pad=False
    )
    return flat[:, 0, : like.shape[-1]].view_as(like) * width**0.5


def _smeared(text: torch.Tensor, manner: Manner) -> torch.Tensor:
    """Sounds ``(B, 512, frames)`` that run into their neighbours and are never twice the same."""
    reach = torch.arange(-4, 5, device=text.device)
    weight = torch.exp(-0.5 * (reach / manner.blur[:, None].clamp_min(0.05)) ** 2)
    weight = weight / weight.sum(1, keepdim=True)
    around = nn.functional.pad(text, (4, 4), mode="replicate")
    blurred = torch.zeros_like(text)
    for k in range(len(reach)):
        blurred += weight[:, k, None, None] * around[..., k : k + text.shape[-1]]
    spread = text.std(2, keepdim=True) * manner.noise[:, None, None]
    return blurred + spread * _slow(text, 4)


def _repitched(pitch: torch.Tensor, manner: Manner) -> torch.Tensor:
    """Pitch in Hz, ``(B, n)``, moved and stretched where there is a voice (Kokoro: over 10 Hz)."""
    voiced = pitch > 20
    mean = (pitch * voiced).sum(1, keepdim=True) / voiced.sum(1, keepdim=True).clamp_min(1)
    mean = mean.clamp_min(20)
    moved = manner.pitch[:, None] * mean * (pitch.clamp_min(20) / mean) ** manner.melody[:, None]
    moved = moved * torch.exp(0.2 * manner.wobble[:, None] * _slow(pitch, 10))
    return torch.where(voiced, moved.clamp(45, 600), pitch)


def _durations(
    predictor: nn.Module,
    prosody: torch.Tensor,
    lengths: torch.Tensor,
    speeds: torch.Tensor,
    manner: Manner | None,
) -> torch.Tensor:
    packed = nn.utils.rnn.pack_padded_sequence(
        prosody, lengths, batch_first=True, enforce_sorted=False
    )
    out, _ = nn.utils.rnn.pad_packed_sequence(
        predictor.lstm(packed)[0], batch_first=True, total_length=prosody.shape[1]
    )
    frames = torch.sigmoid(predictor.duration_proj(out)).sum(-1) / speeds[:, None]
    if manner is None:
        return frames.round().clamp(min=1).long()
    usual = 2.5 / speeds[:, None]  # frames of a letter, in the middle of what Kokoro predicts
    frames = usual * (frames / usual) ** manner.contrast[:, None] * torch.exp(manner.rhythm)
    ends = frames.cumsum(1).round()  # a letter may last no frame at all: it is swallowed
    return torch.diff(ends, dim=1, prepend=ends.new_zeros(len(ends), 1)).clamp(0, 120).long()


def _phoneme_of_frame(durations: torch.Tensor, n_frames: int) -> torch.Tensor:
    """Which phoneme each frame belongs to, ``(B, L, n_frames)`` of booleans."""
    ends = durations.cumsum(1)[..., None]
    frame = torch.arange(n_frames, device=durations.device)
    return (frame < ends) & (frame >= ends - durations[..., None])
