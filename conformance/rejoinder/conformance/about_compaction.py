"""Compaction: a long conversation made shorter, by an endpoint of its own or within a response."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from rejoinder.conformance import grammar
from rejoinder.conformance.answer import Answer, Usage, answer_in, create, read, refusal_in, skip_if_refused
from rejoinder.conformance.expectation import expect, expect_equal, expect_same
from rejoinder.conformance.need import COMPACTION, RETRIEVAL
from rejoinder.conformance.rule import Chapter
from rejoinder.conformance.samples import GREETING, UNKNOWN, plain
from rejoinder.conformance.server import Json, Reply, Server
from rejoinder.conformance.stream import Stream

chapter = Chapter("compaction", "Compaction")

_ASKED = ("My name is Ada.", "I live in Oslo.")
_CONVERSATION: list[Json] = [
    {"role": "user", "content": _ASKED[0]},
    {"role": "assistant", "content": "Hello, Ada."},
    {"role": "user", "content": _ASKED[1]},
    {"role": "assistant", "content": "That is in Norway."},
]
_GO_ON: Json = {"role": "user", "content": "Go on."}
_TRIGGER: Json = {"type": "compaction_trigger"}


class _Details(msgspec.Struct):
    cached_tokens: int


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int


class _Usage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: _Details
    output_tokens: int
    output_tokens_details: _OutputDetails
    total_tokens: int


class _Compacted(msgspec.Struct):
    """What compacting answers with, all of its fields."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[msgspec.Raw]
    usage: _Usage


class _Output(msgspec.Struct):
    output: list[msgspec.Raw]


class _Item(msgspec.Struct):
    type: str | None = None
    role: str | None = None
    content: object = None


class _Compaction(msgspec.Struct):
    type: Literal["compaction"]
    id: Annotated[str, Meta(min_length=1)]
    encrypted_content: Annotated[str, Meta(min_length=1)]


class _Message(msgspec.Struct):
    type: Literal["message"]
    id: Annotated[str, Meta(min_length=1)]
    role: Literal["user"]
    status: Literal["completed"]
    content: list[msgspec.Raw]


async def _compact(server: Server, **fields: Json) -> Reply:
    body = msgspec.json.encode({"model": server.model, **fields})
    return await server.send("POST", "/responses/compact", body)


async def _compacted(server: Server) -> Reply:
    """A short conversation, compacted."""
    return (await _compact(server, input=_CONVERSATION)).expect(200)


def _output(reply: Reply) -> list[msgspec.Raw]:
    return read(_Output, reply.body, "a compacted response").output


def _types(output: list[msgspec.Raw]) -> list[str | None]:
    return [read(_Item, item, "an item").type for item in output]


@chapter.needing(COMPACTION)
async def a_compacted_response_has_its_fields(server: Server) -> None:
    """Compacting is answered with an id, the object "response.compaction", a time in whole seconds, output and usage.

    Source: API reference, Compact a response; Open Responses compliance suite, compact-response (http.md §2.2).
    """
    read(_Compacted, (await server.once(_compacted)).body, "a compacted response")


@chapter.needing(COMPACTION)
async def one_compaction_is_the_last_item(server: Server) -> None:
    """The output is what users said, and behind that exactly one compaction item.

    Source: Guide, Compaction; API reference, Compact a response (http.md §2.2).
    """
    types = _types(_output(await server.once(_compacted)))
    expect(types[-1:] == ["compaction"], "a compaction item at the end", types)
    expect_equal("what is before it", {"message"}, {"message", *types[:-1]})


@chapter.needing(COMPACTION)
async def a_compaction_has_its_fields(server: Server) -> None:
    """A compaction item has an id and its encrypted content, and nothing that is null.

    Source: Open Responses, compaction item (open-responses.md §4.1, objects.md §6.1).
    """
    for item in _output(await server.once(_compacted)):
        if read(_Item, item, "an item").type == "compaction":
            read(_Compaction, item, "a compaction item")
            fields = read(dict[str, object], item, "a compaction item")
            expect_equal("null fields:", [], [name for name, value in fields.items() if value is None])


@chapter.needing(COMPACTION)
async def what_users_said_stays(server: Server) -> None:
    """What users said stays as messages, in its order, each with an id and the status completed.

    Source: API reference, Compact a response; Open Responses, schema of items (http.md §2.2).
    """
    output = _output(await server.once(_compacted))
    kept = [item for item in output if read(_Item, item, "an item").type == "message"]
    texts = [_text(read(_Message, item, "a message that stays")) for item in kept]
    expect_equal("what is kept", list(_ASKED), texts)


def _text(message: _Message) -> str:
    return "".join(read(_Part, part, "a part").text for part in message.content)


class _Part(msgspec.Struct):
    text: str


@chapter.needing(COMPACTION)
async def a_text_can_be_compacted(server: Server) -> None:
    """The input may be a text, as that of a response, and parameters that are null are left out.

    Source: API reference, Compact a response (http.md §2.2).
    """
    reply = await _compact(server, input=GREETING, instructions=None, previous_response_id=None)
    expect("compaction" in _types(_output(reply.expect(200))), "a compaction item", reply.excerpt)


@chapter.needing(COMPACTION)
async def compacting_needs_a_model(server: Server) -> None:
    """Compacting without a model is status 400 or 422.

    Source: Open Responses compliance suite, compact-missing-model (http.md §2.2, open-responses.md §9).
    """
    body = msgspec.json.encode({"input": _CONVERSATION})
    (await server.send("POST", "/responses/compact", body)).expect(400, 422)


@chapter.needing(COMPACTION)
async def what_was_compacted_goes_on(server: Server) -> None:
    """The output of compacting, as it came and with something said behind it, is the input of a next response.

    Source: Guide, Compaction; Open Responses, compact (http.md §2.2, open-responses.md §6).
    """
    output = _output(await server.once(_compacted))
    answer = await create(server, input=[*output, _GO_ON], store=False)
    expect_equal("the status", "completed", answer.status)
    expect(answer.output, "an output with an item in it", "none")


@chapter.needing(COMPACTION)
async def what_goes_on_can_be_compacted_again(server: Server) -> None:
    """A conversation that begins with a compaction can be compacted, and has one compaction again.

    Source: Guide, Compaction; API reference, Compact a response (http.md §2.2).
    """
    output = _output(await server.once(_compacted))
    again = await _compact(server, input=[*output, _GO_ON, {"role": "assistant", "content": "I did."}])
    expect_equal("the number of compactions", 1, _types(_output(again.expect(200))).count("compaction"))


@chapter.needing(COMPACTION)
async def what_was_compacted_is_no_previous_response(server: Server) -> None:
    """The id of a compacted response is that of no response: nothing can be continued by it.

    Source: API reference, Compact a response; Open Responses, a new chain (http.md §2.2, open-responses.md §6).
    """
    reply = await server.once(_compacted)
    compacted = read(_Id, reply.body, "a compacted response").id
    refusal_in(await server.post(input=GREETING, previous_response_id=compacted), param="previous_response_id")


class _Id(msgspec.Struct):
    id: str


@chapter.needing(COMPACTION, RETRIEVAL)
async def a_stored_response_can_be_compacted(server: Server) -> None:
    """Compacting may begin with a previous response: what was said there is compacted, and the response stays.

    Source: API reference, Compact a response (http.md §2.2).
    """
    before = await server.once(plain)
    path = f"/responses/{answer_in(before).id}"
    reply = await _compact(server, previous_response_id=answer_in(before).id)
    expect("compaction" in _types(_output(reply.expect(200))), "a compaction item", reply.excerpt)
    after = (await server.get(path)).expect(200)
    expect_same("the response to stay", read(object, before.body, "one"), read(object, after.body, "one"))


@chapter.needing(COMPACTION)
async def what_is_unknown_cannot_be_compacted(server: Server) -> None:
    """Compacting from a previous response that is not there is refused, with status 400 or 404.

    Source: Guide, Error codes (http.md §2.2, §6.2).
    """
    refusal_in(await _compact(server, input=GREETING, previous_response_id=UNKNOWN), 400, 404)


@chapter.needing(COMPACTION)
async def the_usage_of_compacting_adds_up(server: Server) -> None:
    """The usage of compacting is that of a response: the total is input plus output.

    Source: API reference, Compact a response (http.md §2.2, objects.md §4).
    """
    usage = read(_Used, (await server.once(_compacted)).body, "a compacted response").usage
    expect_equal("total_tokens", usage.input_tokens + usage.output_tokens, usage.total_tokens)


class _Used(msgspec.Struct):
    usage: Usage


async def _triggered(server: Server) -> Reply:
    """A conversation that ends with the order to compact it. Raises NotApplicable where there is none."""
    reply = await server.post(input=[*_CONVERSATION, _TRIGGER])
    skip_if_refused(reply, ("input",))
    return reply.expect(200)


@chapter.rule
async def a_trigger_compacts_now(server: Server) -> None:
    """With a compaction_trigger as the last item, the output has a compaction item and is completed.

    Source: Guide, Compaction (semantics.md §8, objects.md §6.1).
    """
    reply = await server.once(_triggered)
    types = _types(_output(reply))
    expect_equal("the number of compactions", 1, types.count("compaction"))
    expect_equal("the status", "completed", read(Answer, reply.body, "a response").status)


@chapter.rule
async def a_trigger_is_the_last_item(server: Server) -> None:
    """A compaction_trigger that is not the last item is status 400.

    Source: API reference, compaction trigger (objects.md §6.1).
    """
    await server.once(_triggered)
    refusal_in(await server.post(input=[*_CONVERSATION, _TRIGGER, _GO_ON]), param="input")


@chapter.rule
async def what_a_trigger_made_goes_on(server: Server) -> None:
    """The compaction item that a trigger made stands for all that was said before, in the next input.

    Source: Guide, Compaction: items before the newest compaction may be dropped (semantics.md §8).
    """
    reply = await server.once(_triggered)
    made = [item for item in _output(reply) if read(_Item, item, "an item").type == "compaction"]
    answer = await create(server, input=[*made, _GO_ON], store=False)
    expect_equal("the status", "completed", answer.status)


@chapter.rule
async def a_triggered_compaction_can_be_streamed(server: Server) -> None:
    """Told in events, a compaction is added and done as every item, and has its encrypted content when it is done.

    Source: Guide, Compaction; guide, Streaming responses (semantics.md §8, events.md §4).
    """
    await server.once(_triggered)
    stream = Stream.of(await server.post(input=[*_CONVERSATION, _TRIGGER], stream=True))
    for rule in (grammar.numbering, grammar.lifecycle, grammar.pairing, grammar.output):
        rule(stream)
    done = [event.item for event, item in stream.items("output_item.done") if item.type == "compaction"]
    expect_equal("the number of compactions that are done", 1, len(done))
    read(_Compaction, done[0], "a compaction item")


def _managed(threshold: int) -> Json:
    return [{"type": "compaction", "compact_threshold": threshold}]


async def _short(server: Server) -> Answer:
    """A greeting that may be compacted when it is longer than it is. Raises NotApplicable where nothing may be."""
    return await create(server, optional=("context_management",), input=GREETING, context_management=_managed(100_000))


@chapter.rule
async def a_long_context_is_compacted(server: Server) -> None:
    """With context_management a conversation of more tokens than the threshold is compacted within the response, whose
    output has a compaction item; the answer is there all the same.

    Source: Guide, Compaction (semantics.md §8).
    """
    await server.once(_short)
    long: list[Json] = [
        {"role": "user", "content": "Tell me a story."},
        {"role": "assistant", "content": "And the fox went on. " * 800},
        {"role": "user", "content": "Thank you. Say goodbye."},
    ]
    answer = await create(server, input=long, context_management=_managed(1000))
    types = [item.type for item in answer.output]
    expect("compaction" in types, "a compaction item in the output", types)
    expect("message" in types, "a message in the output", types)


@chapter.rule
async def a_short_context_is_not_compacted(server: Server) -> None:
    """With context_management a conversation of fewer tokens than the threshold is answered without a compaction.

    Source: Guide, Compaction (semantics.md §8).
    """
    answer = await server.once(_short)
    types = [item.type for item in answer.output]
    expect("compaction" not in types, "no compaction item", types)


@chapter.rule
async def a_threshold_has_a_lowest_value(server: Server) -> None:
    """A threshold is at least 1000, and context_management has an entry at least, each a compaction; anything else is
    status 400.

    Source: API reference, context_management (objects.md §1).
    """
    await server.once(_short)
    wrong: list[Json] = [_managed(999), [], [{"type": "no_such_thing"}]]
    for management in wrong:
        reply = await server.post(input=GREETING, context_management=management)
        refusal_in(reply, param="context_management")
