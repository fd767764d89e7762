"""Layers of Whisper's encoder: how a network that heard many people writes speech down.

    python teacher.py --whisper model.bin --layers 6 --out teacher.npz

`model.bin` is Whisper base as CTranslate2 stores it. Used in training only, as a target for the
encoder; nothing of it is exported. Weights are kept at 8 bits.
"""

from __future__ import annotations

import argparse
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64
POSITIONS = 1_500  # of 20 ms
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a CTranslate2 model file: counted names, shapes, types and raw data in turn."""
    data, at = path.read_bytes(), 0

    def take(kind: str) -> Any:
        nonlocal at
        value = struct.unpack_from("<" + kind, data, at)[0]
        at += struct.calcsize("<" + kind)
        return value

    def name() -> str:
        nonlocal at
        size = take("H")
        at += size
        return data[at - size : at - 1].decode()

    take("I"), name(), take("I")
    out = {}
    for _ in range(take("I")):
        key = name()
        shape = [take("I") for _ in range(take("B"))]
        kind = np.dtype(_TYPES[take("B")])
        size = take("I")
        out[key] = np.frombuffer(data, kind, size // kind.itemsize, at).reshape(shape)
        at += size
    return out


class Teacher(nn.Module):
    """Frozen encoder layers; gives one vector for each 20 ms, from the whole clip."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        from transformers import WhisperFeatureExtractor

        bank = torch.tensor(WhisperFeatureExtractor().mel_filters, dtype=torch.float32)
        self.register_buffer("filters", bank)
        with np.load(path) as file:
            names = [k for k in file.files if not k.endswith("|scale")]
            for name in names:
                x = file[name].astype(np.float32)
                if name + "|scale" in file.files:
                    x = x * file[name + "|scale"].reshape(-1, *[1] * (x.ndim - 1))
                self.register_buffer(name.replace("/", "_"), torch.from_numpy(x))
        self.layers = sum(name.endswith("linear_0/weight") for name in names) // 2

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.encoder_conv1_bias.numel()

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        """(B, n) audio of at most 30 s to (B, n / 320, width), each vector normalised."""
        window = torch.hann_window(400, device=wave.device)
        spectrum = torch.stft(wave, 400, 160, window=window, return_complex=True)[..., :-1]
        mel = (self.filters.T @ spectrum.abs().square()).clamp_min(1e-10).log10()
        mel = (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8) + 4) / 4
        with torch.autocast(wave.device.type, torch.bfloat16, enabled=wave.is_cuda):
            x = F.gelu(F.conv1d(mel, self.encoder_conv1_weight, self.encoder_conv1_bias, 1, 1))
            x = F.gelu(F.conv1d(x, self.encoder_conv2_weight, self.encoder_conv2_bias, 2, 1))
            x = x.transpose(1, 2)
            x = x.float() + self.encoder_position_encodings_encodings[: x.shape[1]]
            for i in range(self.layers):
                x = x + self._attention(x, f"encoder_layer_{i}_self_attention").float()
                x = x + self._mlp(x, f"encoder_layer_{i}_ffn").float()
        return F.layer_norm(x, x.shape[-1:])

    def _get(self, name: str) -> Tensor:
        return getattr(self, name)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._get(f"{name}_layer_norm_gamma"), self._get(f"{name}_layer_norm_beta")
        return F.layer_norm(x, x.shape[-1:], weight, bias)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._get(f"{name}_weight"), self._get(f"{name}_bias"))

    def _attention(self, x: Tensor, name: str) -> Tensor:
        B, T, width = x.shape
        qkv = self._linear(self._norm(x, name), f"{name}_linear_0")
        q, k, v = qkv.view(B, T, 3, width // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, width)
        return self._linear(out, f"{name}_linear_1")

    def _mlp(self, x: Tensor, name: str) -> Tensor:
        hidden = F.gelu(self._linear(self._norm(x, name), f"{name}_linear_0"))
        return self._linear(hidden, f"{name}_linear_1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    out = {}
    for name, x in read_ctranslate2(args.whisper).items():
        parts = name.split("/")
        inner = len(parts) > 2 and parts[1].startswith("layer_") and parts[1] != "layer_norm"
        if parts[0] != "encoder" or x.ndim == 0 or parts[1] == "layer_norm":
            continue
        if inner and int(parts[1].split("_")[1]) >= args.layers:
            continue
        x = x.astype(np.float32)
        if x.ndim > 1 and "position" not in name:
            scale = np.abs(x).reshape(len(x), -1).max(1) / 127 + 1e-9
            q = x / scale.reshape(-1, *[1] * (x.ndim - 1))
            out[name], out[name + "|scale"] = np.round(q).astype(np.int8), scale.astype(np.float32)
        else:
            out[name] = x.astype(np.float16)
    np.savez_compressed(args.out, **out)


if __name__ == "__main__":
    main()
