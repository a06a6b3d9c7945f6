"""The stream of a response that no connection owns: on the disk first, then with whoever follows it (reliability.md
P10)."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

import structlog

from rejoinder.server.condition import Condition
from rejoinder.server.running import Cancelled, Stop
from rejoinder.store import Change, Refused, Store, StoreError
from rejoinder.store import runs as rows
from rejoinder.store.runs import Piece

GATHER = 0.05
"""Seconds between two commits: what is said meanwhile goes together (reliability.md §3)."""

RETRY = 1.0
"""Seconds until what could not be written is tried again."""

HIGH_WATER = 256 * 1024
"""Bytes that may wait for the disk before the upstream is no longer read."""

RECENT = 64
"""Pieces that are at hand for those who follow closely; older ones come from the store."""

_logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)


class Journal:
    """The journal of one unfinished response, while this process makes it. `pieces` and `frames` say how many of them
    were written before."""

    def __init__(
        self, store: Store, response_id: str, *, owner: str, stop: Stop, condition: Condition, pieces: int, frames: int
    ) -> None:
        self._store = store
        self._id = response_id
        self._owner = owner
        self._stop = stop
        self._condition = condition
        self._pieces = pieces
        self._frames = frames
        self._pending: list[bytes] = []
        self._size = 0
        self._recent: deque[tuple[int, Piece]] = deque(maxlen=RECENT)
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._commit: asyncio.Task[None] | None = None
        self._ending = False

    def add(self, frames: Sequence[bytes]) -> None:
        """More of the stream; it is written within `GATHER` seconds."""
        self._pending.extend(frames)
        self._size += sum(map(len, frames))
        self._arm()

    async def room(self) -> None:
        """Wait until not too much waits for the disk."""
        while self._size > HIGH_WATER:
            self._room.clear()
            await self._room.wait()

    async def settle(self) -> list[bytes]:
        """Write nothing more of itself; hands over the frames that are left, for the last commit."""
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._commit is not None:
            await asyncio.wait((self._commit,))
        rest, self._pending = self._pending, []
        return rest

    def change(self, frames: Sequence[bytes]) -> Change:
        """What to commit for these to be the next piece; `written` follows."""
        return rows.told(self._id, self._pieces, self._frames, frames, owner=self._owner) if frames else Change()

    def written(self, frames: Sequence[bytes]) -> None:
        """These are durable, or as durable as they will be: whoever follows may have them."""
        if frames:
            self._recent.append((self._pieces, Piece(self._frames, [*frames])))
            self._pieces += 1
            self._frames += len(frames)
        self._news.set()
        self._news = asyncio.Event()

    async def piece(self, number: int) -> Piece | None:
        """A piece of the stream, None where there is none yet."""
        at_hand = next((piece for place, piece in self._recent if place == number), None)
        if at_hand is not None or number >= self._pieces:
            return at_hand
        return await rows.piece(self._store, self._id, number, owner=self._owner)

    async def news(self) -> None:
        """Wait for the next piece, or the end."""
        await self._news.wait()

    def _arm(self) -> None:
        if self._pending and not self._ending and self._timer is None and self._commit is None:
            self._timer = self._loop.call_at(self._next, self._go)

    def _go(self) -> None:
        self._timer = None
        self._commit = asyncio.create_task(self._write())

    async def _write(self) -> None:
        frames = self._pending[:]
        self._next = self._loop.time() + GATHER
        try:
            await self._store.append(self._id, self.change(frames), owner=self._owner)
        except Refused:
            self._stop.now(Cancelled())  # it was deleted, or somebody else has ended it
            self._ending = True
        except StoreError as error:
            self._condition.saw(error)
            _logger.warning("events not written", response=self._id, exc_info=error)
            self._next = self._loop.time() + RETRY
        else:
            del self._pending[: len(frames)]
            self._size -= sum(map(len, frames))
            self.written(frames)
            self._room.set()
        finally:
            self._commit = None
            self._arm()


async def pieces(store: Store, response_id: str, *, owner: str) -> AsyncIterator[Piece]:
    """All that was ever written of a stream."""
    number = 0
    while (piece := await rows.piece(store, response_id, number, owner=owner)) is not None:
        yield piece
        number += 1
