import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from rejoinder.store.backend import Change
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import DamagedRecord, StoreError
from rejoinder.store.reading import ReadingBackend, Row


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@contextlib.asynccontextmanager
async def writing(directory: Path, **entries: bytes) -> AsyncIterator[DiskBackend]:
    backend = DiskBackend(directory)
    try:
        await backend.commit(Change(entries))
        yield backend
    finally:
        await backend.close()


async def filled(directory: Path, **entries: bytes) -> None:
    async with writing(directory, **entries):
        pass


def by_hand(directory: Path, statement: str, *parameters: object) -> None:
    with contextlib.closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        connection.execute(statement, parameters)


def content(directory: Path) -> dict[str, bytes]:
    """The files of a store, but for the index into its log, which every reader writes to."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".db-shm"}


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_a_store_is_read_beside_the_server_that_has_it_open(directory: Path) -> None:
    async with writing(directory, a=b"1", b=b"2") as server:
        before = content(directory)
        reading = ReadingBackend(directory)
        assert await reading.get(["b", "x", "a"]) == [b"2", None, b"1"]
        await reading.probe()
        assert content(directory) == before
        await server.commit(Change({"a": b"3"}, ["b"], erase=True))
        assert await reading.get(["a", "b"]) == [b"3", None]
        await reading.close()
    assert await reading.get(["a"]) == [b"3"]


async def test_a_store_that_was_closed_is_read_and_left_as_it_is(directory: Path) -> None:
    await filled(directory, a=b"1")
    before = content(directory)
    assert sorted(before) == ["cache.db", "lock"]
    reading = ReadingBackend(directory)
    assert await reading.get(["a"]) == [b"1"]
    assert await reading.keys("", "\x7f", 9) == ["a"]
    assert await reading.complaints() == []
    assert content(directory) == before
    assert names(directory) == ["cache.db", "lock"]
    assert reading.sizes() == {name: len(value) for name, value in before.items()}


KILLED = """
import asyncio, os, sys
from pathlib import Path
from rejoinder.store import Change, DiskBackend

async def main():
    backend = DiskBackend(Path(sys.argv[1]))
    await backend.commit(Change({"a": b"in the log"}))
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def kill_a_server(directory: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(directory)], check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL


async def test_a_store_whose_server_was_killed_is_read_with_its_log(directory: Path) -> None:
    kill_a_server(directory)
    before = content(directory)
    assert before["cache.db-wal"]
    reading = ReadingBackend(directory)
    assert await reading.get(["a"]) == [b"in the log"]
    assert await reading.complaints() == []
    assert content(directory) == before
    await filled(directory, b=b"2")
    assert await reading.get(["a", "b"]) == [b"in the log", b"2"]


async def test_a_server_can_start_and_stop_while_a_store_is_read(directory: Path) -> None:
    await filled(directory, a=b"1")
    reading = ReadingBackend(directory)
    for number in range(3):
        async with writing(directory, a=b"%d" % number):
            assert await reading.get(["a"]) == [b"%d" % number]
        assert await reading.get(["a"]) == [b"%d" % number]


async def test_what_was_read_while_a_server_wrote_is_read_again(directory: Path) -> None:
    await filled(directory, a=b"1")
    reading = ReadingBackend(directory)
    looks = []

    def look(connection: sqlite3.Connection) -> object:
        looks.append(connection.execute("SELECT value FROM Cache").fetchone())
        if len(looks) == 1:
            by_hand(directory, "UPDATE Cache SET value = x'32'")
        return looks[-1]

    assert reading._read(look) == (b"2",)
    assert looks == [(b"1",), (b"2",)]


@pytest.mark.parametrize("error", [sqlite3.OperationalError("locked"), sqlite3.DatabaseError("malformed")])
async def test_an_error_while_a_server_wrote_is_none(directory: Path, error: Exception) -> None:
    await filled(directory, a=b"1")
    reading = ReadingBackend(directory)
    looks = []

    def look(connection: sqlite3.Connection) -> int:
        looks.append(1)
        if len(looks) == 1:
            by_hand(directory, "UPDATE Cache SET value = x'32'")
            raise error
        return len(looks)

    assert reading._read(look) == 2


async def test_a_store_that_is_not_there_is_not_made(directory: Path) -> None:
    for there in (directory, directory.parent):
        with pytest.raises(StoreError, match=f"there is no store in '{there}'; a server makes it when it starts"):
            ReadingBackend(there)
    assert names(directory.parent) == []
    with pytest.raises(StoreError, match="cannot be looked at: "):
        ReadingBackend(directory.with_name("n" * 300))


async def test_a_store_that_is_removed_while_it_is_read_is_an_error(directory: Path) -> None:
    await filled(directory, a=b"1")
    reading = ReadingBackend(directory)
    shutil.rmtree(directory)
    with pytest.raises(StoreError, match="cannot be looked at"):
        await reading.get(["a"])


def test_a_file_that_is_no_store_is_an_error(directory: Path) -> None:
    directory.mkdir()
    (directory / "cache.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(DamagedRecord, match="file is not a database"):
        ReadingBackend(directory)
    (directory / "cache.db").unlink()
    by_hand(directory, "CREATE TABLE other (key)")
    with pytest.raises(StoreError, match=r"cannot read the store in '.*': no such table: Cache"):
        ReadingBackend(directory)


async def test_nothing_is_written(directory: Path) -> None:
    await filled(directory, a=b"1")
    with pytest.raises(StoreError, match="opened for reading only"):
        await ReadingBackend(directory).commit(Change({"a": b"2"}))
    os.close(os.open(directory / "lock", os.O_RDWR))
    await filled(directory)


async def test_a_walk_follows_the_first_key_that_exists(directory: Path) -> None:
    await filled(directory, a=b"x c", c=b"")
    visited = []

    def follow(key: str, value: bytes) -> Sequence[str]:
        visited.append(key)
        return value.decode().split()

    await ReadingBackend(directory).walk(["b", "a"], follow)
    assert visited == ["a", "c"]


async def test_keys_come_in_order_and_rows_in_pages(directory: Path) -> None:
    await filled(directory, **{f"k{n}": b"%d" % n for n in range(5)})
    reading = ReadingBackend(directory)
    assert await reading.keys("k1", "k4", 2) == ["k1", "k2"]
    rows = await reading.page("k1", 3)
    assert [(row.key, row.value) for row in rows] == [("k1", b"1"), ("k2", b"2"), ("k3", b"3")]
    assert [row.key for row in await reading.page("k3\x00", 3)] == ["k4"]
    assert [row.key for row in await reading.page("", 9, end="k2")] == ["k0", "k1"]
    assert await reading.page("k5", 3) == []


async def test_what_changed_is_told_apart_from_what_did_not(directory: Path) -> None:
    async with writing(directory, a=b"1", b=b"1", c=b"1") as server:
        reading = ReadingBackend(directory)
        known = {row.key: row.stored_at for row in await reading.page("", 9)}
        assert await reading.changed(known) == ([], [])
        await server.commit(Change({"a": b"2", "d": b"1"}, deletes=["b"]))
        others, gone = await reading.changed(known)
        assert ([(row.key, row.value) for row in others], gone) == ([("a", b"2"), ("d", b"1")], ["b"])


@pytest.mark.parametrize("change", ["mode = 4", "filename = '../victim'", "value = 'text'"])
async def test_a_row_that_is_not_ours_is_damage_and_its_neighbours_are_fine(directory: Path, change: str) -> None:
    await filled(directory, a=b"1", b=b"2")
    by_hand(directory, f"UPDATE Cache SET {change} WHERE key = 'a'")
    reading = ReadingBackend(directory)
    with pytest.raises(DamagedRecord, match="expected a row of plain bytes"):
        await reading.get(["a"])
    damaged, fine = await reading.page("", 9)
    assert isinstance(damaged.value, DamagedRecord)
    assert fine == Row("b", b"2", fine.stored_at)


async def test_rows_that_nobody_finds_by_their_name_are_told(directory: Path) -> None:
    await filled(directory, a=b"1", b=b"2", c=b"3")
    by_hand(directory, "UPDATE Cache SET raw = 0 WHERE key = 'a'")
    by_hand(directory, "UPDATE Cache SET key = x'00' WHERE key = 'b'")
    by_hand(directory, "UPDATE Cache SET expire_time = 1 WHERE key = 'c'")
    reading = ReadingBackend(directory)
    assert await reading.complaints() == ["3 rows are not written as ours are"]
    lost, _ = await reading.page("", 9)
    assert (lost.key, str(lost.value)) == ("a", "it is listed, and not found by its name")


async def test_a_damaged_page_harms_the_rows_on_it_only(directory: Path) -> None:
    await filled(directory, **{f"k{n}": bytes([n]) * 3000 for n in range(40)})
    pages = bytearray((directory / "cache.db").read_bytes())
    page = pages.index(bytes([20]) * 3000) // 4096 * 4096
    pages[page] = 0xFF
    (directory / "cache.db").write_bytes(pages)
    reading = ReadingBackend(directory)
    with pytest.raises(DamagedRecord, match="malformed"):
        await reading.get(["k20"])
    rows = {row.key: row.value for row in await reading.page("", 99)}
    assert len(rows) == 40
    assert isinstance(rows["k20"], DamagedRecord)
    assert rows["k0"] == bytes(3000)
    assert await reading.complaints() != []


async def test_a_database_that_loses_its_table_meanwhile_is_an_error(directory: Path) -> None:
    await filled(directory, a=b"1")
    reading = ReadingBackend(directory)
    by_hand(directory, "DROP TABLE Cache")
    with pytest.raises(StoreError, match="no such table"):
        await reading.page("", 9)


async def test_a_lock_in_the_middle_of_a_page_is_no_damage(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(directory, a=b"1")
    reading = ReadingBackend(directory)

    def locked(*row: object) -> bytes:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr("rejoinder.store.reading.plain", locked)
    with pytest.raises(StoreError, match="database is locked"):
        await reading.page("", 9)


async def test_a_lock_while_the_file_is_checked_is_no_damage(directory: Path) -> None:
    await filled(directory, a=b"1")
    reading = ReadingBackend(directory)
    async with writing(directory):
        with contextlib.closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
            connection.execute("DROP TABLE Cache")
        with pytest.raises(StoreError, match="no such table"):
            await reading.complaints()
