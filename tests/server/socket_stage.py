"""The WebSocket endpoint without a network or a clock of its own: what happens next is for the test to say.

    with Stage() as stage:
        line = stage.connect()
        line.say({"type": "response.create", "model": MODEL, "input": "hello"})
        stage.rest()
        stage.calls[0].head()
        stage.rest()
        assert [message["type"] for message in line.heard] == ["response.created", "response.in_progress"]

The application is the real one from `ResponsesSocket` inwards. Its client, its provider and its store live in the
test's own loop, so that `rest` can tell when nobody has anything left to do.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import structs

from rejoinder.bridge.dialect import Call
from rejoinder.bridge.envelope import Seal
from rejoinder.bridge.errors import BrokenStream, UpstreamError
from rejoinder.server.assembly import dialect_of
from rejoinder.server.routing import Routes
from rejoinder.server.services import Provider, Services
from rejoinder.server.settings import Settings
from rejoinder.server.sse import Pulse
from rejoinder.server.upstream import Answer
from rejoinder.server.websocket import ResponsesSocket
from rejoinder.server.websocket_protocol import FRAMES
from rejoinder.store import Store, VolatileBackend
from tests.server.site import MODEL, NOWHERE, Json, settings_in

T = TypeVar("T")

LONG = 10_000
"""Rounds of the loop after which whoever still has something to do never rests."""


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time passes when it is told to."""

    now = 0.0

    def time(self) -> float:
        return self.now

    @property
    def is_idle(self) -> bool:
        """Whether nobody but the one who asks has anything to do."""
        return not self._ready  # type: ignore[attr-defined]  # asyncio has no public word for it


class Exchange:
    """One call to the provider, and the answer to it, as far as the test has let it come."""

    def __init__(self, call: Call) -> None:
        self.body = call.body
        self.asked: Json = json.loads(call.body)
        self.is_open = True
        self.is_answered = False
        """Whether nothing more of it will come."""

        self.taken = 0
        """Pieces the server has read."""

        self._status: asyncio.Future[int | Exception] = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    @property
    def has_head(self) -> bool:
        return self._status.done()

    def head(self, status: int = 200) -> None:
        self._status.set_result(status)
        if status != 200:
            self.end()

    def die(self) -> None:
        """The provider closes the connection, before it says anything or in the middle."""
        self.is_answered = True
        if self.has_head:
            self._pieces.put_nowait(BrokenStream("the connection to the provider broke off"))
        else:
            self._status.set_result(UpstreamError("the provider closed the connection without an answer"))

    def piece(self, data: bytes) -> None:
        self._pieces.put_nowait(data)

    def end(self) -> None:
        self.is_answered = True
        self._pieces.put_nowait(None)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Answer]:
        try:
            status = await self._status
            if isinstance(status, Exception):
                raise status
            yield Answer(status, {"content-type": "text/event-stream"}, self._chunks())
        finally:
            self.is_open = False

    async def _chunks(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            self.taken += 1
            yield piece


class Line:
    """One connection, seen from its client, who reads as much as the test allows."""

    def __init__(self, loop: Loop, serve: Callable[["Line"], Coroutine[None, None, None]], bundles: bool) -> None:
        self.heard: list[Json] = []
        self.sent: list[bytes] = []
        """All messages as they came."""

        self.closed: int | None = None
        self.bundles = bundles
        self.room: int | None = None
        """Writes the client still takes; None for as many as come."""

        self.is_gone = False
        self._said: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._said.put_nowait({"type": "websocket.connect"})
        self.serving = loop.create_task(serve(self))

    def say(self, message: Json) -> None:
        """One text message; bytes are a binary one."""
        if isinstance(message, bytes):
            self._said.put_nowait({"type": "websocket.receive", "bytes": message})
        else:
            text = message if isinstance(message, str) else json.dumps(message)
            self._said.put_nowait({"type": "websocket.receive", "text": text})

    def read(self, room: int | None = None) -> None:
        self.room = room
        self._writable.set()

    def stop_reading(self) -> None:
        self.room = 0

    def leave(self) -> None:
        self.is_gone = True
        self._said.put_nowait({"type": "websocket.disconnect", "code": 1006})
        self._writable.set()

    async def receive(self) -> MutableMapping[str, Any]:
        return await self._said.get()

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """As the protocol does it: it waits for room, and raises an OSError where nobody is there any more."""
        if message["type"] == "websocket.accept":
            return
        if message["type"] == "websocket.close":
            self.closed = message["code"]
            self.leave()
            return
        while self.room == 0 and not self.is_gone:
            self._writable.clear()
            await self._writable.wait()
        if self.is_gone:
            raise BrokenPipeError
        if self.room is not None:
            self.room -= 1
        frames = message["frames"] if "frames" in message else [message["text"].encode()]
        assert frames, "a write says something"
        for frame in frames:
            self.sent.append(frame)
            self.heard.append(json.loads(frame))


class Stage:
    """The services, their one provider, and the loop all of it runs in."""

    def __init__(self, **server: object) -> None:
        self.loop = Loop()
        self._runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self._runner.get_loop()
        self.calls: list[Exchange] = []
        self.faults: list[Mapping[str, Any]] = []
        """What the loop was told of that nobody else took."""

        self.loop.set_exception_handler(lambda loop, context: self.faults.append(context))
        settings = _settings(tuple(sorted(server.items())))
        [upstream] = settings.upstreams
        provider = Provider("test", dialect_of(upstream.profile), self, "chat", "here", 1e9, 1e9)
        self.services = Services(
            settings=settings,
            routes=Routes(settings.upstreams),
            providers={"test": provider},
            store=Store(VolatileBackend()),
            seal=Seal([bytes(32)]),
        )
        self._socket = ResponsesSocket(self.services, Pulse())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close_all(quietly=error is not None)

    def close_all(self, *, quietly: bool = False) -> None:
        """The end. `quietly` where something went wrong already, and nothing more is to be said of it."""
        if not quietly:
            self.run(self.services.close())
            assert not self.faults
        self._runner.close()

    # The provider.

    def open(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        exchange = Exchange(call)
        self.calls.append(exchange)
        return exchange.opened()

    async def close(self) -> None:
        pass

    @property
    def open_calls(self) -> list[Exchange]:
        return [call for call in self.calls if call.is_open]

    # The play.

    def connect(self, *, bundles: bool = True, headers: Mapping[str, str] | None = None) -> Line:
        """A connection. `bundles` says whether its protocol takes many messages in one write."""
        sent = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        scope: MutableMapping[str, Any] = {
            "type": "websocket",
            "path": "/v1/responses",
            "headers": sent,
            "extensions": {FRAMES: {}} if bundles else {},
            "state": {"owner": "local"},
        }

        async def serve(line: Line) -> None:
            await self._socket(scope, line.receive, line.send)

        async def made() -> Line:
            return Line(self.loop, serve, bundles)

        return self.run(made())

    def run(self, work: Coroutine[None, None, T]) -> T:
        return self._runner.run(work)

    def rest(self, rounds: int | None = None) -> None:
        """Let everybody do what there is to do, or a few rounds of it."""
        self.run(self._rest(LONG if rounds is None else rounds))
        assert rounds is not None or self.loop.is_idle, "somebody never rests"

    async def _rest(self, rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)
            if self.loop.is_idle:
                return

    def wait(self, seconds: float) -> None:
        """Let time pass. Whoever waited for it has something to do afterwards."""
        self.loop.now += seconds

    def tasks(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks(self.loop)


@cache
def _settings(server: tuple[tuple[str, object], ...]) -> Settings:
    with tempfile.TemporaryDirectory() as directory:
        settings = settings_in(Path(directory), NOWHERE, server=dict(server))
        [upstream] = settings.upstreams
        return structs.replace(settings, upstreams=(structs.replace(upstream, models=(MODEL,)),))


def chunk(delta: Json, finish: str | None = None) -> bytes:
    """A piece of an answer in Chat Completions."""
    said = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    said["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: %b\n\n" % json.dumps(said).encode()


def more(text: str) -> bytes:
    return chunk({"content": text})


def thought(text: str) -> bytes:
    return chunk({"reasoning_content": text})


def called(index: int, id: str, arguments: str = "{}") -> bytes:
    function = {"name": "look", "arguments": arguments}
    return chunk({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})


def last(finish: str = "stop") -> bytes:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    counted = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage}
    return chunk({}, finish) + b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(counted).encode()
