"""A WebSocket client without opinions: the `websockets` library, and the messages as the JSON they are.

with talking(server.base_url, key) as talk:
    talk.create(model="test-model", input="Hello")
    *_, last = talk.answer()
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any  # JSON as it comes: tests look at it from every side

from websockets.sync.client import connect
from websockets.sync.connection import Connection

PATIENCE = 10.0
"""Seconds a test waits for a message that has to come."""

TERMINAL = ("response.completed", "response.incomplete", "response.failed")

Event = dict[str, Any]


class Talk:
    """One connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, message: Mapping[str, object]) -> None:
        self._connection.send(json.dumps(message))

    def create(self, **fields: object) -> None:
        self.say({"type": "response.create", **fields})

    def hear(self) -> Event:
        """The next message."""
        said = self._connection.recv(PATIENCE)
        assert isinstance(said, str), "every message is text (websocket.md §1)"
        event = json.loads(said)
        assert isinstance(event, dict)
        return event

    def until(self, kind: str) -> list[Event]:
        """The messages up to the first one of this type."""
        events = [self.hear()]
        while events[-1]["type"] != kind:
            events.append(self.hear())
        return events

    def answer(self) -> list[Event]:
        """The messages up to the end of a response, or up to the error there is instead of one."""
        events = [self.hear()]
        while events[-1]["type"] not in (*TERMINAL, "error"):
            events.append(self.hear())
        return events


@contextmanager
def talking(base_url: str, key: str, headers: Mapping[str, str] | None = None) -> Iterator[Talk]:
    """A connection to the Responses endpoint of this base URL."""
    url = f"{base_url.replace('http', 'ws', 1)}/responses"
    told = {"Authorization": f"Bearer {key}", **(headers or {})}
    with connect(url, additional_headers=told, compression=None, max_size=None, proxy=None) as connection:
        yield Talk(connection)
