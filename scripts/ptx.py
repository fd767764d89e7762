"""Compile the kernels of a decoding step for known networks: ``python scripts/ptx.py``.

Needs ``nvcc`` of CUDA 13. MLX would compile them on first use, which takes a minute; what the
driver makes of PTX takes none.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

import mlx.core as mx

from voxmlx.config import ModelConfig
from voxmlx.kernels import decode_cuda as cuda
from voxmlx.kernels.decode import PTX, full_name
from voxmlx.models.random_model import RELEASE, TINY

TYPES = {mx.bfloat16: "__nv_bfloat16", mx.float16: "__half", mx.float32: "float"}
Kernels = list[tuple[str, dict[str, int], float | None]]


def kernels(config: ModelConfig) -> Kernels:
    """The kernels of a network, with their constants as :mod:`voxmlx.kernels.decode` sets them."""
    d = config.decoder
    norm = {"D": d.dim, "N": min(1024, -(-d.dim // 128) * 32)}
    heads = {"H": d.n_heads, "G": d.n_kv_heads, "K": d.head_dim}
    together = {"Q": d.n_heads // d.n_kv_heads, "N": 256}
    return [
        ("add_norm", {**norm, "EACH": 0}, d.norm_eps),
        ("add_norm", {**norm, "EACH": 1}, d.norm_eps),
        ("gated", {"F": d.hidden_dim}, None),
        ("gated", {"F": config.encoder.hidden_dim}, None),
        ("rotate_and_write", heads, None),
        ("attend_one", {**heads, "W": d.sliding_window or 0, "Q": 1, "N": 512}, None),
        ("attend_one", {**heads, "W": d.sliding_window or 0, **together}, None),
    ]


WANTED = [
    *((dtype, RELEASE) for dtype in (mx.bfloat16, mx.float16)),
    *((dtype, TINY) for dtype in TYPES),
]
"""The released network in half types, and the one inside the package in all."""

ARGUMENTS = {
    "add_norm": ("x y weight", "total normed"),
    "gated": ("y", "out"),
    "rotate_and_write": ("qkv keys values offset freqs", "queries"),
    "attend_one": ("qkv keys values offset freqs", "out"),
}
OWN_TYPES = {"offset": "int", "freqs": "float"}


def text(name: str, dtype: str, whole: str, constants: dict[str, int], eps: float | None) -> str:
    """CUDA text of one kernel with a plain name."""
    inputs, outputs = (names.split() for names in ARGUMENTS[name])
    arguments = [f"const {OWN_TYPES.get(x, dtype)}* {x}" for x in inputs]
    arguments += [f"{dtype}* {x}" for x in outputs]
    if name in cuda.LAST:
        arguments.append(f"int {cuda.LAST[name][0]}")
    body = cuda.SOURCES[name] if eps is None else cuda.SOURCES[name].replace("EPS", f"{eps!r}f")
    lines = [f"  constexpr int {key} = {value};" for key, value in constants.items()]
    return "\n".join(
        [
            "#include <cuda_bf16.h>",
            "#include <cuda_fp16.h>",
            cuda.HEADER,
            f'extern "C" __global__ void {whole}({", ".join(arguments)}) {{',
            f"  using T = {dtype};",
            *lines,
            body,
            "}",
        ]
    )


def digest() -> str:
    """Of all that the files are made from."""
    texts = [
        text(name, TYPES[dtype], "kernel", constants, eps)
        for dtype, config in WANTED
        for name, constants, eps in kernels(config)
    ]
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def main() -> None:
    """Write a file for each kernel and type."""
    PTX.mkdir(exist_ok=True)
    (PTX / "sha256").write_text(digest() + "\n")
    for dtype, config in WANTED:
        spelled = TYPES[dtype]
        for name, constants, eps in kernels(config):
            whole = full_name(name, dtype, constants, eps)
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder, "kernel.cu")
                source.write_text(text(name, spelled, whole, constants, eps))
                options = ["-std=c++17", "-arch=compute_80", "-ptx"]
                target = PTX / f"{whole}.ptx"
                subprocess.run(["nvcc", *options, str(source), "-o", str(target)], check=True)
            print(target.name, target.stat().st_size)


if __name__ == "__main__":
    main()
