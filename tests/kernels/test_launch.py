"""Where this program's own kernels run."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import pytest

from voxmlx.kernels import launch


@pytest.mark.parametrize(
    "wanted, device, capability, runs",
    [
        (None, mx.gpu, 9, False),
        ("1", mx.gpu, 8, True),
        ("0", mx.gpu, 9, False),
        ("1", mx.gpu, 7, False),
        ("1", mx.cpu, 9, False),
    ],
)
def test_on_cuda(wanted, device, capability, runs, monkeypatch):
    if wanted is None:
        monkeypatch.delenv("VOXMLX_KERNELS", raising=False)
    else:
        monkeypatch.setenv("VOXMLX_KERNELS", wanted)
    found = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: True),
        gpu=mx.gpu,
        default_device=lambda: SimpleNamespace(type=device),
        device_info=lambda: {"compute_capability_major": capability},
    )
    monkeypatch.setattr(launch, "mx", found)

    assert launch.on_cuda.__wrapped__() is runs
