"""A relay in front of the server: every byte goes on as it came, and what is said over WebSockets is written down.

    with Relay(server.port) as relay:
        ...  # a client at relay.base_url
        [socket] = relay.sockets

It is where a test sees what a client program sends, which the program itself does not say.
"""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Raw
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol, Side


class Item(msgspec.Struct, frozen=True):
    """The part of an item the tests read."""

    type: str = "message"
    role: str = ""
    call_id: str = ""
    encrypted_content: str = ""
    content: Raw = Raw(b"null")
    output: Raw = Raw(b"null")


class Said(msgspec.Struct, frozen=True):
    """A message of the client."""

    type: str
    model: str = ""
    previous_response_id: str | None = None
    generate: bool = True
    store: bool = True
    input: list[Item] = []
    tools: Raw = Raw(b"null")
    response_id: str = ""
    mode: str = ""

    @property
    def kinds(self) -> list[str]:
        """The types of the items of the input; a message goes by its role."""
        return [item.role if item.type == "message" else item.type for item in self.input]


class Why(msgspec.Struct, frozen=True):
    reason: str


class Fault(msgspec.Struct, frozen=True):
    code: str
    message: str


class Made(msgspec.Struct, frozen=True):
    """A response, as far as an event shows it."""

    id: str
    status: str = ""
    previous_response_id: str | None = None
    error: Fault | None = None
    incomplete_details: Why | None = None
    output: list[Item] = []


class Told(msgspec.Struct, frozen=True):
    """A message of the server."""

    type: str
    response: Made | None = None
    item: Item | None = None
    status: int | None = None
    error: Fault | None = None


@dataclass(slots=True)
class Line:
    """One connection. `request` is the head it began with, `answer` that of the first answer to it."""

    request: str = ""
    answer: str = ""
    refusal: bytearray = field(default_factory=bytearray)
    """What follows the head of an answer that is an error."""

    said: list[bytes] = field(default_factory=list)
    told: list[bytes] = field(default_factory=list)
    binary: int = 0
    """Messages that were not text, from either side."""

    closed: int | None = None
    """The code of the server's close frame."""

    @property
    def status(self) -> int:
        return int(self.answer.split(" ")[1]) if self.answer else 0

    @property
    def is_socket(self) -> bool:
        return self.status == 101

    @property
    def is_compressed(self) -> bool:
        """Such messages are passed on unread."""
        return "permessage-deflate" in self.answer

    @property
    def asked(self) -> list[Said]:
        """What the client said, in order."""
        return [msgspec.json.decode(message, type=Said) for message in self.said]

    @property
    def creates(self) -> list[Said]:
        return [said for said in self.asked if said.type == "response.create"]

    @property
    def answered(self) -> list[Told]:
        return [msgspec.json.decode(message, type=Told) for message in self.told]

    @property
    def faults(self) -> list[str]:
        """What the server said went wrong, each with its status or the one of the response."""
        return [fault for told in self.answered for fault in _faults(told)]

    @property
    def ended(self) -> list[Made]:
        """The responses that came to an end, in order."""
        return [told.response for told in self.answered if told.type in _TERMINAL and told.response is not None]


def _faults(told: Told) -> Iterator[str]:
    if told.error is not None:
        yield f"{told.status} {told.error.code}: {told.error.message}"
    if told.response is not None and told.response.error is not None:
        yield f"{told.response.status} {told.response.error.code}: {told.response.error.message}"
    if told.response is not None and told.response.incomplete_details is not None:
        yield f"{told.response.status} {told.response.incomplete_details.reason}"


_TERMINAL = ("response.completed", "response.incomplete", "response.failed")


class Relay:
    """Listens on a port of its own while its context is open. A server that is away is a connection that breaks off."""

    def __init__(self, port: int) -> None:
        self.lines: list[Line] = []
        self._server_port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def sockets(self) -> Sequence[Line]:
        """The WebSockets that were opened, in order."""
        return [line for line in self.lines if line.is_socket]

    @property
    def posts(self) -> int:
        """The connections that began with a POST."""
        return sum(line.request.startswith("POST ") for line in self.lines)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listener = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=5)
        self.port: int = self._listener.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()
        if self._failure and exc is None:
            raise self._failure

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._carried)

    def _carried(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._failure = self._failure or task.exception()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line()
        self.lines.append(line)
        try:
            answer, ask = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(
                _pass_on(reader, ask, _Ear(Side.SERVER, line)), _pass_on(answer, writer, _Ear(Side.CLIENT, line))
            )
        finally:
            for one in (writer, ask):
                one.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ear: "_Ear") -> None:
    with suppress(OSError):  # whoever is gone is gone for both
        while data := await reader.read(65_536):
            ear.hear(data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        return
    writer.transport.abort()


class _Ear:
    """One direction of a connection. `side` is the end that hears it."""

    def __init__(self, side: Side, line: Line) -> None:
        self._of_client = side is Side.SERVER
        self._line = line
        self._head = bytearray()
        self._has_head = False
        self._protocol = Protocol(side, max_size=None)
        self._message = bytearray()

    def hear(self, data: bytes) -> None:
        if not self._has_head:
            self._head += data
            head, end, data = bytes(self._head).partition(b"\r\n\r\n")
            if not end:
                return
            self._has_head = True
            if self._of_client:
                self._line.request = head.decode("latin-1")
            else:
                self._line.answer = head.decode("latin-1")
        if self._line.is_socket and not self._line.is_compressed:
            self._listen(data)
        elif not self._of_client and self._line.status >= 400:
            self._line.refusal += data

    def _listen(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        if self._protocol.parser_exc is not None:
            raise self._protocol.parser_exc
        for event in self._protocol.events_received():
            assert isinstance(event, Frame), "after the handshake there are only frames"
            self._frame(event)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE and not self._of_client:
            self._line.closed = Close.parse(frame.data).code
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        self._message += frame.data
        self._line.binary += frame.opcode is Opcode.BINARY
        if frame.fin:
            (self._line.said if self._of_client else self._line.told).append(bytes(self._message))
            self._message.clear()
