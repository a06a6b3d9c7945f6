"""The turns under way, so that each can be ended from outside, and a shutdown can wait for all of them and then end
them (reliability.md F10)."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeVar

import structlog

from rejoinder.bridge.errors import UpstreamError
from rejoinder.server.errors import Unavailable

T = TypeVar("T")

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

TURN_TIMEOUT = 3600.0
"""Seconds a whole turn may take, however steadily its provider sends (reliability.md §4)."""


class ShuttingDown(UpstreamError):
    """Raised inside a turn whose time is over because the server stops."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down", status=503)


class Cancelled(Exception):
    """Raised inside a turn that nobody wants any more: it was cancelled, or deleted, or its client left."""


class Interrupted(Exception):
    """Raised inside a turn whose client wants no more of the answer, and goes on from what there is (codex.md §7)."""


class Stop:
    """Ends one turn from outside, wherever it waits for its provider. The first reason given is the one it ends by."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self._waiting: Waiting | None = None

    def now(self, error: Exception) -> None:
        """End the turn: what it waits for, or waits for next, raises this."""
        if self.error is None:
            self.error = error
        if self._waiting is not None:
            self._waiting.end()

    @contextmanager
    def waiting(self, timeout: asyncio.Timeout) -> Iterator["Waiting"]:
        """The turn waits for something, until the end of the block."""
        waiting = self._waiting = Waiting(timeout, self)
        if self.error is not None:
            waiting.end()
        try:
            yield waiting
        finally:
            self._waiting = None
            waiting.close()


class Waiting:
    """The deadline of whatever a turn waits for at the moment; there is one at a time.

    `at_most` gives the next wait a deadline, `freely` takes it away while the turn waits for its own client. Both are
    called for every chunk, so they only note a time; one timer looks at it now and then.
    """

    def __init__(self, timeout: asyncio.Timeout, stop: Stop) -> None:
        self._timeout = timeout
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time() + TURN_TIMEOUT
        self._deadline = self._last
        self._timer: asyncio.TimerHandle | None = None
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
            self.end()
        else:
            self._arm()

    def end(self) -> None:
        """The wait is over, whatever was waited for."""
        if not self._timeout.expired():
            self._timeout.reschedule(self._loop.time())

    def error(self) -> Exception:
        """Why the wait ended."""
        if self._stop.error is not None:
            return self._stop.error
        if self._last <= self._loop.time():
            return UpstreamError(f"the turn took longer than {TURN_TIMEOUT:.0f} s", status=504)
        return UpstreamError(self._late, status=504)


class Running:
    """All turns of this process."""

    def __init__(self) -> None:
        self._turns: set[Stop] = set()
        self._alone: set[asyncio.Task[object]] = set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._turns)

    def admit(self) -> None:
        """Raises Unavailable once the server takes no new work."""
        if self.draining:
            raise Unavailable("the server is shutting down; try again in a moment", code="server_is_overloaded")

    @contextmanager
    def turn(self) -> Iterator[Stop]:
        """One turn, from its first step to its last."""
        stop = Stop()
        self._turns.add(stop)
        try:
            yield stop
        finally:
            self._turns.discard(stop)

    def stop(self) -> None:
        """End every turn that still runs: each answers its client with `response.failed`."""
        for stop in list(self._turns):
            stop.now(ShuttingDown())

    def begin(self, work: Coroutine[object, object, T]) -> "asyncio.Task[T]":
        """Work that no connection has to wait for; `close` does."""
        task = asyncio.create_task(work)
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)
        return task

    def let_go(self, task: "asyncio.Task[T]") -> None:
        """The client of a turn has left, and the turn is to be finished all the same."""
        self._alone.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: "asyncio.Task[T]") -> None:
        self._alone.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.warning("a turn whose client had left failed", exc_info=error)

    async def close(self, patience: float) -> None:
        """Take no new work, wait for the work that no connection waits for, and end it after `patience` seconds."""
        self.draining = True
        if self._alone:
            await asyncio.wait(self._alone, timeout=patience)
        self.stop()
        while self._alone:
            await asyncio.wait(self._alone)
