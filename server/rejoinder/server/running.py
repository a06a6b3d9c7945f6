"""The turns under way, so that a shutdown can wait for them and then end them (reliability.md F10)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from rejoinder.bridge.errors import UpstreamError
from rejoinder.server.errors import Unavailable


class Waiting:
    """The deadline of whatever a turn waits for at the moment; there is one at a time.

    Entering it arms nothing; `at_most` does, and `freely` disarms it while the turn waits for its own client.
    """

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._late = "the provider took too long"

    def at_most(self, seconds: float, late: str) -> None:
        """Give the next wait a deadline. `late` is what to say when it passes."""
        if not self._stopped:
            self._late = late
            self._timeout.reschedule(self._loop.time() + seconds)

    def freely(self) -> None:
        if not self._stopped:
            self._timeout.reschedule(None)

    def stop(self) -> None:
        """End the turn now: the server is shutting down."""
        self._stopped = True
        if not self._timeout.expired():
            self._timeout.reschedule(self._loop.time())

    def error(self) -> UpstreamError:
        """Why the wait ended."""
        if self._stopped:
            return UpstreamError("the server is shutting down", status=503)
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

    def stop(self) -> None:
        """End every turn that still runs: each answers its client with `response.failed`."""
        for wait in list(self._waits):
            wait.stop()
