"""Small stand-ins for released files, made by code."""

from __future__ import annotations

import base64
from typing import Any

N_SPECIAL = 1000

CONTROL_NAMES = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    11: "<pad>",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    32: "[STREAMING_PAD]",
    33: "[STREAMING_WORD]",
}

# Pieces above the 256 bytes. They hold whole words, halves of words and parts of characters.
PIECES = [
    *(" a", " t", " s", "th", "he", "in", " the", "an", "er", "on", " w", " o", "re", " m", "é"),
    *("ü", "…", " to", " in", "ing", " and", "。", "ch", ".\n", " hello", " world", "hello", " I"),
    *(" (", "))", " «", " »", " -", "今", "天", "今天", "「", "」", " ?", "'s", "ข", "ำ"),
    *(" 5", " U", " is", " it", " of", " you", " we", " they", " was", " that", " for", " with"),
    *(" yes", " no", " not", " one", " two", " three", "ö", "—", "ß", "🙂"),
]


def tiny_tekken_dict(n_unused: int = 0) -> dict[str, Any]:
    """Content of a ``tekken.json`` with the 256 bytes and a few longer pieces.

    Args:
        n_unused: Entries after the last one that the model has an id for.
    """
    pieces = [bytes([value]) for value in range(256)] + [piece.encode() for piece in PIECES]
    n_used = len(pieces)
    pieces += [f"unused {i}".encode() for i in range(n_unused)]
    names = [CONTROL_NAMES.get(rank, f"<SPECIAL_{rank}>") for rank in range(N_SPECIAL)]
    return {
        "config": {
            "pattern": r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+",
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": N_SPECIAL + n_used,
            "default_num_special_tokens": N_SPECIAL,
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": None}
            for rank, piece in enumerate(pieces)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": name, "is_control": True} for rank, name in enumerate(names)
        ],
        "audio": {
            "sampling_rate": 16000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 128, "hop_length": 160, "window_size": 400},
            "transcription_format": "streaming",
            "transcription_delay_ms": 480,
            "streaming_look_ahead_ms": 2.5,
            "streaming_look_back_ms": 52.5,
            "streaming_n_left_pad_tokens": 32,
        },
    }
