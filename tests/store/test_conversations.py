import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from rejoinder.store import keys, runs
from rejoinder.store.backend import Backend, Change
from rejoinder.store.conversations import Conversation, Conversations, items_of, removal_of
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import Conflict, DamagedRecord, Missing, Refused
from rejoinder.store.record import Record, item_id
from rejoinder.store.records import Store
from rejoinder.store.values import seal
from rejoinder.store.volatile import VolatileBackend

TENANT = keys.tenant_of("o")
C = "conv_1"


@pytest.fixture(params=["disk", "volatile"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(DiskBackend(tmp_path / "store") if request.param == "disk" else VolatileBackend())
    yield store
    await store.close()


@pytest.fixture
def talks(store: Store) -> Conversations:
    return Conversations(store)


def items(name: str, parent: str | None = None) -> Record:
    item = b'{"id":"from_client_%s"}' % name.encode()
    return items_of(f"resp_{name}", parent=parent and f"resp_{parent}", created_at=7, input=[item], added=b"\x01")


def answer(name: str, parent: str | None = None, status: str = "completed") -> Record:
    response = b'{"output":[{"id":"out_%s"}]}' % name.encode()
    home = None if parent is None else f"resp_{parent}"
    return Record(
        f"resp_{name}", home, 7, status, response, [b'{"id":"in_%s"}' % name.encode()], [response[11:-2]], "m"
    )


async def begin(talks: Conversations, first: Record | None = None, metadata: dict[str, str] | None = None) -> None:
    await talks.create(C, owner="o", created_at=5, metadata=metadata or {}, items=first)


async def said(talks: Conversations, owner: str = "o") -> list[str]:
    records = await talks.records(C, owner=owner)
    return [item_id(item) for record in records for item in (*record.input, *record.output)]


async def rows(store: Store) -> dict[str, bytes | None]:
    """Every row by the name people are told."""
    names = [name async for name in store.every_key()]
    return {keys.told(name)[1:-1]: row for name, row in zip(names, await store.backend.get(names), strict=True)}


async def test_a_conversation_begins_empty_or_with_items(talks: Conversations) -> None:
    made = await talks.create("conv_0", owner="o", created_at=5, metadata={"a": "b"}, items=None)
    assert (made.id, made.created_at, made.metadata, made.head) == ("conv_0", 5, {"a": "b"}, None)
    assert await talks.get("conv_0", owner="o") == made
    assert await talks.records("conv_0", owner="o") == ()
    await begin(talks, items("1"))
    assert (await talks.get(C, owner="o")).head == "resp_1"
    assert await said(talks) == ["from_client_1"]


async def test_nothing_of_one_owner_is_there_for_another(talks: Conversations) -> None:
    await begin(talks, items("1"))
    for work in (
        talks.get(C, owner="p"),
        talks.records(C, owner="p"),
        talks.describe(C, {}, owner="p"),
        talks.append(C, answer("2"), owner="p"),
        talks.delete(C, owner="p"),
    ):
        with pytest.raises(Missing, match="no conversation 'conv_1' for this owner"):
            await work
    await talks.create(C, owner="p", created_at=6, metadata={}, items=None)
    assert await said(talks, "p") == []
    assert await said(talks) == ["from_client_1"]


@pytest.mark.parametrize("name", ["", "1", "conv_", "conv_a b", "conv_a/b", "conv_\ud800", "conv_a\n", "resp_1"])
async def test_an_id_of_another_form_is_refused_and_not_found(talks: Conversations, name: str) -> None:
    with pytest.raises(Refused, match="must be 'conv_'"):
        await talks.create(name, owner="o", created_at=5, metadata={}, items=None)
    with pytest.raises(Missing):
        await talks.get(name, owner="o")


async def test_an_id_is_taken_once(talks: Conversations) -> None:
    await begin(talks, items("1"))
    for again in (None, items("2")):
        with pytest.raises(Refused, match="'conv_1' is stored already"):
            await begin(talks, again)
    assert await said(talks) == ["from_client_1"]


async def test_responses_and_items_follow_each_other(talks: Conversations, store: Store) -> None:
    await begin(talks)
    await talks.append(C, answer("1"), owner="o")
    await talks.append(C, items("2", "1"), owner="o")
    await talks.append(C, answer("3", "2"), owner="o")
    assert await said(talks) == ["in_1", "out_1", "from_client_2", "in_3", "out_3"]
    assert [one.id for one in await store.lineage("resp_3", owner="o")] == ["resp_1", "resp_2", "resp_3"]
    assert [one.id for one in await store.lineage("resp_1", owner="o")] == ["resp_1"]
    assert await store.find_item("from_client_2", owner="o") == b'{"id":"from_client_2"}'
    for unseen in (store.get("resp_2", owner="o"), store.lineage("resp_2", owner="o")):
        with pytest.raises(Missing):
            await unseen
    found = await rows(store)
    assert {name: row and row[5:] for name, row in found.items() if name.startswith("children/")} == {
        "children/resp_1": b"1",
        "children/resp_2": b"1",
        "children/resp_3": b"1",
    }


async def test_what_continues_another_record_than_the_last_is_a_conflict(talks: Conversations, store: Store) -> None:
    await begin(talks, items("1"))
    await talks.append(C, answer("2", "1"), owner="o")
    for late in (answer("3", "1"), answer("3")):
        with pytest.raises(Conflict, match="'conv_1' has gone on meanwhile"):
            await talks.append(C, late, owner="o")
    with pytest.raises(Missing):
        await store.get("resp_3", owner="o")


async def test_of_many_who_append_at_once_one_does(talks: Conversations) -> None:
    await begin(talks, items("1"))
    late = (talks.append(C, answer(str(n), "1"), owner="o") for n in range(2, 9))
    outcomes = await asyncio.gather(*late, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 6 + ["NoneType"]
    assert len(await said(talks)) == 3


@pytest.mark.parametrize("parent", [None, "1"])
async def test_a_response_that_began_earlier_is_appended_when_it_ends(
    talks: Conversations, store: Store, parent: str | None
) -> None:
    await begin(talks)
    await talks.append(C, answer("1"), owner="o")
    run = runs.begun(runs.Run("o", "resp_2", b"{}"))
    await store.save(answer("2", parent, "in_progress"), owner="o", beside=run)
    assert await said(talks) == ["in_1", "out_1"]
    await talks.append(C, answer("2", "1"), owner="o", begun=True)
    assert await said(talks) == ["in_1", "out_1", "in_2", "out_2"]
    found = await rows(store)
    assert "run/resp_2" not in found
    assert [(found[f"children/resp_{name}"] or b"")[5:] for name in "12"] == [b"1", b"1"]
    await talks.delete(C, owner="o")
    await store.delete("resp_1", owner="o")
    await store.delete("resp_2", owner="o")
    assert await rows(store) == {}


async def test_a_response_that_ended_otherwise_is_not_appended(talks: Conversations, store: Store) -> None:
    await begin(talks)
    run = runs.begun(runs.Run("o", "resp_1", b"{}"))
    await store.save(answer("1", status="in_progress"), owner="o", beside=run)
    await store.replace(answer("1", status="cancelled"), owner="o")
    with pytest.raises(Refused, match="the first terminal status wins"):
        await talks.append(C, answer("1"), owner="o", begun=True)
    assert await said(talks) == []


async def test_an_item_that_is_taken_out_is_missing_from_then_on(talks: Conversations, store: Store) -> None:
    await begin(talks, items("1"))
    await talks.append(C, answer("2", "1"), owner="o")
    await talks.append(C, removal_of("resp_3", parent="resp_2", created_at=7, item_id="from_client_1"), owner="o")
    await talks.append(C, removal_of("resp_4", parent="resp_3", created_at=7, item_id="out_2"), owner="o")
    await talks.append(C, answer("5", "4"), owner="o")
    assert await said(talks) == ["in_2", "in_5", "out_5"]

    async def built_on(name: str) -> list[str]:
        lineage = await store.lineage(name, owner="o")
        return [item_id(item) for record in lineage for item in (*record.input, *record.output)]

    assert await built_on("resp_5") == ["in_2", "in_5", "out_5"]
    assert await built_on("resp_2") == ["from_client_1", "in_2", "out_2"]


async def test_its_metadata_can_be_replaced(talks: Conversations) -> None:
    await begin(talks, items("1"), {"a": "1"})
    described = await talks.describe(C, {"b": "2"}, owner="o")
    assert (described.metadata, described.created_at, described.head) == ({"b": "2"}, 5, "resp_1")
    assert await talks.get(C, owner="o") == described


async def test_a_deleted_conversation_takes_its_items_along(talks: Conversations, store: Store) -> None:
    await begin(talks, items("1"))
    await talks.append(C, items("2", "1"), owner="o")
    await talks.append(C, removal_of("resp_3", parent="resp_2", created_at=7, item_id="from_client_1"), owner="o")
    await talks.delete(C, owner="o")
    assert await rows(store) == {}
    for work in (talks.delete(C, owner="o"), talks.get(C, owner="o"), store.find_item("from_client_2", owner="o")):
        with pytest.raises(Missing):
            await work


async def test_an_empty_conversation_can_be_deleted(talks: Conversations, store: Store) -> None:
    await begin(talks)
    await talks.delete(C, owner="o")
    assert await rows(store) == {}


async def test_the_responses_of_a_deleted_conversation_stay_with_all_they_build_on(
    talks: Conversations, store: Store
) -> None:
    await begin(talks, items("1"))
    await talks.append(C, answer("2", "1"), owner="o")
    await talks.append(C, items("3", "2"), owner="o")
    await store.save(answer("4", "2"), owner="o")
    await talks.delete(C, owner="o")
    assert [one.id for one in await store.lineage("resp_4", owner="o")] == ["resp_1", "resp_2", "resp_4"]
    with pytest.raises(Missing):
        await store.find_item("from_client_3", owner="o")
    await store.delete("resp_2", owner="o")
    assert [one.id for one in await store.lineage("resp_4", owner="o")] == ["resp_1", "resp_2", "resp_4"]
    await store.delete("resp_4", owner="o")
    assert await rows(store) == {}


async def test_a_conversation_keeps_the_responses_that_are_deleted_from_it(talks: Conversations, store: Store) -> None:
    await begin(talks, items("1"))
    await talks.append(C, answer("2", "1"), owner="o")
    await store.delete("resp_2", owner="o")
    assert await said(talks) == ["from_client_1", "in_2", "out_2"]
    with pytest.raises(Missing):
        await store.get("resp_2", owner="o")
    await talks.append(C, answer("3", "2"), owner="o")
    assert await said(talks) == ["from_client_1", "in_2", "out_2", "in_3", "out_3"]
    await store.delete("resp_3", owner="o")
    await talks.delete(C, owner="o")
    assert await rows(store) == {}


class Interrupted:
    """Lets somebody else go first, once, when something is about to be committed or read."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.before_commit: Callable[[], Awaitable[object]] | None = None
        self.before_walk: Callable[[], Awaitable[object]] | None = None

    @property
    def location(self) -> Path:
        return self.backend.location

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self.backend.get(keys)

    async def keys(self, first: str, end: str, limit: int) -> list[str]:
        return await self.backend.keys(first, end, limit)

    async def walk(self, keys: Sequence[str], follow: Callable[[str, bytes], Sequence[str]]) -> None:
        before, self.before_walk = self.before_walk, None
        if before is not None:
            await before()
        await self.backend.walk(keys, follow)

    async def commit(self, change: Change) -> None:
        before, self.before_commit = self.before_commit, None
        if before is not None:
            await before()
        await self.backend.commit(change)

    async def probe(self) -> None:
        await self.backend.probe()

    async def close(self) -> None:
        await self.backend.close()


@pytest.fixture
def interrupted() -> Interrupted:
    return Interrupted(VolatileBackend())


async def test_a_turn_is_not_lost_to_a_change_of_metadata(interrupted: Interrupted) -> None:
    talks = Conversations(Store(interrupted))
    await begin(talks, items("1"))
    interrupted.before_commit = lambda: talks.describe(C, {"a": "b"}, owner="o")
    await talks.append(C, answer("2", "1"), owner="o")
    assert await said(talks) == ["from_client_1", "in_2", "out_2"]
    assert (await talks.get(C, owner="o")).metadata == {"a": "b"}


async def test_a_turn_is_told_that_the_conversation_went_on_or_is_gone(interrupted: Interrupted) -> None:
    talks = Conversations(Store(interrupted))
    await begin(talks)
    interrupted.before_commit = lambda: talks.append(C, answer("1"), owner="o")
    with pytest.raises(Conflict, match="has gone on meanwhile"):
        await talks.append(C, answer("2"), owner="o")
    interrupted.before_commit = lambda: talks.delete(C, owner="o")
    with pytest.raises(Missing):
        await talks.append(C, answer("3", "1"), owner="o")


async def test_what_is_wrong_beside_a_turn_is_told(talks: Conversations, store: Store) -> None:
    await begin(talks)
    entry = runs.Once(b"d", "resp_1", 1)
    await store.backend.commit(runs.once("key", entry, was=None, owner="o"))
    with pytest.raises(Conflict, match=r"^a key that must not exist does|does not have the value"):
        await talks.append(C, answer("1"), owner="o", beside=runs.once("key", entry, was=None, owner="o"))
    assert await said(talks) == []


async def test_metadata_that_changes_while_it_is_replaced_is_replaced(interrupted: Interrupted) -> None:
    talks = Conversations(Store(interrupted))
    await begin(talks)
    interrupted.before_commit = lambda: talks.append(C, answer("1"), owner="o")
    described = await talks.describe(C, {"a": "b"}, owner="o")
    assert (described.head, described.metadata) == ("resp_1", {"a": "b"})
    assert await said(talks) == ["in_1", "out_1"]


async def test_a_conversation_that_goes_on_while_it_is_deleted_is_deleted(interrupted: Interrupted) -> None:
    store = Store(interrupted)
    talks = Conversations(store)
    await begin(talks, items("1"))
    interrupted.before_commit = lambda: talks.append(C, items("2", "1"), owner="o")
    await talks.delete(C, owner="o")
    assert await rows(store) == {}


async def test_of_two_who_delete_a_conversation_one_is_told_that_it_is_gone(interrupted: Interrupted) -> None:
    store = Store(interrupted)
    talks = Conversations(store)
    await begin(talks, items("1"))
    interrupted.before_walk = lambda: talks.delete(C, owner="o")
    with pytest.raises(Missing, match="no conversation 'conv_1'"):
        await talks.delete(C, owner="o")
    assert await rows(store) == {}


async def test_a_history_that_moves_on_while_it_is_read_is_read_again(interrupted: Interrupted) -> None:
    store = Store(interrupted, memory=0)
    talks = Conversations(store)
    await begin(talks, items("1"))

    async def begin_again() -> None:
        await talks.delete(C, owner="o")
        await begin(talks, items("2"))

    interrupted.before_walk = begin_again
    assert await said(talks) == ["from_client_2"]


async def test_a_head_that_is_not_there_is_damage(talks: Conversations, store: Store) -> None:
    await talks.create(C, owner="o", created_at=5, metadata={}, items=items("1"))
    fresh = Conversations(Store(store.backend))
    await store.backend.commit(Change(deletes=[keys.ghost(TENANT, "resp_1")]))
    with pytest.raises(DamagedRecord, match="'resp_1', which 'conv_1' leads to, is not there"):
        await fresh.records(C, owner="o")


@pytest.mark.parametrize("value", [b"\x00damaged", seal(keys.conversation(TENANT, C), b"\x91")])
async def test_a_conversation_that_cannot_be_read_is_named(talks: Conversations, store: Store, value: bytes) -> None:
    await begin(talks, items("1"))
    await talks.create("conv_2", owner="o", created_at=5, metadata={}, items=None)
    await store.backend.commit(Change({keys.conversation(TENANT, C): value}))
    for work in (talks.get(C, owner="o"), talks.records(C, owner="o"), talks.delete(C, owner="o")):
        with pytest.raises(DamagedRecord, match="'conversation/conv_1' cannot be read: "):
            await work
    assert isinstance(await talks.get("conv_2", owner="o"), Conversation)


async def take_out(talks: Conversations, item: str, name: str, head: str) -> None:
    removal = removal_of(f"resp_{name}", parent=f"resp_{head}", created_at=7, item_id=item)
    await talks.remove(C, item, owner="o", by=removal)


async def test_an_item_nothing_was_made_with_leaves_no_bytes(tmp_path: Path) -> None:
    store = Store(DiskBackend(tmp_path / "store"))
    talks = Conversations(store)
    secret = b'{"id":"from_client_s","content":"a secret that nobody was told"}'
    kept = b'{"id":"from_client_k","content":"something else"}'
    first = items_of("resp_1", parent=None, created_at=7, input=[kept, secret], added=b"\x01\x02")
    await begin(talks, first)
    await talks.append(C, items("2", "1"), owner="o")
    await take_out(talks, "from_client_s", "3", "2")
    assert await said(talks) == ["from_client_k", "from_client_2"]
    [record, _] = await talks.records(C, owner="o")
    assert record.added == b"\x01"
    with pytest.raises(Missing):
        await store.find_item("from_client_s", owner="o")
    assert await store.find_item("from_client_k", owner="o") == kept
    for file in (tmp_path / "store").iterdir():
        assert b"a secret that nobody was told" not in file.read_bytes(), file.name
    await take_out(talks, "from_client_2", "4", "2")
    assert await said(talks) == ["from_client_k"]
    await talks.delete(C, owner="o")
    assert await rows(store) == {}
    await store.close()


async def test_an_item_a_response_was_made_with_stays_part_of_that_response(talks: Conversations, store: Store) -> None:
    await begin(talks, items("1"))
    await talks.append(C, answer("2", "1"), owner="o")
    await talks.append(C, items("3", "2"), owner="o")
    await take_out(talks, "from_client_1", "4", "3")
    assert await said(talks) == ["in_2", "out_2", "from_client_3"]
    assert [record.id for record in await store.lineage("resp_2", owner="o")] == ["resp_1", "resp_2"]
    await store.delete("resp_2", owner="o")
    await take_out(talks, "out_2", "5", "4")
    assert await said(talks) == ["in_2", "from_client_3"]


async def test_an_item_is_taken_out_of_a_conversation_as_it_was_seen_and_no_other(interrupted: Interrupted) -> None:
    talks = Conversations(Store(interrupted))
    await begin(talks, items("1"))
    with pytest.raises(Conflict):
        await take_out(talks, "from_client_1", "2", "0")
    interrupted.before_commit = lambda: talks.append(C, items("3", "1"), owner="o")
    with pytest.raises(Conflict):
        await take_out(talks, "from_client_1", "2", "1")
    assert await said(talks) == ["from_client_1", "from_client_3"]


async def test_an_id_that_leads_to_another_record_goes_on_leading_there(talks: Conversations, store: Store) -> None:
    await begin(talks, items("1"))
    other = items_of("resp_9", parent=None, created_at=7, input=[b'{"id":"from_client_1","n":2}'], added=b"\x00")
    await talks.create("conv_2", owner="o", created_at=5, metadata={}, items=other)
    await take_out(talks, "from_client_1", "2", "1")
    assert await said(talks) == []
    assert await store.find_item("from_client_1", owner="o") == b'{"id":"from_client_1","n":2}'


async def test_what_is_not_there_is_taken_out_by_saying_so(talks: Conversations) -> None:
    await begin(talks, items("1"))
    await take_out(talks, "from_nobody", "2", "1")
    assert await said(talks) == ["from_client_1"]
    assert (await talks.get(C, owner="o")).head == "resp_2"
