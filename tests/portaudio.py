"""A stand-in for ``sounddevice`` whose devices play what a test gives them."""

from __future__ import annotations

import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest


class PortAudioError(Exception):
    pass


class FakePortAudio(ModuleType):
    """The module; ``sound`` is what its microphones hear, in blocks of 10 ms.

    ``speed`` is how many times faster than a real device they are; after the sound they go on with
    silence, unless ``unplug`` is set.
    """

    PortAudioError = PortAudioError

    def __init__(self, sound: np.ndarray | None = None, rate: int = 16000, speed: float = 50.0):
        super().__init__("sounddevice")
        self.sound = np.zeros(0, np.float32) if sound is None else sound
        self.rate = rate
        self.speed = speed
        self.devices = [
            {"name": "Speaker", "max_input_channels": 0, "default_samplerate": 48000.0},
            {"name": "Built-in Mic", "max_input_channels": 1, "default_samplerate": 44100.0},
            {"name": "USB Mic Pro", "max_input_channels": 2, "default_samplerate": 48000.0},
            {"name": "USB Mic", "max_input_channels": 1, "default_samplerate": 16000.0},
        ]
        self.default = SimpleNamespace(device=[1, 0])
        self.open_error: str | None = None
        self.unplug = False
        self.overflows = 0
        self.streams: list[FakeStream] = []

    def query_devices(self):
        return self.devices

    def check_input_settings(self, device, channels, dtype, samplerate):
        if samplerate != self.rate:
            raise PortAudioError("Invalid sample rate", -9997)

    def InputStream(self, **settings):
        if self.open_error is not None:
            raise PortAudioError(self.open_error, -9986)
        self.streams.append(FakeStream(self, **settings))
        return self.streams[-1]


class FakeStream:
    def __init__(self, audio, device, samplerate, channels, dtype, callback, finished_callback):
        assert (channels, dtype) == (1, "float32")
        self.audio, self.device, self.samplerate = audio, device, samplerate
        self.callback, self.finished = callback, finished_callback
        self.closed = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def start(self):
        self._thread.start()

    def stop(self):
        self._stopped.set()
        self._thread.join(5)

    def close(self):
        self._stopped.set()
        self.closed = True

    def _play(self):
        n = self.samplerate // 100
        block = np.empty((n, 1), np.float32)  # the device's own buffer, used again and again
        start = 0
        while not self._stopped.is_set():
            if start >= len(self.audio.sound) and self.audio.unplug:
                break
            piece = self.audio.sound[start : start + n]
            start += n
            block[:] = 0
            block[: len(piece), 0] = piece
            overflow = self.audio.overflows > 0
            self.audio.overflows -= overflow
            self.callback(block, n, None, SimpleNamespace(input_overflow=overflow))
            block[:] = np.nan
            time.sleep(0.01 / self.audio.speed)
        self.finished()


def install(monkeypatch: pytest.MonkeyPatch, **settings) -> FakePortAudio:
    fake = FakePortAudio(**settings)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake
