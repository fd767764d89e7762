"""A real server on a real port, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from voxmlx.engine.engine import Engine
from voxmlx.engine.scheduler import Limits
from voxmlx.pipeline import load
from voxmlx.server.app import create_app, new_metrics
from voxmlx.server.context import Context
from voxmlx.server.run import Server
from voxmlx.server.settings import ServerSettings


@dataclass
class Running:
    """Where a test's server is."""

    port: int
    server: Server
    context: Context
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


@contextlib.contextmanager
def running(
    folder: Path, settings: ServerSettings | None = None, limits: Limits | None = None
) -> Iterator[Running]:
    metrics = new_metrics()
    engine = Engine(lambda: load(folder), limits, metrics.ticked)
    engine.start()
    settings = ServerSettings(port=0, model_name="tiny") if settings is None else settings
    app = create_app(engine, settings, metrics)
    listening = threading.Event()
    ports: list[int] = []

    def started(port: int) -> None:
        ports.append(port)
        listening.set()

    server = Server(app, settings, started)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve()))
    thread.start()
    try:
        if not listening.wait(30):
            raise RuntimeError("the server does not listen")
        yield Running(ports[0], server, app.state.context, loop)
    finally:
        server.should_exit = True
        thread.join(30)
        loop.close()
        engine.stop()


def wav(samples: np.ndarray, sample_rate: int = 16000, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, subtype, format="WAV")
    return file.getvalue()


def pcm16(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()
