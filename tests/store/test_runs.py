import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rejoinder.store import keys, runs
from rejoinder.store.backend import Change
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import Conflict, DamagedRecord, Refused
from rejoinder.store.record import Record
from rejoinder.store.records import Store
from rejoinder.store.runs import Once, Piece, Run
from rejoinder.store.values import seal
from rejoinder.store.volatile import VolatileBackend

TENANT = keys.tenant_of("o")


@pytest.fixture(params=["disk", "volatile"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(DiskBackend(tmp_path / "store") if request.param == "disk" else VolatileBackend())
    yield store
    await store.close()


def unfinished(name: str, status: str = "queued") -> Record:
    return Record(f"resp_{name}", None, 7, status, b"{}", [], [], background=True, journaled=True)


async def begin(store: Store, name: str, *, owner: str = "o") -> Run:
    run = Run(owner, f"resp_{name}", b'{"model":"m"}', {"session": "s"})
    await store.save(unfinished(name), owner=owner, beside=runs.begun(run))
    return run


async def left_over(store: Store) -> list[Run | DamagedRecord]:
    return [run async for run in runs.unfinished(store)]


async def test_what_a_crash_left_unfinished_is_found_whoever_owns_it(store: Store) -> None:
    mine, theirs = await begin(store, "1"), await begin(store, "2", owner="p")
    await begin(store, "3")
    await store.replace(unfinished("3", "completed"), owner="o")
    await store.save(unfinished("4", "completed"), owner="o")
    found = await left_over(store)
    assert sorted(found, key=lambda run: run.id if isinstance(run, Run) else "") == [mine, theirs]


async def test_an_unfinished_response_that_cannot_be_read_does_not_hide_the_others(store: Store) -> None:
    await begin(store, "1")
    second = await begin(store, "2")
    await begin(store, "3")
    key, other = keys.run(TENANT, "resp_1"), keys.run(TENANT, "resp_3")
    await store.backend.commit(Change({key: b"\x00damaged", other: seal(other, b"\x90")}))
    damaged, fine, strange = await left_over(store)
    assert fine == second
    assert "'run/resp_1' cannot be read: the checksum does not match" in str(damaged)
    assert str(strange).startswith("'run/resp_3' cannot be read: Expected")


async def test_one_that_ends_while_it_is_looked_for_is_not_found(store: Store) -> None:
    await begin(store, "1")
    await begin(store, "2")
    found = runs.unfinished(store)
    assert isinstance(await anext(found), Run)
    await store.replace(unfinished("2", "failed"), owner="o")
    assert [run async for run in found] == []


async def test_a_stream_is_read_as_it_was_told(store: Store) -> None:
    await begin(store, "1")
    await store.append("resp_1", runs.told("resp_1", 0, 0, [b"a\n\n", b"b\n\n"], owner="o"), owner="o")
    await store.append("resp_1", runs.told("resp_1", 1, 2, [b"\x00\n\n"], owner="o"), owner="o")
    first = await runs.piece(store, "resp_1", 0, owner="o")
    assert first == Piece(0, [b"a\n\n", b"b\n\n"])
    assert first.following == 2
    assert await runs.piece(store, "resp_1", 1, owner="o") == Piece(2, [b"\x00\n\n"])
    assert await runs.piece(store, "resp_1", 2, owner="o") is None
    assert await runs.piece(store, "resp_1", 0, owner="p") is None


async def test_a_piece_is_written_once_and_only_before_the_end(store: Store) -> None:
    await begin(store, "1")
    await store.append("resp_1", runs.told("resp_1", 0, 0, [b"a"], owner="o"), owner="o")
    with pytest.raises(Refused):
        await store.append("resp_1", runs.told("resp_1", 0, 0, [b"b"], owner="o"), owner="o")
    last = runs.told("resp_1", 1, 1, [b"end"], owner="o")
    await store.replace(unfinished("1", "completed"), owner="o", beside=last)
    with pytest.raises(Refused):
        await store.append("resp_1", runs.told("resp_1", 2, 2, [b"late"], owner="o"), owner="o")
    assert await runs.piece(store, "resp_1", 0, owner="o") == Piece(0, [b"a"])
    assert await runs.piece(store, "resp_1", 1, owner="o") == Piece(1, [b"end"])
    assert await runs.piece(store, "resp_1", 2, owner="o") is None


async def test_a_piece_or_a_key_that_cannot_be_read_is_named(store: Store) -> None:
    event, once = keys.event(TENANT, "resp_1", 4), keys.once(TENANT, "key")
    await store.backend.commit(Change({event: b"\x00damaged", once: seal(once, b"\x91")}))
    with pytest.raises(DamagedRecord, match="'event/resp_1/00000004' cannot be read: the checksum"):
        await runs.piece(store, "resp_1", 4, owner="o")
    with pytest.raises(DamagedRecord, match=r"'once/[0-9a-f]{64}' cannot be read: "):
        await runs.known(store, "key", owner="o")


async def test_a_row_of_another_kind_is_named(tmp_path: Path) -> None:
    store = Store(DiskBackend(tmp_path / "store"))
    await begin(store, "1")
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "cache.db", isolation_level=None)) as connection:
        connection.execute("UPDATE Cache SET mode = 4 WHERE key LIKE 'run/%'")
    [damaged] = await left_over(store)
    assert "'run/resp_1' cannot be read: expected a row of plain bytes" in str(damaged)
    await store.close()


async def test_a_key_is_remembered_with_what_it_led_to_and_replaced_by_who_saw_it(store: Store) -> None:
    assert await runs.known(store, "key", owner="o") == (None, None)
    first = Once(b"digest", "resp_1", 100)
    await store.backend.commit(runs.once("key", first, was=None, owner="o"))
    found, row = await runs.known(store, "key", owner="o")
    assert found == first
    assert await runs.known(store, "key", owner="p") == (None, None)
    with pytest.raises(Conflict):
        await store.backend.commit(runs.once("key", Once(b"d", "resp_2", 200), was=None, owner="o"))
    await store.backend.commit(runs.once("key", Once(b"d", "resp_2", 200), was=row, owner="o"))
    assert (await runs.known(store, "key", owner="o"))[0] == Once(b"d", "resp_2", 200)


async def test_keys_are_forgotten_when_they_are_old_and_nothing_else_is(store: Store) -> None:
    await begin(store, "1")
    for number in range(4):
        entry = Once(b"d", "resp_1", number * 100)
        await store.backend.commit(runs.once(f"key {number}", entry, was=None, owner="op"[number % 2]))
    assert await runs.forget(store, before=200) == 2
    assert await runs.forget(store, before=200) == 0
    assert (await runs.known(store, "key 0", owner="o"))[0] is None
    assert (await runs.known(store, "key 2", owner="o"))[0] is not None
    assert (await runs.known(store, "key 3", owner="p"))[0] is not None
    assert len(await left_over(store)) == 1


async def test_a_key_that_cannot_be_read_does_not_keep_the_others(store: Store) -> None:
    damaged = keys.once(TENANT, "damaged")
    await store.backend.commit(Change({damaged: b"\x00damaged"}))
    await store.backend.commit(runs.once("old", Once(b"d", "resp_1", 1), was=None, owner="o"))
    assert await runs.forget(store, before=200) == 1
    assert await store.backend.get([damaged]) == [b"\x00damaged"]


class Interrupted(VolatileBackend):
    """Somebody else uses the key again, or forgets it, when it is about to be forgotten."""

    meanwhile = Change()

    async def commit(self, change: Change) -> None:
        if change.deletes:
            await super().commit(self.meanwhile)
        await super().commit(change)


async def test_a_key_that_is_used_again_while_it_is_forgotten_stays() -> None:
    backend = Interrupted()
    store = Store(backend)
    await backend.commit(runs.once("key", Once(b"d", "resp_1", 1), was=None, owner="o"))
    _, row = await runs.known(store, "key", owner="o")
    again = Once(b"d", "resp_2", 900)
    backend.meanwhile = runs.once("key", again, was=row, owner="o")
    assert await runs.forget(store, before=200) == 0
    assert (await runs.known(store, "key", owner="o"))[0] == again


class Vanishing(VolatileBackend):
    """Rows are listed and gone when they are read."""

    async def get(self, keys: object) -> list[bytes | None]:
        return [None]


async def test_a_key_that_somebody_else_forgets_is_not_counted() -> None:
    store = Store(Vanishing())
    await store.backend.commit(runs.once("key", Once(b"d", "resp_1", 1), was=None, owner="o"))
    assert await runs.forget(store, before=200) == 0


def test_changes_become_one() -> None:
    whole = runs.together(
        Change({"a": b"1"}, ["b"], {"c": None}, ["d"]), Change(), Change({"e": b"2"}, ["f"], {"g": b"3"}, ["h"], True)
    )
    assert whole == Change({"a": b"1", "e": b"2"}, ["b", "f"], {"c": None, "g": b"3"}, ["d", "h"], True)
    assert not runs.together(Change(), Change()).erase
