"""Throw malformed frames and requests at a real server: ``python -m tests.server.fuzz --count N``.

A bystander transcribes all the while; its text must stay what it is alone. Prints what came back,
and fails if there was a 5xx other than "full", a crash, a leak, or a changed bystander.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import itertools
import json
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.engine.models import live_alone, noise, write_model
from tests.server.mutations import frames, requests
from tests.server.running import Running, pcm16, running
from voxmlx.pipeline import Pipeline, load
from voxmlx.server.metrics import resident_bytes

PATHS = (
    "/v1/realtime",
    "/v1/realtime?intent=transcription",
    "/v1/realtime?model=tiny",
    "/v1/audio/transcriptions/realtime",
)
FRAMES_PER_SOCKET = 60


class Bystander(threading.Thread):
    """Transcribes the same audio again and again, and compares."""

    def __init__(self, server: Running, pipeline: Pipeline):
        super().__init__()
        samples = noise(2, seed=99)
        heard = np.frombuffer(pcm16(samples), "<i2") / 32768
        self.expected = live_alone(pipeline, heard.astype(np.float32), 480).text
        self.audio = pcm16(samples)
        self.url = f"{server.ws}/v1/realtime"
        self.n_right = self.n_wrong = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            right = self.once() == self.expected
            self.n_right += right
            self.n_wrong += not right

    def once(self) -> str:
        with connect(self.url) as ws:
            ws.recv()
            ws.send(json.dumps({"type": "session.update", "model": "tiny"}))
            for i in range(0, len(self.audio), 2560):
                audio = base64.b64encode(self.audio[i : i + 2560]).decode()
                ws.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            ws.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
            while True:
                frame = json.loads(ws.recv(timeout=120))
                if frame["type"] in ("transcription.done", "error"):
                    return frame.get("text", "error")


def send_frames(server: Running, seed: int, count: int) -> Counter[str]:
    """Send malformed frames over many sockets; returns kinds of what came back."""
    seen: Counter[str] = Counter()
    source = frames(seed)
    n = 0
    for path in itertools.cycle(PATHS):
        if n >= count:
            return seen
        with contextlib.suppress(ConnectionClosed), connect(server.ws + path, max_queue=None) as ws:
            for frame in itertools.islice(source, min(FRAMES_PER_SOCKET, count - n)):
                n += 1
                ws.send(frame)
            ws.send('{"type": "last.frame"}')
            while True:  # to the answer to the last frame, or to the end of the connection
                answer = ws.recv(timeout=60)
                seen[json.loads(answer)["type"]] += 1
                if "last.frame" in answer:
                    break


def send_requests(server: Running, seed: int, count: int) -> Counter[str]:
    """Send malformed requests, each on a connection of its own; returns their statuses."""
    seen: Counter[str] = Counter()
    for message in itertools.islice(requests(seed), count):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
            answer = b""
            try:
                sock.sendall(message)
                sock.shutdown(socket.SHUT_WR)
                while chunk := sock.recv(65536):
                    answer += chunk
            except ConnectionError:
                pass
        parts = answer.split(maxsplit=2)
        seen[parts[1].decode() if len(parts) > 1 else "closed"] += 1
    return seen


def fuzz(server: Running, pipeline: Pipeline, n_frames: int, n_requests: int, seed: int) -> dict:
    """One round; returns what happened."""
    bystander = Bystander(server, pipeline)
    bystander.start()
    try:
        seen_frames = send_frames(server, seed, n_frames)
        seen_statuses = send_requests(server, seed, n_requests)
    finally:
        bystander.stopping.set()
        bystander.join()
    deadline = time.monotonic() + 30
    while server.context.sockets.n + server.context.uploads.n and time.monotonic() < deadline:
        time.sleep(0.05)
    return {
        "frames": n_frames,
        "requests": n_requests,
        "server_frames": dict(seen_frames.most_common()),
        "statuses": dict(seen_statuses.most_common()),
        "bystander_right": bystander.n_right,
        "bystander_wrong": bystander.n_wrong,
        "places_left_taken": server.context.sockets.n + server.context.uploads.n,
        "turns_left_open": len(server.context.engine._jobs),
    }


def problems(report: dict) -> list[str]:
    """What a report should not hold."""
    bad = [
        f"status {s}" for s in report["statuses"] if s.startswith("5") and s not in ("501", "503")
    ]
    if report["bystander_wrong"] or not report["bystander_right"]:
        bad.append("the bystander's text changed")
    if report["places_left_taken"] or report["turns_left_open"]:
        bad.append("something was not given back")
    return bad


def main() -> int:
    """Run rounds and print their reports and the memory after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="frames in all")
    parser.add_argument("--requests", type=int, default=5_000, help="HTTP requests in all")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        pipeline = load(folder)
        with running(Path(folder)) as server:
            for i in range(options.rounds):
                n_frames = options.count // options.rounds
                n_requests = options.requests // options.rounds
                report = fuzz(server, pipeline, n_frames, n_requests, options.seed + i)
                report["resident_mb"] = round(resident_bytes() / 1e6, 1)
                print(json.dumps(report), flush=True)
                failed += problems(report)
    print("problems:", failed or "none")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
