"""Answers in a format that was asked for."""

import msgspec

from rejoinder.conformance.answer import create, read
from rejoinder.conformance.expectation import expect
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.server import Json, Server

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
