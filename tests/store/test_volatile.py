from collections.abc import Sequence

import pytest

from rejoinder.store.backend import Change
from rejoinder.store.errors import Conflict, StoreError
from rejoinder.store.records import Store
from rejoinder.store.volatile import VolatileBackend


async def test_it_has_no_place_on_the_disk() -> None:
    with pytest.raises(StoreError, match="no place on the disk"):
        _ = Store(VolatileBackend()).location


async def test_values_come_back_and_can_be_replaced_and_removed() -> None:
    backend = VolatileBackend()
    await backend.commit(Change({"a": b"1", "b": b"2"}))
    await backend.commit(Change({"a": b"3"}, deletes=["b", "never there"]))
    assert await backend.get(["b", "a"]) == [None, b"3"]
    await backend.probe()


async def test_a_change_that_would_pass_the_limit_is_not_applied() -> None:
    backend = VolatileBackend(limit=100)
    await backend.commit(Change({"a": bytes(60)}))
    with pytest.raises(StoreError, match="more than 100 bytes"):
        await backend.commit(Change({"b": bytes(60)}, deletes=["c"]))
    with pytest.raises(StoreError, match="more than 100 bytes"):
        await backend.commit(Change({"a": bytes(100)}))
    assert await backend.get(["a", "b"]) == [bytes(60), None]
    await backend.commit(Change({"b": bytes(99)}, deletes=["a"]))
    assert await backend.get(["a", "b"]) == [None, bytes(99)]
    await backend.commit(Change(deletes=["b"]))
    await backend.commit(Change({"c": bytes(99)}))


async def test_keys_count_towards_the_limit_and_a_row_that_is_put_and_removed_does_not() -> None:
    backend = VolatileBackend(limit=10)
    with pytest.raises(StoreError):
        await backend.commit(Change({"a" * 11: b""}))
    for _ in range(3):
        await backend.commit(Change({"abcd": b"efgh", "gone": bytes(1000)}, deletes=["gone"]))
    assert await backend.get(["abcd", "gone"]) == [b"efgh", None]


async def test_conditions_hold_or_nothing_is_applied() -> None:
    backend = VolatileBackend()
    await backend.commit(Change({"a": b"1"}))
    for refused in (
        Change({"b": b"2"}, present=["c"]),
        Change({"b": b"2"}, expect={"a": None}),
        Change({"b": b"2"}, expect={"c": b"1"}),
    ):
        with pytest.raises(Conflict):
            await backend.commit(refused)
    await backend.commit(Change({"b": b"2"}, expect={"a": b"1", "c": None}, present=["a"]))
    assert await backend.keys("", "\x7f", 9) == ["a", "b"]
    assert await backend.keys("a\x00", "c", 9) == ["b"]
    assert await backend.keys("", "\x7f", 1) == ["a"]


async def test_a_walk_follows_what_is_there() -> None:
    backend = VolatileBackend()
    await backend.commit(Change({"a": b"c", "c": b""}))
    visited: list[str] = []

    def follow(key: str, value: bytes) -> Sequence[str]:
        visited.append(key)
        return value.decode().split()

    await backend.walk(["b", "a"], follow)
    assert visited == ["a", "c"]


async def test_nothing_is_there_once_it_is_closed() -> None:
    backend = VolatileBackend()
    await backend.close()
    with pytest.raises(StoreError, match="closed"):
        await backend.get(["a"])
    with pytest.raises(StoreError, match="closed"):
        await backend.commit(Change())
