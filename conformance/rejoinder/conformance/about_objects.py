"""What a response, its items and its usage look like."""

import msgspec

from rejoinder.conformance.answer import Item, answer_in, read, skip_if_refused, usage_of
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import GREETING, cut, plain, replies, streamed, streams
from rejoinder.conformance.server import Reply, Server
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
    """Optional fields of an item or of a part that are not set are left out: the schemas do not allow null there, but
    for a phase, a caller and encrypted content.

    Source: API reference and Open Responses, schemas of items (objects.md §6, open-responses.md §4.1).
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


_EARLIEST, _LATEST = 1_500_000_000, 5_000_000_000
"""2017 and 2128."""


@chapter.rule
async def times_are_in_seconds(server: Server) -> None:
    """Times are seconds since 1970, not thousandths of them.

    Source: API reference, The response object (objects.md §2).
    """
    for reply in await replies(server):
        end = read(_End, reply.body, "a response")
        for at in (end.created_at, end.completed_at):
            expect(at is None or _EARLIEST < at < _LATEST, "seconds since 1970", at, at=reply.body)


@chapter.rule
async def items_have_ids_of_their_own(server: Server) -> None:
    """No two items of an output have the same id.

    Source: openai-python's stream helper and tool runner (events.md §5).
    """
    responses = [answer_in(reply) for reply in await replies(server)] + [s.answer for s in await streams(server)]
    for answer in responses:
        expect_distinct("the ids of the items", [item.id for item in answer.output])


def _incomplete(items: list[Item]) -> list[int]:
    return [place for place, item in enumerate(items) if item.status == "incomplete"]


@chapter.rule
async def items_of_a_completed_response_are_complete(server: Server) -> None:
    """A response that is completed has no item that is not: none is incomplete or in progress.

    Source: Open Responses, item lifecycle (open-responses.md §2).
    """
    responses = [answer_in(reply) for reply in await replies(server)] + [s.answer for s in await streams(server)]
    for answer in responses:
        statuses = [item.status for item in answer.output if item.status is not None]
        expect(set(statuses) <= {"completed"}, "items with the status completed", statuses)


@chapter.rule
async def an_incomplete_item_is_the_last(server: Server) -> None:
    """Where an answer was cut, the item that is incomplete is the last one.

    Source: Open Responses, item lifecycle (open-responses.md §2, events.md §4).
    """
    answer = answer_in(await server.once(cut))
    if answer.status != "incomplete":
        raise NotApplicable("the answer was not cut")
    places = _incomplete(answer.output)
    expect(places in ([], [len(answer.output) - 1]), "an incomplete item at the end only", places)


@chapter.rule
async def a_cut_answer_looks_as_any(server: Server) -> None:
    """An answer that was cut has all keys of a response, and items with all of their fields.

    Source: API reference, The response object (objects.md §2, §6).
    """
    reply = await server.once(cut)
    read(ResponseShape, reply.body, "a response")
    for item in output_items(reply.body):
        read_item(item)


class _Alternative(msgspec.Struct):
    token: str
    logprob: float


class _Logprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[_Alternative]


class _LoggedPart(msgspec.Struct):
    text: str = ""
    logprobs: list[_Logprob] = []


class _LoggedItem(msgspec.Struct):
    content: list[_LoggedPart] = []


_MOST = 2


async def _logged(server: Server) -> Reply:
    """A greeting with log probabilities. Raises NotApplicable where the model has none."""
    reply = await server.post(input=GREETING, include=["message.output_text.logprobs"], top_logprobs=_MOST)
    skip_if_refused(reply, ("include", "top_logprobs"))
    return reply.expect(200)


@chapter.rule
async def log_probabilities_are_told(server: Server) -> None:
    """With log probabilities included, a text has one for each token, with the token's bytes and at most as many
    alternatives as were asked for.

    Source: API reference, include, top_logprobs, output text (objects.md §1.1, §5).
    """
    items = [read(_LoggedItem, item, "an item") for item in output_items((await server.once(_logged)).body)]
    for part in [part for item in items for part in item.content if part.text]:
        expect(part.logprobs, "log probabilities of a text", "none")
        for logprob in part.logprobs:
            expect(len(logprob.top_logprobs) <= _MOST, f"at most {_MOST} alternatives", len(logprob.top_logprobs))


@chapter.rule
async def log_probabilities_are_not_told_unasked(server: Server) -> None:
    """Without log probabilities included, a text has none.

    Source: API reference, include (objects.md §1.1).
    """
    for item in output_items((await server.once(plain)).body):
        for part in read(_UnloggedItem, item, "an item").content:
            expect(not part.logprobs, "no log probabilities", part.logprobs)


class _UnloggedPart(msgspec.Struct):
    logprobs: object = None


class _UnloggedItem(msgspec.Struct):
    content: list[_UnloggedPart] = []
