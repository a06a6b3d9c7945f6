import json

import pytest
from msgspec import Raw

from rejoinder.conformance.answer import read
from rejoinder.conformance.errors import Broken
from rejoinder.conformance.shape import (
    EnvelopeShape,
    ListedItem,
    ModelShape,
    OpenShape,
    ResponseShape,
    nulls,
    output_items,
    read_item,
)
from tests.conformance.judging import told_in_events
from tests.conformance.little_server import Json

KEYS = [
    "background",
    "completed_at",
    "created_at",
    "error",
    "id",
    "incomplete_details",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "object",
    "output",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "status",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "usage",
]
"""objects.md §2: what is there always."""

MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}],
}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "clock",
    "arguments": "{}",
    "status": "completed",
}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}


def response(**fields: Json) -> bytes:
    return json.dumps({**told_in_events(input="Say hello.")[-1]["response"], **fields}).encode()


def raw(item: Json) -> Raw:
    return Raw(json.dumps(item).encode())


@pytest.mark.parametrize("key", KEYS)
def test_every_key_of_a_response_is_asked_for(key: str) -> None:
    fields = json.loads(response())
    del fields[key]
    with pytest.raises(Broken, match=f"missing required field `{key}`"):
        read(ResponseShape, json.dumps(fields).encode(), "a response")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "a response"),
        ("conversation", {}),
        ("object", "chat.completion"),
        ("status", "done"),
        ("metadata", {"a": 1}),
        ("parallel_tool_calls", None),
        ("store", None),
        ("output", None),
        ("error", {"code": 7, "message": "no"}),
        ("usage", {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}),
        ("usage", {"input_tokens": -1}),
        ("text", {"format": {"type": "xml"}}),
    ],
)
def test_the_types_of_a_response_are_looked_at(field: str, value: Json) -> None:
    with pytest.raises(Broken, match=f"`\\$.{field}"):
        read(ResponseShape, response(**{field: value}), "a response")


def test_what_is_not_known_may_come() -> None:
    read(ResponseShape, response(moderation=None, acme=[1]), "a response")


@pytest.mark.parametrize(
    "fields",
    [
        {"service_tier": None},
        {"temperature": None},
        {"truncation": None},
        {"created_at": 1.5},
        {"instructions": []},
        {"reasoning": {"effort": "max", "summary": None}},
        {"reasoning": {"effort": None}},
        {"text": {"format": {"type": "text"}, "verbosity": None}},
        {"presence_penalty": None},
    ],
)
def test_open_responses_asks_for_more(fields: Json) -> None:
    read(OpenShape, response(), "a response")
    read(ResponseShape, response(**fields), "a response")
    with pytest.raises(Broken):
        read(OpenShape, response(**fields), "a response")


def test_items_that_are_whole_pass() -> None:
    for item in (
        MESSAGE,
        {**MESSAGE, "phase": "final_answer", "content": [{"type": "refusal", "refusal": "no"}]},
        CALL,
        REASONING,
        {**REASONING, "content": [{"type": "reasoning_text", "text": "Hm."}], "encrypted_content": "x"},
        {"type": "acme:note", "id": "note_1", "anything": None},
    ):
        read_item(raw(item))


@pytest.mark.parametrize(
    "item",
    [
        *({name: value for name, value in MESSAGE.items() if name != missing} for missing in MESSAGE),
        *({name: value for name, value in CALL.items() if name != missing} for missing in CALL),
        *({name: value for name, value in REASONING.items() if name != missing} for missing in REASONING),
        {**MESSAGE, "content": [{"type": "output_text", "text": "hello"}]},
        {**MESSAGE, "content": "hello"},
        {**MESSAGE, "id": ""},
        {**MESSAGE, "status": None},
        {**CALL, "arguments": {}},
        {**CALL, "call_id": "c" * 65},
        {"type": "acme:note"},
    ],
)
def test_items_that_are_not_whole_break_the_rule(item: Json) -> None:
    with pytest.raises(Broken, match="of the right shape"):
        read_item(raw(item))


def test_nulls_are_found_at_every_depth() -> None:
    part = {"type": "output_text", "text": "x", "logprobs": None}
    item = {**MESSAGE, "phase": None, "name": None, "content": [part]}
    assert sorted(nulls(raw(item))) == ["message.content[0].logprobs", "message.name"]
    assert list(nulls(raw(CALL))) == []


def test_a_null_is_not_a_missing_field() -> None:
    read_item(raw({**MESSAGE, "phase": None}))


def test_items_of_other_types_may_have_nulls() -> None:
    assert list(nulls(raw({"type": "tool_search_call", "call_id": None}))) == []
    assert list(nulls(raw([None]))) == []


def test_the_items_of_a_response_come_as_they_are() -> None:
    assert [bytes(item) for item in output_items(b'{"output": [ {"a" :1}, 2]}')] == [b'{"a" :1}', b"2"]
    with pytest.raises(Broken):
        output_items(b"{}")


@pytest.mark.parametrize(
    "error",
    [
        {"message": "", "type": "x", "param": None, "code": None},
        {"message": "no", "type": None, "param": None, "code": None},
        {"message": "no", "type": "x", "code": None},
        {"message": "no", "type": "x", "param": None},
        {"message": "no", "type": "x", "param": None, "code": 7},
    ],
)
def test_an_envelope_has_four_keys(error: Json) -> None:
    read(EnvelopeShape, b'{"error": {"message": "no", "type": "x", "param": null, "code": null}}', "an error")
    with pytest.raises(Broken):
        read(EnvelopeShape, json.dumps({"error": error}).encode(), "an error")


def test_listed_items_and_models_have_their_fields() -> None:
    read(ListedItem, b'{"type": "message", "id": "msg_1", "status": "completed"}', "an item")
    read(ModelShape, b'{"id": "a", "object": "model", "created": 0, "owned_by": "b"}', "a model")
    with pytest.raises(Broken):
        read(ListedItem, b'{"type": "message", "id": "msg_1"}', "an item")
    with pytest.raises(Broken):
        read(ModelShape, b'{"id": "a", "object": "model", "created": 0.5, "owned_by": "b"}', "a model")
