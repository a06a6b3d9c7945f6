"""A little server that speaks the Responses API in front of no model at all, and can be made to break one rule.

It keeps every rule of the suite unless a fault says otherwise. A fault looks at an exchange before it is served, after
it, or at the bytes of a stream:

    Fault(told=lambda it: [response.pop("usage") for response in it.responses])

What it refuses is in `little_checks`, what it says in `little_model`, what it keeps in `little_store`, and what is only
for sockets or for Codex in files of these names.
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web

from tests.conformance import little_codex
from tests.conformance.little_checks import (
    check,
    check_included,
    check_metadata,
    check_model,
    check_pairs,
    items_of,
)
from tests.conformance.little_exchange import (
    MODEL,
    NOW,
    Exchange,
    Fault,
    Json,
    Numbers,
    Refused,
    copied,
    exchange_of,
    given_in,
    parsed,
)
from tests.conformance.little_model import compaction, events_of, framed, output_of, response_of, usage, words
from tests.conformance.little_store import Conversation, Kept, Store, page_of

__all__ = [
    "MODEL",
    "NOW",
    "Exchange",
    "Fault",
    "Json",
    "LittleServer",
    "Refused",
    "exchange_of",
    "framed",
    "parsed",
    "serving",
]

_AT_ONCE = 20


class LittleServer:
    """What is honest of it: `serve` fills in an exchange, whatever its fault does before and after."""

    def __init__(
        self,
        fault: Fault | None = None,
        *,
        key: str | None = None,
        other_key: str | None = None,
        refuses: str | None = None,
        sockets: bool = True,
    ) -> None:
        self.fault = fault or Fault()
        self._keys = [f"Bearer {one}" for one in (key, other_key) if one is not None]
        self._refuses = refuses
        self._sockets = sockets
        self._new = Numbers()
        self._stores: dict[str | None, Store] = {}
        self._requests = itertools.count(1)
        self.crashes: list[Exception] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The handler of every path."""
        from tests.conformance.little_socket import over_a_socket  # it is made of what is here

        try:
            if self._sockets and request.headers.get("upgrade", "").lower() == "websocket":
                return await over_a_socket(self, request)
            return await self._over_http(request)
        except Exception as crash:
            self.crashes.append(crash)
            raise

    async def _over_http(self, request: web.Request) -> web.StreamResponse:
        body = little_codex.inflated(await request.read(), request.headers.get("content-encoding"))
        it = exchange_of(request, body)
        chunks = self.answer(it)
        if not it.events:
            return web.Response(body=b"".join(chunks), status=it.status, headers=it.headers)
        stream = web.StreamResponse(headers=it.headers)
        await stream.prepare(request)
        for chunk in chunks:
            await stream.write(chunk)
        await stream.write_eof()
        return stream

    def answer(self, it: Exchange) -> list[bytes]:
        """The chunks of the body; status and headers are in the exchange then."""
        it.headers["x-request-id"] = f"req_{next(self._requests)}"
        self._fill_in(it)
        if it.events:
            it.headers.setdefault("content-type", "text/event-stream")
            return self.fault.sent([*map(framed, it.events), b"data: [DONE]\n\n"])
        it.headers.setdefault("content-type", "application/json")
        return [msgspec.json.encode(it.told)]

    def _fill_in(self, it: Exchange) -> None:
        try:
            if it.method == "POST" and it.place[-1] != "cancel":
                it.asked = parsed(it.asked)
            self.fault.asked(it)
            if (refused := self.unauthorized(it)) is not None:
                raise refused
            self.serve(it)
        except Refused as refused:
            it.status, it.told, it.events = refused.status, {"error": refused.error}, []
        self.fault.told(it)

    def unauthorized(self, it: Exchange) -> "Refused | None":
        if not self._keys or it.key in self._keys:
            return None
        return Refused("wrong key", code="invalid_api_key", status=401)

    def serve(self, it: Exchange) -> None:
        store = self._stores.setdefault(it.key if self._keys else None, Store(self._new))
        match it.method, it.place:
            case _, ["responses", *_]:
                self._serve_responses(it, store)
            case _, ["conversations", *_]:
                self._serve_conversations(it, store)
            case "GET", ["models"]:
                it.told = {"object": "list", "data": [_model()], "models": little_codex.catalogue(MODEL)}
            case "GET", ["models", name] if name == MODEL:
                it.told = _model()
            case _:
                raise _nothing()

    def _serve_responses(self, it: Exchange, store: Store) -> None:
        match it.method, it.place[1:]:
            case "POST", []:
                self._create(it, store)
            case "POST", ["input_tokens"]:
                asked = given_in(it.body)
                check(asked, None)
                before, _ = self._past(asked, store, {})
                it.told = {"object": "response.input_tokens", "input_tokens": self._taken(asked, before, store)}
            case "POST", ["compact"]:
                it.told = self._compacted(given_in(it.body), store)
            case "GET", [response_id]:
                self._tell(it, store.found(response_id))
            case "DELETE", [response_id]:
                it.told = store.delete(response_id)
            case "POST", [response_id, "cancel"]:
                it.told = copied(store.found(response_id).cancel())
            case "GET", [response_id, "input_items"]:
                it.told = page_of(copied(store.found(response_id).given), it.query, check_included(it.query))
            case _:
                raise _nothing()

    def _serve_conversations(self, it: Exchange, store: Store) -> None:
        match it.method, it.place[1:]:
            case "POST", []:
                asked = given_in(it.body)
                check_metadata(asked.get("metadata"))
                it.told = copied(store.converse(asked.get("metadata"), _at_once(asked.get("items", []))))
            case "GET", [conversation_id]:
                it.told = copied(store.conversation(conversation_id).told)
            case "POST", [conversation_id]:
                told = store.conversation(conversation_id).told
                if "metadata" not in it.body:
                    raise Refused("missing", "metadata", "missing_required_parameter")
                told["metadata"] = it.body["metadata"] or {}
                it.told = copied(told)
            case "DELETE", [conversation_id]:
                it.told = store.forget(conversation_id)
            case method, [conversation_id, "items", *item_ids]:
                self._serve_items(it, method, store, store.conversation(conversation_id), item_ids)
            case _:
                raise _nothing()

    def _serve_items(self, it: Exchange, method: str, store: Store, place: Conversation, item_ids: list[str]) -> None:
        match method, item_ids:
            case "POST", []:
                if "items" not in it.body:
                    raise Refused("missing", "items", "missing_required_parameter")
                added = [store.item(item) for item in _at_once(it.body["items"])]
                place.items += added
                it.told = page_of(copied(added), {"order": "asc"})
            case "GET", []:
                it.told = page_of(copied(place.items), it.query)
            case "GET", [item_id]:
                it.told = copied(place.found(item_id))
            case "DELETE", [item_id]:
                place.items.remove(place.found(item_id))
                it.told = copied(place.told)
            case _:
                raise _nothing()

    def _create(self, it: Exchange, store: Store) -> None:
        asked = given_in(it.asked)
        check(asked, self._refuses)
        before, place = self._past(asked, store, it.local)
        given = [store.item(item) for item in items_of(asked["input"])]
        check_pairs([*before, *given])
        taken = self._taken(asked, before, store)
        output = output_of(asked, given, taken, self._new)
        response = response_of(asked, self._new("resp"), output, taken)
        given = [item for item in given if item["type"] != "compaction_trigger"]
        it.made = kept = Kept(response, given, before, place=place)
        events = list(events_of(response)) if asked.get("stream") else []
        if asked.get("store", True):
            store.responses[response["id"]] = kept
        if response["background"]:
            store.passing[response["id"]] = kept
            kept.events = copied(events)
            kept.ahead = [] if events else ["queued", "in_progress"]
        told = kept.told()
        if events:
            it.events = copied(events)
        else:
            it.told = copied(told)

    def _past(self, asked: Json, store: Store, local: dict[str, Json]) -> tuple[list[Json], Conversation | None]:
        """What was said before, and the conversation it was said in."""
        previous, named = asked.get("previous_response_id"), asked.get("conversation")
        if previous is not None and named is not None:
            raise Refused("either of them", "previous_response_id", "mutually_exclusive_parameters")
        if previous is not None:
            return store.parent(previous, local).history, None
        if named is not None:
            place = store.entered(named)
            return place.items, place
        return [], None

    def _taken(self, asked: Json, before: list[Json], store: Store) -> int:
        given = [{**store.item(item), "id": ""} for item in items_of(asked["input"])]
        return words(asked.get("instructions"), asked.get("tools", []), before, given)

    def _tell(self, it: Exchange, kept: Kept) -> None:
        check_included(it.query)
        if it.query.get("stream") != "true":
            it.told = copied(kept.told())
            return
        after = it.query.get("starting_after", "-1")
        if not after.removeprefix("-").isdecimal():
            raise Refused("no number", "starting_after", "invalid_type")
        if not kept.events:
            raise Refused("there are no events", "stream")
        it.events = copied(kept.events[int(after) + 1 :])

    def _compacted(self, asked: Json, store: Store) -> Json:
        check_model(asked)
        before, _ = self._past(asked, store, {})
        items = [*before, *(store.item(item) for item in items_of(asked.get("input", [])))]
        users = [{**item, "id": self._new("msg")} for item in items if item.get("role") == "user"]
        return {
            "id": self._new("resp"),
            "object": "response.compaction",
            "created_at": NOW,
            "output": [*users, compaction(self._new)],
            "usage": usage(words(items), 8),
        }


def _nothing() -> Refused:
    return Refused("nothing there", status=404)


def _at_once(items: list[Json]) -> list[Json]:
    if len(items) > _AT_ONCE:
        raise Refused("too many", "items", "array_above_max_length")
    return list(items_of(items))


def _model() -> Json:
    return {"id": MODEL, "object": "model", "created": NOW, "owned_by": "nobody"}


@asynccontextmanager
async def serving(server: LittleServer) -> AsyncIterator[str]:
    """The server at a port of its own; gives its base URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    # Bodies come as they were sent: aiohttp does not know every coding.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, auto_decompress=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
