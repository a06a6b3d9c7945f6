"""`GET /v1/responses`, upgraded: the create call as a conversation of messages (websocket.md).

One reader takes the client's messages as they come and gives each to its lane, so that it always hears what is said
next, pings included; the lanes do the rest.
"""

import asyncio
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import structlog
from msgspec import Raw, Struct
from starlette.types import Message, Receive, Scope, Send

from rejoinder.server import envelope
from rejoinder.server.access import owner_of
from rejoinder.server.body import check
from rejoinder.server.envelope import describe, from_codex
from rejoinder.server.errors import InvalidRequest, NotFound, TooMany, Unavailable, UpgradeRefused
from rejoinder.server.identity import named
from rejoinder.server.lanes import PIECE, Asked, Connection, Lane, Writer
from rejoinder.server.services import Services
from rejoinder.server.sse import Pulse
from rejoinder.server.steering import Code, Said, failed, read, unread
from rejoinder.server.websocket_protocol import FRAMES, SHUTDOWN
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.events import SteerFailed, encode

MOST_LANES = 32
"""Names of lanes of one connection, over its whole life."""

MOST_WAITING = 256
"""Create calls that may wait, in all lanes together (reliability.md P7)."""

AT_A_STRETCH = 32
"""Messages the reader of a connection may take before it is the turn of others."""

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_KNOWN = ("response.create", "response.interrupt", "response.processed", "response.steer")

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class _Head(Struct):
    """What is read of a message before it is anybody's turn."""

    type: Raw = Raw()
    stream_id: Raw = Raw()
    previous_response_id: Raw = Raw()
    response_id: Raw = Raw()


_HEAD = msgspec.json.Decoder(_Head)
_TEXT = msgspec.json.Decoder(str)


class NoSocket:
    """Every path but one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotFound(f"Invalid URL (WebSocket {scope['path'][:200]})")


class ResponsesSocket:
    """The endpoint. Pure ASGI."""

    def __init__(self, services: Services, pulse: Pulse) -> None:
        self._services = services
        self._pulse = pulse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._services.settings.server
        if not settings.websocket:
            raise UpgradeRefused
        self._services.running.admit()
        await receive()  # `websocket.connect`
        await send({"type": "websocket.accept"})
        socket = Socket(self._services, self._pulse, scope, send)
        expiry = asyncio.get_running_loop().call_later(settings.websocket_lifetime, socket.expire)
        try:
            heard = 0
            while (message := await receive())["type"] != "websocket.disconnect":
                await socket.hear(message)
                heard += 1
                # Thousands of small ones may have come together, and nothing here need wait for anything. One at a time
                # would make the last of them wait for as many turns of every lane.
                if heard % AT_A_STRETCH == 0:
                    await asyncio.sleep(0)
        except Exception as error:
            # The last frame of the connection: a fault of ours ends it, and nothing else.
            _logger.error("a connection ended badly", exc_info=error)
            await socket.end(1011, "internal error")
        finally:
            expiry.cancel()
            await socket.close()


class Socket:
    """One connection, and the lanes its client has named."""

    def __init__(self, services: Services, pulse: Pulse, scope: Scope, send: Send) -> None:
        self._services = services
        self._send = send
        self._in_one_go = FRAMES in scope["extensions"]
        self._lanes: dict[str | None, Lane] = {}
        self._codex = from_codex(scope["headers"])
        self._writer = Writer(self._write, PIECE if self._in_one_go else 1)
        self._connection = Connection(
            services, owner_of(scope), named(scope["headers"]), self._codex, pulse, self._writer, self._when_idle
        )
        self._ending: asyncio.Task[None] | None = None
        self._expired = False
        self._draining = False
        self._closed = False

    async def hear(self, message: Message) -> None:
        """One message of the client, or of the server about the connection."""
        if message["type"] == SHUTDOWN:
            self.drain()
            return
        try:
            await self._heard(message.get("text"))
        except (BadRequest, InvalidRequest) as error:
            await self._refuse(error)

    def expire(self) -> None:
        """The time of the connection is over: what was asked for is answered, and nothing new is taken."""
        self._expired = True
        self._when_idle()

    def drain(self) -> None:
        """The server stops."""
        self._draining = True
        self._when_idle()

    async def close(self) -> None:
        """The client is gone."""
        self._writer.is_gone = self._closed = True
        if self._ending is not None:
            await asyncio.wait((self._ending,))
        ending = [task for lane in self._lanes.values() for task in lane.close()]
        if ending:
            await asyncio.wait(ending)

    async def end(self, code: int, reason: str) -> None:
        """Say goodbye; whether anybody hears it does not matter."""
        self._writer.is_gone = True
        with suppress(OSError):  # it has left already
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    # Inside.

    async def _write(self, frames: Sequence[bytes]) -> None:
        if self._in_one_go:
            await self._send({"type": "websocket.send", "frames": frames})
        else:
            [frame] = frames
            await self._send({"type": "websocket.send", "text": frame.decode()})

    async def _heard(self, text: str | None) -> None:
        if text is None:
            raise InvalidRequest("Expected a text message with a JSON object, but got a binary one.")
        body = text.encode()
        await check(body)
        head = _HEAD.decode(body)
        match _text(head.type, "type"):
            case "response.create":
                await self._create(head, body)
            case "response.steer":
                await self._steer(body)
            case "response.interrupt":
                self._interrupt(_text(head.response_id, "response_id"))
            case "response.processed":
                pass  # an acknowledgement that wants none (websocket.md §2)
            case None:
                raise BadRequest("Missing required parameter: 'type'.", param="type",
                                 code="missing_required_parameter")  # fmt: skip
            case other:
                known = ", ".join(f"'{one}'" for one in _KNOWN)
                raise BadRequest(
                    f"Invalid value: '{other[:50]}'. Supported values are: {known}. To stop a response, close the "
                    "connection.",
                    param="type",
                    code="invalid_value",
                )

    async def _create(self, head: _Head, body: bytes) -> None:
        lane = self._lane(head.stream_id)
        if lane is None:
            name = _TEXT.decode(head.stream_id)
            raise _TooManyLanes(name)
        waiting = [each.waiting() for each in self._lanes.values()]
        number, size = sum(one for one, _ in waiting), sum(bytes_ for _, bytes_ in waiting)
        if number and (number >= MOST_WAITING or size + len(body) > self._services.settings.server.max_body_bytes):
            await lane.refuse(TooMany(f"There are {number} requests waiting on this connection already."))
            return
        lane.add(Asked(body, _maybe(head.previous_response_id), refused=self._refusal()))

    def _lane(self, given: Raw) -> Lane | None:
        """The lane of that name; None if there can be no more. Raises InvalidRequest for what is no name."""
        name: str | None = None
        if bytes(given) not in (b"", b"null"):
            name = _maybe(given)
            if name is None or not _STREAM_ID.fullmatch(name):
                raise InvalidRequest(_NO_NAME, param="stream_id", code="invalid_stream_id")
        lane = self._lanes.get(name)
        if lane is None:
            if name is not None and len(self._lanes) - (None in self._lanes) >= MOST_LANES:
                return None
            lane = self._lanes[name] = Lane(name, self._connection)
        return lane

    def _refusal(self) -> Exception | None:
        """Why nothing new is taken."""
        if self._draining:
            return Unavailable("the server is shutting down; try again in a moment", code="server_is_overloaded")
        return self._limit_reached() if self._expired else None

    def _limit_reached(self) -> InvalidRequest:
        minutes = self._services.settings.server.websocket_lifetime / 60
        return InvalidRequest(
            f"Responses websocket connection limit reached ({minutes:g} minutes). "
            "Create a new websocket connection to continue.",
            code="websocket_connection_limit_reached",
        )

    async def _steer(self, body: bytes) -> None:
        said = unread(body)
        lane = next((each for each in self._lanes.values() if said.to and each.last == said.to), None)
        try:
            said = read(body)
        except BadRequest as error:
            await self._unsteered(lane, said, "invalid_input", str(error))
            return
        if lane is None:
            await self._unsteered(
                None, said, "response_not_found", f"No response '{said.to[:100]}' on this connection."
            )
        elif lane.turn is None or lane.turn.id != said.to or not lane.turn.is_open:
            await self._unsteered(lane, said, "response_already_completed", "The response is complete already.")
        else:
            await lane.turn.hear(msgspec.structs.replace(said, id=f"steer_{secrets.token_hex(16)}"))

    async def _unsteered(self, lane: Lane | None, said: Said, code: Code, message: str) -> None:
        if lane is not None:
            await lane.refuse_words(said, code, message)
        else:
            await self._writer.say(encode(SteerFailed(0, *failed(said, code, message))))

    def _interrupt(self, response_id: str | None) -> None:
        """End a response. One that is over has said so already, in a message that crossed this one."""
        for lane in self._lanes.values():
            if lane.turn is not None and lane.turn.id == response_id and lane.turn.is_open:
                lane.turn.interrupt()

    async def _refuse(self, error: Exception) -> None:
        frame = envelope.frame(describe(error, codex=self._codex))
        if isinstance(error, _TooManyLanes):
            frame = frame[:-1] + b',"stream_id":%b}' % msgspec.json.encode(error.name)
        await self._writer.say(frame)

    def _when_idle(self) -> None:
        """End the connection once its lanes are quiet, if it is to end."""
        over = (self._draining or self._expired) and not self._closed
        if over and self._ending is None and not any(lane.is_busy for lane in self._lanes.values()):
            self._ending = asyncio.create_task(self._end_quietly())

    async def _end_quietly(self) -> None:
        if self._draining:
            await self.end(1001, "the server is shutting down")
        else:
            await self._refuse(self._limit_reached())
            await self.end(1000, "time is up")


class _TooManyLanes(InvalidRequest):
    """Raised for one name more than a connection may have."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"This WebSocket connection has reached its maximum number of distinct stream IDs ({MOST_LANES}). Reuse an "
            "existing stream_id or open a new WebSocket connection.",
            param="stream_id",
            code="websocket_stream_limit_reached",
        )
        self.name = name


_NO_NAME = (
    "The 'stream_id' field must be a non-empty string with at most 256 characters and may only contain letters, "
    "numbers, underscores, hyphens, and periods."
)


def _text(given: Raw, name: str) -> str | None:
    """A string; None where there is none. Raises BadRequest for anything else."""
    if bytes(given) in (b"", b"null"):
        return None
    text = _maybe(given)
    if text is None:
        raise BadRequest(f"Invalid type for '{name}': expected a string.", param=name, code="invalid_type")
    return text


def _maybe(given: Raw) -> str | None:
    try:
        return _TEXT.decode(given)
    except msgspec.MsgspecError:
        return None
