"""A prompt is seen in the same words, whatever protocol it was said in."""

from collections.abc import Mapping
from typing import Any  # a body is whatever its protocol has for JSON

import pytest

from rejoinder.conformance.upstreams.anthropic import AnthropicUpstream
from rejoinder.conformance.upstreams.anthropic_script import redacted
from rejoinder.conformance.upstreams.asking import ask
from rejoinder.conformance.upstreams.chat import ChatUpstream
from rejoinder.conformance.upstreams.gemini import GeminiUpstream
from rejoinder.conformance.upstreams.responses import ResponsesUpstream
from rejoinder.conformance.upstreams.responses_strictness import COMPATIBLE
from rejoinder.conformance.upstreams.script import answer, text, thought
from rejoinder.conformance.upstreams.seen import Choice, Form, Offered, Said, Seen, compact
from rejoinder.conformance.upstreams.strictness import OPENAI_FIELDS, REASONING_FIELDS, Strictness

Body = dict[str, Any]

SCHEMA: Body = {"type": "object", "properties": {"place": {"type": "string"}}}
RAW = b'{"type": "object", "properties": {"place": {"type": "string"}}}'
PNG = "iVBORw0KGgo="
PDF = "JVBERi0="

DEFAULTS: Mapping[str, Body] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "anthropic": {"model": "claude", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    "responses": {"model": "m", "input": "hi"},
}

LIKE_ANY = Strictness(
    fields=OPENAI_FIELDS,
    assistant_fields=REASONING_FIELDS,
    roles=frozenset({"system", "developer", "user", "assistant", "tool"}),
    call_content="either",
)


def seen(dialect: str, **fields: Any) -> Seen:
    """What a provider sees of a request with these fields."""
    body = {**DEFAULTS[dialect], **fields}
    step = answer(text("ok"))
    provider: ChatUpstream | AnthropicUpstream | GeminiUpstream | ResponsesUpstream
    match dialect:
        case "chat":
            provider, path = ChatUpstream([step], strictness=LIKE_ANY), "/v1/chat/completions"
        case "anthropic":
            provider, path = AnthropicUpstream([step]), "/v1/messages"
        case "gemini":
            provider, path = GeminiUpstream([step]), "/v1beta/models/gemini:generateContent"
        case _:
            provider, path = ResponsesUpstream([step], strictness=COMPATIBLE), "/v1/responses"
    with provider:
        ask(provider, path, body, {"anthropic-version": "2023-06-01"})
        assert provider.objections == []
        return provider.seen(provider.requests[0])


TALKS: Mapping[str, Body] = {
    "chat": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Is it "}, {"type": "text", "text": "late?"}]},
            {
                "role": "assistant",
                "reasoning_content": "hm",
                "content": "Let me see.",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "clock", "arguments": '{"place": "Oslo"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
            {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
            {"role": "user", "content": "Why?"},
        ]
    },
    "anthropic": {
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Is it "}, {"type": "text", "text": "late?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "call_1", "name": "clock", "input": {"place": "Oslo"}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "12:00"}]},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "Why?"},
        ],
        "tools": [{"name": "clock", "input_schema": SCHEMA}],
    },
    "gemini": {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Is it "}, {"text": "late?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "not to be seen", "thought": True},
                    {"text": "Let me see."},
                    {"functionCall": {"name": "clock", "args": {"place": "Oslo"}}},
                ],
            },
            {"role": "user", "parts": [{"functionResponse": {"name": "clock", "response": {"output": "12:00"}}}]},
            {"role": "model", "parts": [{"text": "No."}]},
            {"role": "user", "parts": [{"text": "Why?"}]},
        ],
    },
    "responses": {
        "instructions": "Be brief.",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "Is it "}, {"type": "input_text", "text": "late?"}],
            },
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"role": "assistant", "content": "Let me see."},
            {"type": "function_call", "call_id": "call_1", "name": "clock", "arguments": '{"place": "Oslo"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "12:00"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "No."}]},
            {"role": "user", "content": "Why?"},
        ],
    },
}

OUTLINE = [
    "user Is it late?",
    "assistant Let me see.",
    'call clock {"place":"Oslo"}',
    "result 12:00",
    "assistant No.",
    "user Why?",
]


@pytest.mark.parametrize("dialect", TALKS)
def test_a_conversation_is_the_same_in_every_protocol(dialect: str) -> None:
    found = seen(dialect, **TALKS[dialect])
    assert found.outline == OUTLINE
    assert found.system == "Be brief."
    assert found.asked == "Why?"
    assert [one.name for one in found.calls] == ["clock"]
    assert found.tokens > 10
    ids = {(one.id, one.kind) for one in found.said if one.kind in ("call", "result")}
    assert ids == (
        {("", "call"), ("", "result")} if dialect == "gemini" else {("call_1", "call"), ("call_1", "result")}
    )


SEALED: Mapping[str, tuple[Body, list[str]]] = {
    "chat": (TALKS["chat"], ["hm"]),
    "gemini": (
        {
            "contents": [
                {"role": "user", "parts": [{"text": "hi"}]},
                {"role": "model", "parts": [{"text": "a", "thoughtSignature": "skip_thought_signature_validator"}]},
                {"role": "user", "parts": [{"text": "b"}]},
                {
                    "role": "model",
                    "parts": [
                        {
                            "functionCall": {"name": "clock"},
                            "thoughtSignature": "context_engineering_is_the_way_to_go",
                        }
                    ],
                },
                {"role": "user", "parts": [{"functionResponse": {"name": "clock", "response": {"at": 12}}}]},
            ]
        },
        ["skip_thought_signature_validator", "context_engineering_is_the_way_to_go"],
    ),
    "responses": (TALKS["responses"], ["hm"]),
}


@pytest.mark.parametrize("dialect", SEALED)
def test_what_goes_back_to_its_issuer_is_a_seal(dialect: str) -> None:
    body, seals = SEALED[dialect]
    assert seen(dialect, **body).seals == seals


def test_a_seal_stands_before_its_call_and_behind_its_text() -> None:
    found = seen("gemini", **SEALED["gemini"][0])
    assert [line.partition(" ")[0] for line in found.reasoned] == [
        "user",
        "assistant",
        "seal",
        "user",
        "seal",
        "call",
        "result",
    ]
    assert found.outline[-1] == 'result {"at":12}'


def details(*entries: Body) -> Body:
    message = {"role": "assistant", "content": "a", "reasoning": "b", "reasoning_details": list(entries)}
    return {"messages": [{"role": "user", "content": "hi"}, message, {"role": "user", "content": "so"}]}


def test_details_of_reasoning_are_sealed_by_what_is_hardest_to_make_up() -> None:
    entries = [{"text": "t", "signature": "s"}, {"data": "d"}, {"summary": "u"}, {"text": "t"}, {}]
    assert seen("chat", **details(*entries)).seals == ["s", "d", "u", "t", ""]


MEDIA: Mapping[str, tuple[Body, list[str]]] = {
    "chat": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}},
                    ],
                }
            ]
        },
        [PNG, "https://example.com/a.png", PDF],
    ),
    "anthropic": (
        {
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "clock", "input": {}}]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "a",
                            "content": [
                                {"type": "text", "text": "12:00"},
                                {
                                    "type": "image",
                                    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                                },
                            ],
                        },
                        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
                    ],
                },
            ],
            "tools": [{"name": "clock", "input_schema": SCHEMA}],
        },
        [PNG, "https://example.com/a.pdf"],
    ),
    "gemini": (
        {
            "contents": [
                {
                    "role": "user",
                    "parts": [
                        {"inlineData": {"mimeType": "image/png", "data": PNG}},
                        {"fileData": {"fileUri": "https://example.com/a.png"}},
                        {"text": "hi"},
                    ],
                },
                {"role": "model", "parts": [{"functionCall": {"name": "clock"}}]},
                {
                    "role": "user",
                    "parts": [
                        {
                            "functionResponse": {
                                "name": "clock",
                                "response": {"result": "12:00"},
                                "parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgoA"}}],
                            }
                        }
                    ],
                },
            ]
        },
        [PNG, "https://example.com/a.png", "iVBORw0KGgoA"],
    ),
    "responses": (
        {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
                        {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}"},
                    ],
                },
                {"type": "custom_tool_call", "call_id": "a", "name": "run", "input": "x"},
                {
                    "type": "custom_tool_call_output",
                    "call_id": "a",
                    "output": [
                        {"type": "input_text", "text": "12:00"},
                        {"type": "input_image", "image_url": "https://example.com/a.png"},
                    ],
                },
            ]
        },
        [PNG, PDF, "https://example.com/a.png"],
    ),
}


@pytest.mark.parametrize("dialect", MEDIA)
def test_media_are_seen_as_they_are_sent(dialect: str) -> None:
    body, media = MEDIA[dialect]
    found = seen(dialect, **body)
    assert found.media == media
    assert [one.text for one in found.of("result")] == ([] if dialect == "chat" else ["12:00"])


CHAT_TOOLS: Body = {
    "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}]
}
ANTHROPIC_TOOLS: Body = {"tools": [{"name": "look", "description": "Looks.", "input_schema": SCHEMA}]}
GEMINI_TOOLS: Body = {
    "tools": [{"functionDeclarations": [{"name": "look", "description": "Looks.", "parametersJsonSchema": SCHEMA}]}]
}
RESPONSES_TOOLS: Body = {"tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": SCHEMA}]}
TOOLS: Mapping[str, Body] = {
    "chat": CHAT_TOOLS,
    "anthropic": ANTHROPIC_TOOLS,
    "gemini": GEMINI_TOOLS,
    "responses": RESPONSES_TOOLS,
}


@pytest.mark.parametrize("dialect", TOOLS)
def test_tools_are_offered_in_every_protocol(dialect: str) -> None:
    found = seen(dialect, **TOOLS[dialect])
    assert found.tools == [Offered("look", "Looks.", RAW)]
    assert found.choice == Choice()
    assert (found.parallel, found.temperature, found.top_p, found.effort) == (None, None, None, "")
    assert found.limit == (50 if dialect == "anthropic" else None)
    assert found.form == Form()


def gemini_choice(mode: str, *names: str) -> Body:
    return {"toolConfig": {"functionCallingConfig": {"mode": mode, "allowedFunctionNames": list(names)}}}


ALLOWED = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]}

CHOICES: list[tuple[str, Body, Choice]] = [
    ("chat", {"tool_choice": "none"}, Choice("none")),
    ("chat", {"tool_choice": "required"}, Choice("required")),
    ("chat", {"tool_choice": {"type": "function", "function": {"name": "look"}}}, Choice("required", ["look"])),
    ("anthropic", {"tool_choice": {"type": "none"}}, Choice("none")),
    ("anthropic", {"tool_choice": {"type": "any"}}, Choice("required")),
    ("anthropic", {"tool_choice": {"type": "tool", "name": "look"}}, Choice("required", ["look"])),
    ("gemini", gemini_choice("NONE"), Choice("none")),
    ("gemini", gemini_choice("ANY"), Choice("required", [])),
    ("gemini", gemini_choice("any", "look"), Choice("required", ["look"])),
    ("gemini", gemini_choice("VALIDATED", "look"), Choice("auto", ["look"])),
    ("responses", {"tool_choice": "none"}, Choice("none")),
    ("responses", {"tool_choice": "required"}, Choice("required")),
    ("responses", {"tool_choice": {"type": "function", "name": "look"}}, Choice("required", ["look"])),
    ("responses", {"tool_choice": ALLOWED}, Choice("required", ["look"])),
]


@pytest.mark.parametrize(("dialect", "fields", "choice"), CHOICES)
def test_what_has_to_be_called_is_seen(dialect: str, fields: Body, choice: Choice) -> None:
    found = seen(dialect, **TOOLS[dialect], **fields).choice
    assert (found.mode, [*found.names]) == (choice.mode, [*choice.names])


SETTINGS: Mapping[str, Body] = {
    "chat": {
        "parallel_tool_calls": False,
        "max_completion_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.25,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    },
    "anthropic": {
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "max_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.25,
        "output_config": {
            "effort": "low",
            "format": {"type": "json_schema", "schema": {**SCHEMA, "additionalProperties": False}},
        },
    },
    "gemini": {
        "generationConfig": {
            "maxOutputTokens": 99,
            "temperature": 0.5,
            "topP": 0.25,
            "thinkingConfig": {"thinkingLevel": "low"},
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
        }
    },
    "responses": {
        "parallel_tool_calls": False,
        "max_output_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.25,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
    },
}


@pytest.mark.parametrize("dialect", SETTINGS)
def test_settings_are_seen_in_every_protocol(dialect: str) -> None:
    found = seen(dialect, **TOOLS[dialect], **SETTINGS[dialect])
    assert (found.limit, found.temperature, found.top_p, found.effort) == (99, 0.5, 0.25, "low")
    assert found.form.kind == "json_schema"
    assert b'"place"' in found.form.schema
    assert found.parallel is (None if dialect == "gemini" else False)


OBJECTS: Mapping[str, Body] = {
    "chat": {"response_format": {"type": "json_object"}},
    "gemini": {"generationConfig": {"responseMimeType": "application/json"}},
    "responses": {"text": {"format": {"type": "json_object"}}},
}


@pytest.mark.parametrize("dialect", OBJECTS)
def test_an_object_may_be_asked_for_without_a_schema(dialect: str) -> None:
    assert seen(dialect, **OBJECTS[dialect]).form == Form("json_object")


def test_what_is_null_is_left_out() -> None:
    assert seen("responses", tools=None, include=None, tool_choice=None, stream=None).outline == ["user hi"]


def test_thinking_of_another_kind_is_words_too() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    assert seen("anthropic", max_tokens=2000, thinking=thinking).effort == "enabled 1024"


def test_a_developer_speaks_as_the_system_and_a_refusal_is_said() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "refusal": "No."},
        {"role": "user", "content": "so"},
    ]
    found = seen("chat", messages=messages)
    assert (found.system, found.outline) == ("Be brief.", ["user hi", "assistant No.", "user so"])
    assert seen("anthropic", system="Be brief.").system == "Be brief."


def test_tools_of_responses_are_of_many_kinds() -> None:
    inner = {"type": "function", "name": "list"}
    tools = [
        {"type": "custom", "name": "run"},
        {"type": "namespace", "name": "docs", "tools": [inner]},
        {"type": "namespace", "name": "empty"},
        {"type": "tool_search", "execution": "client"},
        {"type": "tool_search"},
        {"type": "web_search"},
    ]
    assert seen("responses", tools=tools).tools == [
        Offered("run", kind="custom"),
        Offered("list", namespace="docs"),
        Offered("tool_search", kind="search"),
    ]


def test_a_context_is_to_be_compacted_now_or_when_it_is_long() -> None:
    trigger = [{"role": "user", "content": "hi"}, {"type": "compaction_trigger"}]
    assert (seen("responses", input=trigger).compacts, seen("responses").compacts) == (True, False)
    for threshold, long in ((0, True), (99, False)):
        rule = {"type": "compaction", "compact_threshold": threshold}
        assert seen("responses", context_management=[rule]).compacts_too is long
    items = [{"role": "user", "content": "hi"}, {"type": "compaction", "encrypted_content": "c"}]
    assert seen("responses", input=items).seals == ["c"]


def test_what_a_provider_has_stored_is_seen_before_what_is_sent() -> None:
    with ResponsesUpstream([answer(text("one")), answer(text("two"))]) as provider:
        ask(provider, "/v1/responses", {"model": "m", "input": "first"})
        ask(provider, "/v1/responses", {"model": "m", "input": "second", "previous_response_id": "resp_1"})
        assert provider.objections == []
        assert provider.seen(provider.requests[1]).outline == ["user first", "assistant one", "user second"]


def test_nobody_has_said_anything_yet() -> None:
    empty = Seen([Said("media", "user", "a")])
    assert (empty.asked, empty.system, empty.seals) == ("", "", [])
    assert empty.outline == ["media a"]


@pytest.mark.parametrize(
    ("value", "told"), [('{"b": 1,  "a": [2]}', '{"a":[2],"b":1}'), ("{", "{"), (b"\xff", "\ufffd"), (b"1 ", "1")]
)
def test_json_is_compared_by_what_it_means(value: str | bytes, told: str) -> None:
    assert compact(value) == told


def test_thoughts_are_sealed_by_their_signature_or_by_what_is_hidden() -> None:
    hidden = [{"type": "thinking", "thinking": "hm", "signature": "sig"}, {"type": "redacted_thinking", "data": "dat"}]
    said = {"role": "assistant", "content": [*hidden, {"type": "text", "text": "So."}]}
    user = {"role": "user", "content": "hi"}
    body = {**DEFAULTS["anthropic"], "messages": [user, said, user]}
    step = answer(thought("hm", signature="sig"), redacted("dat"), text("So."))
    with AnthropicUpstream([step, step]) as provider:
        for asked in (DEFAULTS["anthropic"], body):
            ask(provider, "/v1/messages", asked, {"anthropic-version": "2023-06-01"})
        assert provider.objections == []
        assert provider.seen(provider.requests[1]).seals == ["sig", "dat"]
