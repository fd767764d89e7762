"""Parts k, s and e of ``gpu.py``: kernels, steps and the encoder, each alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import mlx.core as mx

from benchmarks.gpu_runs import (
    N_DELAY,
    Report,
    embed_clips,
    timed,
    use_kernels,
)
from voxmlx.benchmark import noise
from voxmlx.generation.step import DecodeState, StepProgram
from voxmlx.kernels import decode
from voxmlx.models import fuse
from voxmlx.models.voxtral_realtime import VoxtralRealtime

UNPACK_ROWS = 512


class Steps:
    """Steps of one shape, each fed by the one before.

    Args:
        model: The network.
        B: Rows.
        T: Positions of each.
    """

    def __init__(self, model: VoxtralRealtime, B: int, T: int, first: int = 300):
        decoder = model.config.decoder
        cache = model.decoder.make_cache(64, batch_size=B)
        layers = list(model.decoder.conditioning(N_DELAY))
        mx.eval(layers)
        self.state = DecodeState(cache, layers)
        cache.reserve(first + 100)
        cache.offsets = [min(first, cache.capacity - 70)] * B
        self.audio = mx.random.normal((B, T, decoder.dim)).astype(model.dtype)
        self.tokens = mx.zeros((B, T), mx.int32)
        self.program = StepProgram(model)
        self.T = T

    def run(self) -> mx.array:
        """Start one step; the next one waits for its tokens."""
        if self.T == 1:
            self.tokens, logprobs = self.program.greedy(self.state, self.tokens, self.audio)
            mx.async_eval(self.tokens, logprobs)
        else:
            logits = self.program(self.state, self.tokens, self.audio, self.T)
            self.tokens = mx.argmax(logits, axis=-1).astype(mx.int32)
            mx.async_eval(self.tokens)
        self.state.cache.rewind(self.T)
        return self.tokens

    def times(self, n: int) -> Report:
        """Milliseconds of a step: among ``n`` queued ones, the host's share of that, and alone."""
        started = time.perf_counter()
        mx.eval(self.run())
        first = time.perf_counter() - started
        mx.eval(self.run())
        started = time.perf_counter()
        for _ in range(n):
            self.run()
        host = (time.perf_counter() - started) / n
        mx.eval(self.tokens)
        queued = (time.perf_counter() - started) / n
        started = time.perf_counter()
        for _ in range(3):
            mx.eval(self.run())
        alone = (time.perf_counter() - started) / 3
        found = {"queued": queued, "host": host, "alone": alone, "first": first}
        return {name: round(1e3 * s, 2) for name, s in found.items()}


def queued_ms(function: Callable[[], mx.array], n: int = 20) -> float:
    """Milliseconds of a call among ``n`` that wait for the device together."""
    mx.eval(function())
    started = time.perf_counter()
    mx.eval([function() for _ in range(n)])
    return round(1e3 * (time.perf_counter() - started) / n, 3)


def part_k(model: VoxtralRealtime) -> Report:
    """Logits with this program's kernels and with MLX's own operations, on the same tokens."""
    report: Report = {}
    vocabulary = model.config.decoder.vocab_size
    for B in (1, 5):
        seen = []
        for on in (True, False):
            use_kernels(model, on)
            mx.random.seed(1)
            cache = model.decoder.make_cache(64, batch_size=B)
            state, program = (
                DecodeState(cache, model.decoder.conditioning(N_DELAY)),
                StepProgram(model),
            )
            rows = []
            for n in (39, 1, 1, 8, 1, 1, 1):
                tokens = mx.random.randint(0, vocabulary, (B, n)).astype(mx.int32)
                audio = mx.random.normal((B, n, model.config.decoder.dim)).astype(model.dtype)
                logits = program(state, tokens, audio, n)[:, -1].astype(mx.float32)
                mx.eval(logits)
                rows.append(logits)
                if B > 1 and n == 8:
                    cache.rewind([i % 4 for i in range(B)])
            seen.append(mx.stack(rows))
        one, other = seen
        report[f"{B} rows"] = {
            "difference": round((mx.abs(one - other).max() / mx.std(other)).item(), 4),
            "same_choice": mx.mean(mx.argmax(one, -1) == mx.argmax(other, -1)).item(),
        }
    good = all(r["difference"] < 0.5 and r["same_choice"] > 0.5 for r in report.values())
    use_kernels(model, good)
    return report


def part_s(model: VoxtralRealtime, quick: bool) -> Report:
    """Times of one step by shape, with and without the kernels, and of its operations."""
    report: Report = {}
    if quick:
        for B, T in ((1, 1), (64, 1), (1, 32)):
            report[f"{B} x {T}"] = Steps(model, B, T).times(20)
            print("s", B, T, report[f"{B} x {T}"], flush=True)
        return report
    shapes = [(1, n) for n in (1, 2, 4, 8, 16, 32, 64)] + [(32, 1), (64, 1), (32, 2)]
    works = decode.on_cuda()
    for on, chosen in ((works, shapes), (False, [(1, 1), (1, 8), (32, 1)])):
        use_kernels(model, on)
        for B, T in chosen:
            name = f"{B} x {T}{'' if on else ' without kernels'}"
            report[name] = Steps(model, B, T).times(40 if B * T < 8 else 15)
            print("s", name, report[name], flush=True)
    use_kernels(model, works)
    report["1 x 1 at 5000"] = Steps(model, 1, 1, 5000).times(30)
    decoder = model.config.decoder
    layers = model.decoder.layers
    x = mx.random.normal((1, decoder.dim)).astype(model.dtype)
    wide = mx.random.normal((1, 2 * decoder.hidden_dim)).astype(model.dtype)
    heads = mx.random.normal((1, decoder.n_heads * decoder.head_dim)).astype(model.dtype)
    cache = model.decoder.make_cache(64)
    cache.reserve(1024)
    offset = mx.array([700], mx.int32)
    rings = cache.store.buffers["keys"], cache.store.buffers["values"]
    qkv = layers[0].attention._qkv(x)
    operations: dict[str, Callable[[], list[mx.array]]] = {
        "qkv": lambda: [layer.attention._qkv(x) for layer in layers],
        "attention": lambda: [
            decode.attend_one(qkv, k, v, offset, decoder.n_heads, 1e6, 8192)
            for k, v in zip(*rings, strict=True)
        ],
        "o": lambda: [fuse.linear(layer.attention.o_proj, heads) for layer in layers],
        "add_norm, twice": lambda: [
            y for layer in layers * 2 for y in decode.add_norm(x, x, layer.ffn_norm.weight, 1e-5)
        ],
        "gate and up": lambda: [layer.mlp._gate_up(x) for layer in layers],
        "gated": lambda: [decode.gated(wide) for _ in layers],
        "down": lambda: [fuse.linear(layer.mlp.down_proj, decode.gated(wide)) for layer in layers],
        "head": lambda: [model.decoder.logits(x[None])],
    }
    mx.eval(qkv)
    report["operations of a step, ms"] = {}
    for name, operation in operations.items():
        try:
            mx.eval(operation())
            started = time.perf_counter()
            for _ in range(10):
                mx.async_eval(operation())
            mx.synchronize()
            report["operations of a step, ms"][name] = round(
                1e2 * (time.perf_counter() - started), 3
            )
        except Exception as error:
            report["operations of a step, ms"][name] = repr(error)[:200]
    return report


def part_e(model: VoxtralRealtime) -> Report:
    """The encoder: rows, positions, and unpacking matrices for many rows or not."""
    report: Report = {}
    for limit in (fuse.NEVER, UNPACK_ROWS):
        fuse.unpack_from = lambda _, limit=limit: limit
        for rows in (1, 8, 32):
            clips = [noise(24.0 if rows == 1 else 6.0)] * rows
            embed_clips(model, clips, rows)
            t, peak, _ = timed(lambda c=clips, r=rows: mx.eval(embed_clips(model, c, r)), 2)
            seconds = sum(map(len, clips)) / 16000
            name = f"{rows} rows, {'packed' if limit == fuse.NEVER else 'unpacked'}"
            report[name] = {"ms_per_s": round(1e3 * t / seconds, 3), "peak_gb": round(peak, 2)}
            print("e", name, report[name], flush=True)
    mel = mx.random.normal((1, 1200, 128)).astype(model.dtype)
    encoder = model.encoder
    x = mx.random.normal((600, model.config.encoder.dim)).astype(model.dtype)
    mlps = [layer.mlp for layer in encoder.layers]
    state = encoder.make_state(600)
    mx.eval(state.cache.store.buffers)
    index = state.cache.prepare(600)
    mx.eval(index.mask)
    report["12 s, ms"] = {
        "convolutions": queued_ms(
            lambda: encoder.conv2.step(encoder.conv1.step(mel, None)[0], None)[0], 3
        ),
        "feed-forward": queued_ms(lambda: mx.stack([mlp(x)[0, 0] for mlp in mlps]), 3),
        "attention": queued_ms(
            lambda: mx.stack(
                [
                    layer.attention(x, state.cache, i, index)[0, 0]
                    for i, layer in enumerate(encoder.layers)
                ]
            ),
            3,
        ),
    }
    ways = {"packed": fuse.NEVER, "unpacked": UNPACK_ROWS}
    fastest = min(ways, key=lambda way: report[f"8 rows, {way}"]["ms_per_s"])
    report["used"] = fastest
    fuse.unpack_from = lambda _: ways[fastest]
    return report
