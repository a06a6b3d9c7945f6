import dataclasses
import json
from collections.abc import Sequence

import msgspec
import pytest
from msgspec import Raw

from rejoinder.bridge.dialect import Identity, Prompt
from rejoinder.bridge.errors import Unsupported, UpstreamError
from rejoinder.bridge.losses import Loss
from rejoinder.bridge.responses import ResponsesDialect
from rejoinder.bridge.responses_profile import ResponsesProfile
from rejoinder.bridge.responses_reader import ResponsesReader
from tests.bridge.composing import composer
from tests.bridge.prompts import Fields, assistant, call, function, output, user
from tests.bridge.responses_replay import prompt as prompt_of

SEALED = "gAAAAAB"
OPENAI = ResponsesProfile()


def prompt(said: Sequence[Fields], **fields: object) -> Prompt:
    return prompt_of(json.dumps({"model": "alias", "input": said, **fields}).encode())


def asked(prompt: Prompt, profile: ResponsesProfile = OPENAI) -> dict[str, object]:
    return msgspec.json.decode(ResponsesDialect(profile).call(prompt).body, type=dict[str, object])


def sent(prompt: Prompt, profile: ResponsesProfile = OPENAI) -> list[dict[str, object]]:
    return msgspec.convert(asked(prompt, profile)["input"], list[dict[str, object]])


def reasoning(**fields: object) -> Fields:
    return {"type": "reasoning", "summary": [], **fields}


# Fields.


def test_a_request_goes_on_with_every_field_it_had_and_the_items_at_its_end() -> None:
    body = (
        b'{"temperature": 0.70, "novelty": {"depth": [1,  2]}, "model": "alias", "service_tier":null,'
        b'"input": [{"role":"user", "content":"h\\u00e9", "future": 1e2}], "user":"u"}'
    )

    sent = ResponsesDialect(ResponsesProfile(reasoning_state="text")).call(prompt_of(body))

    assert (sent.path, sent.stream, sent.method) == ("/responses", True, "POST")
    assert sent.body == (
        b'{"model":"alias","temperature":0.70,"novelty":{"depth": [1,  2]},"service_tier":null,"user":"u",'
        b'"stream":true,"stream_options":{"include_obfuscation":false},"store":false,'
        b'"input":[{"role":"user","content":"h\xc3\xa9","future":1e2}]}'
    )


def test_what_is_followed_here_is_not_told_the_server() -> None:
    fields = asked(
        prompt(
            [user("hi")], background=False, generate=True, metadata={"a": "b"}, client_metadata={"turn_id": "t"},
            store=True, previous_response_id="resp_1", stream=False, stream_options=None, conversation=None,
        )
    )  # fmt: skip

    assert fields.keys() == {"model", "input", "store", "stream", "stream_options", "include"}
    assert fields["store"] is False
    assert fields["stream"] is True


def test_a_server_may_be_told_of_metadata() -> None:
    fields = asked(prompt([user("hi")], metadata={"a": "b"}), ResponsesProfile(forwards=("metadata",)))

    assert fields["metadata"] == {"a": "b"}


def test_a_stateless_server_is_not_told_whether_to_store() -> None:
    assert "store" not in asked(prompt([user("hi")], store=True), ResponsesProfile(stores=False))


def test_a_server_without_streams_is_asked_for_a_whole_answer() -> None:
    dialect = ResponsesDialect(ResponsesProfile(streams=False))

    sent = dialect.call(prompt([user("hi")], stream=True))

    assert not sent.stream
    assert b"stream" not in sent.body


@pytest.mark.parametrize(
    ("obfuscates", "options", "expected"),
    [
        (True, {"include_obfuscation": True}, {"include_obfuscation": False}),
        (False, {"include_obfuscation": False}, None),
    ],
)
def test_padding_is_refused_where_there_is_some(obfuscates: bool, options: Fields, expected: Fields | None) -> None:
    fields = asked(prompt([user("hi")], stream_options=options), ResponsesProfile(obfuscates=obfuscates))

    assert fields.get("stream_options") == expected


def test_options_of_a_stream_that_nobody_knows_go_on() -> None:
    fields = asked(prompt([user("hi")], stream_options={"novelty": 1}), ResponsesProfile(obfuscates=False))

    assert fields["stream_options"] == {"novelty": 1}


def test_sealed_reasoning_is_asked_for_where_the_server_has_it() -> None:
    include = ["message.output_text.logprobs"]
    sealed = "reasoning.encrypted_content"

    assert asked(prompt([user("hi")], include=include))["include"] == [*include, sealed]
    assert asked(prompt([user("hi")], include=[sealed]))["include"] == [sealed]
    assert asked(prompt([user("hi")], include=include), ResponsesProfile(reasoning_state="text"))["include"] == include
    assert asked(prompt([user("hi")]), ResponsesProfile(reasoning_state="any"))["include"] == [sealed]


def test_the_cache_key_is_the_clients_own_or_that_of_the_conversation() -> None:
    plain, keyed = prompt([user("hi")]), prompt([user("hi")], prompt_cache_key="mine")
    known = Identity(cache_key="ours")

    assert "prompt_cache_key" not in asked(plain)
    assert asked(dataclasses.replace(plain, identity=known))["prompt_cache_key"] == "ours"
    assert asked(dataclasses.replace(keyed, identity=known))["prompt_cache_key"] == "mine"
    assert "prompt_cache_key" not in asked(keyed, ResponsesProfile(prompt_cache_key=False))


def test_session_and_thread_go_by_their_names() -> None:
    known = dataclasses.replace(prompt([user("hi")]), identity=Identity("s", "t", "k"))

    headers = ResponsesDialect(ResponsesProfile()).call(known).headers

    assert headers == {"session-id": "s", "thread-id": "t", "x-client-request-id": "t"}
    assert ResponsesDialect(ResponsesProfile()).call(prompt([user("hi")])).headers == {}
    assert ResponsesDialect(ResponsesProfile(session_headers=False)).call(known).headers == {}


def test_compaction_is_asked_for_where_the_server_does_it() -> None:
    management = [{"type": "compaction", "compact_threshold": 5000}]
    compacting = prompt([user("hi")], context_management=management)

    assert asked(compacting)["context_management"] == management
    assert "context_management" not in asked(compacting, ResponsesProfile(compacts=False))
    assert ResponsesDialect(ResponsesProfile()).compacts
    assert not ResponsesDialect(ResponsesProfile(compacts=False)).compacts


def test_a_field_the_server_refuses_is_left_out_and_named() -> None:
    asking = prompt([user("hi")], user="u", safety_identifier=None)
    profile = ResponsesProfile(omits=("user", "include", "safety_identifier"))

    fields = asked(asking, profile)

    assert fields.keys() == {"model", "input", "store", "stream", "stream_options"}
    assert asking.notes == ["user: not understood by this upstream"]


def test_settings_may_add_fields() -> None:
    fields = asked(prompt([user("hi")]), ResponsesProfile(extra={"seed": Raw(b"7")}))

    assert fields["seed"] == 7


def test_a_conversation_without_items_is_refused() -> None:
    with pytest.raises(Unsupported, match="the conversation is empty"):
        asked(prompt([]))


# Lineage.


REFERENCE = ResponsesProfile(lineage="reference")


def test_a_response_is_referred_to_where_the_settings_say_so() -> None:
    going_on = dataclasses.replace(prompt([user("a"), assistant("b"), user("c")]), parent="resp_up", coming=1)

    fields = asked(going_on, REFERENCE)

    assert fields["previous_response_id"] == "resp_up"
    assert fields["store"] is True
    assert fields["input"] == [user("c")]


def test_a_conversation_without_a_response_there_is_sent_whole_and_stored() -> None:
    fields = asked(prompt([user("a"), assistant("b"), user("c")]), REFERENCE)

    assert "previous_response_id" not in fields
    assert fields["store"] is True
    assert len(sent(prompt([user("a"), assistant("b"), user("c")]), REFERENCE)) == 3


def test_what_a_client_wants_stored_nowhere_is_stored_nowhere() -> None:
    assert asked(prompt([user("a")], store=False), REFERENCE)["store"] is False


def test_a_reference_may_come_without_new_items() -> None:
    going_on = dataclasses.replace(prompt([user("a")]), parent="resp_up", coming=0)

    assert asked(going_on, REFERENCE)["input"] == []


def test_a_whole_conversation_refers_to_nothing() -> None:
    going_on = dataclasses.replace(prompt([user("a"), assistant("b"), user("c")]), parent="resp_up", coming=1)

    assert "previous_response_id" not in asked(going_on)
    assert len(sent(going_on)) == 3


# Items.


def test_reasoning_goes_back_sealed_and_before_what_it_led_to() -> None:
    said = [user("a"), reasoning(id="rs_1", encrypted_content=SEALED), assistant("b"), user("c")]

    assert sent(prompt(said)) == said


def test_reasoning_without_its_seal_is_left_out_where_that_is_needed() -> None:
    asking = prompt([user("a"), reasoning(id="rs_1"), assistant("b"), user("c")])

    assert [item.get("type") for item in sent(asking)] == ["message", "message", "message"]
    assert asking.losses == [Loss("reasoning", "rs_1", "removed", "not_sealed")]


def test_open_weights_are_told_what_they_thought_and_nothing_sealed() -> None:
    text = reasoning(id="1", content=[{"type": "reasoning_text", "text": "hm"}], encrypted_content=None)
    asking = prompt([user("a"), reasoning(id="rs_1", encrypted_content=SEALED), text, assistant("b"), user("c")])

    assert sent(asking, ResponsesProfile(reasoning_state="text", item_ids="given"))[1:2] == [text]
    assert asking.losses == [Loss("reasoning", "rs_1", "removed", "model_mismatch")]


def test_a_server_of_both_kinds_gets_both() -> None:
    said = [user("a"), reasoning(encrypted_content=SEALED), reasoning(id="rs_2"), assistant("b"), user("c")]

    assert sent(prompt(said), ResponsesProfile(reasoning_state="any")) == said


@pytest.mark.parametrize(
    "following",
    [
        [user("b")],
        [],
        [{"type": "compaction_trigger"}],
        [{"type": "additional_tools", "role": "developer", "tools": []}, assistant("b")],
    ],
    ids=["a user speaks", "nothing", "compaction", "tools"],
)
def test_reasoning_that_led_to_nothing_is_left_out(following: list[Fields]) -> None:
    thoughts = [reasoning(id="rs_1", encrypted_content=SEALED), reasoning(id="rs_2", encrypted_content=SEALED)]
    asking = prompt([user("a"), *thoughts, *following])

    assert sent(asking) == [user("a"), *following]
    assert [loss.reason for loss in asking.losses] == ["no_words", "no_words"]
    asked(asking)
    assert len(asking.losses) == 2


@pytest.mark.parametrize(
    "following",
    [
        [call("call_1"), output("call_1")],
        [{"type": "web_search_call", "id": "ws_1", "status": "completed"}, assistant("b")],
        [{"type": "compaction", "id": "cmp_1", "encrypted_content": SEALED}],
        [{"type": "hologram", "x": 1}],
        [{"type": "tool_search_output", "call_id": None, "execution": "server", "tools": []}],
    ],
)
def test_reasoning_may_lead_to_anything_a_model_does(following: list[Fields]) -> None:
    said = [user("a"), reasoning(id="rs_1", encrypted_content=SEALED), *following]

    assert sent(prompt(said)) == said


def test_what_is_sealed_here_never_reaches_a_server() -> None:
    for item in (reasoning(encrypted_content="brg1.AAAA"), {"type": "compaction", "encrypted_content": "brg1.AAAA"}):
        with pytest.raises(AssertionError, match="sealed here"):
            sent(prompt([user("a"), item, assistant("b")]))


def test_an_id_that_is_not_the_servers_is_left_out() -> None:
    said: list[Fields] = [
        {**user("a"), "id": "msg_1"},
        {**assistant("b"), "id": "0c0a3e", "status": "completed"},
        {**call("call_1"), "id": "fc_1"},
        {**output("call_1"), "id": "anything"},
    ]

    assert [item.get("id") for item in sent(prompt(said))] == ["msg_1", None, "fc_1", "anything"]
    assert sent(prompt(said), ResponsesProfile(item_ids="given")) == said
    without = sent(prompt(said), ResponsesProfile(item_ids="none"))
    assert [item.get("id") for item in without] == [None] * 4


def test_a_server_that_needs_ids_gets_the_same_ones_every_time() -> None:
    said = [user("a"), assistant("b"), assistant("b"), {**call("call_1"), "id": "fc_1"}, output("call_1")]
    profile = ResponsesProfile(item_ids="required")

    items, again = sent(prompt(said), profile), sent(prompt([*said, user("c")]), profile)

    assert items == again[: len(items)]
    assert "id" not in items[0]
    assert str(items[1]["id"]).startswith("msg_")
    assert items[1]["status"] == "completed"
    assert items[1]["id"] != items[2]["id"]
    assert (items[3]["id"], "id" in items[4]) == ("fc_1", False)


OWN = ResponsesProfile(call_ids="own")


def test_a_server_is_told_its_own_call_ids_again() -> None:
    said = [
        user("a"), call("call_0"), output("call_0"), call("call_9f--call_0"), output("call_9f--call_0"), user("b"),
    ]  # fmt: skip

    assert [item.get("call_id") for item in sent(prompt(said), OWN)][1:5] == ["call_0"] * 4
    assert sent(prompt(said)) == said


def test_calls_that_wait_together_keep_ids_that_tell_them_apart() -> None:
    said = [call("call_0"), call("call_9f--call_0"), output("call_9f--call_0"), output("call_0")]

    assert sent(prompt(said), OWN) == said


def test_an_output_has_the_servers_own_id_where_its_call_is_referred_to() -> None:
    said = [user("a"), call("call_9f--call_0"), output("call_9f--call_0")]
    going_on = dataclasses.replace(prompt(said), parent="resp_up", coming=1)

    assert sent(going_on, ResponsesProfile(lineage="reference", call_ids="own")) == [output("call_0")]


# Servers that know functions only.

PLAIN = ResponsesProfile(functions_only=True, reasoning_state="text")


def test_functions_go_on_as_they_are() -> None:
    tools = [function("f", parameters={"type": "object"}, strict=False)]
    asking = prompt([user("a")], tools=tools, tool_choice="required")

    fields = asked(asking, PLAIN)

    assert (fields["tools"], fields["tool_choice"]) == (tools, "required")


def test_a_web_search_is_left_out_and_named() -> None:
    searching = {"type": "web_search", "external_web_access": False}
    asking = prompt([user("a")], tools=[function("f"), searching])

    assert asked(asking, PLAIN)["tools"] == [function("f")]
    assert asking.notes == ["tools.web_search: this upstream has no web search, the tool is not offered"]
    alone = asked(prompt([user("a")], tools=[searching], tool_choice="auto"), PLAIN)
    assert "tools" not in alone
    assert "tool_choice" not in alone


def test_other_tools_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="tool type 'custom' is not known") as caught:
        asked(prompt([user("a")], tools=[{"type": "custom", "name": "c"}]), PLAIN)
    assert (caught.value.param, caught.value.code) == ("tools", "unsupported_value")


def test_a_record_of_a_search_is_left_out_and_other_items_are_refused() -> None:
    searched = prompt([user("a"), {"type": "web_search_call", "id": "ws_1", "status": "completed"}, assistant("b")])

    assert sent(searched, PLAIN) == [user("a"), assistant("b")]
    assert searched.losses == [Loss("web_search_call", "ws_1", "removed", "no_words")]
    with pytest.raises(Unsupported, match="item type 'hologram' is not known to this upstream") as caught:
        asked(prompt([user("a"), {"type": "hologram"}]), PLAIN)
    assert caught.value.param == "input"


# Refusals.


def rejected(status: int, body: object, **headers: str) -> UpstreamError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ResponsesDialect(ResponsesProfile()).rejection(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, data
    )


def test_the_codes_of_this_api_keep_their_names() -> None:
    error = rejected(400, {"error": {"code": "unsupported_parameter", "message": "m", "param": "top_k"}})

    assert (error.status, error.code, error.param, str(error)) == (400, "unsupported_parameter", "top_k", "m")


def test_a_refusal_in_another_form_has_the_code_of_its_status() -> None:
    assert rejected(400, {"error": "no", "code": "invalid-argument"}).code == "invalid_request_error"
    assert rejected(400, b"\xff<html>").code == "invalid_request_error"
    assert rejected(400, {"error": {"message": "m", "code": None}}).code == "invalid_request_error"
    assert rejected(429, {"error": {"message": "m", "code": "slow_down"}}).code == "rate_limit_exceeded"


def test_a_server_may_say_whether_to_try_again() -> None:
    busy = {"error": {"message": "m"}}

    assert rejected(409, busy, x_should_retry="true", retry_after_ms="250").transient
    assert rejected(409, busy, x_should_retry="true", retry_after_ms="250").retry_after == 0.25
    assert not rejected(409, busy).transient
    assert rejected(503, busy).transient
    assert not rejected(503, busy, x_should_retry="false").transient


def relented(prompt: Prompt, code: str) -> Prompt | None:
    return ResponsesDialect(ResponsesProfile()).relent(prompt, UpstreamError("no", status=400, code=code))


def test_sealed_reasoning_that_is_refused_is_left_out_once() -> None:
    said = [user("a"), reasoning(id="rs_1", encrypted_content=SEALED), assistant("b"), reasoning(id="rs_2"), user("c")]
    asking = dataclasses.replace(prompt(said), coming=4)

    lighter = relented(asking, "invalid_encrypted_content")

    assert lighter is not None
    assert [item.id for item in lighter.items] == [None, None, "rs_2", None]
    assert lighter.coming == 3
    assert lighter.losses == [Loss("reasoning", "rs_1", "removed", "end_user_mismatch")]
    assert relented(lighter, "invalid_encrypted_content") is None


def test_a_response_that_is_gone_there_is_not_referred_to_again() -> None:
    asking = dataclasses.replace(prompt([user("a")]), parent="resp_up")

    whole = relented(asking, "previous_response_not_found")

    assert whole is not None
    assert whole.parent is None
    assert relented(whole, "previous_response_not_found") is None


def test_a_parameter_that_is_refused_is_the_clients_to_leave_out() -> None:
    assert relented(prompt([user("a")], temperature=1), "unsupported_parameter") is None


# The rest of the seam.


def test_tokens_are_counted_by_the_server() -> None:
    asking = prompt([user("a")], temperature=0, tools=[function("f")], instructions="i", truncation="auto")

    count = ResponsesDialect(ResponsesProfile()).count(asking)

    assert count is not None
    assert count.call.path == "/responses/input_tokens"
    assert not count.call.stream
    assert json.loads(count.call.body) == {
        "model": "alias",
        "tools": [function("f")],
        "instructions": "i",
        "truncation": "auto",
        "input": [user("a")],
    }
    assert count.read(b'{"object":"response.input_tokens","input_tokens":17}') == 17
    assert ResponsesDialect(ResponsesProfile(counts=False)).count(asking) is None


def test_models_are_listed_as_everywhere() -> None:
    dialect = ResponsesDialect(ResponsesProfile())

    assert (dialect.models().method, dialect.models().path) == ("GET", "/models")
    assert dialect.offered(b'{"data":[{"id":"a"},{"id":"b"}]}') == ["a", "b"]


def test_its_answers_have_their_reader() -> None:
    dialect = ResponsesDialect(ResponsesProfile())

    assert isinstance(dialect.reader(prompt([user("a")]), composer()), ResponsesReader)
    assert dialect.native
    assert dialect.hosted == frozenset()
