"""Who may come in: bearer tokens, origins, host names, sizes. ASGI middleware, nothing of audio.

A server on loopback needs no token, but any web page in a browser on this machine can reach it. So
the ``Origin`` of a page must be the server's own or be allowed, and where no token protects it, the
``Host`` must be a loopback name, which defeats DNS rebinding.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from voxmlx.server.errors import ApiError, error_response
from voxmlx.server.settings import ServerSettings, is_loopback

OPEN_PATHS = ("/", "/health", "/ready", "/openapi.json")
"""Paths that tell nothing secret; with the files of the web page they need no token."""
KEY_PROTOCOL = "openai-insecure-api-key."
"""Prefix of the WebSocket subprotocol in which browsers carry a token (OpenAI's convention)."""
_CSP = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' "
    "data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "microphone=(self)",
}


def host_of(value: str) -> str:
    """The name in a ``Host`` header, without the port; empty if it is not one."""
    try:
        return urlsplit(f"//{value}").hostname or ""
    except ValueError:
        return ""


class SecurityMiddleware:
    """Check every request before anything reads its body.

    Args:
        app: What is protected.
        settings: Tokens, origins and sizes.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings):
        self._app = app
        self._settings = settings
        self._keys = [key.encode() for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except ApiError as error:
            await _refuse(scope, receive, send, error)
            return
        if scope["type"] == "http":
            receive = _limited(receive, self._settings.max_body_bytes)
            send = _with_headers(send)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        self._check_host(headers)
        self._check_origin(headers, scope)
        path = scope["path"]
        if self._keys and path not in OPEN_PATHS and not path.startswith("/static/"):
            self._check_key(headers)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise ApiError(400, "invalid_request", "Content-Length is not a number")
        if len(length) > 18 or int(length) > self._settings.max_body_bytes:
            limit = self._settings.max_body_bytes
            raise ApiError(413, "body_too_large", f"the body may have {limit} bytes at most")

    def _check_host(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1:
            raise ApiError(400, "invalid_request", "a request needs one Host header")
        if not self._keys and not is_loopback(host_of(hosts[0])):
            raise ApiError(403, "forbidden_host", "this server answers to localhost only")

    def _check_origin(self, headers: Headers, scope: Scope) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._settings.allowed_origins:
            return
        own = origin.partition("://")[2].lower() == headers.get("host", "").lower()
        if not own or not origin.startswith(("http://", "https://")):
            raise ApiError(403, "forbidden_origin", "this page may not use this server")

    def _check_key(self, headers: Headers) -> None:
        challenge = {"www-authenticate": "Bearer"}
        given = [key for key in _keys_in(headers) if key]
        if not given:
            raise ApiError(401, "missing_api_key", "an API key is needed", None, challenge)
        # Every known key is compared, whichever fits, so that time tells nothing.
        fits = [hmac.compare_digest(given[0], key) for key in self._keys]
        if not any(fits):
            raise ApiError(401, "invalid_api_key", "the API key is wrong", None, challenge)


def _keys_in(headers: Headers) -> Iterable[bytes]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield token.strip().encode("latin-1", "replace")
    for name in subprotocols(headers.getlist("sec-websocket-protocol")):
        if name.startswith(KEY_PROTOCOL):
            yield name[len(KEY_PROTOCOL) :].encode("latin-1", "replace")


def subprotocols(values: Iterable[str]) -> list[str]:
    """The names in ``Sec-WebSocket-Protocol`` headers."""
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def _limited(receive: Receive, limit: int) -> Receive:
    """A body that ends in 413 where it grows beyond the limit, whatever its headers said."""
    total = 0

    async def limited() -> Message:
        nonlocal total
        message = await receive()
        if message["type"] == "http.request":
            total += len(message.get("body", b""))
            if total > limit:
                raise ApiError(413, "body_too_large", f"the body may have {limit} bytes at most")
        return message

    return limited


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


async def _refuse(scope: Scope, receive: Receive, send: Send, error: ApiError) -> None:
    response = error_response(error)
    if scope["type"] == "http":
        response.headers["connection"] = "close"  # the body stays unread
        await response(scope, receive, send)
    else:
        await WebSocket(scope, receive, send).send_denial_response(response)
