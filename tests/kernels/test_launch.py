"""Where this program's own kernels run."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import pytest

from voxmlx.kernels import launch


@pytest.mark.parametrize(
    "wanted, device, capability, runs",
    [
        (None, mx.gpu, 9, True),
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
    monkeypatch.setattr(launch.compiler, "lacks", lambda: None)

    assert launch.on_cuda.__wrapped__() is runs


def test_without_a_compiler(monkeypatch, caplog):
    monkeypatch.delenv("VOXMLX_KERNELS", raising=False)
    monkeypatch.setattr(launch, "device_is_cuda", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {})
    monkeypatch.setattr(launch.compiler, "lacks", lambda: "a compiler")

    assert not launch.on_cuda.__wrapped__()
    assert "slower: a compiler" in caplog.text


def test_whole_text():
    x, y = mx.zeros((2, 3), mx.bfloat16), mx.zeros((4,))
    outputs = {"z": ((2,), mx.int32)}
    body = "  z[0] = x_shape[1] + N;"

    text = launch.whole_text(("HEADER", body), {"x": x, "y": y}, outputs, {"N": 5}, 64, x.dtype)

    assert text.splitlines() == [
        "HEADER",
        'extern "C" __global__ void __launch_bounds__(64) NAME('
        "const __nv_bfloat16* x, const float* y, int* z, int x_size_0, int x_size_1) {",
        "  using T = __nv_bfloat16;",
        "  constexpr int N = 5;",
        "  const int x_shape[] = {x_size_0, x_size_1};",
        "  z[0] = x_shape[1] + N;",
        "}",
    ]
