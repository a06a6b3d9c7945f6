"""What is kept, for whom, and for how long.

Each response is one record, which holds its own turn only; `parent` leads to the turn before. A history is the walk
from a record to its root, so a turn costs the same however long the conversation is, and forks share what they have
in common.

    <owner>/response/<id>     a record that can be found
    <owner>/ghost/<id>        a deleted record with living descendants: part of their history, and of nothing else
    <owner>/children/<id>     how many records, living or ghosts, name it as their parent; absent for none
    <owner>/item/<hash>       the response that holds an item whose id does not say so itself

`<owner>` is the SHA-256 of whatever names the owner, so it has one width and nothing a client sends can end it early.
Deletion (reliability.md F17) turns a record with children into a ghost, and removes one without; where that took the
last child of a ghost, the ghost goes too, and so on upwards. Each of these is one change, conditional on every count
and state it was planned with: whoever comes second plans again.
"""

import asyncio
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import anyio.to_thread
import msgspec
from msgspec import structs

from rejoinder.store.backend import Backend, Change
from rejoinder.store.errors import Conflict, DamagedRecord, Missing, Refused
from rejoinder.store.memory import Memory
from rejoinder.store.values import seal, unseal


class Attempt(msgspec.Struct, frozen=True):
    """A request to an upstream that failed before the one that was answered. `waited` is in seconds."""

    status: int
    code: str
    waited: float


class Record(msgspec.Struct, frozen=True, eq=False, weakref=True, omit_defaults=True):
    """One response and what it was asked. Records only grow: a new field has a default."""

    id: str  # resp_…
    parent: str | None  # previous_response_id
    created_at: int  # Unix seconds
    status: str  # completed | incomplete | failed
    response: bytes  # the final Response object as JSON, exactly as it is sent
    input: list[bytes]  # this turn's own input items, JSON each, in order, every one with an id
    output: list[bytes]  # the output items, JSON each
    model: str = ""  # the model's name at the upstream
    upstream: str = ""  # which upstream answered
    upstream_id: str = ""  # what that upstream calls the response, where it keeps it
    added: bytes = b""  # for each input item, one byte of flags: what the client did not send (wire.items.as_sent)
    identity: dict[str, str] | None = None  # session, thread and cache key its client goes by
    attempts: tuple[Attempt, ...] = ()  # what was tried before


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """A record as it is written. `derived`: its output is left out, since it stands, byte for byte, in the response."""

    record: Record
    derived: bool


class _Answer(msgspec.Struct):
    output: list[msgspec.Raw]


class _Named(msgspec.Struct):
    id: str


@dataclass(frozen=True, slots=True)
class _Kept:
    record: Record
    living: bool


@dataclass(slots=True)
class _Plan:
    """A change in the making, and the ids it touches."""

    puts: dict[str, bytes] = field(default_factory=dict)
    deletes: list[str] = field(default_factory=list)
    expect: dict[str, bytes | None] = field(default_factory=dict)
    present: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)

    def change(self) -> Change:
        return Change(self.puts, self.deletes, self.expect, self.present)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)
_answer = msgspec.json.Decoder(_Answer)
_named = msgspec.json.Decoder(_Named)

_RESPONSE_ID = re.compile(r"resp_[0-9A-Za-z]{1,128}")
# Ids minted here carry their response's id: `<prefix>_<32 hex digits><suffix>`.
_OWN_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})")

# Larger payloads are compressed off the event loop; below, the way there would cost more than it saves.
_LARGE = 128 * 1024
# What a record costs in memory beside its payload, roughly.
_OVERHEAD = 1024
_COUNTS = 8192


class Store:
    """Records over a backend. `memory` bounds the decoded records that are kept at hand, in bytes of payload.

    A record that is at hand is the same object each time, so what is derived from it can be kept beside it.
    """

    def __init__(self, backend: Backend, *, memory: int = 32 * 2**20) -> None:
        self._backend = backend
        self._memory: Memory[tuple[str, str], _Kept] = Memory(memory)
        # The last value known, or handed in, of children counts. A hint: the commit compares, and a miss is mended.
        self._counts: Memory[str, bytes] = Memory(_COUNTS)
        # Raised by every deletion, so that what was read before one is not remembered after it.
        self._epoch = 0
        self._deletions: set[asyncio.Task[None]] = set()

    @property
    def location(self) -> Path:
        return self._backend.location

    async def save(self, record: Record, *, owner: str) -> None:
        """Keep `record`; it is durable when this returns (reliability.md P1, P2).

        Raises `Missing` when its parent is not there (any more), `Refused` when its id is taken (P3) or an item has
        none, `StoreError` when it could not be written.
        """
        if record.parent is not None and not _RESPONSE_ID.fullmatch(record.parent):
            raise _missing(record.parent)
        tenant = _tenant(owner)
        key = _living(tenant, record.id)
        puts = {**_index(tenant, record), key: await _sealed(key, record)}
        absent: dict[str, bytes | None] = {key: None, _ghost(tenant, record.id): None}
        epoch = self._epoch
        if record.parent is None:
            try:
                await self._backend.commit(Change(puts, expect=absent))
            except Conflict:
                raise _taken(record.id) from None
        else:
            await self._adopt(tenant, record, record.parent, puts, absent)
        self._remember(tenant, _Kept(record, living=True), epoch)

    async def get(self, response_id: str, *, owner: str) -> Record:
        """Raises `Missing`, `DamagedRecord`."""
        tenant = _tenant(owner)
        epoch = self._epoch
        kept = self._memory.get((tenant, response_id))
        if kept is None:
            [kept] = await self._load(tenant, response_id, leaf=response_id, ancestors=False)
        if not kept.living:
            raise _missing(response_id)
        return self._remember(tenant, kept, epoch)

    async def lineage(self, response_id: str, *, owner: str) -> Sequence[Record]:
        """The record and all it builds on, oldest first (P4). Raises `Missing`, and `DamagedRecord` for any of them."""
        tenant = _tenant(owner)
        epoch = self._epoch
        chain: list[_Kept] = []
        wanted: str | None = response_id
        while wanted is not None:
            kept = self._memory.get((tenant, wanted))
            if kept is None:
                chain += await self._load(tenant, wanted, leaf=response_id, ancestors=True)
                break
            if not (chain or kept.living):
                raise _missing(response_id)
            chain.append(kept)
            wanted = kept.record.parent
        # The oldest first, so that a history is forgotten from its far end.
        return [self._remember(tenant, kept, epoch) for kept in reversed(chain)]

    async def find_item(self, item_id: str, *, owner: str) -> bytes:
        """An input or output item of a living record. Raises `Missing`, `DamagedRecord`.

        An id that a client used in several responses belongs to the one saved last.
        """
        home = _home(item_id)
        if home is not None and (item := await self._item(home, item_id, owner)) is not None:
            return item
        key = _entry(_tenant(owner), item_id)
        [entry] = await self._rows(key)
        if entry is not None:
            home = _opened(key, entry).decode()
            if (item := await self._item(home, item_id, owner)) is not None:
                return item
        raise Missing("no such item for this owner")

    async def delete(self, response_id: str, *, owner: str) -> None:
        """Make a record vanish; durable when this returns. Raises `Missing`, `DamagedRecord`, `StoreError`.

        Once begun it is finished, also when the one who asked is gone: memory and disk must not part.
        """
        deletion = asyncio.create_task(self._delete(_tenant(owner), response_id))
        self._deletions.add(deletion)
        deletion.add_done_callback(self._deletions.discard)
        await asyncio.shield(deletion)

    async def probe(self) -> None:
        """Raises `StoreError` when what is written now would not be found again."""
        await self._backend.probe()

    async def close(self) -> None:
        await asyncio.gather(*self._deletions, return_exceptions=True)
        await self._backend.close()

    async def _adopt(
        self, tenant: str, record: Record, parent: str, puts: dict[str, bytes], absent: dict[str, bytes | None]
    ) -> None:
        """Commit a record together with its place among its parent's children."""
        home, count_key = _living(tenant, parent), _children(tenant, parent)
        while True:
            count = self._counts.get(count_key)
            raised = _counted(count_key, _count(count_key, count) + 1)
            # Told before it is done: a fork that is saved meanwhile stands behind us in the queue and counts on.
            self._counts.put(count_key, raised)
            try:
                await self._backend.commit(
                    Change({**puts, count_key: raised}, (), {**absent, count_key: count}, [home])
                )
            except Conflict:
                await self._look_again(tenant, record.id, parent)
            else:
                return

    async def _look_again(self, tenant: str, record_id: str, parent: str) -> None:
        """Why a record was not taken: raises what cannot be mended, and learns the count that was wrong."""
        count_key = _children(tenant, parent)
        self._counts.drop(count_key)
        taken, ghost, home, count = await self._rows(
            _living(tenant, record_id), _ghost(tenant, record_id), _living(tenant, parent), count_key
        )
        if home is None:
            raise _missing(parent)
        if taken is not None or ghost is not None:
            raise _taken(record_id)
        if count is not None:
            self._counts.put(count_key, count)

    async def _load(self, tenant: str, response_id: str, *, leaf: str, ancestors: bool) -> list[_Kept]:
        """A record, and its ancestors if wanted, youngest first, in one trip to the backend.

        `leaf` is where the caller began: a descendant, which makes ghosts acceptable here, or the record itself.
        """
        if not _RESPONSE_ID.fullmatch(response_id):
            raise _missing(response_id)
        found: list[_Kept] = []
        seen: set[str] = set()
        wanted: str | None = response_id

        def follow(key: str, value: bytes) -> Sequence[str]:
            nonlocal wanted
            assert wanted is not None
            record = _decoded(key, value)
            found.append(_Kept(record, living=key == _living(tenant, wanted)))
            seen.add(wanted)
            wanted = record.parent if ancestors else None
            if wanted is None:
                return ()
            if wanted in seen:
                raise DamagedRecord(f"the lineage of '{leaf}' leads back to '{wanted}'")
            return _living(tenant, wanted), _ghost(tenant, wanted)

        start = [_living(tenant, response_id)]
        if response_id != leaf:
            start.append(_ghost(tenant, response_id))
        try:
            await self._backend.walk(start, follow)
        except DamagedRecord as exc:
            raise DamagedRecord(f"'{wanted}' cannot be read: {exc}") from exc
        if wanted == leaf:
            raise _missing(leaf)
        if wanted is not None:
            await self._explain(tenant, leaf, wanted)
        return found

    async def _explain(self, tenant: str, leaf: str, wanted: str) -> None:
        """Something in a lineage was not there: fine if all of it is being deleted, else never a shorter history."""
        [still] = await self._rows(_living(tenant, leaf))
        if still is None:
            raise _missing(leaf)
        raise DamagedRecord(f"'{wanted}', which '{leaf}' builds on, is not there")

    def _remember(self, tenant: str, kept: _Kept, epoch: int) -> Record:
        """The record to hand out: the one at hand already, or `kept`, which is at hand from here on."""
        place = (tenant, kept.record.id)
        known = self._memory.get(place)
        if known is not None:
            self._memory.touch(place)
            return known.record
        if epoch == self._epoch:
            self._memory.put(place, kept, _weight(kept.record))
        return kept.record

    async def _rows(self, *keys: str) -> list[bytes | None]:
        try:
            return await self._backend.get(keys)
        except DamagedRecord as exc:
            names = ", ".join(map(_name, keys))
            raise DamagedRecord(f"one of {names} cannot be read: {exc}") from exc

    async def _item(self, response_id: str, item_id: str, owner: str) -> bytes | None:
        try:
            record = await self.get(response_id, owner=owner)
        except Missing:
            return None
        return next((item for item in (*record.input, *record.output) if _named.decode(item).id == item_id), None)

    async def _delete(self, tenant: str, response_id: str) -> None:
        while True:
            plan = await self._planned(tenant, response_id)
            try:
                await self._backend.commit(plan.change())
            except Conflict:
                continue
            finally:
                self._forget(tenant, plan.touched)
            return

    def _forget(self, tenant: str, ids: Iterable[str]) -> None:
        self._epoch += 1
        for id in ids:
            self._memory.drop((tenant, id))
            self._counts.drop(_children(tenant, id))

    async def _planned(self, tenant: str, response_id: str) -> _Plan:
        key, count_key = _living(tenant, response_id), _children(tenant, response_id)
        [kept] = await self._load(tenant, response_id, leaf=response_id, ancestors=False)
        [count] = await self._rows(count_key)
        plan = _Plan(deletes=[key], expect={count_key: count}, present=[key], touched=[response_id])
        await self._plan_entries(plan, tenant, kept.record)
        if count is not None:
            ghost = _ghost(tenant, response_id)
            plan.puts[ghost] = await _sealed(ghost, kept.record)
        else:
            await self._plan_ancestors(plan, tenant, response_id, kept.record.parent)
        return plan

    async def _plan_entries(self, plan: _Plan, tenant: str, record: Record) -> None:
        keys = list(_index(tenant, record))
        for key, entry in zip(keys, await self._rows(*keys), strict=True):
            # A later record may have taken the entry over; then it stays.
            if entry is not None and _opened(key, entry).decode() == record.id:
                plan.deletes.append(key)
                plan.expect[key] = entry

    async def _plan_ancestors(self, plan: _Plan, tenant: str, leaf: str, parent: str | None) -> None:
        """Take one child from the parent; a ghost that has none left goes, and so on upwards."""
        while parent is not None:
            home, ghost, count_key = _living(tenant, parent), _ghost(tenant, parent), _children(tenant, parent)
            living, departed, count = await self._rows(home, ghost, count_key)
            if count is None or (living is None and departed is None):
                return  # Damaged. Bytes that stay are a lesser harm than a living record's history.
            plan.touched.append(parent)
            plan.expect[count_key] = count
            plan.present.append(ghost if living is None else home)
            left = _count(count_key, count) - 1
            if left > 0:
                plan.puts[count_key] = _counted(count_key, left)
                return
            plan.deletes.append(count_key)
            if departed is None:
                return
            plan.deletes.append(ghost)
            [kept] = await self._load(tenant, parent, leaf=leaf, ancestors=False)
            parent = kept.record.parent


@lru_cache(maxsize=4096)
def _tenant(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()


def _living(tenant: str, response_id: str) -> str:
    return f"{tenant}/response/{response_id}"


def _ghost(tenant: str, response_id: str) -> str:
    return f"{tenant}/ghost/{response_id}"


def _children(tenant: str, response_id: str) -> str:
    return f"{tenant}/children/{response_id}"


def _entry(tenant: str, item_id: str) -> str:
    # Hashed, since a client chose it: any length, any characters.
    return f"{tenant}/item/{hashlib.sha256(item_id.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _home(item_id: str) -> str | None:
    """The response an item id minted here belongs to, by its own account."""
    own = _OWN_ITEM_ID.match(item_id)
    return f"resp_{own[1]}" if own else None


def _index(tenant: str, record: Record) -> dict[str, bytes]:
    """The entries for items whose id does not lead to `record`; none for a turn whose ids were all minted here."""
    if not _RESPONSE_ID.fullmatch(record.id):
        raise Refused("a record's id must be 'resp_' and letters and digits")
    try:
        ids = [_named.decode(item).id for item in (*record.input, *record.output)]
    except msgspec.DecodeError as exc:
        raise Refused(f"every item of '{record.id}' must be a JSON object with an id") from exc
    keys = [_entry(tenant, id) for id in ids if _home(id) != record.id]
    return {key: seal(key, record.id.encode()) for key in keys}


async def _sealed(key: str, record: Record) -> bytes:
    payload = _encoded(record)
    if len(payload) < _LARGE:
        return seal(key, payload)
    return await anyio.to_thread.run_sync(seal, key, payload)


def _encoded(record: Record) -> bytes:
    derived = _outputs(record.response) == record.output
    return _encoder.encode(_Stored(structs.replace(record, output=[]) if derived else record, derived))


def _decoded(key: str, value: bytes) -> Record:
    try:
        stored = _decoder.decode(unseal(key, value))
    except (ValueError, msgspec.DecodeError) as exc:
        raise DamagedRecord(str(exc)) from exc
    if stored.derived:
        return structs.replace(stored.record, output=_outputs(stored.record.response))
    return stored.record


def _outputs(response: bytes) -> list[bytes] | None:
    """The output items inside a Response object, byte for byte; None when there is no such list."""
    try:
        return [bytes(item) for item in _answer.decode(response).output]
    except msgspec.DecodeError:
        return None


def _counted(key: str, count: int) -> bytes:
    return seal(key, b"%d" % count)


def _count(key: str, value: bytes | None) -> int:
    return 0 if value is None else int(_opened(key, value))


def _opened(key: str, value: bytes) -> bytes:
    try:
        return unseal(key, value)
    except ValueError as exc:
        raise DamagedRecord(f"{_name(key)} cannot be read: {exc}") from exc


def _name(key: str) -> str:
    """A key for people: without the owner, which may be derived from a secret."""
    return f"'{key.partition('/')[2]}'"


def _weight(record: Record) -> int:
    return _OVERHEAD + len(record.response) + sum(map(len, record.input)) + sum(map(len, record.output))


def _missing(response_id: str) -> Missing:
    return Missing(f"no response {response_id[:80]!r} for this owner")


def _taken(response_id: str) -> Refused:
    return Refused(f"'{response_id}' is stored already; the first terminal status wins")
