import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rejoinder.server.errors import InvalidRequest, NotFound
from rejoinder.server.lineage import CONVERSATION_ID, RESPONSE_ID, Lineage, lineage, no_conversation, said_in
from rejoinder.store import Conversations, DamagedRecord, DiskBackend, Record, Store, items_of, removal_of
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import kept
from tests.server.site import Json, output_of, request_of, user

OWNER = "ann"
STEM = "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(DiskBackend(tmp_path / "store"))
    yield opened
    await opened.close()


def said(content: str, id: str) -> Json:
    parts = [{"type": "output_text", "text": content, "annotations": []}]
    return {"type": "message", "id": id, "status": "completed", "role": "assistant", "content": parts}


def called(call_id: str, id: str) -> Json:
    return {"type": "function_call", "id": id, "call_id": call_id, "name": "weather", "arguments": "{}"}


def thought(id: str, **fields: object) -> Json:
    return {"type": "reasoning", "id": id, "summary": [], **fields}


async def keep(
    store: Store,
    id: str,
    parent: str | None = None,
    *,
    input: list[Json] | None = None,
    output: list[Json] | None = None,
    status: str = "completed",
    owner: str = OWNER,
    added: bytes = b"",
) -> None:
    given, made = input or [], output or []
    await store.save(
        Record(
            id=id,
            parent=parent,
            created_at=1,
            status=status,
            response=json.dumps({"id": id, "output": made}).encode(),
            input=[json.dumps(item).encode() for item in given],
            output=[json.dumps(item).encode() for item in made],
            added=added,
        ),
        owner=owner,
    )


async def found(store: Store, *, owner: str = OWNER, **fields: object) -> Lineage:
    return await lineage(request_of(**fields), store, owner=owner)


async def refused(store: Store, *, owner: str = OWNER, **fields: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await found(store, owner=owner, **fields)
    return caught.value


def ids(whole: Lineage) -> list[str | None]:
    return [item.id for item in whole.conversation.items]


async def test_without_a_previous_response_there_is_only_what_is_said_now(store: Store) -> None:
    whole = await found(store, input=[user("one"), user("two")])
    assert [json.loads(item.raw) for item in whole.conversation.coming] == [user("one"), user("two")]
    assert whole.conversation.items == whole.conversation.coming


async def test_every_ancestors_input_and_output_comes_first_and_in_order(store: Store) -> None:
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}], output=[thought("b"), called("c1", "c")])
    await keep(store, "resp_2", "resp_1", input=[output_of("c1", "cold") | {"id": "d"}], output=[said("e", "e")])
    whole = await found(store, input="f", previous_response_id="resp_2")
    assert ids(whole) == ["a", "b", "c", "d", "e", None]
    assert [item.id for item in whole.conversation.coming] == [None]
    assert whole.conversation.call_ids == {"c1"}


async def test_a_previous_response_can_be_continued_without_saying_anything(store: Store) -> None:
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}], output=[said("b", "b")])
    whole = await found(store, previous_response_id="resp_1")
    assert ids(whole) == ["a", "b"]
    assert whole.conversation.coming == []


async def test_what_was_read_once_is_not_parsed_again(store: Store) -> None:
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}], output=[said("b", "b")])
    first = await found(store, input="c", previous_response_id="resp_1")
    second = await found(store, input="d", previous_response_id="resp_1")
    assert all(a is b for a, b in zip(first.conversation.items[:2], second.conversation.items[:2], strict=True))


@pytest.mark.parametrize("status", ["completed", "incomplete"])
async def test_a_finished_response_can_be_continued(store: Store, status: str) -> None:
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}], status=status)
    assert len((await found(store, input="b", previous_response_id="resp_1")).conversation.items) == 2


async def test_whatever_cannot_be_continued_is_not_found_in_the_same_words(store: Store) -> None:
    await keep(store, "resp_deleted")
    await store.delete("resp_deleted", owner=OWNER)
    await keep(store, "resp_failed", status="failed")
    await keep(store, "resp_foreign", owner="bob")
    for previous in ("resp_unknown", "resp_deleted", "resp_failed", "resp_foreign", "banana", "resp_", "resp_a-b_c"):
        error = await refused(store, input="on", previous_response_id=previous)
        assert str(error) == f"Previous response with id '{previous}' not found."
        assert (error.status, error.code) == (400, "previous_response_not_found")
        assert error.param == "previous_response_id"


@pytest.mark.parametrize("previous", ["", "resp_ü", "resp_1/../2", "resp_1\r\nx: y", "resp_1\x00", "resp_1 "])
async def test_an_id_with_other_characters_never_reaches_the_store(store: Store, previous: str) -> None:
    error = await refused(store, input="on", previous_response_id=previous)
    assert str(error) == (
        f"Invalid 'previous_response_id': '{previous}'. Expected an ID that contains letters, numbers, underscores, "
        "or dashes, but this value contained additional characters."
    )
    assert (error.param, error.code) == ("previous_response_id", None)


async def test_a_long_id_is_cut_in_the_message(store: Store) -> None:
    for previous in ("resp_" + "a" * 10_000, "é" * 10_000):
        assert len(str(await refused(store, input="on", previous_response_id=previous))) < 300


async def test_a_damaged_ancestor_is_never_a_shorter_history(tmp_path: Path) -> None:
    backend = DiskBackend(tmp_path / "damaged")
    store = Store(backend, memory=0)
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}])
    await keep(store, "resp_2", "resp_1")
    database = backend.location / "cache.db"
    await store.close()
    torn = database.read_bytes().replace(b'"role": "user"', b'"role": "USER"')
    assert torn != database.read_bytes()
    database.write_bytes(torn)
    store = Store(DiskBackend(tmp_path / "damaged"))
    with pytest.raises(DamagedRecord, match="resp_1"):
        await found(store, input="on", previous_response_id="resp_2")
    await store.close()


async def test_every_open_call_needs_its_output(store: Store) -> None:
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}], output=[called("c1", "b"), called("c2", "c")])
    answered = output_of("c1", "cold")
    for coming, missing in (([user("well?")], "c1"), ([answered], "c2"), ([], "c1")):
        with pytest.raises(BadRequest, match=f"No tool output found for function call {missing}") as caught:
            await found(store, input=coming, previous_response_id="resp_1")
        assert caught.value.param == "input"
    whole = await found(store, input=[answered, output_of("c2", "warm")], previous_response_id="resp_1")
    assert len(whole.conversation.items) == 5


async def test_half_a_call_of_the_past_does_not_shift_what_is_said_now(store: Store) -> None:
    half = called("c1", "b") | {"arguments": '{"a', "status": "incomplete"}
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}], output=[half], status="incomplete")
    whole = await found(store, input=[user("one"), user("two")], previous_response_id="resp_1")
    assert ids(whole) == ["a", None, None]
    assert [json.loads(item.raw) for item in whole.conversation.coming] == [user("one"), user("two")]
    assert whole.conversation.coming == whole.conversation.items[1:]


async def test_what_is_said_now_is_stored_also_where_nobody_is_told(store: Store) -> None:
    half = called("c1", "b") | {"arguments": '{"a', "status": "incomplete"}
    whole = await found(store, input=[user("one"), half, user("two")])
    assert ids(whole) == [None, None]
    assert [item.id for item in whole.conversation.coming] == [None, "b", None]


async def test_items_come_out_of_the_store_under_their_id_in_the_bytes_they_were_sent_in(store: Store) -> None:
    sent: list[Json] = [
        {"role": "user", "content": "é"},
        {"type": "message", "id": "mine", "status": "completed", "role": "user", "content": "b"},
        {"type": "acme:thing", "new": [1]},
    ]
    stored = [kept(item, f"new_{number}") for number, item in enumerate(request_of(input=sent).input)]
    await keep(
        store,
        "resp_1",
        input=[json.loads(one.raw) for one in stored],
        output=[said("c", "c")],
        added=bytes(one.added for one in stored),
    )
    whole = await found(store, input="d", previous_response_id="resp_1")
    assert ids(whole) == ["new_0", "mine", "new_2", "c", None]
    assert [item.raw for item in whole.conversation.items[:3]] == [
        '{"role":"user","content":"é"}'.encode(),
        b'{"type":"message","id":"mine","status":"completed","role":"user","content":"b"}',
        b'{"type":"acme:thing","new":[1]}',
    ]


async def test_a_record_from_before_there_was_such_a_note_is_read_as_it_is_stored(store: Store) -> None:
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}, user("b") | {"id": "b"}])
    whole = await found(store, input="c", previous_response_id="resp_1")
    assert json.loads(whole.conversation.items[1].raw) == user("b") | {"id": "b"}


async def test_the_records_that_are_continued_come_along_oldest_first(store: Store) -> None:
    await keep(store, "resp_1")
    await keep(store, "resp_2", "resp_1")
    whole = await found(store, input="c", previous_response_id="resp_2")
    assert [record.id for record in whole.records] == ["resp_1", "resp_2"]
    assert list((await found(store, input="c")).records) == []


async def test_an_output_needs_its_call(store: Store) -> None:
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}], output=[said("b", "b")])
    with pytest.raises(BadRequest, match="No tool call found for function call output with call_id c9") as caught:
        await found(store, input=[output_of("c9", "cold")], previous_response_id="resp_1")
    assert caught.value.param == "input"


async def test_an_output_without_a_call_id_is_kept_with_the_one_it_was_paired_with(store: Store) -> None:
    named = {"type": "function_call_output", "name": "weather", "output": "cold"}
    whole = await found(store, input=[user("a"), called("c1", "b"), named])
    assert json.loads(whole.conversation.coming[2].raw) == named | {"call_id": "c1"}
    assert whole.conversation.coming[2] is whole.conversation.items[2]


async def test_a_reference_is_the_stored_item_it_names(store: Store) -> None:
    own = f"msg_{STEM}0001"
    await keep(store, f"resp_{STEM}", input=[user("a") | {"id": "mine"}], output=[said("b", own)])
    whole = await found(store, input=[{"id": "mine"}, {"type": "item_reference", "id": own}, user("on")])
    assert [json.loads(item.raw) for item in whole.conversation.coming] == [
        user("a") | {"id": "mine"},
        said("b", own),
        user("on"),
    ]


async def test_a_reference_can_name_a_call_and_its_output(store: Store) -> None:
    given = [called("c1", "x"), output_of("c1", "cold") | {"id": "y"}]
    await keep(store, "resp_1", input=given)
    assert ids(await found(store, input=[{"id": "x"}, {"id": "y"}])) == ["x", "y"]


async def test_an_item_that_cannot_be_found_is_not_found_in_the_same_words(store: Store) -> None:
    await keep(store, "resp_1", input=[user("a") | {"id": "foreign"}], owner="bob")
    await keep(store, "resp_2", input=[user("a") | {"id": "deleted"}])
    await store.delete("resp_2", owner=OWNER)
    references: list[Json] = []
    for id in ("unknown", "foreign", "deleted", f"msg_{STEM}0001", "odd/../\n\x00 id"):
        references += [{"id": id}, {"type": "item_reference", "id": id}, thought(id)]
    for reference in references:
        error = await refused(store, input=[reference, user("on")])
        assert str(error) == (
            f"Item with id '{reference['id']}' not found. Items are not persisted when `store` is set to false. "
            "Try again with `store` set to true, or remove this item from your input."
        )
        assert (error.status, error.param, error.code) == (400, "input", None)


async def test_reasoning_with_nothing_but_its_id_is_the_stored_one(store: Store) -> None:
    full = thought(f"rs_{STEM}0001", encrypted_content="brg1.x")
    await keep(store, f"resp_{STEM}", output=[full])
    whole = await found(store, input=[user("a"), thought(f"rs_{STEM}0001"), user("on")])
    assert json.loads(whole.conversation.coming[1].raw) == full


@pytest.mark.parametrize(
    "item",
    [
        thought("rs_1", encrypted_content="brg1.x"),
        thought("rs_1") | {"summary": [{"type": "summary_text", "text": "hm"}]},
        thought("rs_1", content=[{"type": "reasoning_text", "text": "hm"}]),
        {"type": "reasoning", "summary": []},
        said("with an id nobody knows", "msg_nobody"),
    ],
)
async def test_an_item_that_says_something_itself_needs_no_store(store: Store, item: Json) -> None:
    whole = await found(store, input=[item, user("on")])
    assert json.loads(whole.conversation.coming[0].raw) == item


@pytest.mark.parametrize("again", [{"id": "b"}, {"type": "item_reference", "id": "b"}, thought("c"), said("x", "b")])
async def test_an_item_of_the_conversation_is_not_said_again(store: Store, again: Json) -> None:
    await keep(store, "resp_1", input=[user("a") | {"id": "a"}], output=[said("b", "b"), thought("c")])
    with pytest.raises(BadRequest, match=f"Duplicate item found with id {again['id']}"):
        await found(store, input=[again, user("on")], previous_response_id="resp_1")


# Conversations


async def begun(store: Store, *given: Json, owner: str = OWNER) -> Conversations:
    """A conversation that begins with these items, in the record `resp_0`."""
    talks = Conversations(store)
    raw = [json.dumps(item).encode() for item in given]
    record = items_of("resp_0", parent=None, created_at=1, input=raw, added=b"") if given else None
    await talks.create("conv_1", owner=owner, created_at=1, metadata={}, items=record)
    return talks


def made(id: str, parent: str | None, *output: Json, input: list[Json], status: str = "completed") -> Record:
    return Record(
        id=id,
        parent=parent,
        created_at=1,
        status=status,
        response=b"{}",
        input=[json.dumps(item).encode() for item in input],
        output=[json.dumps(item).encode() for item in output],
    )


async def test_a_conversation_that_is_empty_adds_nothing(store: Store) -> None:
    await begun(store)
    whole = await found(store, input="hi", conversation="conv_1")
    assert (ids(whole), list(whole.records)) == ([None], [])


async def test_all_that_was_said_in_a_conversation_comes_first_and_in_order(store: Store) -> None:
    talks = await begun(store, user("a") | {"id": "a"}, user("b") | {"id": "b"})
    turn = made("resp_1", "resp_0", called("c1", "d"), input=[user("c") | {"id": "c"}])
    await talks.append("conv_1", turn, owner=OWNER)
    for named in ("conv_1", {"id": "conv_1"}):
        whole = await found(store, input=[output_of("c1", "cold"), user("e")], conversation=named)
        assert ids(whole) == ["a", "b", "c", "d", None, None]
        assert len(whole.conversation.coming) == 2
        assert [record.id for record in whole.records] == ["resp_0", "resp_1"]
        assert whole.conversation.call_ids == {"c1"}
    with pytest.raises(BadRequest, match="No tool output found for function call c1"):
        await found(store, input="e", conversation="conv_1")


async def test_what_was_taken_out_of_a_conversation_is_not_said_again_in_it(store: Store) -> None:
    talks = await begun(store, user("a") | {"id": "a"}, user("b") | {"id": "b"})
    await talks.append("conv_1", made("resp_1", "resp_0", said("d", "d"), input=[user("c") | {"id": "c"}]), owner=OWNER)
    await talks.append("conv_1", removal_of("resp_2", parent="resp_1", created_at=1, item_id="a"), owner=OWNER)
    await talks.append("conv_1", removal_of("resp_3", parent="resp_2", created_at=1, item_id="d"), owner=OWNER)
    assert ids(await found(store, input="e", conversation="conv_1")) == ["b", "c", None]
    assert ids(await found(store, input="e", previous_response_id="resp_1")) == ["a", "b", "c", "d", None]
    again = await found(store, input=[user("x") | {"id": "a"}], conversation="conv_1")
    assert ids(again) == ["b", "c", "a"]


async def test_an_item_of_a_conversation_is_not_said_again_in_it_and_may_be_elsewhere(store: Store) -> None:
    await begun(store, user("a") | {"id": "a"})
    for again in ({"id": "a"}, user("x") | {"id": "a"}):
        with pytest.raises(BadRequest, match="Duplicate item found with id a"):
            await found(store, input=[again], conversation="conv_1")
    assert ids(await found(store, input=[{"id": "a"}])) == ["a"]


async def test_a_response_of_a_conversation_brings_all_that_was_said_before_it(store: Store) -> None:
    talks = await begun(store, user("a") | {"id": "a"})
    await talks.append("conv_1", made("resp_1", "resp_0", said("c", "c"), input=[user("b") | {"id": "b"}]), owner=OWNER)
    await talks.append("conv_1", made("resp_2", "resp_1", said("e", "e"), input=[user("d") | {"id": "d"}]), owner=OWNER)
    assert ids(await found(store, input="x", previous_response_id="resp_1")) == ["a", "b", "c", None]
    await store.delete("resp_2", owner=OWNER)
    await talks.delete("conv_1", owner=OWNER)
    assert ids(await found(store, input="x", previous_response_id="resp_1")) == ["a", "b", "c", None]
    # What was put there by a client is no response.
    error = await refused(store, input="x", previous_response_id="resp_0")
    assert str(error) == "Previous response with id 'resp_0' not found."


async def test_a_conversation_that_is_not_there_is_not_found_in_the_same_words(store: Store) -> None:
    talks = await begun(store, user("a") | {"id": "a"}, owner="bob")
    await talks.create("conv_2", owner=OWNER, created_at=1, metadata={}, items=None)
    await talks.delete("conv_2", owner=OWNER)
    for named in ("conv_1", "conv_2", "conv_3", "", "conv_", "conv_a-b", "conv_1/../2", "resp_1", "x" * 500):
        with pytest.raises(NotFound) as caught:
            await found(store, input="hi", conversation=named)
        assert str(caught.value) == f"Conversation with id '{named[:100]}' not found."
        assert (caught.value.status, caught.value.param, caught.value.code) == (404, None, None)
        with pytest.raises(NotFound):
            await said_in(named, store, owner=OWNER)


def test_an_id_is_told_without_what_no_header_or_log_should_see() -> None:
    assert str(no_conversation("a\r\nb\x00\x1b[31mé")) == "Conversation with id 'ab[31mé' not found."


def test_ids_have_one_form() -> None:
    for pattern, prefix in ((RESPONSE_ID, "resp"), (CONVERSATION_ID, "conv")):
        assert pattern.fullmatch(f"{prefix}_" + "aZ9" * 21)
        for odd in (
            prefix,
            f"{prefix}_",
            f"{prefix}_a b",
            f"{prefix}_é",
            f"{prefix}_a\n",
            f"{prefix}_" + "a" * 65,
            "x_a",
        ):
            assert not pattern.fullmatch(odd)


async def test_what_is_in_no_store_may_be_continued_where_it_is_known(store: Store) -> None:
    def held(id: str, content: str) -> Record:
        item = json.dumps({**user(content), "id": f"msg_{id}"}).encode()
        return Record(id=id, parent=None, created_at=1, status="completed", response=b"{}", input=[item], output=[])

    records = [held("resp_1", "one"), held("resp_2", "two")]
    request = request_of(input="three", previous_response_id="resp_2")
    found = await lineage(request, store, owner=OWNER, local={"resp_2": records})
    assert (found.records, found.is_local) == (records, True)
    assert [json.loads(item.raw)["content"] for item in found.conversation.items] == ["one", "two", "three"]
    with pytest.raises(InvalidRequest):
        await lineage(request, store, owner=OWNER)
