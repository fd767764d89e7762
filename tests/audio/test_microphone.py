from __future__ import annotations

import importlib
import time

import numpy as np
import pytest

from tests.portaudio import install
from voxmlx.audio import microphone
from voxmlx.audio.microphone import Microphone, find_device, list_devices
from voxmlx.errors import AudioError, MissingExtraError


def record(source: Microphone, n: int) -> np.ndarray:
    parts = [np.zeros(0, np.float32)]
    while sum(map(len, parts)) < n:
        parts.append(source.read(1.0))
    return np.concatenate(parts)


def test_records_what_the_device_hears(monkeypatch):
    sound = np.random.default_rng(0).uniform(-1, 1, 8000).astype(np.float32)
    fake = install(monkeypatch, sound=sound)
    with Microphone() as source:
        heard = record(source, 8000)
        source.stop()
        while (rest := source.read(0)) is not None:
            heard = np.concatenate([heard, rest])

    assert source.device.name == "Built-in Mic"
    assert source.sample_rate == 16000
    assert np.array_equal(heard[:8000], sound)
    assert not heard[8000:].any()
    assert source.n_dropped == source.n_overflows == 0
    assert fake.streams[0].closed


def test_device_keeps_its_rate_where_it_must(monkeypatch):
    install(monkeypatch, rate=48000)
    with Microphone("USB Mic Pro") as source:
        assert source.sample_rate == 48000


def test_full_queue_and_overflows_are_counted(monkeypatch):
    monkeypatch.setattr(microphone, "QUEUE_S", 0.05)
    fake = install(monkeypatch)
    fake.overflows = 3
    with Microphone() as source:
        while source.n_dropped < 1600:
            time.sleep(0.01)
        assert source.n_overflows == 3
        assert 0 < len(source.read(0)) <= 800


def test_unplugged_device_ends_the_sound(monkeypatch):
    fake = install(monkeypatch, sound=np.ones(1600, np.float32))
    fake.unplug = True
    with Microphone() as source:
        n = 0
        while (part := source.read(1.0)) is not None:
            n += len(part)

    assert n == 1600


def test_stalled_device_is_an_error(monkeypatch):
    monkeypatch.setattr(microphone, "STALL_S", 0.05)
    install(monkeypatch, speed=0.001)
    with Microphone() as source:
        record(source, 1)
        with pytest.raises(AudioError, match="'Built-in Mic': gave nothing for 0.05 s; plug it"):
            for _ in range(9):
                source.read(0.02)


def test_list_devices(monkeypatch):
    install(monkeypatch)
    devices = list_devices()

    assert [(d.index, d.name, d.is_default) for d in devices] == [
        (1, "Built-in Mic", True),
        (2, "USB Mic Pro", False),
        (3, "USB Mic", False),
    ]
    assert (devices[1].channels, devices[1].sample_rate) == (2, 48000)


@pytest.mark.parametrize(
    ("wanted", "index"), [(None, 1), (3, 3), ("2", 2), ("pro", 2), ("usb mic", 3), ("BUILT", 1)]
)
def test_find_device(monkeypatch, wanted, index):
    install(monkeypatch)

    assert find_device(wanted).index == index


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("mic", "microphone 'mic': fits several of the devices: 1 'Built-in Mic', 2 'USB"),
        ("line", "microphone 'line': fits none of the devices: 1 'Built-in Mic'"),
        ("0", "microphone '0': fits none of the devices"),
    ],
)
def test_wrong_device(monkeypatch, wanted, message):
    install(monkeypatch)
    with pytest.raises(AudioError, match=message):
        find_device(wanted)


def test_no_device(monkeypatch):
    install(monkeypatch).devices = []
    with pytest.raises(AudioError, match="microphone: none was found; plug one in, or"):
        Microphone()


def test_first_device_where_none_is_default(monkeypatch):
    install(monkeypatch).default.device = [-1, -1]

    assert find_device(None).index == 1


def test_refused_device(monkeypatch):
    install(monkeypatch).open_error = "Device\nunavailable"
    with pytest.raises(AudioError, match="microphone 'Built-in Mic': Device unavailable; "):
        Microphone()


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ImportError("no module"), MissingExtraError, r"The microphone needs .*voxmlx\[mic\]"),
        (OSError("PortAudio library not found"), AudioError, "library not found; install PortA"),
    ],
)
def test_missing_library(monkeypatch, error, kind, message):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(kind, match=message):
        list_devices()
