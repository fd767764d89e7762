"""The one thread that owns the device, and the door through which other threads ask it.

Everything that touches MLX happens on this thread, the loading of the model included.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from voxmlx.config import KVCacheConfig, ModelConfig
from voxmlx.engine.job import Job
from voxmlx.engine.pools import Pools
from voxmlx.engine.request import (
    BadTurnError,
    EngineFullError,
    EngineStoppedError,
    Kind,
    TurnOptions,
    Update,
    UpdateCallback,
)
from voxmlx.engine.scheduler import Limits, Scheduler, period_s
from voxmlx.engine.turn import Command, Turn
from voxmlx.errors import VoxmlxError
from voxmlx.offline import OfflinePipeline
from voxmlx.pipeline import Pipeline
from voxmlx.streaming.pool import Pool, PooledBackend

LIVE_PASSES = 4
"""Decoder passes of a tick at most: a turn that fell behind must not hold up the others' audio."""
CACHE_BYTES = 2 * 2**30
"""Freed buffers that MLX may keep for reuse on a GPU; without a limit they grow with every new
shape. A CPU keeps none: its allocator is as fast without (``benchmarks/serve_soak.py``)."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tick:
    """What a tick did."""

    seconds: float
    n_live: int
    n_files: int
    n_waiting: int
    n_tokens: int
    kv_bytes: int


class EngineError(VoxmlxError):
    """The device failed; the turn is lost, later ones may work."""


class Engine:
    """Transcribe many turns at once.

    Args:
        load: Opens the model; called on the engine's thread.
        limits: What may be taken on.
        observe: Called after each tick, on the device thread.
        kv: How keys and values are compressed where a turn does not say; ``None`` keeps them.
    """

    def __init__(
        self,
        load: Callable[[], Pipeline | OfflinePipeline],
        limits: Limits | None = None,
        observe: Callable[[Tick], None] | None = None,
        kv: KVCacheConfig | None = None,
    ):
        self.limits = Limits() if limits is None else limits
        self._load = load
        self._observe = observe
        self._kv = kv
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._scheduler = Scheduler(self.limits)
        self._jobs: dict[int, Job] = {}
        self._pools: Pools | None = None
        self._thread = threading.Thread(target=self._run, name="voxmlx-engine", daemon=True)
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._pipeline: Pipeline | OfflinePipeline | None = None
        self._last_tick_s = time.monotonic()
        self._rest_until_s = self._last_tick_s

    def start(self) -> None:
        """Load the model and begin; returns when turns can be opened.

        Raises:
            VoxmlxError: If the model cannot be loaded.
        """
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self, timeout_s: float = 30.0) -> None:
        """End the thread; turns still open end with :class:`EngineStoppedError`."""
        self._stopping.set()
        self._commands.put(None)
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the device thread works and has a model."""
        return self._ready.is_set() and self._thread.is_alive() and not self._stopping.is_set()

    @property
    def config(self) -> ModelConfig:
        """Numbers of the model."""
        if self._pipeline is None:
            raise RuntimeError("the engine has not started")
        return self._pipeline.config

    @property
    def idle_s(self) -> float:
        """Time since the device thread last showed that it lives."""
        return time.monotonic() - self._last_tick_s

    def open(self, options: TurnOptions, callback: UpdateCallback) -> Turn:
        """Ask for a turn. Everything else, refusal included, comes through ``callback``."""
        turn = Turn(next(self._numbers), options, callback, self._commands.put)
        self._commands.put(Command(turn, "open"))
        if not self.alive:
            turn.tell(Update(error=EngineStoppedError("the engine is not running")))
        return turn

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._pools = None
            # MLX aborts the process at exit if a thread with streams of its own just ends.
            getattr(mx, "clear_streams", lambda: None)()

    def _serve(self) -> None:
        try:
            mx.set_cache_limit(0 if mx.default_device().type == mx.cpu else CACHE_BYTES)
            self._pipeline = self._load()
            self._open_pools(self._pipeline)
        except BaseException as error:  # told to start(), which raises it
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        while not self._stopping.is_set():
            self._take_commands()
            if self._stopping.is_set():
                break
            failed = False
            try:
                self._tick(self._pipeline)
            except Exception as error:
                _logger.exception("the device failed")
                self._fail_all(EngineError(f"the device failed: {type(error).__name__}"))
                failed = True
            if failed:  # only now: the fault's frames held the batches, and their memory
                self._open_pools(self._pipeline)
        self._fail_all(EngineStoppedError("the server stopped"))

    def _open_pools(self, pipeline: Pipeline | OfflinePipeline) -> None:
        if not isinstance(pipeline, OfflinePipeline):  # which decodes one recording at a time
            if self._pools is not None:
                self._pools.close()
            self._pools = None
            self._pools = Pools(pipeline, self.limits, self._kv)
            self._scheduler.reserve(self._pools.reserved_bytes)
            self._pools.prepare()

    def _take_commands(self) -> None:
        """Take what was asked since the last tick; waits if there is nothing else to do."""
        idle = not any(job.pending for job in self._jobs.values())
        if idle:
            self._stopping.wait(max(0.0, self._rest_until_s - time.monotonic()))
        try:
            command = self._commands.get(timeout=0.5) if idle else self._commands.get_nowait()
            while True:
                if command is not None:
                    self._take(command)
                command = self._commands.get_nowait()
        except queue.Empty:
            return

    def _take(self, command: Command) -> None:
        number = command.turn.number
        if command.name == "open":
            self._admit(Job(command.turn))
        elif command.name == "cancel":
            self._remove(number)
        elif number in self._jobs:
            self._jobs[number].commands.append(command)
        else:
            command.turn.took(command)

    def _admit(self, job: Job) -> None:
        turn = job.turn
        try:
            nbytes = 0 if self._pools is None else self._pools.turn_bytes(turn.options)
            runs = self._scheduler.submit(turn.number, turn.options.kind, nbytes)
        except EngineFullError as error:
            turn.tell(Update(error=error))
            return
        except ValueError as error:  # keys and values cannot be held in the way that was asked for
            turn.tell(Update(error=BadTurnError(str(error))))
            return
        self._jobs[turn.number] = job
        if runs:
            self._start(job)

    def _start(self, job: Job) -> None:
        if self._pipeline is None:
            return
        with self._guard(job):
            pool = None if self._pools is None else self._pools.of(job.turn.options)
            job.start(self._pipeline, pool)

    def _tick(self, pipeline: Pipeline | OfflinePipeline) -> None:
        started = time.monotonic()
        for job in list(self._jobs.values()):
            if job.commands and self._scheduler.is_running(job.turn.number):
                with self._guard(job):
                    job.obey()
        live, files = self._pending(Kind.LIVE), self._pending(Kind.FILE)
        if isinstance(pipeline, OfflinePipeline):
            files = dict(itertools.islice(files.items(), 1))
        n_tokens = 0
        if live:
            backlogs = [job.n_waiting for job in live.values()]
            share = self._scheduler.plan_live(backlogs)
            n_tokens += self._work(Kind.LIVE, dict.fromkeys(live.values(), share), started)
            self._scheduler.ticked_live(time.monotonic() - started)
        shares = {files[number]: n for number, n in self._scheduler.plan_files(files)}
        if shares:
            n_tokens += self._work(Kind.FILE, shares, started)
        self._last_tick_s = time.monotonic()
        if live:
            self._rest_until_s = started + period_s(self._last_tick_s - started)
        if live and shares:
            self._scheduler.ticked(self._last_tick_s - started)
        if self._observe is not None and (live or shares):
            self._observe(self._report(self._last_tick_s - started, n_tokens))

    def _work(self, kind: Kind, shares: dict[Job, int], started: float) -> int:
        """Encode and decode for some jobs; returns the number of tokens."""
        parts: dict[Pool, dict[PooledBackend, int]] = {}
        for job, n in shares.items():
            if job.backend is not None:
                parts.setdefault(job.backend.pool, {})[job.backend] = n
        for pool, part in parts.items():
            pool.encode(part)
        for job in shares:
            with self._guard(job):
                job.hand_on()
        n_tokens = self._collect(shares)
        is_live, most = kind is Kind.LIVE, max(shares.values())
        for _ in range(LIVE_PASSES if is_live or self._scheduler.n_live else most):
            if not sum(pool.decode(most if is_live else None) for pool in parts):
                break
            n_tokens += self._collect(shares)
            n_behind = sum(pool.n_behind for pool in parts)
            spent = time.monotonic() - started
            if is_live and not self._scheduler.goes_on(spent, n_behind):
                break
        return n_tokens

    def _collect(self, jobs: dict[Job, int]) -> int:
        n_tokens = 0
        for job in jobs:
            if job.turn.number not in self._jobs or self._pipeline is None:
                continue
            with self._guard(job):
                n_tokens += job.collect(self._pipeline.tokenizer)
            if job.turn.over:
                self._remove(job.turn.number)
        return n_tokens

    def _pending(self, kind: Kind) -> dict[int, Job]:
        return {
            number: job
            for number, job in self._jobs.items()
            if job.turn.options.kind is kind and job.pending
        }

    def _remove(self, number: int) -> None:
        job = self._jobs.pop(number, None)
        if job is not None:
            job.close()
        if self._pools is not None:
            self._pools.drop_unused()
        for admitted in self._scheduler.leave(number):
            self._start(self._jobs[admitted])

    def _fail_all(self, error: VoxmlxError) -> None:
        for number, job in list(self._jobs.items()):
            job.turn.tell(Update(error=error))
            del self._jobs[number]
            self._scheduler.leave(number)

    def _guard(self, job: Job) -> _Guard:
        return _Guard(self, job)

    def fail(self, job: Job, error: VoxmlxError) -> None:
        """End one turn; the others go on."""
        job.turn.tell(Update(error=error))
        self._remove(job.turn.number)

    def _report(self, seconds: float, n_tokens: int) -> Tick:
        scheduler = self._scheduler
        kv_bytes = 0 if self._pools is None else self._pools.nbytes
        return Tick(
            seconds, scheduler.n_live, scheduler.n_files, scheduler.n_waiting, n_tokens, kv_bytes
        )


class _Guard:
    """Turns a fault of one turn's data into that turn's end."""

    def __init__(self, engine: Engine, job: Job):
        self._engine = engine
        self._job = job

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        if isinstance(error, ValueError):
            error = BadTurnError(str(error))
        elif not isinstance(error, VoxmlxError):
            _logger.error("a turn failed", exc_info=error)
            error = EngineError(f"the turn failed: {type(error).__name__}")
        self._engine.fail(self._job, error)
        return True


def memory_in_use() -> int:
    """Bytes that MLX holds."""
    return int(mx.get_active_memory())
