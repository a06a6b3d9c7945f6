import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any  # the bodies here are broken in every way, so they have no type

import pytest
from anthropic import Anthropic

from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.anthropic_memory import remembered
from rejoinder.conformance.upstreams.anthropic_script import (
    Event,
    block,
    citation,
    cited,
    found,
    redacted,
    search_results,
    server_call,
)
from rejoinder.conformance.upstreams.anthropic_sent import SentAnthropic
from rejoinder.conformance.upstreams.anthropic_strictness import (
    ANTHROPIC,
    BETAS,
    BOUND,
    COMPATIBLE,
    AnthropicStrictness,
    check,
)
from rejoinder.conformance.upstreams.anthropic_values import InvalidRequest
from rejoinder.conformance.upstreams.anthropic_wire import answered
from rejoinder.conformance.upstreams.asking import Body, Reply, ask
from rejoinder.conformance.upstreams.responses_script import raw_thought
from rejoinder.conformance.upstreams.script import (
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
    raw,
    refusal,
    text,
    thought,
)
from tests.bridge.recordings import FOLDER, recordings

VERSION = {"anthropic-version": "2023-06-01"}
USER: Body = {"role": "user", "content": "hi"}
CALL: Body = {"type": "tool_use", "id": "call_look", "name": "look", "input": {}}
CALLING: Body = {"role": "assistant", "content": [CALL]}
RESULT: Body = {"type": "tool_result", "tool_use_id": "call_look", "content": "seen"}
RESULTS: Body = {"role": "user", "content": [RESULT]}
TOOL: Body = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
BUDGET: Body = {"type": "enabled", "budget_tokens": 1024}
PNG = b64encode(b"\x89PNG\r\n\x1a\n....").decode()
PDF = b64encode(b"%PDF-1.7 ....").decode()
SEARCH: Body = {"type": "web_search_20250305", "name": "web_search"}


def body(*messages: Body, **fields: object) -> Body:
    return {"model": "claude-sonnet-4-5", "max_tokens": 2048, "messages": list(messages or (USER,)), **fields}


def told(*blocks: Body, role: str = "user") -> Body:
    return {"role": role, "content": list(blocks)}


def image(media_type: str = "image/png", data: str = PNG) -> Body:
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def document(**more: object) -> Body:
    source = {"type": "text", "media_type": "text/plain", "data": "x"}
    return {"type": "document", "source": source, **more}


def marked(**control: object) -> Body:
    return {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", **control}}


def schema(**more: object) -> Body:
    return {"type": "object", "properties": {"a": more}, "additionalProperties": False}


def structured(value: Body, **fields: object) -> Body:
    return body(output_config={"format": {"type": "json_schema", "schema": value}}, **fields)


def objection(
    request: Body | bytes, headers: Mapping[str, str] = VERSION, strictness: AnthropicStrictness = ANTHROPIC
) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check(request if isinstance(request, bytes) else json.dumps(request).encode(), headers, strictness)
    return caught.value


def post(upstream: AnthropicUpstream, request: Body | None = None, headers: Mapping[str, str] = VERSION) -> Reply:
    return ask(upstream, "/v1/messages", request or body(stream=True), headers)


def whole(step: Step[Any]) -> Any:
    with AnthropicUpstream([step]) as upstream:
        return post(upstream, body()).json


def streamed(step: Step[Any]) -> list[Any]:
    with AnthropicUpstream([step]) as upstream:
        return post(upstream).data


def deltas(step: Step[Any]) -> list[Any]:
    return [event["delta"] for event in streamed(step) if event["type"] == "content_block_delta"]


# What is refused.


@pytest.mark.parametrize(
    "request_body",
    [
        body(),
        body(told({"type": "text", "text": "a"}, image(), document(title="a"))),
        body(USER, CALLING, RESULTS, tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
        body(USER, CALLING, told(RESULT, {"type": "text", "text": "so?"}), tools=[{**TOOL, "type": "custom"}]),
        body(USER, CALLING, told({**RESULT, "content": [image()], "is_error": True}), tools=[TOOL]),
        body(USER, CALLING, told({"type": "tool_result", "tool_use_id": "call_look"}), tools=[TOOL]),
        body(USER, {"role": "assistant", "content": "so far"}),
        body(USER, {"role": "assistant", "content": []}),
        body(system=[marked()], tools=[TOOL], stop_sequences=["x"], temperature=1.0, metadata={"user_id": "a"}),
        body(model="claude-opus-4-6", thinking={"type": "adaptive"}, tools=[TOOL], tool_choice={"type": "any"}),
        body(model="claude-opus-4-8", messages=[USER, {"role": "system", "content": "be kind"}]),
        body(thinking=BUDGET, temperature=1),
        body(thinking=BUDGET, top_p=0.95),
        body(max_tokens=0, service_tier="auto"),
        body(model="claude-3-7-sonnet-20250219", max_tokens=100_000),
        body(model="some-model", temperature=0.5, top_p=0.5, thinking={"type": "adaptive"}, max_tokens=10**6),
        structured(schema(type="string", format="date", pattern="^a")),
        structured(schema(anyOf=[True])),
        structured(schema(anyOf=[{"type": "null"}, {"$ref": "#/$defs/a"}]) | {"$defs": {"a": {"type": "string"}}}),
        body(tools=[SEARCH], tool_choice={"type": "tool", "name": "web_search"}),
        body(told({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}})),
        body(told({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}})),
        body(
            USER,
            told({"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}}, role="assistant"),
            tools=[SEARCH],
            thinking=BUDGET,
        ),
    ],
)
def test_a_well_formed_request_passes(request_body: Body) -> None:
    check(json.dumps(request_body).encode(), VERSION)


@pytest.mark.parametrize(
    ("request_body", "message"),
    [
        (b"{", "The request body is not valid JSON"),
        (b"[]", "Input should be a valid dictionary"),
        (body(parallel_tool_calls=False), "parallel_tool_calls: Extra inputs are not permitted"),
        (body(mcp_servers=[]), "mcp_servers: Extra inputs are not permitted"),
        (body(context_management={}), "context_management: Extra inputs"),
        ({"max_tokens": 5, "messages": [USER]}, "model: Field required"),
        ({"model": "m", "messages": [USER]}, "max_tokens: Field required"),
        ({"model": "m", "max_tokens": 5}, "messages: Field required"),
        (body(model=3), "model: Input should be a valid string"),
        (body(stream="yes"), "stream: Input should be a valid boolean"),
        (body(metadata={"name": "a"}), "metadata.name: Extra inputs"),
        (body(service_tier="flex"), "service_tier: Input should be 'auto' or 'standard_only'"),
        (body(stop_sequences=[1]), "stop_sequences.0: Input should be a valid string"),
        (body(max_tokens="many"), "max_tokens: Input should be a valid integer"),
        (body(max_tokens=-1), "max_tokens: Input should be greater than or equal to 0"),
        (body(max_tokens=64_001), "max_tokens: 64001 > 64000, which is the maximum"),
        (body(model="claude-opus-4-0", max_tokens=32_001), "max_tokens: 32001 > 32000, which is the maximum"),
        (body(temperature="hot"), "temperature: Input should be a valid number"),
        (body(temperature=1.5), "temperature: Input should be less than or equal to 1"),
        (body(temperature=-1), "temperature: Input should be greater than or equal to 0"),
        (body(temperature=1, top_p=0.5), "`temperature` and `top_p` cannot both be specified for this model"),
        (body(model="claude-opus-4-7", temperature=1), "temperature: Extra inputs are not permitted"),
        (body(model="claude-haiku-5", top_k=5), "top_k: Extra inputs are not permitted"),
        # Thinking (§5).
        (body(thinking={"type": "on"}), "thinking.type: Input should be 'enabled', 'adaptive', 'disabled' or"),
        (body(thinking={"type": "enabled"}), "thinking.enabled.budget_tokens: Field required"),
        (body(thinking=BUDGET | {"budget_tokens": "2k"}), "thinking.enabled.budget_tokens: Input should be a valid"),
        (
            body(thinking=BUDGET | {"budget_tokens": 512}),
            "budget_tokens: Input should be greater than or equal to 1024",
        ),
        (body(thinking=BUDGET, max_tokens=1024), "`max_tokens` must be greater than `thinking.budget_tokens`"),
        (body(thinking=BUDGET | {"effort": "low"}), "thinking.enabled.effort: Extra inputs"),
        (body(thinking={"type": "disabled", "budget_tokens": 5}), "thinking.disabled.budget_tokens: Extra inputs"),
        (body(thinking=BUDGET | {"display": "all"}), "thinking.enabled.display: Input should be 'summarized'"),
        (body(thinking=BUDGET, temperature=0.5), "`temperature` may only be set to 1 when thinking is enabled"),
        (body(thinking=BUDGET, top_k=5), "`top_k` must be unset when thinking is enabled"),
        (body(thinking=BUDGET, top_p=0.5), "`top_p` must be greater than or equal to 0.95 or unset when thinking"),
        (body(thinking={"type": "adaptive"}), "adaptive thinking is not supported on this model"),
        (body(model="claude-sonnet-5", thinking=BUDGET), '"thinking.type.enabled" is not supported for this model'),
        (body(model="claude-fable-5", thinking={"type": "disabled"}), '"thinking.type.disabled" is not supported'),
        (
            body(model="claude-opus-5", thinking={"type": "disabled"}, output_config={"effort": "max"}),
            "thinking cannot be disabled with effort level 'max'",
        ),
        (
            body(thinking=BUDGET, tools=[TOOL], tool_choice={"type": "any"}),
            "Thinking may not be enabled when tool_choice",
        ),
        (
            body(USER, CALLING, RESULTS, thinking=BUDGET, tools=[TOOL]),
            "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`",
        ),
        # Output (§2, §6).
        (body(output_config={"verbosity": "low"}), "output_config.verbosity: Extra inputs"),
        (body(output_config={"task_budget": {}}), "output_config.task_budget: Extra inputs"),
        (body(output_config={"effort": "huge"}), "output_config.effort: Input should be 'low'"),
        (body(output_config={"effort": "low"}), "This model does not support the effort parameter"),
        (
            body(model="claude-opus-4-6", output_config={"effort": "xhigh"}),
            "This model does not support effort level 'xhigh'. Supported levels: high, low, max, medium.",
        ),
        (body(model="claude-opus-4-5", output_config={"effort": "max"}), "Supported levels: high, low, medium."),
        (body(output_config={"format": {"type": "json_object"}}), "format.type: Input should be 'json_schema'"),
        (structured(schema(), model="claude-sonnet-4-0"), "output_config.format is not supported for this model"),
        (structured({"type": "object", "properties": {}}), "'additionalProperties' must be explicitly set to false"),
        (structured(schema(type="integer", minimum=1)), "For 'integer' type, property 'minimum' is not supported"),
        (structured(schema(type="string", maxLength=1)), "For 'string' type, property 'maxLength' is not supported"),
        (structured(schema(oneOf=[{}])), "property 'oneOf' is not supported"),
        (structured(schema(type="array", minItems=2)), "'minItems' values other than 0 or 1"),
        (structured(schema(type="array", items={"not": {}})), "property 'not' is not supported"),
        (structured(schema(type="string", pattern="(?=a)")), "lookaround and backreferences"),
        (structured(schema(type="string", format="color")), "format 'color' is not supported"),
        (structured(schema(**{"$ref": "https://example.com"})), "External reference"),
        (structured(schema(**{"$ref": "#/properties/a"})), "Recursive reference"),
        (
            structured(schema(), messages=[told(document(citations={"enabled": True}))]),
            "Citations cannot be used with output_config.format",
        ),
        (structured(schema(), messages=[USER, {"role": "assistant", "content": "{"}]), "Prefill cannot be used"),
        # Tools (§4).
        (body(tools=[{"name": "a.b", "input_schema": {"type": "object"}}]), "tools.0.custom.name: String should match"),
        (body(tools=[{"name": "a"}]), "tools.0.custom.input_schema: Field required"),
        (body(tools=[{"name": "a", "input_schema": {}}]), "tools.0.custom.input_schema.type: Field required"),
        (
            body(tools=[{"name": "a", "input_schema": {"type": "string"}}]),
            "input_schema.type: Input should be 'object'",
        ),
        (body(tools=[{**TOOL, "description": 3}]), "tools.0.custom.description: Input should be a valid string"),
        (body(tools=[{**TOOL, "parameters": {}}]), "tools.0.custom.parameters: Extra inputs"),
        (body(tools=[{"type": "function", "function": {}}, "x"]), "tools.1: Input should be a valid dictionary"),
        (
            body(tools=[{"name": "a", "input_schema": {"type": "object", "anyOf": []}}]),
            "input_schema does not support oneOf, allOf, or anyOf at the top level",
        ),
        (body(tools=[{**TOOL, "strict": True}]), "'additionalProperties' must be explicitly set to false"),
        (body(model="claude-3-5-haiku-20241022", tools=[{**TOOL, "strict": True}]), "strict tools are not supported"),
        (body(tools=[TOOL, TOOL]), "tools: Tool names must be unique"),
        (body(tool_choice={"type": "auto"}), "tool_choice may only be specified while providing tools"),
        (body(tools=[TOOL], tool_choice={"type": "required"}), "tool_choice.type: Input should be 'auto', 'any'"),
        (body(tools=[TOOL], tool_choice="auto"), "tool_choice: Input should be a valid dictionary"),
        (body(tools=[TOOL], tool_choice={"type": "tool", "name": "gone"}), "Tool 'gone' not found in provided tools"),
        (
            body(tools=[TOOL], tool_choice={"type": "none", "disable_parallel_tool_use": True}),
            "tool_choice.none.disable_parallel_tool_use: Extra inputs",
        ),
        (
            body(model="claude-sonnet-5-5", tools=[TOOL], tool_choice={"type": "any"}),
            "tool_choice.type 'any' is not supported for this model",
        ),
        (body(USER, CALLING, RESULTS), "Requests which include `tool_use` or `tool_result` blocks must define tools"),
        # Calls and results (§4).
        (body(USER, CALLING, tools=[TOOL]), "messages.1: `tool_use` ids were found without `tool_result` blocks"),
        (body(USER, CALLING, USER, RESULTS, tools=[TOOL]), "messages.1: `tool_use` ids were found without"),
        (
            body(USER, CALLING, told({"type": "text", "text": "so?"}, RESULT), tools=[TOOL]),
            "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: call_look",
        ),
        (body(USER, RESULTS, tools=[TOOL]), "messages.1.content.0: unexpected `tool_use_id` found in `tool_result`"),
        (body(USER, CALLING, told(RESULT, RESULT), tools=[TOOL]), "each tool_use must have a single result"),
        (body(USER, told(CALL, CALL, role="assistant"), RESULTS, tools=[TOOL]), "`tool_use` ids must be unique"),
        (
            body(USER, told({**CALL, "id": "call|1"}, role="assistant"), tools=[TOOL]),
            "messages.1.content.0.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'",
        ),
        (
            body(USER, told({**CALL, "input": "{}"}, role="assistant"), tools=[TOOL]),
            "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
        ),
        (body(USER, CALLING, told({**RESULT, "name": "look"}), tools=[TOOL]), "tool_result.name: Extra inputs"),
        (
            body(USER, CALLING, told({**RESULT, "content": [{"type": "audio"}]}), tools=[TOOL]),
            "tool_result.content.0: Input should be 'text', 'image'",
        ),
        (
            body(USER, CALLING, told({**RESULT, "content": [{"type": "text", "text": ""}]}), tools=[TOOL]),
            "text content blocks must be non-empty",
        ),
        (
            body(USER, CALLING, told({**RESULT, "content": [image("image/jpeg")]}), tools=[TOOL]),
            "the image appears to be a image/png image",
        ),
        (
            body(USER, CALLING, told({**RESULT, "content": [document(source={"type": "x"})]}), tools=[TOOL]),
            "document.source.type: Input should be",
        ),
        # Messages (§3).
        (body(messages=[]), "messages: at least one message is required"),
        (body({"role": "tool", "content": "x"}), "messages.0.role: Input should be 'user', 'assistant' or 'system'"),
        (body({"role": "user", "content": "x", "name": "a"}), "messages.0.name: Extra inputs"),
        (body({"role": "user"}), "messages.0.content: Input should be a valid list"),
        (body({"role": "user", "content": ["x"]}), "messages.0.content.0: Input should be a valid dictionary"),
        (body({"role": "user", "content": []}), "all messages must have non-empty content"),
        (body({"role": "user", "content": ""}), "text content blocks must be non-empty"),
        (body(told({"type": "text", "text": " \n"})), "text content blocks must contain non-whitespace text"),
        (body({"role": "assistant", "content": []}, USER), "all messages must have non-empty content"),
        (body(USER, {"role": "assistant", "content": "so "}), "final assistant content cannot end with trailing"),
        (
            body(USER, {"role": "assistant", "content": "so"}, thinking=BUDGET),
            "does not support assistant message prefill",
        ),
        (
            body(USER, {"role": "assistant", "content": "so"}, model="claude-opus-4-6"),
            "This model does not support assistant message prefill",
        ),
        (body(USER, {"role": "system", "content": "x"}), 'Unexpected role "system"'),
        (
            body({"role": "system", "content": "x"}, USER, model="claude-opus-4-8"),
            "messages.0.role: a 'system' message must come after the 'user' message",
        ),
        (body(told({"type": "input_text", "text": "x"})), "Input tag 'input_text' found using 'type' does not match"),
        (body(told({"text": "x"})), "messages.0.content.0.type: Input should be a valid string"),
        (body(told(CALL), tools=[TOOL]), "Input tag 'tool_use' found using 'type' does not match"),
        (body(USER, told(image(), role="assistant")), "Input tag 'image' found using 'type' does not match"),
        (body(told(image("image/bmp"))), "media_type: Input should be 'image/gif'"),
        (body(told(image(data="?"))), "base64.data: invalid base64 data"),
        (body(told(image(data="aGVsbG8="))), "Could not process image"),
        (body(told({"type": "image", "source": {"type": "data"}})), "source.type: Input should be 'base64', 'url' or"),
        (body(told(image("image/jpeg"))), "specified using the image/jpeg media type, but the image appears"),
        (
            body(told({"type": "document", "source": {"type": "base64", "media_type": "text/plain", "data": "eA=="}})),
            "base64.media_type: Input should be 'application/pdf'",
        ),
        (
            body(
                told(
                    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "eA=="}}
                )
            ),
            "The PDF specified was not valid",
        ),
        (
            body(told({"type": "document", "source": {"type": "text", "media_type": "text/html", "data": "x"}})),
            "text.media_type: Input should be 'text/plain'",
        ),
        (body(told(document(), document(citations={"enabled": True}))), "citations: must be enabled for all documents"),
        (body(system=[{"type": "image"}]), "system.0.type: Input should be 'text'"),
        (body(system=[{"type": "text", "text": ""}]), "text content blocks must be non-empty"),
        (body(system=3), "system: Input should be a valid list"),
        # Breakpoints of the cache (§9).
        (body(told(*[marked()] * 5)), "A maximum of 4 blocks with cache_control may be provided. Found 5."),
        (body(told(marked(), marked(ttl="1h"))), "a ttl='1h' cache_control block must not come after a ttl='5m'"),
        (body(told(marked(ttl="9m"))), "ttl: Input should be '5m' or '1h'"),
        (body(told(marked(scope="global"))), "cache_control.scope: Extra inputs"),
        (body(cache_control={"type": "forever"}), "cache_control.type: Input should be 'ephemeral'"),
        (body(told({**marked(), "text": ""})), "cache_control cannot be set for empty text blocks"),
        (
            body(USER, told({"type": "thinking", "thinking": "a", "cache_control": {}}, role="assistant"), USER),
            "messages.1.content.0.cache_control: Extra inputs",
        ),
        (
            body(USER, told({"type": "redacted_thinking", "data": 3}, role="assistant"), USER),
            "redacted_thinking.data: Input should be a valid string",
        ),
        (
            body(USER, told({"type": "thinking", "signature": "x"}, role="assistant"), USER),
            "thinking.thinking: Input should be a valid string",
        ),
    ],
)
def test_a_malformed_request_is_refused_in_the_words_of_the_provider(request_body: Body | bytes, message: str) -> None:
    assert message in objection(request_body).message


def test_a_version_is_required_and_betas_must_be_known() -> None:
    assert objection(body(), {}).message == "anthropic-version: header is required"
    assert '"2022-01-01" is not a valid version' in objection(body(), {"anthropic-version": "2022-01-01"}).message
    found_ = objection(body(), {**VERSION, "anthropic-beta": "skills-2025-10-02, effort-9, mars"})
    assert found_.message.startswith("Unexpected value(s) `effort-9`, `mars` for the `anthropic-beta` header.")
    check(json.dumps(body()).encode(), {}, COMPATIBLE)


def test_a_beta_brings_its_fields() -> None:
    headers = {**VERSION, "anthropic-beta": "mcp-client-2025-11-20,task-budgets-2026-03-13"}
    check(json.dumps(body(mcp_servers=[], output_config={"task_budget": {}})).encode(), headers)
    assert "context_management" in objection(body(context_management={}), headers).message


def test_the_new_version_has_no_sampling_no_documents_of_the_assistant_and_no_citations_of_the_user() -> None:
    headers = {"anthropic-version": "2026-10-21"}
    assert objection(body(temperature=1), headers).message == "temperature: Extra inputs are not permitted"
    said = body(USER, told(document(), {"type": "text", "text": "x"}, role="assistant"), USER)
    assert "`document` blocks can only be in `user` messages" in objection(said, headers).message
    cites = {"type": "text", "text": "x", "citations": [{"type": "char_location"}]}
    assert "messages.0.content.0.text.citations: Extra" in objection(body(told(cites)), headers).message
    for old in (body(temperature=1), said, body(told(cites))):
        check(json.dumps(old).encode(), VERSION)


def test_the_envelope_is_that_of_the_provider() -> None:
    assert json.loads(objection(body(n=1)).body()) == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "n: Extra inputs are not permitted"},
        "request_id": "req_1",
    }


# What the provider knows again.


def conversation(upstream: AnthropicUpstream, *before: Body, **fields: object) -> list[Body]:
    """Ask, and give the messages up to and with the answer."""
    messages = list(before or (USER,))
    reply = post(upstream, body(messages=messages, **fields))
    assert reply.status == 200, reply.body
    return [*messages, {"role": "assistant", "content": reply.json["content"]}]


def refusal_of(upstream: AnthropicUpstream, *messages: Body, **fields: object) -> str:
    reply = post(upstream, body(messages=[*messages], **fields))
    assert reply.status == 400
    return str(reply.json["error"]["message"])


def changed(message: Body, **fields: object) -> Body:
    first, *others = message["content"]
    return {**message, "content": [{**first, **fields}, *others]}


@pytest.mark.parametrize("stream", [True, False])
def test_thinking_comes_back_as_it_was_issued(stream: bool) -> None:
    signed = answer(thought("hm", "m", signature="sig=="), calls(call("look")))
    with AnthropicUpstream([signed, answer(text("ok"))]) as upstream:
        if stream:
            post(upstream, body(stream=True, tools=[TOOL]))
            thinking = {"type": "thinking", "thinking": "hmm", "signature": "sig=="}
            said: Body = told(thinking, {**CALL, "caller": {"type": "direct"}}, role="assistant")
        else:
            _, said = conversation(upstream, tools=[TOOL])
        for wrong in ({"thinking": "hm"}, {"signature": "sig"}, {"signature": "other"}):
            message = refusal_of(upstream, USER, changed(said, **wrong), RESULTS, tools=[TOOL])
            assert message == "messages.1.content.0: Invalid `signature` in `thinking` block"
        unsigned = refusal_of(upstream, USER, changed(said, signature=""), RESULTS, tools=[TOOL])
        assert unsigned == "messages.1.content.0.thinking.signature: Field required"
        assert post(upstream, body(USER, said, RESULTS, tools=[TOOL])).status == 200
    assert len(upstream.objections) == 4


def test_thinking_of_another_provider_is_refused() -> None:
    with AnthropicUpstream([answer(thought("hm", signature="one"), text("a"))]) as one:
        history = conversation(one)
    with AnthropicUpstream([answer(thought("hm", signature="two"), text("a"))]) as two:
        assert "Invalid `signature`" in refusal_of(two, *history, USER)


def test_a_strictness_that_asks_for_nothing_of_its_own_takes_any_block() -> None:
    stranger = told(
        {"type": "thinking", "thinking": "a", "signature": "x"}, {"type": "text", "text": "a"}, role="assistant"
    )
    with AnthropicUpstream([answer(text("ok"))], strictness=AnthropicStrictness(own_blocks=False)) as upstream:
        assert post(upstream, body(USER, stranger, USER)).status == 200


def test_a_compatible_server_takes_its_unsigned_thinking_back() -> None:
    with AnthropicUpstream([answer(thought("hm", signature=""), text("a")), answer(text("b"))]) as upstream:
        history = conversation(upstream)
        assert history[1]["content"][0] == {"type": "thinking", "thinking": "hm"}
        assert "Invalid `signature`" in refusal_of(upstream, USER, changed(history[1], thinking="h"), USER)
        assert post(upstream, body(*history, USER)).status == 200


def test_redacted_thinking_must_be_the_providers_own() -> None:
    with AnthropicUpstream([answer(redacted("sealed"), text("a")), answer(text("b"))]) as upstream:
        history = conversation(upstream)
        message = refusal_of(upstream, USER, changed(history[1], data="seal"), USER)
        assert message == "messages.1.content.0: Invalid `data` in `redacted_thinking` block"
        assert post(upstream, body(*history, USER)).status == 200


def test_what_a_search_found_comes_back_intact() -> None:
    searched = answer(
        server_call("web_search", '{"query":', '"a"}'),
        search_results(found("https://example.com", page="page-1")),
        cited("So.", by=citation("https://example.com", encrypted_index="index-1")),
    )
    with AnthropicUpstream([searched, answer(text("ok"))]) as upstream:
        user, said = conversation(upstream, tools=[SEARCH])
        called, results, so = said["content"]
        assert called["input"] == {"query": "a"}
        lost = {**results, "content": [{**results["content"][0], "encrypted_content": ""}]}
        message = refusal_of(upstream, user, told(called, lost, so, role="assistant"), USER, tools=[SEARCH])
        assert message.endswith("Invalid `encrypted_content` in `search_result` block")
        lost = {**so, "citations": [{**so["citations"][0], "encrypted_index": "x"}]}
        message = refusal_of(upstream, user, told(called, results, lost, role="assistant"), USER, tools=[SEARCH])
        assert message.endswith("Invalid `encrypted_index` in citation")
        assert post(upstream, body(user, said, USER, tools=[SEARCH])).status == 200


def test_what_a_stream_has_sealed_is_known_too() -> None:
    searched = answer(
        redacted("sealed"),
        search_results(found("https://example.com", page="page-1")),
        cited("So ", "it is.", by=(citation("https://a"), citation("https://b", encrypted_index="index-2"))),
    )
    with AnthropicUpstream([searched]) as upstream:
        post(upstream, body(stream=True, tools=[SEARCH, TOOL]))
        memory = remembered(upstream.exchanges)
    assert memory.sealed == {"sealed", "page-1", "index-1", "index-2"}


BINDING = (
    "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation. "
    'Remove the block, or set `thinking.block_binding.prefix_mismatch_behavior` to "drop_block". '
)


@pytest.mark.parametrize(
    ("user", "fields", "what"),
    [
        (USER, {"system": "be kind"}, "The `system` prompt differs"),
        (USER, {"system": "be brief", "tools": [TOOL]}, "The `tools` list differs"),
        ({**USER, "content": "ho"}, {"system": "be brief"}, "The earlier `messages` content differs"),
    ],
)
def test_preserved_thinking_is_bound_to_all_that_came_before_it(user: Body, fields: Body, what: str) -> None:
    steps = [answer(thought("hm"), text("a")), answer(text("b")), answer(text("c"))]
    with AnthropicUpstream(steps, strictness=BOUND) as upstream:
        history = conversation(upstream, system="be brief")
        message = refusal_of(upstream, user, history[1], USER, **fields)
        assert message == f"{BINDING}{what} from the one this block was created with."
        drop = {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
        request = body(user, history[1], USER, model="claude-sonnet-5-5", thinking=drop, **fields)
        assert post(upstream, request).status == 200
        assert post(upstream, body(*history, USER, system="be brief")).status == 200


def test_preserved_thinking_does_not_mind_how_the_same_is_written() -> None:
    steps = [answer(thought("hm"), text("a")), answer(text("b"))]
    with AnthropicUpstream(steps, strictness=BOUND) as upstream:
        _, said = conversation(upstream, system="be brief", tools=[TOOL])
        rewritten = told({**marked(), "text": "hi"})
        system = [{**marked(), "text": "be brief"}]
        assert post(upstream, body(rewritten, said, USER, system=system, tools=[TOOL])).status == 200


def test_a_thought_in_the_middle_of_a_turn_is_bound_to_the_results_before_it() -> None:
    steps = [answer(thought("a"), calls(call("look"))), answer(thought("b"), text("x")), answer(text("y"))]
    with AnthropicUpstream(steps, strictness=BOUND) as upstream:
        history = conversation(upstream, tools=[TOOL])
        history = conversation(upstream, *history, RESULTS, tools=[TOOL])
        other = told({**RESULT, "content": "else"})
        message = refusal_of(upstream, *history[:2], other, history[3], USER, tools=[TOOL])
        assert message.startswith("messages.3.content.0: Invalid `signature`")
        assert post(upstream, body(*history, USER, tools=[TOOL])).status == 200


def test_a_paused_turn_goes_on_after_its_own_content() -> None:
    paused = answer(server_call("web_search", '{"query":"a"}'), finish="pause_turn")
    with AnthropicUpstream([paused, answer(text("done"))]) as upstream:
        history = conversation(upstream, tools=[SEARCH])
        assert upstream.exchanges[0].values[0]["stop_reason"] == "pause_turn"  # type: ignore[index,call-overload]  # any JSON
        assert post(upstream, body(*history, tools=[SEARCH])).status == 200


def test_nonsense_in_an_answer_is_not_remembered() -> None:
    steps: list[Step[SentAnthropic]] = [
        answer(calls(call("look", "{broken"))),
        raw(b"event: x\ndata: {\n\ndata: 3\n\n"),
        answer(thought("hm", signature="sig"), text("x"), trouble=Trouble("end", after=2)),
    ]
    with AnthropicUpstream([*steps, answer(text("ok"))]) as upstream:
        for _ in steps:
            post(upstream)
        cut_off = told({"type": "thinking", "thinking": "hm", "signature": "sig"}, role="assistant")
        assert "Invalid `signature`" in refusal_of(upstream, USER, cut_off, USER)
        assert post(upstream).status == 200


# What is recorded.


def test_a_request_can_be_read() -> None:
    request = body(
        told({"type": "text", "text": "a"}, image(), {"type": "text", "text": "b"}),
        told({"type": "text", "text": "c"}, CALL, role="assistant"),
        told({**RESULT, "content": [{"type": "text", "text": "d"}, {"type": "text", "text": "e"}]}),
        system=[{"type": "text", "text": "be "}, {"type": "text", "text": "kind"}],
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "look"},
    )
    with AnthropicUpstream([answer(text("ok"))]) as upstream:
        assert post(upstream, request).status == 200
    sent = upstream.requests[0].anthropic
    assert [message.text for message in sent.messages] == ["ab", "c", ""]
    assert [message.types for message in sent.messages] == [
        ["text", "image", "text"],
        ["text", "tool_use"],
        ["tool_result"],
    ]
    assert sent.messages[2].blocks[0].result == "de"
    assert sent.instructions == "be kind"
    assert sent.tools[0].name == "look"
    assert sent.tool_choice is not None
    assert sent.tool_choice.name == "look"
    assert sent.messages[0].blocks[1].source is not None
    assert upstream.requests[0].headers["anthropic-version"] == "2023-06-01"


def test_a_message_of_one_string_is_a_text_block() -> None:
    with AnthropicUpstream([answer(text("ok"))]) as upstream:
        post(upstream)
    [message] = upstream.requests[0].anthropic.messages
    assert (message.types, message.text) == (["text"], "hi")


def test_tokens_are_counted_without_a_step_and_without_max_tokens() -> None:
    counted = {name: value for name, value in body(tools=[TOOL]).items() if name != "max_tokens"}
    with AnthropicUpstream() as upstream:
        assert ask(upstream, "/v1/messages/count_tokens", counted, VERSION).json["input_tokens"] > 0
        refused = ask(upstream, "/v1/messages/count_tokens", body(), VERSION)
    assert refused.json["error"]["message"] == "max_tokens: Extra inputs are not permitted"
    assert [len(upstream.requests), len(upstream.asides), len(upstream.objections)] == [0, 2, 1]


def test_models_are_listed_with_what_they_can_do() -> None:
    models = ("claude-opus-4-5", "claude-fable-5", "some-model")
    with AnthropicUpstream(models=models) as upstream:
        listed = ask(upstream, "/v1/models").json
        assert ask(upstream, "/v1/models/claude-fable-5").json == listed["data"][1]
        assert ask(upstream, "/v1/models/gone").status == 404
    assert (listed["first_id"], listed["last_id"]) == ("claude-opus-4-5", "some-model")
    old, new, other = listed["data"]
    assert (old["max_tokens"], new["max_tokens"]) == (64_000, 128_000)
    assert [old["capabilities"]["effort"][name]["supported"] for name in ("high", "xhigh")] == [True, False]
    assert new["capabilities"]["thinking"]["types"]["disabled"] == {"supported": False}
    assert "capabilities" not in other


def test_a_key_comes_in_either_header_and_x_api_key_wins() -> None:
    with AnthropicUpstream([answer(text("a")), answer(text("b"))], key="k") as upstream:
        assert post(upstream, headers={**VERSION, "x-api-key": "k", "authorization": "Bearer no"}).status == 200
        assert post(upstream, headers={**VERSION, "authorization": "Bearer k"}).status == 200
        refused = post(upstream, headers={**VERSION, "x-api-key": "no", "authorization": "Bearer k"})
        assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")


# What is answered.


def test_a_stream_has_a_block_for_every_part_with_pings_and_padding() -> None:
    step = answer(thought("hm", signature="sig"), text("Hel", "lo"), calls(call("look", '{"a":', "1}")))
    events = streamed(step)
    assert [(event["type"], event.get("index")) for event in events] == [
        ("message_start", None),
        ("ping", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_delta", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("message_delta", None),
        ("message_stop", None),
    ]
    assert events[0]["message"]["content"] == []
    assert events[2]["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    assert events[4]["delta"] == {"type": "signature_delta", "signature": "sig"}
    assert [event["delta"]["partial_json"] for event in events[11:14]] == ["", '{"a":', "1}"]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    with AnthropicUpstream([step]) as upstream:
        lines = post(upstream).body.split(b"\n")
    assert lines[0] == b"event: message_start"
    assert any(line.endswith(b" }") for line in lines)
    assert b"[DONE]" not in lines[-3]


def test_thinking_that_is_not_shown_has_an_empty_delta_and_a_signature() -> None:
    assert deltas(answer(thought(signature="sig"), text("a"))) == [
        {"type": "thinking_delta", "thinking": ""},
        {"type": "signature_delta", "signature": "sig"},
        {"type": "text_delta", "text": "a"},
    ]


def test_a_thought_without_a_signature_is_given_one_and_an_empty_one_is_none() -> None:
    assert deltas(answer(thought("hm")))[1]["signature"]
    assert deltas(answer(thought("hm", signature=""))) == [{"type": "thinking_delta", "thinking": "hm"}]


def test_the_parts_that_only_this_protocol_has_are_streamed() -> None:
    odd = {"type": "hologram", "data": "x"}
    parts = (redacted("sealed"), server_call("web_search", '{"query":"a"}'), search_results(found("https://a")))
    events = streamed(
        answer(*parts, cited("a", "b", by=citation("https://a")), block(odd), Event("mood", {"type": "mood"}))
    )
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert [start["type"] for start in starts] == [
        "redacted_thinking",
        "server_tool_use",
        "web_search_tool_result",
        "text",
        "hologram",
    ]
    assert starts[2]["content"][0]["encrypted_content"] == "page-1"
    assert [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"][2:] == [
        "citations_delta",
        "text_delta",
        "text_delta",
    ]
    assert {"type": "mood"} in events
    assert events[-2]["usage"]["server_tool_use"]["web_search_requests"] == 1


@pytest.mark.parametrize(
    ("style", "input_", "pieces"),
    [
        ("fragments", {}, ["", '{"a":', "1}"]),
        ("whole", {}, ['{"a":1}']),
        ("object", {"a": 1}, []),
        ("no_arguments", {}, [""]),
    ],
)
def test_calls_come_in_the_styles_seen_in_the_field(style: Any, input_: Body, pieces: list[str]) -> None:
    step = answer(calls(call("look", '{"a":', "1}"), style=style))
    events = streamed(step)
    assert events[2]["content_block"]["input"] == input_
    assert [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"] == pieces
    assert whole(step)["content"][0]["input"] == ({} if style == "no_arguments" else {"a": 1})


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("part", [calls(call("look"), style="gaps"), LegacyCall("look", ("{}",)), raw_thought("a")])
def test_a_word_of_another_protocol_is_refused(part: Part, stream: bool) -> None:
    with pytest.raises(Unsayable, match="Anthropic Messages has no form for"):
        list(answered(answer(part), model="m", stream=stream))


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("pause_turn", "pause_turn")],
)
def test_every_way_to_end_is_translated(finish: str, reason: str) -> None:
    assert whole(answer(text("a"), finish=finish))["stop_reason"] == reason
    assert streamed(answer(text("a"), finish=finish))[-2]["delta"]["stop_reason"] == reason


def test_a_stop_sequence_is_named() -> None:
    with AnthropicUpstream([answer(text("a"), finish="stop_sequence")]) as upstream:
        reply = post(upstream, body(stop_sequences=["END"]))
    assert (reply.json["stop_reason"], reply.json["stop_sequence"]) == ("stop_sequence", "END")


def test_a_refusal_is_told_beside_the_content() -> None:
    found_ = whole(answer(refusal("I ", "won't.")))
    assert (found_["stop_reason"], found_["content"]) == ("refusal", [])
    assert found_["stop_details"]["explanation"] == "I won't."
    assert whole(answer(text("a")))["stop_details"] is None


def test_usage_is_counted_as_this_provider_counts() -> None:
    usage = Usage(prompt=34, completion=12, cached=8, reasoning=5, written=4)
    expected: Body = {"input_tokens": 22, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 8}
    expected |= {"output_tokens": 12, "output_tokens_details": {"thinking_tokens": 5}}
    assert whole(answer(text("a"), usage=usage))["usage"] == expected
    events = streamed(answer(text("a"), usage=usage))
    assert events[0]["message"]["usage"]["input_tokens"] == 22
    assert events[-2]["usage"] == expected


def test_usage_can_come_late_or_never() -> None:
    late = streamed(answer(text("a"), usage_place="finish"))
    assert "input_tokens" not in late[0]["message"]["usage"]
    assert late[-2]["usage"]["input_tokens"] == 11
    never = streamed(answer(text("a"), usage_place="never"))
    assert "usage" not in never[0]["message"]
    assert "usage" not in never[-2]
    assert "usage" not in whole(answer(text("a"), usage_place="never"))


def test_a_stream_can_lack_its_message_stop() -> None:
    assert streamed(answer(text("a"), done=False))[-1]["type"] == "message_delta"


def test_an_error_in_the_stream_is_an_event_of_its_own() -> None:
    events = streamed(answer(text("a", "b"), trouble=Trouble("error", after=2)))
    assert events[-1]["error"]["type"] == "overloaded_error"
    assert [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"] == ["a"]


@pytest.mark.parametrize(("status", "kind"), [(429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")])
def test_an_http_error_has_the_type_of_its_status(status: int, kind: str) -> None:
    with AnthropicUpstream([HttpError(status, "no", headers={"retry-after": "7"})]) as upstream:
        reply = post(upstream)
    assert (reply.status, reply.headers["retry-after"], reply.json["error"]["type"]) == (status, "7", kind)


def test_the_vendors_client_reads_the_stream() -> None:
    step = answer(thought("hm", signature="sig"), text("Let me ", "look."), calls(call("look", '{"a":', "1}")))
    with AnthropicUpstream([step], key="k") as upstream:
        client = Anthropic(base_url=upstream.base_url, api_key="k", max_retries=0)
        with client.messages.stream(
            model="claude-haiku-5-5", max_tokens=99, messages=[{"role": "user", "content": "x"}]
        ) as stream:
            message = stream.get_final_message()
        client.close()
    assert [one.type for one in message.content] == ["thinking", "text", "tool_use"]
    assert message.content[2].model_dump()["input"] == {"a": 1}
    assert message.usage.output_tokens == 7


# What the real provider took and refused.

KNOWN_ELSEWHERE = {
    "count-tokens-error-pai512": "the model does not exist, and a scripted provider has every model",
    "model-name-suggestion-anthropic-pai144": "the same",
    "real-error-scenarios-haiku45-handles-context-length-exceeded-err-rllm2720": "nobody counts tokens here",
    "thinking-block-binding-400": "the conversation before it is not known",
}


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not beside the project")
def test_every_recorded_request_is_judged_as_the_real_provider_judged_it() -> None:
    headers = {**VERSION, "anthropic-beta": ",".join(BETAS)}  # the recordings do not say which were sent
    otherwise: dict[str, str] = {}
    for one in recordings("anthropic"):
        if one.request is not None:
            refused = refusal_by(one.request, headers, counting="count_tokens" in one.url)
            if (refused is None) != (one.status == 200):
                otherwise[one.name] = refused or "taken"
    assert otherwise == dict.fromkeys(KNOWN_ELSEWHERE, "taken")


def refusal_by(request: bytes, headers: Mapping[str, str], *, counting: bool) -> str | None:
    try:
        check(request, headers, AnthropicStrictness(own_blocks=False), counting=counting)
    except InvalidRequest as refusal:
        return refusal.message
    return None


def test_marks_of_the_cache_are_not_read() -> None:
    block = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    asked = {"model": "claude", "max_tokens": 50, "system": [block], "messages": [{"role": "user", "content": [block]}]}
    with AnthropicUpstream([answer(text("ok"))]) as upstream:
        ask(upstream, "/v1/messages", asked, {"anthropic-version": "2023-06-01"})
        tools, system, said = upstream.prefix(upstream.requests[0])
    bare = {"type": "text", "text": "hi"}
    assert (tools, json.loads(system), json.loads(said)) == (b"", [bare], {"role": "user", "content": [bare]})
