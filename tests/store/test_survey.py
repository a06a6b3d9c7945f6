import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rejoinder.store import keys, runs
from rejoinder.store.backend import Change
from rejoinder.store.conversations import Conversations, items_of
from rejoinder.store.disk import DiskBackend
from rejoinder.store.reading import ReadingBackend
from rejoinder.store.record import Record
from rejoinder.store.records import Store
from rejoinder.store.survey import KINDS, Share, survey
from rejoinder.store.values import seal

TENANT = keys.tenant_of("o")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


def turn(name: str, parent: str | None = None, at: int = 7, status: str = "completed") -> Record:
    home = None if parent is None else f"resp_{parent}"
    return Record(f"resp_{name}", home, at, status, b'{"output":[]}', [b'{"id":"i"}'], [])


async def test_an_empty_store_holds_nothing(directory: Path) -> None:
    await DiskBackend(directory).close()
    found = await survey(ReadingBackend(directory), now=1)
    assert found.shares == {kind: Share() for kind in KINDS}
    assert (found.owners, found.oldest, found.newest, found.expired) == (0, None, None, 0)
    assert {*found.files} == {"cache.db", "lock"}


async def test_every_row_is_counted_as_what_it_is(directory: Path) -> None:
    store = Store(DiskBackend(directory))
    await store.save(turn("1", at=5), owner="o")
    await store.save(turn("2", "1", at=9), owner="o")
    await store.save(turn("3", at=7), owner="p")
    await store.delete("resp_1", owner="o")
    beside = runs.together(
        runs.begun(runs.Run("o", "resp_4", b"{}")), runs.told("resp_4", 0, 0, [b"frame"] * 100, owner="o")
    )
    await store.save(turn("4", status="queued"), owner="o", beside=beside)
    items = items_of("resp_5", parent=None, created_at=1, input=[], added=b"")
    await Conversations(store).create("conv_1", owner="q", created_at=1, metadata={}, items=items)
    await store.backend.commit(runs.once("key", runs.Once(b"d", "resp_1", 1), was=None, owner="o"))
    await store.probe()
    names = [key async for key in store.every_key()]
    sizes = [len(row or b"") for row in await store.backend.get(names)]
    found = await survey(ReadingBackend(directory), now=1)
    await store.close()
    assert {kind: share.rows for kind, share in found.shares.items()} == {
        "responses": 2,
        "unfinished responses": 1,
        "deleted responses that others build on": 1,
        "items put into conversations": 1,
        "conversations": 1,
        "stream pieces": 1,
        "idempotency keys": 1,
        "bookkeeping": len(names) - 8,
        "unreadable": 0,
    }
    assert sum(share.bytes for share in found.shares.values()) == sum(sizes)
    assert found.shares["stream pieces"].bytes == sizes[names.index(keys.event(TENANT, "resp_4", 0))]
    assert (found.owners, found.oldest, found.newest, found.expired) == (3, 7, 9, 0)
    assert {*found.files} == {"ballast", "cache.db", "cache.db-shm", "cache.db-wal", "lock"}


async def test_expired_is_what_nobody_put_off(directory: Path) -> None:
    now = 1000.0
    store = Store(DiskBackend(directory), ttl=100, clock=lambda: now)
    for name in "123":
        await store.save(turn(name), owner="o")
    now = 1060
    await store.save(turn("4", "1"), owner="o")
    found = [(await survey(ReadingBackend(directory), now=at)).expired for at in (1099, 1100, 1159, 1160)]
    await store.close()
    assert found == [0, 2, 2, 4]


async def test_rows_that_cannot_be_read_are_counted_as_such(directory: Path) -> None:
    store = Store(DiskBackend(directory), ttl=100, clock=lambda: 0)
    for name in "1234":
        await store.save(turn(name), owner="o")
    row = keys.until(TENANT, "resp_1"), keys.until(TENANT, "resp_2")
    await store.backend.commit(Change({keys.living(TENANT, "resp_1"): b"", row[0]: b"", row[1]: seal(row[1], b"late")}))
    await store.close()
    with closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        connection.execute("UPDATE Cache SET mode = 4 WHERE key LIKE '%resp_3'")
    found = await survey(ReadingBackend(directory), now=1)
    assert found.shares["unreadable"].rows == 4
    assert found.shares["responses"].rows == 2
