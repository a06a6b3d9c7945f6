"""Real sockets against uvicorn in a thread: reliability.md S9, F25."""

import asyncio
import datetime
import gc
import ipaddress
import json
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs
from websockets.sync.client import connect as connect_websocket

from rejoinder.server import protocol
from rejoinder.server.body import read_body
from rejoinder.server.envelope import answer, describe
from rejoinder.server.errors import ApiError
from rejoinder.server.protocol import Limits, bounded_protocol

PATIENCE = 5.0
DEFAULT = Limits()


class App:
    """Answers by path, and remembers what it was asked and what happened to it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.left = threading.Event()
        self.begun = threading.Event()
        self.released = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        if scope["type"] == "websocket":
            await self._websocket(receive, send)
        elif scope["path"] == "/limited":
            try:
                await read_body(receive, scope["headers"], limit=1_000_000, timeout=0.5)
            except ApiError as exc:
                await answer(scope, send, describe(exc))
        elif scope["path"] == "/early":
            await self._answer(send, b"early")
        elif scope["path"] == "/silent":
            await self._wait_for_the_end(receive)
        elif scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            self.begun.set()
            await asyncio.to_thread(self.released.wait, PATIENCE)
            await send({"type": "http.response.body", "body": b"last"})
        else:
            body = b""
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message["body"]
                if not message["more_body"]:
                    break
            names = [name.decode() for name, _ in scope["headers"]]
            await self._answer(send, json.dumps({"size": len(body), "headers": names}).encode())

    async def _wait_for_the_end(self, receive: Receive) -> None:
        self.begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def _answer(self, send: Send, body: bytes) -> None:
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    async def _websocket(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})


class Running:
    """A server in a thread, and raw connections to it."""

    def __init__(self, app: App, server: uvicorn.Server, address: tuple[str, int] | str) -> None:
        self.app = app
        self.server = server
        self.address = address

    def connect(self) -> AbstractContextManager[socket.socket]:
        if isinstance(self.address, str):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(self.address)
        else:
            connection = socket.create_connection(self.address)
        connection.settimeout(PATIENCE)
        return closing(connection)

    def ask(self, *pieces: bytes) -> bytes:
        """Everything that comes back for these bytes until the server closes."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return rest(connection)

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


@contextmanager
def serving(
    limits: Limits = DEFAULT,
    *,
    keep_alive: float = 30,
    uds: str | None = None,
    certificate: tuple[Path, Path] | None = None,
    ws: bool = True,
) -> Iterator[Running]:
    app = App()
    config = uvicorn.Config(
        app,
        http=bounded_protocol(limits),
        ws="websockets-sansio" if ws else "none",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        timeout_keep_alive=keep_alive,  # type: ignore[arg-type]  # it is handed to call_later, which takes fractions
        timeout_graceful_shutdown=1,
        uds=uds,
        ssl_certfile=certificate and certificate[0],
        ssl_keyfile=certificate and certificate[1],
    )
    server = uvicorn.Server(config)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": None if uds else [listener]})
        thread.start()
        try:
            until(lambda: server.started)
            yield Running(app, server, uds or listener.getsockname())
        finally:
            app.released.set()
            server.should_exit = True
            thread.join()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def rest(connection: socket.socket) -> bytes:
    """What comes until the end, which is a reset for a client that was still sending."""
    data = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            data += piece
    return data


def some(connection: socket.socket, marker: bytes) -> bytes:
    data = b""
    while marker not in data:
        piece = connection.recv(65_536)
        assert piece, data
        data += piece
    return data


def error(answer: bytes) -> tuple[int, dict[str, str | None]]:
    """The status and the error of an answer that is one, as http.md §5 and §6.1 want it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    names = dict(line.split(": ", 1) for line in lines[1:])
    assert names["content-type"] == "application/json"
    assert int(names["content-length"]) == len(body)
    assert names["connection"] == "close"
    assert names["x-request-id"].startswith("req_")
    told: dict[str, str | None] = json.loads(body)["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return int(lines[0].split()[1]), told


def post(path: str, body: bytes = b"", headers: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nhost: a\r\n%scontent-length: %d\r\n\r\n%s" % (path.encode(), headers, len(body), body)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving() as server:
        yield server


def test_requests_on_one_connection_are_answered_in_turn(running: Running) -> None:
    with running.connect() as connection:
        for size in (0, 10, 300_000):
            connection.sendall(post("/echo", b"x" * size))
            assert b'"size": %d,' % size in some(connection, b"}")


def test_a_head_is_let_in_up_to_its_limits(running: Running) -> None:
    many = b"".join(b"x-%d: y\r\n" % index for index in range(98))
    with running.connect() as connection:
        connection.sendall(post("/echo", headers=many))
        assert b"200 OK" in some(connection, b"}")
        connection.sendall(post("/echo", headers=b"x: %s\r\n" % (b"y" * 65_000)))
        assert b"200 OK" in some(connection, b"}")


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(post("/echo", headers=b"x: %s\r\n" % (b"y" * 65_536)), id="one long header"),
        pytest.param(post("/" + "y" * 65_536), id="a long url"),
        pytest.param(post("/echo", headers=b"".join(b"x-%d: y\r\n" % index for index in range(99))), id="101 headers"),
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"y" * 65_536, id="a header without an end"),
        pytest.param(b"GET /" + b"y" * 300_000, id="a url without an end"),
    ],
)
def test_a_head_over_a_limit_is_431(running: Running, head: bytes) -> None:
    before = len(running.app.asked)
    status, told = error(running.ask(head))
    assert status == 431
    assert told["type"] == "invalid_request_error"
    assert len(running.app.asked) == before


def test_a_long_head_that_begins_behind_a_body_is_431_too(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(post("/echo", b"x" * 10, b"expect: 100-continue\r\n")[:-10])
        some(connection, b"100 Continue\r\n\r\n")
        connection.sendall(b"x" * 10 + b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 50_000)
        assert b"200 OK" in some(connection, b"}")
        connection.sendall(b"y" * 20_000 + b"\r\n\r\n")
        assert error(rest(connection))[0] == 431


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"hello\r\n\r\n", id="no HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", id="two lengths"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc", id="a list of lengths"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", id="a negative length"),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length, then chunks",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
            id="chunks, then length",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="two codings"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\nabc", id="no chunks"),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            id="chunks twice",
        ),
        pytest.param(b"GET / HTTP/1.1\nhost: a\n\n", id="bare line feeds"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\n b\r\n\r\n", id="a folded header"),
        pytest.param(b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", id="a space before the colon"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\x00b\r\n\r\n", id="a zero byte"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n", id="CONNECT"),
        pytest.param(b"GET http:// HTTP/1.1\r\nhost: a\r\n\r\n", id="an address without a host"),
    ],
)
def test_what_is_not_http_is_400_in_our_envelope(running: Running, request_bytes: bytes) -> None:
    before = len(running.app.asked)
    status, told = error(running.ask(request_bytes))
    assert status == 400
    assert told["type"] == "invalid_request_error"
    assert len(running.app.asked) == before


CHUNKED = b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n"


def test_trailers_are_not_headers(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(CHUNKED + b"1\r\nx\r\n0\r\nauthorization: Bearer x\r\n\r\n")
        answer = some(connection, b"}")
        assert b'{"size": 1, "headers": ["host", "transfer-encoding"]}' in answer


@pytest.mark.parametrize(
    "tail",
    [b"0\r\n" + b"a: b\r\n" * 60_000, b"0\r\na: " + b"b" * 400_000, b"1;" + b"a" * 400_000],
    ids=["many trailers", "one trailer", "a chunk extension"],
)
def test_bytes_that_are_neither_head_nor_body_end_somewhere(running: Running, tail: bytes) -> None:
    assert error(running.ask(CHUNKED, tail))[0] == 431


def test_bad_chunks_take_the_request_back(running: Running) -> None:
    assert error(running.ask(CHUNKED + b"1\r\nx\r\nhello\r\n"))[0] == 400


@pytest.mark.parametrize("begin", [b"nonsense\r\n\r\n", post("/silent") + post("/echo") * 9], ids=["400", "pipelined"])
def test_a_refused_client_that_goes_on_sending_still_reads_why(begin: bytes) -> None:
    with serving() as running, running.connect() as connection:
        connection.sendall(begin)
        for _ in range(100):
            connection.sendall(b"x" * 100_000)
        assert error(rest(connection))[0] == 400


def test_an_answer_before_the_body_is_read_lets_the_connection_live(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(post("/early", b"x" * 200_000)[:-100_000])
        assert some(connection, b"early").startswith(b"HTTP/1.1 200 OK")
        connection.sendall(b"x" * 100_000 + post("/echo"))
        assert b'"size": 0' in some(connection, b"}")


def test_an_upgrade_we_do_not_speak_is_ignored_and_the_body_arrives(running: Running) -> None:
    h2c = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    with running.connect() as connection:
        for size in (5, 100_000):
            connection.sendall(post("/echo", b"x" * size, h2c))
            answer = some(connection, b"}")
            assert (
                b'{"size": %d, "headers": ["host", "connection", "http2-settings", "content-length"]}' % size in answer
            )


def test_a_websocket_is_handed_on_and_outlives_the_clock() -> None:
    with (
        serving(Limits(header_timeout=0.2)) as running,
        connect_websocket(f"ws://127.0.0.1:{running.address[1]}/ws", compression=None) as websocket,
    ):
        websocket.send("a")
        assert websocket.recv() == "a"
        time.sleep(0.4)
        websocket.send("b")
        assert websocket.recv() == "b"
        assert running.connections == 1


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def test_nothing_is_left_behind_when_a_websocket_is_handed_on() -> None:
    with serving() as running, running.connect() as connection:
        until(lambda: running.connections == 1)
        http = [weakref.ref(protocol) for protocol in running.server.server_state.connections]
        connection.sendall(HANDSHAKE)
        some(connection, b"101 Switching Protocols")
        until(lambda: gc.collect() >= 0 and http[0]() is None)


def test_a_frame_behind_the_handshake_is_refused_and_not_lost(running: Running) -> None:
    before = len(running.app.asked)
    status, told = error(running.ask(HANDSHAKE + b"\x81\x81\0\0\0\0a"))
    assert status == 400
    assert told["message"] == "A client must not send before its handshake is answered."
    assert len(running.app.asked) == before


def test_a_handshake_behind_an_unanswered_request_is_refused() -> None:
    with serving() as running, running.connect() as connection:
        connection.sendall(post("/echo"))
        some(connection, b"}")
        connection.sendall(post("/silent"))
        assert running.app.begun.wait(PATIENCE)
        connection.sendall(HANDSHAKE)
        status, told = error(rest(connection))
        assert status == 400
        assert told["message"] == "A handshake was sent ahead of the answer to another request."
        assert running.app.left.wait(PATIENCE)
        assert running.app.asked == ["/echo", "/silent"]


def test_a_handshake_may_follow_an_answered_request(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(post("/echo"))
        some(connection, b"}")
        connection.sendall(HANDSHAKE)
        some(connection, b"101 Switching Protocols")


def test_without_websockets_their_handshake_is_a_request() -> None:
    with serving(ws=False) as running:
        upgrade = b"connection: upgrade\r\nupgrade: websocket\r\n"
        with running.connect() as connection:
            connection.sendall(b"GET /echo HTTP/1.1\r\nhost: a\r\n" + upgrade + b"\r\n")
            assert b"200 OK" in some(connection, b"}")


def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(post("/echo", b"x") + post("/echo", b"xx") + post("/echo", b"xxx"))
        data = some(connection, b'"size": 3')
        assert data.index(b'"size": 1') < data.index(b'"size": 2') < data.index(b'"size": 3')


def test_too_many_pipelined_requests_are_refused() -> None:
    with serving() as running:
        answer = running.ask(post("/silent") + post("/echo") * 9)
        assert error(answer)[0] == 400
        assert running.app.left.wait(PATIENCE)
        assert running.app.asked == ["/silent"]


def test_a_client_that_leaves_is_noticed_behind_pipelined_requests() -> None:
    with serving() as running:
        with running.connect() as connection:
            connection.sendall(post("/silent") + post("/echo"))
            assert running.app.begun.wait(PATIENCE)
        assert running.app.left.wait(PATIENCE)


def test_nonsense_behind_a_begun_answer_only_closes() -> None:
    with serving() as running, running.connect() as connection:
        connection.sendall(post("/stream"))
        some(connection, b"first")
        connection.sendall(b"nonsense\r\n\r\n")
        assert rest(connection) == b""


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"content-length: 200000000\r\n\r\n", id="declared"),
        pytest.param(b"transfer-encoding: chunked\r\n\r\n", id="in chunks"),
    ],
)
def test_a_client_that_uploads_200_mb_at_once_reads_its_413(running: Running, head: bytes) -> None:
    piece = b"x" * 1_000_000
    chunk = piece if b"length" in head else b"f4240\r\n" + piece + b"\r\n"
    with running.connect() as connection:
        connection.sendall(b"POST /limited HTTP/1.1\r\nhost: a\r\n" + head)
        for _ in range(200):
            connection.sendall(chunk)
        assert some(connection, b"}}").startswith(b"HTTP/1.1 413 ")


def test_a_body_that_drips_is_408_and_the_end_of_the_connection(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(post("/limited", b"x" * 100)[:-99])
        threading.Thread(target=drip, args=(connection, b"x" * 30)).start()
        started = time.monotonic()
        data = some(connection, b"}}")
        assert data.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 2


# The clock


@pytest.mark.parametrize("begin", [b"", b"\r\n", b"GET / HT"], ids=["nothing", "an empty line", "half a line"])
def test_a_slow_head_is_408(begin: bytes) -> None:
    with serving(Limits(header_timeout=0.2)) as running:
        status, told = error(running.ask(begin))
        assert status == 408
        assert told["message"] == "The request headers did not arrive in time."


def drip(connection: socket.socket, data: bytes) -> None:
    """Sends a byte every 50 ms until the other side has had enough."""
    for index in range(len(data)):
        try:
            connection.sendall(data[index : index + 1])
        except OSError:
            return
        time.sleep(0.05)


def test_dripping_a_head_does_not_hold_the_clock() -> None:
    with serving(Limits(header_timeout=0.3)) as running, running.connect() as connection:
        started = time.monotonic()
        threading.Thread(target=drip, args=(connection, b"GET / HTTP/1.1\r\nx: " + b"y" * 20)).start()
        assert error(rest(connection))[0] == 408
        assert 0.25 < time.monotonic() - started < 1.5


def test_the_next_head_has_its_own_time() -> None:
    with serving(Limits(header_timeout=0.4)) as running, running.connect() as connection:
        connection.sendall(post("/echo"))
        some(connection, b"}")
        time.sleep(0.2)
        connection.sendall(b"POST /ec")
        started = time.monotonic()
        assert error(rest(connection))[0] == 408
        assert 0.3 < time.monotonic() - started < 2


def test_an_idle_connection_is_no_slow_head() -> None:
    with serving(Limits(header_timeout=0.2)) as running, running.connect() as connection:
        for _ in range(2):
            connection.sendall(post("/echo"))
            some(connection, b"}")
            time.sleep(0.4)


def test_uvicorn_ends_an_idle_connection() -> None:
    with serving(keep_alive=0.2) as running:
        answer = running.ask(post("/echo"))
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert answer.count(b"HTTP/1.1") == 1


def test_an_answered_body_that_drips_on_is_cut() -> None:
    with serving(Limits(header_timeout=0.3)) as running, running.connect() as connection:
        connection.sendall(post("/early", b"x" * 100)[:-99])
        threading.Thread(target=drip, args=(connection, b"x" * 60)).start()
        started = time.monotonic()
        assert rest(connection).endswith(b"early")
        assert time.monotonic() - started < 2


def test_the_clock_stops_with_the_connection_it_watches() -> None:
    with capture_logs() as logs, serving(Limits(header_timeout=0.2)) as running:
        with running.connect():
            until(lambda: running.connections == 1)
        with running.connect() as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert error(rest(connection))[0] == 400
            time.sleep(0.4)
    assert [(line["status"], line["client"]) for line in logs if line["event"] == "request refused"] == [
        (400, "127.0.0.1")
    ]


def test_a_body_behind_a_running_request_has_the_time_the_application_gives_it() -> None:
    with serving(Limits(header_timeout=0.2)) as running, running.connect() as connection:
        connection.sendall(post("/echo") + post("/echo", b"x" * 100)[:-50])
        some(connection, b"}")
        time.sleep(0.4)
        connection.sendall(b"x" * 50)
        assert b'"size": 100' in some(connection, b"}")
        connection.sendall(post("/echo"))
        assert b"200 OK" in some(connection, b"}")


def test_a_next_head_that_drips_does_not_hurt_the_running_answer() -> None:
    with serving(Limits(header_timeout=0.1)) as running, running.connect() as connection:
        connection.sendall(post("/stream") + b"GET /ec")
        data = some(connection, b"first")
        time.sleep(0.3)
        running.app.released.set()
        data += rest(connection)
        assert b"last" in data
        assert b"408" not in data


# How many


def test_connections_over_the_limit_get_503_and_room_is_made_again() -> None:
    with serving(Limits(connections=2)) as running:
        with running.connect() as one, running.connect():
            one.sendall(post("/echo"))
            some(one, b"}")
            until(lambda: running.connections == 2)
            answer = running.ask()
            status, told = error(answer)
            assert status == 503
            assert told["type"] == "server_error"
            assert b"retry-after: 1\r\n" in answer
        until(lambda: running.connections == 0)
        with running.connect() as connection:
            connection.sendall(post("/echo"))
            assert b"200 OK" in some(connection, b"}")


def test_what_a_refused_connection_says_is_not_heard() -> None:
    with serving(Limits(connections=0)) as running, running.connect() as connection:
        connection.sendall(post("/echo"))
        assert error(some(connection, b"}}"))[0] == 503
        assert running.app.asked == []


def test_one_address_gets_its_share_and_loopback_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Limits(connections_per_address=1)) as running, running.connect(), running.connect():
        until(lambda: running.connections == 2)
        monkeypatch.setattr(protocol, "loopback", lambda host: False)
        status, told = error(running.ask())
        assert status == 503
        assert told["message"] == "There are too many connections from this address."


def test_another_address_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "loopback", lambda host: False)
    with serving(Limits(connections_per_address=2)) as running, running.connect(), running.connect():
        until(lambda: running.connections == 2)
        with closing(socket.socket()) as other:
            other.bind(("127.0.0.2", 0))
            other.settimeout(PATIENCE)
            other.connect(running.address)
            other.sendall(post("/echo"))
            assert b"200 OK" in some(other, b"}")


def test_a_unix_socket_has_no_address_to_count(tmp_path: Path) -> None:
    with (
        serving(Limits(connections_per_address=1), uds=str(tmp_path / "s")) as running,
        running.connect(),
        running.connect() as connection,
    ):
        connection.sendall(post("/echo"))
        assert b"200 OK" in some(connection, b"}")


def test_a_refusal_can_be_read_over_tls(tmp_path: Path) -> None:
    with serving(certificate=self_signed(tmp_path)) as running:
        context = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
        with running.connect() as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert error(some(connection, b"}}"))[0] == 400


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"
