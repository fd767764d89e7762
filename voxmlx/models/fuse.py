"""Faster layouts for weights that will not change any more. They alter no value.

Layers that read the same input become one product: fewer, larger operations. The joined matrix
holds the memory, and the parameters of the layers become views of it, so a model saves as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn

from voxmlx.kernels import products
from voxmlx.kernels.decode import gated
from voxmlx.kernels.hadamard import block_hadamard
from voxmlx.kernels.host import HostMatrix, on_host
from voxmlx.kernels.host import gated as gated_by_host
from voxmlx.kernels.launch import device_is_cuda, on_cuda
from voxmlx.kernels.rows import add_bias, embed_packed, take_steps
from voxmlx.quantization.rotated import RotatedEmbedding, RotatedLinear, setting_of

NEVER = 1 << 30

UNPACKED = "_unpacked"
"""Name of a packed layer's unpacked copy; the underscore keeps it out of the parameters."""

HOST = "_host"
"""Name of what multiplies by a layer's weights on the host (:mod:`voxmlx.kernels.host`)."""

PackedForm = tuple[products.Packed, int]
"""A packed matrix with its scales and biases, and the weights that share a scale."""

MAX_UNPACKED = 100_000_000
"""Most weights of a model whose packed matrices are also kept unpacked: for CPUs, and for CUDA,
where MLX compiles its packed products for seconds."""


class JoinedLinear:
    """The outputs of several linear layers in one product; no module, so it has no parameters.

    Args:
        layers: Layers with one kind of weights; see :func:`can_join`.
    """

    def __init__(self, layers: Sequence[nn.Module]):
        self.layers = tuple(layers)
        self._arrays = {
            n: _join(layers, n) for n in ("weight", "scales", "biases") if n in layers[0]
        }
        self._bias = _join_biases(layers)
        if all(UNPACKED in layer for layer in layers):
            whole = columns_first(mx.concatenate([layer.pop(UNPACKED) for layer in layers]))
            for layer in layers:
                layer.pop(HOST, None)
            mx.eval(whole)
            self._arrays = {"weight": whole}
        self.host = host_product(self._arrays, layers[0])

    def __call__(self, x: mx.array) -> mx.array:
        """Map rows, ``(n, D) -> (n, sum of the widths)``."""
        arrays, first = self._arrays, self.layers[0]
        if "scales" in arrays and isinstance(first, RotatedLinear):
            x = block_hadamard(x)
        if self.host is not None:
            y = self.host(x)
            return y if self._bias is None else y + self._bias
        if "scales" in arrays:
            return packed_product(x, arrays, first, self._bias)
        if self._bias is None:
            return x @ arrays["weight"].T
        return mx.addmm(self._bias, x, arrays["weight"].T)

    @property
    def packed(self) -> PackedForm | None:
        """See :func:`packed_form`."""
        return packed_form(self.layers[0], self._arrays) if self._bias is None else None

    def normed(self, x: mx.array, norm: tuple[mx.array, float], gated: bool = False) -> mx.array:
        """The product, gated or not, of the rows' RMS norm of these weights and epsilon."""
        form = self.packed
        if form is None:
            raise TypeError(f"expected packed weights without a bias, got {self.layers!r}")
        return products.multiply_packed(x, *form, gated=gated, norm=norm)

    def gated(self, x: mx.array) -> mx.array:
        """``silu(gate) * up`` of the halves of each row, ``(n, D) -> (n, half the width)``."""
        form = self.packed
        if form is not None and len(form[0][0]) % 32 == 0 and products.suits(x, *form):
            return products.multiply_packed(x, *form, gated=True)
        y = self(x)
        return gated(y) if self.host is None or y.dtype != mx.float32 else gated_by_host(y)


def packed_form(layer: nn.Module, arrays: Mapping[str, mx.array]) -> PackedForm | None:
    """What :mod:`voxmlx.kernels.products` multiplies by, of a layer without a bias."""
    if type(layer) not in (nn.QuantizedLinear, nn.QuantizedEmbedding) or "biases" not in arrays:
        return None
    if layer.bits != 4 or layer.mode != "affine" or HOST in layer:
        return None
    return (arrays["weight"], arrays["scales"], arrays["biases"]), layer.group_size


def multiply_added(layer: nn.Module, x: mx.array, add: mx.array) -> mx.array:
    """The product by a layer that has a :func:`packed_form`, plus ``add``."""
    form = packed_form(layer, layer)
    if form is None:
        raise TypeError(f"expected packed weights without a bias, got {layer!r}")
    return products.multiply_packed(x, *form, add=add)


def embed(table: nn.Module, ids: mx.array) -> mx.array:
    """Rows of an embedding table, ``(...) -> (..., D)``."""
    form = packed_form(table, table)
    if form is not None and UNPACKED not in table and products.fits(form[0][1].dtype, *form):
        return embed_packed(ids, *form)
    if UNPACKED in table and on_cuda():
        rows = take_steps(table[UNPACKED][None], ids.reshape(1, -1), ids.size)
        return rows.reshape(*ids.shape, -1)
    return table(ids)


def linear(layer: nn.Module, x: mx.array, add: mx.array | None = None) -> mx.array:
    """One layer's product, ``(n, D) -> (n, out)``, in the way that suits the number of rows.

    Args:
        layer: The layer.
        x: ``(n, D)``.
        add: What is added to the result, ``(n, out)``.
    """
    bias = layer.get("bias")
    if type(layer) is nn.QuantizedLinear and not (HOST in layer or UNPACKED in layer):
        return packed_product(x, layer, layer, bias, add)
    if HOST in layer:
        y = layer[HOST](x)
    elif UNPACKED in layer:
        y = x @ layer[UNPACKED].T
    else:
        y, bias = layer(x), None
    y = y if bias is None else add_bias(y, bias)
    return y if add is None else add + y


class HostPacked:
    """A packed matrix that NumPy multiplies by where there are enough rows to unpack it for.

    Args:
        arrays: Weight, scales and biases.
        setting: The layer that knows the packing.
    """

    def __init__(self, arrays: Mapping[str, mx.array], setting: nn.Module):
        self._arrays = arrays
        self._setting = setting

    def __call__(self, x: mx.array) -> mx.array:
        """Map rows, ``(n, in) -> (n, out)``."""
        if x.dtype != mx.float32 or x.shape[0] < unpack_from(x.dtype):
            return packed_product(x, self._arrays, self._setting)
        return HostMatrix(unpack(self._arrays, self._setting, x.dtype))(x)


def host_product(
    arrays: Mapping[str, mx.array], layer: nn.Module
) -> HostMatrix | HostPacked | None:
    """What multiplies by a layer's matrix on the host, if that is to."""
    if "scales" not in arrays:
        return HostMatrix(arrays["weight"]) if on_host(arrays["weight"].dtype) else None
    return HostPacked(arrays, layer) if on_host(arrays["scales"].dtype) else None


def packed_product(
    x: mx.array,
    arrays: Mapping[str, mx.array],
    setting: nn.Module,
    bias: mx.array | None = None,
    add: mx.array | None = None,
) -> mx.array:
    """Rows times a packed matrix; many rows at once are worth unpacking it first.

    Args:
        x: ``(n, in)``.
        arrays: Weight, scales and biases.
        setting: The layer that knows the packing.
        bias: What is added to each row, ``(out,)``.
        add: What is added to the result, ``(n, out)``.
    """
    packed = packed_form(setting, arrays)
    if packed is not None and products.suits(x, *packed):
        return products.multiply_packed(x, *packed, bias=bias, add=add)
    if x.shape[0] >= unpack_from(x.dtype):
        y = x @ unpack(arrays, setting, x.dtype).T
    else:
        form = {"group_size": setting.group_size, "bits": setting.bits, "mode": setting.mode}
        weight, scales, biases = arrays["weight"], arrays["scales"], arrays.get("biases")
        y = mx.quantized_matmul(x, weight, scales, biases, transpose=True, **form)
    y = y if bias is None else add_bias(y, bias)
    return y if add is None else add + y


def unpack(
    arrays: Mapping[str, mx.array], setting: nn.Module, dtype: mx.Dtype | None = None
) -> mx.array:
    """The matrix that packed arrays stand for; without a type, in MLX's own choice of one."""
    form = {"group_size": setting.group_size, "bits": setting.bits, "mode": setting.mode}
    weight, scales, biases = arrays["weight"], arrays["scales"], arrays.get("biases")
    return mx.dequantize(weight, scales, biases, dtype=dtype, **form)


def unpack_from(dtype: mx.Dtype) -> int:
    """Rows from which unpacking pays: on CPUs, where MLX's packed products are not vectorised.

    Half types win 2 to 50 times there. Float32 wins 35 times with OpenBLAS and nothing with the
    reference BLAS, if the unpacked matrix serves enough rows. On an H200 it wins for the many
    rows of a batched encoder, at the cost of memory (``benchmarks/results.md``).
    """
    if device_is_cuda():
        return 1024
    if mx.default_device().type != mx.cpu:
        return NEVER
    return 64 if dtype == mx.float32 else 2


def prepare_for_inference(model: nn.Module) -> None:
    """Join and lay out a model's weights for use; call it once, after the weights are loaded.

    Weights that are set afterwards are not seen by joined layers.
    """
    on_cpu = mx.default_device().type == mx.cpu
    if on_cpu or device_is_cuda():
        _unpack_small(model)
    joined: set[int] = set()
    for _, module in model.named_modules():
        if hasattr(module, "fuse"):
            joined |= {id(layer) for layer in module.fuse()}
    if not on_cpu:
        return
    for _, module in model.named_modules():
        if type(module) in (nn.Linear, nn.Embedding) and id(module) not in joined:
            module.weight = columns_first(module.weight)
            mx.eval(module.weight)
            if on_host(module.weight.dtype):
                module[HOST] = HostMatrix(module.weight)
        elif type(module) is nn.QuantizedLinear and id(module) not in joined:
            if HOST not in module and (host := host_product(module, module)) is not None:
                module[HOST] = host
        elif isinstance(module, nn.Conv1d) and on_host(module.weight.dtype):
            filters = columns_first(module.weight.reshape(module.weight.shape[0], -1))
            module[HOST] = HostMatrix(filters)


def _unpack_small(model: nn.Module) -> None:
    """Keep an unpacked copy of each packed matrix, if all of them together are small."""
    layers = [layer for _, layer in model.named_modules() if setting_of(layer) is not None]
    if sum(layer.weight.size * 32 // layer.bits for layer in layers) > MAX_UNPACKED:
        return
    for layer in layers:
        layer[UNPACKED] = columns_first(unpacked_weight(layer))
        mx.eval(layer[UNPACKED])
        if on_host(layer[UNPACKED].dtype):
            layer[HOST] = HostMatrix(layer[UNPACKED])


def unpacked_weight(layer: nn.Module) -> mx.array:
    """What a packed layer's matrix stands for, ``(out, in)``."""
    weight = unpack(layer, layer)
    return block_hadamard(weight) if isinstance(layer, RotatedLinear | RotatedEmbedding) else weight


def columns_first(weight: mx.array) -> mx.array:
    """The same matrix, stored column by column on a CPU.

    The reference BLAS of MLX's CPU wheels multiplies by ``weight.T`` 2.3 times faster from this
    layout (``benchmarks/results.md``): its inner loop then runs over neighbouring numbers.
    """
    return mx.contiguous(weight.T).T if mx.default_device().type == mx.cpu else weight


def can_join(layers: Sequence[nn.Module]) -> bool:
    """Whether layers hold the same kind of weights: plain of one type, or packed alike."""
    if any(layer.weight.dtype != layers[0].weight.dtype for layer in layers):
        return False
    if all(type(layer) is nn.Linear for layer in layers):
        return True
    first, *others = [setting_of(layer) for layer in layers]
    return first is not None and all(other == first for other in others)


def _join(layers: Sequence[nn.Module], name: str) -> mx.array:
    """Put one parameter of all layers below each other and make the layers' own ones views."""
    whole = mx.concatenate([layer[name] for layer in layers])
    if type(layers[0]) is nn.Linear:
        whole = columns_first(whole)
    mx.eval(whole)
    start = 0
    for layer in layers:
        end = start + layer[name].shape[0]
        layer[name] = whole[start:end]
        mx.eval(layer[name])
        start = end
    return whole


def _join_biases(layers: Sequence[nn.Module]) -> mx.array | None:
    """Biases below each other, zeros for layers without one."""
    given = [layer["bias"] for layer in layers if "bias" in layer]
    if not given:
        return None
    zeros = [mx.zeros((layer.weight.shape[0],), given[0].dtype) for layer in layers]
    bias = mx.concatenate(
        [layer.get("bias", zero) for layer, zero in zip(layers, zeros, strict=True)]
    )
    mx.eval(bias)
    return bias
