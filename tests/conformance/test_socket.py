import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSCloseCode, web

from rejoinder.conformance.errors import NoAnswer
from rejoinder.conformance.server import Server
from tests.conformance.little_server import MODEL, LittleServer, serving
from tests.conformance.test_server import at

Talk = Callable[[web.WebSocketResponse], Awaitable[object]]


@asynccontextmanager
async def talking(talk: Talk, timeout: float = 5) -> AsyncIterator[Server]:
    """A server that says this over its socket and closes it."""

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await talk(socket)
        await socket.close(code=WSCloseCode.GOING_AWAY)
        return socket

    async with at(handler, timeout=timeout) as server:
        yield server


async def test_a_response_is_created_and_told_in_frames() -> None:
    async with (
        serving(LittleServer()) as url,
        Server.at(url, MODEL, key=None, timeout=5) as server,
        server.socket() as socket,
    ):
        await socket.create(input="Say hello.")
        kinds: list[str] = []
        while not kinds or kinds[-1] != "response.completed":
            kinds.append(json.loads(await socket.receive())["type"])
        await socket.create(input=7)
        assert json.loads(await socket.receive())["error"]["param"] == "input"
    assert kinds[:2] == ["response.created", "response.in_progress"]
    opening, first, second = server.transcript
    assert (opening.asked, opening.answered) == ("WebSocket /responses", "open")
    assert first.sent == b'{"type":"response.create","model":"little","input":"Say hello."}'
    assert (first.answered, first.received.count(b"\n")) == ("frames", len(kinds))
    assert b'"error"' in second.received


async def test_the_end_of_a_connection_is_no_answer() -> None:
    async def silent(socket: web.WebSocketResponse) -> None:
        pass

    async with talking(silent) as server, server.socket() as socket:
        assert socket.close_code is None
        with pytest.raises(NoAnswer, match=r"got the end of the connection \(close code 1001\)"):
            await socket.receive()
        assert socket.close_code == 1001
        with pytest.raises(NoAnswer, match=r"expected an open connection, got a closed one \(close code 1001\)"):
            await socket.send(b"{}")


async def test_a_frame_that_does_not_come_is_no_answer() -> None:
    async with talking(lambda socket: asyncio.sleep(0.5), timeout=0.1) as server, server.socket() as socket:
        with pytest.raises(NoAnswer, match="expected a frame in time, got none"):
            await socket.receive()


async def test_a_frame_that_is_none_of_text_is_noted() -> None:
    async with talking(lambda socket: socket.send_bytes(b"{}")) as server, server.socket() as socket:
        assert await socket.receive() == b"{}"
        assert socket.binary == [b"{}"]


async def test_pings_are_answered_in_both_directions() -> None:
    async def ping(socket: web.WebSocketResponse) -> None:
        await socket.ping(b"server")
        await socket.send_str(str((await socket.receive(5)).data))

    async with talking(ping) as server, server.socket() as socket:
        await socket.ping(b"client")
        await socket.send(b"hello")
        assert await socket.receive() == b"hello"
        assert socket.pongs == [b"client"]
        with pytest.raises(NoAnswer, match="the end of the connection"):
            await socket.receive()
        with pytest.raises(NoAnswer, match="expected an open connection"):
            await socket.ping(b"client")


async def test_a_socket_has_headers_and_may_be_compressed() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(f"{request.headers['openai-beta']} {request.headers['sec-websocket-extensions']}")
        return socket

    async with (
        at(handler) as server,
        server.socket(headers={"openai-beta": "1"}, compressed=True) as socket,
    ):
        assert (await socket.receive()).startswith(b"1 permessage-deflate")
