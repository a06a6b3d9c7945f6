"""uvicorn's WebSocket with an end to every connection, and with errors a client can read (websocket.md §6, §9; S9).

uvicorn closes a connection and leaves the rest to the client: its `transport.close()` waits until everything is read,
and its `send` waits for the same, even with a close frame. Here `_end` is the one way out. From then on `send` raises,
the application has its `websocket.disconnect`, and the transport has LINGER seconds to get rid of what is left.

uvicorn parses at once what it reads at once, which may be 40,000 frames. Here a connection has STRETCH seconds before
it is the others' turn, and goes on once its application has taken what there is for it.

A client that sends before the handshake is answered breaks RFC 6455 §4.1 and is refused. uvicorn would read that as
frames, and would answer a ping among them ahead of its own 101.
"""

import asyncio
import email.utils
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any, ClassVar, cast

import structlog
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

from rejoinder.server import envelope, request_id
from rejoinder.server.envelope import ErrorBody
from rejoinder.server.errors import ApiError, InvalidRequest, TooLarge, Unavailable

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

SHUTDOWN = "rejoinder.shutdown"
"""The message by which an application hears that the server stops, so that it can end the connection by itself."""

FRAMES = "rejoinder.frames"
"""The ASGI extension in whose presence `websocket.send` may have `frames`: messages in UTF-8, written all at once."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The class to give to uvicorn as `Config(ws=…)`."""

    LINGER: ClassVar[float] = 5.0
    """Seconds a connection has left once it is to end. Closing at once could reset it under what is on its way."""

    STRETCH: ClassVar[float] = 0.005
    """Seconds for which a connection may hold up the others with what it has sent."""

    PIECE: ClassVar[int] = 1024
    """Bytes that are parsed between two looks at the clock: up to 170 frames."""

    SLOWEST: ClassVar[int] = 1024
    """Bytes a second that prove a client alive which does not answer a ping (reliability.md §4)."""

    conn: "_Connection"

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Connection(
            extensions=self.conn.available_extensions, max_size=config.ws_max_size, logger=self.conn.logger
        )
        self._deaf = False
        self._stopping = False
        self._lost = asyncio.Event()
        self._heard = 0
        self._unread = b""
        self._continued = bytearray()

    # The connection

    def data_received(self, data: bytes) -> None:
        self._heard += len(data)
        self._read(data)

    def _read(self, data: bytes) -> None:
        # uvloop's own clock stands still while it runs a callback.
        enough = monotonic() + self.STRETCH
        for start in range(0, len(data), self.PIECE):
            if self._deaf:
                return
            if start and monotonic() > enough:
                self._unread = data[start:]
                self.read_paused = True
                self.transport.pause_reading()
                if not self._is_behind():
                    self.loop.call_soon(self._go_on)
                return
            self._parse(data[start : start + self.PIECE])

    def _go_on(self) -> None:
        data, self._unread = self._unread, b""
        self._read(data)
        if not self._unread and not self._is_behind():
            self._resume()

    def _resume(self) -> None:
        """Reads on, behind what has been read already."""
        if self._unread:
            self.loop.call_soon(self._go_on)
        elif self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _is_behind(self) -> bool:
        """Has the application something to take before there is more for it?"""
        return not self.disconnected and not self.queue.empty()

    def _parse(self, data: bytes) -> None:
        if self.handshake_initiated and not self.handshake_complete:
            self._refuse(InvalidRequest("A client must not send before its handshake is answered."))
            return
        self.conn.receive_data(data)
        if self.conn.parser_exc is not None:
            self.handle_parser_exception()
        elif self.conn.handshake_exc is not None:
            self._refuse(InvalidRequest(f"Not a WebSocket handshake: {self.conn.handshake_exc.__cause__}."))
        else:
            self.handle_events()

    def eof_received(self) -> None:
        if not self.disconnected:
            self._end(CloseCode.ABNORMAL_CLOSURE)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unread = b""
        self._lost.set()

    def shutdown(self) -> None:
        self._stopping = True
        if self.disconnected:
            self.transport.close()
        elif self.handshake_complete:
            self.queue.put_nowait({"type": SHUTDOWN})  # type: ignore[misc, arg-type]  # a message of ours
        elif not self.transport.is_closing():
            self._refuse(Unavailable("The server is shutting down. Please try again.", code="server_is_overloaded"))

    def send_keepalive_ping(self) -> None:
        self._heard = 0
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        assert self.ping_timeout is not None
        if self.read_paused or self._heard >= self.SLOWEST * self.ping_timeout:
            # In the middle of a long message a client cannot answer, and while the application is behind we do not
            # listen.
            self._heard = 0
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        self._fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")

    # What websockets reports

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.close_sent:
            self._log_refusal(self.response.status_code, str(self.conn.handshake_exc))
            self._end(CloseCode.ABNORMAL_CLOSURE)
        else:
            self.scope["extensions"][FRAMES] = {}

    def handle_cont(self, event: Frame) -> None:
        # uvicorn's list costs a hundred bytes a fragment, and a client may send any number, empty ones even.
        self._continued += event.data
        if event.fin:
            self.frames.append(bytes(self._continued))
            self._continued.clear()
            self.send_receive_event_to_app()

    def send_receive_event_to_app(self) -> None:
        data = b"".join(self.frames)
        self.frames = []
        if self.disconnected:
            return
        if self.curr_msg_data_type == "text":
            try:
                self.queue.put_nowait({"type": "websocket.receive", "text": data.decode()})
            except UnicodeDecodeError as error:
                self._fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                return
        else:
            self.queue.put_nowait({"type": "websocket.receive", "bytes": data})
        self.read_paused = True
        self.transport.pause_reading()

    def handle_ping(self) -> None:
        pongs = self.conn.data_to_send()
        # A client that pings and never reads must not make us keep the answers.
        if self.writable.is_set() and not self.disconnected:
            self.transport.write(b"".join(pongs))

    def handle_close(self, event: Frame) -> None:
        if not self.disconnected:
            close = self.conn.close_rcvd
            assert close is not None
            self._end(close.code, close.reason)
        self.transport.close()

    def handle_parser_exception(self) -> None:
        close = self.conn.close_sent
        assert close is not None
        self._end(close.code, close.reason)
        self._hang_up()

    # What the application does

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._linger()
        await self._stay()

    def send_500_response(self) -> None:
        if not self.handshake_complete:
            super().send_500_response()
        elif not self.disconnected:
            self._fail(CloseCode.GOING_AWAY if self._stopping else CloseCode.INTERNAL_ERROR)

    async def receive(self) -> ASGIReceiveEvent:
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self._resume()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        if self.disconnected:
            raise ClientDisconnected
        if not self.handshake_complete:
            await super().send(message)
            if self.close_sent:
                self._end(CloseCode.ABNORMAL_CLOSURE)
        elif message["type"] == "websocket.close":
            # At once, not behind what the client has not read yet: it may never read.
            code, reason = message.get("code", 1000), message.get("reason") or ""
            self.conn.send_close(code, reason)
            self._end(code, reason)
        elif (frames := message.get("frames")) is not None:
            await self.writable.wait()
            if self.disconnected:
                raise ClientDisconnected
            self.transport.write(self.conn.texts(cast("Iterable[bytes]", frames)))  # uvicorn's types do not know it
        else:
            await super().send(message)

    # Inside

    def _refuse(self, error: ApiError) -> None:
        """Answers the handshake for the application, which may have been asked already."""
        self._log_refusal(error.status, str(error))
        # Not through `conn`, which has given up by itself on a head it cannot read.
        self.transport.write(_refusal(envelope.describe(error)).serialize())
        self._end(CloseCode.ABNORMAL_CLOSURE)
        self._hang_up()

    def _log_refusal(self, status: int, reason: str) -> None:
        _logger.info("request refused", status=status, reason=reason, client=self.client and self.client[0])

    def _fail(self, code: int, reason: str = "") -> None:
        self.conn.fail(code, reason)
        self._end(code, reason)
        self._hang_up()

    def _end(self, code: int, reason: str = "") -> None:
        """The last bytes leave, and the application is told. All it sends from here on is in vain."""
        self.handshake_complete = self.close_sent = self.disconnected = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.writable.set()
        self._resume()
        self._linger()

    def _hang_up(self) -> None:
        """Takes what the client is still sending, so that it gets to read why, and does not look at it."""
        self._deaf = True
        if self.transport.can_write_eof():
            self.transport.write_eof()

    async def _stay(self) -> None:
        """Keeps the task for as long as there is a connection: a server tired of waiting cancels tasks alone."""
        task = asyncio.current_task()
        assert task is not None
        # uvicorn takes that for a fault of the application, and goes on.
        if not task.cancelling():
            with suppress(asyncio.CancelledError):
                await self._lost.wait()
        if not self._lost.is_set():
            self.transport.abort()
            await self._lost.wait()

    def _linger(self) -> None:
        self.stop_keepalive()
        # uvicorn's timer of a closing handshake: it leaves the transport to it, and stops it once that is gone.
        if self.close_timer is None and not self._lost.is_set():
            self.close_timer = self.loop.call_later(self.LINGER, self.transport.abort)


class _Connection(ServerProtocol):
    """websockets' side of the connection: it says why in the words of the API."""

    def reject(self, status: StatusLike, text: str) -> Response:
        status = HTTPStatus(status)
        kind = "invalid_request_error" if status < 500 else "server_error"
        # What follows the first line is for people who came with a browser.
        said = text.partition("\n")[0] or "The handshake was refused."
        return _refusal(ErrorBody(status, kind, None, None, said))

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        if self.state is State.OPEN and (error := self._error(code, reason)) is not None:
            self.send_text(envelope.frame(envelope.describe(error)))
        super().fail(code, reason)

    def texts(self, messages: Iterable[bytes]) -> bytes:
        """The frames of these messages."""
        if self.extensions:
            for message in messages:
                self.send_text(message)
            return b"".join(self.data_to_send())
        # websockets takes six times as long for them.
        parts = []
        for message in messages:
            size = len(message)
            if size < 126:
                parts.append(b"\x81%c" % size)
            elif size < 65_536:
                parts.append(b"\x81\x7e" + size.to_bytes(2))
            else:
                parts.append(b"\x81\x7f" + size.to_bytes(8))
            parts.append(message)
        return b"".join(parts)

    def _error(self, code: int, reason: str) -> ApiError | None:
        match code:
            case CloseCode.MESSAGE_TOO_BIG:
                return TooLarge(
                    f"The message is larger than {self.max_message_size} bytes. Send less at a time, or refer to what "
                    "was sent before by 'previous_response_id'.",
                    code="message_too_large",
                )
            case CloseCode.PROTOCOL_ERROR | CloseCode.INVALID_DATA:
                return InvalidRequest(f"The frame is not valid: {reason}.", code="invalid_frame")
            case _:
                return None


def _refusal(body: ErrorBody) -> Response:
    content = envelope.encode(body)
    headers = Headers(
        [
            ("date", email.utils.formatdate(usegmt=True)),
            *((name.decode(), value.decode()) for name, value in envelope.head(body, content)),
            ("x-request-id", request_id.current.get() or request_id.mint()),
            ("sec-websocket-version", "13"),
            ("connection", "close"),
        ]
    )
    return Response(body.status, HTTPStatus(body.status).phrase, headers, content)
