"""A look into a store that another process may have open: nothing is locked, made or written.

While a server runs, or after one was killed, there is a write-ahead log, and SQLite reads both files beside whoever
writes. After a clean stop there is none, and SQLite would make one before it reads; so the database is then opened as a
file that nobody changes, and what was read is read again if somebody did.

Each look is short, and so is the connection it has: the server cannot empty its log, which deleting needs, while one
lasts.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import anyio.to_thread

from rejoinder.store.backend import Change
from rejoinder.store.disk import DATABASE, plain
from rejoinder.store.errors import DamagedRecord, StoreError

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for which a look waits for a lock."""

COMPLAINTS = 20
"""How much SQLite says about one damaged file."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it stands: its value, or why that cannot be read. `stored_at` is another one after every change."""

    key: str
    value: bytes | DamagedRecord
    stored_at: float


class ReadingBackend:
    """The directory of a `DiskBackend`. Raises `StoreError` when there is no store in it."""

    def __init__(self, directory: Path) -> None:
        self.location = directory.absolute()
        self._database = self.location / DATABASE
        self._log = self.location / f"{DATABASE}-wal"
        try:
            there = self._database.is_file()
        except OSError as exc:
            raise StoreError(f"'{self.location}' cannot be looked at: {exc}") from exc
        if not there:
            raise StoreError(f"there is no store in '{self.location}'; a server makes it when it starts")
        self._read(lambda connection: connection.execute("SELECT key, value FROM Cache LIMIT 1").fetchall())

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._look(lambda connection: [_value(connection, key) for key in keys])

    async def walk(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        await anyio.to_thread.run_sync(self._follow, keys, follow)

    async def keys(self, first: str, end: str, limit: int) -> list[str]:
        return await self._look(lambda connection: _keys(connection, first, end, limit))

    async def page(self, first: str, limit: int, *, end: str | None = None) -> list[Row]:
        """The rows from a key on, before `end`, in their order, with what is wrong in the place of those that cannot
        be read."""
        behind = "\U0010ffff" if end is None else end

        def read(connection: sqlite3.Connection) -> list[Row]:
            return [*_rows(connection, _keys(connection, first, behind, limit))]

        return await self._look(read)

    async def changed(self, known: Mapping[str, float]) -> tuple[list[Row], list[str]]:
        """Which rows are others than those `known` by the time they were stored, and which of them are gone: at one
        moment, so that together with what did not change they are the store as it was then."""

        def read(connection: sqlite3.Connection) -> tuple[list[Row], list[str]]:
            stored = dict(connection.execute("SELECT key, store_time FROM Cache WHERE typeof(key) = 'text'"))
            others = [key for key, at in stored.items() if known.get(key) != at]
            return [*_rows(connection, others)], [key for key in known if key not in stored]

        return await self._look(read)

    async def complaints(self) -> list[str]:
        """What SQLite itself finds wrong with the files, and whether there are rows that a server would not find."""

        def check(connection: sqlite3.Connection) -> list[str]:
            found: list[str] = []
            try:
                found += (str(text) for (text,) in connection.execute(f"PRAGMA integrity_check({COMPLAINTS})"))
            except sqlite3.DatabaseError as exc:
                found.append(str(exc))
            if found != ["ok"]:
                return found
            ((odd,),) = connection.execute(
                "SELECT count(*) FROM Cache WHERE typeof(key) <> 'text' OR raw <> 1 OR expire_time IS NOT NULL"
            )
            return [f"{odd} rows are not written as ours are"] if odd else []

        return await self._look(check)

    async def commit(self, change: Change) -> NoReturn:
        raise StoreError("this store was opened for reading only")

    async def probe(self) -> None:
        await self.get([])

    async def close(self) -> None:
        """There is nothing to give back."""

    def sizes(self) -> dict[str, int]:
        """The files of the store by their names, in bytes."""
        return {path.name: path.stat().st_size for path in sorted(self.location.iterdir()) if path.is_file()}

    def _follow(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        while (found := self._read(partial(_first, keys=keys))) is not None:
            keys = follow(*found)

    async def _look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await anyio.to_thread.run_sync(self._read, work)

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        while True:
            before = self._state()
            try:
                with self._connected(at_rest=before is not None) as connection:
                    result = work(connection)
            except sqlite3.OperationalError as exc:
                if before == self._state():
                    raise StoreError(f"cannot read the store in '{self.location}': {exc}") from exc
            except sqlite3.DatabaseError as exc:
                if before == self._state():
                    raise DamagedRecord(f"the database in '{self.location}' cannot be read: {exc}") from exc
            else:
                if before is None or before == self._state():
                    return result

    @contextlib.contextmanager
    def _connected(self, *, at_rest: bool) -> Iterator[sqlite3.Connection]:
        url = f"{self._database.as_uri()}?mode=ro{'&immutable=1' if at_rest else ''}"
        with contextlib.closing(sqlite3.connect(url, uri=True, timeout=PATIENCE, isolation_level=None)) as connection:
            connection.execute("BEGIN")  # all that one look sees is of one moment
            yield connection

    def _state(self) -> tuple[int, int, int] | None:
        """What tells that nobody has changed the database, None where somebody may be at it."""
        if self._log.exists():
            return None
        try:
            status = self._database.stat()
        except OSError as exc:
            raise StoreError(f"'{self._database}' cannot be looked at: {exc}") from exc
        return status.st_ino, status.st_mtime_ns, status.st_size


def _first(connection: sqlite3.Connection, keys: Sequence[str]) -> tuple[str, bytes] | None:
    for key in keys:
        value = _value(connection, key)
        if value is not None:
            return key, value
    return None


def _value(connection: sqlite3.Connection, key: str) -> bytes | None:
    row = connection.execute("SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1", (key,)).fetchone()
    return None if row is None else plain(*row)


def _keys(connection: sqlite3.Connection, first: str, end: str, limit: int) -> list[str]:
    rows = connection.execute(
        "SELECT key FROM Cache WHERE key >= ? AND key < ? AND typeof(key) = 'text' ORDER BY key LIMIT ?",
        (first, end, limit),
    )
    return [key for (key,) in rows]


def _rows(connection: sqlite3.Connection, keys: Sequence[str]) -> Iterator[Row]:
    for key in keys:
        stored_at = 0.0
        value: bytes | DamagedRecord
        try:
            found = connection.execute(
                "SELECT store_time, mode, filename, value FROM Cache WHERE key = ? AND raw = 1", (key,)
            ).fetchone()
            if found is None:
                raise DamagedRecord("it is listed, and not found by its name")
            stored_at, value = found[0], plain(*found[1:])
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, DamagedRecord) as exc:
            value = DamagedRecord(str(exc))
        yield Row(key, value, stored_at)
