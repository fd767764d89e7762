"""Speech to text with Voxtral, in MLX.

    from voxmlx import load

    model = load("tiny")
    print(model.generate("audio.wav").text)

Names load on first use, so that importing the package stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from voxmlx.version import __version__

if TYPE_CHECKING:
    from voxmlx.errors import (
        AudioError,
        CheckpointError,
        HubError,
        MissingExtraError,
        OutputError,
        SessionClosedError,
        VoxmlxError,
    )
    from voxmlx.offline import OfflinePipeline
    from voxmlx.pipeline import Pipeline, load
    from voxmlx.streaming.session import StreamingSession
    from voxmlx.types import (
        Flushed,
        Segment,
        SegmentEnd,
        TextDelta,
        TokenScores,
        Transcription,
        Word,
        WordEnd,
    )

_HOME = {
    "load": "pipeline",
    "OfflinePipeline": "offline",
    "Pipeline": "pipeline",
    "StreamingSession": "streaming.session",
    **dict.fromkeys(
        (
            "Flushed",
            "Segment",
            "SegmentEnd",
            "TextDelta",
            "TokenScores",
            "Transcription",
            "Word",
            "WordEnd",
        ),
        "types",
    ),
    **dict.fromkeys(
        (
            "AudioError",
            "CheckpointError",
            "HubError",
            "MissingExtraError",
            "OutputError",
            "SessionClosedError",
            "VoxmlxError",
        ),
        "errors",
    ),
}

__all__ = [
    "AudioError",
    "CheckpointError",
    "Flushed",
    "HubError",
    "MissingExtraError",
    "OfflinePipeline",
    "OutputError",
    "Pipeline",
    "Segment",
    "SegmentEnd",
    "SessionClosedError",
    "StreamingSession",
    "TextDelta",
    "TokenScores",
    "Transcription",
    "VoxmlxError",
    "Word",
    "WordEnd",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'voxmlx' has no attribute {name!r}")
    return getattr(importlib.import_module(f"voxmlx.{_HOME[name]}"), name)
