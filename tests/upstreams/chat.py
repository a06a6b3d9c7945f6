"""A scripted Chat Completions provider on a real socket, as strict as the strictest (provider-chat.md).

A test says what the provider answers, one step per request, and then looks at what it was sent:

    with ChatUpstream([answer(calls(call("look"))), answer(text("Hel", "lo"))]) as upstream:
        ...
        assert upstream.requests[1].chat.messages[-1].role == "tool"
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, sleep
from types import TracebackType
from typing import Self

from aiohttp import web

from tests.upstreams.script import Action, Cut, Head, HttpError, Pause, Reset, Stall, Step
from tests.upstreams.sent import SentChat, SentRequest
from tests.upstreams.strictness import COMPATIBLE, Json, Objection, Strictness, check

_OVER = HttpError(500, "the script is over", type="server_error", headers={"x-should-retry": "false"})

Script = Iterable[Step] | Callable[[SentChat], Step]


class _Dropped(Exception):
    """Raised when the script wants the connection gone."""


class ChatUpstream:
    """A provider that listens on a free port of loopback while its context is open.

    `script` is one step per accepted request, or a function of the request. Refused requests use up no step; a request
    after the last step is answered with 500. With `key`, requests must carry it. What a script function raises is
    answered with 500 too, and raised again when the context ends.
    """

    def __init__(
        self,
        script: Script = (),
        *,
        strictness: Strictness = COMPATIBLE,
        models: Sequence[str] = ("test-model",),
        key: str | None = None,
    ) -> None:
        self.requests: list[SentRequest] = []
        self.follow(script)
        self._strictness = strictness
        self._models = models
        self._key = key
        self._failure: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chat upstream")

    def follow(self, script: Script) -> None:
        """Go on with another script."""
        if callable(script):
            self._next: Callable[[SentChat], Step] = script
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
    def objections(self) -> list[Objection]:
        """What was wrong with the requests so far. Empty is what every test of the bridge wants to see."""
        return [request.objection for request in self.requests if request.objection]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(timeout=5)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(timeout=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        self._loop.close()
        if self._failure and exc is None:
            raise self._failure

    async def _listen(self) -> int:
        app = web.Application(client_max_size=256 * 1024**2)
        app.router.add_route("*", "/v1/{path:.*}", self._exchange)
        # A stalled exchange ends with its client, and with this provider at the latest.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.05, access_log=None)
        await self._runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self._runner, listener).start()
        port: int = listener.getsockname()[1]
        return port

    async def _exchange(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if (request.method, request.path) == ("GET", "/v1/models"):
            data: list[Json] = [{"id": model, "object": "model", "owned_by": "test"} for model in self._models]
            return web.json_response({"object": "list", "data": data})
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            return web.json_response({"error": {"message": f"Unknown request URL: {request.path}"}}, status=404)
        if self._key is not None and headers.get("authorization") != f"Bearer {self._key}":
            error: Json = {"message": "Incorrect API key provided.", "type": "invalid_request_error", "param": None}
            return web.json_response({"error": error}, status=401)
        body = await request.read()
        objection = self._objection(body)
        sent = SentRequest(request.method, request.path, headers, body, monotonic(), objection)
        self.requests.append(sent)
        if objection:
            return web.Response(status=400, body=objection.body(), content_type="application/json")
        try:
            return await _play(self._next(sent.chat).actions(sent.chat), request)
        except _Dropped:
            raise asyncio.CancelledError from None
        except (asyncio.CancelledError, ConnectionError):
            sent.left.set()
            raise
        except Exception as error:  # an assertion in the script: the test has to hear of it
            self._failure = error
            raise

    def _objection(self, body: bytes) -> Objection | None:
        try:
            check(body, self._strictness)
        except Objection as objection:
            return objection
        return None


async def _play(actions: Iterable[Action], request: web.Request) -> web.StreamResponse:
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
