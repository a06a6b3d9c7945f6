import base64
import json
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from rejoinder.bridge.chat import ChatDialect
from rejoinder.bridge.chat_reader import ChatReader
from rejoinder.bridge.dialect import Prompt
from rejoinder.bridge.envelope import Envelope, Issuer
from rejoinder.bridge.errors import Unsupported
from rejoinder.bridge.losses import Loss
from rejoinder.bridge.profile import ChatProfile
from rejoinder.conformance.upstreams.strictness import COMPATIBLE, DEEPSEEK, MISTRAL, OPENAI, Strictness, check
from rejoinder.wire.items import Item, Reasoning, kept
from tests.bridge.composing import composer
from tests.bridge.prompts import Fields, assistant, call, function, item, output, prompt, user

ISSUER = Issuer("chat", "e", "m")
PNG = "data:image/png;base64,AAAA"

OPENAI_PROFILE = ChatProfile(
    max_tokens="max_completion_tokens",
    instructions_role="developer",
    options=(
        "logprobs",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "user",
        "verbosity",
    ),
    native_custom_tools=True,
    files=True,
    audio=True,
    image_detail_original=True,
    reasoning_replay="never",
)
MISTRAL_PROFILE = ChatProfile(
    system_position="first",
    merge_turns=True,
    stream_usage=False,
    tool_choice="any",
    call_ids="nine",
)
DEEPSEEK_PROFILE = ChatProfile(
    options=(), tool_choice="auto", json_schema="object", effort="thinking", reasoning_replay="tools", images=False
)


def sent(asked: Prompt | str, profile: ChatProfile | None = None) -> bytes:
    """The body of the call for a prompt."""
    if isinstance(asked, str):
        asked = prompt(asked)
    return ChatDialect(profile or ChatProfile()).call(asked).body


def messages(
    *said: Fields, profile: ChatProfile | None = None, opened: Mapping[str, Envelope] | None = None, **fields: object
) -> str:
    """The messages of the body, without the list's brackets."""
    body = sent(prompt(said, opened, **fields), profile).decode()
    return body[body.index('"messages":[') + 12 : -2]


def refused(asked: Prompt, profile: ChatProfile | None = None) -> tuple[str, str | None, str | None]:
    with pytest.raises(Unsupported) as caught:
        sent(asked, profile)
    return str(caught.value), caught.value.param, caught.value.code


def thought(text: str = "", sealed: str | None = None) -> Fields:
    summary = [{"type": "summary_text", "text": text}] if text else []
    return {"type": "reasoning", "summary": summary, "encrypted_content": sealed}


FULL_ITEMS: list[Fields] = [
    {"role": "developer", "content": "Rule one."},
    {"role": "system", "content": [{"type": "input_text", "text": "Rule"}, {"type": "input_text", "text": "two."}]},
    user("Hello"),
    user([{"type": "input_text", "text": "Look:"}, {"type": "input_image", "image_url": PNG, "detail": "original"}]),
    thought("so", "ours"),
    assistant([{"type": "output_text", "text": "Looking."}, {"type": "refusal", "refusal": "Not that."}]),
    call("call_1", "f", '{"x": 1}'),
    {"type": "custom_tool_call", "call_id": "call_2", "name": "patch", "input": "*** Begin\n"},
    output("call_1"),
    {
        "type": "custom_tool_call_output",
        "call_id": "call_2",
        "output": [{"type": "input_text", "text": "ok"}, {"type": "input_image", "image_url": "https://a.test/a.png"}],
    },
    {"role": "developer", "content": "Rule three."},
    thought("foreign", "theirs"),
    call("call_3", "f", "not json"),
    output("call_3", [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]),
    user("Go on"),
]
FULL_FIELDS: Fields = {
    "instructions": "Be brief.",
    "stream": True,
    "temperature": 0.5,
    "top_p": 0.9,
    "presence_penalty": 1,
    "frequency_penalty": -1,
    "max_output_tokens": 99,
    "tools": [
        function("f", description="Does it.", parameters={"type": "object", "b": 1, "a": 2}, strict=True),
        function("g"),
        {"type": "custom", "name": "patch", "description": "Patches.",
         "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}},
    ],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "text": {
        "format": {"type": "json_schema", "name": "n", "schema": {"b": 1, "a": 2}, "description": "d", "strict": True},
        "verbosity": "low",
    },
    "reasoning": {"effort": "high", "summary": "auto", "context": "all_turns", "mode": "pro"},
    "prompt_cache_key": "key",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "safe",
    "user": "u",
    "service_tier": "flex",
    "metadata": {"a": "b"},
    "store": False,
    "include": ["reasoning.encrypted_content"],
}  # fmt: skip
OPENED = {"ours": Envelope(ISSUER, [Raw(b'{"field":"reasoning_content","text":"so it is"}')])}


def test_a_full_request_to_a_compatible_server() -> None:
    asked = prompt(FULL_ITEMS, OPENED, **FULL_FIELDS)
    made = ChatDialect(ChatProfile()).call(asked)
    assert (made.path, made.method, made.stream, made.headers) == ("/chat/completions", "POST", True, {})
    assert made.body.decode() == (
        '{"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.5,"top_p":0.9,'
        '"presence_penalty":1.0,"frequency_penalty":-1.0,"max_tokens":99,"reasoning_effort":"high",'
        '"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"b": 1, "a": 2},'
        '"description":"d","strict":true}},'
        '"tools":[{"type":"function","function":{"name":"f","description":"Does it.",'
        '"parameters":{"type": "object", "b": 1, "a": 2},"strict":true}},'
        '{"type":"function","function":{"name":"g","parameters":{"type":"object","properties":{}}}},'
        '{"type":"function","function":{"name":"patch","description":"Patches.\\n\\nThe `input` argument is free text, '
        'not JSON: write it as it is.\\n\\nIt must match this lark grammar:\\nstart: /a/","parameters":'
        '{"type":"object","properties":{"input":{"type":"string","description":"The free text of the call."}},'
        '"required":["input"],"additionalProperties":false}}}],'
        '"tool_choice":"required","parallel_tool_calls":false,'
        '"messages":[{"role":"system","content":"Be brief.\\n\\nRule one.\\n\\nRule\\n\\ntwo."},'
        '{"role":"user","content":"Hello"},'
        '{"role":"user","content":[{"type":"text","text":"Look:"},'
        '{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"high"}}]},'
        '{"role":"assistant","content":"Looking.\\n\\nNot that.","reasoning_content":"so it is","tool_calls":['
        '{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\\"x\\": 1}"}},'
        '{"id":"call_2","type":"function","function":{"name":"patch",'
        '"arguments":"{\\"input\\":\\"*** Begin\\\\n\\"}"}}]},'
        '{"role":"tool","tool_call_id":"call_1","content":"done"},'
        '{"role":"tool","tool_call_id":"call_2","content":"ok\\n[image output, shown in the next message]"},'
        '{"role":"user","content":[{"type":"text","text":"[output of call call_2]"},'
        '{"type":"image_url","image_url":{"url":"https://a.test/a.png"}}]},'
        '{"role":"system","content":"Rule three."},'
        '{"role":"assistant","content":null,"tool_calls":['
        '{"id":"call_3","type":"function","function":{"name":"f","arguments":"{\\"_raw\\":\\"not json\\"}"}}]},'
        '{"role":"tool","tool_call_id":"call_3","content":"a\\nb"},'
        '{"role":"user","content":"Go on"}]}'
    )
    assert asked.notes == [
        "prompt_cache_key: not understood by this upstream",
        "prompt_cache_options: not understood by this upstream",
        "prompt_cache_retention: not understood by this upstream",
        "safety_identifier: not understood by this upstream",
        "user: not understood by this upstream",
        "service_tier: not understood by this upstream",
        "text.verbosity: not understood by this upstream",
        "reasoning.context: not understood by this upstream",
        "reasoning.mode: not understood by this upstream",
    ]


def test_a_full_request_to_the_server_that_knows_everything() -> None:
    asked = prompt(FULL_ITEMS, OPENED, **{**FULL_FIELDS, "top_logprobs": 2})
    assert sent(asked, OPENAI_PROFILE).decode() == (
        '{"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0.5,"top_p":0.9,'
        '"presence_penalty":1.0,"frequency_penalty":-1.0,"max_completion_tokens":99,"prompt_cache_key":"key",'
        '"prompt_cache_options":{"mode":"explicit"},"prompt_cache_retention":"24h","safety_identifier":"safe",'
        '"user":"u","service_tier":"flex","verbosity":"low","logprobs":true,"top_logprobs":2,'
        '"reasoning_effort":"high",'
        '"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"b": 1, "a": 2},'
        '"description":"d","strict":true}},'
        '"tools":[{"type":"function","function":{"name":"f","description":"Does it.",'
        '"parameters":{"type": "object", "b": 1, "a": 2},"strict":true}},'
        '{"type":"function","function":{"name":"g","parameters":{"type":"object","properties":{}}}},'
        '{"type":"custom","custom":{"name":"patch","description":"Patches.","format":{"type":"grammar",'
        '"grammar":{"definition":"start: /a/","syntax":"lark"}}}}],'
        '"tool_choice":"required","parallel_tool_calls":false,'
        '"messages":[{"role":"developer","content":"Be brief.\\n\\nRule one.\\n\\nRule\\n\\ntwo."},'
        '{"role":"user","content":"Hello"},'
        '{"role":"user","content":[{"type":"text","text":"Look:"},'
        '{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"original"}}]},'
        '{"role":"assistant","content":"Looking.\\n\\nNot that.","tool_calls":['
        '{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\\"x\\": 1}"}},'
        '{"id":"call_2","type":"custom","custom":{"name":"patch","input":"*** Begin\\n"}}]},'
        '{"role":"tool","tool_call_id":"call_1","content":"done"},'
        '{"role":"tool","tool_call_id":"call_2","content":"ok\\n[image output, shown in the next message]"},'
        '{"role":"user","content":[{"type":"text","text":"[output of call call_2]"},'
        '{"type":"image_url","image_url":{"url":"https://a.test/a.png"}}]},'
        '{"role":"system","content":"Rule three."},'
        '{"role":"assistant","content":null,"tool_calls":['
        '{"id":"call_3","type":"function","function":{"name":"f","arguments":"{\\"_raw\\":\\"not json\\"}"}}]},'
        '{"role":"tool","tool_call_id":"call_3","content":"a\\nb"},'
        '{"role":"user","content":"Go on"}]}'
    )
    assert asked.notes == [
        "reasoning.context: not understood by this upstream",
        "reasoning.mode: not understood by this upstream",
    ]


def test_a_plain_request_says_nothing_it_was_not_asked_to_say() -> None:
    made = ChatDialect(ChatProfile()).call(prompt("hi"))
    assert made.body == b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    assert not made.stream
    quiet = prompt(
        "hi", service_tier="auto", reasoning={"context": "auto", "mode": "standard"}, text={"verbosity": None}
    )
    assert sent(quiet) == made.body
    assert quiet.notes == []


def test_the_reader_and_the_rejection_are_those_of_the_dialect() -> None:
    dialect = ChatDialect(ChatProfile())
    assert isinstance(dialect.reader(prompt("hi"), composer()), ChatReader)
    error = dialect.rejection(429, {"retry-after": "3"}, b'{"error":{"message":"slow"}}')
    assert (str(error), error.code, error.retry_after) == ("slow", "rate_limit_exceeded", 3.0)


# Settings of a server, one by one


@pytest.mark.parametrize(
    ("fields", "profile", "head"),
    [
        ({"max_output_tokens": 16}, ChatProfile(max_tokens="max_completion_tokens"), '"max_completion_tokens":16'),
        ({"stream": True}, ChatProfile(stream_usage=False), '"stream":true'),
        ({}, ChatProfile(extra={"seed": Raw(b"7"), "a": Raw(b'{"b": 1}')}), '"seed":7,"a":{"b": 1}'),
        ({"user": "u"}, ChatProfile(options=("user",)), '"user":"u"'),
        ({"service_tier": "default"}, ChatProfile(options=("service_tier",)), ""),
        ({"top_logprobs": 0}, ChatProfile(), ""),
        (
            {"include": ["message.output_text.logprobs"]},
            ChatProfile(options=("logprobs",)),
            '"logprobs":true',
        ),
        # Reasoning (§6).
        ({"reasoning": {"effort": "xhigh"}}, ChatProfile(), '"reasoning_effort":"xhigh"'),
        ({"reasoning": {"effort": "xhigh"}}, ChatProfile(effort_values={"xhigh": "high"}), '"reasoning_effort":"high"'),
        ({"reasoning": {"effort": None}}, ChatProfile(), ""),
        ({"reasoning": {"effort": "low"}}, ChatProfile(effort="none"), ""),
        ({"reasoning": {"effort": "low"}}, ChatProfile(effort="reasoning_object"), '"reasoning":{"effort":"low"}'),
        ({"reasoning": {"effort": "low"}}, ChatProfile(effort="thinking"), '"thinking":{"type":"enabled"}'),
        ({"reasoning": {"effort": "none"}}, ChatProfile(effort="thinking"), '"thinking":{"type":"disabled"}'),
        (
            {"reasoning": {"effort": "minimal"}},
            ChatProfile(effort="thinking", effort_values={"minimal": "low"}),
            '"thinking":{"type":"enabled"},"reasoning_effort":"low"',
        ),
        ({"reasoning": {"effort": "low"}}, ChatProfile(effort="enable_thinking"), '"enable_thinking":true'),
        ({"reasoning": {"effort": "none"}}, ChatProfile(effort="enable_thinking"), '"enable_thinking":false'),
        # Formats (§9).
        ({"text": {"format": {"type": "text"}}}, ChatProfile(), ""),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}},
            ChatProfile(),
            '"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}}',
        ),
    ],
)
def test_a_setting_changes_the_head_of_the_body(fields: dict[str, object], profile: ChatProfile, head: str) -> None:
    comma = "," if head else ""
    expected = f'{{"model":"m"{comma}{head},"messages":[{{"role":"user","content":"hi"}}]}}'
    assert sent(prompt("hi", None, **fields), profile).decode() == expected


def test_an_effort_that_is_not_understood_is_noted() -> None:
    asked = prompt("hi", reasoning={"effort": "low"})
    sent(asked, ChatProfile(effort="none"))
    assert asked.notes == ["reasoning.effort: not understood by this upstream"]


def test_the_last_update_of_the_effort_wins() -> None:
    updates = [
        {"type": "configuration_update", **fields}
        for fields in ({"reasoning": {"effort": "low"}}, {"reasoning": {"effort": None}}, {"text": None})
    ]
    asked = prompt([user("hi"), *updates], reasoning={"effort": "high"})
    assert b'"reasoning_effort":"low"' in sent(asked)
    assert b'"reasoning_effort":"low"' in sent(prompt([user("hi"), *updates]))


def test_the_last_update_of_the_format_wins() -> None:
    def update(text: object) -> Fields:
        return {"type": "configuration_update", "text": text}

    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    said = [user("hi"), update({"format": {"type": "json_object"}}), update({"format": None}), update({})]
    assert b'"response_format":{"type":"json_object"}' in sent(prompt(said, text={"format": schema}))
    assert b'"response_format":{"type":"json_object"}' in sent(prompt(said))


def test_a_server_that_only_thinks_or_does_not_is_said_to() -> None:
    asked = prompt("hi", reasoning={"effort": "high"})
    ChatDialect(ChatProfile(effort="thinking")).call(asked)
    assert asked.notes == ["reasoning.effort: this upstream thinks or does not, it knows no degrees"]


def test_log_probabilities_are_refused_where_there_are_none() -> None:
    message = "this upstream does not return log probabilities"
    assert refused(prompt("hi", top_logprobs=1)) == (message, "top_logprobs", "unsupported_parameter")
    included = prompt("hi", include=["message.output_text.logprobs"])
    assert refused(included) == (message, "include", "unsupported_parameter")


JSON_SCHEMA = {"format": {"type": "json_schema", "name": "n", "schema": {"b": 1}}}


@pytest.mark.parametrize(
    ("text", "known", "head", "instructions"),
    [
        (
            {"format": {"type": "json_object"}},
            "native",
            ',"response_format":{"type":"json_object"}',
            "Answer with one JSON object and nothing else.",
        ),
        (
            JSON_SCHEMA,
            "object",
            ',"response_format":{"type":"json_object"}',
            'Answer with JSON that matches this JSON schema and nothing else:\\n{\\"b\\": 1}',
        ),
        (
            JSON_SCHEMA,
            "none",
            "",
            'Answer with JSON that matches this JSON schema and nothing else:\\n{\\"b\\": 1}',
        ),
    ],
)
def test_a_format_a_server_does_not_know_goes_into_the_instructions(
    text: Fields, known: str, head: str, instructions: str
) -> None:
    profile = msgspec.convert({"json_schema": known}, ChatProfile)
    assert sent(prompt("hi", text=text, instructions="Be brief."), profile).decode() == (
        f'{{"model":"m"{head},"messages":[{{"role":"system","content":"Be brief.\\n\\n{instructions}"}},'
        '{"role":"user","content":"hi"}]}'
    )


# Tools


@pytest.mark.parametrize(
    ("choice", "profile", "said"),
    [
        ("auto", ChatProfile(), ""),
        ("none", ChatProfile(), ',"tool_choice":"none"'),
        ("required", ChatProfile(), ',"tool_choice":"required"'),
        ("required", ChatProfile(tool_choice="any"), ',"tool_choice":"any"'),
        ("none", ChatProfile(tool_choice="any"), ',"tool_choice":"none"'),
        ("none", ChatProfile(tool_choice="auto"), ',"tool_choice":"none"'),
        ("auto", ChatProfile(tool_choice="auto"), ""),
        ("required", ChatProfile(tool_choice="auto"), ""),
        (function("f"), ChatProfile(), ',"tool_choice":{"type":"function","function":{"name":"f"}}'),
        (function("f"), ChatProfile(tool_choice="auto"), ""),
        ({"type": "shell"}, ChatProfile(), ',"tool_choice":{"type":"function","function":{"name":"shell"}}'),
        (
            {"type": "custom", "name": "c"},
            ChatProfile(),
            ',"tool_choice":{"type":"function","function":{"name":"c"}}',
        ),
        (
            {"type": "custom", "name": "c"},
            ChatProfile(native_custom_tools=True),
            ',"tool_choice":{"type":"custom","custom":{"name":"c"}}',
        ),
    ],
)
def test_a_tool_choice_is_said_in_the_servers_words(choice: object, profile: ChatProfile, said: str) -> None:
    tools = [function("f"), {"type": "shell"}, {"type": "custom", "name": "c"}]
    asked = prompt("hi", tools=tools, tool_choice=choice)
    body = sent(asked, profile).decode()
    start = body.index("}}]") + 3 if profile.native_custom_tools else body.index("false}}}]") + 9
    assert body[start:] == f'{said},"messages":[{{"role":"user","content":"hi"}}]}}'
    unheard = profile.tool_choice == "auto" and choice not in ("auto", "none")
    assert asked.notes == (["tool_choice: this upstream decides itself whether to call a tool"] if unheard else [])


@pytest.mark.parametrize(
    ("tool", "declared"),
    [
        ({"type": "custom", "name": "c"}, '{"name":"c"}'),
        (
            {"type": "custom", "name": "c", "description": "d", "format": {"type": "text"}},
            '{"name":"c","description":"d","format":{"type":"text"}}',
        ),
    ],
)
def test_a_free_form_tool_is_declared_as_it_is_where_there_are_such_tools(tool: Fields, declared: str) -> None:
    body = sent(prompt("hi", tools=[tool]), ChatProfile(native_custom_tools=True)).decode()
    assert body.startswith(f'{{"model":"m","tools":[{{"type":"custom","custom":{declared}}}],"messages":')


def test_without_tools_there_is_no_word_about_them() -> None:
    plain = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    assert sent(prompt("hi", tools=[], tool_choice="none", parallel_tool_calls=False)) == plain
    assert sent(prompt("hi", tools=[{"type": "web_search"}])) == plain
    message = "tool choice 'required' needs at least one tool"
    assert refused(prompt("hi", tool_choice="required")) == (message, "tool_choice", None)
    message = "Tool choice 'f' not found in 'tools' parameter."
    assert refused(prompt("hi", tool_choice=function("f"))) == (message, "tool_choice", "invalid_value")


def test_one_call_at_a_time_is_asked_for_where_it_is_understood() -> None:
    tools = [function("f")]
    assert b'"parallel_tool_calls":false' in sent(prompt("hi", tools=tools, parallel_tool_calls=False))
    assert b"parallel" not in sent(prompt("hi", tools=tools, parallel_tool_calls=True))
    assert b"parallel" not in sent(prompt("hi", tools=tools, parallel_tool_calls=False), ChatProfile(options=()))


# Messages


def test_a_conversation_of_instructions_alone_is_one_message() -> None:
    assert messages({"role": "developer", "content": "x"}) == '{"role":"system","content":"x"}'
    assert messages(instructions="x") == '{"role":"system","content":"x"}'


@pytest.mark.parametrize("said", [[], [{"role": "system", "content": ""}], [thought("x")], [assistant("")]])
def test_a_conversation_of_nothing_is_refused(said: list[Fields]) -> None:
    assert refused(prompt(said)) == ("the conversation is empty", "input", None)


def test_instructions_and_their_leading_company_are_one_message() -> None:
    said = [{"role": "developer", "content": "b"}, {"role": "system", "content": ""}, user("hi")]
    wanted = '{"role":"developer","content":"a\\n\\nb"},{"role":"user","content":"hi"}'
    assert messages(*said, profile=ChatProfile(instructions_role="developer"), instructions="a") == wanted


def test_a_later_system_message_stays_where_it_is_or_is_wrapped() -> None:
    said = [user("1"), {"role": "developer", "content": "rule"}, user("2")]
    assert messages(*said, profile=ChatProfile(instructions_role="developer")) == (
        '{"role":"user","content":"1"},{"role":"system","content":"rule"},{"role":"user","content":"2"}'
    )
    wrapped = '{"role":"user","content":"<system>\\nrule\\n</system>"}'
    assert messages(*said, profile=ChatProfile(system_position="first")) == (
        f'{{"role":"user","content":"1"}},{wrapped},{{"role":"user","content":"2"}}'
    )
    assert messages(*said[:2], assistant("a"), profile=ChatProfile(system_position="first")) == (
        f'{{"role":"user","content":"1"}},{wrapped},{{"role":"assistant","content":"a"}}'
    )


def test_neighbouring_messages_of_the_user_are_joined_where_roles_must_alternate() -> None:
    said = [user("1"), user("2"), assistant("a"), user("3")]
    assert messages(*said, profile=ChatProfile(merge_turns=True)) == (
        '{"role":"user","content":[{"type":"text","text":"1"},{"type":"text","text":"2"}]},'
        '{"role":"assistant","content":"a"},{"role":"user","content":"3"}'
    )


def test_a_message_of_an_agent_names_both() -> None:
    said = {"type": "agent_message", "author": "a", "recipient": "b", "content": "go"}
    assert messages(said) == (
        '{"role":"user","content":[{"type":"text","text":"Message from a to b:"},{"type":"text","text":"go"}]}'
    )


@pytest.mark.parametrize("part", [{"type": "input_image", "image_url": PNG}, {"type": "input_file", "file_id": "f"}])
def test_a_system_message_holds_text_only(part: Fields) -> None:
    message = ("system and developer messages may hold text only", "input", None)
    assert refused(prompt([{"role": "system", "content": [part]}])) == message
    assert refused(prompt([user("hi"), {"role": "system", "content": [part]}])) == message


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


PARTS: list[tuple[Fields, ChatProfile, str]] = [
    ({"type": "input_image", "image_url": PNG}, ChatProfile(), f'{{"type":"image_url","image_url":{{"url":"{PNG}"}}}}'),
    (
        {"type": "input_image", "image_url": "https://a.test", "detail": "low"},
        ChatProfile(),
        '{"type":"image_url","image_url":{"url":"https://a.test","detail":"low"}}',
    ),
    (
        {"type": "input_image", "image_url": PNG, "detail": "original"},
        ChatProfile(image_detail_original=True),
        f'{{"type":"image_url","image_url":{{"url":"{PNG}","detail":"original"}}}}',
    ),
    (
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        ChatProfile(audio=True),
        '{"type":"input_audio","input_audio":{"data":"AA","format":"wav"}}',
    ),
    (
        {"type": "input_file", "file_data": data_url("application/pdf", b"%PDF"), "filename": "a.pdf"},
        ChatProfile(files=True),
        '{"type":"file","file":{"file_data":"data:application/pdf;base64,JVBERg==","filename":"a.pdf"}}',
    ),
    (
        {"type": "input_file", "file_data": data_url("application/pdf", b"%PDF")},
        ChatProfile(files=True),
        '{"type":"file","file":{"file_data":"data:application/pdf;base64,JVBERg==","filename":"file"}}',
    ),
    (
        {"type": "input_file", "file_data": data_url("text/plain;charset=utf-8", b"caf\xc3\xa9"), "filename": "a.txt"},
        ChatProfile(),
        '{"type":"text","text":"a.txt:\\ncafé"}',
    ),
    (
        {"type": "input_file", "file_data": data_url("application/json", b"[1]")},
        ChatProfile(),
        '{"type":"text","text":"[1]"}',
    ),
    ({"type": "input_file", "file_data": "data:text/csv,a%2Cb%0A1"}, ChatProfile(), '{"type":"text","text":"a,b\\n1"}'),
    (
        {"type": "input_file", "file_data": data_url("text/plain", b"\xff")},
        ChatProfile(files=True),
        '{"type":"file","file":{"file_data":"data:text/plain;base64,/w==","filename":"file"}}',
    ),
    (
        {"type": "input_file", "file_data": "data:text/plain;base64,?"},
        ChatProfile(files=True),
        '{"type":"file","file":{"file_data":"data:text/plain;base64,?","filename":"file"}}',
    ),
    (
        {"type": "input_file", "file_data": "data:text/plain"},
        ChatProfile(files=True),
        '{"type":"file","file":{"file_data":"data:text/plain","filename":"file"}}',
    ),
]


@pytest.mark.parametrize(("part", "profile", "written"), PARTS)
def test_a_part_is_written_as_the_server_takes_it(part: Fields, profile: ChatProfile, written: str) -> None:
    said = user([{"type": "input_text", "text": "see"}, part])
    assert messages(said, profile=profile) == f'{{"role":"user","content":[{{"type":"text","text":"see"}},{written}]}}'


@pytest.mark.parametrize(
    ("part", "profile", "message"),
    [
        ({"type": "input_image", "image_url": PNG}, ChatProfile(images=False), "images: it takes text only"),
        (
            {"type": "input_image", "file_id": "f"},
            ChatProfile(),
            "an image by 'file_id': there is no file store here; send it as a data URL",
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            ChatProfile(),
            "audio: it has no input for it",
        ),
        (
            {"type": "input_file", "file_data": data_url("application/pdf", b"%PDF")},
            ChatProfile(),
            "files: it takes text files and images only",
        ),
        (
            {"type": "input_file", "file_url": "https://a.test/a.txt"},
            ChatProfile(files=True),
            "a file by 'file_id' or 'file_url': it is not fetched here; send it as 'file_data'",
        ),
    ],
)
def test_a_part_the_server_cannot_take_is_refused_by_kind(part: Fields, profile: ChatProfile, message: str) -> None:
    wanted = (f"this upstream cannot take {message}", "input", "unsupported_value")
    assert refused(prompt([user([part])]), profile) == wanted
    tools = [function("f")]
    assert refused(prompt([user("hi"), call("a"), output("a", [part])], tools=tools), profile) == wanted


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "image_url": PNG},
        {"type": "input_file", "file_id": "f"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ],
)
def test_an_assistant_message_holds_text_only(part: Fields) -> None:
    message = "this upstream cannot take images, files or audio in an assistant message: only users may send them"
    assert refused(prompt([user("hi"), assistant([part])]), OPENAI_PROFILE) == (message, "input", "unsupported_value")


def test_a_message_of_one_text_is_a_string() -> None:
    assert messages(user([{"type": "input_text", "text": "a"}])) == '{"role":"user","content":"a"}'
    assert messages(user([{"type": "refusal", "refusal": "a"}])) == '{"role":"user","content":"a"}'


def test_what_a_tool_shows_follows_all_its_results() -> None:
    shown = [
        {"type": "input_image", "image_url": PNG},
        {"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}},
        {"type": "input_image", "image_url": PNG},
    ]
    said = [user("hi"), call("a"), call("b"), output("a", shown), output("b", ""), user("so?")]
    image = f'{{"type":"image_url","image_url":{{"url":"{PNG}"}}}}'
    results = (
        '{"role":"tool","tool_call_id":"a","content":"[audio output, shown in the next message]\\n'
        '[image output, shown in the next message]"},{"role":"tool","tool_call_id":"b","content":""},'
    )
    label = '{"type":"text","text":"[output of call a]"}'
    audio = '{"type":"input_audio","input_audio":{"data":"A","format":"wav"}}'
    assert messages(*said, profile=OPENAI_PROFILE).endswith(
        f'{results}{{"role":"user","content":[{label},{image},{audio},{image}]}},{{"role":"user","content":"so?"}}'
    )
    assert messages(*said, profile=ChatProfile(audio=True, merge_turns=True)).endswith(
        f'{results}{{"role":"user","content":[{label},{image},{audio},{image},{{"type":"text","text":"so?"}}]}}'
    )


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        ('{"a": [1, {"b": null}]}', '{\\"a\\": [1, {\\"b\\": null}]}'),
        ("{}", "{}"),
        ("", "{}"),
        (" \n", "{}"),
        ("null", '{\\"_raw\\":\\"null\\"}'),
        ('{"a":', '{\\"_raw\\":\\"{\\\\\\"a\\\\\\":\\"}'),
    ],
)
def test_arguments_are_json_whatever_the_model_wrote(arguments: str, written: str) -> None:
    assert messages(user("hi"), call("a", arguments=arguments), output("a")).startswith(
        '{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":'
        f'[{{"id":"a","type":"function","function":{{"name":"f","arguments":"{written}"}}}}]}},'
    )


def test_a_function_call_that_became_a_free_form_one_says_all_it_said() -> None:
    said = [user("hi"), call("a", "c", '{"input":"x"}'), output("a"), call("b", "c", '{"x":1}'), output("b")]
    written = messages(*said, profile=OPENAI_PROFILE, tools=[{"type": "custom", "name": "c"}])
    assert '{"id":"a","type":"custom","custom":{"name":"c","input":"x"}}' in written
    assert '{"id":"b","type":"custom","custom":{"name":"c","input":"{\\"x\\":1}"}}' in written


def test_a_free_form_call_of_a_tool_that_is_gone_is_a_functions() -> None:
    said = {"type": "custom_tool_call", "call_id": "a", "name": "c", "input": "x"}
    written = messages(
        user("hi"), said, {"type": "custom_tool_call_output", "call_id": "a", "output": ""}, profile=OPENAI_PROFILE
    )
    assert '{"id":"a","type":"function","function":{"name":"c","arguments":"{\\"input\\":\\"x\\"}"}}' in written


def test_a_message_of_calls_alone_has_the_content_the_server_wants() -> None:
    said = [user("hi"), call("a"), output("a")]
    assert '{"role":"assistant","content":null,"tool_calls"' in messages(*said)
    assert '{"role":"assistant","content":"","tool_calls"' in messages(
        *said, profile=ChatProfile(empty_content="empty")
    )


def test_call_ids_are_made_to_fit_and_stay_pairs() -> None:
    said = [
        user("hi"),
        call("call_1"),
        call("ABCdef123"),
        call("é23456789"),
        output("call_1"),
        output("ABCdef123"),
        output("é23456789"),
    ]
    written = json.loads(f"[{messages(*said, profile=ChatProfile(call_ids='nine'))}]")
    ids = [one["id"] for one in written[1]["tool_calls"]]
    assert ids == [one["tool_call_id"] for one in written[2:]]
    assert ids == ["Bu09e4fdz", "ABCdef123", "x0DCbcgAr"]


# Reasoning that goes back


def recalled(
    profile: ChatProfile, *parts: Fields, calls: Mapping[str, object] | None = None, calling: bool = True
) -> str:
    """The assistant message after reasoning that left these parts in its envelope."""
    raws = [Raw(json.dumps(part).encode()) for part in parts]
    opened = {
        "ours": Envelope(ISSUER, raws, {name: Raw(json.dumps(raw).encode()) for name, raw in (calls or {}).items()})
    }
    said = [user("hi"), thought("shown", "ours"), assistant("x"), *([call("a"), output("a")] if calling else [])]
    written = messages(*said, profile=profile, opened=opened)
    end = written.index(',{"role":"tool"') if calling else len(written)
    return written[len('{"role":"user","content":"hi"},') : end]


@pytest.mark.parametrize(
    ("replay", "losses"),
    [("always", [Loss("reasoning", None, "removed", "no_words")]), ("tools", []), ("never", [])],
)
def test_a_thought_nothing_followed_has_no_message_to_go_back_in(
    replay: Literal["always", "tools", "never"], losses: list[Loss]
) -> None:
    asked = prompt([user("hi"), thought("shown", "ours"), user("go on")], {"ours": Envelope(ISSUER, [], {})})
    body = sent(asked, ChatProfile(reasoning_replay=replay))
    assert b'"messages":[{"role":"user","content":"hi"},{"role":"user","content":"go on"}]' in body
    assert asked.losses == losses


TEXT: Fields = {"field": "reasoning_content", "text": "why"}
CALL = '"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]'


@pytest.mark.parametrize(
    ("parts", "written"),
    [
        ([TEXT], f'"content":"x","reasoning_content":"why",{CALL}'),
        (
            [{"field": "reasoning", "text": "a"}, {"field": "reasoning", "text": "b"}],
            f'"content":"x","reasoning":"ab",{CALL}',
        ),
        ([{"details": [{"b": 1}, {"a": 2}]}], f'"content":"x","reasoning_details":[{{"b": 1}},{{"a": 2}}],{CALL}'),
        (
            [{"field": "reasoning", "text": ""}, {"details": [1]}],
            f'"content":"x","reasoning":"","reasoning_details":[1],{CALL}',
        ),
        (
            [{"content": [{"type": "thinking"}]}],
            f'"content":[{{"type": "thinking"}},{{"type":"text","text":"x"}}],{CALL}',
        ),
        ([{"extra_content": {"s": 1}}], f'"content":"x","extra_content":{{"s": 1}},{CALL}'),
        ([{"field": "think", "text": "why"}], f'"content":"x",{CALL}'),
        ([], f'"content":"x",{CALL}'),
    ],
)
def test_reasoning_goes_back_where_the_server_gave_it(parts: list[Fields], written: str) -> None:
    assert recalled(ChatProfile(), *parts) == f'{{"role":"assistant",{written}}}'


def test_a_signature_goes_back_with_its_call() -> None:
    signed = CALL.replace("}}]", '},"extra_content":{"s": 1}}]')
    assert recalled(ChatProfile(), calls={"a": {"s": 1}}) == f'{{"role":"assistant","content":"x",{signed}}}'
    assert recalled(ChatProfile(), calls={"b": {"s": 1}}) == f'{{"role":"assistant","content":"x",{CALL}}}'


def test_a_list_goes_back_without_a_text_that_was_not_there() -> None:
    opened = {"ours": Envelope(ISSUER, [Raw(b'{"content":[{"type":"thinking"}]}')])}
    said = [user("hi"), thought("", "ours"), call("a"), output("a")]
    assert '"content":[{"type":"thinking"}],"tool_calls"' in messages(*said, opened=opened)


@pytest.mark.parametrize(
    ("replay", "calling", "written"),
    [
        ("always", False, '"content":"x","reasoning_content":"why"'),
        ("tools", False, '"content":"x"'),
        ("tools", True, f'"content":"x","reasoning_content":"why",{CALL}'),
        ("never", True, f'"content":"x",{CALL}'),
    ],
)
def test_reasoning_goes_back_when_the_server_wants_it(replay: str, calling: bool, written: str) -> None:
    profile = msgspec.convert({"reasoning_replay": replay}, ChatProfile)
    assert recalled(profile, TEXT, calling=calling) == f'{{"role":"assistant",{written}}}'


def test_a_server_that_insists_on_reasoning_gets_it_even_empty() -> None:
    written = f'{{"role":"assistant","content":"x","reasoning_content":"",{CALL}}}'
    assert recalled(DEEPSEEK_PROFILE) == written
    assert recalled(DEEPSEEK_PROFILE, {"field": "think", "text": "why"}) == written


# Any conversation at all

NAMES = ["f", "free", "files__read", "shell"]
TOOLS: list[Fields] = [
    function("f", parameters={"type": "object", "properties": {}}),
    {"type": "custom", "name": "free"},
    {"type": "namespace", "name": "files", "tools": [function("read")]},
    {"type": "shell"},
    {"type": "local_shell"},
    {"type": "apply_patch"},
]
SPEAKERS: list[tuple[ChatProfile, Strictness, bytes]] = [
    (ChatProfile(), COMPATIBLE, b'{"field":"reasoning","text":"why"}'),
    (OPENAI_PROFILE, OPENAI, b'{"field":"reasoning","text":"why"}'),
    (MISTRAL_PROFILE, MISTRAL, b'{"content":[{"type":"thinking","thinking":[{"type":"text","text":"why"}]}]}'),
    (msgspec.structs.replace(DEEPSEEK_PROFILE, images=True), DEEPSEEK, b'{"field":"reasoning_content","text":"why"}'),
]
"""Servers: how they are spoken to, what they refuse, and the form in which they give their reasoning."""
WORDS = st.sampled_from(["hi", "é\n😀", '{"a":"\\"}', "a" * 70])


class Story:
    """A conversation as it grows: the items clients send, the items a server answers with, in turns."""

    def __init__(self, draw: st.DrawFn, reasoning: bytes) -> None:
        self._draw = draw
        self._reasoning = Raw(reasoning)
        self._numbers = 0
        self.opened: dict[str, Envelope] = {}
        self.turns: list[list[Fields]] = []
        said: list[Fields] = []
        for _ in range(draw(st.integers(1, 4))):
            answers = [self._output(asked) for asked in said if "call" in str(asked["type"])]
            said = [*draw(st.permutations(answers)), *self._asked(bool(answers))]
            self.turns.append(said)
            said = self._answer()
            self.turns.append(said)

    def _id(self) -> str:
        self._numbers += 1
        return f"call_{self._numbers}"

    def _content(self) -> object:
        parts: list[Fields] = [{"type": "input_text", "text": self._draw(WORDS)}]
        if self._draw(st.booleans()):
            parts.append({"type": "input_image", "image_url": PNG})
        return self._draw(st.sampled_from([parts, parts[0]["text"]]))

    def _asked(self, answered: bool) -> list[Fields]:
        said: list[Fields] = []
        if not answered and self._draw(st.booleans()):
            said += self._history()
        for _ in range(self._draw(st.integers(0 if answered else 1, 2))):
            role = self._draw(st.sampled_from(["user", "user", "developer"])) if said or self.turns else "user"
            content = self._content() if role == "user" else self._draw(WORDS)
            said.append({"role": role, "content": content})
        return said

    def _history(self) -> list[Fields]:
        """What a stateless client sends of an earlier conversation, its outputs in any order."""
        answer = self._answer()
        answers = [self._output(asked) for asked in answer if "call" in str(asked["type"])]
        interrupted = self._draw(st.booleans())
        between = [user("meanwhile")] if answers and interrupted else []
        return [user("earlier"), *answer, *between, *self._draw(st.permutations(answers))]

    def _answer(self) -> list[Fields]:
        said: list[Fields] = []
        for _ in range(self._draw(st.integers(1, 4))):
            what = self._draw(st.sampled_from(["thought", "text", "call", "call"]))
            if what == "thought":
                said.append(self._thought())
            elif what == "text":
                said.append(assistant([{"type": "output_text", "text": self._draw(WORDS), "annotations": []}]))
            else:
                said.append(self._call())
        return [*said, assistant("so")] if all(one["type"] == "reasoning" for one in said) else said

    def _thought(self) -> Fields:
        if self._draw(st.booleans()):
            return thought("shown")
        sealed = f"sealed_{len(self.opened)}"
        self.opened[sealed] = Envelope(ISSUER, [self._reasoning])
        return thought("shown", sealed)

    def _call(self) -> Fields:
        call_id = self._id()
        return self._draw(
            st.sampled_from(
                [
                    call(call_id, "f", '{"x": 1}'),
                    call(call_id, "f", "broken"),
                    {**call(call_id, "read"), "namespace": "files"},
                    call(call_id, "undeclared"),
                    {"type": "custom_tool_call", "call_id": call_id, "name": "free", "input": 'a "b"'},
                    {"type": "shell_call", "call_id": call_id, "action": {"commands": ["ls"]}},
                    {
                        "type": "local_shell_call",
                        "call_id": call_id,
                        "action": {"type": "exec", "command": [], "env": {}},
                    },
                    {"type": "apply_patch_call", "call_id": call_id, "operation": {"type": "delete_file", "path": "a"}},
                ]
            )
        )

    def _output(self, asked: Fields) -> Fields:
        call_id = asked["call_id"]
        match asked["type"]:
            case "function_call" | "custom_tool_call" as kind:
                return {"type": f"{kind}_output", "call_id": call_id, "output": self._content()}
            case "shell_call":
                outcome = {"type": "exit", "exit_code": 0}
                done = {"stdout": "a", "stderr": "", "outcome": outcome}
                return {"type": "shell_call_output", "call_id": call_id, "output": [done]}
            case "local_shell_call":
                return {"type": "local_shell_call_output", "id": call_id, "output": "{}"}
            case _:
                return {"type": "apply_patch_call_output", "call_id": call_id, "status": "completed"}


@given(st.data())
@settings(max_examples=60)
def test_any_conversation_only_grows_and_every_server_takes_it(data: st.DataObject) -> None:
    profile, strictness, reasoning = data.draw(st.sampled_from(SPEAKERS))
    story = data.draw(st.composite(Story)(reasoning))
    fields: dict[str, object] = {"tools": TOOLS, "stream": data.draw(st.booleans())}
    if data.draw(st.booleans()):
        fields["instructions"] = "Be brief."
    before = b""
    stored: list[Item] = []
    for number in range(0, len(story.turns), 2):
        said = [one for turn in story.turns[: number + 1] for one in turn]
        body = sent(prompt(said, story.opened, **fields), profile)
        check(body, strictness)
        # What is sent grows at its end only (mapping.md §0.2).
        assert body.startswith(before.removesuffix(b"]}"))
        before = body
        # A client that sends everything and one that chains on what is stored ask for the same.
        stored += [
            Item.parse(kept(item(**one), f"in_{number}_{place}").raw) for place, one in enumerate(story.turns[number])
        ]
        assert sent(prompt(stored, story.opened, **fields), profile) == body
        stored += [
            Item.parse(kept(item(**one), f"out_{number}_{place}").raw)
            for place, one in enumerate(story.turns[number + 1])
        ]


def test_the_stories_reach_what_they_are_meant_to_reach() -> None:
    kinds: set[str] = set()
    sealed = 0

    @given(st.composite(Story)(b"{}"))
    @settings(max_examples=60, derandomize=True)
    def gather(story: Story) -> None:
        nonlocal sealed
        said: Sequence[Fields] = [one for turn in story.turns for one in turn]
        kinds.update(str(one.get("type")) for one in said)
        items = [item(**one) for one in said]
        sealed += sum(isinstance(one.view, Reasoning) and one.view.encrypted_content is not None for one in items)

    gather()
    assert len(kinds) == 13
    assert sealed


def marked(kind: str, **fields: object) -> Fields:
    return {"type": kind, **fields, "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}


def test_what_is_worth_caching_is_marked_where_the_server_reads_such_marks() -> None:
    mark = '"prompt_cache_breakpoint":{"mode":"explicit","ttl":"12h"}'
    image = f'{{"type":"image_url","image_url":{{"url":"{PNG}"}},{mark}}}'
    content = [
        marked("input_text", text="a"),
        marked("input_image", image_url=PNG),
        {"type": "input_text", "text": "b"},
    ]
    assert messages(user(content), profile=OPENAI_PROFILE) == (
        f'{{"role":"user","content":[{{"type":"text","text":"a",{mark}}},{image},{{"type":"text","text":"b"}}]}}'
    )
    assert messages(user([marked("input_text", text="a")]), profile=OPENAI_PROFILE) == (
        f'{{"role":"user","content":[{{"type":"text","text":"a",{mark}}}]}}'
    )


def test_elsewhere_a_mark_is_noted_and_changes_nothing() -> None:
    asked = prompt([user([marked("input_text", text="a")])])
    assert sent(asked) == sent(prompt([user([{"type": "input_text", "text": "a"}])]))
    assert asked.notes == ["input: prompt_cache_breakpoint is not understood by this upstream"]


def test_a_mark_outside_of_user_messages_is_noted() -> None:
    marks = [marked("input_text", text="a")]
    for said in (
        {"type": "message", "role": "developer", "content": marks},
        output("call_1", marks),
    ):
        asked = prompt([call("call_1"), said] if said["type"] == "function_call_output" else [said, user("b")])
        sent(asked, OPENAI_PROFILE)
        assert asked.notes == ["input: prompt_cache_breakpoint has an effect in user messages alone"]


def test_a_server_that_speaks_chat_lists_its_models_and_counts_no_tokens() -> None:
    dialect = ChatDialect(ChatProfile())
    assert (dialect.models().method, dialect.models().path) == ("GET", "/models")
    assert dialect.offered(b'{"object":"list","data":[{"id":"a"},{"id":"b"}]}') == ["a", "b"]
    assert dialect.count(prompt("hi")) is None
    assert (dialect.native, dialect.compacts, dialect.hosted) == (False, False, frozenset())


def test_what_a_server_that_speaks_chat_refuses_is_not_asked_with_less() -> None:
    dialect = ChatDialect(ChatProfile())
    assert dialect.relent(prompt("hi"), dialect.rejection(400, {}, b"")) is None
