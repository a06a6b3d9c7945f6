"""Real sockets against uvicorn in a thread: websocket.md §6 and §9, reliability.md F24, F26, S9."""

import asyncio
import json
import logging
import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs
from uvicorn.protocols.utils import ClientDisconnected
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket

from rejoinder.server.protocol import Limits, bounded_protocol
from rejoinder.server.websocket_protocol import FRAMES, SHUTDOWN, WebSocketProtocol
from tests.server.test_protocol import self_signed

PATIENCE = 5.0
LIMIT = 1_000
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Brief(WebSocketProtocol):
    LINGER = 0.5
    SLOWEST = 200


class Hasty(Brief):
    """Its turn is over after every few bytes."""

    STRETCH = -1
    PIECE = 24


class Running:
    """A server in a thread. `app` may be exchanged between connections; what it `noted` can be waited for."""

    server: uvicorn.Server

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.app: App = echo
        self.noted: queue.SimpleQueue[Message] = queue.SimpleQueue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)

    def note(self, **facts: object) -> None:
        self.noted.put(facts)

    def next(self) -> Message:
        return self.noted.get(timeout=PATIENCE)

    def dial(self, receive_buffer: int | None = None) -> AbstractContextManager[socket.socket]:
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(PATIENCE)
        connection.connect(self.address)
        return closing(connection)

    @contextmanager
    def open(self, *, receive_buffer: int | None = None, headers: bytes = b"") -> Iterator[socket.socket]:
        """A WebSocket without a library behind it, for clients that misbehave."""
        with self.dial(receive_buffer) as connection:
            connection.sendall(handshake(headers=headers))
            assert read_head(connection).startswith(b"HTTP/1.1 101 ")
            yield connection

    def client(self, *, compression: Literal["deflate"] | None = None) -> ClientConnection:
        host, port = self.address
        return connect_websocket(f"ws://{host}:{port}/", compression=compression, open_timeout=PATIENCE)

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def stays(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await last_words(receive)


async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "x" * 5_000_000})


async def last_words(receive: Receive) -> Message:
    """The `websocket.disconnect`, whatever comes before it."""
    while (message := await receive())["type"] != "websocket.disconnect":
        pass
    return message


@contextmanager
def serving(
    protocol: type[WebSocketProtocol] = Brief,
    *,
    loop: Literal["asyncio", "uvloop"] = "uvloop",
    ping: tuple[float, float] | None = None,
    graceful: float = 2,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Running]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        # What a client does not read must not fit into the kernel.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        running = Running(listener.getsockname())
        config = uvicorn.Config(
            running,
            http=bounded_protocol(Limits(header_timeout=PATIENCE)),
            ws=protocol,
            ws_max_size=LIMIT,
            ws_ping_interval=ping and ping[0],
            ws_ping_timeout=ping and ping[1],
            loop=loop,
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=graceful,  # type: ignore[arg-type]  # it is handed to wait_for
            ssl_certfile=certificate and certificate[0],
            ssl_keyfile=certificate and certificate[1],
        )
        running.server = server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            yield running
        finally:
            server.should_exit = True
            thread.join()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


# The client's side of RFC 6455


def handshake(*, method: bytes = b"GET", headers: bytes = b"", key: bytes = b"AAAAAAAAAAAAAAAAAAAAAA==") -> bytes:
    return (
        b"%s / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: %s\r\n%s\r\n" % (method, key, headers)
    )


def frame(opcode: int, payload: bytes, *, final: bool = True, masked: bool = True, compressed: bool = False) -> bytes:
    """A frame under the mask of zeros, which leaves the payload as it is."""
    first = opcode | 0x80 * final | 0x40 * compressed
    mask = 0x80 * masked
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, mask | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    return head + bytes(4) * masked + payload


def read_head(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        assert piece, data
        data += piece
    return data


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, data
        data += piece
    return data


def read_frame(connection: socket.socket) -> tuple[int, bytes]:
    first, size = exactly(connection, 2)
    if size == 126:
        [size] = struct.unpack("!H", exactly(connection, 2))
    elif size == 127:
        [size] = struct.unpack("!Q", exactly(connection, 8))
    return first & 15, exactly(connection, size)


def rest(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65_536), b""))


@dataclass
class Told:
    """How a connection ended, as its client sees it."""

    status: int
    error: dict[str, str | None]
    code: int


def read_failure(connection: socket.socket) -> Told:
    """An error frame, a close frame, and the end."""
    opcode, content = read_frame(connection)
    assert opcode == TEXT
    message = json.loads(content)
    assert message["type"] == "error"
    opcode, content = read_frame(connection)
    assert opcode == CLOSE
    assert rest(connection) == b""
    return Told(message["status"], message["error"], struct.unpack("!H", content[:2])[0])


def read_refusal(connection: socket.socket) -> Told:
    """An answer that is an error, as http.md §5 and §6.1 want it, and the end."""
    head = read_head(connection)
    body = rest(connection)
    lines = head.decode().lower().strip().split("\r\n")
    names = dict(line.split(": ", 1) for line in lines[1:])
    assert names["content-type"] == "application/json"
    assert int(names["content-length"]) == len(body)
    assert names["connection"] == "close"
    assert names["x-request-id"].startswith("req_")
    assert names["sec-websocket-version"] == "13"
    assert "date" in names
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return Told(int(lines[0].split()[1]), error, 0)


@pytest.fixture(scope="module", params=[Brief, Hasty])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with serving(request.param) as running:
        yield running


@pytest.fixture
def running(server: Running) -> Running:
    assert server.noted.empty()
    server.app = echo
    return server


# Messages


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_of_both_kinds_come_and_go(running: Running, compression: Literal["deflate"] | None) -> None:
    with running.client(compression=compression) as client:
        for message in ("", "ä" * 400, b"\xff", b"x" * LIMIT):
            client.send(message)
            assert client.recv(PATIENCE) == message
        client.send(["a", "", "ä"])
        assert client.recv(PATIENCE) == "aä"
        client.send([b"a", b"\xff"])
        assert client.recv(PATIENCE) == b"a\xff"


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_frames_are_messages_and_leave_in_one_write(
    running: Running, compression: Literal["deflate"] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["", "a" * 125, "ä" * 63, "b" * 65_535, "c" * 65_536]
    writes: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        [protocol] = running.server.server_state.connections
        transport = protocol.transport

        class Counting:
            def __getattr__(self, name: str) -> object:
                return getattr(transport, name)

            def write(self, data: bytes) -> None:
                writes.append(len(data))
                transport.write(data)

        monkeypatch.setattr(protocol, "transport", Counting())
        await send({"type": "websocket.send", "frames": [text.encode() for text in texts]})
        monkeypatch.undo()
        running.note(extensions=scope["extensions"])
        await last_words(receive)

    until(lambda: running.connections == 0)
    running.app = app
    with running.client(compression=compression) as client:
        assert [client.recv(PATIENCE) for _ in texts] == texts
    assert len(writes) == 1
    assert running.next()["extensions"][FRAMES] == {}


def test_frames_are_compressed_for_a_client_that_wants_it(running: Running) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "frames": (b"x" * 500, b"x" * 500)})
        await last_words(receive)

    running.app = app
    with running.open(headers=b"sec-websocket-extensions: permessage-deflate\r\n") as connection:
        for _ in range(2):
            first, size = exactly(connection, 2)
            assert (first, size < 20) == (0xC1, True)
            exactly(connection, size)


def test_frames_before_the_handshake_are_a_mistake(running: Running) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(RuntimeError, match=r"websocket\.accept"):
            await send({"type": "websocket.send", "frames": [b"a"]})
        running.note(done=True)
        await echo(scope, receive, send)

    running.app = app
    with running.client() as client:
        assert running.next()["done"]
        client.send("a")
        assert client.recv(PATIENCE) == "a"


def test_fragments_are_kept_as_the_bytes_they_are(running: Running) -> None:
    until(lambda: running.connections == 0)
    running.app = stays
    with running.open() as connection:
        [protocol] = running.server.server_state.connections
        assert isinstance(protocol, WebSocketProtocol)
        connection.sendall(frame(TEXT, b"a", final=False) + frame(0, b"", final=False) * 1_000 + frame(PING, b""))
        assert read_frame(connection) == (PONG, b"")
        assert len(protocol.frames) == 1


# A client that sends much at once


MUCH = {
    "empty fragments": (frame(TEXT, b"a", final=False) + frame(0, b"", final=False) * 9_998 + frame(0, b"b"), ["ab"]),
    "pongs": (frame(PONG, b"") * 10_000, []),
    "messages": (frame(TEXT, b"a") * 10_000, ["a"] * 10_000),
}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize(("data", "texts"), MUCH.values(), ids=MUCH)
def test_others_have_their_turn_while_much_is_read(
    data: bytes, texts: list[str], loop: Literal["uvloop", "asyncio"]
) -> None:
    with serving(Hasty, loop=loop) as running:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            await receive()
            await send({"type": "websocket.accept"})
            task = asyncio.create_task(other())
            received = []
            while (text := (await receive())["text"]) != "end":
                received.append(text)
            running.note(turns=turns, texts=received)
            task.cancel()

        running.app = app
        with running.open() as connection:
            connection.sendall(data + frame(TEXT, b"end"))
            noted = running.next()
    assert noted["texts"] == texts
    assert noted["turns"] >= 10_000 * len(frame(PONG, b"")) // Hasty.PIECE


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_what_is_not_parsed_yet_goes_with_its_connection(
    loop: Literal["uvloop", "asyncio"], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(Hasty, loop=loop) as running:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            [protocol] = running.server.server_state.connections
            protocol.transport.abort()
            running.note(**await last_words(receive))

        running.app = app
        with running.open() as connection:
            connection.sendall(frame(TEXT, b"a") * 10 + frame(3, b"a"))
            assert rest(connection) == b""
        assert running.next()["type"] == "websocket.disconnect"
    assert caplog.records == []


# What is wrong with them (websocket.md §6, F26)


TOO_LARGE = {
    "the head of it alone": frame(TEXT, b"x" * (LIMIT + 1))[:8],
    "in fragments": frame(TEXT, b"x" * LIMIT, final=False) + frame(0, b"x"),
    "in bytes": frame(BINARY, b"x" * (LIMIT + 1)),
}


@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_message_over_the_limit_is_413_and_1009(running: Running, data: bytes) -> None:
    with running.open() as connection:
        connection.sendall(data)
        told = read_failure(connection)
    assert (told.status, told.code) == (413, 1009)
    assert told.error == {
        "type": "invalid_request_error",
        "code": "message_too_large",
        "message": "The message is larger than 1000 bytes. Send less at a time, or refer to what was sent before by "
        "'previous_response_id'.",
        "param": None,
    }


def test_a_message_over_the_limit_once_inflated_is_413_and_1009(running: Running) -> None:
    with running.client(compression="deflate") as client:
        client.send("x" * LIMIT)
        assert client.recv(PATIENCE) == "x" * LIMIT
        client.send("x" * 1_000_000)
        message = json.loads(client.recv(PATIENCE))
        assert (message["status"], message["error"]["code"]) == (413, "message_too_large")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def test_a_client_that_goes_on_uploading_still_reads_why(running: Running) -> None:
    with running.open() as connection:
        connection.sendall(frame(TEXT, b"x" * 20_000_000))
        assert read_failure(connection).code == 1009


def test_the_same_over_tls(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.create_default_context(cafile=certificate[0])
    with serving(certificate=certificate) as running:
        url = f"wss://127.0.0.1:{running.address[1]}"
        with connect_websocket(url, ssl=context, compression=None, open_timeout=PATIENCE) as client:
            client.send("x" * 1_000_000)
            message = json.loads(client.recv(PATIENCE))
            assert (message["status"], message["error"]["code"]) == (413, "message_too_large")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
        until(lambda: running.connections == 0)


INVALID = {
    "an unmasked frame": (frame(TEXT, b"a", masked=False), 1002, "incorrect masking"),
    "an unknown opcode": (frame(3, b"a"), 1002, "invalid opcode"),
    "a reserved bit": (frame(TEXT, b"a", compressed=True), 1002, "reserved bits must be 0"),
    "a long ping": (frame(PING, b"a" * 126), 1002, "control frame too long"),
    "a continuation of nothing": (frame(0, b"a"), 1002, "unexpected continuation frame"),
    "a close frame between fragments": (
        frame(TEXT, b"a", final=False) + frame(CLOSE, b"\x03\xe8"),
        1002,
        "incomplete fragmented message",
    ),
    "bad UTF-8": (frame(TEXT, b"ab\xff"), 1007, "invalid start byte at position 2"),
    "bad UTF-8 in fragments": (
        frame(TEXT, b"\xc3", final=False) + frame(0, b"\xc3"),
        1007,
        "invalid continuation byte at position 0",
    ),
    "bad UTF-8 among others": (
        frame(TEXT, b"\xff") + frame(TEXT, b"a") + frame(TEXT, b"\xff") + frame(TEXT, b"b"),
        1007,
        "invalid start byte at position 0",
    ),
    "bad UTF-8 in a close frame": (frame(CLOSE, b"\x03\xe8\xff"), 1007, "invalid start byte at position 0"),
}


@pytest.mark.parametrize(("data", "code", "why"), INVALID.values(), ids=INVALID)
def test_what_is_not_a_valid_frame_is_400_and_closes(
    running: Running, data: bytes, code: int, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        running.note(**await receive())
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.send", "text": "too late"})

    running.app = app
    with running.open() as connection:
        connection.sendall(data)
        told = read_failure(connection)
    assert (told.status, told.code) == (400, code)
    assert told.error == {
        "type": "invalid_request_error",
        "code": "invalid_frame",
        "message": f"The frame is not valid: {why}.",
        "param": None,
    }
    assert running.next() == {"type": "websocket.disconnect", "code": code, "reason": why}
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


def test_nothing_is_said_in_front_of_bad_utf8_that_follows_a_close_frame(running: Running) -> None:
    with running.open() as connection:
        connection.sendall(frame(TEXT, b"\xff") + frame(PING, b"a") + frame(CLOSE, b"\x03\xe8"))
        assert read_frame(connection) == (PONG, b"a")
        assert read_frame(connection) == (CLOSE, b"\x03\xe8")
        assert rest(connection) == b""


def test_nonsense_after_our_close_frame_only_ends_it_sooner() -> None:
    with serving(WebSocketProtocol) as running:
        running.app = closes
        with running.open() as connection:
            is_told_to_close(connection)
            started = time.monotonic()
            connection.sendall(frame(3, b"a"))
            assert rest(connection) == b""
            assert time.monotonic() - started < WebSocketProtocol.LINGER / 2


# The handshake (S9)


REFUSED = {
    "no key": (handshake(key=b""), 400, "empty Sec-WebSocket-Key header"),
    "a wrong version": (handshake().replace(b": 13", b": 8"), 400, "invalid Sec-WebSocket-Version header: 8"),
    "two upgrades": (handshake(headers=b"upgrade: websocket\r\n"), 426, "invalid Upgrade header: websocket, websocket"),
    "a POST": (handshake(method=b"POST"), 400, "unsupported HTTP method; expected GET; got POST"),
    "a body": (handshake(headers=b"content-length: 5\r\n"), 400, "unsupported request body"),
    "a long header": (handshake(headers=b"x: %s\r\n" % (b"y" * 10_000)), 400, "line too long"),
}


@pytest.mark.parametrize(("head", "status", "why"), REFUSED.values(), ids=REFUSED)
def test_a_handshake_that_is_none_is_refused_in_our_envelope(
    running: Running, head: bytes, status: int, why: str
) -> None:
    with capture_logs() as logs, running.dial() as connection:
        connection.sendall(head)
        told = read_refusal(connection)
    assert told.status == status
    assert told.error["type"] == "invalid_request_error"
    assert told.error["message"] is not None
    assert why in told.error["message"]
    assert [(line["event"], line["status"]) for line in logs] == [("request refused", status)]
    until(lambda: running.connections == 0)


@pytest.mark.parametrize("early", [frame(PING, b"a"), frame(TEXT, b"a"), b"nonsense"])
def test_what_is_sent_before_the_101_is_refused_and_not_read_as_frames(running: Running, early: bytes) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        running.note(asked=True)
        running.note(**await receive())
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.accept"})

    running.app = app
    with running.dial() as connection:
        connection.sendall(handshake())
        assert running.next()["asked"]
        connection.sendall(early)
        connection.sendall(early)
        told = read_refusal(connection)
    assert told.status == 400
    assert told.error["message"] == "A client must not send before its handshake is answered."
    assert running.next() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def denied(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
    await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b" key"})
    with pytest.raises(ClientDisconnected):
        await send({"type": "websocket.close"})


async def unwanted(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close"})


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


def test_the_application_may_answer_the_handshake_with_a_refusal(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.app = denied
    with running.dial() as connection:
        connection.sendall(handshake())
        assert read_head(connection).startswith(b"HTTP/1.1 401 ")
        assert rest(connection) == b"no key"
    until(lambda: running.connections == 0 and not running.server.server_state.tasks)
    # uvicorn takes such an application for one that never answered.
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("app", "status", "kind", "message"),
    [
        (unwanted, 403, "invalid_request_error", "The handshake was refused."),
        (broken, 500, "server_error", "Internal Server Error"),
    ],
)
def test_uvicorns_own_refusals_have_the_envelope_too(
    running: Running, app: App, status: int, kind: str, message: str
) -> None:
    running.app = app
    with running.dial() as connection:
        connection.sendall(handshake())
        told = read_refusal(connection)
    assert (told.status, told.error["type"], told.error["message"]) == (status, kind, message)


def test_a_client_that_leaves_before_the_answer_is_noticed(running: Running) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        running.note(asked=True)
        running.note(**await receive())

    running.app = app
    with running.dial() as connection:
        connection.sendall(handshake())
        assert running.next()["asked"]
    assert running.next() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    until(lambda: running.connections == 0)


# The end


async def closes(scope: Scope, receive: Receive, send: Send) -> None:
    """Closes when it is told to, and stays until it is over."""
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    await send({"type": "websocket.close", "code": 1001, "reason": "bye"})
    await last_words(receive)


def is_told_to_close(connection: socket.socket) -> None:
    connection.sendall(frame(TEXT, b"close"))
    assert read_frame(connection) == (CLOSE, b"\x03\xe9bye")


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_closing_handshake_ends_at_once_whoever_begins(loop: Literal["uvloop", "asyncio"]) -> None:
    with serving(WebSocketProtocol, loop=loop) as running:
        running.app = closes
        started = time.monotonic()
        with running.client() as client:
            client.send("close")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "bye")
        running.app = echo
        with running.client() as client:
            client.close(4000)
            assert client.close_code == 4000
        until(lambda: running.connections == 0)
        assert time.monotonic() - started < WebSocketProtocol.LINGER / 2


def test_the_application_hears_how_its_client_closed(running: Running) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        running.note(**await last_words(receive))
        for message in ({"text": "a"}, {"frames": [b"a"]}):
            with pytest.raises(ClientDisconnected):
                await send({"type": "websocket.send", **message})
        running.note(done=True)

    running.app = app
    with running.client() as client:
        client.close(4000, "enough")
    assert running.next() == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}
    assert running.next()["done"]


def test_an_unanswered_close_frame_is_no_reason_to_stay(running: Running) -> None:
    running.app = closes
    with running.open() as connection:
        started = time.monotonic()
        is_told_to_close(connection)
        assert rest(connection) == b""
        assert Brief.LINGER / 2 < time.monotonic() - started < PATIENCE / 2


def test_what_comes_before_the_answer_to_our_close_frame_is_for_nobody(running: Running) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await closes(scope, receive, send)
        running.note(**await receive())

    running.app = app
    with running.open() as connection:
        is_told_to_close(connection)
        connection.sendall(frame(TEXT, b"late") + frame(PING, b"a"))
        connection.sendall(frame(CLOSE, b"\x03\xe9"))
        assert rest(connection) == b""
    assert running.next()["type"] == "websocket.disconnect"


def test_the_answer_to_our_close_frame_is_read_behind_what_nobody_wanted() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(0.1)
        await send({"type": "websocket.close"})

    with serving(WebSocketProtocol) as running:
        running.app = app
        with running.client() as client:
            client.send("unwanted")
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE)
        started = time.monotonic()
        until(lambda: running.connections == 0)
        assert time.monotonic() - started < WebSocketProtocol.LINGER / 2


def test_a_connection_that_is_over_leaves_no_timer_behind(running: Running) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await stays(scope, receive, send)
        await asyncio.sleep(0.05)

    until(lambda: running.connections == 0)
    running.app = app
    with running.client():
        until(lambda: running.connections == 1)
        [protocol] = running.server.server_state.connections
        assert isinstance(protocol, WebSocketProtocol)
    until(lambda: not running.server.server_state.tasks)
    assert protocol.close_timer is None


def test_an_application_that_fails_closes_with_1011(running: Running) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    running.app = app
    with running.open() as connection:
        assert read_frame(connection) == (CLOSE, b"\x03\xf3")
        assert rest(connection) == b""


def test_an_application_that_fails_after_its_client_left_makes_no_noise_on_the_line(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await last_words(receive)
        await asyncio.sleep(0)
        raise ZeroDivisionError

    running.app = app
    with running.client():
        pass
    until(lambda: not running.server.server_state.tasks)
    assert [line.exc_info[0] for line in caplog.records if line.exc_info] == [ZeroDivisionError]


async def floods(send: Send) -> None:
    """Sends until the client is behind, which it stays."""
    while True:
        await send({"type": "websocket.send", "text": "x" * 100_000})


def stuck(running: Running, end: Callable[[Receive, Send], Awaitable[None]]) -> App:
    """An application with a client that does not read. It tells what its sender met."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def flood() -> None:
            try:
                await floods(send)
            except ClientDisconnected:
                running.note(sender="released")

        async def frames() -> None:
            await asyncio.sleep(0.02)
            try:
                await send({"type": "websocket.send", "frames": [b"a"]})
            except ClientDisconnected:
                running.note(sender="released")

        await receive()
        await send({"type": "websocket.accept"})
        async with asyncio.TaskGroup() as tasks:
            senders = [tasks.create_task(flood()), tasks.create_task(frames())]
            await asyncio.sleep(0.05)
            running.note(stuck=True)
            await end(receive, send)
            await asyncio.sleep(0.01)
            for sender in senders:
                sender.cancel()

    return app


async def wait_for_the_end(receive: Receive, send: Send) -> None:
    await last_words(receive)


async def close_it(receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 1001})


ENDS = {
    "the application closes": (close_it, b""),
    "the client closes": (wait_for_the_end, frame(CLOSE, b"\x03\xe8")),
    "the client pings and closes": (wait_for_the_end, frame(PING, b"a") + frame(CLOSE, b"\x03\xe8")),
    "the client breaks the rules": (wait_for_the_end, frame(3, b"")),
    "the client says that it is done": (wait_for_the_end, None),
}


def ends_in_time(running: Running, end: Callable[[Receive, Send], Awaitable[None]], data: bytes | None) -> None:
    running.app = stuck(running, end)
    with running.open(receive_buffer=4_096) as connection:
        assert running.next()["stuck"]
        if data is None:
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.sendall(data)
        for _ in range(2):
            assert running.next()["sender"] == "released"
        assert running.connections == 1
        started = time.monotonic()
        until(lambda: running.connections == 0)
        assert Brief.LINGER / 2 < time.monotonic() - started < PATIENCE / 2


@pytest.mark.parametrize(("end", "data"), ENDS.values(), ids=ENDS)
def test_a_client_that_does_not_read_cannot_keep_a_connection_that_ends(
    running: Running, end: Callable[[Receive, Send], Awaitable[None]], data: bytes | None
) -> None:
    ends_in_time(running, end, data)


def test_nor_on_the_other_loop() -> None:
    with serving(loop="asyncio") as running:
        for end, data in ENDS.values():
            ends_in_time(running, end, data)


def test_nor_one_whose_application_has_left(running: Running) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await leaves(scope, receive, send)
        running.note(left=True)

    running.app = app
    with running.open(receive_buffer=4_096):
        assert running.next()["left"]
        started = time.monotonic()
        until(lambda: running.connections == 0)
        assert Brief.LINGER / 2 < time.monotonic() - started < PATIENCE / 2


def test_the_answers_to_pings_are_not_kept_for_a_client_that_does_not_read(running: Running) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        [protocol] = running.server.server_state.connections
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "x" * 5_000_000})
        running.note(size=protocol.transport.get_write_buffer_size())
        await receive()
        running.note(size=protocol.transport.get_write_buffer_size())

    until(lambda: running.connections == 0)
    running.app = app
    with running.open(receive_buffer=4_096) as connection:
        before = running.next()["size"]
        connection.sendall(frame(PING, b"x" * 125) * 10_000 + frame(TEXT, b"a"))
        assert running.next()["size"] <= before


# Keepalive (F26)


def test_a_client_that_does_not_answer_pings_is_let_go() -> None:
    with serving(ping=(0.1, 0.2)) as running:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            running.note(**await receive())

        running.app = app
        started = time.monotonic()
        with running.open() as connection:
            assert read_frame(connection)[0] == PING
            assert read_frame(connection) == (CLOSE, b"\x03\xf3keepalive ping timeout")
            assert running.next() == {"type": "websocket.disconnect", "code": 1011, "reason": "keepalive ping timeout"}
            assert 0.25 < time.monotonic() - started < PATIENCE / 2
            assert rest(connection) == b""
        # Nobody has to close it.
        with running.open():
            until(lambda: running.connections == 1)
            until(lambda: running.connections == 0)


def test_a_missing_pong_does_not_hurry_a_connection_that_is_closing() -> None:
    with serving(ping=(0.02, 0.06)) as running:
        running.app = closes
        with running.open() as connection:
            assert read_frame(connection)[0] == PING
            started = time.monotonic()
            connection.sendall(frame(TEXT, b"close"))
            assert read_frame(connection)[0] == CLOSE
            assert rest(connection) == b""
            assert time.monotonic() - started > Brief.LINGER * 0.75


def test_a_client_in_the_middle_of_a_message_need_not_answer_pings() -> None:
    with serving(ping=(0.1, 0.5)) as running, running.open() as connection:
        message = frame(TEXT, b"x" * LIMIT)
        for start in range(0, len(message), 50):
            connection.sendall(message[start : start + 50])
            time.sleep(0.06)
        assert read_frame(connection)[0] == PING
        assert read_frame(connection) == (TEXT, b"x" * LIMIT)


def test_but_it_must_not_stop_there() -> None:
    with serving(ping=(0.1, 0.2)) as running, running.open() as connection:
        assert read_frame(connection)[0] == PING
        connection.sendall(frame(TEXT, b"x" * LIMIT)[:500])
        assert read_frame(connection)[0] == CLOSE


def test_nor_must_its_message_drip() -> None:
    with serving(ping=(0.1, 0.2)) as running, running.open() as connection:
        connection.sendall(frame(TEXT, b"x" * LIMIT)[:8])
        assert read_frame(connection)[0] == PING
        started = time.monotonic()
        while not select.select([connection], [], [], 0.03)[0]:
            connection.sendall(b"x")
            assert time.monotonic() - started < PATIENCE / 2
        assert read_frame(connection)[0] == CLOSE


def test_what_was_sent_before_a_ping_is_no_answer_to_it() -> None:
    with serving(ping=(0.1, 1.0)) as running, running.open() as connection:
        connection.sendall(frame(TEXT, b"x" * LIMIT))
        assert read_frame(connection) == (TEXT, b"x" * LIMIT)
        assert read_frame(connection)[0] == PING
        started = time.monotonic()
        assert read_frame(connection)[0] == CLOSE
        assert time.monotonic() - started < 1.8


def test_nor_one_that_the_application_does_not_listen_to() -> None:
    with serving(ping=(0.05, 0.1)) as running:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            await asyncio.sleep(0.5)
            message = await receive()
            await send({"type": "websocket.send", "text": message["text"]})
            await last_words(receive)

        running.app = app
        with running.client() as client:
            client.send("a")
            assert client.recv(PATIENCE) == "a"
            time.sleep(0.3)
            client.ping().wait(PATIENCE)


# The server stops (F10)


def test_an_open_connection_outlives_the_signal_and_is_closed_by_the_application() -> None:
    with serving() as running:
        leave = threading.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.accept"})
            running.note(**await receive())
            await asyncio.to_thread(leave.wait, PATIENCE)
            await send({"type": "websocket.send", "text": "the last of it"})
            await send({"type": "websocket.close", "code": 1001})
            running.note(**await receive())

        running.app = app
        with running.client() as client:
            running.server.should_exit = True
            with pytest.raises(TimeoutError):
                client.recv(0.4)
            leave.set()
            assert client.recv(PATIENCE) == "the last of it"
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        assert running.next() == {"type": SHUTDOWN}
        assert running.next()["code"] == 1001


def test_a_handshake_under_way_is_refused_when_the_server_stops() -> None:
    with serving() as running:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            running.note(asked=True)
            running.note(**await receive())

        running.app = app
        with running.dial() as connection:
            connection.sendall(handshake())
            assert running.next()["asked"]
            running.server.should_exit = True
            told = read_refusal(connection)
        assert (told.status, told.error["code"]) == (503, "server_is_overloaded")
        assert running.next()["type"] == "websocket.disconnect"


def test_a_connection_that_is_closing_is_closed_when_the_server_stops() -> None:
    with serving(WebSocketProtocol) as running:
        running.app = closes
        with running.open() as connection:
            is_told_to_close(connection)
            started = time.monotonic()
            running.server.should_exit = True
            assert rest(connection) == b""
            assert time.monotonic() - started < WebSocketProtocol.LINGER / 2


def test_a_handshake_that_is_answered_already_is_not_answered_again_when_the_server_stops() -> None:
    with serving(WebSocketProtocol) as running:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            [protocol] = running.server.server_state.connections
            protocol.transport.write(b"x" * 5_000_000)
            running.note(left=True)

        running.app = app
        with running.dial(receive_buffer=4_096) as connection:
            connection.sendall(handshake())
            assert running.next()["left"]
            running.server.should_exit = True
            time.sleep(0.3)
            answer = rest(connection).lstrip(b"x")
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert answer.count(b"HTTP/1.1") == 1


def test_a_connection_goes_with_its_task() -> None:
    with serving(WebSocketProtocol) as running:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_later(0.05, task.cancel)
            await stays(scope, receive, send)

        running.app = app
        with running.open() as connection:
            started = time.monotonic()
            assert read_frame(connection) == (CLOSE, b"\x03\xf3")
            assert rest(connection) == b""
            until(lambda: running.connections == 0)
            assert time.monotonic() - started < WebSocketProtocol.LINGER / 2


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_connection_that_never_ends_is_gone_once_the_server_is(loop: Literal["uvloop", "asyncio"]) -> None:
    with serving(WebSocketProtocol, loop=loop, graceful=0.2) as running:
        running.app = stays
        with running.open() as connection:
            running.app = leaves
            with running.open(receive_buffer=4_096):
                started = time.monotonic()
                running.server.should_exit = True
                assert read_frame(connection) == (CLOSE, b"\x03\xe9")
                assert rest(connection) == b""
                until(lambda: running.connections == 0)
                assert time.monotonic() - started < WebSocketProtocol.LINGER / 2
