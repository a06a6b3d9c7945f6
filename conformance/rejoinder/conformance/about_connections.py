"""What a connection remembers: going on without a store, what is forgotten, and warm-ups."""

import msgspec

from rejoinder.conformance.answer import Answer, answer_in, create, input_tokens_of
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.need import COMPACTION, STORE, WARM_UP, WEBSOCKET
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import CLOCK, GREETING, TOOLS
from rejoinder.conformance.server import Json, Server
from rejoinder.conformance.shape import output_items
from rejoinder.conformance.talk import Talk, Turn, talking

chapter = Chapter("connections", "WebSocket: what a connection remembers", WEBSOCKET)

_LONG = "word " * 400
_NOT_FOUND = "previous_response_not_found"
_STRAY: Json = [{"type": "function_call_output", "call_id": "call_stray", "output": "12:00"}]
"""An input that fails whatever it continues."""


async def _said(talk: Talk, **fields: Json) -> Answer:
    """A response that is not stored."""
    answer = (await talk.ask(**{"input": GREETING, "store": False, **fields})).answer
    expect_equal("the status", "completed", answer.status)
    return answer


async def _continued(talk: Talk, before: Answer, **fields: Json) -> Answer:
    return await _said(talk, previous_response_id=before.id, **fields)


@chapter.rule
async def a_response_can_be_continued_without_a_store(server: Server) -> None:
    """The next request of a connection may name the response before, also where that is not stored, and so may every
    one after that.

    Source: Guide, WebSocket mode; Open Responses compliance suite, websocket-continuation (websocket.md §5).
    """
    async with talking(server) as talk:
        before = await _said(talk)
        for _ in range(3):
            answer = await _continued(talk, before)
            expect_equal("previous_response_id", before.id, answer.previous_response_id)
            before = answer


@chapter.rule
async def the_whole_lineage_is_remembered(server: Server) -> None:
    """What a connection remembers is everything that was said before, input and output, not the last response alone.

    Source: Guide, WebSocket mode, on the lineage in memory (websocket.md §5).
    """
    async with talking(server) as talk:
        alone = input_tokens_of(await _said(talk))
        child = await _continued(talk, await _said(talk, input=f"Answer in one sentence. {_LONG}"))
        grandchild = await _continued(talk, child)
        for tokens in (input_tokens_of(child), input_tokens_of(grandchild)):
            # 400 words were said at the beginning, and no tokenizer makes fewer tokens than half of that.
            expect(tokens >= alone + 200, f"at least {alone + 200} input tokens after a long beginning", tokens)


@chapter.rule
async def nothing_is_remembered_unless_it_is_named(server: Server) -> None:
    """A request that names no previous response, or null, begins a conversation, whatever was said over the connection.

    Source: Guide, WebSocket mode: lineage comes from previous_response_id alone (websocket.md §4, §8).
    """
    async with talking(server) as talk:
        alone = input_tokens_of(await _said(talk))
        await _said(talk, input=f"Answer in one sentence. {_LONG}")
        for answer in (await _said(talk), await _said(talk, previous_response_id=None)):
            expect_equal("previous_response_id", None, answer.previous_response_id)
            expect(input_tokens_of(answer) < alone + 200, f"about {alone} input tokens", input_tokens_of(answer))


@chapter.rule
async def settings_hold_for_one_request_of_a_connection(server: Server) -> None:
    """Instructions and tools are those of each request, and never those of the one before.

    Source: Guide, WebSocket mode (websocket.md §2).
    """
    async with talking(server) as talk:
        turn = await talk.ask(input=GREETING, store=False, instructions="Be brief.", tools=[CLOCK])
        after = await _said(talk, previous_response_id=turn.unless_refused(*TOOLS).answer.id)
        expect_equal("the instructions", None, after.instructions)
        expect_equal("the tools", [], after.tools)


@chapter.rule
async def an_older_response_is_continued_or_refused(server: Server) -> None:
    """A connection keeps its latest response. One before that, which is not stored, is continued all the same or
    refused as not found; it is never ignored.

    Source: Guide, WebSocket mode (websocket.md §5).
    """
    async with talking(server) as talk:
        old = await _said(talk, input=f"Answer in one sentence. {_LONG}")
        alone = input_tokens_of(await _said(talk))
        turn = await talk.ask(input=GREETING, store=False, previous_response_id=old.id)
        if turn.reply.status == 200:
            tokens = input_tokens_of(turn.answer)
            expect(tokens >= alone + 200, f"at least {alone + 200} input tokens after a long beginning", tokens)
        else:
            turn.refusal(code=_NOT_FOUND)


@chapter.rule
async def outputs_continue_a_call_over_a_socket(server: Server) -> None:
    """The outputs of the calls alone, sent over the connection that made the calls, are answered without a store.

    Source: Guide, WebSocket mode; Codex sends nothing else (websocket.md §2, §5, codex.md §7).
    """
    async with talking(server) as talk:
        turn = await talk.ask(input="What time is it?", tools=[CLOCK], tool_choice="required", store=False)
        before = turn.unless_refused(*TOOLS).answer
        if not before.calls:
            raise NotApplicable("there is no call to go on from")
        outputs: Json = [
            {"type": "function_call_output", "call_id": call.call_id, "output": "12:00"} for call in before.calls
        ]
        after = await talk.ask(input=outputs, tools=[CLOCK], previous_response_id=before.id, store=False)
        expect_equal("the status", "completed", after.answer.status)
        expect(after.answer.output, "an answer to the outputs", "none")


@chapter.rule
async def an_incomplete_response_can_be_continued(server: Server) -> None:
    """A response that was cut is no failure: the connection goes on from it.

    Source: Guide, WebSocket mode, on what counts as a failure (websocket.md §5).
    """
    async with talking(server) as talk:
        turn = await talk.ask(input="Count from one to two hundred, in words.", max_output_tokens=16, store=False)
        cut = turn.unless_refused("max_output_tokens").answer
        if cut.status == "completed":
            raise NotApplicable("the model had no more to say than the limit allows")
        await _continued(talk, cut)


# With a store.


@chapter.needing(STORE)
async def an_older_stored_response_can_be_continued(server: Server) -> None:
    """A stored response can be continued, however many came after it.

    Source: Guide, WebSocket mode (websocket.md §5).
    """
    async with talking(server) as talk:
        old = (await talk.ask(input=GREETING)).answer
        for _ in range(2):
            await talk.ask(input=GREETING)
        await _continued(talk, old)


@chapter.needing(STORE)
async def a_stored_response_is_known_to_every_connection(server: Server) -> None:
    """A response that one connection stored is continued over another one.

    Source: Guide, WebSocket mode (websocket.md §5).
    """
    async with talking(server) as talk:
        stored = (await talk.ask(input=GREETING)).answer
    async with talking(server) as talk:
        await _continued(talk, stored)


@chapter.needing(STORE)
async def a_connection_continues_what_came_over_http(server: Server) -> None:
    """A response that was made and stored over HTTP is continued over a socket.

    Source: Guide, WebSocket mode: other ids are loaded from the store (websocket.md §5).
    """
    stored = await create(server, input=GREETING)
    async with talking(server) as talk:
        await _continued(talk, stored)


@chapter.needing(STORE)
async def http_continues_what_came_over_a_connection(server: Server) -> None:
    """A response that was made and stored over a socket is continued over HTTP.

    Source: Guide, WebSocket mode; guide, Conversation state (websocket.md §5, semantics.md §1).
    """
    async with talking(server) as talk:
        stored = (await talk.ask(input=GREETING)).answer
    answer_in(await server.post(input=GREETING, previous_response_id=stored.id))


@chapter.needing(STORE)
async def a_stored_parent_outlives_a_failure(server: Server) -> None:
    """A stored response can be continued after an attempt that failed: it is loaded again.

    Source: Guide, WebSocket mode (websocket.md §5).
    """
    async with talking(server) as talk:
        stored = (await talk.ask(input=GREETING)).answer
        (await talk.ask(input=_STRAY, previous_response_id=stored.id)).refusal()
        await _continued(talk, stored)


# What is forgotten.


@chapter.rule
async def a_new_connection_remembers_nothing(server: Server) -> None:
    """What is not stored is lost with its connection: over the next one it is the code previous_response_not_found.

    Source: Guide, WebSocket mode; Open Responses compliance suite, websocket-reconnect-store-false-recovery
    (websocket.md §5, open-responses.md §9).
    """
    async with talking(server) as talk:
        lost = await _said(talk)
    async with talking(server) as talk:
        turn = await talk.ask(input=GREETING, store=False, previous_response_id=lost.id)
        turn.refusal(code=_NOT_FOUND)


@chapter.rule
async def connections_keep_to_themselves(server: Server) -> None:
    """What is not stored is known to its own connection alone, also while that is open.

    Source: Guide, WebSocket mode (websocket.md §5).
    """
    async with talking(server) as talk, talking(server) as other:
        secret = await _said(talk)
        turn = await other.ask(input=GREETING, store=False, previous_response_id=secret.id)
        turn.refusal(code=_NOT_FOUND)


@chapter.rule
async def what_a_connection_remembers_is_not_stored(server: Server) -> None:
    """What a connection remembers of responses that are not stored cannot be continued over HTTP.

    Source: Guide, WebSocket mode; guide, Conversation state (websocket.md §5, semantics.md §2).
    """
    async with talking(server) as talk:
        secret = await _said(talk)
        (await server.post(input=GREETING, previous_response_id=secret.id)).expect(400, 404)


@chapter.rule
async def a_fresh_start_recovers_a_connection(server: Server) -> None:
    """After a previous response was not found, the same connection answers a request that names none, and goes on from
    there.

    Source: Open Responses compliance suite, websocket-reconnect-store-false-recovery (open-responses.md §9).
    """
    async with talking(server) as talk:
        lost = await _said(talk)
    async with talking(server) as talk:
        await talk.ask(input=GREETING, store=False, previous_response_id=lost.id)
        await _continued(talk, await _said(talk))


@chapter.rule
async def a_failed_continuation_forgets_its_parent(server: Server) -> None:
    """When a continuation fails, the response it named is forgotten: the next attempt gets the code
    previous_response_not_found, where nothing is stored.

    Source: Guide, WebSocket mode; Open Responses compliance suite, websocket-failed-continuation-evicts-cache
    (websocket.md §5, open-responses.md §9).
    """
    async with talking(server) as talk:
        parent = await _said(talk)
        (await talk.ask(input=_STRAY, store=False, previous_response_id=parent.id)).refusal()
        again = await talk.ask(input=GREETING, store=False, previous_response_id=parent.id)
        again.refusal(code=_NOT_FOUND)


@chapter.needing(COMPACTION)
async def a_compacted_history_begins_a_chain(server: Server) -> None:
    """What a compaction gives is taken as the beginning of a new chain over a socket, with a message after it and no
    previous response.

    Source: Open Responses compliance suite, websocket-compact-new-chain (websocket.md §8, open-responses.md §9).
    """
    said: Json = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "My name is Ada."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello, Ada."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": GREETING}]},
    ]
    body = msgspec.json.encode({"model": server.model, "input": said})
    compacted = (await server.send("POST", "/responses/compact", body)).expect(200)
    async with talking(server) as talk:
        given: Json = [*output_items(compacted.body), {"type": "message", "role": "user", "content": GREETING}]
        first = await talk.ask(input=given, tools=[], store=False)
        expect_equal("the status", "completed", first.unless_refused(*TOOLS).answer.status)
        await _continued(talk, first.answer)


# Warm-ups.


async def _warmed(talk: Talk, **fields: Json) -> Turn:
    asked: dict[str, Json] = {"input": [{"role": "developer", "content": f"Answer in one sentence. {_LONG}"}], **fields}
    return await talk.ask(generate=False, store=False, **asked)


@chapter.needing(WARM_UP)
async def a_warm_up_is_a_response_without_items(server: Server) -> None:
    """With `generate` false a response is created and completed, with an empty output and no event of an item.

    Source: Guide, WebSocket mode, warm-up (websocket.md §2).
    """
    async with talking(server) as talk:
        turn = await _warmed(talk)
        expect_equal("the status", "completed", turn.answer.status)
        expect_equal("the output", [], turn.answer.output)
        kinds = [event.type for event in turn.stream.events]
        expect_equal("the first event", "response.created", kinds[0])
        strange = sorted({*kinds} - {"response.created", "response.queued", "response.in_progress", turn.end.type})
        expect(not strange, "no event but those of the response", strange)


@chapter.needing(WARM_UP)
async def a_warm_up_can_be_continued(server: Server) -> None:
    """The response of a warm-up is a previous response as any other.

    Source: Guide, WebSocket mode, warm-up; Codex begins every connection so (websocket.md §2, codex.md §7).
    """
    async with talking(server) as talk:
        await _continued(talk, (await _warmed(talk)).answer)


@chapter.needing(WARM_UP)
async def the_model_sees_what_was_warmed_up(server: Server) -> None:
    """The input of a warm-up is part of what comes after it.

    Source: Guide, WebSocket mode, warm-up (websocket.md §2).
    """
    async with talking(server) as talk:
        alone = input_tokens_of(await _said(talk))
        after = input_tokens_of(await _continued(talk, (await _warmed(talk)).answer))
        expect(after >= alone + 200, f"at least {alone + 200} input tokens after a long warm-up", after)


@chapter.needing(WARM_UP)
async def a_warm_up_continues_what_came_before(server: Server) -> None:
    """A warm-up may name a previous response itself, and what follows it has both before it.

    Source: Guide, WebSocket mode, warm-up: it takes what a create call takes (websocket.md §2).
    """
    async with talking(server) as talk:
        before = await _said(talk)
        turn = await _warmed(talk, previous_response_id=before.id)
        expect_equal("previous_response_id of the warm-up", before.id, turn.answer.previous_response_id)
        await _continued(talk, turn.answer)
