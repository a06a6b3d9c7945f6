import asyncio
import contextlib
import gc
import hashlib
import json
import os
import sqlite3
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import pytest

from rejoinder.store.backend import Change
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import DamagedRecord, Missing, Refused, StoreError
from rejoinder.store.record import Attempt, Record
from rejoinder.store.records import Store
from rejoinder.store.values import seal

A = "a" * 32
B = "b" * 32
C = "c" * 32


def turn(
    name: str, parent: str | None = None, *, input: Iterable[bytes] = (), text: str = "x", status: str = "completed"
) -> Record:
    """A record whose ids were all minted here, unless `input` says otherwise."""
    question = b'{"type":"message","id":"msg_%s_in","role":"user","content":"?"}' % name.encode()
    answer = json.dumps({"type": "message", "id": f"msg_{name}_out", "content": text}).encode()
    response = b'{"id":"resp_%s","status":"%s","output":[%s]}' % (name.encode(), status.encode(), answer)
    home = None if parent is None else f"resp_{parent}"
    return Record(f"resp_{name}", home, 7, status, response, [*input] or [question], [answer], "model", "upstream")


def ids(records: Sequence[Record]) -> list[str]:
    return [record.id.removeprefix("resp_") for record in records]


def fields(record: Record) -> tuple[object, ...]:
    return tuple(getattr(record, name) for name in Record.__struct_fields__)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(directory: Path) -> AsyncIterator[Store]:
    store = Store(DiskBackend(directory))
    yield store
    await store.close()


@contextlib.asynccontextmanager
async def cold(directory: Path, *, memory: int = 2**20) -> AsyncIterator[Store]:
    store = Store(DiskBackend(directory), memory=memory)
    try:
        yield store
    finally:
        await store.close()


def rows(directory: Path) -> dict[str, bytes]:
    """Every row, its owner left out of the key."""
    with contextlib.closing(sqlite3.connect(directory / "cache.db")) as connection:
        found = connection.execute("SELECT key, value FROM Cache").fetchall()
    return {key.partition("/")[2]: value for key, value in found}


def edit(directory: Path, statement: str, *parameters: object) -> None:
    with contextlib.closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        assert connection.execute(statement, parameters).rowcount == 1


async def missing(*awaitables: Awaitable[object]) -> bool:
    outcomes = await asyncio.gather(*awaitables, return_exceptions=True)
    return all(type(outcome) is Missing for outcome in outcomes)


async def test_a_record_comes_back_byte_for_byte(store: Store, directory: Path) -> None:
    record = turn(A, text="é\u0000 " * 3000)
    await store.save(record, owner="o")
    assert await store.get(f"resp_{A}", owner="o") is record
    await store.close()
    async with cold(directory) as again:
        assert fields(await again.get(f"resp_{A}", owner="o")) == fields(record)


async def test_a_record_too_large_for_the_loop_comes_back(store: Store, directory: Path) -> None:
    record = turn(A, text=os.urandom(200_000).hex())
    await store.save(record, owner="o")
    await store.close()
    async with cold(directory) as again:
        assert fields(await again.get(f"resp_{A}", owner="o")) == fields(record)


@pytest.mark.parametrize("response", [b'{"output": [ {"id":"x"} ]}', b'{"output":[]}', b'{"error":1}', b"null"])
async def test_an_output_that_the_response_does_not_hold_is_kept_beside_it(directory: Path, response: bytes) -> None:
    record = Record("resp_1", None, 7, "failed", response, [], [b'{"id":"msg_1","a":1}', b'{"id":"msg_2"}'])
    async with cold(directory) as store:
        await store.save(record, owner="o")
    async with cold(directory) as store:
        assert fields(await store.get("resp_1", owner="o")) == fields(record)


async def test_an_output_that_the_response_holds_is_stored_once(store: Store, directory: Path) -> None:
    noise = os.urandom(1_000_000).hex()  # too long for the compressor to notice that it comes twice
    await store.save(turn(A, text=noise), owner="o")
    [value] = rows(directory).values()
    assert len(noise) / 2 < len(value) < len(noise) / 2 * 1.2


EARLIER = [
    (  # before a record said who answered
        b"\x92\x87\xa2id\xa6resp_1\xa6parent\xc0\xaacreated_at\x07\xa6status\xa6failed\xa8response\xc4\x02{}"
        b'\xa5input\x90\xa6output\x91\xc4\x0a{"id":"i"}\xc2',
        Record("resp_1", None, 7, "failed", b"{}", [], [b'{"id":"i"}']),
    ),
    (  # before it said what the client did not send, what it goes by, and what was tried
        b"\x92\x89\xa2id\xa6resp_1\xa6parent\xc0\xaacreated_at\x07\xa6status\xa9completed"
        b'\xa8response\xc4){"id":"resp_1","output":[{"id":"msg_2"}]}\xa5input\x91\xc4\x0e{"id":"msg_1"}\xa6output\x90'
        b"\xa5model\xa5model\xa8upstream\xa8upstream\xc3",
        Record(
            "resp_1", None, 7, "completed", b'{"id":"resp_1","output":[{"id":"msg_2"}]}', [b'{"id":"msg_1"}'],
            [b'{"id":"msg_2"}'], "model", "upstream",
        ),
    ),
]  # fmt: skip
"""Records as they lie on disks, and what they say."""


@pytest.mark.parametrize(("payload", "record"), EARLIER)
async def test_records_of_an_earlier_shape_are_read(directory: Path, payload: bytes, record: Record) -> None:
    async with cold(directory) as store:
        await store.save(Record("resp_1", None, 7, "completed", b"{}", [], []), owner="o")
        await store.save(turn(B), owner="o")
    key = f"{hashlib.sha256(b'o').hexdigest()}/response/resp_1"
    edit(directory, "UPDATE Cache SET value = ? WHERE key = ?", seal(key, payload), key)
    async with cold(directory) as store:
        found = await store.get("resp_1", owner="o")
        assert fields(found) == fields(record)
        assert (found.added, found.identity, found.attempts, found.upstream_id) == (b"", None, (), "")
        await store.save(turn(C, "1"), owner="o")
        assert [one.id for one in await store.lineage(f"resp_{C}", owner="o")] == ["resp_1", f"resp_{C}"]


async def test_a_record_says_all_it_knows_of_its_turn(directory: Path) -> None:
    record = Record(
        *("resp_1", None, 7, "completed", b"{}", [b'{"id":"i"}'], [b'{"id":"o"}'], "model", "upstream", "resp_theirs"),
        added=b"\x0f",
        identity={"session": "s", "thread": "t", "cache_key": "c"},
        attempts=(Attempt(429, "rate_limit_exceeded", 0.5), Attempt(503, "server_error", 1.0)),
    )
    async with cold(directory) as store:
        await store.save(record, owner="o")
    async with cold(directory) as store:
        assert fields(await store.get("resp_1", owner="o")) == fields(record)


async def test_a_record_is_the_same_object_each_time_and_can_be_a_weak_key(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B, A), owner="o")
    async with cold(directory) as store:
        parsed = weakref.WeakKeyDictionary(dict.fromkeys(await store.lineage(f"resp_{B}", owner="o"), 1))
        gc.collect()
        assert [parsed[record] for record in await store.lineage(f"resp_{B}", owner="o")] == [1, 1]
        assert parsed[await store.get(f"resp_{A}", owner="o")] == 1


async def test_two_who_load_at_once_get_the_same_object(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
    async with cold(directory) as store:
        first, second = await asyncio.gather(*(store.get(f"resp_{A}", owner="o") for _ in range(2)))
        assert first is second


async def test_memory_is_bounded_and_what_is_forgotten_is_read_again(directory: Path) -> None:
    async with cold(directory, memory=20_000) as store:
        records = [turn(f"{n:032x}", f"{n - 1:032x}" if n else None, text="x" * 1000) for n in range(20)]
        for record in records:
            await store.save(record, owner="o")
        for _ in range(2):
            lineage = await store.lineage(records[-1].id, owner="o")
            assert list(map(fields, lineage)) == list(map(fields, records))
        assert await store.get(records[-1].id, owner="o") is lineage[-1]
        assert await store.get(records[0].id, owner="o") is not lineage[0]


async def test_a_lineage_is_oldest_first_and_whole(store: Store, directory: Path) -> None:
    await store.save(turn(A), owner="o")
    await store.save(turn(B, A), owner="o")
    await store.save(turn(C, B), owner="o")
    assert ids(await store.lineage(f"resp_{A}", owner="o")) == [A]
    assert ids(await store.lineage(f"resp_{C}", owner="o")) == [A, B, C]
    await store.close()
    async with cold(directory) as again:
        assert ids(await again.lineage(f"resp_{C}", owner="o")) == [A, B, C]


class Counting(DiskBackend):
    """Says how often it was asked."""

    trips = 0

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self.trips += 1
        return await super().get(keys)

    async def walk(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        self.trips += 1
        await super().walk(keys, follow)


async def test_a_cold_lineage_is_one_trip_and_a_hot_one_none(directory: Path) -> None:
    backend = Counting(directory)
    writing, reading = Store(backend), Store(backend)
    for n in range(50):
        await writing.save(turn(f"{n:032x}", f"{n - 1:032x}" if n else None), owner="o")
    assert backend.trips == 0
    for _ in range(2):
        assert len(await reading.lineage(f"resp_{49:032x}", owner="o")) == 50
        assert backend.trips == 1
    await writing.close()


async def test_continuing_what_was_just_saved_reads_nothing(directory: Path) -> None:
    backend = Counting(directory)
    store = Store(backend)
    await store.save(turn(A), owner="o")
    await store.save(turn(B, A), owner="o")
    await store.save(turn(C, A), owner="o")
    assert backend.trips == 0
    await store.close()


async def test_an_id_is_taken_once_for_ever(store: Store) -> None:
    await store.save(turn(A), owner="o")
    await store.save(turn(B, A), owner="o")
    for again in (turn(A, status="failed"), turn(B, A), turn(B)):
        with pytest.raises(Refused, match="stored already"):
            await store.save(again, owner="o")
    assert (await store.get(f"resp_{A}", owner="o")).status == "completed"


async def test_of_two_who_save_one_id_one_is_refused(store: Store) -> None:
    await store.save(turn(A), owner="o")
    saves = (store.save(turn(B, A, text=str(n)), owner="o") for n in range(10))
    outcomes = await asyncio.gather(*saves, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["Refused"] * 9


async def test_a_ghost_keeps_its_id(store: Store) -> None:
    await store.save(turn(A), owner="o")
    await store.save(turn(B, A), owner="o")
    await store.delete(f"resp_{A}", owner="o")
    await store.save(turn(C), owner="o")
    for again in (turn(A), turn(A, C)):
        with pytest.raises(Refused):
            await store.save(again, owner="o")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a\n", "a" * 129])
async def test_an_id_of_another_form_is_not_stored_and_not_found(store: Store, name: str) -> None:
    with pytest.raises(Refused):
        await store.save(turn(name), owner="o")
    assert await missing(store.get(f"resp_{name}", owner="o"), store.lineage(f"resp_{name}", owner="o"))
    assert await missing(store.delete(f"resp_{name}", owner="o"), store.get("\ud800", owner="o"))


@pytest.mark.parametrize("item", [b"{}", b'{"id":null}', b'{"id":7}', b"[]", b"not json", b""])
async def test_an_item_without_an_id_is_refused(store: Store, item: bytes) -> None:
    with pytest.raises(Refused, match="JSON object with an id"):
        await store.save(turn(A, input=[item]), owner="o")
    assert await missing(store.get(f"resp_{A}", owner="o"))


@pytest.mark.parametrize("parent", [C, "x y", "\ud800"])
async def test_a_parent_that_is_not_there_is_missing(store: Store, parent: str) -> None:
    with pytest.raises(Missing, match="no response 'resp_"):
        await store.save(turn(A, parent), owner="o")
    assert await missing(store.get(f"resp_{A}", owner="o"))


async def test_a_parent_that_vanished_meanwhile_is_missing(store: Store) -> None:
    await store.save(turn(A), owner="o")
    await store.lineage(f"resp_{A}", owner="o")
    await store.delete(f"resp_{A}", owner="o")
    with pytest.raises(Missing):
        await store.save(turn(B, A), owner="o")


async def test_a_ghost_is_no_parent(store: Store) -> None:
    await store.save(turn(A), owner="o")
    await store.save(turn(B, A), owner="o")
    await store.delete(f"resp_{A}", owner="o")
    with pytest.raises(Missing):
        await store.save(turn(C, A), owner="o")


@pytest.mark.parametrize("memory", [2**20, 0])
async def test_forks_saved_at_once_all_succeed(directory: Path, memory: int) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B, A), owner="o")
    names = [f"{n:032x}" for n in range(40)]
    async with cold(directory, memory=memory) as store:
        await asyncio.gather(*(store.save(turn(name, A), owner="o") for name in names))
        for name in names:
            assert ids(await store.lineage(f"resp_{name}", owner="o")) == [A, name]
        await store.delete(f"resp_{A}", owner="o")
        await asyncio.gather(*(store.delete(f"resp_{name}", owner="o") for name in names))
        assert "ghost/resp_" + A in rows(directory)
        await store.delete(f"resp_{B}", owner="o")
    assert rows(directory) == {}


async def test_a_count_that_was_told_but_not_written_is_mended(store: Store) -> None:
    await store.save(turn(A), owner="o")
    await store.save(turn(B, A), owner="o")
    task = asyncio.create_task(store.save(turn(C, A), owner="o"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    for n in range(3):
        await store.save(turn(f"{n:032x}", A), owner="o")
    assert ids(await store.lineage(f"resp_{2:032x}", owner="o")) == [A, f"{2:032x}"]


async def test_a_count_that_another_hand_changed_is_learnt(directory: Path) -> None:
    backend = DiskBackend(directory)
    here, elsewhere = Store(backend), Store(backend)
    await here.save(turn(A), owner="o")
    await here.save(turn(B, A), owner="o")
    await elsewhere.delete(f"resp_{B}", owner="o")
    await here.save(turn(C, A), owner="o")
    await elsewhere.delete(f"resp_{A}", owner="o")
    await elsewhere.delete(f"resp_{C}", owner="o")
    await here.close()
    assert rows(directory) == {}


async def test_nothing_of_one_owner_is_there_for_another(store: Store) -> None:
    record = turn(A, input=[b'{"id":"client_item"}'])
    await store.save(record, owner="o")
    await store.save(turn(B, A), owner="o")
    for stranger in ("p", "", "o ", "O", "o/response"):
        assert await missing(
            store.get(record.id, owner=stranger),
            store.lineage(record.id, owner=stranger),
            store.delete(record.id, owner=stranger),
            store.find_item(f"msg_{A}_out", owner=stranger),
            store.find_item("client_item", owner=stranger),
            store.save(turn(C, A), owner=stranger),
        )
    assert await store.get(record.id, owner="o") is record


async def test_owners_may_use_the_same_ids(store: Store) -> None:
    for owner in ("o", "p"):
        await store.save(turn(A, text=owner, input=[b'{"id":"same","of":"%s"}' % owner.encode()]), owner=owner)
    await store.delete(f"resp_{A}", owner="p")
    assert await store.find_item("same", owner="o") == b'{"id":"same","of":"o"}'
    assert json.loads((await store.get(f"resp_{A}", owner="o")).response)["output"][0]["content"] == "o"


async def test_no_owner_can_be_spelled_so_that_it_reads_as_another(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner=f"o/response/resp_{A}")
        await store.save(turn(A), owner="o")
    with contextlib.closing(sqlite3.connect(directory / "cache.db")) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM Cache")]
    assert {key[64:] for key in keys} == {f"/response/resp_{A}"}
    assert len({key[:64] for key in keys}) == 2
    assert all(set(key[:64]) <= set("0123456789abcdef") for key in keys)


async def test_items_minted_here_are_found_by_their_id_and_leave_no_entry(store: Store, directory: Path) -> None:
    record = turn(A)
    await store.save(record, owner="o")
    await store.save(turn(B, A), owner="o")
    assert await store.find_item(f"msg_{A}_in", owner="o") == record.input[0]
    assert await store.find_item(f"msg_{A}_out", owner="o") == record.output[0]
    assert await missing(store.find_item(f"msg_{A}_else", owner="o"), store.find_item(f"msg_{C}_in", owner="o"))
    assert sorted(rows(directory)) == [f"children/resp_{A}", f"response/resp_{A}", f"response/resp_{B}"]


async def test_items_a_client_named_are_found_by_their_entry(store: Store, directory: Path) -> None:
    items = [json.dumps({"id": name}).encode() for name in ("x", "msg_1", "", "é/%", "n" * 10_000)]
    await store.save(turn(A, input=items), owner="o")
    for item in items:
        assert await store.find_item(json.loads(item)["id"], owner="o") == item
    assert await missing(store.find_item("y", owner="o"), store.find_item("\ud800", owner="o"))
    assert sum(key.startswith("item/") for key in rows(directory)) == len(items)


async def test_an_item_sent_again_outlives_the_response_it_came_from(store: Store) -> None:
    await store.save(turn(A), owner="o")
    again = b'{"type":"message","id":"msg_%s_out","content":"sent again"}' % A.encode()
    await store.save(turn(B, input=[again]), owner="o")
    assert await store.find_item(f"msg_{A}_out", owner="o") == turn(A).output[0]
    await store.delete(f"resp_{A}", owner="o")
    assert await store.find_item(f"msg_{A}_out", owner="o") == again


async def test_an_item_id_used_twice_belongs_to_the_response_saved_last(store: Store, directory: Path) -> None:
    await store.save(turn(A, input=[b'{"id":"x","n":1}']), owner="o")
    await store.save(turn(B, input=[b'{"id":"x","n":2}']), owner="o")
    assert await store.find_item("x", owner="o") == b'{"id":"x","n":2}'
    await store.delete(f"resp_{A}", owner="o")
    assert await store.find_item("x", owner="o") == b'{"id":"x","n":2}'
    await store.delete(f"resp_{B}", owner="o")
    assert await missing(store.find_item("x", owner="o"))
    assert rows(directory) == {}


async def test_an_entry_that_leads_nowhere_finds_nothing(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A, input=[b'{"id":"x"}']), owner="o")
    edit(directory, "DELETE FROM Cache WHERE key LIKE '%response/resp_a%'")
    async with cold(directory) as store:
        assert await missing(store.find_item("x", owner="o"))


async def test_a_deleted_record_vanishes_at_once_and_its_descendants_keep_it(store: Store, directory: Path) -> None:
    middle = turn(B, A, input=[b'{"id":"client_item"}'])
    await store.save(turn(A), owner="o")
    await store.save(middle, owner="o")
    await store.save(turn(C, B), owner="o")
    await store.delete(f"resp_{B}", owner="o")

    async def expect_gone(store: Store) -> None:
        assert await missing(
            store.get(f"resp_{B}", owner="o"),
            store.lineage(f"resp_{B}", owner="o"),
            store.delete(f"resp_{B}", owner="o"),
            store.find_item(f"msg_{B}_out", owner="o"),
            store.find_item("client_item", owner="o"),
        )
        lineage = await store.lineage(f"resp_{C}", owner="o")
        assert ids(lineage) == [A, B, C]
        assert fields(lineage[1]) == fields(middle)

    await expect_gone(store)
    await expect_gone(store)
    await store.close()
    async with cold(directory) as again:
        await expect_gone(again)
        assert await missing(again.get(f"resp_{B}", owner="o"), again.lineage(f"resp_{B}", owner="o"))


async def test_the_last_descendant_takes_its_deleted_ancestors_along(store: Store, directory: Path) -> None:
    names = [f"{n:032x}" for n in range(6)]
    for parent, name in zip([None, *names], names, strict=False):
        await store.save(turn(name, parent, input=[b'{"id":"item_of_%s"}' % name.encode()]), owner="o")
    for name in (names[3], names[1], names[4]):
        await store.delete(f"resp_{name}", owner="o")
    assert sum(key.startswith("ghost/") for key in rows(directory)) == 3
    await store.delete(f"resp_{names[5]}", owner="o")
    assert {key for key in rows(directory) if not key.startswith("item/")} == {
        f"response/resp_{names[0]}",
        f"children/resp_{names[0]}",
        f"ghost/resp_{names[1]}",
        f"children/resp_{names[1]}",
        f"response/resp_{names[2]}",
    }
    await store.delete(f"resp_{names[2]}", owner="o")
    assert [key for key in rows(directory) if key.startswith("ghost/")] == []
    assert ids(await store.lineage(f"resp_{names[0]}", owner="o")) == [names[0]]
    await store.delete(f"resp_{names[0]}", owner="o")
    assert rows(directory) == {}


async def test_deleted_words_are_in_no_file(directory: Path) -> None:
    words = os.urandom(300).hex()
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B, A, text=words), owner="o")
        await store.save(turn(C, B), owner="o")
        key = f"response/resp_{B}"
        value = rows(directory)[key]
        assert value[5:] in contents(directory)
        await store.delete(f"resp_{B}", owner="o")
        ghost = rows(directory)[f"ghost/resp_{B}"]
        assert ghost[5:] in contents(directory)
        await store.delete(f"resp_{C}", owner="o")
        left = contents(directory)
        assert [n for n in range(5, len(ghost) - 12, 12) if ghost[n : n + 12] in left] == []


def contents(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def test_a_record_is_deleted_once_by_many(store: Store, directory: Path) -> None:
    await store.save(turn(A), owner="o")
    await store.save(turn(B, A), owner="o")
    deletions = (store.delete(f"resp_{A}", owner="o") for _ in range(10))
    outcomes = await asyncio.gather(*deletions, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Missing"] * 9 + ["NoneType"]
    await store.delete(f"resp_{B}", owner="o")
    assert rows(directory) == {}


async def test_a_family_deleted_all_at_once_leaves_nothing(store: Store, directory: Path) -> None:
    names = [f"{n:032x}" for n in range(30)]
    for n, name in enumerate(names):
        await store.save(turn(name, names[n // 3] if n else None), owner="o")
    await asyncio.gather(*(store.delete(f"resp_{name}", owner="o") for name in names))
    assert rows(directory) == {}


async def test_continuing_and_deleting_at_once_leave_whole_histories_only(store: Store, directory: Path) -> None:
    async def later(work: Awaitable[None], delay: float) -> None:
        await asyncio.sleep(delay)
        await work

    for n in range(24):
        parent, child = f"{n:031x}a", f"{n:031x}b"
        await store.save(turn(parent), owner="o")
        saved, deleted = await asyncio.gather(
            later(store.save(turn(child, parent), owner="o"), n % 6 * 0.0003),
            store.delete(f"resp_{parent}", owner="o"),
            return_exceptions=True,
        )
        assert deleted is None
        if isinstance(saved, Missing):
            assert await missing(store.get(f"resp_{child}", owner="o"))
        else:
            assert ids(await store.lineage(f"resp_{child}", owner="o")) == [parent, child]
            await store.delete(f"resp_{child}", owner="o")
    assert rows(directory) == {}


class Interrupted(DiskBackend):
    """Lets somebody else go first, once, when a change is about to be committed."""

    first: Callable[[], Awaitable[None]] | None = None

    async def commit(self, change: Change) -> None:
        first, self.first = self.first, None
        if first is not None:
            await first()
        await super().commit(change)


async def test_a_parent_deleted_while_its_child_is_deleted_leaves_nothing(directory: Path) -> None:
    backend = Interrupted(directory)
    store = Store(backend)
    await store.save(turn(A), owner="o")
    await store.save(turn(B, A), owner="o")
    backend.first = lambda: store.delete(f"resp_{A}", owner="o")
    await store.delete(f"resp_{B}", owner="o")
    await store.close()
    assert rows(directory) == {}


async def test_an_entry_taken_over_while_its_record_is_deleted_stays(directory: Path) -> None:
    backend = Interrupted(directory)
    store = Store(backend)
    await store.save(turn(A, input=[b'{"id":"x","n":1}']), owner="o")
    backend.first = lambda: store.save(turn(B, input=[b'{"id":"x","n":2}']), owner="o")
    await store.delete(f"resp_{A}", owner="o")
    assert await store.find_item("x", owner="o") == b'{"id":"x","n":2}'
    await store.close()


async def test_a_deletion_begun_is_finished_when_nobody_waits(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        deletion = asyncio.create_task(store.delete(f"resp_{A}", owner="o"))
        await asyncio.sleep(0)
        deletion.cancel()
        await asyncio.wait([deletion])
        assert deletion.cancelled()
    assert rows(directory) == {}


class Paused(DiskBackend):
    """Its first walk reads at once and answers when it may."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.first = True
        self.read = asyncio.Event()
        self.go_on = asyncio.Event()

    async def walk(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        first, self.first = self.first, False
        await super().walk(keys, follow)
        if first:
            self.read.set()
            await self.go_on.wait()


async def test_what_was_read_before_a_deletion_is_not_remembered_after_it(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
    backend = Paused(directory)
    store = Store(backend)
    early = asyncio.create_task(store.get(f"resp_{A}", owner="o"))
    await backend.read.wait()
    await store.delete(f"resp_{A}", owner="o")
    backend.go_on.set()
    assert (await early).id == f"resp_{A}"
    assert await missing(store.get(f"resp_{A}", owner="o"))
    await store.close()


async def test_a_lineage_that_is_deleted_while_it_is_read_is_missing(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B, A), owner="o")

    class Racing(DiskBackend):
        async def walk(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
            [leaf] = keys
            [value] = await self.get(keys)
            await self.commit(Change(deletes=keys))
            follow(leaf, value or b"")

    store = Store(Racing(directory))
    with pytest.raises(Missing, match=B):
        await store.lineage(f"resp_{B}", owner="o")
    await store.close()


async def test_a_flipped_byte_is_damage_and_the_neighbours_are_fine(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B, A, text=os.urandom(500).hex()), owner="o")
        await store.save(turn(C, B), owner="o")
        await store.save(turn("d" * 32, A), owner="o")
    flip(directory, rows(directory)[f"response/resp_{B}"])
    async with cold(directory) as store:
        for damaged in (
            store.get(f"resp_{B}", owner="o"),
            store.lineage(f"resp_{B}", owner="o"),
            store.lineage(f"resp_{C}", owner="o"),
            store.find_item(f"msg_{B}_out", owner="o"),
            store.delete(f"resp_{B}", owner="o"),
        ):
            with pytest.raises(DamagedRecord, match=f"'resp_{B}' cannot be read: the checksum does not match"):
                await damaged
        assert ids([await store.get(f"resp_{C}", owner="o")]) == [C]
        assert ids(await store.lineage(f"resp_{'d' * 32}", owner="o")) == [A, "d" * 32]
        await store.save(turn("e" * 32, "d" * 32), owner="o")


def flip(directory: Path, value: bytes) -> None:
    """Flip one bit in the middle of `value`, in the file itself."""
    content = bytearray((directory / "cache.db").read_bytes())
    content[content.index(value) + len(value) // 2] ^= 0x04
    (directory / "cache.db").write_bytes(content)


async def test_a_row_that_holds_no_record_is_damage(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B), owner="o")
        await store.save(turn(C, B), owner="o")
    key = f"{hashlib.sha256(b'o').hexdigest()}/response/resp_{A}"
    edit(directory, "UPDATE Cache SET value = ? WHERE key = ?", seal(key, b"\x92"), key)
    edit(directory, "UPDATE Cache SET mode = 4 WHERE key LIKE '%response/resp_b%'")
    async with cold(directory) as store:
        with pytest.raises(DamagedRecord, match=f"'resp_{A}' cannot be read: "):
            await store.get(f"resp_{A}", owner="o")
        with pytest.raises(DamagedRecord, match=f"'resp_{B}' cannot be read: expected a row of plain bytes"):
            await store.lineage(f"resp_{C}", owner="o")
        with pytest.raises(DamagedRecord, match=f"one of .*'response/resp_{B}'.* cannot be read: expected a row"):
            await store.save(turn("d" * 32, B), owner="o")


async def test_a_count_or_an_entry_that_cannot_be_read_is_named(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A, input=[b'{"id":"x"}']), owner="o")
        await store.save(turn(B, A), owner="o")
    edit(directory, "UPDATE Cache SET value = x'00' WHERE key LIKE '%/children/%'")
    edit(directory, "UPDATE Cache SET value = x'00' WHERE key LIKE '%/item/%'")
    async with cold(directory) as store:
        with pytest.raises(DamagedRecord, match=f"'children/resp_{A}' cannot be read: the checksum"):
            await store.save(turn(C, A), owner="o")
        with pytest.raises(DamagedRecord, match=r"'item/.*' cannot be read: the checksum"):
            await store.find_item("x", owner="o")
        assert ids(await store.lineage(f"resp_{B}", owner="o")) == [A, B]


async def test_an_ancestor_that_is_not_there_is_damage_and_not_a_shorter_history(directory: Path) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B, A), owner="o")
        await store.save(turn(C, B), owner="o")
    edit(directory, "DELETE FROM Cache WHERE key LIKE '%response/resp_a%'")
    async with cold(directory) as store:
        for _ in range(2):
            with pytest.raises(DamagedRecord, match=f"'resp_{A}', which 'resp_{C}' builds on, is not there"):
                await store.lineage(f"resp_{C}", owner="o")
        await store.get(f"resp_{C}", owner="o")
        with pytest.raises(DamagedRecord, match=f"'resp_{A}'"):
            await store.lineage(f"resp_{C}", owner="o")


async def test_a_lineage_that_leads_back_to_itself_is_damage(directory: Path) -> None:
    tenant = hashlib.sha256(b"o").hexdigest()
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B, A), owner="o")
    looping = msgspec.msgpack.encode([turn(A, B), False])
    key = f"{tenant}/response/resp_{A}"
    edit(directory, "UPDATE Cache SET value = ? WHERE key = ?", seal(key, looping), key)
    async with cold(directory) as store:
        with pytest.raises(DamagedRecord, match=f"the lineage of 'resp_{B}' leads back to 'resp_{B}'"):
            await store.lineage(f"resp_{B}", owner="o")


@pytest.mark.parametrize("lost", ["children/resp_a", "response/resp_a"])
async def test_a_record_whose_parent_is_damaged_can_be_deleted(directory: Path, lost: str) -> None:
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B, A), owner="o")
    edit(directory, f"DELETE FROM Cache WHERE key LIKE '%{lost}%'")
    async with cold(directory) as store:
        await store.delete(f"resp_{B}", owner="o")
        assert await missing(store.get(f"resp_{B}", owner="o"))


async def test_a_store_that_cannot_write_says_so_and_keeps_nothing(directory: Path) -> None:
    class Full(DiskBackend):
        full = True

        async def commit(self, change: Change) -> None:
            if self.full:
                raise StoreError("cannot write: database or disk is full")
            await super().commit(change)

    backend = Full(directory)
    store = Store(backend)
    with pytest.raises(StoreError, match="full"):
        await store.save(turn(A), owner="o")
    with pytest.raises(StoreError, match="full"):
        await store.probe()
    assert await missing(store.get(f"resp_{A}", owner="o"))
    backend.full = False
    await store.save(turn(A), owner="o")
    backend.full = True
    with pytest.raises(StoreError, match="full"):
        await store.save(turn(B, A), owner="o")
    with pytest.raises(StoreError, match="full"):
        await store.delete(f"resp_{A}", owner="o")
    backend.full = False
    await store.save(turn(B, A), owner="o")
    assert ids(await store.lineage(f"resp_{B}", owner="o")) == [A, B]
    await store.close()


async def test_a_store_says_where_it_is_and_whether_it_is_well(store: Store, directory: Path) -> None:
    assert store.location == directory
    await store.probe()
    await store.close()
    with pytest.raises(StoreError):
        await store.probe()
    with pytest.raises(StoreError):
        await store.save(turn(A), owner="o")
