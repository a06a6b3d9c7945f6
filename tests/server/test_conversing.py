import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import pytest
from structlog.testing import capture_logs

from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.script import HttpError, Trouble, answer, call, calls, silence, text, thought
from rejoinder.conformance.upstreams.sent import SentRequest
from rejoinder.server.assembly import assemble
from rejoinder.server.health import Health
from rejoinder.server.services import Services
from rejoinder.server.settings import load
from rejoinder.store import Change, StoreError
from tests.server.site import (
    NOW,
    NOWHERE,
    WEATHER,
    Json,
    Reply,
    Site,
    body_of,
    exact,
    folded,
    gated,
    output_of,
    services_in,
    site,
    user,
)

Upstream: TypeAlias = ChatUpstream | AnthropicUpstream | GeminiUpstream | ResponsesUpstream

ANN, BOB = "key-of-ann", "key-of-bob"
NOBODY = "conv_" + "0" * 32


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
async def here(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    keys = {"ann": ANN, "bob": BOB}
    async with site(services_in(tmp_path_factory.mktemp("conversing"), provider.base_url, keys=keys)) as running:
        yield running


@pytest.fixture(autouse=True)
def _echo(provider: ChatUpstream) -> Iterator[None]:
    """What the provider says unless a test wants something else; it has nothing against what it is asked."""
    provider.requests.clear()
    provider.follow(lambda request: answer(text(f"re: {request.messages[-1].text}")))
    yield
    assert provider.objections == []


async def talk(here: Site, method: str, path: str = "", fields: object = None, *, key: str | None = ANN) -> Reply:
    body = None if fields is None else json.dumps(fields).encode()
    return await here.ask(method, f"/v1/conversations{path}", body, key=key)


async def begun(here: Site, *items: Json, key: str | None = ANN, **fields: object) -> str:
    reply = await talk(here, "POST", "", {"items": items, **fields}, key=key)
    assert reply.status == 200, reply.body
    conversation_id: str = reply.json["id"]
    return conversation_id


async def created(here: Site, *, key: str | None = ANN, **fields: Json) -> Json:
    reply = await here.create(key=key, **fields)
    assert reply.status == 200, reply.body
    return reply.json


async def said(here: Site, conversation: str, query: str = "", *, key: str | None = ANN) -> list[Json]:
    """All that is in a conversation, the oldest first."""
    reply = await talk(here, "GET", f"/{conversation}/items?order=asc&limit=100{query}", key=key)
    assert reply.status == 200, reply.body
    assert set(reply.json) == {"object", "data", "first_id", "last_id", "has_more"}
    assert all(item["id"] for item in reply.json["data"])
    items: list[Json] = reply.json["data"]
    return items


async def words(here: Site, conversation: str, *, key: str | None = ANN) -> list[str]:
    return [item["content"][0]["text"] for item in await said(here, conversation, key=key)]


async def given_to(here: Site, response_id: str, *, key: str | None = ANN) -> list[Json]:
    """The items a response was made from, the oldest first."""
    reply = await here.get(f"{response_id}/input_items?order=asc&limit=100", key=key)
    assert reply.status == 200, reply.body
    items: list[Json] = reply.json["data"]
    return items


def error(reply: Reply, status: int) -> Json:
    """The error of a reply; its envelope has all four members, and nothing beside them (http.md §6.1)."""
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json"), reply.body
    assert reply.headers["x-request-id"].startswith("req_")
    assert set(reply.json) == {"error"}
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    return reply.json["error"]


def no_conversation(conversation_id: str) -> Json:
    return {
        "message": f"Conversation with id '{conversation_id}' not found.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


LOCKED = {
    "message": "Another process is currently operating on this conversation. Please retry in a few seconds.",
    "type": "invalid_request_error",
    "param": "conversation",
    "code": "conversation_locked",
}


def texts(sent: SentRequest) -> list[str]:
    return [message.text for message in sent.chat.messages]


def part(content: str, kind: str = "input_text") -> Json:
    return [{"type": kind, "text": content, **({"annotations": []} if kind == "output_text" else {})}]


# What a conversation is


async def test_a_conversation_is_what_it_was_begun_with(tmp_path: Path) -> None:
    async with site(exact(services_in(tmp_path, NOWHERE))) as here:
        first = await talk(here, "POST", "", {"metadata": {"topic": "x"}, "items": [user("hi")]}, key=None)
        bare = await talk(here, "POST", "", {}, key=None)
        items = await said(here, first.json["id"], key=None)
    id = "0" * 31
    assert first.json == {
        "id": f"conv_{id}1", "object": "conversation", "created_at": NOW, "metadata": {"topic": "x"},
    }  # fmt: skip
    assert bare.json == {"id": f"conv_{id}2", "object": "conversation", "created_at": NOW, "metadata": {}}
    assert items == [
        {
            "id": f"msg_{id}10001", "type": "message", "role": "user", "content": part("hi"), "status": "completed",
        }
    ]  # fmt: skip


async def test_a_conversation_is_retrieved_as_it_was_begun(here: Site) -> None:
    reply = await talk(here, "POST", "", {"metadata": {"a": "b"}})
    again = await talk(here, "GET", f"/{reply.json['id']}")
    assert (again.status, again.body, again.headers["content-type"]) == (200, reply.body, "application/json")


@pytest.mark.parametrize("nothing", [{}, {"items": None, "metadata": None}, {"items": [], "metadata": {}}])
async def test_a_conversation_may_begin_with_nothing(here: Site, nothing: Json) -> None:
    reply = await talk(here, "POST", "", nothing)
    assert (reply.status, reply.json["metadata"]) == (200, {})
    assert await said(here, reply.json["id"]) == []
    empty = await talk(here, "GET", f"/{reply.json['id']}/items")
    assert empty.json == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_metadata_is_replaced_and_null_leaves_none(here: Site) -> None:
    conversation = await begun(here, metadata={"a": "1", "b": "2"})
    for given, left in (({"c": "3"}, {"c": "3"}), (None, {}), ({"d": "4"}, {"d": "4"}), ({}, {})):
        told = await talk(here, "POST", f"/{conversation}", {"metadata": given})
        assert (told.status, told.json["metadata"]) == (200, left)
        assert (await talk(here, "GET", f"/{conversation}")).body == told.body


FULL = {f"{n:x}" * 64: "v" * 512 for n in range(16)}


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({f"key {n}": "v" for n in range(17)}, "invalid_value"),
        ({"k" * 65: "v"}, "string_above_max_length"),
        ({"k": "v" * 513}, "string_above_max_length"),
        ({"k": 1}, "invalid_type"),
        ({"k": None}, "invalid_type"),
        ([], "invalid_type"),
        ("k=v", "invalid_type"),
    ],
)
async def test_metadata_over_its_limits_is_refused(here: Site, metadata: Json, code: str) -> None:
    """objects.md §1: 16 pairs of 64 and 512 characters."""
    conversation = await begun(here, metadata=FULL)
    for path in ("", f"/{conversation}"):
        found = error(await talk(here, "POST", path, {"metadata": metadata}), 400)
        assert found["param"].startswith("metadata")
        assert found["code"] == code
    assert (await talk(here, "GET", f"/{conversation}")).json["metadata"] == FULL


async def test_an_update_without_metadata_is_refused(here: Site) -> None:
    conversation = await begun(here)
    found = error(await talk(here, "POST", f"/{conversation}", {}), 400)
    assert (found["param"], found["code"]) == ("metadata", "missing_required_parameter")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff", b'{"items":' + b"[" * 200 + b"]" * 200 + b"}"])
async def test_a_body_that_makes_no_sense_is_refused(here: Site, body: bytes) -> None:
    conversation = await begun(here)
    for path in ("", f"/{conversation}", f"/{conversation}/items"):
        error(await here.ask("POST", f"/v1/conversations{path}", body, key=ANN), 400)
    assert await said(here, conversation) == []


# Items


async def test_items_keep_their_ids_or_get_one_and_strings_become_parts(here: Site) -> None:
    conversation = await begun(here, user("one"), {"role": "user", "content": "two", "id": "msg_mine"})
    reply = await talk(
        here,
        "POST",
        f"/{conversation}/items",
        {"items": [{"role": "assistant", "content": "three"}, {"role": "developer", "content": part("four")}]},
    )
    items = await said(here, conversation)
    assert reply.json == {
        "object": "list",
        "data": items[2:],
        "first_id": items[2]["id"],
        "last_id": items[3]["id"],
        "has_more": False,
    }
    assert [item["content"] for item in items] == [
        *[part("one"), part("two"), part("three", "output_text")],
        part("four"),
    ]
    assert [(item["type"], item["status"]) for item in items] == [("message", "completed")] * 4
    assert items[1]["id"] == "msg_mine"
    assert len({item["id"] for item in items}) == 4
    assert all(item["id"].startswith("msg_") for item in items)


async def test_an_item_is_retrieved_as_it_is_listed(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(thought("hm"), text("hi"), calls(call("weather", id="c1")))])
    conversation = await begun(here, user("one"))
    await created(here, input="two", conversation=conversation, tools=[WEATHER])
    items = await said(here, conversation)
    assert [item["type"] for item in items] == ["message", "message", "reasoning", "message", "function_call"]
    for item in items:
        assert (await talk(here, "GET", f"/{conversation}/items/{item['id']}")).json == item


async def test_what_nobody_knows_comes_back_as_the_bytes_it_was(here: Site) -> None:
    odd = b'{"b":1.50,"a":[1e3,-0,"\\u00e9\\ud83d\\ude00"],"c":null,"d":12345678901234567890123}'
    item = b'{"type":"acme:hologram","id":"holo_1","status":"glowing","x":%b}' % odd
    whole = b'{"items":[%b]}' % item
    reply = await here.ask("POST", "/v1/conversations", whole, key=ANN)
    conversation = reply.json["id"]
    path = f"/v1/conversations/{conversation}/items"
    again = [
        await here.ask("GET", path, key=ANN),
        await here.ask("GET", f"{path}/holo_1", key=ANN),
        await here.ask("POST", path, whole.replace(b"holo_1", b"holo_2"), key=ANN),
    ]
    assert again[1].body == item
    assert b'"data":[%b]' % item in again[0].body
    assert b'"data":[%b]' % item.replace(b"holo_1", b"holo_2") in again[2].body


@pytest.mark.parametrize("count", [0, 1, 20])
async def test_up_to_20_items_are_taken_at_once(here: Site, count: int) -> None:
    items = [user(f"{n}") for n in range(count)]
    conversation = await begun(here, *items)
    reply = await talk(here, "POST", f"/{conversation}/items", {"items": items})
    assert (reply.status, len(reply.json["data"])) == (200, count)
    assert await words(here, conversation) == [f"{n}" for n in range(count)] * 2


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ([user("x")] * 21, "items", "invalid_value"),
        ("hi", "items", "invalid_type"),
        ([7], "items[0]", "invalid_type"),
        ([user("a"), {"type": "message"}], "items[1].role", "missing_required_parameter"),
        ([user("a"), {"content": "x"}], "items[1].type", "missing_required_parameter"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "items[0].content[0].text", None),
        ([user("a"), {"type": "compaction_trigger"}], "items[1]", None),
        ([user("a"), {"id": "msg_nobody"}], "items[1].id", None),
        ([user("a") | {"id": "m"}, user("b") | {"id": "m"}], "items[1].id", None),
    ],
)
async def test_items_that_cannot_be_taken_are_refused_by_name_and_none_is_taken(
    here: Site, given: Json, param: str, code: str | None
) -> None:
    conversation = await begun(here)
    for path in ("", f"/{conversation}/items"):
        found = error(await talk(here, "POST", path, {"items": given}), 400)
        assert found["param"] == param
        assert found["code"] in (code, "missing_required_parameter")
    assert await said(here, conversation) == []


async def test_items_to_add_have_to_be_there(here: Site) -> None:
    conversation = await begun(here)
    for fields in ({}, {"items": None}):
        assert error(await talk(here, "POST", f"/{conversation}/items", fields), 400)["param"] == "items"


async def test_an_item_that_is_there_is_not_added_again(here: Site) -> None:
    conversation = await begun(here, user("one") | {"id": "msg_1"})
    [own] = (await created(here, input="two", conversation=conversation))["output"]
    for again in (user("x") | {"id": "msg_1"}, {"id": "msg_1"}, user("x") | {"id": own["id"]}, {"id": own["id"]}):
        found = error(await talk(here, "POST", f"/{conversation}/items", {"items": [user("new"), again]}), 400)
        assert found["message"] == f"Duplicate item found with id {again['id']}. It is in the conversation already."
        assert found["param"] == "items[1].id"
        found = error(await here.create(key=ANN, conversation=conversation, input=[user("new"), again]), 400)
        assert found["message"].startswith(f"Duplicate item found with id {again['id']}.")
    assert await words(here, conversation) == ["one", "two", "re: two"]


async def test_an_item_of_elsewhere_is_added_by_its_id(here: Site) -> None:
    [elsewhere] = (await created(here, input="hi"))["output"]
    conversation = await begun(here, {"id": elsewhere["id"]})
    other = await begun(here, user("in another") | {"id": "msg_in_another"})
    reply = await talk(
        here, "POST", f"/{conversation}/items", {"items": [{"type": "item_reference", "id": "msg_in_another"}]}
    )
    assert reply.json["data"][0]["content"] == part("in another")
    assert await said(here, conversation) == [elsewhere, *await said(here, other)]


async def test_pages_follow_one_another(here: Site) -> None:
    conversation = await begun(here, *[user(f"{n}") for n in range(7)])
    forwards = await said(here, conversation)
    for order, expected in (("asc", forwards), ("desc", forwards[::-1])):
        found: list[Json] = []
        query = f"?order={order}&limit=3"
        while True:
            page = (await talk(here, "GET", f"/{conversation}/items{query}")).json
            assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
            found += page["data"]
            if not page["has_more"]:
                break
            query = f"?order={order}&limit=3&after={page['last_id']}"
        assert found == expected
    newest = (await talk(here, "GET", f"/{conversation}/items?limit=1")).json
    assert newest["data"] == forwards[-1:], "the newest comes first (http.md §1)"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("order=up", "order"),
        ("after=msg_x", "after"),
        ("include[]=everything", "include"),
    ],
)
async def test_a_page_that_makes_no_sense_is_refused(here: Site, query: str, param: str) -> None:
    conversation = await begun(here, user("hi"))
    assert error(await talk(here, "GET", f"/{conversation}/items?{query}"), 400)["param"] == param


async def test_what_is_included_is_shown_to_who_asks_for_it(here: Site) -> None:
    image = {"type": "input_image", "image_url": "https://a.test/b.png", "detail": "low"}
    search = {
        "type": "file_search_call",
        "id": "fs_1",
        "queries": ["x"],
        "results": [{"text": "y"}],
        "status": "completed",
    }
    conversation = await begun(here)
    path = f"/{conversation}/items"
    query = "include[]=message.input_image.image_url&include[]=file_search_call.results"

    def found(items: Json) -> Json:
        return items[0]["content"][0]["image_url"], items[1]["results"]

    whole, hidden = ("https://a.test/b.png", [{"text": "y"}]), (None, None)
    told = await talk(here, "POST", f"{path}?{query}", {"items": [{"role": "user", "content": [image]}, search]})
    assert found(told.json["data"]) == whole
    assert found(await said(here, conversation, f"&{query}")) == whole
    assert found(await said(here, conversation)) == hidden
    ids = [item["id"] for item in told.json["data"]]
    assert found([(await talk(here, "GET", f"{path}/{id}?{query}")).json for id in ids]) == whole
    assert found([(await talk(here, "GET", f"{path}/{id}")).json for id in ids]) == hidden
    other = await begun(here)
    assert (
        found(
            (
                await talk(here, "POST", f"/{other}/items", {"items": [{"role": "user", "content": [image]}, search]})
            ).json["data"]
        )
        == hidden
    )
    for method, where, body in (("POST", path, {"items": []}), ("GET", f"{path}/{ids[0]}", None)):
        assert error(await talk(here, method, f"{where}?include=all", body), 400)["param"] == "include"


# Turns


async def test_a_turn_goes_on_from_all_that_was_said_and_is_added_to_it(here: Site, provider: ChatUpstream) -> None:
    conversation = await begun(here, {"role": "system", "content": "be brief"}, user("one"))
    first = await created(here, input="two", conversation=conversation)
    second = await created(here, input=[user("three"), user("four")], conversation={"id": conversation})
    assert first["conversation"] == second["conversation"] == {"id": conversation}
    assert first["previous_response_id"] is None
    assert [texts(sent) for sent in provider.requests] == [
        ["be brief", "one", "two"],
        ["be brief", "one", "two", "re: two", "three", "four"],
    ]
    everything = await said(here, conversation)
    assert await words(here, conversation) == [*texts(provider.requests[-1]), "re: four"]
    assert everything[3] == first["output"][0]
    assert everything[6] == second["output"][0]
    assert len({item["id"] for item in everything}) == 7
    assert await given_to(here, second["id"]) == everything[:6]
    assert await given_to(here, first["id"]) == everything[:3]
    for response in (first, second):
        assert (await here.get(response["id"], key=ANN)).json == response


async def test_a_turn_may_say_nothing_itself(here: Site, provider: ChatUpstream) -> None:
    conversation = await begun(here, user("well?"))
    await created(here, conversation=conversation)
    assert texts(provider.requests[0]) == ["well?"]
    assert await words(here, conversation) == ["well?", "re: well?"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_request_begins_with_the_bytes_of_this_one(
    here: Site, provider: ChatUpstream, stream: bool
) -> None:
    """mapping.md §0.2: else no cache of a provider serves it."""
    provider.follow(
        [
            answer(thought("hm"), text("Let me see."), calls(call("weather", '{"city": "Oslo"}', id="c1"))),
            answer(text("Cold.")),
            answer(text("é😀")),
            answer(text("Bye.")),
        ]
    )
    conversation = await begun(here, {"role": "developer", "content": "be brief"}, user("hi") | {"x": 1.50})
    for input in ("Oslo?", [output_of("c1", "3 °C")], [user("And?") | {"id": "msg_mine"}], "Thanks."):
        reply = await here.create(key=ANN, input=input, conversation=conversation, tools=[WEATHER], stream=stream)
        assert reply.status == 200, reply.body
        if stream:
            folded(reply.events)
        await talk(here, "POST", f"/{conversation}", {"metadata": {"turn": str(input)[:9]}})
    bodies = [sent.body for sent in provider.requests]
    assert len(bodies) == 4
    for one, other in pairwise(bodies):
        assert one.endswith(b"]}"), "the messages come last"
        assert other.startswith(one[:-2] + b",")


async def test_a_call_of_one_turn_is_answered_in_the_next(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(calls(call("weather", id="c1"), call("weather", id="c2"))), answer(text("Cold."))])
    conversation = await begun(here)
    await created(here, input="Oslo?", conversation=conversation, tools=[WEATHER])
    asked = len(provider.requests)
    for items, message in (
        ([user("Well?")], "No tool output found for function call c1."),
        ([output_of("c1", "cold")], "No tool output found for function call c2."),
        ([], "No tool output found for function call c1."),
        ([output_of("c9", "x")], "No tool call found for function call output with call_id c9."),
    ):
        for stream in (False, True):
            found = error(await here.create(key=ANN, input=items, conversation=conversation, stream=stream), 400)
            assert (found["message"], found["param"], found["code"]) == (message, "input", None)
    assert len(provider.requests) == asked
    answers = [output_of("c1", "cold"), output_of("c2", "warm")]
    await created(here, input=answers, conversation=conversation, tools=[WEATHER])
    assert [item["type"] for item in await said(here, conversation)] == [
        *["message", "function_call", "function_call"],
        *["function_call_output", "function_call_output", "message"],
    ]
    found = error(await here.create(key=ANN, input=[output_of("c1", "x")], conversation=conversation), 400)
    assert "is answered already" in found["message"]


async def test_the_output_of_a_call_may_be_added_before_the_turn(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(calls(call("weather", id="c1"))), answer(text("Cold."))])
    conversation = await begun(here)
    await created(here, input="Oslo?", conversation=conversation, tools=[WEATHER])
    await talk(here, "POST", f"/{conversation}/items", {"items": [output_of("c1", "cold")]})
    await created(here, input="Well?", conversation=conversation, tools=[WEATHER])
    assert [message.role for message in provider.requests[-1].chat.messages] == ["user", "assistant", "tool", "user"]


async def test_two_things_to_go_on_from_are_one_too_many(here: Site, provider: ChatUpstream) -> None:
    conversation = await begun(here)
    response = await created(here, input="hi", conversation=conversation)
    provider.requests.clear()
    for stream in (False, True):
        reply = await here.create(
            key=ANN, input="x", conversation=conversation, previous_response_id=response["id"], stream=stream
        )
        found = error(reply, 400)
        assert (found["code"], found["param"]) == ("mutually_exclusive_parameters", "previous_response_id")
    assert provider.requests == []


async def test_a_response_of_a_conversation_is_continued_like_any_other_and_the_conversation_is_not(
    here: Site, provider: ChatUpstream
) -> None:
    conversation = await begun(here, user("one"))
    first = await created(here, input="two", conversation=conversation)
    fork = await created(here, input="aside", previous_response_id=first["id"])
    assert texts(provider.requests[-1]) == ["one", "two", "re: two", "aside"]
    assert fork["conversation"] is None
    second = await created(here, input="three", conversation=conversation)
    assert texts(provider.requests[-1]) == ["one", "two", "re: two", "three"]
    await created(here, input="on", previous_response_id=fork["id"])
    assert texts(provider.requests[-1]) == ["one", "two", "re: two", "aside", "re: aside", "on"]
    assert await words(here, conversation) == ["one", "two", "re: two", "three", "re: three"]
    assert (await here.delete(second["id"], key=ANN)).status == 200
    await created(here, input="again", previous_response_id=first["id"])
    assert texts(provider.requests[-1]) == ["one", "two", "re: two", "again"]


async def test_a_response_that_is_deleted_stays_in_its_conversation(here: Site, provider: ChatUpstream) -> None:
    """http.md §1: items and responses are not deleted with one another."""
    conversation = await begun(here)
    responses = [await created(here, input=word, conversation=conversation) for word in ("one", "two", "three")]
    before = await said(here, conversation)
    for response in (responses[1], responses[2]):
        assert (await here.delete(response["id"], key=ANN)).status == 200
        assert (await here.get(response["id"], key=ANN)).status == 404
        assert (await here.get(f"{response['id']}/input_items", key=ANN)).status == 404
        found = error(await here.create(key=ANN, input="x", previous_response_id=response["id"]), 400)
        assert found["code"] == "previous_response_not_found"
        assert await said(here, conversation) == before
    last = await created(here, input="four", conversation=conversation)
    assert texts(provider.requests[-1]) == ["one", "re: one", "two", "re: two", "three", "re: three", "four"]
    assert await given_to(here, last["id"]) == [*before, (await said(here, conversation))[-2]]


async def test_a_conversation_that_is_deleted_leaves_its_responses(here: Site, provider: ChatUpstream) -> None:
    conversation = await begun(here, user("one") | {"id": "msg_of_deleted"})
    response = await created(here, input="two", conversation=conversation)
    given = await given_to(here, response["id"])
    reply = await talk(here, "DELETE", f"/{conversation}")
    assert (reply.status, reply.json) == (
        200,
        {"id": conversation, "object": "conversation.deleted", "deleted": True},
    )
    for method, path, fields in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "", {"metadata": {}}),
        ("GET", "/items", None),
        ("POST", "/items", {"items": [user("x")]}),
        ("GET", "/items/msg_of_deleted", None),
        ("DELETE", "/items/msg_of_deleted", None),
    ):
        found = error(await talk(here, method, f"/{conversation}{path}", fields), 404)
        assert found == no_conversation(conversation)
    assert error(await here.create(key=ANN, input="x", conversation=conversation), 404) == no_conversation(conversation)
    assert (await here.get(response["id"], key=ANN)).json == response
    assert await given_to(here, response["id"]) == given
    await created(here, input="three", previous_response_id=response["id"])
    assert texts(provider.requests[-1]) == ["one", "two", "re: two", "three"]
    await created(here, input=[{"id": "msg_of_deleted"}])
    assert texts(provider.requests[-1]) == ["one"], "a response still builds on it"


async def test_items_nothing_builds_on_go_with_their_conversation(here: Site) -> None:
    conversation = await begun(here, user("one") | {"id": "msg_alone"})
    await talk(here, "POST", f"/{conversation}/items", {"items": [user("two") | {"id": "msg_alone_too"}]})
    await talk(here, "DELETE", f"/{conversation}")
    for id in ("msg_alone", "msg_alone_too"):
        assert "not found" in error(await here.create(key=ANN, input=[{"id": id}]), 400)["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_is_not_to_be_stored_leaves_no_trace(
    here: Site, provider: ChatUpstream, stream: bool
) -> None:
    """semantics.md §4: not stored, and nothing is appended."""
    conversation = await begun(here, user("one"))
    reply = await here.create(key=ANN, input="secret", conversation=conversation, store=False, stream=stream)
    response = folded(reply.events) if stream else reply.json
    assert (response["store"], response["conversation"]) == (False, {"id": conversation})
    assert texts(provider.requests[-1]) == ["one", "secret"]
    assert (await here.get(response["id"], key=ANN)).status == 404
    assert await words(here, conversation) == ["one"]
    await created(here, input="two", conversation=conversation)
    assert texts(provider.requests[-1]) == ["one", "two"]


async def test_a_turn_that_fails_leaves_no_trace_and_is_not_continued(here: Site, provider: ChatUpstream) -> None:
    conversation = await begun(here, user("one"))
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("cut", after=2)), HttpError(500), answer(text("fine"))])
    failed = folded((await here.create(key=ANN, input="two", conversation=conversation, stream=True)).events)
    assert (failed["status"], failed["conversation"]) == ("failed", {"id": conversation})
    assert (await here.get(failed["id"], key=ANN)).json == failed
    assert (await here.create(key=ANN, input="two", conversation=conversation)).status == 502
    assert await words(here, conversation) == ["one"]
    found = error(await here.create(key=ANN, input="on", previous_response_id=failed["id"]), 400)
    assert found["code"] == "previous_response_not_found"
    assert [item["content"] for item in await given_to(here, failed["id"])] == [part("two")]
    await created(here, input="three", conversation=conversation)
    assert texts(provider.requests[-1]) == ["one", "three"]
    assert await words(here, conversation) == ["one", "three", "fine"]


async def test_a_turn_that_is_cut_is_part_of_the_conversation(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("Hel"), finish="length"), answer(text("fine"))])
    conversation = await begun(here)
    first = await created(here, input="one", conversation=conversation)
    assert first["status"] == "incomplete"
    await created(here, input="two", conversation=conversation)
    assert texts(provider.requests[-1]) == ["one", "Hel", "two"]
    assert await words(here, conversation) == ["one", "Hel", "two", "fine"]


async def test_half_a_call_stays_in_the_conversation_and_is_not_said_again(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("So"), calls(call("weather", '{"ci', id="c1")), finish="length"), answer(text("ok"))])
    conversation = await begun(here)
    await created(here, input="one", conversation=conversation, tools=[WEATHER])
    await created(here, input="two", conversation=conversation, tools=[WEATHER])
    assert texts(provider.requests[-1]) == ["one", "So", "two"]
    assert [item["status"] for item in await said(here, conversation)][2] == "incomplete"


# One thing at a time


async def test_while_a_turn_goes_on_nothing_else_changes_what_was_said(here: Site, provider: ChatUpstream) -> None:
    """http.md §6.2: 400, not 409."""
    conversation = await begun(here, user("one") | {"id": "msg_first"})
    provider.follow([answer(text("slow"), delay=1.0)])
    turn = asyncio.create_task(here.create(key=ANN, input="two", conversation=conversation))
    await asyncio.to_thread(provider.wait, 1)
    refused: list[Reply] = [
        await here.create(key=ANN, input="x", conversation=conversation),
        await here.create(key=ANN, input="x", conversation={"id": conversation}, stream=True),
        await here.create(key=ANN, input="x", conversation=conversation, store=False),
        await here.create(key=ANN, input="x", conversation=conversation, background=True),
        await talk(here, "POST", f"/{conversation}/items", {"items": [user("x")]}),
        await talk(here, "DELETE", f"/{conversation}/items/msg_first"),
        await talk(here, "DELETE", f"/{conversation}"),
    ]
    for reply in refused:
        assert error(reply, 400) == LOCKED
    # What changes nothing of it goes on, and so do others.
    described = await talk(here, "POST", f"/{conversation}", {"metadata": {"a": "b"}})
    assert (described.status, described.json["metadata"]) == (200, {"a": "b"})
    assert await words(here, conversation) == ["one"]
    assert (await talk(here, "GET", f"/{conversation}/items/msg_first")).status == 200
    assert not turn.done()
    assert (await turn).status == 200
    assert await words(here, conversation) == ["one", "two", "slow"]
    assert (await talk(here, "GET", f"/{conversation}")).json["metadata"] == {"a": "b"}
    assert (await talk(here, "POST", f"/{conversation}/items", {"items": [user("three")]})).status == 200


async def test_a_conversation_is_free_when_its_turn_was_refused_or_its_client_left(
    here: Site, provider: ChatUpstream
) -> None:
    conversation = await begun(here, user("one"))
    error(await here.create(key=ANN, input=[output_of("c1", "x")], conversation=conversation), 400)
    provider.follow([silence()])
    asking = asyncio.create_task(here.create(key=ANN, input="two", conversation=conversation))
    sent = await asyncio.to_thread(provider.wait, 1)
    asking.cancel()
    assert await asyncio.to_thread(sent.left.wait, 2)
    provider.follow([answer(text("fine"))])
    for _ in range(100):
        reply = await here.create(key=ANN, input="three", conversation=conversation)
        if reply.status == 200:
            break
        await asyncio.sleep(0.01)
    assert await words(here, conversation) == ["one", "three", "fine"]


async def test_a_client_may_go_on_as_soon_as_it_has_heard_the_end(here: Site) -> None:
    """Not behind the end of the body: an SDK posts the next turn when it reads the last event."""
    conversation = await begun(here)
    url = f"http://127.0.0.1:{here.port}/v1/responses"
    for number in range(20):
        asked = body_of(input=f"{number}", conversation=conversation, stream=True)
        headers = {"authorization": f"Bearer {ANN}"}
        async with here.client.post(url, data=asked, headers=headers) as response:
            assert response.status == 200, await response.read()
            while b'"response.completed"' not in await response.content.readline():
                pass
    assert len(await said(here, conversation)) == 40


async def test_a_turn_in_the_background_holds_the_conversation_until_it_is_over(
    here: Site, provider: ChatUpstream
) -> None:
    conversation = await begun(here, user("one"))
    provider.follow([answer(text("slow"), delay=0.5), answer(text("fine")), answer(text("fine"))])
    queued = await created(here, input="two", conversation=conversation, background=True)
    assert (queued["status"], queued["conversation"]) == ("queued", {"id": conversation})
    assert error(await here.create(key=ANN, input="x", conversation=conversation), 400) == LOCKED
    assert await words(here, conversation) == ["one"]
    ended = await until_over(here, queued["id"])
    assert ended["status"] == "completed"
    assert await words(here, conversation) == ["one", "two", "slow"]
    await created(here, input="three", conversation=conversation)
    assert texts(provider.requests[-1]) == ["one", "two", "slow", "three"]
    await created(here, input="fork", previous_response_id=queued["id"])
    assert texts(provider.requests[-1]) == ["one", "two", "slow", "fork"]


async def until_over(here: Site, response_id: str) -> Json:
    if (run := here.runs.get(response_id, "ann")) is not None:
        await run.over.wait()
    return (await here.get(response_id, key=ANN)).json


async def test_a_turn_that_is_cancelled_leaves_no_trace_and_is_not_continued(
    here: Site, provider: ChatUpstream
) -> None:
    conversation = await begun(here, user("one"))
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("stall", after=2)), answer(text("fine"))])
    queued = await created(here, input="two", conversation=conversation, background=True)
    await asyncio.to_thread(provider.wait, 1)
    reply = await here.ask("POST", f"/v1/responses/{queued['id']}/cancel", key=ANN)
    assert (reply.status, reply.json["status"]) == (200, "cancelled")
    assert await words(here, conversation) == ["one"]
    found = error(await here.create(key=ANN, input="on", previous_response_id=queued["id"]), 400)
    assert found["code"] == "previous_response_not_found"
    await created(here, input="three", conversation=conversation)
    assert texts(provider.requests[-1]) == ["one", "three"]


async def test_a_response_in_a_conversation_that_is_deleted_while_it_is_made_leaves_no_trace(
    here: Site, provider: ChatUpstream
) -> None:
    conversation = await begun(here, user("one"))
    provider.follow([silence(), answer(text("fine"))])
    queued = await created(here, input="two", conversation=conversation, background=True)
    await asyncio.to_thread(provider.wait, 1)
    assert (await here.delete(queued["id"], key=ANN)).status == 200
    assert (await here.get(queued["id"], key=ANN)).status == 404
    await created(here, input="three", conversation=conversation)
    assert await words(here, conversation) == ["one", "three", "fine"]


# Items that are taken out


async def test_an_item_that_is_taken_out_is_no_part_of_the_conversation(here: Site, provider: ChatUpstream) -> None:
    conversation = await begun(here, user("one"), user("two") | {"id": "msg_two"}, metadata={"a": "b"})
    first = await created(here, input="three", conversation=conversation)
    before = await given_to(here, first["id"])
    for gone in ("msg_two", first["output"][0]["id"]):
        reply = await talk(here, "DELETE", f"/{conversation}/items/{gone}")
        assert reply.status == 200
        assert reply.body == (await talk(here, "GET", f"/{conversation}")).body, "http.md §1: the conversation"
        for method in ("GET", "DELETE"):
            found = error(await talk(here, method, f"/{conversation}/items/{gone}"), 404)
            assert found["message"] == f"Item with id '{gone}' not found in this conversation."
        assert error(await talk(here, "GET", f"/{conversation}/items?after={gone}"), 400)["param"] == "after"
    assert await words(here, conversation) == ["one", "three"]
    second = await created(here, input="four", conversation=conversation)
    assert texts(provider.requests[-1]) == ["one", "three", "four"]
    assert [item["content"][0]["text"] for item in await given_to(here, second["id"])] == ["one", "three", "four"]
    # A response that was made with it goes on being one that was.
    assert await given_to(here, first["id"]) == before
    assert (await here.get(first["id"], key=ANN)).json == first
    await created(here, input="fork", previous_response_id=first["id"])
    assert texts(provider.requests[-1]) == ["one", "two", "three", "re: three", "fork"]


async def test_an_item_that_was_taken_out_may_be_said_again(here: Site, provider: ChatUpstream) -> None:
    conversation = await begun(here, user("one") | {"id": "msg_again"})
    for number in range(3):
        await talk(here, "DELETE", f"/{conversation}/items/msg_again")
        assert await said(here, conversation) == []
        await talk(here, "POST", f"/{conversation}/items", {"items": [user(f"{number}") | {"id": "msg_again"}]})
        assert await words(here, conversation) == [f"{number}"]
    await created(here, conversation=conversation)
    assert texts(provider.requests[-1]) == ["2"]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("function_call", "No tool call found for function call output with call_id c1."),
        ("function_call_output", "No tool output found for function call c1."),
    ],
)
async def test_half_of_a_pair_that_stays_is_an_error_that_says_what_is_wrong(
    here: Site, provider: ChatUpstream, gone: str, message: str
) -> None:
    provider.follow([answer(calls(call("weather", id="c1"))), answer(text("Cold.")), answer(text("fine"))])
    conversation = await begun(here)
    await created(here, input="Oslo?", conversation=conversation, tools=[WEATHER])
    await created(here, input=[output_of("c1", "cold")], conversation=conversation, tools=[WEATHER])
    by_type = {item["type"]: item["id"] for item in await said(here, conversation)}
    assert (await talk(here, "DELETE", f"/{conversation}/items/{by_type[gone]}")).status == 200
    for stream in (False, True):
        found = error(await here.create(key=ANN, input="on", conversation=conversation, stream=stream), 400)
        assert (found["message"], found["param"]) == (message, "input")
    assert len(provider.requests) == 2
    # It is mended by taking out the other half.
    [other] = {"function_call", "function_call_output"} - {gone}
    await talk(here, "DELETE", f"/{conversation}/items/{by_type[other]}")
    await created(here, input="on", conversation=conversation)
    assert texts(provider.requests[-1]) == ["Oslo?", "Cold.", "on"]


DIALECTS: Mapping[str, tuple[type[Upstream], str, str]] = {
    "chat": (ChatUpstream, "test-model", ""),
    "anthropic": (AnthropicUpstream, "claude-sonnet-4-5", 'vendor = "anthropic"'),
    "gemini": (GeminiUpstream, "gemini-3-flash", ""),
    "responses": (ResponsesUpstream, "gpt-5.4", 'vendor = "openai"'),
}


@pytest.mark.parametrize(
    "dialect",
    [
        "chat",
        "anthropic",
        "gemini",
        "responses",
    ],
)
async def test_whatever_is_taken_out_no_provider_is_sent_what_it_must_refuse(tmp_path: Path, dialect: str) -> None:
    kind, model, further = DIALECTS[dialect]
    with kind(models=[model]) as upstream:
        async with site(served(tmp_path, dialect, upstream.base_url, further)) as here:
            taken = 0
            left = 1
            while taken < left:
                upstream.follow(
                    [
                        answer(thought("hm"), text("Let me see."), calls(call("weather", "{}", id=f"call_{taken}"))),
                        answer(thought("so"), text("Cold.")),
                        answer(text("fine")),
                    ]
                )
                conversation = await begun(here, {"role": "developer", "content": "be brief"}, user("hi"), key=None)
                fields: Json = {"model": model, "conversation": conversation, "tools": [WEATHER], "key": None}
                first = await created(here, input="Oslo?", reasoning={"effort": "high"}, **fields)
                call_id = first["output"][-1]["call_id"]
                await created(here, input=[output_of(call_id, "3")], reasoning={"effort": "high"}, **fields)
                items = await said(here, conversation, key=None)
                left = len(items)
                gone = items[taken]
                await talk(here, "DELETE", f"/{conversation}/items/{gone['id']}", key=None)
                asked = len(upstream.requests)
                reply = await here.create(input="on", **fields)
                paired = gone["type"] in ("function_call", "function_call_output")
                assert (reply.status, len(upstream.requests) - asked) == ((400, 0) if paired else (200, 1)), reply.body
                taken += 1
        assert upstream.objections == []


async def test_the_output_that_was_taken_out_may_be_given_again(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(calls(call("weather", id="c1"))), answer(text("Warm."))])
    conversation = await begun(here)
    await created(here, input="Oslo?", conversation=conversation, tools=[WEATHER])
    wrong = await talk(here, "POST", f"/{conversation}/items", {"items": [output_of("c1", "cold")]})
    await talk(here, "DELETE", f"/{conversation}/items/{wrong.json['first_id']}")
    await created(here, input=[output_of("c1", "warm")], conversation=conversation, tools=[WEATHER])
    assert texts(provider.requests[-1])[-1] == "warm"


# Isolation


async def test_a_foreign_conversation_looks_like_one_that_never_was(here: Site, provider: ChatUpstream) -> None:
    """reliability.md P6, S3: same status, body and headers, on every route and in every parameter."""
    mine = await begun(here, user("secret") | {"id": "msg_secret"}, metadata={"topic": "secret"})
    response = await created(here, input="secret too", conversation=mine)
    bobs = await begun(here, key=BOB)
    own = response["output"][0]["id"]

    async def asked(conversation: str, item: str, made: str) -> list[Reply]:
        requests: Sequence[Callable[[], Awaitable[Reply]]] = [
            lambda: talk(here, "GET", f"/{conversation}", key=BOB),
            lambda: talk(here, "POST", f"/{conversation}", {"metadata": {}}, key=BOB),
            lambda: talk(here, "POST", f"/{conversation}", {}, key=BOB),
            lambda: talk(here, "DELETE", f"/{conversation}", key=BOB),
            lambda: talk(here, "GET", f"/{conversation}/items", key=BOB),
            lambda: talk(here, "GET", f"/{conversation}/items?after={item}", key=BOB),
            lambda: talk(here, "GET", f"/{conversation}/items?limit=0", key=BOB),
            lambda: talk(here, "POST", f"/{conversation}/items", {"items": [user("x")]}, key=BOB),
            lambda: talk(here, "POST", f"/{conversation}/items", {"items": [{"id": item}]}, key=BOB),
            lambda: talk(here, "GET", f"/{conversation}/items/{item}", key=BOB),
            lambda: talk(here, "DELETE", f"/{conversation}/items/{item}", key=BOB),
            lambda: talk(here, "GET", f"/{bobs}/items/{item}", key=BOB),
            lambda: talk(here, "DELETE", f"/{bobs}/items/{item}", key=BOB),
            lambda: talk(here, "GET", f"/{bobs}/items?after={item}", key=BOB),
            lambda: talk(here, "POST", f"/{bobs}/items", {"items": [{"id": item}]}, key=BOB),
            lambda: talk(here, "POST", "", {"items": [{"type": "item_reference", "id": item}]}, key=BOB),
            lambda: here.create(key=BOB, input=[{"id": item}]),
            lambda: here.create(key=BOB, input=[{"id": item}], conversation=bobs, stream=True),
            lambda: here.create(key=BOB, input="x", conversation=conversation),
            lambda: here.create(key=BOB, input="x", conversation=conversation, stream=True),
            lambda: here.create(key=BOB, input="x", conversation=conversation, store=False),
            lambda: here.create(key=BOB, input="x", conversation=conversation, background=True),
            lambda: here.create(key=BOB, input="x", conversation=conversation, headers={"idempotency-key": "k"}),
            lambda: here.create(key=BOB, input="x", conversation={"id": conversation}),
            lambda: here.create(key=BOB, input="x", previous_response_id=made),
            lambda: here.get(made, key=BOB),
            lambda: here.get(f"{made}/input_items", key=BOB),
            lambda: here.get(f"{made}?stream=true", key=BOB),
            lambda: here.ask("POST", f"/v1/responses/{made}/cancel", key=BOB),
            lambda: here.delete(made, key=BOB),
            lambda: here.ask(
                "POST", "/v1/responses/input_tokens", body_of(input="x", conversation=conversation), key=BOB
            ),
        ]
        return [await request() for request in requests]

    for item in ("msg_secret", own):
        foreign = await asked(mine, item, response["id"])
        unknown = await asked(NOBODY, "msg_nobody", "resp_" + "0" * 32)
        for one, other in zip(foreign, unknown, strict=True):
            assert one.status in (400, 404)
            names = ((mine, NOBODY), (item, "msg_nobody"), (response["id"], "resp_" + "0" * 32))
            body = one.body.decode()
            for real, none in names:
                body = body.replace(real, none)
            assert (one.status, body) == (other.status, other.body.decode())
            assert set(one.headers) == set(other.headers)
            assert b'secret"' not in one.body
    assert await words(here, mine) == ["secret", "secret too", "re: secret too"]
    assert (await talk(here, "GET", f"/{mine}")).json["metadata"] == {"topic": "secret"}
    assert await said(here, bobs, key=BOB) == []


async def test_a_foreign_conversation_is_not_even_busy(here: Site, provider: ChatUpstream) -> None:
    mine = await begun(here)
    provider.follow([answer(text("slow"), delay=0.5)])
    turn = asyncio.create_task(here.create(key=ANN, input="hi", conversation=mine))
    await asyncio.to_thread(provider.wait, 1)
    assert error(await here.create(key=BOB, input="x", conversation=mine), 404) == no_conversation(mine)
    assert error(await talk(here, "DELETE", f"/{mine}", key=BOB), 404) == no_conversation(mine)
    assert not turn.done()
    assert (await turn).status == 200


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("conv_unknown", "conv_unknown"),
        ("resp_a", "resp_a"),
        ("conv_a-b", "conv_a-b"),
        ("%00x%0D%0A%C3%A9", "xé"),
        ("x" * 500, "x" * 100),
    ],
)
async def test_a_conversation_nobody_has_is_not_found_whatever_it_looks_like(here: Site, path: str, shown: str) -> None:
    for reply in (
        await talk(here, "GET", f"/{path}"),
        await talk(here, "POST", f"/{path}", {"metadata": None}),
        await talk(here, "DELETE", f"/{path}"),
        await talk(here, "GET", f"/{path}/items"),
        await talk(here, "POST", f"/{path}/items", {"items": []}),
        await talk(here, "GET", f"/{path}/items/msg_1"),
        await talk(here, "DELETE", f"/{path}/items/msg_1"),
    ):
        assert error(reply, 404) == no_conversation(shown)


@pytest.mark.parametrize("named", ["", "conv_unknown", "conv_a/b", "x" * 500, "resp_a", "conv_\r\n\x00"])
async def test_a_turn_of_a_conversation_nobody_has_is_refused_in_the_same_words(
    here: Site, provider: ChatUpstream, named: str
) -> None:
    shown = "".join(char for char in named[:100] if char.isprintable())
    for stream in (False, True):
        reply = await here.create(key=ANN, input="x", conversation=named, stream=stream)
        assert error(reply, 404) == no_conversation(shown)
    assert provider.requests == []


async def test_an_item_nobody_has_is_not_found_whatever_it_looks_like(here: Site) -> None:
    conversation = await begun(here, user("hi"))
    for path, shown in (("msg_x", "msg_x"), ("%00x%0D%0A%C3%A9", "xé"), ("x" * 500, "x" * 100)):
        for method in ("GET", "DELETE"):
            found = error(await talk(here, method, f"/{conversation}/items/{path}"), 404)
            assert found["message"] == f"Item with id '{shown}' not found in this conversation."
    assert len(await said(here, conversation)) == 1


async def test_what_a_client_puts_into_a_conversation_is_no_response(here: Site) -> None:
    """The record of the items has an id of the same form; it leads nowhere."""
    conversation = await begun(here, user("one"))
    record = conversation.replace("conv_", "resp_")
    for reply in (
        await here.get(record, key=ANN),
        await here.get(f"{record}/input_items", key=ANN),
        await here.delete(record, key=ANN),
        await here.ask("POST", f"/v1/responses/{record}/cancel", key=ANN),
    ):
        assert error(reply, 404)["message"] == f"Response with id '{record}' not found."
    found = error(await here.create(key=ANN, input="x", previous_response_id=record), 400)
    assert found["code"] == "previous_response_not_found"


# The store


async def test_everything_survives_a_restart(tmp_path: Path, provider: ChatUpstream) -> None:
    async with site(services_in(tmp_path, provider.base_url)) as here:
        conversation = await begun(here, user("one") | {"id": "msg_one"}, user("gone") | {"id": "msg_gone"}, key=None)
        first = await created(here, input="two", conversation=conversation, key=None)
        await talk(here, "DELETE", f"/{conversation}/items/msg_gone", key=None)
        second = await created(here, input="three", conversation=conversation, key=None)
        await talk(here, "POST", f"/{conversation}/items", {"items": [user("four")]}, key=None)
        await talk(here, "POST", f"/{conversation}", {"metadata": {"a": "b"}}, key=None)
        deleted = await begun(here, key=None)
        await talk(here, "DELETE", f"/{deleted}", key=None)
        before = [
            (await talk(here, "GET", f"/{conversation}", key=None)).body,
            await said(here, conversation, key=None),
            await given_to(here, first["id"], key=None),
            await given_to(here, second["id"], key=None),
        ]
    provider.requests.clear()
    async with site(services_in(tmp_path, provider.base_url)) as here:
        assert before == [
            (await talk(here, "GET", f"/{conversation}", key=None)).body,
            await said(here, conversation, key=None),
            await given_to(here, first["id"], key=None),
            await given_to(here, second["id"], key=None),
        ]
        error(await talk(here, "GET", f"/{deleted}", key=None), 404)
        await created(here, input="five", conversation=conversation, key=None)
        await created(here, input=[{"id": "msg_one"}], key=None)
        await created(here, input="fork", previous_response_id=first["id"], key=None)
    assert [texts(sent) for sent in provider.requests] == [
        ["one", "two", "re: two", "three", "re: three", "four", "five"],
        ["one"],
        ["one", "gone", "two", "re: two", "fork"],
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_could_not_be_stored_does_not_move_the_conversation(
    tmp_path: Path, provider: ChatUpstream, stream: bool
) -> None:
    """reliability.md F12, P2: record and place in the conversation are one commit."""
    services, gate = await gated(services_in(tmp_path, provider.base_url))
    async with site(services) as here:
        conversation = await begun(here, user("one") | {"id": "msg_one"}, key=None)
        gate.before = unwritable
        with capture_logs():
            reply = await here.create(input="two", conversation=conversation, stream=stream)
        if stream:
            assert folded(reply.events)["status"] == "failed"
        else:
            assert error(reply, 500)["code"] == "server_error"
        gate.before = None
        await Health(services).look()
        assert await words(here, conversation, key=None) == ["one"]
        await created(here, input="three", conversation=conversation, key=None)
        assert texts(provider.requests[-1]) == ["one", "three"]
        assert await words(here, conversation, key=None) == ["one", "three", "re: three"]


async def test_what_could_not_be_written_changes_nothing(tmp_path: Path) -> None:
    services, gate = await gated(services_in(tmp_path, NOWHERE))
    async with site(services) as here:
        conversation = await begun(here, user("one") | {"id": "msg_one"}, key=None)
        gate.before = unwritable
        for method, path, fields in (
            ("POST", "", {}),
            ("POST", f"/{conversation}", {"metadata": {"a": "b"}}),
            ("POST", f"/{conversation}/items", {"items": [user("x")]}),
            ("DELETE", f"/{conversation}/items/msg_one", None),
            ("DELETE", f"/{conversation}", None),
        ):
            with capture_logs() as logs:
                reply = await talk(here, method, path, fields, key=None)
            assert error(reply, 503)["type"] == "server_error"
            assert reply.headers["retry-after"] == "1"
            assert [log["event"] for log in logs] == ["store unavailable"]
        gate.before = None
        assert await words(here, conversation, key=None) == ["one"]
        assert (await talk(here, "GET", f"/{conversation}", key=None)).json["metadata"] == {}
        assert (await talk(here, "DELETE", f"/{conversation}/items/msg_one", key=None)).status == 200


def unwritable(change: Change) -> None:
    raise StoreError("read-only file system")


async def test_a_turn_is_one_commit_with_its_place_in_the_conversation(tmp_path: Path, provider: ChatUpstream) -> None:
    services, gate = await gated(services_in(tmp_path, provider.base_url))
    async with site(services) as here:
        conversation = await begun(here, user("one"), key=None)
        assert gate.commits == 1
        await created(here, input="two", conversation=conversation, key=None)
        assert gate.commits == 2
        await created(here, input="three", conversation=conversation, store=False, key=None)
        await talk(here, "POST", f"/{conversation}/items", {"items": []}, key=None)
        assert gate.commits == 2, "nothing to keep, nothing kept"


async def test_what_the_upstream_keeps_is_not_referred_to_where_something_was_added_or_taken_out(
    tmp_path: Path,
) -> None:
    """An upstream of this very API may keep its responses; it knows nothing of what is done to a conversation here."""
    with ResponsesUpstream(models=["gpt-5.4"]) as provider:
        provider.follow(lambda request: answer(text("ok")))
        further = 'vendor = "openai"\nresponses = { lineage = "reference" }'
        async with site(served(tmp_path, "responses", provider.base_url, further)) as here:
            conversation = await begun(here, user("one"), key=None)
            path = f"/{conversation}/items"

            async def turn(word: str) -> tuple[bool, list[str]]:
                await created(here, model="gpt-5.4", input=word, conversation=conversation, key=None)
                sent = provider.requests[-1].responses
                assert isinstance(sent.input, list)
                return sent.previous_response_id is not None, [item.text for item in sent.input]

            assert await turn("two") == (False, ["one", "two"])
            assert await turn("three") == (True, ["three"])
            added = await talk(here, "POST", path, {"items": [user("aside")]}, key=None)
            assert await turn("four") == (False, ["one", "two", "ok", "three", "ok", "aside", "four"])
            assert await turn("five") == (True, ["five"])
            await talk(here, "DELETE", f"{path}/{added.json['first_id']}", key=None)
            assert await turn("six") == (False, ["one", "two", "ok", "three", "ok", "four", "ok", "five", "ok", "six"])
            assert await turn("seven") == (True, ["seven"])
        assert provider.objections == []


def served(directory: Path, dialect: str, base_url: str, further: str) -> Services:
    file = directory / "rejoinder.toml"
    file.write_text(
        f'[server]\nstore = "disk:{directory / "store"}"\nretries = 0\n'
        f'[[upstream]]\nname = "one"\ndialect = "{dialect}"\nbase_url = "{base_url}"\nmodels = ["*"]\n{further}\n'
    )
    return assemble(load(file, {}))


@pytest.mark.parametrize("odd", ["", " ", "a/b", "a\u0000", "é", "x" * 257])
async def test_an_item_nobody_could_ask_for_by_its_id_is_refused(here: Site, odd: str) -> None:
    conversation = await begun(here)
    item = {**user("hi"), "id": odd}
    for path, fields in (("", {"items": [user("first"), item]}), (f"/{conversation}/items", {"items": [item]})):
        found = error(await talk(here, "POST", path, fields), 400)
        assert found["param"] == f"items[{len(fields['items']) - 1}].id"
    assert await said(here, conversation) == []


@pytest.mark.parametrize(
    ("path", "fields"),
    [("", {"items": []}), ("/{}", {"metadata": {}}), ("/{}/items", {"items": [{"role": "user", "content": "hi"}]})],
)
async def test_a_parameter_nobody_knows_is_named(here: Site, path: str, fields: Json) -> None:
    conversation = await begun(here)
    found = error(await talk(here, "POST", path.format(conversation), {**fields, "title": "mine"}), 400)
    assert (found["param"], found["code"]) == ("title", "unknown_parameter")
    assert found["message"] == "Unknown parameter: 'title'."


async def test_an_item_no_response_was_made_with_cannot_be_referred_to_once_it_is_taken_out(here: Site) -> None:
    conversation = await begun(here, {**user("mine"), "id": "msg_mine"})
    await talk(here, "DELETE", f"/{conversation}/items/msg_mine")
    reply = await here.create(key=ANN, input=[{"id": "msg_mine"}])
    assert "not found" in error(reply, 400)["message"]


async def test_an_item_of_a_turn_is_found_whatever_its_client_called_it(here: Site) -> None:
    conversation = await begun(here)
    await created(here, input=[{**user("hi"), "id": "a/b c"}], conversation=conversation)
    reply = await talk(here, "GET", f"/{conversation}/items/a%2Fb%20c")
    assert (reply.status, reply.json["id"]) == (200, "a/b c")
