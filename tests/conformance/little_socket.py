"""The socket of the little server: lanes, warm-ups, what a connection remembers, and steering (websocket.md).

Faults see what goes over it in `heard` and `said`. Not every exchange is a create call: GET opens the socket, PING is a
ping, STEER a steer, and PENDING says what a steer waits for. An entry of `events` may be bytes or a text, and is sent
as that; None closes the socket.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from aiohttp import WSMsgType, web

from tests.conformance.little_server import Exchange, Json, LittleServer, Refused, exchange_of, parsed

MOST_LANES = 32
PATIENCE = 0.05
"""Seconds a response waits to be spoken to when it was asked for slowly."""


async def over_a_socket(server: LittleServer, request: web.Request) -> web.StreamResponse:
    it = exchange_of(request, b"")
    open_socket(server, it)
    if it.told is not None:
        return web.Response(body=msgspec.json.encode(it.told), status=it.status, headers=it.headers)
    socket = web.WebSocketResponse(autoping=False, max_msg_size=0)
    await socket.prepare(request)
    await LittleSocket(server, it, socket).run()
    return socket


def open_socket(server: LittleServer, it: Exchange) -> None:
    """Answer a handshake. It is refused where something is told."""
    it.status = 101
    server.fault.heard(it)
    if (refused := server.unauthorized(it)) is not None:
        it.status, it.told, it.headers = refused.status, {"error": refused.error}, {"content-type": "application/json"}
    server.fault.said(it)


@dataclass(slots=True)
class Lane:
    """One sequence of create calls. `latest` is the id of the response that can be continued."""

    queue: deque[Exchange] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    latest: str | None = None
    running: Exchange | None = None
    """What can be steered."""

    spoken: asyncio.Event = field(default_factory=asyncio.Event)
    cut: str | None = None
    """Why the running response is to end."""

    steers: list[Json] = field(default_factory=list)
    waiting_for: str | None = None
    """The response whose results of tools the steers wait for."""


class Connection(Protocol):
    """What is used of aiohttp's."""

    def __aiter__(self) -> AsyncIterator[Any]: ...
    async def send_str(self, data: str) -> None: ...
    async def send_bytes(self, data: bytes) -> None: ...
    async def pong(self, data: bytes) -> None: ...
    async def close(self) -> object: ...


class LittleSocket:
    def __init__(self, server: LittleServer, opening: Exchange, socket: Connection) -> None:
        self._server = server
        self._fault = server.fault
        self._opening = opening
        self._socket = socket
        self._lanes: dict[Json, Lane] = {}
        self._local: dict[str, Json] = {}

    async def run(self) -> None:
        try:
            async for message in self._socket:
                await self._hear(message)
        finally:
            self._local.clear()
            tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
            for task in tasks:
                task.cancel()
            for end in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(end, Exception) and not isinstance(end, ConnectionError):
                    self._server.crashes.append(end)

    def _exchange(self, method: str, asked: Json) -> Exchange:
        opening = self._opening
        return Exchange(method, opening.path, {}, asked, opening.key, over_a_socket=True, local=self._local)

    async def _hear(self, message: Any) -> None:
        if message.type is not WSMsgType.TEXT:
            await self._answer_ping(message)
            return
        it = self._exchange("POST", None)
        try:
            it.asked = parsed(str(message.data).encode())
            it.lane = it.asked.get("stream_id")
            self._fault.heard(it)
            match it.asked.get("type"):
                case "response.create":
                    self._put(it)
                case "response.steer":
                    await self._steer(it)
                case "response.interrupt":
                    self._cut(it.asked["response_id"], "interrupted")
                case _:
                    raise Refused("no such type", "type", "invalid_value")
        except Refused as refused:
            _refuse(it, refused)
            await self._say(it)

    async def _answer_ping(self, message: Any) -> None:
        it = self._exchange("PING", None)
        it.told = message.data
        self._fault.said(it)
        if it.told is not None:
            await self._socket.pong(it.told)

    async def _say(self, it: Exchange) -> None:
        self._fault.said(it)
        await self._send(it.events)

    async def _send(self, frames: list[Json]) -> None:
        for frame in frames:
            if frame is None:
                await self._socket.close()
            elif isinstance(frame, bytes):
                await self._socket.send_bytes(frame)
            else:
                text = frame if isinstance(frame, str) else msgspec.json.encode(frame).decode()
                await self._socket.send_str(text)
            await asyncio.sleep(0)  # so that lanes take turns

    # Creating.

    def _put(self, it: Exchange) -> None:
        """Put a create call into its lane."""
        if it.lane is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,256}", str(it.lane)):
            raise Refused("no name", "stream_id", "invalid_stream_id")
        if it.lane not in self._lanes:
            if it.lane is not None and len(self._lanes.keys() - {None}) >= MOST_LANES:
                raise Refused("too many", "stream_id", "websocket_stream_limit_reached")
            self._lanes[it.lane] = Lane()
        lane = self._lanes[it.lane]
        lane.queue.append(it)
        if lane.task is None or lane.task.done():
            lane.task = asyncio.create_task(self._work(lane))

    async def _work(self, lane: Lane) -> None:
        while lane.queue:
            await self._answer(lane, lane.queue.popleft())

    async def _answer(self, lane: Lane, it: Exchange) -> None:
        asked = it.asked
        if lane.waiting_for is not None and lane.waiting_for == asked.get("previous_response_id"):
            asked["input"] = [*lane.steers, *asked["input"]]
        lane.steers, lane.waiting_for = [], None
        it.asked = {**asked, "stream": True}
        try:
            if asked.get("background"):
                raise Refused("not here", "background", "unsupported_parameter")
            self._server.serve(it)
        except Refused as refused:
            if asked.get("previous_response_id") == lane.latest:
                self._forget(lane)
            _refuse(it, refused)
            await self._say(it)
            return
        finally:
            it.asked = asked
        self._forget(lane)
        lane.latest = it.made.response["id"]
        self._local[lane.latest] = it.made
        if asked.get("generate") is False:
            _silence(it)
        _name(it, asked)
        if "slowly" in str(asked["input"]):
            await self._say_slowly(lane, it)
        else:
            await self._say(it)

    def _forget(self, lane: Lane) -> None:
        self._local.pop(lane.latest or "", None)
        lane.latest = None

    # Steering.

    async def _say_slowly(self, lane: Lane, it: Exchange) -> None:
        """Wait after the first events. Who is told to end does so, unless there are calls to make."""
        open_calls = [item for item in it.made.response["output"] if item["type"] == "function_call"]
        told = 3 if open_calls else 2
        beginning, rest = it.events[:told], it.events[told:]
        lane.cut, lane.running = None, it
        lane.spoken.clear()
        await self._send(beginning)
        with suppress(TimeoutError):
            await asyncio.wait_for(lane.spoken.wait(), PATIENCE)
        lane.running = None
        it.events = rest
        if lane.cut and not open_calls:
            _end(it, lane.cut)
        await self._say(it)
        if lane.steers and open_calls:
            lane.waiting_for = it.made.response["id"]
            await self._pend(it, open_calls)
        elif lane.steers:
            self._succeed(lane, it)

    def _cut(self, response_id: Json, reason: str) -> Lane | None:
        """End the response of that id, and give its lane, if it is made at the moment."""
        for lane in self._lanes.values():
            if lane.running is not None and lane.running.made.response["id"] == response_id:
                lane.cut = reason
                lane.spoken.set()
                return lane
        return None

    async def _steer(self, it: Exchange) -> None:
        it.method = "STEER"
        target, given = it.asked["previous_response_id"], it.asked["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        lane = None
        if not items or any(item.get("role") != "user" for item in items):
            code = "invalid_input"
        elif (lane := self._cut(target, "steered")) is None:
            code = "response_already_completed" if target in self._local else "response_not_found"
        if lane is not None:
            lane.steers.extend(items)
            it.events = [{"type": "response.steer.accepted", "steer": _steer_of(target)}]
            _name(it, lane.running.asked if lane.running else {})
        else:
            error = {"type": "invalid_request_error", "code": code, "message": "no"}
            steer = {"input": given, "previous_response_id": target}
            it.events = [{"type": "response.steer.failed", "error": error, "steer": steer}]
        it.events[0]["sequence_number"] = 0
        await self._say(it)

    async def _pend(self, made: Exchange, calls: list[Json]) -> None:
        it = self._exchange("PENDING", made.asked)
        it.events = [
            {
                "type": "response.steer.pending",
                "sequence_number": 0,
                "reason": "waiting_for_required_input",
                "required_input": [{"type": "function_call_output", "call_id": call["call_id"]} for call in calls],
                "steer": _steer_of(made.made.response["id"]),
            }
        ]
        _name(it, made.asked)
        await self._say(it)

    def _succeed(self, lane: Lane, made: Exchange) -> None:
        """What was said begins the next response; nobody asks for it."""
        asked = {**made.asked, "previous_response_id": made.made.response["id"], "input": lane.steers}
        successor = self._exchange("POST", asked)
        self._fault.heard(successor)
        lane.queue.appendleft(successor)


def _steer_of(response_id: str) -> Json:
    return {"id": "steer_1", "previous_response_id": response_id}


def _name(it: Exchange, asked: Json) -> None:
    """Events carry the name of the lane, if it has one."""
    for event in it.events:
        if "stream_id" in asked:
            event["stream_id"] = asked["stream_id"]


def _refuse(it: Exchange, refused: Refused) -> None:
    """The error, as a frame. Its code is a text there (websocket.md §10)."""
    error = {**refused.error, "code": refused.error["code"] or "invalid_request"}
    it.status, it.told = refused.status, None
    it.events = [{"type": "error", "status": refused.status, "error": error}]
    if error["code"] != "invalid_stream_id" and isinstance(it.asked, dict):
        _name(it, it.asked)


def _responses(it: Exchange) -> Iterator[Json]:
    """The response at its end: as it is told, and as it is kept."""
    yield it.events[-1]["response"]
    yield it.made.response


def _silence(it: Exchange) -> None:
    """A warm-up says nothing, and can be gone on from."""
    for response in _responses(it):
        response["output"] = []
        response["usage"].update(output_tokens=0, total_tokens=response["usage"]["input_tokens"])
    it.events = [*it.events[:2], {**it.events[-1], "sequence_number": 2}]


def _end(it: Exchange, reason: str) -> None:
    for response in _responses(it):
        response.update(status="incomplete", completed_at=None, output=[], incomplete_details={"reason": reason})
    it.events = [{**it.events[-1], "type": "response.incomplete", "sequence_number": 2}]
