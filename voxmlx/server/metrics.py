"""What Prometheus is told. Knows numbers only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from voxmlx.engine.engine import Tick

_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 0.5, 1, 2, 5, 10)
_LONG = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """All figures of one server, in a registry of its own.

    Args:
        memory: Bytes that the device holds.
    """

    def __init__(self, memory: Callable[[], int]):
        self.registry = registry = CollectorRegistry()
        self.connections = Gauge(
            "voxmlx_connections", "Open WebSocket connections", ["dialect"], registry=registry
        )
        self.turns = Counter(
            "voxmlx_turns_total", "Turns by their end", ["kind", "end"], registry=registry
        )
        self.audio = Counter(
            "voxmlx_audio_seconds_total", "Audio taken", ["kind"], registry=registry
        )
        self.refused = Counter(
            "voxmlx_refused_total", "Requests refused, by code", ["code"], registry=registry
        )
        self.lag = Histogram(
            "voxmlx_lag_seconds",
            "Audio of live turns that waited for the device when news came",
            buckets=_SECONDS,
            registry=registry,
        )
        self.first_text = Histogram(
            "voxmlx_first_text_seconds",
            "From the first audio of a turn to its first text",
            buckets=_LONG,
            registry=registry,
        )
        self.request = Histogram(
            "voxmlx_request_seconds",
            "Length of HTTP transcriptions",
            buckets=_LONG,
            registry=registry,
        )
        self._tick = Histogram(
            "voxmlx_tick_seconds", "Length of engine ticks", buckets=_SECONDS, registry=registry
        )
        self._tokens = Counter("voxmlx_tokens_total", "Tokens written", registry=registry)
        self._running = Gauge("voxmlx_turns_running", "Running turns", ["kind"], registry=registry)
        self._waiting = Gauge("voxmlx_files_waiting", "Files in line", registry=registry)
        self._kv = Gauge("voxmlx_kv_bytes", "Keys and values", registry=registry)
        device = Gauge("voxmlx_device_bytes", "Memory that MLX holds", registry=registry)
        device.set_function(memory)
        resident = Gauge("voxmlx_resident_bytes", "Memory of the process", registry=registry)
        resident.set_function(resident_bytes)
        started = Gauge("voxmlx_start_time_seconds", "When the server started", registry=registry)
        started.set(time.time())

    def ticked(self, tick: Tick) -> None:
        """Take over what a tick of the engine did; called on its thread."""
        self._tick.observe(tick.seconds)
        self._tokens.inc(tick.n_tokens)
        self._running.labels("live").set(tick.n_live)
        self._running.labels("file").set(tick.n_files)
        self._waiting.set(tick.n_waiting)
        self._kv.set(tick.kv_bytes)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


def resident_bytes() -> int:
    """Memory of this process, or 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
