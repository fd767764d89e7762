from __future__ import annotations

import numpy as np
import pytest

from voxmlx.cli.live_display import level_db, meter


@pytest.mark.parametrize(
    ("peak", "db", "n_full"),
    [(0.0, -60, 0), (1e-9, -60, 0), (0.1, -20, 7), (1.0, 0, 10), (4, 12, 10)],
)
def test_level(peak, db, n_full):
    level = level_db(np.array([0, -peak, peak / 2], np.float32))

    assert level == pytest.approx(db, abs=0.1)
    assert meter(level) == "█" * n_full + "░" * (10 - n_full)


def test_level_of_nothing():
    assert level_db(np.zeros(0, np.float32)) == -60
