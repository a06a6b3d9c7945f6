"""What every backend promises."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from rejoinder.store.backend import Backend, Change
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import Conflict, DamagedRecord, StoreError
from rejoinder.store.volatile import VolatileBackend


@pytest.fixture(params=["disk", "volatile"])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    backend: Backend = DiskBackend(tmp_path / "store") if request.param == "disk" else VolatileBackend()
    yield backend
    await backend.close()


async def test_get_keeps_the_order_asked_for(backend: Backend) -> None:
    await backend.commit(Change({"a": b"1", "b": b"2"}))
    assert await backend.get(["b", "x", "a", "b"]) == [b"2", None, b"1", b"2"]
    assert await backend.get([]) == []


@pytest.mark.parametrize("value", [b"", b"\x00\xff", b"x" * 70_000, bytes(range(256)) * 20_000])
async def test_a_value_comes_back_byte_for_byte(backend: Backend, value: bytes) -> None:
    await backend.commit(Change({"key": value}))
    assert await backend.get(["key"]) == [value]


async def test_keys_are_told_apart_by_every_character(backend: Backend) -> None:
    keys = ["a", "A", "a ", "ä", "a/b", "a%", "%", "a\n", "1", "1.0"]
    await backend.commit(Change({key: key.encode() for key in keys}))
    assert await backend.get(keys) == [key.encode() for key in keys]


async def test_a_put_replaces_and_a_delete_removes(backend: Backend) -> None:
    await backend.commit(Change({"a": b"1", "b": b"1"}))
    await backend.commit(Change({"a": b"2"}, deletes=["b", "never there"]))
    assert await backend.get(["a", "b"]) == [b"2", None]


async def test_a_change_whose_expectation_fails_is_not_applied_at_all(backend: Backend) -> None:
    await backend.commit(Change({"a": b"1"}))
    for refused in (
        Change({"b": b"2"}, ["a"], expect={"a": b"other"}),
        Change({"b": b"2"}, ["a"], expect={"a": None}),
        Change({"b": b"2"}, ["a"], expect={"c": b"1"}),
        Change({"b": b"2"}, ["a"], present=["a", "c"]),
        Change({"b": b"2"}, ["a"], expect={"a": b"1"}, present=["c"]),
        Change({"b": b"2", "a": b"2"}, expect={"b": None, "a": None}),
        Change({"a": b"2", "b": b"2"}, expect={"a": None, "b": None}),
        Change({"a": b"2", "b": b"2"}, expect={"a": None}),
    ):
        with pytest.raises(Conflict):
            await backend.commit(refused)
    assert await backend.get(["a", "b"]) == [b"1", None]


async def test_a_change_whose_expectations_hold_is_applied(backend: Backend) -> None:
    await backend.commit(Change({"a": b"1"}, expect={"a": None}))
    await backend.commit(Change({"a": b"2", "b": b""}, expect={"a": b"1", "b": None}, present=["a"]))
    await backend.commit(Change({"c": b"3"}, expect={"b": b""}, present=["b"]))
    assert await backend.get(["a", "b", "c"]) == [b"2", b"", b"3"]


async def test_one_of_many_wins_a_compare_and_set(backend: Backend) -> None:
    attempts = [backend.commit(Change({"a": b"%d" % n}, expect={"a": None})) for n in range(70)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert [outcome for outcome in outcomes if not isinstance(outcome, Conflict)] == [None]
    assert await backend.get(["a"]) == [b"%d" % outcomes.index(None)]


async def test_a_conflict_leaves_the_changes_beside_it_alone(backend: Backend) -> None:
    changes = [Change({f"k{n}": b"v"}, present=["never there"] if n % 3 == 0 else []) for n in range(60)]
    outcomes = await asyncio.gather(*map(backend.commit, changes), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Conflict if n % 3 == 0 else type(None) for n in range(60)]
    assert await backend.get([f"k{n}" for n in range(60)]) == [None if n % 3 == 0 else b"v" for n in range(60)]


async def test_changes_are_applied_in_the_order_they_were_handed_in(backend: Backend) -> None:
    changes = [Change({"a": b"%d" % n}, expect={"a": b"%d" % (n - 1) if n else None}) for n in range(100)]
    await asyncio.gather(*map(backend.commit, changes))
    assert await backend.get(["a"]) == [b"99"]


async def test_a_walk_follows_the_first_key_that_exists(backend: Backend) -> None:
    await backend.commit(Change({"a": b"x b", "b": b"c", "c": b"y z", "x2": b"never reached"}))
    visited = []

    def follow(key: str, value: bytes) -> Sequence[str]:
        visited.append((key, value))
        return value.decode().split()

    await backend.walk(["nothing", "a", "c"], follow)
    assert visited == [("a", b"x b"), ("b", b"c"), ("c", b"y z")]


async def test_a_walk_ends_where_no_key_is_named_and_where_none_exists(backend: Backend) -> None:
    await backend.commit(Change({"a": b""}))
    visited = []

    def follow(key: str, value: bytes) -> Sequence[str]:
        visited.append(key)
        return ()

    await backend.walk(["a"], follow)
    await backend.walk(["b"], follow)
    await backend.walk([], follow)
    assert visited == ["a"]


async def test_the_keys_of_a_range_come_in_order_and_as_many_as_are_wanted(backend: Backend) -> None:
    await backend.commit(Change(dict.fromkeys(["b/2", "a", "b/10", "b/1", "c", "b0"], b"")))
    assert await backend.keys("b/", "b/\x7f", 10) == ["b/1", "b/10", "b/2"]
    assert await backend.keys("b/10", "b/\x7f", 1) == ["b/10"]
    assert await backend.keys("", "\x7f", 10) == ["a", "b/1", "b/10", "b/2", "b0", "c"]
    assert await backend.keys("d", "\x7f", 10) == []


async def test_what_follow_raises_reaches_the_caller(backend: Backend) -> None:
    await backend.commit(Change({"a": b"1"}))

    def follow(key: str, value: bytes) -> Sequence[str]:
        raise DamagedRecord(f"{key} is odd")

    with pytest.raises(DamagedRecord, match="a is odd"):
        await backend.walk(["a"], follow)


async def test_one_who_stops_waiting_disturbs_nobody(backend: Backend) -> None:
    tasks = [asyncio.create_task(backend.commit(Change({f"k{n}": b"v"}))) for n in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[1::2] == [None] * 50
    await backend.commit(Change({"after": b"v"}))
    assert await backend.get(["after", *(f"k{n}" for n in range(1, 100, 2))]) == [b"v"] * 51


async def test_a_healthy_backend_passes_its_probe(backend: Backend) -> None:
    await backend.probe()
    await backend.probe()


async def test_closing_finishes_what_was_handed_in(backend: Backend) -> None:
    tasks = [asyncio.create_task(backend.commit(Change({f"k{n}": b"v"}))) for n in range(100)]
    await asyncio.sleep(0)
    await backend.close()
    assert [task.result() for task in tasks] == [None] * 100


async def test_a_closed_backend_says_so(backend: Backend) -> None:
    await backend.close()
    await backend.close()
    with pytest.raises(StoreError, match="closed"):
        await backend.commit(Change({"a": b"1"}))
    with pytest.raises(StoreError, match="closed"):
        await backend.get(["a"])
    with pytest.raises(StoreError, match="closed"):
        await backend.walk(["a"], lambda key, value: ())
    with pytest.raises(StoreError, match="closed"):
        await backend.keys("", "\x7f", 1)
    with pytest.raises(StoreError, match="closed"):
        await backend.probe()
