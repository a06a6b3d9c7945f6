"""uvicorn's HTTP/1.1 with bounds on everything a client can send before the application looks (reliability.md S9, F25).

httptools reads heads and trailers of any length, and uvicorn waits for them for ever; both leave the rest to a proxy
that may not be there. What is added here is arranged so that a request pays next to nothing for it. Bytes must get
somewhere: `_idle_bytes` counts what was fed since a head was completed, a byte of a body came or a message ended, and
more than a head's worth of that is refused, be it a header that never ends, a trailer or the extension of a chunk.
And there is one clock a connection, looked at when it rings: while a head is open, `_deadline` says when it is due.

Framing follows h11's rules. httptools itself refuses two lengths, a length beside chunks, folded headers and bare line
feeds; the codings of `transfer-encoding`, trailers and `Upgrade` to what we do not speak are dealt with below.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import Any, ClassVar

import httptools
import structlog
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from rejoinder.server import envelope, request_id
from rejoinder.server.errors import ApiError, HeadTooLarge, InvalidRequest, TooSlow, Unavailable
from rejoinder.server.settings import loopback

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_LINGER = 1.0
"""Seconds a refused client has to read why. Closing while it still sends would reset the connection under it."""

_PIPELINED = 8
"""Requests that may wait behind a running one. No client we know sends any, and each costs memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and counts. Loopback is free of `connections_per_address`: proxies and benches live there."""

    header_timeout: float = 10.0
    head_bytes: int = 65_536
    headers: int = 100
    connections: int = 2_000
    connections_per_address: int = 64


def bounded_protocol(limits: Limits = Limits()) -> type[HttpToolsProtocol]:
    """The class to give to uvicorn as `Config(http=…)`."""
    return type("BoundedProtocol", (_BoundedProtocol,), {"limits": limits})


class _Reading(Enum):
    """What the next byte belongs to."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class _BoundedProtocol(HttpToolsProtocol):
    limits: ClassVar[Limits]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._reading = _Reading.NOTHING
        self._idle_bytes = 0
        self._uncounted = False
        self._moved = False
        self._refused = False
        self._deadline: float | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        if (reason := self._crowded()) is None:
            self._start_deadline()
            return
        # No lingering here, which would count towards the limit that was reached.
        self._refused = True
        self._write(Unavailable(reason))
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        # uvicorn tells the latest request only, which is not the running one when requests are pipelined.
        self._abandon()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._idle_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ApiError) else InvalidRequest(_MALFORMED))
            return
        if self._moved:
            self._moved = False
            self._idle_bytes = 0
            if self._reading is not _Reading.HEAD:
                return
            self._uncounted = True
        elif self._idle_bytes > self.limits.head_bytes:
            self._refuse(_head_too_large(self.limits))
            return
        if self._deadline is None and self._reading is not _Reading.BODY:
            self._start_deadline()

    # What httptools reports

    def on_message_begin(self) -> None:
        self._reading = _Reading.HEAD
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._check_head()
        self._reading = _Reading.BODY
        self._moved = True
        self._deadline = None
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            # Trailers arrive by the same callback. They must not be taken for headers (RFC 9110 §6.5.1).
            self.headers = []
        elif self._should_upgrade():
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            raise InvalidRequest("This server is not a proxy.")

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reading = _Reading.NOTHING
        self._moved = True
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._reading is _Reading.BODY and self.cycle.response_complete:
            # Answered before the body was here. What is left is thrown away, but not for ever, and uvicorn's own
            # keep-alive timer does not survive it.
            self._start_deadline()

    # Inside

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _crowded(self) -> str | None:
        limits = self.limits
        if len(self.connections) > limits.connections:
            return "This server has too many connections."
        if self.client is None or len(self.connections) <= limits.connections_per_address:
            return None
        address = self.client[0]
        if loopback(address.removeprefix("::ffff:")):
            return None
        # Counted anew each time: a connection that became a WebSocket is no longer ours to watch.
        clients = [getattr(other, "client", None) for other in self.connections]
        same = sum(client is not None and client[0] == address for client in clients)
        return "There are too many connections from this address." if same > limits.connections_per_address else None

    def _check_head(self) -> None:
        limits = self.limits
        if len(self.headers) > limits.headers:
            raise HeadTooLarge(f"The request has more than {limits.headers} headers.")
        # What was fed is more than the head, so that the exact sum is seldom needed.
        if (self._idle_bytes > limits.head_bytes or self._uncounted) and self._head_size() > limits.head_bytes:
            raise _head_too_large(limits)
        self._uncounted = False
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
            raise InvalidRequest("Unsupported transfer-encoding. Expected 'chunked' or none.")
        if len(self.pipeline) >= _PIPELINED:
            raise InvalidRequest("Too many requests were sent ahead of their answers.")

    def _head_size(self) -> int:
        # Four bytes a header for colon, space and line end.
        return len(self.url) + sum(map(len, chain.from_iterable(self.headers))) + 4 * len(self.headers)

    def _upgrade(self, rest: bytes) -> None:
        if self._should_upgrade():
            self._become_websocket(rest)
            return
        # A server may ignore Upgrade (RFC 9110 §7.8) and answer as usual. httptools does not: it takes what follows,
        # the body of every POST of a client that offers h2c, for the other protocol. So it reads the head again
        # without that header.
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _become_websocket(self, rest: bytes) -> None:
        if rest:
            # RFC 6455 §4.1. uvicorn would drop them, and its WebSocket would take them for frames before its 101.
            self._refuse(InvalidRequest("A client must not send before its handshake is answered."))
        elif self.cycle is not None and not self.cycle.response_complete:
            self._refuse(InvalidRequest("A handshake was sent ahead of the answer to another request."))
        else:
            self._stop_clock()
            self.handle_websocket_upgrade()

    def _refuse(self, error: ApiError) -> None:
        """Answers for the application, which has not been asked or has not answered, and closes."""
        self._refused = True
        self._stop_clock()
        running = self._running
        answering = running is not None and running.response_started and not running.response_complete
        self._abandon()
        if answering:
            self.transport.close()
            return
        self._write(error)
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._clock = self.loop.call_later(_LINGER, self.transport.close)

    def _abandon(self) -> None:
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _write(self, error: ApiError) -> None:
        _logger.info("request refused", status=error.status, reason=str(error), client=self.client and self.client[0])
        body = envelope.describe(error)
        content = envelope.encode(body)
        headers = [
            *self.server_state.default_headers,
            *envelope.head(body, content),
            (b"x-request-id", request_id.mint().encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[body.status], lines, content))

    # The clock

    def _start_deadline(self) -> None:
        self._deadline = self.loop.time() + self.limits.header_timeout
        if self._clock is None:
            self._clock = self.loop.call_later(self.limits.header_timeout, self._ring)

    def _ring(self) -> None:
        self._clock = None
        if self._deadline is None:
            return
        left = self._deadline - self.loop.time()
        if left > 0:
            self._clock = self.loop.call_later(left, self._ring)
            return
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            # A next request is dripping in behind a running one, which must not suffer from it.
            self.cycle.keep_alive = False
        elif self._reading is _Reading.BODY:
            self.transport.close()
        else:
            self._refuse(TooSlow("The request headers did not arrive in time."))

    def _stop_clock(self) -> None:
        self._deadline = None
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


_MALFORMED = "The request is not valid HTTP/1.1."


def _head_too_large(limits: Limits) -> HeadTooLarge:
    return HeadTooLarge(f"The request line and headers are larger than {limits.head_bytes} bytes.")
