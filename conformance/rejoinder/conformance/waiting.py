"""Waiting for a response that is made in the background."""

import asyncio

from rejoinder.conformance.answer import Answer, read
from rejoinder.conformance.errors import NoAnswer
from rejoinder.conformance.server import Reply, Server

RUNNING = ("queued", "in_progress")

_FIRST = 0.002
_LONGEST = 1.0
"""Seconds between one question and the next: more each time, so that a quick server is not waited for."""


async def ended(server: Server, response_id: str) -> Reply:
    """The response, once it is over. Raises NoAnswer when it is not within the time an answer may take."""
    pause, waited = _FIRST, 0.0
    while True:
        reply = (await server.get(f"/responses/{response_id}")).expect(200)
        if (status := read(Answer, reply.body, "a response").status) not in RUNNING:
            return reply
        if waited >= server.patience:
            raise NoAnswer("an end of the response in time", repr(status))
        await asyncio.sleep(pause)
        pause, waited = min(pause * 2, _LONGEST), waited + pause
