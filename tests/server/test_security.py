"""Who is let in, and what is refused with which status."""

from __future__ import annotations

import io
import json
import socket

import httpx
import numpy as np
import pytest
import soundfile
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.server.running import running
from voxmlx.server.settings import MIB, ServerSettings

KEY = "correct-horse-battery"
URL = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def guarded(model_folder):
    settings = ServerSettings(
        port=0,
        api_keys=("another-key-here", KEY),
        allowed_origins=("https://good.example",),
        max_body_bytes=MIB,
        max_frame_bytes=MIB,
        max_connections=3,
        max_per_client=2,
        max_audio_s=60,
    )
    with running(model_folder, settings) as server:
        yield server


def status_of(url: str, **arguments) -> int:
    """HTTP status of a WebSocket handshake."""
    try:
        with connect(url, **arguments):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def raw(server, text: str | bytes) -> bytes:
    """What the server answers to raw bytes, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(text.encode() if isinstance(text, str) else text)
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", URL, "/nope", "/v1/models/x"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong-key-entirely"}, {"authorization": f"Basic {KEY}"}]
    + [{"authorization": value} for value in ("Bearer", KEY, f"Bearer {KEY}x")]
    + [{"authorization": f"Bearer {KEY[:-1]}"}, {"authorization": b"Bearer \xff\xfe"}],
)
def test_no_key_or_a_wrong_one(guarded, path, headers):
    answer = httpx.get(guarded.url + path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_every_known_key_opens(guarded):
    for key in (KEY, "another-key-here"):
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.get(f"{guarded.url}/v1/models", headers=headers).status_code == 200


def test_open_paths_need_no_key(guarded):
    for path in ("/health", "/ready", "/openapi.json", "/"):
        assert httpx.get(guarded.url + path).status_code == 200


def test_websocket_keys(guarded):
    url = f"{guarded.ws}/v1/realtime"
    assert status_of(url) == 401
    assert status_of(url, additional_headers={"authorization": "Bearer nonono-no"}) == 401
    assert status_of(url, additional_headers={"authorization": f"Bearer {KEY}"}) == 101
    protocols = ["realtime", f"openai-insecure-api-key.{KEY}"]
    with connect(url, subprotocols=protocols) as ws:
        assert ws.subprotocol == "realtime"


@pytest.mark.parametrize(
    "origin, status",
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("https://good.example", 101),
        ("https://good.example.evil.example", 403),
        ("https://good.example:444", 403),
        ("file://", 403),
        (None, 101),
    ],
)
def test_origins(guarded, origin, status):
    headers = {"authorization": f"Bearer {KEY}"}
    url = f"{guarded.ws}/v1/realtime"
    assert status_of(url, origin=origin, additional_headers=headers) == status


def test_own_origin_is_welcome_on_any_port(guarded):
    headers = {"authorization": f"Bearer {KEY}"}
    origin = f"http://127.0.0.1:{guarded.port}"
    url = f"{guarded.ws}/v1/realtime"
    assert status_of(url, origin=origin, additional_headers=headers) == 101
    other = f"http://127.0.0.1:{guarded.port + 1}"
    assert status_of(url, origin=other, additional_headers=headers) == 403


def test_foreign_page_cannot_post(guarded):
    headers = {"authorization": f"Bearer {KEY}", "origin": "https://evil.example"}
    assert httpx.post(guarded.url + URL, headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_rebound_host_name_is_refused(server, host):
    assert httpx.get(f"{server.url}/v1/models", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"])
def test_loopback_names_are_welcome(server, host):
    assert httpx.get(f"{server.url}/v1/models", headers={"host": host}).status_code == 200


def test_settings_refuse_to_be_open():
    with pytest.raises(ValueError, match="API key"):
        ServerSettings(host="0.0.0.0")
    with pytest.raises(ValueError, match="8 printable"):
        ServerSettings(api_keys=("short",))
    assert ServerSettings(host="0.0.0.0", api_keys=(KEY,)).host == "0.0.0.0"
    assert ServerSettings(host="::1").is_loopback and ServerSettings(host="localhost").is_loopback


@pytest.mark.parametrize(
    "path",
    [
        "/static/../settings.py",
        "/static/..%2fsettings.py",
        "/static/%2e%2e/settings.py",
        "/static/....//settings.py",
        "/static//etc/passwd",
        "/static/..\\settings.py",
        "/static/%00",
        "/static/index.html%00.js",
        "/static/",
        "/v1/models/../../etc/passwd",
    ],
)
def test_paths_stay_inside(server, path):
    answer = raw(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    status = int(answer.split()[1])
    assert status in (400, 404), answer[:200]
    assert b"ServerSettings" not in answer and b"root:" not in answer


def test_body_announced_as_1_gb_is_refused_unread(guarded):
    answer = raw(
        guarded,
        f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {10**9}\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 413")


def test_body_that_grows_beyond_the_limit_is_refused(guarded):
    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(65536)

    headers = {
        "authorization": f"Bearer {KEY}",
        "content-type": "multipart/form-data; boundary=x",
    }
    try:
        answer = httpx.post(guarded.url + URL, content=body(), headers=headers)
    except httpx.WriteError:
        return  # the server answered and closed before all was sent
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "head",
    [
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        "Transfer-Encoding: chunked\r\n",
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n",
        "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n",
        "POST {} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n",
        "GET {} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
        "GET {} HTTP/1.1\r\n",
        "GET {} HTTP/9.9\r\nHost: localhost\r\n",
        "GET {} HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n",
        "GET {} HTTP/1.1\r\nHost: localhost\r\nA: b\x00c\r\n",
    ],
)
def test_smuggled_headers_are_refused(server, head):
    answer = raw(server, head.format(URL) + "Connection: close\r\n\r\n0\r\n\r\n")
    statuses = {int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]}
    assert statuses and statuses <= {400, 405, 415, 501, 505}, answer[:300]


def test_huge_headers_are_refused(server):
    """Whatever parser is installed: none takes headers without an end."""
    try:
        answer = raw(server, "GET / HTTP/1.1\r\nHost: localhost\r\nA: " + "b" * 200_000)
    except ConnectionResetError:
        return  # the server closed before it had read all
    assert answer.split()[1] in (b"400", b"431")


def test_small_file_with_much_audio_is_refused(guarded):
    """An hour of silence in a few kilobytes of FLAC: decoding stops at the limit."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(3600 * 8000, np.int16), 8000, format="FLAC")
    assert len(file.getvalue()) < MIB
    headers = {"authorization": f"Bearer {KEY}"}
    files = {"file": ("a.flac", file.getvalue())}
    answer = httpx.post(guarded.url + URL, files=files, headers=headers, timeout=120)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "audio_too_long"


def test_frame_that_is_too_big_closes_the_connection(guarded):
    headers = {"authorization": f"Bearer {KEY}"}
    with connect(f"{guarded.ws}/v1/realtime", additional_headers=headers) as ws:
        ws.recv()
        ws.send("x" * (MIB + 1))
        with pytest.raises(Exception, match="1009"):
            ws.recv(timeout=10)


def test_connections_are_limited_in_all_and_per_client(guarded):
    headers = {"authorization": f"Bearer {KEY}"}
    url = f"{guarded.ws}/v1/realtime"
    with connect(url, additional_headers=headers), connect(url, additional_headers=headers):
        assert status_of(url, additional_headers=headers) == 429


def test_bad_query_is_refused_before_the_handshake(server):
    assert status_of(f"{server.ws}/v1/realtime?delay_ms=81") == 400
    assert status_of(f"{server.ws}/v1/audio/transcriptions/realtime?delay_ms=x") == 400
    assert status_of(f"{server.ws}/v1/other") == 403  # the framework's answer to no route


def test_a_client_that_sends_only_rubbish_is_dropped(server):
    with connect(f"{server.ws}/v1/realtime") as ws:
        ws.recv()
        for _ in range(100):
            ws.send("rubbish")
            assert json.loads(ws.recv())["type"] == "error"
        with pytest.raises(Exception, match="1008"):
            ws.recv(timeout=10)


def test_pages_carry_their_headers(server):
    headers = httpx.get(server.url + "/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers
