"""A little server that speaks the Responses API in front of Chat Completions, and can be made to break one rule.

It keeps every paired rule unless a fault says otherwise. A fault changes what goes past it on its way from the client
to the provider and back, or has a bad habit:

    Fault(prompted=lambda asked: asked.pop("temperature", None))
    Fault(habits={"buffers"})

`little_prompt` is how a request is told to the provider, `little_telling` how its answer is told in events.
"""

import asyncio
import codecs
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import aiohttp
import msgspec
from aiohttp import web

from tests.conformance.little_prompt import Bad, body_of, check, check_pairs, items_of, seal
from tests.conformance.little_telling import Telling

Json = Any  # JSON as dicts and lists: faults reach for it at every depth

T = TypeVar("T")

MODEL = "little"
THEIR_KEY = "harbour-of-the-moon-77"
"""The key of the bridge for its provider. It looks like none, so nobody finds it by its look."""

Habit = Literal[
    "buffers",  # tells nothing before the provider is done
    "reads bytes alone",  # decodes every piece of the stream by itself
    "reads ahead",  # reads all that the provider says, whether somebody takes it or not
    "stays",  # goes on with the provider when the client of a stream has left
    "waits",  # goes on with the provider when the client of an answer in one piece has left
    "asks again",  # asks the provider once more when it breaks off
    "begins early",  # begins its stream before the provider has answered
    "believes the end",  # takes the end of the body for the end of the answer
    "believes silence",  # takes a body of nothing for an answer
    "skips nonsense",  # overlooks what is no JSON
    "skips errors",  # overlooks an error in the stream
    "believes a reset",  # takes a connection that is reset for the end of the answer
    "believes the finish",  # takes an answer that has stopped as usual for one without calls
    "keeps ids",  # calls a call as the provider does
    "forgets codes",  # says nothing of why
    "needs the last word",  # takes an answer without [DONE] for a broken one
    "is patient with halves",  # takes half an answer in one piece for a whole one
    "is hurt",  # fails ever after a provider has failed
]


def _nothing(value: Json) -> None:
    pass


def _always(asked: Json) -> bool:
    return True


def _untold(text: str) -> str:
    return "the provider refused the request"


@dataclass(frozen=True, slots=True)
class Fault:
    """`asked` sees the body of a request, `past` the items that it continues, `prompted` the body for the provider,
    `heard` every chunk of its answer, `told` every event, `plain` every response in one piece, `kept` one that is asked
    for again, and `headers` those of an error. Whatever they are given they may change. `worded` makes a message of the
    text of a refusal, `statuses` a status of its status; 0 is for no answer. The habits are for requests that `when`
    is true of."""

    asked: Callable[[Json], object] = _nothing
    past: Callable[[list[Json]], object] = _nothing
    prompted: Callable[[Json], object] = _nothing
    heard: Callable[[Json], object] = _nothing
    told: Callable[[Json], object] = _nothing
    plain: Callable[[Json], object] = _nothing
    kept: Callable[[Json], object] = _nothing
    worded: Callable[[str], str] = _untold
    statuses: Mapping[int, int] = field(default_factory=dict)
    headers: Callable[[dict[str, str]], object] = _nothing
    habits: frozenset[Habit] = frozenset()
    when: Callable[[Json], bool] = _always


class Refused(Exception):
    """An answer of the provider that is none, as the client hears of it."""

    def __init__(self, status: int, message: str, code: str | None = None, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = {} if retry_after is None else {"retry-after": retry_after}


class Broke(Exception):
    """Raised when the provider's answer breaks off."""


Emit = Callable[[Json], Awaitable[None]]

_TOO_LONG = "context_length_exceeded"


class LittleBridge:
    def __init__(self, provider: str, fault: Fault | None = None) -> None:
        self.fault = fault or Fault()
        self.crashes: list[Exception] = []
        self._provider = provider
        self._numbers = itertools.count(1)
        self._responses: dict[str, tuple[Json, list[Json]]] = {}
        """Each response, and the items up to its end."""

        self._conversations: dict[str, list[Json]] = {}
        self._left: set[asyncio.Task[Json]] = set()
        self.bruises = 0
        """1 after the provider has failed, 2 when its next answer broke off."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as self._session:
            yield
            for task in self._left:
                task.cancel()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The handler of every path."""
        try:
            return await self._routed(request)
        except Bad as bad:
            return _error(400, str(bad), bad.code, {}, bad.param)
        except Refused as refused:
            self.fault.headers(refused.headers)
            return _error(refused.status, str(refused), refused.code, refused.headers)
        except ConnectionError:
            raise
        except Exception as crash:
            self.crashes.append(crash)
            raise

    async def _routed(self, request: web.Request) -> web.StreamResponse:
        match request.method, request.path.removeprefix("/v1/").split("/"):
            case "GET", ["responses"]:
                return await self._socket(request)
            case "POST", ["responses"]:
                return await self._create(request, await request.json())
            case "POST", ["responses", "compact"]:
                return web.json_response(await self._compact(await request.json()))
            case "GET", ["responses", id] if id in self._responses:
                told, _ = self._responses[id]
                self.fault.kept(told)
                return web.json_response(told)
            case "POST", ["conversations"]:
                self._conversations[id := self._new("conv")] = items_of((await request.json()).get("items", []))
                return web.json_response({"id": id, "object": "conversation", "created_at": 0, "metadata": {}})
            case _:
                return _error(404, "nothing there", None, {}, None)

    def _new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):06}"

    async def _create(self, request: web.Request, asked: Json) -> web.StreamResponse:
        turn = Turn(self, asked)
        if not asked.get("stream"):
            told = await self._stubborn("waits", turn.run(_nobody))
            if told["status"] == "failed":
                raise Refused(502, "the provider broke off")
            self.fault.plain(told)
            return web.json_response(told)
        stream = web.StreamResponse(headers={"content-type": "text/event-stream"})

        async def emit(event: Json) -> None:
            if not stream.prepared:
                await stream.prepare(request)
            await stream.write(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event)))

        if turn.has("begins early"):
            await stream.prepare(request)
        await self._stubborn("stays", turn.run(emit))
        await stream.write(b"data: [DONE]\n\n")
        return stream

    async def _stubborn(self, habit: Habit, turn: Coroutine[Any, Any, Json]) -> Json:
        """A turn that ends with its client, unless it has that habit."""
        if habit not in self.fault.habits:
            return await turn
        task = asyncio.create_task(turn)
        self._left.add(task)
        return await asyncio.shield(task)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """One turn after the other; what is not stored is remembered while the socket is open."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        local: dict[str, tuple[Json, list[Json]]] = {}

        async def emit(event: Json) -> None:
            await socket.send_str(msgspec.json.encode(event).decode())

        async for message in socket:
            turn = Turn(self, msgspec.json.decode(message.data), local)
            await turn.run(emit)
        return socket

    async def _compact(self, asked: Json) -> Json:
        if "model" not in asked:
            raise Bad("'model' is missing", "model")
        given = {"role": "user", "content": "Sum up what was said."}
        turn = Turn(self, {"model": asked["model"], "input": [*items_of(asked["input"]), given], "store": False})
        told = await turn.run(_nobody)
        summary = "".join(part["text"] for part in told["output"][0]["content"])
        sealed = {"type": "compaction", "id": self._new("cmp"), "encrypted_content": seal({"summary": summary})}
        return {"id": self._new("resp"), "object": "response.compaction", "output": [sealed], "usage": told["usage"]}


async def _nobody(event: Json) -> None:
    """Who asks for one piece hears of no events."""


def _error(
    status: int, message: str, code: str | None, headers: Mapping[str, str], param: str | None = None
) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)


class Turn:
    """One create call, from its reading to its end."""

    def __init__(
        self, bridge: LittleBridge, asked: Json, local: dict[str, tuple[Json, list[Json]]] | None = None
    ) -> None:
        self._bridge = bridge
        self._fault = bridge.fault
        self._fault.asked(asked)
        check(asked)
        self._asked = asked
        self._kept = bridge._responses if local is None else local
        self._past = self._found()
        self._fault.past(self._past)
        self._given = items_of(asked["input"])
        check_pairs([*self._past, *self._given])

    def has(self, habit: Habit) -> bool:
        return habit in self._fault.habits and self._fault.when(self._asked)

    def _found(self) -> list[Json]:
        if (previous := self._asked.get("previous_response_id")) is not None:
            if previous not in self._kept:
                message = f"Previous response with id '{previous}' not found."
                raise Bad(message, "previous_response_id", "previous_response_not_found")
            return copied(self._kept[previous][1])
        if (conversation := self._asked.get("conversation")) is not None:
            return copied(self._bridge._conversations[conversation])
        return []

    async def run(self, emit: Emit) -> Json:
        """The response at its end; whoever listens hears of it on the way."""
        asked = self._asked
        response = {
            "id": self._bridge._new("resp"),
            "object": "response",
            "status": "in_progress",
            "model": asked.get("model"),
            "store": asked.get("store", True),
            "previous_response_id": asked.get("previous_response_id"),
            "output": [],
            "usage": None,
            "incomplete_details": None,
            "error": None,
        }
        custom = {tool["name"] for tool in asked.get("tools", []) if tool["type"] == "custom"}
        out = Telling(response, custom, self._bridge._new, keeps_ids=self.has("keeps ids"))
        held: list[Json] = []

        async def tell(events: Iterable[Json]) -> None:
            for event in events:
                self._fault.told(event)
                if self.has("buffers"):
                    held.append(copied(event))
                else:
                    await emit(event)

        if asked.get("generate") is False:
            await tell([*out.begin(), *out.end("completed")])
        else:
            if self._bridge.bruises == 2 and self.has("is hurt"):
                raise Refused(500, "it still hurts")
            await self._ask(out, tell)
        self._keep(response)
        for event in held:
            await emit(event)
        return copied(response)

    async def _ask(self, out: Telling, tell: Callable[[Iterable[Json]], Awaitable[None]]) -> None:
        body = body_of(self._asked, [*self._past, *self._given])
        self._fault.prompted(body)
        begun = False
        if self.has("begins early"):
            begun = True
            await tell(out.begin())
        try:
            async for chunk in self._chunks(body):
                if not begun:
                    begun = True
                    await tell(out.begin())
                self._fault.heard(chunk)
                await tell(out.take(chunk))
            if out.finish is None and not self._believes(out):
                raise Broke
        except Broke:
            self._bridge.bruises *= 2
            if self.has("asks again"):
                async with self._post(body):
                    pass
            if not begun:
                raise Refused(502, "the provider broke off") from None
            if not self.has("is patient with halves"):
                await tell(out.end("failed"))
                return
        except Refused:
            if not begun:
                raise
            await tell(out.end("failed"))
            return
        status = {"length": "incomplete", "content_filter": "incomplete"}.get(out.finish or "", "completed")
        reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(out.finish or "")
        if self.has("believes the finish") and out.finish == "stop":
            out.drop_calls()
        await tell(out.end(status, reason))

    def _believes(self, out: Telling) -> bool:
        return self.has("believes the end") if out.output else self.has("believes silence")

    def _post(self, body: Json) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = {"authorization": f"Bearer {THEIR_KEY}", "content-type": "application/json"}
        url = f"{self._bridge._provider}/chat/completions"
        return self._bridge._session.post(url, data=msgspec.json.encode(body), headers=headers)

    async def _chunks(self, body: Json) -> AsyncIterator[Json]:
        """What the provider says. Raises Refused, or Broke when it breaks off."""
        try:
            async with self._post(body) as answer:
                if answer.status != 200:
                    raise self._refused(answer.status, await answer.text(), answer.headers.get("retry-after"))
                async for chunk in self._read(answer):
                    yield chunk
        except aiohttp.ClientConnectionError:
            raise Refused(self._fault.statuses.get(0, 502), "the provider cannot be reached") from None
        except aiohttp.ClientPayloadError as error:
            if self.has("believes a reset") and "ConnectionResetError" in str(error):
                yield _END
                return
            raise Broke from None

    def _refused(self, status: int, text: str, retry_after: str | None) -> Refused:
        self._bridge.bruises = int(status == 500)
        code = _TOO_LONG if _TOO_LONG in text and not self.has("forgets codes") else None
        kept = {400: 400, 404: 404, 413: 413, 429: 429, **self._fault.statuses}
        return Refused(kept.get(status, 502), self._fault.worded(text), code, retry_after)

    async def _read(self, answer: aiohttp.ClientResponse) -> AsyncIterator[Json]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        text = ""
        pieces = answer.content.iter_any()
        async for piece in _ahead(pieces) if self.has("reads ahead") else pieces:
            if self.has("reads bytes alone"):
                text += piece.decode(errors="replace")
            else:
                text += decoder.decode(piece)
            *frames, text = text.split("\n\n")
            for frame in frames:
                data = frame.removeprefix("data: ")
                if data == "[DONE]":
                    return
                yield self._chunk(data)
        if self.has("needs the last word"):
            raise Broke

    def _chunk(self, data: str) -> Json:
        try:
            chunk = msgspec.json.decode(data)
        except msgspec.DecodeError:
            if self.has("skips nonsense"):
                return _END
            raise Broke from None
        if "error" in chunk:
            if self.has("skips errors"):
                return _END
            raise Broke
        return chunk

    def _keep(self, response: Json) -> None:
        items = [*self._past, *self._given, *copied(response["output"])]
        if self._asked.get("store", True) or self._kept is not self._bridge._responses:
            self._kept[response["id"]] = (copied(response), items)
        if (conversation := self._asked.get("conversation")) is not None:
            self._bridge._conversations[conversation] = items


_END = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
"""What somebody hears who wants to hear an end."""


async def _ahead(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, read whether somebody takes it or not."""
    waiting: asyncio.Queue[bytes | aiohttp.ClientError | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for piece in pieces:
                waiting.put_nowait(piece)
        except aiohttp.ClientError as error:
            waiting.put_nowait(error)
        else:
            waiting.put_nowait(None)

    pumping = asyncio.create_task(pump())
    try:
        while (piece := await waiting.get()) is not None:
            if isinstance(piece, aiohttp.ClientError):
                raise piece
            yield piece
    finally:
        pumping.cancel()


def copied(value: T) -> T:
    """A copy that shares nothing."""
    copy: T = msgspec.json.decode(msgspec.json.encode(value))
    return copy


@asynccontextmanager
async def bridging(bridge: LittleBridge) -> AsyncIterator[str]:
    """The bridge at a port of its own; gives its base URL."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", bridge.handle)
    # A turn ends with its client.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    async with bridge.open():
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()
