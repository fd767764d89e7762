"""HTTP against a real server: every format, errors, events, the description."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest

from tests.engine.models import noise
from tests.server.running import running, wav
from voxmlx.engine.scheduler import Limits
from voxmlx.server.settings import ServerSettings

URL = "/v1/audio/transcriptions"


@pytest.fixture
def client(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def expected(pipeline, speech):
    return pipeline.generate(speech, sample_rate=16000)


def post(client, samples, name="speech.wav", **data):
    return client.post(URL, files={"file": (name, wav(samples))}, data=data)


def test_json(client, speech, expected):
    body = post(client, speech).json()
    assert body["text"] == expected.text != ""
    assert body["usage"]["output_tokens"] == len(expected.tokens)


def test_text_and_subtitles(client, speech, expected):
    assert post(client, speech, response_format="text").text == expected.text + "\n"
    srt = post(client, speech, response_format="srt")
    assert srt.text.startswith("1\n00:00:0") and " --> " in srt.text
    vtt = post(client, speech, response_format="vtt")
    assert vtt.text.startswith("WEBVTT") and vtt.headers["content-type"].startswith("text/vtt")


def test_verbose_json(client, speech, expected):
    body = post(client, speech, response_format="verbose_json", language="en").json()
    assert [w["word"] for w in body["words"]] == [w.text for w in expected.words]
    assert body["language"] == "en" and body["duration"] == 2.0
    assert body["segments"][0]["avg_logprob"] < 0
    only = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
    assert (
        "segments" not in client.post(URL, files={"file": ("a.wav", wav(speech))}, data=only).json()
    )


def test_stream_is_server_sent_events(client, speech, expected):
    answer = post(client, speech, stream="true")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line]
    assert "".join(e["delta"] for e in events[:-1]) == expected.text
    assert events[-1]["type"] == "transcript.text.done"
    assert events[-1]["text"] == expected.text


def test_stereo_upload_at_another_rate(client):
    samples = np.stack([noise(1, 0)] * 2, axis=1)
    answer = client.post(URL, files={"file": ("a", wav(samples, 44100))})
    assert answer.status_code == 200


def test_delay_and_logprobs(client, pipeline, speech):
    expected = pipeline.generate(speech, sample_rate=16000, transcription_delay_ms=960)
    body = post(client, speech, delay_ms="960", include="logprobs").json()
    assert body["text"] == expected.text
    joined = b"".join(bytes(p["bytes"]) for p in body["logprobs"])
    assert joined.decode().strip() == expected.text.strip()


def test_phrases_to_expect(client, pipeline, speech, expected):
    words = ["yes", "no", "one", "two"]
    biased = pipeline.generate(speech, sample_rate=16000, keywords=words).text
    assert post(client, speech, keywords=words).json()["text"] == biased != expected.text


@pytest.mark.parametrize(
    "data, status, param",
    [
        ({"model": "nonsense"}, 404, "model"),
        ({"response_format": "docx"}, 400, "response_format"),
        ({"delay_ms": "100"}, 400, "delay_ms"),
        ({"delay_ms": "99999999999"}, 400, "delay_ms"),
        ({"delay_ms": "٤٨٠"}, 400, "delay_ms"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": "nan"}, 400, "temperature"),
        ({"stream": "maybe"}, 400, "stream"),
        ({"timestamp_granularities": "line"}, 400, "timestamp_granularities"),
    ],
)
def test_bad_field(client, speech, data, status, param):
    answer = post(client, speech, **data)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["param"] == param and error["message"] and error["code"]


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"junk" * 300, wav(np.zeros(0, np.float32)), b"\x00" * 5000]
)
def test_bad_file(client, content):
    answer = client.post(URL, files={"file": ("a.wav", content)})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_audio"


def test_file_names_are_not_believed(client, speech):
    for name in ("../../etc/passwd", "a\x00b.wav", "/dev/zero", "con", "é" * 300):
        assert post(client, speech[:4000], name=name).status_code in (200, 400)


@pytest.mark.parametrize(
    "request_, status",
    [
        ({"method": "GET", "url": URL}, 405),
        ({"method": "POST", "url": URL}, 415),
        ({"method": "POST", "url": URL, "json": {}}, 415),
        ({"method": "POST", "url": URL, "data": {"a": "b"}}, 415),
        ({"method": "POST", "url": URL, "files": {"a": b"b"}}, 400),
        ({"method": "GET", "url": "/v1/models/none"}, 404),
        ({"method": "GET", "url": "/v1/realtime"}, 404),
        ({"method": "DELETE", "url": "/v1/models"}, 405),
    ],
)
def test_bad_request(client, request_, status):
    answer = client.request(**request_)
    assert answer.status_code == status and "message" in answer.json()["error"]


def test_broken_multipart(client):
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"", b"--x", b"--x\r\n\r\n", b"garbage", b"--x\r\nContent-Disposition: form-data"):
        assert client.post(URL, content=body, headers=headers).status_code == 400
    no_boundary = {"content-type": "multipart/form-data"}
    assert client.post(URL, content=b"x", headers=no_boundary).status_code == 400


def test_models_health_metrics_description(client, speech):
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert client.get("/v1/models/tiny").json()["object"] == "model"
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    post(client, speech[:4000])
    metrics = client.get("/metrics").text
    for name in ("voxmlx_tick_seconds_bucket", "voxmlx_tokens_total", "voxmlx_resident_bytes"):
        assert name in metrics
    paths = client.get("/openapi.json").json()["paths"]
    assert URL in paths


def test_recording_that_is_too_long_is_refused(model_folder):
    settings = ServerSettings(port=0, max_audio_s=2)
    with running(model_folder, settings) as server, httpx.Client(base_url=server.url) as client:
        answer = client.post(URL, files={"file": ("a", wav(np.zeros(16000 * 4, np.float32)))})
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "audio_too_long"


def test_full_server_says_so(model_folder, speech):
    settings = ServerSettings(port=0, max_connections=0)
    with running(model_folder, settings) as server, httpx.Client(base_url=server.url) as client:
        answer = post(client, speech)
        assert answer.status_code == 503 and answer.headers["retry-after"]


def test_full_engine_says_so(model_folder, speech):
    limits = Limits(max_files=1, memory_bytes=1000)
    with (
        running(model_folder, limits=limits) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        answer = post(client, speech)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "overloaded"


def test_client_that_leaves_frees_its_place(server, speech):
    body = wav(np.tile(speech, 200))
    head = (
        f"POST {URL} HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(body) + 200}\r\n\r\n"
    )
    part = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall((head + part).encode() + body)
    deadline = time.monotonic() + 10
    while server.context.uploads.n and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.context.uploads.n == 0


def test_decoder_process_limits_memory_and_files(tmp_path):
    if sys.platform != "linux":
        pytest.skip("macOS does not limit the address space")
    code = (
        "from voxmlx.server.decode_worker import limit_process; limit_process(5)\n"
        "try: bytearray(3 * 2**30)\n"
        "except MemoryError: print('no memory')\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"try: open({str(tmp_path / 'x')!r}, 'wb').write(b'x' * 100000)\n"
        "except OSError: print('no files')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert out.stdout.split("\n")[:2] == ["no memory", "no files"]
