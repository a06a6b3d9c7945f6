"""The turns under way, so that a shutdown can wait for them and then end them (reliability.md F10)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from rejoinder.bridge.errors import UpstreamError
from rejoinder.server.errors import Unavailable

TURN_TIMEOUT = 3600.0
"""Seconds a whole turn may take, however steadily its provider sends (reliability.md §4)."""


class Waiting:
    """The deadline of whatever a turn waits for at the moment; there is one at a time.

    `at_most` gives the next wait a deadline, `freely` takes it away while the turn waits for its own client. Both are
    called for every chunk, so they only note a time; one timer looks at it now and then.
    """

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time() + TURN_TIMEOUT
        self._deadline = self._last
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._late = "the provider took too long"

    def at_most(self, seconds: float, late: str) -> None:
        """Give the next wait a deadline. `late` is what to say when it passes."""
        self._late = late
        self._deadline = min(self._loop.time() + seconds, self._last)
        if self._timer is None or self._timer.when() > self._deadline:
            self._arm()

    def freely(self) -> None:
        self._deadline = self._last

    def close(self) -> None:
        """The turn waits no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self.close()
        self._timer = self._loop.call_at(self._deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._deadline <= self._loop.time():
            self._end()
        else:
            self._arm()

    def _end(self) -> None:
        if not self._timeout.expired():
            self._timeout.reschedule(self._loop.time())

    def stop(self) -> None:
        """End the turn now: the server is shutting down."""
        self._stopped = True
        self._end()

    def error(self) -> UpstreamError:
        """Why the wait ended."""
        if self._stopped:
            return UpstreamError("the server is shutting down", status=503)
        if self._last <= self._loop.time():
            return UpstreamError(f"the turn took longer than {TURN_TIMEOUT:.0f} s", status=504)
        return UpstreamError(self._late, status=504)


class Running:
    """All turns of this process."""

    def __init__(self) -> None:
        self._waits: set[Waiting] = set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._waits)

    def admit(self) -> None:
        """Raises Unavailable once the server takes no new work."""
        if self.draining:
            raise Unavailable("the server is shutting down; try again in a moment", code="server_is_overloaded")

    @contextmanager
    def waiting(self, timeout: asyncio.Timeout) -> Iterator[Waiting]:
        """A turn's waits, for as long as it runs."""
        wait = Waiting(timeout)
        self._waits.add(wait)
        try:
            yield wait
        finally:
            self._waits.discard(wait)
            wait.close()

    def stop(self) -> None:
        """End every turn that still runs: each answers its client with `response.failed`."""
        for wait in list(self._waits):
            wait.stop()
