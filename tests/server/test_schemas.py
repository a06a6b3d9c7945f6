import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_type_hints

import jsonschema_rs
import msgspec
import pytest
from msgspec import Meta, Raw, Struct

from rejoinder.bridge.echo import echo
from rejoinder.server import schemas
from rejoinder.server.schemas import Schemas
from rejoinder.wire import events, items, tools
from rejoinder.wire.errors import BadRequest
from rejoinder.wire.items import Item
from rejoinder.wire.request import CreateFields, CreateRequest
from rejoinder.wire.responses import OutputMessage, OutputText, Response

Json = Any  # JSON as the standard library reads it: a schema is looked at from every side

WRITTEN = Schemas()
CREATE = WRITTEN.decoded(CreateFields)
RESPONSE = WRITTEN.encoded(Response)


def validator(reference: Json) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**reference, "components": {"schemas": WRITTEN.named}})


def properties(name: str) -> Json:
    schema: Json = WRITTEN.named[name]
    return schema["properties"]


def metas(annotation: object) -> Iterator[Meta]:
    """The limits of a field's own type: what stands in its items or keys is another's."""
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        if part is not type(None) and get_args(annotation)[-1] is type(None):
            yield from metas(part)


# What is derived


def test_every_field_of_a_create_call_is_described_under_its_name() -> None:
    assert list(properties(CreateFields.__name__.lstrip("_"))) == list(CreateFields.__struct_fields__)


LIMITS = {"ge": ("minimum",), "le": ("maximum",), "min_length": ("minLength", "minItems", "minProperties"),
          "max_length": ("maxLength", "maxItems", "maxProperties"), "pattern": ("pattern",)}  # fmt: skip


def test_the_limits_of_a_field_are_those_of_its_annotation() -> None:
    described = properties(CreateFields.__name__.lstrip("_"))
    limited = set()
    for name, annotation in get_type_hints(CreateFields, include_extras=True).items():
        for meta in metas(annotation):
            for limit, keywords in LIMITS.items():
                if (value := getattr(meta, limit)) is not None:
                    assert value in [described[name].get(keyword) for keyword in keywords], name
                    limited.add(name)
    assert limited >= {"model", "temperature", "max_output_tokens", "context_management", "metadata"}


def test_keys_and_values_of_metadata_are_bounded_too() -> None:
    described = properties(CreateFields.__name__.lstrip("_"))["metadata"]
    assert described == {
        "type": ["object", "null"],
        "additionalProperties": {"type": "string", "maxLength": 512},
        "propertyNames": {"maxLength": 64},
        "maxProperties": 16,
    }


def test_every_item_and_tool_that_is_read_is_described_by_the_struct_that_reads_it() -> None:
    views: Json
    for views in (items.VIEWS, tools.VIEWS):
        for kind, decoder in views.items():
            described = properties(decoder.type.__name__)
            assert kind in described["type"]["enum"]
            assert set(decoder.type.__struct_fields__) <= set(described)


def test_every_event_of_a_stream_is_described() -> None:
    schema: Json = WRITTEN.named["StreamEvent"]
    told = {properties(each["$ref"].rpartition("/")[2])["type"]["const"] for each in schema["anyOf"]}
    kinds = {kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)}
    over_http = {kind for kind in kinds - {events.Event} if not issubclass(kind, events.Steering)}
    assert told == {kind.__struct_config__.tag for kind in over_http} - {""}


# What is described is what is accepted

ONE = {"model": "m", "input": "hi"}
MESSAGE = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "name": "f"}


def said(item: Json) -> Json:
    return {"model": "m", "input": [item]}


ACCEPTED: list[Json] = [
    ONE,
    {"model": "m", "previous_response_id": "resp_1"},
    {"model": "m", "input": None, "previous_response_id": "resp_1"},
    {"model": "m", "conversation": "conv_1"},
    {"model": "m", "conversation": {"id": "conv_1"}},
    {**ONE, "conversation": None, "previous_response_id": None},
    {"model": "m", "input": []},
    {**ONE, "temperature": 0},
    {**ONE, "temperature": 2.0, "top_p": 1, "top_logprobs": 20, "presence_penalty": -2, "frequency_penalty": 2},
    {**ONE, "max_output_tokens": 1, "max_tool_calls": 2**53},
    {**ONE, "metadata": {"k" * 64: "v" * 512}},
    {**ONE, "metadata": {str(number): "" for number in range(16)}},
    {**ONE, "stream": True, "stream_options": {"include_obfuscation": False}, "background": True, "store": False},
    {**ONE, "include": ["reasoning.encrypted_content"]},
    {**ONE, "reasoning": {"effort": "ultra", "summary": "none"}, "truncation": "auto", "service_tier": "flex"},
    {**ONE, "text": {"format": {"type": "json_schema", "name": "a-b", "schema": {}}, "verbosity": "low"}},
    {**ONE, "text": {"format": {"type": "text"}}},
    {**ONE, "context_management": [{"type": "compaction", "compact_threshold": 1000}]},
    {**ONE, "prompt_cache_options": {"mode": "explicit", "ttl": "30m", "prewarm": True}},
    {**ONE, "multi_agent": {"enabled": False}, "generate": True, "client_metadata": {"a": [1]}, "prompt": None},
    {**ONE, "moderation": {"model": "x"}, "image": [], "access_programs": 1, "nobody_knows": {"this": True}},
    {**ONE, "tools": [FUNCTION, {**FUNCTION, "parameters": None, "strict": None}, {"type": "local_shell"}]},
    {**ONE, "tools": [{"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark"}}]},
    {**ONE, "tools": [{"type": "namespace", "name": "n", "tools": [FUNCTION]}, {"type": "hologram", "depth": 3}]},
    {**ONE, "tool_choice": "required"},
    {**ONE, "tool_choice": {"type": "function", "name": "f"}},
    {**ONE, "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}},
    said(MESSAGE),
    said({**MESSAGE, "type": "message", "id": None, "phase": "final_answer", "new": 1}),
    said({"role": "user", "content": [{"type": "input_text", "text": ""}, {"type": "hologram", "text": None}]}),
    said({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}}]}),
    said({"id": "msg_1"}),
    said({"id": "msg_1", "type": "item_reference", "role": "user"}),
    said({"type": "hologram", "anything": [1, {"goes": None}]}),
    said({"type": "web_search_call"}),
    said({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}),
    said({"type": "function_call_output", "output": [{"type": "input_text", "text": "x"}], "name": "f"}),
    said({"type": "local_shell_call_output", "output": "", "id": "c"}),
    said({"type": "local_shell_call_output", "output": "", "call_id": "c"}),
    said({"type": "shell_call_output", "call_id": "c",
          "output": [{"stdout": "", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]}),
    said({"type": "tool_search_call", "arguments": 5}),
    said({"type": "reasoning"}),
    said({"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}], "encrypted_content": None}),
    said({"type": "compaction_summary", "encrypted_content": "x"}),
    said({"type": "configuration_update", "text": {"format": {"type": "json_object"}}}),
]  # fmt: skip

REFUSED: list[Json] = [
    {"input": "hi"},
    {"model": None, "input": "hi"},
    {"model": "", "input": "hi"},
    {"model": 5, "input": "hi"},
    {"model": "m"},
    {"model": "m", "input": None},
    {"model": "m", "input": {"role": "user"}},
    {"model": "m", "conversation": "conv_1", "previous_response_id": "resp_1"},
    {"model": "m", "conversation": {}},
    {"model": "m", "conversation": 5},
    {**ONE, "temperature": -0.1},
    {**ONE, "temperature": 2.1},
    {**ONE, "temperature": "1"},
    {**ONE, "top_p": 1.1},
    {**ONE, "top_logprobs": 21},
    {**ONE, "presence_penalty": -2.1},
    {**ONE, "max_output_tokens": 0},
    {**ONE, "max_tool_calls": 2**53 + 1},
    {**ONE, "metadata": {"k" * 65: "v"}},
    {**ONE, "metadata": {"k": "v" * 513}},
    {**ONE, "metadata": {"k": 1}},
    {**ONE, "metadata": {str(number): "" for number in range(17)}},
    {**ONE, "stream": "yes"},
    {**ONE, "include": ["everything"]},
    {**ONE, "reasoning": {"effort": "heroic"}},
    {**ONE, "text": {"format": {"type": "json_schema", "name": "x"}}},
    {**ONE, "text": {"format": {"type": "json_schema", "schema": {}}}},
    {**ONE, "text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}},
    {**ONE, "text": {"format": {"type": "xml"}}},
    {**ONE, "context_management": []},
    {**ONE, "context_management": [{"type": "compaction", "compact_threshold": 999}]},
    {**ONE, "prompt": {"id": "pmpt_1"}},
    {**ONE, "prompt_cache_options": {"prewarm": 1}},
    {**ONE, "prompt_cache_key": "k" * 1025},
    {**ONE, "safety_identifier": "s" * 129},
    {**ONE, "multi_agent": {"enabled": True}},
    {**ONE, "multi_agent": {}},
    {**ONE, "client_metadata": []},
    {**ONE, "tools": {}},
    {**ONE, "tools": [{"name": "f"}]},
    {**ONE, "tools": [{"type": "function"}]},
    {**ONE, "tools": [{"type": "function", "name": ""}]},
    {**ONE, "tool_choice": "always"},
    {**ONE, "tool_choice": {"name": "f"}},
    {**ONE, "tool_choice": {"type": "allowed_tools", "tools": []}},
    said("hi"),
    said({}),
    said({"content": "hi"}),
    said({"role": "user"}),
    said({"role": "tool", "content": "hi"}),
    said({"role": "user", "content": [{"type": "input_text"}]}),
    said({"role": "user", "content": [{"type": "input_text", "text": None}]}),
    said({"role": "user", "content": [{"text": "hi"}]}),
    said({"role": "user", "content": [{"type": "refusal", "text": "no"}]}),
    said({"id": 5}),
    said({"id": "msg_1", "role": "user"}),
    said({"type": "item_reference"}),
    said({"type": "function_call", "call_id": "c" * 65, "name": "f", "arguments": "{}"}),
    said({"type": "function_call", "call_id": "c", "name": "", "arguments": "{}"}),
    said({"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}),
    said({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": 5}),
    said({"type": "local_shell_call_output", "output": ""}),
    said({"type": "local_shell_call_output", "output": "", "id": None, "call_id": None}),
    said({"type": "apply_patch_call_output", "call_id": "c", "status": "in_progress"}),
    said({"type": "compaction"}),
]


def accepts(body: Json) -> bool:
    try:
        CreateRequest.parse(json.dumps(body).encode())
    except BadRequest:
        return False
    return True


@pytest.mark.parametrize("body", ACCEPTED, ids=json.dumps)
def test_what_is_accepted_fits_its_description(body: Json) -> None:
    assert accepts(body)
    validator(CREATE).validate(body)


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: json.dumps(body)[:120])
def test_what_is_refused_does_not_fit_its_description(body: Json) -> None:
    assert not accepts(body)
    assert not validator(CREATE).is_valid(body)


def test_there_is_a_sample_for_nearly_every_item_that_is_known() -> None:
    known = {body["input"][0].get("type") for body in ACCEPTED if isinstance(body.get("input"), list) and body["input"]}
    assert len(known & items.VIEWS.keys()) >= 10
    for body in ACCEPTED:
        for item in body["input"] if isinstance(body.get("input"), list) else ():
            assert Item.parse(json.dumps(item).encode()).raw


# What is sent


def test_a_response_has_every_key_it_is_said_to_have() -> None:
    request = CreateRequest.parse(json.dumps({**ONE, "tools": [FUNCTION], "metadata": {"a": "b"}}).encode())
    response = echo(request, response_id="resp_1", created_at=1)
    response.output = [OutputMessage("msg_1", "completed", [OutputText("hi")])]
    written = msgspec.to_builtins(json.loads(msgspec.json.encode(response)))
    fits = validator(RESPONSE)
    fits.validate(written)
    assert [key for key in written if fits.is_valid({k: v for k, v in written.items() if k != key})] == []


def test_items_of_a_provider_may_be_anything_with_a_type() -> None:
    fits = validator({"$ref": "#/components/schemas/OutputItem"})
    assert fits.is_valid({"type": "hologram", "depth": 3})
    assert not fits.is_valid({"depth": 3})


def test_what_a_struct_leaves_out_need_not_be_there() -> None:
    class Short(Struct, omit_defaults=True):
        id: str
        more: int | None = None

    written = Schemas()
    written.encoded(Short)
    assert written.named["Short"]["required"] == ["id"]


# How it is written


def test_a_default_is_told_of_what_is_read_alone() -> None:
    class Knobs(Struct):
        speed: int = 3
        name: str | None = None

    read, sent = Schemas(), Schemas()
    read.decoded(Knobs)
    sent.encoded(Knobs)
    speed: Json = {"type": "integer"}
    name: Json = {"type": ["string", "null"]}
    assert read.named["Knobs"]["properties"] == {"speed": {**speed, "default": 3}, "name": name}
    assert sent.named["Knobs"]["properties"] == {"speed": speed, "name": name}


def test_every_limit_has_its_keyword() -> None:
    class Bounded(Struct):
        above: Annotated[int, Meta(gt=1, lt=5, multiple_of=2)]
        pair: Annotated[tuple[bool, ...], Meta(min_length=2, max_length=2)]
        either: int | str

    written = Schemas()
    written.decoded(Bounded)
    assert written.named["Bounded"]["properties"] == {
        "above": {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 5, "multipleOf": 2},
        "pair": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    }


def test_a_struct_may_hold_itself() -> None:
    written = Schemas()
    reference = written.decoded(Tree)
    assert written.named["Tree"]["properties"] == {"leaves": {"type": "array", "items": reference}}


class Tree(Struct):
    leaves: list["Tree"]


def test_the_sources_of_a_docstring_are_left_out() -> None:
    class Cited(Struct):
        """A thing
        (objects.md §1) that is known."""

    class Pointing(Struct):
        """See objects.md §2."""

    written = Schemas()
    written.decoded(Cited)
    written.decoded(Pointing)
    assert written.named["Cited"]["description"] == "A thing that is known."
    assert "description" not in written.named["Pointing"]


def test_raw_json_without_a_meaning_has_no_schema() -> None:
    class Loose(Struct):
        anything: Raw

    with pytest.raises(TypeError, match="nothing says what a RawType holds"):
        Schemas().decoded(Loose)


def test_two_structs_of_one_name_are_a_mistake() -> None:
    def named(field: str) -> type[Struct]:
        return msgspec.defstruct("Twin", [(field, int)])

    written = Schemas()
    written.decoded(named("one"))
    with pytest.raises(AssertionError, match="two schemas would be called 'Twin'"):
        written.decoded(named("two"))


def test_every_reference_leads_somewhere() -> None:
    def references(schema: Json) -> Iterator[str]:
        if isinstance(schema, Mapping):
            yield from [schema["$ref"]] if "$ref" in schema else []
            schema = list(schema.values())
        for part in schema if isinstance(schema, list) else ():
            yield from references(part)

    known = {schemas.ref(name)["$ref"] for name in WRITTEN.named}
    assert set(references(json.loads(msgspec.json.encode(WRITTEN.named)))) <= known


def test_what_is_refused_when_nobody_knows_it_is_not_described_as_open() -> None:
    class Closed(Struct, forbid_unknown_fields=True):
        a: int

    class Open(Struct):
        a: int

    schemas = Schemas()
    schemas.decoded(Closed)
    schemas.decoded(Open)
    assert schemas.named["Closed"]["additionalProperties"] is False
    assert "additionalProperties" not in schemas.named["Open"]
