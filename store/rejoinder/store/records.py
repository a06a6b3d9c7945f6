"""What is kept, for whom, and for how long.

Each response is one record, which holds its own turn only; `parent` leads to the turn before. A history is the walk
from a record to its root, so a turn costs the same however long the conversation is, and forks share what they have
in common. What the rows are called is in `keys.py`.

Deletion (reliability.md F17) turns a record with children into a ghost, and removes one without; where that took the
last child of a ghost, the ghost goes too, and so on upwards. Each of these is one change, conditional on every count
and state it was planned with: whoever comes second plans again.

A record that is not finished has a row of its own in `run/`, and every change of it, its last one too, is conditional
on that row: the first terminal status wins (P3), and nobody writes to what was deleted.

A record expires when it says so, unless somebody built on it later (F18): it is invisible from then on, and `sweep`
deletes it `GRACE` later.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio.to_thread
import msgspec
from msgspec import structs

from rejoinder.store import keys
from rejoinder.store.backend import Backend, Change
from rejoinder.store.errors import Conflict, DamagedRecord, Missing, Refused
from rejoinder.store.memory import Memory
from rejoinder.store.record import ITEMS, Record, decoded, encoded, item_id, without, without_hidden
from rejoinder.store.values import seal, unseal

GRACE = 24 * 3600
"""Seconds between the moment a record can no longer be seen and its removal (reliability.md §2)."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A name that leads to a record as a child would: what it leads to stays. `becomes` is the row under `key` once it
    leads to the record it is saved with, `was` the row it has until then; that one leads to the record's parent."""

    key: str
    was: bytes | None
    becomes: bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    """A record at hand. `until` is when it expires, `least` the soonest that it or anything it builds on does."""

    record: Record
    living: bool
    until: float
    least: float = 0.0


@dataclass(slots=True)
class _Plan:
    """A change in the making, and the ids it touches."""

    puts: dict[str, bytes] = field(default_factory=dict)
    deletes: list[str] = field(default_factory=list)
    expect: dict[str, bytes | None] = field(default_factory=dict)
    present: list[str] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)

    def change(self) -> Change:
        return Change(self.puts, self.deletes, self.expect, self.present, erase=True)


_RESPONSE_ID = re.compile(r"resp_[0-9A-Za-z]{1,128}")
# Ids minted here carry their response's id: `<prefix>_<32 hex digits><suffix>`.
_OWN_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})")

# Larger payloads are compressed off the event loop; below, the way there would cost more than it saves.
_LARGE = 128 * 1024
# What a record costs in memory beside its payload, roughly.
_OVERHEAD = 1024
_COUNTS = 8192
_PAGE = 500
# Records that are read at once where all of them are.
_BATCH = 20

NOTHING = Change()


class Store:
    """Records over a backend. `memory` bounds the decoded records that are kept at hand, in bytes of payload; `ttl` is
    how long a record is kept at least, in seconds, None for ever.

    A record that is at hand is the same object each time, so what is derived from it can be kept beside it.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        memory: int = 32 * 2**20,
        ttl: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.backend = backend
        self._ttl = ttl
        self._clock = clock
        self._memory: Memory[tuple[str, str], _Kept] = Memory(memory)
        # The last value known, or handed in, of children counts. A hint: the commit compares, and a miss is mended.
        self._counts: Memory[str, bytes] = Memory(_COUNTS)
        # Raised by every deletion, so that what was read before one is not remembered after it.
        self._epoch = 0
        self._deletions: set[asyncio.Task[None]] = set()

    @property
    def location(self) -> Path:
        return self.backend.location

    async def save(
        self, record: Record, *, owner: str, heading: Heading | None = None, beside: Change = NOTHING
    ) -> None:
        """Keep `record`; it is durable when this returns (reliability.md P1, P2).

        `heading` is a name that leads to its parent and is to lead to it; `beside` is committed together with it.
        Raises `Missing` when its parent is not there (any more), `Refused` when its id is taken (P3) or an item has
        none, `Conflict` when what `heading` or `beside` expect is not so, `StoreError` when it could not be written.
        """
        if record.parent is not None and not _RESPONSE_ID.fullmatch(record.parent):
            raise _missing(record.parent)
        tenant = keys.tenant_of(owner)
        record = self._dated(record)
        key = keys.ghost(tenant, record.id) if record.status == ITEMS else keys.living(tenant, record.id)
        puts = {**_index(tenant, record), key: await _sealed(key, record), **beside.puts}
        expect = {**dict.fromkeys((key, keys.ghost(tenant, record.id))), **beside.expect}
        plan = Change(puts, beside.deletes, expect, beside.present)
        epoch = self._epoch
        if heading is not None:
            least = await self._commit_new(tenant, record, _under(tenant, record, heading, plan))
        elif record.parent is None:
            least = await self._commit_new(tenant, record, plan)
        else:
            least = await self._adopt(tenant, record, record.parent, plan)
        until = _until(record)
        self._remember(tenant, _Kept(record, record.status != ITEMS, until, min(until, least)), epoch)

    async def replace(
        self, record: Record, *, owner: str, heading: Heading | None = None, beside: Change = NOTHING
    ) -> None:
        """Write an unfinished record again; it is durable when this returns, and finished if its status says so.

        Raises `Refused` when it is finished already (P3) or would change its parent, `Missing` when it was deleted,
        `Conflict` and `StoreError` as `save`. Only a record that began without a parent gets one, from its `heading`.
        `beside` can add what is written with it.
        """
        tenant = keys.tenant_of(owner)
        record = self._dated(record)
        key, run = keys.living(tenant, record.id), keys.run(tenant, record.id)
        puts = {**_index(tenant, record), key: await _sealed(key, record), **beside.puts}
        deletes = [*beside.deletes, *([] if record.is_unfinished else [run])]
        plan = Change(puts, deletes, beside.expect, [key, run, *beside.present])
        if heading is not None:
            plan = _under(tenant, record, heading, plan)
        began = await self._parent(tenant, record.id)
        if record.parent != began and (heading is None or began is not None):
            raise Refused(f"'{record.id}' cannot continue another record than the one it began with")
        try:
            while True:
                # It has its own place among its parent's children already, so the name's is free.
                whole = plan if heading is None or began is None else await self._with_one_less(tenant, began, plan)
                renewed, _ = await self._renewed(tenant, record.parent if heading is not None else None)
                try:
                    await self.backend.commit(_with_later(tenant, whole, renewed))
                except Conflict:
                    home, still = await self.rows(key, run)
                    if home is None:
                        raise _missing(record.id) from None
                    if still is None:
                        raise _taken(record.id) from None
                    if not await self._holds(plan):
                        raise
                else:
                    self._renew(tenant, renewed)
                    return
        finally:
            touched = [record.id] if record.parent is None else [record.id, record.parent]
            self._forget(tenant, touched if heading is not None else [record.id])

    async def append(self, response_id: str, beside: Change, *, owner: str) -> None:
        """Commit something that belongs to an unfinished record. Raises `Refused` when it is not unfinished."""
        run = keys.run(keys.tenant_of(owner), response_id)
        try:
            await self.backend.commit(Change(beside.puts, beside.deletes, beside.expect, [run, *beside.present]))
        except Conflict:
            raise _taken(response_id) from None

    async def get(self, response_id: str, *, owner: str) -> Record:
        """Raises `Missing`, `DamagedRecord`."""
        tenant = keys.tenant_of(owner)
        epoch = self._epoch
        kept = self._memory.get((tenant, response_id))
        if kept is None:
            [kept] = await self._load(tenant, response_id, leaf=response_id)
        if not kept.living or kept.until <= self._clock():
            raise _missing(response_id)
        return self._remember(tenant, kept, epoch)

    async def lineage(self, response_id: str, *, owner: str) -> Sequence[Record]:
        """The record and all it builds on, oldest first (P4). Raises `Missing`, and `DamagedRecord` for any of them."""
        tenant = keys.tenant_of(owner)
        chain = await self._chain(tenant, response_id)
        if chain[-1].until <= self._clock():
            raise _missing(response_id)
        return _records(chain)

    async def history(self, head: str, *, owner: str) -> Sequence[Record]:
        """The same for a record that a conversation leads to: it may be one that cannot be found by its id."""
        return _records(await self._chain(keys.tenant_of(owner), head, ghosts=True))

    async def find_item(self, wanted: str, *, owner: str) -> bytes:
        """An input or output item of a living record. Raises `Missing`, `DamagedRecord`.

        An id that a client used in several responses belongs to the one saved last.
        """
        home = _home(wanted)
        if home is not None and (item := await self._item(home, wanted, owner)) is not None:
            return item
        key = keys.entry(keys.tenant_of(owner), wanted)
        [entry] = await self.rows(key)
        if entry is not None:
            home = opened(key, entry).decode()
            if (item := await self._item(home, wanted, owner)) is not None:
                return item
        raise Missing("no such item for this owner")

    async def delete(self, response_id: str, *, owner: str) -> None:
        """Make a record vanish; durable when this returns. Raises `Missing`, `DamagedRecord`, `StoreError`.

        Once begun it is finished, also when the one who asked is gone: memory and disk must not part.
        """
        tenant = keys.tenant_of(owner)
        await self._to_the_end(self._delete(tenant, response_id, lambda kept: kept.until > self._clock()))

    async def release(self, heading: Heading, head: str | None, *, owner: str) -> None:
        """Remove a name that led to `head`, and what was kept only for it. Raises `Conflict` if it leads elsewhere."""
        await self._to_the_end(self._release(keys.tenant_of(owner), heading, head))

    async def cut(self, heading: Heading, head: str, wanted: str, *, owner: str) -> bool:
        """Remove an item from what was put into a conversation and nothing but `heading`, which leads to `head`, builds
        on; whether it was there. It is gone from the disk then. Raises `Conflict` if the name leads elsewhere.
        """
        tenant = keys.tenant_of(owner)
        expect: dict[str, bytes | None] = {heading.key: heading.was}
        place: str | None = head
        while place is not None:
            key, count_key = keys.ghost(tenant, place), keys.children(tenant, place)
            row, count = await self.rows(key, count_key)
            record = None if row is None else decoded(key, row)
            if record is None or record.status != ITEMS or _count(count_key, count) != 1:
                return False
            expect |= {key: row, count_key: count}
            less = without(record, {wanted})
            if less is not record:
                entry = keys.entry(tenant, wanted)
                [leads] = await self.rows(entry)
                gone = [] if leads is None or opened(entry, leads).decode() != record.id else [entry]
                await self.backend.commit(Change({key: await _sealed(key, less)}, gone, expect, erase=True))
                self._forget(tenant, [record.id])
                return True
            place = record.parent
        return False

    async def sweep(self, *, most: float = 1.0, least: int = 0, grace: float = GRACE) -> int:
        """Delete what has been expired for `grace` seconds, and give the number of records that went.

        Nothing is deleted, and `Refused` raised, when that would be more than the share `most` of all records, and more
        than `least` of them: then the clock is more likely wrong than the records are old (reliability.md §2).
        """
        gone = self._clock() - grace
        expired, count = await self.due(grace=grace)
        removed = 0
        if len(expired) > max(least, most * count):
            raise Refused(f"{len(expired)} of {count} records are due to be removed, which is more than is likely")
        for tenant, response_id in expired:
            with suppress(Missing, DamagedRecord):  # gone meanwhile, or for `verify` to tell
                await self._to_the_end(self._delete(tenant, response_id, lambda kept: kept.until <= gone))
                removed += 1
        return removed

    async def due(self, *, grace: float = GRACE) -> tuple[list[tuple[str, str]], int]:
        """Whose records, and which, have been expired for `grace` seconds; and how many records there are."""
        gone = self._clock() - grace
        expired: list[tuple[str, str]] = []
        count = 0
        async for tenant, response_id, record in self.records():
            count += 1
            if record is not None and _until(record) <= gone:
                expired.append((tenant, response_id))
        return [place for place in expired if await self._is_over(*place, gone)], count

    async def records(self) -> AsyncIterator[tuple[str, str, Record | None]]:
        """Every living record of every owner: the owner as keys have it, the record's id, and the record, None where it
        cannot be read."""
        batch: list[str] = []
        async for key in self.every_key():
            if key.split("/")[1:2] == ["response"]:
                batch.append(key)
            if len(batch) == _BATCH:
                for found in await self._decoded(batch):
                    yield found
                batch = []
        for found in await self._decoded(batch):
            yield found

    async def every_key(self, prefix: str = "") -> AsyncIterator[str]:
        """The keys that begin with `prefix`, in their order. Changes meanwhile may be seen or not."""
        first, end = prefix, keys.behind(prefix)
        while page := await self.backend.keys(first, end, _PAGE):
            for key in page:
                yield key
            first = f"{page[-1]}\x00"

    async def rows(self, *names: str) -> list[bytes | None]:
        """Rows as they are. Raises `DamagedRecord` with their names."""
        try:
            return await self.backend.get(names)
        except DamagedRecord as exc:
            raise DamagedRecord(f"one of {', '.join(map(keys.told, names))} cannot be read: {exc}") from exc

    async def probe(self) -> None:
        """Raises `StoreError` when what is written now would not be found again."""
        await self.backend.probe()

    async def close(self) -> None:
        await asyncio.gather(*self._deletions, return_exceptions=True)
        await self.backend.close()

    async def _decoded(self, names: Sequence[str]) -> list[tuple[str, str, Record | None]]:
        """The records of these rows, without those that were deleted meanwhile."""
        try:
            values = await self.backend.get(names)
        except DamagedRecord:
            if len(names) > 1:
                return [one for name in names for one in await self._decoded([name])]
            values = [b""]
        found = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
        return await anyio.to_thread.run_sync(lambda: [_listed(*one) for one in found])

    async def _to_the_end(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._deletions.add(task)
        task.add_done_callback(self._deletions.discard)
        await asyncio.shield(task)

    def _dated(self, record: Record) -> Record:
        if self._ttl is None or record.status == ITEMS or record.is_unfinished:
            return record
        return structs.replace(record, expires_at=int(self._clock() + self._ttl))

    async def _commit_new(self, tenant: str, record: Record, plan: Change) -> float:
        """Commit a record whose parent counts it already, or that has none. Returns when the first of those it builds
        on expires."""
        while True:
            renewed, least = await self._renewed(tenant, record.parent)
            try:
                await self.backend.commit(_with_later(tenant, plan, renewed))
            except Conflict:
                await self._refuse_taken(tenant, record.id)
                if not (renewed and await self._holds(plan)):
                    raise
            else:
                self._renew(tenant, renewed)
                return least

    async def _refuse_taken(self, tenant: str, record_id: str) -> None:
        if any(await self.rows(keys.living(tenant, record_id), keys.ghost(tenant, record_id))):
            raise _taken(record_id) from None

    async def _adopt(self, tenant: str, record: Record, parent: str, plan: Change) -> float:
        """Commit a record together with its place among its parent's children. Returns when the first of those it
        builds on expires."""
        home, count_key = keys.living(tenant, parent), keys.children(tenant, parent)
        while True:
            renewed, least = await self._renewed(tenant, parent)
            count = self._counts.get(count_key)
            raised = _number(count_key, _count(count_key, count) + 1)
            # Told before it is done: a fork that is saved meanwhile stands behind us in the queue and counts on.
            self._counts.put(count_key, raised)
            change = Change(
                {**plan.puts, count_key: raised},
                plan.deletes,
                {**plan.expect, count_key: count},
                [home, *plan.present],
            )
            try:
                await self.backend.commit(_with_later(tenant, change, renewed))
            except Conflict:
                await self._look_again(tenant, record.id, parent)
                if not await self._holds(plan):
                    raise
            else:
                self._renew(tenant, renewed)
                return least

    async def _look_again(self, tenant: str, record_id: str, parent: str) -> None:
        """Why a record was not taken: raises what cannot be mended, and learns the count."""
        count_key = keys.children(tenant, parent)
        self._counts.drop(count_key)
        home, count = await self.rows(keys.living(tenant, parent), count_key)
        if home is None:
            raise _missing(parent)
        await self._refuse_taken(tenant, record_id)
        if count is not None:
            self._counts.put(count_key, count)

    async def _holds(self, plan: Change) -> bool:
        """Whether a change met what its caller asked for, so that only what was added to it can have been wrong."""
        rows = dict(zip(plan.expect, await self.rows(*plan.expect), strict=True))
        return rows == plan.expect and None not in await self.rows(*plan.present)

    async def _parent(self, tenant: str, response_id: str) -> str | None:
        kept = self._memory.get((tenant, response_id))
        if kept is None:
            [kept] = await self._load(tenant, response_id, leaf=response_id)
        return kept.record.parent

    async def _with_one_less(self, tenant: str, parent: str, plan: Change) -> Change:
        """The change, with a child less for a record that keeps another one."""
        count_key = keys.children(tenant, parent)
        [count] = await self.rows(count_key)
        left = _count(count_key, count) - 1
        if left < 1:
            return plan  # Damaged, as in `_plan_ancestors`.
        puts = {**plan.puts, count_key: _number(count_key, left)}
        return Change(puts, plan.deletes, {**plan.expect, count_key: count}, plan.present)

    async def _renewed(self, tenant: str, parent: str | None) -> tuple[list[tuple[str, int]], float]:
        """Who of a parent's history has less than half of its time left, and until when it is to be kept; and when the
        first of all expires then."""
        if self._ttl is None or parent is None:
            return [], math.inf
        now = self._clock()
        known = self._memory.get((tenant, parent))
        if known is not None and known.least - now >= self._ttl / 2:
            return [], known.least
        chain = [kept for kept in await self._chain(tenant, parent, ghosts=True) if kept.living and kept.until > now]
        until = int(now + self._ttl)
        renewed = [(kept.record.id, until) for kept in chain if kept.until - now < self._ttl / 2]
        return renewed, min(max(kept.until, now + self._ttl / 2) for kept in chain) if chain else math.inf

    def _renew(self, tenant: str, renewed: Iterable[tuple[str, int]]) -> None:
        for id, until in renewed:
            self._epoch += 1  # what was read before has the old time
            place = (tenant, id)
            kept = self._memory.get(place)
            if kept is not None:
                self._memory.put(place, replace(kept, until=float(until)), _weight(kept.record))

    async def _chain(self, tenant: str, response_id: str, *, ghosts: bool = False) -> list[_Kept]:
        """A record and all it builds on, oldest first. `ghosts`: it need not be living, since something leads to it."""
        epoch = self._epoch
        chain: list[_Kept] = []
        wanted: str | None = response_id
        while wanted is not None:
            kept = self._memory.get((tenant, wanted))
            if kept is None:
                chain += await self._load(
                    tenant, wanted, leaf=response_id, ghosts=ghosts or bool(chain), ancestors=True
                )
                break
            if not (chain or kept.living or ghosts):
                raise _missing(response_id)
            chain.append(kept)
            wanted = kept.record.parent
        least = math.inf
        now = self._clock()
        # The oldest first, so that a history is forgotten from its far end.
        chain.reverse()
        for place, kept in enumerate(chain):
            if kept.living and kept.until > now:
                least = min(least, kept.until)
            chain[place] = kept = replace(kept, least=least) if kept.least != least else kept
            record = self._remember(tenant, kept, epoch)
            if record is not kept.record:
                chain[place] = replace(kept, record=record)
        return chain

    async def _load(
        self, tenant: str, response_id: str, *, leaf: str, ghosts: bool = False, ancestors: bool = False
    ) -> list[_Kept]:
        """A record, and its ancestors if wanted, youngest first, in one trip to the backend.

        `leaf` is where the caller began: a descendant, or the record itself. `ghosts`: the record may be one.
        """
        if not _RESPONSE_ID.fullmatch(response_id):
            raise _missing(response_id)
        found: list[_Kept] = []
        seen: set[str] = set()
        wanted: str | None = response_id

        def follow(key: str, value: bytes) -> Sequence[str]:
            nonlocal wanted
            assert wanted is not None
            record = decoded(key, value)
            found.append(_Kept(record, key == keys.living(tenant, wanted), _until(record)))
            seen.add(wanted)
            wanted = record.parent if ancestors else None
            if wanted is None:
                return ()
            if wanted in seen:
                raise DamagedRecord(f"the lineage of '{leaf}' leads back to '{wanted}'")
            return keys.living(tenant, wanted), keys.ghost(tenant, wanted)

        start = [keys.living(tenant, response_id)]
        if ghosts:
            start.append(keys.ghost(tenant, response_id))
        try:
            await self.backend.walk(start, follow)
        except DamagedRecord as exc:
            raise DamagedRecord(f"'{wanted}' cannot be read: {exc}") from exc
        if wanted is not None:
            await self._explain(tenant, leaf, wanted)
        return await self._put_off(tenant, found)

    async def _put_off(self, tenant: str, found: list[_Kept]) -> list[_Kept]:
        """The records with the time that they really have: who built on one may have renewed it."""
        soon = self._clock() + (self._ttl or 0) / 2
        near = [n for n, kept in enumerate(found) if kept.living and kept.until < soon]
        if near:
            names = [keys.until(tenant, found[n].record.id) for n in near]
            for n, name, row in zip(near, names, await self.rows(*names), strict=True):
                if row is not None:
                    found[n] = replace(found[n], until=max(found[n].until, float(_count(name, row))))
        return found

    async def _explain(self, tenant: str, leaf: str, wanted: str) -> None:
        """Something in a lineage was not there: fine if all of it is being deleted, else never a shorter history."""
        if wanted == leaf or not any(await self.rows(keys.living(tenant, leaf), keys.ghost(tenant, leaf))):
            raise _missing(leaf)
        raise DamagedRecord(f"'{wanted}', which '{leaf}' builds on, is not there")

    def _remember(self, tenant: str, kept: _Kept, epoch: int) -> Record:
        """The record to hand out: the one at hand already, or `kept`, which is at hand from here on."""
        place = (tenant, kept.record.id)
        known = self._memory.get(place)
        if known is not None and (known is kept or known.record is not kept.record):
            self._memory.touch(place)
            return known.record
        if epoch == self._epoch:
            self._memory.put(place, kept, _weight(kept.record))
        return kept.record

    async def _item(self, response_id: str, wanted: str, owner: str) -> bytes | None:
        tenant = keys.tenant_of(owner)
        kept = self._memory.get((tenant, response_id))
        if kept is None:
            try:
                # Items of a conversation stand in a record that cannot be found otherwise.
                [kept] = await self._load(tenant, response_id, leaf=response_id, ghosts=True)
            except Missing:
                return None
        record = kept.record
        if record.status != ITEMS and not (kept.living and kept.until > self._clock()):
            return None
        return next((item for item in (*record.input, *record.output) if item_id(item) == wanted), None)

    async def _delete(self, tenant: str, response_id: str, only: Callable[[_Kept], bool]) -> None:
        done = False
        while not done:
            done = await self._done(tenant, await self._planned(tenant, response_id, only))

    async def _release(self, tenant: str, heading: Heading, head: str | None) -> None:
        done = False
        while not done:
            plan = _Plan(deletes=[heading.key], expect={heading.key: heading.was})
            if head is not None:
                with suppress(Missing):  # released by somebody else meanwhile
                    await self._plan_ancestors(plan, tenant, head, head)
            done = await self._done(tenant, plan)
            if not done and await self.rows(heading.key) != [heading.was]:
                raise Conflict("the name leads elsewhere")

    async def _done(self, tenant: str, plan: _Plan) -> bool:
        """Whether the plan was carried out; else something it was made with has changed."""
        try:
            await self.backend.commit(plan.change())
        except Conflict:
            return False
        finally:
            self._forget(tenant, plan.touched)
        return True

    def _forget(self, tenant: str, ids: Iterable[str]) -> None:
        self._epoch += 1
        for id in ids:
            self._memory.drop((tenant, id))
            self._counts.drop(keys.children(tenant, id))

    async def _planned(self, tenant: str, response_id: str, only: Callable[[_Kept], bool]) -> _Plan:
        key, count_key = keys.living(tenant, response_id), keys.children(tenant, response_id)
        [kept] = await self._load(tenant, response_id, leaf=response_id)
        if not only(kept):
            raise _missing(response_id)
        [count] = await self.rows(count_key)
        plan = _Plan(deletes=[key], expect={count_key: count}, present=[key], touched=[response_id])
        if kept.record.expires_at:
            plan.deletes.append(keys.until(tenant, response_id))
        if kept.record.is_unfinished:
            # Whoever makes it can no longer write (F21); if they finish it first, this plan is of another record.
            run = keys.run(tenant, response_id)
            [plan.expect[run]] = await self.rows(run)
            plan.deletes.append(run)
        if kept.record.journaled:
            pieces = [event async for event in self.every_key(keys.events(tenant, response_id))]
            plan.deletes += pieces
            # Nor may a piece be left behind that is added meanwhile.
            following = int(pieces[-1].rpartition("/")[2]) + 1 if pieces else 0
            plan.expect[keys.event(tenant, response_id, following)] = None
        await self._plan_entries(plan, tenant, kept.record)
        if count is not None:
            ghost = keys.ghost(tenant, response_id)
            plan.puts[ghost] = await _sealed(ghost, kept.record)
        else:
            await self._plan_ancestors(plan, tenant, response_id, kept.record.parent)
        return plan

    async def _plan_entries(self, plan: _Plan, tenant: str, record: Record) -> None:
        names = list(_index(tenant, record))
        for name, entry in zip(names, await self.rows(*names), strict=True):
            # A later record may have taken the entry over; then it stays.
            if entry is not None and opened(name, entry).decode() == record.id:
                plan.deletes.append(name)
                plan.expect[name] = entry

    async def _plan_ancestors(self, plan: _Plan, tenant: str, leaf: str, parent: str | None) -> None:
        """Take one child from the parent; a ghost that has none left goes, and so on upwards."""
        while parent is not None:
            home, ghost, count_key = (name(tenant, parent) for name in (keys.living, keys.ghost, keys.children))
            living, departed, count = await self.rows(home, ghost, count_key)
            if count is None or (living is None and departed is None):
                return  # Damaged. Bytes that stay are a lesser harm than a living record's history.
            plan.touched.append(parent)
            plan.expect[count_key] = count
            plan.present.append(ghost if living is None else home)
            left = _count(count_key, count) - 1
            if left > 0:
                plan.puts[count_key] = _number(count_key, left)
                return
            plan.deletes.append(count_key)
            if departed is None:
                return
            plan.deletes.append(ghost)
            [kept] = await self._load(tenant, parent, leaf=leaf, ghosts=True)
            if kept.record.status == ITEMS:
                await self._plan_entries(plan, tenant, kept.record)
            parent = kept.record.parent

    async def _is_over(self, tenant: str, response_id: str, by: float) -> bool:
        """Whether nothing put the end of this record off until after `by`."""
        name = keys.until(tenant, response_id)
        try:
            [row] = await self.rows(name)
            return row is None or _count(name, row) <= by
        except DamagedRecord:
            return False  # for `verify` to tell; the others need not wait for it


def _listed(key: str, value: bytes) -> tuple[str, str, Record | None]:
    tenant, _, response_id = key.split("/")
    try:
        return tenant, response_id, decoded(key, value)
    except DamagedRecord:
        return tenant, response_id, None


def _records(chain: Sequence[_Kept]) -> Sequence[Record]:
    records = [kept.record for kept in chain]
    return without_hidden(records) if any(record.without for record in records) else records


def _under(tenant: str, record: Record, heading: Heading, plan: Change) -> Change:
    """The change, with a name that leads to the record from then on. It led to the record's parent, which has the
    record for a child in its place: nobody's count changes but the record's own."""
    count_key = keys.children(tenant, record.id)
    puts = {**plan.puts, heading.key: heading.becomes, count_key: _number(count_key, 1)}
    return Change(puts, plan.deletes, {**plan.expect, heading.key: heading.was, count_key: None}, plan.present)


def _with_later(tenant: str, plan: Change, renewed: Iterable[tuple[str, int]]) -> Change:
    """The change, with the time until which each of these is to be kept, as long as they are there."""
    later = {keys.until(tenant, id): until for id, until in renewed}
    if not later:
        return plan
    puts = {**plan.puts, **{name: _number(name, until) for name, until in later.items()}}
    return Change(puts, plan.deletes, plan.expect, [*plan.present, *(keys.living(tenant, id) for id, _ in renewed)])


def _until(record: Record) -> float:
    return record.expires_at or math.inf


def _home(item_id: str) -> str | None:
    """The response an item id minted here belongs to, by its own account."""
    own = _OWN_ITEM_ID.match(item_id)
    return f"resp_{own[1]}" if own else None


def _index(tenant: str, record: Record) -> dict[str, bytes]:
    """The entries for items whose id does not lead to `record`; none for a turn whose ids were all minted here."""
    if not _RESPONSE_ID.fullmatch(record.id):
        raise Refused("a record's id must be 'resp_' and letters and digits")
    try:
        ids = [item_id(item) for item in (*record.input, *record.output)]
    except msgspec.DecodeError as exc:
        raise Refused(f"every item of '{record.id}' must be a JSON object with an id") from exc
    names = [keys.entry(tenant, id) for id in ids if _home(id) != record.id]
    return {name: seal(name, record.id.encode()) for name in names}


async def _sealed(key: str, record: Record) -> bytes:
    payload = encoded(record)
    if len(payload) < _LARGE:
        return seal(key, payload)
    return await anyio.to_thread.run_sync(seal, key, payload)


def _number(key: str, number: int) -> bytes:
    return seal(key, b"%d" % number)


def _count(key: str, value: bytes | None) -> int:
    return 0 if value is None else int(opened(key, value))


def opened(key: str, value: bytes) -> bytes:
    """The payload of a row. Raises DamagedRecord with the row's name."""
    try:
        return unseal(key, value)
    except ValueError as exc:
        raise DamagedRecord(f"{keys.told(key)} cannot be read: {exc}") from exc


def _weight(record: Record) -> int:
    return _OVERHEAD + len(record.response) + sum(map(len, record.input)) + sum(map(len, record.output))


def _missing(response_id: str) -> Missing:
    return Missing(f"no response {response_id[:80]!r} for this owner")


def _taken(response_id: str) -> Refused:
    return Refused(f"'{response_id}' is stored already; the first terminal status wins")
