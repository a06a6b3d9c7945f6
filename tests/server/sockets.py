"""A client of the WebSocket: the real library, and the rules every conversation over it has to keep.

async with site(services) as here, talking(here) as talk:
    await talk.create(input="hello")
    events = await talk.answer()
"""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.server.site import MODEL, TERMINAL, Json, Site

PATIENCE = 10.0
"""Seconds a test waits for a message that has to come."""


class Talk:
    """One connection. Messages that were not asked for yet wait, by lane."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.heard: list[Json] = []
        """All messages, in the order in which they came."""

        self._waiting: dict[str | None, deque[Json]] = defaultdict(deque)

    async def send(self, message: Json) -> None:
        await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def create(self, *, lane: str | None = None, **fields: object) -> None:
        named = {} if lane is None else {"stream_id": lane}
        await self.send({"type": "response.create", "model": MODEL, **named, **fields})

    async def next(self, lane: str | None = None) -> Json:
        """The next message of a lane."""
        while not self._waiting[lane]:
            async with asyncio.timeout(PATIENCE):
                said = await self.connection.recv()
            assert isinstance(said, str), "every message is text"
            message = json.loads(said)
            self.heard.append(message)
            self._waiting[message.get("stream_id")].append(message)
        return self._waiting[lane].popleft()

    async def until(self, kind: str, lane: str | None = None) -> list[Json]:
        """The messages of a lane up to the first one of this type."""
        found: list[Json] = []
        while not found or found[-1]["type"] != kind:
            found.append(await self.next(lane))
        return found

    async def answer(self, lane: str | None = None) -> list[Json]:
        """The events of one response of a lane, up to its end."""
        events: list[Json] = []
        while not events or events[-1]["type"] not in TERMINAL:
            events.append(await self.next(lane))
            assert events[-1]["type"] != "error", events[-1]
        return events

    async def error(self, lane: str | None = None) -> Json:
        """The next message of a lane, which is an error."""
        message = await self.next(lane)
        assert message["type"] == "error", message
        return message

    async def silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for a while."""
        try:
            async with asyncio.timeout(seconds):
                self.heard.append(json.loads(await self.connection.recv()))
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def talking(
    here: Site, *, key: str | None = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Talk]:
    named = dict(headers or {})
    if key is not None:
        named["authorization"] = f"Bearer {key}"
    url = f"ws://127.0.0.1:{here.port}/v1/responses"
    options: dict[str, Any] = {"compression": None, "max_size": None, "proxy": None}
    async with connect(url, additional_headers=named, **options) as connection:
        yield Talk(connection)
