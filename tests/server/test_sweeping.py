import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from rejoinder.server import sweeping
from rejoinder.server.services import KEPT_IN_MEMORY, Services
from rejoinder.server.sweeping import DRIFT, LEAST, Sweeper
from rejoinder.store import Change, DiskBackend, Missing, Record, Store, StoreError, VolatileBackend
from rejoinder.store import runs as rows
from rejoinder.store.runs import Once
from tests.server.site import NOW, NOWHERE, Gate, closing, services_in, site

OWNER = "ann"
DAY = 24 * 3600.0
TTL = 30 * DAY


class Clocks:
    """The clock on the wall, and the one that only counts."""

    def __init__(self) -> None:
        self.wall = float(NOW)
        self.counted = 1000.0

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.counted += seconds

    def count(self) -> float:
        return self.counted


@asynccontextmanager
async def swept(directory: Path) -> AsyncIterator[tuple[Services, Sweeper, Clocks, Gate]]:
    """Services whose clocks stand, and whose stored responses are kept for thirty days."""
    clocks = Clocks()
    made = services_in(directory, NOWHERE)
    await made.store.close()
    gate = Gate(DiskBackend(made.store.location))

    def clock() -> float:
        return clocks.wall

    services = replace(
        made,
        clock=clock,
        store=Store(gate, ttl=TTL, clock=clock),
        volatile=Store(VolatileBackend(), ttl=KEPT_IN_MEMORY, clock=clock),
    )
    async with closing(services):
        yield services, Sweeper(services, monotonic=clocks.count), clocks, gate


async def keep(store: Store, name: str) -> None:
    await store.save(Record(f"resp_{name}", None, NOW, "completed", b'{"output":[]}', [], []), owner=OWNER)


async def is_kept(store: Store, name: str) -> bool:
    """Whether anything of the record is there, visible or not."""
    keys = [key async for key in store.every_key()]
    return any(key.endswith(f"/resp_{name}") for key in keys)


async def told(work: Callable[[], Awaitable[None]]) -> list[MutableMapping[str, Any]]:  # as structlog has them
    with capture_logs() as logs:
        await work()
    return logs


async def test_what_expired_a_day_ago_is_removed_and_counted(tmp_path: Path) -> None:
    async with swept(tmp_path) as (services, sweeper, clocks, _):
        await keep(services.store, "old")
        clocks.wait(DAY)
        await keep(services.store, "young")
        clocks.wait(TTL - 1)
        assert await told(sweeper.look) == []
        with pytest.raises(Missing):
            await services.store.get("resp_old", owner=OWNER)
        assert await is_kept(services.store, "old"), "it is invisible at once, and goes a day later"
        clocks.wait(2)
        assert await told(sweeper.look) == [{"event": "expired responses removed", "log_level": "info", "count": 1}]
        assert not await is_kept(services.store, "old")
        assert await is_kept(services.store, "young")
        assert await told(sweeper.look) == []


@pytest.mark.parametrize("by", [DRIFT + 1, -DRIFT - 1, 40 * DAY, -40 * DAY])
async def test_nothing_is_removed_when_the_clock_was_set(tmp_path: Path, by: float) -> None:
    """reliability.md F27: expiry hides before it removes."""
    async with swept(tmp_path) as (services, sweeper, clocks, gate):
        await keep(services.store, "old")
        clocks.wait(TTL + 2 * DAY)
        clocks.wall += by
        before = gate.commits
        assert await told(sweeper.look) == [
            {"event": "nothing is removed: the clock was set", "log_level": "error", "by": round(abs(by))}
        ]
        assert gate.commits == before
        clocks.wall -= by
        assert [log["event"] for log in await told(sweeper.look)] == ["expired responses removed"]
        assert not await is_kept(services.store, "old")


@pytest.mark.parametrize("by", [DRIFT - 1, 1 - DRIFT])
async def test_a_clock_that_is_a_little_wrong_is_believed(tmp_path: Path, by: float) -> None:
    async with swept(tmp_path) as (services, sweeper, clocks, _):
        await keep(services.store, "old")
        clocks.wait(TTL + 2 * DAY)
        clocks.wall += by
        assert [log["event"] for log in await told(sweeper.look)] == ["expired responses removed"]


async def test_when_too_much_would_go_nothing_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "LEAST", 1)
    async with swept(tmp_path) as (services, sweeper, clocks, _):
        for number in range(4):
            await keep(services.store, f"old{number}")
        clocks.wait(TTL)
        for number in range(12):
            await keep(services.store, f"young{number}")
        clocks.wait(DAY)
        [log] = await told(sweeper.look)
        assert log["event"] == "nothing is removed; `rejoinder store prune` does it if that is right"
        assert log["log_level"] == "error"
        assert str(log["exc_info"]) == "4 of 16 records are due to be removed, which is more than is likely"
        assert await is_kept(services.store, "old0")
        for number in range(4):
            await keep(services.store, f"more{number}")
        # A fifth of all of them is not too much.
        assert [log.get("count") for log in await told(sweeper.look)] == [4]


async def test_a_small_store_may_grow_old_as_a_whole(tmp_path: Path) -> None:
    async with swept(tmp_path) as (services, sweeper, clocks, _):
        for number in range(LEAST):
            await keep(services.store, f"old{number}")
        clocks.wait(TTL + DAY)
        assert [log.get("count") for log in await told(sweeper.look)] == [LEAST]


async def test_a_store_that_does_not_work_is_told_and_looked_at_again(tmp_path: Path) -> None:
    async with swept(tmp_path) as (services, sweeper, clocks, gate):
        await keep(services.store, "old")
        clocks.wait(TTL + DAY)

        def unwritable(change: Change) -> None:
            raise StoreError("read-only file system")

        gate.before = unwritable
        [log] = await told(sweeper.look)
        assert (log["event"], log["log_level"]) == ("expired responses could not be removed", "error")
        assert str(log["exc_info"]) == "read-only file system"
        gate.before = None
        assert [log.get("count") for log in await told(sweeper.look)] == [1]


async def remember(store: Store, key: str, at: float) -> None:
    entry = Once(bytes(32), "resp_1", int(at))
    await store.backend.commit(rows.once(key, entry, was=None, owner=OWNER))


async def remembered(store: Store) -> set[str]:
    return {key for key in ("old", "young") if (await rows.known(store, key, owner=OWNER))[0] is not None}


async def test_idempotency_keys_are_forgotten_after_a_day(tmp_path: Path) -> None:
    """reliability.md F14."""
    async with swept(tmp_path) as (services, sweeper, clocks, _):
        await remember(services.store, "old", clocks.wall)
        await remember(services.store, "young", clocks.wall + 2)
        clocks.wait(rows.KEPT_ONCE)
        assert await told(sweeper.look) == []
        assert await remembered(services.store) == {"old", "young"}
        clocks.wait(1)
        assert await told(sweeper.look) == []
        assert await remembered(services.store) == {"young"}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await holds():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


async def test_the_disk_is_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "FIRST", 0.01)
    monkeypatch.setattr(sweeping, "EVERY", 0.01)
    async with swept(tmp_path) as (services, sweeper, clocks, _):
        running = asyncio.create_task(sweeper.run())
        for name in ("one", "two"):
            await keep(services.store, name)
            clocks.wait(TTL + DAY)

            async def gone(name: str = name) -> bool:
                return not await is_kept(services.store, name)

            await until(gone)
        running.cancel()
        await asyncio.wait([running])


async def test_what_is_in_memory_only_goes_as_soon_as_it_has_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """semantics.md §5: some ten minutes, for those who poll."""
    monkeypatch.setattr(sweeping, "EVERY_IN_MEMORY", 0.01)
    async with swept(tmp_path) as (services, sweeper, clocks, gate):
        memory = services.volatile
        running = asyncio.create_task(sweeper.run_in_memory())
        await keep(memory, "old")
        await remember(memory, "old", clocks.wall)
        clocks.wait(KEPT_IN_MEMORY - 1)
        await keep(memory, "young")
        await remember(memory, "young", clocks.wall + DAY)
        await asyncio.sleep(0.1)
        assert (await memory.get("resp_old", owner=OWNER)).status == "completed"
        clocks.wait(1)

        async def gone() -> bool:
            return not await is_kept(memory, "old")

        await until(gone)
        assert await is_kept(memory, "young")
        assert await remembered(memory) == {"old", "young"}
        clocks.wait(DAY)

        async def empty() -> bool:
            return [key async for key in memory.every_key()] != [] and await remembered(memory) == {"young"}

        await until(empty)
        assert gate.commits == 0, "the disk has nothing to do with it"
        running.cancel()
        await asyncio.wait([running])


async def test_a_running_server_looks_after_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST", "EVERY", "EVERY_IN_MEMORY"):
        monkeypatch.setattr(sweeping, name, 0.01)
    async with swept(tmp_path) as (services, _, clocks, _):
        for store in (services.store, services.volatile):
            await remember(store, "old", clocks.wall - 2 * DAY)
        async with site(services):
            for store in (services.store, services.volatile):

                async def forgotten(store: Store = store) -> bool:
                    return await remembered(store) == set()

                await until(forgotten)


async def test_a_memory_that_does_not_work_is_told_and_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "EVERY_IN_MEMORY", 0.01)
    async with swept(tmp_path) as (services, sweeper, _, _):
        await services.volatile.close()
        with capture_logs() as logs:
            looking = asyncio.create_task(sweeper.run_in_memory())
            await asyncio.sleep(0.1)
            looking.cancel()
    assert len([entry for entry in logs if "kept in memory" in entry["event"]]) > 1


def test_the_clock_that_only_counts_goes_on() -> None:
    assert sweeping.since_start() < sweeping.since_start()
