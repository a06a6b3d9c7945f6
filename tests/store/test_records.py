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

from rejoinder.store import keys, runs
from rejoinder.store.backend import Change
from rejoinder.store.conversations import Conversations, items_of, removal_of
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import Conflict, DamagedRecord, Missing, Refused, StoreError
from rejoinder.store.record import ITEMS, Attempt, Record, item_id
from rejoinder.store.records import GRACE, Heading, Store
from rejoinder.store.runs import Piece
from rejoinder.store.values import seal
from rejoinder.store.volatile import VolatileBackend

A = "a" * 32
B = "b" * 32
C = "c" * 32
D = "d" * 32


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


def begun(name: str, parent: str | None = None, *, status: str = "in_progress") -> Record:
    """A response that is still made, and told in a stream that is kept."""
    return msgspec.structs.replace(turn(name, parent, status=status), output=[], journaled=True, background=True)


async def begin(store: Store, record: Record, *, owner: str = "o") -> None:
    await store.save(record, owner=owner, beside=runs.begun(runs.Run(owner, record.id, b"{}")))


async def tell(store: Store, name: str, number: int, text: bytes) -> None:
    await store.append(f"resp_{name}", runs.told(f"resp_{name}", number, number, [text], owner="o"), owner="o")


async def every_row(store: Store) -> list[str]:
    return [keys.told(key)[1:-1] async for key in store.every_key()]


@pytest.fixture
async def volatile() -> AsyncIterator[Store]:
    store = Store(VolatileBackend())
    yield store
    await store.close()


async def test_an_unfinished_record_is_written_again_until_it_is_finished(store: Store, directory: Path) -> None:
    await store.save(turn(B), owner="o")
    await begin(store, begun(A, B, status="queued"))
    assert (await store.get(f"resp_{A}", owner="o")).status == "queued"
    await store.replace(begun(A, B), owner="o")
    assert (await store.get(f"resp_{A}", owner="o")).status == "in_progress"
    last = turn(A, B, input=[b'{"id":"client_item"}'])
    await store.replace(last, owner="o")
    assert fields(await store.get(f"resp_{A}", owner="o")) == fields(last)
    assert ids(await store.lineage(f"resp_{A}", owner="o")) == [B, A]
    assert await store.find_item("client_item", owner="o") == b'{"id":"client_item"}'
    await store.close()
    async with cold(directory) as again:
        assert fields(await again.get(f"resp_{A}", owner="o")) == fields(last)
        assert f"run/resp_{A}" not in await every_row(again)


async def test_the_first_terminal_status_wins(volatile: Store) -> None:
    """reliability.md P3."""
    await begin(volatile, begun(A))
    ends = [msgspec.structs.replace(begun(A), status=status) for status in ("cancelled", "completed", "failed")]
    outcomes = await asyncio.gather(*(volatile.replace(end, owner="o") for end in ends), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), Refused, Refused]
    assert (await volatile.get(f"resp_{A}", owner="o")).status == "cancelled"
    with pytest.raises(Refused, match="the first terminal status wins"):
        await volatile.replace(begun(A), owner="o")
    with pytest.raises(Refused, match="the first terminal status wins"):
        await tell(volatile, A, 0, b"late")
    assert not any(name.startswith("event/") for name in await every_row(volatile))


async def test_nobody_writes_to_what_was_deleted_while_it_was_made(store: Store, directory: Path) -> None:
    """reliability.md F21."""
    await store.save(turn(B), owner="o")
    await begin(store, begun(A, B))
    await tell(store, A, 0, b"a")
    await store.delete(f"resp_{A}", owner="o")
    with pytest.raises(Missing):
        await store.replace(turn(A, B), owner="o")
    with pytest.raises(Refused):
        await tell(store, A, 1, b"late")
    assert await missing(store.get(f"resp_{A}", owner="o"))
    assert sorted(rows(directory)) == [f"response/resp_{B}"]


async def test_what_is_deleted_between_two_looks_is_missing(directory: Path) -> None:
    backend = Interrupted(directory)
    store = Store(backend)
    await begin(store, begun(A))
    backend.first = lambda: store.delete(f"resp_{A}", owner="o")
    with pytest.raises(Missing):
        await store.replace(turn(A), owner="o")
    await store.close()
    assert rows(directory) == {}


async def test_a_record_that_was_never_unfinished_is_not_written_again(volatile: Store) -> None:
    await volatile.save(turn(A), owner="o")
    with pytest.raises(Refused):
        await volatile.replace(turn(A, text="other"), owner="o")
    with pytest.raises(Missing):
        await volatile.replace(turn(B), owner="o")
    with pytest.raises(Missing):
        await volatile.replace(turn(A), owner="p")
    assert fields(await volatile.get(f"resp_{A}", owner="o")) == fields(turn(A))


async def test_an_unfinished_record_whose_row_is_gone_can_be_deleted_and_not_finished(volatile: Store) -> None:
    await begin(volatile, begun(A))
    await volatile.backend.commit(Change(deletes=[keys.run(keys.tenant_of("o"), f"resp_{A}")]))
    with pytest.raises(Refused):
        await volatile.replace(turn(A), owner="o")
    await volatile.delete(f"resp_{A}", owner="o")
    assert await every_row(volatile) == []


async def test_a_record_keeps_the_parent_it_began_with(volatile: Store) -> None:
    await volatile.save(turn(B), owner="o")
    await begin(volatile, begun(A))
    await begin(volatile, begun(C, B))
    for other in (turn(A, B), turn(C), turn(C, A)):
        with pytest.raises(Refused, match="cannot continue another record than the one it began with"):
            await volatile.replace(other, owner="o")
    await volatile.replace(turn(A), owner="o")
    await volatile.replace(turn(C, B), owner="o")
    await volatile.delete(f"resp_{B}", owner="o")
    assert ids(await volatile.lineage(f"resp_{C}", owner="o")) == [B, C]


async def test_what_is_wrong_beside_the_end_of_a_record_is_a_conflict(volatile: Store) -> None:
    await begin(volatile, begun(A))
    await tell(volatile, A, 0, b"a")
    with pytest.raises(Conflict):
        await volatile.replace(turn(A), owner="o", beside=runs.told(f"resp_{A}", 0, 0, [b"b"], owner="o"))
    assert (await volatile.get(f"resp_{A}", owner="o")).status == "in_progress"


async def test_a_record_that_is_finished_while_it_is_deleted_leaves_nothing(directory: Path) -> None:
    backend = Interrupted(directory)
    store = Store(backend)
    await begin(store, begun(A))
    end = msgspec.structs.replace(turn(A, input=[b'{"id":"client_item"}']), journaled=True)
    last = runs.told(f"resp_{A}", 0, 0, [b"end"], owner="o")
    backend.first = lambda: store.replace(end, owner="o", beside=last)
    await store.delete(f"resp_{A}", owner="o")
    await store.close()
    assert rows(directory) == {}


async def test_a_piece_that_is_told_while_its_response_is_deleted_does_not_stay(directory: Path) -> None:
    backend = Interrupted(directory)
    store = Store(backend)
    await begin(store, begun(A))
    await tell(store, A, 0, b"first")
    backend.first = lambda: tell(store, A, 1, b"second")
    await store.delete(f"resp_{A}", owner="o")
    await store.close()
    assert rows(directory) == {}


async def test_the_words_of_a_deleted_response_and_of_its_stream_are_in_no_file(directory: Path) -> None:
    """reliability.md S15."""
    said, told = os.urandom(300).hex(), [os.urandom(300).hex().encode() for _ in range(3)]
    async with cold(directory) as store:
        await store.save(turn(B), owner="o")
        await begin(store, begun(A))
        for number, text in enumerate(told):
            await tell(store, A, number, text)
        end = msgspec.structs.replace(turn(A, text=said), journaled=True)
        await store.replace(end, owner="o", beside=runs.told(f"resp_{A}", 3, 3, [said.encode()], owner="o"))
        values = {name: value for name, value in rows(directory).items() if A in name}
        assert len(values) == 5
        assert all(value[5:] in contents(directory) for value in values.values())
        await store.delete(f"resp_{A}", owner="o")
        [stays] = rows(directory).items()
        assert stays[0] == f"response/resp_{B}"
        left = contents(directory).replace(stays[1], b"")
        pieces = [value[n : n + 12] for value in values.values() for n in range(5, len(value) - 12, 12)]
        assert [piece for piece in pieces if piece in left] == []
        assert await runs.piece(store, f"resp_{A}", 0, owner="o") is None


async def test_a_stream_outlives_its_response_in_no_history(volatile: Store) -> None:
    await begin(volatile, begun(A))
    await tell(volatile, A, 0, b"a")
    await volatile.replace(msgspec.structs.replace(turn(A), journaled=True), owner="o")
    await volatile.save(turn(B, A), owner="o")
    assert await runs.piece(volatile, f"resp_{A}", 0, owner="o") == Piece(0, [b"a"])
    await volatile.delete(f"resp_{A}", owner="o")
    assert await runs.piece(volatile, f"resp_{A}", 0, owner="o") is None
    assert ids(await volatile.lineage(f"resp_{B}", owner="o")) == [A, B]


def items(name: str, parent: str | None = None, *, text: str = "x") -> Record:
    item = json.dumps({"id": f"client_{name}", "content": text}).encode()
    return items_of(f"resp_{name}", parent=parent and f"resp_{parent}", created_at=7, input=[item], added=b"")


async def talk(store: Store, *records: Record) -> Conversations:
    """A conversation in which that was said."""
    talks = Conversations(store)
    await talks.create("conv_1", owner="o", created_at=7, metadata={}, items=None)
    for record in records:
        await talks.append("conv_1", record, owner="o")
    return talks


def counts(directory: Path) -> dict[str, bytes]:
    return {name[-32:]: value[5:] for name, value in rows(directory).items() if name.startswith("children/")}


async def test_the_last_record_of_a_conversation_is_kept_like_one_that_has_a_child(
    store: Store, directory: Path
) -> None:
    talks = await talk(store, turn(A), turn(B, A))
    assert counts(directory) == {A: b"1", B: b"1"}
    await store.delete(f"resp_{B}", owner="o")
    assert {name for name in rows(directory) if "/resp_" in name} == {
        *(f"response/resp_{A}", f"children/resp_{A}", f"ghost/resp_{B}", f"children/resp_{B}")
    }
    assert ids(await talks.records("conv_1", owner="o")) == [A, B]
    await talks.delete("conv_1", owner="o")
    assert [*rows(directory)] == [f"response/resp_{A}"]


async def test_a_fork_from_a_conversation_keeps_everything_it_builds_on(store: Store, directory: Path) -> None:
    talks = await talk(store, items(A), turn(B, A), items(C, B))
    fork, other = "d" * 32, "e" * 32
    await store.save(turn(fork, B), owner="o")
    await store.save(turn(other, B), owner="o")
    assert counts(directory) == {A: b"1", B: b"3", C: b"1"}
    await talks.delete("conv_1", owner="o")
    await store.delete(f"resp_{B}", owner="o")
    assert counts(directory) == {A: b"1", B: b"2"}
    for name in (fork, other):
        assert ids(await store.lineage(f"resp_{name}", owner="o")) == [A, B, name]
        await store.delete(f"resp_{name}", owner="o")
    assert rows(directory) == {}


async def test_what_was_taken_out_of_a_conversation_is_missing_from_what_follows_only(store: Store) -> None:
    out = removal_of(f"resp_{C}", parent=f"resp_{B}", created_at=7, item_id=f"client_{A}")
    talks = await talk(store, items(A), turn(B, A), out, turn("d" * 32, C))

    async def said(name: str) -> list[str]:
        lineage = await store.lineage(f"resp_{name}", owner="o")
        return [item_id(item) for record in lineage for item in (*record.input, *record.output)]

    assert f"client_{A}" not in await said("d" * 32)
    assert f"client_{A}" in await said(B)
    assert [len(record.input) for record in await talks.records("conv_1", owner="o")] == [0, 1, 0, 1]


async def test_the_words_of_a_deleted_conversation_are_in_no_file(directory: Path) -> None:
    words = os.urandom(300).hex()
    async with cold(directory) as store:
        talks = await talk(store, items(A, text=words), items(B, A, text=words))
        values = [value for name, value in rows(directory).items() if "ghost" in name]
        await talks.delete("conv_1", owner="o")
        assert rows(directory) == {}
        left = contents(directory)
        assert [value for value in values for n in range(5, len(value) - 12, 12) if value[n : n + 12] in left] == []


async def test_a_name_that_leads_elsewhere_is_not_released(volatile: Store) -> None:
    await talk(volatile, turn(A))
    key = keys.conversation(keys.tenant_of("o"), "conv_1")
    with pytest.raises(Conflict, match="leads elsewhere"):
        await volatile.release(Heading(key, b"another row", b""), f"resp_{A}", owner="o")
    assert f"children/resp_{A}" in await every_row(volatile)


async def test_a_name_that_leads_nowhere_yet_is_released(volatile: Store) -> None:
    talks = await talk(volatile)
    await talks.delete("conv_1", owner="o")
    assert await every_row(volatile) == []


async def test_a_fork_that_is_saved_while_a_name_is_released_keeps_what_it_builds_on(directory: Path) -> None:
    backend = Interrupted(directory)
    store = Store(backend)
    talks = await talk(store, items(A), turn(B, A))
    backend.first = lambda: store.save(turn(C, B), owner="o")
    await talks.delete("conv_1", owner="o")
    assert ids(await store.lineage(f"resp_{C}", owner="o")) == [A, B, C]
    assert counts(directory) == {A: b"1", B: b"1"}
    await store.close()


async def test_a_name_is_released_once_though_two_try(volatile: Store) -> None:
    await talk(volatile, items(A))
    key = keys.conversation(keys.tenant_of("o"), "conv_1")
    [was] = await volatile.rows(key)
    releases = (volatile.release(Heading(key, was, b""), f"resp_{A}", owner="o") for _ in range(2))
    outcomes = await asyncio.gather(*releases, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "NoneType"]
    assert await every_row(volatile) == []


async def test_a_count_that_changes_while_a_response_is_appended_is_planned_again(directory: Path) -> None:
    backend = Interrupted(directory)
    store = Store(backend)
    talks = await talk(store, turn(A))
    await begin(store, begun(B, A))
    backend.first = lambda: store.save(turn(C, A), owner="o")
    await talks.append("conv_1", turn(B, A), owner="o", begun=True)
    assert counts(directory) == {A: b"2", B: b"1"}
    await store.close()


async def test_a_lost_count_does_not_keep_a_response_from_its_conversation(directory: Path) -> None:
    async with cold(directory) as store:
        await talk(store, turn(A))
        await begin(store, begun(B, A))
        await store.backend.commit(Change(deletes=[keys.children(keys.tenant_of("o"), f"resp_{A}")]))
        await Conversations(store).append("conv_1", turn(B, A), owner="o", begun=True)
    assert counts(directory) == {B: b"1"}


async def test_a_sibling_that_is_deleted_meanwhile_does_not_keep_a_record_from_being_saved(directory: Path) -> None:
    """The count that was wrong may be right again by the time somebody looks why."""
    async with cold(directory) as store:
        await store.save(turn(A), owner="o")
        await store.save(turn(B, A), owner="o")

    class Racing(DiskBackend):
        raced = False

        async def commit(self, change: Change) -> None:
            try:
                await super().commit(change)
            except Conflict:
                if not self.raced:
                    self.raced = True
                    await store.delete(f"resp_{B}", owner="o")
                raise

    store = Store(Racing(directory))
    await store.save(turn(C, A), owner="o")
    assert ids(await store.lineage(f"resp_{C}", owner="o")) == [A, C]
    await store.close()


async def test_what_is_wrong_beside_a_new_record_is_a_conflict(volatile: Store) -> None:
    await volatile.save(turn(A), owner="o")
    await volatile.backend.commit(Change({"beside": b"1"}))
    for record in (turn(B), turn(B, A)):
        for beside in (Change(expect={"beside": b"2"}), Change(present=["never there"])):
            with pytest.raises(Conflict):
                await volatile.save(record, owner="o", beside=beside)
        assert await missing(volatile.get(record.id, owner="o"))


DAY = 86400.0


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lasting(clock: Clock) -> Store:
    """A store that keeps what is not continued for 30 days."""
    return Store(VolatileBackend(), ttl=30 * DAY, clock=clock)


def restarted(store: Store, clock: Clock, *, ttl: float | None = 30 * DAY, memory: int = 2**20) -> Store:
    return Store(store.backend, ttl=ttl, clock=clock, memory=memory)


async def test_a_record_is_invisible_from_the_moment_it_expires(lasting: Store, clock: Clock) -> None:
    await lasting.save(turn(A, input=[b'{"id":"client_item"}']), owner="o")
    assert (await lasting.get(f"resp_{A}", owner="o")).expires_at == int(clock.now + 30 * DAY)
    clock.now += 30 * DAY - 1
    assert ids([await restarted(lasting, clock).get(f"resp_{A}", owner="o")]) == [A]
    clock.now += 1
    for store in (lasting, restarted(lasting, clock), restarted(lasting, clock, ttl=None)):
        assert await missing(
            store.get(f"resp_{A}", owner="o"),
            store.lineage(f"resp_{A}", owner="o"),
            store.find_item("client_item", owner="o"),
            store.find_item(f"msg_{A}_out", owner="o"),
            store.delete(f"resp_{A}", owner="o"),
        )
    assert f"response/resp_{A}" in await every_row(lasting)


async def test_an_expired_record_is_removed_a_day_later_and_not_before(lasting: Store, clock: Clock) -> None:
    """reliability.md F27: expiry hides before it removes."""
    await lasting.save(turn(A, input=[b'{"id":"client_item"}']), owner="o")
    await lasting.save(turn(B), owner="p")
    clock.now += 30 * DAY + GRACE - 1
    assert await lasting.sweep() == 0
    assert len(await every_row(lasting)) == 3
    clock.now += 1
    assert await lasting.sweep() == 2
    assert await every_row(lasting) == []


async def test_a_sweep_may_be_told_not_to_wait(lasting: Store, clock: Clock) -> None:
    await lasting.save(turn(A), owner="o")
    clock.now += 30 * DAY
    assert await lasting.sweep(grace=0) == 1
    assert await every_row(lasting) == []


async def test_what_has_no_end_is_not_removed(lasting: Store, clock: Clock) -> None:
    await restarted(lasting, clock, ttl=None).save(turn(A), owner="o")
    await begin(lasting, begun(B))
    await talk(lasting, items(C))
    clock.now += 1000 * DAY
    assert await lasting.sweep() == 0
    assert ids([await lasting.get(f"resp_{name}", owner="o") for name in (A, B)]) == [A, B]
    await lasting.replace(turn(B), owner="o")
    assert (await lasting.get(f"resp_{B}", owner="o")).expires_at == int(clock.now + 30 * DAY)


def untils(names: Iterable[str]) -> list[str]:
    return [name[-32:] for name in names if name.startswith("until/")]


async def test_who_builds_on_a_record_puts_its_end_off_when_half_of_its_time_is_over(
    lasting: Store, clock: Clock
) -> None:
    """reliability.md F18."""
    await lasting.save(turn(A), owner="o")
    clock.now += 14 * DAY
    await lasting.save(turn(B, A), owner="o")
    assert untils(await every_row(lasting)) == []
    clock.now += 2 * DAY
    await lasting.save(turn(C, B), owner="o")
    assert untils(await every_row(lasting)) == [A]
    clock.now += 29 * DAY
    for store in (lasting, restarted(lasting, clock), restarted(lasting, clock, memory=0)):
        assert ids([await store.get(f"resp_{A}", owner="o")]) == [A]
        assert ids(await store.lineage(f"resp_{C}", owner="o")) == [A, B, C]
        assert await missing(store.get(f"resp_{B}", owner="o"))
    clock.now += 1 * DAY
    for store in (lasting, restarted(lasting, clock), restarted(lasting, clock, ttl=None)):
        assert await missing(store.get(f"resp_{A}", owner="o"), store.get(f"resp_{C}", owner="o"))


class Watched(VolatileBackend):
    """Remembers whose end was put off."""

    def __init__(self) -> None:
        super().__init__()
        self.put_off: list[str] = []

    async def commit(self, change: Change) -> None:
        self.put_off += untils(key.partition("/")[2] for key in change.puts)
        await super().commit(change)


@pytest.mark.parametrize("memory", [2**20, 0])
async def test_the_end_of_an_ancestor_is_put_off_once_in_half_its_time_at_most(clock: Clock, memory: int) -> None:
    backend = Watched()
    store = Store(backend, ttl=30 * DAY, clock=clock, memory=memory)
    parent: str | None = None
    for day in range(60):
        name = f"{day:032x}"
        await store.save(turn(name, parent), owner="o")
        parent = name
        clock.now += DAY
    first = f"{0:032x}"
    assert backend.put_off.count(first) == 3
    assert max(backend.put_off.count(name) for name in backend.put_off) == 3
    assert ids([await store.get(f"resp_{first}", owner="o")]) == [first]
    assert len(await store.lineage(f"resp_{parent}", owner="o")) == 60


async def test_an_ancestor_that_expires_first_stays_part_of_the_history(lasting: Store, clock: Clock) -> None:
    await lasting.save(turn(A), owner="o")
    clock.now += 14 * DAY
    await lasting.save(turn(B, A), owner="o")
    clock.now += 16 * DAY
    for _ in range(2):
        for store in (lasting, restarted(lasting, clock)):
            assert await missing(store.get(f"resp_{A}", owner="o"), store.lineage(f"resp_{A}", owner="o"))
            assert ids(await store.lineage(f"resp_{B}", owner="o")) == [A, B]
        clock.now += GRACE
        await lasting.sweep()
    assert f"ghost/resp_{A}" in await every_row(lasting)
    clock.now += 14 * DAY
    assert await lasting.sweep() == 1
    assert await every_row(lasting) == []


async def test_a_removed_ancestor_becomes_a_ghost_and_goes_with_the_last_that_builds_on_it(
    lasting: Store, clock: Clock
) -> None:
    short = restarted(lasting, clock, ttl=DAY)
    await short.save(turn(A, input=[b'{"id":"client_item"}']), owner="o")
    clock.now += DAY / 4
    await restarted(lasting, clock, ttl=None).save(turn(B, A), owner="o")
    clock.now += DAY + GRACE
    assert await lasting.sweep() == 1
    names = await every_row(lasting)
    assert {f"ghost/resp_{A}", f"response/resp_{B}"} < {*names}
    assert not any(name.startswith(("item/", "until/")) for name in names)
    for store in (lasting, restarted(lasting, clock)):
        assert ids(await store.lineage(f"resp_{B}", owner="o")) == [A, B]
        assert await missing(store.get(f"resp_{A}", owner="o"), store.find_item("client_item", owner="o"))
    await lasting.delete(f"resp_{B}", owner="o")
    assert await every_row(lasting) == []


async def test_an_expired_response_goes_on_in_its_conversation(lasting: Store, clock: Clock) -> None:
    talks = await talk(lasting, items(A), turn(B, A))
    clock.now += 30 * DAY
    assert await missing(lasting.get(f"resp_{B}", owner="o"))
    await talks.append("conv_1", turn(C, B), owner="o")
    assert ids(await talks.records("conv_1", owner="o")) == [A, B, C]
    clock.now += GRACE
    assert await lasting.sweep() == 1
    assert ids(await lasting.lineage(f"resp_{C}", owner="o")) == [A, B, C]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_turn_puts_off_the_end_of_what_was_said_in_its_conversation(
    lasting: Store, clock: Clock, begun: bool
) -> None:
    talks = await talk(lasting, items(D), turn(A, D))
    clock.now += 10 * DAY
    await talks.append("conv_1", turn(B, A), owner="o")
    assert untils(await every_row(lasting)) == []
    clock.now += 10 * DAY
    if begun:
        unfinished = turn(C, status="in_progress")
        await lasting.save(unfinished, owner="o", beside=runs.begun(runs.Run("o", unfinished.id, b"{}")))
    await talks.append("conv_1", turn(C, B), owner="o", begun=begun)
    assert untils(await every_row(lasting)) == [A]


async def test_a_turn_whose_ancestor_is_deleted_while_it_is_put_off_is_kept(directory: Path, clock: Clock) -> None:
    backend = Interrupted(directory)
    store = Store(backend, ttl=30 * DAY, clock=clock)
    talks = await talk(store, turn(A), turn(B, A))
    clock.now += 20 * DAY
    backend.first = lambda: store.delete(f"resp_{A}", owner="o")
    await talks.append("conv_1", turn(C, B), owner="o")
    assert ids(await talks.records("conv_1", owner="o")) == [A, B, C]
    assert untils(await every_row(store)) == [B]
    await store.close()


async def test_what_expired_while_its_continuation_was_made_is_still_built_on(lasting: Store, clock: Clock) -> None:
    await lasting.save(turn(A), owner="o")
    await lasting.lineage(f"resp_{A}", owner="o")
    clock.now += 30 * DAY
    await lasting.save(turn(B, A), owner="o")
    assert ids(await lasting.lineage(f"resp_{B}", owner="o")) == [A, B]
    assert untils(await every_row(lasting)) == []


async def test_the_end_of_what_is_deleted_meanwhile_is_not_put_off(directory: Path, clock: Clock) -> None:
    backend = Interrupted(directory)
    store = Store(backend, ttl=30 * DAY, clock=clock)
    await store.save(turn(A), owner="o")
    await store.save(turn(B, A), owner="o")
    clock.now += 20 * DAY
    backend.first = lambda: store.delete(f"resp_{A}", owner="o")
    await store.save(turn(C, B), owner="o")
    assert sorted(untils(rows(directory))) == [B]
    assert ids(await store.lineage(f"resp_{C}", owner="o")) == [A, B, C]
    for name in (B, C):
        await store.delete(f"resp_{name}", owner="o")
    await store.close()
    assert rows(directory) == {}


async def test_what_was_read_before_an_end_was_put_off_is_not_remembered_after_it(
    directory: Path, clock: Clock
) -> None:
    async with cold(directory) as plain:
        await Store(plain.backend, ttl=30 * DAY, clock=clock).save(turn(A), owner="o")
    clock.now += 20 * DAY
    backend = Paused(directory)
    store = Store(backend, ttl=30 * DAY, clock=clock)
    early = asyncio.create_task(store.get(f"resp_{A}", owner="o"))
    await backend.read.wait()
    await store.save(turn(B, A), owner="o")
    backend.go_on.set()
    await early
    clock.now += 29 * DAY
    assert ids([await store.get(f"resp_{A}", owner="o")]) == [A]
    await store.close()


async def test_a_sweep_that_would_take_too_much_takes_nothing(lasting: Store, clock: Clock) -> None:
    """reliability.md §2: then the clock is more likely wrong."""
    for n in range(10):
        await lasting.save(turn(f"{n:032x}"), owner="o")
        clock.now += DAY
    clock.now += 30 * DAY - 10 * DAY + GRACE + 3 * DAY
    with pytest.raises(Refused, match="4 of 10 records are due to be removed"):
        await lasting.sweep(most=0.2, least=3)
    assert len(await every_row(lasting)) == 10
    assert await lasting.sweep(most=0.2, least=4) == 4
    clock.now += DAY
    assert await lasting.sweep(most=0.2) == 1


async def test_what_was_put_off_is_not_due(lasting: Store, clock: Clock) -> None:
    await lasting.save(turn(A), owner="o")
    await lasting.save(turn(B), owner="p")
    clock.now += 20 * DAY
    await lasting.save(turn(C, A), owner="o")
    clock.now += 11 * DAY
    assert await lasting.due() == ([(keys.tenant_of("p"), f"resp_{B}")], 3)
    assert await lasting.sweep(most=0.0, least=1) == 1


async def test_a_damaged_record_does_not_keep_a_sweep_from_the_others(directory: Path, clock: Clock) -> None:
    async with cold(directory) as plain:
        store = Store(plain.backend, ttl=30 * DAY, clock=clock)
        for name in (A, B, C):
            await store.save(turn(name), owner="o")
        clock.now += 30 * DAY + GRACE
        tenant = keys.tenant_of("o")
        damaged = {keys.living(tenant, f"resp_{A}"): b"\x00", keys.until(tenant, f"resp_{B}"): b"\x00"}
        await store.backend.commit(Change(damaged))
        found = [(id, record and record.id) async for _, id, record in store.records()]
        assert found == [(f"resp_{A}", None), (f"resp_{B}", f"resp_{B}"), (f"resp_{C}", f"resp_{C}")]
        assert await restarted(store, clock).sweep() == 1
    assert sorted(rows(directory)) == [f"response/resp_{A}", f"response/resp_{B}", f"until/resp_{B}"]


async def test_what_goes_while_a_sweep_looks_is_not_counted(clock: Clock) -> None:
    class Late(VolatileBackend):
        async def commit(self, change: Change) -> None:
            if change.erase:
                await super().commit(Change(deletes=[*change.deletes, keys.living(keys.tenant_of("o"), f"resp_{B}")]))
            else:
                await super().commit(change)

    store = Store(Late(), ttl=30 * DAY, clock=clock)
    await store.save(turn(A), owner="o")
    await store.save(turn(B), owner="o")
    clock.now += 30 * DAY + GRACE
    assert await store.sweep() == 1
    assert await every_row(store) == []


async def test_what_goes_while_the_records_are_listed_is_not_among_them() -> None:
    class Late(VolatileBackend):
        async def get(self, keys: Sequence[str]) -> list[bytes | None]:
            await self.commit(Change(deletes=[key for key in keys if B in key]))
            return await super().get(keys)

    store = Store(Late())
    for name in (A, B, C):
        await store.save(turn(name), owner="o")
    found = [place async for *place, _ in store.records()]
    assert found == [[keys.tenant_of("o"), f"resp_{name}"] for name in (A, C)]


async def test_all_records_are_listed_however_many_there_are(store: Store, directory: Path) -> None:
    names = [f"{n:032x}" for n in range(50)]
    for name in names:
        await store.save(turn(name), owner="o")
    edit(directory, "UPDATE Cache SET mode = 4 WHERE key LIKE ?", f"%{names[7]}")
    found = [(id, record is not None) async for _, id, record in store.records()]
    assert found == [(f"resp_{name}", name != names[7]) for name in names]


@pytest.mark.parametrize(
    ("name", "harmed"),
    [
        (f"ghost/resp_{A}", [A, B]),
        (f"until/resp_{C}", [C]),
        ("conversation/conv_1", ["conversation"]),
        (f"event/resp_{C}/00000000", ["stream"]),
        (f"run/resp_{'d' * 32}", ["run"]),
        ("once/", ["once"]),
    ],
)
async def test_any_damaged_row_is_named_and_its_neighbours_are_fine(
    directory: Path, clock: Clock, name: str, harmed: list[str]
) -> None:
    """reliability.md F33."""
    tenant = keys.tenant_of("o")
    async with cold(directory) as plain:
        store = Store(plain.backend, ttl=30 * DAY, clock=clock)
        await talk(store, items(A), turn(B, A))
        await begin(store, begun(C))
        await tell(store, C, 0, b"a")
        await store.replace(msgspec.structs.replace(turn(C), journaled=True), owner="o")
        await begin(store, begun("d" * 32))
        clock.now += 20 * DAY
        await store.save(turn("e" * 32, C), owner="o")
        await store.backend.commit(runs.once("key", runs.Once(b"d", f"resp_{C}", 1), was=None, owner="o"))
    flipped = f"run/{tenant}/resp_{'d' * 32}" if name.startswith("run/") else f"{tenant}/{name}"
    with contextlib.closing(sqlite3.connect(directory / "cache.db")) as connection:
        [(value,)] = connection.execute("SELECT value FROM Cache WHERE key LIKE ?", (flipped + "%",))
    flip(directory, value)

    async def left_unfinished() -> None:
        for run in [run async for run in runs.unfinished(store)]:
            if isinstance(run, DamagedRecord):
                raise run

    async with cold(directory) as plain:
        store = restarted(plain, clock)
        looks: dict[str, Callable[[], Awaitable[object]]] = {
            A: lambda: store.history(f"resp_{A}", owner="o"),
            B: lambda: store.lineage(f"resp_{B}", owner="o"),
            C: lambda: store.get(f"resp_{C}", owner="o"),
            "conversation": lambda: Conversations(store).get("conv_1", owner="o"),
            "stream": lambda: runs.piece(store, f"resp_{C}", 0, owner="o"),
            "run": left_unfinished,
            "once": lambda: runs.known(store, "key", owner="o"),
        }
        for what, look in looks.items():
            if what in harmed:
                with pytest.raises(DamagedRecord, match=name.removeprefix("ghost/")):
                    await look()
            else:
                await look()
        assert [record is not None async for _, _, record in store.records()] == [True] * 4


async def test_a_damaged_item_record_is_none_of_the_records(volatile: Store) -> None:
    await talk(volatile, items(A), turn(B, A))
    assert [record and record.status async for _, _, record in volatile.records()] == ["completed"]
    assert (await volatile.history(f"resp_{A}", owner="o"))[0].status == ITEMS
