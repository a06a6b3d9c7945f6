"""What may be said to a model: roles, phases, images, formats."""

import base64
import struct
import zlib

import msgspec

from rejoinder.conformance.answer import answer_in, create, read, usage_of
from rejoinder.conformance.case import Theme
from rejoinder.conformance.errors import Skipped
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.samples import GREETING, plain
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.shape import output_items

theme = Theme("inputs")


async def _answered(server: Server, *messages: Json) -> None:
    answer = await create(server, input=list(messages))
    expect_equal("the status", "completed", answer.status)
    expect(answer.output, "an output with an item in it", "none")


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


@theme.case
async def a_message_needs_no_type(server: Server) -> None:
    """An object with a role and content is a message, with or without a type; content is a text or a list of parts.

    Source: API reference, easy input message (objects.md §6.1).
    """
    await _answered(server, _user(GREETING))
    await _answered(server, {"type": "message", "role": "user", "content": GREETING})
    await _answered(server, {"role": "user", "content": [{"type": "input_text", "text": GREETING}]})


@theme.case
async def system_and_developer_may_speak(server: Server) -> None:
    """Messages of the roles system and developer are accepted.

    Source: API reference, input messages; Open Responses, system prompt (objects.md §6.1).
    """
    for role in ("system", "developer"):
        await _answered(server, {"role": role, "content": "You answer briefly."}, _user(GREETING))


@theme.case
async def turns_of_the_assistant_are_accepted(server: Server) -> None:
    """A conversation may be sent whole, the assistant's turns with a phase and without, and without id or status.

    Source: Open Responses compliance suite, multi-turn and assistant-phase (open-responses.md §9).
    """
    await _answered(server, _user("Hello."), {"role": "assistant", "content": "Hello!"}, _user(GREETING))
    await _answered(
        server,
        _user("Hello."),
        {"role": "assistant", "content": "Let me think.", "phase": "commentary"},
        {"role": "assistant", "content": "Hello!", "phase": "final_answer"},
        _user(GREETING),
    )


@theme.case
async def what_was_answered_can_be_sent_back(server: Server) -> None:
    """The output of a response, as it came, is accepted as input.

    Source: Guide, Conversation state (semantics.md §2).
    """
    output = output_items((await server.once(plain)).body)
    answer = await create(server, input=[_user(GREETING), *output, _user("Once more.")], store=False)
    expect_equal("the status", "completed", answer.status)


_NULLABLE = (
    "background",
    "include",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "service_tier",
    "store",
    "stream",
    "temperature",
    "top_p",
    "truncation",
)


@theme.case
async def null_means_left_out(server: Server) -> None:
    """A parameter that may be null and is null is one that was left out.

    Source: API reference, Create a response (objects.md, Receiving).
    """
    answer = answer_in(await server.post(input=GREETING, **dict.fromkeys(_NULLABLE)))
    expect_equal("the status", "completed", answer.status)


def _png() -> str:
    """A red square of 16 by 16 pixels, as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xff\0\0" * 16) * 16
    header = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
    image = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


@theme.case
async def an_image_is_accepted_or_refused_by_name(server: Server) -> None:
    """An image is answered; a server whose model cannot see says that, with status 400 and the place of the image.

    Source: Open Responses compliance suite, image input; API reference, input image (objects.md §5).
    """
    parts: list[Json] = [
        {"type": "input_text", "text": "What is in this picture?"},
        {"type": "input_image", "image_url": _png()},
    ]
    answer = await create(server, optional=("input",), input=[{"role": "user", "content": parts}])
    expect_equal("the status", "completed", answer.status)
    expect(answer.output, "an output with an item in it", "none")


class _Person(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    age: int
    colour: str


@theme.case
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


@theme.case
async def json_can_be_asked_for(server: Server) -> None:
    """With the format json_object the text of the answer is a JSON object.

    Source: API reference, text.format (objects.md §1.2).
    """
    answer = await create(
        server, optional=("text",), input="Say hello as a JSON object.", text={"format": {"type": "json_object"}}
    )
    read(dict[str, object], answer.text.encode(), "the text of the answer")


@theme.case
async def a_cut_answer_is_incomplete(server: Server) -> None:
    """An answer that reaches max_output_tokens has the status incomplete, and says why.

    Source: API reference, incomplete_details (semantics.md §11).
    """
    limit = 16
    reply = await server.post(input="Count from one to two hundred, in words.", max_output_tokens=limit)
    cut = read(_Cut, reply.expect(200).body, "a response")
    told = usage_of(answer_in(reply)).output_tokens
    if cut.status == "completed" and told <= limit:
        raise Skipped(f"the model had no more to say than {told} tokens")
    expect_equal("the end", ("incomplete", _Why("max_output_tokens"), None), msgspec.structs.astuple(cut))


class _Why(msgspec.Struct):
    reason: str | None = None


class _Cut(msgspec.Struct):
    status: str | None = None
    incomplete_details: _Why | None = None
    completed_at: float | None = None
