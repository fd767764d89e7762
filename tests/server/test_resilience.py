"""One client's fault, stall or disappearance never touches another; the server ends gently."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.engine.models import live_alone, noise
from tests.server.running import pcm16, running, wav
from voxmlx.server import run
from voxmlx.server.settings import ServerSettings

UPDATE = json.dumps({"type": "session.update", "model": "tiny"})
FINAL = json.dumps({"type": "input_audio_buffer.commit", "final": True})


def append(data: bytes) -> str:
    audio = base64.b64encode(data).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


def transcribe(server, samples) -> str:
    with connect(f"{server.ws}/v1/realtime") as ws:
        ws.recv()
        ws.send(UPDATE)
        data = pcm16(samples)
        for i in range(0, len(data), 5000):
            ws.send(append(data[i : i + 5000]))
        ws.send(FINAL)
        while True:
            frame = json.loads(ws.recv(timeout=60))
            if frame["type"] in ("transcription.done", "error"):
                return frame.get("text", "error")


def wait_until(condition, timeout_s: float = 15) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture(scope="module")
def audio():
    return noise(1, seed=31)


@pytest.fixture(scope="module")
def alone(pipeline, audio):
    heard = np.frombuffer(pcm16(audio), "<i2") / 32768
    return live_alone(pipeline, heard.astype(np.float32), 480).text


def raw_handshake(server, path: str = "/v1/realtime") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    sock.recv(4096)
    return sock


def masked(text: str) -> bytes:
    """A WebSocket frame of at most 65,535 bytes whose mask is zero."""
    data = text.encode()
    return b"\x81" + struct.pack(">BH", 0x80 | 126, len(data)) + bytes(4) + data


@pytest.mark.parametrize("reset", [False, True])
def test_disconnect_in_the_middle_of_each_message(server, audio, alone, reset):
    """Cut the wire at many places of the exchange, gently or as a killed process does."""
    data = pcm16(audio)
    stream = masked(UPDATE) + masked(append(data[:6000])) + masked(append(data[6000:9000]))
    stream += masked(FINAL)
    for cut in [*range(0, len(stream), 1531), len(stream)]:
        sock = raw_handshake(server)
        sock.sendall(stream[:cut])
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    assert wait_until(lambda: server.context.sockets.n == 0)
    assert wait_until(lambda: not server.context.engine._jobs)
    assert transcribe(server, audio) == alone


def test_client_that_stalls_does_not_hold_others_up(server, audio, alone):
    stalled = [raw_handshake(server) for _ in range(5)]
    for sock in stalled:
        sock.sendall(masked(UPDATE) + masked(append(pcm16(audio)))[:-100])
    started = time.monotonic()
    assert transcribe(server, audio) == alone
    assert time.monotonic() - started < 20
    for sock in stalled:
        sock.close()
    assert wait_until(lambda: server.context.sockets.n == 0)


def test_client_that_does_not_read_is_dropped(model_folder, audio, alone, monkeypatch):
    """Its replies fill the kernel's buffers, then the outbox; nobody waits for it to read."""
    monkeypatch.setattr(run, "ABORT_S", 0.5)
    settings = ServerSettings(port=0, model_name="tiny", max_outbox_bytes=200_000)
    prompt = {"audio": {"input": {"transcription": {"prompt": "y" * 50_000}}}}
    update = masked(json.dumps({"type": "session.update", "session": prompt}))
    with running(model_folder, settings) as server:
        sock = raw_handshake(server, "/v1/realtime?intent=transcription")
        sock.settimeout(0.1)
        deadline = time.monotonic() + 60
        while server.context.sockets.n and time.monotonic() < deadline:
            try:
                sock.sendall(update)
            except OSError:
                break  # refused, or nothing is read any more: both are right
        assert wait_until(lambda: server.context.sockets.n == 0)
        # The wire is given up too, although the client is still there and still does not read.
        assert wait_until(lambda: not server.server.server_state.connections)
        assert transcribe(server, audio) == alone
        sock.close()


@pytest.mark.parametrize(
    "body", [b"zz\r\nabc\r\n", b"5\r\nabc", b"-1\r\n\r\n", b"5\r\nabcdeXX", b"f" * 20 + b"\r\n"]
)
def test_broken_chunks_leave_no_trace_of_a_fault(server, body, caplog):
    """A body that breaks off or is no chunk: an answer of 400 or none, and no traceback."""
    head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with caplog.at_level(logging.DEBUG):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
            sock.sendall(head.encode() + body)
            sock.shutdown(socket.SHUT_WR)
            answer = sock.recv(4096)
        assert wait_until(lambda: server.context.uploads.n == 0)
    assert answer[:12] in (b"", b"HTTP/1.1 400")
    assert not [r for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR]


def test_half_open_socket_is_given_up(model_folder, monkeypatch):
    """A client that vanished answers no ping; what was sent to it never leaves."""
    monkeypatch.setattr(run, "ABORT_S", 0.2)
    with running(model_folder, ServerSettings(port=0)) as server:
        server.server.config.ws_ping_interval = server.server.config.ws_ping_timeout = 0.2
        sock = raw_handshake(server)
        assert wait_until(lambda: server.context.sockets.n == 1)
        assert wait_until(lambda: server.context.sockets.n == 0)
        assert wait_until(lambda: not server.server.server_state.connections)
        sock.close()


def test_fast_sender_is_slowed_not_buffered(model_folder):
    settings = ServerSettings(port=0, max_backlog_s=2, max_ahead_s=5, max_speed=4)
    with running(model_folder, settings) as server:
        sent = 0.0
        piece = append(pcm16(noise(1, seed=0)))
        with connect(f"{server.ws}/v1/realtime", compression=None, close_timeout=0.1) as ws:
            ws.recv()
            ws.send(UPDATE)
            worst = 0.0
            started = time.monotonic()

            def push():
                nonlocal sent
                try:
                    for _ in range(3000):
                        ws.send(piece)
                        sent += 1
                except ConnectionClosed:
                    pass

            thread = threading.Thread(target=push, daemon=True)
            thread.start()
            while time.monotonic() - started < 3:
                jobs = list(server.context.engine._jobs.values())
                worst = max([worst, *(job.turn.backlog_s for job in jobs)])
                time.sleep(0.02)
        assert worst <= 4  # the limit, the piece above it, and one on its way
        thread.join(10)


def test_idle_connection_is_closed(model_folder):
    with running(model_folder, ServerSettings(port=0, idle_timeout_s=0.3)) as server:
        with connect(f"{server.ws}/v1/realtime") as ws:
            ws.recv()
            with pytest.raises(ConnectionClosed, match="1008"):
                ws.recv(timeout=10)


def test_turn_that_is_too_long_is_closed(model_folder):
    with running(model_folder, ServerSettings(port=0, max_turn_s=1)) as server:
        with connect(f"{server.ws}/v1/realtime?intent=transcription") as ws:
            ws.recv()
            ws.send(append(bytes(2 * 24000 * 2)))
            with pytest.raises(ConnectionClosed, match="1008"):
                while True:
                    ws.recv(timeout=10)


def test_drain_settles_live_turns_and_files(model_folder, audio, alone):
    with running(model_folder, ServerSettings(port=0, model_name="tiny")) as server:
        answers = []
        body = {"file": ("a.wav", wav(np.tile(audio, 5)))}
        url = f"{server.url}/v1/audio/transcriptions"
        upload = threading.Thread(
            target=lambda: answers.append(httpx.post(url, files=body, timeout=60))
        )
        upload.start()
        assert wait_until(lambda: server.context.uploads.n == 1)
        with connect(f"{server.ws}/v1/realtime") as ws:
            ws.recv()
            ws.send(UPDATE)
            ws.send(append(pcm16(audio)))
            assert wait_until(lambda: len(server.context.engine._jobs) >= 1)
            assert wait_until(lambda: server.context.metrics is not None)
            time.sleep(0.2)
            asyncio.run_coroutine_threadsafe(server.server.drain(), server.loop)
            frames = []
            with pytest.raises(ConnectionClosed, match="1001"):
                while True:
                    frames.append(json.loads(ws.recv(timeout=60)))
        upload.join()
        assert frames[-1]["type"] == "transcription.done" and frames[-1]["text"] == alone
        assert answers[0].status_code == 200


def test_clock_jumps_change_nothing(server, audio, alone, monkeypatch):
    jumps = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: 1e9 * (next(jumps) % 3))
    assert transcribe(server, audio) == alone


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_program_gently(model_folder, audio, alone, number):
    command = [sys.executable, "-m", "voxmlx.cli.main", "serve", "--port", "0", "--name", "tiny"]
    command += ["--model", str(model_folder), "--log-format", "json"]
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        port = int(program.stdout.readline().rsplit(":", 1)[1])
        with connect(f"ws://127.0.0.1:{port}/v1/realtime") as ws:
            ws.recv()
            ws.send(UPDATE)
            ws.send(append(pcm16(audio)))
            ws.send(UPDATE)
            time.sleep(0.3)
            program.send_signal(number)
            frames = []
            with pytest.raises(ConnectionClosed):
                while True:
                    frames.append(json.loads(ws.recv(timeout=60)))
        assert frames[-1]["type"] == "transcription.done" and frames[-1]["text"] == alone
        assert program.wait(30) == 0
        events = [json.loads(line) for line in program.stderr.read().splitlines()]
    finally:
        program.kill()
        program.communicate()
    names = [event["event"] for event in events]
    assert names == ["listening", "draining", "connection"]
    assert alone not in json.dumps(events)
