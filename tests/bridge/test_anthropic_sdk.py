"""What we send, judged by the types of the vendor's own client."""

import json
from collections.abc import Sequence

import pytest
from anthropic.types import message_count_tokens_params as count
from anthropic.types import message_create_params as create
from anthropic.types.beta import message_create_params as beta

from rejoinder.bridge.anthropic import AnthropicDialect
from rejoinder.bridge.anthropic_profile import AnthropicProfile
from rejoinder.bridge.dialect import Prompt
from tests.bridge.anthropic_prompts import BOUND, NEW, OLD, PLAIN, envelope, prompt_for, thought
from tests.bridge.anthropic_recordings import asked, is_count
from tests.bridge.anthropic_replay import AnthropicConversation, profile_of
from tests.bridge.anthropic_types import faults
from tests.bridge.prompts import Fields, assistant, call, function, output, user
from tests.bridge.recordings import Asked, Json, Object, Recording, named, needs_recordings, objects, recordings

SAMPLING = ("temperature", "top_p")
"""The client's version of the API has no sampling any more; the one we speak has (provider-anthropic.md §1)."""

BETA = {
    "advisor-tool-pai490": "a tool that is beta",
    "advisor-tool-stream-pai494": "a tool that is beta",
    "mcp-servers-pai546": "the setting `mcp_servers` is beta",
    "mcp-servers-stream-pai548": "the setting `mcp_servers` is beta",
    "task-budget-adds-output-config-and-beta-pai587": "the setting `task_budget` is beta",
    "thinking-block-binding-400": "the setting `block_binding` is beta",
}
"""Recorded requests with settings that only the types of the beta know."""


SAID = {"ollama-messages-tool-roundtrip-lls": ".messages[1].content[0].signature: missing"}
GIVEN = {
    "receive-history-from-another-provider-pai1972": (
        ".messages[1].content[2].content.abort_reason: not known to CodeExecutionResultBlockParam"
    ),
}
"""What a provider gave in another form than the client would have it goes back in that form all the same: in requests
that were recorded, and in those that follow a recorded answer."""


def judged(body: Object, *, is_beta: bool = False) -> list[str]:
    said: dict[str, Json] = {name: value for name, value in body.items() if name not in SAMPLING}
    return faults(said, beta.MessageCreateParamsStreaming if is_beta else create.MessageCreateParamsStreaming)


REQUESTS = [one for one in recordings("anthropic") if one.request is not None]


@needs_recordings
@named([one for one in REQUESTS if not is_count(one)])
def test_every_recorded_request_as_we_say_it_is_one_the_client_could_have_sent(exchange: Recording) -> None:
    conversation = AnthropicConversation(profile_of(exchange))
    body = json.loads(conversation.call(asked(exchange.said, conversation.read)).body)

    expected = [fault for name, fault in SAID.items() if name == exchange.name]
    assert judged(body, is_beta=exchange.name in BETA) == expected
    # The plain types do know the difference.
    assert bool(judged(body)) == (exchange.name in BETA or bool(expected))


@needs_recordings
@named([one for one in REQUESTS if is_count(one)])
def test_every_recorded_count_as_well(exchange: Recording) -> None:
    conversation = AnthropicConversation(profile_of(exchange))
    request = asked(exchange.said, conversation.read)

    asked_for = conversation.speak(request.extra).count(conversation.prompt(request))

    assert asked_for is not None
    assert faults(json.loads(asked_for.call.body), count.MessageCountTokensParams) == []


@needs_recordings
@named([one for one in recordings("anthropic") if one.status == 200 and not is_count(one) and "splice" not in one.name])
def test_every_recorded_answer_goes_back_in_a_request_the_client_could_have_sent(exchange: Recording) -> None:
    conversation = AnthropicConversation(profile_of(exchange))
    text = exchange.body.decode()
    names = [name for name in ("f", *_NAMES) if f'"{name}"' in text]
    offered: list[Json] = [{"type": "function", "name": name} for name in names]
    listener = conversation.listener(_asked(offered))
    heard = listener.hear([exchange.body])
    items = heard.items if not heard.paused else objects([json.loads(item.raw) for item in heard.resumed])
    outputs: list[Object] = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "!"}
        for item in items
        if item["type"] == "function_call"
    ]

    body = json.loads(conversation.call(_asked(offered), [_HELLO, *items, *outputs]).body)

    found = judged(body, is_beta=any(kind in text for kind in ("advisor", "mcp_tool", '"compaction"')))
    assert found == [fault for name, fault in GIVEN.items() if name == exchange.name]


_HELLO: Object = {"role": "user", "content": "hi"}
_NAMES = sorted({str(tool["name"]) for one in REQUESTS for tool in objects(one.said.get("tools", []))})


def _asked(offered: list[Json]) -> Asked:
    return Asked({"model": "model", "tools": [*offered]}, [_HELLO], {})


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
EVERYTHING: Sequence[Fields] = (
    {"type": "message", "role": "developer", "content": "be brief"},
    user([{"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}, IMAGE]),
    {"type": "message", "role": "developer", "content": "be briefer"},
    thought("e1"),
    call("c.1"),
    call("c2", "g", "no object"),
    output("c.1", [{"type": "input_text", "text": "b"}, IMAGE]),
    {**output("c2"), "status": "incomplete"},
    assistant("cited"),
    thought("e2"),
    user(
        [
            {"type": "input_image", "image_url": "https://a.example/b.png"},
            {"type": "input_file", "file_url": "https://a.example/b.pdf"},
            {"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0=", "filename": "c.pdf"},
            {"type": "input_file", "file_data": "data:text/plain,d"},
        ]
    ),
)
CITATION = {
    "type": "web_search_result_location", "url": "https://a.example", "title": "A", "encrypted_index": "==",
    "cited_text": "c",
}  # fmt: skip
OPENED = {
    "e1": envelope({"type": "thinking", "thinking": "", "signature": "s"}, {"type": "redacted_thinking", "data": "=="}),
    "e2": envelope({"type": "text", "text": "cited", "citations": [CITATION]}),
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}, "required": ["a"]}
MODELS = (OLD, NEW, BOUND, "claude-3-5-haiku-latest", "claude-opus-4-6", "claude-fable-5", "gpt-oss:20b")


def everything(model: str, **fields: object) -> Prompt:
    search = {"type": "web_search", "filters": {"allowed_domains": ["a.example"]}, "user_location": {"city": "B"}}
    settings: dict[str, object] = {
        "instructions": "i",
        "tools": [function("f", strict=True, parameters=SCHEMA), function("g"), {"type": "shell"}, search],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_output_tokens": 1000,
        "max_tool_calls": 3,
        "reasoning": {"effort": "high", "summary": "auto"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
        "user": "a@b.example",
        "service_tier": "default",
    }
    return prompt_for(EVERYTHING, OPENED, model=model, **{**settings, **fields})  # type: ignore[arg-type]  # fields of the request


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("profile", [PLAIN, AnthropicProfile()], ids=["explicit", "automatic"])
@pytest.mark.parametrize("effort", ["none", "minimal", "max"])
def test_everything_at_once_is_a_request_the_client_could_have_sent(
    model: str, profile: AnthropicProfile, effort: str
) -> None:
    made = everything(model, reasoning={"effort": effort, "summary": "auto"})

    body = json.loads(AnthropicDialect(profile).call(made).body)

    assert judged(body) == []


def test_the_judge_knows_a_wrong_request() -> None:
    body = json.loads(AnthropicDialect(PLAIN).call(everything(OLD)).body)

    assert judged({**body, "store": True}) == [".store: not known to MessageCreateParamsStreaming"]
    assert judged({name: value for name, value in body.items() if name != "max_tokens"}) == [".max_tokens: missing"]
    assert judged({**body, "max_tokens": "many"}) != []
    assert judged({**body, "messages": [{"role": "user", "content": [{"type": "text"}]}]}) != []
    assert judged({**body, "messages": [{"role": "robot", "content": "a"}]}) != []
