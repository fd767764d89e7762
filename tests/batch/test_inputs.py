from __future__ import annotations

import json

import fsspec
import pytest

from voxmlx.batch.inputs import InputError, Item, find_items
from voxmlx.tables import ManifestError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "b.mp3", "sub/a.flac", "sub/notes.txt", "sub/deep/c.MP4"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path / "in"


def names(inputs):
    return [item.name for item in find_items([str(each) for each in inputs])]


def test_folder_is_searched_for_recordings(folder):
    assert names([folder]) == ["a", "b", "sub/a", "sub/deep/c"]
    assert find_items([str(folder)])[1] == Item("b", str(folder / "b.mp3"))


def test_patterns_keep_what_is_below_their_fixed_part(folder):
    assert names([folder / "**" / "*.flac"]) == ["sub/a"]
    assert names([folder / "sub" / "*" / "*"]) == ["deep/c"]


def test_lists_are_relative_to_themselves(folder):
    (folder / "list.txt").write_text("sub/a.flac\n\n../elsewhere/x.wav\n")
    outside = str(folder.parent / "elsewhere" / "x")[1:]
    assert names([folder / "list.txt"]) == ["sub/a", outside]
    rows = [{"audio_filepath": "a.wav", "text": "x"}, {"path": "s3://bucket/y/z.wav"}]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    items = find_items([str(folder / "list.jsonl")])
    assert [item.name for item in items] == ["a", "bucket/y/z"]
    assert items[1].source == "s3://bucket/y/z.wav"
    (folder / "bad.jsonl").write_text("{}")
    with pytest.raises(ManifestError, match="line 1: has no recording"):
        names([folder / "bad.jsonl"])


def test_recordings_named_twice_are_done_once(folder):
    assert names([folder / "a.wav", folder / "a.wav", folder]) == ["a", "b", "sub/a", "sub/deep/c"]


def test_equal_stems_keep_their_suffix(folder):
    (folder / "a.ogg").write_text("")
    assert names([folder]) == ["a.ogg", "a.wav", "b", "sub/a", "sub/deep/c"]


def test_outputs_that_would_collide_are_refused(folder, tmp_path):
    other = tmp_path / "other" / "a.wav"
    other.parent.mkdir()
    other.write_text("")
    with pytest.raises(InputError, match=r"would both be written to a\.wav; give the folder above"):
        names([folder / "a.wav", other])


def test_nothing_is_named(tmp_path):
    with pytest.raises(InputError, match="no recordings there"):
        names([tmp_path])
    with pytest.raises(InputError, match="no recordings there"):
        names([tmp_path / "*.wav"])


def test_missing_files_are_left_to_the_decoder(tmp_path):
    assert names([tmp_path / "missing.wav"]) == ["missing"]


def test_urls_name_folders_files_and_patterns():
    files = fsspec.filesystem("memory")
    for name in ("a.wav", "sub/b.ogg", "sub/c.txt"):
        files.pipe_file(f"/urls/{name}", b"")
    assert names(["memory://urls"]) == ["a", "sub/b"]
    assert names(["memory://urls/sub/*.ogg"]) == ["b"]
    assert find_items(["memory://urls/a.wav"]) == [Item("a", "memory:///urls/a.wav")]
