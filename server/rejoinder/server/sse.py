"""A turn as server-sent events (events.md §1).

sse-starlette opens the response, closes it and watches its client. The events of a running turn, all of one upstream
read in one piece, go to the connection from the turn itself: handed to a second task, each would wait for those of all
other streams that the same round of the loop brought. The library's ping is off: whether a comment or an event keeps a
client waiting depends on the client.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from sse_starlette import EventSourceResponse
from sse_starlette.sse import AppStatus
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from rejoinder.bridge.composer import Composer
from rejoinder.bridge.dialect import Identity
from rejoinder.server import turn
from rejoinder.server.envelope import failure
from rejoinder.server.notes import headers
from rejoinder.server.services import Services
from rejoinder.server.timers import after
from rejoinder.server.whole import whole
from rejoinder.wire import sse
from rejoinder.wire.events import TERMINAL, Event
from rejoinder.wire.request import CreateRequest

T = TypeVar("T")

# A shutdown lets running turns finish (reliability.md F10); the library's own idea is to cut them.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # the library is partly typed

KEEP_ALIVE = 15.0
"""Seconds without an event after which a client is told that the turn still runs."""

SLOW_CLIENT = 60.0
"""Seconds a client may take not a single byte before it is cut (reliability.md F24)."""

BEAT = 1.0
"""Seconds between two looks at who waits."""

LOOK_AFTER = 0.05
"""Seconds a client may have to wait before anybody looks whether it is still there; most answers begin sooner, where
they come from this machine, and the look costs a task."""

HIGH_WATER = 64 * 1024
"""Bytes that may wait for a client before the upstream is no longer read."""


class Beating(Protocol):
    """Something that has to be looked at now and then."""

    def beat(self, now: float) -> None:
        """`now` is the loop's own time, in seconds."""


class Pulse:
    """One timer for all streams: keeps waiting clients waiting, and cuts those that stopped reading."""

    def __init__(self) -> None:
        self._streams: set[Beating] = set()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            now = asyncio.get_running_loop().time()
            for stream in list(self._streams):
                stream.beat(now)

    def add(self, stream: Beating) -> None:
        self._streams.add(stream)

    def remove(self, stream: Beating) -> None:
        self._streams.discard(stream)


class Stream:
    """The sink of a streaming turn, and the bytes its client has not taken yet."""

    live = True

    def __init__(self, *, codex: bool) -> None:
        self._codex = codex
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._size = 0
        self._since = self._loop.time()  # of the last byte given to the client, or taken by it
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._begun = asyncio.Event()
        self._over = False
        self._gone = False
        self._write: Send | None = None  # the connection, once the response is open
        self._writing = False
        self._flushing = False
        self._out: Composer | None = None
        self._presence: asyncio.Timeout | None = None
        self.outcome: turn.Outcome | None = None

    def begin(self, outcome: turn.Outcome, out: Composer, events: Sequence[Event]) -> None:
        self.outcome = outcome
        self._out = out
        if self._codex:
            out.spell_out_refusals()
        self._put(events)
        self._begun.set()

    def open(self, write: Send) -> None:
        """The head of the response is out, and events may follow."""
        self._write = write

    def close(self) -> None:
        """The response is over. What it was written with would keep the request in memory, in a circle."""
        self._write = None
        self._presence = None

    def let_go(self) -> None:
        """The client has left, and the turn goes on without it: nothing is kept for anybody."""
        self._gone = True
        self._pending.clear()
        self._size = 0
        self._room.set()

    async def send(self, events: Sequence[Event]) -> None:
        # What waits already goes first, and the last events leave together with the end of the stream.
        if self._write is None or self._pending or self._flushing or isinstance(events[-1], TERMINAL):
            self._put(events)
            while self._size > HIGH_WATER:
                self._room.clear()
                await self._room.wait()
            return
        self._since = self._loop.time()
        self._writing = True
        try:
            await self._write({"type": "http.response.body", "body": self._framed(events), "more_body": True})
        finally:
            self._writing = False
        self._since = self._loop.time()

    def fail(self, error: Exception) -> bool:
        """End a stream that has begun with a failure; says whether there was one to end."""
        if self._out is None:
            return False
        self._out.fail(*failure(error))
        self._put(self._out.drain())
        return True

    def end(self) -> None:
        """Nothing follows; the end of a stream is said in so many words (open-responses.md §2)."""
        if self._out is not None:
            self._add(sse.DONE)
        self._over = True
        self._begun.set()
        self._ready.set()

    async def beginning(self) -> bool:
        """Wait until the turn is answered, or over without an answer; says whether it is answered."""
        await self._begun.wait()
        return self._out is not None

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the head of the response says of the turn."""
        assert self.outcome is not None
        said = headers(self.outcome.notes, self.outcome.losses)
        return [(name.encode(), value.encode()) for name, value in said.items()]

    def cut_with(self, presence: asyncio.Timeout) -> None:
        """What to end when the client stops reading."""
        self._presence = presence

    def beat(self, now: float) -> None:
        if self._pending or self._writing:
            if now - self._since > SLOW_CLIENT and self._presence is not None:
                _end(self._presence)
        elif self._out is not None and not self._over and now - self._since > KEEP_ALIVE:
            if self._codex:
                self._out.keep_alive()
                self._put(self._out.drain())
            else:
                self._add(sse.COMMENT)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Whole events, as many at a time as there are."""
        while True:
            if not self._pending:
                if self._over:
                    return
                self._ready.clear()
                await self._ready.wait()
                continue
            data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
            self._pending.clear()
            self._size = 0
            self._room.set()
            self._flushing = True
            yield data
            self._flushing = False
            self._since = self._loop.time()

    def _put(self, events: Sequence[Event]) -> None:
        if events:
            self._add(self._framed(events))

    def _framed(self, events: Sequence[Event]) -> bytes:
        told = whole(events) if self._codex else events
        return b"".join([sse.frame(event) for event in told])

    def _add(self, data: bytes) -> None:
        if self._gone:
            return
        if not self._pending:
            self._since = self._loop.time()
        self._pending.append(data)
        self._size += len(data)
        self._ready.set()


class StreamedTurn:
    """The ASGI answer to a streaming create call.

    Its status line waits for the turn's beginning, so what goes wrong before is an HTTP error. The client's leaving
    cancels the turn, and with it the upstream's answer, wherever it is (reliability.md F1).
    """

    def __init__(
        self, request: CreateRequest, services: Services, pulse: Pulse, *, owner: str, caller: Identity, codex: bool
    ) -> None:
        self._request = request
        self._services = services
        self._pulse = pulse
        self._owner = owner
        self._caller = caller
        self._stream = Stream(codex=codex)
        self._error: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        running = asyncio.create_task(self._run())
        self._pulse.add(stream)
        try:
            async with asyncio.timeout(None) as presence:
                stream.cut_with(presence)
                # Made ready, and listening for a client that leaves, while the upstream is asked: its first words do
                # not have to wait for that.
                response = EventSourceResponse(stream.chunks(), ping=0, sep="\n")
                await response(scope, receive, _opening(stream, send, presence))
        except TimeoutError:
            pass  # there is no answer to stream, or the client was cut
        finally:
            self._pulse.remove(stream)
            stream.close()
            # A plain task, owned here: a task group would keep the error that ends it, and with it the whole request,
            # in a circle until the collector comes by.
            if not running.done() and _finishes(self._services):
                stream.let_go()
                self._services.running.let_go(running)
            else:
                running.cancel()
                await asyncio.wait((running,))
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            # An error and a frame that hold each other stay, with the whole request, until the collector comes by.
            del error

    async def _run(self) -> None:
        try:
            await turn.run(self._request, self._stream, self._services, owner=self._owner, caller=self._caller)
        except Exception as error:
            # The last frame of this task. Before the beginning the request's own task answers; after it the stream
            # still gets its last event (reliability.md P8).
            if not self._stream.fail(error):
                self._error = error
        except asyncio.CancelledError:
            # The client left. Kept in the task, the error would hold the whole request.
            pass
        finally:
            self._stream.end()


def _opening(stream: Stream, send: Send, presence: asyncio.Timeout) -> Send:
    """A `send` that keeps the head of the response back until the turn begins, and ends it all when it never does.

    It holds the stream and not the turn: the library keeps it, until the collector comes by, when a client leaves.
    """

    async def opening(message: Message) -> None:
        if message["type"] != "http.response.start":
            await send(message)
        elif await stream.beginning():
            await send({**message, "headers": [*message["headers"], *stream.headers()]})
            stream.open(send)
        else:
            _end(presence)
            await asyncio.Event().wait()

    return opening


async def while_connected(
    receive: Receive, request: CreateRequest, services: Services, *, owner: str, caller: Identity
) -> turn.Outcome:
    """A turn whose client waits for the whole answer. Raises ClientDisconnect when it did not (reliability.md F2)."""
    made = turn.run(request, turn.Discard(), services, owner=owner, caller=caller)
    if not _finishes(services):
        return await present(receive, made)
    task = services.running.begin(made)
    try:
        return await present(receive, asyncio.shield(task))
    except ClientDisconnect:
        services.running.let_go(task)
        raise


async def present(receive: Receive, work: Awaitable[T]) -> T:
    """What some work comes to while its client waits for it. Raises ClientDisconnect when it does not."""
    try:
        async with asyncio.timeout(None) as presence:
            with _watched(receive, presence):
                return await work
    except TimeoutError:
        if not presence.expired():
            raise
    raise ClientDisconnect


def _finishes(services: Services) -> bool:
    """Whether a turn goes on without its client."""
    return services.settings.server.on_disconnect == "finish"


@contextmanager
def _watched(receive: Receive, presence: asyncio.Timeout) -> Iterator[None]:
    """End the client's presence when it leaves before the block is over: uvicorn does not tell a handler."""
    watches: list[asyncio.Task[None]] = []
    with after(LOOK_AFTER, lambda: watches.append(asyncio.create_task(_until_gone(receive, presence)))):
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()


async def _until_gone(receive: Receive, presence: asyncio.Timeout) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    _end(presence)


def _end(presence: asyncio.Timeout) -> None:
    if not presence.expired():
        presence.reschedule(asyncio.get_running_loop().time())
