"""Layers shared by encoders and decoders.

Shape letters, the same in the whole package:
    B rows of a batch   T time steps   D model width   H heads   K head width

Linear layers see flattened ``(B * T, D)`` rows: MLX's quantised products are several times slower
on three-dimensional inputs.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from voxmlx.cache.ring import RingKVCache
from voxmlx.cache.store import RingIndex
from voxmlx.kernels.host import convolve
from voxmlx.kernels.rows import add_bias, take_steps
from voxmlx.models.fuse import HOST, JoinedLinear, PackedForm, can_join, linear


class CausalConv1d(nn.Conv1d):
    """A 1-D convolution that looks only at the past.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps of the filter, at least ``stride``.
        stride: Input steps for one output step.

    Raises:
        ValueError: If ``kernel_size`` is smaller than ``stride``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        if kernel_size < stride:
            raise ValueError(f"kernel_size must be at least stride={stride}, got {kernel_size}")
        super().__init__(in_channels, out_channels, kernel_size, stride)
        self._n_tail = kernel_size - stride

    def __call__(self, x: mx.array) -> mx.array:
        """Convolve a whole sequence, ``(B, T, in) -> (B, T // stride, out)``."""
        return self.step(x, None)[0]

    def empty_tail(self, batch_size: int, dtype: mx.Dtype) -> mx.array:
        """What :meth:`step` takes at the start of a stream, ``(B, n, in)``."""
        return mx.zeros((batch_size, self._n_tail, self.weight.shape[2]), dtype)

    def step(
        self, x: mx.array, tail: mx.array | None, n_valid: mx.array | None = None
    ) -> tuple[mx.array, mx.array]:
        """Convolve the next steps of a stream; any split gives the outputs of the whole.

        Args:
            x: New steps, ``(B, T, in)``; ``T`` may be 0.
            tail: The tail that the last call returned; ``None`` starts a stream.
            n_valid: How many of the steps are each row's own, ``(B,)`` int32, multiples of the
                stride as T is; the stream goes on after them. ``None`` means all.

        Returns:
            The finished outputs, ``(B, n, out)``, and all steps that later outputs still need.
        """
        kernel_size, stride = self.weight.shape[1], self.stride
        if tail is None:
            tail = self.empty_tail(x.shape[0], x.dtype)
        x = mx.concatenate([tail, x], axis=1)
        n = max(0, (x.shape[1] - kernel_size) // stride + 1)
        tail = x[:, n * stride :]
        if n == 0:
            return mx.zeros((x.shape[0], 0, self.weight.shape[0]), x.dtype), tail
        if n_valid is not None:
            tail = take_steps(x, n_valid[:, None], self._n_tail)
        if HOST in self:
            return convolve(x, self[HOST], kernel_size, stride) + self.bias, tail
        return add_bias(mx.conv1d(x, self.weight, stride), self.bias), tail


class CenteredConv1d(nn.Conv1d):
    """A 1-D convolution that sees as many steps before a step as after it, zeros at both ends.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Taps of the filter, an odd number.
        stride: Input steps for one output step.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, kernel_size // 2)

    def __call__(self, x: mx.array) -> mx.array:
        """Convolve a whole sequence, ``(B, T, in) -> (B, ceil(T / stride), out)``."""
        if HOST not in self:
            return super().__call__(x)
        x = mx.pad(x, [(0, 0), (self.padding, self.padding), (0, 0)])
        return convolve(x, self[HOST], self.weight.shape[1], self.stride) + self.bias


class Attention(nn.Module):
    """Multi-head attention with rotary positions over a :class:`RingKVCache`.

    Rotary pairs are neighbouring channels (``traditional=True``), as in Mistral's own weights.

    Args:
        dim: Model width D.
        n_heads: Query heads H.
        n_kv_heads: Key and value heads; a divisor of ``n_heads``.
        head_dim: Head width K.
        rope_theta: Base of the rotary angles.
        bias: Whether q, v and o have a bias (k never has).
    """

    def __init__(
        self,
        dim: int,
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
        rope_theta: float,
        bias: bool = False,
    ):
        super().__init__()
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim
        self.rope_theta = rope_theta
        self.scale = head_dim**-0.5
        self.q_proj = nn.Linear(dim, n_heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(dim, n_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(dim, n_kv_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(n_heads * head_dim, dim, bias=bias)
        self._qkv: JoinedLinear | None = None

    def __call__(
        self,
        x: mx.array,
        cache: RingKVCache,
        layer: int,
        index: RingIndex,
        add: mx.array | None = None,
    ) -> mx.array:
        """Attend from rows to the window that ``cache`` holds.

        Args:
            x: ``(B * T, D)``.
            cache: Keys and values so far.
            layer: Index of the layer.
            index: Slots and mask of the step.
            add: What is added to the result, ``(B * T, D)``.

        Returns:
            ``(B * T, D)``.
        """
        if index.in_place and self._qkv is not None:
            qkv = self._qkv(x)
            joined = cache.attend_joined(layer, qkv, index, self.n_heads, self.rope_theta)
            return linear(self.o_proj, joined, add)
        B, T = index.slots.shape
        H, n_rotated = self.n_heads, self.n_heads + self.n_kv_heads

        def heads(y: mx.array) -> mx.array:
            return y.reshape(B, T, -1, self.head_dim).transpose(0, 2, 1, 3)

        if self._qkv is None:
            q = self._rotate(heads(linear(self.q_proj, x)), index.offset)
            k = self._rotate(heads(linear(self.k_proj, x)), index.offset)
            v = heads(linear(self.v_proj, x))
        else:
            y = heads(self._qkv(x))
            qk, v = self._rotate(y[:, :n_rotated], index.offset), y[:, n_rotated:]
            q, k = qk[:, :H], qk[:, H:]
        out = cache.attend(layer, q, k, v, index, self.scale)
        return linear(self.o_proj, out.transpose(0, 2, 1, 3).reshape(B * T, -1), add)

    def attend_normed(
        self,
        x: mx.array,
        norm: tuple[mx.array, float],
        cache: RingKVCache,
        layer: int,
        index: RingIndex,
    ) -> mx.array:
        """Attend from the RMS norm of few rows, where :attr:`packed` is; ``o_proj`` is left out."""
        if self._qkv is None:
            raise TypeError("expected joined projections")
        qkv = self._qkv.normed(x, norm)
        return cache.attend_joined(layer, qkv, index, self.n_heads, self.rope_theta)

    @property
    def packed(self) -> PackedForm | None:
        """What the joined projections multiply by, if that is packed."""
        return None if self._qkv is None else self._qkv.packed

    @property
    def joined(self) -> bool:
        """Whether q, k and v are one product."""
        return self._qkv is not None

    @property
    def by_host(self) -> bool:
        """Whether the host multiplies (:mod:`voxmlx.kernels.host`)."""
        return self._qkv is not None and self._qkv.host is not None

    def fuse(self) -> list[nn.Module]:
        """Compute q, k and v as one product from now on; returns the layers this could join."""
        layers = [self.q_proj, self.k_proj, self.v_proj]
        if not can_join(layers):
            return []
        self._qkv = JoinedLinear(layers)
        return layers

    def _rotate(self, x: mx.array, offset: mx.array) -> mx.array:
        return mx.fast.rope(
            x, self.head_dim, traditional=True, base=self.rope_theta, scale=1.0, offset=offset
        )


class SwiGLU(nn.Module):
    """The gated feed-forward block, ``down(silu(gate(x)) * up(x))``.

    Args:
        dim: Model width D.
        hidden_dim: Inner width.
        bias: Whether ``down_proj`` has a bias (the others never have).
    """

    def __init__(self, dim: int, hidden_dim: int, bias: bool = False):
        super().__init__()
        self.gate_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.up_proj = nn.Linear(dim, hidden_dim, bias=False)
        self.down_proj = nn.Linear(hidden_dim, dim, bias=bias)
        self._gate_up: JoinedLinear | None = None

    def __call__(self, x: mx.array, add: mx.array | None = None) -> mx.array:
        """Map rows, ``(n, D) -> (n, D)``, and add others to them."""
        if self._gate_up is None:
            gate, up = linear(self.gate_proj, x), linear(self.up_proj, x)
            return linear(self.down_proj, nn.silu(gate) * up, add)
        return linear(self.down_proj, self._gate_up.gated(x), add)

    def gate_normed(self, x: mx.array, norm: tuple[mx.array, float]) -> mx.array:
        """The gated inner rows of the RMS norm of few rows, where :attr:`packed` is."""
        if self._gate_up is None:
            raise TypeError("expected joined projections")
        return self._gate_up.normed(x, norm, gated=True)

    @property
    def packed(self) -> PackedForm | None:
        """What the joined projections multiply by, if that is packed."""
        return None if self._gate_up is None else self._gate_up.packed

    def fuse(self) -> list[nn.Module]:
        """Compute gate and up as one product from now on; returns the layers this could join."""
        layers = [self.gate_proj, self.up_proj]
        if not can_join(layers):
            return []
        self._gate_up = JoinedLinear(layers)
        return layers
