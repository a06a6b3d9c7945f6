"""What was used lately, within a bound."""

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Memory(Generic[Key, Value]):
    """A mapping that forgets the least recently used entries once their weights pass `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._weight = 0
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    @property
    def weight(self) -> int:
        return self._weight

    def get(self, key: Key) -> Value | None:
        """Look without touching: whoever walks many entries decides afterwards in which order they were used."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def touch(self, key: Key) -> None:
        if key in self._entries:
            self._entries.move_to_end(key)

    def put(self, key: Key, value: Value, weight: int = 1) -> None:
        """Keep `value`; one that is heavier than everything together may be is not kept."""
        self.drop(key)
        if weight > self._limit:
            return
        self._entries[key] = (value, weight)
        self._weight += weight
        while self._weight > self._limit:
            _, (_, forgotten) = self._entries.popitem(last=False)
            self._weight -= forgotten

    def drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._weight -= entry[1]
