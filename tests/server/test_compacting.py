import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rejoinder.bridge.compaction import INSTRUCTION, PREAMBLE
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.responses_script import compaction
from rejoinder.conformance.upstreams.script import (
    HttpError,
    Trouble,
    Usage,
    answer,
    call,
    calls,
    silence,
    text,
    thought,
)
from rejoinder.server.assembly import assemble
from rejoinder.server.compacting import TAKEN, compaction_of
from rejoinder.server.services import Services
from rejoinder.server.settings import load
from rejoinder.wire.errors import BadRequest
from tests.server.site import (
    NOW,
    WEATHER,
    Json,
    Reply,
    Site,
    body_of,
    exact,
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
    async with site(services_in(tmp_path_factory.mktemp("compacting"), provider.base_url, keys=keys)) as running:
        yield running


@pytest.fixture(autouse=True)
def _summary(provider: ChatUpstream) -> Iterator[None]:
    provider.requests.clear()
    provider.follow(lambda request: answer(text("We talked.")))
    yield
    assert provider.objections == []


async def compacted(here: Site, *, key: str | None = ANN, **fields: object) -> Reply:
    return await here.ask("POST", "/v1/responses/compact", body_of(**fields), key=key)


async def done(here: Site, *, key: str | None = ANN, **fields: object) -> Json:
    reply = await compacted(here, key=key, **fields)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json"), reply.body
    assert set(reply.json) == {"id", "object", "created_at", "output", "usage"}
    assert reply.json["object"] == "response.compaction"
    return reply.json


def error(reply: Reply, status: int) -> Json:
    assert (reply.status, reply.headers["content-type"]) == (status, "application/json"), reply.body
    assert set(reply.json["error"]) == {"message", "type", "param", "code"}
    return reply.json["error"]


def texts(provider: ChatUpstream) -> list[str]:
    return [message.text for message in provider.requests[-1].chat.messages]


def words(output: list[Json]) -> list[str]:
    """What users said; each item before the last is a whole message of theirs, and the last stands for the rest."""
    *messages, compaction = output
    for message in messages:
        assert (message["type"], message["role"], message["status"]) == ("message", "user", "completed")
        assert message["id"].startswith("msg_")
    assert (compaction["type"], compaction["id"][:4]) == ("compaction", "cmp_")
    assert set(compaction) == {"type", "id", "encrypted_content"}
    assert len({item["id"] for item in output}) == len(output)
    return [message["content"][0]["text"] for message in messages]


# What comes back


async def test_a_compacted_list_is_what_users_said_and_one_item_for_the_rest(
    tmp_path: Path, provider: ChatUpstream
) -> None:
    async with site(exact(services_in(tmp_path, provider.base_url))) as here:
        found = await done(here, input=[user("one"), {"role": "assistant", "content": "yes"}, user("two")], key=None)
    sealed = found["output"][2].pop("encrypted_content")
    assert sealed.startswith("brg1.")
    stem = "0" * 31 + "2"
    message = {"type": "message", "role": "user", "status": "completed"}
    assert found == {
        "id": f"resp_{stem}",
        "object": "response.compaction",
        "created_at": NOW,
        "output": [
            message | {"id": f"msg_{stem}0001", "content": [{"type": "input_text", "text": "one"}]},
            message | {"id": f"msg_{stem}0002", "content": [{"type": "input_text", "text": "two"}]},
            {"id": "cmp_" + "0" * 31 + "10001", "type": "compaction"},
        ],
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 18,
        },
    }


async def test_a_string_is_one_message_of_the_user(here: Site, provider: ChatUpstream) -> None:
    found = await done(here, input="Tell me of é.")
    assert words(found["output"]) == ["Tell me of é."]
    assert texts(provider) == ["Tell me of é.", INSTRUCTION]


async def test_what_was_spent_is_told(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(thought("hm"), text("We talked."), usage=Usage(100, 20, cached=60, reasoning=5))])
    assert (await done(here, input="hi"))["usage"] == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 0},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 120,
    }


async def test_what_was_compacted_is_the_input_of_the_next_call(here: Site, provider: ChatUpstream) -> None:
    found = await done(here, input=[user("one"), {"role": "assistant", "content": "yes"}, user("two")])
    provider.follow(lambda request: answer(text("Fine.")))
    reply = await here.create(key=ANN, input=[*found["output"], user("three")], instructions="be brief")
    assert reply.status == 200, reply.body
    assert texts(provider) == ["be brief", "one", "two", PREAMBLE + "We talked.", "three"]
    # And so is what was stored of that call.
    await here.create(key=ANN, input="four", previous_response_id=reply.json["id"])
    assert texts(provider) == ["one", "two", PREAMBLE + "We talked.", "three", "Fine.", "four"]


async def test_what_was_compacted_can_be_compacted_again(here: Site, provider: ChatUpstream) -> None:
    first = await done(here, input=[user("one"), {"role": "assistant", "content": "yes"}])
    provider.follow(lambda request: answer(text("We talked on.")))
    second = await done(here, input=[*first["output"], user("two"), {"role": "assistant", "content": "no"}])
    assert texts(provider) == ["one", PREAMBLE + "We talked.", "two", "no", INSTRUCTION]
    assert words(second["output"]) == ["one", "two"]
    await here.create(key=ANN, input=second["output"])
    assert texts(provider) == ["one", "two", PREAMBLE + "We talked on."]


async def test_what_one_owner_compacted_is_closed_to_another(here: Site) -> None:
    found = await done(here, input="secret")
    refused = error(await here.create(key=BOB, input=found["output"]), 400)
    assert (refused["code"], refused["param"]) == ("invalid_encrypted_content", "input")


# What is compacted


async def test_a_previous_response_is_compacted_with_all_before_it(here: Site, provider: ChatUpstream) -> None:
    provider.follow(lambda request: answer(text(f"re: {request.messages[-1].text}")))
    first = (await here.create(key=ANN, input="one")).json
    second = (
        await here.create(key=ANN, input=[user("two") | {"id": "msg_two"}], previous_response_id=first["id"])
    ).json
    provider.follow(lambda request: answer(text("We talked.")))
    alone = await done(here, previous_response_id=second["id"])
    assert texts(provider) == ["one", "re: one", "two", "re: two", INSTRUCTION]
    assert words(alone["output"]) == ["one", "two"]
    more = await done(here, previous_response_id=second["id"], input="three")
    assert texts(provider) == ["one", "re: one", "two", "re: two", "three", INSTRUCTION]
    assert words(more["output"]) == ["one", "two", "three"]
    nothing = await done(here, previous_response_id=second["id"], input=None)
    assert words(nothing["output"]) == ["one", "two"]
    # As any input, and as nobody's continuation: its id leads nowhere.
    reply = await here.create(key=ANN, input=[*more["output"], user("four")])
    assert reply.status == 200, reply.body
    assert texts(provider) == ["one", "two", "three", PREAMBLE + "We talked.", "four"]
    refused = error(await here.create(key=ANN, input="x", previous_response_id=more["id"]), 400)
    assert refused["code"] == "previous_response_not_found"
    assert (await here.get(more["id"], key=ANN)).status == 404


async def test_instructions_and_tools_are_those_of_the_conversation(here: Site, provider: ChatUpstream) -> None:
    """So that the provider's cache serves it; no tool is called for a summary."""
    await done(here, input="one", instructions="be brief", tools=[WEATHER], parallel_tool_calls=False)
    sent = provider.requests[-1].chat
    assert texts(provider) == ["be brief", "one", INSTRUCTION]
    assert [tool.function.name for tool in sent.tools] == ["weather"]
    assert bytes(sent.tool_choice) == b'"none"'


async def test_instructions_among_the_items_are_said_and_not_shown(here: Site, provider: ChatUpstream) -> None:
    found = await done(here, input=[{"role": "developer", "content": "be brief"}, user("one")])
    assert texts(provider) == ["be brief", "one", INSTRUCTION]
    assert words(found["output"]) == ["one"]


async def test_calls_and_their_outputs_are_left_to_the_summary(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(thought("hm"), calls(call("weather", '{"city": "Oslo"}', id="c1"))), answer(text("Cold."))])
    called = (await here.create(key=ANN, input="Oslo?", tools=[WEATHER])).json
    found = await done(here, previous_response_id=called["id"], input=[output_of("c1", "3 °C")], tools=[WEATHER])
    assert [message.role for message in provider.requests[-1].chat.messages] == ["user", "assistant", "tool", "user"]
    assert words(found["output"]) == ["Oslo?"]
    refused = error(await compacted(here, previous_response_id=called["id"]), 400)
    assert refused["message"] == "No tool output found for function call c1."


async def test_pictures_of_users_stay_as_they_are(here: Site) -> None:
    parts = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:image/png;base64,iVBO"}]
    found = await done(here, input=[{"role": "user", "content": parts}])
    assert found["output"][0]["content"] == parts


async def test_a_summary_that_was_cut_off_is_said_in_a_header(here: Site, provider: ChatUpstream) -> None:
    provider.follow([answer(text("We tal"), finish="length")])
    reply = await compacted(here, input="hi")
    assert reply.status == 200
    assert reply.notes == ["compaction: the summary was cut off (max_output_tokens)"]


async def test_nothing_is_stored(tmp_path: Path, provider: ChatUpstream) -> None:
    services, gate = await gated(services_in(tmp_path, provider.base_url))
    async with site(services) as here:
        first = (await here.create(input="one")).json
        before = gate.commits
        await done(here, previous_response_id=first["id"], key=None)
        await done(here, input="two", key=None)
        assert gate.commits == before


async def test_a_store_that_does_not_work_keeps_nobody_from_compacting(tmp_path: Path, provider: ChatUpstream) -> None:
    services = services_in(tmp_path, provider.base_url)
    async with site(services) as here:
        services.condition.store_works = False
        await done(here, input="two", key=None)


# What is refused


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None, "input": "hi"}, "model", "missing_required_parameter"),
        ({}, "input", "missing_required_parameter"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": None, "previous_response_id": None}, "input", "missing_required_parameter"),
        ({"input": 7}, "input", "invalid_type"),
        ({"input": {"role": "user"}}, "input", "invalid_type"),
        ({"input": [7]}, "input[0]", "invalid_type"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        ({"input": "hi", "instructions": 7}, "instructions", "invalid_type"),
        ({"input": "hi", "temperature": 1}, "temperature", "unknown_parameter"),
        ({"input": "hi", "conversation": "conv_1"}, "conversation", "unknown_parameter"),
        ({"input": "hi", "stream": True}, "stream", "unknown_parameter"),
        ({"input": "hi", "store": True}, "store", "unknown_parameter"),
        ({"input": "hi", "api_base": "http://127.0.0.1"}, "api_base", "unknown_parameter"),
        ({"input": "hi", "model": "nobody/" + "x" * 300}, "model", "model_not_found"),
        ({"input": "hi", "previous_response_id": "resp_0"}, "previous_response_id", "previous_response_not_found"),
        ({"input": [output_of("c1", "x")]}, "input", None),
        ({"input": [{"id": "msg_nobody"}]}, "input", None),
        ({"input": [{"type": "compaction", "encrypted_content": "brg1.x"}]}, "input", "invalid_encrypted_content"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused_before_anybody_is_asked(
    here: Site, provider: ChatUpstream, fields: Json, param: str, code: str | None
) -> None:
    found = error(await compacted(here, **fields), 400)
    assert (found["param"], found["code"], found["type"]) == (param, code, "invalid_request_error")
    assert provider.requests == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"hi"', b"\xff", b'{"model":"m","input":NaN}'])
async def test_a_body_that_is_no_json_object_is_refused(here: Site, body: bytes) -> None:
    error(await here.ask("POST", "/v1/responses/compact", body, key=ANN), 400)


async def test_a_foreign_response_looks_like_one_that_never_was(here: Site) -> None:
    mine = (await here.create(key=ANN, input="secret")).json["id"]
    nobodys = "resp_" + "0" * 32
    foreign, unknown = [await compacted(here, key=BOB, previous_response_id=one) for one in (mine, nobodys)]
    assert foreign.status == unknown.status == 400
    assert foreign.body.replace(mine.encode(), nobodys.encode()) == unknown.body
    assert set(foreign.headers) == set(unknown.headers)


async def test_every_parameter_that_is_taken_is_passed_on_and_no_other(here: Site) -> None:
    """http.md §2.2; what does not come from the client is what makes the call one that compacts."""
    given = {name: f"{name}!" for name in TAKEN if name != "input"}
    made = json.loads(compaction_of(body_of(**given, input="hi")))
    trigger = {"type": "compaction_trigger"}
    assert made == {
        **given,
        "input": [{"role": "user", "content": "hi"}, trigger],
        "store": False,
        "stream": True,
    }
    odd = b'{"model":"m","input":[{"type":"acme:x","n": 1.50}],"image":null}'
    assert b'{"type":"acme:x","n": 1.50},{"type":"compaction_trigger"}' in compaction_of(odd)
    with pytest.raises(BadRequest, match=r"Unknown parameter: 'zeal'\."):
        compaction_of(body_of(input="hi", zeal=1))


# What goes wrong at the provider


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (HttpError(500), 502),
        (HttpError(401), 502),
        (HttpError(429, headers={"retry-after": "7"}), 429),
        (HttpError(400, "This model's maximum context length is 8192 tokens."), 400),
        (answer(text("We", "talked"), trouble=Trouble("cut", after=2)), 502),
        (answer(text(" ")), 502),
    ],
)
async def test_what_fails_at_the_provider_is_an_error_with_a_status(
    here: Site, provider: ChatUpstream, step: HttpError, status: int
) -> None:
    """Nothing streams here, so nothing ends with `response.failed` (reliability.md F4)."""
    provider.follow(lambda request: step)
    found = await compacted(here, input=[user("one"), user("two")])
    told = error(found, status)
    if status == 429:
        assert found.headers["retry-after"] == "7"
    if status == 400:
        assert told["code"] == "context_length_exceeded"


async def test_a_client_that_leaves_ends_it(here: Site, provider: ChatUpstream) -> None:
    provider.follow([silence()])
    asking = asyncio.create_task(compacted(here, input="hi"))
    sent = await asyncio.to_thread(provider.wait, 1)
    asking.cancel()
    assert await asyncio.to_thread(sent.left.wait, 2)


async def test_a_server_that_stops_takes_no_more_of_it(tmp_path: Path, provider: ChatUpstream) -> None:
    services = services_in(tmp_path, provider.base_url)
    async with site(services) as here:
        services.running.draining = True
        assert error(await compacted(here, input="hi", key=None), 503)["code"] == "server_is_overloaded"


# A provider that compacts itself


def native(directory: Path, base_url: str, profile: str = "") -> Services:
    file = directory / "rejoinder.toml"
    file.write_text(
        f'[server]\nstore = "disk:{directory / "store"}"\nretries = 0\n'
        f'[[upstream]]\nname = "one"\nvendor = "openai"\nbase_url = "{base_url}"\nmodels = ["*"]\n{profile}'
    )
    return assemble(load(file, {}))


async def test_a_provider_of_this_api_compacts_itself(tmp_path: Path) -> None:
    with ResponsesUpstream(models=["gpt-5.4"]) as provider:
        provider.follow([answer(text("yes")), answer(compaction("gAAAA")), answer(text("fine"))])
        async with site(native(tmp_path, provider.base_url)) as here:
            first = (await here.create(model="gpt-5.4", input=[user("one") | {"x": 1}])).json
            asked: Json = {"instructions": "be brief", "image": {"context_compression": "auto"}}
            found = await done(here, key=None, model="gpt-5.4", input="two", previous_response_id=first["id"], **asked)
            reply = await here.create(model="gpt-5.4", input=[*found["output"], user("three")])
        assert provider.objections == []
        [_, order, after] = [json.loads(sent.body) for sent in provider.requests]
    assert words(found["output"]) == ["one", "two"]
    assert found["output"][0]["x"] == 1
    assert found["output"][2]["encrypted_content"].startswith("gAAAA.rjn1."), "signed, so that it leads back there"
    assert found["usage"]["total_tokens"] > 0
    assert [item.get("role") or item["type"] for item in order["input"]] == [
        *["user", "assistant", "user"],
        "compaction_trigger",
    ]
    assert (order["store"], order["stream"]) == (False, True)
    assert {name: order[name] for name in asked} == asked
    assert "previous_response_id" not in order
    assert reply.status == 200, reply.body
    assert [item["type"] for item in after["input"]] == ["message", "message", "compaction", "message"]
    assert after["input"][2]["encrypted_content"] == "gAAAA"


async def test_a_provider_that_answers_and_does_not_compact_is_at_fault(tmp_path: Path) -> None:
    with ResponsesUpstream([answer(text("what?"))], models=["gpt-5.4"]) as provider:
        async with site(native(tmp_path, provider.base_url)) as here:
            found = error(await compacted(here, key=None, model="gpt-5.4", input="two"), 502)
    assert found["message"] == "the provider did not compact the conversation"


async def test_where_a_server_of_this_api_cannot_compact_its_model_writes_a_summary(tmp_path: Path) -> None:
    with ResponsesUpstream([answer(text("We talked."))], models=["gpt-5.4"]) as provider:
        async with site(native(tmp_path, provider.base_url, "responses = { compacts = false }\n")) as here:
            found = await done(here, key=None, model="gpt-5.4", input="two")
        assert provider.objections == []
        sent = provider.requests[0].responses.input
    assert isinstance(sent, list)
    assert [item.text for item in sent] == ["two", INSTRUCTION]
    assert found["output"][1]["encrypted_content"].startswith("brg1.")


async def test_nothing_is_paid_for_a_summary_of_nothing(here: Site, provider: ChatUpstream) -> None:
    found = error(await compacted(here, input=[]), 400)
    assert (found["param"], found["message"]) == ("input", "the conversation is empty")
    assert provider.requests == []


async def test_a_list_that_asks_for_it_already_is_compacted_once(here: Site) -> None:
    found = await done(here, input=[user("one"), {"type": "compaction_trigger"}])
    assert [item["type"] for item in found["output"]] == ["message", "compaction"]


async def test_a_last_item_that_is_none_is_named(here: Site) -> None:
    assert error(await compacted(here, input=[7]), 400)["param"] == "input[0]"
