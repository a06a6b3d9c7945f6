"""Conversations: names that lead from one record to the next (semantics.md §4).

A conversation is a row that names the record it has come to. A response that completes in it has that record for a
parent and takes its place; items a client adds are a record of their own kind, which no id finds; an item that is taken
out is one more, which says so. So a response that was made in a conversation builds on everything that was said there,
like any other continuation, and goes on building on it when the conversation is gone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from rejoinder.store import keys
from rejoinder.store.backend import Change
from rejoinder.store.errors import Conflict, DamagedRecord, Missing, Refused
from rejoinder.store.record import ITEMS, Record
from rejoinder.store.records import NOTHING, Heading, Store, opened
from rejoinder.store.values import seal


class _Row(msgspec.Struct, frozen=True):
    created_at: int
    metadata: dict[str, str]
    head: str | None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as it stands in the store. `head` is the record it has come to, None while nothing was said."""

    id: str
    created_at: int
    metadata: Mapping[str, str]
    head: str | None
    row: bytes


_CONVERSATION_ID = re.compile(r"conv_[0-9A-Za-z]{1,128}")

_encoder = msgspec.msgpack.Encoder()
_row = msgspec.msgpack.Decoder(_Row)


class Conversations:
    """Every verb raises `Missing` when the conversation is not there for this owner, and `StoreError`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(
        self, conversation_id: str, *, owner: str, created_at: int, metadata: Mapping[str, str], items: Record | None
    ) -> Conversation:
        """Begin one. `items` is the record of what it begins with (`items_of`).

        Raises `Refused` when its id is taken or has another form.
        """
        if not _CONVERSATION_ID.fullmatch(conversation_id):
            raise Refused("a conversation's id must be 'conv_' and letters and digits")
        key = keys.conversation(keys.tenant_of(owner), conversation_id)
        row = _written(key, _Row(created_at, {**metadata}, items.id if items is not None else None))
        try:
            if items is None:
                await self._store.backend.commit(Change({key: row}, expect={key: None}))
            else:
                await self._store.save(items, owner=owner, heading=Heading(key, None, row))
        except Conflict:
            raise Refused(f"'{conversation_id}' is stored already") from None
        return read(conversation_id, key, row)

    async def get(self, conversation_id: str, *, owner: str) -> Conversation:
        if not _CONVERSATION_ID.fullmatch(conversation_id):
            raise _missing(conversation_id)
        key = keys.conversation(keys.tenant_of(owner), conversation_id)
        [row] = await self._store.rows(key)
        if row is None:
            raise _missing(conversation_id)
        return read(conversation_id, key, row)

    async def records(self, conversation_id: str, *, owner: str) -> Sequence[Record]:
        """All that was said, oldest first."""
        while True:
            found = await self.get(conversation_id, owner=owner)
            if found.head is None:
                return ()
            try:
                return await self._store.history(found.head, owner=owner)
            except Missing as error:
                if (await self.get(conversation_id, owner=owner)).head == found.head:
                    raise DamagedRecord(f"'{found.head}', which '{conversation_id}' leads to, is not there") from error

    async def describe(self, conversation_id: str, metadata: Mapping[str, str], *, owner: str) -> Conversation:
        """Replace its metadata."""
        key = keys.conversation(keys.tenant_of(owner), conversation_id)
        while True:
            found = await self.get(conversation_id, owner=owner)
            row = _written(key, _Row(found.created_at, {**metadata}, found.head))
            try:
                await self._store.backend.commit(Change({key: row}, expect={key: found.row}))
            except Conflict:
                continue
            return read(conversation_id, key, row)

    async def append(
        self, conversation_id: str, record: Record, *, owner: str, beside: Change = NOTHING, begun: bool = False
    ) -> None:
        """Save a record that continues the conversation; `begun` says that it is there already, unfinished.

        Raises `Conflict` when the conversation has meanwhile come to another record than the one it continues.
        """
        save = self._store.replace if begun else self._store.save
        while True:
            found = await self.get(conversation_id, owner=owner)
            if found.head != record.parent:
                raise Conflict(f"'{conversation_id}' has gone on meanwhile")
            heading = _heading(found, record.id, owner)
            try:
                await save(record, owner=owner, heading=heading, beside=beside)
            except Conflict:
                # Its metadata may have changed, which is no reason to lose a turn.
                if (await self.get(conversation_id, owner=owner)).row == found.row:
                    raise
            else:
                return

    async def remove(self, conversation_id: str, item_id: str, *, owner: str, by: Record) -> None:
        """Take an item out. Its bytes go where nothing but this conversation builds on it; else `by`, the record of its
        removal (`removal_of`), joins the conversation, and what was made with it keeps it.

        Raises `Conflict` when the conversation has meanwhile come to another record than the one `by` continues.
        """
        found = await self.get(conversation_id, owner=owner)
        if found.head is None or found.head != by.parent:
            raise Conflict(f"'{conversation_id}' has gone on meanwhile")
        heading = _heading(found, found.head, owner)
        if not await self._store.cut(heading, found.head, item_id, owner=owner):
            await self.append(conversation_id, by, owner=owner)

    async def delete(self, conversation_id: str, *, owner: str) -> None:
        """Remove it, and the items that were put into it unless a response builds on them; responses stay."""
        while True:
            found = await self.get(conversation_id, owner=owner)
            key = keys.conversation(keys.tenant_of(owner), conversation_id)
            try:
                await self._store.release(Heading(key, found.row, b""), found.head, owner=owner)
            except Conflict:
                continue
            return


def items_of(record_id: str, *, parent: str | None, created_at: int, input: list[bytes], added: bytes) -> Record:
    """The record of items that a client puts into a conversation."""
    return Record(record_id, parent, created_at, ITEMS, b"", input, [], added=added)


def removal_of(record_id: str, *, parent: str, created_at: int, item_id: str) -> Record:
    """The record of an item that is no longer part of a conversation."""
    return Record(record_id, parent, created_at, ITEMS, b"", [], [], without=(item_id,))


def _heading(found: Conversation, record_id: str, owner: str) -> Heading:
    key = keys.conversation(keys.tenant_of(owner), found.id)
    return Heading(key, found.row, _written(key, _Row(found.created_at, {**found.metadata}, record_id)))


def _missing(conversation_id: str) -> Missing:
    return Missing(f"no conversation {conversation_id[:80]!r} for this owner")


def _written(key: str, row: _Row) -> bytes:
    return seal(key, _encoder.encode(row))


def read(conversation_id: str, key: str, value: bytes) -> Conversation:
    """The conversation that a row is. Raises DamagedRecord."""
    try:
        row = _row.decode(opened(key, value))
    except msgspec.DecodeError as error:
        raise DamagedRecord(f"{keys.told(key)} cannot be read: {error}") from error
    return Conversation(conversation_id, row.created_at, row.metadata, row.head, value)
