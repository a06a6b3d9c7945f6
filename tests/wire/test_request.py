import json
from collections.abc import Mapping

import pytest
from msgspec import Raw

from rejoinder.wire import request
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import ItemReference, Message, Part
from rejoinder.wire.request import MAX_ITEMS, CreateRequest, given
from rejoinder.wire.tools import AllowedTools, FunctionTool, NamedTool


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def refused(data: bytes) -> tuple[str, str | None, str | None]:
    with pytest.raises(BadRequest) as caught:
        CreateRequest.parse(data)
    return str(caught.value), caught.value.param, caught.value.code


FULL: Mapping[str, object] = {
    "model": "m",
    "input": [{"role": "user", "content": "hi"}, {"id": "msg_1"}],
    "instructions": "be brief",
    "previous_response_id": "resp_1",
    "store": False,
    "background": False,
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
    "max_output_tokens": 16,
    "max_tool_calls": 1,
    "temperature": 2,
    "top_p": 0.5,
    "top_logprobs": 20,
    "presence_penalty": -2,
    "frequency_penalty": 2,
    "parallel_tool_calls": False,
    "tools": [{"type": "function", "name": "f"}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "ultra", "summary": "auto", "generate_summary": "concise", "context": "x", "mode": "pro"},
    "truncation": "auto",
    "context_management": [{"type": "compaction", "compact_threshold": 1000}, {"type": "compaction"}],
    "metadata": {"k" * 64: "v" * 512},
    "prompt_cache_key": "key",
    "prompt_cache_options": {"mode": "explicit", "ttl": "12h", "prewarm": False, "comparison_response_id": None},
    "prompt_cache_retention": "24h",
    "safety_identifier": "s" * 128,
    "user": "u",
    "service_tier": "flex",
    "multi_agent": {"enabled": False, "max_concurrent_subagents": 6},
    "generate": True,
    "client_metadata": {"session_id": "x", "deep": {"a": [1]}},
}


def test_every_field_is_read() -> None:
    read = CreateRequest.parse(json.dumps(FULL).encode())
    fields = read.fields
    assert (read.model, read.stream, read.store) == ("m", True, False)
    assert [item.view for item in read.input] == [Message("user", "hi"), ItemReference("msg_1")]
    assert {name: json.loads(bytes(value)) for name, value in read.raw.items()} == FULL
    assert read.include == {"reasoning.encrypted_content", "message.output_text.logprobs"}
    assert [tool.view for tool in read.tools] == [FunctionTool("f")]
    assert read.tool_choice == NamedTool("function", "f")
    assert read.ignored() == []
    assert fields.text == request.TextSettings(fields.text.format if fields.text else None, "low")
    assert fields.text is not None
    assert fields.text.format is not None
    assert (fields.text.format.type, fields.text.format.name) == ("json_schema", "n")
    assert bytes(fields.text.format.schema) == b'{"type": "object"}'
    assert fields.reasoning == request.ReasoningSettings("ultra", "auto", "concise", "x", "pro")
    assert fields.stream_options == request.StreamOptions(False)
    assert fields.prompt_cache_options == request.CacheOptions("explicit", "12h", False)
    assert fields.multi_agent == request.MultiAgent(False)
    assert fields.context_management == [
        request.ContextManagement("compaction", 1000),
        request.ContextManagement("compaction"),
    ]
    assert set(fields.client_metadata or ()) == {"session_id", "deep"}
    plain = {name: value for name, value in FULL.items() if not isinstance(value, dict | list)}
    assert {name: getattr(fields, name) for name in plain} == plain
    assert fields.metadata == FULL["metadata"]


def test_what_is_left_out_has_the_defaults_of_the_contract() -> None:
    read = CreateRequest.parse(body())
    assert (read.stream, read.store, read.include, read.tools) == (False, True, frozenset(), [])
    assert (read.tool_choice, read.ignored()) == ("auto", [])
    assert {name for name in read.fields.__struct_fields__ if given(getattr(read.fields, name))} == {"model", "input"}


def test_null_means_left_out() -> None:
    nulls = {
        name: None
        for name in [*FULL, *REFUSED, "image", "access_programs", "moderation"]
        if name not in ("model", "input")
    }
    fields = CreateRequest.parse(body(**nulls)).fields
    assert {name for name in fields.__struct_fields__ if given(getattr(fields, name))} == {"model", "input"}
    nested = body(text={"format": None, "verbosity": None}, reasoning={"effort": None, "summary": None})
    assert CreateRequest.parse(nested).fields.reasoning == request.ReasoningSettings()


def test_a_string_is_one_message_of_the_user() -> None:
    [item] = CreateRequest.parse(body(input='say "é\n"')).input
    assert item.raw == '{"type":"message","role":"user","content":"say \\"é\\n\\""}'.encode()
    [empty] = CreateRequest.parse(body(input="")).input
    assert empty.view == Message("user", "")


@pytest.mark.parametrize("kind", ["text", "json_object"])
def test_a_format_without_a_schema_needs_no_name(kind: str) -> None:
    fields = CreateRequest.parse(body(text={"format": {"type": kind}})).fields
    assert fields.text is not None
    assert fields.text.format is not None
    assert (fields.text.format.type, fields.text.format.name, given(fields.text.format.schema)) == (kind, None, False)


def test_items_keep_their_order_and_their_bytes() -> None:
    data = b'{"model":"m","input":[ {"role":"user" , "content":[{"type":"input_text","text":"a"}]}, {"id":"x"}]}'
    first, second = CreateRequest.parse(data).input
    assert first.raw == b'{"role":"user" , "content":[{"type":"input_text","text":"a"}]}'
    assert first.view == Message("user", (Part("input_text", text="a"),))
    assert second.raw == b'{"id":"x"}'


@pytest.mark.parametrize("nothing", [b"", b',"input":null', b',"input":[]'])
def test_input_may_be_left_out_where_there_is_a_previous_response(nothing: bytes) -> None:
    assert CreateRequest.parse(b'{"model":"m","previous_response_id":"resp_1"%b}' % nothing).input == []


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b"{}", "model"),
        (b'{"model":null,"input":"x"}', "model"),
        (b'{"model":"m"}', "input"),
        (b'{"model":"m","input":null}', "input"),
        (body(text={"format": {"type": "json_schema", "schema": {}}}), "text.format.name"),
        (body(text={"format": {"type": "json_schema", "name": "n"}}), "text.format.schema"),
        (body(text={"format": {"type": "json_schema", "name": "n", "schema": None}}), "text.format.schema"),
        (body(text={"format": {}}), "text.format.type"),
        (body(multi_agent={}), "multi_agent.enabled"),
        (body(context_management=[{"compact_threshold": 9000}]), "context_management[0].type"),
        (body(input=[{"role": "user", "content": "x"}, {}]), "input[1].type"),
        (body(input=[{"role": "user", "content": [{"type": "input_text"}]}]), "input[0].content[0].text"),
        (body(tools=[{"type": "shell"}, {"type": "function"}]), "tools[1].name"),
        (body(tool_choice={"type": "allowed_tools", "mode": "auto"}), "tool_choice.tools"),
    ],
)
def test_what_is_missing_is_named(data: bytes, param: str) -> None:
    assert refused(data) == (f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"null", "Invalid value: Expected `object`, got `null`."),
        (b"[]", "Invalid value: Expected `object`, got `array`."),
        (b'"x"', "Invalid value: Expected `object`, got `str`."),
        (b"0.5", "Invalid value: Expected `object`, got `float`."),
    ],
)
def test_a_body_that_is_no_object_is_refused(data: bytes, message: str) -> None:
    assert refused(data) == (message, None, "invalid_type")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Input data was truncated"),
        (b'{"model":', "Input data was truncated"),
        (b'{"model":"m","temperature":NaN}', "JSON is malformed: invalid character (byte 27)"),
        (b"model=m", "JSON is malformed: invalid character (byte 0)"),
    ],
)
def test_a_body_that_is_no_json_is_refused(data: bytes, message: str) -> None:
    assert refused(data) == (f"The request is not valid JSON: {message}.", None, None)


@pytest.mark.parametrize(
    ("fields", "param", "what"),
    [
        ({"model": 5}, "model", "Expected `str | null`, got `int`"),
        ({"input": 5}, "input", "Expected `str | array`, got `int`"),
        ({"input": {"role": "user"}}, "input", "Expected `str | array`, got `object`"),
        ({"input": ["x"]}, "input[0]", "Expected `object`, got `str`"),
        ({"instructions": ["x"]}, "instructions", "Expected `str | null`, got `array`"),
        ({"store": 1}, "store", "Expected `bool | null`, got `int`"),
        ({"stream": "true"}, "stream", "Expected `bool | null`, got `str`"),
        ({"max_output_tokens": 0.5}, "max_output_tokens", "Expected `int | null`, got `float`"),
        ({"max_output_tokens": "9"}, "max_output_tokens", "Expected `int | null`, got `str`"),
        ({"max_tool_calls": True}, "max_tool_calls", "Expected `int | null`, got `bool`"),
        ({"temperature": "hot"}, "temperature", "Expected `float | null`, got `str`"),
        ({"top_logprobs": 1.5}, "top_logprobs", "Expected `int | null`, got `float`"),
        ({"include": "x"}, "include", "Expected `array | null`, got `str`"),
        ({"tools": {}}, "tools", "Expected `array | null`, got `object`"),
        ({"tools": [None]}, "tools[0]", "Expected `object`, got `null`"),
        ({"tool_choice": 5}, "tool_choice", "Expected `object`, got `int`"),
        ({"text": {"format": "json"}}, "text.format", "Expected `object | null`, got `str`"),
        ({"reasoning": "low"}, "reasoning", "Expected `object | null`, got `str`"),
        ({"metadata": {"a": 1}}, "metadata[...]", "Expected `str`, got `int`"),
        ({"client_metadata": []}, "client_metadata", "Expected `object | null`, got `array`"),
        ({"context_management": {}}, "context_management", "Expected `array | null`, got `object`"),
        ({"stream_options": []}, "stream_options", "Expected `object | null`, got `array`"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(fields: dict[str, object], param: str, what: str) -> None:
    assert refused(body(**fields)) == (f"Invalid value for '{param}': {what}.", param, "invalid_type")


@pytest.mark.parametrize(
    ("fields", "param", "what"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens", "Expected `int` >= 1"),
        ({"max_tool_calls": 0}, "max_tool_calls", "Expected `int` >= 1"),
        ({"temperature": -0.1}, "temperature", "Expected `float` >= 0.0"),
        ({"temperature": 2.1}, "temperature", "Expected `float` <= 2.0"),
        ({"top_p": 1.1}, "top_p", "Expected `float` <= 1.0"),
        ({"top_logprobs": 21}, "top_logprobs", "Expected `int` <= 20"),
        ({"presence_penalty": -3}, "presence_penalty", "Expected `float` >= -2.0"),
        ({"frequency_penalty": 3}, "frequency_penalty", "Expected `float` <= 2.0"),
        ({"include": ["everything"]}, "include[0]", "Invalid enum value 'everything'"),
        ({"truncation": "always"}, "truncation", "Invalid enum value 'always'"),
        ({"service_tier": "gold"}, "service_tier", "Invalid enum value 'gold'"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort", "Invalid enum value 'extreme'"),
        ({"reasoning": {"summary": "long"}}, "reasoning.summary", "Invalid enum value 'long'"),
        ({"text": {"verbosity": "max"}}, "text.verbosity", "Invalid enum value 'max'"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "Invalid enum value 'xml'"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}},
            "text.format.name",
            "Expected `str` matching regex '^[A-Za-z0-9_-]{1,64}$'",
        ),
        ({"prompt_cache_options": {"ttl": "1h"}}, "prompt_cache_options.ttl", "Invalid enum value '1h'"),
        ({"prompt_cache_retention": "1h"}, "prompt_cache_retention", "Invalid enum value '1h'"),
        ({"metadata": dict.fromkeys("abcdefghijklmnopq", "x")}, "metadata", "Expected `object` of length <= 16"),
        ({"tool_choice": "any"}, "tool_choice", "Invalid enum value 'any'"),
        ({"context_management": []}, "context_management", "Expected `array` of length >= 1"),
        ({"context_management": [{"type": "summary"}]}, "context_management[0].type", "Invalid enum value 'summary'"),
        (
            {"context_management": [{"type": "compaction", "compact_threshold": 999}]},
            "context_management[0].compact_threshold",
            "Expected `int` >= 1000",
        ),
    ],
)
def test_a_value_out_of_its_range_is_named(fields: dict[str, object], param: str, what: str) -> None:
    assert refused(body(**fields)) == (f"Invalid value for '{param}': {what}.", param, "invalid_value")


@pytest.mark.parametrize(
    ("fields", "param", "limit"),
    [
        ({"prompt_cache_key": "x" * 1025}, "prompt_cache_key", 1024),
        ({"safety_identifier": "x" * 129}, "safety_identifier", 128),
        ({"metadata": {"a": "x" * 513}}, "metadata[...]", 512),
    ],
)
def test_a_text_over_its_limit_is_named(fields: dict[str, object], param: str, limit: int) -> None:
    message = f"Invalid value for '{param}': Expected `str` of length <= {limit}."
    assert refused(body(**fields)) == (message, param, "string_above_max_length")


def test_a_metadata_key_over_its_limit_is_refused() -> None:
    message, param, code = refused(body(metadata={"k" * 65: "x"}))
    assert message == "Invalid value for 'metadata': Expected `str` of length <= 64."
    assert (param, code) == ("metadata", "string_above_max_length")


REFUSED: Mapping[str, tuple[object, str]] = {
    "prompt": ({"id": "pmpt_1"}, "prompt templates live at OpenAI and are not served here"),
    "multi_agent": ({"enabled": True}, "multi-agent runs are not served here"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_meaning_and_is_not_served_is_refused_by_name(name: str) -> None:
    value, why = REFUSED[name]
    assert refused(body(**{name: value})) == (f"Unsupported parameter: '{name}': {why}.", name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "generates"),
    [
        ({}, True),
        ({"generate": None}, True),
        ({"generate": True, "prompt_cache_options": {"prewarm": False}}, True),
        ({"generate": False}, False),
        ({"prompt_cache_options": {"prewarm": True}}, False),
        ({"generate": True, "prompt_cache_options": {"prewarm": True}}, False),
    ],
)
def test_a_request_may_only_say_something_and_want_no_answer(fields: Mapping[str, object], generates: bool) -> None:
    assert CreateRequest.parse(body(**fields)).generates is generates


def test_what_makes_it_a_message_is_no_parameter_and_its_answer_is_a_stream() -> None:
    sent = body(stream=False, type="response.create", stream_id="a", stream_options={"include_obfuscation": True})
    read = CreateRequest.parse(sent, message=True)
    assert {*read.raw} == {"model", "input"}
    assert (read.ignored(), read.stream) == ([], True)
    assert (CreateRequest.parse(sent).ignored(), CreateRequest.parse(sent).stream) == (["type", "stream_id"], False)


def test_what_only_this_api_itself_has_is_refused_by_whoever_asks_another() -> None:
    read = CreateRequest.parse(body(moderation={"model": "x"}))
    with pytest.raises(BadRequest) as caught:
        read.ignored()
    assert str(caught.value) == "Unsupported parameter: 'moderation': moderation is not served by this upstream."
    assert (caught.value.param, caught.value.code) == ("moderation", "unsupported_parameter")
    assert CreateRequest.parse(body(moderation=None)).ignored() == []


def test_what_is_not_served_is_said_before_what_is_missing() -> None:
    assert refused(b'{"prompt":{"id":"pmpt_1"}}')[1] == "prompt"


@pytest.mark.parametrize("value", [1, "x", True, None, 0.5, [], {}])
def test_an_unknown_scalar_is_a_knob_we_lack_and_is_noted(value: object) -> None:
    read = CreateRequest.parse(body(seed=value, zeal=1, image={"context_compression": "auto"}, access_programs={}))
    assert read.ignored() == ["seed", "zeal", "access_programs", "image"]


@pytest.mark.parametrize("value", [[1], {"a": 1}, [[]]])
def test_an_unknown_structure_may_mean_anything_and_is_refused(value: object) -> None:
    read = CreateRequest.parse(body(functions=value))
    with pytest.raises(BadRequest) as caught:
        read.ignored()
    assert str(caught.value) == "Unknown parameter: 'functions'."
    assert (caught.value.param, caught.value.code) == ("functions", "unknown_parameter")


def test_every_parameter_is_there_as_it_came() -> None:
    read = CreateRequest.parse(b'{"model":"m","input":"hi","new":{"b": 1.50, "a": []},"temperature": 1e0}')
    assert list(read.raw) == ["model", "input", "new", "temperature"]
    assert (bytes(read.raw["new"]), bytes(read.raw["temperature"])) == (b'{"b": 1.50, "a": []}', b"1e0")


def test_an_order_to_compact_comes_last() -> None:
    trigger, message = {"type": "compaction_trigger"}, {"role": "user", "content": "hi"}
    assert [item.type for item in CreateRequest.parse(body(input=[message, trigger])).input][-1] == "compaction_trigger"
    for index, items in enumerate([[trigger, message], [message, trigger, trigger]]):
        assert refused(body(input=items)) == (
            "Invalid 'input': a 'compaction_trigger' must be the last item.", f"input[{index}]", None
        )  # fmt: skip


def test_more_items_than_the_limit_are_refused() -> None:
    at_limit = body(input=[{"id": "x"}] * MAX_ITEMS)
    assert len(CreateRequest.parse(at_limit).input) == MAX_ITEMS
    message = "Invalid 'input': array too long. Expected at most 10000 items, but got 10001 instead."
    assert refused(body(input=[{"id": "x"}] * (MAX_ITEMS + 1))) == (message, "input", "array_above_max_length")


def test_allowed_tools_are_read() -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    assert CreateRequest.parse(body(tool_choice=choice)).tool_choice == AllowedTools(
        "auto", (NamedTool("function", "f"),)
    )


@pytest.mark.parametrize(
    ("value", "is_given"), [(None, False), (Raw(), False), (Raw(b"null"), False), (Raw(b"0"), True), (False, True)]
)
def test_a_value_is_given_unless_it_is_left_out_or_null(value: object, is_given: bool) -> None:
    assert given(value) is is_given


@pytest.mark.parametrize("named", [b'"conv_1"', b'{"id":"conv_1"}', b'{"id":"conv_1","object":"conversation"}'])
def test_a_conversation_is_named_by_its_id_or_by_an_object_with_it(named: bytes) -> None:
    read = CreateRequest.parse(b'{"model":"m","input":"hi","conversation":%b}' % named)
    assert read.conversation == "conv_1"
    assert bytes(read.raw["conversation"]) == named


@pytest.mark.parametrize("nothing", [b"", b',"conversation":null', b',"conversation":null,"previous_response_id":"r"'])
def test_a_conversation_that_is_left_out_is_none(nothing: bytes) -> None:
    assert CreateRequest.parse(b'{"model":"m","input":"hi"%b}' % nothing).conversation is None


@pytest.mark.parametrize("nothing", [b"", b',"input":null', b',"input":[]'])
def test_input_may_be_left_out_where_there_is_a_conversation(nothing: bytes) -> None:
    assert CreateRequest.parse(b'{"model":"m","conversation":"conv_1"%b}' % nothing).input == []


@pytest.mark.parametrize(
    ("named", "param", "code", "message"),
    [
        (7, "conversation", "invalid_type", "Invalid value for 'conversation': Expected `str | object`, got `int`."),
        ({}, "conversation.id", "missing_required_parameter", "Missing required parameter: 'conversation.id'."),
        (
            *({"id": 7}, "conversation.id", "invalid_type"),
            "Invalid value for 'conversation.id': Expected `str`, got `int`.",
        ),
        (
            *({"id": None}, "conversation.id", "invalid_type"),
            "Invalid value for 'conversation.id': Expected `str`, got `null`.",
        ),
    ],
)
def test_a_conversation_that_cannot_be_one_is_refused_by_name(
    named: object, param: str, code: str, message: str
) -> None:
    assert refused(body(conversation=named)) == (message, param, code)


@pytest.mark.parametrize("named", ["conv_1", {"id": "conv_1"}])
def test_a_conversation_and_a_previous_response_exclude_each_other(named: object) -> None:
    """http.md §6.2: the code is the one suggested there."""
    assert refused(body(conversation=named, previous_response_id="resp_1")) == (
        "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Send one of them.",
        "previous_response_id",
        "mutually_exclusive_parameters",
    )
    assert CreateRequest.parse(body(conversation=named, previous_response_id=None)).conversation == "conv_1"


@pytest.mark.parametrize(("value", "is_so"), [(True, True), (False, False), (None, False)])
def test_a_response_is_made_in_the_background_where_that_is_asked_for(value: bool | None, is_so: bool) -> None:
    assert CreateRequest.parse(body(background=value)).background is is_so
    assert CreateRequest.parse(body()).background is False
