"""What the provider does wrong: how a refusal, a failure and a broken stream end, and who hears of what."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from rejoinder.conformance.answer import answer_in, create, read, refusal_in
from rejoinder.conformance.dialects import Dialect
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.need import PAIRED, RETRIEVAL, STORE
from rejoinder.conformance.paired import Scene, dialect_of, only_in, playing, soon
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.stream import Stream
from rejoinder.conformance.upstreams.script import (
    Asked,
    HttpError,
    Step,
    Trouble,
    answer,
    call,
    calls,
    death,
    raw,
    silence,
    text,
)

chapter = Chapter("faults", "Faults of the provider", PAIRED)

_WAIT = 5.0
_SOON = 2.0
"""Seconds: for what has to come at all, and for what has to come soon."""

_SECRET = "sk-proj-Zm9yIG5vYm9keXMgZXllcw4711"  # noqa: S105 - it opens nothing

_HALF = answer(text("Half a", " sentence."), trouble=Trouble("cut", 2))


async def _asked(server: Server, step: Step[Asked], *, stream: bool = False) -> Reply:
    """What a question is answered with when the provider does this, however often it is asked."""
    async with playing(server, step):
        return await server.post(input="Hello.", stream=stream)


@chapter.rule
async def a_refused_request_is_refused(server: Server) -> None:
    """When the provider calls a request wrong, unknown or too large, the client hears an error of its own: 400 to 499.

    Source: the providers' lists of errors (reliability.md §5, F4, mapping.md §6).
    """
    statuses = {400: (400,), 404: (400, 404), 413: (400, 413)}
    for status, accepted in statuses.items():
        reply = await _asked(server, HttpError(status, "This cannot be done."))
        error = refusal_in(reply, *accepted)
        expect(error.message, "a message", "none", at=reply.body)


@chapter.rule
async def a_rate_limit_says_when_to_come_again(server: Server) -> None:
    """When the provider is asked too often the client hears 429, and after how many seconds it may ask again.

    Source: Guide, Rate limits (reliability.md §5, F4, http.md §5).
    """
    limited = HttpError(429, "Slow down.", headers={"retry-after": "30"})
    reply = await _asked(server, limited)
    refusal_in(reply, 429)
    expect_equal("retry-after", "30", reply.headers.get("retry-after"))


_TOO_LONG: Mapping[Dialect, HttpError] = {
    "chat": HttpError(
        400,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        code="context_length_exceeded",
        param="messages",
    ),
    "anthropic": HttpError(400, "prompt is too long: 210000 tokens > 200000 maximum"),
    "gemini": HttpError(400, "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
    "responses": HttpError(
        400,
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        code="context_length_exceeded",
        param="input",
    ),
}
"""In the words of each provider."""


@chapter.rule
async def too_long_a_context_is_called_that(server: Server) -> None:
    """When the provider finds the context too long, the error has the code context_length_exceeded, as clients expect.

    Source: Codex and the SDKs look for it (mapping.md §6, http.md §6.2).
    """
    refusal_in(await _asked(server, _TOO_LONG[dialect_of(server)]), code="context_length_exceeded")


@chapter.rule
async def a_refused_key_is_no_fault_of_the_clients(server: Server) -> None:
    """When the provider does not take the server's key, the client hears 500 or above: its own key is good.

    Source: the providers' lists of errors (reliability.md §5, F4, mapping.md §6).
    """
    for status in (401, 403):
        reply = await _asked(server, HttpError(status, "You may not do this."))
        expect(reply.status >= 500, "a status of 500 or above", reply.excerpt, at=reply.body)


@chapter.rule
async def a_secret_is_not_passed_on(server: Server) -> None:
    """What looks like a key in the provider's words does not reach the client.

    Source: seen in the wild: providers repeat the key they refuse (reliability.md §6, S11, §5, F4).
    """
    page = f"<html><h1>401</h1>Bearer {_SECRET}</html>".encode()
    refusals: Sequence[Step[Asked]] = (
        HttpError(401, f"Incorrect API key provided: {_SECRET}."),
        HttpError(400, f"The key {_SECRET} may not use this model."),
        HttpError(500, raw=page),
    )
    for step in refusals:
        reply = await _asked(server, step)
        expect(_SECRET.encode() not in reply.body, "no key in an error", reply.excerpt, at=_SECRET.encode())


@chapter.rule
async def the_key_is_told_nobody(server: Server) -> None:
    """The key that the server has for its provider is in nothing that a client gets, not when the provider tells it.

    Source: the providers' advice (reliability.md §6, S1, S11).
    """
    assert server.provider is not None
    async with playing(server, answer(text("Well."))):
        replies = [await server.post(input="Hello."), await server.post(input="Hello.", stream=True)]
    key = server.provider.key
    if key is None:
        raise NotApplicable("the server has no key for its provider")
    page = f"<html>{key}</html>".encode()
    for step in (HttpError(401, f"Wrong: {key}"), HttpError(400, f"Wrong: {key}"), HttpError(503, raw=page)):
        replies += [await _asked(server, step), await _asked(server, step, stream=True)]
    for reply in replies:
        told = [reply.body.decode(errors="replace"), *reply.headers.values()]
        expect(not any(key in one for one in told), "nothing of the provider's key", "it", at=key.encode())


@chapter.rule
async def a_failure_stays_a_failure(server: Server) -> None:
    """When the provider fails, the client hears a status of 500 or above, which says that it may try again.

    Source: the providers' lists of errors (reliability.md §5, F4, mapping.md §6).
    """
    for status in (500, 503):
        reply = await _asked(server, HttpError(status, "Something is wrong."))
        expect(reply.status >= 500, "a status of 500 or above", reply.excerpt, at=reply.body)


@chapter.rule
async def a_lost_connection_is_a_failure(server: Server) -> None:
    """When the provider hangs up before it has said anything, the client hears a status of 500 or above.

    Source: Open Responses, errors (reliability.md §5, F4).
    """
    for step in (death("before_head"), death("in_head")):
        reply = await _asked(server, step)
        expect(reply.status >= 500, "a status of 500 or above", reply.excerpt, at=reply.body)


@chapter.rule
async def a_stream_is_refused_before_it_begins(server: Server) -> None:
    """What the provider refuses before its first byte is an error with its status also where a stream was asked for.

    Source: Open Responses, errors; observed of OpenAI (reliability.md §4, §5, F4).
    """
    limited = HttpError(429, "Slow down.", headers={"retry-after": "30"})
    refusal_in(await _asked(server, limited, stream=True), 429)


async def _failing(server: Server, step: Step[Asked]) -> Stream:
    """A stream that ends as failed. Raises Broken when it ends in another way."""
    stream = Stream.of(await _asked(server, step, stream=True))
    last = stream.events[-1]
    expect_equal("the last event", "response.failed", last.type, at=last.raw)
    expect_equal("the status", "failed", stream.answer.status, at=last.raw)
    return stream


@chapter.rule
async def a_broken_stream_fails(server: Server) -> None:
    """When the provider's connection ends in the middle of an answer, the stream ends with response.failed.

    Source: Open Responses, errors; the SDKs need a terminal event (reliability.md §5, F5, §1).
    """
    await _failing(server, _HALF)
    await _failing(server, answer(text("Half a", " sentence."), trouble=Trouble("reset", 2)))


@chapter.rule
async def a_stream_without_an_end_fails(server: Server) -> None:
    """An answer whose provider stops without saying that it is the end has failed: it is not taken for a whole one.

    Source: seen in the wild: truncated answers were taken for whole ones (reliability.md §5, F5, provider-chat.md §7).
    """
    await _failing(server, answer(text("Half a", " sentence."), trouble=Trouble("end", 2)))


@chapter.rule
async def nonsense_in_a_stream_fails(server: Server) -> None:
    """When the provider says what is no JSON in the middle of an answer, the stream ends with response.failed.

    Source: Open Responses, errors (reliability.md §5, F7).
    """
    await _failing(server, answer(text("Half a", " sentence."), trouble=Trouble("bad_json", 2)))


@chapter.rule
async def an_error_in_a_stream_fails(server: Server) -> None:
    """When the provider says in the middle of an answer that it failed, the stream ends with response.failed.

    Source: seen with many providers (reliability.md §5, F7, provider-chat.md §7).
    """
    await _failing(server, answer(text("Half a", " sentence."), trouble=Trouble("error", 2)))


@chapter.rule
async def no_answer_at_all_fails(server: Server) -> None:
    """When the provider answers with nothing, that is an error or a failed response, and no empty one.

    Source: seen in the wild: empty answers were stored as complete ones (reliability.md §5, F9).
    """
    reply = await _asked(server, raw(b""), stream=True)
    if reply.status < 500:
        last = Stream.of(reply).events[-1]
        expect_equal("the last event", "response.failed", last.type, at=last.raw)
    _expect_no_success(await _asked(server, raw(b"")))


def _expect_no_success(reply: Reply) -> None:
    if reply.status < 500:
        expect_equal("the status", "failed", answer_in(reply).status, at=reply.body)


@chapter.rule
async def a_broken_answer_is_no_success(server: Server) -> None:
    """An answer in one piece that the provider did not finish is an error, or a response that has failed.

    Source: Open Responses, errors (reliability.md §5, F5).
    """
    for trouble in (Trouble("cut", 2), Trouble("end", 2), Trouble("bad_json", 2)):
        _expect_no_success(await _asked(server, answer(text("Half a", " sentence."), trouble=trouble)))


@chapter.rule
async def what_came_is_in_the_failed_response(server: Server) -> None:
    """A response that failed in the middle has what came before in its output, as its deltas told it.

    Source: Open Responses, response.failed (reliability.md §5, F5, events.md §4).
    """
    stream = await _failing(server, _HALF)
    expect_equal("the text", "Half a", stream.answer.text, at=stream.events[-1].raw)


@chapter.rule
async def half_a_call_is_not_to_be_made(server: Server) -> None:
    """A call whose arguments the provider did not finish is not told as completed.

    Source: seen in the wild: half a call was executed (mapping.md §6, reliability.md §5, F5).
    """
    tool: Json = {
        "type": "function",
        "name": "look",
        "parameters": {"type": "object", "properties": {}},
        "strict": False,
    }
    broken = answer(calls(call("look", '{"place": ', '"Oslo"', "}")), trouble=Trouble("cut", 3))
    only_in(server, "chat", "anthropic", "responses", because="gives calls whole")
    async with playing(server, broken):
        stream = Stream.of(await server.post(input="Look.", tools=[tool], stream=True))
    for event, item in stream.items("output_item.done"):
        expect(item.type != "function_call" or item.status != "completed", "no completed call", "one", at=event.raw)


@chapter.rule
async def nothing_is_asked_twice_once_it_was_shown(server: Server) -> None:
    """Once the client has seen a part of an answer the provider is not asked for another one.

    Source: seen in the wild: answers said twice (reliability.md §6, S17, §5, F5).
    """
    async with playing(server, _HALF) as scene:
        Stream.of(await server.post(input="Hello.", stream=True))
    expect_equal("requests to the provider", 1, len(scene.requests))


@chapter.rule
async def the_last_word_may_be_missing(server: Server) -> None:
    """An answer that has said why it ends is complete, though `[DONE]` is missing at the end of the provider's stream.

    Source: seen with many providers (reliability.md §5, F6, provider-chat.md §7).
    """
    only_in(server, "chat", because="has no such word, or does not go without")
    async with playing(server, answer(text("Well."), done=False)):
        stream = Stream.of(await server.post(input="Hello.", stream=True))
    expect_equal("the last event", "response.completed", stream.events[-1].type, at=stream.events[-1].raw)
    expect_equal("the text", "Well.", stream.answer.text)


class _Status(msgspec.Struct):
    status: str | None = None


@chapter.needing(STORE, RETRIEVAL)
async def what_failed_is_not_kept_as_complete(server: Server) -> None:
    """A response that failed is found as failed later, or is not found.

    Source: Open Responses, response status (reliability.md §5, F5, §1).
    """
    stream = await _failing(server, _HALF)
    reply = await server.get(f"/responses/{stream.answer.id}")
    if reply.status != 404:
        expect_equal("the status", "failed", read(_Status, reply.expect(200).body, "a response").status)


async def _left(scene: Scene) -> bool:
    """Whether the provider is soon left alone with its answer."""
    sent = await scene.wait()
    return await soon(sent.left.is_set, _SOON)


@chapter.rule
async def who_leaves_a_stream_ends_it(server: Server) -> None:
    """When the client hangs up in the middle of a stream, the provider's answer is ended within two seconds.

    Source: observed of OpenAI, whose generation ends (reliability.md §5, F1, §1).
    """
    async with playing(server, answer(text("Half a", " sentence."), trouble=Trouble("stall", 2))) as scene:
        async with server.listening(input="Hello.", stream=True) as incoming:
            expect(await incoming.hears(b"Half a", _WAIT), "the first half", "nothing of it")
        expect(await _left(scene), "an end of the provider's answer", "none")


@chapter.rule
async def who_leaves_without_an_answer_ends_it(server: Server) -> None:
    """When the client hangs up while it waits for an answer in one piece, the provider's is ended within two seconds.

    Source: no text says it; money is spent for nobody otherwise (reliability.md §5, F2, §1).
    """
    async with playing(server, silence()) as scene:
        waiting = asyncio.create_task(server.post(input="Hello."))
        try:
            await scene.wait()
        finally:
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        expect(await _left(scene), "an end of the provider's answer", "none")


@chapter.rule
async def the_next_answer_is_as_good_as_ever(server: Server) -> None:
    """After a failure of the provider the next request is answered as if nothing had been.

    Source: no text says it; a failure is the provider's (reliability.md §5, F4, F5).
    """
    await _asked(server, HttpError(500, "Something is wrong."))
    await _asked(server, _HALF, stream=True)
    async with playing(server, answer(text("Well."))):
        told = await create(server, input="Hello.")
    expect_equal("status and text", ("completed", "Well."), (told.status, told.text))


_FLOOD = 32
_PIECE = "x" * 2**16


@chapter.rule
async def who_does_not_read_holds_the_provider_up(server: Server) -> None:
    """When the client stops reading, the server stops reading what the provider says, and does not pile it up.

    Source: no text says it; memory is no place for what nobody reads (reliability.md §5, F24, §1).
    """
    pieces = _FLOOD * 2**20 // len(_PIECE)
    async with playing(server, answer(text(*[_PIECE] * pieces))) as scene:
        async with server.listening(input="Hello.", stream=True) as incoming:
            expect(await incoming.hears(_PIECE[:99].encode(), _WAIT), "a first piece", "nothing of it")
            said = await _said(scene)
        scene.forget()
    expect(said < pieces * len(_PIECE), f"less than the {_FLOOD} MiB of the whole answer to be read", f"{said} bytes")


async def _said(scene: Scene) -> int:
    """How much the provider has said when it says no more."""
    said = -1
    while scene.said > said:
        said = scene.said
        await asyncio.sleep(0.4)
    return said
