"""Rows of a batched encoder equal the same streams alone."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.generation.tiny_model import tiny_realtime
from voxmlx.config import KVCacheConfig
from voxmlx.generation.encode import BatchEncoder, EncodeProgram


@pytest.mark.parametrize("traced", [False, True])
def test_rows_that_join_leave_and_bring_ragged_pieces_equal_whole_clips(traced, monkeypatch):
    monkeypatch.setattr("voxmlx.generation.encode.replays", lambda: traced)
    model = tiny_realtime()
    rng = np.random.default_rng(0)
    encoder = BatchEncoder(model, max_positions=5)
    clips, taken, parts = {}, {}, {}
    left = [13, 4, 21, 9, 1, 17, 8]
    done = []
    while left or clips:
        while left and len(clips) < 3:
            row = encoder.join()
            clips[row] = rng.normal(size=(8 * left.pop(), 128)).astype(np.float32)
            taken[row], parts[row] = 0, []
        pieces = {}
        for row, clip in clips.items():
            n = 8 * int(rng.integers(0, 6))
            pieces[row] = clip[taken[row] : taken[row] + n]
            taken[row] += len(pieces[row])
        for row, rows in encoder.encode(pieces).items():
            assert rows.shape == (1, len(pieces[row]) // 8, model.config.decoder.dim)
            parts[row].append(rows)
        for row in [row for row, clip in clips.items() if taken[row] == len(clip)]:
            whole = model.embed_audio(mx.array(clips.pop(row))[None])
            joined = mx.concatenate(parts[row], axis=1)
            done.append(float(mx.abs(joined - whole).max()))
            encoder.leave(row)

    assert len(done) == 7
    assert max(done) < 2e-5  # float32: sums of another order
    assert encoder.n_rows == 0


def test_a_row_without_frames_waits():
    encoder = BatchEncoder(tiny_realtime(), max_positions=5)
    row = encoder.join()

    assert encoder.encode({row: np.zeros((0, 128), np.float32)})[row].shape[1] == 0
    assert encoder.encode({}) == {}


@pytest.mark.parametrize("n_frames", [7, 48])
def test_frames_that_do_not_fit_are_refused(n_frames):
    encoder = BatchEncoder(tiny_realtime(), max_positions=5)
    row = encoder.join()

    with pytest.raises(ValueError, match="row 0: frames must be a multiple of 8 and at most 40"):
        encoder.encode({row: np.zeros((n_frames, 128), np.float32)})


def test_a_full_encoder_refuses_another_row():
    encoder = BatchEncoder(tiny_realtime(), max_rows=1)
    encoder.join()

    with pytest.raises(ValueError, match="all 1 rows are taken"):
        encoder.join()


@pytest.mark.parametrize("kv", [None, KVCacheConfig(8, "planar")])
def test_rows_that_take_over_a_beginning_equal_those_that_compute_it(kv):
    model = tiny_realtime()
    # 5 positions a pass and a window of 24 make rings of 44 slots, which 11 positions fill.
    n_start, rng = 11, np.random.default_rng(0)
    beginning = rng.normal(size=(8 * n_start, 128)).astype(np.float32)
    clips = rng.normal(size=(5, 8 * 5, 128)).astype(np.float32)
    encoder = BatchEncoder(model, max_positions=5, max_rows=2, kv=kv)
    start = encoder.start_of(beginning)
    assert start.audio.shape[1] == n_start

    for clip in clips:  # the first row's places are used again: nothing of it may be left
        row = encoder.join(start)
        computed = BatchEncoder(model, max_positions=5, max_rows=1, kv=kv)
        other = computed.join()
        for i in range(0, len(beginning), 40):
            computed.encode({other: beginning[i : i + 40]})
        expected = computed.encode({other: clip})[other]
        got = encoder.encode({row: clip})[row]
        assert float(mx.abs(got - expected).max()) < (2e-5 if kv is None else 2e-2)
        encoder.leave(row)


def test_a_beginning_that_does_not_fit_a_ring_is_not_shared():
    encoder = BatchEncoder(tiny_realtime(), max_positions=5)
    assert encoder.start_of(np.zeros((8 * 12, 128), np.float32)) is None
    assert encoder.start_of(np.zeros((0, 128), np.float32)) is None


def test_a_length_of_its_own_is_replayed_in_pieces(monkeypatch):
    model = tiny_realtime()
    mel = mx.random.normal((1, 8 * 19, 128), key=mx.random.key(0))
    whole = model.embed_audio(mel)
    monkeypatch.setattr("voxmlx.generation.encode.replays", lambda: True)
    program, n_frames = EncodeProgram(model), []
    traced = program._traced

    def counted(mel, *args, **form):
        n_frames.append(mel.shape[1])
        return traced(mel, *args, **form)

    program._traced = counted

    rows = program(mel, model.encoder.make_state(80))

    assert n_frames == [8 * 16, 8 * 3]
    assert float(mx.abs(rows - whole).max()) < 2e-5
