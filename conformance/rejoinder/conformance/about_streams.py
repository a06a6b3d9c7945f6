"""A streamed answer: its framing, and the grammar of its events."""

import asyncio
from collections.abc import Callable

import msgspec

from rejoinder.conformance import grammar
from rejoinder.conformance.answer import read, refusal_in
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal, expect_same
from rejoinder.conformance.frames import DONE
from rejoinder.conformance.need import RETRIEVAL, STORE
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import GREETING, cut_in_events, streamed, streams
from rejoinder.conformance.server import Server
from rejoinder.conformance.shape import ResponseShape, output_items, read_item
from rejoinder.conformance.stream import LIFECYCLE, Stream

chapter = Chapter("streams", "Stream grammar")


async def _all(server: Server, *rules: Callable[[Stream], None]) -> None:
    for stream in await streams(server):
        for rule in rules:
            rule(stream)


@chapter.rule
async def an_event_is_two_lines(server: Server) -> None:
    """An event is one line `event:` and one line `data:`, and the first repeats the type in the second; there is no
    `id:`.

    Source: Open Responses, streaming (events.md §1).
    """
    for frame in [frame for stream in await streams(server) for frame in stream.frames if frame.data != DONE]:
        fields = [line.partition(":")[0] for line in frame.lines]
        data = (frame.data or "").encode()
        expect_equal("the lines of an event", ["event", "data"], fields, at=data)
        expect_equal("the event line to repeat the type", read(_Type, data, "data").type, frame.event, at=data)


class _Type(msgspec.Struct):
    type: str


@chapter.rule
async def lines_end_with_a_line_feed(server: Server) -> None:
    """Lines end with LF alone and every event with an empty line: readers that split at LF see an empty line only
    where it is empty.

    Source: Open Responses compliance suite, its reader of streams (events.md §1).
    """
    for stream in await streams(server):
        body = stream.reply.body
        expect(b"\r" not in body, "no carriage return in the stream", body[: body.find(b"\r") + 1][-60:], at=b"\r")
        expect(body.endswith(b"\n\n"), "an empty line after the last event", body[-60:], at=body[-60:])


@chapter.rule
async def events_come_in_one_piece(server: Server) -> None:
    """No chunk of the answer ends inside of an event: some readers forget the beginning of a line between reads.

    Source: Open Responses compliance suite, its reader of streams (events.md §1).
    """
    for piece in (await server.once(streamed)).reply.pieces:
        expect(piece.endswith((b"\n\n", b"\r\n\r\n")), "a chunk that ends with an event", piece[-80:], at=piece)


@chapter.rule
async def the_last_data_is_done(server: Server) -> None:
    """If there is a `data: [DONE]`, it comes once, and nothing after it.

    Source: Open Responses, streaming, which demands it; OpenAI's own streams have none (events.md §1).
    """
    for stream in await streams(server):
        places = [place for place, frame in enumerate(stream.frames, 1) if frame.data == DONE]
        at_the_end = places in ([], [len(stream.frames)])
        expect(at_the_end, "[DONE] once at the end, or not at all", f"it at {places} of {len(stream.frames)}")


@chapter.rule
async def sequence_numbers_count_the_events(server: Server) -> None:
    """Every event has a sequence_number; the first is 0 and every further one is one more.

    Source: API reference, streaming events (events.md §1).
    """
    await _all(server, grammar.numbering)


@chapter.rule
async def events_have_their_fields(server: Server) -> None:
    """Every event has the fields of its type.

    Source: API reference, streaming events (events.md §3).
    """
    await _all(server, grammar.fields)


@chapter.rule
async def a_stream_begins_and_ends_as_it_should(server: Server) -> None:
    """The first events are response.created and response.in_progress, the last is the one terminal event, and all of
    them speak of one response.

    Source: Guide, Streaming responses; openai-python's stream helper raises otherwise (events.md §4, §5).
    """
    await _all(server, grammar.lifecycle)


@chapter.rule
async def a_response_is_empty_until_its_end(server: Server) -> None:
    """Before the terminal event the response has no output, no usage, no completed_at and no error.

    Source: openai-python's stream helper, which counts items from the first one on (events.md §2).
    """
    await _all(server, grammar.beginnings)


@chapter.rule
async def events_carry_whole_responses(server: Server) -> None:
    """The response in an event has every key, from the first one on.

    Source: Open Responses, schema of streaming events (open-responses.md §4).
    """
    for stream in await streams(server):
        for event in stream.events:
            if event.type in LIFECYCLE:
                read(ResponseShape, event.response, f"the response in '{event.type}'")


@chapter.rule
async def an_added_item_is_empty(server: Server) -> None:
    """An item is added in progress, with empty content, arguments or summary.

    Source: Open Responses, item lifecycle (events.md §4).
    """
    await _all(server, grammar.added_items)


@chapter.rule
async def items_are_added_and_done(server: Server) -> None:
    """Items count up from 0 in the order they are added; each is done once, as the same item; what is said of an item
    comes between and names its id.

    Source: Guide, Streaming responses; openai-python's stream helper raises otherwise (events.md §4, §5).
    """
    await _all(server, grammar.pairing)


@chapter.rule
async def parts_are_added_told_and_done(server: Server) -> None:
    """A part is added, told in deltas, said whole and done, before the next one begins.

    Source: Open Responses, order of events (events.md §4).
    """
    await _all(server, grammar.bodies)


@chapter.rule
async def deltas_add_up(server: Server) -> None:
    """The deltas of a text or of arguments, joined, are what its done event and the finished item say.

    Source: API reference, streaming events (events.md §4).
    """
    await _all(server, grammar.deltas)


@chapter.rule
async def the_output_is_what_was_done(server: Server) -> None:
    """The output of the last event is exactly the items that were done, in their order.

    Source: openai-python's tool runner, which compares them (events.md §5).
    """
    await _all(server, grammar.output)


@chapter.rule
async def streamed_items_have_their_fields(server: Server) -> None:
    """The items at the end of a stream look as those of a plain answer do.

    Source: API reference, output items (objects.md §6).
    """
    for stream in await streams(server):
        for item in output_items(stream.response):
            read_item(item)


@chapter.rule
async def a_wrong_request_for_a_stream_is_a_plain_error(server: Server) -> None:
    """What can be refused before the answer begins is refused with a status and JSON, even when a stream was asked
    for.

    Source: Guide, Error codes (http.md §6.4).
    """
    for wrong in ({"input": 7}, {"input": GREETING, "previous_response_id": "resp_" + "0" * 32}):
        reply = await server.post(stream=True, **wrong)
        refusal_in(reply)
        expect_equal("the content type of an error", "application/json", reply.media_type)


@chapter.needing(STORE, RETRIEVAL)
async def a_streamed_response_is_kept(server: Server) -> None:
    """A streamed response can be asked for afterwards, and is the one its last event told of.

    Source: API reference, Get a model response (http.md §1).
    """
    stream = await server.once(streamed)
    kept = (await server.get(f"/responses/{stream.answer.id}")).expect(200)
    told = read(object, stream.response, "a response")
    expect_same("the kept response to be the last event's", told, read(object, kept.body, "a response"))


class _Status(msgspec.Struct):
    status: str | None = None


_STATUSES = {
    "response.created": ("queued", "in_progress"),
    "response.queued": ("queued",),
    "response.in_progress": ("in_progress",),
    "response.completed": ("completed",),
    "response.incomplete": ("incomplete", "cancelled"),
    "response.failed": ("failed",),
}


@chapter.rule
async def an_event_and_its_response_agree(server: Server) -> None:
    """The response in an event has the status that the event is named after.

    Source: API reference, streaming events (events.md §2, objects.md §2).
    """
    for stream in await streams(server):
        for event in stream.events:
            if event.type in _STATUSES:
                status = read(_Status, event.response, "a response").status
                wanted = " or ".join(_STATUSES[event.type])
                told = status in _STATUSES[event.type]
                expect(told, f"the status in '{event.type}' to be {wanted}", status, at=event.raw)


class _Whose(msgspec.Struct):
    role: str | None = None
    name: str | None = None


@chapter.rule
async def an_added_item_says_who_it_is(server: Server) -> None:
    """The role of a message and the name of a call are there when the item is added, and stay.

    Source: Open Responses, order of events (open-responses.md §2).
    """
    for stream in await streams(server):
        added = {event.output_index: event for event, _ in stream.items("output_item.added")}
        for event, _ in stream.items("output_item.done"):
            if event.output_index in added:
                begun = read(_Whose, added[event.output_index].item, "an added item")
                done = read(_Whose, event.item, "an item that is done")
                expect_equal("role and name as they are at the end:", done, begun, at=added[event.output_index].raw)


class _EmptyPart(msgspec.Struct):
    type: str
    text: str | None = None
    annotations: list[msgspec.Raw] | None = None
    refusal: str | None = None


class _PartEvent(msgspec.Struct):
    part: msgspec.Raw


@chapter.rule
async def an_added_part_is_empty(server: Server) -> None:
    """A part is added with its type and with nothing in it: an empty text, no annotations.

    Source: Open Responses, order of events (events.md §4, open-responses.md §2).
    """
    for stream in await streams(server):
        for event in stream.events:
            if event.kind in ("content_part.added", "reasoning_summary_part.added"):
                part = read(_EmptyPart, read(_PartEvent, event.raw, "an event").part, "an added part")
                expect(not (part.text or part.annotations or part.refusal), "an empty part", part, at=event.raw)


@chapter.rule
async def a_part_that_is_done_is_that_of_the_item(server: Server) -> None:
    """A part that is done is, in every field, the one in the finished item.

    Source: API reference, streaming events (events.md §4).
    """
    for stream in await streams(server):
        items = {event.output_index: event.item for event, _ in stream.items("output_item.done")}
        for event in stream.events:
            if event.kind == "content_part.done" and event.output_index in items:
                parts = read(_Content, items[event.output_index], "an item that is done").content
                part = read(_Done, event.raw, "an event").part
                found = dict(enumerate(parts)).get(event.content_index or 0)
                expect_same("the part of the item to be the one that was done", part, found)


class _Done(msgspec.Struct):
    part: object


class _Content(msgspec.Struct):
    content: list[object] = []


async def _cut(server: Server) -> Stream:
    """A stream that was cut. Raises NotApplicable when it was not."""
    stream = await server.once(cut_in_events)
    if stream.answer.status == "completed":
        raise NotApplicable("the answer was not cut")
    return stream


@chapter.rule
async def a_cut_stream_ends_incomplete(server: Server) -> None:
    """A stream that reaches max_output_tokens ends with response.incomplete, which says why.

    Source: API reference, streaming events (events.md §4, semantics.md §11).
    """
    stream = await _cut(server)
    expect_equal("the last event", "response.incomplete", stream.events[-1].type, at=stream.events[-1].raw)
    details = read(_Incomplete, stream.response, "a response").incomplete_details
    expect_equal("the reason", "max_output_tokens", details.reason if details else None, at=stream.events[-1].raw)


class _Reason(msgspec.Struct):
    reason: str | None = None


class _Incomplete(msgspec.Struct):
    incomplete_details: _Reason | None = None


@chapter.rule
async def a_cut_stream_keeps_the_grammar(server: Server) -> None:
    """In a stream that was cut, too, whatever was added is done: parts, items, and what they say adds up.

    Source: API reference, streaming events; Open Responses, item lifecycle (events.md §4).
    """
    stream = await server.once(cut_in_events)
    for rule in (
        grammar.numbering,
        grammar.lifecycle,
        grammar.added_items,
        grammar.pairing,
        grammar.bodies,
        grammar.deltas,
        grammar.output,
    ):
        rule(stream)


@chapter.rule
async def padding_can_be_left_out(server: Server) -> None:
    """With include_obfuscation false no event is padded.

    Source: API reference, stream_options (events.md §1).
    """
    stream = Stream.of(await server.post(input=GREETING, stream=True, stream_options={"include_obfuscation": False}))
    for event in stream.events:
        fields = read(dict[str, msgspec.Raw], event.raw, "an event")
        expect("obfuscation" not in fields, "no obfuscation", event.type, at=event.raw)


@chapter.rule
async def streams_at_once_do_not_mix(server: Server) -> None:
    """Streams that are told at the same time are each a whole stream, of a response of its own.

    Source: Open Responses compliance suite, which starts all of its tests at once (open-responses.md §9).
    """
    replies = await asyncio.gather(*(server.post(input="Say hello to us all.", stream=True) for _ in range(3)))
    told = [Stream.of(reply) for reply in replies]
    for stream in told:
        for rule in (grammar.numbering, grammar.lifecycle, grammar.pairing, grammar.output):
            rule(stream)
    expect_distinct("the ids of the responses", [stream.answer.id for stream in told])
