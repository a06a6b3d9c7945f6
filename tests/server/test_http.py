import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.script import HttpError, Trouble, answer, call, calls, silence, text, thought
from rejoinder.server import turn
from rejoinder.server.errors import InvalidRequest
from rejoinder.server.http import LONGEST_KEY, idempotency_key
from rejoinder.store import StoreError
from tests.server.site import (
    MODEL,
    WEATHER,
    Json,
    Reply,
    Site,
    body_of,
    folded,
    gated,
    output_of,
    services_in,
    site,
    user,
)

ANN, BOB = "key-of-ann", "key-of-bob"


@pytest.fixture(scope="module")
def provider() -> Iterator[ChatUpstream]:
    with ChatUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
async def here(provider: ChatUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    keys = {"ann": ANN, "bob": BOB}
    async with site(services_in(tmp_path_factory.mktemp("http"), provider.base_url, keys=keys)) as running:
        yield running


@pytest.fixture(autouse=True)
def _echo(provider: ChatUpstream) -> Iterator[None]:
    """What the provider says unless a test wants something else; it has nothing against what it is asked."""
    provider.requests.clear()
    provider.follow(lambda request: answer(text(f"re: {request.messages[-1].text}")))
    yield
    assert provider.objections == []


async def created(here: Site, *, key: str = ANN, **fields: Json) -> Json:
    reply = await here.create(key=key, **fields)
    assert reply.status == 200, reply.body
    return reply.json


def error(reply: Reply, status: int) -> Json:
    """The error of a reply; its envelope has all four members, and nothing beside them (http.md §6.1)."""
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json")
    assert reply.headers["x-request-id"].startswith("req_")
    assert set(reply.json) == {"error"}
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    return reply.json["error"]


def not_found(response_id: str) -> Json:
    return {
        "message": f"Response with id '{response_id}' not found.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


async def test_a_plain_answer_is_json_with_a_request_id(here: Site) -> None:
    reply = await here.create(key=ANN, input="hi")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.headers["x-request-id"].startswith("req_")
    assert "x-rejoinder-notes" not in reply.headers
    assert reply.json["output"][0]["content"][0]["text"] == "re: hi"


async def test_what_is_left_out_is_said_in_a_header(here: Site) -> None:
    reply = await here.create(key=ANN, input="hi", seed=7, user="me")
    assert reply.notes == ["seed: unknown or without effect here", "user: not understood by this upstream"]


async def test_a_note_that_quotes_the_client_does_not_hold_up_the_server(here: Site) -> None:
    odd: Json = {"x" * 5000: 1, "y\r\nset-cookie: a": 2}
    reply = await asyncio.wait_for(here.create(key=ANN, input="hi", **odd), 5)
    assert reply.status == 200
    assert "set-cookie" not in reply.headers
    assert reply.notes[1] == "y\r\nset-cookie: a: unknown or without effect here"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": 7}, "input", "invalid_type"),
        ({"input": "hi", "temperature": 3}, "temperature", "invalid_value"),
        ({"input": "hi", "prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"input": "hi", "model": None}, "model", "missing_required_parameter"),
        ({"input": "hi", "model": "nobody/" + "x" * 300}, "model", "model_not_found"),
        ({"input": [{"type": "hologram", "x": 1}, user("hi")]}, "input", "invalid_value"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_before_anybody_is_asked(
    here: Site, provider: ChatUpstream, stream: bool, fields: Json, param: str, code: str
) -> None:
    found = error(await here.create(key=ANN, stream=stream, **fields), 400)
    assert (found["param"], found["code"], found["type"]) == (param, code, "invalid_request_error")
    assert provider.requests == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model":"m"', b"\xff"])
async def test_a_body_that_is_no_json_object_is_refused(here: Site, body: bytes) -> None:
    error(await here.ask("POST", "/v1/responses", body, key=ANN), 400)


async def test_a_large_body_is_read_like_any_other(here: Site, provider: ChatUpstream) -> None:
    assert (await here.create(key=ANN, input="x" * 2**21)).status == 200
    assert len(provider.requests[0].chat.messages[0].text) == 2**21
    error(await here.create(key=ANN, input="x" * 2**21, temperature=3), 400)
    error(await here.ask("POST", "/v1/responses", b"{" * 2**21, key=ANN), 400)


async def test_a_client_that_leaves_gets_no_answer_and_makes_no_noise(here: Site, provider: ChatUpstream) -> None:
    provider.follow([silence()])
    with capture_logs() as logs:
        asking = asyncio.create_task(here.create(key=ANN, input="hi"))
        sent = await asyncio.to_thread(provider.wait, 1)
        asking.cancel()
        assert await asyncio.to_thread(sent.left.wait, 2)
    assert logs == []


async def test_a_response_is_retrieved_as_it_was_answered(here: Site, provider: ChatUpstream) -> None:
    provider.follow(lambda request: answer(thought("hm"), text("hi"), calls(call("weather"))))
    plain = await here.create(key=ANN, input="hi", tools=[WEATHER])
    streamed = folded((await here.create(key=ANN, input="hi", tools=[WEATHER], stream=True)).events)
    for query in ("", "?stream=false", "?include[]=reasoning.encrypted_content"):
        again = await here.get(f"{plain.json['id']}{query}", key=ANN)
        assert (again.status, again.body) == (200, plain.body)
    assert (await here.get(streamed["id"], key=ANN)).json == streamed


async def test_a_failed_response_is_retrieved_as_what_it_is(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("Hel", "lo"), trouble=Trouble("cut", after=2))])
    failed = folded((await here.create(key=ANN, input="hi", stream=True)).events)
    assert failed["status"] == "failed"
    assert (await here.get(failed["id"], key=ANN)).json == failed
    found = error(await here.create(key=ANN, input="on", previous_response_id=failed["id"]), 400)
    assert found["code"] == "previous_response_not_found"


async def test_a_foreground_response_cannot_be_streamed_again(here: Site) -> None:
    response = await created(here, input="hi")
    found = error(await here.get(f"{response['id']}?stream=true&starting_after=1", key=ANN), 400)
    assert found["param"] == "stream"


async def test_a_deleted_response_is_gone(here: Site, provider: ChatUpstream) -> None:
    parent = await created(here, input="one")
    child = await created(here, input="two", previous_response_id=parent["id"])
    reply = await here.delete(parent["id"], key=ANN)
    assert (reply.status, reply.json) == (200, {"id": parent["id"], "object": "response", "deleted": True})
    for gone in (
        await here.get(parent["id"], key=ANN),
        await here.get(f"{parent['id']}/input_items", key=ANN),
        await here.delete(parent["id"], key=ANN),
    ):
        assert error(gone, 404) == not_found(parent["id"])
    refused = error(await here.create(key=ANN, input="on", previous_response_id=parent["id"]), 400)
    assert refused["code"] == "previous_response_not_found"
    await created(here, input="three", previous_response_id=child["id"])
    texts = [message.text for message in provider.requests[-1].chat.messages]
    assert texts == ["one", "re: one", "two", "re: two", "three"]


async def test_a_response_that_was_not_to_be_stored_is_not_found(here: Site) -> None:
    response = await created(here, input="hi", store=False)
    assert error(await here.get(response["id"], key=ANN), 404) == not_found(response["id"])
    assert error(await here.get(f"{response['id']}/input_items", key=ANN), 404) == not_found(response["id"])
    assert error(await here.delete(response["id"], key=ANN), 404) == not_found(response["id"])
    refused = error(await here.create(key=ANN, input="on", previous_response_id=response["id"]), 400)
    assert refused["code"] == "previous_response_not_found"


@pytest.mark.parametrize(
    ("path", "shown"),
    [("resp_unknown", "resp_unknown"), ("resp_a-b", "resp_a-b"), ("%00x%0D%0A%C3%A9", "xé"), ("x" * 500, "x" * 100)],
)
async def test_an_id_nobody_has_is_not_found_whatever_it_looks_like(here: Site, path: str, shown: str) -> None:
    for reply in (
        await here.get(path, key=ANN),
        await here.get(f"{path}/input_items", key=ANN),
        await here.delete(path, key=ANN),
    ):
        assert error(reply, 404) == not_found(shown)


async def listed(here: Site, response_id: str, query: str = "") -> Json:
    reply = await here.get(f"{response_id}/input_items{query}", key=ANN)
    assert reply.status == 200, reply.body
    assert set(reply.json) == {"object", "data", "first_id", "last_id", "has_more"}
    assert reply.json["object"] == "list"
    return reply.json


async def paged(here: Site, response_id: str, order: str, limit: int) -> list[Json]:
    """All items, page by page, as an SDK asks for them (http.md §3)."""
    items: list[Json] = []
    query = f"?order={order}&limit={limit}"
    while True:
        page = await listed(here, response_id, query)
        items += page["data"]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            return items
        assert len(page["data"]) == limit
        query = f"?order={order}&limit={limit}&after={items[-1]['id']}"


async def test_input_items_are_everything_the_response_was_made_from(here: Site, provider: ChatUpstream) -> None:
    provider.follow(
        [answer(thought("hm"), calls(call("weather", id="c1"))), answer(text("Cold.")), answer(text("Bye."))]
    )
    first = await created(here, input=[user("Oslo?"), user("Well?") | {"id": "msg_mine"}], tools=[WEATHER])
    second = await created(here, input=[output_of("c1", "cold")], previous_response_id=first["id"])
    third = await created(here, input="Thanks.", previous_response_id=second["id"])
    everything = (await listed(here, third["id"], "?order=asc"))["data"]
    assert [item["type"] for item in everything] == [
        "message",
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "message",
        "message",
    ]
    assert everything[2:4] == first["output"]
    assert everything[5] == second["output"][0]
    assert everything[0]["content"] == [{"type": "input_text", "text": "Oslo?"}]
    assert everything[1]["id"] == "msg_mine"
    assert everything[4]["output"] == "cold"
    assert all(item["id"] and item["status"] == "completed" for item in everything)
    assert len({item["id"] for item in everything}) == 7
    assert (await listed(here, third["id"]))["data"] == everything[::-1], "the newest comes first (http.md §1)"
    assert (await listed(here, first["id"], "?order=asc"))["data"] == everything[:2], "its own output is not input"
    for limit in (1, 2, 3, 7, 100):
        assert await paged(here, third["id"], "asc", limit) == everything
        assert await paged(here, third["id"], "desc", limit) == everything[::-1]


async def test_a_page_of_nothing_is_an_empty_list(here: Site) -> None:
    response = await created(here, input="hi")
    [item] = (await listed(here, response["id"]))["data"]
    assert await listed(here, response["id"], f"?after={item['id']}") == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=101", "limit"), ("order=up", "order"), ("after=msg_x", "after")]
)
async def test_a_page_that_makes_no_sense_is_refused(here: Site, query: str, param: str) -> None:
    response = await created(here, input="hi")
    found = error(await here.get(f"{response['id']}/input_items?{query}", key=ANN), 400)
    assert found["param"] == param


async def test_what_nobody_knows_comes_back_as_the_bytes_it_was(here: Site) -> None:
    odd = b'{"b":1.50,"a":[1e3,-0,"\\u00e9\\ud83d\\ude00"],"c":null,"d":12345678901234567890123}'
    item = b'{"type":"message","role":"user","content":"hi","x_extra":%b}' % odd
    body = b'{"model":"%b","input":[%b]}' % (MODEL.encode(), item)
    reply = await here.ask("POST", "/v1/responses", body, key=ANN)
    again = await here.get(f"{reply.json['id']}/input_items", key=ANN)
    assert b'"x_extra":%b' % odd in again.body


async def test_a_foreign_response_looks_like_one_that_never_was(here: Site) -> None:
    mine = await created(here, input=[user("secret") | {"id": "msg_of_ann"}])
    asked: list[Callable[[], Awaitable[Reply]]] = [
        lambda: here.get(mine["id"], key=BOB),
        lambda: here.get(f"{mine['id']}/input_items", key=BOB),
        lambda: here.get(f"{mine['id']}/input_items?after=msg_of_ann", key=BOB),
        lambda: here.delete(mine["id"], key=BOB),
        lambda: here.create(key=BOB, input="on", previous_response_id=mine["id"]),
        lambda: here.create(key=BOB, input="on", previous_response_id=mine["id"], stream=True),
        lambda: here.create(key=BOB, input=[{"id": "msg_of_ann"}]),
        lambda: here.create(key=BOB, input=[{"type": "item_reference", "id": mine["output"][0]["id"]}]),
    ]
    foreign = [await ask() for ask in asked]
    assert (await here.get(mine["id"], key=ANN)).status == 200
    await here.delete(mine["id"], key=ANN)
    unknown = [await ask() for ask in asked]
    for one, other in zip(foreign, unknown, strict=True):
        assert one.status in (400, 404)
        assert (one.status, one.body) == (other.status, other.body)
        assert set(one.headers) == set(other.headers)
        assert b"secret" not in one.body


async def test_each_owner_has_a_world_of_its_own(here: Site, provider: ChatUpstream) -> None:
    ann = await created(here, input="I am Ann.")
    bob = await created(here, key=BOB, input="I am Bob.")
    await created(here, input="Who am I?", previous_response_id=ann["id"])
    await created(here, key=BOB, input="Who am I?", previous_response_id=bob["id"])
    ours, theirs = (sent.chat.messages[0].text for sent in provider.requests[2:])
    assert (ours, theirs) == ("I am Ann.", "I am Bob.")
    assert error(await here.get(ann["id"], key="key-of-nobody"), 401)["code"] == "invalid_api_key"
    assert error(await here.get(ann["id"]), 401)["code"] is None


async def test_a_stored_item_is_used_again_by_its_id(here: Site, provider: ChatUpstream) -> None:
    first = await created(here, input="Say hi.")
    [said] = first["output"]
    response = await created(here, input=[{"id": said["id"]}, {"role": "user", "content": "Again."}])
    assert [message.text for message in provider.requests[-1].chat.messages] == ["re: Say hi.", "Again."]
    shown = (await listed(here, response["id"], "?order=asc"))["data"]
    assert shown[0] == said, "a reference is listed as what it refers to (semantics.md §3)"


async def test_calls_and_outputs_must_pair(here: Site, provider: ChatUpstream) -> None:
    provider.follow(lambda request: answer(calls(call("weather", id="c1"))))
    first = await created(here, input="Oslo?", tools=[WEATHER])
    provider.requests.clear()
    for items, message in (
        ([user("Well?")], "No tool output found for function call c1."),
        ([output_of("c9", "x")], "No tool call found for function call output with call_id c9."),
    ):
        for stream in (False, True):
            fields: Json = {"input": items, "previous_response_id": first["id"], "stream": stream}
            found = error(await here.create(key=ANN, **fields), 400)
            assert (found["message"], found["param"], found["code"]) == (message, "input", None)
    assert provider.requests == []


async def test_a_response_in_the_background_is_told_at_once(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("slow"), delay=0.3)])
    reply = await here.create(key=ANN, input="hi", background=True)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert (reply.json["status"], reply.json["background"], reply.json["output"]) == ("queued", True, [])
    assert "idempotent-replay" not in reply.headers
    await over(here, reply.json["id"])
    assert (await here.get(reply.json["id"], key=ANN)).json["output"][0]["content"][0]["text"] == "slow"


async def over(here: Site, response_id: str, owner: str = "ann") -> None:
    if (run := here.runs.get(response_id, owner)) is not None:
        await run.over.wait()


async def test_a_response_in_the_background_may_be_streamed(here: Site) -> None:
    """events.md §4: `queued` comes between `created` and `in_progress`."""
    reply = await here.create(key=ANN, input="hi", background=True, stream=True, seed=7)
    events = reply.events
    kinds = [event["type"] for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert reply.notes == ["seed: unknown or without effect here"]


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_sent_again_with_its_key_is_answered_again(
    here: Site, provider: ChatUpstream, background: bool, stream: bool
) -> None:
    """reliability.md F14."""
    fields: Json = {"input": "hi", "background": background, "stream": stream}
    headers = {"idempotency-key": f"again-{background}-{stream}"}
    first = await here.create(key=ANN, headers=headers, **fields)
    response_id = first.events[0]["response"]["id"] if stream else first.json["id"]
    await over(here, response_id)
    second = await here.create(key=ANN, headers=headers, **fields)
    assert "idempotent-replay" not in first.headers
    assert (second.status, second.headers["idempotent-replay"]) == (200, "true")
    if stream:
        assert second.events == first.events
    else:
        assert second.json["id"] == response_id
        assert second.json["status"] == "completed"
    assert len(provider.requests) == 1
    other = error(await here.create(key=ANN, headers=headers, **{**fields, "input": "ho"}), 422)
    assert (other["code"], other["param"]) == ("idempotency_key_reused", "Idempotency-Key")
    # Another's key is another key.
    bobs = await here.create(key=BOB, headers=headers, **fields)
    assert "idempotent-replay" not in bobs.headers
    await over(here, bobs.events[0]["response"]["id"] if stream else bobs.json["id"], "bob")
    assert len(provider.requests) == 2


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_who_sends_a_request_again_while_it_is_made_joins(
    here: Site, provider: ChatUpstream, background: bool, stream: bool
) -> None:
    provider.follow([answer(text("a", "b"), delay=0.3)])
    fields: Json = {"input": "hi", "background": background, "stream": stream, "seed": 7}
    headers = {"idempotency-key": f"join-{background}-{stream}"}
    asking = asyncio.create_task(here.create(key=ANN, headers=headers, **fields))
    await asyncio.to_thread(provider.wait, 1)
    second = await here.create(key=ANN, headers=headers, **fields)
    first = await asking
    assert (second.status, second.headers["idempotent-replay"]) == (200, "true")
    assert first.notes == second.notes == ["seed: unknown or without effect here"]
    if stream:
        assert second.events == first.events
    elif background:
        assert second.json["id"] == first.json["id"]
        await over(here, first.json["id"])
    else:
        assert second.body == first.body
    assert len(provider.requests) == 1


async def test_a_request_with_a_key_that_fails_is_an_error_like_any_other(here: Site, provider: ChatUpstream) -> None:
    provider.follow([HttpError(500), answer(text("fine"))])
    headers = {"idempotency-key": "fails"}
    assert error(await here.create(key=ANN, headers=headers, input="hi"), 502)["code"] == "server_error"
    again = await here.create(key=ANN, headers=headers, input="hi")
    assert (again.status, again.json["status"]) == (200, "completed")


@pytest.mark.parametrize(
    "given",
    [[b""], [b"a", b"a"], [b"a", b"b"], [b"a b"], [b"\xe9"], [b"a\x00"], [b"a\x7f"], [b"x" * (LONGEST_KEY + 1)]],
)
def test_a_key_that_is_none_is_refused_by_name(given: list[bytes]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        idempotency_key([(b"accept", b"*/*"), *((b"idempotency-key", value) for value in given)])
    assert str(caught.value) == "Expected one Idempotency-Key of 1 to 255 visible ASCII characters."
    assert (caught.value.status, caught.value.param) == (400, "Idempotency-Key")


@pytest.mark.parametrize("value", [b"a", b"!~", b"x" * LONGEST_KEY, b"5b3e1f2a-0000-4000-8000-000000000000"])
def test_a_key_is_what_its_header_says(value: bytes) -> None:
    assert idempotency_key([(b"idempotency-key", value), (b"x-idempotency-key", b"other")]) == value.decode()
    assert idempotency_key([(b"x-idempotency-key", value)]) is None


async def test_a_conversation_is_compacted_on_its_own_path(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("We talked."))])
    reply = await here.ask(
        "POST", "/v1/responses/compact", body_of(input="hi", user=None, service_tier="flex"), key=ANN
    )
    found = error(reply, 400)
    assert (found["code"], found["param"]) == ("unknown_parameter", "user")
    reply = await here.ask("POST", "/v1/responses/compact", body_of(input="hi", service_tier="flex"), key=ANN)
    assert (reply.status, reply.json["object"]) == (200, "response.compaction")
    assert reply.notes == ["service_tier: not understood by this upstream"]


async def test_tokens_are_counted_on_a_path_of_their_own(here: Site, provider: ChatUpstream) -> None:
    reply = await here.ask("POST", "/v1/responses/input_tokens", body_of(input="hi"), key=ANN)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert set(reply.json) == {"object", "input_tokens"}
    assert reply.headers["x-rejoinder-counted-by"]
    assert provider.requests == []


@pytest.mark.parametrize("stream", [False, True])
async def test_what_does_not_fit_is_400_context_length_exceeded(
    here: Site, provider: ChatUpstream, stream: bool
) -> None:
    provider.follow([HttpError(400, "This model's maximum context length is 8192 tokens.")])
    found = error(await here.create(key=ANN, input="hi", stream=stream), 400)
    assert (found["code"], found["type"]) == ("context_length_exceeded", "invalid_request_error")


async def test_a_turn_that_cannot_be_stored_is_an_error_nobody_should_repeat(
    provider: ChatUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "STORE_TIMEOUT", -1.0)
    async with site(services_in(tmp_path, provider.base_url)) as here:
        reply = await here.create(input="hi")
        found = error(reply, 500)
        assert (found["type"], found["code"]) == ("server_error", "server_error")
        assert reply.headers["x-should-retry"] == "false"
        assert (await here.create(input="hi", store=False)).status == 200


async def test_while_the_store_does_not_work_a_turn_to_be_stored_is_put_off(
    provider: ChatUpstream, tmp_path: Path
) -> None:
    services, gate = await gated(services_in(tmp_path, provider.base_url))
    gate.on_probe = unwritable
    async with site(services) as here:
        while (await here.ask("GET", "/health")).status == 200:
            pass  # the first look is under way
        reply = await here.create(input="hi")
        assert error(reply, 503)["code"] == "server_error"
        assert reply.headers["retry-after"] == "5"
        assert provider.requests == []
        assert (await here.create(input="hi", store=False)).status == 200


def unwritable() -> None:
    raise StoreError("read-only file system")
