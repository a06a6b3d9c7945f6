"""Both ends of a socket in one process, as aiohttp has them, so that no network lies between the little server and its
client."""

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import WSCloseCode, WSMsgType

from tests.conformance.little_exchange import Exchange
from tests.conformance.little_server import LittleServer
from tests.conformance.little_socket import LittleSocket, open_socket


@dataclass(frozen=True, slots=True)
class Frame:
    type: WSMsgType
    data: Any


class Pipe:
    """One end; what it sends, the other one receives."""

    def __init__(self) -> None:
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.other = self
        self.close_code: int | None = None

    def _send(self, kind: WSMsgType, data: Any) -> None:
        if self.close_code is not None:
            raise ConnectionResetError
        self.other._frames.put_nowait(Frame(kind, data))

    async def send_str(self, data: str) -> None:
        self._send(WSMsgType.TEXT, data)

    async def send_bytes(self, data: bytes) -> None:
        self._send(WSMsgType.BINARY, data)

    async def ping(self, data: bytes) -> None:
        self._send(WSMsgType.PING, data)

    async def pong(self, data: bytes) -> None:
        self._send(WSMsgType.PONG, data)

    async def close(self) -> None:
        if self.close_code is None:
            self._send(WSMsgType.CLOSE, None)
            self.close_code = WSCloseCode.OK
            self._frames.put_nowait(Frame(WSMsgType.CLOSED, None))

    async def receive(self, timeout: float | None = None) -> Frame:
        frame = await asyncio.wait_for(self._frames.get(), timeout)
        if frame.type is WSMsgType.CLOSE:
            self.close_code = WSCloseCode.OK
        return frame

    def __aiter__(self) -> "Pipe":
        return self

    async def __anext__(self) -> Frame:
        frame = await self.receive()
        if frame.type in (WSMsgType.CLOSE, WSMsgType.CLOSED):
            raise StopAsyncIteration
        return frame


class ClientPipe(Pipe):
    """The client's end of a socket to a little server. It is open as long as somebody is within."""

    def __init__(self, server: LittleServer, opening: Exchange) -> None:
        super().__init__()
        self.other = Pipe()
        self.other.other = self
        self._served = asyncio.create_task(self._serve(LittleSocket(server, opening, self.other)))

    async def _serve(self, socket: LittleSocket) -> None:
        await socket.run()
        await self.other.close()

    async def __aenter__(self) -> "ClientPipe":
        return self

    async def __aexit__(self, *how: object) -> None:
        await self.close()
        await self._served


def connected(server: LittleServer, opening: Exchange) -> ClientPipe:
    """Raises WSServerHandshakeError as aiohttp does."""
    open_socket(server, opening)
    if opening.told is not None:
        request: Any = None  # nobody looks at it
        raise aiohttp.WSServerHandshakeError(request, (), status=opening.status)
    return ClientPipe(server, opening)
