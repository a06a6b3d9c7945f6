"""A backend that forgets everything with its process: for what must never be written down (lessons.md S-063)."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path

from rejoinder.store.backend import Change
from rejoinder.store.errors import Conflict, StoreError


class VolatileBackend:
    """A dict. `limit` bounds the bytes of all keys and values; a change that would pass it is not applied."""

    def __init__(self, *, limit: int = 64 * 2**20) -> None:
        self._limit = limit
        self._size = 0
        self._rows: dict[str, bytes] = {}
        self._closed = False

    @property
    def location(self) -> Path:
        raise StoreError("a store in memory has no place on the disk")

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self._refuse_when_closed()
        return [self._rows.get(key) for key in keys]

    async def walk(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        self._refuse_when_closed()
        while (key := next((key for key in keys if key in self._rows), None)) is not None:
            keys = follow(key, self._rows[key])

    async def keys(self, first: str, end: str, limit: int) -> list[str]:
        self._refuse_when_closed()
        names = sorted(self._rows)
        return names[bisect_left(names, first) : bisect_left(names, end)][:limit]

    async def commit(self, change: Change) -> None:
        self._refuse_when_closed()
        rows = self._rows
        if any(key not in rows for key in change.present):
            raise Conflict("a key that must exist does not")
        if any(rows.get(key) != value for key, value in change.expect.items()):
            raise Conflict("a key does not have the value it must have")
        gone = {key: len(key) + len(rows[key]) for key in {*change.puts, *change.deletes} if key in rows}
        size = self._size - sum(gone.values())
        size += sum(len(key) + len(value) for key, value in change.puts.items() if key not in change.deletes)
        if change.puts and size > self._limit:
            raise StoreError(f"what is kept in memory only would take more than {self._limit} bytes")
        self._size = size
        rows.update(change.puts)
        for key in change.deletes:
            rows.pop(key, None)

    async def probe(self) -> None:
        self._refuse_when_closed()

    async def close(self) -> None:
        self._closed = True

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")
