"""A plain answer: what may be asked, what comes back, and what is echoed."""

import asyncio

import msgspec

from rejoinder.conformance.answer import answer_in, create, read, skip_if_refused, usage_of
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS, plain, replies, streamed
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.shape import FunctionTool, output_items

chapter = Chapter("create", "Create a response")


@chapter.rule
async def a_plain_answer_is_json(server: Server) -> None:
    """What is not a stream is answered with the content type application/json.

    Source: API reference, Create a response (http.md §1).
    """
    expect_equal("the content type", "application/json", (await server.once(plain)).media_type)


@chapter.rule
async def an_answer_is_completed_and_not_empty(server: Server) -> None:
    """A turn that ends well has the status completed and at least one item; an empty success is none.

    Source: API reference, The response object; Open Responses, basic response (open-responses.md §9).
    """
    for reply in await replies(server):
        answer = answer_in(reply)
        expect_equal("the status", "completed", answer.status)
        expect(answer.output, "an output with an item in it", reply.excerpt)


async def _answered(server: Server, *messages: Json) -> None:
    answer = await create(server, input=list(messages))
    expect_equal("the status", "completed", answer.status)
    expect(answer.output, "an output with an item in it", "none")


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


@chapter.rule
async def a_message_needs_no_type(server: Server) -> None:
    """An object with a role and content is a message, with or without a type; content is a text or a list of parts.

    Source: API reference, easy input message (objects.md §6.1).
    """
    await _answered(server, _user(GREETING))
    await _answered(server, {"type": "message", "role": "user", "content": GREETING})
    await _answered(server, {"role": "user", "content": [{"type": "input_text", "text": GREETING}]})


@chapter.rule
async def system_and_developer_may_speak(server: Server) -> None:
    """Messages of the roles system and developer are accepted.

    Source: API reference, input messages; Open Responses, system prompt (objects.md §6.1).
    """
    for role in ("system", "developer"):
        await _answered(server, {"role": role, "content": "You answer briefly."}, _user(GREETING))


@chapter.rule
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


@chapter.rule
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


@chapter.rule
async def null_means_left_out(server: Server) -> None:
    """A parameter that may be null and is null is one that was left out.

    Source: API reference, Create a response (objects.md, Receiving).
    """
    answer = answer_in(await server.post(input=GREETING, **dict.fromkeys(_NULLABLE)))
    expect_equal("the status", "completed", answer.status)


class _Echo(msgspec.Struct):
    instructions: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    store: bool | None = None


@chapter.rule
async def settings_are_echoed(server: Server) -> None:
    """A response tells the instructions, the temperature, the limit and the storing it was asked for.

    Source: API reference, The response object (objects.md §2).
    """
    asked: dict[str, Json] = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "max_output_tokens": 4000,
        "store": False,
    }
    reply = await server.post(input=GREETING, **asked)
    skip_if_refused(reply, ("temperature",))
    echo = read(_Echo, reply.expect(200).body, "a response")
    expect_equal("the echo", asked, msgspec.to_builtins(echo))


@chapter.rule
async def metadata_is_echoed(server: Server) -> None:
    """Metadata comes back as it was given, and is an empty object or null where none was.

    Source: API reference, metadata (objects.md §2, semantics.md §11).
    """
    metadata = {"colour": "blue", "k" * 64: "v" * 512}
    expect_equal("the metadata", metadata, (await create(server, input=GREETING, metadata=metadata)).metadata)
    none = answer_in(await server.once(plain)).metadata
    expect(not none, "no metadata where none was given", none)


class _Tools(msgspec.Struct):
    tools: list[FunctionTool]


@chapter.rule
async def tools_are_echoed_whole(server: Server) -> None:
    """A function tool is echoed with name, description, parameters and strict, whatever was left out.

    Source: API reference, tools; Open Responses, schema of the response resource (objects.md §2, §7).
    """
    bare: Json = {"type": "function", "name": "current_date", "parameters": {"type": "object", "properties": {}}}
    reply = await server.post(input=GREETING, tools=[CLOCK, bare])
    skip_if_refused(reply, TOOLS)
    tools = read(_Tools, reply.expect(200).body, "the tools of a response").tools
    expect_equal("the names of the tools", ["current_time", "current_date"], [tool.name for tool in tools])


@chapter.rule
async def a_cut_answer_is_incomplete(server: Server) -> None:
    """An answer that reaches max_output_tokens has the status incomplete, and says why.

    Source: API reference, incomplete_details (semantics.md §11).
    """
    limit = 16
    reply = await server.post(input="Count from one to two hundred, in words.", max_output_tokens=limit)
    cut = read(_Cut, reply.expect(200).body, "a response")
    told = usage_of(answer_in(reply)).output_tokens
    if cut.status == "completed" and told <= limit:
        raise NotApplicable(f"the model had no more to say than {told} tokens")
    expect_equal("the end", ("incomplete", _Why("max_output_tokens"), None), msgspec.structs.astuple(cut))


class _Why(msgspec.Struct):
    reason: str | None = None


class _Cut(msgspec.Struct):
    status: str | None = None
    incomplete_details: _Why | None = None
    completed_at: float | None = None


@chapter.rule
async def every_answer_has_a_request_id(server: Server) -> None:
    """Answers, streams and errors carry a header x-request-id, another one each.

    Source: API overview, debugging requests (http.md §5).
    """
    replies = [await server.once(plain), (await server.once(streamed)).reply, await server.post(input=7)]
    expect_distinct("x-request-id", [reply.headers.get("x-request-id") for reply in replies])


@chapter.rule
async def ten_requests_at_once_are_answered(server: Server) -> None:
    """Requests that come at the same time are all answered, each its own.

    Source: Open Responses compliance suite, which starts all of its tests at once (open-responses.md §9).
    """
    names = [f"request {number}" for number in range(10)]
    answers = await asyncio.gather(*(create(server, input=GREETING, instructions=name) for name in names))
    expect_distinct("ids of ten responses", [answer.id for answer in answers])
    expect_equal("the instructions", names, [answer.instructions for answer in answers])
    expect_equal("ten times the status", ["completed"] * 10, [answer.status for answer in answers])
