"""What may be asked about a response that exists (http.md §1)."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from rejoinder.server.access import owner_of
from rejoinder.server.asked import flag, included, whole_number
from rejoinder.server.errors import InvalidRequest, NotFound
from rejoinder.server.following import Followed
from rejoinder.server.lineage import RESPONSE_ID
from rejoinder.server.listing import Page, page
from rejoinder.server.replies import json
from rejoinder.server.runs import Runs
from rejoinder.store import Missing
from rejoinder.wire.items import listed

_ENCODER = msgspec.json.Encoder()


class Deleted(msgspec.Struct):
    id: str
    object: str = "response"
    deleted: bool = True


class StoredResponses:
    """Responses by their ids: stored ones, and those that are kept in memory for a while."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def retrieve(self, request: Request) -> Response | ASGIApp:
        """The response as it was told, or is so far: what `include` asks for is in it if it was asked for when the
        response was made, and reasoning always."""
        response_id, owner = _response_id(request), owner_of(request.scope)
        query = request.query_params
        included(query)
        streams, after = flag(query, "stream"), whole_number(query, "starting_after")
        flag(query, "include_obfuscation")  # it may always be left out (events.md §1)
        if after is not None and not streams:
            raise InvalidRequest(
                "'starting_after' is for a stream: send 'stream=true' with it.", param="starting_after"
            )
        try:
            store, record = await self._runs.find(response_id, owner=owner)
        except Missing as error:
            raise _not_found(response_id) from error
        if not streams:
            return json(record.response)
        if not record.journaled:
            raise InvalidRequest(
                "Only a response created with 'background' and 'stream' can be streamed again.", param="stream"
            )
        run = self._runs.get(response_id, owner)
        return Followed(store, response_id, owner=owner, run=run, after=after)

    async def cancel(self, request: Request) -> Response:
        response_id = _response_id(request)
        try:
            record = await self._runs.cancel(response_id, owner=owner_of(request.scope))
        except Missing as error:
            raise _not_found(response_id) from error
        return json(record.response)

    async def delete(self, request: Request) -> Response:
        response_id = _response_id(request)
        try:
            await self._runs.delete(response_id, owner=owner_of(request.scope))
        except Missing as error:
            raise _not_found(response_id) from error
        return json(_ENCODER.encode(Deleted(response_id)))

    async def input_items(self, request: Request) -> Response:
        """The items the response was made from: its ancestors' items, then its own input.

        Whether OpenAI lists the ancestors' is not established (semantics.md §3); its schema speaks of the items used
        to generate the response, and a client that wants to see what the model saw has no other way to ask.
        """
        response_id, owner = _response_id(request), owner_of(request.scope)
        include, wanted = included(request.query_params), Page.of(request.query_params)
        try:
            store, _ = await self._runs.find(response_id, owner=owner)
            records = await store.lineage(response_id, owner=owner)
        except Missing as error:
            raise _not_found(response_id) from error
        items = [raw for record in records[:-1] for raw in (*record.input, *map(listed, record.output))]
        items.extend(records[-1].input)
        return json(_ENCODER.encode(page(items, wanted, include)))


def _response_id(request: Request) -> str:
    response_id = request.path_params["response_id"]
    assert isinstance(response_id, str)
    if not RESPONSE_ID.fullmatch(response_id):
        raise _not_found(response_id)
    return response_id


def _not_found(response_id: str) -> NotFound:
    shown = "".join(char for char in response_id[:100] if char.isprintable())
    return NotFound(f"Response with id '{shown}' not found.")
