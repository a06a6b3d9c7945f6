"""A plain answer: what it looks like, and that it is one."""

import asyncio

import msgspec

from rejoinder.conformance.answer import answer_in, create, read, skip_if_refused, usage_of
from rejoinder.conformance.case import Theme
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS, plain, replies, streamed, streams
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.shape import FunctionTool, OpenShape, ResponseShape, nulls, output_items, read_item

theme = Theme("answers")


@theme.case
async def a_response_has_every_key(server: Server) -> None:
    """A response carries all of its keys, each of its type, and null where there is nothing to say.

    Source: API reference, The response object (objects.md §2).
    """
    for reply in await replies(server):
        read(ResponseShape, reply.body, "a response")


@theme.case
async def a_response_fits_open_responses(server: Server) -> None:
    """Open Responses wants two penalties more, whole seconds, and defaults instead of some nulls.

    Source: Open Responses 2026-04-24, schema of the response resource (open-responses.md §4).
    """
    for reply in await replies(server):
        read(OpenShape, reply.body, "a response")


@theme.case
async def a_plain_answer_is_json(server: Server) -> None:
    """What is not a stream is answered with the content type application/json.

    Source: API reference, Create a response (http.md §1).
    """
    expect_equal("the content type", "application/json", (await server.once(plain)).media_type)


@theme.case
async def an_answer_is_completed_and_not_empty(server: Server) -> None:
    """A turn that ends well has the status completed and at least one item; an empty success is none.

    Source: API reference, The response object; Open Responses, basic response (open-responses.md §9).
    """
    for reply in await replies(server):
        answer = answer_in(reply)
        expect_equal("the status", "completed", answer.status)
        expect(answer.output, "an output with an item in it", reply.excerpt)


class _End(msgspec.Struct):
    created_at: float = 0
    completed_at: float | None = None
    error: object = None
    incomplete_details: object = None


@theme.case
async def a_completed_answer_says_when_and_no_error(server: Server) -> None:
    """What is completed has a time of completion that is not before its creation, and neither an error nor a reason
    for being incomplete.

    Source: API reference, The response object (objects.md §2).
    """
    for reply in await replies(server):
        end = read(_End, reply.body, "a response")
        at = end.completed_at
        expect(at is not None and at >= end.created_at, f"completed_at from {end.created_at} on", at)
        expect_equal("error and incomplete_details", (None, None), (end.error, end.incomplete_details))


@theme.case
async def output_items_have_their_fields(server: Server) -> None:
    """Every output item has its type and id and the fields of its type; a text has a list of annotations.

    Source: API reference, output items; Open Responses, items (objects.md §6, open-responses.md §4.1).
    """
    for response in [reply.body for reply in await replies(server)]:
        for item in output_items(response):
            read_item(item)


@theme.case
async def items_leave_out_what_they_lack(server: Server) -> None:
    """Optional fields of an item or of a part that are not set are left out: the schema does not allow null there.

    Source: Open Responses, schema of items (open-responses.md §4.1).
    """
    responses = [reply.body for reply in await replies(server)] + [s.response for s in await streams(server)]
    found = [path for response in responses for item in output_items(response) for path in nulls(item)]
    expect(not found, "no null in an item", found)


@theme.case
async def usage_adds_up(server: Server) -> None:
    """The total is input plus output; cached tokens are among the input, reasoning tokens among the output.

    Source: API reference, usage (objects.md §4).
    """
    responses = [answer_in(reply) for reply in await replies(server)] + [s.answer for s in await streams(server)]
    for usage in map(usage_of, responses):
        expect_equal("total_tokens", usage.input_tokens + usage.output_tokens, usage.total_tokens)
        cached, reasoned = usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens
        expect(cached <= usage.input_tokens, f"at most {usage.input_tokens} cached tokens", cached)
        expect(reasoned <= usage.output_tokens, f"at most {usage.output_tokens} reasoning tokens", reasoned)


@theme.case
async def plain_and_streamed_are_the_same_object(server: Server) -> None:
    """The response at the end of a stream has the keys a plain one has.

    Source: API reference, streaming events: they carry the response object (events.md §2).
    """
    plainly = read(dict[str, msgspec.Raw], (await server.once(plain)).body, "a response")
    in_events = read(dict[str, msgspec.Raw], (await server.once(streamed)).response, "a response")
    expect_equal("keys in one of the two alone:", [], sorted(plainly.keys() ^ in_events.keys()))


class _Echo(msgspec.Struct):
    instructions: str | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    store: bool | None = None


@theme.case
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


@theme.case
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


@theme.case
async def tools_are_echoed_whole(server: Server) -> None:
    """A function tool is echoed with name, description, parameters and strict, whatever was left out.

    Source: API reference, tools; Open Responses, schema of the response resource (objects.md §2, §7).
    """
    bare: Json = {"type": "function", "name": "current_date", "parameters": {"type": "object", "properties": {}}}
    reply = await server.post(input=GREETING, tools=[CLOCK, bare])
    skip_if_refused(reply, TOOLS)
    tools = read(_Tools, reply.expect(200).body, "the tools of a response").tools
    expect_equal("the names of the tools", ["current_time", "current_date"], [tool.name for tool in tools])


@theme.case
async def every_answer_has_a_request_id(server: Server) -> None:
    """Answers, streams and errors carry a header x-request-id, another one each.

    Source: API overview, debugging requests (http.md §5).
    """
    replies = [await server.once(plain), (await server.once(streamed)).reply, await server.post(input=7)]
    expect_distinct("x-request-id", [reply.headers.get("x-request-id") for reply in replies])


@theme.case
async def ten_requests_at_once_are_answered(server: Server) -> None:
    """Requests that come at the same time are all answered, each its own.

    Source: Open Responses compliance suite, which starts all of its tests at once (open-responses.md §9).
    """
    names = [f"request {number}" for number in range(10)]
    answers = await asyncio.gather(*(create(server, input=GREETING, instructions=name) for name in names))
    expect_distinct("ids of ten responses", [answer.id for answer in answers])
    expect_equal("the instructions", names, [answer.instructions for answer in answers])
    expect_equal("ten times the status", ["completed"] * 10, [answer.status for answer in answers])
