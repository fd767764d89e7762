"""How the server behaves. Plain values."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True)
class ServerSettings:
    """Everything that may be set, with defaults that are safe on a laptop.

    Attributes:
        host: Address to listen on.
        port: TCP port.
        api_keys: Bearer tokens that clients may show; needed on any address but loopback.
        allowed_origins: Origins of web pages on other hosts that may connect.
        model_name: Name shown to clients.
        model_aliases: Further names that clients may ask for.
        delay_ms: Delay of clients that name none; ``None`` takes the model's own.
        max_connections: WebSocket connections at a time.
        max_per_client: WebSocket connections and uploads at a time from one address.
        max_body_bytes: Largest request body.
        max_frame_bytes: Largest WebSocket message (OpenAI allows 15 MiB of audio, 20 of base64).
        max_audio_s: Longest upload.
        max_turn_s: Longest live turn; ``None`` sets no limit.
        max_backlog_s: Undecoded audio of a turn, beyond which its client is not read from.
        max_ahead_s: Audio that a live client may send ahead of the clock.
        max_speed: How many times faster than the clock a live client may go on sending.
        max_outbox_bytes: Unsent frames, beyond which a client that does not read is dropped.
        max_turns: Turns of one connection that may be unfinished.
        send_timeout_s: How long a client may refuse to take a frame.
        idle_timeout_s: How long a connection may say nothing.
        drain_s: How long running work may go on after SIGTERM.
        log_text: Whether logs may hold what was said.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_keys: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    model_name: str = "voxtral"
    model_aliases: tuple[str, ...] = ()
    delay_ms: int | None = None
    max_connections: int = 64
    max_per_client: int = 32
    max_body_bytes: int = 256 * MIB
    max_frame_bytes: int = 21 * MIB
    max_audio_s: float = 4 * 3600.0
    max_turn_s: float | None = None
    max_backlog_s: float = 10.0
    max_ahead_s: float = 60.0
    max_speed: float = 8.0
    max_outbox_bytes: int = 8 * MIB
    max_turns: int = 4
    send_timeout_s: float = 60.0
    idle_timeout_s: float = 300.0
    drain_s: float = 30.0
    log_text: bool = False

    def __post_init__(self) -> None:
        """Refuse to be open to a network without a key.

        Raises:
            ValueError: If ``host`` is not loopback and there is no key.
        """
        if any(len(key) < 8 or not key.isascii() or not key.isprintable() for key in self.api_keys):
            raise ValueError("an API key must be at least 8 printable ASCII characters")
        if not self.is_loopback and not self.api_keys:
            raise ValueError(
                f"listening on {self.host} lets others in; give an API key, or use 127.0.0.1"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
