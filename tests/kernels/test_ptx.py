"""What the package brings compiled is made from the text it holds."""

from __future__ import annotations

import pytest

from scripts.ptx import TYPES, WANTED, digest, kernels
from voxmlx.kernels.decode import PTX, full_name


def test_files_are_fresh():
    assert (PTX / "sha256").read_text().strip() == digest(), "run python scripts/ptx.py"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_files_hold_the_kernels_of_the_known_networks(dtype):
    names = [
        full_name(name, dtype, constants, eps)
        for wanted, config in WANTED
        if wanted == dtype
        for name, constants, eps in kernels(config)
    ]
    assert names
    for name in names:
        assert f".entry {name}(" in (PTX / f"{name}.ptx").read_text()
