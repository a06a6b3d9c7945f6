"""Answers in a format that was asked for."""

import msgspec

from rejoinder.conformance.answer import create, read, skip_if_refused
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import GREETING, plain
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.stream import Stream

chapter = Chapter("formats", "Structured output")


class _Person(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    age: int
    colour: str


@chapter.rule
async def a_schema_is_kept_to(server: Server) -> None:
    """With a JSON schema as the format, strictly, the text of the answer is JSON that fits it.

    Source: Guide, Structured outputs (semantics.md §9).
    """
    schema: Json = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "colour": {"type": "string", "enum": ["red", "green"]},
        },
        "required": ["name", "age", "colour"],
        "additionalProperties": False,
    }
    answer = await create(
        server,
        optional=("text",),
        input="Make up a person.",
        text={"format": {"type": "json_schema", "name": "person", "schema": schema, "strict": True}},
    )
    person = read(_Person, answer.text.encode(), "the text of the answer")
    expect(person.colour in ("red", "green"), "one of the colours of the schema", person.colour)


@chapter.rule
async def json_can_be_asked_for(server: Server) -> None:
    """With the format json_object the text of the answer is a JSON object.

    Source: API reference, text.format (objects.md §1.2).
    """
    answer = await create(
        server, optional=("text",), input="Say hello as a JSON object.", text={"format": {"type": "json_object"}}
    )
    read(dict[str, object], answer.text.encode(), "the text of the answer")


_TITLE: Json = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "subtitle": {"type": ["string", "null"]}},
    "required": ["title", "subtitle"],
    "additionalProperties": False,
}
_TITLED: Json = {"format": {"type": "json_schema", "name": "a-title_2", "schema": _TITLE, "strict": True}}


class _Title(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    subtitle: str | None


@chapter.rule
async def what_is_optional_may_be_null(server: Server) -> None:
    """A property that may be null is there, and is null or what else it may be.

    Source: Guide, Structured outputs: optional is a union with null (semantics.md §9).
    """
    answer = await create(server, optional=("text",), input="Think of the title of a book.", text=_TITLED)
    read(_Title, answer.text.encode(), "the text of the answer")


@chapter.rule
async def a_schema_is_kept_to_in_events(server: Server) -> None:
    """The text that is told in events is, in all, JSON that fits the schema.

    Source: Guide, Structured outputs; guide, Streaming responses (semantics.md §9, events.md §4).
    """
    reply = await server.post(input="Think of the title of a book.", text=_TITLED, stream=True)
    skip_if_refused(reply, ("text",))
    stream = Stream.of(reply)
    text = "".join(event.delta or "" for event in stream.events if event.kind == "output_text.delta")
    expect(text, "a text in the stream", [event.type for event in stream.events])
    read(_Title, text.encode(), "the text that was told")


class _Format(msgspec.Struct):
    type: str | None = None
    name: str | None = None
    strict: bool | None = None
    schema: object = None


class _Text(msgspec.Struct):
    format: _Format


class _Echo(msgspec.Struct):
    text: _Text


@chapter.rule
async def a_format_is_echoed(server: Server) -> None:
    """A response tells the format it was asked for: the type, the name, the schema and whether it is strict.

    Source: API reference, The response object (objects.md §1.2, §2).
    """
    reply = await server.post(input="Think of the title of a book.", text=_TITLED)
    skip_if_refused(reply, ("text",))
    told = read(_Echo, reply.expect(200).body, "a response").text.format
    expect_equal("the format", _Format("json_schema", "a-title_2", True, _TITLE), told)


@chapter.rule
async def the_format_is_text_unless_another_is_asked_for(server: Server) -> None:
    """The format is text where none was asked for, and where text was.

    Source: API reference, text.format (objects.md §1.2, §2).
    """
    asked = await server.post(input=GREETING, text={"format": {"type": "text"}})
    for reply in (await server.once(plain), asked):
        told = read(_Echo, reply.expect(200).body, "a response").text.format
        expect_equal("the type of the format", "text", told.type)
