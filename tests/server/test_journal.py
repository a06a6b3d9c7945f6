import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from rejoinder.server import journal
from rejoinder.server.condition import Condition
from rejoinder.server.journal import Journal, pieces
from rejoinder.server.running import Cancelled, Stop
from rejoinder.store import Change, Record, Store, StoreError, VolatileBackend
from rejoinder.store import runs as rows

OWNER, ID = "ann", "resp_1"


class Slow(VolatileBackend):
    """Does what a test wants before a piece is written."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[], object] = lambda: None

    async def commit(self, change: Change) -> None:
        if any("/event/" in key for key in change.puts):
            waited = self.before()
            if asyncio.iscoroutine(waited):
                await waited
        await super().commit(change)


@dataclass
class Desk:
    """A journal, and what is around it."""

    backend: Slow = field(default_factory=Slow)
    stop: Stop = field(default_factory=Stop)
    condition: Condition = field(default_factory=Condition)

    def __post_init__(self) -> None:
        self.store = Store(self.backend)
        self.journal = Journal(
            self.store, ID, owner=OWNER, stop=self.stop, condition=self.condition, pieces=0, frames=0
        )

    async def open(self) -> "Desk":
        record = Record(ID, None, 1, "in_progress", b"{}", [], [])
        await self.store.save(record, owner=OWNER, beside=rows.begun(rows.Run(OWNER, ID, b"{}")))
        return self

    async def written(self) -> list[list[bytes]]:
        return [piece.frames async for piece in pieces(self.store, ID, owner=OWNER)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "GATHER", 0.01)
    monkeypatch.setattr(journal, "RETRY", 0.01)


async def news(desk: Desk, count: int = 1) -> None:
    async with asyncio.timeout(5):
        for _ in range(count):
            await desk.journal.news()


async def test_what_is_said_in_one_breath_is_one_piece_and_nobody_has_it_before_it_is_written() -> None:
    desk = await Desk().open()
    desk.journal.add([b"a", b"b"])
    desk.journal.add([b"c"])
    assert await desk.journal.piece(0) is None
    await news(desk)
    assert await desk.written() == [[b"a", b"b", b"c"]]
    piece = await desk.journal.piece(0)
    assert piece is not None
    assert (piece.first, piece.following, piece.frames) == (0, 3, [b"a", b"b", b"c"])
    assert await desk.journal.piece(1) is None
    desk.journal.add([b"d"])
    await news(desk)
    assert await desk.written() == [[b"a", b"b", b"c"], [b"d"]]


async def test_pieces_are_not_written_more_often_than_that() -> None:
    desk = await Desk().open()
    loop = asyncio.get_running_loop()
    times: list[float] = []
    desk.backend.before = lambda: times.append(loop.time())
    for n in range(40):
        desk.journal.add([b"%d" % n])
        await asyncio.sleep(0.001)
    gaps = [after - before for before, after in pairwise(times)]
    assert min(gaps) >= 0.009
    assert len(gaps) > 1


async def test_old_pieces_come_from_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "RECENT", 2)
    desk = await Desk().open()
    for n in range(5):
        desk.journal.add([b"%d" % n])
        await news(desk)
    found = [await desk.journal.piece(n) for n in range(5)]
    assert [piece.frames for piece in found if piece is not None] == [[b"0"], [b"1"], [b"2"], [b"3"], [b"4"]]
    assert [piece.first for piece in found if piece is not None] == [0, 1, 2, 3, 4]


async def test_what_is_left_at_the_end_is_handed_over_after_what_was_being_written() -> None:
    desk = await Desk().open()
    writing = asyncio.Event()

    async def hold() -> None:
        writing.set()
        await asyncio.sleep(0.03)

    desk.backend.before = hold
    desk.journal.add([b"a"])
    await writing.wait()
    desk.journal.add([b"b"])
    assert await desk.journal.settle() == [b"b"]
    assert await desk.written() == [[b"a"]]
    desk.journal.add([b"c"])
    await asyncio.sleep(0.05)
    assert await desk.written() == [[b"a"]], "it writes nothing more of itself"
    assert await desk.journal.settle() == [b"c"]


async def test_a_piece_that_waits_for_its_time_is_handed_over_too() -> None:
    desk = await Desk().open()
    desk.journal.add([b"a"])
    await news(desk)
    desk.journal.add([b"b"])
    assert await desk.journal.settle() == [b"b"]


async def test_what_cannot_be_written_is_tried_again() -> None:
    desk = await Desk().open()
    failures = [StoreError("the disk is full")] * 2

    def fails() -> None:
        if failures:
            raise failures.pop()

    desk.backend.before = fails
    with capture_logs() as logs:
        desk.journal.add([b"a"])
        await news(desk)
    assert await desk.written() == [[b"a"]]
    assert not desk.condition.store_works
    assert [entry["event"] for entry in logs] == ["events not written"] * 2
    assert desk.stop.error is None


async def test_a_response_that_is_gone_stops_its_turn() -> None:
    desk = await Desk().open()
    await desk.store.delete(ID, owner=OWNER)
    desk.journal.add([b"a"])
    await asyncio.sleep(0.05)
    assert isinstance(desk.stop.error, Cancelled)
    desk.journal.add([b"b"])
    await asyncio.sleep(0.03)
    assert await desk.written() == []


async def test_the_upstream_waits_for_a_disk_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "HIGH_WATER", 10)
    desk = await Desk().open()
    may_write = asyncio.Event()
    desk.backend.before = may_write.wait
    desk.journal.add([b"x" * 10])
    await desk.journal.room()
    desk.journal.add([b"y"])
    waiting = asyncio.create_task(desk.journal.room())
    await asyncio.sleep(0.03)
    assert not waiting.done()
    may_write.set()
    async with asyncio.timeout(5):
        await waiting


async def test_nothing_to_say_is_no_piece() -> None:
    desk = await Desk().open()
    assert desk.journal.change([]) == Change()
    waiting = asyncio.create_task(desk.journal.news())
    await asyncio.sleep(0)
    desk.journal.written([])
    await waiting
    assert await desk.journal.piece(0) is None
