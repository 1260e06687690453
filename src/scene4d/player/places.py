"""Places for connections to a server: nobody who only holds one keeps others out."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

MAX_CONNECTIONS = 128
MAX_OF_ADDRESS = 32
"""Of one address at once; a browser opens about six."""
REQUEST_SECONDS = 10.0
"""A request must be there whole so long after the connection, or after the answer before it."""


@dataclass(eq=False)
class _Place:
    address: str
    since: float
    busy: bool = False
    """Whether a request is being answered."""


class Places:
    """The connections that are open, and who has them.

    Where all places are taken, the connection that has waited longest without a request goes: of
    the address that wants another one, or of the one that has most.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[socket.socket, _Place] = {}

    def take(self, connection: socket.socket, address: str) -> bool:
        """Whether there is a place for a new connection from ``address``."""
        with self._lock:
            counts = Counter(place.address for place in self._taken.values())
            giving = None
            if counts[address] >= MAX_OF_ADDRESS:
                giving = address
            elif len(self._taken) >= MAX_CONNECTIONS:
                giving = counts.most_common(1)[0][0]
            if giving is not None and not self._close_oldest(giving):
                return False
            self._taken[connection] = _Place(address, time.monotonic())
            return True

    def leave(self, connection: socket.socket) -> None:
        """The connection is over."""
        with self._lock:
            self._taken.pop(connection, None)

    @contextlib.contextmanager
    def busy(self, connection: socket.socket) -> Iterator[None]:
        """Within, a request of the connection is answered: it keeps its place."""
        place = self._taken.get(connection)
        if place is not None:
            place.busy = True
        try:
            yield
        finally:
            if place is not None:
                place.busy, place.since = False, time.monotonic()

    def close_idle(self) -> None:
        """Closes connections whose request did not come in time."""
        with self._lock:
            before = time.monotonic() - REQUEST_SECONDS
            for connection, place in list(self._taken.items()):
                if not place.busy and place.since < before:
                    self._close(connection)

    def _close_oldest(self, address: str) -> bool:
        waiting = [
            (place.since, number, connection)
            for number, (connection, place) in enumerate(self._taken.items())
            if place.address == address and not place.busy
        ]
        if not waiting:
            return False
        self._close(min(waiting)[2])
        return True

    def _close(self, connection: socket.socket) -> None:
        """Wakes the thread that waits for it, which then ends."""
        del self._taken[connection]
        with contextlib.suppress(OSError):
            # Not SSLSocket's own, which would take the TLS state from under that thread.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
