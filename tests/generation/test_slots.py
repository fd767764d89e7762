"""Places of rows, and owners that go when nobody holds them."""

from __future__ import annotations

import gc
import weakref

import mlx.core as mx
import pytest

from tests.generation.tiny_model import IDS, tiny_realtime
from voxmlx.generation.batch import BatchDecoder
from voxmlx.generation.encode import BatchEncoder
from voxmlx.generation.row import RowOptions
from voxmlx.generation.slots import Slots


class Owner:
    """Notes what it is asked for."""

    def __init__(self, max_rows: int):
        self.sizes: list[int] = []
        self.slots = Slots(max_rows, self.resize)

    def resize(self, places: list[int | None]) -> None:
        self.sizes.append(len(places))


def test_batches_grow_and_shrink_by_few_sizes():
    owner = Owner(8)

    rows = [owner.slots.join() for _ in range(5)]
    for row in rows[1:]:
        owner.slots.leave(row)

    assert owner.sizes == [2, 4, 8, 4, 2, 1]
    assert owner.slots[rows[0]] == 0 and len(owner.slots) == 1


def test_too_many_rows():
    owner = Owner(1)
    owner.slots.join()

    with pytest.raises(ValueError, match="all 1 rows are taken"):
        owner.slots.join()


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_buffers_go_with_the_last_holder(kind):
    model = tiny_realtime()
    gc.disable()
    try:
        if kind == "encoder":
            batch = BatchEncoder(model)
            batch.join()
        else:
            batch = BatchDecoder(model, IDS)
            row = batch.join(RowOptions(6))
            batch.add(row, mx.zeros((1, 60, model.config.decoder.dim), model.dtype))
            while batch.n_ready(row):
                batch.step()
        held = weakref.ref(batch)
        del batch
        assert held() is None
    finally:
        gc.enable()
