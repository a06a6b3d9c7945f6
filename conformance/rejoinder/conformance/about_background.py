"""Responses that are made in the background: asked for, followed, picked up again and ended."""

import asyncio
from collections.abc import Sequence

import msgspec

from rejoinder.conformance import grammar
from rejoinder.conformance.answer import Answer, Page, answer_in, create, read, refusal_in, skip_if_refused
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_equal, expect_same
from rejoinder.conformance.frames import whole_frames
from rejoinder.conformance.need import BACKGROUND, BACKGROUND_STREAM, CANCEL, DELETION, INPUT_ITEMS
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS, UNKNOWN, begun, begun_in_events, plain
from rejoinder.conformance.server import Reply, Server
from rejoinder.conformance.shape import ResponseShape, output_items, read_item
from rejoinder.conformance.stream import TERMINAL, Stream
from rejoinder.conformance.waiting import RUNNING, ended

chapter = Chapter("background", "Background and resume", BACKGROUND)

_LONG = "Write a story of two thousand words about a lighthouse, with all that happens in it."
_TRIES = 3


async def _started(server: Server) -> Reply:
    return (await server.once(begun)).expect(200)


async def _over(server: Server) -> Reply:
    """The same response at its end."""
    return await ended(server, answer_in(await server.once(_started)).id)


async def _streamed(server: Server) -> Stream:
    """A background response whose events were read to the end."""
    return Stream.of(await server.once(begun_in_events))


async def _left(server: Server, said: str, events: int) -> Stream:
    """The first events of a background response; then the connection was left."""
    body = msgspec.json.encode({"model": server.model, "input": said, "background": True, "stream": True})
    reply = await server.send("POST", "/responses", body, enough=lambda received: whole_frames(received)[1] >= events)
    return Stream.of(Reply(reply.status, reply.headers, [whole_frames(reply.body)[0]]))


async def _followed(server: Server, response_id: str, **query: str) -> Stream:
    return Stream.of(await server.get(f"/responses/{response_id}", stream="true", **query))


def _told(stream: Stream) -> list[object]:
    """What the events say. Padding that hides their length may be another one each time they are told."""
    told = [read(dict[str, object], event.raw, "an event") for event in stream.events]
    return [{name: value for name, value in event.items() if name != "obfuscation"} for event in told]


@chapter.rule
async def it_is_answered_at_once(server: Server) -> None:
    """A background request is answered before its response is made: queued, or in progress.

    Source: Guide, Background mode (semantics.md §6).
    """
    reply = await server.once(_started)
    expect_equal("the content type", "application/json", reply.media_type)
    status = answer_in(reply).status
    expect(status in RUNNING, f"the status to be {' or '.join(RUNNING)}", status)


class _Begun(msgspec.Struct):
    output: list[msgspec.Raw] | None = None
    usage: object = None
    completed_at: object = None
    error: object = None


@chapter.rule
async def a_response_under_way_is_empty(server: Server) -> None:
    """As long as it is made, a response has no output, no usage, no time of completion and no error.

    Source: API reference, The response object; guide, Background mode (objects.md §2, semantics.md §6).
    """
    reply = await server.once(_started)
    if answer_in(reply).status in RUNNING:
        fields = msgspec.structs.asdict(read(_Begun, reply.body, "a response"))
        expect_equal("what it has", {"output": [], "usage": None, "completed_at": None, "error": None}, fields)


@chapter.rule
async def a_response_under_way_has_every_key(server: Server) -> None:
    """A response that is queued has all keys of a response.

    Source: API reference, The response object (objects.md §2).
    """
    read(ResponseShape, (await server.once(_started)).body, "a response")


class _Settings(msgspec.Struct):
    instructions: object = None
    metadata: object = None


@chapter.rule
async def a_response_under_way_tells_what_was_asked(server: Server) -> None:
    """Instructions and metadata are echoed at once, and are the same at the end.

    Source: API reference, The response object (objects.md §2).
    """
    reply = await server.post(input=GREETING, background=True, instructions="Be brief.", metadata={"colour": "blue"})
    over = await ended(server, answer_in(reply).id)
    for told in (reply, over):
        expect_equal(
            "the settings", _Settings("Be brief.", {"colour": "blue"}), read(_Settings, told.body, "a response")
        )


class _Background(msgspec.Struct):
    background: object = None


@chapter.rule
async def it_says_that_it_is_one(server: Server) -> None:
    """A background response says so, from its beginning to its end.

    Source: API reference, The response object (objects.md §2).
    """
    for reply in (await server.once(_started), await server.once(_over)):
        expect_equal("background", True, read(_Background, reply.body, "a response").background, at=reply.body)


@chapter.rule
async def it_ends_with_an_answer(server: Server) -> None:
    """Whoever asks for it again and again sees it end, completed and with an output.

    Source: Guide, Background mode (semantics.md §6).
    """
    answer = answer_in(await server.once(_over))
    expect_equal("the status", "completed", answer.status)
    expect(answer.output, "an output with an item in it", "none")


@chapter.rule
async def an_end_is_one(server: Server) -> None:
    """A response that has ended is the same object whenever it is asked for.

    Source: Guide, Background mode, which says to ask until the end (semantics.md §6, reliability.md §1).
    """
    over = await server.once(_over)
    again = await server.get(f"/responses/{answer_in(over).id}")
    expect_same(
        "the response to stay", read(object, over.body, "a response"), read(object, again.expect(200).body, "one")
    )


@chapter.rule
async def its_end_looks_as_any_answer(server: Server) -> None:
    """A background response that is completed has all keys, and items with all of their fields.

    Source: API reference, The response object (objects.md §2, §6).
    """
    over = await server.once(_over)
    read(ResponseShape, over.body, "a response")
    for item in output_items(over.body):
        read_item(item)


@chapter.rule
async def it_continues_another(server: Server) -> None:
    """A background response may name a previous response, and does so from its beginning to its end.

    Source: Guide, Conversation state; guide, Background mode (semantics.md §1, §6).
    """
    parent = answer_in(await server.once(plain))
    child = answer_in(await server.post(input=GREETING, background=True, previous_response_id=parent.id))
    over = answer_in(await ended(server, child.id))
    expect_equal("previous_response_id", [parent.id] * 2, [child.previous_response_id, over.previous_response_id])
    expect_equal("the status", "completed", over.status)


@chapter.rule
async def it_can_be_continued(server: Server) -> None:
    """A background response that is completed can be a previous response.

    Source: Guide, Conversation state (semantics.md §1).
    """
    over = answer_in(await server.once(_over))
    child = await create(server, input="Once more.", previous_response_id=over.id)
    expect_equal("previous_response_id", over.id, child.previous_response_id)
    expect_equal("the status", "completed", child.status)


@chapter.needing(INPUT_ITEMS)
async def its_input_is_listed(server: Server) -> None:
    """The input items of a background response are what it was given.

    Source: API reference, List input items (semantics.md §3).
    """
    over = answer_in(await server.once(_over))
    reply = (await server.get(f"/responses/{over.id}/input_items")).expect(200)
    expect_equal(
        "the texts of the items", [GREETING], [item.text for item in read(Page, reply.body, "a list of items").data]
    )


@chapter.rule
async def it_may_end_with_a_call(server: Server) -> None:
    """A background response may end with a call of a tool, which is completed, and the output continues it.

    Source: Guide, Background mode; guide, Function calling (semantics.md §6, §7).
    """
    reply = await server.post(input="What time is it?", background=True, tools=[CLOCK], tool_choice="required")
    skip_if_refused(reply, TOOLS)
    over = answer_in(await ended(server, answer_in(reply).id))
    expect_equal("the status", "completed", over.status)
    expect(over.calls, "a call", [item.type for item in over.output])
    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "13:00"} for call in over.calls]
    after = await create(server, input=outputs, tools=[CLOCK], previous_response_id=over.id)
    expect_equal("the status after the output", "completed", after.status)


@chapter.rule
async def what_is_not_stored_can_be_waited_for(server: Server) -> None:
    """With store false a background response can be asked for until it ends, and some minutes longer.

    Source: Guide, Background mode (semantics.md §5). Servers may ask for store true and say so.
    """
    reply = await server.post(input=GREETING, background=True, store=False)
    skip_if_refused(reply, ("store", "background"))
    over = answer_in(await ended(server, answer_in(reply).id))
    expect_equal("the status", "completed", over.status)


@chapter.rule
async def a_wrong_request_is_refused_at_once(server: Server) -> None:
    """What can be refused before the answer begins is refused at once, in the background too, and nothing is begun.

    Source: Guide, Error codes (http.md §6.4).
    """
    refusal_in(await server.post(input=7, background=True), param="input")
    reply = await server.post(input=GREETING, background=True, previous_response_id=UNKNOWN)
    refusal_in(reply, param="previous_response_id")


@chapter.needing(BACKGROUND_STREAM)
async def a_background_stream_keeps_the_grammar(server: Server) -> None:
    """The events of a background response are those of any stream; it may be told that it is queued.

    Source: Guide, Background mode; guide, Streaming responses (events.md §4, §7).
    """
    stream = await server.once(_streamed)
    for rule in grammar.ALL:
        rule(stream)


@chapter.needing(BACKGROUND_STREAM)
async def the_last_event_is_what_is_kept(server: Server) -> None:
    """The response in the last event is the one that is found afterwards.

    Source: API reference, Get a model response (http.md §1, events.md §7).
    """
    stream = await server.once(_streamed)
    kept = await server.get(f"/responses/{stream.answer.id}")
    expect_same(
        "the kept response to be the last event's",
        read(object, stream.response, "a response"),
        read(object, kept.expect(200).body, "a response"),
    )


@chapter.needing(BACKGROUND_STREAM)
async def a_stream_can_be_read_again(server: Server) -> None:
    """With stream=true a background response that was streamed tells all of its events again, from the first.

    Source: Guide, Background mode; openai-python's stream helper, which asks for all of them (events.md §7).
    """
    stream = await server.once(_streamed)
    expect_same("the events told again", _told(stream), _told(await _followed(server, stream.answer.id)))


@chapter.needing(BACKGROUND_STREAM)
async def a_stream_goes_on_behind_a_number(server: Server) -> None:
    """With starting_after=N the events are those with a greater sequence_number, all of them and the same ones.

    Source: Guide, Background mode; API reference, Get a model response (events.md §7).
    """
    stream = await server.once(_streamed)
    events = _told(stream)
    for place in dict.fromkeys((0, len(events) // 2, len(events) - 2)):
        number = stream.events[place].sequence_number
        rest = await _followed(server, stream.answer.id, starting_after=str(number))
        expect_same(f"the events behind number {number}", events[place + 1 :], _told(rest))


@chapter.needing(BACKGROUND_STREAM)
async def a_wrong_number_is_refused(server: Server) -> None:
    """What is no number is no place in a stream: status 400.

    Source: API reference, Get a model response; guide, Error codes (http.md §1, §6.2).
    """
    stream = await server.once(_streamed)
    reply = await server.get(f"/responses/{stream.answer.id}", stream="true", starting_after="many")
    refusal_in(reply, param="starting_after")


@chapter.needing(BACKGROUND_STREAM)
async def a_lost_stream_is_picked_up(server: Server) -> None:
    """Who loses the connection and asks for what comes behind the last event seen has the whole stream: no event
    twice, and none missing.

    Source: Guide, Background mode (events.md §7).
    """
    seen = await _left(server, "Say hello, and goodbye.", events=2)
    response_id = _id_in(seen)
    rest = await _followed(server, response_id, starting_after=str(seen.events[-1].sequence_number))
    whole = Stream(rest.reply, [*seen.frames, *rest.frames], [*seen.events, *rest.events])
    for rule in (grammar.numbering, grammar.lifecycle, grammar.pairing, grammar.output):
        rule(whole)
    expect_equal("the status", "completed", whole.answer.status)


def _id_in(stream: Stream) -> str:
    return read(Answer, stream.events[0].response, "the response in the first event").id


@chapter.needing(BACKGROUND_STREAM)
async def nobody_has_to_listen(server: Server) -> None:
    """A background response is made to its end when the one who asked for its events has left.

    Source: Guide, Background mode (events.md §7).
    """
    seen = await _left(server, "Say hello to nobody.", events=1)
    over = answer_in(await ended(server, _id_in(seen)))
    expect_equal("the status", "completed", over.status)
    expect(over.output, "an output with an item in it", "none")


@chapter.needing(BACKGROUND_STREAM)
async def several_can_follow(server: Server) -> None:
    """Several clients may follow one background response at the same time, and are told the same.

    Source: Guide, Background mode, streams by GET (events.md §7).
    """
    seen = await _left(server, "Say hello to all of us.", events=1)
    response_id = _id_in(seen)
    streams = await asyncio.gather(*(_followed(server, response_id) for _ in range(3)))
    grammar.lifecycle(streams[0])
    for other in streams[1:]:
        expect_same("what another one is told", _told(streams[0]), _told(other))


@chapter.needing(BACKGROUND_STREAM)
async def what_is_followed_may_leave_out_its_padding(server: Server) -> None:
    """With include_obfuscation=false the events that are told again have no obfuscation.

    Source: API reference, Get a model response; stream_options (http.md §1, events.md §1).
    """
    stream = await server.once(_streamed)
    followed = await _followed(server, stream.answer.id, include_obfuscation="false")
    for event in followed.events:
        fields = read(dict[str, msgspec.Raw], event.raw, "an event")
        expect("obfuscation" not in fields, "no obfuscation", event.type, at=event.raw)
    expect_equal("the last event", stream.events[-1].type, followed.events[-1].type)


@chapter.needing(DELETION, BACKGROUND_STREAM)
async def what_was_deleted_cannot_be_followed(server: Server) -> None:
    """A background response that is over can be deleted, and then neither it nor its events are found.

    Source: API reference, Delete a model response (semantics.md §5, http.md §6.3).
    """
    stream = Stream.of(await server.post(input="Say hello and vanish.", background=True, stream=True))
    path = f"/responses/{stream.answer.id}"
    (await server.delete(path)).expect(200)
    refusal_in(await server.get(path), 404)
    refusal_in(await server.get(path, stream="true"), 404)


async def _cancelled(server: Server) -> Reply:
    """What a cancel was answered with. Raises NotApplicable when every response was over before it came."""
    for _ in range(_TRIES):
        answer = answer_in(await server.post(input=_LONG, background=True))
        reply = (await server.send("POST", f"/responses/{answer.id}/cancel")).expect(200)
        if (status := answer_in(reply).status) not in _OVER:
            return reply
    raise NotApplicable(f"every response was {status} before it could be cancelled")


_OVER: Sequence[str] = [kind.removeprefix("response.") for kind in TERMINAL]


@chapter.needing(CANCEL)
async def a_cancel_ends_it(server: Server) -> None:
    """A background response that is cancelled while it is made has the status cancelled, and no time of completion.

    Source: API reference, Cancel a response; guide, Background mode (http.md §6.3).
    """
    reply = await server.once(_cancelled)
    expect_equal("the status", "cancelled", answer_in(reply).status)
    expect_equal("completed_at", None, read(_Begun, reply.body, "a response").completed_at)


@chapter.needing(CANCEL)
async def a_cancelled_response_stays_cancelled(server: Server) -> None:
    """Whoever asks for a cancelled response later is told that it is cancelled.

    Source: Guide, Background mode (semantics.md §6, reliability.md §1).
    """
    cancelled = answer_in(await server.once(_cancelled))
    over = answer_in(await ended(server, cancelled.id))
    expect_equal("the status", "cancelled", over.status)


@chapter.needing(CANCEL)
async def cancelling_twice_changes_nothing(server: Server) -> None:
    """A second cancel is no error, and is answered as the first.

    Source: Guide, Background mode: cancelling twice is idempotent (http.md §6.3, semantics.md §6).
    """
    first = await server.once(_cancelled)
    second = await server.send("POST", f"/responses/{answer_in(first).id}/cancel")
    expect_equal("the status of both", answer_in(first).status, answer_in(second).status)


@chapter.needing(CANCEL)
async def a_response_that_is_over_is_not_cancelled(server: Server) -> None:
    """Cancelling a background response that has ended is answered with that response, unchanged.

    Source: Guide, Background mode (http.md §6.3, semantics.md §6).
    """
    over = await server.once(_over)
    reply = await server.send("POST", f"/responses/{answer_in(over).id}/cancel")
    expect_same(
        "the response to stay", read(object, over.body, "a response"), read(object, reply.expect(200).body, "one")
    )


@chapter.needing(CANCEL)
async def only_what_is_in_the_background_can_be_cancelled(server: Server) -> None:
    """Cancelling a response that was not made in the background is status 400.

    Source: API reference, Cancel a response (http.md §6.3).
    """
    answer = answer_in(await server.once(plain))
    refusal_in(await server.send("POST", f"/responses/{answer.id}/cancel"))


@chapter.needing(CANCEL)
async def what_is_unknown_cannot_be_cancelled(server: Server) -> None:
    """Cancelling a response that is not there is status 404.

    Source: API reference, Cancel a response (http.md §6.2).
    """
    refusal_in(await server.send("POST", f"/responses/{UNKNOWN}/cancel"), 404)
