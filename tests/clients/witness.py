"""The real SDK's clients, with every exchange checked against the SDK's own models.

The SDK builds its objects without validating them, so a wrong type reaches a user as an odd value and a test as
nothing at all. A witness reads the bytes off the transport instead, and validates them strictly when a test is over:

    with witnessing() as witness:
        client = witness.client(server.base_url, "a key")
        ...
"""

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast, get_args

import httpx2
import pydantic
from openai import AsyncOpenAI, OpenAI
from openai.pagination import SyncConversationCursorPage, SyncPage
from openai.types import Model
from openai.types.conversations import (
    Conversation,
    ConversationDeletedResource,
    ConversationItem,
    ConversationItemList,
)
from openai.types.responses import (
    CompactedResponse,
    InputTokenCountResponse,
    Response,
    ResponseCompactionItem,
    ResponseInputMessageItem,
    ResponseStreamEvent,
)
from openai.types.responses.response_item_list import ResponseItemList
from openai.types.responses.responses_server_event import ResponsesServerEvent

_EmptyPage = SyncConversationCursorPage[ConversationItem]

_BEYOND = frozenset(
    {
        # On the wire and in Open Responses, but not in the SDK's model (objects.md §2).
        "Response.store",
        "Response.presence_penalty",
        "Response.frequency_penalty",
        # Required by OpenAI's own schema, dropped by the SDK (events.md §3).
        "ResponseFunctionCallArgumentsDoneEvent.name",
        "ResponseFunctionCallArgumentsWsDone.name",
        # OpenAI's item lists require it, the SDK's type lacks it (objects.md §6.1).
        "ResponseCustomToolCall.status",
        "ResponseCustomToolCallOutput.status",
        # As the agents SDK sends it, and as it is kept (provider-responses.md §3).
        "LocalShellCallOutput.call_id",
        # In the parts they belong to these have bytes, in the events' types they do not (objects.md §5).
        "Logprob.bytes",
        "LogprobTopLogprob.bytes",
        # What an answer over HTTP says in its head, of notes and losses.
        "ResponseWsCreated.headers",
        # What Codex reads of the same list (codex.md §6).
        "SyncPage[Model].models",
        # Every list has both, and the pages of conversations name neither; on an empty one the id is null (http.md §3).
        f"{_EmptyPage.__name__}.object",
        f"{_EmptyPage.__name__}.first_id",
    }
)
"""The fields that may be sent although the SDK does not know them."""

_TERMINAL = ("response.completed", "response.incomplete", "response.failed")

_EVENTS: Mapping[str, type[ResponseStreamEvent]] = {
    get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(get_args(ResponseStreamEvent)[0])
}

_MESSAGES: Mapping[str, type[ResponsesServerEvent]] = {
    get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(get_args(ResponsesServerEvent)[0])
}
"""What a server says over a WebSocket."""


class _ErrorMembers(pydantic.BaseModel, extra="forbid"):
    """All four are always there (http.md §6.1)."""

    message: str
    type: str
    param: str | None
    code: str | None


class _Envelope(pydantic.BaseModel, extra="forbid"):
    error: _ErrorMembers


class _Deleted(pydantic.BaseModel, extra="forbid"):
    id: str
    object: str
    deleted: bool


class _Compacted(CompactedResponse):
    """The SDK takes what is left of the users for messages of the model; they are those of a list (http.md §2.2)."""

    output: list[ResponseInputMessageItem | ResponseCompactionItem]  # type: ignore[assignment]  # see above


@dataclass(slots=True)
class Exchange:
    """One answer, as far as the client read it. `ended` says that the server was done, not that the client left."""

    request: httpx2.Request
    status: int
    headers: httpx2.Headers
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False

    @property
    def events(self) -> list[ResponseStreamEvent]:
        """The events of a stream, each validated. A frame the client did not wait for is left out."""
        *frames, rest = bytes(self.body).decode().split("\n\n")
        assert not (self.ended and rest), f"the stream ends inside a frame: {rest!r}"
        found: list[ResponseStreamEvent] = []
        for frame in frames:
            if frame == "data: [DONE]" or frame.startswith(":"):
                continue
            name, data = frame.split("\n")
            type_ = name.removeprefix("event: ")
            assert type_ in _EVENTS, name
            # The type in the data is that of the class, or it does not validate.
            found.append(_EVENTS[type_].model_validate_json(data.removeprefix("data: "), strict=True))
        return found

    def check(self) -> None:
        """Raise AssertionError or ValidationError when something is not what the SDK's types say (events.md, §1)."""
        assert self.headers["x-request-id"]
        kind = self.headers["content-type"].partition(";")[0]
        if kind == "text/event-stream":
            self._check_stream()
            return
        assert kind == "application/json"
        if self.ended:
            _check_names(_adapter(self._model()).validate_json(bytes(self.body), strict=True))

    def _check_stream(self) -> None:
        assert self.status == 200
        events = self.events
        query = self.request.url.params
        # A stream that is resumed is the rest of the one it goes on with (events.md §7).
        first = int(query.get("starting_after", "-1")) + 1
        assert [event.sequence_number for event in events] == [*range(first, first + len(events))]
        ends = [event.type for event in events if event.type in _TERMINAL]
        if self.ended or ends:
            assert ends == [event.type for event in events[-1:]]
            assert ends or first, "a whole stream has an end"
            assert (b"\n\n" + self.body).endswith(b"\n\ndata: [DONE]\n\n")
        for event in events:
            _check_names(event)

    def _model(self) -> Any:
        """The SDK's type of the answer; not all of them are classes."""
        if self.status != 200:
            return _Envelope
        match self.request.method, self.request.url.path.removeprefix("/v1/").split("/"):
            case ("POST", ["responses", "input_tokens"]):
                return InputTokenCountResponse
            case ("POST", ["responses", "compact"]):
                return _Compacted
            case ("POST", ["responses"] | ["responses", _, "cancel"]) | ("GET", ["responses", _]):
                return Response
            case ("DELETE", ["responses", _]):
                return _Deleted
            case ("GET", ["responses", _, "input_items"]):
                return ResponseItemList
            case ("POST", ["conversations"] | ["conversations", _]) | ("GET", ["conversations", _]):
                return Conversation
            case ("DELETE", ["conversations", _]):
                return ConversationDeletedResource
            case ("POST" | "GET", ["conversations", _, "items"]):
                return ConversationItemList if json.loads(self.body)["data"] else _EmptyPage
            case ("GET", ["conversations", _, "items", _]):
                return ConversationItem
            case ("DELETE", ["conversations", _, "items", _]):
                return Conversation
            case ("GET", ["models"]):
                return SyncPage[Model]
            case ("GET", ["models", *_]):
                return Model
            case unexpected:
                raise AssertionError(f"nobody said what {unexpected} answers")


def check_messages(messages: Iterable[bytes]) -> None:
    """Raise AssertionError or ValidationError when a message of a WebSocket is not what the SDK's types say, or when
    those of a lane are out of order (websocket.md §3)."""
    last: dict[str | None, int] = {}
    for data in messages:
        type_ = json.loads(data)["type"]
        assert type_ in _MESSAGES, type_
        message = _MESSAGES[type_].model_validate_json(data, strict=True)
        _check_names(message)
        if message.type == "error":
            assert (message.status or 0) >= 400, "Codex makes nothing of an error without a status"
            assert message.error.code, "Open Responses wants a string"
        elif message.type == "response.created":
            assert message.sequence_number == 0
            last[message.stream_id] = 0
        elif not (message.type == "response.steer.failed" and message.sequence_number == 0):
            # What is said to nobody's response belongs to none.
            last[message.stream_id] += 1
            assert message.sequence_number == last[message.stream_id]


@cache
def _adapter(type_: Any) -> pydantic.TypeAdapter[object]:
    return pydantic.TypeAdapter(type_)


def _check_names(value: object) -> None:
    unknown = {*_unknown(value)} - _BEYOND
    assert not unknown, unknown


def _unknown(value: object) -> Iterator[str]:
    """The fields the SDK has no name for, as `Class.field`, at any depth."""
    match value:
        case pydantic.BaseModel():
            yield from (f"{type(value).__name__}.{name}" for name in value.model_extra or ())
            # Not by iterating: a page of the SDK iterates over its items.
            for inner in vars(value).values():
                yield from _unknown(inner)
        case list():
            for inner in value:
                yield from _unknown(inner)
        case dict():
            for inner in value.values():
                yield from _unknown(inner)


class Witness:
    """Makes clients, and keeps what they were answered."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def client(self, base_url: str, key: str) -> OpenAI:
        """A client that retries nothing by itself."""
        http = httpx2.Client(transport=_Transport(self), timeout=10)
        return OpenAI(base_url=base_url, api_key=key, max_retries=0, http_client=http)

    def async_client(self, base_url: str, key: str) -> AsyncOpenAI:
        http = httpx2.AsyncClient(transport=_AsyncTransport(self), timeout=10)
        return AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, http_client=http)

    def saw(self, response: httpx2.Response, request: httpx2.Request) -> Exchange:
        exchange = Exchange(request, response.status_code, response.headers)
        self.exchanges.append(exchange)
        return exchange


@contextmanager
def witnessing() -> Iterator[Witness]:
    """A witness that checks, at the end, everything it has seen."""
    witness = Witness()
    yield witness
    for exchange in witness.exchanges:
        exchange.check()


class _Transport(httpx2.HTTPTransport):
    def __init__(self, witness: Witness) -> None:
        super().__init__(limits=_LIMITS, verify=_NO_TLS)
        self._witness = witness

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        stream = cast(httpx2.SyncByteStream, response.stream)  # that of a synchronous transport is no other
        response.stream = _Copied(stream, self._witness.saw(response, request))
        return response


class _AsyncTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, witness: Witness) -> None:
        super().__init__(limits=_LIMITS, verify=_NO_TLS)
        self._witness = witness

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        stream = cast(httpx2.AsyncByteStream, response.stream)  # that of an asynchronous transport is no other
        response.stream = _AsyncCopied(stream, self._witness.saw(response, request))
        return response


class _Copied(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._exchange.body += piece
            yield piece
        self._exchange.ended = True

    def close(self) -> None:
        self._stream.close()


class _AsyncCopied(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._exchange.body += piece
            yield piece
        self._exchange.ended = True

    async def aclose(self) -> None:
        await self._stream.aclose()


_LIMITS = httpx2.Limits(max_connections=100)
_NO_TLS = False
"""Loading certificates takes longer than most tests, and loopback needs none."""


def losses_of(headers: httpx2.Headers) -> list[dict[str, str]]:
    """What of the conversation the server says its upstream did not get."""
    losses = json.loads(headers.get("x-rejoinder-losses", "[]"))
    assert isinstance(losses, list)
    return losses


def notes_of(headers: httpx2.Headers) -> list[str]:
    """Which parameters the server says had no effect."""
    notes = json.loads(headers.get("x-rejoinder-notes", "[]"))
    assert isinstance(notes, list)
    return notes
