import http.client
import json
import socket
import time
from contextlib import AbstractContextManager, ExitStack
from typing import Any  # the bodies here are broken in every way, so they have no type

import pytest
from openai import APIStatusError, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from rejoinder.conformance.upstreams.anthropic_script import redacted
from rejoinder.conformance.upstreams.asking import Body, Reply, ask, asking
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.chat_wire import answered
from rejoinder.conformance.upstreams.script import (
    Answer,
    Calls,
    CallStyle,
    HttpError,
    LegacyCall,
    Step,
    Trouble,
    Unsayable,
    Usage,
    UsagePlace,
    answer,
    call,
    calls,
    death,
    raw,
    refusal,
    silence,
    text,
    thought,
)
from rejoinder.conformance.upstreams.sent import SentChat
from rejoinder.conformance.upstreams.strictness import (
    COMPATIBLE,
    DEEPSEEK,
    MISTRAL,
    OPENAI,
    Objection,
    Strictness,
    check,
)

USER: Body = {"role": "user", "content": "hi"}
CALL: Body = {"id": "call_abc", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLING: Body = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT: Body = {"role": "tool", "tool_call_id": "call_abc", "content": "seen"}
TOOL: Body = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def body(*messages: Body, **fields: object) -> Body:
    return {"model": "m", "messages": list(messages or (USER,)), **fields}


def objection(request: Body | bytes, strictness: Strictness = COMPATIBLE) -> Objection:
    with pytest.raises(Objection) as caught:
        check(request if isinstance(request, bytes) else json.dumps(request).encode(), strictness)
    return caught.value


def post(upstream: ChatUpstream, request: Body | None = None, *, stream: bool = True) -> Reply:
    fields = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return ask(upstream, "/v1/chat/completions", request or body(**fields))


def posting(upstream: ChatUpstream) -> AbstractContextManager[socket.socket]:
    """A request whose answer is not waited for."""
    return asking(upstream, "/v1/chat/completions", body(stream=True))


def streamed(step: Step) -> list[Body]:
    """The chunks of one streamed answer, and "[DONE]" as an empty object."""
    with ChatUpstream([step]) as upstream:
        return post(upstream).data


def deltas(step: Step) -> list[Body]:
    return [choice["delta"] for chunk in streamed(step) for choice in chunk.get("choices", [])]


def tool_deltas(style: CallStyle, *arguments: tuple[str, ...]) -> list[Body]:
    made = [call(f"tool{number}", *fragments) for number, fragments in enumerate(arguments)]
    step = answer(calls(*made, style=style))
    return [fragment for delta in deltas(step) for fragment in delta.get("tool_calls", [])]


# What is refused.


@pytest.mark.parametrize(
    "request_body",
    [
        body(),
        body({"role": "system", "content": "be kind"}, USER),
        body(USER, {**USER, "content": [{"type": "text", "text": "a"}]}),
        body(USER, CALLING, RESULT, USER, tools=[TOOL], tool_choice="auto", parallel_tool_calls=True),
        body(USER, CALLING, {**RESULT, "content": ""}),
        body(USER, {"role": "assistant", "content": "look", "tool_calls": [CALL]}, RESULT),
        body(USER, {"role": "assistant", "content": None, "refusal": "no"}, USER),
        body(USER, {"role": "assistant", "content": "x", "reasoning_content": "y"}, USER),
        body({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}),
        body(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "look"}}),
        body(tools=[{"type": "function", "function": {"name": "bare"}}]),
        body(stream=True, stream_options={"include_usage": True}, max_tokens=1, temperature=1),
        body(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}),
        body(response_format={"type": "json_object"}),
    ],
)
def test_a_well_formed_request_passes(request_body: Body) -> None:
    check(json.dumps(request_body).encode(), COMPATIBLE)


@pytest.mark.parametrize(
    ("request_body", "param"),
    [
        (b"\xff{}", None),
        (b"{", None),
        (b"[]", "body"),
        (b'{"model": "m", "model": "n", "messages": []}', None),
        (b'{"model": "m", "messages": [], "temperature": NaN}', None),
        (body(instructions="x"), "instructions"),
        ({"messages": [USER]}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "", "messages": [USER]}, None),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": "hi"}, "messages"),
        ({"model": "m", "messages": ["hi"]}, "messages[0]"),
        (body(temperature="hot"), "temperature"),
        (body(max_tokens=True), "max_tokens"),
        (body(max_tokens=0), "max_tokens"),
        (body(stream_options={"include_usage": True}), "stream_options"),
        (body(tools=[]), "tools"),
        (body(tool_choice="auto"), "tool_choice"),
        (body(parallel_tool_calls=False), "parallel_tool_calls"),
        (body(tools=[TOOL], tool_choice="any"), "tool_choice"),
        (body(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "gone"}}), "tool_choice"),
        (body(tools=[{"type": "custom", "custom": {"name": "exec"}}]), "tools[0].type"),
        (body(tools=[{**TOOL, "name": "look"}]), "tools[0].name"),
        (body(tools=[{"type": "function", "name": "flat"}]), "tools[0].name"),
        (body(tools=[TOOL, TOOL]), "tools[1].function.name"),
        (body(tools=[{"type": "function", "function": {"name": "a.b"}}]), "tools[0].function.name"),
        (body(tools=[{"type": "function", "function": {"name": "a" * 65}}]), "tools[0].function.name"),
        (body(tools=[{"type": "function", "function": {"name": "a", "description": None}}]), None),
        (body(tools=[{"type": "function", "function": {"name": "a", "strict": 1}}]), None),
        (body(tools=[{"type": "function", "function": {"name": "a", "parameters": {}}}]), None),
        (body(tools=[{"type": "function", "function": {"name": "a", "defer_loading": True}}]), None),
        (body(response_format={"type": "yaml"}), "response_format.type"),
        (body(response_format={"type": "json_schema", "json_schema": {"name": "a b"}}), None),
        (body({"role": "robot", "content": "x"}), "messages[0].role"),
        (body({"role": "developer", "content": "x"}), "messages[0].role"),
        (body({"role": "user"}), "messages[0].content"),
        (body({"role": "user", "content": ""}), "messages[0].content"),
        (body({"role": "user", "content": []}), "messages[0].content"),
        (body({"role": "user", "content": 3}), "messages[0].content"),
        (body({"role": "user", "content": [{"type": "input_text", "text": "x"}]}), "messages[0].content[0]"),
        (body({"role": "user", "content": [{"type": "text", "text": ""}]}), "messages[0].content[0]"),
        (body({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0].text"),
        (body({**USER, "id": "msg_1"}), "messages[0].id"),
        (body({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "cat.png"}}]}), None),
        (body({"role": "assistant", "content": None}), "messages[0].content"),
        (body({"role": "assistant", "content": "x", "tool_calls": []}), "messages[0].tool_calls"),
        (body({**CALLING, "content": ""}, RESULT), "messages[0].content"),
        (body(USER, RESULT), "messages.[1].role"),
        (body(USER, CALLING), "messages.[2].role"),
        (body(USER, CALLING, USER, RESULT), "messages.[2].role"),
        (body(USER, CALLING, RESULT, RESULT), "messages.[3].role"),
        (body(CALLING, {"role": "tool", "tool_call_id": "other", "content": "x"}), "messages.[1].role"),
        (body(CALLING, {"role": "tool", "content": "x"}), "messages[1].tool_call_id"),
        (body({**CALLING, "tool_calls": [CALL, CALL]}, RESULT), "messages[0]"),
        (body({**CALLING, "tool_calls": [{**CALL, "id": "c" * 65}]}), "messages[0].tool_calls[0].id"),
        (body({**CALLING, "tool_calls": [{**CALL, "id": ""}]}), "messages[0].tool_calls[0].id"),
        (body({**CALLING, "tool_calls": [{**CALL, "index": 0}]}), "messages[0].tool_calls[0].index"),
        (body({**CALLING, "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "x", "input": ""}}]}), None),
        (
            body(CALLING, {**RESULT, "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}),
            "messages[1].content[0]",
        ),
    ],
)
def test_a_malformed_request_is_refused_and_the_place_is_named(request_body: Body | bytes, param: str | None) -> None:
    found = objection(request_body)
    assert param is None or found.param == param


@pytest.mark.parametrize("arguments", [{}, None, "{", ""])
def test_arguments_must_be_a_string_of_json(arguments: object) -> None:
    broken = {**CALL, "function": {"name": "look", "arguments": arguments}}
    found = objection(body({**CALLING, "tool_calls": [broken]}, RESULT))
    assert found.param == "messages[0].tool_calls[0].function.arguments"


def test_strict_tools_must_require_every_property() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": [], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "a", "strict": True, "parameters": schema}}
    assert objection(body(tools=[tool])).code == "invalid_function_parameters"
    schema["required"] = ["a"]
    check(json.dumps(body(tools=[tool])).encode(), COMPATIBLE)


def test_the_envelope_is_that_of_the_provider() -> None:
    assert json.loads(objection(body(tools=[])).body()) == {
        "error": {
            "message": "Invalid 'tools': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.",
            "type": "invalid_request_error",
            "param": "tools",
            "code": "empty_array",
        }
    }


def test_openai_knows_developers_and_custom_tools_but_no_reasoning_fields() -> None:
    custom = {"id": "call_1", "type": "custom", "custom": {"name": "exec", "input": "ls"}}
    history = [
        {"role": "developer", "content": "x"},
        {**CALLING, "tool_calls": [custom]},
        {**RESULT, "tool_call_id": "call_1"},
    ]
    tools = [{"type": "custom", "custom": {"name": "exec"}}]
    check(json.dumps(body(*history, tools=tools, verbosity="low")).encode(), OPENAI)
    found = objection(body(USER, {"role": "assistant", "content": "x", "reasoning_content": "y"}), OPENAI)
    assert found.param == "messages[1].reasoning_content"


def test_mistral_wants_nine_characters_no_stream_options_and_the_system_first() -> None:
    nine = {**CALLING, "tool_calls": [{**CALL, "id": "abcDEF123"}]}
    result = {**RESULT, "tool_call_id": "abcDEF123"}
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "x"}]}, {"type": "text", "text": "y"}]
    history = body(USER, nine, result, {"role": "assistant", "content": thinking}, tools=[TOOL], tool_choice="any")
    check(json.dumps(history).encode(), MISTRAL)
    assert objection(body(CALLING, RESULT), MISTRAL).param == "messages[0].tool_calls[0].id"
    assert objection(body(stream=True, stream_options={}), MISTRAL).param == "stream_options"
    assert objection(body(USER, {"role": "system", "content": "x"}), MISTRAL).param == "messages[1]"


def test_deepseek_wants_its_reasoning_back_beside_tool_calls_unless_thinking_is_off() -> None:
    assert "reasoning_content" in objection(body(CALLING, RESULT), DEEPSEEK).message
    check(json.dumps(body({**CALLING, "reasoning_content": ""}, RESULT)).encode(), DEEPSEEK)
    check(json.dumps(body(CALLING, RESULT, thinking={"type": "disabled"})).encode(), DEEPSEEK)


def test_a_template_that_demands_alternation_refuses_two_user_messages() -> None:
    assert objection(body(USER, USER), Strictness(alternation=True)).param == "messages[1].role"


def test_a_template_that_wants_an_empty_string_refuses_null() -> None:
    empty = Strictness(call_content="empty")
    assert objection(body(CALLING, RESULT), empty).param == "messages[0].content"
    check(json.dumps(body({**CALLING, "content": ""}, RESULT)).encode(), empty)


# What is recorded.


def test_a_request_is_recorded_as_it_arrived() -> None:
    with ChatUpstream([answer(text("ok"))]) as upstream:
        request = body(USER, CALLING, RESULT, tools=[TOOL], max_tokens=5)
        assert post(upstream, request).status == 200
    [sent] = upstream.requests
    assert json.loads(sent.body) == request
    assert sent.headers["content-type"] == "application/json"
    assert sent.chat.messages[1].tool_calls[0].function.name == "look"
    assert sent.chat.messages[0].text == "hi"
    assert sent.chat.messages[1].text == ""
    assert bytes(sent.fields["max_tokens"]) == b"5"
    assert not sent.left.is_set()


def test_parts_are_read_as_one_text() -> None:
    with ChatUpstream([answer(text("ok"))]) as upstream:
        post(upstream, body({"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b")]}))
    assert upstream.requests[0].chat.messages[0].text == "ab"


def test_a_refused_request_is_recorded_and_uses_up_no_step() -> None:
    with ChatUpstream([answer(text("ok"))]) as upstream:
        refused = post(upstream, body(tools=[]))
        assert (refused.status, json.loads(refused.body)["error"]["param"]) == (400, "tools")
        assert post(upstream).status == 200
    assert [found.param for found in upstream.objections] == ["tools"]
    assert len(upstream.requests) == 2


def test_a_function_of_the_request_can_be_the_script() -> None:
    with ChatUpstream(lambda request: answer(text(request.messages[-1].text.upper()))) as upstream:
        whole = json.loads(post(upstream, stream=False).body)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "HI"}


def test_a_request_after_the_last_step_is_an_error() -> None:
    with ChatUpstream() as upstream:
        assert post(upstream).status == 500
        upstream.follow([answer(text("more"))])
        assert post(upstream).status == 200


def test_what_the_script_raises_reaches_the_test() -> None:
    def script(request: SentChat) -> Step:
        raise LookupError(f"no answer to {request.messages[0].text!r}")

    with pytest.raises(LookupError, match="no answer to 'hi'"), ChatUpstream(script) as upstream:
        assert post(upstream).status == 500


def test_keys_models_and_unknown_paths() -> None:
    with ChatUpstream(models=["a", "b"], key="secret") as upstream:
        client = OpenAI(base_url=upstream.base_url, api_key="wrong", max_retries=0)
        assert [model.id for model in client.models.list()] == ["a", "b"]
        with pytest.raises(APIStatusError) as refused:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
        assert refused.value.status_code == 401
        with pytest.raises(APIStatusError) as unknown:
            client.embeddings.create(model="m", input="x")
        assert unknown.value.status_code == 404
        client.close()
    assert upstream.requests == []


# What is answered.


def test_text_is_streamed_in_the_given_pieces_and_ends_with_usage_and_done() -> None:
    chunks = streamed(answer(text("Hel", "lo"), usage=Usage(prompt=3, completion=2, cached=1, reasoning=1)))
    assert [choice["delta"] for chunk in chunks[:-2] for choice in chunk["choices"]] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert chunks[-3]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["choices"] == []
    assert chunks[-2]["usage"]["total_tokens"] == 5
    assert chunks[-1] == {}


def test_what_was_written_to_the_cache_is_told_when_there_is_any() -> None:
    usage = Usage(prompt=9, cached=1, written=4)
    assert streamed(answer(usage=usage))[-2]["usage"]["prompt_tokens_details"] == {
        "cached_tokens": 1,
        "cache_write_tokens": 4,
    }


def test_usage_after_the_end_comes_only_when_asked_for() -> None:
    with ChatUpstream([answer(text("x"))]) as upstream:
        assert b"usage" not in post(upstream, body(stream=True)).body


@pytest.mark.parametrize(
    ("place", "holds"),
    [
        ("finish", [False, False, True]),
        ("every", [True, True, True]),
        ("choice", [False, False, False]),
        ("never", [False, False, False]),
    ],
)
def test_usage_sits_where_the_script_wants_it(place: UsagePlace, holds: list[bool]) -> None:
    chunks = streamed(answer(text("x"), usage_place=place))
    assert ["usage" in chunk for chunk in chunks if chunk] == holds
    assert ("usage" in chunks[2]["choices"][0]) == (place == "choice")


@pytest.mark.parametrize("place", ["reasoning_content", "reasoning"])
def test_reasoning_comes_in_the_field_asked_for(place: str) -> None:
    field: Any = place
    assert deltas(answer(thought("hm", "m", place=field), text("x")))[1:4] == [
        {place: "hm"},
        {place: "m"},
        {"content": "x"},
    ]


def test_reasoning_details_end_with_their_signature() -> None:
    found = [delta["reasoning_details"][0] for delta in deltas(answer(thought("a", place="reasoning_details")))[1:-1]]
    assert [entry["text"] for entry in found] == ["a"]
    signed = answer(thought("a", place="reasoning_details", signature="sig"))
    assert deltas(signed)[2]["reasoning_details"][0]["signature"] == "sig"


def test_refusals_and_legacy_calls_are_streamed() -> None:
    assert deltas(answer(refusal("no", "!")))[1:3] == [{"refusal": "no"}, {"refusal": "!"}]
    legacy = streamed(answer(LegacyCall("look", ("{", "}"))))
    assert legacy[1]["choices"][0]["delta"] == {"function_call": {"name": "look", "arguments": ""}}
    assert legacy[-3]["choices"][0]["finish_reason"] == "function_call"


@pytest.mark.parametrize(
    ("style", "indexes", "ids"),
    [
        ("fragments", [0, 0, 0, 1, 1], ["call_tool0", None, None, "call_tool1", None]),
        ("interleaved", [0, 1, 0, 1, 0], ["call_tool0", "call_tool1", None, None, None]),
        ("whole", [0, 1], ["call_tool0", "call_tool1"]),
        ("together", [0, 1], ["call_tool0", "call_tool1"]),
        ("id_everywhere", [0, 0, 1], ["call_tool0", "call_tool0", "call_tool1"]),
        ("no_id", [0, 0, 0, 1, 1], [None] * 5),
        ("empty_id", [0, 0, 0, 1, 1], ["", None, None, "", None]),
        ("same_index", [0, 0, 0, 0, 0], ["call_tool0", None, None, "call_tool1", None]),
        ("from_one", [1, 1, 1, 2, 2], ["call_tool0", None, None, "call_tool1", None]),
        ("gaps", [0, 0, 0, 2, 2], ["call_tool0", None, None, "call_tool1", None]),
        ("no_index", [None] * 5, ["call_tool0", None, None, "call_tool1", None]),
        ("object", [0, 1], ["call_tool0", "call_tool1"]),
        ("no_arguments", [0, 1], ["call_tool0", "call_tool1"]),
        ("late_name", [0, 0, 0, 1, 1], ["call_tool0", "call_tool0", None, "call_tool1", None]),
    ],
)
def test_tool_calls_come_in_every_style_seen_in_the_field(
    style: CallStyle, indexes: list[int | None], ids: list[str | None]
) -> None:
    fragments = tool_deltas(style, ('{"a":', "1}"), ("{}",))
    assert [fragment.get("index") for fragment in fragments] == indexes
    assert [fragment.get("id") for fragment in fragments] == ids


@pytest.mark.parametrize("stream", [True, False])
def test_a_word_of_another_protocol_is_refused(stream: bool) -> None:
    with pytest.raises(Unsayable, match="Chat Completions has no form for"):
        list(answered(answer(redacted("x")), model="m", stream=stream, include_usage=False))


def test_arguments_can_be_an_object_or_missing_and_a_name_can_be_late() -> None:
    assert tool_deltas("object", ('{"a":1}',))[0]["function"]["arguments"] == {"a": 1}
    assert tool_deltas("no_arguments", ("{}",))[0]["function"] == {"name": "tool0"}
    assert tool_deltas("late_name", ("{}",))[-1]["function"]["name"] == "tool0"


def test_the_openai_client_reads_the_stream() -> None:
    step = answer(thought("hm"), text("Let me ", "look."), calls(call("look", '{"a":', "1}"), call("see")))
    with ChatUpstream([step]) as upstream, OpenAI(base_url=upstream.base_url, api_key="k") as client:
        chunks: list[ChatCompletionChunk] = list(
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
        )
    told = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in told) == "Let me look."
    assert told[-1].finish_reason == "tool_calls"


def test_the_openai_client_reads_the_whole_answer() -> None:
    step = answer(thought("hm"), text("Let me ", "look."), calls(call("look", '{"a":', "1}"), call("see")))
    with ChatUpstream([step]) as upstream, OpenAI(base_url=upstream.base_url, api_key="k") as client:
        found: ChatCompletion = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    message = found.choices[0].message
    assert message.content == "Let me look."
    assert [one.id for one in message.tool_calls or []] == ["call_look", "call_see"]
    assert found.usage is not None
    assert found.usage.total_tokens == 18


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (answer(refusal("no", "!")), {"content": None, "refusal": "no!"}),
        (answer(thought("a", "b", place="reasoning")), {"content": None, "reasoning": "ab"}),
        (answer(LegacyCall("f", ("{", "}"))), {"content": None, "function_call": {"name": "f", "arguments": "{}"}}),
    ],
)
def test_a_whole_answer_holds_every_kind_of_part(step: Answer, expected: Body) -> None:
    with ChatUpstream([step]) as upstream:
        whole = json.loads(post(upstream, stream=False).body)
    assert whole["choices"][0]["message"] == {"role": "assistant", **expected}


def test_a_whole_answer_can_lack_usage_and_show_reasoning_details() -> None:
    step = answer(thought("a", place="reasoning_details", signature="s"), usage_place="never", finish="length")
    with ChatUpstream([step]) as upstream:
        whole = json.loads(post(upstream, stream=False).body)
    assert "usage" not in whole
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["choices"][0]["message"]["reasoning_details"][0]["signature"] == "s"


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("object", {"id": "call_f", "type": "function", "function": {"name": "f", "arguments": {}}}),
        ("no_arguments", {"id": "call_f", "type": "function", "function": {"name": "f"}}),
        ("no_id", {"type": "function", "function": {"name": "f", "arguments": "{}"}}),
        ("empty_id", {"id": "", "type": "function", "function": {"name": "f", "arguments": "{}"}}),
    ],
)
def test_a_whole_answer_keeps_the_oddities_of_the_calls(style: CallStyle, expected: Body) -> None:
    with ChatUpstream([answer(Calls((call("f"),), style))]) as upstream:
        whole = json.loads(post(upstream, stream=False).body)
    assert whole["choices"][0]["message"]["tool_calls"] == [expected]


def test_a_json_body_can_answer_a_request_for_a_stream() -> None:
    with ChatUpstream([answer(text("x"), always_json=True)]) as upstream:
        response = post(upstream)
        assert response.headers["content-type"] == "application/json"
        assert json.loads(response.body)["object"] == "chat.completion"


def test_an_http_error_has_its_status_headers_and_envelope() -> None:
    step = HttpError(429, "slow down", type="rate_limit_error", code="rate", headers={"retry-after": "7"})
    with ChatUpstream([step, HttpError(502, raw=b"<html>")]) as upstream:
        response = post(upstream)
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        assert json.loads(response.body)["error"]["code"] == "rate"
        assert post(upstream).body == b"<html>"


def test_raw_bytes_go_out_as_they_are() -> None:
    with ChatUpstream([raw(b"data: ", b"x\r\n", content_type="text/plain", gap=0.01)]) as upstream:
        response = post(upstream)
        assert response.headers["content-type"] == "text/plain"
        assert response.body == b"data: x\r\n"
        upstream.follow([raw(b"y", status=418)])
        assert post(upstream).status == 418


# What goes wrong.


def test_a_stream_can_lack_its_done_mark_or_its_finish() -> None:
    assert streamed(answer(text("x"), done=False))[-1] != {}
    cut_short = streamed(answer(text("x", "y"), trouble=Trouble("end", after=2)))
    assert [chunk["choices"][0]["finish_reason"] for chunk in cut_short] == [None, None]


def test_an_error_or_broken_json_can_come_in_mid_stream() -> None:
    assert streamed(answer(text("x", "y"), trouble=Trouble("error", after=2)))[-1]["error"]["code"] == "server_error"
    with ChatUpstream([answer(text("x"), trouble=Trouble("bad_json", after=1))]) as upstream:
        assert b'{"content": \n\n' in post(upstream).body


def test_a_cut_stream_has_no_end_of_body() -> None:
    step = answer(text("x", "y"), gap=0.01, trouble=Trouble("cut", after=2))
    with ChatUpstream([step]) as upstream, pytest.raises(http.client.IncompleteRead) as cut:
        post(upstream)
    assert cut.value.partial.count(b"data: ") == 2


def test_a_reset_stream_is_a_reset_connection() -> None:
    with ChatUpstream([answer(text("x", "y"), trouble=Trouble("reset", after=2))]) as upstream:
        failure = (ConnectionResetError, http.client.IncompleteRead)
        with pytest.raises(failure):
            post(upstream)


@pytest.mark.parametrize("kind", ["cut", "end", "reset"])
def test_a_whole_answer_can_stop_half_way(kind: Any) -> None:
    with ChatUpstream([answer(text("x"), trouble=Trouble(kind, after=0))]) as upstream:
        failure = (ConnectionResetError, http.client.IncompleteRead)
        with pytest.raises(failure):
            post(upstream, stream=False)


def test_a_whole_answer_can_be_an_error_or_nonsense_with_status_200() -> None:
    steps = [answer(trouble=Trouble("error", after=0)), answer(trouble=Trouble("bad_json", after=0))]
    with ChatUpstream(steps) as upstream:
        assert "error" in json.loads(post(upstream, stream=False).body)
        assert set(post(upstream, stream=False).body) == {ord("x")}


@pytest.mark.parametrize(
    "step",
    [
        silence(),
        silence(after_head=True),
        answer(text("x"), trouble=Trouble("stall", after=1)),
        answer(text("x"), trouble=Trouble("stall", after=0), always_json=True),
    ],
)
def test_a_stall_lasts_until_the_client_leaves(step: Step) -> None:
    with ChatUpstream([step]) as upstream:
        with posting(upstream):
            assert not upstream.requests[0].left.wait(0.05)
        assert upstream.requests[0].left.wait(2)


def test_a_client_that_was_dropped_has_not_left() -> None:
    with ChatUpstream([death("after_head")]) as upstream, pytest.raises(http.client.IncompleteRead):
        post(upstream)
    assert not upstream.requests[0].left.is_set()


def test_waiting_for_a_request_that_never_comes_ends() -> None:
    with ChatUpstream() as upstream, pytest.raises(TimeoutError, match="expected 1 requests"):
        upstream.wait(1, timeout=0.02)


def test_closing_the_provider_ends_a_stall() -> None:
    with ExitStack() as clients:
        with ChatUpstream([silence()]) as upstream:
            client = clients.enter_context(posting(upstream))
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (death("before_head"), http.client.RemoteDisconnected),
        (death("before_head", reset=True), ConnectionResetError),
        (death("after_head"), http.client.IncompleteRead),
    ],
)
def test_a_provider_can_die_before_its_first_byte(step: Step, error: type[Exception]) -> None:
    with ChatUpstream([step]) as upstream, pytest.raises(error):
        post(upstream)


def test_a_provider_can_die_in_the_middle_of_its_head() -> None:
    with ChatUpstream([death("in_head")]) as upstream, posting(upstream) as client:
        received = b""
        while more := client.recv(1000):
            received += more
    assert received == b"HTTP/1.1 200 OK\r\nContent-Ty"


def test_pieces_are_paced() -> None:
    started = time.monotonic()
    with ChatUpstream([answer(text("x", "y"), delay=0.05, gap=0.05)]) as upstream:
        post(upstream)
    assert time.monotonic() - started >= 0.2
