import json
from dataclasses import replace
from typing import Any  # the bodies here are broken in every way, so they have no type

import pytest
from openai import OpenAI

from rejoinder.conformance.upstreams.asking import Body, Reply, ask
from rejoinder.conformance.upstreams.objection import Objection
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.responses_manner import BEDROCK, COPILOT, FORGETFUL, OPENROUTER, Manner
from rejoinder.conformance.upstreams.responses_manner import OPENAI as OPENAI_MANNER
from rejoinder.conformance.upstreams.responses_script import (
    compaction,
    custom_call,
    event,
    failure,
    item,
    message,
    raw_thought,
)
from rejoinder.conformance.upstreams.responses_strictness import (
    COMPATIBLE,
    DEEPSEEK,
    OPENAI,
    OPENAI_TODAY,
    VLLM,
    NotFound,
    ResponsesStrictness,
    Use,
    check,
)
from rejoinder.conformance.upstreams.responses_wire import answered
from rejoinder.conformance.upstreams.script import (
    Answer,
    HttpError,
    LegacyCall,
    Part,
    Step,
    Trouble,
    Unsayable,
    Usage,
    answer,
    call,
    calls,
    refusal,
    text,
    thought,
)
from tests.bridge.recordings import FOLDER, Recording, recordings

USER: Body = {"role": "user", "content": "hi"}
CALL: Body = {"type": "function_call", "call_id": "call_look", "name": "look", "arguments": "{}"}
RESULT: Body = {"type": "function_call_output", "call_id": "call_look", "output": "seen"}
SAID: Body = {"role": "assistant", "content": "so"}
REASONING: Body = {"type": "reasoning", "summary": []}
TOOL: Body = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


def body(*items: Body, **fields: object) -> Body:
    return {"model": "gpt-4.1", "input": list(items or (USER,)), **fields}


def objection(request: Body | bytes, strictness: ResponsesStrictness = OPENAI, *, use: Use = "create") -> Objection:
    encoded = request if isinstance(request, bytes) else json.dumps(request).encode()
    with pytest.raises(Objection) as caught:
        check(encoded, strictness, use=use)
    return caught.value


def post(upstream: ResponsesUpstream, request: Body | None = None) -> Reply:
    return ask(upstream, "/v1/responses", request or body(stream=True))


def whole(step: Step[Any], **fields: object) -> Any:
    with ResponsesUpstream([step]) as upstream:
        return post(upstream, body(**fields)).json


def streamed(step: Step[Any], manner: Manner = OPENAI_MANNER, **fields: object) -> list[Any]:
    with ResponsesUpstream([step], manner=manner) as upstream:
        return post(upstream, body(stream=True, **fields)).data


def types(events: list[Any]) -> list[str]:
    return [str(event["type"]).removeprefix("response.") for event in events]


def done(events: list[Any]) -> list[Any]:
    return [event["item"] for event in events if event["type"] == "response.output_item.done"]


# What is refused.


@pytest.mark.parametrize(
    "request_body",
    [
        body(),
        {"model": "gpt-4.1", "input": "hi"},
        {"prompt": {"id": "pmpt_1"}},
        body(USER, CALL, RESULT, tools=[TOOL], tool_choice={"type": "function", "name": "look"}),
        body(USER, CALL, {**CALL, "call_id": "b"}, {**RESULT, "call_id": "b"}, RESULT),
        body(USER, CALL, RESULT, CALL, RESULT),
        body(USER, {**CALL, "async": True}),
        body(USER, REASONING, SAID, REASONING, CALL, RESULT),
        body(USER, {"type": "local_shell_call", "id": "lsh_1"}, {"type": "local_shell_call_output", "id": "lsh_1"}),
        body(USER, {"type": "tool_search_call", "call_id": "s"}, {**RESULT, "call_id": "s"}),
        body(
            USER,
            {"type": "hologram", "data": 1},
            {"role": "developer", "content": [{"type": "input_text", "text": "a"}]},
        ),
        body(
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://a"}]},
            {"type": "compaction_trigger"},
        ),
        body({"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}),
        body(
            tools=[
                {"type": "custom", "name": "exec", "format": {"type": "grammar", "syntax": "lark", "definition": "a"}}
            ]
        ),
        body(tools=[{"type": "custom", "name": "exec"}, {"type": "web_search"}], tool_choice="auto"),
        body(tools=[], include=["reasoning.encrypted_content"], metadata={"a": "b"}, max_output_tokens=16),
        body(model="gpt-5.6", temperature=1, reasoning={"effort": "none"}),
        body(model="gpt-5-chat-latest", temperature=1, top_p=0.5),
        body(RESULT, conversation="conv_1"),
    ],
)
def test_a_well_formed_request_passes(request_body: Body) -> None:
    check(json.dumps(request_body).encode())


@pytest.mark.parametrize(
    ("request_body", "param", "code"),
    [
        (b"{", None, None),
        (b"[]", "body", "invalid_type"),
        (body(messages=[]), "messages", "unknown_parameter"),
        ({"input": "hi"}, "model", "missing_required_parameter"),
        ({"model": "m"}, "input", "missing_required_parameter"),
        (body(input=3), "input", "invalid_type"),
        (body(store="yes"), "store", "invalid_type"),
        (body(temperature=True), "temperature", "invalid_type"),
        (
            body(previous_response_id="resp_1", conversation="conv_1"),
            "previous_response_id",
            "mutually_exclusive_parameters",
        ),
        (body(max_output_tokens=15), "max_output_tokens", "integer_below_min_value"),
        (body(metadata={str(number): "" for number in range(17)}), "metadata", "object_above_max_properties"),
        (body(metadata={"a" * 65: ""}), f"metadata.{'a' * 65}", "string_above_max_length"),
        (body(metadata={"a": "b" * 513}), "metadata.a", "string_above_max_length"),
        (body(metadata={"a": 1}), "metadata.a", "invalid_type"),
        (body(include=["reasoning"]), "include[0]", "invalid_value"),
        (body(reasoning={"effort": "huge"}), "reasoning.effort", "invalid_value"),
        # Sampling (§2).
        (body(model="gpt-5-nano", temperature=1), "temperature", None),
        (body(model="o3", top_p=1), "top_p", None),
        (body(model="gpt-5.6", temperature=1), "temperature", None),
        # Tools (§3).
        (body(tools=["look"]), "tools[0]", "invalid_type"),
        (body(tools=[{"name": "look"}]), "tools[0].type", "missing_required_parameter"),
        (
            body(tools=[{"type": "function", "function": {"name": "look"}}]),
            "tools[0].name",
            "missing_required_parameter",
        ),
        (body(tools=[{**TOOL, "name": "a.b"}]), "tools[0].name", "invalid_value"),
        (body(tools=[{**TOOL, "description": 3}]), "tools[0].description", "invalid_type"),
        (body(tools=[{**TOOL, "strict": "yes"}]), "tools[0].strict", "invalid_type"),
        (body(tools=[{**TOOL, "parameters": {"type": "array"}}]), "tools[0].parameters", "invalid_function_parameters"),
        (body(tools=[{**TOOL, "strict": True}]), "tools[0].parameters", "invalid_function_parameters"),
        (
            body(
                tools=[
                    {**TOOL, "strict": True, "parameters": {"type": "object", "properties": {"a": {}}, "required": []}}
                ]
            ),
            "tools[0].parameters",
            "invalid_function_parameters",
        ),
        (
            body(tools=[{"type": "custom", "name": "a", "format": {"type": "grammar", "grammar": {}}}]),
            "tools[0].format.grammar",
            "unknown_parameter",
        ),
        (
            body(tools=[{"type": "custom", "name": "a", "format": {"type": "grammar", "syntax": "lark"}}]),
            "tools[0].format.definition",
            "missing_required_parameter",
        ),
        (
            body(
                tools=[
                    {"type": "custom", "name": "a", "format": {"type": "grammar", "syntax": "bnf", "definition": ""}}
                ]
            ),
            "tools[0].format.syntax",
            "invalid_value",
        ),
        (body(tools=[TOOL], tool_choice="any"), "tool_choice", "invalid_value"),
        (body(tools=[TOOL], tool_choice={"type": "function", "name": "gone"}), "tool_choice", None),
        (body(tools=[TOOL], tool_choice={"type": "custom", "name": "look"}), "tool_choice", None),
        # Items (§3).
        (body(input=["hi"]), "input[0]", "invalid_type"),
        (body({"role": "tool", "content": "x"}), "input[0].role", "invalid_value"),
        (body({"role": "user"}), "input[0].content", "invalid_type"),
        (
            body({"role": "user", "content": [{"type": "text", "text": "x"}]}),
            "input[0].content[0].type",
            "invalid_value",
        ),
        (
            body({"role": "user", "content": [{"type": "output_text", "text": "x"}]}),
            "input[0].content[0].type",
            "invalid_value",
        ),
        (
            body({"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}),
            "input[0].content[0].type",
            "invalid_value",
        ),
        (body({"role": "user", "content": [{"type": "input_text"}]}), "input[0].content[0].text", "invalid_type"),
        (body({"type": "reasoning"}, SAID), "input[0].summary", "missing_required_parameter"),
        (
            body({"type": "function_call", "name": "look", "arguments": "{}"}),
            "input[0].call_id",
            "missing_required_parameter",
        ),
        (body({**CALL, "arguments": {}}), "input[0].arguments", "invalid_type"),
        (
            body(CALL, {"type": "function_call_output", "call_id": "call_look"}),
            "input[1].output",
            "missing_required_parameter",
        ),
        (body({**CALL, "call_id": "c" * 65}), "input[0].call_id", "string_above_max_length"),
        (body({**CALL, "id": "call_look"}, RESULT), "input[0].id", "invalid_value"),
        (body({**SAID, "type": "message", "id": "rs_1"}), "input[0].id", "invalid_value"),
        (body({"type": "compaction_trigger"}, USER), "input[0]", None),
        (body({"type": "compaction"}), "input[0].encrypted_content", "missing_required_parameter"),
        (body({**REASONING, "encrypted_content": 3}, SAID), "input[0].encrypted_content", "invalid_type"),
        (
            body({**REASONING, "encrypted_content": "gAAAAx"}, SAID),
            "input[0].encrypted_content",
            "invalid_encrypted_content",
        ),
        (body({**SAID, "id": "msg_1"}, {**SAID, "id": "msg_1"}), "input", None),
    ],
)
def test_a_malformed_request_is_refused_and_the_place_is_named(
    request_body: Body | bytes, param: str | None, code: str | None
) -> None:
    found = objection(request_body)
    assert (found.param, found.code) == (param, code)


@pytest.mark.parametrize(
    ("items", "message_"),
    [
        ([USER, CALL], "No tool output found for function call call_look."),
        ([USER, CALL, USER], "No tool output found for function call call_look."),
        ([USER, CALL, CALL, RESULT], "No tool output found for function call call_look."),
        ([USER, RESULT], "No tool call found for function call output with call_id call_look."),
        ([USER, CALL, RESULT, RESULT], "No tool call found for function call output with call_id call_look."),
        ([USER, RESULT, CALL], "No tool call found for function call output with call_id call_look."),
        (
            [USER, CALL, {**RESULT, "type": "custom_tool_call_output"}],
            "No tool call found for custom tool call output with call_id call_look.",
        ),
        ([USER, REASONING], "Item 'None' of type 'reasoning' was provided without its required following item."),
        ([REASONING, USER], "Item 'None' of type 'reasoning' was provided without its required following item."),
        (
            [CALL, REASONING, RESULT],
            "Item 'None' of type 'reasoning' was provided without its required following item.",
        ),
    ],
)
def test_calls_need_outputs_and_reasoning_needs_what_it_led_to(items: list[Body], message_: str) -> None:
    found = objection(body(*items))
    assert (found.message, found.param) == (message_, "input")


def test_an_envelope_of_the_bridge_is_refused_by_everybody() -> None:
    request = body({**REASONING, "encrypted_content": "brg1.abc"}, SAID)
    for strictness in (OPENAI, COMPATIBLE, DEEPSEEK, replace(OPENAI, own_items=False)):
        assert objection(request, strictness).code == "invalid_encrypted_content"


def test_a_stateless_server_keeps_nothing_and_knows_no_prefixes() -> None:
    for field in ("store", "previous_response_id", "conversation", "background"):
        assert objection(body(**{field: None}), COMPATIBLE).code == "unknown_parameter"
    foreign = {**REASONING, "id": "some-uuid", "encrypted_content": "theirs"}
    check(json.dumps(body(USER, foreign)).encode(), COMPATIBLE)


def test_vllm_takes_nothing_sealed() -> None:
    found = objection(body({**REASONING, "encrypted_content": "x"}, SAID), VLLM)
    assert found.message == "Encrypted content is not supported."


def test_deepseek_wants_outputs_before_anything_else() -> None:
    request = body(CALL, SAID, {**CALL, "call_id": "b"}, RESULT, {**RESULT, "call_id": "b"})
    assert objection(request, DEEPSEEK).message == "No tool output found for tool call call_look."
    check(json.dumps(body(CALL, {**CALL, "call_id": "b"}, RESULT, {**RESULT, "call_id": "b"})).encode(), DEEPSEEK)
    check(json.dumps(request).encode(), OPENAI)


def test_counting_and_compacting_know_fewer_parameters() -> None:
    assert objection(body(stream=True), use="count").param == "stream"
    assert objection(body(tools=[TOOL]), use="compact").param == "tools"
    assert objection({"input": "x"}, use="compact").param == "model"
    check(json.dumps({"input": "x", "tools": [TOOL]}).encode(), use="count")


# What the provider knows again.


def refusal_of(upstream: ResponsesUpstream, *items: Body, **fields: object) -> tuple[int, str]:
    reply = post(upstream, body(*items, **fields))
    return reply.status, str(reply.json["error"]["message"])


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_sealed_must_come_back_unchanged(stream: bool) -> None:
    steps = [answer(thought("hm", signature="gAAAAsealed"), calls(call("look"))), answer(text("ok"))]
    with ResponsesUpstream(steps) as upstream:
        reply = post(upstream, body(stream=stream))
        reasoning, called = done(reply.data) if stream else reply.json["output"]
        assert reasoning["encrypted_content"] == "gAAAAsealed"
        for sealed in ("gAAA", "gAAAAother", "gAAAAsealed "):
            status, message_ = refusal_of(upstream, USER, {**reasoning, "encrypted_content": sealed}, called, RESULT)
            assert (status, message_.partition(" could")[0]) == (400, "The encrypted content for item rs_1_0")
        assert upstream.objections[-1].code == "invalid_encrypted_content"
        assert post(upstream, body(USER, reasoning, called, RESULT)).status == 200


def test_reasoning_and_what_it_led_to_come_together() -> None:
    with ResponsesUpstream([answer(thought("hm"), text("so"), text("and")), answer(text("ok"))]) as upstream:
        reasoning, said, more = post(upstream, body()).json["output"]
        without_following = (400, "Item 'rs_1_0' of type 'reasoning' was provided without its required following item.")
        assert refusal_of(upstream, USER, reasoning, USER) == without_following
        assert refusal_of(upstream, USER, reasoning, SAID, USER) == without_following
        assert refusal_of(upstream, USER, reasoning, more, USER) == without_following
        status, message_ = refusal_of(upstream, USER, said, USER)
        assert (status, message_) == (
            400,
            "Item 'msg_1_1' of type 'message' was provided without its required 'reasoning' item: 'rs_1_0'.",
        )
        assert post(upstream, body(USER, reasoning, said, more, USER)).status == 200


def test_a_response_can_be_continued_when_it_was_stored() -> None:
    steps = [answer(calls(call("look")))] * 2 + [answer(text("ok"))] * 2
    with ResponsesUpstream(steps) as upstream:
        first = post(upstream, body()).json["id"]
        unstored = post(upstream, body(store=False)).json["id"]
        for unknown in (unstored, "resp_gone"):
            status, message_ = refusal_of(upstream, RESULT, previous_response_id=unknown)
            assert (status, message_) == (400, f"Previous response with id '{unknown}' not found.")
        assert upstream.objections[-1].code == "previous_response_not_found"
        assert refusal_of(upstream, USER, previous_response_id=first)[1].startswith("No tool output found for function")
        second = post(upstream, body(RESULT, previous_response_id=first)).json["id"]
        assert post(upstream, body(USER, previous_response_id=second, stream=True)).status == 200


def test_a_stored_item_can_be_named_and_an_unstored_one_not() -> None:
    steps = [answer(thought("hm", signature=""), text("so"))] * 2 + [answer(text("ok"))] * 2
    with ResponsesUpstream(steps) as upstream:
        reasoning, said = post(upstream, body()).json["output"]
        lost, _ = post(upstream, body(store=False)).json["output"]
        named = [{"type": "item_reference", "id": one["id"]} for one in (reasoning, said)]
        assert post(upstream, body(USER, *named, USER)).status == 200
        assert post(upstream, body(USER, reasoning, said, USER)).status == 200
        status, message_ = refusal_of(upstream, USER, lost, SAID)
        assert (status, message_.partition(".")[0]) == (404, "Item with id 'rs_2_0' not found")
        assert refusal_of(upstream, {"type": "item_reference", "id": "msg_x"})[0] == 404
    assert isinstance(upstream.objections[0], NotFound)


def test_a_response_that_failed_or_broke_off_cannot_be_continued() -> None:
    steps: list[Answer] = [answer(text("a"), failure()), answer(text("a"), trouble=Trouble("end", after=2))]
    with ResponsesUpstream([*steps, answer(text("a"), finish="length"), answer(text("ok"))]) as upstream:
        for _ in range(3):
            post(upstream)
        for number in (1, 2):
            assert refusal_of(upstream, USER, previous_response_id=f"resp_{number}")[0] == 400
        assert post(upstream, body(USER, previous_response_id="resp_3")).status == 200


def test_a_compaction_of_its_own_comes_back() -> None:
    with ResponsesUpstream([answer(compaction("gAAAAsmall")), answer(text("ok")), answer(text("ok"))]) as upstream:
        [small] = post(upstream, body(USER, {"type": "compaction_trigger"})).json["output"]
        assert small == {"id": "cmp_1_0", "type": "compaction", "encrypted_content": "gAAAAsmall"}
        assert post(upstream, body(small, USER)).status == 200
        compacted = ask(upstream, "/v1/responses/compact", {"model": "gpt-4.1", "input": [USER, SAID, USER]}).json
        assert [one["type"] for one in compacted["output"]] == ["message", "message", "compaction"]
        assert post(upstream, body(*compacted["output"], USER)).status == 200
        assert refusal_of(upstream, {**small, "encrypted_content": "gAAAAother"})[0] == 400


def test_a_server_of_today_knows_no_items_and_tools_of_tomorrow() -> None:
    hologram = {"type": "hologram"}
    check(json.dumps(body(USER, hologram, tools=[hologram])).encode())
    assert objection(body(USER, hologram), OPENAI_TODAY).param == "input[1].type"
    assert objection(body(tools=[hologram]), OPENAI_TODAY).param == "tools[0].type"
    check(json.dumps(body(USER, CALL, RESULT, tools=[TOOL])).encode(), OPENAI_TODAY)


def test_what_is_allowed_has_to_be_declared() -> None:
    def allowing(*tools: Body) -> Body:
        return body(tools=[TOOL], tool_choice={"type": "allowed_tools", "mode": "auto", "tools": list(tools)})

    check(json.dumps(allowing({"type": "function", "name": "look"}, {"type": "web_search"})).encode())
    wrong = objection(allowing({"type": "function", "name": "look"}, {"type": "function", "name": "gone"}))
    assert wrong.param == "tool_choice.tools[1]"


def test_what_cannot_be_read_is_refused() -> None:
    with ResponsesUpstream([answer(text("ok"))]) as upstream:
        assert post(upstream, body(text={"format": {"type": "poem"}})).status == 400
        assert post(upstream, body(context_management=[{"type": 4}])).status == 400
    assert [one.message.partition(":")[0] for one in upstream.objections] == ["We could not parse your request"] * 2


# What is recorded.


def test_what_is_stored_is_read_before_what_is_sent() -> None:
    with ResponsesUpstream([answer(text("one")), answer(text("two"))]) as upstream:
        post(upstream, body(instructions="Be brief.", tools=[TOOL]))
        post(upstream, {"model": "m", "input": "more", "previous_response_id": "resp_1"})
        first, second = (upstream.prefix(sent) for sent in upstream.requests)
    assert (first[0], first[1]) == (json.dumps([TOOL]).encode(), b'"Be brief."')
    assert second[2:3] == first[2:]
    assert [json.loads(piece).get("role") for piece in second[2:]] == ["user", "assistant", "user"]


def test_a_request_can_be_read() -> None:
    request = body(
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        CALL,
        {**RESULT, "output": [{"type": "input_text", "text": "c"}]},
        {**CALL, "call_id": "d"},
        {**RESULT, "call_id": "d"},
        tools=[TOOL],
        reasoning={"effort": "low"},
        store=False,
        include=["reasoning.encrypted_content"],
    )
    with ResponsesUpstream([answer(text("ok"))] * 2) as upstream:
        assert post(upstream, request).status == 200
        assert post(upstream, {"model": "gpt-4.1", "input": "hi"}).status == 200
    sent = upstream.requests[0].responses
    assert sent.types == ["message", "function_call", "function_call_output", "function_call", "function_call_output"]
    assert sent.items[0].text == "ab"
    assert [sent.items[2].result, sent.items[4].result] == ["c", "seen"]
    assert bytes(sent.items[1].arguments) == b'"{}"'
    assert (sent.store, sent.include) == (False, ["reasoning.encrypted_content"])
    assert sent.reasoning is not None
    assert sent.reasoning.effort == "low"
    [only] = upstream.requests[1].responses.items
    assert (only.role, only.text) == ("user", "hi")


def test_tokens_are_counted_and_models_listed() -> None:
    with ResponsesUpstream(models=["a", "b"]) as upstream:
        counted = ask(upstream, "/v1/responses/input_tokens", body()).json
        assert [one["id"] for one in ask(upstream, "/v1/models").json["data"]] == ["a", "b"]
        compacted = ask(upstream, "/v1/responses/compact", {"model": "m", "input": "hi"}).json
    assert counted["object"] == "response.input_tokens"
    assert counted["input_tokens"] > 0
    assert compacted["output"][0]["content"] == [{"type": "input_text", "text": "hi"}]
    assert [len(upstream.requests), len(upstream.asides)] == [0, 2]


# What is answered.


def test_functions_are_told_with_what_was_left_out() -> None:
    told = whole(answer(text("ok")), tools=[TOOL, {"type": "custom", "name": "run"}])["tools"]
    assert told == [{"description": None, "strict": False, **TOOL}, {"type": "custom", "name": "run"}]
    assert whole(answer(text("ok")))["tools"] == []


def test_every_piece_is_a_token_for_whom_its_probability_matters() -> None:
    include = ["message.output_text.logprobs"]
    events = streamed(answer(text("Hel", "lo")), include=include)
    deltas = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert [[one["token"] for one in logprobs] for logprobs in deltas] == [["Hel"], ["lo"]]
    [item] = done(events)
    assert [one["bytes"] for one in item["content"][0]["logprobs"]] == [[72, 101, 108], [108, 111]]
    assert whole(answer(message("Hi")))["output"][0]["content"][0]["logprobs"] == []


def test_a_stream_follows_the_grammar() -> None:
    step = answer(thought("h", "m", signature="gAAAAsealed"), text("Hel", "lo"), calls(call("look", '{"a":', "1}")))
    events = streamed(step)
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event.get("output_index") for event in events] == [None] * 2 + [0] * 7 + [1] * 7 + [2] * 5 + [None]
    assert events[2]["item"]["encrypted_content"] == "gAAAA"
    assert events[-1]["response"]["output"] == done(events)
    assert [one["id"] for one in done(events)] == ["rs_1_0", "msg_1_1", "fc_1_2"]
    assert done(events)[2] == {**CALL, "id": "fc_1_2", "status": "completed", "arguments": '{"a":1}'}
    with ResponsesUpstream([step]) as upstream:
        lines = post(upstream).body.split(b"\n")
    assert lines[0] == b"event: response.created"
    assert b"[DONE]" not in lines[-3]


def test_one_body_holds_the_same_items() -> None:
    step = answer(thought("hm"), text("a"), refusal("n", "o"), calls(call("look")), custom_call("exec", "l", "s"))
    found = whole(step, instructions="be kind")
    assert found["output"] == done(streamed(step))
    assert (found["status"], found["instructions"], found["model"]) == ("completed", "be kind", "gpt-4.1")
    assert found["usage"]["total_tokens"] == 18


def test_the_parts_that_only_this_protocol_has_are_streamed() -> None:
    citation: Body = {"type": "url_citation", "url": "https://a", "title": "a", "start_index": 0, "end_index": 1}
    odd: Body = {"type": "hologram", "data": 1}
    parts: list[Part] = [
        message("a", phase="commentary", annotations=(citation,)),
        raw_thought("b"),
        custom_call("exec", "l", "s"),
        event({"type": "response.mood", "mood": "good"}),
        item(odd),
        refusal("n", "o"),
        thought(),
    ]
    events = streamed(answer(*parts))
    said, thinking, custom, hologram, refused, silent = done(events)
    assert (said["phase"], said["content"][0]["annotations"]) == ("commentary", [citation])
    assert thinking["content"] == [{"type": "reasoning_text", "text": "b"}]
    assert custom["input"] == "ls"
    assert hologram == {"id": "item_1_3", **odd}
    assert refused["content"] == [{"type": "refusal", "refusal": "no"}]
    assert silent["summary"] == []
    assert "output_text.annotation.added" in types(events)
    assert types(events).count("refusal.delta") == 2
    assert types(events)[types(events).index("mood") + 1] == "output_item.added"
    assert [one["sequence_number"] for one in events] == list(range(len(events)))


@pytest.mark.parametrize(("style", "count"), [("fragments", 2), ("whole", 1), ("done_only", 0)])
def test_calls_come_in_the_styles_seen_in_the_field(style: Any, count: int) -> None:
    events = streamed(answer(calls(call("look", '{"a":', "1}"), style=style)))
    assert types(events).count("function_call_arguments.delta") == count
    assert types(events).count("function_call_arguments.done") == 1
    assert done(events)[0]["arguments"] == '{"a":1}'


def test_deltas_carry_obfuscation_unless_it_is_not_wanted() -> None:
    step = answer(text("a"))
    assert any("obfuscation" in event for event in streamed(step))
    quiet = streamed(step, stream_options={"include_obfuscation": False})
    assert not any("obfuscation" in event for event in quiet)


def test_one_server_changes_the_ids_of_its_items_in_every_event() -> None:
    events = streamed(answer(text("a"), calls(call("look"))), COPILOT)
    ids = [event.get("item_id") or event["item"]["id"] for event in events if "output_index" in event]
    assert len(set(ids)) == len(ids)


def test_one_server_names_no_events_and_ends_with_a_done_mark() -> None:
    for complete, last in ((True, b"data: [DONE]"), (False, b'data: {"type":"response.completed"')):
        with ResponsesUpstream([answer(text("a"), done=complete)], manner=OPENROUTER) as upstream:
            lines = post(upstream).body.split(b"\n")
        assert lines[0] == b": OPENROUTER PROCESSING"
        assert not any(line.startswith(b"event:") for line in lines)
        assert lines[-3].startswith(last)


def test_one_server_names_its_events_after_their_data() -> None:
    with ResponsesUpstream([answer(text("a"))], manner=BEDROCK) as upstream:
        reply = post(upstream)
    assert reply.body.startswith(b'data: {"type":"response.created"')
    assert reply.body.split(b"\n")[1] == b"event: response.created"
    assert reply.data[0]["response"]["created_at"] == 1_700_000_000.5


def test_one_server_forgets_its_output_at_the_end() -> None:
    events = streamed(answer(text("a")), FORGETFUL)
    assert events[-1]["response"]["output"] == []
    assert len(done(events)) == 1


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter",) * 2, ("steered",) * 2]
)
def test_an_answer_can_be_incomplete(finish: str, reason: str) -> None:
    step = answer(thought("hm"), calls(call("look")), finish=finish)
    for found in (streamed(step)[-1]["response"], whole(step)):
        assert (found["status"], found["incomplete_details"]) == ("incomplete", {"reason": reason})
        assert found["output"][-1]["status"] == "incomplete"
    assert whole(answer(finish=finish))["output"] == []
    assert "status" not in whole(answer(thought("hm"), finish=finish))["output"][0]


@pytest.mark.parametrize(("flat", "place"), [(True, None), (False, "error")])
def test_a_response_can_fail_with_an_error_event_before_it(flat: bool, place: str | None) -> None:
    manner = Manner(flat_errors=flat)
    events = streamed(answer(text("a"), failure("rate_limit_exceeded", "slow down", told=True)), manner)
    assert types(events)[-2:] == ["error", "failed"]
    told = events[-2][place] if place else events[-2]
    assert (told["code"], told["message"]) == ("rate_limit_exceeded", "slow down")
    assert events[-1]["response"]["error"] == {"code": "rate_limit_exceeded", "message": "slow down"}
    assert types(streamed(answer(text("a"), failure())))[-2:] == ["output_item.done", "failed"]
    assert whole(answer(failure()))["status"] == "failed"


def test_an_error_in_the_middle_goes_on_counting_and_ends_the_stream() -> None:
    events = streamed(answer(text("a", "b"), trouble=Trouble("error", after=2)))
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "error",
        "failed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(7))


def test_usage_is_counted_as_this_provider_counts() -> None:
    usage = Usage(prompt=30, completion=12, cached=8, reasoning=5, written=4)
    assert whole(answer(text("a"), usage=usage))["usage"] == {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 42,
    }
    assert whole(answer(text("a"), usage_place="never"))["usage"] is None


@pytest.mark.parametrize(("status", "kind"), [(429, "invalid_request_error"), (503, "server_error")])
def test_an_http_error_has_the_envelope_of_the_provider(status: int, kind: str) -> None:
    with ResponsesUpstream([HttpError(status, "no", code="c", param="input")]) as upstream:
        reply = post(upstream)
    assert (reply.status, reply.json["error"]["type"], reply.json["error"]["code"]) == (status, kind, "c")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("word", [calls(call("look"), style="gaps"), LegacyCall("look", ("{}",))])
def test_a_word_of_another_protocol_is_refused(word: Part, stream: bool) -> None:
    with pytest.raises(Unsayable, match="Responses has no form for"):
        list(answered(answer(word), {"stream": stream}, OPENAI_MANNER))


def test_the_vendors_client_reads_the_stream() -> None:
    step = answer(thought("hm"), text("Let me ", "look."), calls(call("look", '{"a":', "1}")))
    with (
        ResponsesUpstream([step], key="k") as upstream,
        OpenAI(base_url=upstream.base_url, api_key="k", max_retries=0) as client,
        client.responses.stream(model="gpt-5", input="x") as stream,
    ):
        found = stream.get_final_response()
    assert found.output_text == "Let me look."
    assert [one.type for one in found.output] == ["reasoning", "message", "function_call"]


# What the real providers took and refused.

KNOWN_ELSEWHERE = {
    "error-handling-with-xai-grok-4-1-fast-non-reasoning-raises-appro-rllm2320": "the key was wrong",
    "inferred-model-name-suggestion-pai143": "the model does not exist, and a scripted provider has every model",
    "responses-create-api-error-content-mode0-otel5043": "the same",
    "real-error-scenarios-openai-gpt-5-nano-handles-context-length-ex-rllm2727": "nobody counts tokens here",
}


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not beside the project")
def test_every_recorded_request_is_judged_as_the_real_provider_judged_it() -> None:
    otherwise: dict[str, str] = {}
    for one in recordings("responses"):
        if one.request is not None:
            refused = refusal_by(one)
            if (refused is None) != (one.status == 200):
                otherwise[one.name] = refused or "taken"
    assert otherwise == dict.fromkeys(KNOWN_ELSEWHERE, "taken")


def refusal_by(one: Recording) -> str | None:
    """The sealed items and the earlier responses of a recording are not known here."""
    if "deepseek" in one.host:
        strictness = DEEPSEEK
    elif "openai" in one.host or "azure" in one.host:
        strictness = replace(OPENAI, own_items=False)
    else:
        strictness = replace(DEEPSEEK, interleaves=True)
    uses: dict[str, Use] = {"input_tokens": "count", "compact": "compact"}
    assert one.request is not None
    try:
        check(one.request, strictness, use=uses.get(one.url.rpartition("/")[2], "create"))
    except Objection as refusal_:
        return refusal_.message
    return None
