"""What a response, its items and its usage look like."""

import msgspec

from rejoinder.conformance.answer import answer_in, read, usage_of
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import plain, replies, streamed, streams
from rejoinder.conformance.server import Server
from rejoinder.conformance.shape import OpenShape, ResponseShape, nulls, output_items, read_item

chapter = Chapter("objects", "Objects")


@chapter.rule
async def a_response_has_every_key(server: Server) -> None:
    """A response carries all of its keys, each of its type, and null where there is nothing to say.

    Source: API reference, The response object (objects.md §2).
    """
    for reply in await replies(server):
        read(ResponseShape, reply.body, "a response")


@chapter.rule
async def a_response_fits_open_responses(server: Server) -> None:
    """Open Responses wants two penalties more, whole seconds, and defaults instead of some nulls.

    Source: Open Responses 2026-04-24, schema of the response resource (open-responses.md §4).
    """
    for reply in await replies(server):
        read(OpenShape, reply.body, "a response")


class _End(msgspec.Struct):
    created_at: float = 0
    completed_at: float | None = None
    error: object = None
    incomplete_details: object = None


@chapter.rule
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


@chapter.rule
async def output_items_have_their_fields(server: Server) -> None:
    """Every output item has its type and id and the fields of its type; a text has a list of annotations.

    Source: API reference, output items; Open Responses, items (objects.md §6, open-responses.md §4.1).
    """
    for response in [reply.body for reply in await replies(server)]:
        for item in output_items(response):
            read_item(item)


@chapter.rule
async def items_leave_out_what_they_lack(server: Server) -> None:
    """Optional fields of an item or of a part that are not set are left out: the schema does not allow null there.

    Source: Open Responses, schema of items (open-responses.md §4.1).
    """
    responses = [reply.body for reply in await replies(server)] + [s.response for s in await streams(server)]
    found = [path for response in responses for item in output_items(response) for path in nulls(item)]
    expect(not found, "no null in an item", found)


@chapter.rule
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


@chapter.rule
async def plain_and_streamed_are_the_same_object(server: Server) -> None:
    """The response at the end of a stream has the keys a plain one has.

    Source: API reference, streaming events: they carry the response object (events.md §2).
    """
    plainly = read(dict[str, msgspec.Raw], (await server.once(plain)).body, "a response")
    in_events = read(dict[str, msgspec.Raw], (await server.once(streamed)).response, "a response")
    expect_equal("keys in one of the two alone:", [], sorted(plainly.keys() ^ in_events.keys()))
