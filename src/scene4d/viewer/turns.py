"""Who may touch the parameters: training and rendering take turns."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_POLL_S = 0.02


class Turns:
    """Lets one thread train and another render the same parameters, never both at once.

    Policy: rendering happens between steps. After a render of ``t`` seconds, training runs for at
    least ``t (1 - share) / share`` seconds before the next one, so that rendering takes at most
    ``share`` of the time; then it goes first, so that short steps cannot starve it. While training
    is paused, or between two steps waits for something else, rendering need not wait for its share.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._training = False
        self._rendering = False
        self._due_at: float | None = None
        """When the waiting render is let in; None: no render is waiting."""
        self._last_end, self._last_seconds = 0.0, 0.0
        self.paused = False
        """Set from any thread (also from a signal handler: it takes no lock)."""
        self.closed = False
        """Set when nothing will be rendered any more; ends a pause and every waiting."""

    @contextmanager
    def training(self) -> Iterator[None]:
        """Held by the trainer for one step; waits while paused or while a render is due."""
        self._wait_while_paused()
        with self._changed:
            while self._rendering or self._render_is_due():
                self._changed.wait(_POLL_S)
            self._training = True
        try:
            yield
        finally:
            with self._changed:
                self._training = False
                self._changed.notify_all()

    @contextmanager
    def rendering(self, share: float) -> Iterator[bool]:
        """Held by the one render thread; yields False if it was closed in the meantime."""
        with self._changed:
            self._due_at = self._last_end + self._last_seconds * (1 - share) / share
            while not self.closed and (self._training or self._must_wait()):
                self._changed.wait(_POLL_S)
            self._due_at = None
            self._rendering = not self.closed
            self._changed.notify_all()
        start = time.monotonic()
        try:
            yield self._rendering
        finally:
            with self._changed:
                self._rendering = False
                self._last_end = time.monotonic()
                self._last_seconds = self._last_end - start
                self._changed.notify_all()

    def _must_wait(self) -> bool:
        assert self._due_at is not None
        return not self.paused and time.monotonic() < self._due_at

    def _render_is_due(self) -> bool:
        return not self.closed and self._due_at is not None and time.monotonic() >= self._due_at

    def _wait_while_paused(self) -> None:
        """Sleeps until training is resumed. SIGINT and SIGTERM resume it, so that it can end."""
        if not self.paused or self.closed:
            return
        with _on_signals(self._resume):
            while self.paused and not self.closed:
                time.sleep(_POLL_S)

    def _resume(self) -> None:
        self.paused = False


@contextmanager
def _on_signals(action) -> Iterator[None]:
    """Calls ``action`` before the handlers that the stopping signals have, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
    before = {number: signal.getsignal(number) for number in numbers if number is not None}

    def relay(number: int, frame: FrameType | None) -> None:
        action()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler is signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, relay)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
