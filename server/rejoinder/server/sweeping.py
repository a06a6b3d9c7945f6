"""What has expired leaves the stores (reliability.md §2)."""

import time
from collections.abc import Callable

import anyio
import structlog

from rejoinder.server.services import Services
from rejoinder.store import Refused, StoreError
from rejoinder.store import runs as rows

FIRST = 60.0
"""Seconds after the start before the first look at the disk: a start has other things to do."""

EVERY = 6 * 3600.0
"""Seconds between two looks at all that is on the disk."""

EVERY_IN_MEMORY = 30.0
"""Seconds between two looks at what is kept in memory for a while."""

MOST = 0.2
"""The share of all responses that may go at once; more is the mark of a wrong clock."""

LEAST = 100
"""Responses that may go at once however large their share is: small stores grow old as a whole."""

DRIFT = 3600.0
"""Seconds by which the clock on the wall may differ from the one that only counts, since the start."""

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


def since_start() -> float:
    """Seconds that only count, also while the machine sleeps where that can be had."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Sweeper:
    """Removes responses that expired a day ago, and what is only kept in memory."""

    def __init__(self, services: Services, *, monotonic: Callable[[], float] = since_start) -> None:
        self._services = services
        self._monotonic = monotonic
        self._started = services.clock() - monotonic()

    async def run(self) -> None:
        """Look at the disk now and then, for ever."""
        await anyio.sleep(FIRST)
        while True:
            await self.look()
            await anyio.sleep(EVERY)

    async def run_in_memory(self) -> None:
        while True:
            await anyio.sleep(EVERY_IN_MEMORY)
            try:
                await self._services.volatile.sweep(grace=0)
                await rows.forget(self._services.volatile, before=self._services.clock() - rows.KEPT_ONCE)
            except StoreError as error:
                _logger.error("what is kept in memory could not be looked through", exc_info=error)

    async def look(self) -> None:
        """One look at the disk; what is in the way is told."""
        services = self._services
        drift = abs(services.clock() - self._monotonic() - self._started)
        if drift > DRIFT:
            _logger.error("nothing is removed: the clock was set", by=round(drift))
            return
        try:
            gone = await services.store.sweep(most=MOST, least=LEAST)
            await rows.forget(services.store, before=services.clock() - rows.KEPT_ONCE)
        except Refused as error:
            _logger.error("nothing is removed; `rejoinder store prune` does it if that is right", exc_info=error)
        except StoreError as error:
            _logger.error("expired responses could not be removed", exc_info=error)
        else:
            if gone:
                _logger.info("expired responses removed", count=gone)
