"""`/v1/conversations` and what is in them (http.md §1)."""

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rejoinder.server.access import owner_of
from rejoinder.server.asked import included
from rejoinder.server.body import check_json, read_body
from rejoinder.server.conversation_types import (
    Conversation,
    ConversationBody,
    ConversationDeleted,
    ConversationUpdate,
    ItemsBody,
)
from rejoinder.server.errors import NotFound
from rejoinder.server.ids import Ids
from rejoinder.server.including import shown
from rejoinder.server.lineage import CONVERSATION_ID, no_conversation, said_in
from rejoinder.server.listing import Page, item_list, page
from rejoinder.server.prompting import kept_by
from rejoinder.server.replies import json
from rejoinder.server.services import Services
from rejoinder.store import Conversation as Kept
from rejoinder.store import Missing, Record, items_of, removal_of
from rejoinder.store.record import item_id
from rejoinder.wire.errors import BadRequest, bad_request
from rejoinder.wire.items import Item, ItemReference, listed

T = TypeVar("T")

_LONGEST_ID = 256
_ITEM_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{_LONGEST_ID}}}")

_ENCODER = msgspec.json.Encoder()
_CREATE = msgspec.json.Decoder(ConversationBody)
_UPDATE = msgspec.json.Decoder(ConversationUpdate)
_ITEMS = msgspec.json.Decoder(ItemsBody)


class ConversationRoutes:
    """The eight endpoints. Whatever changes what was said waits for no turn: it is refused while one goes on."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._kept = services.conversations.kept

    async def create(self, request: Request) -> Response:
        body = await self._body(request, _CREATE)
        ids = Ids(self._services.random)
        owner, created_at = owner_of(request.scope), int(self._services.clock())
        items = await self._items(body.items or (), owner)
        _check_new(items, ())
        began = self._record(ids, items, None) if items else None
        conversation = await self._kept.create(
            f"conv_{ids.stem}", owner=owner, created_at=created_at, metadata=body.metadata or {}, items=began
        )
        return _told(conversation)

    async def retrieve(self, request: Request) -> Response:
        return _told(await self._found(request))

    async def update(self, request: Request) -> Response:
        """Replaces the metadata, whatever else goes on in the conversation."""
        body = await self._body(request, _UPDATE)
        conversation_id = _conversation_id(request)
        try:
            described = await self._kept.describe(conversation_id, body.metadata or {}, owner=owner_of(request.scope))
        except Missing as error:
            raise no_conversation(conversation_id) from error
        return _told(described)

    async def delete(self, request: Request) -> Response:
        conversation_id, owner = _conversation_id(request), owner_of(request.scope)
        with self._services.conversations.alone(conversation_id, owner):
            try:
                await self._kept.delete(conversation_id, owner=owner)
            except Missing as error:
                raise no_conversation(conversation_id) from error
        return json(_ENCODER.encode(ConversationDeleted(id=conversation_id)))

    async def add(self, request: Request) -> Response:
        include = included(request.query_params)
        body = await self._body(request, _ITEMS)
        conversation_id, owner = _conversation_id(request), owner_of(request.scope)
        with self._services.conversations.alone(conversation_id, owner):
            found = await self._found(request)
            items = await self._items(body.items, owner)
            _check_new(items, await self._said(conversation_id, owner))
            record = self._record(Ids(self._services.random), items, found.head)
            if items:
                await self._kept.append(conversation_id, record, owner=owner)
        return json(_ENCODER.encode(item_list([shown(raw, include) for raw in record.input])))

    async def items(self, request: Request) -> Response:
        include, wanted = included(request.query_params), Page.of(request.query_params)
        said = await self._said(_conversation_id(request), owner_of(request.scope))
        return json(_ENCODER.encode(page(said, wanted, include)))

    async def item(self, request: Request) -> Response:
        include = included(request.query_params)
        raw = _one(await self._said(_conversation_id(request), owner_of(request.scope)), request)
        return json(shown(raw, include))

    async def remove(self, request: Request) -> Response:
        """Takes an item out of the conversation. A response that was made with it goes on being one that was."""
        conversation_id, owner = _conversation_id(request), owner_of(request.scope)
        with self._services.conversations.alone(conversation_id, owner):
            gone = item_id(_one(await self._said(conversation_id, owner), request))
            found = await self._found(request)
            assert found.head is not None, "an item was found"
            ids, now = Ids(self._services.random), int(self._services.clock())
            removal = removal_of(ids.response, parent=found.head, created_at=now, item_id=gone)
            await self._kept.remove(conversation_id, gone, owner=owner, by=removal)
        return _told(found)

    async def _body(self, request: Request, decoder: msgspec.json.Decoder[T]) -> T:
        server = self._services.settings.server
        raw = await read_body(
            request.receive, request.scope["headers"], limit=server.max_body_bytes, timeout=server.body_timeout
        )
        check_json(raw)
        try:
            return decoder.decode(raw)
        except msgspec.MsgspecError as error:
            raise bad_request(error) from error

    async def _found(self, request: Request) -> Kept:
        conversation_id = _conversation_id(request)
        try:
            return await self._kept.get(conversation_id, owner=owner_of(request.scope))
        except Missing as error:
            raise no_conversation(conversation_id) from error

    async def _said(self, conversation_id: str, owner: str) -> list[bytes]:
        records = await said_in(conversation_id, self._services.store, owner=owner)
        return [raw for record in records for raw in (*record.input, *map(listed, record.output))]

    async def _items(self, given: Sequence[msgspec.Raw], owner: str) -> list[Item]:
        """The items a client gives, references resolved (semantics.md §3)."""
        return [await self._item(Item.parse(bytes(raw), at=f"items[{n}]"), n, owner) for n, raw in enumerate(given)]

    async def _item(self, item: Item, index: int, owner: str) -> Item:
        if item.id is not None and not _ITEM_ID.fullmatch(item.id):
            # Whoever is to be fetched or taken out by its id needs one that fits into a path (objects.md §10).
            raise BadRequest(
                f"Invalid 'items[{index}].id': expected 1 to {_LONGEST_ID} letters, digits, underscores or dashes.",
                param=f"items[{index}].id",
                code="invalid_value",
            )
        if item.type == "compaction_trigger":
            raise BadRequest("Invalid 'items': a 'compaction_trigger' is no item to keep.", param=f"items[{index}]")
        if not isinstance(item.view, ItemReference):
            return item
        try:
            return Item.parse(await self._services.store.find_item(item.view.id, owner=owner))
        except Missing as error:
            raise BadRequest(f"Item with id '{item.view.id[:100]}' not found.", param=f"items[{index}].id") from error

    def _record(self, ids: Ids, items: Sequence[Item], parent: str | None) -> Record:
        kept = kept_by(ids, items)
        return items_of(
            ids.response,
            parent=parent,
            created_at=int(self._services.clock()),
            input=[one.raw for one in kept],
            added=bytes(one.added for one in kept),
        )


def _conversation_id(request: Request) -> str:
    conversation_id = request.path_params["conversation_id"]
    assert isinstance(conversation_id, str)
    if not CONVERSATION_ID.fullmatch(conversation_id):
        raise no_conversation(conversation_id)
    return conversation_id


def _check_new(items: Sequence[Item], said: Sequence[bytes]) -> None:
    """Raises BadRequest for an item that was said before: in a conversation an id leads to one item."""
    known = {item_id(raw) for raw in said}
    for index, item in enumerate(items):
        if item.id is not None and item.id in known:
            raise BadRequest(
                f"Duplicate item found with id {item.id}. It is in the conversation already.",
                param=f"items[{index}].id",
            )
        known.update(() if item.id is None else (item.id,))


def _one(said: Sequence[bytes], request: Request) -> bytes:
    wanted = request.path_params["item_id"]
    assert isinstance(wanted, str)
    found = next((raw for raw in said if item_id(raw) == wanted), None)
    if found is None:
        told = "".join(char for char in wanted[:100] if char.isprintable())
        raise NotFound(f"Item with id '{told}' not found in this conversation.")
    return found


def _told(conversation: Kept) -> Response:
    told = Conversation(id=conversation.id, created_at=conversation.created_at, metadata={**conversation.metadata})
    return json(_ENCODER.encode(told))
