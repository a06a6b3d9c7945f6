"""The store against plain dicts: continue, fork, finish, converse, delete, expire, reopen, in any order
(reliability.md F17, F18). `REJOINDER_CASES` says how many cases are played."""

import asyncio
import math
import os
import tempfile
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from rejoinder.store import Backend, Change, Conversations, DiskBackend, Missing, Record, Refused, Store, keys, runs
from rejoinder.store.conversations import items_of, removal_of
from rejoinder.store.record import ITEMS, item_id
from rejoinder.store.records import GRACE
from rejoinder.store.volatile import VolatileBackend

T = TypeVar("T")

Name = tuple[str, str]
"""An owner and an id."""

OWNERS = ("o", "p")
CASES = int(os.environ.get("REJOINDER_CASES", "40"))
DAY = 86400
TTL = 30 * DAY


@dataclass
class Talk:
    """A conversation as it must be."""

    head: str | None
    metadata: dict[str, str]


class Histories(RuleBasedStateMachine):
    """The model remembers every record ever saved, and which are deleted; what must be kept follows from that."""

    saved: Bundle[Name] = Bundle("saved")
    talks: Bundle[Name] = Bundle("talks")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 1_000_000.0
        self.records: dict[Name, Record] = {}
        self.until: dict[Name, float] = {}
        self.deleted: set[Name] = set()
        self.conversations: dict[Name, Talk] = {}
        self.numbers = 0
        self.prepare()
        self.open(2**20)

    def prepare(self) -> None:
        self.backend: Backend = VolatileBackend()

    def open(self, memory: int) -> None:
        self.store = Store(self.backend, memory=memory, ttl=TTL, clock=lambda: self.now)
        self.kept = Conversations(self.store)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    def run(self, work: Coroutine[None, None, T]) -> T:
        return self.runner.run(work)

    # What the model knows.

    def is_item(self, name: Name) -> bool:
        return self.records[name].status == ITEMS

    def is_living(self, name: Name) -> bool:
        return name not in self.deleted and not self.is_item(name)

    def is_seen(self, name: Name) -> bool:
        return self.is_living(name) and self.until[name] > self.now

    def lineage(self, name: Name) -> list[Record]:
        record = self.records[name]
        return [*(self.lineage((name[0], record.parent)) if record.parent else []), record]

    def needed(self) -> set[Name]:
        """What is living or the last of a conversation, and every ancestor of it."""
        ends = {name for name in self.records if self.is_living(name)}
        ends |= {(owner, talk.head) for (owner, _), talk in self.conversations.items() if talk.head}
        return {(name[0], record.id) for name in ends for record in self.lineage(name)}

    def fresh(self) -> str:
        self.numbers += 1
        return f"{self.numbers:032x}"

    def turn(self, parent: str | None, own_item: bool, status: str = "completed") -> Record:
        number = self.fresh()
        item = b'{"id":"%s%s"}' % (b"msg_" if own_item else b"from_client_", number.encode())
        response = b'{"output":[{"id":"msg_%s_1"}]}' % number.encode()
        output = [b'{"id":"msg_%s_1"}' % number.encode()]
        return Record(f"resp_{number}", parent, 1, status, response, [item], output)

    def note(self, owner: str, record: Record) -> Name:
        """The record is in the store, and put off the end of what it builds on."""
        name = owner, record.id
        lasts = record.is_unfinished or record.status == ITEMS
        self.until[name] = math.inf if lasts else int(self.now + TTL)
        self.records[name] = record if lasts else msgspec.structs.replace(record, expires_at=int(self.now + TTL))
        return name

    def renew(self, owner: str, parent: str | None) -> None:
        for record in self.lineage((owner, parent)) if parent else []:
            name = owner, record.id
            if self.is_seen(name) and self.until[name] - self.now < TTL / 2:
                self.until[name] = int(self.now + TTL)

    # Responses.

    @rule(target=saved, owner=st.sampled_from(OWNERS), own_item=st.booleans())
    def begin(self, owner: str, own_item: bool) -> Name:
        return self.save(owner, self.turn(None, own_item))

    @rule(target=saved, parent=saved, own_item=st.booleans(), finished=st.booleans())
    def go_on(self, parent: Name, own_item: bool, finished: bool) -> Name:
        owner, parent_id = parent
        record = self.turn(parent_id, own_item, "completed" if finished else "queued")
        if not self.is_living(parent):
            with pytest.raises(Missing):
                self.run(self.store.save(record, owner=owner))
            return parent
        return self.save(owner, record)

    def save(self, owner: str, record: Record) -> Name:
        run = runs.begun(runs.Run(owner, record.id, b"{}")) if record.is_unfinished else Change()
        self.run(self.store.save(record, owner=owner, beside=run))
        self.renew(owner, record.parent)
        return self.note(owner, record)

    @rule(name=saved, status=st.sampled_from(["in_progress", "completed", "failed", "cancelled"]))
    def write_again(self, name: Name, status: str) -> None:
        record = msgspec.structs.replace(self.records[name], status=status)
        work = self.store.replace(record, owner=name[0])
        if name in self.deleted:
            with pytest.raises(Missing):
                self.run(work)
        elif not self.records[name].is_unfinished:
            with pytest.raises(Refused):
                self.run(work)
        else:
            self.run(work)
            self.note(name[0], record)

    @rule(parent=saved, count=st.integers(2, 5))
    def fork_at_once(self, parent: Name, count: int) -> None:
        owner, parent_id = parent
        records = [self.turn(parent_id, True) for _ in range(count)]

        async def fork() -> list[BaseException | None]:
            saves = (self.store.save(record, owner=owner) for record in records)
            return await asyncio.gather(*saves, return_exceptions=True)

        outcomes = self.run(fork())
        if parent in self.deleted:
            assert all(isinstance(outcome, Missing) for outcome in outcomes)
        else:
            assert outcomes == [None] * count
            self.renew(owner, parent_id)
            for record in records:
                self.note(owner, record)

    @rule(name=saved)
    def save_again(self, name: Name) -> None:
        if name in self.needed():
            with pytest.raises((Refused, Missing)):
                self.run(self.store.save(self.records[name], owner=name[0]))

    @rule(name=saved)
    def delete(self, name: Name) -> None:
        work = self.store.delete(name[1], owner=name[0])
        if not self.is_seen(name):
            with pytest.raises(Missing):
                self.run(work)
        else:
            self.run(work)
            self.deleted.add(name)

    @rule(name=consumes(saved))
    def delete_with_all_below_at_once(self, name: Name) -> None:
        record = self.records[name]
        below = [(owner, id) for owner, id in self.records if record in self.lineage((owner, id)) and owner == name[0]]
        family = [member for member in below if self.is_seen(member)]

        async def delete_all() -> None:
            await asyncio.gather(*(self.store.delete(id, owner=owner) for owner, id in family))

        self.run(delete_all())
        self.deleted.update(family)

    # Conversations.

    @rule(target=talks, owner=st.sampled_from(OWNERS), with_items=st.booleans())
    def converse(self, owner: str, with_items: bool) -> Name:
        name = owner, f"conv_{self.fresh()}"
        items = self.items(None) if with_items else None
        self.run(self.kept.create(name[1], owner=owner, created_at=1, metadata={}, items=items))
        self.conversations[name] = Talk(items.id if items else None, {})
        if items is not None:
            self.note(owner, items)
        return name

    def items(self, parent: str | None) -> Record:
        item = self.turn(None, False).input
        return items_of(f"resp_{self.fresh()}", parent=parent, created_at=1, input=item, added=b"\x01")

    @rule(name=talks)
    def say(self, name: Name) -> None:
        self.append(name, self.items(self.head(name)))

    @rule(name=talks)
    def take_out(self, name: Name) -> None:
        head = self.head(name)
        if head is not None:
            items = [item for record in self.lineage((name[0], head)) for item in (*record.input, *record.output)]
            if items:
                wanted = item_id(items[len(items) // 2])
                self.append(name, removal_of(f"resp_{self.fresh()}", parent=head, created_at=1, item_id=wanted))

    @rule(target=saved, name=talks, own_item=st.booleans(), finished=st.booleans())
    def answer_in(self, name: Name, own_item: bool, finished: bool) -> Name:
        """A turn of a conversation that is made at once, or one that is begun first and has no place in it yet."""
        record = self.turn(self.head(name), own_item)
        if not finished:
            started = msgspec.structs.replace(record, parent=None, status="in_progress")
            self.save(name[0], started)
        self.append(name, record, begun=not finished)
        return name[0], record.id

    def head(self, name: Name) -> str | None:
        return self.conversations[name].head if name in self.conversations else None

    def append(self, name: Name, record: Record, *, begun: bool = False) -> None:
        work = self.kept.append(name[1], record, owner=name[0], begun=begun)
        if name not in self.conversations:
            with pytest.raises(Missing):
                self.run(work)
            if begun:
                self.run(self.store.replace(record, owner=name[0]))
            elif record.status != ITEMS:
                self.run(self.store.save(record, owner=name[0]))
        else:
            self.run(work)
            self.conversations[name].head = record.id
            self.renew(name[0], record.parent)
        if record.status != ITEMS or name in self.conversations:
            self.note(name[0], record)

    @rule(name=talks, value=st.sampled_from("xy"))
    def describe(self, name: Name, value: str) -> None:
        work = self.kept.describe(name[1], {"key": value}, owner=name[0])
        if name not in self.conversations:
            with pytest.raises(Missing):
                self.run(work)
        else:
            self.run(work)
            self.conversations[name].metadata = {"key": value}

    @rule(name=talks)
    def end(self, name: Name) -> None:
        work = self.kept.delete(name[1], owner=name[0])
        if name not in self.conversations:
            with pytest.raises(Missing):
                self.run(work)
        else:
            self.run(work)
            del self.conversations[name]

    # Time.

    @precondition(lambda self: self.records)
    @rule(days=st.sampled_from([1, 10, 14, 16, 31]))
    def wait(self, days: int) -> None:
        self.now += days * DAY

    @rule(grace=st.sampled_from([GRACE, GRACE, 0]))
    def sweep(self, grace: int) -> None:
        due = {name for name in self.records if self.is_living(name) and self.until[name] <= self.now - grace}
        assert self.run(self.store.sweep(grace=grace)) == len(due)
        self.deleted |= due

    @rule(memory=st.sampled_from([0, 5000, 2**20]))
    def reopen(self, memory: int) -> None:
        self.open(memory)

    # What must hold.

    @rule(name=saved)
    def read(self, name: Name) -> None:
        owner, response_id = name
        record = self.records[name]
        if not self.is_seen(name):
            for item in (*record.input, *record.output):
                with pytest.raises(Missing):
                    self.run(self.store.find_item(item_id(item), owner=owner))
            with pytest.raises(Missing):
                self.run(self.store.get(response_id, owner=owner))
        else:
            assert same(self.run(self.store.get(response_id, owner=owner)), record)
            for item in (*record.input, *record.output):
                assert self.run(self.store.find_item(item_id(item), owner=owner)) == item

    @invariant()
    def nobody_sees_what_is_not_theirs_and_histories_are_whole(self) -> None:
        for name in self.records:
            owner, response_id = name
            stranger = OWNERS[OWNERS.index(owner) - 1]
            with pytest.raises(Missing):
                self.run(self.store.get(response_id, owner=stranger))
            if self.is_seen(name):
                lineage = self.run(self.store.lineage(response_id, owner=owner))
                assert items_in([*lineage]) == shown(self.lineage(name))
            else:
                with pytest.raises(Missing):
                    self.run(self.store.lineage(response_id, owner=owner))

    @invariant()
    def conversations_hold_all_that_was_said_in_them(self) -> None:
        for (owner, id), talk in self.conversations.items():
            assert self.run(self.kept.get(id, owner=owner)).metadata == talk.metadata
            said = self.run(self.kept.records(id, owner=owner))
            assert items_in([*said]) == shown(self.lineage((owner, talk.head)) if talk.head else [])

    @invariant()
    def exactly_what_is_needed_is_kept(self) -> None:
        needed = self.needed()
        living = {name for name in self.records if self.is_living(name)}
        children = Counter((owner, self.records[owner, id].parent) for owner, id in needed)
        children.update((owner, talk.head) for (owner, _), talk in self.conversations.items())
        told = [
            *(keys.living(keys.tenant_of(owner), id) for owner, id in living),
            *(keys.ghost(keys.tenant_of(owner), id) for owner, id in needed - living),
            *(keys.children(keys.tenant_of(owner), id) for owner, id in children if id),
            *(keys.conversation(keys.tenant_of(owner), id) for owner, id in self.conversations),
            *(keys.run(keys.tenant_of(name[0]), name[1]) for name in living if self.records[name].is_unfinished),
            *(
                keys.entry(keys.tenant_of(name[0]), item_id(item))
                for name in needed
                if name in living or self.is_item(name)
                for item in self.records[name].input
                if self.is_item(name) or b"from_client" in item
            ),
        ]
        rows = self.run(self.every_row())
        # An end that was never put off has no row.
        assert sorted(name for name in rows if "/until/" not in name) == sorted(told)
        untils = {keys.until(keys.tenant_of(owner), id) for owner, id in living}
        assert {name for name in rows if "/until/" in name} <= untils
        for owner, id in living:
            row = rows.get(keys.until(keys.tenant_of(owner), id))
            until = self.until[owner, id]
            assert until == (self.records[owner, id].expires_at or math.inf if row is None else int(row[5:]))
        for (owner, parent), count in children.items():
            if parent:
                assert rows[keys.children(keys.tenant_of(owner), parent)][5:] == b"%d" % count

    async def every_row(self) -> dict[str, bytes]:
        names = [name async for name in self.store.every_key()]
        values = await self.backend.get(names)
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}


class HistoriesOnDisk(Histories):
    def prepare(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.connect()

    def connect(self) -> None:
        async def opened() -> Backend:
            return DiskBackend(Path(self.place.name) / "store")

        self.backend = self.run(opened())

    @rule(memory=st.sampled_from([0, 5000, 2**20]))
    def restart(self, memory: int) -> None:
        self.run(self.store.close())
        self.connect()
        self.open(memory)

    def teardown(self) -> None:
        super().teardown()
        with suppress(OSError):
            self.place.cleanup()


def shown(records: list[Record]) -> list[tuple[str, list[bytes]]]:
    """The items of a history that no later record took out of it."""
    found = []
    for place, record in enumerate(records):
        hidden = {id for later in records[place + 1 :] for id in later.without}
        items = [item for item in (*record.input, *record.output) if item_id(item) not in hidden]
        found.append((record.id, items))
    return found


def items_in(records: list[Record]) -> list[tuple[str, list[bytes]]]:
    return [(record.id, [*record.input, *record.output]) for record in records]


def same(left: Record, right: Record) -> bool:
    return all(getattr(left, name) == getattr(right, name) for name in Record.__struct_fields__)


TestHistories = pytest.mark.slow(Histories.TestCase)
TestHistories.settings = settings(max_examples=CASES, stateful_step_count=30)
TestHistoriesOnDisk = pytest.mark.slow(HistoriesOnDisk.TestCase)
TestHistoriesOnDisk.settings = settings(max_examples=CASES // 10, stateful_step_count=25)
