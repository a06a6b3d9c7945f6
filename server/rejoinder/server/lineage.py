"""The conversation a request continues: everything said before, then what it says now (semantics.md §1 to §3)."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from rejoinder.bridge.pairing import Paired, paired
from rejoinder.server.errors import InvalidRequest, NotFound
from rejoinder.store import Conversations, Missing, Record, Store
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import Item, ItemReference, Reasoning, as_sent
from rejoinder.wire.request import CreateRequest

RESPONSE_ID = re.compile(r"resp_[A-Za-z0-9]{1,64}")
"""Ids look like this or are not found; nothing else ever reaches the store (reliability.md S10)."""

CONVERSATION_ID = re.compile(r"conv_[A-Za-z0-9]{1,64}")
"""The same for conversations."""

_READABLE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Lineage:
    """`conversation` is all of it, paired, references resolved; `records` are what it continues, oldest first.
    `is_local`: the last of them is in no store."""

    conversation: Paired
    records: Sequence[Record]
    is_local: bool = False


Local = Mapping[str, Sequence[Record]]
"""Responses that are in no store and can be continued all the same: for each its records, oldest first, itself last
(websocket.md §5)."""

NOWHERE: Local = {}


async def lineage(request: CreateRequest, store: Store, *, owner: str, local: Local = NOWHERE) -> Lineage:
    """Load what the request continues, from the store or from what is `local`.

    Raises InvalidRequest when the previous response is unknown, deleted, foreign or not a finished one (all of them
    the same 400, reliability.md F16 and S3), and when calls and outputs do not pair; NotFound for such a conversation.
    """
    previous = request.fields.previous_response_id
    records: Sequence[Record] = ()
    is_local = previous is not None and previous in local
    if previous is not None and is_local:
        records = local[previous]
    elif previous is not None:
        records = await _past(previous, store, owner)
    elif request.conversation is not None:
        records = await said_in(request.conversation, store, owner=owner)
    past = [item for record in records for item in _items(record)]
    coming = [await _resolved(item, f"input[{index}]", past, store, owner) for index, item in enumerate(request.input)]
    return Lineage(paired(past, coming), records, is_local)


async def _past(previous: str, store: Store, owner: str) -> Sequence[Record]:
    if not _READABLE.fullmatch(previous):
        raise InvalidRequest(
            f"Invalid 'previous_response_id': '{previous[:100]}'. Expected an ID that contains letters, numbers, "
            "underscores, or dashes, but this value contained additional characters.",
            param="previous_response_id",
        )
    if not RESPONSE_ID.fullmatch(previous):
        raise not_found(previous)
    try:
        records = await store.lineage(previous, owner=owner)
    except Missing as error:
        raise not_found(previous) from error
    if not records[-1].continues:
        raise not_found(previous)
    return records


async def said_in(conversation_id: str, store: Store, *, owner: str) -> Sequence[Record]:
    """All that was said in a conversation, oldest first. Raises NotFound."""
    if not CONVERSATION_ID.fullmatch(conversation_id):
        raise no_conversation(conversation_id)
    try:
        return await Conversations(store).records(conversation_id, owner=owner)
    except Missing as error:
        raise no_conversation(conversation_id) from error


def no_conversation(conversation_id: str) -> NotFound:
    """The error of every conversation that is not there for its owner; for a create call the status is not established
    (semantics.md §4), and one conversation is missing in the same way wherever it is named."""
    shown = "".join(char for char in conversation_id[:100] if char.isprintable())
    return NotFound(f"Conversation with id '{shown}' not found.")


def not_found(response_id: str) -> InvalidRequest:
    """The one text for every previous response that cannot be continued."""
    return InvalidRequest(
        f"Previous response with id '{response_id[:100]}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


_parsed: WeakKeyDictionary[Record, tuple[Item, ...]] = WeakKeyDictionary()
"""Records in the store's memory are read again and again; their items are parsed once and go with them."""


def _items(record: Record) -> tuple[Item, ...]:
    items = _parsed.get(record)
    if items is None:
        items = (
            *(_as_sent(Item.parse(raw), flags) for raw, flags in zip(record.input, record.flags, strict=True)),
            *(Item.parse(raw) for raw in record.output),
        )
        _parsed[record] = items
    return items


def _as_sent(item: Item, added: int) -> Item:
    """The item under the id it is listed by, in the bytes its client sent: those went upstream, and go again."""
    return dataclasses.replace(item, raw=as_sent(item.raw, added)) if added else item


async def _resolved(item: Item, at: str, past: Sequence[Item], store: Store, owner: str) -> Item:
    """The item itself, or the stored one it refers to."""
    match item.view:
        case ItemReference(id=wanted):
            pass
        case Reasoning(id=str(wanted), encrypted_content=None) as bare if not bare.text:
            # A reasoning item with nothing but its id asks for the stored one (semantics.md §2).
            pass
        case _:
            return item
    known = next((old for old in reversed(past) if old.id == wanted), None)
    if known is not None:
        if isinstance(item.view, Reasoning):
            return item
        raise BadRequest(f"Duplicate item found with id {wanted}. It is in the conversation already.", param=at)
    try:
        return Item.parse(await store.find_item(wanted, owner=owner))
    except Missing as error:
        raise InvalidRequest(
            f"Item with id '{wanted[:100]}' not found. Items are not persisted when `store` is set to false. "
            "Try again with `store` set to true, or remove this item from your input.",
            param="input",
        ) from error
