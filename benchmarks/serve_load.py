"""How many real-time sessions one device carries, found by stepping up.

    python benchmarks/serve_load.py --model tiny --sessions 4,8,16
    python benchmarks/serve_load.py --random 4b --sessions 16,32,48,64,80,96 --windows short full
    python benchmarks/serve_load.py --model tiny --sessions 16 --sockets

Each session gets 40 ms of audio every 40 ms, all at different moments. The lag of a token is the
time from the moment when its 80 ms of audio were complete to its arrival, beyond the delay that was
asked for; 40 ms of it is the wait for the next piece, into which the last mel frame reaches by
2.5 ms. The first second of a session is left out. Before each step the same number of sessions
takes bursts of all sizes, so that what is compiled or planned once is not counted. Without
``--sockets`` sessions call the engine in this process; with it they are WebSocket clients of a
server in a process of its own. ``--windows full`` puts every session behind eleven minutes of
audio, so that its windows are full; with ``short full`` the steps are made twice. ``--apart`` tells
where a tick goes, in milliseconds of a mean tick; it waits for the encoder before the decoder
begins, which costs a little. With ``--turns`` sessions end and others begin all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from voxmlx.engine.engine import Engine, Tick
from voxmlx.engine.request import TurnOptions, Update
from voxmlx.engine.scheduler import Limits
from voxmlx.pipeline import Pipeline, load

CHUNK = 640
CHUNK_S = CHUNK / 16000
POSITION = 1280
GAP_S = 2.0
"""Silence between two sessions of a client."""
P95_GOAL_MS, P99_GOAL_MS = 160, 500


def speech(seconds: float, seed: int, recording: np.ndarray | None) -> np.ndarray:
    """A recording from somewhere on, again and again; or noise that comes like syllables."""
    n = int(16000 * seconds)
    rng = np.random.default_rng(seed)
    if recording is not None:
        start = int(rng.integers(len(recording)))
        return np.resize(np.roll(recording, -start), n).astype(np.float32)
    envelope = np.abs(np.sin(np.arange(n) * (2 * np.pi * 3 / 16000)))
    return (0.1 * envelope * rng.standard_normal(n)).astype(np.float32)


class Session:
    """One client that calls the engine: how late its tokens were."""

    def __init__(self, engine: Engine, delay_ms: int, start_s: float):
        self.start_s = start_s
        self.lags_ms: list[float] = []
        self.ending = False
        self.done = threading.Event()
        self.error: str | None = None
        self.turn = engine.open(TurnOptions(delay_ms=delay_ms), self._tell)

    def finish(self) -> None:
        """End the audio; what comes then is not late."""
        self.ending = True
        self.turn.finish()

    def _tell(self, update: Update) -> None:
        now = time.perf_counter()
        heard_s = update.heard_s
        if not update.last and not self.ending and heard_s > 1:
            self.lags_ms.append(1e3 * (now - self.start_s - heard_s))
        if update.last:
            self.error = None if update.error is None else str(update.error)
            self.done.set()


def run_engine(
    engine: Engine, n: int, seconds: float, delay_ms: int, sound: Any, turn_s: float | None = None
) -> list[float]:
    """Lags of all tokens of ``n`` clients in milliseconds.

    With ``turn_s`` a client's session lasts that long, the first one a shorter time, and the
    next begins GAP_S later.
    """
    begin = time.perf_counter() + 0.2
    rng = np.random.default_rng(0)
    chunks: list[tuple[float, int, int, np.ndarray, bool]] = []  # time, client, turn, sound, last
    starts: dict[tuple[int, int], float] = {}
    for i in range(n):
        sound_i = speech(seconds, i, sound)
        end, turn = 0, 0
        while end < len(sound_i):
            start = end + (round(GAP_S * 16000) if turn else 0)
            length = len(sound_i)
            if turn_s is not None:
                length = 16000 * turn_s * (1 if turn else rng.uniform(0.25, 1))
            end = start + max(1, round(length / CHUNK)) * CHUNK
            starts[i, turn] = begin + CHUNK_S * i / n + start / 16000
            parts = range(start, min(end, len(sound_i) - CHUNK + 1), CHUNK)
            for k, at in enumerate(parts):
                moment = starts[i, turn] + (k + 1) * CHUNK_S
                chunks.append((moment, i, turn, sound_i[at : at + CHUNK], at == parts[-1]))
            turn += 1
    sessions: dict[tuple[int, int], Session] = {}
    for moment, i, turn, samples, last in sorted(chunks, key=lambda chunk: chunk[:3]):
        time.sleep(max(0.0, moment - time.perf_counter()))
        session = sessions.get((i, turn))
        if session is None:
            session = sessions[i, turn] = Session(engine, delay_ms, starts[i, turn])
        session.turn.feed(samples, 16000)
        if last:
            session.finish()
    for session in sessions.values():
        session.done.wait(60)
        if session.error is not None or not session.done.is_set():
            raise SystemExit(f"a session failed: {session.error or 'no end'}")
    return [lag for session in sessions.values() for lag in session.lags_ms]


def warm_up(engine: Engine, n: int, delay_ms: int) -> None:
    """Let ``n`` sessions do everything that they may do."""
    sessions = [Session(engine, delay_ms, 0.0) for _ in range(n)]
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    for n_positions in (8, 8, 1, 2, 4, 8, 4, 2, 1, 1):
        for session in sessions:
            noise = 0.1 * rng.standard_normal(n_positions * POSITION)
            session.turn.feed(noise.astype(np.float32), 16000)
        while any(session.turn.backlog_s > 0.09 for session in sessions):
            time.sleep(0.005)
        done_s = time.perf_counter() - started
        print(f"warm: {n} x {n_positions} at {done_s:.1f} s", file=sys.stderr, flush=True)
    for session in sessions:
        session.turn.cancel()


def start_as_in_service(full: bool) -> None:
    """Let the encoder's rings have their whole size from the start, as where many came before.

    With ``full`` every row begins with full windows, as if it had been there for eleven minutes.
    """
    from voxmlx.cache.ring import RingKVCache

    def clear_row(cache: RingKVCache, row: int) -> None:
        if full or cache.window < 1000:
            cache.reserve(cache.full_capacity)
        cache.offsets[row] = cache.full_capacity if full else 0

    def begin_row(cache: RingKVCache, row: int, slots: Any, n: int) -> None:
        begin(cache, row, slots, n)
        cache.offsets[row] += cache.full_capacity if full else 0

    begin = vars(RingKVCache).get("original_begin", RingKVCache.begin_row)
    RingKVCache.original_begin = begin  # type: ignore[attr-defined]
    RingKVCache.clear_row = clear_row  # type: ignore[method-assign]
    RingKVCache.begin_row = begin_row  # type: ignore[method-assign]


async def socket_session(url: str, samples: np.ndarray, delay_ms: int, begin: float) -> list[float]:
    """Lags of the deltas of one WebSocket client."""
    from websockets.asyncio.client import connect

    lags: list[float] = []
    async with connect(f"{url}/v1/realtime?delay_ms={delay_ms}", compression=None) as ws:
        await ws.recv()
        await ws.send(json.dumps({"type": "session.update", "model": "voxtral"}))

        async def read() -> None:
            async for text in ws:
                frame = json.loads(text)
                if frame["type"] == "transcription.delta" and frame["audio_s"] > 1:
                    lags.append(1e3 * (time.perf_counter() - begin - frame["audio_s"]))
                elif frame["type"] == "error":
                    raise SystemExit(f"a session failed: {frame['error']}")
                elif frame["type"] == "transcription.done":
                    return

        reader = asyncio.create_task(read())
        for k in range(len(samples) // CHUNK):
            await asyncio.sleep(max(0.0, begin + (k + 1) * CHUNK_S - time.perf_counter()))
            data = (samples[k * CHUNK : (k + 1) * CHUNK] * 32767).astype("<i2").tobytes()
            audio = base64.b64encode(data).decode()
            await ws.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        n_live = len(lags)
        await ws.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        await reader
    return lags[:n_live]


async def run_sockets(url: str, n: int, seconds: float, delay_ms: int, sound: Any) -> list[float]:
    """Lags of all deltas of ``n`` WebSocket clients in milliseconds."""
    begin = time.perf_counter() + 1
    clients = [
        socket_session(url, speech(seconds, i, sound), delay_ms, begin + CHUNK_S * i / n)
        for i in range(n)
    ]
    return [lag for lags in await asyncio.gather(*clients) for lag in lags]


def report(n: int, lags_ms: Sequence[float], **more: Any) -> bool:
    """Print a line and say whether the goal is met."""
    p50, p95, p99 = np.percentile(lags_ms, (50, 95, 99)) if lags_ms else (np.inf,) * 3
    met = p95 < P95_GOAL_MS and p99 < P99_GOAL_MS
    figures = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": max(lags_ms, default=np.inf)}
    line = {"sessions": n, "tokens": len(lags_ms), "met": bool(met)}
    line |= {name: round(float(value), 1) for name, value in figures.items()} | more
    print(json.dumps(line), flush=True)
    return bool(met)


class Parts:
    """Where ticks go. Parts may lie in each other.

    "encode" holds "mel" and "network", "decode" the others; "settle" waits for the device.
    """

    def __init__(self) -> None:
        from voxmlx.engine.job import Job
        from voxmlx.generation.batch import BatchDecoder
        from voxmlx.generation.encode import BatchEncoder
        from voxmlx.streaming import pool

        self.seconds: dict[str, float] = {}
        for owner, name, part, wait in (
            (Job, "start", "join", False),
            (Job, "obey", "feed", False),
            (pool, "take_together", "mel", False),
            (BatchEncoder, "encode", "network", True),
            (pool.Pool, "encode", "encode", False),
            (BatchDecoder, "_plan", "plan", False),
            (BatchDecoder, "_start", "decode_start", False),
            (BatchDecoder, "_go_ahead", "decode_ahead", False),
            (BatchDecoder, "_choose", "choose", False),
            (BatchDecoder, "_settle", "settle", False),
            (BatchDecoder, "step", "decode", False),
            (Job, "collect", "events", False),
        ):
            setattr(owner, name, self._timed(getattr(owner, name), part, wait))

    def _timed(self, call: Any, part: str, wait: bool) -> Any:
        def timed(*args: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = call(*args, **named)
            if wait:
                mx.eval(*result.values())
            spent = time.perf_counter() - started
            self.seconds[part] = self.seconds.get(part, 0.0) + spent
            return result

        return timed


class Ticks:
    """How long the engine's ticks were, and what memory they found."""

    def __init__(self, parts: Parts | None) -> None:
        self._parts = parts
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._ms: list[float] = []
        if self._parts is not None:
            self._parts.seconds.clear()
        self._kv_bytes = 0
        self._begin = time.perf_counter()

    def observe(self, tick: Tick) -> None:
        """Take a tick; called on the engine's thread."""
        self._ms.append(1e3 * tick.seconds)
        self._kv_bytes = max(self._kv_bytes, tick.kv_bytes)

    def summary(self) -> dict[str, float]:
        """For the report."""
        p50, p99 = np.percentile(self._ms, (50, 99)) if self._ms else (0.0, 0.0)
        busy = sum(self._ms) / 1e3 / (time.perf_counter() - self._begin)
        figures = {"tick_p50_ms": p50, "tick_p99_ms": p99, "busy": busy}
        figures |= {"kv_gb": self._kv_bytes / 1e9, "mlx_gb": mx.get_active_memory() / 1e9}
        if self._parts is not None:
            n = max(1, len(self._ms))
            figures |= {f"{part}_ms": 1e3 * s / n for part, s in self._parts.seconds.items()}
        return {name: round(float(value), 2) for name, value in figures.items()}


def open_pipeline(options: argparse.Namespace) -> Pipeline:
    """The model that the options name; called on the engine's thread."""
    if options.cpu:
        mx.set_default_device(mx.cpu)
    if options.random is None:
        return load(options.model)
    from tests.tiny import tiny_tekken_dict
    from voxmlx.models.fuse import prepare_for_inference
    from voxmlx.models.random_model import CONFIGS, random_model
    from voxmlx.tokenizer import Tokenizer

    config = CONFIGS[options.random]
    tekken = tiny_tekken_dict(n_unused=config.decoder.vocab_size)
    tekken["config"]["default_vocab_size"] = config.decoder.vocab_size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tekken.json"
        path.write_text(json.dumps(tekken))
        tokenizer = Tokenizer.from_file(path)
    tiny = options.random == "tiny"  # in what a CPU computes fastest
    model = random_model(config, mx.float32) if tiny else random_model(config, bits=4)
    prepare_for_inference(model)
    return Pipeline(model, tokenizer)


def measure(
    n: int, options: argparse.Namespace, sound: Any, ticks: Ticks, about: dict[str, Any]
) -> bool:
    """One step with an engine of its own, which holds places for all from the start if asked."""
    started = time.perf_counter()
    limits = Limits(max_live=n, reserve=options.reserve)
    engine = Engine(lambda: open_pipeline(options), limits, ticks.observe)
    engine.start()
    try:
        start_s = round(time.perf_counter() - started, 1)
        print(f"started in {start_s} s", file=sys.stderr, flush=True)
        warm_up(engine, n, options.delay)
        warm_s = round(time.perf_counter() - started - start_s, 1)
        ticks.clear()
        lags = run_engine(engine, n, options.seconds, options.delay, sound, options.turns)
        more = {"start_s": start_s, "warm_up_s": warm_s, "reserved": options.reserve}
        return report(n, lags, **about, **more, **ticks.summary())
    finally:
        engine.stop()
        del engine
        gc.collect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--random", help="random weights of a size, such as 4b, instead of a model")
    parser.add_argument("--sessions", default="4,8,16")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--delay", type=int, default=480)
    parser.add_argument("--reserve", action="store_true", help="hold all places from the start")
    parser.add_argument("--turns", type=float, help="seconds of a session; the whole run otherwise")
    parser.add_argument("--recording", help="what is said; noise otherwise")
    parser.add_argument("--windows", nargs="+", choices=("short", "full"), default=["short"])
    parser.add_argument("--cpu", action="store_true", help="even where there is a GPU")
    parser.add_argument("--apart", action="store_true", help="tell the parts of a tick")
    parser.add_argument("--all", action="store_true", help="go on after a step that failed")
    parser.add_argument("--sockets", action="store_true")
    options = parser.parse_args()
    steps = [int(step) for step in options.sessions.split(",")]
    sound = None
    if options.recording is not None:
        from voxmlx.audio.decode import read_audio

        sound = read_audio(options.recording)
    arguments = (options.seconds, options.delay, sound)
    if options.sockets:
        command = [sys.executable, "-m", "voxmlx.cli.main", "serve", "--port", "0"]
        command += ["--model", options.model, "--max-sessions", str(max(steps))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            port = server.stdout.readline().rsplit(":", 1)[1].strip() if server.stdout else ""
            try:
                for n in steps:
                    lags = asyncio.run(run_sockets(f"ws://127.0.0.1:{port}", n, *arguments))
                    if not report(n, lags, sockets=True):
                        break
            finally:
                server.terminate()
        return
    ticks = Ticks(Parts() if options.apart else None)
    for windows in options.windows:
        start_as_in_service(windows == "full")
        for n in steps:
            met = measure(n, options, sound, ticks, {"windows": windows})
            if not met and not options.all:
                break


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
