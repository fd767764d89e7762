"""Every address of the server with curl, as the documentation shows it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tests.server.running import running, wav
from voxmlx.server.settings import ServerSettings

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

URL = "/v1/audio/transcriptions"
KEY = "k" * 32


def curl(server, path: str, *options: str, data: bytes | None = None) -> tuple[int, str, bytes]:
    """Status, type and body of an answer; nothing may be printed as an error."""
    note = "\n%{http_code} %{content_type}"
    command = ["curl", "-sS", "--max-time", "60", "-w", note, *options, f"{server.url}{path}"]
    done = subprocess.run(command, input=data, capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr
    body, last = done.stdout.rsplit(b"\n", 1)
    status, _, kind = last.decode().partition(" ")
    return int(status), kind, body


@pytest.fixture
def file(tmp_path, speech):
    path = tmp_path / "speech.wav"
    path.write_bytes(wav(speech))
    return path


@pytest.mark.parametrize(
    ("path", "kind", "part"),
    [
        ("/", "text/html", b"<html"),
        ("/static/app.js", "javascript", b"import"),
        ("/static/recorder-worklet.js", "javascript", b"registerProcessor"),
        ("/v1/models", "application/json", b'"tiny"'),
        ("/v1/models/tiny", "application/json", b'"transcription_delay_ms"'),
        ("/health", "application/json", b'"ok"'),
        ("/ready", "application/json", b'"ready"'),
        ("/metrics", "text/plain", b"voxmlx_turns_running"),
        ("/openapi.json", "application/json", b'"openapi"'),
    ],
)
def test_get(server, path, kind, part):
    status, found, body = curl(server, path)

    assert status == 200 and kind in found
    assert part in body


@pytest.mark.parametrize(
    ("response_format", "kind"),
    [
        ("json", "application/json"),
        ("verbose_json", "application/json"),
        ("text", "text/plain"),
        ("srt", "application/x-subrip"),
        ("vtt", "text/vtt"),
    ],
)
def test_transcription(server, pipeline, speech, file, response_format, kind):
    form = ["-F", f"file=@{file}", "-F", "model=tiny", "-F", f"response_format={response_format}"]
    status, found, body = curl(server, URL, *form)

    text = pipeline.generate(speech, sample_rate=16000).text
    assert status == 200 and kind in found
    if "json" in response_format:
        assert json.loads(body)["text"] == text
    else:
        assert text.split()[0] in body.decode()


def test_chunked_upload_from_a_pipe(server, pipeline, speech, file):
    """``curl -F file=@-`` does not know the length: it sends pieces."""
    options = ["-H", "Transfer-Encoding: chunked", "-F", "file=@-;filename=speech.wav"]
    status, _, body = curl(server, URL, *options, data=file.read_bytes())

    assert status == 200
    assert json.loads(body)["text"] == pipeline.generate(speech, sample_rate=16000).text


def test_events(server, pipeline, speech, file):
    status, kind, body = curl(server, URL, "-N", "-F", f"file=@{file}", "-F", "stream=true")

    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    assert status == 200 and kind.startswith("text/event-stream")
    assert events[-1]["type"] == "transcript.text.done"
    deltas = [e["delta"] for e in events if e["type"] == "transcript.text.delta"]
    assert "".join(deltas) == events[-1]["text"]
    assert events[-1]["text"] == pipeline.generate(speech, sample_rate=16000).text


@pytest.mark.parametrize(
    ("path", "options", "expected"),
    [
        ("/nowhere", [], 404),
        ("/v1/models/other", [], 404),
        (URL, [], 405),
        (URL, ["-d", "x=1"], 415),
        (URL, ["-F", "model=tiny"], 400),
        ("/v1/realtime", [], 404),
        ("/static/../app.py", ["--path-as-is"], 404),
    ],
)
def test_refused(server, path, options, expected):
    status, kind, body = curl(server, path, *options)

    assert status == expected
    assert kind == "application/json" and json.loads(body)["error"]["message"]


def test_key(model_folder, file):
    settings = ServerSettings(port=0, model_name="tiny", api_keys=(KEY,))
    with running(model_folder, settings) as server:
        assert curl(server, URL, "-F", f"file=@{file}")[0] == 401
        bearer = ["-H", f"Authorization: Bearer {KEY}"]
        assert curl(server, URL, *bearer, "-F", f"file=@{file}")[0] == 200
        assert curl(server, "/health")[0] == 200
