"""Lanes: several conversations over one WebSocket, told apart by their `stream_id`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rejoinder.conformance import grammar
from rejoinder.conformance.answer import Answer, input_tokens_of
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal
from rejoinder.conformance.need import LANES, WEBSOCKET
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import GREETING
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.talk import Message, Talk, Turn, talking

chapter = Chapter("lanes", "WebSocket: lanes", WEBSOCKET, LANES)

_MOST = 32
_QUEUE = 6
"""Requests that wait in one lane while another one has a single one."""

_TELLING = 0.25
"""Seconds for all of them that show something: a server may read nothing for a moment."""

_LONG = "word " * 400
_STRAY: Json = [{"type": "function_call_output", "call_id": "call_stray", "output": "12:00"}]
"""An input that fails whatever it continues."""


async def _ask(talk: Talk, lane: str, **fields: Json) -> None:
    await talk.socket.create(**{"input": GREETING, "store": False, "stream_id": lane, **fields})


async def _said(talk: Talk, lane: str, **fields: Json) -> Answer:
    await _ask(talk, lane, **fields)
    [turn] = await talk.hear(1)
    expect_equal("the status", "completed", turn.answer.status)
    return turn.answer


async def _refused(talk: Talk, lane: str, **fields: Json) -> Turn:
    await _ask(talk, lane, **fields)
    # Whether the error names its lane is for the rules that speak of it.
    turn = Turn(await talk.messages(1))
    turn.refusal()
    return turn


def _lanes(messages: Sequence[Message]) -> set[str | None]:
    return {message.stream_id for message in messages if message.is_of_a_stream}


# Names.


@chapter.rule
async def every_event_names_its_lane(server: Server) -> None:
    """Every event of a request that has a stream_id carries it.

    Source: Guide, WebSocket mode, lanes (websocket.md §3, §4).
    """
    async with talking(server) as talk:
        await _ask(talk, "a-lane")
        expect_equal("the lanes of the events", {"a-lane"}, _lanes(await talk.messages(1)))


@chapter.rule
async def events_without_a_lane_name_none(server: Server) -> None:
    """The events of a request without a stream_id carry none, also where other lanes have one.

    Source: Guide, WebSocket mode, lanes (websocket.md §3, §4).
    """
    async with talking(server) as talk:
        await _ask(talk, "a-lane")
        await talk.messages(1)
        await talk.socket.create(input=GREETING, store=False)
        expect_equal("the lanes of the events", {None}, _lanes(await talk.messages(1)))


@chapter.rule
async def an_error_names_its_lane(server: Server) -> None:
    """The error of a request that has a stream_id carries it.

    Source: Guide, WebSocket mode, errors (websocket.md §6).
    """
    async with talking(server) as talk:
        turn = await _refused(talk, "a-lane", input=7)
        expect_equal("the stream_id of the error", "a-lane", turn.end.stream_id, at=turn.end.raw)


@chapter.rule
async def a_name_may_be_long_and_of_many_kinds(server: Server) -> None:
    """A stream_id has up to 256 letters, digits, `_`, `.` and `-`, in any order.

    Source: Guide, WebSocket mode, lanes (websocket.md §4).
    """
    async with talking(server) as talk:
        for name in ("x" * 256, "...", "-_-", "A.b_c-9"):
            await _said(talk, name)


_WRONG = ("", "x" * 257, "a lane", "a/lane", "lané")


@chapter.rule
async def a_wrong_name_is_refused(server: Server) -> None:
    """A stream_id that is empty, too long, or has other characters is status 400, code invalid_stream_id, and named.

    Source: Guide, WebSocket mode, errors (websocket.md §4, §6).
    """
    async with talking(server) as talk:
        for name in _WRONG:
            turn = await _refused(talk, name)
            turn.refusal(param="stream_id", code="invalid_stream_id")
            expect_equal("the status", 400, turn.end.status, at=turn.end.raw)


@chapter.rule
async def a_wrong_name_is_not_repeated(server: Server) -> None:
    """The error about a stream_id that is none carries none.

    Source: Guide, WebSocket mode, errors (websocket.md §6).
    """
    async with talking(server) as talk:
        turn = await _refused(talk, "a lane")
        expect_equal("the stream_id of the error", None, turn.end.stream_id, at=turn.end.raw)


# How many there may be.


@dataclass(frozen=True, slots=True)
class _Crowd:
    """What came when every lane there may be was asked for at once, then one more, an old one, and none."""

    first: Sequence[Turn]
    more: Turn
    old: Turn
    default: Turn


async def _crowd(server: Server) -> _Crowd:
    async with talking(server) as talk:
        for number in range(_MOST):
            await _ask(talk, f"lane-{number}", instructions="Be brief.")
        first = await talk.hear(_MOST)
        rest = []
        for fields in ({"stream_id": "lane-too-many"}, {"stream_id": "lane-0"}, {}):
            await talk.socket.create(input=GREETING, store=False, **fields)
            rest.append(Turn(await talk.messages(1)))
        return _Crowd(first, *rest)


@chapter.rule
async def more_requests_than_are_served_at_once_wait(server: Server) -> None:
    """A connection has up to 32 lanes; of requests in all of them some may wait, and none is refused.

    Source: Guide, WebSocket mode, lanes (websocket.md §4).
    """
    answers = [turn.answer for turn in (await server.once(_crowd)).first]
    expect_distinct("the ids of 32 responses", [answer.id for answer in answers])


@chapter.rule
async def one_lane_too_many_is_refused(server: Server) -> None:
    """The 33rd name of a connection is status 400 and the code websocket_stream_limit_reached, though the other lanes
    have nothing to do any more.

    Source: Guide, WebSocket mode, lanes and errors (websocket.md §4, §6).
    """
    turn = (await server.once(_crowd)).more
    turn.refusal(param="stream_id", code="websocket_stream_limit_reached")
    expect_equal("the status", 400, turn.end.status, at=turn.end.raw)


@chapter.rule
async def the_lane_that_is_too_many_is_named(server: Server) -> None:
    """The error about one lane too many carries its stream_id.

    Source: Guide, WebSocket mode, errors (websocket.md §6).
    """
    end = (await server.once(_crowd)).more.end
    expect_equal("the stream_id of the error", "lane-too-many", end.stream_id, at=end.raw)


@chapter.rule
async def an_old_lane_is_served_when_no_new_one_is(server: Server) -> None:
    """A connection that has all its lanes goes on serving them.

    Source: Guide, WebSocket mode, errors: reuse an existing stream_id (websocket.md §6).
    """
    expect_equal("the status", "completed", (await server.once(_crowd)).old.answer.status)


@chapter.rule
async def the_lane_without_a_name_does_not_count(server: Server) -> None:
    """A request without a stream_id is answered beside 32 lanes that have one.

    Source: Guide, WebSocket mode, lanes (websocket.md §4).
    """
    expect_equal("the status", "completed", (await server.once(_crowd)).default.answer.status)


@chapter.rule
async def every_connection_counts_its_own_lanes(server: Server) -> None:
    """A new connection has all its names before it, however many others have used.

    Source: Guide, WebSocket mode, errors: open a new connection (websocket.md §4, §6).
    """
    await server.once(_crowd)
    async with talking(server) as talk:
        await _said(talk, "lane-too-many")


# Side by side.


async def _queue(server: Server) -> Sequence[Turn]:
    """Several requests in one lane and a single one in another, asked for last, all without waiting."""
    async with talking(server) as talk:
        for number in range(_QUEUE):
            await _ask(talk, "long", instructions=f"number {number}")
        await _ask(talk, "short", instructions="short")
        return await talk.hear(_QUEUE + 1)


@chapter.rule
async def a_lane_answers_in_its_order(server: Server) -> None:
    """The requests of one lane are answered in the order in which they came, and their events do not mix.

    Source: Guide, WebSocket mode, lanes (websocket.md §4).
    """
    found = [turn for turn in await server.once(_queue) if turn.end.stream_id == "long"]
    expect_equal(
        "the answers", [f"number {number}" for number in range(_QUEUE)], [turn.answer.instructions for turn in found]
    )
    for turn in found:
        grammar.lifecycle(turn.stream)


@chapter.rule
async def lanes_do_not_wait_for_each_other(server: Server) -> None:
    """A request in a lane of its own does not wait for all that was asked for before it in another lane.

    Source: Guide, WebSocket mode: lanes run concurrently (websocket.md §4).
    """
    begun = time.monotonic()
    order = [turn.end.stream_id for turn in await _queue(server)]
    seconds = time.monotonic() - begun
    if order[-1] == "short" and seconds < _TELLING:
        raise NotApplicable(
            f"the server answers {len(order)} requests in {seconds:.3f} s, too fast to tell lanes apart"
        )
    # It was asked for at once. Who serves lanes side by side is through with it before six others, one after another.
    expect_equal("the lane that ends last", "long", order[-1])


@chapter.rule
async def lanes_count_their_events_apart(server: Server) -> None:
    """Sequence numbers belong to a response, and count on whatever happens in other lanes.

    Source: Guide, WebSocket mode, lanes (websocket.md §3, §4).
    """
    for turn in await server.once(_queue):
        grammar.numbering(turn.stream)


@chapter.rule
async def an_error_leaves_other_lanes_alone(server: Server) -> None:
    """When a request fails in one lane, those of other lanes and what comes next in its own are answered.

    Source: Guide, WebSocket mode, errors (websocket.md §5).
    """
    async with talking(server) as talk:
        await _ask(talk, "good")
        await _ask(talk, "bad", input=7)
        await _ask(talk, "bad")
        ends = [message for message in await talk.messages(3) if message.type == "response.completed"]
        expect_equal("the responses that are completed", 2, len(ends))


# What they remember.


@chapter.rule
async def each_lane_remembers_its_latest_response(server: Server) -> None:
    """What one lane said last can be continued without a store, though others have said something since.

    Source: Guide, WebSocket mode (websocket.md §5).
    """
    async with talking(server) as talk:
        first = await _said(talk, "a")
        for lane in ("b", "c", "b"):
            await _said(talk, lane)
        again = await _said(talk, "a", previous_response_id=first.id)
        expect_equal("previous_response_id", first.id, again.previous_response_id)


@chapter.rule
async def a_lane_is_no_conversation(server: Server) -> None:
    """A request that names no previous response begins anew, also in a lane where much was said.

    Source: Guide, WebSocket mode: stream_id is routing alone (websocket.md §4).
    """
    async with talking(server) as talk:
        alone = input_tokens_of(await _said(talk, "a"))
        await _said(talk, "b", input=f"Answer in one sentence. {_LONG}")
        after = await _said(talk, "b")
        expect_equal("previous_response_id", None, after.previous_response_id)
        expect(input_tokens_of(after) < alone + 200, f"about {alone} input tokens", input_tokens_of(after))


@chapter.rule
async def a_lane_continues_what_another_said(server: Server) -> None:
    """A lane is forked by naming its latest response in another lane, without a store; both go on from it.

    Source: Guide, WebSocket mode, forks (websocket.md §4).
    """
    async with talking(server) as talk:
        root = await _said(talk, "a")
        for lane in ("b", "a"):
            child = await _said(talk, lane, previous_response_id=root.id)
            expect_equal("previous_response_id", root.id, child.previous_response_id)


@chapter.rule
async def a_lane_continues_what_was_said_without_one(server: Server) -> None:
    """What was said without a stream_id can be continued in a lane, and what was said in a lane without one.

    Source: Guide, WebSocket mode, forks (websocket.md §4).
    """
    async with talking(server) as talk:
        root = (await talk.ask(input=GREETING, store=False)).answer
        child = await _said(talk, "a", previous_response_id=root.id)
        expect_equal("previous_response_id in a lane", root.id, child.previous_response_id)
        last = (await talk.ask(input=GREETING, store=False, previous_response_id=child.id)).answer
        expect_equal("previous_response_id without one", child.id, last.previous_response_id)


@chapter.rule
async def a_fork_that_fails_forgets_nothing(server: Server) -> None:
    """A continuation that fails in another lane leaves the response it named to its own lane.

    Source: Guide, WebSocket mode (websocket.md §5).
    """
    async with talking(server) as talk:
        root = await _said(talk, "a")
        await _refused(talk, "b", input=_STRAY, previous_response_id=root.id)
        again = await _said(talk, "a", previous_response_id=root.id)
        expect_equal("previous_response_id", root.id, again.previous_response_id)


@chapter.rule
async def a_failure_in_its_own_lane_forgets_the_parent(server: Server) -> None:
    """A continuation that fails in the lane of its parent makes that unknown, where nothing is stored.

    Source: Guide, WebSocket mode; Open Responses, WebSocket (websocket.md §5).
    """
    async with talking(server) as talk:
        root = await _said(talk, "a")
        await _refused(talk, "a", input=_STRAY, previous_response_id=root.id)
        again = await _refused(talk, "a", previous_response_id=root.id)
        again.refusal(code="previous_response_not_found")
