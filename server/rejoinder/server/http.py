"""The HTTP endpoints (http.md §1): each reads its request, calls what does the work, and encodes."""

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rejoinder.server.access import owner_of
from rejoinder.server.body import check_json, read_body
from rejoinder.server.counting import count
from rejoinder.server.envelope import from_codex
from rejoinder.server.errors import InvalidRequest, NotFound
from rejoinder.server.identity import named
from rejoinder.server.lineage import RESPONSE_ID
from rejoinder.server.listing import Page, page
from rejoinder.server.notes import headers
from rejoinder.server.services import Services
from rejoinder.server.sse import Pulse, StreamedTurn, while_connected
from rejoinder.store import Missing, Record
from rejoinder.wire.items import listed
from rejoinder.wire.request import CreateRequest

_LARGE = 2**20
"""Bytes from which reading a body takes long enough to be felt by everybody else on the loop."""

_ENCODER = msgspec.json.Encoder()


class Deleted(msgspec.Struct):
    id: str
    object: str = "response"
    deleted: bool = True


def json(body: bytes, *, headers: dict[str, str] | None = None) -> Response:
    return Response(body, 200, headers, media_type="application/json")


def _parsed(body: bytes) -> CreateRequest:
    check_json(body)
    return CreateRequest.parse(body)


async def _request(receive: Receive, scope: Scope, services: Services) -> CreateRequest:
    server = services.settings.server
    body = await read_body(receive, scope["headers"], limit=server.max_body_bytes, timeout=server.body_timeout)
    return _parsed(body) if len(body) < _LARGE else await anyio.to_thread.run_sync(_parsed, body)


class CreateResponse:
    """`POST /v1/responses`, plain or streamed. Pure ASGI: a plain answer has its client watched while it is made."""

    def __init__(self, services: Services, pulse: Pulse) -> None:
        self._services = services
        self._pulse = pulse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await _request(receive, scope, self._services)
        owner, caller = owner_of(scope), named(scope["headers"])
        answer: ASGIApp
        if request.stream:
            codex = from_codex(scope["headers"])
            answer = StreamedTurn(request, self._services, self._pulse, owner=owner, caller=caller, codex=codex)
        else:
            outcome = await while_connected(receive, request, self._services, owner=owner, caller=caller)
            answer = json(bytes(outcome.response), headers=headers(outcome.notes, outcome.losses))
        await answer(scope, receive, send)


class CountTokens:
    """`POST /v1/responses/input_tokens`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await _request(receive, scope, self._services)
        counted = await count(request, self._services, owner=owner_of(scope))
        await json(_ENCODER.encode(counted))(scope, receive, send)


class StoredResponses:
    """What may be asked about a stored response."""

    def __init__(self, services: Services) -> None:
        self._store = services.store

    async def retrieve(self, request: Request) -> Response:
        if request.query_params.get("stream", "false").lower() not in ("false", "0", ""):
            raise InvalidRequest(
                "Only a response created with 'background' and 'stream' can be streamed again.", param="stream"
            )
        record = await self._record(request)
        return json(record.response)

    async def delete(self, request: Request) -> Response:
        response_id = _response_id(request)
        try:
            await self._store.delete(response_id, owner=owner_of(request.scope))
        except Missing as error:
            raise _not_found(response_id) from error
        return json(_ENCODER.encode(Deleted(response_id)))

    async def input_items(self, request: Request) -> Response:
        """The items the response was made from: its ancestors' items, then its own input.

        Whether OpenAI lists the ancestors' is not established (semantics.md §3); its schema speaks of the items used
        to generate the response, and a client that wants to see what the model saw has no other way to ask.
        """
        wanted = Page.of(request.query_params)
        response_id = _response_id(request)
        try:
            records = await self._store.lineage(response_id, owner=owner_of(request.scope))
        except Missing as error:
            raise _not_found(response_id) from error
        items = [raw for record in records[:-1] for raw in (*record.input, *map(listed, record.output))]
        items.extend(records[-1].input)
        return json(_ENCODER.encode(page(items, wanted)))

    async def _record(self, request: Request) -> Record:
        response_id = _response_id(request)
        try:
            return await self._store.get(response_id, owner=owner_of(request.scope))
        except Missing as error:
            raise _not_found(response_id) from error


def _response_id(request: Request) -> str:
    response_id = request.path_params["response_id"]
    assert isinstance(response_id, str)
    if not RESPONSE_ID.fullmatch(response_id):
        raise _not_found(response_id)
    return response_id


def _not_found(response_id: str) -> NotFound:
    shown = "".join(char for char in response_id[:100] if char.isprintable())
    return NotFound(f"Response with id '{shown}' not found.")
