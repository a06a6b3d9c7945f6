"""A client that looks closely at what the real server sends.

An error must be the envelope with its four members (http.md §6.1); a stream must number its events without a gap, end
with exactly one terminal event, say `[DONE]` and then end its body in order (events.md §1, reliability.md P8). Whoever
reads through here has asserted all of that.
"""

import http.client
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import msgspec
from msgspec import Raw, Struct

from tests.live import LiveServer

TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
CODEX = {"originator": "codex_exec"}
NOTHING: Mapping[str, str] = {}

_PATIENCE = 20
"""Seconds a client waits for a byte."""


class Error(Struct, frozen=True, forbid_unknown_fields=True):
    message: str
    type: str
    param: str | None
    code: str | None


class _Envelope(Struct, frozen=True, forbid_unknown_fields=True):
    error: Error


class Part(Struct, frozen=True):
    type: str
    text: str = ""


class Item(Struct, frozen=True):
    type: str
    id: str
    status: str | None = None
    role: str = ""
    content: list[Part] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: Raw = Raw(b'""')


class Failure(Struct, frozen=True):
    code: str
    message: str


class Response(Struct, frozen=True):
    id: str
    status: str
    output: list[Item]
    error: Failure | None
    previous_response_id: str | None
    store: bool

    @property
    def text(self) -> str:
        return "".join(part.text for item in self.output for part in item.content or ())


class Event(Struct, frozen=True):
    type: str
    sequence_number: int
    response: Response | None = None
    delta: str = ""

    @property
    def whole(self) -> Response:
        """The response an event carries that must carry one."""
        assert self.response is not None, f"{self.type} carries no response"
        return self.response


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_EVENT = msgspec.json.Decoder(Event)
_RESPONSE = msgspec.json.Decoder(Response)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> Error:
        assert self.status >= 400, f"expected an error, got {self.status}"
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-request-id"].startswith("req_")
        return _ENVELOPE.decode(self.body).error

    @property
    def response(self) -> Response:
        assert self.status == 200, f"expected a response, got {self.status}: {self.body[:500]!r}"
        return _RESPONSE.decode(self.body)


@dataclass(slots=True)
class Stream:
    """An answer that is being read: `events` are those read so far, `comments` counts the lines that are none."""

    status: int
    headers: Mapping[str, str]
    events: list[Event] = field(default_factory=list)
    comments: int = 0
    done: bool = False
    _codex: bool = False
    _unread: bytes = b""
    _connection: http.client.HTTPConnection = field(kw_only=True)
    _response: http.client.HTTPResponse = field(kw_only=True)

    def __iter__(self) -> Iterator[Event]:
        """The events to come. Raises http.client.IncompleteRead when the body is cut."""
        while True:
            while b"\n\n" in self._unread:
                frame, _, self._unread = self._unread.partition(b"\n\n")
                event = self._read(frame)
                if event is not None:
                    yield event
            data = self._response.read1(65536)
            if not data:
                break
            self._unread += data
        assert not self._unread, f"half a frame at the end: {self._unread!r}"
        assert self.done, "the body ended before [DONE]"
        assert self.events, "a stream without an event"
        assert self.events[-1].type in TERMINAL, f"the last event is {self.events[-1].type}"

    def until(self, type: str) -> Event:
        """Read on to the first event of this type."""
        return next(event for event in self if event.type == type)

    def rest(self) -> Event:
        """Read on to the end of the body, and give the terminal event."""
        for _ in self:
            pass
        return self.events[-1]

    @property
    def id(self) -> str:
        return self.events[0].whole.id

    @property
    def text(self) -> str:
        return "".join(event.delta for event in self.events if event.type == "response.output_text.delta")

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection, politely or not."""
        # http.client hands the socket to the response when the server says that it will close.
        if (connection := self._connection.sock) is not None:
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._response.close()
            self._connection.close()

    def _read(self, frame: bytes) -> Event | None:
        assert not self.done, f"something follows [DONE]: {frame!r}"
        if frame.startswith(b":"):
            self.comments += 1
            return None
        if frame == b"data: [DONE]":
            self.done = True
            return None
        head, _, data = frame.partition(b"\n")
        event = _EVENT.decode(data.removeprefix(b"data: "))
        assert head == f"event: {event.type}".encode()
        number = self.events[-1].sequence_number + 1 if self.events else 0
        # Codex is not told that an item is done which was only cut off: it would act on it (codex.md §5).
        assert event.sequence_number == number or (self._codex and event.sequence_number > number)
        assert not self.events or self.events[-1].type not in TERMINAL, f"{event.type} follows a terminal event"
        self.events.append(event)
        return event


def ask(
    server: LiveServer, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = NOTHING
) -> Answer:
    """One request on a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE)) as connection:
        connection.request(method, path, body, dict(headers))
        return _answer(connection.getresponse())


def create(server: LiveServer, headers: Mapping[str, str] = NOTHING, **fields: object) -> Answer:
    """A create call; what is not said is a plain one that says hello."""
    return ask(server, "POST", "/v1/responses", body_of(fields), {"content-type": "application/json", **headers})


def get(server: LiveServer, response_id: str) -> Answer:
    return ask(server, "GET", f"/v1/responses/{response_id}")


@contextmanager
def streaming(server: LiveServer, headers: Mapping[str, str] = NOTHING, **fields: object) -> Iterator[Stream]:
    """A streamed create call whose events are read as they come."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE)) as connection:
        body = body_of({**fields, "stream": True})
        connection.request("POST", "/v1/responses", body, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        assert response.status == 200, f"expected a stream, got {response.status}: {response.read()[:500]!r}"
        assert named["content-type"].startswith("text/event-stream")
        yield Stream(response.status, named, _codex=headers == CODEX, _connection=connection, _response=response)


def streamed(server: LiveServer, headers: Mapping[str, str] = NOTHING, **fields: object) -> Stream:
    """A stream that was read to its end."""
    with streaming(server, headers, **fields) as stream:
        stream.rest()
        return stream


def posted(server: LiveServer, **fields: object) -> socket.socket:
    """A connection on which a create call was sent and nothing was read; `received` reads it."""
    body = body_of(fields)
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=_PATIENCE)
    head = f"POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def hang_up(connection: socket.socket, *, reset: bool) -> None:
    """Leave, politely or not, without an answer."""
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def idle(server: LiveServer) -> bool:
    """Whether no turn runs, at the latest in a second."""
    deadline = monotonic() + 1
    while ask(server, "GET", "/health").body.find(b'"running":0') < 0:
        if monotonic() > deadline:
            return False
        sleep(0.01)
    return True


def resident(server: LiveServer) -> int:
    """Bytes of memory the server's process holds."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def received(connection: socket.socket) -> Answer:
    """The answer to what was sent on this connection."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return _answer(response)


def body_of(fields: Mapping[str, object]) -> bytes:
    return json.dumps({"model": "test-model", "input": "hello", **fields}).encode()


def _answer(response: http.client.HTTPResponse) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())
