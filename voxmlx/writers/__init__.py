"""Results as files: plain text, subtitles, tables and JSON.

Knows results and words; neither audio nor models. Subtitle cues are made incrementally, so live
transcription writes them as it goes.
"""

from voxmlx.writers.atomic import atomic_write, make_folder, output_error
from voxmlx.writers.cues import Cue, CueBuilder, cues_of
from voxmlx.writers.formats import FORMATS, SubtitleWriter, get_writer, result_dict

__all__ = [
    "FORMATS",
    "Cue",
    "CueBuilder",
    "SubtitleWriter",
    "atomic_write",
    "cues_of",
    "get_writer",
    "make_folder",
    "output_error",
    "result_dict",
]
