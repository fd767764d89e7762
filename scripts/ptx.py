"""Compile the kernels of a decoding step for the released network: ``python scripts/ptx.py``.

Needs ``nvcc`` of CUDA 13. MLX would compile them on first use, which takes a minute; what the
driver makes of PTX takes none.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import mlx.core as mx

from voxmlx.kernels import decode_cuda as cuda
from voxmlx.kernels.decode import PTX, full_name

TYPES = {mx.bfloat16: "__nv_bfloat16", mx.float16: "__half"}
HEADS = {"H": 32, "G": 8, "K": 128}
NORM = {"D": 3072, "N": 768}
KERNELS: list[tuple[str, dict[str, int], float | None]] = [
    ("add_norm", {**NORM, "EACH": 0}, 1e-5),
    ("add_norm", {**NORM, "EACH": 1}, 1e-5),
    ("gated", {"F": 9216}, None),
    ("rotate_and_write", HEADS, None),
    ("attend_one", {**HEADS, "W": 8192, "Q": 1, "N": 512}, None),
    ("attend_one", {**HEADS, "W": 8192, "Q": 4, "N": 256}, None),
]
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


def main() -> None:
    """Write a file for each kernel and type."""
    PTX.mkdir(exist_ok=True)
    for dtype, spelled in TYPES.items():
        for name, constants, eps in KERNELS:
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
