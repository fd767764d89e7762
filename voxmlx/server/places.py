"""How many connections there are, in all and from each address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from voxmlx.server.errors import ApiError


class Places:
    """Counts who is in. Used on the event loop alone.

    Args:
        max_all: Most at a time.
        max_per_client: Most at a time from one address.
    """

    def __init__(self, max_all: int, max_per_client: int):
        self._max_all = max_all
        self._max_per_client = max_per_client
        self._clients: Counter[str] = Counter()
        self.draining = False

    @property
    def n(self) -> int:
        """Connections now."""
        return self._clients.total()

    @contextmanager
    def take(self, client: str) -> Iterator[None]:
        """Hold a place.

        Raises:
            ApiError: If there is none (503), this address has too many (429), or the server stops
                (503).
        """
        retry = {"retry-after": "5"}
        if self.draining:
            raise ApiError(503, "shutting_down", "the server is stopping", None, retry)
        if self.n >= self._max_all:
            raise ApiError(503, "overloaded", "every place is taken", None, retry)
        if self._clients[client] >= self._max_per_client:
            raise ApiError(429, "rate_limit_exceeded", "too many connections", None, retry)
        self._clients[client] += 1
        try:
            yield
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
