from __future__ import annotations

import json

import pytest

from voxmlx.evaluate.manifest import read_manifest
from voxmlx.tables import ManifestError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_librispeech_folder(tmp_path):
    folder = tmp_path / "test-other" / "1688" / "142285"
    audio = [touch(folder / f"1688-142285-000{i}.flac") for i in range(2)]
    (folder / "1688-142285.trans.txt").write_text(
        "1688-142285-0000 THERE'S IRON\n1688-142285-0001 YOU ARE\n"
    )
    found = read_manifest(tmp_path)
    assert [u.audio for u in found] == audio
    assert [u.text for u in found] == ["THERE'S IRON", "YOU ARE"]
    assert {u.language for u in found} == {"en"}


def test_fleurs_table(tmp_path):
    audio = touch(tmp_path / "de_de" / "audio" / "test" / "123.wav")
    table = tmp_path / "de_de" / "test.tsv"
    table.write_text("7\t123.wav\tGuten Tag.\tguten tag\tg u t e n |\t32000\tMALE\n")
    (utterance,) = read_manifest(table)
    assert (utterance.audio, utterance.text, utterance.language) == (audio, "Guten Tag.", "de")


def test_common_voice_table(tmp_path):
    audio = touch(tmp_path / "clips" / "a.mp3")
    (tmp_path / "test.tsv").write_text(
        'client_id\tpath\tsentence\tlocale\nx\ta.mp3\t"Quoted" words\tpt\n'
    )
    (utterance,) = read_manifest(tmp_path / "test.tsv")
    assert (utterance.audio, utterance.text) == (audio, '"Quoted" words')
    assert utterance.language == "pt"


def test_json_lines_csv_and_plain_table(tmp_path):
    touch(tmp_path / "a.wav")
    touch(tmp_path / "b.wav")
    (tmp_path / "x.jsonl").write_text(
        json.dumps({"audio_filepath": str(tmp_path / "a.wav"), "text": "one", "lang": "fr-FR"})
        + "\n\n"
        + json.dumps({"audio_filepath": "b.wav", "text": "two"})
    )
    found = read_manifest(tmp_path / "x.jsonl", language="nl")
    assert [(u.audio.name, u.text, u.language) for u in found] == [
        ("a.wav", "one", "fr"),
        ("b.wav", "two", "nl"),
    ]
    (tmp_path / "x.csv").write_text('file,text\na.wav,"one, two"\n')
    assert [u.text for u in read_manifest(tmp_path / "x.csv")] == ["one, two"]
    (tmp_path / "text.tsv").write_text("a.wav\tone\nb.wav\ttwo\n")
    assert [u.id for u in read_manifest(tmp_path)] == ["a.wav", "b.wav"]
    assert read_manifest(tmp_path) == read_manifest(tmp_path / "text.tsv")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.jsonl", "{", "x.jsonl, line 1: not JSON"),
        ("x.jsonl", "[1]", "line 1: expected an object, got [1]"),
        ("x.jsonl", '{"audio": "a.wav"}', "line 1: has no text; expected a column text, sentence"),
        ("x.csv", "text\nhi\n", "line 2: has no recording; expected a column audio_filepath"),
        ("x.tsv", "a.wav\tone\ttwo\n", "line 1: expected file, tab, text, got 3 columns"),
        ("x.tsv", "missing.wav\tone\n", "missing.wav is missing"),
        ("x.tsv", "a.wav\tone\na.wav\tone\n", "a.wav is listed twice"),
        ("x.tsv", "", "holds no utterances"),
        ("x.xlsx", "", "expected .jsonl, .csv or .tsv"),
    ],
)
def test_bad_tables_are_named(tmp_path, name, content, message):
    touch(tmp_path / "a.wav")
    (tmp_path / name).write_text(content)
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / name)
    assert message in str(caught.value)


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(ManifestError, match="no such file or folder"):
        read_manifest(tmp_path / "none")
    with pytest.raises(ManifestError, match=r"expected \*.trans.txt \(LibriSpeech\) or text.tsv"):
        read_manifest(tmp_path)
    (tmp_path / "x.trans.txt").write_text("x-1 WORDS\n")
    with pytest.raises(ManifestError, match=r"line 1: recording .*x-1.flac is missing"):
        read_manifest(tmp_path)
