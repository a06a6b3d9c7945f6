"""Whether this server can do its work: the store takes writes, and no shutdown is under way (reliability.md §2)."""

import asyncio
from importlib.metadata import version

import anyio
import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response

from rejoinder.server.services import Services
from rejoinder.store import StoreError

PROBE_EVERY = 5.0
"""Seconds between two looks at the store."""

PROBE_TIMEOUT = 10.0
"""Seconds the store has to take a tiny write (reliability.md §2)."""

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Report(msgspec.Struct):
    status: str
    version: str
    store: str
    running: int


class Health:
    """Looks at the store in the background; a store that fails refuses stored turns before anybody is paid."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._version = version("rejoinder")

    async def run(self) -> None:
        while True:
            await self.look()
            await anyio.sleep(PROBE_EVERY)

    async def look(self) -> None:
        condition = self._services.condition
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._services.store.probe()
        except (StoreError, TimeoutError) as error:
            if condition.store_works:
                _logger.error("store does not work", exc_info=error)
            condition.store_works = False
        else:
            if not condition.store_works:
                _logger.info("store works again")
            condition.store_works = True

    async def report(self, request: Request) -> Response:
        services = self._services
        draining, works = services.running.draining, services.condition.store_works
        status = "draining" if draining else "ok" if works else "store_failed"
        body = Report(status, self._version, "ok" if works else "failed", len(services.running))
        return Response(msgspec.json.encode(body), 200 if status == "ok" else 503, media_type="application/json")
