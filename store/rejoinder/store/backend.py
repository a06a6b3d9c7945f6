"""The seam to whatever keeps the bytes.

A backend is plumbing: keys to bytes, and one atomic way to change them. Owners, lineage and deletion live once, in
`records.py`. Nothing here runs the caller's code inside a transaction, so that a server at the other end of a socket
can be a backend as well as a file.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit does, all of it or nothing, and what must hold for it to be done."""

    puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: Collection[str] = ()
    # The value each key must have now; None: the key must not exist.
    expect: Mapping[str, bytes | None] = field(default_factory=dict)
    # Keys that must exist, whatever their value is.
    present: Collection[str] = ()
    # Whether what is deleted must not be readable on the disk afterwards, which takes longer.
    erase: bool = False


class Backend(Protocol):
    """Keys are text, values are bytes; every verb raises `StoreError` when the engine cannot serve it."""

    @property
    def location(self) -> Path:
        """The directory where this store's own files are; it is readable by this user alone."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order asked for, None where there is none. Raises `DamagedRecord`."""

    async def walk(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        """Follow a chain of keys in one trip.

        The first of `keys` that exists is given to `follow` with its value; the keys `follow` answers are next. The
        walk ends when it answers none, or when none of them exists. `follow` is called off the event loop, outside of
        any transaction; what it raises ends the walk and reaches the caller. Raises `DamagedRecord`.
        """

    async def keys(self, first: str, end: str, limit: int) -> list[str]:
        """The keys from `first` on and before `end`, in the order of their bytes, `limit` of them at most."""

    async def commit(self, change: Change) -> None:
        """Apply `change` and return when it is durable. Raises `Conflict` when its conditions do not hold.

        Changes are applied in the order they were handed in. A caller that is cancelled does not know the outcome:
        the change is applied as a whole, or not at all.
        """

    async def probe(self) -> None:
        """Commit something tiny where a later reader will find it; raise `StoreError` when that cannot be promised."""

    async def close(self) -> None:
        """Finish what was handed in, then give everything back."""
