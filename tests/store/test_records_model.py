"""The store against a plain dict: continue, fork, delete, reopen, in any order (reliability.md F17)."""

import asyncio
import contextlib
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rejoinder.store import DiskBackend, Missing, Record, Refused, Store

OWNERS = ("o", "p")


class Histories(RuleBasedStateMachine):
    """The model remembers every record ever saved, and which are deleted; what must be kept follows from that."""

    saved: Bundle[tuple[str, str]] = Bundle("saved")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = tempfile.TemporaryDirectory()
        self.directory = Path(self.place.name) / "store"
        self.records: dict[tuple[str, str], Record] = {}
        self.deleted: set[tuple[str, str]] = set()
        self.open(2**20)

    def open(self, memory: int) -> None:
        async def opened() -> Store:
            return Store(DiskBackend(self.directory), memory=memory)

        self.store = self.runner.run(opened())

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        self.place.cleanup()

    def parent(self, name: tuple[str, str]) -> tuple[str, str] | None:
        parent = self.records[name].parent
        return None if parent is None else (name[0], parent)

    def lineage(self, name: tuple[str, str]) -> list[Record]:
        parent = self.parent(name)
        return [*(self.lineage(parent) if parent else []), self.records[name]]

    def needed(self) -> set[tuple[str, str]]:
        """What is living, and every ancestor of it."""
        living = self.records.keys() - self.deleted
        return {(owner, record.id) for owner, id in living for record in self.lineage((owner, id))}

    @rule(target=saved, owner=st.sampled_from(OWNERS), own_item=st.booleans())
    def begin(self, owner: str, own_item: bool) -> tuple[str, str]:
        return self.save(owner, None, own_item)

    @rule(target=saved, parent=saved, own_item=st.booleans())
    def go_on(self, parent: tuple[str, str], own_item: bool) -> tuple[str, str]:
        if parent in self.deleted:
            with pytest.raises(Missing):
                self.save(*parent, own_item)
            return parent
        return self.save(*parent, own_item)

    def save(self, owner: str, parent: str | None, own_item: bool) -> tuple[str, str]:
        number = f"{len(self.records):032x}"
        item = b'{"id":"%s%s"}' % (b"msg_" if own_item else b"from_client_", number.encode())
        response = b'{"output":[{"id":"msg_%s_1"}]}' % number.encode()
        output = [b'{"id":"msg_%s_1"}' % number.encode()]
        record = Record(f"resp_{number}", parent, 1, "completed", response, [item], output)
        self.runner.run(self.store.save(record, owner=owner))
        self.records[owner, record.id] = record
        return owner, record.id

    @rule(parent=saved, count=st.integers(2, 5))
    def fork_at_once(self, parent: tuple[str, str], count: int) -> None:
        owner, parent_id = parent
        numbers = [f"{len(self.records) + n:032x}" for n in range(count)]
        records = [Record(f"resp_{number}", parent_id, 1, "completed", b'{"output":[]}', [], []) for number in numbers]

        async def fork() -> list[BaseException | None]:
            saves = (self.store.save(record, owner=owner) for record in records)
            return await asyncio.gather(*saves, return_exceptions=True)

        outcomes = self.runner.run(fork())
        if parent in self.deleted:
            assert all(isinstance(outcome, Missing) for outcome in outcomes)
        else:
            assert outcomes == [None] * count
            self.records |= {(owner, record.id): record for record in records}

    @rule(name=saved)
    def save_again(self, name: tuple[str, str]) -> None:
        if name in self.needed():
            with pytest.raises((Refused, Missing)):
                self.runner.run(self.store.save(self.records[name], owner=name[0]))

    @rule(name=saved)
    def delete(self, name: tuple[str, str]) -> None:
        if name in self.deleted:
            with pytest.raises(Missing):
                self.runner.run(self.store.delete(name[1], owner=name[0]))
        else:
            self.runner.run(self.store.delete(name[1], owner=name[0]))
            self.deleted.add(name)

    @rule(name=consumes(saved))
    def delete_with_all_below_at_once(self, name: tuple[str, str]) -> None:
        family = [(owner, id) for owner, id in self.records if name in self.ancestry((owner, id))]
        family = [member for member in family if member not in self.deleted]

        async def delete_all() -> None:
            await asyncio.gather(*(self.store.delete(id, owner=owner) for owner, id in family))

        self.runner.run(delete_all())
        self.deleted.update(family)

    def ancestry(self, name: tuple[str, str]) -> list[tuple[str, str]]:
        return [(name[0], record.id) for record in self.lineage(name)]

    @rule(name=saved)
    def read(self, name: tuple[str, str]) -> None:
        owner, response_id = name
        record = self.records[name]
        if name in self.deleted:
            with pytest.raises(Missing):
                self.runner.run(self.store.get(response_id, owner=owner))
            with pytest.raises(Missing):
                self.runner.run(self.store.lineage(response_id, owner=owner))
            for item in (*record.input, *record.output):
                with pytest.raises(Missing):
                    self.runner.run(self.store.find_item(id_of(item), owner=owner))
        else:
            assert same(self.runner.run(self.store.get(response_id, owner=owner)), record)
            for item in (*record.input, *record.output):
                assert self.runner.run(self.store.find_item(id_of(item), owner=owner)) == item

    @rule(memory=st.sampled_from([0, 5000, 2**20]))
    def reopen(self, memory: int) -> None:
        self.runner.run(self.store.close())
        self.open(memory)

    @invariant()
    def nobody_sees_what_is_not_theirs_and_histories_are_whole(self) -> None:
        for name in self.records:
            owner, response_id = name
            stranger = OWNERS[OWNERS.index(owner) - 1]
            with pytest.raises(Missing):
                self.runner.run(self.store.get(response_id, owner=stranger))
            if name not in self.deleted:
                lineage = self.runner.run(self.store.lineage(response_id, owner=owner))
                assert len(lineage) == len(self.lineage(name))
                assert all(map(same, lineage, self.lineage(name)))

    @invariant()
    def exactly_what_is_needed_is_kept(self) -> None:
        with contextlib.closing(sqlite3.connect(self.directory / "cache.db")) as connection:
            keys = [key[65:].split("/") for (key,) in connection.execute("SELECT key FROM Cache")]
        kept = {kind: sorted(id for of, id in keys if of == kind) for kind in ("response", "ghost", "children", "item")}
        needed = self.needed()
        parents = {self.parent(name) for name in needed} - {None}
        clients = [name for name in needed - self.deleted if b"from_client" in b"".join(self.records[name].input)]
        assert kept["response"] == sorted(id for _, id in needed - self.deleted)
        assert kept["ghost"] == sorted(id for _, id in needed & self.deleted)
        assert kept["children"] == sorted(parent[1] for parent in parents if parent)
        assert len(kept["item"]) == len(clients)


def same(left: Record, right: Record) -> bool:
    return all(getattr(left, name) == getattr(right, name) for name in Record.__struct_fields__)


def id_of(item: bytes) -> str:
    return item.decode().split('"')[3]


TestHistories = pytest.mark.slow(Histories.TestCase)
TestHistories.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
