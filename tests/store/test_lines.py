import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rejoinder.store import keys, lines
from rejoinder.store.backend import Change
from rejoinder.store.conversations import Conversations, items_of, removal_of
from rejoinder.store.disk import DiskBackend
from rejoinder.store.errors import DamagedRecord, Missing
from rejoinder.store.reading import ReadingBackend
from rejoinder.store.record import Record, encoded
from rejoinder.store.records import Store
from rejoinder.store.values import seal

TENANT = keys.tenant_of("o")


def turn(name: str, parent: str | None = None) -> Record:
    item, answer = (b'{"id":"%s_%s"}' % (kind, name.encode()) for kind in (b"in", b"out"))
    response = b'{"id":"resp_%s","output":[%s]}' % (name.encode(), answer)
    home = None if parent is None else f"resp_{parent}"
    return Record(f"resp_{name}", home, 7, "completed", response, [item], [answer], "model", "upstream")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(DiskBackend(tmp_path / "store"))
    yield store
    await store.close()


@pytest.fixture
def reading(store: Store) -> ReadingBackend:
    return ReadingBackend(store.location)


async def read(work: AsyncIterator[bytes | DamagedRecord]) -> tuple[list[dict[str, Any]], list[str]]:
    """The objects, and the errors; `Any` since JSON is read as anybody would."""
    found = [one async for one in work]
    told = [json.loads(one) for one in found if isinstance(one, bytes)]
    return told, [str(one) for one in found if isinstance(one, DamagedRecord)]


def ids(told: list[dict[str, Any]]) -> list[str]:
    return [one["id"].removeprefix("resp_") for one in told]


def test_a_line_says_what_a_record_is_byte_for_byte() -> None:
    record = Record(
        *("resp_2", "resp_1", 7, "completed", b'{"output":[ {"id": "b", "n": 1.50e1} ]}'),
        *([b'{"id" : "a"}'], [b'{"id":"b","n":1.50e1}'], "model", "upstream"),
    )
    assert lines.line(record, owner="o") == (
        b'{"id":"resp_2","owner":"o","parent":"resp_1","created_at":7,"status":"completed","model":"model",'
        b'"upstream":"upstream","input":[{"id" : "a"}],"output":[{"id":"b","n":1.50e1}],'
        b'"response":{"output":[ {"id": "b", "n": 1.50e1} ]}}'
    )


def test_a_line_is_one_line_however_a_client_wrote_its_items() -> None:
    item = b'{\r\n  "id": "a",\n  "text": "one\\ntwo"\n}'
    told = lines.line(Record("resp_1", None, 7, "failed", b"{\n}", [item], []), owner="o", deleted=True)
    assert b"\n" not in told
    assert b"\r" not in told
    assert json.loads(told)["input"] == [json.loads(item)]
    assert json.loads(told)["deleted"] is True


def test_items_of_a_conversation_have_no_response() -> None:
    told = json.loads(lines.line(removal_of("resp_2", parent="resp_1", created_at=7, item_id="a"), owner="o"))
    assert (told["response"], told["status"], told["without"]) == (None, "items", ["a"])


async def test_a_lineage_is_oldest_first_and_says_what_was_deleted(store: Store, reading: ReadingBackend) -> None:
    await store.save(turn("1"), owner="o")
    await store.save(turn("2", "1"), owner="o")
    await store.save(turn("3", "2"), owner="o")
    await store.delete("resp_2", owner="o")
    told, broken = await read(lines.lineage(reading, "resp_3", tenant=TENANT, owner="name"))
    assert (ids(told), broken) == (["1", "2", "3"], [])
    assert [one.get("deleted") for one in told] == [None, True, None]
    assert {one["owner"] for one in told} == {"name"}
    for tenant, wanted in ((TENANT, "resp_4"), (keys.tenant_of("p"), "resp_3")):
        with pytest.raises(Missing, match=f"no response '{wanted}'"):
            await read(lines.lineage(reading, wanted, tenant=tenant, owner="name"))


async def test_what_cannot_be_read_of_a_lineage_is_told_with_the_rest(store: Store, reading: ReadingBackend) -> None:
    await store.save(turn("1"), owner="o")
    await store.save(turn("2", "1"), owner="o")
    await store.save(turn("3", "2"), owner="o")
    await store.backend.commit(Change({keys.living(TENANT, "resp_2"): b""}))
    told, [broken] = await read(lines.lineage(reading, "resp_3", tenant=TENANT, owner="o"))
    assert ids(told) == ["3"]
    assert broken == "'resp_2' cannot be read, so what it builds on is missing too: the checksum does not match"
    await store.backend.commit(Change(deletes=[keys.living(TENANT, "resp_2")]))
    told, [broken] = await read(lines.lineage(reading, "resp_3", tenant=TENANT, owner="o"))
    assert (ids(told), broken) == (["3"], "'resp_2', which 'resp_3' builds on, is not there")


async def test_a_lineage_that_leads_back_to_itself_ends(store: Store, reading: ReadingBackend) -> None:
    await store.save(turn("1"), owner="o")
    await store.save(turn("2", "1"), owner="o")
    key = keys.living(TENANT, "resp_1")
    await store.backend.commit(Change({key: seal(key, encoded(turn("1", "2")))}))
    told, [broken] = await read(lines.lineage(reading, "resp_2", tenant=TENANT, owner="o"))
    assert ids(told) == ["1", "2"]
    assert "leads back to itself" in broken


async def test_a_conversation_is_all_that_was_said_in_it(store: Store, reading: ReadingBackend) -> None:
    talks = Conversations(store)
    items = items_of("resp_1", parent=None, created_at=7, input=[b'{"id":"a"}', b'{"id":"b"}'], added=b"")
    await talks.create("conv_1", owner="o", created_at=7, metadata={}, items=items)
    await talks.append("conv_1", turn("2", "1"), owner="o")
    await talks.append("conv_1", removal_of("resp_3", parent="resp_2", created_at=7, item_id="a"), owner="o")
    await talks.create("conv_2", owner="o", created_at=7, metadata={}, items=None)
    told, broken = await read(lines.conversation(reading, "conv_1", tenant=TENANT, owner="o"))
    assert (ids(told), broken) == (["1", "2", "3"], [])
    assert told[0]["input"] == [{"id": "b"}]
    assert "deleted" not in told[0]
    assert await read(lines.conversation(reading, "conv_2", tenant=TENANT, owner="o")) == ([], [])
    with pytest.raises(Missing, match="no conversation 'conv_3'"):
        await read(lines.conversation(reading, "conv_3", tenant=TENANT, owner="o"))


async def test_everything_is_told_once_of_everybody_or_of_one(store: Store, reading: ReadingBackend) -> None:
    names = [f"{n}" for n in range(120)]
    for n, name in enumerate(names):
        await store.save(turn(name, names[n - 1] if n % 3 else None), owner="op"[n // 60])
    await store.delete("resp_0", owner="o")
    items = items_of("resp_i", parent=None, created_at=7, input=[], added=b"")
    await Conversations(store).create("conv_1", owner="o", created_at=7, metadata={}, items=items)
    told, broken = await read(lines.everything(reading, {TENANT: "o"}))
    assert (sorted(ids(told)), broken) == (sorted([*names, "i"]), [])
    assert {one["owner"] for one in told} == {"o", keys.tenant_of("p")}
    assert [one["id"] for one in told if one.get("deleted")] == ["resp_0"]
    mine, _ = await read(lines.everything(reading, {}, only=TENANT))
    assert sorted(ids(mine)) == sorted([*names[:60], "i"])
    assert {one["owner"] for one in mine} == {TENANT}


async def test_what_cannot_be_read_of_everything_is_named(store: Store, reading: ReadingBackend) -> None:
    for name in "123":
        await store.save(turn(name), owner="o")
    key = keys.living(TENANT, "resp_1")
    await store.backend.commit(Change({key: b"", keys.living(TENANT, "resp_x"): seal("other", b"")}))
    await store.close()
    by_hand(store.location)
    told, broken = await read(lines.everything(reading, {}))
    assert ids(told) == ["3"]
    assert broken == [
        "'response/resp_1' cannot be read: the checksum does not match",
        "'response/resp_2' cannot be read: expected a row of plain bytes, got one of mode 4",
        "'response/resp_x' cannot be read: the checksum does not match",
    ]


def by_hand(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        connection.execute("UPDATE Cache SET mode = 4 WHERE key LIKE '%resp_2'")


async def test_whose_a_row_is_is_found_out(store: Store, reading: ReadingBackend) -> None:
    await store.save(turn("1"), owner="o")
    await store.save(turn("1"), owner="p")
    await store.save(turn("2"), owner="p")
    tenants = sorted([TENANT, keys.tenant_of("p")])
    assert await lines.owners_of(reading, "response/resp_1") == tenants
    assert await lines.owners_of(reading, "response/resp_2") == [keys.tenant_of("p")]
    assert await lines.owners_of(reading, "response/resp_3") == []
