"""A directory as a backend: diskcache, used as a store (reliability.md §2).

A cache may lose what it holds; a store may not. So nothing is evicted, nothing expires, nothing is unpickled, values
stay inside the database (side files are never synced), and a commit is on the disk before anybody hears of it.

One thread writes. It takes what is waiting, commits it in one transaction and answers afterwards: many threads on one
SQLite file would fight for its lock, and one sync serves a whole group. A few threads read. The event loop does
neither. Connections belong to their threads, and each thread closes its own.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NoReturn, TypeVar

import diskcache

from rejoinder.store.backend import Change
from rejoinder.store.errors import Conflict, DamagedRecord, InUse, StoreError

T = TypeVar("T")

DATABASE: str = diskcache.core.DBNAME

SETTINGS: dict[str, int | str] = {
    "eviction_policy": "none",
    "cull_limit": 0,
    "statistics": 0,
    "tag_index": 0,
    "size_limit": 2**62,
    "disk_min_file_size": 2**31 - 1,
    "sqlite_journal_mode": "wal",
    "sqlite_synchronous": 2,  # 1 loses acknowledged turns at a power cut
    "sqlite_mmap_size": 0,
    "sqlite_auto_vacuum": 0,
    "sqlite_cache_size": -16384,  # KiB
    "sqlite_secure_delete": 1,  # what is deleted is overwritten (reliability.md S15)
}
# diskcache's own rows beside the settings: counters it keeps by trigger.
_COUNTERS = frozenset({"count", "size", "hits", "misses"})

_GROUP = 32  # changes per commit
_READERS = 4
_TRIES = 3
_PROBE = "probe"
_BALLAST = 4 * 2**20  # bytes


class Disk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Text to bytes and nothing else: the base class would pickle, unpickle, and read, write and remove files."""

    def put(self, key: object) -> tuple[str, bool]:
        if type(key) is not str:
            raise TypeError(f"expected a key of type str, got {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> str:
        if type(key) is not str or raw != 1:
            raise DamagedRecord("a row's key is not text")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, None, bytes]:
        if read or type(value) is not bytes:
            raise TypeError(f"expected a value of type bytes, got {type(value).__name__}")
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> bytes:
        if read:
            raise DamagedRecord("a row is to be read as a file")
        return plain(mode, filename, value)

    def remove(self, file_path: object) -> NoReturn:
        raise DamagedRecord("a row names a file, and values are never kept in files")


def plain(mode: object, filename: object, value: object) -> bytes:
    """The value of a row of ours. Raises DamagedRecord."""
    # Not an OSError: diskcache takes that for a row that has just been deleted.
    if mode != diskcache.core.MODE_RAW or filename is not None or type(value) is not bytes:
        raise DamagedRecord(f"expected a row of plain bytes, got one of mode {mode!r}")
    return value


@dataclass(frozen=True, slots=True)
class _Pending:
    """A change that waits for its commit, and who waits for it."""

    change: Change
    loop: asyncio.AbstractEventLoop
    outcome: asyncio.Future[None]


class _Ballast:
    """A file whose room is for deletes that meet a full disk: they have to write, too (reliability.md §2)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> None:
        """Fills the file if it is not full. Where there is no room for all of it, the rest is for the next time."""
        with contextlib.suppress(OSError), open(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            if os.fstat(file.fileno()).st_size < _BALLAST:
                file.write(os.urandom(_BALLAST))  # zeros take no room on a file system that compresses

    def gives_way(self, failure: Exception) -> bool:
        """Has this failed for want of room, and is there some now?"""
        # Only a full disk is SQLITE_FULL; a used up quota is an error of input and output.
        if getattr(failure, "sqlite_errorcode", 0) & 0xFF not in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
            return False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


class DiskBackend:
    """The directory, its lock, its writer and its readers.

    `patience` is how long a commit waits for a lock that somebody else holds on the database, in seconds; `least_free`
    is the free space, in bytes, below which `probe` fails. Raises `StoreError` when the directory is not private, is
    open in another server, or is not such a store. The caller must not fork afterwards.
    """

    def __init__(self, directory: Path, *, patience: float = 10.0, least_free: int = 64 * 2**20) -> None:
        self.location = directory.absolute()
        self._least_free = least_free
        self._database = self.location / DATABASE
        self._log = self.location / f"{DATABASE}-wal"
        with contextlib.ExitStack() as undo:
            try:
                _make_private(self.location)
                lock = _locked(self.location)
                undo.callback(os.close, lock)
                self._ballast = _Ballast(self.location / "ballast")
                self._cache = self._open(patience / _TRIES)
                self._place = {path: _inode(path) for path in (self._database, self.location / "lock")}
            except (OSError, sqlite3.Error, diskcache.Timeout) as exc:
                raise StoreError(f"cannot open a store in '{self.location}': {exc}") from exc
            self._unlock = undo.pop_all()
        self._closing: asyncio.Task[None] | None = None
        self._changes: SimpleQueue[_Pending | None] = SimpleQueue()
        self._gathered: dict[asyncio.AbstractEventLoop, list[_Pending]] = {}
        self._questions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._writer = _started("rejoinder-store-writer", self._write_all)
        self._readers = [_started(f"rejoinder-store-reader-{n}", self._read_all) for n in range(_READERS)]

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._in_reader(lambda: [self._cache.get(key) for key in keys])

    async def walk(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        await self._in_reader(lambda: self._follow(keys, follow))

    async def keys(self, first: str, end: str, limit: int) -> list[str]:
        return await self._in_reader(lambda: keys_in(self._database, first, end, limit))

    async def commit(self, change: Change) -> None:
        self._refuse_when_closed()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[None] = loop.create_future()
        # Handed over once for all that one round of the loop brings: waking the writer for each would make the two
        # threads fight over the interpreter, at a price above that of the commits.
        gathered = self._gathered.setdefault(loop, [])
        gathered.append(_Pending(change, loop, outcome))
        if len(gathered) == 1:
            loop.call_soon(self._hand_over, loop)
        await outcome

    async def probe(self) -> None:
        try:
            free = shutil.disk_usage(self.location).free
        except OSError as exc:
            raise StoreError(f"'{self.location}' cannot be looked at: {exc}") from exc
        if free < self._least_free:
            raise StoreError(f"expected {self._least_free} bytes of free space, got {free}")
        await self.commit(Change(puts={_PROBE: b""}))
        await asyncio.to_thread(self._ballast.take)

    async def close(self) -> None:
        # Readers first: the connection that closes last folds the write-ahead log into the database.
        if self._closing is None:
            self._closing = asyncio.create_task(asyncio.to_thread(self._wind_up))
        await asyncio.shield(self._closing)

    def _wind_up(self) -> None:
        for _ in self._readers:
            self._questions.put(None)
        for reader in self._readers:
            reader.join()
        self._changes.put(None)
        self._writer.join()
        self._unlock.close()

    def _open(self, timeout: float) -> diskcache.Cache:
        try:
            return _opened(self.location, self._database, timeout)
        except sqlite3.Error as exc:
            if not self._ballast.gives_way(exc):
                raise
        return _opened(self.location, self._database, timeout)

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        for pending in self._gathered.pop(loop):
            self._changes.put(pending)

    def _refuse_when_closed(self) -> None:
        if self._closing is not None:
            raise StoreError("the store is closed")

    async def _in_reader(self, read: Callable[[], T]) -> T:
        self._refuse_when_closed()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def answer() -> None:
            try:
                result = read()
            except Exception as exc:  # the last frame of a question; the one who asked gets it
                _tell(loop, _fail, outcome, _read_failure(exc))
            else:
                _tell(loop, _succeed, outcome, result)

        self._questions.put(answer)
        return await outcome

    def _read_all(self) -> None:
        while (question := self._questions.get()) is not None:
            question()
        self._cache.close()

    def _follow(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        while (found := self._first(keys)) is not None:
            keys = follow(*found)

    def _first(self, keys: Sequence[str]) -> tuple[str, bytes] | None:
        for key in keys:
            value = self._cache.get(key)
            if value is not None:
                return key, value
        return None

    def _write_all(self) -> None:
        closing = False
        while not closing:
            group, closing = self._waiting()
            # Who left before the writer came by is not served: nothing was promised to them.
            group = [pending for pending in group if not pending.outcome.cancelled()]
            if group:
                self._write(group)
        self._cache.close()

    def _waiting(self) -> tuple[list[_Pending], bool]:
        """What is in the queue, at least one change and at most a group; and whether the queue has ended."""
        group: list[_Pending] = []
        pending = self._changes.get()
        while pending is not None:
            group.append(pending)
            if len(group) == _GROUP:
                return group, False
            try:
                pending = self._changes.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _write(self, group: Sequence[_Pending]) -> None:
        try:
            outcomes = self._transact([pending.change for pending in group])
        except Exception as exc:  # the last frame of a group; those who wait get it
            # A commit that failed may have left its transaction open: with its connection, it goes.
            self._cache.close()
            if len(group) > 1:
                for pending in group:
                    self._write([pending])
                return
            if group[0].change.erase and self._ballast.gives_way(exc):
                self._write(group)
                return
            outcomes = [_write_failure(exc)]
        else:
            outcomes = self._made_sure(group, outcomes)
        # One wake-up for the whole group: each is a system call.
        answers = zip(group, outcomes, strict=True)
        for loop, told in groupby(answers, key=lambda answer: answer[0].loop):
            _tell(loop, _settle, list(told))

    def _transact(self, changes: Sequence[Change], tries: int = _TRIES) -> list[StoreError | None]:
        """One transaction for all; a change whose conditions do not hold is left out, and fails alone."""
        try:
            with self._cache.transact():
                return [self._applied(change) for change in changes]
        except diskcache.Timeout:
            if tries == 1:
                raise
        self._cache.close()
        return self._transact(changes, tries - 1)

    def _applied(self, change: Change) -> Conflict | None:
        cache = self._cache
        for key in change.present:
            if key not in cache:
                return Conflict("a key that must exist does not")
        # One of the keys that must be absent can be looked up by putting it: a statement less for every new record.
        # That comes after all other conditions and before all other puts, so a change that fails has put nothing.
        added = next((key for key, expected in change.expect.items() if expected is None and key in change.puts), None)
        for key, expected in change.expect.items():
            if key != added and ((key in cache) if expected is None else (cache.get(key) != expected)):
                return Conflict("a key does not have the value it must have")
        if added is not None and not cache.add(added, change.puts[added]):
            return Conflict("a key that must not exist does")
        for key, value in change.puts.items():
            if key != added:
                cache.set(key, value)
        for key in change.deletes:
            cache.delete(key)
        return None

    def _made_sure(self, group: Sequence[_Pending], outcomes: list[StoreError | None]) -> list[StoreError | None]:
        """The outcomes, after a look at whether what was committed is where it will be looked for, or is gone."""
        try:
            self._check_place()
            if any(pending.change.erase for pending in group):
                self._erase()
        except (OSError, sqlite3.Error, StoreError) as exc:
            if self._ballast.gives_way(exc):
                return self._made_sure(group, outcomes)
            return [outcome or _write_failure(exc) for outcome in outcomes]
        return outcomes

    def _check_place(self) -> None:
        """A directory that was removed or replaced still takes writes, into files nobody will find (F30)."""
        if not self._log.exists() or any(_inode(path) != inode for path, inode in self._place.items()):
            raise StoreError(f"the files in '{self.location}' are not those that were opened")

    def _erase(self) -> None:
        """Deleted bytes are overwritten in the database, but their first writing may still stand in the log.

        What this cannot reach: a copy that stayed in the unused part of a page when SQLite merged it with its
        neighbours, until that part is used again.
        """
        # diskcache's public way to a pragma; it is not kept as a setting.
        self._cache.reset("sqlite_wal_checkpoint", "TRUNCATE", update=False)
        if self._log.stat().st_size:
            raise StoreError("deleted, but a reader keeps the bytes in the write-ahead log for now")


def keys_in(database: Path, first: str, end: str, limit: int) -> list[str]:
    """The keys of a range; diskcache walks over all of them or none, so its table is asked itself."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT key FROM Cache WHERE key >= ? AND key < ? ORDER BY key LIMIT ?", (first, end, limit)
        )
        return [key for (key,) in rows if type(key) is str]


def _started(name: str, work: Callable[[], None]) -> threading.Thread:
    # A daemon, so that a store nobody closed does not keep the process from ending; a commit is whole without us.
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def _tell(loop: asyncio.AbstractEventLoop, settle: Callable[..., None], *args: object) -> None:
    # A loop that is closed has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(settle, *args)


def _settle(answers: Sequence[tuple[_Pending, StoreError | None]]) -> None:
    for pending, failure in answers:
        if failure is None:
            _succeed(pending.outcome, None)
        else:
            _fail(pending.outcome, failure)


def _succeed(outcome: asyncio.Future[T], result: T) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _fail(outcome: asyncio.Future[T], error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)


def _read_failure(exc: Exception) -> Exception:
    match exc:
        case sqlite3.OperationalError():
            error: StoreError = StoreError(f"cannot read: {exc}")
        case sqlite3.DatabaseError():
            error = DamagedRecord(f"the database cannot be read here: {exc}")
        case _:
            return exc
    error.__cause__ = exc
    return error


def _write_failure(exc: Exception) -> StoreError:
    """One per waiter: an exception that is raised in several places grows the traceback of all of them."""
    error = type(exc)(*exc.args) if isinstance(exc, StoreError) else StoreError(f"cannot write: {exc or type(exc)}")
    error.__cause__ = exc
    return error


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = directory.stat().st_mode & 0o777
    if mode & 0o077:
        raise StoreError(f"'{directory}' is open to others (mode {mode:04o}): run chmod 700 '{directory}'")
    if "$" in str(directory):
        raise StoreError(f"'{directory}' holds a '$', which diskcache would take for a variable")


def _locked(directory: Path) -> int:
    """The descriptor of the lock file, locked; the lock dies with the process."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 32).decode("ascii", "replace")
        os.close(lock)
        raise InUse(f"the store in '{directory}' is open in another server, process {owner}") from None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def _opened(directory: Path, database: Path, timeout: float) -> diskcache.Cache:
    # Made here, so that its mode is ours; SQLite gives the same mode to the files beside it.
    os.close(os.open(database, os.O_RDWR | os.O_CREAT, 0o600))
    known = {*SETTINGS, *diskcache.DEFAULT_SETTINGS, *_COUNTERS}
    # Before diskcache opens it: each stored setting that starts with sqlite_ would be run as a pragma.
    if strange := _stored_settings(database) - known:
        raise StoreError(f"unknown settings in '{database}': {', '.join(sorted(strange))}")
    cache = diskcache.Cache(str(directory), timeout=timeout, disk=Disk, **SETTINGS)
    try:
        for name, value in SETTINGS.items():
            _expect_setting(name, value, cache.reset(name))
        # A file system without shared memory refuses this one silently, and only the file itself says so.
        _expect_setting("journal_mode", "wal", _journal_mode(database))
    finally:
        cache.close()
    return cache


def _expect_setting(name: str, expected: int | str, value: object) -> None:
    if value != expected:
        raise StoreError(f"expected the setting '{name}' to be {expected!r}, got {value!r}")


def _stored_settings(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchall():
            return set()
        return {str(name) for (name,) in connection.execute("SELECT key FROM Settings")}


def _journal_mode(database: Path) -> object:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        return mode


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
