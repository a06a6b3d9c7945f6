"""What a server may lack without breaking a rule.

A server lacks something when it says so: a path that is not there, a parameter refused by its name. One that tries and
fails has it, and breaks the rules.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from rejoinder.conformance.answer import read, skip_if_refused
from rejoinder.conformance.errors import Broken, NotApplicable, UpgradeRefused
from rejoinder.conformance.server import Server

_NOT_THERE = (404, 405, 501)


@dataclass(frozen=True, slots=True)
class Need:
    """`look` raises NotApplicable, with the reason, when the server lacks it. A server is asked once."""

    name: str
    look: Callable[[Server], Awaitable[None]]


async def check_needs(needs: Iterable[Need], server: Server) -> None:
    """Raises NotApplicable when the server lacks one of these."""
    for need in needs:
        with suppress(Broken):
            await server.once(need.look)


async def _key(server: Server) -> None:
    if not server.has_key:
        raise NotApplicable("no key was given, so none is known to be asked for")


class _Background(msgspec.Struct):
    background: bool | None = None


async def _background(server: Server) -> None:
    reply = await server.post(input="Say hello.", background=True)
    skip_if_refused(reply, ("background",))
    if not read(_Background, reply.expect(200).body, "a response").background:
        raise NotApplicable("the server answers a background request as any other")


def _path(path: str) -> Callable[[Server], Awaitable[None]]:
    async def look(server: Server) -> None:
        # Empty, so that it costs nothing where the path is there.
        reply = await server.send("POST", path, b"{}")
        if reply.status in _NOT_THERE:
            raise NotApplicable(f"POST {path} is not there: {reply.excerpt}")

    return look


async def _websocket(server: Server) -> None:
    try:
        async with server.socket():
            pass
    except UpgradeRefused as refused:
        if refused.status in (400, 426, *_NOT_THERE):
            raise NotApplicable(f"there is no WebSocket: status {refused.status}") from None
        raise


KEY = Need("key", _key)
BACKGROUND = Need("background", _background)
CONVERSATIONS = Need("conversations", _path("/conversations"))
COMPACTION = Need("compaction", _path("/responses/compact"))
COUNTING = Need("counting", _path("/responses/input_tokens"))
WEBSOCKET = Need("websocket", _websocket)
