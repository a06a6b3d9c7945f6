import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rejoinder.store import keys, runs
from rejoinder.store.backend import Change
from rejoinder.store.conversations import Conversations, items_of, removal_of
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import DamagedRecord
from rejoinder.store.reading import ReadingBackend, Row
from rejoinder.store.record import Record, encoded
from rejoinder.store.records import Store
from rejoinder.store.values import seal
from rejoinder.store.verification import Damage, kind_of, verify

TENANT = keys.tenant_of("o")
NOTHING_ELSE = "nothing else"
ERROR = "whatever continues it is answered with an error"


def turn(name: str, parent: str | None = None, status: str = "completed", *, journaled: bool = False) -> Record:
    item = b'{"id":"client_%s"}' % name.encode()
    home = None if parent is None else f"resp_{parent}"
    return Record(f"resp_{name}", home, 7, status, b'{"output":[]}', [item], [], journaled=journaled)


def items(name: str, parent: str | None = None) -> Record:
    return items_of(f"resp_{name}", parent=parent and f"resp_{parent}", created_at=7, input=[], added=b"")


async def begin(store: Store, name: str) -> None:
    beside = runs.begun(runs.Run("o", f"resp_{name}", b"{}"))
    await store.save(turn(name, status="in_progress", journaled=True), owner="o", beside=beside)


async def tell(store: Store, name: str, number: int, first: int, *frames: bytes) -> None:
    await store.append(f"resp_{name}", runs.told(f"resp_{name}", number, first, frames, owner="o"), owner="o")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(directory: Path) -> AsyncIterator[Store]:
    """A store with one of everything."""
    backend = DiskBackend(directory)
    now = 0.0
    store = Store(backend, ttl=100, clock=lambda: now)
    await store.save(turn("1"), owner="o")
    await store.save(turn("2", "1"), owner="o")
    now = 60
    await store.save(turn("3", "2"), owner="o")
    await store.delete("resp_2", owner="o")
    talks = Conversations(store)
    await talks.create("conv_1", owner="o", created_at=1, metadata={}, items=items("4"))
    await talks.append("conv_1", turn("5", "4"), owner="o")
    await talks.append("conv_1", removal_of("resp_6", parent="resp_5", created_at=1, item_id="client_5"), owner="o")
    await talks.create("conv_2", owner="o", created_at=1, metadata={}, items=None)
    await begin(store, "7")
    await begin(store, "8")
    await tell(store, "8", 0, 0, b"a", b"b")
    await tell(store, "8", 1, 2, b"c")
    await store.replace(turn("8", journaled=True), owner="o", beside=runs.told("resp_8", 2, 3, [b"d"], owner="o"))
    await store.save(turn("1"), owner="p")
    await backend.commit(runs.once("key", runs.Once(b"d", "resp_9", 1), was=None, owner="o"))
    await store.probe()
    yield store
    await store.close()


async def put(store: Store, key: str, payload: bytes | None) -> None:
    """Plant a row, or take one away."""
    await store.backend.commit(Change(deletes=[key]) if payload is None else Change({key: seal(key, payload)}))


async def found(directory: Path) -> list[tuple[str, str]]:
    damages, _ = await verify(ReadingBackend(directory))
    assert {damage.tenant for damage in damages} <= {TENANT, ""}
    return [(damage.what, damage.breaks) for damage in damages]


async def test_a_whole_store_is_whole_beside_its_server_and_after_it(store: Store, directory: Path) -> None:
    damages, count = await verify(ReadingBackend(directory))
    assert (damages, count) == ([], len([key async for key in store.every_key()]))
    await store.close()
    assert await verify(ReadingBackend(directory)) == ([], count)


async def test_an_empty_store_is_whole(directory: Path) -> None:
    await DiskBackend(directory).close()
    assert await verify(ReadingBackend(directory)) == ([], 0)


@pytest.mark.parametrize(
    ("key", "name", "breaks"),
    [
        (keys.living(TENANT, "resp_3"), "response/resp_3", "it and whatever continues it are answered with an error"),
        (keys.ghost(TENANT, "resp_2"), "ghost/resp_2", "whatever builds on it is answered with an error"),
        (keys.children(TENANT, "resp_2"), "children/resp_2", "the response cannot be continued, and "),
        (keys.until(TENANT, "resp_1"), "until/resp_1", "the response is answered with an error once "),
        (keys.event(TENANT, "resp_8", 1), "event/resp_8/00000001", "the stream of the response cannot be followed"),
        (keys.conversation(TENANT, "conv_1"), "conversation/conv_1", "the conversation is answered with an error"),
        (keys.run(TENANT, "resp_7"), "run/resp_7", "if the server stops, nobody ends the response"),
        (keys.once(TENANT, "key"), "once/", "a request with this idempotency key is answered with an error"),
        (keys.entry(TENANT, "client_1"), "item/", "an item of this id cannot be referred to"),
    ],
)
async def test_a_row_that_cannot_be_read_is_named_once_with_what_it_breaks(
    store: Store, directory: Path, key: str, name: str, breaks: str
) -> None:
    await store.backend.commit(Change({key: b"\x00damaged"}))
    [(what, broken)] = await found(directory)
    assert what.startswith(f"'{name}")
    assert what.endswith("' cannot be read: the checksum does not match")
    assert broken.startswith(breaks)


@pytest.mark.parametrize(
    ("key", "payload"),
    [
        (keys.living(TENANT, "resp_3"), b"\x90"),
        (keys.children(TENANT, "resp_2"), b"many"),
        (keys.entry(TENANT, "client_1"), b"\xff"),
        (keys.once(TENANT, "key"), b"\x90"),
        (keys.conversation(TENANT, "conv_2"), b"\x90"),
    ],
)
async def test_a_row_that_says_nothing_is_named(store: Store, directory: Path, key: str, payload: bytes) -> None:
    await put(store, key, payload)
    [(what, _)] = await found(directory)
    assert what.startswith(f"{keys.told(key)} cannot be read: ")


async def test_a_row_of_another_kind_is_named(store: Store, directory: Path) -> None:
    await store.close()
    with contextlib.closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        connection.execute("UPDATE Cache SET mode = 4 WHERE key LIKE '%/response/resp_3'")
    [(what, _)] = await found(directory)
    assert what == "'response/resp_3' cannot be read: expected a row of plain bytes, got one of mode 4"


async def test_rows_that_nobody_writes_are_named(store: Store, directory: Path) -> None:
    stray = [f"{TENANT}/other/x", f"{TENANT}/event/resp_8/first"]
    for key in stray:
        await put(store, key, b"")
    assert await found(directory) == [
        (
            f"{keys.told(key)} cannot be read: no server writes rows of this name",
            "nothing, but somebody else writes into this store",
        )
        for key in sorted(stray)
    ]
    assert [kind_of(key) for key in (*stray, "", "x", "probe", keys.run(TENANT, "resp_1"))] == [
        *([""] * 4),
        "probe",
        "run",
    ]


async def test_a_parent_that_is_not_there_is_told(store: Store, directory: Path) -> None:
    await put(store, keys.ghost(TENANT, "resp_2"), None)
    assert await found(directory) == [
        ("'response/resp_3' builds on 'resp_2', which is not there", ERROR),
        ("'children/resp_1' says 1, and 0 build on it", "its bytes stay after the last of them is deleted"),
    ]


async def test_a_record_that_is_deleted_and_not_is_told(store: Store, directory: Path) -> None:
    await put(store, keys.living(TENANT, "resp_2"), encoded(turn("2", "1")))
    assert await found(directory) == [("'resp_2' is there twice, deleted and not", "its bytes stay when it is deleted")]


async def test_a_history_without_a_beginning_is_told_once(store: Store, directory: Path) -> None:
    await put(store, keys.living(TENANT, "resp_1"), encoded(turn("1", "3")))
    await put(store, keys.children(TENANT, "resp_3"), b"1")
    [(what, breaks)] = await found(directory)
    assert what.startswith("the history of '")
    assert what.endswith("' leads back to itself")
    assert breaks == ERROR


async def test_a_count_that_is_wrong_is_told_with_what_it_puts_at_risk(store: Store, directory: Path) -> None:
    stays = "its bytes stay after the last of them is deleted"
    await put(store, keys.children(TENANT, "resp_1"), b"3")
    await put(store, keys.children(TENANT, "resp_6"), None)
    await put(store, keys.children(TENANT, "resp_9"), b"1")
    await put(store, keys.ghost(TENANT, "resp_x"), encoded(turn("x")))
    assert await found(directory) == [
        ("'children/resp_1' says 3, and 1 build on it", stays),
        ("'children/resp_6' says 0, and 1 build on it", "deleting one of them can take the history of the others"),
        ("'children/resp_9' says 1, and 0 build on it", stays),
        ("'ghost/resp_x' is there, and nothing builds on it", "its bytes stay for ever"),
    ]


async def test_a_count_is_not_blamed_for_a_child_that_cannot_be_read(store: Store, directory: Path) -> None:
    await store.backend.commit(Change({keys.living(TENANT, "resp_3"): b""}))
    await put(store, keys.children(TENANT, "resp_1"), b"3")
    assert [what for what, _ in await found(directory)] == [
        "'response/resp_3' cannot be read: the checksum does not match",
        "'children/resp_1' says 3, and 1 build on it",
    ]


async def test_a_stream_with_a_gap_is_told(store: Store, directory: Path) -> None:
    await put(store, keys.event(TENANT, "resp_8", 1), None)
    assert await found(directory) == [
        ("'event/resp_8/00000001' is not there, and later ones are", "the stream of the response cannot be followed")
    ]


async def test_sequence_numbers_that_do_not_follow_are_told(store: Store, directory: Path) -> None:
    change = runs.told("resp_8", 1, 7, [b"c"], owner="o")
    await store.backend.commit(Change(change.puts))
    breaks = "a client that resumes the stream misses events or gets them twice"
    assert await found(directory) == [
        ("'event/resp_8/00000001' begins with the sequence number 7 instead of 2", breaks),
        ("'event/resp_8/00000002' begins with the sequence number 3 instead of 8", breaks),
    ]


async def test_a_stream_of_nobody_and_a_response_without_its_stream_are_told(store: Store, directory: Path) -> None:
    for name in ("1", "9"):
        await store.backend.commit(runs.told(f"resp_{name}", 0, 0, [b"a"], owner="o"))
    for number in range(3):
        await put(store, keys.event(TENANT, "resp_8", number), None)
    forever = "its bytes stay for ever"
    assert await found(directory) == [
        ("'event/resp_1/…' is the stream of no response that is told in one", forever),
        ("'event/resp_9/…' is the stream of no response that is told in one", forever),
        ("the stream of 'response/resp_8' is not there", "the stream of the response cannot be followed"),
    ]


async def test_names_that_lead_nowhere_are_told(store: Store, directory: Path) -> None:
    await put(store, keys.ghost(TENANT, "resp_6"), None)
    await put(store, keys.children(TENANT, "resp_5"), None)
    await put(store, keys.entry(TENANT, "x"), b"resp_9")
    await put(store, keys.until(TENANT, "resp_9"), b"100")
    entry = keys.told(keys.entry(TENANT, "x"))
    assert await found(directory) == [
        (
            "'conversation/conv_1' leads to 'resp_6', which is not there",
            "the conversation is answered with an error",
        ),
        (f"{entry} leads to 'resp_9', which is not there", NOTHING_ELSE),
        ("'until/resp_9' belongs to no response", NOTHING_ELSE),
    ]


async def test_an_unfinished_response_and_its_row_belong_together(store: Store, directory: Path) -> None:
    await put(store, keys.run(TENANT, "resp_7"), None)
    for name in ("8", "9"):
        await store.backend.commit(runs.begun(runs.Run("o", f"resp_{name}", b"{}")))
    other = runs.begun(runs.Run("p", "resp_3", b"{}"))
    await put(store, keys.run(TENANT, "resp_3"), next(iter(other.puts.values()))[5:])
    vain = "each start of the server tries in vain to end it"
    assert await found(directory) == [
        ("'run/resp_3' cannot be read: it names another response", "if the server stops, nobody ends the response"),
        ("'run/resp_3' belongs to no unfinished response", vain),
        ("'run/resp_8' belongs to no unfinished response", vain),
        ("'run/resp_9' belongs to no unfinished response", vain),
        ("'response/resp_7' is unfinished, and 'run/resp_7' is not there", "it never ends, and can only be deleted"),
    ]


async def test_a_damaged_file_is_told_with_the_rows_on_the_damaged_page(directory: Path) -> None:
    store = Store(DiskBackend(directory))
    for n in range(40):
        text = f"{n:02d}".encode() * 250
        await store.save(Record(f"resp_{n}", None, 7, "completed", text, [], []), owner="o")
    await store.close()
    pages = bytearray((directory / "cache.db").read_bytes())
    page = pages.index(b"20" * 250) // 4096 * 4096
    pages[page] = 0xFF
    (directory / "cache.db").write_bytes(pages)
    damages, count = await verify(ReadingBackend(directory))
    named = [damage for damage in damages if damage.tenant]
    assert count == 40
    assert 1 <= len(named) < 40
    assert any("'response/resp_20' cannot be read: database disk image is malformed" in one.what for one in named)
    assert any(one.tenant == "" and one.what.startswith("SQLite says: ") for one in damages)


class Unlisted(ReadingBackend):
    async def page(self, first: str, limit: int, *, end: str | None = None) -> list[Row]:
        raise DamagedRecord("the database cannot be read")

    async def complaints(self) -> list[str]:
        raise DamagedRecord("nor checked")


async def test_a_file_that_cannot_be_listed_is_told(store: Store, directory: Path) -> None:
    damages, count = await verify(Unlisted(directory))
    assert count == 0
    assert damages == [
        Damage("", "the database cannot be read", "this report may lack rows, or have old ones"),
        Damage("", "SQLite says: nor checked", "rows may be lost or not found"),
    ]


async def test_a_server_that_goes_on_raises_no_false_alarm(store: Store, directory: Path) -> None:
    async def go_on() -> None:
        for n in range(1000):
            name, parent = f"n{n}", f"n{n - 1}" if n else "1"
            await store.save(turn(name, parent), owner="o")
            await store.save(turn(f"{name}f", parent), owner="o")
            await store.delete(f"resp_{name}f", owner="o")

    talking = asyncio.create_task(go_on())
    for _ in range(5):
        damages, _ = await verify(ReadingBackend(directory))
        assert damages == []
    assert not talking.done()
    talking.cancel()
    await asyncio.wait([talking])


async def test_what_goes_while_the_rows_are_read_is_not_looked_for(store: Store, directory: Path) -> None:
    class Slow(ReadingBackend):
        async def changed(self, known: object) -> tuple[list[Row], list[str]]:
            await store.delete("resp_3", owner="o")
            return await super().changed(known)  # type: ignore[arg-type]  # handed on as it is

    assert (await verify(Slow(directory)))[0] == []
