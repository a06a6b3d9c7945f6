import json

import msgspec
import pytest

from rejoinder.bridge.echo import echo
from rejoinder.wire.request import CreateRequest

FULL = {
    "model": "m",
    "input": "hi",
    "instructions": "be brief",
    "previous_response_id": "resp_0",
    "store": False,
    "max_output_tokens": 16,
    "max_tool_calls": 3,
    "temperature": 0,
    "top_p": 0,
    "top_logprobs": 2,
    "presence_penalty": 1,
    "frequency_penalty": -1,
    "parallel_tool_calls": False,
    "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": {"b": 1, "a": 2}, "strict": True},
        "verbosity": "low",
    },
    "reasoning": {"effort": "low", "summary": "auto"},
    "truncation": "auto",
    "metadata": {"a": "b"},
    "prompt_cache_key": "key",
    "safety_identifier": "s",
    "user": "u",
    "service_tier": "flex",
}


def echoed(**fields: object) -> bytes:
    request = CreateRequest.parse(json.dumps({"model": "m", "input": "hi", **fields}).encode())
    return msgspec.json.encode(echo(request, response_id="resp_1", created_at=1795000000))


def test_a_full_request_is_echoed_in_full() -> None:
    assert echoed(**FULL) == (
        b'{"id":"resp_1","object":"response","created_at":1795000000,"completed_at":null,"status":"in_progress",'
        b'"background":false,"error":null,"incomplete_details":null,"instructions":"be brief","max_output_tokens":16,'
        b'"max_tool_calls":3,"metadata":{"a":"b"},"model":"m","output":[],"parallel_tool_calls":false,'
        b'"previous_response_id":"resp_0","conversation":null,"prompt_cache_key":"key",'
        b'"reasoning":{"effort":"low","summary":"auto"},"safety_identifier":"s","service_tier":"default","store":false,'
        b'"temperature":0.0,"top_p":0.0,"presence_penalty":1.0,"frequency_penalty":-1.0,'
        b'"text":{"format":{"type":"json_schema","name":"n","description":null,"schema":{"b": 1, "a": 2},'
        b'"strict":true},"verbosity":"low"},"tool_choice":{"type": "function", "name": "f"},'
        b'"tools":[{"type":"function","name":"f","description":null,"parameters":null,"strict":false},'
        b'{"type": "custom", "name": "c"}],"top_logprobs":2,"truncation":"auto","usage":null,"user":"u"}'
    )


def test_what_was_left_out_is_echoed_with_its_default() -> None:
    assert echoed() == (
        b'{"id":"resp_1","object":"response","created_at":1795000000,"completed_at":null,"status":"in_progress",'
        b'"background":false,"error":null,"incomplete_details":null,"instructions":null,"max_output_tokens":null,'
        b'"max_tool_calls":null,"metadata":{},"model":"m","output":[],"parallel_tool_calls":true,'
        b'"previous_response_id":null,"conversation":null,"prompt_cache_key":null,'
        b'"reasoning":{"effort":null,"summary":null},"safety_identifier":null,"service_tier":"default","store":true,'
        b'"temperature":1.0,"top_p":1.0,"presence_penalty":0.0,"frequency_penalty":0.0,'
        b'"text":{"format":{"type":"text"},"verbosity":"medium"},"tool_choice":"auto","tools":[],"top_logprobs":0,'
        b'"truncation":"disabled","usage":null,"user":null}'
    )


@pytest.mark.parametrize("named", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_is_echoed_as_an_object_whatever_it_was_named_as(named: object) -> None:
    assert b'"conversation":{"id":"conv_1"}' in echoed(conversation=named)


def test_a_response_in_the_background_says_so() -> None:
    assert b'"background":true' in echoed(background=True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ({}, b'"text":{"format":{"type":"text"},"verbosity":"medium"}'),
        ({"format": {"type": "text"}}, b'"text":{"format":{"type":"text"},"verbosity":"medium"}'),
        ({"format": {"type": "json_object"}}, b'"text":{"format":{"type":"json_object"},"verbosity":"medium"}'),
        (
            {"format": {"type": "json_schema", "name": "n", "schema": {}, "description": "d"}},
            b'"text":{"format":{"type":"json_schema","name":"n","description":"d","schema":{},"strict":false},'
            b'"verbosity":"medium"}',
        ),
    ],
)
def test_every_format_is_echoed_with_all_its_keys(text: object, shown: bytes) -> None:
    assert shown in echoed(text=text)
