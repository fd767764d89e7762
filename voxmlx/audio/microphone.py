"""The microphone, through PortAudio. Knows nothing of models or text.

PortAudio calls back on a thread of its own, which does nothing but copy samples into a queue.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from voxmlx.audio.live import Float32Array, SampleQueue
from voxmlx.errors import AudioError, MissingExtraError

SAMPLE_RATE = 16000
"""What to ask a device for; one that cannot is read at its own rate."""

QUEUE_S = 60.0
"""How far the reader may fall behind before samples are lost (and counted)."""

STALL_S = 5.0
"""A device that gives nothing for so long has gone."""

_PERMISSION = (
    "allow the terminal to use the microphone in System Settings > Privacy & Security > Microphone"
    if sys.platform == "darwin"
    else "check that no other program holds it and that you may use it"
)


@dataclass(frozen=True)
class InputDevice:
    """A device that can record."""

    index: int
    name: str
    channels: int
    sample_rate: int
    is_default: bool


def _portaudio() -> Any:
    """The ``sounddevice`` module.

    Raises:
        MissingExtraError: If it is not installed.
        AudioError: If it does not find PortAudio.
    """
    try:
        return importlib.import_module("sounddevice")
    except ImportError as error:
        raise MissingExtraError("The microphone", "mic") from error
    except OSError as error:
        raise AudioError(
            f"microphone: {error}; install PortAudio, with apt install libportaudio2"
        ) from error


def list_devices() -> list[InputDevice]:
    """All devices that can record.

    Raises:
        MissingExtraError: If ``sounddevice`` is not installed.
        AudioError: If PortAudio cannot be used.
    """
    sounddevice = _portaudio()
    try:
        devices = sounddevice.query_devices()
        default = sounddevice.default.device[0]
    except sounddevice.PortAudioError as error:
        raise AudioError(f"microphone: {_reason(error)}") from error
    return [
        InputDevice(
            i,
            device["name"],
            device["max_input_channels"],
            round(device["default_samplerate"]),
            i == default,
        )
        for i, device in enumerate(devices)
        if device["max_input_channels"] > 0
    ]


def find_device(wanted: str | int | None) -> InputDevice:
    """The device with this number or a part of this name; the default one for ``None``.

    Raises:
        AudioError: If there is none, or the name fits several.
    """
    devices = list_devices()
    if not devices:
        raise AudioError(f"microphone: none was found; plug one in, or {_PERMISSION}")
    if wanted is None:
        return next((device for device in devices if device.is_default), devices[0])
    if isinstance(wanted, int) or wanted.isdecimal():
        found = [device for device in devices if device.index == int(wanted)]
    else:
        found = [device for device in devices if wanted.casefold() in device.name.casefold()]
        found = [d for d in found if d.name.casefold() == wanted.casefold()] or found
    if len(found) != 1:
        names = ", ".join(f"{device.index} {device.name!r}" for device in found or devices)
        what = "fits several" if found else "fits none"
        raise AudioError(f"microphone {wanted!r}: {what} of the devices: {names}")
    return found[0]


class Microphone:
    """A microphone that records from the start of its context on.

    It gives its first channel at 16 kHz, or at its own rate where it cannot do that.

    Args:
        device: Number of the device or a part of its name; ``None`` takes the default one.

    Raises:
        MissingExtraError: If ``sounddevice`` is not installed.
        AudioError: If there is no such device, or it may not be used.
    """

    can_wait = False

    def __init__(self, device: str | int | None = None):
        self._sounddevice = _portaudio()
        self.device = find_device(device)
        self.sample_rate = self._choose_rate()
        self.n_overflows = 0
        self._queue = SampleQueue(round(QUEUE_S * self.sample_rate))
        self._waited_s = 0.0
        try:
            self._stream = self._sounddevice.InputStream(
                device=self.device.index,
                samplerate=self.sample_rate,
                channels=1,
                dtype="float32",
                callback=self._record,
                finished_callback=self._queue.end,
            )
        except self._sounddevice.PortAudioError as error:
            raise self._failed(error) from error

    @property
    def n_dropped(self) -> int:
        """Samples that found the queue full."""
        return self._queue.n_dropped

    def __enter__(self) -> Microphone:
        """Start to record."""
        try:
            self._stream.start()
        except self._sounddevice.PortAudioError as error:
            raise self._failed(error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop and give the device back."""
        self._stream.close()

    def read(self, timeout_s: float) -> Float32Array | None:
        """Take what was recorded; see :meth:`voxmlx.audio.live.LiveSource.read`."""
        samples = self._queue.take(timeout_s)
        if samples is None or len(samples):
            self._waited_s = 0.0
            return samples
        self._waited_s += timeout_s
        if self._waited_s > STALL_S:
            raise AudioError(
                f"microphone {self.device.name!r}: gave nothing for {STALL_S:g} s; plug it in again"
            )
        return samples

    def stop(self) -> None:
        """Record nothing more; what was recorded can still be read."""
        self._stream.stop()
        self._queue.end()

    def _choose_rate(self) -> int:
        try:
            self._sounddevice.check_input_settings(
                device=self.device.index, channels=1, dtype="float32", samplerate=SAMPLE_RATE
            )
        except self._sounddevice.PortAudioError:
            return self.device.sample_rate
        return SAMPLE_RATE

    def _record(self, samples: Float32Array, n: int, moment: object, status: Any) -> None:
        """Copy what PortAudio gives, ``(n, 1)``; the buffer is its own."""
        if status.input_overflow:
            self.n_overflows += 1
        self._queue.put(np.array(samples[:, 0]))

    def _failed(self, error: Exception) -> AudioError:
        return AudioError(f"microphone {self.device.name!r}: {_reason(error)}; {_PERMISSION}")


def _reason(error: Exception) -> str:
    """PortAudio's own words, on one line."""
    return " ".join(str(error.args[0] if error.args else error).split())
