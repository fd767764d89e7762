from __future__ import annotations

from tests.tiny import tiny_tekken_dict
from voxmlx.generation.row import GeneratedToken
from voxmlx.streaming.timeline import Timeline
from voxmlx.streaming.transcript import Transcript
from voxmlx.tokenizer import Tokenizer
from voxmlx.types import SegmentEnd, TextDelta, WordEnd

TOKENIZER = Tokenizer.from_dict(tiny_tekken_dict())


def test_words_written_behind_the_audio_end_with_it():
    transcript = Transcript(TOKENIZER, Timeline(), token_ms=80.0)
    transcript.end(1.0)
    ids = [TOKENIZER.word_id, *TOKENIZER.encode(" hello"), TOKENIZER.pad_id]
    events = [e for i, id in enumerate(ids, 30) for e in transcript.add(GeneratedToken(i, id, 0.0))]
    events += transcript.finalize()
    assert [e.text for e in events if isinstance(e, TextDelta)] == ["hello"]
    assert [e.word.end_s for e in events if isinstance(e, WordEnd)] == [1.0]
    assert [e.segment.end_s for e in events if isinstance(e, SegmentEnd)] == [1.0]
