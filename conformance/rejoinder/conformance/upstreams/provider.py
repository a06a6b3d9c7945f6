"""A scripted provider on a real socket: what is the same for every protocol.

A test says what the provider answers, one step per request, and then looks at what it was sent. The protocol says
what else it answers, how a request is read, and what is wrong with it.
"""

import asyncio
import json
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from types import TracebackType
from typing import ClassVar, Generic, Self, TypeVar

import msgspec
from aiohttp import web

from rejoinder.conformance.upstreams.exchange import Exchange
from rejoinder.conformance.upstreams.objection import Json, Objection
from rejoinder.conformance.upstreams.script import Action, Asked, Cut, Head, HttpError, Pause, Reset, Stall, Step
from rejoinder.conformance.upstreams.seen import Seen
from rejoinder.conformance.upstreams.sent import SentRequest

_OVER = HttpError(500, "the script is over", type="server_error", headers={"x-should-retry": "false"})

Read = TypeVar("Read", bound=Asked)


class _Dropped(Exception):
    """Raised when the script wants the connection gone."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a provider answers without its script: a list of models, a count, a refused key."""

    status: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)


class ScriptedUpstream(ABC, Generic[Read]):
    """A provider that listens on loopback while its context is open: on a free port, unless one is named.

    `script` is one step per accepted request, or a function of the request. Refused requests use up no step; a request
    after the last step is answered with 500. With `key`, requests must carry it. What a script function raises is
    answered with 500 too, and raised again when the context ends.
    """

    root: ClassVar[str]
    """The path of the base URL that a user would configure."""

    told: ClassVar[Sequence[str]] = ()
    """The fields of a request that make up what the model reads, in its order; the last one grows with each turn."""

    def __init__(
        self,
        script: Iterable[Step[Read]] | Callable[[Read], Step[Read]] = (),
        *,
        models: Sequence[str] = ("test-model",),
        key: str | None = None,
        port: int = 0,
    ) -> None:
        self.port = port
        self.strays: list[str] = []
        """Requests that no route fits, by method and path."""

        self.requests: list[SentRequest] = []
        self.asides: list[SentRequest] = []
        """Requests with a body that are no turn: counts, compactions. They use up no step."""

        self.exchanges: list[Exchange] = []
        """The accepted requests, asides too, each with the body it was answered with so far."""

        self.follow(script)
        self._answering: set[asyncio.Task[object]] = set()
        self._models = models
        self._key = key
        self._failure: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted upstream")

    def follow(self, script: Iterable[Step[Read]] | Callable[[Read], Step[Read]]) -> None:
        """Go on with another script."""
        if callable(script):
            self._next: Callable[[Read], Step[Read]] = script
        else:
            steps = iter(script)
            self._next = lambda request: next(steps, _OVER)

    def wait(self, count: int, *, timeout: float = 5) -> SentRequest:
        """Wait until that many requests have come, and give the last of them. Raises TimeoutError."""
        deadline = monotonic() + timeout
        while len(self.requests) < count:
            if monotonic() > deadline:
                raise TimeoutError(f"expected {count} requests within {timeout} s, got {len(self.requests)}")
            sleep(0.005)
        return self.requests[count - 1]

    @property
    def running(self) -> int:
        """How many answers are on their way."""
        return len(self._answering)

    def hang_up(self) -> None:
        """Leave every answer that is on its way as it is, and close its connection."""
        for task in [*self._answering]:
            self._loop.call_soon_threadsafe(task.cancel)

    @property
    def objections(self) -> list[Objection]:
        """What was wrong with the requests so far. Empty is what every test of the bridge wants to see."""
        return [request.objection for request in (*self.requests, *self.asides) if request.objection]

    def seen(self, sent: SentRequest) -> Seen:
        """What an accepted request says."""
        return self._read(sent).seen

    def prefix(self, sent: SentRequest) -> list[bytes]:
        """What the model reads, cut into the pieces that stay the same while a conversation grows."""
        *fixed, growing = self.told
        fields = sent.fields
        return [
            *(bytes(fields.get(name, b"")) for name in fixed),
            *map(bytes, msgspec.json.decode(fields[growing], type=list[msgspec.Raw])),
        ]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.root}"

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=5)
        except OSError:
            self._stop()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        if self._failure and exc is None:
            raise self._failure

    def _stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()

    # What a protocol says about itself.

    @abstractmethod
    def _is_turn(self, method: str, path: str) -> bool:
        """Is this a request for an answer of the script?"""

    @abstractmethod
    def _read(self, sent: SentRequest) -> Read:
        """The request as the script sees it."""

    @abstractmethod
    def _check(self, sent: SentRequest) -> None:
        """Raise Objection when the real provider would refuse this request for its headers or its body."""

    @abstractmethod
    def _key_refused(self, headers: Mapping[str, str], key: str) -> Reply | None:
        """The answer to a request that does not carry `key`."""

    @abstractmethod
    def _list_models(self, path: str, models: Sequence[str]) -> Reply | None:
        """The answer to a GET, when it asks for the models."""

    @abstractmethod
    def _unknown(self, path: str) -> Reply:
        """The answer to a request that no route fits."""

    def _is_aside(self, method: str, path: str) -> bool:
        """Is this a request that the provider answers by itself, out of its body?"""
        return False

    def _answer_aside(self, sent: SentRequest) -> Reply:
        raise NotImplementedError(f"nothing is known about {sent.path}")

    async def _listen(self) -> int:
        app = web.Application(client_max_size=256 * 1024**2)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A stalled exchange ends with its client, and with this provider at the latest.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.05, access_log=None)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", self.port))
        await web.SockSite(self._runner, listener).start()
        port: int = listener.getsockname()[1]
        return port

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.method == "GET" and (listed := self._list_models(request.path, self._models)):
            return _replied(listed)
        turn = self._is_turn(request.method, request.path)
        if not turn and not self._is_aside(request.method, request.path):
            self.strays.append(f"{request.method} {request.path}")
            return _replied(self._unknown(request.path))
        if self._key is not None and (refusal := self._key_refused(headers, self._key)):
            return _replied(refusal)
        body = await request.read()
        kept = self.requests if turn else self.asides
        sent = SentRequest(
            request.method, request.path, headers, body, monotonic(), None, dict(request.query), len(kept) + 1
        )
        objection = self._objection(sent)
        sent = replace(sent, objection=objection)
        kept.append(sent)
        if objection:
            return web.Response(status=objection.status, body=objection.body(), content_type="application/json")
        if not turn:
            reply = self._answer_aside(sent)
            self.exchanges.append(Exchange(sent, bytearray(json.dumps(reply.body).encode())))
            return _replied(reply)
        exchange = Exchange(sent)
        self.exchanges.append(exchange)
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"
        self._answering.add(task)
        try:
            read = self._read(sent)
            return await _play(self._next(read).actions(read), request, exchange.said)
        except _Dropped:
            raise asyncio.CancelledError from None
        except (asyncio.CancelledError, ConnectionError):
            sent.left.set()
            # It is no fault of the provider's, which nobody needs to read of.
            raise asyncio.CancelledError from None
        except Exception as error:  # an assertion in the script: the test has to hear of it
            self._failure = error
            raise
        finally:
            self._answering.discard(task)

    def _objection(self, sent: SentRequest) -> Objection | None:
        try:
            self._check(sent)
            self.seen(sent)
        except Objection as objection:
            return objection
        except msgspec.ValidationError as error:
            return Objection(f"We could not parse your request: {error}", None)
        return None


def _replied(reply: Reply) -> web.Response:
    return web.json_response(reply.body, status=reply.status, headers=reply.headers)


async def _play(actions: Iterable[Action], request: web.Request, said: bytearray) -> web.StreamResponse:
    response = web.StreamResponse()
    transport = request.transport
    assert transport is not None, "the exchange has only begun"
    for action in actions:
        match action:
            case Head(status=status, headers=headers):
                response = web.StreamResponse(status=status, headers=headers)
                if "content-length" not in headers:
                    response.enable_chunked_encoding()
                await response.prepare(request)
            case bytes() if response.prepared:
                said += action
                await response.write(action)
            case bytes():
                transport.write(action)
            case Pause(seconds=seconds):
                await asyncio.sleep(seconds)
            case Stall():
                await asyncio.Event().wait()
            case Cut():
                transport.close()
                raise _Dropped
            case Reset():
                connection = transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
                raise _Dropped
    return response
