import json
from typing import Any  # chunks are looked at from every side

import pytest

from rejoinder.bridge.dialect import Call
from rejoinder.server.demo import MODEL, DemoUpstream

Json = dict[str, object]

TOOL: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALLING: Json = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
}
RESULT: Json = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}


def user(text: str) -> Json:
    return {"role": "user", "content": text}


async def sent(body: bytes, *, path: str = "/chat/completions") -> tuple[int, str, list[bytes]]:
    upstream = DemoUpstream()
    async with upstream.open(Call(path, body, stream=False)) as answer:
        chunks = [chunk async for chunk in answer.chunks]
    await upstream.close()
    return answer.status, answer.headers["content-type"], chunks


async def whole(*messages: Json, **fields: object) -> dict[str, dict[str, object]]:
    """The message, its finish reason and the usage of an answer that is not streamed."""
    body = {"model": "demo", "messages": messages, **fields}
    status, content_type, chunks = await sent(json.dumps(body).encode())
    assert (status, content_type) == (200, "application/json")
    answer = json.loads(b"".join(chunks))
    [choice] = answer["choices"]
    return {"message": choice["message"], "finish": {"reason": choice["finish_reason"]}, "usage": answer["usage"]}


async def streamed(*messages: Json, **fields: object) -> list[dict[str, Any]]:
    """The chunks of a streamed answer, without the end mark."""
    body = {"model": "demo", "messages": messages, "stream": True, **fields}
    status, content_type, chunks = await sent(json.dumps(body).encode())
    assert (status, content_type) == (200, "text/event-stream")
    assert chunks[-1] == b"data: [DONE]\n\n"
    return [json.loads(chunk.removeprefix(b"data: ")) for chunk in chunks[:-1]]


async def test_a_whole_answer_has_the_shape_of_chat_completions() -> None:
    body = json.dumps({"model": "demo", "messages": [user("how many messages?")]}).encode()
    _, _, chunks = await sent(body)
    answer = json.loads(b"".join(chunks))
    assert answer == {
        "id": answer["id"],
        "object": "chat.completion",
        "created": 0,
        "model": "demo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Counting this one, you have sent me 1."},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 8,
            "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_the_same_request_gives_the_same_bytes_and_another_one_other_ids() -> None:
    body = json.dumps({"model": "demo", "messages": [user("call get_weather")], "tools": [TOOL], "stream": True})
    assert await sent(body.encode()) == await sent(body.encode())
    assert (await sent(body.encode()))[2][0] != (await sent(body.replace("call", "use").encode()))[2][0]


async def test_a_stream_gives_a_few_words_at_a_time_and_ends_with_usage() -> None:
    chunks = await streamed(user("how many messages?"), stream_options={"include_usage": True})
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta["content"] for delta in deltas[1:-1]] == ["Counting this one,", " you have sent", " me 1."]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert "usage" in chunks[-1]
    assert all("usage" not in chunk for chunk in chunks[:-1])


async def test_usage_is_streamed_only_when_asked_for() -> None:
    assert all("usage" not in chunk for chunk in await streamed(user("hi")))


async def test_a_thought_is_streamed_before_the_text() -> None:
    kinds = [[*choice["delta"]][:1] for chunk in await streamed(user("think")) for choice in chunk["choices"]]
    assert [kind for index, kind in enumerate(kinds) if index == 0 or kind != kinds[index - 1]] == [
        ["role"],
        ["reasoning_content"],
        ["content"],
        [],
    ]
    answer = await whole(user("think"))
    assert answer["message"]["reasoning_content"]
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 11}


async def test_calls_are_streamed_in_fragments_that_make_up_the_whole() -> None:
    text = 'call get_weather with {"city":"Oslo"} and get_weather with {"city":"Rome"}'
    answer = await whole(user(text), tools=[TOOL])
    assert answer["finish"] == {"reason": "tool_calls"}
    assert answer["message"]["content"] is None
    body = {"model": "demo", "messages": [user(text)], "tools": [TOOL], "stream": True}
    _, _, chunks = await sent(json.dumps(body).encode())
    arguments = ["", ""]
    ids = ["", ""]
    for chunk in chunks[:-1]:
        for call in json.loads(chunk.removeprefix(b"data: "))["choices"][0]["delta"].get("tool_calls", []):
            arguments[call["index"]] += call["function"]["arguments"]
            ids[call["index"]] += call.get("id", "")
    assert arguments == ['{"city":"Oslo"}', '{"city":"Rome"}']
    assert len(set(ids)) == 2
    assert all(id.startswith("call_") for id in ids)


async def test_a_tool_turn_is_read_back() -> None:
    answer = await whole(user("call get_weather"), CALLING, RESULT, tools=[TOOL])
    assert answer["message"]["content"] == "The tool get_weather answered: sunny"
    assert answer["usage"]["prompt_tokens"] == 4


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_cuts_the_text_and_says_so(field: str) -> None:
    answer = await whole(user("how many messages?"), **{field: 3})
    assert answer["message"]["content"] == "Counting this one,"
    assert answer["finish"] == {"reason": "length"}
    assert answer["usage"]["completion_tokens"] == 3
    assert (await whole(user("how many messages?"), **{field: 8}))["finish"] == {"reason": "stop"}


async def test_a_limit_cuts_thoughts_first_and_calls_last() -> None:
    text = 'think, then call get_weather with {"city": "Oslo"} and get_weather with {"city": "Rome"}'
    for limit, calls in ((5, None), (23, ['{"city":']), (24, ['{"city": "Oslo"}'])):
        answer = await whole(user(text), tools=[TOOL], max_tokens=limit)
        made = answer["message"].get("tool_calls")
        assert answer["finish"] == {"reason": "length"}
        assert answer["usage"]["completion_tokens"] == limit
        assert (made and [call["function"]["arguments"] for call in list_of(made)]) == calls


def list_of(value: object) -> list[dict[str, dict[str, str]]]:
    assert isinstance(value, list)
    return value


async def test_white_space_at_the_end_is_streamed_too() -> None:
    chunks = await streamed(user("call get_weather"), CALLING, {**RESULT, "content": "sunny\n"}, tools=[TOOL])
    assert (
        "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])[-6:] == "sunny\n"
    )


async def test_the_demo_lists_its_model() -> None:
    _, _, chunks = await sent(b"", path="models")
    assert [model["id"] for model in json.loads(b"".join(chunks))["data"]] == [MODEL]


async def test_another_path_is_not_found() -> None:
    status, _, _ = await sent(b"{}", path="embeddings")
    assert status == 404


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": []}, "length"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot"),
        ({"messages": [{"role": "user"}]}, "expected content"),
        ({"messages": [{"role": "assistant", "content": None}]}, "expected content"),
        ({"messages": [{**CALLING, "tool_calls": []}]}, "length"),
        ({"messages": [user("x"), RESULT]}, "must be a response"),
        ({"messages": [user("x"), CALLING]}, "call_1"),
        ({"messages": [CALLING, user("x"), RESULT]}, "call_1"),
        ({"messages": [CALLING, RESULT, RESULT]}, "must be a response"),
        ({"messages": [{**CALLING, "tool_calls": [*list_of(CALLING["tool_calls"])] * 2}, RESULT]}, "must differ"),
        ({"tools": []}, "length"),
        ({"tools": [TOOL, TOOL]}, "unique"),
        ({"tools": [{"type": "function", "function": {"name": "a.b"}}]}, "regex"),
        ({"tool_choice": "auto"}, "only allowed"),
        ({"parallel_tool_calls": True}, "only allowed"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "gone"}}}, "declared"),
        ({"max_tokens": 0}, ">= 1"),
        ({"model": 3}, "model"),
    ],
)
async def test_what_a_strict_server_refuses_is_refused(fields: Json, message: str) -> None:
    body = {"model": "demo", "messages": [user("x")], **fields}
    status, content_type, chunks = await sent(json.dumps(body).encode())
    error = json.loads(b"".join(chunks))["error"]
    assert (status, content_type) == (400, "application/json")
    assert error["type"] == "invalid_request_error"
    assert message in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"\xff"', b'{"model": "m", "messages": ' + b"[" * 100_000])
async def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    status, _, _ = await sent(body)
    assert status == 400


async def test_a_refusal_in_the_history_is_a_message_like_any_other() -> None:
    answer = await whole(
        user("x"), {"role": "assistant", "content": None, "refusal": "no"}, user("what did I say last?")
    )
    assert answer["message"]["content"] == 'Before that you said: "x"'
