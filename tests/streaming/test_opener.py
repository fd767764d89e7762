"""What decoders of a session are opened with, and sessions that go when nobody holds them."""

from __future__ import annotations

import gc
import weakref

import pytest

from voxmlx.generation.eos_hold import EosHold
from voxmlx.generation.row import SpecialIds
from voxmlx.generation.rut_guard import RutGuard
from voxmlx.streaming.opener import TokensOpener
from voxmlx.streaming.options import StreamOptions
from voxmlx.streaming.pool import Pool, PooledBackend
from voxmlx.streaming.session import StreamingSession


class Notes:
    """A backend that notes what it is asked for."""

    def open_tokens(self, ids, options):
        return ids, options


def test_decoders_after_an_eos_hold_it_back_and_draw_anew(pipeline):
    options = StreamOptions(temperature=0.5, seed=7, rut_guard=True)
    opener = TokensOpener(Notes(), pipeline.tokenizer, options, 6, None)

    ids, first = opener(0)
    _, third = opener(2)

    assert ids.pad == pipeline.tokenizer.pad_id
    assert [type(rule) for rule in first.rules] == [RutGuard]
    assert [type(rule) for rule in third.rules] == [RutGuard, EosHold]
    assert (first.seed, third.seed, third.n_delay) == (7, 9, 6)


@pytest.mark.parametrize("pooled", [False, True])
def test_rings_go_with_the_session(pipeline, audio, pooled):
    model, tokenizer = pipeline.model, pipeline.tokenizer
    ids = SpecialIds(tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)
    gc.collect()
    gc.disable()
    try:
        backend = PooledBackend(Pool(model, ids, 2, 8, 8)) if pooled else None
        session = StreamingSession(model, tokenizer, backend=backend)
        session.feed(audio)
        if backend is not None:
            backend.pool.encode({backend: 8})
        session.step()
        held = [weakref.ref(session if backend is None else backend.pool), weakref.ref(session)]
        if backend is not None:
            backend.close()
        del session, backend
        assert [x() for x in held] == [None, None]
    finally:
        gc.enable()
