"""A create call over a WebSocket: how it opens, what is said over it, and what is refused there."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from rejoinder.conformance import grammar
from rejoinder.conformance.answer import read, refusal_in
from rejoinder.conformance.errors import NoAnswer, NotApplicable
from rejoinder.conformance.expectation import expect, expect_distinct, expect_equal
from rejoinder.conformance.frames import DONE
from rejoinder.conformance.need import KEY, UPGRADE, WEBSOCKET
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS, UNKNOWN
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.shape import EnvelopeShape, ResponseShape
from rejoinder.conformance.stream import LIFECYCLE, Stream
from rejoinder.conformance.talk import Talk, Turn, answered, talking

chapter = Chapter("websocket", "WebSocket", WEBSOCKET)

_UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def _greeted(server: Server) -> Sequence[Turn]:
    """Two greetings over one connection, the second after the first was answered."""
    async with talking(server) as talk:
        return [await talk.ask(input=GREETING, store=False) for _ in range(2)]


async def _called(server: Server) -> Turn:
    async with talking(server) as talk:
        turn = await talk.ask(input="What time is it?", tools=[CLOCK], tool_choice="required", store=False)
        return turn.unless_refused(*TOOLS)


async def _streams(server: Server) -> list[Stream]:
    turns = [*await server.once(_greeted)]
    with suppress(NotApplicable):  # the rules about tools say so
        turns.append(await server.once(_called))
    return [turn.stream for turn in turns]


async def _all(server: Server, *rules: Callable[[Stream], None]) -> None:
    for stream in await _streams(server):
        for rule in rules:
            rule(stream)


# The handshake.


@chapter.needing_only(UPGRADE)
async def a_request_is_answered(server: Server) -> None:
    """Over a connection that was opened a request is answered: with frames, whatever they say.

    Source: Guide, WebSocket mode (websocket.md §1, §2).
    """
    await server.once(answered)


@chapter.rule
async def an_upgrade_is_all_it_takes(server: Server) -> None:
    """A GET with an upgrade is answered with status 101, and no subprotocol is chosen where none was offered.

    Source: Guide, WebSocket mode (websocket.md §1).
    """
    reply = await server.send("GET", "/responses", headers=_UPGRADE)
    reply.expect(101)
    expect_equal("the subprotocol", None, reply.headers.get("sec-websocket-protocol"))


@chapter.rule
async def a_beta_header_does_not_matter(server: Server) -> None:
    """A socket opens with any OpenAI-Beta header, as it does without one.

    Source: Codex sends one with a date of its version, the SDKs none (websocket.md §1, codex.md §7).
    """
    for date in ("2025-01-01", "2026-02-06"):
        async with talking(server, headers={"openai-beta": f"responses_websockets={date}"}) as talk:
            (await talk.ask(input=GREETING, store=False)).answer  # noqa: B018 - it raises where there is none


@chapter.needing(KEY)
async def a_handshake_without_its_key_is_refused(server: Server) -> None:
    """Where a key is asked for, a handshake without one is status 401 with the error as JSON, and no socket opens.

    Source: Guide, WebSocket mode; guide, Error codes (websocket.md §1).
    """
    reply = await server.send("GET", "/responses", with_key=False, headers=_UPGRADE)
    refusal_in(reply, 401)
    read(EnvelopeShape, reply.body, "an error (status 401)")
    expect_equal("the content type of an error", "application/json", reply.media_type)


@chapter.rule
async def pings_are_answered(server: Server) -> None:
    """A ping of the protocol is answered, with what it carried.

    Source: RFC 6455; clients of Python's websockets close a connection that does not (websocket.md §1).
    """
    async with talking(server) as talk:
        await talk.socket.ping(b"hello?")
        # Frames are answered in their order, so that nobody has to wait for a pong that does not come.
        await talk.ask(input=GREETING, store=False)
        expect_equal("the answer to a ping", [b"hello?"], talk.socket.pongs)


# What is said.


@chapter.rule
async def frames_are_text(server: Server) -> None:
    """Every frame of the server is one of text.

    Source: Codex takes a binary frame for a broken connection (websocket.md §1, codex.md §7).
    """
    async with talking(server) as talk:
        await talk.ask(input=GREETING, store=False)
        expect(not talk.socket.binary, "frames of text", "a binary frame", at=b"".join(talk.socket.binary[:1]))


@chapter.rule
async def a_frame_is_one_event(server: Server) -> None:
    """A frame is one JSON object with a type; a `[DONE]` comes after the end of a response, if at all.

    Source: Guide, WebSocket mode; Open Responses, WebSocket, [DONE] (websocket.md §3, open-responses.md §6).
    """
    for number, turn in enumerate(await server.once(_greeted)):
        for place, message in enumerate(turn.messages):
            ended = number > 0 and place == 0 and message.raw == DONE.encode()
            expect(
                message.type or ended, "an event in every frame", message.raw.decode(errors="replace"), at=message.raw
            )


@chapter.rule
async def frames_have_the_fields_of_events(server: Server) -> None:
    """The events are those of a stream, with the same fields.

    Source: Guide, WebSocket mode; Open Responses compliance suite, websocket-response (websocket.md §3, events.md §3).
    """
    await _all(server, grammar.fields)


@chapter.rule
async def sequence_numbers_begin_anew(server: Server) -> None:
    """Every response counts its own events, from 0 on, also the second one of a connection.

    Source: Guide, WebSocket mode (websocket.md §3, events.md §1).
    """
    await _all(server, grammar.numbering)


@chapter.rule
async def a_turn_begins_and_ends_as_a_stream_does(server: Server) -> None:
    """It begins with response.created and response.in_progress, which are empty, and ends with one terminal event, all
    of one response.

    Source: Guide, WebSocket mode; Open Responses compliance suite, websocket-response (websocket.md §3, events.md §4).
    """
    await _all(server, grammar.lifecycle, grammar.beginnings)


@chapter.rule
async def responses_in_frames_are_whole(server: Server) -> None:
    """The response in an event has every key.

    Source: Open Responses compliance suite, websocket-response (open-responses.md §4, §9).
    """
    for stream in await _streams(server):
        for event in stream.events:
            if event.type in LIFECYCLE:
                read(ResponseShape, event.response, f"the response in '{event.type}'")


@chapter.rule
async def items_are_added_and_done_over_a_socket(server: Server) -> None:
    """Items are added empty, in their order, and each is done once, as the same item.

    Source: Guide, WebSocket mode; guide, Streaming responses (websocket.md §3, events.md §4).
    """
    await _all(server, grammar.added_items, grammar.pairing)


@chapter.rule
async def parts_are_told_and_add_up_over_a_socket(server: Server) -> None:
    """Parts are added, told and done one after the other, and their deltas add up to what is done.

    Source: Guide, WebSocket mode; guide, Streaming responses (websocket.md §3, events.md §4).
    """
    await _all(server, grammar.bodies, grammar.deltas)


@chapter.rule
async def the_output_is_what_was_done_over_a_socket(server: Server) -> None:
    """The output at the end is exactly the items that were done.

    Source: Guide, WebSocket mode; Codex knows only items that were done (websocket.md §3, codex.md §5).
    """
    await _all(server, grammar.output)


class _Usage(Struct):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class _Used(Struct):
    usage: _Usage


@chapter.rule
async def usage_is_told_over_a_socket(server: Server) -> None:
    """The response at the end tells its input tokens, its output tokens and their sum.

    Source: API reference, usage; Codex goes by it (websocket.md §3, codex.md §5).
    """
    for stream in await _streams(server):
        usage = read(_Used, stream.response, "the response at the end").usage
        expect_equal("total_tokens", usage.input_tokens + usage.output_tokens, usage.total_tokens)


@chapter.rule
async def responses_of_a_connection_are_distinct(server: Server) -> None:
    """Two responses of one connection are two, each completed and with an id of its own, and so are their items.

    Source: Open Responses compliance suite, websocket-sequential-responses (open-responses.md §9).
    """
    answers = [turn.answer for turn in await server.once(_greeted)]
    expect_equal("twice the status", ["completed"] * 2, [answer.status for answer in answers])
    expect_distinct("the ids of two responses", [answer.id for answer in answers])
    expect_distinct("the ids of their items", [item.id for answer in answers for item in answer.output])


@chapter.rule
async def a_second_request_waits_for_the_first(server: Server) -> None:
    """A request that comes while another one is answered is answered after it, and their events do not mix.

    Source: Guide, WebSocket mode; Open Responses, WebSocket, one response at a time (websocket.md §4).
    """
    async with talking(server) as talk:
        for number in ("first", "second"):
            await talk.socket.create(input=GREETING, store=False, instructions=number)
        turns = await talk.hear(2)
        expect_equal("the answers", ["first", "second"], [turn.answer.instructions for turn in turns])
        for turn in turns:
            grammar.lifecycle(turn.stream)


# What is taken.


async def _taken(server: Server, **fields: Json) -> None:
    async with talking(server) as talk:
        answer = (await talk.ask(input=GREETING, store=False, **fields)).answer
        expect_equal("the status", "completed", answer.status)


@chapter.rule
async def stream_may_be_said_and_changes_nothing(server: Server) -> None:
    """A request that says `stream` true is taken as one that does not.

    Source: openai-agents and Codex say it in every frame (websocket.md §2, codex.md §2).
    """
    await _taken(server, stream=True)


@chapter.rule
async def metadata_of_a_client_is_taken(server: Server) -> None:
    """A request may carry `client_metadata`, a map of texts.

    Source: Codex sends it in every frame (websocket.md §2, codex.md §2).
    """
    await _taken(server, client_metadata={"thread_id": "t-1", "x-codex-ws-stream-request-start-ms": "1795216962011"})


_LARGE = 5 * 1024 * 1024


@chapter.rule
async def a_large_message_is_read(server: Server) -> None:
    """A message of five mebibytes is read: what is wrong in it is refused as in any other, and the connection stays.

    Source: the SDKs have no limit, and inputs with images are as large (websocket.md §1).
    """
    async with talking(server) as talk:
        # Something is wrong with it, so that no model has to read it.
        turn = await talk.ask(input=7, instructions="x" * _LARGE)
        turn.refusal()
        expect(turn.end.status != 413, "an error about what is in the message", turn.end.raw[:200], at=turn.end.raw)
        await _goes_on(talk)


# What is refused.


async def _goes_on(talk: Talk) -> None:
    """Raises Broken when the connection does not answer any more."""
    expect_equal("the status", "completed", (await talk.ask(input=GREETING, store=False)).answer.status)


async def _refused(server: Server) -> Sequence[Turn]:
    """What is wrong with requests in several ways, each over a connection of its own."""
    turns = []
    wrong: Sequence[dict[str, Json]] = (
        {"input": 7},
        {"input": GREETING, "model": "no-such-model-here"},
        {"input": GREETING, "previous_response_id": UNKNOWN},
        {"input": [{"type": "function_call_output", "call_id": "call_stray", "output": "12:00"}]},
    )
    for fields in wrong:
        async with talking(server) as talk:
            turns.append(await talk.ask(store=False, **fields))
    return turns


class _SpokenError(Struct):
    code: str
    message: Annotated[str, Meta(min_length=1)]
    type: str | UnsetType = UNSET
    param: str | UnsetType | None = UNSET


class _ErrorShape(Struct):
    status: Annotated[int, Meta(ge=400, le=599)]
    error: _SpokenError


@chapter.rule
async def an_error_has_a_status_and_a_code(server: Server) -> None:
    """An error frame has its HTTP status as an integer beside the error, and in that a code, which is a text here, and
    a message.

    Source: Open Responses, WebSocket, errors; Codex hangs without the status (websocket.md §6, §10, codex.md §9).
    """
    for turn in await server.once(_refused):
        if turn.end.type == "error":
            read(_ErrorShape, turn.end.raw, "an error frame")


@chapter.rule
async def a_wrong_request_is_an_error_frame(server: Server) -> None:
    """What is refused before it begins is one frame of the type error, and no response.

    Source: Guide, WebSocket mode, errors (websocket.md §6).
    """
    value, _, previous, _ = await server.once(_refused)
    # The other two may be for somebody behind the server to find.
    for turn in (value, previous):
        expect_equal("the frames", ["error"], [message.type for message in turn.messages], at=turn.end.raw)


@chapter.rule
async def a_wrong_value_is_named_over_a_socket(server: Server) -> None:
    """A parameter of the wrong type is status 400 and named, as over HTTP.

    Source: Guide, WebSocket mode, errors; guide, Error codes (websocket.md §6, http.md §6.2).
    """
    wrong = (await server.once(_refused))[0]
    wrong.refusal(param="input")
    expect(wrong.end.status in (400, None), "the status 400", wrong.end.status, at=wrong.end.raw)


@chapter.rule
async def an_unknown_model_is_refused_over_a_socket(server: Server) -> None:
    """A model that is not there is refused with the code model_not_found.

    Source: Guide, Error codes; Codex gives up at once on this code (websocket.md §6, http.md §6.2).
    """
    (await server.once(_refused))[1].refusal(code="model_not_found")


@chapter.rule
async def an_unknown_previous_response_is_refused_over_a_socket(server: Server) -> None:
    """A previous response that is nowhere is the code previous_response_not_found, and names the parameter.

    Source: Guide, WebSocket mode; Open Responses compliance suite, websocket-previous-response-not-found
    (websocket.md §6, open-responses.md §9).
    """
    (await server.once(_refused))[2].refusal(param="previous_response_id", code="previous_response_not_found")


@chapter.rule
async def the_model_is_named_every_time(server: Server) -> None:
    """A request without a model is refused, also after one that had it.

    Source: Guide, WebSocket mode (websocket.md §2).
    """
    async with talking(server) as talk:
        await talk.ask(input=GREETING, store=False)
        await talk.socket.send(b'{"type": "response.create", "input": "Say hello.", "store": false}')
        [turn] = await talk.hear(1)
        turn.refusal(param="model")


@chapter.rule
async def background_is_refused_over_a_socket(server: Server) -> None:
    """A socket is no place for a background response: the request is refused.

    Source: Open Responses, WebSocket: background is not sent (websocket.md §2, open-responses.md §6).
    """
    async with talking(server) as talk:
        (await talk.ask(input=GREETING, background=True)).refusal()


@chapter.rule
async def a_connection_survives_wrong_requests(server: Server) -> None:
    """After a request that was refused the connection answers the next one.

    Source: Guide, WebSocket mode, errors (websocket.md §5, §6).
    """
    async with talking(server) as talk:
        await talk.ask(input=7, store=False)
        await talk.ask(input=GREETING, store=False, previous_response_id=UNKNOWN)
        await _goes_on(talk)


async def _strange(server: Server, frame: bytes) -> None:
    """A frame that is no request of any kind, and a greeting right after it."""
    async with talking(server) as talk:
        try:
            await talk.socket.send(frame)
            await talk.socket.create(input=GREETING, store=False)
            [turn] = await talk.hear(1)
            refusal_in(turn.reply)
            [greeted] = await talk.hear(1)
        except NoAnswer:
            if talk.socket.close_code is None:
                raise
            raise NotApplicable(
                f"the server ends the connection (close code {talk.socket.close_code}), which nobody forbids"
            ) from None
        expect_equal("the status of what was asked next", "completed", greeted.answer.status)


@chapter.rule
async def what_is_no_object_is_refused_over_a_socket(server: Server) -> None:
    """A frame that is no JSON object is answered with an error, and what was asked right after it is answered, too.

    Source: Guide, Error codes, on what is no JSON (websocket.md §6).
    """
    for frame in (b"{", b"null", b"[]", b'"hello"', b"7"):
        await _strange(server, frame)


@chapter.rule
async def an_unknown_type_is_refused(server: Server) -> None:
    """A frame of a type that is none, or that has no type, is answered with an error, and what was asked right after it
    is answered, too.

    Source: Guide, WebSocket mode, on what a client may send (websocket.md §2, §6).
    """
    for frame in (msgspec.json.encode({"type": "response.append", "input": GREETING}), b"{}"):
        await _strange(server, frame)
