from __future__ import annotations

import numpy as np
import pytest
import soundfile

from tests.cli.conftest import RATE, samples, talking_weights
from tests.tiny_checkpoints import write_folder
from voxmlx.engine.files import transcribe_files
from voxmlx.pipeline import load


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return load(write_folder(tmp_path_factory.mktemp("model"), "native", talking_weights()))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    paths = [folder / f"{i}.wav" for i in range(5)]
    for i, path in enumerate(paths):
        soundfile.write(path, samples(0.2 + 0.5 * i), RATE)
    return paths


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_give_what_single_recordings_give(pipeline, recordings, rows):
    files = [(path.name, path) for path in recordings]
    found = {done.key: done for done in transcribe_files(pipeline, files, rows=rows)}
    for path in recordings:
        alone = pipeline.generate(path)
        result = found[path.name].result
        assert (result.tokens, result.text, result.words) == (alone.tokens, alone.text, alone.words)
        assert result.duration_s == alone.duration_s


def test_bad_recordings_do_not_stop_the_rest(pipeline, recordings, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no")
    broken = np.full(4 * RATE, np.nan, np.float32)
    soundfile.write(tmp_path / "nan.wav", broken, RATE, subtype="FLOAT")
    files = [tmp_path / "bad.wav", recordings[0], tmp_path / "nan.wav", recordings[1]]
    found = {
        done.key: done
        for done in transcribe_files(pipeline, zip(files, files, strict=True), rows=2)
    }
    assert [found[f].result is None for f in files] == [True, False, True, False]
    assert "bad.wav: not a recording" in str(found[files[0]].error)


def test_recordings_are_opened_when_a_row_is_free(pipeline, recordings):
    opened = []

    def files():
        for path in recordings:
            opened.append(path)
            yield path, path

    results = transcribe_files(pipeline, files(), rows=2)
    next(results)
    assert len(opened) <= 3
    results.close()


def test_unknown_delay_is_refused(pipeline, recordings):
    with pytest.raises(ValueError, match="delay"):
        list(transcribe_files(pipeline, [(0, recordings[0])], transcription_delay_ms=90))
