from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import N_SPECIAL, PIECES, tiny_tekken_dict
from voxmlx.errors import TokenizerError
from voxmlx.tokenizer import StreamingDetokenizer, Tokenizer

TOKENIZER = Tokenizer.from_dict(tiny_tekken_dict())


def byte_ids(data: bytes) -> list[int]:
    return [N_SPECIAL + value for value in data]


def piece_id(piece: str) -> int:
    return N_SPECIAL + 256 + PIECES.index(piece)


def test_from_file_reads_ids_and_audio_section(tmp_path):
    path = tmp_path / "tekken.json"
    path.write_text(json.dumps(tiny_tekken_dict()))
    tokenizer = Tokenizer.from_file(path)
    assert (tokenizer.n_special, tokenizer.n_vocab) == (1000, 1256 + len(PIECES))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert (tokenizer.pad_id, tokenizer.word_id) == (32, 33)
    assert tokenizer.special_id("[AUDIO]") == 24
    assert tokenizer.special_id("[NOTHING]") is None
    assert tokenizer.audio is not None
    assert tokenizer.audio.transcription_delay_ms == 480
    assert tokenizer.audio.n_left_pad_tokens == 32
    assert tokenizer.audio.frame_rate == 12.5


def test_streaming_ids_are_looked_up_by_name():
    data = tiny_tekken_dict()
    data["special_tokens"][32]["token_str"] = "[OTHER]"
    data["special_tokens"][40]["token_str"] = "[STREAMING_PAD]"
    assert Tokenizer.from_dict(data).pad_id == 40


def test_file_without_names_and_audio_falls_back():
    data = tiny_tekken_dict()
    del data["special_tokens"], data["audio"]
    tokenizer = Tokenizer.from_dict(data)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert (tokenizer.pad_id, tokenizer.word_id) == (32, 33)
    assert tokenizer.audio is None


def test_offline_audio_section_has_no_delay():
    data = tiny_tekken_dict()
    data["audio"] = {"sampling_rate": 16000, "frame_rate": 12.5, "chunk_length_s": 30.0}
    audio = Tokenizer.from_dict(data).audio
    assert audio is not None
    assert (audio.chunk_length_s, audio.transcription_delay_ms) == (30.0, None)
    assert audio.n_left_pad_tokens == 32


def test_unknown_audio_key_is_reported(caplog):
    data = tiny_tekken_dict()
    data["audio"]["future_key"] = 1
    Tokenizer.from_dict(data)
    assert "future_key" in caplog.text


def test_entries_beyond_the_vocabulary_are_left_out():
    tokenizer = Tokenizer.from_dict(tiny_tekken_dict(n_unused=5))
    assert tokenizer.n_vocab == TOKENIZER.n_vocab
    with pytest.raises(ValueError, match=r"token id must be in \[0, "):
        tokenizer.token_bytes(tokenizer.n_vocab)


def test_encode_merges_and_decode_inverts():
    ids = TOKENIZER.encode(" hello the world…")
    assert ids == [piece_id(" hello"), piece_id(" the"), piece_id(" world"), piece_id("…")]
    assert TOKENIZER.decode([1, *ids, 32, 33, 2]) == " hello the world…"


def test_encode_treats_control_names_as_text():
    assert TOKENIZER.decode(TOKENIZER.encode("</s>[AUDIO]")) == "</s>[AUDIO]"


@given(st.text())
def test_encode_decode_round_trip(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_control_ids_have_no_bytes():
    assert [TOKENIZER.token_bytes(i) for i in (0, 33, 999)] == [b"", b"", b""]
    assert TOKENIZER.token_bytes(1000 + 65) == b"A"


@pytest.mark.parametrize("token_id", [-1, 10**6])
def test_ids_outside_the_vocabulary_are_refused(token_id):
    with pytest.raises(ValueError, match=f"got {token_id}"):
        TOKENIZER.token_bytes(token_id)


@given(st.lists(st.one_of(st.binary(max_size=6), st.text(max_size=3).map(str.encode))))
def test_detokenizer_equals_whole_decode_for_any_bytes(chunks):
    ids = byte_ids(b"".join(chunks))
    detokenizer = StreamingDetokenizer(TOKENIZER)
    pieces = [detokenizer.add_token(i) for i in ids] + [detokenizer.finalize()]
    assert "".join(pieces) == TOKENIZER.decode(ids) == detokenizer.text


@given(st.text(alphabet=st.characters(exclude_characters="\ufffd", exclude_categories=["Cs"])))
def test_detokenizer_never_shows_half_a_character(text):
    detokenizer = StreamingDetokenizer(TOKENIZER)
    pieces = [detokenizer.add_token(i) for i in byte_ids(text.encode())]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) == text
    assert detokenizer.finalize() == ""


def test_detokenizer_goes_on_after_finalize():
    detokenizer = StreamingDetokenizer(TOKENIZER)
    first, second = byte_ids("é".encode())
    assert detokenizer.add_token(first) == ""
    assert detokenizer.add_token(32) == ""
    assert detokenizer.finalize() == "\ufffd"
    assert detokenizer.add_token(second) == "\ufffd"
    assert detokenizer.text == "\ufffd\ufffd"


def test_detokenizer_can_forget_its_text():
    detokenizer = StreamingDetokenizer(TOKENIZER, keep_text=False)
    assert detokenizer.add_token(piece_id(" hello")) == " hello"
    assert detokenizer.text == ""


def broken(change) -> dict:
    data = tiny_tekken_dict()
    change(data)
    return data


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: d.pop("config"), "f: config: expected dict, got nothing"),
        (lambda d: d.pop("vocab"), "f: vocab: expected list, got nothing"),
        (lambda d: d.update(vocab={}), "f: vocab: expected list, got dict"),
        (lambda d: d["config"].pop("pattern"), "f: config.pattern: expected str, got nothing"),
        (
            lambda d: d["config"].update(default_vocab_size="x"),
            "f: config.default_vocab_size: expected a positive integer, got 'x'",
        ),
        (
            lambda d: d["config"].pop("default_num_special_tokens"),
            "f: config.default_num_special_tokens: expected a positive integer, got None",
        ),
        (lambda d: d["vocab"].pop(), "the file has"),
        (lambda d: d["vocab"][3].pop("rank"), r"f: vocab\[3\] needs a rank and base64"),
        (lambda d: d["vocab"][3].pop("token_bytes"), r"f: vocab\[3\] needs a rank and base64"),
        (lambda d: d["vocab"].__setitem__(3, None), r"f: vocab\[3\] needs a rank and base64"),
        (lambda d: d["vocab"][3].update(token_bytes=7), r"f: vocab\[3\] needs a rank and base64"),
        (lambda d: d["vocab"][3].update(token_bytes="*"), r"vocab\[3\].token_bytes is not base64"),
        (lambda d: d["vocab"].reverse(), r"f: vocab\[0\] has rank \d+; entries must be in order"),
        (lambda d: d["vocab"][0].update(token_bytes="AQ=="), "must be the bytes 0-255"),
        (lambda d: d["vocab"][-1].update(token_bytes="QQ=="), "two vocab entries"),
        (lambda d: d.update(special_tokens=3), "f: special_tokens: expected list, got int"),
        (lambda d: d["special_tokens"].append(3), "expected dict, got int"),
        (lambda d: d["special_tokens"][5].update(rank=1000), "a rank below 1000"),
        (lambda d: d["special_tokens"][5].update(rank=6), "listed twice"),
        (lambda d: d["special_tokens"][5].update(token_str="<s>"), "listed twice"),
        (lambda d: d.update(audio=[]), "f: audio: expected dict, got list"),
        (lambda d: d["audio"].update(frame_rate=-1), "audio.frame_rate: expected a positive"),
        (lambda d: d["audio"].update(transcription_delay_ms="480"), "expected a positive number"),
    ],
)
def test_broken_content_is_named(change, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_dict(broken(change), source="f")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_broken_json_is_named(tmp_path, content):
    path = tmp_path / "tekken.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match="tekken.json: not JSON"):
        Tokenizer.from_file(path)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(TokenizerError, match="tekken.json: no such file"):
        Tokenizer.from_file(tmp_path / "tekken.json")
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.from_file(tmp_path)


def test_bad_pattern_is_named_at_the_first_encode():
    tokenizer = Tokenizer.from_dict(broken(lambda d: d["config"].update(pattern="(")))
    assert tokenizer.decode([1000 + 65]) == "A"
    with pytest.raises(TokenizerError, match="config.pattern is not a regular expression"):
        tokenizer.encode("a")


@pytest.mark.weights
def test_released_vocabulary_round_trips():
    tokenizer = Tokenizer.from_file(Path(os.environ["VOXMLX_WEIGHTS"]) / "tekken.json")
    assert tokenizer.n_vocab == 131072
    assert tokenizer.encode("lang:en") == [9909, 1058, 1262]
    assert tokenizer.decode([1362, 19135]) == " I spoke"
