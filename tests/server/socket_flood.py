"""What a fuzz of the WebSocket needs beside a client: one without manners, and somebody who must not notice.

`Wild` is a client without a library: it sends what it likes, and reads when it likes. `unharmed` has turns run beside
whatever a test does, and looks at what came of them.
"""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import Action, Answer, Asked, Head, Pause, Step, answer, text
from rejoinder.conformance.upstreams.sent import SentChat
from tests.server.site import Json, Site, folded
from tests.server.socket_stage import last, more
from tests.server.sockets import Talk, talking

TEXT, BINARY, CONTINUED, CLOSE, PING = 1, 2, 0, 8, 9

GAP = 0.01
"""Seconds between two pieces of an answer that trickles."""


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A frame under the mask of zeros, which leaves the payload as it is."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65_536:
        length = b"\xfe" + size.to_bytes(2)
    else:
        length = b"\xff" + size.to_bytes(8)
    return bytes((opcode | 0x80 * final,)) + length + bytes(4) + payload


class Wild:
    """A client that is up to no good. It blocks, so a test has it in a thread."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(
            b"GET /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        self._file = self.socket.makefile("rb")
        assert self._file.readline().startswith(b"HTTP/1.1 101 ")
        while self._file.readline() != b"\r\n":
            pass

    def push(self, data: bytes, *, patience: float) -> int:
        """Send the same again and again, until nobody takes it for so many seconds. Returns how many bytes left."""
        self.socket.settimeout(patience)
        sent = 0
        pile = data * (2**20 // len(data) + 1)
        while sent < 2**30:
            try:
                # Where a piece of it left, the rest of that piece goes first.
                sent += self.socket.send(memoryview(pile)[sent % len(data) :])
            except TimeoutError:
                return sent
        raise AssertionError("whatever is sent is taken, for ever")

    def read(self) -> tuple[int, bytes]:
        """The next frame: its opcode and its payload."""
        first, size = self._file.read(2)
        if size > 125:
            size = int.from_bytes(self._file.read(2 if size == 126 else 8))
        return first & 15, self._file.read(size)

    def hear(self) -> Json:
        opcode, payload = self.read()
        assert opcode == TEXT, payload
        return json.loads(payload)

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@dataclass(frozen=True, slots=True)
class Trickle:
    """An answer that goes on until it is told to end."""

    said: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def end(self) -> None:
        self._over.set()

    def actions(self, request: Asked) -> Iterator[Action]:
        yield Head()
        while not self._over.is_set():
            self.said.append(f"{len(self.said)} ")
            yield more(self.said[-1])
            yield Pause(GAP)
        yield last()


def echo(provider: ChatUpstream, **others: Step) -> None:
    """Have the provider repeat what it hears, and answer these words in a way of their own."""
    provider.requests.clear()

    def script(request: SentChat) -> Step:
        said = request.messages[-1].text
        return others.get(said) or _echoed(said)

    provider.follow(script)


def _echoed(said: str) -> Answer:
    return answer(text(f"re: {said[:100]}"))


@asynccontextmanager
async def unharmed(here: Site, provider: ChatUpstream, *talks: Talk, **others: Step) -> AsyncIterator[None]:
    """A turn runs on a connection of its own meanwhile, and one in another lane of each of these connections: all they
    were told came whole and in order, and nobody else waited long for an answer."""
    trickles = [Trickle() for _ in range(len(talks) + 1)]
    echo(provider, **{f"trickle-{number}": trickle for number, trickle in enumerate(trickles)}, **others)
    async with talking(here) as own:
        everybody = [own, *talks]
        begun = []
        for number, talk in enumerate(everybody):
            await talk.create(lane="trickle", input=f"trickle-{number}", store=False)
            begun.append(await talk.until("response.in_progress", "trickle"))
        yield
        async with talking(here) as late, asyncio.timeout(5):
            await late.create(input="hello", store=False)
            folded(await late.answer())
        for talk, events, trickle in zip(everybody, begun, trickles, strict=True):
            trickle.end()
            response = folded([*events, *await talk.answer("trickle")])
            assert response["output"][0]["content"][0]["text"] == "".join(trickle.said)
