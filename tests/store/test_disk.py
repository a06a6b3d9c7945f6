import asyncio
import contextlib
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from rejoinder.store.backend import Change
from rejoinder.store.disk import SETTINGS, Disk, DiskBackend
from rejoinder.store.errors import Conflict, DamagedRecord, StoreError
from tests import mounts

HERE = Path(__file__).parent


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store"


@contextlib.asynccontextmanager
async def opened(directory: Path, *, patience: float = 10.0) -> AsyncIterator[DiskBackend]:
    backend = DiskBackend(directory, patience=patience)
    try:
        yield backend
    finally:
        await backend.close()


@contextlib.contextmanager
def by_hand(directory: Path) -> Iterator[sqlite3.Connection]:
    """The database as somebody with a shell sees it."""
    with contextlib.closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        yield connection


async def filled(directory: Path, **entries: bytes) -> None:
    async with opened(directory) as backend:
        await backend.commit(Change(entries))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


class Trap:
    """Unpickling this makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


async def test_the_directory_and_its_files_are_for_this_user_alone(directory: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(directory) as backend:
            await backend.commit(Change({"a": b"1"}))
            await backend.probe()
            modes = {name: mode(directory / name) for name in names(directory)}
    finally:
        os.umask(before)
    assert mode(directory) == 0o700
    assert sorted(modes) == ["ballast", "cache.db", "cache.db-shm", "cache.db-wal", "lock"]
    assert {*modes.values()} == {0o600}


@pytest.mark.parametrize("bits", [0o750, 0o704, 0o710, 0o777])
def test_a_directory_open_to_others_is_refused_with_the_remedy(directory: Path, bits: int) -> None:
    directory.mkdir()
    directory.chmod(bits)
    with pytest.raises(StoreError, match=f"run chmod 700 '{directory}'"):
        DiskBackend(directory)
    assert list(directory.iterdir()) == []


def test_a_path_that_diskcache_would_expand_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="diskcache would take"):
        DiskBackend(tmp_path / "$HOME")


def test_a_file_is_not_a_directory(directory: Path) -> None:
    directory.write_bytes(b"")
    with pytest.raises(StoreError, match="cannot open a store"):
        DiskBackend(directory)


def test_a_file_that_is_no_database_is_refused_and_left_unlocked(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "cache.db").write_bytes(b"not a database" * 1000)
    for _ in range(2):
        with pytest.raises(StoreError, match="file is not a database"):
            DiskBackend(directory)


async def test_settings_somebody_changed_are_put_right(directory: Path) -> None:
    await filled(directory, a=b"1")
    with by_hand(directory) as database:
        database.execute("UPDATE Settings SET value = 1 WHERE key IN ('sqlite_synchronous', 'cull_limit')")
    await filled(directory, b=b"2")
    with by_hand(directory) as database:
        stored = dict(database.execute("SELECT key, value FROM Settings").fetchall())
    assert {name: stored[name] for name in SETTINGS} == SETTINGS


async def test_settings_that_do_not_hold_are_refused(directory: Path) -> None:
    await filled(directory, a=b"1")
    with by_hand(directory) as database:
        database.execute(
            "CREATE TRIGGER t AFTER UPDATE ON Settings WHEN NEW.key = 'cull_limit' AND NEW.value = 0 BEGIN"
            " UPDATE Settings SET value = 10 WHERE key = 'cull_limit'; END"
        )
    with pytest.raises(StoreError, match="expected the setting 'cull_limit' to be 0, got 10"):
        DiskBackend(directory)


async def test_a_planted_pragma_is_refused_before_it_runs(directory: Path) -> None:
    await filled(directory, a=b"1")
    with by_hand(directory) as database:
        database.execute("INSERT INTO Settings VALUES ('sqlite_user_version', 7)")
    with pytest.raises(StoreError, match=r"unknown settings in .*: sqlite_user_version"):
        DiskBackend(directory)
    with by_hand(directory) as database:
        assert database.execute("PRAGMA user_version").fetchall() == [(0,)]


async def test_a_directory_is_open_in_one_place_only(directory: Path) -> None:
    async with opened(directory):
        with pytest.raises(StoreError, match=f"open in another server, process {os.getpid()}"):
            DiskBackend(directory)
    async with opened(directory):
        pass


async def test_a_second_server_is_refused_while_the_first_lives(directory: Path) -> None:
    async with opened(directory) as backend:
        second = opened_elsewhere(directory)
        assert second.returncode == 1
        assert f"is open in another server, process {os.getpid()}" in second.stderr.splitlines()[-1]
        await backend.commit(Change({"a": b"1"}))
    assert opened_elsewhere(directory).returncode == 0


def opened_elsewhere(directory: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from rejoinder.store import open_store; open_store('disk:' + sys.argv[1])"
    return subprocess.run([sys.executable, "-c", program, str(directory)], capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("key", [b"bytes", 1, 1.5, None, ("a", "b")])
def test_only_text_is_a_key(key: object) -> None:
    disk = Disk("unused")
    with pytest.raises(TypeError, match="expected a key of type str"):
        disk.put(key)


@pytest.mark.parametrize(("key", "raw"), [(b"bytes", 1), (pickle.dumps("text"), 0), ("text", 0), (7, 1)])
def test_a_row_whose_key_is_not_text_is_damaged(key: object, raw: int) -> None:
    disk = Disk("unused")
    assert disk.get("text", 1) == "text"
    with pytest.raises(DamagedRecord):
        disk.get(key, raw)


@pytest.mark.parametrize("value", ["text", 1, None, bytearray(b"x"), {"a": 1}])
def test_only_bytes_are_a_value(value: object) -> None:
    disk = Disk("unused")
    with pytest.raises(TypeError, match="expected a value of type bytes"):
        disk.store(value, False)


def test_nothing_is_read_from_or_written_to_files() -> None:
    disk = Disk("unused")
    with pytest.raises(TypeError):
        disk.store(b"bytes", True)
    with pytest.raises(DamagedRecord):
        disk.fetch(1, None, b"bytes", True)
    assert disk.fetch(1, None, b"bytes", False) == b"bytes"
    with pytest.raises(DamagedRecord):
        disk.remove("ab/cd/file.val")


async def test_a_planted_pickle_is_damage_and_is_not_run(directory: Path, tmp_path: Path) -> None:
    await filled(directory, a=b"1", b=b"2")
    with by_hand(directory) as database:
        trap = pickle.dumps(Trap(tmp_path / "executed"))
        database.execute("UPDATE Cache SET mode = 4, value = ? WHERE key = 'a'", (trap,))
    async with opened(directory) as backend:
        with pytest.raises(DamagedRecord, match="mode 4"):
            await backend.get(["a"])
        with pytest.raises(DamagedRecord, match="mode 4"):
            await backend.commit(Change({"c": b"3"}, expect={"a": b"1"}))
        assert await backend.get(["b", "c"]) == [b"2", None]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
async def test_a_planted_file_name_is_damage_and_is_not_opened_or_removed(
    directory: Path, tmp_path: Path, mode: int
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    await filled(directory, a=b"1", b=b"2")
    with by_hand(directory) as database:
        database.execute("UPDATE Cache SET mode = ?, filename = '../victim', value = NULL WHERE key = 'a'", (mode,))
    async with opened(directory) as backend:
        with pytest.raises(DamagedRecord):
            await backend.get(["a"])
        with pytest.raises(DamagedRecord):
            await backend.commit(Change(deletes=["a"]))
        with pytest.raises(DamagedRecord):
            await backend.commit(Change({"a": b"new"}))
        assert await backend.get(["b"]) == [b"2"]
    assert victim.exists()
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", ["text", 7, 1.5])
async def test_a_value_of_another_type_is_damage(directory: Path, value: object) -> None:
    await filled(directory, a=b"1")
    with by_hand(directory) as database:
        database.execute("UPDATE Cache SET value = ? WHERE key = 'a'", (value,))
    async with opened(directory) as backend:
        with pytest.raises(DamagedRecord):
            await backend.get(["a"])


async def test_a_damaged_page_is_damage_and_not_absence(directory: Path) -> None:
    await filled(directory, **{f"k{n}": bytes([n]) * 3000 for n in range(40)})
    pages = bytearray((directory / "cache.db").read_bytes())
    page = pages.index(bytes([20]) * 3000) // 4096 * 4096
    pages[page] = 0xFF
    (directory / "cache.db").write_bytes(pages)
    async with opened(directory) as backend:
        with pytest.raises(DamagedRecord, match="malformed"):
            await backend.get(["k20"])
        assert await backend.get(["k0", "k39"]) == [bytes([0]) * 3000, bytes([39]) * 3000]


async def test_values_stay_in_the_database_whatever_their_size(directory: Path) -> None:
    await filled(directory, a=os.urandom(5_000_000))
    assert names(directory) == ["cache.db", "lock"]


async def test_a_change_that_cannot_be_written_fails_alone(directory: Path) -> None:
    async with opened(directory) as backend:
        changes = [Change({f"k{n}": b"v"}) for n in range(40)]
        changes[7] = Change({"odd": "text"})  # type: ignore[dict-item]  # the point of the test
        outcomes = await asyncio.gather(*map(backend.commit, changes), return_exceptions=True)
        assert [n for n, outcome in enumerate(outcomes) if outcome is not None] == [7]
        assert isinstance(outcomes[7], StoreError)
        assert await backend.get(["odd", "k6", "k39"]) == [None, b"v", b"v"]


async def test_a_lock_held_by_somebody_else_is_waited_for_and_then_an_error(directory: Path) -> None:
    async with opened(directory, patience=0.3) as backend:
        with by_hand(directory) as database:
            database.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="cannot write"):
                await backend.commit(Change({"a": b"1"}))
            second = asyncio.create_task(backend.commit(Change({"b": b"2"})))
            await asyncio.sleep(0.05)
            database.execute("COMMIT")
        await second
        assert await backend.get(["a", "b"]) == [None, b"2"]


async def test_what_waits_goes_out_in_groups_of_at_most_32_and_in_order(directory: Path) -> None:
    groups: list[int] = []

    class Watched(DiskBackend):
        def _transact(self, changes: Sequence[Change], tries: int = 3) -> list[StoreError | None]:
            groups.append(len(changes))
            return super()._transact(changes, tries)

    backend = Watched(directory)
    with by_hand(directory) as database:
        database.execute("BEGIN IMMEDIATE")
        changes = [Change({"a": b"%d" % n}, expect={"a": b"%d" % (n - 1) if n else None}) for n in range(70)]
        changes.append(Change({"a": b"never"}, present=["never there"]))
        tasks = [asyncio.create_task(backend.commit(change)) for change in changes]
        await asyncio.sleep(0.05)
        database.execute("COMMIT")
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None)] * 70 + [Conflict]
    assert sum(groups) == 71
    assert max(groups) == 32
    assert await backend.get(["a"]) == [b"69"]
    await backend.close()


async def test_a_change_is_refused_for_each_of_its_conditions_and_leaves_nothing(directory: Path) -> None:
    async with opened(directory) as backend:
        await backend.commit(Change({"a": b"1"}))
        for refused in (
            Change({"b": b"2"}, present=["a", "c"]),
            Change({"b": b"2"}, expect={"a": None}),
            Change({"b": b"2"}, expect={"a": b"other"}),
            Change({"b": b"2", "a": b"2"}, expect={"b": None, "a": None}),
            Change({"b": b"2", "a": b"2"}, expect={"a": None}),
        ):
            with pytest.raises(Conflict):
                await backend.commit(refused)
        assert await backend.get(["a", "b"]) == [b"1", None]


async def test_what_waits_when_the_store_closes_is_written(directory: Path) -> None:
    backend = DiskBackend(directory)
    with by_hand(directory) as database:
        database.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.create_task(backend.commit(Change({f"k{n}": b"v"}))) for n in range(3)]
        await asyncio.sleep(0.05)
        closings = [asyncio.create_task(backend.close()) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(StoreError, match="closed"):
            await backend.commit(Change({"late": b"v"}))
        database.execute("COMMIT")
    await asyncio.gather(*waiting, *closings)
    async with opened(directory) as again:
        assert await again.get(["k0", "k2", "late"]) == [b"v", b"v", None]


async def test_the_keys_of_a_range_come_in_order_without_those_that_are_not_text(directory: Path) -> None:
    async with opened(directory) as backend:
        await backend.commit(Change(dict.fromkeys(["b", "a/2", "a/1", "a"], b"")))
        with by_hand(directory) as database:
            database.execute("UPDATE Cache SET key = x'61' WHERE key = 'a'")
        assert await backend.keys("", "\x7f", 9) == ["a/1", "a/2", "b"]
        assert await backend.keys("a/", "a/\x7f", 1) == ["a/1"]


async def test_a_walk_passes_over_keys_that_are_not_there(directory: Path) -> None:
    async with opened(directory) as backend:
        await backend.commit(Change({"a": b"b"}))
        visited: list[str] = []

        def follow(key: str, value: bytes) -> Sequence[str]:
            visited.append(key)
            return ["nothing", "nothing either"]

        await backend.walk(["nothing", "a"], follow)
        assert visited == ["a"]


async def test_who_leaves_before_the_writer_comes_is_not_served(directory: Path) -> None:
    async with opened(directory) as backend:
        await backend.probe()  # the writer waits for something to do
        with by_hand(directory) as database:
            database.execute("BEGIN IMMEDIATE")
            first = asyncio.create_task(backend.commit(Change({"a": b"1"})))
            await asyncio.sleep(0.05)
            gone = asyncio.create_task(backend.commit(Change({"b": b"2"})))
            await asyncio.sleep(0.05)
            gone.cancel()
            await asyncio.wait([gone])
            database.execute("COMMIT")
        await first
        assert await backend.get(["a", "b"]) == [b"1", None]


async def test_who_leaves_while_the_writer_is_at_it_disturbs_nobody(directory: Path) -> None:
    async with opened(directory) as backend:
        with by_hand(directory) as database:
            database.execute("BEGIN IMMEDIATE")
            gone = asyncio.create_task(backend.commit(Change({"a": b"1"})))
            wrong = asyncio.create_task(backend.commit(Change({"a": b"1"}, present=["never there"])))
            await asyncio.sleep(0.05)
            gone.cancel()
            wrong.cancel()
            await asyncio.wait([gone, wrong])
            database.execute("COMMIT")
        await backend.commit(Change({"b": b"2"}))
        assert await backend.get(["b"]) == [b"2"]


def test_an_answer_to_a_loop_that_is_gone_is_dropped(directory: Path) -> None:
    backend = DiskBackend(directory)

    async def leave() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(backend.commit(Change({"a": b"1"})), 0.05)

    with by_hand(directory) as database:
        database.execute("BEGIN IMMEDIATE")
        asyncio.run(leave())
        database.execute("COMMIT")

    async def come_back() -> list[bytes | None]:
        await backend.commit(Change({"b": b"2"}))
        values = await backend.get(["b"])
        await backend.close()
        return values

    assert asyncio.run(come_back()) == [b"2"]


async def test_a_database_without_its_table_is_an_error_and_not_absence(directory: Path) -> None:
    async with opened(directory) as backend:
        await backend.commit(Change({"a": b"1"}))
        with by_hand(directory) as database:
            database.execute("DROP TABLE Cache")
        with pytest.raises(StoreError, match="cannot read: no such table"):
            await backend.get(["a"])
        with pytest.raises(StoreError, match="cannot write: no such table"):
            await backend.commit(Change({"a": b"2"}))


def test_a_full_disk_reaches_the_one_who_saves_and_passes(directory: Path) -> None:
    program = [sys.executable, str(HERE / "fills_its_disk.py"), str(directory)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    refused, *_, kept = done.stdout.splitlines()
    assert refused.startswith("refused: cannot write:")
    assert int(kept.removeprefix("kept: ")) > 5


@mounts.needs_mounts
def test_what_is_on_a_full_disk_can_be_deleted(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.store.deletes_on_a_full_disk", str(tmp_path / "store")]
    done = subprocess.run(mounts.with_disk(tmp_path, 90 * 2**20, program), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "no room left: cannot write: database or disk is full",
        "kept: ['resp_2', 'resp_5']",
        "ballast: 4194304",
    ]


async def test_little_free_space_fails_the_probe(directory: Path) -> None:
    backend = DiskBackend(directory, least_free=2**62)
    with pytest.raises(StoreError, match=f"expected {2**62} bytes of free space"):
        await backend.probe()
    await backend.close()


async def test_a_directory_that_is_removed_takes_nothing_into_the_void(directory: Path) -> None:
    async with opened(directory) as backend:
        await backend.commit(Change({"a": b"1"}))
        shutil.rmtree(directory)
        with pytest.raises(StoreError):
            await backend.commit(Change({"b": b"2"}))
        with pytest.raises(StoreError, match="cannot be looked at"):
            await backend.probe()


async def test_a_directory_that_is_replaced_takes_nothing_into_the_void(directory: Path) -> None:
    async with opened(directory) as backend:
        await backend.commit(Change({"a": b"1"}))
        os.rename(directory, directory.with_name("moved"))
        shutil.copytree(directory.with_name("moved"), directory)
        with pytest.raises(StoreError, match="not those that were opened"):
            await backend.commit(Change({"b": b"2"}))
        with pytest.raises(StoreError, match="not those that were opened"):
            await backend.probe()


async def test_a_log_that_is_removed_takes_nothing_into_the_void(directory: Path) -> None:
    async with opened(directory) as backend:
        await backend.commit(Change({"a": b"1"}))
        (directory / "cache.db-wal").unlink()
        with pytest.raises(StoreError, match="not those that were opened"):
            await backend.commit(Change({"b": b"2"}))


async def test_deleted_bytes_leave_the_files(directory: Path) -> None:
    secret = os.urandom(600)
    large = os.urandom(30_000)
    async with opened(directory) as backend:
        await backend.commit(Change({"before": os.urandom(500), "a": secret, "large": large, "after": b"v"}))
        assert secret in content(directory)
        await backend.commit(Change(deletes=["a", "large"], erase=True))
        left = content(directory)
        pieces = [secret[:16], secret[-16:], *(large[n : n + 16] for n in range(0, len(large) - 16, 1000))]
        assert [piece for piece in pieces if piece in left] == []
        assert b"after" in left


def content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


async def test_bytes_that_a_reader_keeps_in_the_log_are_not_called_gone(directory: Path) -> None:
    async with opened(directory, patience=0.3) as backend:
        await backend.commit(Change({"a": b"1", "b": b"2"}))
        with by_hand(directory) as database:
            database.execute("BEGIN")
            database.execute("SELECT * FROM Cache").fetchall()
            with pytest.raises(StoreError, match="a reader keeps the bytes"):
                await backend.commit(Change(deletes=["a"], erase=True))
        await backend.commit(Change(deletes=["b"], erase=True))
        assert (directory / "cache.db-wal").stat().st_size == 0
        assert await backend.get(["a", "b"]) == [None, None]
