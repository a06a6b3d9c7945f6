"""Counting the tokens of a request without making a response."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rejoinder.conformance.answer import Page, create, read, refusal_in, skip_if_refused, usage_of
from rejoinder.conformance.errors import NotApplicable
from rejoinder.conformance.expectation import expect, expect_equal
from rejoinder.conformance.need import CONVERSATIONS, COUNTING, STORE
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import GREETING, UNKNOWN
from rejoinder.conformance.server import Json, Reply, Server

chapter = Chapter("counting", "Counting tokens", COUNTING)

_LONG = "word " * 400
_MORE = 200
"""400 words are at least so many tokens: no tokenizer makes fewer of them than half."""


class _Counted(msgspec.Struct):
    """All of a count."""

    object: Literal["response.input_tokens"]
    input_tokens: Annotated[int, Meta(ge=0)]


class _Tokens(msgspec.Struct):
    input_tokens: int


class _Id(msgspec.Struct):
    id: str


async def _ask(server: Server, **fields: Json) -> Reply:
    body = msgspec.json.encode({"model": server.model, **fields})
    return await server.send("POST", "/responses/input_tokens", body)


async def _count(server: Server, **fields: Json) -> int:
    return read(_Tokens, (await _ask(server, **fields)).expect(200).body, "a count").input_tokens


async def _short(server: Server) -> int:
    """The tokens of a greeting."""
    return await _count(server, input=GREETING)


@chapter.rule
async def a_count_is_an_object(server: Server) -> None:
    """A count has the object "response.input_tokens" and input_tokens, which is a whole number.

    Source: API reference, Get input token counts (http.md §1).
    """
    read(_Counted, (await _ask(server, input=GREETING)).expect(200).body, "a count")


@chapter.rule
async def more_is_counted_as_more(server: Server) -> None:
    """A longer input has more tokens.

    Source: API reference, Get input token counts (http.md §2.1).
    """
    short, long = await server.once(_short), await _count(server, input=f"{GREETING} {_LONG}")
    expect(long >= short + _MORE, f"at least {short + _MORE} tokens", long)


@chapter.rule
async def a_text_is_one_message(server: Server) -> None:
    """An input that is a text has as many tokens as the user's message with that text.

    Source: API reference, input (objects.md §1, http.md §2.1).
    """
    counted = await _count(server, input=[{"role": "user", "content": GREETING}])
    expect_equal("the tokens", await server.once(_short), counted)


@chapter.rule
async def instructions_are_counted(server: Server) -> None:
    """Instructions are part of what is counted.

    Source: API reference, Get input token counts (http.md §2.1).
    """
    short = await server.once(_short)
    counted = await _count(server, input=GREETING, instructions=_LONG)
    expect(counted >= short + _MORE, f"at least {short + _MORE} tokens", counted)


@chapter.rule
async def tools_are_counted(server: Server) -> None:
    """Tools are part of what is counted.

    Source: API reference, Get input token counts (http.md §2.1).
    """
    tool: Json = {"type": "function", "name": "story", "description": _LONG, "parameters": {"type": "object"}}
    reply = await _ask(server, input=GREETING, tools=[tool])
    skip_if_refused(reply, ("tools",))
    counted = read(_Tokens, reply.expect(200).body, "a count").input_tokens
    short = await server.once(_short)
    expect(counted >= short + _MORE, f"at least {short + _MORE} tokens", counted)


@chapter.needing(STORE)
async def what_was_said_before_is_counted(server: Server) -> None:
    """With a previous response all that was said before is counted.

    Source: API reference, Get input token counts (http.md §2.1).
    """
    parent = await create(server, input=f"Answer in one sentence. {_LONG}")
    short = await server.once(_short)
    counted = await _count(server, input=GREETING, previous_response_id=parent.id)
    expect(counted >= short + _MORE, f"at least {short + _MORE} tokens", counted)


async def _conversation(server: Server) -> str:
    """The id of a conversation in which much was said."""
    body = msgspec.json.encode({"items": [{"role": "user", "content": _LONG}]})
    reply = (await server.send("POST", "/conversations", body)).expect(200)
    return read(_Id, reply.body, "a conversation").id


@chapter.needing(CONVERSATIONS)
async def a_conversation_is_counted(server: Server) -> None:
    """With a conversation all that is in it is counted.

    Source: API reference, Get input token counts (http.md §2.1).
    """
    conversation = await server.once(_conversation)
    short = await server.once(_short)
    counted = await _count(server, input=GREETING, conversation=conversation)
    expect(counted >= short + _MORE, f"at least {short + _MORE} tokens", counted)


@chapter.rule
async def a_count_is_what_a_response_takes(server: Server) -> None:
    """What is counted is what a response to the same request takes. Counts that are estimates may be off, but not by
    half.

    Source: API reference, Get input token counts (http.md §2.1).
    """
    said = f"Answer in one sentence. {_LONG}"
    taken = usage_of(await create(server, input=said)).input_tokens
    if taken == 0:
        raise NotApplicable("the server counts no input tokens")
    counted = await _count(server, input=said)
    expect(taken / 2 <= counted <= taken * 2, f"about {taken} tokens", counted)


@chapter.rule
async def null_means_left_out(server: Server) -> None:
    """A parameter that is null is one that was left out.

    Source: API reference, Get input token counts (http.md §2.1).
    """
    names = ("instructions", "previous_response_id", "conversation", "tools", "tool_choice", "reasoning", "text")
    counted = await _count(server, input=GREETING, **dict.fromkeys(names))
    expect_equal("the tokens", await server.once(_short), counted)


@chapter.rule
async def a_wrong_request_is_refused(server: Server) -> None:
    """What is refused of a response is refused here: an input that is none, a previous response that is not there.

    Source: API reference, Get input token counts; guide, Error codes (http.md §2.1, §6.2).
    """
    refusal_in(await _ask(server, input=7), param="input")
    refusal_in(await _ask(server, input=GREETING, previous_response_id=UNKNOWN), 400, 404)


@chapter.needing(CONVERSATIONS)
async def counting_adds_nothing(server: Server) -> None:
    """What is counted as something said in a conversation is not added to it.

    Source: API reference, Get input token counts; guide, Conversation state (http.md §2.1, semantics.md §4).
    """
    conversation = await server.once(_conversation)
    await _count(server, input=GREETING, conversation=conversation)
    reply = (await server.get(f"/conversations/{conversation}/items")).expect(200)
    expect_equal("the number of items", 1, len(read(Page, reply.body, "a list of items").data))
